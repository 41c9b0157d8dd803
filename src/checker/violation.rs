//! A broken promise, with the two operations that prove it.

use crate::checker::operation::Operation;

/// What was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Guarantee {
    /// A session's read shows its own earlier writes.
    ReadYourWrites,
    /// A session's read shows what its earlier reads have shown.
    MonotonicReads,
    /// Where a session's write is shown, its earlier writes are.
    MonotonicWrites,
    /// Where a session's write is shown, what the session had read before is.
    WritesFollowReads,
    /// A read shows what was complete, for anybody, before it began.
    Linearizability,
    /// A list only grows, at its end, and looks the same to everybody.
    AppendOrder,
    /// Nothing is shown that nobody has written.
    NothingInvented,
}

impl Guarantee {
    /// In words, as tables and JSON have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Guarantee::ReadYourWrites => "read-your-writes",
            Guarantee::MonotonicReads => "monotonic-reads",
            Guarantee::MonotonicWrites => "monotonic-writes",
            Guarantee::WritesFollowReads => "writes-follow-reads",
            Guarantee::Linearizability => "linearizability",
            Guarantee::AppendOrder => "append-order",
            Guarantee::NothingInvented => "nothing-invented",
        }
    }
}

/// One broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub guarantee: Guarantee,
    /// What must have been seen.
    pub first: Operation,
    /// What does not show it.
    pub second: Operation,
    /// What is missing, in words.
    pub why: String,
}

impl Violation {
    /// Four lines for people.
    pub fn describe(&self, servers: &[String]) -> String {
        format!(
            "{} violated on {}: {}\n  1. {}\n  2. {}",
            self.guarantee.as_str(),
            self.second.item,
            self.why,
            self.first.describe(servers),
            self.second.describe(servers),
        )
    }
}
