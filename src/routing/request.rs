//! What `decide` is asked, and what it is told about the session and the policy.

use crate::freshness::defect::Defect;
use crate::freshness::gate::{Floor, Need};
use crate::moment::Moment;
use crate::node::NodeId;
use crate::routing::reason::Reason;
use crate::routing::rules::Asked;
use crate::sql::class::{Access, Route, Why};
use std::time::Duration;

/// How fresh a read must be. Each level promises what the one before it does, and more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Consistency {
    /// No staler than `max_staleness`.
    Eventual,
    /// Read your writes, and monotonic reads over the replicas.
    #[default]
    Session,
    /// Monotonic from a replica to the primary, too.
    Strict,
    /// All that had committed, through anyone, before the read arrived.
    Global,
}

impl Consistency {
    /// Every level with its word, the weakest first: in the configuration, in `SET pgweir.consistency`, in
    /// comments and startup options.
    pub const WORDS: &'static [(&'static str, Consistency)] = &[
        ("eventual", Consistency::Eventual),
        ("session", Consistency::Session),
        ("strict", Consistency::Strict),
        ("global", Consistency::Global),
    ];

    /// The level that this word means, in upper or lower case.
    pub fn parse(word: &str) -> Option<Consistency> {
        let known = Consistency::WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word));
        known.map(|(_, level)| *level)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Consistency::Eventual => "eventual",
            Consistency::Session => "session",
            Consistency::Strict => "strict",
            Consistency::Global => "global",
        }
    }
}

/// What happens when no replica is fresh enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnLag {
    /// The primary answers.
    #[default]
    Primary,
    /// The read waits, up to `lag_wait_limit`; then the primary.
    Wait,
    /// The read fails with a clear error.
    Error,
}

/// How long a session's reads stay on the primary after its write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PinAfterWrite {
    /// Until a replica has provably replayed it.
    #[default]
    UntilCaughtUp,
    /// For a fixed time. (Does not prove anything.)
    For(Duration),
    /// Until the client leaves.
    UntilDisconnect,
}

/// How one of several eligible replicas is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// Power of two choices on load, with a penalty for lag.
    #[default]
    Lag,
    /// Power of two choices on load.
    LeastBusy,
    /// The lowest measured latency, with a share for exploration.
    Latency,
    /// In turn, by weight.
    RoundRobin,
    /// By weight.
    Random,
}

/// What becomes of the reads of transactions that may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transactions {
    /// The primary runs the whole transaction.
    #[default]
    Primary,
    /// READ COMMITTED ones begin on the primary with the first thing that is not plainly a read; reads
    /// before it may use replicas.
    Split,
}

/// The routing policy, from the configuration's `routing:` section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoutingPolicy {
    /// Default level.
    pub consistency: Consistency,
    /// A replica staler than this serves nobody.
    pub max_staleness: Duration,
    /// Nor one further behind than this many WAL bytes.
    pub max_lag_bytes: u64,
    /// Nor one whose newest sample is older than this (two monitor intervals): it hangs, or is lost.
    pub sample_max_age: Duration,
    /// How long a read may wait for a fresh enough replica where that is likely to be enough.
    pub wait: Duration,
    /// How long a read at level `global` waits for a replica that shows all that had committed.
    pub global_wait: Duration,
    /// How long a request waits, at `strict` and `global`, until the primary shows what replicas have shown.
    pub fence_wait: Duration,
    /// How long a read may wait with `on_lag: wait`.
    pub lag_wait_limit: Duration,
    /// What happens when no replica is fresh enough.
    pub on_lag: OnLag,
    /// Reads that may be on the primary at a time for that reason; the others wait, for a replica or for
    /// their turn, up to `lag_wait_limit`.
    pub lag_reads: u32,
    /// Stickiness after a write.
    pub pin_after_write: PinAfterWrite,
    /// Choice among eligible replicas.
    pub balance: Balance,
    /// Where transactions that may write begin.
    pub transactions: Transactions,
    /// Are transactions that have only read said again when they lose their primary?
    pub retry_begin: bool,
    /// For tests: what is missing.
    pub defect: Defect,
}

impl Default for RoutingPolicy {
    fn default() -> RoutingPolicy {
        RoutingPolicy {
            consistency: Consistency::Session,
            max_staleness: Duration::from_secs(10),
            max_lag_bytes: 64 << 20,
            sample_max_age: Duration::from_millis(200),
            wait: Duration::from_millis(3),
            global_wait: Duration::from_millis(20),
            fence_wait: Duration::from_secs(3),
            lag_wait_limit: Duration::from_secs(5),
            on_lag: OnLag::Primary,
            lag_reads: 100,
            pin_after_write: PinAfterWrite::UntilCaughtUp,
            balance: Balance::Lag,
            transactions: Transactions::Primary,
            retry_begin: false,
            defect: Defect::None,
        }
    }
}

/// Why a session's requests cannot leave the connection they are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Held {
    /// They can.
    #[default]
    Free,
    /// A transaction block is open.
    InTransaction,
    /// Pinned for session state that cannot be replayed.
    Pinned,
    /// Session pool mode.
    SessionMode,
}

/// What a request asks for beyond its own session's floor, at any level: by a token, or by a causal key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    /// Everything inserted by then.
    pub insert: Moment,
    /// No moment is known that would prove it: the primary answers.
    pub barred: Option<Reason>,
}

impl Demand {
    /// Everything inserted by then.
    pub fn by(insert: Moment) -> Demand {
        Demand { insert, barred: None }
    }

    /// The primary answers, for this reason.
    pub fn barred(reason: Reason) -> Demand {
        Demand { insert: Moment::NEVER, barred: Some(reason) }
    }

    /// Both.
    pub fn and(self, other: Demand) -> Demand {
        Demand { insert: self.insert.max(other.insert), barred: self.barred.or(other.barred) }
    }
}

/// One request group as `decide` sees it. Made afresh for every group.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What it may do (the strictest of its parts).
    pub access: Access,
    /// Why.
    pub why: Why,
    /// Does it begin a transaction that can only read? It is then placed as a read is.
    pub begins_read_only: bool,
    /// Was the group seen whole (up to Sync)? An open group goes to the primary.
    pub complete: bool,
    /// Was its shape found to write on a replica before?
    pub learnt: bool,
    /// Is it being sent again after a replica could not finish it?
    pub replayed: bool,
    /// The route asked for: comment, else session setting, else startup option.
    pub route: Route,
    /// Does the session still have a choice?
    pub held: Held,
    /// The level that applies.
    pub consistency: Consistency,
    /// When it arrived, once per request and not per attempt; only level `global` looks at it.
    pub arrived: Moment,
    /// Can it show anything of the database? (BEGIN cannot.)
    pub shows: bool,
    /// The session's own `max_staleness`, if it set one.
    pub max_staleness: Option<Duration>,
    /// What the session has written and seen.
    pub floor: Floor,
    /// What it asks for besides.
    pub demand: Demand,
    /// When the last write finished, for time-based pinning.
    pub last_write: Option<Moment>,
    /// The replica that earlier groups of this pipeline went to and that has not answered yet.
    pub pipelined_on: Option<NodeId>,
    /// Until when this request may wait for freshness (`None`: it has not waited yet).
    pub waiting_until: Option<Moment>,
    /// Replicas that already failed this request, as a bit set of node ids.
    pub excluded: u64,
    /// What a rule of the configuration asks for.
    pub rule: Asked,
    /// Does it read in a transaction that has not begun on a server? On the primary, it begins there.
    pub split: bool,
}

impl Request {
    /// The same where the transaction begins: nothing that is said of reads applies to it.
    pub fn begins(self) -> Request {
        let (access, why) = (Access::Write, Why::TransactionControl);
        Request { access, why, split: false, waiting_until: None, ..self }
    }
}

/// Where a request is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The proven primary (the shell holds the request while there is none).
    Primary,
    /// This replica, which must still meet `need` on the connection that is checked out.
    Replica {
        /// Which one.
        node: NodeId,
        /// What its connection must have replayed.
        need: Need,
    },
    /// Nobody yet: ask for samples now, decide again at the next one or at `until`.
    Wait {
        /// When waiting ends.
        until: Moment,
    },
    /// Nobody: `on_lag: error`.
    Refuse,
}

/// A decision is a value with a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Where to.
    pub target: Target,
    /// Why.
    pub reason: Reason,
}
