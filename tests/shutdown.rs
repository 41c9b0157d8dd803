//! How pgweir stops, and how another process takes its place: nobody is refused, and nobody loses what is open.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use pgweir::devcluster::{APP, Options};
use rustix::process::Signal;
use std::sync::LazyLock;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(1));
    for table in ["drained", "carried"] {
        world.cluster.primary().sql_as("app", "app", &format!("CREATE TABLE {table} (n int)")).unwrap();
    }
    world
});

/// How many rows a table has.
fn rows(table: &str) -> String {
    let count = format!("SELECT count(*) FROM {table}");
    WORLD.cluster.primary().sql_as("app", "app", &count).unwrap()[0][0].clone().unwrap()
}

/// What is said at an address that two processes share: an answer may be cut off when one of them leaves.
fn asked(http: std::net::SocketAddr) -> String {
    std::panic::catch_unwind(|| get(http, "/readyz")).unwrap_or_default()
}

fn ends_well(program: &mut Program) {
    wait_until("pgweir ends", || program.child.try_wait().unwrap().is_some());
    let status = program.child.wait().unwrap();
    assert!(status.success(), "{status}\n{}", program.log());
}

#[test]
fn sigterm_lets_a_running_transaction_finish() {
    let mut program = Program::start(&WORLD, &[("limits", "{ drain_timeout: 30s }")]);
    let mut busy = program.client();
    busy.run("BEGIN; INSERT INTO drained VALUES (1)");
    let mut idle = program.client();
    assert_eq!(idle.value("SELECT 1"), "1");
    let mut listening = program.client();
    listening.run("LISTEN nothing");
    program.signal(Signal::TERM);
    for wire in [&mut idle, &mut listening] {
        let frames = wire.until_closed();
        assert_eq!(tags(&frames), "E");
        assert_eq!(frames[0].sqlstate(), "57P01");
    }
    busy.run("INSERT INTO drained VALUES (2)");
    busy.run("COMMIT");
    assert_eq!(error_of(&busy.until_closed()).unwrap().sqlstate(), "57P01");
    ends_well(&mut program);
    assert_eq!(rows("drained"), "2");
}

/// Clients are waited for.
const FOR_CLIENTS: (&str, &str) = ("limits", "{ drain: clients, drain_timeout: 10m }");
const SHARED: (&str, &str) = ("reuse_port", "true");

#[test]
fn a_drain_that_waits_for_clients_ends_with_the_last_of_them_and_takes_no_new_ones() {
    let mut program = Program::start(&WORLD, &[FOR_CLIENTS]);
    let mut idle = program.client();
    idle.run("SET application_name = 'mine'");
    let mut listening = program.client();
    listening.run("LISTEN something");
    let mut console = Wire::connect(program.port, &Login::new(APP.name, APP.password, "pgweir")).unwrap();
    program.signal(Signal::TERM);
    // Nobody works there.
    assert_eq!(tags(&console.until_closed()), "E");
    wait_until("it takes no new clients", || {
        std::net::TcpStream::connect(("127.0.0.1", program.port)).is_err()
    });
    assert!(get(program.http, "/readyz").contains("draining"));
    idle.run("BEGIN; INSERT INTO carried VALUES (1); COMMIT");
    idle.run("INSERT INTO carried VALUES (2)");
    assert_eq!(idle.value("SHOW application_name"), "mine");
    idle.run("NOTIFY something");
    assert_eq!(rows("carried"), "2");
    drop(idle);
    assert_eq!(listening.value("SELECT 1"), "1");
    assert!(program.child.try_wait().unwrap().is_none());
    drop(listening);
    ends_well(&mut program);
}

#[test]
fn told_twice_it_waits_for_transactions_only_and_told_three_times_for_nothing() {
    let mut program = Program::start(&WORLD, &[FOR_CLIENTS]);
    let (mut idle, mut busy) = (program.client(), program.client());
    busy.run("BEGIN");
    program.signal(Signal::TERM);
    wait_until("it drains", || program.log().contains("draining"));
    assert_eq!(idle.value("SELECT 1"), "1");
    program.signal(Signal::TERM);
    assert_eq!(error_of(&idle.until_closed()).unwrap().sqlstate(), "57P01");
    assert_eq!(busy.value("SELECT 1"), "1");
    program.signal(Signal::INT);
    // Its transaction is still open.
    ends_well(&mut program);
    drop(busy);
}

#[test]
fn a_successor_takes_over_all_addresses_while_clients_stay_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(".s.PGSQL.6432");
    let port = pgweir::devcluster::free_port().unwrap();
    let listen = format!("[ \"127.0.0.1:{port}\", \"unix:{}\" ]", socket.display());
    let sections = [("listen", &*listen), SHARED, FOR_CLIENTS];
    let mut old = Program::start(&WORLD, &sections);
    let mut stays = Wire::connect_unix(&socket, &app()).unwrap();
    stays.run("SET application_name = 'mine'");
    let mut new = old.successor(&WORLD, &sections);
    old.signal(Signal::TERM);
    wait_until("it drains", || old.log().contains("draining"));
    let ready = format!("\"pid\":{}", new.child.id());
    wait_until("the new one is asked", || {
        let answer = asked(new.http);
        answer.contains(&ready) && answer.contains("\"ready\":true")
    });
    let mut comes = Wire::connect_unix(&socket, &app()).unwrap();
    assert_eq!(comes.value("SELECT 1"), "1");
    assert_eq!(stays.value("SHOW application_name"), "mine");
    assert!(old.child.try_wait().unwrap().is_none());
    drop(stays);
    ends_well(&mut old);
    // The file of the socket is the new one's.
    assert_eq!(Wire::connect_unix(&socket, &app()).unwrap().value("SELECT 1"), "1");
    assert_eq!(Wire::connect(port, &app()).unwrap().value("SELECT 1"), "1");
    assert_eq!(comes.value("SELECT 1"), "1");
    drop(comes);
    new.signal(Signal::TERM);
    ends_well(&mut new);
}

#[test]
fn a_successor_that_cannot_start_leaves_the_addresses_to_whoever_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(".s.PGSQL.6432");
    let listen = format!("\"unix:{}\"", socket.display());
    let served = WORLD.proxy(&[("listen", &listen), SHARED]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap().to_string();
    let error = WORLD.try_proxy(&[("listen", &listen), SHARED, ("http", &http)]).err().unwrap().to_string();
    assert!(error.contains(&http), "{error}");
    assert_eq!(Wire::connect_unix(&socket, &app()).unwrap().value("SELECT 1"), "1");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    drop(served);
}

#[test]
fn whoever_asks_for_the_status_at_an_ipv6_address_may_come_over_ipv4() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return println!("not played: no IPv6 here");
    }
    let proxy = WORLD.proxy_at_once(&[("http", "\"[::]:0\"")]);
    for ip in [std::net::IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()] {
        assert_eq!(get(std::net::SocketAddr::new(ip, proxy.http.port()), "/healthz"), "ok\n");
    }
}

#[test]
fn a_pause_ends_when_nobody_can_be_asked_to_resume() {
    let mut program = Program::start(&WORLD, &[FOR_CLIENTS]);
    let mut client = program.client();
    Wire::connect(program.port, &Login::new(APP.name, APP.password, "pgweir")).unwrap().run("PAUSE");
    program.signal(Signal::TERM);
    assert_eq!(client.value("SELECT 1"), "1");
    drop(client);
    ends_well(&mut program);
}

#[test]
fn a_socket_that_another_one_serves_is_not_taken_and_a_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(".s.PGSQL.6432");
    let refused = |say: &str| {
        let listen = format!("\"unix:{}\"", socket.display());
        let error = WORLD.try_proxy(&[("listen", &listen)]).err().unwrap().to_string();
        assert!(error.contains(say), "{error}");
    };
    let served = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused("in use");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    drop(served);
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "somebody's").unwrap();
    refused("no socket");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "somebody's");
}
