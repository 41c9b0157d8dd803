//! SHOW DATABASES, LISTS, VERSION and HELP.

use super::{Columns, Row, cell};
use crate::admin::command::{Operation, Show, VERSION};

/// SHOW DATABASES; `host` and `port` are the primary's.
pub const DATABASE_COLUMNS: Columns = &[
    "name",
    "host",
    "port",
    "database",
    "pool_size",
    "min_pool_size",
    "pool_mode",
    "current_connections",
    "current_clients",
];

/// SHOW LISTS.
pub const LIST_COLUMNS: Columns = &["list", "items"];

/// SHOW VERSION.
pub const VERSION_COLUMNS: Columns = &["version"];

/// SHOW HELP.
pub const HELP_COLUMNS: Columns = &["command", "meaning"];

/// What is known of one database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DatabaseFacts {
    /// As clients name it.
    pub name: String,
    /// As the servers name it.
    pub server_name: String,
    /// Server connections at most, per user and node.
    pub size: u32,
    /// Server connections kept.
    pub min_idle: u32,
    /// When connections go back.
    pub mode: &'static str,
    /// Server connections of all its pools.
    pub servers: usize,
    /// Clients.
    pub clients: usize,
}

/// The rows of SHOW DATABASES.
pub fn database_rows(databases: &[DatabaseFacts], primary: Option<(&str, u16)>) -> Vec<Row> {
    let row = |facts: &DatabaseFacts| {
        vec![
            cell(&facts.name),
            primary.and_then(|(host, _)| cell(host)),
            primary.and_then(|(_, port)| cell(port)),
            cell(&facts.server_name),
            cell(facts.size),
            cell(facts.min_idle),
            cell(facts.mode),
            cell(facts.servers),
            cell(facts.clients),
        ]
    };
    databases.iter().map(row).collect()
}

/// The rows of SHOW LISTS.
pub fn list_rows(items: &[(&str, usize)]) -> Vec<Row> {
    items.iter().map(|(list, count)| vec![cell(list), cell(count)]).collect()
}

/// The row of SHOW VERSION.
pub fn version_rows() -> Vec<Row> {
    vec![vec![cell(VERSION)]]
}

/// The rows of SHOW HELP.
pub fn help_rows() -> Vec<Row> {
    let shows =
        Show::ALL.iter().map(|(_, name, meaning)| (format!("SHOW {}", name.to_uppercase()), *meaning));
    let reload = ("RELOAD".to_owned(), "read the configuration again (users listed in auth.users)");
    let operations = Operation::ALL.map(|(command, meaning)| (command.to_owned(), meaning));
    shows
        .chain([reload])
        .chain(operations)
        .map(|(command, meaning)| vec![Some(command), cell(meaning)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::command::parse;

    #[test]
    fn help_lists_only_what_is_understood() {
        for row in help_rows() {
            let command = row[0].clone().unwrap_or_default();
            assert!(parse(command.as_bytes()).is_ok_and(|commands| commands.len() == 1), "{command}");
            assert_eq!(row.len(), HELP_COLUMNS.len());
        }
    }

    #[test]
    fn a_database_without_a_primary_has_no_address() {
        let facts = DatabaseFacts { name: "shop".into(), ..DatabaseFacts::default() };
        let rows = database_rows(std::slice::from_ref(&facts), None);
        assert_eq!((rows[0].len(), rows[0][1].clone()), (DATABASE_COLUMNS.len(), None));
        let rows = database_rows(&[facts], Some(("10.0.0.1", 5432)));
        assert_eq!((rows[0][1].as_deref(), rows[0][2].as_deref()), (Some("10.0.0.1"), Some("5432")));
    }
}
