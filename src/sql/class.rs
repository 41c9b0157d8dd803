//! The small, `Copy` answer of classification.

/// What a text may do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Only reads, and reads the same on a replica.
    Read,
    /// May write, lock, or belongs to the primary by its nature.
    Write,
    /// Not understood; treated as a write.
    Unknown,
}

impl Access {
    /// The word in `explain` and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Unknown => "unknown",
        }
    }

    /// The stricter of two: reading only if both read.
    pub fn strictest(self, other: Access) -> Access {
        match (self, other) {
            (Access::Read, Access::Read) => Access::Read,
            (Access::Write, _) | (_, Access::Write) => Access::Write,
            (Access::Unknown, _) | (_, Access::Unknown) => Access::Unknown,
        }
    }
}

/// 128-bit keyed hash of a statement's shape (comments and white space dropped, literals as
/// placeholders). Keyed per process, so that nobody can make two shapes collide on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(pub u128);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Where a client asks a statement to run (`SET pgweir.route`, startup option, comment).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Route {
    /// pgweir decides.
    #[default]
    Auto,
    /// The primary.
    Primary,
    /// A replica; a statement that may write still goes to the primary.
    Replica,
}

/// What a text may do beyond answering: a bit set. The session looks into the text again
/// (`effects::effects_of`) only when one is set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Marks(pub u16);

impl Marks {
    /// BEGIN, COMMIT, SAVEPOINT, …: the transaction status may change.
    pub const TRANSACTION_CONTROL: Marks = Marks(1);
    /// Changes session state: SET, RESET, DISCARD, LISTEN, temporary tables, advisory locks, …
    pub const SESSION_EFFECT: Marks = Marks(1 << 1);
    /// DDL: the catalog is to be read again when it is done.
    pub const DDL: Marks = Marks(1 << 2);
    /// More than one statement in one string.
    pub const MULTI_STATEMENT: Marks = Marks(1 << 3);
    /// COPY … FROM STDIN or TO STDOUT: the sub-protocol follows.
    pub const COPY: Marks = Marks(1 << 4);
    /// Speaks to pgweir itself (`SET pgweir.*`, `SHOW pgweir.*`, `EXPLAIN (ROUTE)`): never forwarded.
    pub const PGWEIR: Marks = Marks(1 << 5);
    /// No statement at all: empty, or comments only.
    pub const EMPTY: Marks = Marks(1 << 6);
    /// Has a routing comment other than `route` (consistency, staleness): see `effects::hints_of`.
    pub const HINTED: Marks = Marks(1 << 7);
    /// Speaks of a prepared statement by name (PREPARE, EXECUTE, DEALLOCATE): see `named`.
    pub const NAMED: Marks = Marks(1 << 12);
    /// Asks for READ ONLY, of the transaction that it begins or is in.
    pub const READ_ONLY: Marks = Marks(1 << 8);
    /// Not fit for a read-only transaction on a standby: it would fail there, or mean something else.
    pub const NOT_ON_STANDBY: Marks = Marks(1 << 9);
    /// Takes locks that exclude nobody when a standby takes them.
    pub const LOCKS: Marks = Marks(1 << 10);
    /// Does more than begin, end or set something.
    pub const WORKS: Marks = Marks(1 << 11);
    /// A read whose answer may tell something of the transaction that it is part of: when it began, say.
    pub const MOMENTARY: Marks = Marks(1 << 13);

    /// Are all bits of `other` set?
    pub fn contains(self, other: Marks) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is any bit of `other` set?
    pub fn intersects(self, other: Marks) -> bool {
        self.0 & other.0 != 0
    }

    /// With the bits of `other` too.
    pub const fn with(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }
}

/// Why a text has its access: a closed list, the first thing found that decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// Nothing but reading was found.
    PlainRead,
    /// INSERT, UPDATE, DELETE, MERGE, COPY FROM at the top or at any depth.
    WritesRows,
    /// CREATE, ALTER, DROP, TRUNCATE, GRANT, maintenance, …
    Ddl,
    /// FOR UPDATE/SHARE and kin, LOCK.
    Locks,
    /// SELECT INTO, CREATE TABLE AS.
    CreatesTable,
    /// A function that is volatile or declared as writing.
    VolatileFunction,
    /// A function that is neither a known built-in nor in the catalog.
    UnknownFunction,
    /// A view, unlogged, temporary or foreign relation that a replica cannot answer for.
    PrimaryOnlyRelation,
    /// The answer depends on the node (pg_stat_*, pg_locks, inet_server_addr, …).
    NodeLocal,
    /// BEGIN, COMMIT, SAVEPOINT, two-phase commit.
    TransactionControl,
    /// SET, RESET, DISCARD, LISTEN, PREPARE, DECLARE, LOAD, …
    SessionState,
    /// DO, CALL, EXECUTE of something not known to be a read.
    OpaqueCode,
    /// sqlparser did not understand it.
    Unparsable,
    /// Too long or with too many tokens to be parsed.
    TooLarge,
    /// Client encoding or string syntax in which bytes may hide quotes.
    UnsafeEncoding,
    /// The catalog has not been read yet.
    CatalogNotLoaded,
    /// Empty, or comments only.
    Empty,
    /// Handled by pgweir itself.
    Pgweir,
}

impl Why {
    /// The word in `explain`, logs and metrics (snake case).
    pub fn as_str(self) -> &'static str {
        match self {
            Why::PlainRead => "plain_read",
            Why::WritesRows => "writes_rows",
            Why::Ddl => "ddl",
            Why::Locks => "locks",
            Why::CreatesTable => "creates_table",
            Why::VolatileFunction => "volatile_function",
            Why::UnknownFunction => "unknown_function",
            Why::PrimaryOnlyRelation => "primary_only_relation",
            Why::NodeLocal => "node_local",
            Why::TransactionControl => "transaction_control",
            Why::SessionState => "session_state",
            Why::OpaqueCode => "opaque_code",
            Why::Unparsable => "unparsable",
            Why::TooLarge => "too_large",
            Why::UnsafeEncoding => "unsafe_encoding",
            Why::CatalogNotLoaded => "catalog_not_loaded",
            Why::Empty => "empty",
            Why::Pgweir => "pgweir",
        }
    }
}

/// The class of a text: small and `Copy`, so that the caches hold it without a reference count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// What it may do.
    pub access: Access,
    /// Why.
    pub why: Why,
    /// What else it may do.
    pub marks: Marks,
    /// The route that a comment in the text asks for.
    pub route: Route,
    /// Its shape.
    pub fingerprint: Fingerprint,
    /// The rules whose statement part it matches, as a bit set: see `subjects`.
    pub rules: u64,
}
