//! A mechanism that is switched off, so that tests can show what it is needed for.
//!
//! No configuration can set one: only code that starts a proxy, a monitor or a simulation of its own.

use crate::cluster::view::FreshnessReading;
use crate::freshness::gate::Need;

/// Which mechanism is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Defect {
    /// Everything is as it should be.
    #[default]
    None,
    /// A sample counts for what was committed when its answer came, not when it was asked for.
    SampleInFlight,
    /// The primary is asked for `pg_current_wal_lsn()`, what is written out, instead of what is inserted.
    WrittenPosition,
    /// What a replica had replayed counts on behind its restart (no incarnations, no rule V).
    KeptPosition,
    /// Positions are taken as the server gives them, also behind a page's header.
    UnroundedPosition,
    /// Any replica may serve any read.
    AnyReplica,
    /// A replica is believed by its position alone, whichever timeline it is on.
    AnyBranch,
    /// What a session has seen leaves no floor, only what it has written does.
    ForgottenRead,
    /// A read at level `global` is not held to the moment at which it arrived.
    ForgottenArrival,
    /// From a replica to the primary at once, also at level `strict`.
    NoFence,
}

impl Defect {
    /// Does it let a replica serve that has not proven, on this connection, what the read needs?
    pub fn lets_through(self, need: &Need, fresh: &FreshnessReading) -> bool {
        match self {
            Defect::AnyReplica => true,
            Defect::KeptPosition => need.is_met_by(fresh),
            Defect::None
            | Defect::SampleInFlight
            | Defect::WrittenPosition
            | Defect::UnroundedPosition
            | Defect::AnyBranch
            | Defect::ForgottenRead
            | Defect::ForgottenArrival
            | Defect::NoFence => false,
        }
    }
}
