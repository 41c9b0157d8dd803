//! Clients that work while something happens to the servers, and know what they must see.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgweir::devcluster::{APP, APP_DATABASE};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

use crate::harness::{LONG, Stage, connect_to, describe, wait_until, wait_until_or};

/// A row per write, that says which server took it; the key refuses what is sent twice.
pub const WRITTEN: &str = "CREATE TABLE written \
    (by int, n int, port text NOT NULL DEFAULT current_setting('port'), PRIMARY KEY (by, n))";

/// A read, as far as anybody can see, that tells whether a replica has served it.
pub const ON_REPLICA: &str = "CREATE FUNCTION on_replica() RETURNS bool STABLE LANGUAGE sql \
    AS $$ SELECT current_setting('in_hot_standby')::bool $$";

/// How many of whom.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    pub writers: i32,
    /// So many of the writers, the last ones, write in transactions of several statements.
    pub in_transactions: i32,
    pub readers: usize,
    pub idle: usize,
    /// What each of them rests after a read or a write.
    pub rest: Duration,
}

/// The longest time in which something did not happen.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    last: Instant,
    pub longest: Duration,
    /// When the longest time was over.
    pub over: Instant,
}

impl Gap {
    pub fn new() -> Gap {
        let now = Instant::now();
        Gap { last: now, longest: Duration::ZERO, over: now }
    }

    pub fn happened(&mut self) {
        let now = Instant::now();
        if now - self.last > self.longest {
            (self.longest, self.over) = (now - self.last, now);
        }
        self.last = now;
    }
}

/// What the clients were told, since the last time it was taken.
#[derive(Debug)]
pub struct Told {
    /// By SQLSTATE, those of autocommit statements and of transactions apart.
    pub errors: BTreeMap<String, u64>,
    /// One of each, in full.
    pub examples: BTreeMap<String, String>,
    pub disconnects: u64,
    /// An own write was not there, or a read went back.
    pub stale: Vec<String>,
    /// A read went back behind a write that nobody had been told of yet: it tells what is wrong, unless the
    /// fate of that write is in doubt.
    suspects: Vec<(Write, String)>,
    writes: Gap,
    reads: Gap,
    pub fates: Fates,
}

/// A writer, and the number that it wrote.
pub type Write = (i32, i32);

/// What was told of writes.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    pub acknowledged: BTreeSet<Write>,
    /// Nobody knows (08007, or a connection that was lost).
    pub in_doubt: BTreeSet<Write>,
    /// Those of them that a server said to have committed before it stopped, whether a standby had them or not.
    pub local: BTreeSet<Write>,
    /// They are not part of what goes on (40001), though a primary that is over may have them.
    pub rolled_back: BTreeSet<Write>,
    /// They have certainly not happened there, these among them.
    pub refused: BTreeSet<Write>,
}

/// What is added to the SQLSTATE of those that a server has committed without a standby's word.
pub const LOCAL_COMMIT: &str = " committed locally";

/// PostgreSQL's own words when it stops while a commit waits for a standby.
fn is_local_commit(error: &Error) -> bool {
    let detail = error.as_db_error().and_then(|error| error.detail());
    detail.is_some_and(|detail| detail.contains("already committed locally"))
}

impl Told {
    fn new() -> Told {
        Told {
            errors: BTreeMap::new(),
            examples: BTreeMap::new(),
            disconnects: 0,
            stale: Vec::new(),
            suspects: Vec::new(),
            writes: Gap::new(),
            reads: Gap::new(),
            fates: Fates::default(),
        }
    }

    pub fn write_gap(&self) -> Duration {
        self.writes.longest
    }

    pub fn read_gap(&self) -> Duration {
        self.reads.longest
    }

    /// When writes went on after the longest time without.
    pub fn writes_back(&self) -> Instant {
        self.writes.over
    }

    fn error(&mut self, what: &str, error: &Error) {
        let code = error.code().map_or("closed", |code| code.code());
        let local = if is_local_commit(error) { LOCAL_COMMIT } else { "" };
        let key = format!("{code}{local}{what}");
        self.examples.entry(key.clone()).or_insert_with(|| describe(error));
        *self.errors.entry(key).or_default() += 1;
    }
}

impl Fates {
    /// The lowest number of all these.
    pub fn oldest(&self) -> i32 {
        let all = self.acknowledged.iter().chain(&self.in_doubt).chain(&self.refused);
        all.map(|(_, n)| *n).min().unwrap_or(0)
    }

    /// May a primary that is over have it, and the others not?
    pub fn may_be_astray(&self, write: &Write) -> bool {
        self.in_doubt.contains(write) || self.rolled_back.contains(write)
    }
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    done: AtomicBool,
    /// Whenever it changes, those at work leave and come again.
    renewals: AtomicU32,
    writes: AtomicU64,
    reads: AtomicU64,
    told: Mutex<Told>,
    /// The newest acknowledged write of each writer.
    newest: Vec<AtomicI32>,
}

impl Shared {
    fn told<T>(&self, note: impl FnOnce(&mut Told) -> T) -> T {
        note(&mut self.told.lock().unwrap())
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    async fn connect(&self) -> Client {
        loop {
            match connect_to(self.address, APP, APP_DATABASE, "").await {
                Ok(client) => return client,
                Err(error) => self.told(|told| told.error(" at connecting", &error)),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn seat(&self) -> Seat {
        let renewals = self.renewals.load(Ordering::Relaxed);
        Seat { client: self.connect().await, renewals }
    }
}

/// A working client's connection.
struct Seat {
    client: Client,
    /// When it came, so many renewals had been.
    renewals: u32,
}

impl Seat {
    /// Takes another connection if this one was closed, or is to be renewed. True: what its session was promised
    /// is over.
    async fn is_new(&mut self, shared: &Shared) -> bool {
        if self.client.is_closed() {
            shared.told(|told| told.disconnects += 1);
        } else if self.renewals == shared.renewals.load(Ordering::Relaxed) {
            return false;
        }
        *self = shared.seat().await;
        true
    }
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    idle: Vec<Client>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// They begin to work through the pgweir at `address`.
    pub fn start(stage: &Stage, address: SocketAddr, crowd: Crowd) -> Load {
        let shared = Arc::new(Shared {
            address,
            done: AtomicBool::new(false),
            renewals: AtomicU32::new(0),
            writes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            told: Mutex::new(Told::new()),
            newest: (0..crowd.writers).map(|_| AtomicI32::new(-1)).collect(),
        });
        stage.run(async {
            let mut tasks = Vec::new();
            for by in 0..crowd.writers {
                let in_transactions = by >= crowd.writers - crowd.in_transactions;
                tasks.push(tokio::spawn(writer(shared.clone(), by, in_transactions, crowd.rest)));
            }
            for index in 0..crowd.readers {
                tasks.push(tokio::spawn(reader(shared.clone(), index, crowd.rest)));
            }
            let mut idle = Vec::new();
            for _ in 0..crowd.idle {
                let client = shared.connect().await;
                client.batch_execute("SET search_path = public, pg_catalog").await.unwrap();
                idle.push(client);
            }
            Load { shared, idle, tasks }
        })
    }

    /// Waits until so many further writes were acknowledged, and reads answered.
    pub fn goes_on(&self, writes: u64, reads: u64, what: &str) {
        let now = || (self.shared.writes.load(Ordering::Relaxed), self.shared.reads.load(Ordering::Relaxed));
        let before = now();
        wait_until_or(
            what,
            || {
                let now = now();
                now.0 >= before.0 + writes && now.1 >= before.1 + reads
            },
            || format!("{before:?} -> {:?}; {:#?}", now(), self.shared.told(|told| told.examples.clone())),
        );
    }

    /// Waits until each writer was told of a write that it began after this.
    pub fn all_write(&self, what: &str) {
        let now =
            || self.shared.newest.iter().map(|newest| newest.load(Ordering::Relaxed)).collect::<Vec<_>>();
        // The first one may have begun before.
        for _ in 0..2 {
            let before = now();
            wait_until(what, || now().iter().zip(&before).all(|(now, before)| now > before));
        }
    }

    /// Waits until no write was acknowledged for so long.
    pub fn stands_still(&self, long: Duration, what: &str) {
        let mut since = (self.shared.writes.load(Ordering::Relaxed), Instant::now());
        wait_until(what, || {
            let writes = self.shared.writes.load(Ordering::Relaxed);
            if writes != since.0 {
                since = (writes, Instant::now());
            }
            since.1.elapsed() >= long
        });
    }

    /// Nothing was told yet.
    pub fn forget(&self) {
        self.shared.told(|told| *told = Told::new());
    }

    /// What was told since.
    pub fn told(&self) -> Told {
        let mut told = self.shared.told(|told| {
            told.writes.happened();
            told.reads.happened();
            std::mem::replace(told, Told::new())
        });
        let suspects = std::mem::take(&mut told.suspects).into_iter();
        let proven = suspects.filter(|(write, _)| !told.fates.may_be_astray(write));
        told.stale.extend(proven.map(|(_, what)| what));
        told
    }

    /// How many idle clients are not there any more, or do not know what they have set.
    pub fn idle_lost(&self, stage: &Stage) -> usize {
        stage.run(async {
            let mut lost = 0;
            for client in &self.idle {
                let shown = tokio::time::timeout(LONG, client.simple_query("SHOW search_path")).await;
                let path = shown.ok().and_then(Result::ok).as_deref().and_then(crate::harness::first_value);
                lost += usize::from(path.as_deref() != Some("public, pg_catalog"));
            }
            lost
        })
    }

    /// Those at work leave when they have done what they are doing, and come again.
    pub fn renew(&self) {
        self.shared.renewals.fetch_add(1, Ordering::Relaxed);
    }

    /// The idle ones leave, and come again.
    pub fn renew_idle(&mut self, stage: &Stage) {
        let count = self.idle.len();
        self.idle.clear();
        stage.run(async {
            for _ in 0..count {
                let client = self.shared.connect().await;
                client.batch_execute("SET search_path = public, pg_catalog").await.unwrap();
                self.idle.push(client);
            }
        });
    }

    pub fn stop(self, stage: &Stage) {
        self.shared.done.store(true, Ordering::Relaxed);
        stage.run(async {
            for task in self.tasks {
                tokio::time::timeout(LONG, task).await.expect("a client hangs").unwrap();
            }
        });
    }
}

async fn writer(shared: Arc<Shared>, by: i32, in_transactions: bool, rest: Duration) {
    let mut seat = shared.seat().await;
    let mut newest: Option<i32> = None;
    for n in 0.. {
        if shared.is_done() {
            return;
        }
        let (written, what) = match in_transactions {
            false => (insert(&seat.client, by, n).await, ""),
            true => (transaction(&seat.client, by, n).await, " in a transaction"),
        };
        match written {
            Ok(()) => {
                newest = Some(n);
                shared.told(|told| {
                    told.writes.happened();
                    told.fates.acknowledged.insert((by, n));
                });
                shared.newest[by as usize].store(n, Ordering::Release);
                shared.writes.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let is_known = error.code().is_some_and(|code| code.code() != "08007");
                shared.told(|told| {
                    let fates = &mut told.fates;
                    let fate = if is_known { &mut fates.refused } else { &mut fates.in_doubt };
                    fate.insert((by, n));
                    if error.code().is_some_and(|code| code.code() == "40001") {
                        fates.rolled_back.insert((by, n));
                    }
                    if is_local_commit(&error) {
                        fates.local.insert((by, n));
                    }
                    told.error(what, &error);
                });
                if in_transactions && !seat.client.is_closed() {
                    // Whatever is left of it.
                    drop(seat.client.batch_execute("ROLLBACK").await);
                }
            }
        }
        if seat.is_new(&shared).await {
            newest = None;
        }
        match newest_of(&seat.client, by).await {
            Ok(seen) if seen < newest => {
                let what = format!("writer {by} wrote {newest:?} and then saw {seen:?}");
                shared.told(|told| told.stale.push(what));
            }
            Ok(_) => {}
            Err(error) => shared.told(|told| told.error(" of a read", &error)),
        }
        if seat.is_new(&shared).await {
            newest = None;
        }
        tokio::time::sleep(rest).await;
    }
}

/// Autocommit, in the simple or the extended protocol.
async fn insert(client: &Client, by: i32, n: i32) -> Result<(), Error> {
    match n % 2 {
        0 => client.batch_execute(&format!("INSERT INTO written (by, n) VALUES ({by}, {n})")).await,
        _ => {
            client.execute("INSERT INTO written (by, n) VALUES ($1, $2)", &[&by, &n]).await?;
            Ok(())
        }
    }
}

async fn transaction(client: &Client, by: i32, n: i32) -> Result<(), Error> {
    client.batch_execute("BEGIN").await?;
    client.execute("INSERT INTO written (by, n) VALUES ($1, $2)", &[&by, &n]).await?;
    client.query("SELECT count(*) FROM written WHERE by = $1 AND n > $2", &[&by, &(n - 10)]).await?;
    client.batch_execute("COMMIT").await
}

async fn newest_of(client: &Client, by: i32) -> Result<Option<i32>, Error> {
    Ok(client.query_one("SELECT max(n) FROM written WHERE by = $1", &[&by]).await?.get(0))
}

/// What a reader has been shown of one writer.
#[derive(Clone, Copy, Default)]
struct Seen {
    anywhere: Option<i32>,
    on_primary: Option<i32>,
}

impl Seen {
    /// A read that began when `acknowledged` was the newest of which the writer had been told shows `newest`.
    /// The write that it does not show, and must.
    fn misses(&self, newest: Option<i32>, replica: bool, acknowledged: i32) -> Option<i32> {
        // A standby can show a commit that its primary does not show yet: level session does not promise that
        // a read there waits for it, until somebody has been told of that commit.
        let promised = self.anywhere.filter(|&n| replica || n <= acknowledged).max(self.on_primary);
        promised.filter(|_| newest < promised)
    }

    fn learn(&mut self, newest: Option<i32>, replica: bool) {
        self.anywhere = self.anywhere.max(newest);
        if !replica {
            self.on_primary = self.on_primary.max(newest);
        }
    }
}

/// Reads the newest write of each writer in turn: it never goes back.
async fn reader(shared: Arc<Shared>, index: usize, rest: Duration) {
    let mut seat = shared.seat().await;
    let mut seen = vec![Seen::default(); shared.newest.len()];
    for round in index.. {
        if shared.is_done() {
            return;
        }
        let by = round % seen.len();
        let acknowledged = shared.newest[by].load(Ordering::Acquire);
        match newest_with_server(&seat.client, by as i32).await {
            Ok((newest, replica)) => {
                if let Some(missed) = seen[by].misses(newest, replica, acknowledged) {
                    let on = if replica { "a replica" } else { "the primary" };
                    let what = format!("reader {index} saw {missed} of {by}, then {newest:?} on {on}");
                    shared.told(|told| told.suspects.push(((by as i32, missed), what)));
                    // Said once.
                    seen[by] = Seen::default();
                }
                seen[by].learn(newest, replica);
                shared.reads.fetch_add(1, Ordering::Relaxed);
                shared.told(|told| told.reads.happened());
            }
            Err(error) => shared.told(|told| told.error(" of a read", &error)),
        }
        if seat.is_new(&shared).await {
            // Another session promises nothing about what the one before has read.
            seen.fill(Seen::default());
        }
        tokio::time::sleep(rest).await;
    }
}

/// The newest write of a writer, and whether a replica has shown it.
async fn newest_with_server(client: &Client, by: i32) -> Result<(Option<i32>, bool), Error> {
    let sql = "SELECT max(n), on_replica() FROM written WHERE by = $1";
    let row = client.query_one(sql, &[&by]).await?;
    Ok((row.get(0), row.get(1)))
}
