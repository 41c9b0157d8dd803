//! The levels above `session` on real servers: `strict` never goes back from a replica to the primary, and
//! `global` shows what had committed anywhere.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use harness::{
    Calm, LONG, NO_WRITER, Over, SERVED_BY, Scene, Stage, Tuning, Weir, connect_to, describe, first_value,
    value, wait_for, wait_until,
};
use pgweir::devcluster::{APP, APP_DATABASE, DevNode, Options};
use pgweir::freshness::defect::Defect;
use tokio_postgres::Client;

const SCHEMA: [&str; 4] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE kv (id int PRIMARY KEY, v bigint NOT NULL)",
    "INSERT INTO kv SELECT id, 0 FROM generate_series(0, 100) id",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || Stage::with(Options::default(), &SCHEMA))
}

/// Commits wait for both replicas to have replayed them.
fn confirm_by_both(scene: &Scene) {
    scene.cluster.primary().set_synchronous_standbys("FIRST 2 (pg2, pg3)").unwrap();
    wait_until("both replicas are synchronous", || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        scene.cluster.primary().sql_value(sql).unwrap().as_deref() == Some("2")
    });
}

async fn direct(node: &DevNode) -> Client {
    connect_to(node.address(), APP, APP_DATABASE, "-c synchronous_commit=remote_apply").await.unwrap()
}

const READ: &str = "SELECT v FROM kv WHERE id = 0";
const READ_REPLICA: &str = "SELECT v FROM kv WHERE id = 0 /* pgweir.route=replica */";
const READ_PRIMARY: &str = "SELECT v FROM kv WHERE id = 0 /* pgweir.route=primary */";

async fn number(client: &Client, sql: &str) -> i64 {
    value(client, sql).await.parse().unwrap()
}

/// A commit that one replica shows, and that hangs on the primary because the other one stands still.
struct Hanging {
    shown: i64,
    commit: tokio::task::JoinHandle<()>,
}

fn hanging(scene: &Scene) -> Hanging {
    confirm_by_both(scene);
    scene.cluster.replica(1).pause_replay().unwrap();
    let before: i64 = scene.cluster.primary().sql_as(APP.name, APP_DATABASE, READ).unwrap()[0][0]
        .as_deref()
        .unwrap()
        .parse()
        .unwrap();
    let writer = scene.run(direct(scene.cluster.primary()));
    let commit = scene.spawn(async move {
        writer.batch_execute("UPDATE kv SET v = v + 1 WHERE id = 0").await.unwrap();
    });
    let shown = before + 1;
    wait_until("the first replica shows it", || {
        let rows = scene.cluster.replica(0).sql_as(APP.name, APP_DATABASE, READ).unwrap();
        rows[0][0].as_deref() == Some(&shown.to_string())
    });
    Hanging { shown, commit }
}

async fn read_it_on_the_replica(client: &Client, shown: i64) {
    wait_for("the session has read it on a replica", async || shows(client, shown).await).await;
}

/// A replica serves it. (While its answer to the monitor is late, the read is the primary's, and has to wait.)
async fn shows(client: &Client, shown: i64) -> bool {
    let rows = client.simple_query(READ_REPLICA).await;
    rows.is_ok_and(|rows| first_value(&rows) == Some(shown.to_string()))
}

#[test]
fn strict_waits_until_the_primary_shows_what_the_session_has_read_on_a_replica() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir_with(&Tuning::routing(&["consistency: strict", "fence_wait: 60s"]));
    let hanging = hanging(&scene);
    scene.run(async {
        let sessions = [weir.connect().await, weir.connect().await, weir.connect().await];
        for session in &sessions {
            read_it_on_the_replica(session, hanging.shown).await;
        }
        let [reader, writer, block] = sessions;
        let read = async { number(&reader, READ_PRIMARY).await };
        let write = async {
            number(&writer, "WITH w AS (UPDATE kv SET v = 7 WHERE id = 1) SELECT v FROM kv WHERE id = 0")
                .await
        };
        let block = async {
            block.batch_execute("BEGIN").await.unwrap();
            let seen = number(&block, READ).await;
            block.batch_execute("COMMIT").await.unwrap();
            seen
        };
        let resume = async {
            // All three are on their way, and wait for nothing but the fence.
            weir_waits(&weir).await;
            scene.cluster.replica(1).resume_replay().unwrap();
        };
        let (read, write, block, ()) = tokio::join!(read, write, block, resume);
        assert_eq!([read, write, block], [hanging.shown; 3]);
        hanging.commit.await.unwrap();
    });
}

/// Some statements that have nothing to do with it come and go.
async fn weir_waits(weir: &Weir<'_>) {
    let other = weir.connect().await;
    for _ in 0..20 {
        number(&other, "SELECT v FROM kv WHERE id = 9").await;
    }
}

#[test]
fn without_the_fence_the_same_session_goes_back() {
    let scene = scene();
    let _calm = Calm(&scene);
    let mut tuning = Tuning::routing(&["consistency: strict"]);
    tuning.defect = Defect::NoFence;
    let weir = scene.weir_with(&tuning);
    let hanging = hanging(&scene);
    scene.run(async {
        let client = weir.connect().await;
        read_it_on_the_replica(&client, hanging.shown).await;
        assert_eq!(number(&client, READ_PRIMARY).await, hanging.shown - 1);
        scene.cluster.replica(1).resume_replay().unwrap();
        hanging.commit.await.unwrap();
    });
}

#[test]
fn session_level_does_not_wait_for_the_primary() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir();
    let hanging = hanging(&scene);
    scene.run(async {
        let client = weir.connect().await;
        read_it_on_the_replica(&client, hanging.shown).await;
        assert_eq!(number(&client, READ_PRIMARY).await, hanging.shown - 1);
        scene.cluster.replica(1).resume_replay().unwrap();
        hanging.commit.await.unwrap();
    });
}

#[test]
fn a_fence_that_does_not_come_is_an_error_and_the_session_goes_on() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir_with(&Tuning::routing(&["consistency: strict", "fence_wait: 30ms"]));
    let hanging = hanging(&scene);
    scene.run(async {
        let client = weir.connect().await;
        read_it_on_the_replica(&client, hanging.shown).await;
        for sql in [READ_PRIMARY, "UPDATE kv SET v = 1 WHERE id = 2", "BEGIN"] {
            let error = client.simple_query(sql).await.expect_err(sql);
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "57P03", "{sql}: {error}");
            assert!(error.hint().unwrap().contains("pgweir.consistency"), "{error:?}");
        }
        // What it has read it may read again, and who asks for less gets less.
        wait_for("the replica serves it", async || shows(&client, hanging.shown).await).await;
        let less = "SELECT v FROM kv WHERE id = 0 /* pgweir.route=primary, pgweir.consistency=session */";
        assert_eq!(number(&client, less).await, hanging.shown - 1);
        scene.cluster.replica(1).resume_replay().unwrap();
        hanging.commit.await.unwrap();
        wait_for("the fence is passed", async || client.simple_query(READ_PRIMARY).await.is_ok()).await;
        client.batch_execute("UPDATE kv SET v = 1 WHERE id = 2").await.unwrap();
    });
}

/// What sessions saw that read on a replica and on the primary in turn.
#[derive(Debug, Default)]
struct Turns {
    pairs: u64,
    ahead: u64,
    backwards: Vec<String>,
    errors: Vec<String>,
}

/// While somebody writes with `remote_apply` and the second replica is slow.
fn turns(scene: &Scene, weir: &Weir<'_>, enough: impl Fn(&Turns) -> bool) -> Turns {
    confirm_by_both(scene);
    scene.cluster.replica(1).set_apply_delay(Duration::from_millis(15)).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (writer, stop) = (scene.run(direct(scene.cluster.primary())), done.clone());
    let over = Over(&done);
    let writing = scene.spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            writer.batch_execute("UPDATE kv SET v = v + 1 WHERE id = 0").await.unwrap();
        }
    });
    let all = scene.run(async {
        let mut turns = Turns::default();
        let client = weir.connect().await;
        // On a busy machine a turn may take half a second.
        let end = std::time::Instant::now() + 5 * LONG;
        while !enough(&turns) && std::time::Instant::now() < end {
            let on_replica = number(&client, READ_REPLICA).await;
            match client.query_one(READ_PRIMARY, &[]).await {
                Ok(row) => {
                    let on_primary: i64 = row.get(0);
                    turns.pairs += 1;
                    turns.ahead += u64::from(on_primary > on_replica);
                    if on_primary < on_replica {
                        turns.backwards.push(format!("{on_replica}, then {on_primary}"));
                    }
                }
                Err(error) => turns.errors.push(describe(&error)),
            }
        }
        turns
    });
    drop(over);
    scene.run(writing).unwrap();
    all
}

#[test]
fn strict_never_goes_back_while_a_second_standby_is_slow() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir_with(&Tuning::routing(&["consistency: strict", "fence_wait: 60s"]));
    let before = weir.counts();
    let turns = turns(&scene, &weir, |turns| turns.pairs >= 400);
    let on_replicas: u64 =
        weir.counts_since(&before).iter().filter(|(went, _)| went.role == "replica").map(|(_, n)| n).sum();
    println!("{} pairs, {on_replicas} reads on replicas, {} ahead", turns.pairs, turns.ahead);
    assert!(turns.backwards.is_empty() && turns.errors.is_empty(), "{turns:?}");
    assert!(turns.pairs >= 400 && on_replicas > 0, "{on_replicas} of {turns:?}");
}

#[test]
fn the_same_turns_go_back_without_the_fence() {
    let scene = scene();
    let _calm = Calm(&scene);
    let mut tuning = Tuning::routing(&["consistency: strict"]);
    tuning.defect = Defect::NoFence;
    let weir = scene.weir_with(&tuning);
    let turns = turns(&scene, &weir, |turns| !turns.backwards.is_empty());
    assert!(!turns.backwards.is_empty(), "{turns:?}");
}

#[test]
fn global_reads_show_what_others_have_committed_past_pgweir() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir_with(&Tuning::routing(&["consistency: global"]));
    let acknowledged = Arc::new(AtomicI64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writer = scene.run(connect_to(scene.cluster.primary().address(), APP, APP_DATABASE, "")).unwrap();
    let (newest, stop) = (acknowledged.clone(), done.clone());
    let writing = scene.spawn(async move {
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            writer.batch_execute(&format!("UPDATE kv SET v = {n} WHERE id = 5")).await.unwrap();
            newest.store(n, Ordering::Release);
            if n % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let reading: Vec<_> = (0..4)
        .map(|_| {
            let client = scene.run(weir.connect());
            let (newest, stop) = (acknowledged.clone(), done.clone());
            tokio_task(&scene, async move {
                let read = client.prepare("SELECT v, served_by() FROM kv WHERE id = 5").await.unwrap();
                let (mut reads, mut on_replicas, mut stale) = (0_u64, 0_u64, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let committed = newest.load(Ordering::Acquire);
                    let row = client.query_one(&read, &[]).await.unwrap();
                    let (seen, by): (i64, String) = (row.get(0), row.get(1));
                    reads += 1;
                    on_replicas += u64::from(by != "pg1");
                    if seen < committed {
                        stale.push(format!("{by} showed {seen} after {committed} was acknowledged"));
                    }
                }
                (reads, on_replicas, stale)
            })
        })
        .collect();
    let served = || -> u64 {
        weir.counts().iter().filter(|(went, _)| went.role == "replica").map(|(_, count)| count).sum()
    };
    for turn in 0..6 {
        let (still, other) = (scene.cluster.replica(turn % 2), scene.cluster.replica(1 - turn % 2));
        still.pause_replay().unwrap();
        other.wait_caught_up(scene.cluster.primary(), LONG).unwrap();
        if turn == 3 {
            other.pause_replay().unwrap();
            let name = still.name();
            weir.wait_node(name, "is seen as paused", |row| row.replay_paused);
            other.resume_replay().unwrap();
        }
        let (written, read) = (acknowledged.load(Ordering::Relaxed) + 200, served() + 400);
        wait_until("more was written and read", || {
            acknowledged.load(Ordering::Relaxed) >= written && served() >= read
        });
        still.resume_replay().unwrap();
        still.wait_caught_up(scene.cluster.primary(), LONG).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    scene.run(writing).unwrap();
    let (mut reads, mut on_replicas) = (0, 0);
    for task in reading {
        let (all, replicas, stale) = scene.run(task).unwrap();
        assert!(stale.is_empty(), "{} stale: {:?}", stale.len(), &stale[..stale.len().min(5)]);
        reads += all;
        on_replicas += replicas;
    }
    println!("{reads} reads, {on_replicas} on replicas");
    assert!(on_replicas >= 2400, "{on_replicas} of {reads}");
}

#[allow(clippy::async_yields_async, reason = "it is awaited later, beside others")]
fn tokio_task<T: Send + 'static>(
    scene: &Scene,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    scene.run(async { tokio::spawn(task) })
}

#[test]
fn a_level_is_set_per_user_database_session_and_statement() {
    let scene = scene();
    let _calm = Calm(&scene);
    let more = format!(
        "databases: {{ {APP_DATABASE}: {{ consistency: eventual, users: {{ {}: {{ consistency: global }} }} }} }}\n",
        APP.name
    );
    let weir = scene.weir_with(&Tuning { more, ..Tuning::routing(&["consistency: strict"]) });
    let plain = scene.weir_with(&Tuning::routing(&["consistency: session", "max_staleness: 1h"]));
    for replica in scene.cluster.replicas() {
        replica.pause_replay().unwrap();
    }
    scene.cluster.primary().sql_as(APP.name, APP_DATABASE, "UPDATE kv SET v = 77 WHERE id = 77").unwrap();
    let read = "SELECT v FROM kv WHERE id = 77";
    scene.run(async {
        let client = weir.connect().await;
        assert_eq!(value(&client, "SHOW pgweir.consistency").await, "global");
        assert_eq!(number(&client, read).await, 77);
        let client = weir.connect_with("-c pgweir.consistency=session").await;
        assert_eq!(value(&client, "SHOW pgweir.consistency").await, "session");
        // Whoever has come to the primary once stays there.
        wait_for("a replica that stands still answers", async || {
            number(&plain.connect().await, read).await == 0
        })
        .await;
        let client = plain.connect().await;
        assert_eq!(number(&client, &format!("{read} /* pgweir.consistency=global */")).await, 77);
        client.batch_execute("SET pgweir.consistency = 'GLOBAL'").await.unwrap();
        assert_eq!(number(&client, read).await, 77);
    });
}

#[test]
fn global_reads_show_what_somebody_has_seen_on_a_replica_though_its_commit_hangs() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir_with(&Tuning::routing(&["consistency: global", "fence_wait: 60s"]));
    let hanging = hanging(&scene);
    scene.run(async {
        // The first replica shows it to anybody who asks there.
        let reads = [weir.connect().await, weir.connect().await];
        let auto = async { number(&reads[0], READ).await };
        let on_primary = async { number(&reads[1], READ_PRIMARY).await };
        let resume = async {
            weir_waits_for_fence(&weir).await;
            scene.cluster.replica(1).resume_replay().unwrap();
        };
        let (auto, on_primary, ()) = tokio::join!(auto, on_primary, resume);
        assert_eq!([auto, on_primary], [hanging.shown; 2]);
        hanging.commit.await.unwrap();
    });
}

/// Until a fence is being run.
async fn weir_waits_for_fence(weir: &Weir<'_>) {
    wait_for("a fence is asked for", async || weir_queries(weir, "monitor_fences").await > 0).await;
}

/// A number of SHOW STATS.
async fn weir_queries(weir: &Weir<'_>, name: &str) -> u64 {
    let client = weir.connect_as(APP, "pgweir", "").await.unwrap();
    let rows = client.simple_query("SHOW STATS").await.unwrap();
    let found = rows.iter().find_map(|row| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) if row.get(3) == Some(name) => row.get(4)?.parse().ok(),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no {name}"))
}

/// Writes asynchronously and reads it back, until `enough` flushes were seen or so many rounds are over.
async fn asynchronous_rounds(weir: &Weir<'_>, rounds: i64, enough: u64) -> u64 {
    let client = weir.connect_with("-c synchronous_commit=off").await;
    for n in 1..=rounds {
        client.batch_execute(&format!("UPDATE kv SET v = {n} WHERE id = 30")).await.unwrap();
        assert_eq!(number(&client, "SELECT v FROM kv WHERE id = 30").await, n);
        let kicks = weir_queries(weir, "monitor_flushes").await;
        if kicks >= enough {
            return kicks;
        }
    }
    weir_queries(weir, "monitor_flushes").await
}

#[test]
fn an_asynchronous_commit_that_somebody_waits_for_is_flushed() {
    let scene = scene();
    let _calm = Calm(&scene);
    let lines = ["on_lag: wait", "lag_wait_limit: 60s"];
    let weir = scene.weir_with(&Tuning::routing(&lines));
    let off = scene.weir_with(&Tuning::routing(&[&lines[..], &["kick_flush: false"]].concat()));
    scene.run(async {
        let before = weir.counts();
        assert!(asynchronous_rounds(&weir, 10_000, 5).await >= 5);
        let since = weir.counts_since(&before);
        let reads: u64 =
            since.iter().filter(|(went, _)| went.role == "replica").map(|(_, count)| count).sum();
        assert!(reads >= 5, "the replicas served what was waited for: {since:?}");
        assert_eq!(asynchronous_rounds(&off, 10, 1).await, 0, "it is switched off");
        // Nobody waits: nothing is flushed for anybody.
        let quiet = weir_queries(&weir, "monitor_flushes").await;
        let writer =
            connect_to(scene.cluster.primary().address(), APP, APP_DATABASE, "-c synchronous_commit=off")
                .await
                .unwrap();
        let samples = weir_queries(&weir, "monitor_samples").await + 50;
        while weir_queries(&weir, "monitor_samples").await < samples {
            writer.batch_execute("UPDATE kv SET v = v + 1 WHERE id = 31").await.unwrap();
        }
        assert_eq!(weir_queries(&weir, "monitor_flushes").await, quiet);
    });
}

#[test]
fn when_all_replicas_lag_only_so_many_reads_come_to_the_primary() {
    let scene = scene();
    let _calm = Calm(&scene);
    let lines = ["lag_reads: 2", "wait: 0ms", "lag_wait_limit: 60s"];
    // Replicas whose answers are late, all at once, would not be any that reads wait for.
    let weir = scene.weir_with(&Tuning { interval: "500ms", ..Tuning::routing(&lines) });
    let slow = "SELECT v AS lag_read FROM kv WHERE id = 40";
    for replica in scene.cluster.replicas() {
        replica.pause_replay().unwrap();
    }
    scene.run(async {
        let mut sessions = Vec::new();
        for _ in 0..12 {
            let session = weir.connect().await;
            session.batch_execute("UPDATE kv SET v = 1 WHERE id = 40").await.unwrap();
            sessions.push(session);
        }
        // A lock makes those that have come to the primary stay there.
        let locker = connect_to(scene.cluster.primary().address(), APP, APP_DATABASE, "").await.unwrap();
        locker.batch_execute("BEGIN; LOCK TABLE kv IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let reads: Vec<_> = sessions
            .into_iter()
            .map(|session| tokio::spawn(async move { number(&session, slow).await }))
            .collect();
        wait_for("ten of them wait for their turn", async || {
            weir_queries(&weir, "lag_reads_held").await == 10 && weir_queries(&weir, "lag_reads").await == 2
        })
        .await;
        let there = "SELECT count(*) FROM pg_stat_activity \
                     WHERE query LIKE '%lag_read%' AND wait_event_type = 'Lock'";
        wait_for("two of them are on the primary", async || {
            scene.cluster.primary().sql_value(there).unwrap().as_deref() == Some("2")
        })
        .await;
        assert_eq!(weir_queries(&weir, "lag_reads_held").await, 10);
        locker.batch_execute("COMMIT").await.unwrap();
        for read in reads {
            assert_eq!(read.await.unwrap(), 1);
        }
        wait_for("nobody is left", async || weir_queries(&weir, "lag_reads").await == 0).await;
    });
}

#[test]
fn a_level_for_one_transaction_is_that_of_its_first_statement_and_ends_with_it() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir_with(&Tuning::routing(&["max_staleness: 1h"]));
    let sql = "UPDATE kv SET v = v + 1 WHERE id = 78";
    let read = "SELECT v FROM kv WHERE id = 78";
    for replica in scene.cluster.replicas() {
        replica.pause_replay().unwrap();
    }
    let primary = scene.cluster.primary();
    let old: i64 = primary.sql_value(read).unwrap().unwrap().parse().unwrap();
    primary.sql_as(APP.name, APP_DATABASE, sql).unwrap();
    scene.run(async {
        wait_for("a replica that stands still answers", async || {
            number(&weir.connect().await, read).await == old
        })
        .await;
        let client = weir.connect().await;
        client.batch_execute("BEGIN READ ONLY").await.unwrap();
        client.batch_execute("SET LOCAL pgweir.consistency = 'global'").await.unwrap();
        assert_eq!(value(&client, "SHOW pgweir.consistency").await, "global");
        assert_eq!(number(&client, read).await, old + 1, "it has left the replica on which it began");
        client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(value(&client, "SHOW pgweir.consistency").await, "session");
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute("SET LOCAL pgweir.consistency = 'global'").await.unwrap();
        client.batch_execute("SET pgweir.route = 'primary'").await.unwrap();
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(value(&client, "SHOW pgweir.consistency").await, "session");
        assert_eq!(value(&client, "SHOW pgweir.route").await, "primary", "what is not LOCAL stays");
        let error = client.batch_execute("SET LOCAL pgweir.consistency = 'global'").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "25P01", "{error}");
    });
}
