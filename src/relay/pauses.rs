//! PAUSE: what an operator holds. Statements that have no server connection yet wait until RESUME, within
//! `limits.hold_time` and `limits.hold_clients`, as they do without a primary.

use crate::clock;
use crate::fault::{Fault, SqlState};
use crate::relay::client::Client;
use crate::relay::reach::Holding;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What is paused now.
#[derive(Debug, Default)]
pub struct Pauses {
    /// Is anything? Asked for every statement.
    any: AtomicBool,
    paused: Mutex<Paused>,
    resumed: Notify,
}

#[derive(Debug, Default)]
struct Paused {
    all: bool,
    databases: BTreeSet<String>,
}

impl Pauses {
    /// Holds this database, or (`None`) all.
    pub fn pause(&self, database: Option<&str>) {
        let mut paused = self.lock();
        match database {
            Some(name) => drop(paused.databases.insert(name.to_owned())),
            None => paused.all = true,
        }
        self.any.store(true, Ordering::Release);
    }

    /// Ends a pause of this database, or (`None`) every pause. False: there was none.
    pub fn resume(&self, database: Option<&str>) -> bool {
        let mut paused = self.lock();
        let was = match database {
            Some(name) => paused.databases.remove(name),
            None => {
                let was = paused.all || !paused.databases.is_empty();
                *paused = Paused::default();
                was
            }
        };
        self.any.store(paused.all || !paused.databases.is_empty(), Ordering::Release);
        self.resumed.notify_waiters();
        was
    }

    /// Is this database held?
    pub fn holds(&self, database: &str) -> bool {
        self.any.load(Ordering::Acquire) && {
            let paused = self.lock();
            paused.all || paused.databases.contains(database)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Paused> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Is its database held? To be asked behind a checkout, not before it: PAUSE first says so and then
    /// counts who has a connection.
    pub(super) fn is_paused(&self) -> bool {
        self.context.pauses.holds(&self.tenant.database)
    }

    /// Waits until RESUME.
    pub(super) async fn wait_for_resume(&self) -> Result<(), Box<Fault>> {
        let limits = self.context.config.load().limits.clone();
        let (held, may) = Holding::begin(&self.context.counters, &limits);
        if !may {
            return Err(Box::new(paused()));
        }
        let until = clock::instant(clock::now().plus(limits.hold_time)).into();
        loop {
            let mut resumed = pin!(self.context.pauses.resumed.notified());
            resumed.as_mut().enable();
            if !self.is_paused() {
                drop(held);
                return Ok(());
            }
            if tokio::time::timeout_at(until, resumed).await.is_err() {
                return Err(Box::new(paused()));
            }
        }
    }
}

fn paused() -> Fault {
    Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "the database is paused")
        .detail(
            "An operator has paused it in pgweir's console; limits.hold_time or hold_clients is exceeded.",
        )
        .hint("It is safe to retry.")
        .retriable()
}
