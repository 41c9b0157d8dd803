//! Who must not be written to: an old primary that is back, and two that claim the same timeline.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/sockets.rs"]
mod sockets;

use harness::{NO_WRITER, Stage, Tuning, describe, value, wait_for, wait_until};
use pgweir::devcluster::{Options, Stop};
use sockets::has_unread;

const SCHEMA: [&str; 2] =
    [NO_WRITER, "CREATE TABLE taken (node text DEFAULT current_setting('cluster_name'))"];

#[test]
fn an_old_primary_that_is_back_is_in_quarantine_and_gets_no_write() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let tuning = Tuning { limits: vec!["hold_time: 25s".to_owned()], ..Tuning::default() };
    let weir = stage.weir_with(&tuning);
    let (old, new) = (stage.cluster.primary(), stage.cluster.replica(0));
    old.sigkill().unwrap();
    new.promote().unwrap();
    weir.wait_node(new.name(), "is the primary", |row| row.role.as_deref() == Some("primary"));
    old.start().unwrap();
    let label = format!("node=\"{}\"", old.name());
    wait_until("it is in quarantine", || weir.metric("pgweir_node_quarantined", &label) > 0.0);
    weir.wait_node(old.name(), "says why", |row| {
        row.last_error.as_deref() == Some("is a primary on an old timeline") && !row.serves_reads
    });
    stage.run(async {
        let client = weir.connect().await;
        for _ in 0..20 {
            client.batch_execute("INSERT INTO taken DEFAULT VALUES").await.unwrap();
        }
        let elsewhere = format!("SELECT count(*) FROM taken WHERE node <> '{}'", new.name());
        assert_eq!(value(&client, &elsewhere).await, "0");
    });
    assert_eq!(old.sql_value("SELECT count(*) FROM taken").unwrap().as_deref(), Some("0"));
    assert_eq!(weir.metric("pgweir_node_quarantined", &format!("node=\"{}\"", new.name())), 0.0);
}

#[test]
fn two_primaries_on_one_timeline_stop_writes_with_an_error_that_names_both_until_one_is_gone() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let tuning = Tuning { limits: vec!["hold_time: 2s".to_owned()], ..Tuning::default() };
    let weir = stage.weir_with(&tuning);
    let (one, other) = (stage.cluster.replica(0), stage.cluster.replica(1));
    // Nobody can log in while no server answers as what it should be.
    let client = stage.run(weir.connect());
    stage.cluster.primary().sigkill().unwrap();
    one.promote().unwrap();
    other.promote().unwrap();
    wait_until("both are in quarantine", || weir.metric("pgweir_node_quarantined", "") >= 2.0);
    stage.run(async {
        let error = client.batch_execute("INSERT INTO taken DEFAULT VALUES").await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "57P03");
        let detail = error.detail().unwrap();
        assert!(detail.contains(one.name()) && detail.contains(other.name()), "{detail}");
        for node in [one, other] {
            assert_eq!(node.sql_value("SELECT count(*) FROM taken").unwrap().as_deref(), Some("0"));
        }
        tokio::task::block_in_place(|| other.stop(Stop::Fast).unwrap());
        wait_for("writes go to the one that is left", async || {
            client.batch_execute("INSERT INTO taken DEFAULT VALUES").await.is_ok()
        })
        .await;
        assert_eq!(value(&client, "SELECT node FROM taken").await, one.name());
    });
}

/// tokio-postgres closes a statement that is dropped, and takes no notice of the answer.
#[test]
fn a_commit_behind_a_close_that_found_its_primary_deposed_fails_and_says_so() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let tuning = Tuning { limits: vec!["hold_time: 25s".to_owned()], ..Tuning::default() };
    let weir = stage.weir_with(&tuning);
    let (old, new) = (stage.cluster.primary(), stage.cluster.replica(0));
    stage.run(async {
        let (commits, reads) = (weir.connect().await, weir.connect().await);
        let mut written = Vec::new();
        for client in [&commits, &reads] {
            let statement = client.prepare("INSERT INTO taken DEFAULT VALUES").await.unwrap();
            client.batch_execute("BEGIN").await.unwrap();
            assert_eq!(client.execute(&statement, &[]).await.unwrap(), 1);
            written.push(statement);
        }
        tokio::task::block_in_place(|| {
            // The old one runs on, and the clients keep their connections to it.
            new.promote().unwrap();
            weir.wait_node(new.name(), "is the primary", |row| row.role.as_deref() == Some("primary"));
        });
        drop(written);
        for (client, sql) in [(&commits, "COMMIT"), (&reads, "SELECT 1")] {
            let error = client.batch_execute(sql).await.expect_err(sql);
            assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{}", describe(&error));
        }
        reads.batch_execute("ROLLBACK").await.unwrap();
        commits.batch_execute("INSERT INTO taken DEFAULT VALUES").await.unwrap();
    });
    for (node, rows) in [(old, "0"), (new, "1")] {
        assert_eq!(node.sql_value("SELECT count(*) FROM taken").unwrap().as_deref(), Some(rows), "{node:?}");
    }
}

fn signal(name: &str, pid: i32) {
    let done = std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_commit_behind_a_close_whose_server_was_lost_fails_and_says_so() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let weir = stage.weir();
    let primary = stage.cluster.primary();
    stage.run(async {
        let client = weir.connect().await;
        // The last one is prepared apart from its execution.
        for commit in ["COMMIT", "COMMIT AND CHAIN", "COMMIT; SELECT 1", "END"] {
            let statement = client.prepare("INSERT INTO taken DEFAULT VALUES").await.unwrap();
            client.batch_execute("BEGIN").await.unwrap();
            client.execute(&statement, &[]).await.unwrap();
            let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
            // Its server stands still with the Sync behind the Close, and then ends.
            signal("-STOP", pid);
            drop(statement);
            tokio::task::block_in_place(|| wait_until("the Close is there", || has_unread(pid)));
            primary.sql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
            signal("-CONT", pid);
            let committed = match commit {
                "END" => client.execute(commit, &[]).await.map(|_| ()),
                _ => client.batch_execute(commit).await,
            };
            let error = committed.expect_err(commit);
            assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{commit}: {}", describe(&error));
            if commit == "END" {
                // It may have been told when it was prepared, which ends nothing.
                client.batch_execute("ROLLBACK").await.unwrap();
            }
            client.batch_execute("INSERT INTO taken DEFAULT VALUES").await.unwrap();
        }
    });
    assert_eq!(primary.sql_value("SELECT count(*) FROM taken").unwrap().as_deref(), Some("4"));
}

#[test]
fn whatever_would_commit_when_its_server_dies_is_told_and_its_session_lives() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let tuning = Tuning { limits: vec!["hold_time: 25s".to_owned()], ..Tuning::default() };
    let weir = stage.weir_with(&tuning);
    stage.run(async {
        let client = weir.connect().await;
        let forms = [
            ("COMMIT", "08007"),
            ("COMMIT AND CHAIN", "08007"),
            ("COMMIT; SELECT 1", "08007"),
            ("SELECT 1; COMMIT", "08007"),
            // Prepared only.
            ("END", "40001"),
        ];
        for (text, expected) in forms {
            client.batch_execute("BEGIN; INSERT INTO taken DEFAULT VALUES").await.unwrap();
            let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
            signal("-STOP", pid);
            let told = async {
                match text {
                    "END" => client.prepare(text).await.map(|_| ()),
                    _ => client.batch_execute(text).await,
                }
            };
            let (told, ()) = tokio::join!(told, async {
                tokio::task::block_in_place(|| {
                    wait_until("it is there", || has_unread(pid));
                    signal("-KILL", pid);
                });
            });
            let error = told.expect_err(text);
            assert_eq!(error.code().map(|code| code.code()), Some(expected), "{text}: {}", describe(&error));
            drop(client.batch_execute("ROLLBACK").await);
            wait_for("writes go on", async || {
                client.batch_execute("INSERT INTO taken DEFAULT VALUES").await.is_ok()
            })
            .await;
        }
    });
}
