//! SHOW STATS: one count per row, so that new ones break no reader.

use super::{Columns, Row, cell};

/// Its columns. A count of the whole process has no database, node and role.
pub const COLUMNS: Columns = &["database", "node", "role", "name", "value"];

/// What was sent to one node in one role, for one database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// The database.
    pub database: String,
    /// The node.
    pub node: String,
    /// Its role at the time, where that is known.
    pub role: Option<&'static str>,
    /// Request groups by reason; those of 0 are left out of the table.
    pub by_reason: Vec<(&'static str, u64)>,
}

/// Its rows: the databases first, then the process.
pub fn rows(mut all: Vec<Sent>, process: &[(String, u64)]) -> Vec<Row> {
    all.sort_by(|a, b| (&a.database, &a.node, a.role).cmp(&(&b.database, &b.node, b.role)));
    let mut rows = Vec::new();
    for sent in &all {
        let of = |name: String, value: u64| {
            vec![cell(&sent.database), cell(&sent.node), sent.role.and_then(cell), Some(name), cell(value)]
        };
        let total = sent.by_reason.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        rows.push(of("statements".to_owned(), total));
        let counted = sent.by_reason.iter().filter(|(_, count)| *count > 0);
        rows.extend(counted.map(|(reason, count)| of(format!("statements_{reason}"), *count)));
    }
    rows.extend(process.iter().map(|(name, value)| vec![None, None, None, cell(name), cell(value)]));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_total_and_its_reasons_and_the_process_comes_last() {
        let sent = Sent {
            database: "shop".into(),
            node: "pg1".into(),
            role: Some("primary"),
            by_reason: vec![("balanced", 5), ("write", 0), ("pinned", 2)],
        };
        let rows = rows(vec![sent], &[("logins".to_owned(), 9)]);
        let pairs: Vec<_> =
            rows.iter().map(|row| (row[0].as_deref(), row[3].as_deref(), row[4].as_deref())).collect();
        let expected = [
            (Some("shop"), Some("statements"), Some("7")),
            (Some("shop"), Some("statements_balanced"), Some("5")),
            (Some("shop"), Some("statements_pinned"), Some("2")),
            (None, Some("logins"), Some("9")),
        ];
        assert_eq!(pairs, expected);
    }
}
