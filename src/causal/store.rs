//! Causal keys in a Valkey or Redis that several pgweirs share.
//!
//! Each key is a hash: `at`, the newest position written under it, and for each write on its way `d…`: until
//! when that is believed, by the store's clock. Who is about to write says so first; who reads while somebody
//! is about to write turns to the primary. So a writer that loses the store between the two harms nobody, and
//! one that never comes back is forgotten by itself.
//!
//! A key that is not there needs what the *base* says: the primary's position when this run of the store
//! was first met. A store that was restarted, empty or with an old dump, is another run. All that was
//! recorded before lies below the base; what could not be recorded is beside it, as *missed*, because it says
//! nothing about what others had recorded before.
//!
//! A replica of the store may be behind, and one that was a primary may become one: so reading, too, does
//! what only a primary does.

use crate::clock;
use crate::config::settings::CausalSettings;
use crate::freshness::token::Token;
use crate::lsn::{Lsn, TimelineId, WalPosition};
use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// A connection that cannot be made is tried again after this, and ever longer up to the limit.
const RETRY: Duration = Duration::from_millis(20);
const RETRY_LIMIT: Duration = Duration::from_secs(1);

/// A run of the store that nobody uses any more leaves its base behind for so long, in milliseconds.
const BASE_EXPIRY: u64 = 7 * 86_400_000;

const NOW: &str = "local t=redis.call('TIME') local now=t[1]*1000+math.floor(t[2]/1000) ";

/// KEYS: key, base, missed. → position, is somebody about to write, base.
const READ: &str = "redis.call('HDEL',KEYS[1],'') \
local all=redis.call('HGETALL',KEYS[1]) local at='' local doubt=0 \
for i=1,#all,2 do local f=all[i] \
if f=='at' then at=all[i+1] \
elseif string.sub(f,1,1)=='d' and tonumber(all[i+1])>now then doubt=1 end end \
local base=redis.call('GET',KEYS[2]) or '' local missed=redis.call('GET',KEYS[3]) or '' \
if base~='' and base<missed then base=missed end \
return {at,doubt,base}";

/// KEYS: key. ARGV: expiry in milliseconds, intent. Of many, those that are not believed any more are dropped.
const INTEND: &str = "if redis.call('HLEN',KEYS[1])>32 then local all=redis.call('HGETALL',KEYS[1]) \
for i=1,#all,2 do if string.sub(all[i],1,1)=='d' and tonumber(all[i+1])<=now then \
redis.call('HDEL',KEYS[1],all[i]) end end end \
redis.call('HSET',KEYS[1],ARGV[2],string.format('%.0f',now+ARGV[1])) \
redis.call('PEXPIRE',KEYS[1],ARGV[1]) return 1";

/// KEYS: key. ARGV: expiry in milliseconds, position (empty: none), intents that are over.
const RECORD: &str = "if ARGV[2]~='' then local c=redis.call('HGET',KEYS[1],'at') \
if not c or c<ARGV[2] then redis.call('HSET',KEYS[1],'at',ARGV[2]) end end \
for i=3,#ARGV do redis.call('HDEL',KEYS[1],ARGV[i]) end \
redis.call('PEXPIRE',KEYS[1],ARGV[1]) return 1";

/// KEYS: base or missed. ARGV: position, expiry in milliseconds.
const RAISE: &str = "local c=redis.call('GET',KEYS[1]) \
if not c or c<ARGV[1] then redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) end return 1";

/// A write that was announced, by its number.
pub type Intent = u64;

/// A run of the store, as it was met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run(String);

/// What the store says about a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The newest position written under it.
    pub at: Option<Token>,
    /// Is somebody about to write under it?
    pub in_doubt: bool,
    /// What a key needs that is not there; `None`: nobody has met this run of the store yet.
    pub base: Option<Token>,
}

/// It did not answer in time, or not what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the store of causal keys: {0}")]
pub struct StoreDown(pub String);

/// See the file's head.
pub struct Store {
    client: Client,
    link: ArcSwapOption<Link>,
    broken: Notify,
    patience: Duration,
    expiry: u64,
    prefix: String,
    /// Who we are: nobody else.
    process: String,
    intents: AtomicU64,
    failures: AtomicU64,
    /// The newest position that could not be recorded.
    unrecorded: Mutex<Option<Token>>,
}

struct Link {
    connection: MultiplexedConnection,
    run: Run,
    base: String,
    missed: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Store {
    /// Not connected yet: [`Store::run`] does that. `None`: none is configured.
    ///
    /// # Errors
    /// Its URL is none.
    pub fn new(settings: &CausalSettings) -> Result<Option<Store>, RedisError> {
        let Some(url) = &settings.store else { return Ok(None) };
        let random = RandomState::new();
        Ok(Some(Store {
            client: Client::open(url.reveal())?,
            link: ArcSwapOption::empty(),
            broken: Notify::new(),
            patience: settings.store_timeout,
            expiry: u64::try_from(settings.expiry.as_millis()).unwrap_or(u64::MAX),
            prefix: settings.prefix.clone(),
            process: format!("{:016x}{:016x}", random.hash_one(1), random.hash_one(clock::now().0)),
            intents: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            unrecorded: Mutex::new(None),
        }))
    }

    /// Does it answer?
    pub fn is_up(&self) -> bool {
        self.link.load().is_some()
    }

    /// How often it did not.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Keeps one connection. Endless.
    pub async fn run(self: Arc<Store>) {
        let mut pause = RETRY;
        let mut told = false;
        loop {
            // What was missed while the connection was being made is made up for by another one.
            if self.is_up() && self.unrecorded().is_none() {
                self.broken.notified().await;
                continue;
            }
            match timeout(self.patience.max(RETRY_LIMIT), self.connect()).await {
                Ok(Ok(link)) => {
                    tracing::info!("the store of causal keys answers");
                    self.link.store(Some(Arc::new(link)));
                    (pause, told) = (RETRY, false);
                }
                other => {
                    if !std::mem::replace(&mut told, true) {
                        let why = other.map_or("no answer in time".to_owned(), |result| {
                            result.err().map(|error| error.to_string()).unwrap_or_default()
                        });
                        tracing::warn!(
                            "the store of causal keys does not answer, reads under keys go to the primary: {why}"
                        );
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LIMIT);
                }
            }
        }
    }

    async fn connect(&self) -> Result<Link, RedisError> {
        // Both are bounded here, in one place.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        // A restart ends every connection: what this one meets is this run.
        let about: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let run = about.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim();
        if run.is_empty() {
            return Err(RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no run_id in INFO")));
        }
        self.warn_of_eviction(&mut connection).await?;
        let [base, missed] = ["base", "missed"].map(|what| format!("{}:{what}:{run}", self.prefix));
        let newest = *self.unrecorded();
        if let Some(newest) = newest {
            // From now on every key needs at least what was written while nobody could be told.
            let mut script = script(RAISE, &[&missed]);
            script.arg(written(newest)).arg(BASE_EXPIRY);
            script.query_async::<u8>(&mut connection).await?;
            self.unrecorded().take_if(|token| written(*token) <= written(newest));
        }
        Ok(Link { connection, run: Run(run.to_owned()), base, missed })
    }

    fn unrecorded(&self) -> MutexGuard<'_, Option<Token>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A store that throws keys away when memory is short forgets floors, unseen.
    async fn warn_of_eviction(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let about: String = redis::cmd("INFO").arg("memory").query_async(connection).await?;
        let value =
            |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        if value("maxmemory:") != "0" && value("maxmemory_policy:") != "noeviction" {
            tracing::warn!(
                "the store of causal keys may evict them (maxmemory-policy {}): set noeviction",
                value("maxmemory_policy:")
            );
        }
        Ok(())
    }

    /// What is recorded of `key`. One round trip.
    ///
    /// # Errors
    /// It does not answer in time, or nonsense: the primary is to be asked.
    pub async fn read(&self, key: &str) -> Result<Recorded, StoreDown> {
        let link = self.link()?;
        let script = script(READ, &[&self.name(key), &link.base, &link.missed]);
        let (at, doubt, base): (String, u8, String) = self.ask(&link, &script).await?;
        Ok(Recorded { at: position(&at)?, in_doubt: doubt != 0, base: position(&base)? })
    }

    /// Somebody is about to write under `key`.
    ///
    /// # Errors
    /// As for [`Store::read`]; it may have been noted all the same.
    pub async fn intend(&self, key: &str) -> Result<Intent, StoreDown> {
        let link = self.link()?;
        let intent = self.intents.fetch_add(1, Ordering::Relaxed);
        let mut script = script(INTEND, &[&self.name(key)]);
        script.arg(self.expiry).arg(self.field(intent));
        self.ask::<u8>(&link, &script).await.map(|_| intent)
    }

    /// These intents are over. `at` covers what was written, if anything was.
    ///
    /// # Errors
    /// As for [`Store::read`]; it may have been recorded all the same.
    pub async fn record(&self, key: &str, over: &[Intent], at: Option<Token>) -> Result<(), StoreDown> {
        let mut script = script(RECORD, &[&self.name(key)]);
        script.arg(self.expiry).arg(at.map(written).unwrap_or_default());
        for intent in over {
            script.arg(self.field(*intent));
        }
        let asked = match self.link() {
            Ok(link) => self.ask::<u8>(&link, &script).await.map(drop),
            Err(down) => Err(down),
        };
        if let (Err(_), Some(at)) = (&asked, at) {
            let mut unrecorded = self.unrecorded();
            if unrecorded.is_none_or(|newest| written(newest) < written(at)) {
                *unrecorded = Some(at);
            }
            drop(unrecorded);
            // The connection that is made next makes up for it.
            self.link.store(None);
            self.broken.notify_one();
        }
        asked
    }

    /// The run of the store that is connected now.
    ///
    /// # Errors
    /// None is.
    pub fn met(&self) -> Result<Run, StoreDown> {
        self.link().map(|link| link.run.clone())
    }

    /// A key that is not there needs at least this: a position of the primary's from after `run` was met.
    ///
    /// # Errors
    /// As for [`Store::read`], or it is another run by now.
    pub async fn found_base(&self, run: &Run, to: Token) -> Result<(), StoreDown> {
        let link = self.link()?;
        if link.run != *run {
            return Err(StoreDown("it was started again".to_owned()));
        }
        self.raise(&link, &link.base, to).await
    }

    /// Every key needs at least this.
    ///
    /// # Errors
    /// As for [`Store::read`].
    pub async fn raise_all(&self, to: Token) -> Result<(), StoreDown> {
        let link = self.link()?;
        self.raise(&link, &link.missed, to).await
    }

    async fn raise(&self, link: &Arc<Link>, name: &str, to: Token) -> Result<(), StoreDown> {
        let mut script = script(RAISE, &[name]);
        script.arg(written(to)).arg(BASE_EXPIRY);
        self.ask::<u8>(link, &script).await.map(drop)
    }

    /// A key that is not there was not written for so long: a little less than it is kept, because two clocks
    /// measure it.
    pub fn silence(&self) -> Duration {
        let expiry = Duration::from_millis(self.expiry);
        expiry - expiry / 100
    }

    fn field(&self, intent: Intent) -> String {
        format!("d{}.{intent}", self.process)
    }

    fn name(&self, key: &str) -> String {
        format!("{}:key:{key}", self.prefix)
    }

    fn link(&self) -> Result<Arc<Link>, StoreDown> {
        self.link.load_full().ok_or_else(|| {
            self.failures.fetch_add(1, Ordering::Relaxed);
            StoreDown("not connected".to_owned())
        })
    }

    async fn ask<T: FromRedisValue>(&self, link: &Arc<Link>, script: &Cmd) -> Result<T, StoreDown> {
        let mut connection = link.connection.clone();
        let why = match timeout(self.patience, script.query_async(&mut connection)).await {
            Ok(Ok(answer)) => return Ok(answer),
            // An error that it tells is an answer: the connection is as good as before.
            Ok(Err(error)) if error.code().is_some() => error.to_string(),
            Ok(Err(error)) => {
                self.give_up(link);
                error.to_string()
            }
            Err(_) => {
                self.give_up(link);
                format!("no answer within {:?}", self.patience)
            }
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        Err(StoreDown(why))
    }

    /// Nobody waits for this connection again; another one is made.
    fn give_up(&self, link: &Arc<Link>) {
        let before = self.link.compare_and_swap(link, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, link)) {
            tracing::warn!("the store of causal keys has stopped answering");
            self.broken.notify_one();
        }
    }
}

fn script(body: &str, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(format!("{NOW}{body}")).arg(keys.len()).arg(keys);
    command
}

/// Of fixed width, so that the store compares texts: timeline first.
fn written(token: Token) -> String {
    format!("{:010}.{:020}", token.at.timeline.0, token.at.lsn.0)
}

fn position(text: &str) -> Result<Option<Token>, StoreDown> {
    if text.is_empty() {
        return Ok(None);
    }
    let nonsense = || StoreDown("it answers what pgweir has not written".to_owned());
    let (timeline, lsn) = text.split_once('.').ok_or_else(nonsense)?;
    let timeline = TimelineId(timeline.parse().map_err(|_| nonsense())?);
    let lsn = Lsn(lsn.parse().map_err(|_| nonsense())?);
    Ok(Some(Token { system: None, at: WalPosition { timeline, lsn } }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_compared_as_texts() {
        let at = |timeline, lsn| Token {
            system: None,
            at: WalPosition { timeline: TimelineId(timeline), lsn: Lsn(lsn) },
        };
        let grown = [at(1, 0), at(1, 9), at(1, 10), at(1, u64::MAX), at(2, 1), at(10, 0), at(u32::MAX, 0)];
        assert!(grown.windows(2).all(|pair| written(pair[0]) < written(pair[1])));
        assert!(grown.iter().all(|token| position(&written(*token)) == Ok(Some(*token))));
        assert_eq!(position(""), Ok(None));
        assert!(["x", "1", "1.", ".1", "1.x", "4294967296.0"].iter().all(|text| position(text).is_err()));
    }
}
