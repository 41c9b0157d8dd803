//! The first packets: versions and options that are negotiated, encryption asked for or begun at once.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/papers.rs"]
mod papers;
#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use papers::*;
use pgweir::devcluster::{APP, MONITOR, Options, ServerTls};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let tls = ServerTls { certificate: PAPERS.certificate.clone(), key: PAPERS.key.clone() };
    World::start(Options { tls: Some(tls), ..Options::with_replicas(0) })
});

const POSTGRESQL: &[&[u8]] = &[b"postgresql"];

fn tls_proxy() -> Running {
    WORLD.proxy(&[("tls", &client_tls("prefer"))])
}

/// TLS from the first byte.
fn direct(proxy: &Running, protocols: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
    handshake(socket(proxy.port), protocols)
}

/// TLS after asking for it.
fn negotiated(proxy: &Running, protocols: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut tcp = socket(proxy.port);
    assert_eq!(ask(&mut tcp, &ssl_request()), b'S');
    handshake(tcp, protocols)
}

/// Sends a request that is answered by one byte.
fn ask(stream: &mut dyn Transport, request: &[u8]) -> u8 {
    stream.write_all(request).unwrap();
    stream.flush().unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    answer[0]
}

/// Logs in over this and asks something.
fn serves(stream: impl Transport + 'static) -> bool {
    let mut wire = Wire::over(Box::new(stream));
    wire.log_in(&app()).unwrap();
    wire.value("SELECT current_user") == "app"
}

/// What a server says to these bytes, up to the end.
fn refusal(mut stream: impl Transport + 'static, bytes: &[u8]) -> Frame {
    stream.write_all(bytes).unwrap();
    stream.flush().unwrap();
    let mut wire = Wire::over(Box::new(stream));
    let frame = wire.next();
    assert_eq!((frame.tag, frame.field(b'S').as_deref()), (b'E', Some("FATAL")), "{frame:?}");
    assert!(wire.is_closed());
    frame
}

#[test]
fn newer_versions_and_unknown_options_are_negotiated_down() {
    let (three_0, three_2) = (3 << 16, (3 << 16) | 2);
    let cases: [(u16, &[&str], Option<u32>, usize); 8] = [
        (0, &[], None, 4),
        (1, &[], None, 4),
        (2, &[], None, 32),
        (3, &[], Some(three_2), 32),
        (9999, &[], Some(three_2), 32),
        (0, &["_pq_.one"], Some(three_0), 4),
        (2, &["_pq_.one", "_pq_.two"], Some(three_2), 32),
        (9999, &["_pq_.test_protocol_negotiation"], Some(three_2), 32),
    ];
    let proxy = WORLD.proxy(&[]);
    let mut ports = vec![("pgweir", proxy.port)];
    if WORLD.cluster.binaries().major() >= 18 {
        ports.push(("PostgreSQL", WORLD.direct()));
    }
    for (who, port) in ports {
        for (minor, options, version, key_len) in cases {
            let login = options.iter().fold(app().speaking(minor), |login, option| login.with(option, "1"));
            let mut wire = Wire::connect(port, &login).unwrap();
            let names = || options.iter().map(|option| (*option).to_owned()).collect();
            let expected = version.map(|version| (version, names()));
            assert_eq!(wire.negotiated, expected, "{who}: 3.{minor} {options:?}");
            assert_eq!(wire.secret.len(), key_len, "{who}: 3.{minor} {options:?}");
            assert_eq!(wire.value("SELECT 1"), "1");
        }
    }
}

#[test]
fn what_is_no_startup_is_refused_with_postgresqls_code() {
    let proxy = WORLD.proxy(&[]);
    let version = |code: u32, body: &[u8]| untagged(&[&code.to_be_bytes()[..], body].concat());
    let user = |name: &str, value: &str| startup(&[("user", "app"), (name, value)]);
    let cases = [
        ("protocol 4", version(4 << 16, b"user\0app\0\0"), "0A000"),
        ("no user", startup(&[("database", "app")]), "28000"),
        ("no last NUL", version(3 << 16, b"user\0app\0"), "08P01"),
        ("replication that is not a truth value", user("replication", "maybe"), "22023"),
        ("replication of another form", user("replication", "DATABASE"), "22023"),
    ];
    for (name, packet, sqlstate) in cases {
        let ours = refusal(socket(proxy.port), &packet);
        let theirs = refusal(socket(WORLD.direct()), &packet);
        assert_eq!(ours.sqlstate(), sqlstate, "{name}: {ours:?}");
        assert_eq!(ours.sqlstate(), theirs.sqlstate(), "{name}: {theirs:?}");
        assert_eq!(ours.field(b'H'), theirs.field(b'H'), "{name}");
        if sqlstate != "0A000" {
            // The versions it names are its own.
            assert_eq!(ours.message(), theirs.message(), "{name}");
        }
    }
}

#[test]
fn each_kind_of_encryption_is_asked_for_once() {
    let plain = WORLD.proxy(&[]);
    let secure = tls_proxy();
    // GSSAPI is not there, TLS may be: in either order, and then the login goes on.
    for (first, second) in [(gssenc_request(), ssl_request()), (ssl_request(), gssenc_request())] {
        let mut tcp = socket(plain.port);
        assert_eq!((ask(&mut tcp, &first), ask(&mut tcp, &second)), (b'N', b'N'));
        assert!(serves(tcp));
    }
    let mut tcp = socket(secure.port);
    assert_eq!((ask(&mut tcp, &gssenc_request()), ask(&mut tcp, &ssl_request())), (b'N', b'S'));
    assert!(serves(handshake(tcp, POSTGRESQL)));
    for request in [ssl_request(), gssenc_request()] {
        let mut tcp = socket(plain.port);
        assert_eq!(ask(&mut tcp, &request), b'N');
        let error = refusal(tcp, &request);
        assert_eq!(error.sqlstate(), "0A000");
        assert!(error.message().starts_with("unsupported frontend protocol 1234.56"), "{error:?}");
        // Nor inside of TLS that was asked for.
        assert_eq!(refusal(negotiated(&secure, POSTGRESQL), &request).sqlstate(), "0A000");
    }
}

#[test]
fn bytes_stuffed_in_behind_a_request_for_encryption_are_refused() {
    for proxy in [WORLD.proxy(&[]), tls_proxy()] {
        for request in [ssl_request(), gssenc_request()] {
            let error = refusal(socket(proxy.port), &[request, app().packet()].concat());
            assert_eq!(error.sqlstate(), "08P01");
            assert!(error.message().starts_with("received unencrypted data after "), "{error:?}");
        }
    }
}

#[test]
fn direct_tls_is_for_those_who_name_the_protocol() {
    let proxy = tls_proxy();
    let mut stream = direct(&proxy, &[b"h2", b"postgresql"]);
    // It may still ask, as libpq does not: there is no TLS inside of TLS.
    assert_eq!(ask(&mut stream, &ssl_request()), b'N');
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"postgresql"[..]));
    assert!(serves(stream));
    assert!(serves(direct(&proxy, POSTGRESQL)));

    // Without a name, or with another one: closed, without a word of the protocol.
    for protocols in [&[][..], &[&b"h2"[..], b"http/1.1"]] {
        let mut stream = direct(&proxy, protocols);
        let mut answer = Vec::new();
        // The handshake is over for us before it is over for the other side.
        if stream.write_all(&app().packet()).and_then(|()| stream.flush()).is_ok() {
            drop(stream.read_to_end(&mut answer));
        }
        assert_eq!(answer, b"", "{protocols:?}");
    }
    // After asking, a name is not needed; a wrong one is refused there too.
    assert!(serves(negotiated(&proxy, &[])));
    let stream = negotiated(&proxy, POSTGRESQL);
    assert!(serves(stream));
    assert!(negotiated(&proxy, &[b"h2"]).write_all(&app().packet()).is_err());

    // Where there is no TLS, its first byte is no request for it.
    let plain = WORLD.proxy(&[]);
    let mut stream = direct(&plain, POSTGRESQL);
    assert!(stream.write_all(&app().packet()).and_then(|()| stream.flush()).is_err());
    assert_eq!(plain.client().value("SELECT 1"), "1");
}

#[test]
fn cancel_requests_come_over_direct_tls_too() {
    let proxy = tls_proxy();
    let mut wire = Wire::over(Box::new(direct(&proxy, POSTGRESQL)));
    wire.log_in(&app().speaking(2)).unwrap();
    wire.send(&query("SELECT pg_sleep(61)"));
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)' AND state = 'active'";
    wait_until("it runs", || WORLD.cluster.primary().sql_value(running).unwrap().as_deref() == Some("1"));
    let mut stream = direct(&proxy, POSTGRESQL);
    stream.write_all(&cancel_request(wire.pid, &wire.secret)).unwrap();
    stream.flush().unwrap();
    assert_eq!(error_of(&wire.until_ready()).unwrap().sqlstate(), "57014");
}

#[test]
fn those_who_have_not_logged_in_yet_are_bounded() {
    let proxy = WORLD.proxy(&[("limits", "{ login_clients: 2, login_timeout: 600s }")]);
    let mut inside = proxy.client();
    let (mut silent, mut last) = (Vec::new(), None);
    wait_until("two are waited for", || {
        silent.push(socket(proxy.port));
        last = Wire::connect(proxy.port, &app()).err();
        last.is_some()
    });
    let error = last.unwrap();
    assert_eq!(error.sqlstate(), "53300");
    assert!(error.field(b'H').unwrap().contains("limits.login_clients"), "{error:?}");
    assert_eq!(inside.value("SELECT 1"), "1");
    drop(silent);
    wait_until("there is room again", || Wire::connect(proxy.port, &app()).is_ok());
}

#[test]
fn servers_are_spoken_to_in_the_newest_version_that_they_speak() {
    // A server that speaks 3.2 hands out a key of 32 bytes: SHOW does not tell, a cancel does.
    let proxy = WORLD.proxy(&[]);
    let mut wire = proxy.client();
    wire.send(&query("SELECT pg_sleep(60)"));
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active' AND usename = 'app'";
    wait_until("it runs", || WORLD.cluster.primary().sql_value(running).unwrap().as_deref() == Some("1"));
    cancel(proxy.port, wire.pid, &wire.secret);
    assert_eq!(error_of(&wire.until_ready()).unwrap().sqlstate(), "57014");
}

/// A man in the middle that does not know of versions: he refuses what is not 3.0, and else passes on.
fn old_pooler(server: u16) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || pass_on(client.unwrap(), server));
        }
    });
    port
}

fn pass_on(mut client: TcpStream, server: u16) {
    let mut head = [0; 8];
    if client.read_exact(&mut head).is_err() {
        return;
    }
    if head[4..] == [0, 3, 0, 2] {
        let refused = tagged(b'E', b"SFATAL\0VFATAL\0C08P01\0Munsupported protocol\0\0");
        drop(client.write_all(&refused));
        return;
    }
    let mut server = socket(server);
    server.set_read_timeout(None).unwrap();
    server.write_all(&head).unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Both));
    });
    drop(std::io::copy(&mut server, &mut client));
    drop(client.shutdown(std::net::Shutdown::Both));
}

#[test]
fn what_stands_before_a_server_need_not_know_of_versions() {
    let port = old_pooler(WORLD.direct());
    let cluster = format!(
        "{{ nodes: [ {{ name: pg1, host: 127.0.0.1, port: {port} }} ], monitor: {{ user: {}, password: {} }} }}",
        MONITOR.name, MONITOR.password
    );
    let proxy = WORLD.proxy(&[("cluster", &cluster), ("tls", "{ server: { mode: disable } }")]);
    assert_eq!(proxy.client().value("SELECT current_user"), APP.name);
}

/// Direct TLS to the servers needs PostgreSQL 17; pgweir itself speaks it, so one stands before another.
#[test]
fn servers_are_spoken_to_in_direct_tls_where_that_is_configured() {
    let users = format!(
        "{{ users: [ {{ name: {}, password: {} }}, {{ name: {}, password: {} }} ] }}",
        APP.name, APP.password, MONITOR.name, MONITOR.password
    );
    let inner = WORLD.proxy(&[("tls", &client_tls("require")), ("auth", &users)]);
    let node = format!(
        "{{ nodes: [ {{ name: pg1, host: 127.0.0.1, port: {} }} ], monitor: {{ user: {}, password: {} }} }}",
        inner.port, MONITOR.name, MONITOR.password
    );
    let tls = format!("{{ server: {{ mode: verify-full, negotiation: direct, ca: {} }} }}", path("ca.crt"));
    let outer = WORLD.proxy(&[("cluster", &node), ("tls", &tls)]);
    let mut wire = Wire::connect(outer.port, &app().speaking(2)).unwrap();
    assert_eq!(wire.value("SELECT current_user"), "app");
    wire.send(&query("SELECT pg_sleep(61)"));
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)' AND state = 'active'";
    wait_until("it runs", || WORLD.cluster.primary().sql_value(running).unwrap().as_deref() == Some("1"));
    cancel(outer.port, wire.pid, &wire.secret);
    assert_eq!(error_of(&wire.until_ready()).unwrap().sqlstate(), "57014");
}

#[test]
fn clients_move_to_another_worker_between_two_requests_and_notice_nothing() {
    let proxy = tls_proxy();
    let clients: Vec<Wire> = (0..6)
        .map(|client| match client % 2 {
            0 => proxy.client(),
            _ => {
                let mut wire = Wire::over(Box::new(negotiated(&proxy, POSTGRESQL)));
                wire.log_in(&app()).unwrap();
                wire
            }
        })
        .collect();
    let clients: Vec<_> = (clients.into_iter().enumerate())
        .map(|(client, mut wire)| {
            std::thread::spawn(move || {
                wire.run(&format!("SET app.client = '{client}'"));
                for round in 0..200 {
                    assert_eq!(wire.value(&format!("SELECT {round}")), round.to_string());
                    wire.run("BEGIN");
                    wire.run(&format!("SET LOCAL app.round = '{round}'"));
                    let sql = "SELECT current_setting('app.client') || '/' || current_setting('app.round')";
                    assert_eq!(wire.value(sql), format!("{client}/{round}"));
                    wire.run("COMMIT");
                }
            })
        })
        .collect();
    for turn in 0.. {
        if clients.iter().all(std::thread::JoinHandle::is_finished) {
            break;
        }
        proxy.employ(1 + turn % 2);
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
}
