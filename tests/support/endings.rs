//! How server processes end under a statement, and what became of it.
#![allow(dead_code, reason = "no test binary uses all of it")]

use pgweir::devcluster::DevNode;
use tokio_postgres::Error;

use crate::harness::{describe, wait_until};

/// What a server process is doing, as a condition on `pg_stat_activity`. `active` alone says little: it is true
/// before the statement has begun to do anything.
#[derive(Clone, Copy, Debug)]
pub struct Doing(&'static str);

/// Its client has a transaction open, and says nothing.
pub const IDLE_IN_TRANSACTION: Doing = Doing("state = 'idle in transaction'");
/// It is in `pg_sleep`.
pub const ASLEEP: Doing = Doing("wait_event = 'PgSleep'");
/// It has committed, and waits until a standby has that.
pub const WAITING_FOR_STANDBYS: Doing = Doing("wait_event = 'SyncRep'");

/// Ends the one server process of the application whose last text has this mark and that does this.
pub fn terminate(primary: &DevNode, mark: &str, doing: Doing) {
    let ended = format!(
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app' \
         AND query LIKE '%{mark}%' AND {} AND pid <> pg_backend_pid()",
        doing.0
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
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%{mark}%' AND {}",
        ASLEEP.0
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
