//! What all sessions share: the judge, and what is counted beside it.

use crate::checker::{Guarantee, History, Pending, Served, Violation};
use crate::cli::check_consistency::report::{Report, ServerShare};
use crate::cli::check_consistency::statements::Server;
use crate::clock;
use crate::moment::Moment;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One for all sessions.
pub(super) struct Tally {
    inner: Mutex<Inner>,
    ended: AtomicBool,
    begun: Moment,
    operations_max: Option<u64>,
    until_found: bool,
}

struct Inner {
    history: History,
    servers: Vec<ServerShare>,
    names: Vec<String>,
    errors: BTreeMap<(&'static str, String), u64>,
    failed_reads: u64,
    reads: u64,
    found_after: Option<Duration>,
}

/// How far it has come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Since the sessions began.
    pub elapsed: Duration,
    /// Operations.
    pub operations: u64,
    /// Reads, and how many of them replicas served.
    pub reads: (u64, u64),
    /// Errors.
    pub errors: u64,
    /// Violations.
    pub violations: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        write!(
            f,
            "{seconds:4.0} s · {} operations ({:.0}/s) · {:.0} % of reads on replicas · {} errors · {} violations",
            self.operations,
            self.operations as f64 / seconds,
            100.0 * self.reads.1 as f64 / self.reads.0.max(1) as f64,
            self.errors,
            self.violations,
        )
    }
}

impl Tally {
    pub(super) fn new(history: History, operations_max: Option<u64>, until_found: bool) -> Tally {
        let inner = Inner {
            history,
            servers: Vec::new(),
            names: Vec::new(),
            errors: BTreeMap::new(),
            failed_reads: 0,
            reads: 0,
            found_after: None,
        };
        Tally {
            inner: Mutex::new(inner),
            ended: AtomicBool::new(false),
            begun: clock::now(),
            operations_max,
            until_found,
        }
    }

    /// Do the sessions stop?
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// They do.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Something begins or ends. The moment is taken under the lock, so that times and order agree.
    pub(super) fn note<T>(&self, change: impl FnOnce(&mut History, Moment) -> T) -> T {
        let mut inner = self.lock();
        let now = clock::now();
        let result = change(&mut inner.history, now);
        self.look(&mut inner, now);
        result
    }

    /// A read has shown something.
    pub(super) fn note_read(
        &self,
        pending: Pending,
        shown: &[crate::checker::Observation],
        server: Option<Server>,
    ) {
        let mut inner = self.lock();
        let served = server.map(|server| inner.served(server));
        inner.reads += 1;
        let now = clock::now();
        inner.history.end_read(pending, shown, served, now);
        self.look(&mut inner, now);
    }

    /// An operation failed with this SQLSTATE (or a word).
    pub(super) fn note_error(&self, what: &'static str, code: String) {
        let mut inner = self.lock();
        *inner.errors.entry((what, code)).or_default() += 1;
        inner.failed_reads += u64::from(what == "read");
    }

    fn look(&self, inner: &mut Inner, now: Moment) {
        if inner.found_after.is_none() && !inner.history.violations().is_empty() {
            inner.found_after = Some(now.since(self.begun));
            if self.until_found {
                self.end();
            }
        }
        if self.operations_max.is_some_and(|most| inner.history.operations() >= most) {
            self.end();
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let inner = self.lock();
        Progress {
            elapsed: clock::now().since(self.begun),
            operations: inner.history.operations() + inner.failed_reads,
            reads: (inner.reads, inner.replica_reads()),
            errors: inner.errors.values().sum(),
            violations: inner.history.counts().values().sum(),
        }
    }

    pub(super) fn report(&self) -> Report {
        let inner = self.lock();
        let counts: BTreeMap<Guarantee, u64> = inner.history.counts().clone();
        let violations: Vec<Violation> = inner.history.violations().to_vec();
        let mut servers = inner.servers.clone();
        servers.sort_by(|a, b| (a.replica, &a.name).cmp(&(b.replica, &b.name)));
        Report {
            elapsed: clock::now().since(self.begun),
            operations: inner.history.operations() + inner.failed_reads,
            reads: inner.reads,
            servers,
            names: inner.names.clone(),
            errors: inner.errors.clone(),
            counts,
            violations,
            overtaken: inner.history.overtaken(),
            found_after: inner.found_after,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Servers get their numbers as they come; one that is promoted gets another.
    fn served(&mut self, server: Server) -> Served {
        let known = self
            .servers
            .iter()
            .position(|share| share.name == server.name && share.replica == server.replica);
        let index = known.unwrap_or_else(|| {
            self.names.push(server.name.clone());
            self.servers.push(ServerShare { name: server.name, replica: server.replica, reads: 0 });
            self.servers.len() - 1
        });
        self.servers[index].reads += 1;
        Served { by: u16::try_from(index).unwrap_or(u16::MAX), replica: server.replica }
    }

    fn replica_reads(&self) -> u64 {
        self.servers.iter().filter(|share| share.replica).map(|share| share.reads).sum()
    }
}
