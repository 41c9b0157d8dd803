//! Prepared statements: one shared statement per text and parameter types, under a name of our own
//! on every server connection that needs it, whatever each client calls it.

pub mod scope;
mod server;
mod shape;
mod translation;

pub use scope::Scope;
pub use server::{Cause, Held, PreparedCounts, ServerStatements, TELLS};
pub use shape::Shape;
pub use translation::Translation;

use crate::sql::class::Class;
use crate::wire::frame::HEADER_LEN;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Server-side names start with this; a client's unknown name never may.
pub const SERVER_NAME_PREFIX: &str = "\u{2}pgweir_";

/// A text with its parameter types, prepared at will on any connection of its pool.
#[derive(PartialEq, Eq, Debug)]
pub struct Statement {
    /// Unique in the process.
    pub id: u64,
    /// The name on server connections.
    pub server_name: Box<[u8]>,
    /// The text.
    pub text: Box<[u8]>,
    /// Count and OIDs of the parameter types, as they stand in Parse.
    pub types: Box<[u8]>,
    /// Under what it was read.
    pub scope: Scope,
}

/// How types given in SQL begin, where others have their number. Of so many types there would be more
/// bytes than a list in SQL may have.
const SQL_TYPES: &[u8] = b"\xff\xff";

impl Statement {
    /// A list of types as it stands in PREPARE, in the place of OIDs; none are none in either form.
    pub fn types_of_sql(list: &[u8]) -> Vec<u8> {
        match list {
            [] => vec![0, 0],
            list => [SQL_TYPES, list].concat(),
        }
    }

    /// The list of types, if it was given in SQL: then it can be prepared only in SQL.
    pub fn sql_types(&self) -> Option<&[u8]> {
        self.types.strip_prefix(SQL_TYPES).filter(|list| list.len() < 4 * usize::from(u16::MAX))
    }
}

#[cfg(test)]
impl Statement {
    /// One of no importance.
    pub(in crate::session) fn plain(id: u64) -> Arc<Statement> {
        let (server_name, text, types) = Default::default();
        Arc::new(Statement { id, server_name, text, types, scope: Scope::default() })
    }
}

/// A client's name for a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientStatement {
    /// What it stands for.
    pub statement: Arc<Statement>,
    /// Its class, made at Parse.
    pub class: Class,
    /// Under which knowledge of the database it was made.
    pub epoch: u64,
    /// When the client prepared it, as a number that grows.
    pub parsed: u64,
    /// What the client was told of it.
    pub shape: Shape,
}

/// A client's statements by its names for them. Each request looks one up several times; whoever makes names
/// that meet in this table makes only its own requests slower, and has a bounded number of them.
pub type Names = HashMap<Box<[u8]>, ClientStatement, RandomState>;

/// An error that speaks of a statement by our name, with the client's instead; `None`: it does not.
pub fn in_clients_words(error: &[u8], names: &Names) -> Option<Box<[u8]>> {
    let start = memchr::memmem::find(error, SERVER_NAME_PREFIX.as_bytes())?;
    let digits_at = start + SERVER_NAME_PREFIX.len();
    let digits = error[digits_at..].iter().position(|byte| !byte.is_ascii_hexdigit())?;
    let (ours, end) = (&error[start..digits_at + digits], &error[digits_at + digits..]);
    let (name, _) = names.iter().find(|(_, named)| *named.statement.server_name == *ours)?;
    let body = [error.get(HEADER_LEN..start)?, name, end].concat();
    let length = u32::try_from(body.len() + 4).ok()?;
    Some([&b"E"[..], &length.to_be_bytes(), &body].concat().into())
}

/// The unnamed statement of a session: it lasts until the next unnamed Parse or simple Query.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unnamed {
    /// Which message made it what it is, unique in the process; 0: no server can have it.
    pub tag: u64,
    /// Its text.
    pub text: Vec<u8>,
    /// Its parameter types.
    pub types: Vec<u8>,
    /// Its class; `None`: there is no unnamed statement.
    pub class: Option<Class>,
    /// Under which knowledge of the database it was made.
    pub epoch: u64,
}

impl Unnamed {
    /// Keeps no more room than it needs.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.types.shrink_to_fit();
    }
}

type Key = (Box<[u8]>, Box<[u8]>, Scope);

/// All statements of one pool's clients, by text, types and scope; forgets those no client names any
/// more.
#[derive(Debug)]
pub struct Registry {
    known: HashMap<Key, Weak<Statement>>,
    sweep_at: usize,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry { known: HashMap::new(), sweep_at: 256 }
    }
}

impl Registry {
    /// The shared statement for this text and these types; `next_id` names a new one.
    pub fn statement(
        &mut self,
        text: &[u8],
        types: &[u8],
        scope: &Scope,
        next_id: impl FnOnce() -> u64,
    ) -> Arc<Statement> {
        let key: Key = (text.into(), types.into(), scope.clone());
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        self.sweep();
        let id = next_id();
        let server_name = format!("{SERVER_NAME_PREFIX}{id:x}").into_bytes().into();
        let scope = scope.clone();
        let statement =
            Arc::new(Statement { id, server_name, text: text.into(), types: types.into(), scope });
        self.known.insert(key, Arc::downgrade(&statement));
        statement
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// None is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, statement| statement.strong_count() > 0);
            self.sweep_at = (self.known.len() * 2).max(256);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_text_and_types_are_one_statement_while_somebody_names_it() {
        let mut registry = Registry::default();
        let mut ids = 0;
        let mut next = || {
            ids += 1;
            ids
        };
        let here = Scope::default();
        let first = registry.statement(b"SELECT 1", b"\0\0", &here, &mut next);
        let same = registry.statement(b"SELECT 1", b"\0\0", &here, &mut next);
        let other = registry.statement(b"SELECT 1", b"\0\x01\0\0\0\x17", &here, &mut next);
        let later = registry.statement(b"SELECT 1", b"\0\0", &Scope { epoch: 1, ..here.clone() }, &mut next);
        assert!(Arc::ptr_eq(&first, &same) && !Arc::ptr_eq(&first, &other) && !Arc::ptr_eq(&first, &later));
        for number in 0..10_000 {
            registry.statement(format!("SELECT {number}").as_bytes(), b"\0\0", &here, &mut next);
        }
        assert!(registry.len() <= 300, "{}", registry.len());
    }
}
