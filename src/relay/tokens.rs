//! Tokens in and out: a position that a client requires, and one that covers all it has written and seen.

use crate::causal::store::{Recorded, Store};
use crate::clock;
use crate::config::settings::OnMismatch;
use crate::fault::{Fault, SqlState};
use crate::freshness::token::{InvalidToken, Proof, Token};
use crate::lsn::Lsn;
use crate::moment::Moment;
use crate::relay::answer::Digested;
use crate::relay::bonds::Withheld;
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::routing::reason::Reason;
use crate::routing::request::Demand;
use crate::wire::writers::{self, Severity};
use std::time::Duration;

/// A sample of the primary takes a millisecond; after so long there is none.
const SAMPLE_WAIT: Duration = Duration::from_secs(2);

/// What to ask of a replica, and what the client is to be told besides.
pub(super) type Required = (Demand, Option<Box<Fault>>);

impl Client {
    /// What a token asks of a replica. One that cannot be proven asks for the primary, or fails, as
    /// `routing.token_mismatch` says; what is no token fails.
    pub(super) async fn require(&self, text: &str) -> Result<Required, Fault> {
        let token: Token = text.parse().map_err(|error| malformed(text, error))?;
        let fault = match self.prove(&token).await {
            Ok(moment) => return Ok((Demand::by(moment), None)),
            Err(fault) => fault,
        };
        match self.context.config.load().routing.token_mismatch {
            OnMismatch::Error => Err(fault),
            OnMismatch::Warning => {
                let fault = fault.hint("Reads go to the primary while the token is required.");
                Ok((Demand::barred(Reason::TokenUnproven), Some(Box::new(fault))))
            }
        }
    }

    /// The moment that covers a token. One from the future is told from one that is newer than the last
    /// sample by another sample, sent after it came.
    async fn prove(&self, token: &Token) -> Result<Moment, Fault> {
        let monitor = &self.context.monitor;
        let came = clock::now();
        let until = came.plus(SAMPLE_WAIT);
        let mut kicked = false;
        loop {
            let seen = monitor.publications();
            match monitor.prove(token) {
                Proof::By(moment) => return Ok(moment),
                Proof::Newer { than } if than >= came => return Err(from_the_future(token)),
                Proof::Foreign(system) => return Err(foreign(token, system)),
                Proof::LeftBehind(timeline) => return Err(left_behind(token, timeline.0)),
                Proof::Lost { next, fork } => return Err(lost(token, next.0, fork)),
                Proof::Newer { .. } | Proof::NoSample if clock::now() >= until => return Err(not_sampled()),
                Proof::Newer { .. } | Proof::NoSample => {}
            }
            if !std::mem::replace(&mut kicked, true) {
                monitor.kick();
            }
            monitor.changed_since(seen, until).await;
        }
    }

    /// A token that covers all that this session has written and seen.
    pub(super) async fn token(&self) -> Result<Token, Fault> {
        let state = &self.session.state;
        let written = state.floor.write.map_or(Moment::NEVER, |(at, _)| at);
        let read = state.floor.read.map_or(Moment::NEVER, |read| read.at);
        let moment = written.max(read).max(state.demand.insert);
        let until = clock::now().plus(SAMPLE_WAIT);
        self.context.monitor.position_since(moment, until).await.ok_or_else(not_sampled)
    }

    /// What the store demands of a read under `key`.
    pub(super) async fn demand_in(&self, store: &Store, key: &str) -> Demand {
        let recorded = match store.read(key).await {
            Ok(recorded) => recorded,
            Err(down) => {
                tracing::debug!("{down}");
                return Demand::barred(Reason::CausalStoreDown);
            }
        };
        let Recorded { at, in_doubt, base } = recorded;
        if in_doubt {
            return Demand::barred(Reason::CausalKeyInDoubt);
        }
        let base = base.map_or(Demand::barred(Reason::CausalStoreDown), |base| self.demand_by(&base));
        let base = match base.barred {
            Some(_) => self.found_base(store).await,
            None => base,
        };
        // What has expired may be more than a replica has that may serve in spite of its lag (by a rule).
        let unheard = || Demand::by(clock::now().minus(store.silence()).max(Moment(1)));
        at.map_or_else(unheard, |at| self.demand_by(&at)).and(base)
    }

    /// What pgweirs have recorded is honest: what is newer than every sample is covered by the present.
    fn demand_by(&self, token: &Token) -> Demand {
        let now = clock::now();
        match self.context.monitor.prove(token) {
            Proof::By(moment) => Demand::by(moment),
            Proof::Newer { .. } if self.context.monitor.timeline() == Some(token.at.timeline) => {
                Demand::by(now)
            }
            _ => Demand::barred(Reason::TokenUnproven),
        }
    }

    /// Nobody has met this run of the store yet, or its base is of a timeline that is left behind: what
    /// was recorded before lies below the primary's position from now on.
    async fn found_base(&self, store: &Store) -> Demand {
        let Ok(run) = store.met() else { return Demand::barred(Reason::CausalStoreDown) };
        let now = clock::now();
        let Some(token) = self.context.monitor.position_since(now, now.plus(SAMPLE_WAIT)).await else {
            return Demand::barred(Reason::TokenUnproven);
        };
        match store.found_base(&run, token).await {
            Ok(()) => Demand::by(now),
            Err(_) => Demand::barred(Reason::CausalStoreDown),
        }
    }

    /// Tells others of a write, and then the client that it is done.
    pub(super) async fn publish(&mut self, active: &mut Active) -> Result<(), End> {
        let Some(withheld) = active.withheld.take() else { return Ok(()) };
        if active.exchange.is_idle() && active.to_server.is_empty() && self.question().is_none() {
            // It may take a moment that the server connection can be used in.
            self.release(active);
        }
        let mut bytes = Vec::new();
        let position = match withheld.written {
            Some(at) => self.context.monitor.position_since(at, clock::now().plus(SAMPLE_WAIT)).await,
            None => None,
        };
        let reports = self.bonds.as_ref().is_some_and(|bonds| bonds.report);
        match position {
            Some(token) if reports => {
                writers::parameter_status(&mut bytes, "pgweir.token", &token.to_string())
            }
            None if reports && withheld.written.is_some() => {
                writers::fault(&mut bytes, Severity::Warning, &not_sampled());
            }
            _ => {}
        }
        if let Some(store) = &self.context.causal.store
            && let Err(fault) = record(store, &withheld, position).await
        {
            tracing::warn!("{fault}: {}", fault.detail.as_deref().unwrap_or_default());
            writers::fault(&mut bytes, Severity::Warning, &fault);
        }
        bytes.extend_from_slice(&writers::ready(withheld.status));
        active.answers.insert(&bytes);
        if active.exchange.groups.front().is_some_and(|next| next.retriable) {
            active.answers.hold();
        }
        if self.attached.is_some()
            && !active.answers.unseen().is_empty()
            && let Digested::Lost(lost) = self.digest(active)?
        {
            return self.lost_server(active, lost);
        }
        Ok(())
    }
}

/// Where a write is not known, its intents stay: readers are on the primary until they expire.
async fn record(store: &Store, withheld: &Withheld, position: Option<Token>) -> Result<(), Fault> {
    if withheld.written.is_some() && position.is_none() {
        return Err(not_recorded("the primary's position could not be measured in time"));
    }
    let mut result = Ok(());
    for open in &withheld.keys {
        result = result.and(store.record(&open.key, &open.intents, position).await);
    }
    if let (true, Some(token)) = (withheld.of_all, position) {
        result = result.and(store.raise_all(token).await);
    }
    match (result, withheld.written) {
        (Err(down), Some(_)) => Err(not_recorded(&down.to_string())),
        (Ok(()) | Err(_), _) => Ok(()),
    }
}

fn not_recorded(why: &str) -> Fault {
    Fault::proxy(SqlState(*b"01000"), "the write was done, but its causal key was not recorded")
        .detail(why.to_owned())
        .hint("Readers through another pgweir may not see it at once.")
}

fn malformed(text: &str, error: InvalidToken) -> Fault {
    let shown: String = text.chars().take(80).collect();
    Fault::client(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"pgweir.token\": \"{shown}\""),
    )
    .detail(error.to_string())
    .hint("Pass on what SHOW pgweir.token has given, unchanged.")
}

fn unproven(message: &'static str, detail: String) -> Fault {
    Fault::client(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .detail(detail)
        .hint("RESET pgweir.token; SHOW pgweir.token gives a new one.")
}

fn foreign(token: &Token, system: u64) -> Fault {
    unproven("the token is of another cluster", format!("Token {token}, system identifier {system} here."))
}

fn left_behind(token: &Token, timeline: u32) -> Fault {
    let detail = format!("Token {token}; the cluster goes on on timeline {timeline}, since a promotion.");
    unproven("the token is of a timeline that was left behind; what it stands for may be lost", detail)
}

fn lost(token: &Token, next: u32, fork: Lsn) -> Fault {
    let (at, from) = (token.at, fork);
    let message = format!(
        "acknowledged write at {}/{} was lost in the failover to timeline {next}, which forked at {from}",
        at.timeline.0, at.lsn
    );
    Fault::server(SqlState::ACKNOWLEDGED_WRITE_LOST, message)
        .detail(format!("Token {token}."))
        .hint("RESET pgweir.token; SHOW pgweir.token gives a new one.")
}

fn from_the_future(token: &Token) -> Fault {
    unproven(
        "the token is ahead of the primary",
        format!("Nothing has been written up to {token}; or it was lost in a crash."),
    )
}

fn not_sampled() -> Fault {
    Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "the primary's position could not be measured in time")
        .detail(format!("There was no sample within {SAMPLE_WAIT:?}."))
        .hint("Is there a primary? See SHOW CLUSTER on the database pgweir. It is safe to retry.")
        .retriable()
}
