//! A failover loses acknowledged writes: their sessions are told, once, and nobody else is.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, stream};
use harness::{LONG, NO_WRITER, Stage, Tuning, Weir, wait_for, wait_until};
use pgweir::devcluster::{APP, APP_DATABASE, Options};
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// A client, and what it was told beside its answers.
async fn connect(weir: &Weir<'_>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let mut config = tokio_postgres::Config::new();
    config.host(weir.address.ip().to_string()).port(weir.address.port());
    config.user(APP.name).password(APP.password).dbname(APP_DATABASE);
    let (client, mut connection) = config.connect(NoTls).await.unwrap();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let notices = told.clone();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                notices.lock().unwrap().push(format!("{} {}", notice.code().code(), notice.message()));
            }
        }
    });
    (client, told)
}

/// Two replicas that receive nothing any more, one of which is promoted behind the back of the old primary.
fn lose_writes(mode: &str, check: impl AsyncFn(&Weir<'_>, [(Client, Arc<Mutex<Vec<String>>>); 3], String)) {
    let schema = [NO_WRITER, "CREATE TABLE kept (what text)"];
    let stage = Stage::with(Options::with_replicas(1), &schema);
    let tuning = Tuning {
        limits: vec!["hold_time: 25s".to_owned()],
        routing: vec![format!("lost_writes: {mode}")],
        ..Tuning::default()
    };
    let weir = stage.weir_with(&tuning);
    let (old, new) = (stage.cluster.primary(), stage.cluster.replica(0));
    stage.run(async {
        let [early, late, reader] = [connect(&weir).await, connect(&weir).await, connect(&weir).await];
        early.0.batch_execute("INSERT INTO kept VALUES ('early')").await.unwrap();
        reader.0.simple_query("SELECT count(*) FROM kept").await.unwrap();
        tokio::task::block_in_place(|| {
            new.wait_caught_up(old, LONG).unwrap();
            new.set("primary_conninfo", "").unwrap();
            wait_until("it receives nothing", || {
                new.sql_value("SELECT count(*) FROM pg_stat_wal_receiver").unwrap().as_deref() == Some("0")
            });
        });
        // Far behind what the standby has, with samples in between.
        for _ in 0..3 {
            late.0
                .batch_execute("INSERT INTO kept SELECT repeat('late', 100) FROM generate_series(1, 50)")
                .await
                .unwrap();
            tokio::task::block_in_place(|| weir.wait_sampled(old));
        }
        late.0.simple_query("SHOW pgweir.token").await.unwrap();
        let token = harness::value(&late.0, "SHOW pgweir.token").await;
        tokio::task::block_in_place(|| {
            old.sigkill().unwrap();
            new.promote().unwrap();
        });
        wait_for("it is the primary", async || weir.status().primary.as_deref() == Some(new.name())).await;
        wait_for("the fork is known", async || {
            let (asks, told) = connect(&weir).await;
            drop(asks.simple_query(&format!("SET pgweir.token = '{token}'")).await);
            let told = told.lock().unwrap();
            told.iter().any(|notice| notice.contains("was lost in the failover")) || mode == "error"
        })
        .await;
        check(&weir, [early, late, reader], token).await;
    });
}

#[test]
fn a_session_whose_acknowledged_write_was_lost_is_warned_once_and_nobody_else_is() {
    lose_writes("warning", async |weir, [early, late, reader], token| {
        for (client, _) in [&early, &late, &reader] {
            client.batch_execute("INSERT INTO kept VALUES ('afterwards')").await.unwrap();
            client.batch_execute("INSERT INTO kept VALUES ('and on')").await.unwrap();
        }
        let told = |of: &Arc<Mutex<Vec<String>>>| of.lock().unwrap().clone();
        assert_eq!((told(&early.1), told(&reader.1)), (vec![], vec![]));
        let told = told(&late.1);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("LW001 acknowledged write at 1/0/"), "{told:?}");
        assert!(told[0].contains("was lost in the failover to timeline 2, which forked at 0/"), "{told:?}");
        let (asks, told) = connect(weir).await;
        asks.simple_query(&format!("SET pgweir.token = '{token}'")).await.unwrap();
        let told = told.lock().unwrap().clone();
        assert!(told[0].starts_with("LW001 acknowledged write at 1/"), "{told:?}");
    });
}

#[test]
fn a_session_whose_acknowledged_write_was_lost_gets_an_error_where_that_is_asked_for() {
    lose_writes("error", async |_, [early, late, reader], _| {
        // The fork is asked for right after the promotion is seen.
        let mut refused = None;
        wait_for("it is told", async || {
            refused = late.0.batch_execute("SELECT count(*) FROM kept").await.err();
            refused.is_some()
        })
        .await;
        assert_eq!(refused.unwrap().code().unwrap().code(), "LW001");
        for (client, _) in [&early, &late, &reader] {
            client.batch_execute("INSERT INTO kept VALUES ('afterwards')").await.unwrap();
        }
    });
}
