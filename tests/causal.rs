//! Connections that name the same causal key read each other's writes: through one pgweir by its memory,
//! through several by a Valkey; and when that is lost, on the primary.
//!
//! `PGWEIR_CAUSAL_READS` sets the number of reads.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/valkey.rs"]
mod valkey;

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{NO_WRITER, Over, SERVED_BY, Scene, Stage, Tuning, Weir, describe, value, wait_for};
use pgweir::devcluster::{APP, APP_DATABASE, DevNode, Options};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};
use valkey::Valkey;

const PAIRS: i32 = 8;

const SCHEMA: [&str; 4] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE kv (id int PRIMARY KEY, v int NOT NULL)",
    "INSERT INTO kv SELECT id, 0 FROM generate_series(0, 100) id",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || Stage::with(Options::default(), &SCHEMA))
}

fn reads() -> i32 {
    std::env::var("PGWEIR_CAUSAL_READS").ok().map_or(3200, |text| text.parse().unwrap())
}

/// Reads wait for a replica that is fresh enough; the key is `app.user_id` too.
fn keyed(store: Option<&Valkey>, more: &str) -> Tuning {
    let store =
        store.map_or(String::new(), |store| format!("  store: {}\n  store_timeout: 2s\n", store.url()));
    Tuning { more: format!("causal:\n  setting: app.user_id\n{store}{more}"), ..Tuning::patient(&[]) }
}

fn pulse(replicas: &[DevNode], done: &AtomicBool) {
    let mut turn = 0;
    while !done.load(Ordering::Relaxed) {
        let replica = &replicas[turn % replicas.len()];
        replica.pause_replay().unwrap();
        std::thread::sleep(Duration::from_millis([5, 40, 120][turn % 3]));
        replica.resume_replay().unwrap();
        std::thread::sleep(Duration::from_millis([30, 3, 15, 60][turn % 4]));
        turn += 1;
    }
}

/// A client that hears what it is warned of.
struct Heard {
    client: Client,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Heard {
    async fn connect(weir: &Weir<'_>, options: &str) -> Heard {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(weir.address.port()).user(APP.name).password(APP.password);
        config.dbname(APP_DATABASE).options(options);
        let (client, mut connection) = config.connect(NoTls).await.unwrap();
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = notices.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message {
                    heard.lock().unwrap().push(notice.message().to_owned());
                }
            }
        });
        Heard { client, notices }
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap())
    }
}

#[derive(Debug, Default)]
struct Tally {
    on_replicas: i32,
    on_primary: i32,
    stale: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.on_replicas += other.on_replicas;
        self.on_primary += other.on_primary;
        self.stale.extend(other.stale);
    }

    fn assert_fresh(&self, what: &str) {
        println!("{what}: {} reads on replicas, {} on the primary", self.on_replicas, self.on_primary);
        let first = &self.stale[..self.stale.len().min(5)];
        assert!(self.stale.is_empty(), "{what}: {} stale: {first:?}", self.stale.len());
    }
}

async fn read(client: &Client, hint: &str, id: i32) -> (i32, String) {
    let sql = format!("{hint}SELECT v, served_by() FROM kv WHERE id = {id}");
    let messages = client.simple_query(&sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.unwrap();
    (row.get(0).unwrap().parse().unwrap(), row.get(1).unwrap().to_owned())
}

async fn all(client: &Client, statements: &[&str]) {
    for sql in statements {
        client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
    }
}

/// Writes `n` under the key of `id`, which the connection names in one of many ways.
async fn write(writer: &Client, id: i32, n: i32) {
    let update = format!("UPDATE kv SET v = {n} WHERE id = {id}");
    match n % 6 {
        0 => {
            all(writer, &["RESET pgweir.causal_key", &format!("SET app.user_id = {id}"), &update]).await;
            all(writer, &["RESET app.user_id"]).await;
        }
        1 => {
            all(
                writer,
                &[
                    "RESET pgweir.causal_key",
                    "BEGIN",
                    &format!("SET LOCAL app.user_id = '{id}'"),
                    &update,
                    "COMMIT",
                ],
            )
            .await
        }
        2 => {
            all(writer, &["RESET pgweir.causal_key", &format!("/* pgweir.causal_key='{id}' */ {update}")])
                .await
        }
        3 => all(writer, &[&format!("SET pgweir.causal_key = '{id}'"), "BEGIN", &update, "COMMIT"]).await,
        4 => {
            all(writer, &["RESET pgweir.causal_key"]).await;
            let local = format!("BEGIN; SELECT set_config('app.user_id', '{id}', true); {update}; COMMIT");
            all(writer, &[&local]).await;
        }
        _ => {
            all(writer, &[&format!("SET pgweir.causal_key = '{id}'")]).await;
            writer.execute("UPDATE kv SET v = $2 WHERE id = $1", &[&id, &n]).await.unwrap();
        }
    }
}

/// One row under a key of its own: written through one connection, read through another.
async fn pair(one: &Weir<'_>, other: &Weir<'_>, id: i32, rounds: i32, done: &AtomicI32) -> Tally {
    let writer = one.connect().await;
    let mut reader = other.connect().await;
    let mut tally = Tally::default();
    for n in 1..=rounds {
        write(&writer, id, n).await;
        let mut hint = String::new();
        match n % 17 {
            0 => reader = other.connect_with(&format!("-c pgweir.causal_key={id}")).await,
            8 => reader = other.connect_with(&format!("-c app.user_id={id}")).await,
            1..=4 => {
                all(&reader, &["RESET pgweir.causal_key"]).await;
                hint = format!("/*a='b',pgweir.causal_key='{id}'*/ ");
            }
            5..=7 => {
                all(&reader, &["RESET pgweir.causal_key", &format!("SET app.user_id = '{id}'")]).await;
            }
            _ => all(&reader, &[&format!("SET pgweir.causal_key = '{id}'")]).await,
        }
        let (seen, by) = match n % 5 {
            0 => {
                all(&reader, &["BEGIN READ ONLY", &format!("SET LOCAL app.user_id = '{id}'")]).await;
                let seen = read(&reader, &hint, id).await;
                all(&reader, &["COMMIT"]).await;
                seen
            }
            _ => read(&reader, &hint, id).await,
        };
        match by == "pg1" {
            true => tally.on_primary += 1,
            false => tally.on_replicas += 1,
        }
        if seen != n {
            tally.stale.push(format!(
                "{n} of {id} (written {}, read {}/{}): {by} showed {seen}",
                n % 6,
                n % 17,
                n % 5
            ));
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

/// Pairs under pulses of lag; `disturb` is told how many reads have been done.
fn pairs(
    scene: &Scene,
    one: &Weir<'_>,
    other: &Weir<'_>,
    disturb: impl FnOnce(&AtomicI32, &AtomicBool) + Send,
) -> Tally {
    let (over, count) = (AtomicBool::new(false), AtomicI32::new(0));
    std::thread::scope(|scope| {
        let pulses = scope.spawn(|| pulse(scene.cluster.replicas(), &over));
        scope.spawn(|| disturb(&count, &over));
        let ends = Over(&over);
        let tally = scene.run(async {
            let pairs = (1..=PAIRS).map(|id| pair(one, other, id, reads() / PAIRS, &count));
            let mut tally = Tally::default();
            join_all(pairs).await.into_iter().for_each(|one| tally.add(one));
            tally
        });
        drop(ends);
        pulses.join().unwrap();
        tally
    })
}

#[test]
fn connections_that_name_the_same_key_read_each_others_writes() {
    let scene = scene();
    let weir = scene.weir_with(&keyed(None, ""));
    let tally = pairs(&scene, &weir, &weir, |_, _| {});
    tally.assert_fresh("one pgweir");
    assert!(tally.on_replicas * 2 > tally.on_primary, "{tally:?}");
}

#[test]
fn connections_with_other_keys_or_none_may_read_something_older() {
    let scene = scene();
    let weir = scene.weir_with(&keyed(None, ""));
    scene.cluster.replicas().iter().for_each(|r| r.set_apply_delay(Duration::from_millis(300)).unwrap());
    let stale = scene.run(async {
        let (writer, reader, mut stale) = (weir.connect().await, weir.connect().await, 0);
        all(&reader, &["SET pgweir.causal_key = 'other'"]).await;
        for n in 1..=10 {
            write(&writer, 50, n).await;
            stale += i32::from(read(&reader, "", 50).await.0 != n);
        }
        stale
    });
    scene.cluster.replicas().iter().for_each(|r| r.set_apply_delay(Duration::ZERO).unwrap());
    assert!(stale > 0);
}

#[test]
fn pinning_by_time_holds_for_everybody_who_names_the_key() {
    let scene = scene();
    let tuning = keyed(None, "");
    let routing = [&tuning.routing[..], &["pin_after_write: 1h".to_owned()]].concat();
    let weir = scene.weir_with(&Tuning { routing, ..tuning });
    scene.run(async {
        let (writer, reader, other) = (weir.connect().await, weir.connect().await, weir.connect().await);
        all(&other, &["SET pgweir.causal_key = 'other'"]).await;
        all(&reader, &["SET pgweir.causal_key = '60'"]).await;
        assert_ne!(read(&reader, "", 60).await.1, "pg1");
        write(&writer, 60, 3).await;
        for _ in 0..10 {
            assert_eq!(read(&reader, "", 60).await, (3, "pg1".to_owned()));
            assert_ne!(read(&other, "", 60).await.1, "pg1");
        }
    });
}

#[test]
fn a_key_is_shown_and_explained_and_one_that_is_too_long_refused() {
    let scene = scene();
    let weir = scene.weir_with(&keyed(None, ""));
    scene.run(async {
        let client = weir.connect().await;
        assert_eq!(value(&client, "SHOW pgweir.causal_key").await, "");
        all(&client, &["SET app.user_id = 42"]).await;
        assert_eq!(value(&client, "SHOW pgweir.causal_key").await, "42");
        all(&client, &["SET pgweir.causal_key = 'user:7'"]).await;
        let explained = client.simple_query("EXPLAIN (ROUTE) SELECT v FROM kv").await.unwrap();
        assert!(format!("{explained:?}").contains("Causal key: user:7"), "{explained:?}");
        let long = format!("SET pgweir.causal_key = '{}'", "x".repeat(300));
        let error = client.simple_query(&long).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22023");
        // What can only be read by the server is taken for every key.
        all(&client, &["RESET pgweir.causal_key", "SET app.user_id = E'4\\x32'"]).await;
        let explained = value(&client, "EXPLAIN (ROUTE) SELECT v FROM kv").await;
        assert!(explained.contains("causal_key_in_doubt"), "{explained}");
    });
}

#[test]
fn a_key_carries_a_write_through_one_pgweir_to_a_read_through_another() {
    let scene = scene();
    let store = Valkey::start();
    let (one, other) = (scene.weir_with(&keyed(Some(&store), "")), scene.weir_with(&keyed(Some(&store), "")));
    let begun = Instant::now();
    let tally = pairs(&scene, &one, &other, |_, _| {});
    println!("took {:?}", begun.elapsed());
    tally.assert_fresh("two pgweirs");
    assert!(tally.on_replicas * 2 > tally.on_primary, "{tally:?}");
}

#[test]
fn without_the_store_reads_under_keys_are_on_the_primary_and_none_is_stale() {
    let scene = scene();
    let mut store = Valkey::start();
    let (one, other) = (scene.weir_with(&keyed(Some(&store), "")), scene.weir_with(&keyed(Some(&store), "")));
    let before = other.counts();
    let tally = pairs(&scene, &one, &other, |count, over| {
        while count.load(Ordering::Relaxed) < reads() / 3 && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        store.kill();
    });
    tally.assert_fresh("the store is killed");
    assert!(tally.on_replicas > 0 && tally.on_primary * 3 > tally.on_replicas, "{tally:?}");
    let down = other.counts_since(&before).into_iter().filter(|(went, _)| went.reason == "causal_store_down");
    assert!(down.map(|(_, count)| count).sum::<u64>() > 0);
    scene.run(async {
        let (writer, reader) = (Heard::connect(&one, "-c pgweir.causal_key=9").await, other.connect().await);
        all(&reader, &["SET pgweir.causal_key = '9'"]).await;
        for n in 1..=20 {
            all(&writer.client, &[&format!("UPDATE kv SET v = {n} WHERE id = 9")]).await;
            assert_eq!(read(&reader, "", 9).await, (n, "pg1".to_owned()));
        }
        let heard = writer.heard();
        assert!(heard.iter().any(|notice| notice.contains("not recorded")), "{heard:?}");
        // Who names no key does not care.
        wait_for("reads without a key are on replicas", async || {
            read(&other.connect().await, "", 9).await.1 != "pg1"
        })
        .await;
    });
}

#[test]
fn a_store_that_comes_back_empty_does_not_make_anybody_miss_a_write() {
    let scene = scene();
    let mut store = Some(Valkey::start());
    let tuning = keyed(store.as_ref(), "");
    let (one, other) = (scene.weir_with(&tuning), scene.weir_with(&tuning));
    scene.cluster.replicas().iter().for_each(|r| r.set_apply_delay(Duration::from_millis(300)).unwrap());
    scene.run(async {
        let (writer, reader) = (one.connect().await, other.connect().await);
        all(&writer, &["SET pgweir.causal_key = '10'"]).await;
        all(&reader, &["SET pgweir.causal_key = '10'"]).await;
        for n in 1..=5 {
            all(&writer, &[&format!("UPDATE kv SET v = {n} WHERE id = 10")]).await;
            store = store.take().map(Valkey::start_again);
            // On a replica again, as soon as the store is: never on one that is behind.
            wait_for("reads are back on replicas", async || {
                let (seen, by) = read(&reader, "", 10).await;
                assert_eq!(seen, n, "{by}");
                by != "pg1"
            })
            .await;
        }
    });
    scene.cluster.replicas().iter().for_each(|r| r.set_apply_delay(Duration::ZERO).unwrap());
}

#[test]
fn a_store_that_hangs_or_talks_nonsense_means_the_primary_soon() {
    let scene = scene();
    let store = Valkey::start();
    let tuning = keyed(Some(&store), "");
    let weir = scene.weir_with(&Tuning { more: tuning.more.replace("2s", "300ms"), ..tuning });
    scene.run(async {
        let reader = weir.connect().await;
        all(&reader, &["SET pgweir.causal_key = '11'"]).await;
        let on_replica = async || read(&reader, "", 11).await.1 != "pg1";
        wait_for("the store is used", on_replica).await;
        redis::cmd("HSET")
            .arg("pgweir:key:11")
            .arg("at")
            .arg("nonsense")
            .exec(&mut store.connection())
            .unwrap();
        assert_eq!(read(&reader, "", 11).await.1, "pg1");
        redis::cmd("SET").arg("pgweir:key:11").arg("a string").exec(&mut store.connection()).unwrap();
        assert_eq!(read(&reader, "", 11).await.1, "pg1");
        redis::cmd("DEL").arg("pgweir:key:11").exec(&mut store.connection()).unwrap();
        wait_for("it can be used again", on_replica).await;
        // Another pgweir has said that it is about to write, and says no more.
        redis::cmd("HSET")
            .arg("pgweir:key:11")
            .arg("dx")
            .arg("99999999999999")
            .exec(&mut store.connection())
            .unwrap();
        let explained = value(&reader, "EXPLAIN (ROUTE) SELECT v FROM kv").await;
        assert!(explained.contains("causal_key_in_doubt"), "{explained}");
        redis::cmd("DEL").arg("pgweir:key:11").exec(&mut store.connection()).unwrap();
        wait_for("nobody is about to write", on_replica).await;
        store.freeze();
        let begun = Instant::now();
        for _ in 0..50 {
            assert_eq!(read(&reader, "", 11).await.1, "pg1");
        }
        // Only the first one waits for an answer.
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        store.thaw();
        wait_for("it answers again", on_replica).await;
    });
}

#[test]
fn writes_whose_key_cannot_be_recorded_can_be_refused() {
    let scene = scene();
    let mut store = Valkey::start();
    let weir = scene.weir_with(&keyed(Some(&store), "  on_store_down: error\n"));
    scene.run(async {
        let client = weir.connect().await;
        all(&client, &["SET pgweir.causal_key = '12'", "UPDATE kv SET v = 1 WHERE id = 12"]).await;
        store.kill();
        wait_for("writes are refused", async || {
            client.simple_query("UPDATE kv SET v = 2 WHERE id = 12").await.is_err()
        })
        .await;
        let error = client.simple_query("UPDATE kv SET v = 3 WHERE id = 12").await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "57P03");
        assert!(error.hint().unwrap().contains("safe to retry"), "{error:?}");
        let before = read(&client, "", 12).await.0;
        assert!(before < 3);
        all(&client, &["BEGIN"]).await;
        assert!(client.simple_query("UPDATE kv SET v = 4 WHERE id = 12").await.is_err());
        assert_eq!(client.simple_query("SELECT 1").await.unwrap_err().code().unwrap().code(), "25P02");
        all(&client, &["ROLLBACK", "RESET pgweir.causal_key", "UPDATE kv SET v = 5 WHERE id = 12"]).await;
        assert_eq!(read(&client, "", 12).await.0, 5);
    });
}
