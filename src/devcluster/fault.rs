//! What can go wrong with a development cluster, said so that the reader knows what to do next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Why a development cluster could not do what it was asked.
#[derive(Debug, Error)]
pub enum DevClusterError {
    /// No PostgreSQL server on this machine.
    #[error(
        "no PostgreSQL server binaries (initdb, postgres) found in: {searched}\n\
         install them: Debian, Ubuntu: apt-get install postgresql · Fedora, RHEL: dnf install \
         postgresql-server · Alpine: apk add postgresql · macOS: brew install postgresql@17\n\
         or name their folder: PG_BIN=/path/to/bin"
    )]
    NoServer {
        /// The places that were looked at.
        searched: String,
    },
    /// A folder was named (PG_BIN) or found, but its server cannot be used.
    #[error("the PostgreSQL server in {} cannot be used: {why}", folder.display())]
    UnusableServer {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else to run it as.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a user `postgres` nor `nobody`: \
         create one (useradd --system postgres) or start this as an ordinary user"
    )]
    NoUnprivilegedUser,
    /// There is no temporary folder that the server's user can reach.
    #[error("no temporary folder that the server's user can reach (tried: {tried}); set TMPDIR")]
    NoTemporaryFolder {
        /// The folders that were tried.
        tried: String,
    },
    /// A program ended with an error.
    #[error("{program} failed ({status}):\n{output}")]
    Program {
        /// The program's name.
        program: String,
        /// Its exit status.
        status: String,
        /// What it printed.
        output: String,
    },
    /// A server did not come up.
    #[error("{node} did not start: {why}\nthe end of its log:\n{log}")]
    NotStarted {
        /// The node's name.
        node: String,
        /// What was seen.
        why: String,
        /// The last lines of its log.
        log: String,
    },
    /// The node is not running (or already is).
    #[error("{node} is {state}")]
    WrongState {
        /// The node's name.
        node: String,
        /// What it is, in words.
        state: &'static str,
    },
    /// A condition did not come true in time.
    #[error("waited {} s in vain: {what}", .waited.as_secs_f32())]
    TimedOut {
        /// The condition.
        what: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A statement failed on a server.
    #[error("{node}: {message} (SQLSTATE {sqlstate}) in: {sql}")]
    Sql {
        /// The node's name, or its socket.
        node: String,
        /// The server's message.
        message: String,
        /// The server's SQLSTATE.
        sqlstate: String,
        /// The statement.
        sql: String,
    },
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

/// Adds what was being done to an I/O error.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, DevClusterError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, DevClusterError> {
        self.map_err(|source| DevClusterError::Io { what: what(), source })
    }
}
