//! Statements counted by where they went and why: one add on the hot path, published when somebody
//! looks.

use crate::node::Role;
use crate::routing::reason::Reason;
use metrics::Counter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The counters of one database on one node in one role. A pool holds them.
#[derive(Debug)]
pub struct StatementCounters {
    database: Arc<str>,
    node: Arc<str>,
    role: Role,
    counts: [AtomicU64; Reason::ALL.len()],
    exported: [OnceLock<Exported>; Reason::ALL.len()],
}

struct Exported(Counter);

impl std::fmt::Debug for Exported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counter")
    }
}

impl StatementCounters {
    pub(super) fn new(database: Arc<str>, node: Arc<str>, role: Role) -> StatementCounters {
        StatementCounters {
            database,
            node,
            role,
            counts: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            exported: [const { OnceLock::new() }; Reason::ALL.len()],
        }
    }

    /// One statement went here for this reason.
    pub fn count(&self, reason: Reason) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many went here for this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// Which database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Which node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The node's role at the time.
    pub fn role(&self) -> Role {
        self.role
    }

    pub(super) fn is(&self, database: &str, node: &str, role: Role) -> bool {
        self.role == role && &*self.node == node && &*self.database == database
    }

    /// Brings the exported counters up to date; a series that never counted is not made.
    pub(super) fn export(&self, register: impl Fn(&[(&'static str, Arc<str>)]) -> Counter) {
        for reason in Reason::ALL {
            let count = self.of(reason);
            if count == 0 {
                continue;
            }
            let exported = self.exported[reason as usize].get_or_init(|| {
                Exported(register(&[
                    ("database", self.database.clone()),
                    ("node", self.node.clone()),
                    ("role", self.role.as_str().into()),
                    ("reason", reason.as_str().into()),
                ]))
            });
            exported.0.absolute(count);
        }
    }
}

/// Did a statement with this reason only read? (A read that had to go to the primary did.)
pub fn is_read(reason: Reason) -> bool {
    match reason {
        Reason::Balanced
        | Reason::Waited
        | Reason::RouteReplica
        | Reason::Pipelined
        | Reason::RuleReplica
        | Reason::ReadOnlyTransaction
        | Reason::SplitTransaction
        | Reason::RoutePrimary
        | Reason::RulePrimary
        | Reason::AfterWrite
        | Reason::NotFreshEnough
        | Reason::NoReplica
        | Reason::Replayed
        | Reason::TokenUnproven
        | Reason::CausalStoreDown
        | Reason::CausalKeyInDoubt => true,
        Reason::Pinned
        | Reason::InTransaction
        | Reason::Write
        | Reason::Unknown
        | Reason::TransactionControl
        | Reason::SessionState
        | Reason::CatalogNotLoaded
        | Reason::Learnt
        | Reason::OpenGroup
        | Reason::SessionMode => false,
    }
}
