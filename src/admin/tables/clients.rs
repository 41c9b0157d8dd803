//! SHOW CLIENTS.

use super::{Columns, Row, cell, seconds, yes_no};
use crate::sql::effects::PinReason;
use std::time::Duration;

/// Its columns.
pub const COLUMNS: Columns = &[
    "type",
    "user",
    "database",
    "state",
    "addr",
    "application_name",
    "tls",
    "connect_age_seconds",
    "node",
    "pins",
    "pid",
];

/// What is known of one client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientFacts {
    /// Its user.
    pub user: String,
    /// Its database.
    pub database: String,
    /// What it is doing.
    pub state: &'static str,
    /// From where it came.
    pub address: String,
    /// Its `application_name` at login.
    pub application: String,
    /// Is it encrypted?
    pub encrypted: bool,
    /// Since its login.
    pub age: Duration,
    /// The node it has a connection to.
    pub node: Option<String>,
    /// Its pins, as the bits of the closed list.
    pub pins: u32,
    /// The process id that it was told.
    pub pid: u32,
}

/// Its rows, the oldest client first.
pub fn rows(mut clients: Vec<ClientFacts>) -> Vec<Row> {
    clients.sort_by_key(|client| (std::cmp::Reverse(client.age), client.pid));
    clients.into_iter().map(row).collect()
}

fn row(client: ClientFacts) -> Row {
    vec![
        cell("C"),
        Some(client.user),
        Some(client.database),
        cell(client.state),
        Some(client.address),
        Some(client.application),
        yes_no(client.encrypted),
        seconds(client.age),
        client.node,
        Some(pins(client.pins)),
        cell(client.pid),
    ]
}

fn pins(bits: u32) -> String {
    let words: Vec<&str> = PinReason::ALL
        .into_iter()
        .filter(|reason| bits & (1 << *reason as u32) != 0)
        .map(PinReason::as_str)
        .collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_words_and_the_oldest_client_stands_first() {
        let pinned = (1 << PinReason::Listen as u32) | (1 << PinReason::TemporaryTable as u32);
        let young = ClientFacts { age: Duration::from_secs(1), pid: 1, ..ClientFacts::default() };
        let old = ClientFacts { age: Duration::from_secs(9), pid: 2, pins: pinned, ..ClientFacts::default() };
        let rows = rows(vec![young, old]);
        let pids: Vec<_> = rows.iter().map(|row| row[10].as_deref()).collect();
        assert_eq!(pids, [Some("2"), Some("1")]);
        assert_eq!(rows[0][9].as_deref(), Some("temporary_table,listen"));
        assert_eq!(rows[1][9].as_deref(), Some(""));
        assert_eq!(rows[0].len(), COLUMNS.len());
    }

    #[test]
    fn bits_beyond_the_closed_list_say_nothing() {
        assert_eq!(pins(1 << 31), "");
    }
}
