//! One node: samples, errors and time in, state out.
//!
//! ```text
//! Unknown ──answer──▶ Up ──late, lost──▶ Suspect ──refused, or down_after──▶ Down
//!    └────────refused, or down_after─────────────────────────────────────────▶ Down
//! any ──answer──▶ Up
//! ```
//! A suspect replica serves nobody; a suspect primary keeps its role, so that one late answer does
//! not stop the writes. Freshness does not depend on this machine: a sample simply gets too old.

use crate::cluster::view::NodeState;
use crate::moment::Moment;
use crate::node::Role;
use std::time::Duration;

/// When a node is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthPolicy {
    /// Between two samples while nobody waits.
    pub interval: Duration,
    /// An answer is late after this; the node is suspect. Two intervals.
    pub probe_timeout: Duration,
    /// A node that has not answered for this long is down; its connection is given up.
    pub down_after: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts to connect.
    pub reconnect_limit: Duration,
}

impl HealthPolicy {
    /// The policy for a sampling interval.
    pub fn for_interval(interval: Duration) -> HealthPolicy {
        HealthPolicy {
            interval,
            probe_timeout: (interval * 2).max(Duration::from_millis(20)),
            down_after: (interval * 10).max(Duration::from_secs(1)),
            connect_timeout: Duration::from_secs(2),
            reconnect_limit: Duration::from_secs(1),
        }
    }

    /// The oldest sample that still lets a replica serve: it stops within two intervals.
    pub fn sample_max_age(&self) -> Duration {
        self.probe_timeout
    }
}

impl Default for HealthPolicy {
    fn default() -> HealthPolicy {
        HealthPolicy::for_interval(Duration::from_millis(100))
    }
}

/// What the relay saw on its own connections to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// A server connection broke, or could not be made.
    ConnectionLost,
    /// `in_hot_standby` changed on a living connection: it was promoted.
    InHotStandbyChanged,
    /// 25006 from the supposed primary. Alone it proves nothing (a READ ONLY transaction says the
    /// same on a primary), so it asks for a sample.
    ReadOnlyError,
}

/// How an attempt to measure failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No answer yet.
    Late,
    /// The connection broke.
    Lost,
    /// No connection could be made: refused, starting up, shutting down, wrong password.
    Refused,
    /// It lives but has no connection to spare (53300).
    Busy,
}

/// The state of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Health {
    state: NodeState,
    role: Option<Role>,
    failing_since: Option<Moment>,
}

impl Default for Health {
    fn default() -> Health {
        Health { state: NodeState::Unknown, role: None, failing_since: None }
    }
}

impl Health {
    /// The state now.
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// What it was last measured to be, also when it is down.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Does it count as what it was measured to be?
    pub fn holds_role(&self, role: Role) -> bool {
        self.role == Some(role) && matches!(self.state, NodeState::Up | NodeState::Suspect)
    }

    /// It answered.
    pub fn answered(&mut self, role: Role) {
        *self = Health { state: NodeState::Up, role: Some(role), failing_since: None };
    }

    /// An attempt failed at `now`.
    pub fn failed(&mut self, failure: Failure, now: Moment, policy: &HealthPolicy) {
        if self.state == NodeState::Removed {
            return;
        }
        let since = *self.failing_since.get_or_insert(now);
        let given_up = now.since(since) >= policy.down_after;
        self.state = match (failure, self.state) {
            (Failure::Busy, NodeState::Unknown) => NodeState::Unknown,
            (Failure::Busy, NodeState::Down) => NodeState::Down,
            (Failure::Busy, _) => NodeState::Suspect,
            (Failure::Refused, _) => NodeState::Down,
            (Failure::Late | Failure::Lost, NodeState::Up) => NodeState::Suspect,
            (Failure::Late | Failure::Lost, _) if given_up => NodeState::Down,
            (Failure::Late | Failure::Lost, state) => state,
        };
    }

    /// The relay saw something. `true`: it is no longer what it was measured to be.
    pub fn witnessed(&mut self, evidence: Evidence) -> bool {
        match evidence {
            Evidence::InHotStandbyChanged => {
                let dropped = self.role.take().is_some();
                if dropped && self.state == NodeState::Up {
                    self.state = NodeState::Suspect;
                }
                dropped
            }
            Evidence::ConnectionLost | Evidence::ReadOnlyError => false,
        }
    }

    /// It was taken out of the configuration.
    pub fn removed(&mut self) {
        *self = Health { state: NodeState::Removed, role: None, failing_since: None };
    }
}

#[cfg(test)]
mod tests;
