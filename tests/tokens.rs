//! A write that was made through one pgweir is seen through another by whoever brings its token, while
//! replicas lag and stand still; and what is no honest token is told so, soon.
//!
//! `PGWEIR_TOKEN_READS` sets the number of reads.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/wire_client.rs"]
mod wire_client;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use harness::{NO_WRITER, Over, SERVED_BY, Scene, Stage, Tuning, Weir, describe, value, wait_for};
use pgweir::devcluster::{APP, APP_DATABASE, DevNode, Options, Stop};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};
use wire_client::{Login, Wire, bind, execute, parse, query, sync, tags};

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
    std::env::var("PGWEIR_TOKEN_READS").ok().map_or(4000, |text| text.parse().unwrap())
}

/// Reads wait for a replica that is fresh enough, so that it is replicas that are tested.
fn waiting() -> Tuning {
    Tuning::patient(&[])
}

/// Stops and resumes the replay of one replica after the other until `done`.
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

/// A writer whose tokens come as ParameterStatus.
struct Told {
    client: Client,
    token: Arc<Mutex<Option<String>>>,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Told {
    async fn connect(weir: &Weir<'_>, options: &str) -> Told {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(weir.address.port()).user(APP.name).password(APP.password);
        config.dbname(APP_DATABASE).options(options);
        let (client, mut connection) = config.connect(NoTls).await.unwrap();
        let (token, notices) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let (known, heard) = (token.clone(), notices.clone());
        tokio::spawn(poll_fn(move |cx| {
            loop {
                let polled = connection.poll_message(cx);
                *known.lock().unwrap() = connection.parameter("pgweir.token").map(str::to_owned);
                match polled {
                    Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                        heard.lock().unwrap().push(notice.message().to_owned());
                    }
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }));
        Told { client, token, notices }
    }

    fn token(&self) -> Option<String> {
        self.token.lock().unwrap().clone()
    }

    /// Writes, and waits until this task, too, knows the token that came before the answer's end.
    async fn write(&self, sql: &str) -> String {
        let before = self.token();
        self.client.simple_query(sql).await.unwrap();
        wait_for("a new token has come", async || self.token() != before).await;
        self.token().unwrap()
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

/// One row, written through one pgweir and read through the other, its token carried in every way.
async fn pair(one: &Weir<'_>, other: &Weir<'_>, id: i32, rounds: i32) -> Tally {
    let writer = Told::connect(one, "-c pgweir.report_token=on").await;
    let mut reader = other.connect().await;
    let mut tally = Tally::default();
    for n in 1..=rounds {
        let reported = writer.write(&format!("UPDATE kv SET v = {n} WHERE id = {id}")).await;
        let mut hint = String::new();
        let way = n % 16;
        match way {
            0 => reader = other.connect_with(&format!("-c pgweir.token={reported}")).await,
            1..=4 => hint = format!("/* pgweir.token='{reported}' */ "),
            5..=6 => hint = format!("/*app='x',pgweir.token='{}'*/ ", reported.replace('/', "%2F")),
            7..=9 => {
                let shown = value(&writer.client, "SHOW pgweir.token").await;
                reader.simple_query(&format!("SET pgweir.token = '{shown}'")).await.unwrap();
            }
            10 => {
                let short = reported.split('.').skip(2).collect::<Vec<_>>().join("/");
                reader.simple_query(&format!("SET pgweir.token = '{short}'")).await.unwrap();
            }
            _ => {
                reader.simple_query(&format!("SET pgweir.token = '{reported}'")).await.unwrap();
            }
        }
        let (seen, by) = read(&reader, &hint, id).await;
        match by == "pg1" {
            true => tally.on_primary += 1,
            false => tally.on_replicas += 1,
        }
        if seen != n {
            tally.stale.push(format!("{n} of {id} (way {way}): {by} showed {seen}"));
        }
    }
    tally
}

#[test]
fn a_token_carries_a_write_through_one_pgweir_to_a_read_through_another() {
    let scene = scene();
    let (one, other) = (scene.weir(), scene.weir_with(&waiting()));
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    let tally = std::thread::scope(|scope| {
        let pulses = scope.spawn(|| pulse(scene.cluster.replicas(), &done));
        let over = Over(&done);
        let tally = scene.run(async {
            let pairs = (1..=PAIRS).map(|id| pair(&one, &other, id, reads() / PAIRS));
            let mut tally = Tally::default();
            futures_util::future::join_all(pairs).await.into_iter().for_each(|one| tally.add(one));
            tally
        });
        drop(over);
        pulses.join().unwrap();
        tally
    });
    let (replicas, primary) = (tally.on_replicas, tally.on_primary);
    println!("{replicas} reads on replicas, {primary} on the primary, in {:?}", begun.elapsed());
    assert!(
        tally.stale.is_empty(),
        "{} stale: {:?}",
        tally.stale.len(),
        &tally.stale[..tally.stale.len().min(5)]
    );
    assert!(replicas * 2 > primary, "{replicas} of {} reads on replicas", replicas + primary);
}

#[test]
fn the_same_reads_without_a_token_are_stale() {
    let scene = scene();
    let (one, other) = (scene.weir(), scene.weir_with(&waiting()));
    scene.cluster.replicas().iter().for_each(|r| r.set_apply_delay(Duration::from_millis(300)).unwrap());
    let stale = scene.run(async {
        let (writer, mut stale) = (one.connect().await, 0);
        for n in 1..=10 {
            writer.simple_query(&format!("UPDATE kv SET v = {n} WHERE id = 50")).await.unwrap();
            stale += i32::from(read(&other.connect().await, "", 50).await.0 != n);
        }
        stale
    });
    scene.cluster.replicas().iter().for_each(|r| r.set_apply_delay(Duration::ZERO).unwrap());
    assert!(stale > 0);
}

#[test]
fn a_token_covers_what_its_session_has_read() {
    let scene = scene();
    let (one, other) = (scene.weir(), scene.weir_with(&waiting()));
    scene.run(async {
        let (writer, witness) = (one.connect().await, one.connect().await);
        let reader = other.connect().await;
        witness.simple_query("SET pgweir.route = primary").await.unwrap();
        for n in 1..=50 {
            writer.simple_query(&format!("UPDATE kv SET v = {n} WHERE id = 51")).await.unwrap();
            assert_eq!(read(&witness, "", 51).await.0, n);
            // It has written nothing itself.
            let token = value(&witness, "SHOW pgweir.token").await;
            reader.simple_query(&format!("SET pgweir.token = '{token}'")).await.unwrap();
            assert_eq!(read(&reader, "", 51).await.0, n);
        }
    });
}

#[test]
fn tokens_are_reported_behind_writes_only_and_when_asked_for_only() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let told = Told::connect(&weir, "").await;
        told.client.simple_query("UPDATE kv SET v = 1 WHERE id = 52").await.unwrap();
        assert_eq!(told.token(), None);
        told.client.simple_query("SET pgweir.report_token = on").await.unwrap();
        assert_eq!(value(&told.client, "SHOW pgweir.report_token").await, "on");
        told.client.simple_query("SELECT 1").await.unwrap();
        assert_eq!(told.token(), None);
        let first = told.write("UPDATE kv SET v = 2 WHERE id = 52").await;
        // In a transaction the COMMIT is what counts; in a pipeline each one does, in order.
        told.client.batch_execute("BEGIN; UPDATE kv SET v = 3 WHERE id = 52").await.unwrap();
        assert_eq!(told.token(), Some(first.clone()));
        let second = told.write("COMMIT").await;
        assert_ne!(first, second);
        for sql in ["BEGIN", "UPDATE kv SET v = 4 WHERE id = 52", "ROLLBACK"] {
            told.client.batch_execute(sql).await.unwrap();
        }
        assert_eq!(told.token(), Some(second));
        let all = (0..50).map(|n| {
            let sql = format!("UPDATE kv SET v = {n} WHERE id = 52");
            let client = &told.client;
            async move {
                client.batch_execute(&sql).await.unwrap();
                value(client, "SELECT v FROM kv WHERE id = 52").await
            }
        });
        let seen = futures_util::future::join_all(all).await;
        assert_eq!(seen.len(), 50);
        assert_eq!(value(&told.client, "SELECT v FROM kv WHERE id = 52").await, "49");
        assert!(told.notices.lock().unwrap().is_empty(), "{:?}", told.notices.lock().unwrap());
    });
}

/// SQLSTATE, message, hint.
async fn refusal(client: &Client, sql: &str) -> (String, String, String) {
    let error = client.simple_query(sql).await.expect_err(sql);
    let error = error.as_db_error().unwrap().clone();
    (error.code().code().to_owned(), error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}

#[test]
fn what_is_no_token_is_refused_with_a_hint() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        for text in ["", "x", "1", "1/0", "v1.1.1", "0/0/1", "1/0/1; DROP TABLE kv", "v9.1.1.0/1"] {
            for sql in [
                format!("SET pgweir.token = '{text}'"),
                format!("/* pgweir.token='{text}' */ SELECT v FROM kv"),
            ] {
                let (state, message, hint) = refusal(&client, &sql).await;
                assert_eq!(state, "22023", "{sql}");
                assert!(
                    message.contains("pgweir.token") && hint.contains("SHOW pgweir.token"),
                    "{message} {hint}"
                );
            }
        }
        assert_eq!(value(&client, "SELECT count(*) FROM kv").await, "101");
        let error = weir.connect_as(APP, APP_DATABASE, "-c pgweir.token=x").await.expect_err("startup");
        assert_eq!(error.code().unwrap().code(), "22023");
    });
}

/// Tokens that this cluster cannot prove, and a word of what is said about them.
async fn dishonest(client: &Client) -> [(String, &'static str); 4] {
    let honest = value(client, "SHOW pgweir.token").await;
    let parts: Vec<&str> = honest.splitn(4, '.').collect();
    let system: u64 = parts[1].parse().unwrap();
    [
        (format!("v1.{}.{}.{}", system ^ 1, parts[2], parts[3]), "another cluster"),
        (format!("v1.{system}.{}.FFFFFFFF/0", parts[2]), "ahead"),
        (format!("{}/FFFFFFFF/0", parts[2]), "ahead"),
        (format!("v1.{system}.4000000000.0/1"), "ahead"),
    ]
}

#[test]
fn a_token_that_cannot_be_proven_fails_soon_or_means_the_primary_as_configured() {
    let scene = scene();
    let strict = scene.weir_with(&Tuning::routing(&["token_mismatch: error"]));
    let mild = scene.weir();
    scene.run(async {
        let client = strict.connect().await;
        for (token, word) in dishonest(&client).await {
            let begun = Instant::now();
            for sql in
                [format!("SET pgweir.token = '{token}'"), format!("/* pgweir.token={token} */ SELECT 1")]
            {
                let (state, message, hint) = refusal(&client, &sql).await;
                assert!(
                    state == "55000" && message.contains(word) && hint.contains("RESET"),
                    "{state} {message} {hint}"
                );
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        }
        let warned = Told::connect(&mild, "").await;
        for (token, word) in dishonest(&warned.client).await {
            warned.client.simple_query(&format!("SET pgweir.token = '{token}'")).await.unwrap();
            wait_for("a warning has come", async || !warned.notices.lock().unwrap().is_empty()).await;
            let notices = std::mem::take(&mut *warned.notices.lock().unwrap());
            assert!(notices.iter().any(|notice| notice.contains(word)), "{notices:?}");
            assert_eq!(read(&warned.client, "", 1).await.1, "pg1");
            let explained = value(&warned.client, "EXPLAIN (ROUTE) SELECT v FROM kv").await;
            assert!(explained.contains("token_unproven"), "{explained}");
        }
        warned.client.simple_query("RESET pgweir.token").await.unwrap();
        wait_for("reads are back on replicas", async || read(&warned.client, "", 1).await.1 != "pg1").await;
    });
}

#[test]
fn a_token_comes_too_late_for_a_read_only_transaction_on_a_replica() {
    let scene = scene();
    let weir = scene.weir_with(&waiting());
    scene.run(async {
        let client = weir.connect().await;
        let token = value(&client, "SHOW pgweir.token").await;
        client.batch_execute("BEGIN READ ONLY").await.unwrap();
        assert_ne!(read(&client, "", 1).await.1, "pg1");
        let (state, message, _) =
            refusal(&client, &format!("/* pgweir.token='{token}' */ SELECT v FROM kv WHERE id = 1")).await;
        assert!(state == "25001" && message.contains("before"), "{state} {message}");
        assert_eq!(refusal(&client, "SELECT 1").await.0, "25P02");
        client.batch_execute("ROLLBACK").await.unwrap();
        // At its beginning it holds for the whole transaction.
        client.batch_execute(&format!("/* pgweir.token='{token}' */ BEGIN READ ONLY")).await.unwrap();
        assert_ne!(read(&client, "", 1).await.1, "pg1");
        client.batch_execute("COMMIT").await.unwrap();
    });
}

#[test]
fn the_token_stands_before_the_end_of_the_answer_in_every_pipeline() {
    let scene = scene();
    let weir = scene.weir();
    let login = Login::new(APP.name, APP.password, APP_DATABASE).with("options", "-c pgweir.report_token=on");
    let mut wire = Wire::connect(weir.address.port(), &login).unwrap_or_else(|e| panic!("{}", e.message()));
    let update = "UPDATE kv SET v = v + 1 WHERE id = 53";
    assert_eq!(tags(&wire.query(update)), "CSZ");
    assert_eq!(tags(&wire.query("SELECT v FROM kv WHERE id = 53")), "TDCZ");
    let read = query("SELECT v FROM kv WHERE id = 53");
    let extended = [parse("", update, &[]), bind("", "", &[]), execute("", 0), sync()].concat();
    let all =
        [query(update), read.clone(), extended, read.clone(), query(update), read.clone(), read].concat();
    for _ in 0..50 {
        let answers = wire.exchange(&all, 7);
        let answers: Vec<String> = answers.iter().map(|frames| tags(frames)).collect();
        assert_eq!(answers, ["CSZ", "TDCZ", "12CSZ", "TDCZ", "CSZ", "TDCZ", "TDCZ"]);
    }
    assert_eq!(wire.value("SELECT v FROM kv WHERE id = 53"), "151");
}

#[test]
fn after_a_promotion_a_token_is_good_as_far_as_its_timeline_certainly_went_on() {
    let scene = scene();
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (strict, mild) = (stage.weir_with(&Tuning::routing(&["token_mismatch: error"])), stage.weir());
    let heir = stage.cluster.replica(0);
    let old = stage.run(async {
        let client = mild.connect().await;
        client.simple_query("UPDATE kv SET v = 1 WHERE id = 1").await.unwrap();
        let old = value(&client, "SHOW pgweir.token").await;
        for weir in [&strict, &mild] {
            let reader = weir.connect_with(&format!("-c pgweir.token={old}")).await;
            wait_for("it is known that the heir has it", async || {
                read(&reader, "", 1).await.1 == heir.name()
            })
            .await;
        }
        old
    });
    stage.cluster.primary().stop(Stop::Fast).unwrap();
    heir.promote().unwrap();
    stage.run(async {
        for weir in [&strict, &mild] {
            wait_for("the new timeline is seen", async || {
                let client = weir.connect().await;
                let shown = client.simple_query("SHOW pgweir.token").await;
                let shown = shown.ok().and_then(|rows| harness::first_value(&rows));
                shown.is_some_and(|token| token.split('.').nth(2) == Some("2"))
            })
            .await;
        }
        let client = strict.connect().await;
        client.simple_query(&format!("SET pgweir.token = '{old}'")).await.unwrap();
        assert_eq!(read(&client, "", 1).await.0, 1);
        // What the heir may not have had.
        let lost = "1/FFFFFFFF/0";
        let (state, message, _) = refusal(&client, &format!("SET pgweir.token = '{lost}'")).await;
        // Where exactly it forked may be known a moment later.
        let unknown = state == "55000" && message.contains("left behind");
        let known = state == "LW001" && message.contains("was lost in the failover to timeline 2");
        assert!(unknown || known, "{state} {message}");
        let warned = Told::connect(&mild, "-c pgweir.report_token=on").await;
        warned.client.simple_query(&format!("SET pgweir.token = '{lost}'")).await.unwrap();
        let explained = value(&warned.client, "EXPLAIN (ROUTE) SELECT v FROM kv").await;
        assert!(explained.contains("token_unproven"), "{explained}");
        let new = warned.write("UPDATE kv SET v = 2 WHERE id = 1").await;
        let reader = strict.connect_with(&format!("-c pgweir.token={new}")).await;
        assert_eq!(read(&reader, "", 1).await.0, 2);
    });
    drop(scene);
}
