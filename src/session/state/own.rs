//! pgweir's own settings of a session: set for it, or for its transaction alone.

use super::SessionState;
use crate::routing::request::{Consistency, Demand};
use crate::sql::class::Route;
use crate::sql::effects::PgweirName;
use crate::wire::backend::TransactionStatus;
use std::time::Duration;

/// pgweir's own settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Own {
    pub route: Route,
    pub consistency: Option<Consistency>,
    pub max_staleness: Option<Duration>,
}

impl SessionState {
    fn own(&self) -> Own {
        Own { route: self.route, consistency: self.consistency, max_staleness: self.max_staleness }
    }

    /// What is set of pgweir's own from here on ends with the transaction. False: there is none.
    pub fn begin_local(&mut self) -> bool {
        let own = self.own();
        let open = self.status != TransactionStatus::Idle;
        open.then(|| self.transaction.own.get_or_insert(own)).is_some()
    }

    /// Has one of pgweir's own settings been set for this transaction?
    pub fn has_local(&self) -> bool {
        self.transaction.own.is_some()
    }

    /// One of pgweir's own settings was set for the session: that lasts, whatever is local.
    pub fn keep_own(&mut self, name: PgweirName) {
        let now = self.own();
        let Some(own) = &mut self.transaction.own else { return };
        match name {
            PgweirName::Route => own.route = now.route,
            PgweirName::Consistency => own.consistency = now.consistency,
            PgweirName::MaxStaleness => own.max_staleness = now.max_staleness,
            PgweirName::Token | PgweirName::CausalKey | PgweirName::ReportToken => {}
        }
    }

    /// The startup packet has been read.
    pub fn logged_in(&mut self) {
        self.own_at_login = (self.own(), self.demand);
    }

    /// RESET of one of pgweir's own settings. A token may be one that nothing proves: it is required no more.
    pub fn reset_own(&mut self, name: PgweirName) {
        let (own, _) = self.own_at_login;
        match name {
            PgweirName::Route => self.route = own.route,
            PgweirName::Consistency => self.consistency = own.consistency,
            PgweirName::MaxStaleness => self.max_staleness = own.max_staleness,
            PgweirName::Token => self.demand = Demand::default(),
            PgweirName::CausalKey | PgweirName::ReportToken => {}
        }
        self.keep_own(name);
    }

    /// RESET ALL, DISCARD ALL: whoever has the connection next finds nothing of what was set.
    pub(super) fn reset_all_own(&mut self) {
        for name in [PgweirName::Route, PgweirName::Consistency, PgweirName::MaxStaleness] {
            self.reset_own(name);
        }
        self.demand = self.own_at_login.1;
    }

    /// The transaction is over, and what was set for it alone.
    pub(super) fn end_local(&mut self) {
        if let Some(own) = self.transaction.own.take() {
            (self.route, self.consistency) = (own.route, own.consistency);
            self.max_staleness = own.max_staleness;
        }
    }
}
