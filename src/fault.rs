//! What went wrong, who is to blame, and whether trying again is safe.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Whose fault it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// The client sent something wrong, or left.
    Client,
    /// A server answered wrongly, refused, or was lost.
    Server,
    /// pgweir's own configuration or limits.
    Proxy,
}

/// May what failed be sent again?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// Nothing had reached a server.
    Safe,
    /// It may have had an effect.
    Unsafe,
}

/// A five-character SQLSTATE (PostgreSQL manual, Appendix A).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// 00000.
    pub const SUCCESSFUL_COMPLETION: SqlState = SqlState(*b"00000");
    /// 08006: a connection to a server was lost.
    pub const CONNECTION_FAILURE: SqlState = SqlState(*b"08006");
    /// 08007: the fate of what was in flight is unknown.
    pub const TRANSACTION_RESOLUTION_UNKNOWN: SqlState = SqlState(*b"08007");
    /// 08P01: bytes that are not the protocol.
    pub const PROTOCOL_VIOLATION: SqlState = SqlState(*b"08P01");
    /// 08001: no connection to a server could be made.
    pub const CANNOT_CONNECT: SqlState = SqlState(*b"08001");
    /// 0A000.
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState(*b"0A000");
    /// 22023.
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState(*b"22023");
    /// 25006: a write reached a node that is read-only.
    pub const READ_ONLY_SQL_TRANSACTION: SqlState = SqlState(*b"25006");
    /// 25P02.
    pub const IN_FAILED_SQL_TRANSACTION: SqlState = SqlState(*b"25P02");
    /// 26000.
    pub const INVALID_SQL_STATEMENT_NAME: SqlState = SqlState(*b"26000");
    /// 28000.
    pub const INVALID_AUTHORIZATION: SqlState = SqlState(*b"28000");
    /// 28P01.
    pub const INVALID_PASSWORD: SqlState = SqlState(*b"28P01");
    /// 3D000.
    pub const INVALID_CATALOG_NAME: SqlState = SqlState(*b"3D000");
    /// 40001.
    pub const SERIALIZATION_FAILURE: SqlState = SqlState(*b"40001");
    /// 40P01.
    pub const DEADLOCK_DETECTED: SqlState = SqlState(*b"40P01");
    /// 42601.
    pub const SYNTAX_ERROR: SqlState = SqlState(*b"42601");
    /// 42704.
    pub const UNDEFINED_OBJECT: SqlState = SqlState(*b"42704");
    /// 53300.
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState(*b"53300");
    /// 54000.
    pub const PROGRAM_LIMIT_EXCEEDED: SqlState = SqlState(*b"54000");
    /// 55000.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState(*b"55000");
    /// 57014.
    pub const QUERY_CANCELED: SqlState = SqlState(*b"57014");
    /// An acknowledged write is not part of the timeline that goes on (pgweir's own code).
    pub const ACKNOWLEDGED_WRITE_LOST: SqlState = SqlState(*b"LW001");
    /// 57P01.
    pub const ADMIN_SHUTDOWN: SqlState = SqlState(*b"57P01");
    /// 57P02.
    pub const CRASH_SHUTDOWN: SqlState = SqlState(*b"57P02");
    /// 57P03.
    pub const CANNOT_CONNECT_NOW: SqlState = SqlState(*b"57P03");
    /// XX000.
    pub const INTERNAL_ERROR: SqlState = SqlState(*b"XX000");

    /// The five characters; `XX000` for bytes that are not ASCII.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// From an error field; `None` unless it has exactly five bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<SqlState> {
        bytes.try_into().ok().map(SqlState)
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error in the form in which a client sees it (an ErrorResponse) and an operator reads it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Whose fault it is.
    pub blame: Blame,
    /// Is trying again safe?
    pub retry: Retry,
    /// The SQLSTATE that clients act on.
    pub sqlstate: SqlState,
    /// One sentence, lower case, no full stop (PostgreSQL's error message style guide).
    pub message: Cow<'static, str>,
    /// What exactly happened.
    pub detail: Option<Cow<'static, str>>,
    /// What the reader can do about it.
    pub hint: Option<Cow<'static, str>>,
}

impl Fault {
    /// A fault without DETAIL and HINT, unsafe to retry.
    pub fn new(blame: Blame, sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault { blame, retry: Retry::Unsafe, sqlstate, message: message.into(), detail: None, hint: None }
    }

    /// The client's fault.
    pub fn client(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(Blame::Client, sqlstate, message)
    }

    /// A server's fault.
    pub fn server(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(Blame::Server, sqlstate, message)
    }

    /// Our own limits or configuration.
    pub fn proxy(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(Blame::Proxy, sqlstate, message)
    }

    /// With a DETAIL line.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Fault {
        self.detail = Some(detail.into());
        self
    }

    /// With a HINT line.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    /// Marked as safe to try again: nothing had reached a server.
    pub fn retriable(mut self) -> Fault {
        self.retry = Retry::Safe;
        self
    }
}

/// An error with all that caused it, in one line.
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.replace('\n', " ")
}
