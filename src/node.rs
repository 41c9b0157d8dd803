//! One PostgreSQL instance, and what it is.

use std::fmt;

/// Index of a node in `ClusterView::nodes`. Stable while the process lives; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u16);

impl NodeId {
    /// As an index into per-node tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a node was measured to be. Never configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Accepts writes (`pg_is_in_recovery()` is false).
    Primary,
    /// A hot standby.
    Replica,
}

impl Role {
    /// Both, in the order of their numbers.
    pub const ALL: [Role; 2] = [Role::Primary, Role::Replica];

    /// The metric label and the word in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
