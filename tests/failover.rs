//! Nodes die, hang, restart and change roles under load: reads go on, writes follow the primary, and
//! an old primary gets no write any more.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use harness::{
    LONG, NO_WRITER, SERVED_BY, Scene, Stage, Tuning, Weir, describe, served_by, value, wait_for, wait_until,
};
use pgweir::devcluster::{DevNode, Options, Stop};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const SCHEMA: [&str; 4] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE item (id int PRIMARY KEY, name text)",
    "INSERT INTO item SELECT id, 'item ' || id FROM generate_series(1, 1000) id",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || Stage::with(Options::default(), &SCHEMA))
}

/// Autocommit reads of few rows on several connections, until told to stop.
struct Readers {
    done: Arc<AtomicBool>,
    finished: Arc<Vec<AtomicU64>>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

const READERS: usize = 8;

impl Readers {
    fn start(weir: &Weir<'_>) -> Readers {
        let readers = Readers {
            done: Arc::default(),
            finished: Arc::new((0..READERS).map(|_| AtomicU64::new(0)).collect()),
            failures: Arc::default(),
            tasks: Vec::new(),
        };
        let tasks = weir.stage().run(async {
            let mut tasks = Vec::new();
            for index in 0..READERS {
                let client = weir.connect().await;
                let (done, finished) = (readers.done.clone(), readers.finished.clone());
                let failures = readers.failures.clone();
                tasks.push(tokio::spawn(async move {
                    let prepared = client.prepare("SELECT name FROM item WHERE id = $1").await.unwrap();
                    while !done.load(Ordering::Relaxed) {
                        let round = finished[index].load(Ordering::Relaxed);
                        if let Err(error) = one_read(&client, &prepared, round).await {
                            failures.lock().unwrap().push(describe(&error));
                            if client.is_closed() {
                                return;
                            }
                        }
                        finished[index].fetch_add(1, Ordering::Relaxed);
                        // Monotonic reads hold a session that never pauses where it is.
                        if round % 4 == 0 {
                            tokio::time::sleep(harness::PAUSE).await;
                        }
                    }
                }));
            }
            tasks
        });
        Readers { tasks, ..readers }
    }

    /// Waits until every one of them has finished `count` further reads.
    fn all_go_on(&self, count: u64, what: &str) {
        let before: Vec<u64> = self.finished.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        wait_until(&format!("all readers go on {what}: {:?}", self.failures.lock().unwrap()), || {
            self.finished
                .iter()
                .zip(&before)
                .all(|(now, before)| now.load(Ordering::Relaxed) >= before + count)
        });
    }

    fn stop(self, weir: &Weir<'_>) {
        self.done.store(true, Ordering::Relaxed);
        weir.stage().run(async {
            for task in self.tasks {
                tokio::time::timeout(LONG, task).await.expect("a reader hangs").unwrap();
            }
        });
        let failures = self.failures.lock().unwrap();
        let reads: u64 = self.finished.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        println!("{reads} reads, {} failures, {} sent again", failures.len(), weir.replays());
        assert!(failures.is_empty(), "{:?}", failures.iter().take(5).collect::<Vec<_>>());
    }
}

async fn one_read(
    client: &Client,
    prepared: &tokio_postgres::Statement,
    round: u64,
) -> Result<(), tokio_postgres::Error> {
    let id = i32::try_from(round % 1000).unwrap() + 1;
    match round % 3 {
        0 => {
            let name: String = client.query_one(prepared, &[&id]).await?.get(0);
            assert_eq!(name, format!("item {id}"));
        }
        1 => {
            let rows = client.simple_query(&format!("SELECT name FROM item WHERE id = {id}")).await?;
            assert_eq!(harness::first_value(&rows), Some(format!("item {id}")));
        }
        _ => {
            // Long enough to be in flight when something happens.
            let rows = client.query("SELECT name, pg_sleep(0.02) FROM item WHERE id < 20", &[]).await?;
            assert_eq!(rows.len(), 19);
        }
    }
    Ok(())
}

/// Reads of this replica so far.
fn reads_of(weir: &Weir<'_>, node: &DevNode) -> u64 {
    weir.counts().iter().filter(|(w, _)| w.node == node.name() && w.role == "replica").map(|(_, n)| n).sum()
}

fn serves_again(weir: &Weir<'_>, node: &DevNode) {
    let before = reads_of(weir, node);
    let what = format!("{} serves again by itself", node.name());
    harness::wait_until_or(
        &what,
        || reads_of(weir, node) > before + 20,
        || format!("{}{:?}\n{}", weir.nodes(), weir.counts(), node.log()),
    );
}

fn stops_serving(weir: &Weir<'_>, node: &DevNode) {
    weir.wait_node(node.name(), "no longer serves", |row| !row.serves_reads);
}

#[test]
fn a_killed_replica_costs_no_reader_an_error_and_comes_back_by_itself() {
    let scene = scene();
    let weir = scene.weir();
    let readers = Readers::start(&weir);
    for index in [0, 1] {
        let replica = scene.cluster.replica(index);
        serves_again(&weir, replica);
        replica.sigkill().unwrap();
        stops_serving(&weir, replica);
        readers.all_go_on(20, "while a replica is dead");
        replica.start().unwrap();
        serves_again(&weir, replica);
    }
    readers.stop(&weir);
}

#[test]
fn a_frozen_replica_costs_no_reader_an_error_and_comes_back_by_itself() {
    let scene = scene();
    let weir = scene.weir();
    let readers = Readers::start(&weir);
    for index in [0, 1] {
        let replica = scene.cluster.replica(index);
        serves_again(&weir, replica);
        replica.sigstop().unwrap();
        let thawed = Thaw(replica);
        stops_serving(&weir, replica);
        readers.all_go_on(20, "while a replica is frozen");
        drop(thawed);
        serves_again(&weir, replica);
    }
    readers.stop(&weir);
}

/// Thaws a node also when the test fails.
struct Thaw<'a>(&'a DevNode);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.sigcont().unwrap();
    }
}

#[test]
fn a_restarted_replica_costs_no_reader_an_error_and_comes_back_by_itself() {
    let scene = scene();
    let weir = scene.weir();
    let readers = Readers::start(&weir);
    for stop in [Stop::Fast, Stop::Immediate] {
        let replica = scene.cluster.replica(0);
        serves_again(&weir, replica);
        replica.stop(stop).unwrap();
        readers.all_go_on(20, "while a replica restarts");
        replica.start().unwrap();
        serves_again(&weir, replica);
    }
    readers.stop(&weir);
}

#[test]
fn reads_go_on_when_no_replica_is_left() {
    let scene = scene();
    let weir = scene.weir();
    let readers = Readers::start(&weir);
    for replica in scene.cluster.replicas() {
        replica.stop(Stop::Fast).unwrap();
    }
    readers.all_go_on(20, "on the primary alone");
    for replica in scene.cluster.replicas() {
        replica.start().unwrap();
        serves_again(&weir, replica);
    }
    readers.stop(&weir);
}

#[test]
fn a_primary_that_restarts_holds_writes_back_but_loses_no_client() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning { limits: vec!["hold_time: 50s".to_owned()], ..Tuning::default() });
    scene.run(async {
        let client = weir.connect().await;
        client.batch_execute("CREATE TABLE IF NOT EXISTS held (id int)").await.unwrap();
        scene.cluster.primary().stop(Stop::Fast).unwrap();
        let writing = tokio::spawn(async move {
            client.batch_execute("INSERT INTO held VALUES (1)").await.map(|()| client)
        });
        scene.cluster.primary().start().unwrap();
        let client = writing.await.unwrap().unwrap_or_else(|e| panic!("{}", describe(&e)));
        assert_eq!(value(&client, "SELECT count(*) FROM held").await, "1");
    });
    weir.wait_whole(3);
}

/// Rows that say which server took them.
const WRITTEN: &str =
    "CREATE TABLE written (node text NOT NULL DEFAULT current_setting('cluster_name'), by int, n int)";

/// What a writer has been told.
#[derive(Debug, Default)]
struct Told {
    /// Acknowledged, with its time.
    done: Vec<(i32, Instant)>,
    /// 08007: nobody knows.
    unknown: u64,
    other: Vec<String>,
}

struct Writers {
    done: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Told>>,
}

impl Writers {
    fn start(weir: &Weir<'_>, count: i32) -> Writers {
        let done: Arc<AtomicBool> = Arc::default();
        let acknowledged: Arc<AtomicU64> = Arc::default();
        let tasks = weir.stage().run(async {
            let mut tasks = Vec::new();
            for by in 0..count {
                let client = weir.connect().await;
                let (done, acknowledged) = (done.clone(), acknowledged.clone());
                tasks.push(tokio::spawn(async move {
                    let mut told = Told::default();
                    for n in 0.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        let insert = format!("INSERT INTO written (by, n) VALUES ({by}, {n})");
                        match client.batch_execute(&insert).await {
                            Ok(()) => {
                                acknowledged.fetch_add(1, Ordering::Relaxed);
                                told.done.push((n, Instant::now()));
                            }
                            Err(error) if error.code().is_some_and(|c| c.code() == "08007") => {
                                told.unknown += 1
                            }
                            Err(error) => told.other.push(describe(&error)),
                        }
                        assert!(!client.is_closed(), "a writer lost its connection: {told:?}");
                    }
                    told
                }));
            }
            tasks
        });
        Writers { done, acknowledged, tasks }
    }

    fn go_on(&self, count: u64, what: &str) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        wait_until(what, || self.acknowledged.load(Ordering::Relaxed) >= before + count);
    }

    fn stop(self, stage: &Stage) -> Vec<Told> {
        self.done.store(true, Ordering::Relaxed);
        stage.run(async {
            let mut all = Vec::new();
            for task in self.tasks {
                all.push(tokio::time::timeout(LONG, task).await.expect("a writer hangs").unwrap());
            }
            all
        })
    }
}

#[test]
fn writes_follow_a_promotion_and_never_reach_the_old_primary_again() {
    let _turn = scene();
    let stage = Stage::with(Options::default(), &SCHEMA);
    let old = stage.cluster.primary();
    old.sql_as("app", "app", WRITTEN).unwrap();
    stage.cluster.wait_caught_up(LONG).unwrap();
    let weir = stage.weir_with(&Tuning { limits: vec!["hold_time: 25s".to_owned()], ..Tuning::default() });

    let idle: Vec<Client> = stage.run(async {
        let mut idle = Vec::new();
        for _ in 0..20 {
            let client = weir.connect().await;
            client.batch_execute("SET search_path = public, pg_catalog").await.unwrap();
            served_by(&client).await;
            idle.push(client);
        }
        idle
    });
    let readers = Readers::start(&weir);
    let writers = Writers::start(&weir, 6);
    writers.go_on(100, "writes are taken");

    old.sigkill().unwrap();
    let killed = Instant::now();
    let successors = stage.cluster.successors(LONG).unwrap();
    let (new, other) = (successors[0], successors[1]);
    new.promote().unwrap();
    let promoted = Instant::now();
    writers.go_on(100, "writes resume on the new primary");
    other.follow(new).unwrap();
    weir.wait_node(new.name(), "is the primary", |row| row.role.as_deref() == Some("primary"));

    // It comes back as it was: a primary, of the timeline that is over.
    old.start().unwrap();
    assert!(!old.is_in_recovery().unwrap());
    let on_old = "SELECT count(*) FROM written";
    let rows_before = old.sql_value(on_old).unwrap();
    weir.wait_node(old.name(), "was measured again", |row| row.state == "up");
    writers.go_on(300, "writes go on with an old primary about");
    serves_again(&weir, other);
    let told = writers.stop(&stage);
    readers.stop(&weir);

    let mut acknowledged: Vec<Instant> = told.iter().flat_map(|t| &t.done).map(|(_, at)| *at).collect();
    acknowledged.sort();
    let longest = acknowledged.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!(
        "no write was acknowledged for {longest:?}; the promotion was complete {:?} after the SIGKILL; in doubt: {}",
        promoted - killed,
        told.iter().map(|t| t.unknown).sum::<u64>()
    );
    assert!(longest < LONG);
    for one in &told {
        assert!(one.other.is_empty(), "{:?}", one.other.iter().take(5).collect::<Vec<_>>());
        // Each costs a connection, and a server whose postmaster is gone ends them one by one.
        assert!(one.unknown <= 20, "more are in doubt than there were connections: {}", one.unknown);
    }
    assert_eq!(old.sql_value(on_old).unwrap(), rows_before, "a write reached the old primary");
    let strangers =
        format!("SELECT count(*) FROM written WHERE node NOT IN ('{}', '{}')", old.name(), new.name());
    assert_eq!(new.sql_value(&strangers).unwrap().as_deref(), Some("0"));
    acknowledged_after_the_promotion_are_there(&told, promoted, new);
    stage.run(async {
        for client in &idle {
            assert_ne!(served_by(client).await, old.name());
            assert_eq!(value(client, "SHOW search_path").await, "public, pg_catalog");
            client.batch_execute("INSERT INTO written (by, n) VALUES (-1, 0)").await.unwrap();
        }
    });
    assert_eq!(new.sql_value("SELECT count(*) FROM written WHERE by = -1").unwrap().as_deref(), Some("20"));
}

fn acknowledged_after_the_promotion_are_there(told: &[Told], promoted: Instant, new: &DevNode) {
    for (by, one) in told.iter().enumerate() {
        let acknowledged = one.done.iter().filter(|(_, at)| *at > promoted).count();
        let first = one.done.iter().find(|(_, at)| *at > promoted).map_or(0, |(n, _)| *n);
        let sql = format!("SELECT count(DISTINCT n) FROM written WHERE by = {by} AND n >= {first}");
        let there: usize = new.sql_value(&sql).unwrap().unwrap().parse().unwrap();
        assert!(there >= acknowledged, "writer {by}: {acknowledged} acknowledged, {there} there");
    }
}

/// Ends the server process that runs a text with this marker, once it does.
fn terminate_who_runs(primary: &DevNode, marker: &str) {
    let ended = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE query LIKE '%{marker}%' AND state = 'active' AND pid <> pg_backend_pid()"
    );
    wait_until("it runs on the primary", || primary.sql_value(&ended).unwrap().as_deref() == Some("1"));
}

/// SIGKILL of the server process that sleeps in a text with this marker.
fn kill_who_sleeps(primary: &DevNode, marker: &str) {
    let sleeping =
        format!("SELECT pid FROM pg_stat_activity WHERE query LIKE '%{marker}%' AND wait_event = 'PgSleep'");
    let mut pid = None;
    wait_until("it runs on the primary", || {
        pid = primary.sql_value(&sleeping).unwrap();
        pid.is_some()
    });
    primary.sigkill_backend(pid.unwrap().parse().unwrap()).unwrap();
}

#[test]
fn a_read_on_the_primary_is_sent_again_and_a_write_behind_it_only_if_it_has_certainly_not_begun() {
    let scene = scene();
    let weir = scene.weir();
    let primary = scene.cluster.primary();
    primary.sql_as("app", "app", "CREATE TABLE IF NOT EXISTS behind_a_read (n int)").unwrap();
    scene.run(async {
        let client = weir.connect().await;
        let read = |mark: &str, seconds: u32| {
            format!("/* pgweir.route=primary */ SELECT 7, pg_sleep({seconds}), '{mark}'")
        };
        let asked = read("alone", 2);
        let (rows, ()) = tokio::join!(client.simple_query(&asked), async {
            tokio::task::block_in_place(|| terminate_who_runs(primary, "alone"));
        });
        let rows = rows.unwrap_or_else(|e| panic!("{}", describe(&e)));
        assert_eq!(harness::first_value(&rows).as_deref(), Some("7"));
        assert_eq!(weir.replays(), 1);

        // A server that says that it ends the read has not begun the write.
        let asked = read("followed", 2);
        let write = "INSERT INTO behind_a_read VALUES (1)";
        let (answer, written, ()) =
            tokio::join!(client.simple_query(&asked), client.simple_query(write), async {
                tokio::task::block_in_place(|| terminate_who_runs(primary, "followed"));
            });
        answer.and(written).unwrap_or_else(|e| panic!("{}", describe(&e)));
        assert_eq!(weir.replays(), 2);

        // One that says nothing may have.
        let asked = read("crashed", 50);
        let before = weir.counts();
        let (read, written, ()) =
            tokio::join!(client.simple_query(&asked), client.simple_query(write), async {
                tokio::task::block_in_place(|| {
                    wait_until("both are on their way", || {
                        weir.counts_since(&before).values().sum::<u64>() == 2
                    });
                    kill_who_sleeps(primary, "crashed");
                });
            });
        let code = |result: Result<Vec<_>, tokio_postgres::Error>| {
            result.unwrap_err().code().map(|code| code.code().to_owned())
        };
        assert_eq!(code(read).as_deref(), Some("08006"));
        assert_eq!(code(written).as_deref(), Some("08007"));
        assert_eq!(weir.replays(), 2, "nothing was sent again");
        assert_eq!(value(&client, "SELECT count(*) FROM behind_a_read").await, "1");
    });
    weir.wait_whole(3);
}

#[test]
fn a_switchover_costs_no_idle_client_and_no_read() {
    let _turn = scene();
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (old, new) = (stage.cluster.primary(), stage.cluster.replica(0));
    let weir = stage.weir_with(&Tuning { limits: vec!["hold_time: 25s".to_owned()], ..Tuning::default() });
    let client = stage.run(weir.connect());
    let readers = Readers::start(&weir);
    old.stop(Stop::Fast).unwrap();
    new.promote().unwrap();
    stage.cluster.replica(1).follow(new).unwrap();
    stage.run(async {
        client.batch_execute("CREATE TABLE after_switchover (id int)").await.unwrap();
        client.batch_execute("INSERT INTO after_switchover VALUES (1)").await.unwrap();
        assert_eq!(value(&client, "SELECT count(*) FROM after_switchover").await, "1");
    });
    // The old one joins again, as a standby of the new one.
    old.reattach(new).unwrap();
    serves_again(&weir, old);
    readers.stop(&weir);
    stage.run(wait_for("the switchover is over", async || {
        weir.status().primary.as_deref() == Some(new.name())
    }));
}

#[test]
fn a_session_in_a_transaction_learns_that_its_primary_is_gone() {
    let _turn = scene();
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let weir = stage.weir_with(&Tuning { limits: vec!["hold_time: 25s".to_owned()], ..Tuning::default() });
    stage.run(async {
        let client = weir.connect().await;
        client.batch_execute("BEGIN; INSERT INTO item VALUES (5000, 'lost')").await.unwrap();
        stage.cluster.primary().sigkill().unwrap();
        stage.cluster.replica(0).promote().unwrap();
        let error = client.batch_execute("COMMIT").await.unwrap_err();
        let code = error.code().cloned();
        assert!(code.is_none() || code != Some(SqlState::SUCCESSFUL_COMPLETION), "{}", describe(&error));
        let again = weir.connect().await;
        again.batch_execute("INSERT INTO item VALUES (5001, 'new')").await.unwrap();
        assert_eq!(value(&again, "SELECT count(*) FROM item WHERE id >= 5000").await, "1");
    });
}
