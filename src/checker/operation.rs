//! What sessions do, and what they are shown.

use crate::moment::Moment;
use std::fmt;

/// One of the driving sessions: a writer with a register of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u32);

/// What is promised by whoever is examined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Within a session: read your writes, monotonic reads and writes, writes follow reads. Except
    /// that a primary may, for a moment, not show yet what a replica has shown already.
    Session,
    /// The same without that exception.
    Strict,
    /// Every read shows all that was acknowledged to, or seen by, anybody before it began.
    Global,
}

/// What is read and written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Item {
    /// The register that this session writes.
    Register(SessionId),
    /// An append-only list.
    List(u32),
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A number into the session's own register.
    Write,
    /// An element to a list.
    Append,
    /// One or more items, in one snapshot.
    Read,
}

/// What is known of its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has happened.
    Done,
    /// It may have happened, may still happen, or never will (08007, a lost connection).
    Unknown,
    /// It has certainly not happened.
    Failed,
}

/// Who served it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    /// The server's number in the observer's list.
    pub by: u16,
    /// Was it in recovery?
    pub replica: bool,
}

/// One operation on one item, with what it proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Whose.
    pub session: SessionId,
    /// Which of the session's connections, from 0: guarantees of sessions end with each.
    pub connection: u32,
    /// What it did.
    pub kind: Kind,
    /// To what.
    pub item: Item,
    /// The number written, the position appended to, or the newest of either that was shown.
    pub version: u64,
    /// Before it was sent.
    pub invoked: Moment,
    /// When its answer was complete.
    pub completed: Moment,
    /// How it ended.
    pub outcome: Outcome,
    /// Who served it, where the answer said so.
    pub served: Option<Served>,
}

/// Proof that `operation.version` of an item exists.
pub type Evidence = Operation;

/// What a read showed of one item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Observation {
    /// Cells of a register, and their numbers; a cell without a row counts as 0.
    Register(SessionId, Vec<(u64, u64)>),
    /// A list.
    List(u32, ListView),
}

/// A list as it was shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListView {
    /// How many elements it has.
    pub length: u64,
    /// The last of them, oldest first.
    pub tail: Vec<u64>,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Register(session) => write!(f, "register {}", session.0),
            Item::List(list) => write!(f, "list {list}"),
        }
    }
}

impl Operation {
    /// One line, with the servers' names.
    pub fn describe(&self, servers: &[String]) -> String {
        let did = match (self.kind, self.item) {
            (Kind::Write, _) => format!("wrote {} to its {}", self.version, self.item),
            (Kind::Append, _) => format!("appended element {} to {}", self.version, self.item),
            (Kind::Read, Item::Register(_)) => format!("read {}, shown up to {}", self.item, self.version),
            (Kind::Read, Item::List(_)) => format!("read {}, shown {} elements", self.item, self.version),
        };
        let outcome = match self.outcome {
            Outcome::Done => "",
            Outcome::Unknown => ", outcome unknown",
            Outcome::Failed => ", failed",
        };
        let by = self.served.map(|served| {
            let name = servers.get(usize::from(served.by)).map_or("?", String::as_str);
            format!(" by {name} ({})", if served.replica { "replica" } else { "primary" })
        });
        format!(
            "session {}.{} {did}{outcome}{}; sent at {:.6} s, complete at {:.6} s",
            self.session.0,
            self.connection,
            by.unwrap_or_default(),
            seconds(self.invoked),
            seconds(self.completed),
        )
    }
}

fn seconds(moment: Moment) -> f64 {
    moment.since(Moment::NEVER).as_secs_f64()
}
