//! What operators do in the console: pauses, bans, drains; and a pgweir that takes over from another.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use harness::{NO_WRITER, SERVED_BY, Scene, Stage, Tuning, Weir, describe, served_by, value, wait_for};
use pgweir::devcluster::{APP, Options, Stop};
use tokio_postgres::Client;

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    let schema = [NO_WRITER, SERVED_BY, "CREATE TABLE noted (what text)"];
    Scene::on(&STAGE, || Stage::with(Options::with_replicas(1), &schema))
}

fn tuning() -> Tuning {
    Tuning { limits: vec!["hold_time: 25s".to_owned()], ..Tuning::default() }
}

async fn console(weir: &Weir<'_>) -> Client {
    weir.connect_as(APP, "pgweir", "").await.unwrap()
}

async fn holding(weir: &Weir<'_>, count: &str) {
    let console = console(weir).await;
    wait_for("so many are held", async || {
        let rows = console.simple_query("SHOW STATS").await.unwrap();
        rows.iter().any(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                (0..row.len()).any(|at| row.get(at) == Some("holding"))
                    && (0..row.len()).any(|at| row.get(at) == Some(count))
            }
            _ => false,
        })
    })
    .await;
}

#[test]
fn a_pause_waits_for_transactions_holds_the_rest_and_hides_a_restart_of_the_primary() {
    let scene = scene();
    let weir = scene.weir_with(&tuning());
    scene.run(async {
        let (console, open, other) = (console(&weir).await, weir.connect().await, weir.connect().await);
        open.batch_execute("BEGIN; INSERT INTO noted VALUES ('open')").await.unwrap();
        let paused = tokio::spawn(async move { console.batch_execute("PAUSE app").await.map(|()| console) });
        // Whoever asks again and again is held one day.
        let asks = weir.connect().await;
        let asking = tokio::spawn(async move { while asks.simple_query("SELECT 1").await.is_ok() {} });
        holding(&weir, "1").await;
        let held = tokio::spawn(async move {
            other.batch_execute("INSERT INTO noted VALUES ('held')").await.map(|()| other)
        });
        holding(&weir, "2").await;
        assert!(!paused.is_finished(), "a transaction is still open");
        // It goes on to its end.
        open.batch_execute("INSERT INTO noted VALUES ('open')").await.unwrap();
        open.batch_execute("COMMIT").await.unwrap();
        let console = paused.await.unwrap().unwrap_or_else(|e| panic!("{}", describe(&e)));
        // Reads are held, too.
        let reads = tokio::spawn(async move { open.simple_query("SELECT 1").await.map(|_| open) });
        holding(&weir, "3").await;
        tokio::task::block_in_place(|| {
            scene.cluster.primary().stop(Stop::Fast).unwrap();
            scene.cluster.primary().start().unwrap();
        });
        assert!(!held.is_finished() && !reads.is_finished());
        console.batch_execute("RESUME app").await.unwrap();
        asking.abort();
        let other = held.await.unwrap().unwrap_or_else(|e| panic!("{}", describe(&e)));
        reads.await.unwrap().unwrap_or_else(|e| panic!("{}", describe(&e)));
        assert_eq!(value(&other, "SELECT count(*) FROM noted").await, "3");
        assert_eq!(console.batch_execute("RESUME app").await.unwrap_err().code().unwrap().code(), "55000");
    });
    weir.wait_whole(2);
}

#[test]
fn a_banned_node_serves_no_reads_until_it_is_unbanned_and_a_drained_one_has_nobody_left() {
    let scene = scene();
    let weir = scene.weir_with(&tuning());
    let replica = scene.cluster.replica(0).name();
    scene.run(async {
        let (console, client) = (console(&weir).await, weir.connect().await);
        wait_for("the replica serves", async || served_by(&client).await == replica).await;
        for (verb, tag) in [("BAN", "banned"), ("DRAIN", "banned")] {
            console.batch_execute(&format!("{verb} {replica}")).await.unwrap();
            for _ in 0..20 {
                assert_ne!(served_by(&client).await, replica, "{verb}");
            }
            let row = weir.status().nodes.into_iter().find(|node| node.member == replica).unwrap();
            assert!(row.last_error.unwrap().contains(tag));
            console.batch_execute(&format!("UNBAN {replica}")).await.unwrap();
            wait_for("it serves again", async || served_by(&client).await == replica).await;
        }
        let refused = async |sql: &str| {
            let error = console.batch_execute(sql).await.unwrap_err();
            error.code().unwrap().code().to_owned()
        };
        assert_eq!(refused("BAN nobody").await, "42704");
        assert_eq!(refused(&format!("DRAIN {}", scene.cluster.primary().name())).await, "55000");
    });
}

/// Connects, asks, and leaves, until told to stop. Whoever is idle when its pgweir is replaced is ended, between
/// its login and its first question, too, where the machine is slow; but nobody is refused.
async fn come_and_go(address: SocketAddr, stop: Arc<AtomicBool>) -> Result<u64, String> {
    let mut connected = 0;
    while !stop.load(Ordering::Relaxed) {
        let client = match harness::connect_to(address, APP, "app", "").await {
            Ok(client) => client,
            // Its handshake ended in the moment in which the old socket closed: the kernel resets what is in
            // a closing socket's queue, unless net.ipv4.tcp_migrate_req is set.
            Err(error) if is_reset(&error) => continue,
            Err(error) => return Err(describe(&error)),
        };
        connected += u64::from(client.simple_query("SELECT 1").await.is_ok());
    }
    Ok(connected)
}

fn is_reset(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn a_successor_takes_over_the_address_and_no_connection_is_refused() {
    let scene = scene();
    let mut tuning = Tuning { more: "reuse_port: true\n".to_owned(), ..tuning() };
    let mut old = scene.weir_with(&tuning);
    tuning.port = old.address.port();
    let address = old.address;
    let stop = Arc::new(AtomicBool::new(false));
    let connecting: Vec<_> = (0..4).map(|_| (stop.clone(), address)).collect();
    let connecting: Vec<_> = scene.run(async {
        connecting.into_iter().map(|(stop, address)| tokio::spawn(come_and_go(address, stop))).collect()
    });
    let new = scene.weir_with(&tuning);
    assert_eq!(new.address, address);
    old.drain(Duration::from_secs(20));
    scene.run(async {
        let again = new.connect().await;
        assert_eq!(value(&again, "SELECT 1").await, "1");
        stop.store(true, Ordering::Relaxed);
        for client in connecting {
            assert!(client.await.unwrap().unwrap_or_else(|error| panic!("{error}")) > 0);
        }
    });
}
