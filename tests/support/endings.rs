//! How server processes end under a statement, and what became of it.
#![allow(dead_code, reason = "no test binary uses all of it")]

use pgweir::devcluster::DevNode;
use tokio_postgres::Error;

use crate::harness::{describe, wait_until};

/// Ends the one server process of the application whose last text has this mark and that is in this state.
pub fn terminate(primary: &DevNode, mark: &str, state: &str) {
    let ended = format!(
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app' \
         AND query LIKE '%{mark}%' AND state LIKE '{state}' AND pid <> pg_backend_pid()"
    );
    wait_until(&format!("{mark} is there to be ended"), || {
        primary.sql_value(&ended).unwrap().as_deref() == Some("1")
    });
}

/// Sleeps for long, but not when the server has been started again.
pub fn once(primary: &DevNode) -> String {
    let started = primary.sql_value("SELECT pg_postmaster_start_time()").unwrap().unwrap();
    format!("pg_sleep(CASE WHEN pg_postmaster_start_time() = '{started}' THEN 50 ELSE 0 END)")
}

/// Waits until a text of the application's with this mark sleeps.
pub fn wait_asleep(primary: &DevNode, mark: &str) {
    let runs = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE usename = 'app' AND query LIKE '%{mark}%' AND wait_event = 'PgSleep'"
    );
    wait_until(&format!("{mark} runs"), || primary.sql_value(&runs).unwrap().as_deref() == Some("1"));
}

/// The SQLSTATE of an error.
pub fn code<T>(result: Result<T, Error>) -> String {
    let error = result.err().expect("an error");
    error.code().map_or_else(|| describe(&error), |code| code.code().to_owned())
}

/// How often it was done, as this node has it.
pub fn done(node: &DevNode, what: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM done WHERE what = '{what}'");
    node.sql_value(&sql).unwrap().unwrap().parse().unwrap()
}
