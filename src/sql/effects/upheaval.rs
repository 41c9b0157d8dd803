//! What a text does to whole databases and roles, so that connections made before are in the way, or
//! out of date.

use super::cursor::{Cursor, unquoted};
use crate::sql::lexer::Dialect;
use crate::sql::lexer::statements::{Literals, Statements};

/// See the file's head. Names are as the servers know them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upheaval {
    /// It runs only while nobody else is connected to this database: DROP, RENAME, TEMPLATE.
    Empties(String),
    /// Who connects from now on is received in another way, or not at all: ALTER ROLE, ALTER DATABASE.
    Renews {
        /// The database; `None`: all.
        database: Option<String>,
        /// The role; `None`: all.
        role: Option<String>,
    },
}

/// The upheavals in a text, in order.
pub fn upheavals_of(text: &[u8], dialect: Dialect) -> Vec<Upheaval> {
    if !dialect.can_read(text) {
        return Vec::new();
    }
    let statements = Statements::new(text, Literals::All).take_while(|statement| !statement.broken);
    statements.flat_map(|statement| of_statement(&mut Cursor::new(text, &statement.tokens))).collect()
}

fn of_statement(cursor: &mut Cursor<'_>) -> Vec<Upheaval> {
    let verb = cursor.name().unwrap_or_default();
    let object = cursor.name().unwrap_or_default();
    match (verb.as_str(), object.as_str()) {
        ("drop", "database") => emptied_by_drop(cursor).into_iter().collect(),
        ("create", "database") => emptied_as_template(cursor).into_iter().collect(),
        ("alter", "database") => altered_database(cursor).into_iter().collect(),
        ("alter", "role" | "user") => altered_role(cursor).into_iter().collect(),
        ("drop", "role" | "user" | "group") => dropped_roles(cursor),
        _ => Vec::new(),
    }
}

fn emptied_by_drop(cursor: &mut Cursor<'_>) -> Option<Upheaval> {
    if_exists(cursor);
    cursor.name().map(Upheaval::Empties)
}

/// `CREATE DATABASE name WITH … TEMPLATE [=] other`.
fn emptied_as_template(cursor: &mut Cursor<'_>) -> Option<Upheaval> {
    cursor.name()?;
    while !cursor.word("template") {
        if cursor.is_end() {
            return None;
        }
        cursor.skip();
    }
    cursor.operator(b"=");
    let name = cursor.name().or_else(|| cursor.literal().map(|literal| unquoted(&literal)))?;
    Some(Upheaval::Empties(name))
}

fn altered_database(cursor: &mut Cursor<'_>) -> Option<Upheaval> {
    let name = cursor.name()?;
    let moves = cursor.word("rename") || (cursor.word("set") && cursor.word("tablespace"));
    Some(match moves {
        true => Upheaval::Empties(name),
        false => Upheaval::Renews { database: Some(name), role: None },
    })
}

fn altered_role(cursor: &mut Cursor<'_>) -> Option<Upheaval> {
    if cursor.clone().word("mapping") {
        return None;
    }
    let name = cursor.name()?;
    let one = !matches!(name.as_str(), "all" | "current_role" | "current_user" | "session_user");
    let database = if cursor.word("in") && cursor.word("database") { cursor.name() } else { None };
    Some(Upheaval::Renews { database, role: one.then_some(name) })
}

fn dropped_roles(cursor: &mut Cursor<'_>) -> Vec<Upheaval> {
    if cursor.word("mapping") {
        return Vec::new();
    }
    if_exists(cursor);
    let mut roles = Vec::new();
    while let Some(name) = cursor.name() {
        roles.push(Upheaval::Renews { database: None, role: Some(name) });
        cursor.mark(b',');
    }
    roles
}

fn if_exists(cursor: &mut Cursor<'_>) {
    let mut ahead = cursor.clone();
    if ahead.word("if") && ahead.word("exists") {
        *cursor = ahead;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Upheaval> {
        upheavals_of(text.as_bytes(), Dialect::STANDARD)
    }

    fn empties(name: &str) -> Vec<Upheaval> {
        vec![Upheaval::Empties(name.to_owned())]
    }

    fn renews(database: Option<&str>, role: Option<&str>) -> Upheaval {
        Upheaval::Renews { database: database.map(str::to_owned), role: role.map(str::to_owned) }
    }

    #[test]
    fn databases_that_must_be_empty() {
        assert_eq!(of("DROP DATABASE Shop"), empties("shop"));
        assert_eq!(of("drop database if exists \"Shop\" (force);"), empties("Shop"));
        assert_eq!(of("ALTER DATABASE shop RENAME TO store"), empties("shop"));
        assert_eq!(of("ALTER DATABASE shop SET TABLESPACE fast"), empties("shop"));
        assert_eq!(of("CREATE DATABASE b WITH OWNER x TEMPLATE = a ENCODING 'UTF8'"), empties("a"));
        assert_eq!(of("CREATE DATABASE b TEMPLATE 'a'"), empties("a"));
        assert_eq!(of("CREATE DATABASE template"), []);
    }

    #[test]
    fn who_is_received_in_another_way() {
        assert_eq!(of("ALTER DATABASE shop SET work_mem = '8MB'"), [renews(Some("shop"), None)]);
        assert_eq!(of("ALTER ROLE ann SET search_path = x"), [renews(None, Some("ann"))]);
        assert_eq!(of("ALTER USER ann IN DATABASE shop RESET ALL"), [renews(Some("shop"), Some("ann"))]);
        assert_eq!(of("ALTER ROLE ALL RESET work_mem"), [renews(None, None)]);
        assert_eq!(
            of("DROP ROLE IF EXISTS ann, bob"),
            [renews(None, Some("ann")), renews(None, Some("bob"))]
        );
    }

    #[test]
    fn everything_else_upsets_nobody() {
        for text in ["DROP TABLE database", "ALTER TABLE t RENAME TO u", "ALTER USER MAPPING FOR a SERVER s"]
        {
            assert_eq!(of(text), [], "{text}");
        }
        assert_eq!(of("SELECT 'DROP DATABASE shop'"), []);
        assert_eq!(of("DROP USER MAPPING FOR ann SERVER s"), []);
    }
}
