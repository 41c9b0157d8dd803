//! Where statements go, on real servers: what may write to the primary at its first time, what only
//! reads to the replicas, and what a replica could not finish to somebody who can.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use harness::{
    LONG, NO_WRITER, SERVED_BY, Scene, Stage, Tuning, Weir, describe, first_value, served_by, value,
    wait_for, wait_until,
};
use pgweir::devcluster::{APP, DevNode, Options};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const SCHEMA: [&str; 10] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE acct (id int PRIMARY KEY, balance int NOT NULL)",
    "INSERT INTO acct SELECT id, 100 FROM generate_series(1, 1000) id",
    "CREATE TABLE note (at text)",
    "CREATE SEQUENCE seq",
    "CREATE FUNCTION writer() RETURNS int VOLATILE LANGUAGE plpgsql \
     AS $$ BEGIN INSERT INTO note VALUES ('writer'); RETURN 1; END $$",
    "CREATE VIEW writing_view AS SELECT writer() AS one",
    // What it calls is in no dependency and in no list: only the replica's refusal tells.
    "CREATE FUNCTION looks_stable() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN writer(); END $$",
    "CREATE FUNCTION looks_stable_too() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN writer(); END $$",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || Stage::with(Options::default(), &SCHEMA))
}

/// All that went anywhere since went to the primary, and nothing was sent twice.
fn assert_only_primary(weir: &Weir<'_>, before: &harness::Counts, replays: u64, what: &str) {
    let since = weir.counts_since(before);
    assert!(!since.is_empty(), "{what}: nothing was counted");
    for went in since.keys() {
        assert_eq!(went.role, "primary", "{what}: {since:?}");
        assert!(went.reason != "replayed" && went.reason != "learnt", "{what}: {since:?}");
    }
    assert_eq!(weir.replays(), replays, "{what} was sent again");
}

#[test]
fn what_may_write_runs_on_the_primary_the_first_time() {
    let scene = scene();
    let weir = scene.weir();
    let statements = [
        "SELECT writer()",
        "SELECT * FROM writing_view",
        "SELECT id, (SELECT writer()) FROM acct WHERE id = 1",
        "SELECT * FROM acct, writer() WHERE id = 1",
        "SELECT nextval('seq')",
        "WITH gone AS (DELETE FROM acct WHERE id = 1000 RETURNING id) SELECT count(*) FROM gone",
        "SELECT * FROM acct WHERE id = 1 FOR UPDATE",
        "SELECT * FROM acct WHERE id = 1 FOR KEY SHARE",
        "EXPLAIN ANALYZE INSERT INTO note VALUES ('explained')",
        "INSERT INTO note VALUES ('plain')",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT id INTO made_by_select FROM acct WHERE id = 1",
        "DROP TABLE made_by_select",
    ];
    scene.run(async {
        let client = weir.connect().await;
        // Learnt shapes would hide a first mistake: each statement is new to this pgweir.
        for sql in statements {
            let (before, replays) = (weir.counts(), weir.replays());
            client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
            assert_only_primary(&weir, &before, replays, sql);
        }
        for sql in
            ["SELECT 1; DELETE FROM note", "SELECT 1;;SELECT 2; UPDATE acct SET balance = 1 WHERE id = 2"]
        {
            let (before, replays) = (weir.counts(), weir.replays());
            client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
            assert_only_primary(&weir, &before, replays, sql);
        }
        assert_eq!(value(&client, "SELECT balance FROM acct WHERE id = 2").await, "1");
    });
}

#[test]
fn what_may_write_runs_on_the_primary_the_first_time_in_the_extended_protocol() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        for sql in ["SELECT writer()", "SELECT one FROM writing_view", "SELECT nextval('seq')::int"] {
            // Parsing alone writes nothing, wherever it is done.
            let prepared = client.prepare(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
            let (before, replays) = (weir.counts(), weir.replays());
            client.query(&prepared, &[]).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
            assert_only_primary(&weir, &before, replays, sql);
        }
        let copy = "COPY (INSERT INTO note VALUES ('copied') RETURNING at) TO STDOUT";
        let prepared = client.prepare(copy).await.unwrap();
        let (before, replays) = (weir.counts(), weir.replays());
        let chunks: Vec<_> = client.copy_out(&prepared).await.unwrap().try_collect().await.unwrap();
        assert_eq!(chunks.concat(), b"copied\n");
        assert_only_primary(&weir, &before, replays, copy);

        let locking = client.prepare("SELECT balance FROM acct WHERE id = $1 FOR UPDATE").await.unwrap();
        for id in 10..20_i32 {
            let (before, replays) = (weir.counts(), weir.replays());
            client.query_one(&locking, &[&id]).await.unwrap();
            assert_only_primary(&weir, &before, replays, "a prepared FOR UPDATE");
        }
    });
}

#[test]
fn reads_are_split_between_the_replicas() {
    let scene = scene();
    for balance in ["lag", "least_busy", "latency", "round_robin", "random"] {
        let weir = scene.weir_with(&Tuning::patient(&[&format!("balance: {balance}")]));
        // While connections are being made, who is quicker at it gets more.
        scene.run(reads_by_node(&weir, 8, 4));
        let served = scene.run(reads_by_node(&weir, 16, 30));
        let total: u64 = served.values().sum();
        assert_eq!(total, 480);
        assert_eq!(served.get("pg1"), None, "{balance}: {served:?}");
        for replica in ["pg2", "pg3"] {
            let share = served.get(replica).copied().unwrap_or(0) * 100 / total;
            let is_fair = match balance {
                // It prefers the quicker one, by design; both stay in use.
                "latency" => served.contains_key(replica),
                _ => (35..=65).contains(&share),
            };
            assert!(is_fair, "{balance}: {served:?}\n{}", weir.nodes());
        }
    }
}

/// `rounds` reads on each of `connections`, by who served them.
async fn reads_by_node(weir: &Weir<'_>, connections: usize, rounds: usize) -> BTreeMap<String, u64> {
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let client = weir.connect().await;
        tasks.push(tokio::spawn(async move {
            let mut served = Vec::new();
            for _ in 0..rounds {
                served.push(served_by(&client).await);
                // Monotonic reads hold a session that never pauses where it is.
                tokio::time::sleep(harness::PAUSE).await;
            }
            served
        }));
    }
    let mut by_node = BTreeMap::new();
    for task in tasks {
        for node in task.await.unwrap() {
            *by_node.entry(node).or_default() += 1;
        }
    }
    by_node
}

#[test]
fn a_transaction_is_wholly_on_the_primary() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let mut client = weir.connect().await;
        for begin in ["BEGIN", "START TRANSACTION READ WRITE", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
            client.batch_execute(begin).await.unwrap();
            for _ in 0..5 {
                assert_eq!(served_by(&client).await, "pg1", "{begin}");
            }
            client.batch_execute("COMMIT").await.unwrap();
        }
        let transaction = client.transaction().await.unwrap();
        for _ in 0..5 {
            let row = transaction.query_one("SELECT served_by()", &[]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), "pg1");
        }
        transaction.rollback().await.unwrap();
        assert_eq!(value(&client, "BEGIN; SELECT served_by(); COMMIT").await, "pg1");
        wait_for("reads go to replicas again", async || served_by(&client).await != "pg1").await;
    });
}

#[test]
fn an_error_in_a_transaction_keeps_it_on_the_primary_until_it_ends() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        client.batch_execute("BEGIN; INSERT INTO note VALUES ('doomed')").await.unwrap();
        assert!(client.simple_query("SELECT 1/0").await.is_err());
        let refused = client.simple_query("SELECT served_by()").await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(value(&client, "SELECT count(*) FROM note WHERE at = 'doomed'").await, "0");
    });
}

#[test]
fn hints_in_comments_settings_and_startup_options_are_obeyed() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::patient(&[]));
    scene.run(async {
        let client = weir.connect().await;
        for _ in 0..5 {
            assert_eq!(value(&client, "/* pgweir.route=primary */ SELECT served_by()").await, "pg1");
            assert_eq!(value(&client, "SELECT /* pgweir.route=primary */ served_by()").await, "pg1");
        }
        client.batch_execute("SET pgweir.route = primary").await.unwrap();
        assert_eq!(value(&client, "SHOW pgweir.route").await, "primary");
        assert_eq!(served_by(&client).await, "pg1");
        assert_ne!(value(&client, "/* pgweir.route=replica */ SELECT served_by()").await, "pg1");
        client.batch_execute("SET pgweir.route = 'auto'").await.unwrap();
        assert_ne!(served_by(&client).await, "pg1");
        client.batch_execute("SET pgweir.route TO primary; RESET pgweir.route").await.unwrap();
        assert_ne!(served_by(&client).await, "pg1");

        let asked = weir.connect_with("-c pgweir.route=primary").await;
        assert_eq!(served_by(&asked).await, "pg1");
        let asked = weir.connect_with("-c pgweir.route=replica").await;
        assert_ne!(served_by(&asked).await, "pg1");

        let wrong = client.batch_execute("SET pgweir.route = sideways").await.unwrap_err();
        assert_eq!(wrong.code(), Some(&SqlState::INVALID_PARAMETER_VALUE));
    });
}

#[test]
fn a_hint_for_a_replica_never_sends_a_write_there() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect_with("-c pgweir.route=replica").await;
        for sql in [
            "INSERT INTO note VALUES ('hinted')",
            "/* pgweir.route=replica */ UPDATE acct SET balance = 2 WHERE id = 3",
            "/* pgweir.route=replica */ SELECT writer()",
        ] {
            let (before, replays) = (weir.counts(), weir.replays());
            client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
            assert_only_primary(&weir, &before, replays, sql);
        }
        client.batch_execute("BEGIN").await.unwrap();
        assert_eq!(served_by(&client).await, "pg1");
        client.batch_execute("COMMIT").await.unwrap();
    });
}

#[test]
fn explain_route_says_where_and_why_and_runs_nothing() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        let explain = async |sql: &str| value(&client, &format!("EXPLAIN (ROUTE) {sql}")).await;
        let write = explain("DELETE FROM acct").await;
        assert!(write.contains("primary pg1") && write.contains("write"), "{write}");
        wait_for("a read is explained", async || {
            let read = explain("SELECT * FROM acct").await;
            read.contains("replica pg") && read.contains("balanced")
        })
        .await;
        client.batch_execute("BEGIN").await.unwrap();
        let inside = explain("SELECT 1").await;
        assert!(inside.contains("in_transaction"), "{inside}");
        client.batch_execute("COMMIT").await.unwrap();
        // In the extended protocol as well: drivers know no other.
        let rows = client.query("EXPLAIN (ROUTE) DELETE FROM acct", &[]).await.unwrap();
        assert!(rows[0].get::<_, &str>(0).contains("write"));
    });
}

#[test]
fn a_statement_behind_one_for_pgweir_itself_is_refused_and_not_dropped() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        for sql in [
            "EXPLAIN (ROUTE) SELECT 1; DELETE FROM acct",
            "SET pgweir.route = primary; INSERT INTO note VALUES ('dropped')",
            "INSERT INTO note VALUES ('dropped'); SHOW pgweir.route",
            "BEGIN; SET pgweir.route = primary",
        ] {
            let error = client.simple_query(sql).await.expect_err(sql);
            assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{sql}");
        }
        assert_ne!(value(&client, "SELECT count(*) FROM acct").await, "0");
        assert_eq!(value(&client, "SELECT count(*) FROM note WHERE at = 'dropped'").await, "0");
    });
}

#[test]
fn what_cannot_be_parsed_works_on_the_primary() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        for sql in ["SELECT", r#"SELECT U&"d\0061t" FROM (SELECT 1 AS dat) x"#] {
            let (before, replays) = (weir.counts(), weir.replays());
            client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
            assert_only_primary(&weir, &before, replays, sql);
        }
        let error = client.simple_query("SELECT 1 +").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::SYNTAX_ERROR));
    });
}

#[test]
fn the_replicas_own_statistics_show_the_reads_and_no_rollback() {
    let scene = scene();
    let replicas = scene.cluster.replicas();
    let before: Vec<(i64, i64)> = replicas.iter().map(statistics).collect();
    let weir = scene.weir_with(&Tuning::patient(&[]));
    let served = scene.run(reads_by_node(&weir, 4, 50));
    drop(weir);
    for (replica, before) in replicas.iter().zip(before) {
        let reads = served.get(replica.name()).copied().unwrap_or(0);
        assert!(reads > 0, "{served:?}");
        let (committed, rolled_back) = statistics(replica);
        let counted = committed - before.0;
        assert!(counted >= i64::try_from(reads).unwrap(), "{}: {counted} of {reads}", replica.name());
        assert_eq!(rolled_back, before.1, "{} rolled something back", replica.name());
    }
}

/// Committed and rolled back transactions of the application's database, once all its sessions have
/// ended: a server process may keep transactions that touched no table to itself until it ends.
fn statistics(node: &DevNode) -> (i64, i64) {
    let there = "SELECT pid FROM pg_stat_activity WHERE datname = 'app'";
    wait_until("the sessions have ended", || node.sql_as("postgres", "postgres", there).unwrap().is_empty());
    let sql = "SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = 'app'";
    let rows = node.sql_as("postgres", "postgres", sql).unwrap();
    let number = |column: usize| rows[0][column].as_deref().unwrap().parse().unwrap();
    (number(0), number(1))
}

#[test]
fn a_read_that_writes_after_all_is_replayed_once_and_then_known() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::patient(&[]));
    scene.run(async {
        let client = weir.connect().await;
        let written = value(&client, "/* pgweir.route=primary */ SELECT count(*) FROM note").await;
        let written: u64 = written.parse().unwrap();
        assert_eq!(weir.replays(), 0);
        assert_eq!(value(&client, "SELECT looks_stable()").await, "1");
        assert_eq!(weir.replays(), 1, "the replica refused it, the primary ran it");
        for _ in 0..10 {
            let routed = weir.route(&client, "SELECT looks_stable()").await;
            assert_eq!(routed, [("primary".to_owned(), "learnt".to_owned())]);
        }
        assert_eq!(weir.replays(), 1);
        let now = value(&client, "/* pgweir.route=primary */ SELECT count(*) FROM note").await;
        assert_eq!(now, (written + 11).to_string(), "each ran exactly once");

        // The same by the extended protocol, prepared, of a shape that is not known yet.
        let statement = client.prepare("SELECT looks_stable_too(), $1::int").await.unwrap();
        for round in 0..5_i32 {
            let row = client.query_one(&statement, &[&round]).await.unwrap();
            assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (1, round));
        }
        assert_eq!(weir.replays(), 2);
        let now = value(&client, "/* pgweir.route=primary */ SELECT count(*) FROM note").await;
        assert_eq!(now, (written + 16).to_string(), "each ran exactly once");
    });
}

#[test]
fn a_recovery_conflict_is_retried_elsewhere_without_an_error() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::patient(&[]));
    let primary = scene.cluster.primary();
    primary.sql_as("app", "app", "CREATE TABLE contended (id int)").unwrap();
    scene.cluster.wait_caught_up(LONG).unwrap();
    for replica in scene.cluster.replicas() {
        replica.set("max_standby_streaming_delay", "50ms").unwrap();
    }
    scene.run(async {
        let client = weir.connect().await;
        let read = "SELECT count(*), pg_sleep(2) FROM contended";
        let reading = tokio::spawn(async move { client.simple_query(read).await });
        wait_for("the read runs on a replica", async || {
            scene.cluster.replicas().iter().any(|replica| {
                let sql = "SELECT count(*) FROM pg_stat_activity \
                           WHERE query LIKE '%FROM contended%' AND wait_event = 'PgSleep'";
                replica.sql_value(sql).unwrap().as_deref() != Some("0")
            })
        })
        .await;
        primary.sql("BEGIN; LOCK TABLE contended IN ACCESS EXCLUSIVE MODE; COMMIT").unwrap();
        let rows = reading.await.unwrap().unwrap_or_else(|e| panic!("{}", describe(&e)));
        assert_eq!(first_value(&rows).as_deref(), Some("0"));
        // The other replica may meet the lock later, too.
        let replays = weir.metric("pgweir_replays_total", "recovery_conflict");
        assert!((1.0..=2.0).contains(&replays), "{replays}");
    });
    for replica in scene.cluster.replicas() {
        replica.set("max_standby_streaming_delay", "30s").unwrap();
    }
}

#[test]
fn a_read_that_conflicts_on_every_replica_ends_on_the_primary() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::patient(&[]));
    let primary = scene.cluster.primary();
    primary.sql_as("app", "app", "CREATE TABLE fought_over (id int)").unwrap();
    scene.cluster.wait_caught_up(LONG).unwrap();
    for replica in scene.cluster.replicas() {
        replica.set("max_standby_streaming_delay", "10ms").unwrap();
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            // No replica gets through a read of it; the primary only has to wait for its turn.
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                primary.sql("BEGIN; LOCK TABLE fought_over IN ACCESS EXCLUSIVE MODE; COMMIT").unwrap();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scene.run(async {
                let client = weir.connect().await;
                let read = "SELECT count(*), pg_sleep(1) FROM fought_over";
                let rows = tokio::time::timeout(LONG, client.simple_query(read)).await.expect("it ends");
                let rows = rows.unwrap_or_else(|e| panic!("{}", describe(&e)));
                assert_eq!(first_value(&rows).as_deref(), Some("0"));
                let conflicts = weir.metric("pgweir_replays_total", "recovery_conflict");
                assert!((1.0..=2.0).contains(&conflicts), "each replica is tried once: {conflicts}");
            });
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    for replica in scene.cluster.replicas() {
        replica.set("max_standby_streaming_delay", "30s").unwrap();
    }
}

/// Replay stands still on every replica while this lives.
struct Paused<'a>(&'a Scene);

impl<'a> Paused<'a> {
    fn on(scene: &'a Scene) -> Paused<'a> {
        scene.cluster.replicas().iter().for_each(|replica| replica.pause_replay().unwrap());
        Paused(scene)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        for replica in self.0.cluster.replicas() {
            drop(replica.resume_replay());
        }
        drop(self.0.cluster.wait_caught_up(LONG));
    }
}

/// A replica whose answer comes a little late still serves: else its reads would turn to the primary.
fn unhurried(lines: &[&str]) -> Tuning {
    Tuning { interval: "500ms", ..Tuning::routing(lines) }
}

async fn set_balance(client: &Client, balance: i32) {
    client.simple_query(&format!("UPDATE acct SET balance = {balance} WHERE id = 50")).await.unwrap();
}

const BALANCE: &str = "SELECT balance FROM acct WHERE id = 50";

#[test]
fn a_level_of_the_session_or_the_statement_decides_what_a_stale_replica_may_serve() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let (session, eventual) = (weir.connect().await, weir.connect().await);
        eventual.batch_execute("SET pgweir.consistency = eventual").await.unwrap();
        set_balance(&session, 1).await;
        scene.cluster.wait_caught_up(LONG).unwrap();
        wait_for("the replicas serve again", async || served_by(&session).await != "pg1").await;
        let paused = Paused::on(&scene);
        set_balance(&session, 2).await;
        set_balance(&eventual, 2).await;
        for _ in 0..10 {
            assert_eq!(value(&session, BALANCE).await, "2", "session: its own write");
        }
        // Within max_staleness (10s) it may be old, and with replay paused it is.
        wait_for("eventual: from a replica", async || value(&eventual, BALANCE).await == "1").await;
        let hinted = format!("/* pgweir.consistency=session */ {BALANCE}");
        assert_eq!(value(&eventual, &hinted).await, "2", "a hint raises the level of one statement");
        drop(paused);
        wait_for("the replicas catch up", async || value(&eventual, BALANCE).await == "2").await;
    });
}

#[test]
fn no_replica_is_fresh_enough_is_an_error_where_that_was_asked_for() {
    let scene = scene();
    let weir = scene.weir_with(&unhurried(&["on_lag: error"]));
    scene.run(async {
        let client = weir.connect().await;
        wait_for("reads are served", async || client.simple_query(BALANCE).await.is_ok()).await;
        let paused = Paused::on(&scene);
        set_balance(&client, 3).await;
        let refused =
            client.simple_query(BALANCE).await.expect_err(&format!("{:?}\n{}", weir.counts(), weir.nodes()));
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code(), &SqlState::CANNOT_CONNECT_NOW);
        assert!(refused.hint().is_some_and(|hint| hint.contains("on_lag")), "{refused:?}");
        // The connection goes on, and the primary can still be asked for.
        let hinted = format!("/* pgweir.route=primary */ {BALANCE}");
        assert_eq!(value(&client, &hinted).await, "3");
        drop(paused);
        let mut seen = None;
        wait_for("reads are served again", async || {
            seen = client.simple_query(BALANCE).await.ok().and_then(|rows| first_value(&rows));
            seen.is_some()
        })
        .await;
        assert_eq!(seen.as_deref(), Some("3"));
    });
}

#[test]
fn a_read_waits_for_a_replica_where_that_was_asked_for() {
    let scene = scene();
    let weir = scene.weir_with(&unhurried(&["on_lag: wait", "lag_wait_limit: 25s"]));
    scene.run(async {
        let client = weir.connect().await;
        let paused = Paused::on(&scene);
        set_balance(&client, 4).await;
        let before = weir.counts();
        let reading = tokio::spawn(async move { (value(&client, BALANCE).await, client) });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!reading.is_finished(), "no replica can know yet: {:?}", weir.counts_since(&before));
        drop(paused);
        let (balance, _client) = reading.await.unwrap();
        assert_eq!(balance, "4");
        let since = weir.counts_since(&before);
        assert!(since.keys().any(|went| went.reason == "waited" && went.role == "replica"), "{since:?}");
    });
}

#[test]
fn pinning_after_a_write_lasts_as_long_as_it_was_told_to() {
    let scene = scene();
    let for_a_time = scene.weir_with(&Tuning::routing(&["pin_after_write: 1500ms"]));
    let for_ever = scene.weir_with(&Tuning::routing(&["pin_after_write: until_disconnect"]));
    scene.run(async {
        let (timed, pinned) = (for_a_time.connect().await, for_ever.connect().await);
        let begun = Instant::now();
        for (weir, client) in [(&for_a_time, &timed), (&for_ever, &pinned)] {
            wait_for("nothing is written yet", async || served_by(client).await != "pg1").await;
            set_balance(client, 5).await;
            let routed = weir.route(client, BALANCE).await;
            assert_eq!(routed, [("primary".to_owned(), "after_write".to_owned())]);
        }
        wait_for("the time is over", async || served_by(&timed).await != "pg1").await;
        assert!(begun.elapsed() >= Duration::from_millis(1500), "it was pinned for a while");
        for _ in 0..10 {
            assert_eq!(served_by(&pinned).await, "pg1");
        }
        drop(pinned);
        wait_for("others read where they did", async || served_by(&for_ever.connect().await).await != "pg1")
            .await;
    });
}

#[test]
fn pgbench_runs_in_every_mode_without_a_failed_transaction() {
    let scene = scene();
    let Some(pgbench) = scene.cluster.binaries().optional_program("pgbench") else {
        println!("there is no pgbench beside this server: nothing to run");
        return;
    };
    let weir = scene.weir();
    let run = |arguments: &[&str]| {
        let output =
            Command::new(&pgbench).args(arguments).arg(weir.uri()).env("LC_ALL", "C").output().unwrap();
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
        assert!(output.status.success(), "pgbench {arguments:?}: {text}");
        text
    };
    run(&["-i", "-q", "-s", "2"]);
    scene.cluster.wait_caught_up(LONG).unwrap();
    let before = weir.counts();
    for script in [&["-S"][..], &["-N"], &["-b", "tpcb-like"]] {
        for protocol in ["simple", "extended", "prepared"] {
            let arguments = [script, &["-n", "-c", "32", "-j", "2", "-T", "2", "-M", protocol]].concat();
            let text = run(&arguments);
            let failed = text.lines().find(|line| line.starts_with("number of failed transactions"));
            // Before 15 pgbench did not count them: it gave a client up, and said so.
            assert!(failed.is_none_or(|line| line.contains(": 0 (")), "{arguments:?}: {text}");
            assert!(!text.contains("aborted") && !text.contains("ERROR"), "{arguments:?}: {text}");
            println!("{arguments:?}: {}", text.lines().find(|l| l.starts_with("tps")).unwrap_or_default());
        }
    }
    let since = weir.counts_since(&before);
    let on = |role: &str| since.iter().filter(|(w, _)| w.role == role).map(|(_, n)| n).sum::<u64>();
    assert!(on("replica") > 0 && on("primary") > 0, "{since:?}");
    let sums = ["accounts", "branches", "tellers"].map(|table| {
        let column = &table[..1];
        scene
            .cluster
            .primary()
            .sql_value(&format!("SELECT sum({column}balance) FROM pgbench_{table}"))
            .unwrap()
    });
    println!("accounts, branches, tellers: {sums:?}");
    assert_eq!(sums[1], sums[2], "-N leaves both out, TPC-B adds to both");
}

#[test]
fn as_many_connections_as_were_asked_for_are_open_before_anybody_needs_them() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning { pool: vec!["min_idle: 3".to_owned()], ..Tuning::default() });
    let client = scene.run(weir.connect());
    wait_until("three are idle on every node", || {
        let pools = weir.status().pools;
        pools.len() == 3 && pools.iter().all(|pool| pool.idle == 3 && pool.active == 0)
    });
    drop(client);
}

#[test]
fn invented_names_of_databases_do_not_use_the_pools_up() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning { pool: vec!["max_pools: 3".to_owned()], ..Tuning::default() });
    scene.run(async {
        for n in 0..8 {
            let name = format!("invented_{n}");
            wait_for("it is refused for its name, not for its number", async || {
                let refused = weir.connect_as(APP, &name, "").await.unwrap_err();
                let code = refused.code().cloned().unwrap_or_else(|| panic!("{}", describe(&refused)));
                assert!(
                    [SqlState::INVALID_CATALOG_NAME, SqlState::TOO_MANY_CONNECTIONS].contains(&code),
                    "{code:?}"
                );
                code == SqlState::INVALID_CATALOG_NAME
            })
            .await;
        }
        served_by(&weir.connect().await).await;
    });
}
