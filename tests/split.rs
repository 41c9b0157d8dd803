//! `transactions: split`: reads before the first write use replicas, nothing behind it does, and the client
//! cannot tell but by asking where.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/wire_client.rs"]
mod wire_client;

use harness::{Calm, NO_WRITER, SERVED_BY, Scene, Stage, Tuning, Weir, connect_to, value, wait_until};
use pgweir::devcluster::{APP, APP_DATABASE, DevNode, Options, SUPERUSER};
use pgweir::freshness::defect::Defect;
use std::sync::OnceLock;
use tokio_postgres::Client;
use wire_client::*;

const SCHEMA: [&str; 12] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE kv (id int PRIMARY KEY, v bigint NOT NULL)",
    "INSERT INTO kv SELECT id, 0 FROM generate_series(0, 100) id",
    "CREATE TABLE log (at timestamptz DEFAULT now(), what text)",
    "CREATE SEQUENCE numbers",
    "CREATE UNLOGGED TABLE scratch (n int)",
    "CREATE VIEW plain AS SELECT id, v, no_writer() FROM kv",
    "CREATE VIEW recent AS SELECT * FROM log WHERE at > now() - interval '1 day'",
    "CREATE VIEW above AS SELECT count(*) FROM recent",
    "CREATE VIEW calling AS SELECT id, served_by() FROM kv",
    "CREATE TABLE secret (id int, of date)",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || {
        let stage = Stage::with(Options::default(), &SCHEMA);
        let sql = |text: &str| drop(stage.cluster.primary().sql_as(APP.name, APP_DATABASE, text).unwrap());
        sql(
            "CREATE POLICY today ON secret USING (of = current_date); ALTER TABLE secret ENABLE ROW LEVEL SECURITY",
        );
        stage
    })
}

/// A pgweir whose reads wait for a replica that is fresh enough, however busy the machine is.
fn split(scene: &Scene) -> Weir<'_> {
    scene.weir_with(&Tuning::patient(&["transactions: split"]))
}

fn app() -> Login {
    Login::new(APP.name, APP.password, APP_DATABASE)
}

fn wire(weir: &Weir<'_>) -> Wire {
    Wire::connect(weir.address.port(), &app()).unwrap_or_else(|error| panic!("login: {error:?}"))
}

/// Where this went: role and reason of each request that reached a server.
fn went(weir: &Weir<'_>, what: impl FnOnce()) -> Vec<(String, String)> {
    let before = weir.counts();
    what();
    let since = weir.counts_since(&before);
    since
        .into_iter()
        .flat_map(|(went, n)| (0..n).map(move |_| (went.role.clone(), went.reason.clone())))
        .collect()
}

fn on_replica() -> Vec<(String, String)> {
    vec![("replica".to_owned(), "split_transaction".to_owned())]
}

fn in_transaction() -> Vec<(String, String)> {
    vec![("primary".to_owned(), "in_transaction".to_owned())]
}

const READ: &str = "SELECT v FROM kv WHERE id = 1";

#[test]
fn reads_before_the_first_write_use_replicas_and_nothing_behind_it_does() {
    let scene = scene();
    let weir = split(&scene);
    let mut wire = wire(&weir);
    for round in 1..=3 {
        for (begin, end) in
            [("BEGIN", "COMMIT"), ("START TRANSACTION READ WRITE", "END"), ("begin work;", "ROLLBACK")]
        {
            let before = wire.value(READ);
            assert_eq!(went(&weir, || drop(wire.run(begin))), [], "{begin}: nobody is asked");
            for read in [READ, "SELECT no_writer() FROM plain", "COPY kv TO STDOUT", "", "SELECT 1; SELECT 2"]
            {
                assert_eq!(
                    went(&weir, || assert_eq!(wire.run(read).last().unwrap().text(), "T")),
                    on_replica(),
                    "{read}"
                );
            }
            let write = format!("UPDATE kv SET v = v + {round} WHERE id = 1");
            assert_eq!(went(&weir, || drop(wire.run(&write))), in_transaction());
            let after = (before.parse::<i64>().unwrap() + round).to_string();
            let mut seen = String::new();
            assert_eq!(went(&weir, || seen = wire.value(READ)), in_transaction(), "{begin}");
            assert_eq!(seen, after, "its own write");
            assert_eq!(wire.run(end).last().unwrap().text(), "I");
            assert_eq!(wire.value(READ), if end == "ROLLBACK" { before } else { after }, "{begin} {end}");
        }
    }
    // One that only reads never reaches the primary.
    let all = went(&weir, || {
        for text in ["BEGIN", READ, READ, "COMMIT", "BEGIN", "ROLLBACK"] {
            wire.run(text);
        }
    });
    assert_eq!(all, [on_replica(), on_replica()].concat());
    let plan = first_values(&wire.run("EXPLAIN (ROUTE) BEGIN"));
    assert!(plan.iter().any(|line| line.contains("first thing that is not plainly a read")), "{plan:?}");
    wire.run("BEGIN");
    let plan = first_values(&wire.run("EXPLAIN (ROUTE) SELECT v FROM kv"));
    assert!(plan[0].starts_with("Route: replica") && plan[0].contains("split_transaction"), "{plan:?}");
    let plan = first_values(&wire.run("EXPLAIN (ROUTE) SELECT now()"));
    assert!(plan[0].starts_with("Route: primary") && plan[0].contains("in_transaction"), "{plan:?}");
    wire.run("COMMIT");
}

#[test]
fn whatever_is_not_plainly_a_read_begins_the_transaction() {
    let scene = scene();
    let weir = split(&scene);
    for text in [
        "INSERT INTO log (what) VALUES ('x')",
        "SELECT id FROM kv WHERE id = 1 FOR UPDATE",
        "LOCK TABLE kv IN ACCESS SHARE MODE",
        "SELECT nextval('numbers')",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT now()",
        "SELECT current_date FROM kv",
        "SELECT clock_timestamp()",
        "SELECT 'now'::timestamptz",
        "SELECT txid_current_if_assigned()",
        "SELECT pg_current_snapshot()",
        "SELECT pg_is_in_recovery()",
        "SELECT served_by()",
        "SELECT * FROM recent",
        "SELECT * FROM above",
        "SELECT * FROM calling",
        "SELECT * FROM secret",
        "SELECT * FROM scratch",
        "SHOW transaction_isolation",
        "SHOW transaction_read_only",
        "SAVEPOINT a",
        "SET LOCAL work_mem = '7MB'",
        "SET work_mem = '8MB'",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SET CONSTRAINTS ALL DEFERRED",
        "SELECT set_config('app.x', 'y', true)",
        "DECLARE c CURSOR FOR SELECT 1",
        "PREPARE p AS SELECT 1",
        "NOTIFY nobody",
        "DO $$ BEGIN END $$",
        "CREATE TABLE t (); DROP TABLE t",
        "BEGIN",
        "/* pgweir.route=primary */ SELECT v FROM kv",
    ] {
        for behind_a_read in [false, true] {
            let mut wire = wire(&weir);
            wire.run("BEGIN");
            if behind_a_read {
                // DDL makes the catalog unknown for a moment.
                wait_until("reads go to replicas", || {
                    let went = went(&weir, || drop(wire.run(READ)));
                    if went != on_replica() {
                        wire.run("ROLLBACK");
                        wire.run("BEGIN");
                    }
                    went == on_replica()
                });
            }
            let frames = wire.query(text);
            let too_late = behind_a_read && text.starts_with("SET TRANSACTION ISOLATION");
            match error_of(&frames) {
                Some(error) => assert!(too_late && error.sqlstate() == "25001", "{text}: {error:?}"),
                None => {
                    assert!(!too_late, "{text}");
                    assert_eq!(frames.last().unwrap().text(), "T", "{text}");
                    assert_eq!(went(&weir, || drop(wire.run(READ))), in_transaction(), "{text}");
                    assert_eq!(wire.value("SELECT pg_is_in_recovery()"), "f", "{text}");
                }
            }
            wire.run("ROLLBACK");
        }
    }
}

#[test]
fn what_begins_as_anything_but_read_committed_is_left_alone() {
    let scene = scene();
    let weir = split(&scene);
    let begins = |wire: &mut Wire, begin: &str| {
        assert_eq!(wire.run(begin).last().unwrap().text(), "T", "{begin}");
        let went = went(&weir, || drop(wire.run(READ)));
        wire.run("ROLLBACK");
        went
    };
    let mut plain = wire(&weir);
    for begin in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN ISOLATION LEVEL READ UNCOMMITTED",
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
        "BEGIN NOT DEFERRABLE",
        "BEGIN; SELECT 1",
        "/* pgweir.route=primary */ BEGIN",
    ] {
        assert_eq!(begins(&mut plain, begin), in_transaction(), "{begin}");
    }
    assert_eq!(begins(&mut plain, "BEGIN ISOLATION LEVEL READ COMMITTED"), on_replica());
    for set in [
        "SET default_transaction_isolation = 'repeatable read'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET idle_in_transaction_session_timeout = '1min'",
        "SET pgweir.route = 'primary'",
        "CREATE TEMPORARY TABLE mine (n int)",
    ] {
        let mut wire = self::wire(&weir);
        wire.run(set);
        let went = begins(&mut wire, "BEGIN");
        assert_eq!(went, in_transaction(), "{set}");
    }
    let options = app().with("options", "-c default_transaction_isolation=serializable");
    let mut serializable = Wire::connect(weir.address.port(), &options).unwrap();
    assert_eq!(begins(&mut serializable, "BEGIN"), in_transaction());
    // The setting of a role or database is seen in the catalog.
    let direct = |sql: &str| drop(scene.cluster.primary().sql(sql).unwrap());
    direct(&format!("ALTER ROLE {} SET default_transaction_isolation = 'repeatable read'", SUPERUSER.name));
    plain.run("CREATE TABLE reread ()");
    plain.run("DROP TABLE reread");
    let loaded = |wire: &mut Wire| {
        first_values(&wire.run("EXPLAIN (ROUTE) SELECT no_writer()"))[0].contains("replica")
    };
    wait_until("the catalog has been read", || loaded(&mut plain));
    assert_eq!(begins(&mut plain, "BEGIN"), in_transaction());
    assert_eq!(begins(&mut plain, "BEGIN ISOLATION LEVEL READ COMMITTED"), in_transaction());
    direct(&format!("ALTER ROLE {} RESET default_transaction_isolation", SUPERUSER.name));
    plain.run("CREATE TABLE reread ()");
    plain.run("DROP TABLE reread");
    wait_until("the catalog has been read", || loaded(&mut plain));
    assert_eq!(begins(&mut plain, "BEGIN"), on_replica());
    // Without being asked for, nothing is split; and in session mode neither.
    for weir in [
        scene.weir_with(&Tuning::patient(&[])),
        scene.weir_with(&Tuning {
            pool: vec!["mode: session".to_owned()],
            ..Tuning::patient(&["transactions: split"])
        }),
    ] {
        let mut wire = self::wire(&weir);
        assert_eq!(went(&weir, || drop(wire.run("BEGIN"))).len(), 1);
        let went = went(&weir, || drop(wire.run(READ)));
        assert_eq!(went, in_transaction());
    }
}

#[test]
fn a_repeatable_read_transaction_still_has_one_snapshot() {
    let scene = scene();
    let weir = split(&scene);
    let (mut reader, mut writer) = (wire(&weir), wire(&weir));
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let first = reader.value("SELECT v FROM kv WHERE id = 2");
    writer.run("UPDATE kv SET v = v + 1 WHERE id = 2");
    assert_eq!(reader.value("SELECT v FROM kv WHERE id = 2"), first);
    reader.run("COMMIT");
    // READ COMMITTED sees what others have committed meanwhile, wherever its statements run.
    writer.run("BEGIN");
    let first: i64 = writer.value("SELECT v FROM kv WHERE id = 2").parse().unwrap();
    reader.run("UPDATE kv SET v = v + 1 WHERE id = 2");
    writer.run("INSERT INTO log (what) VALUES ('between')");
    assert_eq!(writer.value("SELECT v FROM kv WHERE id = 2").parse::<i64>().unwrap(), first + 1);
    writer.run("COMMIT");
}

#[test]
fn an_error_fails_the_transaction_as_it_does_on_one_server() {
    let scene = scene();
    let weir = split(&scene);
    let mut wire = wire(&weir);
    for read_first in [false, true] {
        for end in ["COMMIT", "ROLLBACK"] {
            wire.run("BEGIN");
            if read_first {
                wire.run(READ);
            }
            let frames = wire.query("SELECT 1/0");
            assert_eq!(error_of(&frames).unwrap().sqlstate(), "22012");
            assert_eq!(frames.last().unwrap().text(), "E");
            for text in [READ, "INSERT INTO log (what) VALUES ('never')", "SAVEPOINT a", "SHOW work_mem"] {
                let frames = wire.query(text);
                assert_eq!(error_of(&frames).unwrap().sqlstate(), "25P02", "{text}");
                assert_eq!(frames.last().unwrap().text(), "E");
            }
            let frames = wire.query(end);
            assert_eq!((frames[0].text(), tags(&frames)), ("ROLLBACK".to_owned(), "CZ".to_owned()));
            assert_eq!(frames.last().unwrap().text(), "I");
        }
    }
    // Nothing else was asked of a server in between.
    for end in ["COMMIT", "ROLLBACK"] {
        wire.run("BEGIN");
        wire.query("SELECT 1/0");
        let mut frames = Vec::new();
        assert_eq!(went(&weir, || frames = wire.query(end)), []);
        assert_eq!(frames[0].text(), "ROLLBACK");
    }
    assert_eq!(wire.value("SELECT count(*) FROM log WHERE what = 'never'"), "0");
    // A chained one goes on as what it was.
    wire.run("BEGIN");
    wire.query("SELECT 1/0");
    assert_eq!(wire.run("ROLLBACK AND CHAIN").last().unwrap().text(), "T");
    wire.run("INSERT INTO log (what) VALUES ('chained')");
    wire.run("COMMIT");
    assert_eq!(wire.value("SELECT count(*) FROM log WHERE what = 'chained'"), "1");
}

/// Parse, Bind, Describe of the portal, Execute.
fn step(name: &str, text: &str) -> Vec<u8> {
    [parse(name, text, &[]), bind("", name, &[]), describe(b'P', ""), execute("", 0)].concat()
}

#[test]
fn drivers_that_begin_in_the_extended_protocol_are_served_alike() {
    let scene = scene();
    let weir = split(&scene);
    let mut wire = wire(&weir);
    // One by one, as psycopg and asyncpg send it.
    for text in ["BEGIN", READ, "COMMIT"] {
        let frames = wire.exchange(&[step("", text), sync()].concat(), 1).remove(0);
        let expected = if text == READ { "12TDCZ" } else { "12nCZ" };
        assert_eq!(tags(&frames), expected, "{text}: {frames:?}");
    }
    // The unnamed statement is still there when it is wanted again.
    wire.exchange(&[step("", "BEGIN"), sync()].concat(), 1);
    let frames = wire.exchange(&[bind("", "", &[]), execute("", 0), sync()].concat(), 1).remove(0);
    assert_eq!(tags(&frames), "2NCZ", "{frames:?}");
    wire.run("ROLLBACK");
    // JDBC: BEGIN in front of the first query before one Sync; later under a name.
    let beginnings = [
        step("", "BEGIN"),
        [close(b'S', "S_1"), step("S_1", "BEGIN")].concat(),
        [bind("", "S_1", &[]), execute("", 0)].concat(),
        [describe(b'S', "S_1"), bind("", "S_1", &[]), execute("", 0)].concat(),
    ];
    for (round, beginning) in beginnings.iter().enumerate() {
        let mut frames = Vec::new();
        let bytes = [beginning.clone(), step("", READ), sync()].concat();
        assert_eq!(went(&weir, || frames = wire.exchange(&bytes, 1).remove(0)), on_replica(), "{round}");
        assert!(tags(&frames).ends_with("C12TDCZ"), "{round}: {frames:?}");
        assert_eq!(frames.last().unwrap().text(), "T");
        assert_eq!(went(&weir, || drop(wire.exchange(&[step("", READ), sync()].concat(), 1))), on_replica());
        let write = [step("", "UPDATE kv SET v = v + 1 WHERE id = 3"), sync()].concat();
        assert_eq!(went(&weir, || drop(wire.exchange(&write, 1))), in_transaction());
        let frames = wire.exchange(&[step("", "COMMIT"), sync()].concat(), 1).remove(0);
        assert_eq!(frames.last().unwrap().text(), "I");
        assert_eq!(wire.value("SELECT v FROM kv WHERE id = 3"), (round + 1).to_string());
    }
    // A write behind it in the same group: all of it goes to the primary.
    let bytes = [step("", "BEGIN"), step("", "UPDATE kv SET v = 0 WHERE id = 3"), sync()].concat();
    let frames = wire.exchange(&bytes, 1).remove(0);
    assert!(error_of(&frames).is_none() && frames.last().unwrap().text() == "T", "{frames:?}");
    wire.run("ROLLBACK");
    // An error behind it fails the transaction.
    let bytes = [step("", "BEGIN"), step("", "SELECT 1/0"), sync()].concat();
    let frames = wire.exchange(&bytes, 1).remove(0);
    assert_eq!(
        (error_of(&frames).unwrap().sqlstate(), frames.last().unwrap().text()),
        ("22012".into(), "E".into())
    );
    assert_eq!(wire.query("COMMIT")[0].text(), "ROLLBACK");
    // Npgsql: a simple BEGIN and an extended query in one write.
    let answers = wire.exchange(&[query("BEGIN"), step("", READ), sync()].concat(), 2);
    assert_eq!((tags(&answers[0]), tags(&answers[1])), ("CZ".to_owned(), "12TDCZ".to_owned()));
    wire.run("COMMIT");
    // A portal that is to outlive its request needs the transaction.
    wire.run("BEGIN");
    let bytes =
        [parse("", "SELECT id FROM kv ORDER BY id", &[]), bind("rows", "", &[]), execute("rows", 2), sync()];
    let mut frames = Vec::new();
    assert_eq!(went(&weir, || frames = wire.exchange(&bytes.concat(), 1).remove(0)), in_transaction());
    assert_eq!(tags(&frames), "12DDsZ");
    let frames = wire.exchange(&[execute("rows", 1), sync()].concat(), 1).remove(0);
    assert_eq!(first_values(&frames), ["2"]);
    wire.run("COMMIT");
}

#[test]
fn a_whole_pipeline_has_its_answers_in_order() {
    let scene = scene();
    let weir = split(&scene);
    let mut wire = wire(&weir);
    for _ in 0..20 {
        let texts = [
            "BEGIN",
            READ,
            READ,
            "INSERT INTO log (what) VALUES ('pipeline')",
            "SELECT count(*) > 0 FROM log WHERE what = 'pipeline'",
            "COMMIT",
            "BEGIN",
            "SELECT 1/0",
            READ,
            "ROLLBACK",
            "SELECT 5",
        ];
        let bytes: Vec<u8> = texts.iter().flat_map(|text| [step("", text), sync()].concat()).collect();
        let answers = wire.exchange(&bytes, texts.len());
        let statuses: String = answers.iter().map(|frames| frames.last().unwrap().text()).collect();
        assert_eq!(statuses, "TTTTTITEEII");
        assert_eq!(first_values(&answers[4]), ["t"]);
        let errors: Vec<usize> = (0..texts.len()).filter(|&at| error_of(&answers[at]).is_some()).collect();
        assert_eq!(errors, [7, 8]);
    }
}

#[test]
fn settings_of_the_session_hold_for_its_reads_and_are_what_they_were_behind_a_rollback() {
    let scene = scene();
    let weir = split(&scene);
    let mut wires = [wire(&weir), wire(&weir)];
    wires[0].run("SET TimeZone = 'Asia/Tokyo'");
    for _ in 0..5 {
        for (wire, zone) in wires.iter_mut().zip(["Asia/Tokyo", "UTC"]) {
            wire.run("BEGIN");
            assert_eq!(wire.value("SHOW TimeZone"), zone);
            wire.run("SET TimeZone = 'America/Lima'");
            assert_eq!(wire.value("SHOW TimeZone"), "America/Lima");
            wire.run("ROLLBACK");
            assert_eq!(wire.value("SHOW TimeZone"), zone);
            wire.run("BEGIN");
            assert_eq!(wire.value("SHOW TimeZone"), zone);
            wire.run("COMMIT");
        }
    }
    // What pgweir itself answers changes nothing about it.
    let wire = &mut wires[0];
    wire.run("BEGIN");
    wire.run("SET LOCAL pgweir.consistency = 'strict'");
    assert_eq!(went(&weir, || drop(wire.run(READ))), on_replica());
    assert_eq!(wire.value("SHOW pgweir.consistency"), "strict");
    wire.run("COMMIT");
    assert_eq!(wire.value("SHOW pgweir.consistency"), "session");
}

#[test]
fn a_read_only_transaction_may_still_become_one_before_it_reads() {
    let scene = scene();
    let weir = split(&scene);
    let mut wire = wire(&weir);
    wire.run("BEGIN");
    wire.run("SET TRANSACTION READ ONLY");
    assert_eq!(wire.value("SELECT pg_is_in_recovery()"), "t");
    assert_eq!(wire.fail("INSERT INTO log (what) VALUES ('never')").sqlstate(), "25006");
    wire.run("ROLLBACK");
    // Behind a read it is the primary's, and can only read there, too.
    wire.run("BEGIN");
    wire.run(READ);
    wire.run("SET TRANSACTION READ ONLY");
    assert_eq!(wire.value("SELECT pg_is_in_recovery()"), "f");
    assert_eq!(wire.fail("INSERT INTO log (what) VALUES ('never')").sqlstate(), "25006");
    wire.run("ROLLBACK");
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing_behind() {
    let scene = scene();
    let weir = split(&scene);
    for vanish in [false, true] {
        for texts in [&["BEGIN"][..], &["BEGIN", READ], &["BEGIN", READ, "UPDATE kv SET v = -1 WHERE id = 4"]]
        {
            let mut wire = wire(&weir);
            texts.iter().for_each(|text| drop(wire.run(text)));
            if vanish { wire.vanish() } else { wire.terminate() }
        }
    }
    wait_until("no server connection is in use", || weir.status().pools.iter().all(|pool| pool.active == 0));
    assert_eq!(wire(&weir).value("SELECT v FROM kv WHERE id = 4"), "0");
}

#[test]
fn a_session_sees_what_it_has_written_although_the_replicas_lag() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir_with(&Tuning::routing(&["transactions: split"]));
    let mut wire = wire(&weir);
    for replica in scene.cluster.replicas() {
        replica.pause_replay().unwrap();
    }
    let mut began_late = 0;
    for n in 1..=20 {
        wire.run(&format!("UPDATE kv SET v = {n} WHERE id = 5"));
        wire.run("BEGIN");
        let mut seen = String::new();
        let went = went(&weir, || seen = wire.value("SELECT v FROM kv WHERE id = 5"));
        assert_eq!(seen, n.to_string());
        assert!(matches!(went.as_slice(), [(role, _)] if role == "primary"), "{went:?}");
        began_late += i32::from(went[0].1 == "not_fresh_enough");
        // It has begun there, and stays.
        let went = self::went(&weir, || seen = wire.value("SELECT v FROM kv WHERE id = 6"));
        assert_eq!(went, in_transaction());
        wire.run("COMMIT");
    }
    assert!(began_late > 0, "each began at BEGIN: no replica was up");
}

/// A commit that the first replica shows, and that hangs on the primary because the other one stands still.
fn hanging(scene: &Scene, id: i64) -> tokio::task::JoinHandle<()> {
    scene.cluster.primary().set_synchronous_standbys("FIRST 2 (pg2, pg3)").unwrap();
    wait_until("both replicas are synchronous", || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        scene.cluster.primary().sql_value(sql).unwrap().as_deref() == Some("2")
    });
    scene.cluster.replica(1).pause_replay().unwrap();
    let writer = scene.run(direct(scene.cluster.primary()));
    let commit = scene.spawn(async move {
        let write = format!("UPDATE kv SET v = v + 1 WHERE id = {id}");
        writer.batch_execute(&write).await.unwrap();
    });
    let read = format!("SELECT v FROM kv WHERE id = {id}");
    wait_until("the first replica shows it", || {
        let rows = scene.cluster.replica(0).sql_as(APP.name, APP_DATABASE, &read).unwrap();
        rows[0][0].as_deref() == Some("1")
    });
    commit
}

async fn direct(node: &DevNode) -> Client {
    connect_to(node.address(), APP, APP_DATABASE, "-c synchronous_commit=remote_apply").await.unwrap()
}

/// What a transaction that has read such a commit on a replica sees behind its first write.
async fn seen_behind_a_write(client: &Client, id: i64) -> String {
    let read = format!("SELECT v FROM kv WHERE id = {id}");
    harness::wait_for("the replica that shows it has served it", async || {
        client.batch_execute("BEGIN").await.unwrap();
        let seen = value(client, &read).await;
        if seen != "1" {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        seen == "1"
    })
    .await;
    client
        .batch_execute("SET LOCAL synchronous_commit = off; UPDATE kv SET v = v WHERE id = 99")
        .await
        .unwrap();
    let seen = value(client, &read).await;
    client.batch_execute("COMMIT").await.unwrap();
    seen
}

#[test]
fn a_transaction_does_not_go_back_in_time_when_it_begins_on_the_primary() {
    let scene = scene();
    let _calm = Calm(&scene);
    for (level, id) in [("eventual", 11), ("session", 12), ("strict", 13)] {
        let consistency = format!("consistency: {level}");
        let weir =
            scene.weir_with(&Tuning::routing(&["transactions: split", "fence_wait: 60s", &consistency]));
        let commit = hanging(&scene, id);
        scene.run(async {
            let client = weir.connect().await;
            let resume = async {
                // It waits for nothing but the fence.
                harness::wait_for("somebody asks for the fence", async || {
                    weir.metric("pgweir_monitor_queries_total", "kind=\"fence\"") > 0.0
                })
                .await;
                scene.cluster.replica(1).resume_replay().unwrap();
            };
            let (seen, ()) = tokio::join!(seen_behind_a_write(&client, id), resume);
            assert_eq!(seen, "1", "{level}");
            commit.await.unwrap();
        });
    }
}

#[test]
fn without_the_fence_it_would_go_back() {
    let scene = scene();
    let _calm = Calm(&scene);
    let mut tuning = Tuning::routing(&["transactions: split"]);
    tuning.defect = Defect::NoFence;
    let weir = scene.weir_with(&tuning);
    let commit = hanging(&scene, 14);
    scene.run(async {
        let client = weir.connect().await;
        assert_eq!(seen_behind_a_write(&client, 14).await, "0");
        scene.cluster.replica(1).resume_replay().unwrap();
        commit.await.unwrap();
    });
}

#[test]
fn a_fence_that_does_not_come_fails_the_transaction_and_the_session_goes_on() {
    let scene = scene();
    let _calm = Calm(&scene);
    let weir = scene.weir_with(&Tuning::routing(&["transactions: split", "fence_wait: 30ms"]));
    let commit = hanging(&scene, 15);
    let mut wire = wire(&weir);
    wait_until("it is read on the replica that shows it", || {
        wire.run("BEGIN");
        let seen = wire.value("SELECT v FROM kv WHERE id = 15");
        if seen != "1" {
            wire.run("ROLLBACK");
        }
        seen == "1"
    });
    let frames = wire.query("UPDATE kv SET v = 1 WHERE id = 16");
    assert_eq!(error_of(&frames).unwrap().sqlstate(), "57P03", "{frames:?}");
    assert_eq!(frames.last().unwrap().text(), "E");
    assert_eq!(wire.query("COMMIT")[0].text(), "ROLLBACK");
    assert_eq!(wire.value("SELECT 1"), "1");
    scene.cluster.replica(1).resume_replay().unwrap();
    scene.run(async { commit.await.unwrap() });
    assert_eq!(wire.value("SELECT v FROM kv WHERE id = 16"), "0");
}

#[test]
fn a_replica_that_is_lost_between_two_reads_or_in_the_middle_of_one_costs_nothing() {
    let scene = scene();
    let weir = split(&scene);
    let mut wire = wire(&weir);
    let backends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    for _ in 0..5 {
        wire.run("BEGIN");
        wire.run(READ);
        for replica in scene.cluster.replicas() {
            replica.sql(backends).unwrap();
        }
        assert_eq!(wire.value("SELECT 1"), "1");
        assert_eq!(wire.run("COMMIT").last().unwrap().text(), "I");
        // While it answers, and the client has seen nothing of it.
        wire.run("BEGIN");
        wire.send(&query("SELECT pg_sleep(1), 7 AS seven"));
        let mut ended = 0;
        wait_until("it runs somewhere", || {
            for replica in scene.cluster.replicas() {
                let sql = format!("{backends} AND state = 'active' AND query LIKE '%seven%'");
                ended += replica.sql(&sql).unwrap().len();
            }
            ended > 0
        });
        let frames = wire.until_ready();
        assert!(error_of(&frames).is_none(), "{frames:?}");
        assert_eq!(frames.last().unwrap().text(), "T");
        wire.run("COMMIT");
    }
}

#[test]
fn a_replica_that_is_lost_in_the_middle_of_rows_costs_the_transaction() {
    let scene = scene();
    let weir = split(&scene);
    let mut wire = wire(&weir);
    wire.run("BEGIN");
    wire.send(&query("SELECT repeat('x', 5000) AS endless, pg_sleep(0.01) FROM generate_series(1, 1000)"));
    while wire.next().tag != b'D' {}
    let running =
        "FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%endless%' AND pid <> pg_backend_pid()";
    for replica in scene.cluster.replicas() {
        replica.sql(&format!("SELECT pg_terminate_backend(pid) {running}")).unwrap();
    }
    let frames = wire.until_ready();
    assert_eq!(error_of(&frames).unwrap().sqlstate(), "08006", "{:?}", error_of(&frames));
    assert_eq!(frames.last().unwrap().text(), "E");
    assert_eq!(wire.fail(READ).sqlstate(), "25P02");
    assert_eq!(wire.query("COMMIT")[0].text(), "ROLLBACK");
    assert_eq!(wire.value("SELECT 1"), "1");
}

#[test]
fn a_tokio_postgres_transaction_reads_on_replicas_and_commits_on_the_primary() {
    let scene = scene();
    let weir = split(&scene);
    scene.run(async {
        let mut client = weir.connect().await;
        let read = client.prepare("SELECT v FROM kv WHERE id = $1").await.unwrap();
        let write = client.prepare("UPDATE kv SET v = $2 WHERE id = $1").await.unwrap();
        let before = weir.counts();
        for n in 1..=10_i64 {
            let transaction = client.transaction().await.unwrap();
            let seen: i64 = transaction.query_one(&read, &[&20]).await.unwrap().get(0);
            assert_eq!(seen, n - 1);
            transaction.execute(&write, &[&20, &n]).await.unwrap();
            let seen: i64 = transaction.query_one(&read, &[&20]).await.unwrap().get(0);
            assert_eq!(seen, n);
            transaction.commit().await.unwrap();
        }
        let since = weir.counts_since(&before);
        let reads: u64 =
            since.iter().filter(|(went, _)| went.reason == "split_transaction").map(|(_, n)| n).sum();
        assert_eq!(reads, 10, "{since:?}");
        // Dropped: rolled back.
        let transaction = client.transaction().await.unwrap();
        transaction.execute(&write, &[&20, &0_i64]).await.unwrap();
        drop(transaction);
        let seen: i64 = client.query_one(&read, &[&20]).await.unwrap().get(0);
        assert_eq!(seen, 10);
    });
}
