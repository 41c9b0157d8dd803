//! SHOW POOLS and SHOW SERVERS.

use super::{Columns, Row, cell, seconds, yes_no};
use crate::pool::checkout::{IdleServer, PoolCounts};

/// SHOW POOLS: PgBouncer's names, and the node.
pub const COLUMNS: Columns = &[
    "database",
    "user",
    "node",
    "cl_active",
    "cl_waiting",
    "sv_active",
    "sv_idle",
    "pool_size",
    "min_pool_size",
    "pool_mode",
];

/// SHOW SERVERS. A connection that has a client is found through it: `link` is the client's pid, and
/// how long it has been connected is not known.
pub const SERVER_COLUMNS: Columns = &[
    "type",
    "user",
    "database",
    "state",
    "node",
    "tls",
    "connect_age_seconds",
    "idle_seconds",
    "remote_pid",
    "prepared_statements",
    "link",
    "application_name",
];

/// What is known of one pool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PoolFacts {
    /// Its database.
    pub database: String,
    /// Its user.
    pub user: String,
    /// Its node.
    pub node: String,
    /// Its numbers.
    pub counts: PoolCounts,
    /// Server connections at most.
    pub size: u32,
    /// Server connections kept.
    pub min_idle: u32,
    /// When connections go back.
    pub mode: &'static str,
    /// Its idle connections, with their age and idle time.
    pub idle: Vec<IdleServer>,
    /// The clients that have one of its connections: pid and `application_name`.
    pub users: Vec<(u32, String)>,
}

/// The rows of SHOW POOLS.
pub fn rows(mut pools: Vec<PoolFacts>) -> Vec<Row> {
    sort(&mut pools);
    let row = |pool: PoolFacts| {
        vec![
            Some(pool.database),
            Some(pool.user),
            Some(pool.node),
            cell(pool.users.len()),
            cell(pool.counts.waiting),
            cell(pool.counts.active),
            cell(pool.counts.idle),
            cell(pool.size),
            cell(pool.min_idle),
            cell(pool.mode),
        ]
    };
    pools.into_iter().map(row).collect()
}

/// The rows of SHOW SERVERS.
pub fn server_rows(mut pools: Vec<PoolFacts>) -> Vec<Row> {
    sort(&mut pools);
    let mut rows = Vec::new();
    for pool in &pools {
        rows.extend(pool.users.iter().map(|(pid, application)| active(pool, *pid, application)));
        rows.extend(pool.idle.iter().map(|server| idle(pool, server)));
    }
    rows
}

fn sort(pools: &mut [PoolFacts]) {
    pools.sort_by(|a, b| (&a.database, &a.user, &a.node).cmp(&(&b.database, &b.user, &b.node)));
}

fn head(pool: &PoolFacts, state: &str) -> Row {
    vec![cell("S"), cell(&pool.user), cell(&pool.database), cell(state), cell(&pool.node)]
}

fn active(pool: &PoolFacts, pid: u32, application: &str) -> Row {
    let mut row = head(pool, "active");
    row.extend([None, None, None, None, None, cell(pid), cell(application)]);
    row
}

fn idle(pool: &PoolFacts, server: &IdleServer) -> Row {
    let mut row = head(pool, "idle");
    row.extend([
        yes_no(server.encrypted),
        seconds(server.age),
        seconds(server.idle),
        // Poolers in front of a node may report none.
        (server.pid != 0).then(|| server.pid.to_string()),
        cell(server.prepared),
        None,
        None,
    ]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pool(database: &str, node: &str) -> PoolFacts {
        PoolFacts {
            database: database.into(),
            user: "app".into(),
            node: node.into(),
            counts: PoolCounts { idle: 1, active: 2, waiting: 3 },
            size: 20,
            min_idle: 0,
            mode: "transaction",
            idle: vec![IdleServer {
                age: Duration::ZERO,
                idle: Duration::ZERO,
                pid: 77,
                encrypted: true,
                prepared: 4,
            }],
            users: vec![(5, "psql".into())],
        }
    }

    #[test]
    fn pools_are_sorted_and_counted() {
        let rows = rows(vec![pool("b", "pg1"), pool("a", "pg2"), pool("a", "pg1")]);
        let names: Vec<_> = rows.iter().map(|row| (row[0].clone(), row[2].clone())).collect();
        let expected = [("a", "pg1"), ("a", "pg2"), ("b", "pg1")];
        assert_eq!(names, expected.map(|(a, b)| (Some(a.to_owned()), Some(b.to_owned()))));
        let numbers: Vec<_> = rows[0][3..].iter().flatten().map(String::as_str).collect();
        assert_eq!(numbers, ["1", "3", "2", "1", "20", "0", "transaction"]);
        assert_eq!(rows[0].len(), COLUMNS.len());
    }

    #[test]
    fn a_server_in_use_names_its_client_and_an_idle_one_its_age() {
        let rows = server_rows(vec![pool("a", "pg1")]);
        assert!(rows.iter().all(|row| row.len() == SERVER_COLUMNS.len()));
        assert_eq!((rows[0][3].as_deref(), rows[0][10].as_deref()), (Some("active"), Some("5")));
        assert_eq!((rows[1][3].as_deref(), rows[1][8].as_deref()), (Some("idle"), Some("77")));
        assert_eq!((rows[1][6].as_deref(), rows[1][10].as_deref()), (Some("0.000"), None));
    }
}
