//! A server is lost under a transaction, or under a write: what can go on goes on, what can be retried says
//! so, and only what is in doubt is called so. The session lives in any case.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/endings.rs"]
mod endings;
#[path = "support/harness.rs"]
mod harness;

use std::sync::OnceLock;

use endings::{ASLEEP, IDLE_IN_TRANSACTION, WAITING_FOR_STANDBYS, code, done, once, terminate, wait_asleep};
use harness::{NO_WRITER, Scene, Stage, Tuning, describe, value};
use pgweir::devcluster::{DevNode, Options, Stop};

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    let schema = [NO_WRITER, "CREATE TABLE done (what text)"];
    Scene::on(&STAGE, || Stage::with(Options::with_replicas(1), &schema))
}

fn tuning() -> Tuning {
    Tuning { limits: vec!["hold_time: 25s".to_owned()], ..Tuning::default() }
}

/// Stops the server properly while the application runs a text with this mark, and starts it again.
fn restart_under(primary: &DevNode, mark: &str) {
    wait_asleep(primary, mark);
    primary.stop(Stop::Fast).unwrap();
    primary.start().unwrap();
}

#[test]
fn a_transaction_that_has_only_begun_goes_on_elsewhere() {
    let scene = scene();
    let weir = scene.weir_with(&tuning());
    let primary = scene.cluster.primary();
    scene.run(async {
        let client = weir.connect().await;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ /* only begun */").await.unwrap();
        client.batch_execute("SET LOCAL work_mem = '5MB'").await.unwrap();
        tokio::task::block_in_place(|| terminate(primary, "work_mem", IDLE_IN_TRANSACTION));
        client.batch_execute("INSERT INTO done VALUES ('begun')").await.unwrap();
        assert_eq!(value(&client, "SHOW transaction_isolation").await, "repeatable read");
        assert_eq!(value(&client, "SHOW work_mem").await, "5MB");
        client.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(done(primary, "begun"), 1);
}

#[test]
fn a_transaction_that_has_written_fails_so_that_it_is_retried_and_never_says_that_it_was_committed() {
    let scene = scene();
    let weir = scene.weir_with(&tuning());
    let primary = scene.cluster.primary();
    scene.run(async {
        let client = weir.connect().await;
        let begin = async |what: &str| {
            client.batch_execute("BEGIN").await.unwrap();
            client.batch_execute(&format!("INSERT INTO done VALUES ('{what}')")).await.unwrap();
            tokio::task::block_in_place(|| terminate(primary, what, IDLE_IN_TRANSACTION));
        };
        // The next statement tells; whatever follows is refused as in any failed transaction.
        begin("told").await;
        assert_eq!(code(client.batch_execute("SELECT 1").await), "40001");
        assert_eq!(code(client.batch_execute("SELECT 1").await), "25P02");
        client.batch_execute("ROLLBACK").await.unwrap();
        // A COMMIT is refused, and the transaction is over.
        begin("committed").await;
        assert_eq!(code(client.batch_execute("COMMIT").await), "40001");
        client.batch_execute("INSERT INTO done VALUES ('afterwards')").await.unwrap();
        // A ROLLBACK is what it is.
        begin("rolled back").await;
        client.batch_execute("ROLLBACK").await.unwrap();
        // What is in flight is told at once.
        client.batch_execute("BEGIN; INSERT INTO done VALUES ('in flight')").await.unwrap();
        let (asked, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(20) /* in flight */"), async {
            tokio::task::block_in_place(|| terminate(primary, "in flight", ASLEEP));
        });
        assert_eq!(code(asked), "40001");
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(value(&client, "SELECT count(*) FROM done WHERE what = 'afterwards'").await, "1");
    });
    for what in ["told", "committed", "rolled back", "in flight"] {
        assert_eq!(done(primary, what), 0, "{what}");
    }
}

#[test]
fn a_write_that_an_administrator_ends_is_not_sent_again_and_one_that_a_shutdown_ends_is_once() {
    let scene = scene();
    let weir = scene.weir_with(&tuning());
    let primary = scene.cluster.primary();
    scene.run(async {
        let client = weir.connect().await;
        let write = "INSERT INTO done SELECT 'ended' FROM pg_sleep(20)";
        let (written, ()) = tokio::join!(client.batch_execute(write), async {
            tokio::task::block_in_place(|| terminate(primary, "ended", ASLEEP));
        });
        assert_eq!(code(written), "57P01");
        assert_eq!(value(&client, "SELECT count(*) FROM done WHERE what = 'ended'").await, "0");

        let write = format!("INSERT INTO done SELECT 'shut down' FROM {}", once(primary));
        let (written, ()) = tokio::join!(client.batch_execute(&write), async {
            tokio::task::block_in_place(|| restart_under(primary, "shut down"));
        });
        written.unwrap_or_else(|error| panic!("{}", describe(&error)));
        // In the extended protocol, with an answer.
        let write = format!("INSERT INTO done SELECT $1 FROM {} RETURNING what", once(primary));
        let write = client.prepare(&write).await.unwrap();
        let (rows, ()) = tokio::join!(client.query(&write, &[&"and again"]), async {
            tokio::task::block_in_place(|| restart_under(primary, "RETURNING what"));
        });
        let rows = rows.unwrap_or_else(|error| panic!("{}", describe(&error)));
        assert_eq!(rows[0].get::<_, &str>(0), "and again");
    });
    assert_eq!((done(primary, "shut down"), done(primary, "and again")), (1, 1));
    weir.wait_whole(2);
}

#[test]
fn a_commit_whose_server_is_lost_is_in_doubt_and_says_what_the_server_said() {
    let scene = scene();
    let weir = scene.weir_with(&tuning());
    let primary = scene.cluster.primary();
    primary.set_synchronous_standbys("nobody").unwrap();
    scene.run(async {
        let write = "INSERT INTO done VALUES ('a write')";
        let ends = [("a transaction", "COMMIT"), ("a chain", "COMMIT AND CHAIN"), ("a write", write)];
        for (what, end) in ends {
            let client = weir.connect().await;
            if end != write {
                let begin = format!("BEGIN; INSERT INTO done VALUES ('{what}')");
                client.batch_execute(&begin).await.unwrap();
            }
            let (ended, ()) = tokio::join!(client.batch_execute(end), async {
                tokio::task::block_in_place(|| {
                    terminate(primary, end.split(' ').next().unwrap(), WAITING_FOR_STANDBYS)
                });
            });
            let error = ended.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "08007", "{what}");
            let detail = error.as_db_error().unwrap().detail().unwrap();
            assert!(detail.contains("already committed locally"), "{detail}");
            // It was: a read of the same session finds it.
            let sql = format!("SELECT count(*) FROM done WHERE what = '{what}'");
            assert_eq!(value(&client, &sql).await, "1");
        }
    });
    primary.set_synchronous_standbys("").unwrap();
}

/// Two sessions have the one server connection that there is, one after the other.
#[test]
fn what_was_set_in_a_transaction_that_was_lost_stays_with_nobody() {
    let scene = scene();
    let mut tuning = tuning();
    tuning.routing.push("transactions: primary".to_owned());
    let weir = scene.weir_with(&tuning);
    let primary = scene.cluster.primary();
    scene.run(async {
        let (loses, reads) = (weir.connect().await, weir.connect().await);
        let zone = value(&reads, "/* pgweir.route=primary */ SHOW TimeZone").await;
        for told in [false, true] {
            loses.batch_execute("BEGIN").await.unwrap();
            loses.batch_execute("SET TimeZone = 'Asia/Kolkata'").await.unwrap();
            loses.batch_execute("INSERT INTO done VALUES ('set')").await.unwrap();
            tokio::task::block_in_place(|| terminate(primary, "set", IDLE_IN_TRANSACTION));
            if told {
                assert_eq!(code(loses.batch_execute("SELECT 1").await), "40001");
                assert_eq!(code(loses.batch_execute("SELECT 1").await), "25P02");
            }
            loses.batch_execute("ROLLBACK").await.unwrap();
            for client in [&loses, &reads] {
                assert_eq!(value(client, "/* pgweir.route=primary */ SHOW TimeZone").await, zone, "{told}");
            }
        }
    });
}
