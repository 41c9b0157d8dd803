//! Clients that have been idle for a while sleep without a task; nobody can tell, but by the memory.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/papers.rs"]
mod papers;
#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use papers::*;
use pgweir::devcluster::{Options, ServerTls};
use std::sync::LazyLock;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let tls = ServerTls { certificate: PAPERS.certificate.clone(), key: PAPERS.key.clone() };
    let world = World::start(Options { tls: Some(tls), ..Options::with_replicas(1) });
    world.cluster.primary().sql_as("app", "app", "CREATE TABLE written (number int)").unwrap();
    world
});

/// As many sleep.
fn wait_asleep(proxy: &Running, count: usize) {
    wait_until(&format!("{count} sleep"), || proxy.metric("pgweir_clients_asleep", "") == count as f64);
}

fn encrypted(proxy: &Running) -> Wire {
    let mut tcp = socket(proxy.port);
    std::io::Write::write_all(&mut tcp, &ssl_request()).unwrap();
    let mut answer = [0];
    std::io::Read::read_exact(&mut tcp, &mut answer).unwrap();
    assert_eq!(answer[0], b'S');
    let mut wire = Wire::over(Box::new(handshake(tcp, &[b"postgresql"])));
    wire.log_in(&app()).unwrap();
    wire
}

/// Binds, executes, and gives the one value.
fn executed(wire: &mut Wire, statement: &str) -> String {
    let request = [bind("", statement, &[]), execute("", 0), sync()].concat();
    first_values(&wire.exchange(&request, 1)[0])[0].clone()
}

#[test]
fn a_session_is_the_same_after_a_sleep() {
    let proxy = WORLD.proxy(&[("tls", &client_tls("prefer"))]);
    let mut clients =
        [proxy.client(), encrypted(&proxy), Wire::connect(proxy.port, &app().speaking(2)).unwrap()];
    for (number, client) in clients.iter_mut().enumerate() {
        client.run("SET statement_timeout = '77s'");
        client.run(&format!("INSERT INTO written VALUES ({number})"));
        let prepared = [parse("named", "SELECT 'named'", &[]), parse("", "SELECT 'unnamed'", &[]), sync()];
        client.exchange(&prepared.concat(), 1);
    }
    // The second time, what was kept is what was kept before.
    for _ in 0..2 {
        wait_asleep(&proxy, clients.len());
        for client in &mut clients {
            assert_eq!(executed(client, ""), "unnamed");
            assert_eq!(executed(client, "named"), "named");
        }
        wait_asleep(&proxy, clients.len());
        for (number, client) in clients.iter_mut().enumerate() {
            let written = format!("SELECT count(*) FROM written WHERE number = {number}");
            assert_eq!(client.value(&written), "1", "its own write is seen, wherever it reads");
            assert_eq!(client.value("SHOW statement_timeout"), "77s");
            client.exchange(&[parse("", "SELECT 'unnamed'", &[]), sync()].concat(), 1);
        }
    }
    assert_eq!(proxy.clients(), clients.len() as u64);
}

#[test]
fn what_is_set_of_pgweirs_own_and_what_was_told_is_kept() {
    let proxy = WORLD.proxy(&[]);
    let mut client = proxy.client();
    client.run("SET pgweir.route = 'primary'");
    client.run("SET TimeZone = 'Asia/Tokyo'");
    wait_asleep(&proxy, 1);
    assert_eq!(client.value("SHOW pgweir.route"), "primary");
    let again = client.run("SET TimeZone = 'Asia/Tokyo'");
    assert!(!tags(&again).contains('S'), "it knows that already: {}", tags(&again));
    assert!(tags(&client.run("RESET TimeZone")).contains('S'));
}

#[test]
fn who_has_a_server_connection_stays_awake_and_hears_what_it_says() {
    let proxy = WORLD.proxy(&[]);
    let (mut listens, mut works, mut rests) = (proxy.client(), proxy.client(), proxy.client());
    listens.run("LISTEN news");
    works.run("BEGIN; INSERT INTO written VALUES (100)");
    rests.run("SELECT 1");
    wait_asleep(&proxy, 1);
    rests.run("NOTIFY news, 'it'");
    assert_eq!(listens.next().tag, b'A');
    wait_asleep(&proxy, 1);
    works.run("COMMIT");
    wait_asleep(&proxy, 2);
    assert_eq!(rests.value("SELECT count(*) FROM written WHERE number = 100"), "1");
}

#[test]
fn a_sleeper_that_leaves_is_gone_and_a_cancel_request_does_not_disturb_it() {
    let proxy = WORLD.proxy(&[]);
    let (mut stays, says_goodbye, vanishes) = (proxy.client(), proxy.client(), proxy.client());
    wait_asleep(&proxy, 3);
    cancel(proxy.port, stays.pid, &stays.secret);
    says_goodbye.terminate();
    vanishes.vanish();
    wait_until("two have left", || proxy.clients() == 1);
    wait_asleep(&proxy, 1);
    assert_eq!(stays.value("SELECT 1"), "1");
}

#[test]
fn sleepers_are_ended_when_they_have_been_idle_for_too_long() {
    let proxy = WORLD.proxy(&[("limits", "{ client_idle_timeout: 10s }")]);
    let mut client = proxy.client();
    wait_asleep(&proxy, 1);
    assert_eq!(client.next().sqlstate(), "57P05");
    assert!(client.is_closed());
    wait_until("it is gone", || proxy.clients() == 0);
}

#[test]
fn sleepers_are_told_when_pgweir_shuts_down() {
    let proxy = WORLD.proxy(&[("tls", &client_tls("prefer"))]);
    let mut clients = [proxy.client(), encrypted(&proxy)];
    wait_asleep(&proxy, 2);
    drop(proxy);
    for client in &mut clients {
        assert_eq!(client.next().sqlstate(), "57P01");
        assert!(client.is_closed());
    }
}

#[test]
fn many_wake_up_at_once_where_they_are_at_home_then() {
    let proxy = WORLD.proxy(&[]);
    let mut clients: Vec<Wire> = (0..200).map(|_| proxy.client()).collect();
    for workers in [2, 1] {
        wait_asleep(&proxy, clients.len());
        proxy.employ(workers);
        clients.iter_mut().for_each(|client| client.send(&query("SELECT 'here'")));
        for client in &mut clients {
            assert_eq!(first_values(&client.until_ready()), ["here"]);
        }
    }
    drop(clients);
    wait_until("all are gone", || proxy.clients() == 0);
    wait_asleep(&proxy, 0);
}
