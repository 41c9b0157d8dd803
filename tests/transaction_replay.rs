//! A transaction that had only read loses its primary: said again on the new one with the same answers, it
//! goes on, and its client notices nothing; otherwise it gets 40001, as without
//! `transactions: retry_idempotent_begin`.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/endings.rs"]
mod endings;
#[path = "support/fault_proxy.rs"]
mod fault_proxy;
#[path = "support/harness.rs"]
mod harness;
#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wires.rs"]
mod wires;

use std::sync::OnceLock;

use endings::{ASLEEP, IDLE_IN_TRANSACTION, code, done, once, terminate, wait_asleep};
use fault_proxy::{FaultProxy, Network};
use harness::{
    LONG, NO_WRITER, SERVED_BY, Scene, Stage, Tuning, connect_to, describe, value, wait_for, wait_until,
};
use pgweir::devcluster::{APP, APP_DATABASE, MONITOR, Options, SUPERUSER, Stop};
use tokio_postgres::Client;
use wire_client::{
    Frame, Login, Wire, bind, describe as describes, error_of, execute, first_values, flush, parse, query,
    sync,
};

const SCHEMA: [&str; 7] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE done (what text)",
    "CREATE TABLE item (id int PRIMARY KEY, name text)",
    "INSERT INTO item SELECT id, 'item ' || id FROM generate_series(1, 1000) id",
    "CREATE SEQUENCE counter",
    "CREATE FUNCTION doing(text) RETURNS void LANGUAGE sql AS 'INSERT INTO done VALUES ($1)'",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || Stage::with(Options::with_replicas(1), &SCHEMA))
}

fn tuning(transactions: &str) -> Tuning {
    Tuning {
        limits: vec!["hold_time: 40s".to_owned()],
        ..Tuning::routing(&[&format!("transactions: {transactions}")])
    }
}

fn retrying() -> Tuning {
    tuning("retry_idempotent_begin")
}

async fn all(client: &Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {}", describe(&e)));
    }
}

/// What each of these has read before the primary dies, and what becomes of it.
#[test]
fn transactions_that_have_only_read_survive_the_primary_and_all_others_are_told() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let mut retrying = retrying();
    retrying.routing.push("token_mismatch: error".to_owned());
    let weir = stage.weir_with(&retrying);
    let plain = stage.weir_with(&tuning("primary"));
    let (old, new) = (stage.cluster.primary(), stage.cluster.replica(0));
    // More than limits.replay_size, in two reads, each of which is still looked into.
    let large = format!("SELECT length('{}')", "x".repeat(40_000));
    let begun: [(&str, Vec<&str>); 11] = [
        ("read committed", vec!["BEGIN", "SELECT name FROM item WHERE id = 7", "SELECT 1; SELECT 2"]),
        ("one string", vec!["BEGIN; SELECT count(*) FROM item; SHOW transaction_isolation"]),
        ("rolled back", vec!["BEGIN", "SELECT count(*) FROM item"]),
        ("commit", vec!["BEGIN", "SELECT count(*) FROM item"]),
        ("the clock", vec!["BEGIN", "SELECT now()"]),
        ("the node", vec!["BEGIN", "SELECT served_by()"]),
        ("written", vec!["BEGIN", "INSERT INTO done VALUES ('written')"]),
        ("locked", vec!["BEGIN", "SELECT 1 FROM item WHERE id = 7 FOR UPDATE"]),
        ("sequence", vec!["BEGIN", "SELECT nextval('counter')"]),
        ("large", vec!["BEGIN", &large, &large]),
        ("cursor", vec!["BEGIN", "DECLARE c CURSOR FOR SELECT 1"]),
    ];
    stage.run(async {
        let mut clients = Vec::new();
        for (_, statements) in &begun {
            let client = weir.connect().await;
            all(&client, statements).await;
            clients.push(client);
        }
        let off = plain.connect().await;
        all(&off, &["BEGIN", "SELECT name FROM item WHERE id = 7"]).await;

        // Savepoints, SET LOCAL, one snapshot, and everything with parameters.
        let extended = weir.connect().await;
        let named = extended.prepare("SELECT name FROM item WHERE id = $1").await.unwrap();
        all(&extended, &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SET LOCAL work_mem = '5MB'"]).await;
        all(&extended, &["SAVEPOINT a"]).await;
        extended.query("SELECT set_config('app.tenant', $1, true)", &[&"t1"]).await.unwrap();
        for id in [3_i32, 4] {
            assert_eq!(
                extended.query_one(&named, &[&id]).await.unwrap().get::<_, &str>(0),
                format!("item {id}")
            );
        }
        // The same, and one of its own, in groups that follow each other at once.
        let inner = extended.prepare("SELECT count(*) FROM item WHERE id > $1").await.unwrap();
        let (one, other) =
            tokio::join!(extended.query_one(&inner, &[&990_i32]), extended.query_one(&named, &[&5]));
        assert_eq!((one.unwrap().get::<_, i64>(0), other.unwrap().get::<_, &str>(0)), (10, "item 5"));
        all(&extended, &["ROLLBACK TO a", "SELECT count(*) FROM item"]).await;

        tokio::task::block_in_place(|| {
            new.wait_caught_up(old, LONG).unwrap();
            new.set("primary_conninfo", "").unwrap();
            wait_until("it receives nothing", || {
                new.sql_value("SELECT count(*) FROM pg_stat_wal_receiver").unwrap().as_deref() == Some("0")
            });
        });
        // Nobody could tell by what it has read that its write is lost.
        let late = weir.connect().await;
        all(&late, &["INSERT INTO done VALUES ('late')"]).await;
        let token = value(&late, "SHOW pgweir.token").await;
        all(&late, &["BEGIN", "SELECT count(*) FROM item"]).await;
        tokio::task::block_in_place(|| {
            // Frozen first: a server process that outlives its postmaster says goodbye as in a shutdown.
            old.sigstop().unwrap();
            old.sigkill().unwrap();
            new.promote().unwrap();
        });
        let asks = weir.connect().await;
        let token = format!("SET pgweir.token = '{token}'");
        wait_for("the fork is known", async || match asks.batch_execute(&token).await {
            Ok(()) => false,
            Err(error) => describe(&error).contains("was lost in the failover"),
        })
        .await;
        let error = late.batch_execute("INSERT INTO done VALUES ('late')").await.unwrap_err();
        let why = error.as_db_error().unwrap().detail().unwrap();
        assert!(why.contains("an acknowledged write of its session may have been lost"), "{why}");
        assert_eq!(error.code().unwrap().code(), "40001");
        all(&late, &["ROLLBACK"]).await;

        for ((what, _), client) in begun.iter().zip(&clients) {
            let insert = format!("INSERT INTO done VALUES ('{what}')");
            match *what {
                "read committed" | "one string" => all(client, &[&insert, "COMMIT"]).await,
                "rolled back" => all(client, &["ROLLBACK"]).await,
                "commit" => all(client, &["COMMIT"]).await,
                _ => {
                    let error = client.batch_execute(&insert).await.expect_err(what);
                    assert_eq!(error.code().unwrap().code(), "40001", "{what}: {}", describe(&error));
                    assert_eq!(code(client.batch_execute("SELECT 1").await), "25P02", "{what}");
                    all(client, &["ROLLBACK"]).await;
                }
            }
            assert_eq!(value(client, "SELECT 1").await, "1", "{what}");
        }
        assert_eq!(code(off.batch_execute("INSERT INTO done VALUES ('off')").await), "40001");

        assert_eq!(extended.query_one(&named, &[&6]).await.unwrap().get::<_, &str>(0), "item 6");
        assert_eq!(extended.query_one(&inner, &[&999_i32]).await.unwrap().get::<_, i64>(0), 1);
        assert_eq!(value(&extended, "SHOW work_mem").await, "5MB");
        assert_eq!(value(&extended, "SHOW transaction_isolation").await, "repeatable read");
        extended.execute("INSERT INTO done VALUES ($1)", &[&"extended"]).await.unwrap();
        all(&extended, &["RELEASE a", "COMMIT"]).await;
        assert_eq!(weir.metric("pgweir_replays_total", "cause=\"transaction\""), 4.0);
        assert_eq!(plain.metric("pgweir_replays_total", "cause=\"transaction\""), 0.0);
    });
    for what in ["read committed", "one string", "extended"] {
        assert_eq!(done(new, what), 1, "{what}");
    }
    assert_eq!(new.sql_value("SELECT count(*) FROM done").unwrap().as_deref(), Some("3"));
}

#[test]
fn what_is_in_flight_when_the_server_is_shut_down_runs_behind_what_was_said_before() {
    let scene = scene();
    let weir = scene.weir_with(&retrying());
    let primary = scene.cluster.primary();
    let restart = |mark: &str| {
        wait_asleep(primary, mark);
        primary.stop(Stop::Fast).unwrap();
        primary.start().unwrap();
    };
    scene.run(async {
        let client = weir.connect().await;
        let (begin, read) = ("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT name FROM item WHERE id = 7");
        for (mark, statement) in [
            ("a read", "SELECT name FROM item, ONCE WHERE id = 8 /* a read */"),
            ("a write", "INSERT INTO done SELECT 'in flight' FROM ONCE /* a write */"),
        ] {
            all(&client, &[begin, read]).await;
            let statement = statement.replace("ONCE", &once(primary));
            let (done, ()) = tokio::join!(client.batch_execute(&statement), async {
                tokio::task::block_in_place(|| restart(mark));
            });
            done.unwrap_or_else(|error| panic!("{mark}: {}", describe(&error)));
            all(&client, &[read, "COMMIT"]).await;
        }
        // The first group of all is whole by itself.
        let first = format!("BEGIN; SELECT 1 FROM {} /* the first */", once(primary));
        let (done, ()) = tokio::join!(client.batch_execute(&first), async {
            tokio::task::block_in_place(|| restart("the first"));
        });
        done.unwrap_or_else(|error| panic!("{}", describe(&error)));
        all(&client, &["INSERT INTO done VALUES ('the first')", "COMMIT"]).await;
    });
    assert_eq!((done(primary, "in flight"), done(primary, "the first")), (1, 1));
    weir.wait_whole(2);
}

/// The first values of a group's rows, which has not failed.
fn values(frames: &[Frame]) -> Vec<String> {
    assert!(error_of(frames).is_none(), "{frames:?}");
    first_values(frames)
}

#[test]
fn the_messages_of_drivers_are_said_again_in_whatever_groups_they_came() {
    let scene = scene();
    let weir = scene.weir_with(&retrying());
    let primary = scene.cluster.primary();
    let login = Login::new(APP.name, APP.password, APP_DATABASE);
    let mut wire = Wire::connect(weir.address.port(), &login).unwrap();
    let named = "SELECT name FROM item WHERE id = $1";
    let all_of = |values: &[&[u8]]| values.concat();
    for (mark, round) in ["first", "second"].iter().zip(1..) {
        // JDBC begins in front of its first statement.
        let text = format!("{named} /* {mark} */");
        let begin = [parse("", "BEGIN", &[]), bind("", "", &[]), execute("", 0)].concat();
        let read = [parse("", &text, &[]), bind("", "", &[Some(b"7")]), describes(b'P', ""), execute("", 0)];
        wire.send(&all_of(&[&begin, &read.concat(), &sync()]));
        assert_eq!(values(&wire.until_ready()), ["item 7"]);
        // asyncpg waits for the description of a statement before it binds it.
        let name = format!("s{round}");
        wire.send(&all_of(&[&parse(&name, named, &[]), &describes(b'S', &name), &flush()]));
        while wire.next().tag != b'T' {}
        wire.send(&all_of(&[&bind("", &name, &[Some(b"8")]), &execute("", 0), &sync()]));
        assert_eq!(values(&wire.until_ready()), ["item 8"]);
        // Pipelined, with the unnamed statement of an earlier group.
        let bound = |id: &[u8], name: &str| all_of(&[&bind("", name, &[Some(id)]), &execute("", 0), &sync()]);
        let unnamed = all_of(&[&parse("", &text, &[]), &sync()]);
        let answers = wire.exchange(&all_of(&[&unnamed, &bound(b"9", ""), &bound(b"10", &name)]), 3);
        assert_eq!(
            (values(&answers[1]), values(&answers[2])),
            (vec!["item 9".into()], vec!["item 10".into()])
        );
        if round == 1 {
            terminate(primary, named, IDLE_IN_TRANSACTION);
            assert_eq!(values(&wire.exchange(&bound(b"11", ""), 1)[0]), ["item 11"]);
            let answers =
                wire.exchange(&all_of(&[&query("INSERT INTO done VALUES ('wire')"), &query("COMMIT")]), 2);
            assert!(answers.iter().all(|frames| error_of(frames).is_none()), "{answers:?}");
            continue;
        }
        // Reads in flight, and a write behind them.
        let sleep = format!("SELECT 1 FROM {} /* in a row */", once(primary));
        let write = query("INSERT INTO done VALUES ('wire')");
        wire.send(&all_of(&[&bound(b"11", ""), &query(&sleep), &write]));
        wait_asleep(primary, "in a row");
        primary.stop(Stop::Fast).unwrap();
        primary.start().unwrap();
        assert_eq!(values(&wire.until_ready()), ["item 11"]);
        assert_eq!(values(&wire.until_ready()), ["1"]);
        values(&wire.until_ready());
        values(&wire.query("COMMIT"));
    }
    assert_eq!(done(primary, "wire"), 2);
    weir.wait_whole(2);
}

#[test]
fn what_somebody_has_ended_on_purpose_is_not_said_again() {
    let scene = scene();
    let weir = scene.weir_with(&retrying());
    let primary = scene.cluster.primary();
    scene.run(async {
        let client = weir.connect().await;
        // An administrator means this write.
        all(&client, &["BEGIN", "SELECT count(*) FROM item"]).await;
        let write = "INSERT INTO done SELECT 'meant' FROM pg_sleep(50)";
        let (written, ()) = tokio::join!(client.batch_execute(write), async {
            tokio::task::block_in_place(|| terminate(primary, "meant", ASLEEP));
        });
        assert_eq!(code(written), "57P01");
        assert_eq!(code(client.batch_execute("SELECT 1").await), "25P02");
        all(&client, &["ROLLBACK"]).await;
        // A time-out of the server's.
        let short = "SET LOCAL idle_in_transaction_session_timeout = '50ms'";
        all(&client, &["BEGIN", &format!("{short}; SELECT count(*) FROM item /* timed out */")]).await;
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%timed out%' \
                    AND pid <> pg_backend_pid()";
        wait_for("it has timed out", async || primary.sql_value(idle).unwrap().as_deref() == Some("0")).await;
        assert_eq!(code(client.batch_execute("INSERT INTO done VALUES ('timed out')").await), "40001");
        all(&client, &["ROLLBACK"]).await;
        // Rows that the client has seen are not sent twice.
        all(&client, &["BEGIN", "SELECT count(*) FROM item"]).await;
        let rows = "SELECT repeat('seen', 10000) UNION ALL SELECT pg_sleep(50)::text";
        let (read, ()) = tokio::join!(client.batch_execute(rows), async {
            tokio::task::block_in_place(|| terminate(primary, "seen", ASLEEP));
        });
        assert_eq!(code(read), "40001");
        all(&client, &["ROLLBACK"]).await;
        // A read in flight that nobody has seen anything of: once more, and that is enough.
        all(&client, &["BEGIN", "SELECT count(*) FROM item"]).await;
        let (read, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(50) /* twice */"), async {
            tokio::task::block_in_place(|| {
                terminate(primary, "twice", ASLEEP);
                wait_asleep(primary, "twice");
                terminate(primary, "twice", ASLEEP);
            });
        });
        assert_eq!(code(read), "40001");
        all(&client, &["ROLLBACK"]).await;
        // A connection that is lost between two statements, with the server still there.
        all(&client, &["BEGIN", "SELECT count(*) FROM item /* between */"]).await;
        tokio::task::block_in_place(|| terminate(primary, "between", IDLE_IN_TRANSACTION));
        all(&client, &["INSERT INTO done VALUES ('between')", "COMMIT"]).await;
    });
    assert_eq!(done(primary, "meant") + done(primary, "timed out"), 0);
    assert_eq!(done(primary, "between"), 1);
}

#[test]
fn the_commit_of_a_transaction_that_has_only_read_is_never_in_doubt() {
    let scene = scene();
    let primary = scene.cluster.primary();
    let proxy = scene.run(FaultProxy::before(primary.address()));
    let weir = scene.weir_with(&Tuning { detour: Some(proxy.address.port()), ..retrying() });
    scene.run(async {
        let client = weir.connect().await;
        all(&client, &["BEGIN", "SELECT count(*) FROM item"]).await;
        proxy.becomes(Network::DeafToServer);
        let (committed, ()) = tokio::join!(client.batch_execute("COMMIT /* unheard */"), async {
            let heard =
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COMMIT%unheard%' AND state = 'idle'";
            wait_for("it is committed", async || primary.sql_value(heard).unwrap().as_deref() == Some("1"))
                .await;
            proxy.becomes(Network::Resetting);
            // Until then it holds what it would deliver when it is whole again.
            wait_for("it is reset", async || primary.sql_value(heard).unwrap().as_deref() == Some("0")).await;
            proxy.becomes(Network::Whole);
        });
        committed.unwrap_or_else(|error| panic!("{}", describe(&error)));
        all(&client, &["INSERT INTO done VALUES ('unheard')"]).await;
    });
    assert_eq!(done(primary, "unheard"), 1);
}

/// What a COMMIT shares its group with may have written: then nobody may call it undone.
#[test]
fn a_commit_that_may_have_committed_a_write_of_its_own_group_is_in_doubt() {
    let scene = scene();
    let primary = scene.cluster.primary();
    let proxy = scene.run(FaultProxy::before(primary.address()));
    let weir = scene.weir_with(&Tuning { detour: Some(proxy.address.port()), ..retrying() });
    let login = Login::new(APP.name, APP.password, APP_DATABASE);
    let alone = |text: &str| [parse("", text, &[]), bind("", "", &[]), execute("", 0)].concat();
    let both = |first: &str, second: &str| [alone(first), alone(second), sync()].concat();
    let (insert, read) = ("INSERT INTO done VALUES ('WHAT')", "SELECT count(*) FROM item");
    let failed = ["BEGIN", "SAVEPOINT a", insert, "SAVEPOINT b", "SELECT 1/0"];
    let write_ahead = [alone(insert), flush(), alone("COMMIT /* unheard */"), sync()].concat();
    // The transaction, what is in flight when its answer is lost, and how often that is a group.
    let cases: [(&[&str], Vec<u8>, usize); 8] = [
        (&["BEGIN", read], query("INSERT INTO done VALUES ('WHAT'); COMMIT /* unheard */"), 1),
        (&["BEGIN", read], query("SELECT doing('WHAT'); COMMIT /* unheard */"), 1),
        (&["BEGIN", read], both(insert, "COMMIT /* unheard */"), 1),
        (&["BEGIN", read], both("SELECT doing('WHAT')", "COMMIT /* unheard */"), 1),
        (&["BEGIN", read], write_ahead, 1),
        (&["BEGIN", read], [query(insert), query("COMMIT /* unheard */")].concat(), 2),
        (&["BEGIN", read], query("ROLLBACK; INSERT INTO done VALUES ('WHAT') /* unheard */"), 1),
        (&failed, [query("ROLLBACK TO b"), query("COMMIT /* unheard */")].concat(), 2),
    ];
    for (number, (before, in_flight, groups)) in cases.iter().enumerate() {
        let mark = format!("un_{number}");
        let marked = |text: &str| text.replace("WHAT", &mark);
        let mut wire = Wire::connect(weir.address.port(), &login).unwrap();
        for statement in *before {
            let refused = error_of(&wire.query(&marked(statement))).map(|error| error.sqlstate());
            assert_eq!(refused.is_some(), statement.contains("1/0"), "{statement}: {refused:?}");
        }
        proxy.becomes(Network::DeafToServer);
        wire.send(&remarked(in_flight, &mark));
        wait_until(&format!("{mark} is committed"), || done(primary, &mark) == 1);
        let heard = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' \
                     AND query LIKE '%/* unheard */' AND state = 'idle'";
        let heard_by = |count: &str| primary.sql_value(heard).unwrap().as_deref() == Some(count);
        wait_until(&format!("{mark} is answered"), || heard_by("1"));
        proxy.becomes(Network::Resetting);
        wait_until(&format!("{mark} is reset"), || heard_by("0"));
        proxy.becomes(Network::Whole);
        for _ in 0..*groups {
            let told = error_of(&wire.until_ready()).map(|error| error.sqlstate());
            assert_eq!(told.as_deref(), Some("08007"), "{mark}");
        }
        // The session lives, in no transaction, and sees what it did.
        let count = wire.query(&format!("SELECT count(*) FROM done WHERE what = '{mark}'"));
        assert_eq!(values(&count), ["1"], "{mark}");
        assert_eq!(count.last().map(Frame::text).as_deref(), Some("I"), "{mark}");
    }
}

/// While it is said again, much may happen: its write is sent only to a node that is still the primary.
#[test]
fn a_transaction_that_is_said_again_goes_on_only_on_a_primary_that_is_one_by_then() {
    let scene = scene();
    let weir = scene.weir_with(&retrying());
    let primary = scene.cluster.primary();
    let app = |found: &str| format!("SELECT {found} FROM pg_stat_activity WHERE usename = 'app'");
    let waits = app("count(*)") + " AND query LIKE '%by then%' AND wait_event_type = 'Lock'";
    let there = app("string_agg(state || ': ' || query, E'\n')") + " AND query LIKE '%by then%'";
    scene.run(async {
        let client = weir.connect().await;
        all(&client, &["BEGIN", "SELECT count(*) FROM item /* by then */"]).await;
        tokio::task::block_in_place(|| terminate(primary, "by then", IDLE_IN_TRANSACTION));
        let locker = connect_to(primary.address(), SUPERUSER, APP_DATABASE, "").await.unwrap();
        all(&locker, &["BEGIN", "LOCK TABLE item"]).await;
        let (written, ()) =
            tokio::join!(client.batch_execute("INSERT INTO done VALUES ('by then')"), async {
                let one = |sql: &str| primary.sql_value(sql).unwrap().as_deref() == Some("1");
                wait_for("it is said again", async || one(&waits)).await;
                // Nobody knows what the primary is any more.
                let monitor = MONITOR.name;
                primary.sql(&format!("ALTER ROLE {monitor} NOLOGIN")).unwrap();
                let ended = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{monitor}'"
                );
                primary.sql(&ended).unwrap();
                tokio::task::block_in_place(|| {
                    wait_until("it is no primary", || weir.status().primary.is_none())
                });
                all(&locker, &["ROLLBACK"]).await;
                // The write is not what its connection is there for.
                wait_for("it is left", async || primary.sql_value(&there).unwrap().is_none()).await;
                primary.sql(&format!("ALTER ROLE {monitor} LOGIN")).unwrap();
            });
        written.unwrap_or_else(|error| panic!("{}", describe(&error)));
        all(&client, &["COMMIT"]).await;
    });
    assert_eq!(done(primary, "by then"), 1);
    weir.wait_whole(2);
}

/// Messages with another mark, which is as long.
fn remarked(messages: &[u8], mark: &str) -> Vec<u8> {
    let text = String::from_utf8(messages.to_vec()).unwrap();
    // The bytes of lengths are ASCII, too: these messages are short.
    text.replace("WHAT", mark).into_bytes()
}

#[test]
fn without_a_primary_in_time_it_fails_as_it_always_did() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning { limits: vec!["hold_time: 500ms".to_owned()], ..retrying() });
    let primary = scene.cluster.primary();
    scene.run(async {
        let client = weir.connect().await;
        all(&client, &["BEGIN", "SELECT count(*) FROM item"]).await;
        primary.stop(Stop::Immediate).unwrap();
        let error = client.batch_execute("INSERT INTO done VALUES ('in vain')").await.unwrap_err();
        let why = error.as_db_error().unwrap().detail().unwrap();
        assert_eq!(error.code().unwrap().code(), "40001", "{why}");
        assert!(why.contains("could not be replayed: there is no primary"), "{why}");
        primary.start().unwrap();
        weir.wait_whole(2);
        assert_eq!(code(client.batch_execute("SELECT 1").await), "25P02");
        all(&client, &["ROLLBACK"]).await;
        assert_eq!(value(&client, "SELECT 1").await, "1");
    });
    assert_eq!(done(primary, "in vain"), 0);
}

#[test]
fn with_split_it_serves_the_transactions_that_are_not_split() {
    let scene = scene();
    let weir = scene.weir_with(&tuning("[ split, retry_idempotent_begin ]"));
    let primary = scene.cluster.primary();
    scene.run(async {
        let client = weir.connect().await;
        all(&client, &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM item /* whole */"])
            .await;
        tokio::task::block_in_place(|| terminate(primary, "whole", IDLE_IN_TRANSACTION));
        all(&client, &["INSERT INTO done VALUES ('whole')", "COMMIT"]).await;
        // One that is split has begun with its write.
        let route = weir.route(&client, "BEGIN").await;
        assert!(route.is_empty(), "{route:?}");
        all(&client, &["INSERT INTO done VALUES ('parted')"]).await;
        tokio::task::block_in_place(|| terminate(primary, "parted", IDLE_IN_TRANSACTION));
        assert_eq!(code(client.batch_execute("COMMIT").await), "40001");
    });
    assert_eq!((done(primary, "whole"), done(primary, "parted")), (1, 0));
}

/// Whatever the setting: the first read of a transaction that begins again stays on the primary, and one
/// that has failed stays so.
#[test]
fn a_transaction_that_begins_again_is_the_primarys_and_one_that_has_failed_stays_so() {
    let scene = scene();
    let weir = scene.weir_with(&tuning("primary"));
    let primary = scene.cluster.primary();
    scene.run(async {
        let client = weir.connect().await;
        all(&client, &["BEGIN /* again */"]).await;
        tokio::task::block_in_place(|| terminate(primary, "again", IDLE_IN_TRANSACTION));
        assert_eq!(value(&client, "SELECT served_by()").await, primary.name());
        all(&client, &["INSERT INTO done VALUES ('again')", "COMMIT"]).await;

        all(&client, &["BEGIN"]).await;
        let (read, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(50) /* fails */"), async {
            tokio::task::block_in_place(|| terminate(primary, "fails", ASLEEP));
        });
        assert_eq!(code(read), "40001");
        assert_eq!(code(client.batch_execute("INSERT INTO done VALUES ('fails')").await), "25P02");
        all(&client, &["ROLLBACK"]).await;
    });
    assert_eq!((done(primary, "again"), done(primary, "fails")), (1, 0));
}
