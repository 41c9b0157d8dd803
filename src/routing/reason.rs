//! The closed list of reasons: metric label = log field = `EXPLAIN (ROUTE)` text = test expectation.

/// Why a request went where it went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    // ── to a replica
    /// A read; the replica was chosen by balance.
    Balanced,
    /// A read that waited a moment until a replica was fresh enough.
    Waited,
    /// The client asked for a replica.
    RouteReplica,
    /// Follows earlier reads of the same pipeline.
    Pipelined,
    /// A rule of the configuration asked for a replica, or for a tag.
    RuleReplica,
    /// Begins a read-only transaction, or belongs to one that a replica serves.
    ReadOnlyTransaction,
    /// A read of a transaction that has not begun on the primary yet (`transactions: split`).
    SplitTransaction,
    // ── to the primary
    /// The session keeps one connection (temporary table, LISTEN, …).
    Pinned,
    /// A transaction block is open.
    InTransaction,
    /// May write.
    Write,
    /// Not understood.
    Unknown,
    /// Begins or ends a transaction.
    TransactionControl,
    /// Changes session state.
    SessionState,
    /// The client asked for the primary.
    RoutePrimary,
    /// A rule of the configuration asked for the primary.
    RulePrimary,
    /// Time-based pinning after a write.
    AfterWrite,
    /// No replica has yet replayed what this session wrote or saw.
    NotFreshEnough,
    /// No replica is up.
    NoReplica,
    /// The catalog has not been read yet.
    CatalogNotLoaded,
    /// This shape was found to write on a replica before.
    Learnt,
    /// Another node could not finish it; it was sent again.
    Replayed,
    /// A request group that was cut by Flush, or is too large to be seen whole.
    OpenGroup,
    /// The session pool mode holds one connection.
    SessionMode,
    /// A token was required that nothing proves: of a timeline left behind, or of another system.
    TokenUnproven,
    /// The store of causal keys does not answer, or what it answers proves nothing.
    CausalStoreDown,
    /// A write under the same causal key is on its way, perhaps through another pgweir.
    CausalKeyInDoubt,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Reason; 26] = [
        Reason::Balanced,
        Reason::Waited,
        Reason::RouteReplica,
        Reason::Pipelined,
        Reason::RuleReplica,
        Reason::ReadOnlyTransaction,
        Reason::SplitTransaction,
        Reason::Pinned,
        Reason::InTransaction,
        Reason::Write,
        Reason::Unknown,
        Reason::TransactionControl,
        Reason::SessionState,
        Reason::RoutePrimary,
        Reason::RulePrimary,
        Reason::AfterWrite,
        Reason::NotFreshEnough,
        Reason::NoReplica,
        Reason::CatalogNotLoaded,
        Reason::Learnt,
        Reason::Replayed,
        Reason::OpenGroup,
        Reason::SessionMode,
        Reason::TokenUnproven,
        Reason::CausalStoreDown,
        Reason::CausalKeyInDoubt,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Balanced => "balanced",
            Reason::Waited => "waited",
            Reason::RouteReplica => "route_replica",
            Reason::Pipelined => "pipelined",
            Reason::RuleReplica => "rule_replica",
            Reason::ReadOnlyTransaction => "read_only_transaction",
            Reason::SplitTransaction => "split_transaction",
            Reason::Pinned => "pinned",
            Reason::InTransaction => "in_transaction",
            Reason::Write => "write",
            Reason::Unknown => "unknown",
            Reason::TransactionControl => "transaction_control",
            Reason::SessionState => "session_state",
            Reason::RoutePrimary => "route_primary",
            Reason::RulePrimary => "rule_primary",
            Reason::AfterWrite => "after_write",
            Reason::NotFreshEnough => "not_fresh_enough",
            Reason::NoReplica => "no_replica",
            Reason::CatalogNotLoaded => "catalog_not_loaded",
            Reason::Learnt => "learnt",
            Reason::Replayed => "replayed",
            Reason::OpenGroup => "open_group",
            Reason::SessionMode => "session_mode",
            Reason::TokenUnproven => "token_unproven",
            Reason::CausalStoreDown => "causal_store_down",
            Reason::CausalKeyInDoubt => "causal_key_in_doubt",
        }
    }
}
