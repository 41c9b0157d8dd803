//! The traps of watermarks, each on real servers, in pairs: with its mechanism nothing is seen of it,
//! without it (`Defect`) the same scenario shows the fault.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use harness::{
    LONG, NO_WRITER, PAUSE, SERVED_BY, Scene, Stage, Tuning, Weir, connect_to, describe, wait_for, wait_until,
};
use pgweir::devcluster::{APP_DATABASE, DevNode, MONITOR, Options};
use pgweir::freshness::defect::Defect;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

const SCHEMA: [&str; 4] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE kv (id int PRIMARY KEY, v int NOT NULL)",
    "INSERT INTO kv SELECT id, 0 FROM generate_series(0, 500) id",
];

/// One replica: what it cannot serve, the primary does. Servers that do nothing of their own accord.
fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    let scene = Scene::on(&STAGE, || {
        let quiet = Options::with_replicas(1)
            .set("checkpoint_timeout", "1h")
            .set("autovacuum", "off")
            .set("bgwriter_delay", "10s")
            .set("bgwriter_lru_maxpages", "0");
        Stage::with(quiet, &SCHEMA)
    });
    // Whatever a test that failed has left.
    let replica = scene.cluster.replica(0);
    replica.resume_replay().unwrap();
    replica.set_apply_delay(Duration::ZERO).unwrap();
    replica.wait_caught_up(scene.cluster.primary(), LONG).unwrap();
    scene
}

/// On a busy machine no answer of a node must count as late.
fn tuning(routing: &[&str], defect: Defect) -> Tuning {
    Tuning { interval: "500ms", defect, ..Tuning::routing(routing) }
}

/// The row, and who showed it.
async fn read(client: &Client, id: i32) -> Result<(i32, String), Error> {
    let messages = client.simple_query(&format!("SELECT v, served_by() FROM kv WHERE id = {id}")).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.expect("every row is there");
    Ok((row.get(0).unwrap().parse().unwrap(), row.get(1).unwrap().to_owned()))
}

async fn write(client: &Client, id: i32, v: i32) {
    client.batch_execute(&format!("UPDATE kv SET v = {v} WHERE id = {id}")).await.unwrap();
}

// ── a commit whose record ends where a page ends

const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;
/// Payloads are at least as long, so that all of them are written in the same form.
const PAYLOAD_MIN: u64 = 512;

fn insert_position(primary: &DevNode) -> u64 {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::text";
    primary.sql_value(sql).unwrap().unwrap().parse().unwrap()
}

/// Bytes of records between two insert positions of one segment.
fn record_bytes(from: u64, to: u64) -> u64 {
    to - from - (to / PAGE - from / PAGE) * PAGE_HEADER
}

/// Writes `v`, and a payload that lets the transaction's WAL grow by as much; where it began and ended.
async fn write_padded(
    client: &Client,
    primary: &DevNode,
    v: i32,
    payload: impl Fn(u64) -> u64,
) -> (u64, u64) {
    client.batch_execute("BEGIN").await.unwrap();
    write(client, 1, v).await;
    let before = insert_position(primary);
    let payload = payload(before);
    let rest = format!("SELECT pg_logical_emit_message(true, 'pad', repeat('x', {payload})); COMMIT");
    client.batch_execute(&rest).await.unwrap();
    (before, insert_position(primary))
}

/// Writes `v` in a transaction whose last record ends exactly at the end of a page. The position that the
/// primary tells then; `None`: something else was written in between.
async fn write_to_the_end_of_a_page(client: &Client, primary: &DevNode, v: i32) -> Option<u64> {
    let (from, to) = write_padded(client, primary, v, |_| PAYLOAD_MIN).await;
    let overhead = record_bytes(from, to).checked_sub(PAYLOAD_MIN)?;
    let (_, end) = write_padded(client, primary, v, |before| {
        let mut room = PAGE - before % PAGE;
        while room < PAYLOAD_MIN + overhead {
            room += PAGE - PAGE_HEADER;
        }
        room - overhead
    })
    .await;
    (end % PAGE == PAGE_HEADER).then_some(end)
}

/// Reads what it has just written, from the replica or not at all, until `end`.
async fn read_on_the_replica(client: &Client, v: i32, end: Instant) -> bool {
    loop {
        match read(client, 1).await {
            Ok((seen, by)) => {
                assert_eq!(seen, v);
                if by == "pg2" {
                    return true;
                }
            }
            Err(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => {}
            Err(error) => panic!("{}", describe(&error)),
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Is a write that ends at a page's end read from the replica within `patience`, although nothing more
/// is written? (When the servers do write something meanwhile, it is done again.)
fn is_read_at_a_page_boundary(scene: &Scene, weir: &Weir<'_>, patience: Duration) -> bool {
    let primary = scene.cluster.primary();
    let end = Instant::now() + LONG;
    scene.run(async {
        let client = weir.connect().await;
        for v in 1.. {
            assert!(Instant::now() < end, "the primary is never quiet for long enough");
            let Some(position) = write_to_the_end_of_a_page(&client, primary, v).await else { continue };
            let served = read_on_the_replica(&client, v, Instant::now() + patience).await;
            if insert_position(primary) == position {
                if !served {
                    // It was the page: one more record, and the replica is seen to be there.
                    primary.sql("SELECT pg_logical_emit_message(true, 'more', '')").unwrap();
                    assert!(read_on_the_replica(&client, v, Instant::now() + LONG).await);
                }
                return served;
            }
        }
        unreachable!()
    })
}

#[test]
fn a_write_that_ends_where_a_page_ends_is_read_from_a_replica_though_nothing_more_is_written() {
    let scene = scene();
    let weir = scene.weir_with(&tuning(&["on_lag: error"], Defect::None));
    assert!(is_read_at_a_page_boundary(&scene, &weir, LONG));
}

#[test]
fn without_rounding_a_write_that_ends_where_a_page_ends_is_waited_for_in_vain() {
    let scene = scene();
    let weir = scene.weir_with(&tuning(&["on_lag: error"], Defect::UnroundedPosition));
    assert!(!is_read_at_a_page_boundary(&scene, &weir, Duration::from_secs(3)));
}

// ── a standby that comes back behind what it has shown

const SESSIONS: i32 = 20;

/// Somebody writes and reads a row of their own without a pause; what they missed.
fn load(weir: &Weir<'_>, done: &Arc<AtomicBool>) -> (JoinHandle<()>, Arc<Mutex<Vec<String>>>) {
    let (client, done) = (weir.stage().run(weir.connect()), done.clone());
    let stage = weir.stage();
    let stale = Arc::new(Mutex::new(Vec::new()));
    let told = stale.clone();
    let task = stage.spawn(async move {
        for v in 1.. {
            if done.load(Ordering::Relaxed) {
                break;
            }
            write(&client, 0, v).await;
            // A read that is lost with its server is sent again by pgweir.
            let (seen, by) = read(&client, 0).await.unwrap();
            if seen != v {
                told.lock().unwrap().push(format!("wrote {v}, {by} showed {seen}"));
            }
        }
    });
    (task, stale)
}

/// Sessions that have written `v`, and seen it on the replica.
fn sessions_at_home_on_the_replica(weir: &Weir<'_>, v: i32) -> Vec<Client> {
    weir.stage().run(async {
        let mut sessions = Vec::new();
        for id in 1..=SESSIONS {
            let client = weir.connect().await;
            write(&client, id, v).await;
            wait_for("the replica shows what was written", async || {
                tokio::time::sleep(PAUSE).await;
                read(&client, id).await.unwrap() == (v, "pg2".to_owned())
            })
            .await;
            sessions.push(client);
        }
        sessions
    })
}

/// `kill -9` of one of its processes: the standby starts again from its last restartpoint, and takes its
/// time to replay (`recovery_min_apply_delay`) what it has shown before.
fn fall_back_behind_itself(replica: &DevNode) {
    replica.set_apply_delay(Duration::from_secs(3600)).unwrap();
    let ready = "accept read-only connections";
    let before = replica.log().matches(ready).count();
    let process = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' LIMIT 1";
    wait_until("one of its processes is killed", || {
        let pid = replica.sql_value(process).ok().flatten().and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| replica.sigkill_backend(pid).is_ok())
    });
    wait_until("it has started again", || replica.log().matches(ready).count() > before);
}

/// What sessions did not see again that they had written and seen before the replica fell back.
fn missed_behind_a_crash(defect: Defect, v: i32) -> Vec<String> {
    let scene = scene();
    let (primary, replica) = (scene.cluster.primary(), scene.cluster.replica(0));
    // A restartpoint, behind which the rest of the test is what gets lost for a while.
    primary.sql("CHECKPOINT").unwrap();
    replica.wait_caught_up(primary, LONG).unwrap();
    replica.sql("CHECKPOINT").unwrap();
    // Asked for by its tag: with such a delay it would serve nobody unasked.
    let tagged = "rules: [ { match: { user: app }, tag: any } ]";
    let tuning = tuning(&["max_staleness: 10m", tagged], defect);
    let weir = scene.weir_with(&Tuning { tags: vec![("pg2", "any")], ..tuning });
    let done = Arc::new(AtomicBool::new(false));
    let (loaded, stale) = load(&weir, &done);
    let sessions = sessions_at_home_on_the_replica(&weir, v);
    fall_back_behind_itself(replica);
    let shown = replica.sql_value(&format!("SELECT count(*) FROM kv WHERE id <= {SESSIONS} AND v = {v}"));
    assert_eq!(shown.unwrap().as_deref(), Some("0"), "it must be behind what it has shown");
    weir.wait_node(replica.name(), "is back", |row| row.state == "up" && row.serves_reads);
    let missed = scene.run(async {
        let mut missed = Vec::new();
        for (client, id) in sessions.iter().zip(1..) {
            let (seen, by) = read(client, id).await.unwrap();
            if seen != v {
                missed.push(format!("session {id} had seen {v}, then {by} showed {seen}"));
            }
        }
        done.store(true, Ordering::Relaxed);
        loaded.await.unwrap();
        missed.append(&mut stale.lock().unwrap());
        missed
    });
    replica.set_apply_delay(Duration::ZERO).unwrap();
    replica.wait_caught_up(primary, LONG).unwrap();
    if defect == Defect::None {
        // Nothing but proof was missing.
        scene.run(async {
            wait_for("it serves again", async || {
                tokio::time::sleep(PAUSE).await;
                read(&sessions[0], 1).await.unwrap() == (v, "pg2".to_owned())
            })
            .await;
        });
    }
    missed
}

#[test]
fn nothing_is_missed_when_a_replica_crashes_and_comes_back_behind_what_it_has_shown() {
    let missed = missed_behind_a_crash(Defect::None, 1000);
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn with_positions_kept_across_a_crash_sessions_miss_what_they_had_seen() {
    let missed = missed_behind_a_crash(Defect::KeptPosition, 2000);
    assert!(!missed.is_empty());
}

// ── many who wait at once

const WAITING: i32 = 500;

/// Queries for the primary's position that are running there now.
fn sampling_queries(primary: &DevNode) -> u64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pgweir' AND state = 'active' \
               AND query LIKE '%wal_insert_lsn%'";
    primary.sql_value(sql).unwrap().unwrap().parse().unwrap()
}

/// What the monitor's role has asked so far, where it is logged.
fn asked(primary: &DevNode) -> usize {
    primary.log().matches("LOG:  execute ").count()
}

async fn connect_many(weir: &Weir<'_>) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..WAITING {
        clients.push(weir.connect().await);
    }
    clients
}

#[test]
fn five_hundred_sessions_that_wait_at_once_cost_the_primary_one_query_at_a_time() {
    let scene = scene();
    let (primary, replica) = (scene.cluster.primary(), scene.cluster.replica(0));
    primary.sql("ALTER ROLE pgweir SET log_statement = 'all'").unwrap();
    let weir = scene.weir_with(&tuning(&["on_lag: wait", "lag_wait_limit: 60s"], Defect::None));
    let clients = scene.run(connect_many(&weir));
    replica.pause_replay().unwrap();
    let (began, before) = (Instant::now(), asked(primary));
    assert!(before > 0, "what the monitor asks is logged");
    let done = Arc::new(std::sync::atomic::AtomicI32::new(0));
    let reads: Vec<JoinHandle<(i32, String)>> = scene.run(async {
        let mut reads = Vec::new();
        for (client, id) in clients.into_iter().zip(1..) {
            write(&client, id, 3000 + id).await;
            let done = done.clone();
            reads.push(tokio::spawn(async move {
                let row = read(&client, id).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
                row
            }));
        }
        reads
    });
    let mut most = (0..50).map(|_| sampling_queries(primary)).max().unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 0, "nobody can have been answered yet");
    replica.resume_replay().unwrap();
    wait_until("all are answered", || {
        most = most.max(sampling_queries(primary));
        done.load(Ordering::Relaxed) == WAITING
    });
    for (read, id) in reads.into_iter().zip(1..) {
        assert_eq!(scene.run(read).unwrap(), (3000 + id, "pg2".to_owned()));
    }
    let (asked, elapsed) = (asked(primary) - before, began.elapsed());
    primary.sql("ALTER ROLE pgweir RESET log_statement").unwrap();
    println!("{asked} samples in {elapsed:?} for {WAITING} reads, at most {most} in flight");
    assert!(most <= 1, "{most} sampling queries at once");
    // However many wait: not more often than once in a millisecond.
    assert!(asked as u128 <= elapsed.as_millis() + 20, "{asked} samples in {elapsed:?}");
}

#[test]
fn the_same_count_sees_more_than_one_query_where_everybody_asks_for_themselves() {
    let scene = scene();
    let primary = scene.cluster.primary();
    let tasks: Vec<JoinHandle<()>> = scene.run(async {
        let mut tasks = Vec::new();
        for _ in 0..50 {
            let client = connect_to(primary.address(), MONITOR, APP_DATABASE, "").await.unwrap();
            tasks.push(tokio::spawn(async move {
                // A primary that takes its time.
                let sql = "SELECT pg_current_wal_insert_lsn(), pg_sleep(0.5)";
                while client.simple_query(sql).await.is_ok() {}
            }));
        }
        tasks
    });
    wait_until("several are seen in flight", || sampling_queries(primary) > 1);
    tasks.iter().for_each(JoinHandle::abort);
}
