//! What a session has written it reads, and what it has read it does not lose again: while replicas
//! lag, stand still, die and come back behind what they have shown.
//!
//! `PGWEIR_CONSISTENCY_ROUNDS` sets the rounds of each connection.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use harness::{
    LONG, NO_WRITER, Over, SERVED_BY, Scene, Stage, Tuning, Weir, describe, first_value, wait_for, wait_until,
};
use pgweir::devcluster::{DevNode, Options};
use tokio_postgres::{Client, Error, Statement};

const CONNECTIONS: i32 = 16;

const SCHEMA: [&str; 7] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE kv (id int PRIMARY KEY, v int NOT NULL)",
    "INSERT INTO kv SELECT id, 0 FROM generate_series(0, 100) id",
    "CREATE VIEW kv_view AS SELECT id, v FROM kv",
    "CREATE FUNCTION put(i int, n int) RETURNS int VOLATILE LANGUAGE sql \
     AS 'UPDATE kv SET v = n WHERE id = i RETURNING v'",
    "CREATE FUNCTION sly_put(i int, n int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN put(i, n); END'",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || Stage::with(Options::default(), &SCHEMA))
}

fn rounds() -> i32 {
    std::env::var("PGWEIR_CONSISTENCY_ROUNDS").ok().map_or(2000, |text| text.parse().unwrap())
}

/// What came of one connection's rounds.
#[derive(Debug, Default)]
struct Tally {
    rounds: i32,
    on_replicas: u64,
    on_primary: u64,
    stale: Vec<String>,
    errors: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.rounds += other.rounds;
        self.on_replicas += other.on_replicas;
        self.on_primary += other.on_primary;
        self.stale.extend(other.stale);
        self.errors.extend(other.errors);
    }

    fn assert_clean(&self, what: &str) {
        println!(
            "{what}: {} rounds, {} reads on replicas, {} on the primary",
            self.rounds, self.on_replicas, self.on_primary
        );
        let (stale, errors) = (self.stale.len(), self.errors.len());
        assert!(
            stale == 0 && errors == 0,
            "{what}: {stale} stale: {:?}, {errors} errors: {:?}",
            self.stale.iter().take(5).collect::<Vec<_>>(),
            self.errors.iter().take(5).collect::<Vec<_>>()
        );
        assert!(self.rounds > 0);
    }
}

/// One connection with a row of its own, written in every way there is, and read at once.
struct Writer {
    client: Client,
    id: i32,
    update: Statement,
    put: Statement,
    read: Statement,
    /// Every how many rounds there is a pause between the write and its read.
    pause_every: i32,
}

impl Writer {
    async fn new(client: Client, id: i32) -> Writer {
        let update = client.prepare("UPDATE kv SET v = $2 WHERE id = $1").await.unwrap();
        let put = client.prepare("SELECT put($1, $2)").await.unwrap();
        let read = client.prepare("SELECT v, served_by() FROM kv WHERE id = $1").await.unwrap();
        Writer { client, id, update, put, read, pause_every: 60 }
    }

    async fn write(&self, n: i32) -> Result<(), Error> {
        let (client, id) = (&self.client, self.id);
        let simple = async |sql: String| client.simple_query(&sql).await.map(drop);
        match n % 24 {
            1 => client.query_one(&self.put, &[&id, &n]).await.map(drop),
            2 => simple(format!("SELECT sly_put({id}, {n})")).await,
            3 => simple(format!("BEGIN; UPDATE kv SET v = {n} WHERE id = {id}; COMMIT")).await,
            4 => {
                simple("BEGIN".to_owned()).await?;
                simple(format!("UPDATE kv SET v = {n} WHERE id = {id}")).await?;
                simple("COMMIT".to_owned()).await
            }
            5 => {
                simple(format!("WITH x AS (UPDATE kv SET v = {n} WHERE id = {id} RETURNING v) TABLE x")).await
            }
            6 => simple(format!("SELECT 1; UPDATE kv SET v = {n} WHERE id = {id}")).await,
            7 => simple(format!("DO $$ BEGIN UPDATE kv SET v = {n} WHERE id = {id}; END $$")).await,
            8 => {
                let insert = "INSERT INTO kv VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = excluded.v";
                client.execute(insert, &[&id, &n]).await.map(drop)
            }
            9 => {
                let copy = format!("COPY (UPDATE kv SET v = {n} WHERE id = {id} RETURNING v) TO STDOUT");
                client.copy_out(&copy).await?.try_collect::<Vec<_>>().await.map(drop)
            }
            10 => {
                // The implicit transaction of one string: the error takes the first write back.
                let failing = format!("UPDATE kv SET v = -1 WHERE id = {id}; SELECT 1/0");
                assert!(client.simple_query(&failing).await.is_err());
                simple(format!("UPDATE kv SET v = {n} WHERE id = {id}")).await
            }
            11 => simple(format!("EXPLAIN ANALYZE UPDATE kv SET v = {n} WHERE id = {id}")).await,
            12..=17 => simple(format!("UPDATE kv SET v = {n} WHERE id = {id}")).await,
            _ => client.execute(&self.update, &[&id, &n]).await.map(drop),
        }
    }

    /// The row, and who showed it.
    async fn read(&self, n: i32) -> Result<(i32, String), Error> {
        let row = match n % 5 {
            0 => {
                let sql = format!("SELECT v, served_by() FROM kv WHERE id = {}", self.id);
                let messages = self.client.simple_query(&sql).await?;
                let row = messages.into_iter().find_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                let row = row.unwrap();
                return Ok((row.get(0).unwrap().parse().unwrap(), row.get(1).unwrap().to_owned()));
            }
            1 => {
                self.client.query_one("SELECT v, served_by() FROM kv_view WHERE id = $1", &[&self.id]).await?
            }
            _ => self.client.query_one(&self.read, &[&self.id]).await?,
        };
        Ok((row.get(0), row.get(1)))
    }

    async fn round(&self, n: i32, tally: &mut Tally) {
        tally.rounds += 1;
        if let Err(error) = self.write(n).await {
            tally.errors.push(format!("write {n} (way {}) of {}: {}", n % 24, self.id, describe(&error)));
            return;
        }
        // Now and then there is time for a replica to come near: the boundary is what is tested.
        if n % self.pause_every == self.pause_every - 1 {
            tokio::time::sleep(Duration::from_millis(u64::from(n.unsigned_abs() * 7 % 400))).await;
        }
        for _ in 0..=(n % 3) {
            match self.read(n).await {
                Ok((seen, by)) => {
                    if by == "pg1" {
                        tally.on_primary += 1;
                    } else {
                        tally.on_replicas += 1;
                    }
                    if seen != n {
                        tally.stale.push(format!(
                            "{} wrote {n} (way {}), {by} showed {seen}",
                            self.id,
                            n % 24
                        ));
                    }
                }
                Err(error) => tally.errors.push(format!("read {n} of {}: {}", self.id, describe(&error))),
            }
        }
    }
}

/// Rounds on all connections: as many as that, or until `done`.
fn hammer(
    weir: &Weir<'_>,
    options: &str,
    rounds: i32,
    pause_every: i32,
    done: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<Tally>> {
    let stage = weir.stage();
    stage.run(async {
        let mut tasks = Vec::new();
        for id in 1..=CONNECTIONS {
            let mut writer = Writer::new(weir.connect_with(options).await, id).await;
            writer.pause_every = pause_every;
            let done = done.clone();
            tasks.push(tokio::spawn(async move {
                let mut tally = Tally::default();
                let mut n = 0;
                while n < rounds && !done.load(Ordering::Relaxed) && !writer.client.is_closed() {
                    n += 1;
                    writer.round(n, &mut tally).await;
                }
                tally
            }));
        }
        tasks
    })
}

fn total(stage: &Stage, tasks: Vec<tokio::task::JoinHandle<Tally>>) -> Tally {
    stage.run(async {
        let mut total = Tally::default();
        for task in tasks {
            total.add(task.await.unwrap());
        }
        total
    })
}

/// Hammers while `disturb` runs.
fn hammer_while(weir: &Weir<'_>, options: &str, disturb: impl FnOnce()) -> Tally {
    let done = Arc::new(AtomicBool::new(false));
    let tasks = hammer(weir, options, i32::MAX, 12, &done);
    let over = Over(&done);
    disturb();
    drop(over);
    total(weir.stage(), tasks)
}

fn set_delay(scene: &Scene, delay: Duration) {
    scene.cluster.replicas().iter().for_each(|replica| replica.set_apply_delay(delay).unwrap());
}

#[test]
fn nobody_misses_a_write_of_their_own_while_replicas_lag_and_reads_return_to_them_afterwards() {
    let scene = scene();
    let weir = scene.weir();
    set_delay(&scene, Duration::from_millis(300));
    let begun = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let tally = total(&scene, hammer(&weir, "", rounds(), 60, &done));
    println!("took {:?}", begun.elapsed());
    set_delay(&scene, Duration::ZERO);
    tally.assert_clean("300 ms behind");
    assert_eq!(tally.rounds, rounds() * CONNECTIONS);

    scene.cluster.wait_caught_up(LONG).unwrap();
    weir.wait_whole(3);
    scene.run(async {
        let writer = Writer::new(weir.connect().await, 1).await;
        writer.write(5).await.unwrap();
        // The first of them may be served before the replicas have this very write.
        wait_for("nine of ten reads are back on the replicas", async || {
            let mut on_replicas = 0;
            for _ in 0..1000 {
                let (seen, by) = writer.read(2).await.unwrap();
                assert_eq!(seen, 5);
                on_replicas += u64::from(by != "pg1");
            }
            on_replicas >= 900
        })
        .await;
    });
}

#[test]
fn the_same_checks_do_find_stale_reads_at_level_eventual() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::routing(&["consistency: eventual"]));
    set_delay(&scene, Duration::from_millis(300));
    let done = Arc::new(AtomicBool::new(false));
    let tally = total(&scene, hammer(&weir, "", 20, 60, &done));
    set_delay(&scene, Duration::ZERO);
    assert!(tally.errors.is_empty(), "{:?}", tally.errors);
    assert!(!tally.stale.is_empty(), "a replica 300 ms behind must show something old");
}

#[test]
fn nobody_misses_a_write_of_their_own_on_replicas_that_keep_up() {
    let scene = scene();
    let weir = scene.weir();
    let done = Arc::new(AtomicBool::new(false));
    let tally = total(&scene, hammer(&weir, "", rounds() / 8, 60, &done));
    tally.assert_clean("keeping up");
    assert!(tally.on_replicas > 0, "some reads found a replica that was fresh enough");
}

#[test]
fn nobody_misses_a_write_of_their_own_while_replay_stops_and_goes_on() {
    let scene = scene();
    let weir = scene.weir();
    let tally = hammer_while(&weir, "", || {
        for turn in 0..8 {
            let (still, other) = (turn % 2, 1 - turn % 2);
            scene.cluster.replica(still).pause_replay().unwrap();
            scene.cluster.replica(other).wait_caught_up(scene.cluster.primary(), LONG).unwrap();
            if turn % 3 == 0 {
                scene.cluster.replica(other).pause_replay().unwrap();
                let name = scene.cluster.replica(still).name();
                weir.wait_node(name, "is seen as paused", |row| row.replay_paused);
                scene.cluster.replica(other).resume_replay().unwrap();
            }
            scene.cluster.replica(still).resume_replay().unwrap();
        }
    });
    tally.assert_clean("replay stops and goes on");
}

/// A process of the replica that serves the application now.
fn serving_process(replica: &DevNode) -> u32 {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend' LIMIT 1";
    let mut found = None;
    wait_until("the replica serves the application", || {
        found = replica.sql_value(sql).ok().flatten().and_then(|pid| pid.parse().ok());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn nobody_misses_a_write_of_their_own_while_replicas_crash_and_restart() {
    let scene = scene();
    let weir = scene.weir();
    let tally = hammer_while(&weir, "", || {
        for turn in 0..4 {
            let replica = scene.cluster.replica(turn % 2);
            match turn {
                // It replays from its last restartpoint and opens behind what it has shown.
                0 | 1 => {
                    let before = replica.log().matches("accept read-only connections").count();
                    wait_until("one of its server processes is killed", || {
                        replica.sigkill_backend(serving_process(replica)).is_ok()
                    });
                    wait_until("it has restarted", || {
                        replica.log().matches("accept read-only connections").count() > before
                    });
                }
                2 => replica.restart().unwrap(),
                _ => {
                    replica.sigkill().unwrap();
                    replica.start().unwrap();
                }
            }
            weir.wait_whole(3);
        }
    });
    tally.assert_clean("crashes and restarts");
    assert!(tally.on_replicas > 0);
}

#[test]
fn asynchronous_commits_are_not_missed_either() {
    let scene = scene();
    let weir = scene.weir();
    let done = Arc::new(AtomicBool::new(false));
    let options = "-c synchronous_commit=off";
    let tally = total(&scene, hammer(&weir, options, rounds() / 20, 5, &done));
    tally.assert_clean("synchronous_commit=off at startup");
    assert!(tally.on_replicas > 0, "some reads found a replica that was fresh enough");
    scene.run(async {
        let client = weir.connect().await;
        client.batch_execute("SET synchronous_commit = off").await.unwrap();
        for n in 0..100 {
            client.batch_execute(&format!("UPDATE kv SET v = {n} WHERE id = 50")).await.unwrap();
            let rows = client.simple_query("SELECT v FROM kv WHERE id = 50").await.unwrap();
            assert_eq!(first_value(&rows).unwrap(), n.to_string());
        }
        for n in 100..150 {
            let sql = format!(
                "BEGIN; SET LOCAL synchronous_commit = off; UPDATE kv SET v = {n} WHERE id = 50; COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
            let rows = client.simple_query("SELECT v FROM kv WHERE id = 50").await.unwrap();
            assert_eq!(first_value(&rows).unwrap(), n.to_string());
        }
    });
}

#[test]
fn no_session_sees_time_run_backwards_on_replicas_that_lag_in_turn() {
    let scene = scene();
    let weir = scene.weir();
    let done = Arc::new(AtomicBool::new(false));
    let (writing, reading) = scene.run(async {
        let writer = weir.connect().await;
        let stop = done.clone();
        let writing = tokio::spawn(async move {
            let count = writer.prepare("UPDATE kv SET v = v + 1 WHERE id = 0").await.unwrap();
            while !stop.load(Ordering::Relaxed) {
                writer.execute(&count, &[]).await.unwrap();
            }
        });
        let mut reading = Vec::new();
        for _ in 0..8 {
            reading.push(tokio::spawn(read_on(weir.connect().await, done.clone())));
        }
        (writing, reading)
    });
    for turn in 0..10 {
        let replica = scene.cluster.replica(turn % 2);
        replica.pause_replay().unwrap();
        weir.wait_node(replica.name(), "is behind", |row| row.staleness_seconds.is_none_or(|s| s > 0.2));
        replica.resume_replay().unwrap();
        weir.wait_node(replica.name(), "has caught up", |row| row.staleness_seconds.is_some_and(|s| s < 0.2));
        if turn == 5 {
            let openings = || replica.log().matches("accept read-only connections").count();
            let before = openings();
            wait_until("one of its processes is killed", || {
                replica.sigkill_backend(serving_process(replica)).is_ok()
            });
            wait_until("it has started again", || openings() > before);
        }
    }
    done.store(true, Ordering::Relaxed);
    scene.run(async {
        writing.await.unwrap();
        let (mut reads, mut switched, mut ahead) = (0, 0, 0);
        for task in reading {
            let seen = task.await.unwrap();
            assert!(seen.backwards.is_empty(), "{:?}", seen.backwards);
            assert!(seen.errors.is_empty(), "{:?}", seen.errors);
            reads += seen.reads;
            switched += seen.switched;
            ahead += seen.replica_ahead_of_primary;
        }
        println!(
            "{reads} reads, {switched} changes of replica, {ahead} times a replica was ahead of the primary"
        );
        assert!(switched > 0, "sessions must move between replicas, else nothing was tested");
    });
    weir.wait_whole(3);
}

/// What one reading session saw.
#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    switched: u64,
    /// A replica may show a commit before its primary does: no level below `strict` forbids it.
    replica_ahead_of_primary: u64,
    backwards: Vec<String>,
    errors: Vec<String>,
}

async fn read_on(client: Client, done: Arc<AtomicBool>) -> Seen {
    let read = client.prepare("SELECT v, served_by() FROM kv WHERE id = 0").await.unwrap();
    let mut seen = Seen::default();
    let (mut newest, mut shown_by) = (0, String::new());
    while !done.load(Ordering::Relaxed) {
        let row = match client.query_one(&read, &[]).await {
            Ok(row) => row,
            Err(error) => {
                seen.errors.push(describe(&error));
                if client.is_closed() {
                    return seen;
                }
                continue;
            }
        };
        let (value, by): (i32, String) = (row.get(0), row.get(1));
        seen.reads += 1;
        if value < newest && by == "pg1" && shown_by != "pg1" {
            seen.replica_ahead_of_primary += 1;
        } else if value < newest {
            seen.backwards.push(format!("{shown_by} showed {newest}, then {by} {value}"));
        }
        seen.switched += u64::from(shown_by != by && !shown_by.is_empty());
        if value >= newest {
            (newest, shown_by) = (value, by);
        }
    }
    seen
}
