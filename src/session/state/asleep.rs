//! What is kept of a session's state while its client sleeps.

use super::{Own, SessionState, Transaction};
use crate::freshness::gate::Floor;
use crate::moment::Moment;
use crate::session::settings::Settings;
use crate::wire::backend::TransactionStatus;
use std::sync::Arc;

/// The state of a session outside of transactions, without anything unusual: most have not.
#[derive(Debug)]
pub struct StateAsleep {
    startup: Arc<Settings>,
    settings: Arc<Settings>,
    floor: Floor,
    last_write: Option<Moment>,
}

impl Transaction {
    fn is_plain(&self) -> bool {
        // Every field by name: a new one has to be thought of here.
        let Transaction { before, savepoints, lost_savepoints, set, wrote, lost, own } = self;
        before.is_none()
            && savepoints.is_empty()
            && own.is_none()
            && !(*lost_savepoints || *set || *wrote || *lost)
    }
}

impl SessionState {
    /// Is it all that `StateAsleep` can keep?
    pub fn is_plain(&self) -> bool {
        let SessionState {
            startup: _,
            settings,
            carried,
            status,
            transaction,
            doubted,
            unreadable,
            ask,
            unanswered,
            pins,
            floor: _,
            last_write: _,
            route,
            consistency,
            max_staleness,
            demand,
            own_at_login: (own, demand_at_login),
        } = self;
        let none = Own::default();
        let is_none = |own: &Own| *own == none;
        let now = Own { route: *route, consistency: *consistency, max_staleness: *max_staleness };
        Arc::ptr_eq(settings, carried)
            && *status == TransactionStatus::Idle
            && transaction.is_plain()
            && doubted.is_empty()
            && pins.is_empty()
            && !(*unreadable || *ask || *unanswered)
            && is_none(&now)
            && is_none(own)
            && *demand == Default::default()
            && *demand_at_login == Default::default()
    }

    /// For a plain one.
    pub fn asleep(self) -> StateAsleep {
        let SessionState { startup, settings, floor, last_write, .. } = self;
        StateAsleep { startup, settings, floor, last_write }
    }
}

impl From<StateAsleep> for SessionState {
    fn from(asleep: StateAsleep) -> SessionState {
        let StateAsleep { startup, settings, floor, last_write } = asleep;
        SessionState { carried: settings.clone(), settings, floor, last_write, ..SessionState::new(startup) }
    }
}
