//! Whatever a client sends, it gets an error or is disconnected, and nobody else notices.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use pgweir::devcluster::Options;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::LazyLock;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(1));
    let sql = "CREATE TABLE rubbish (n int); CREATE TABLE torn (n int); CREATE TABLE noise (n int); CREATE TABLE cut (n int PRIMARY KEY)";
    world.cluster.primary().sql_as("app", "app", sql).unwrap();
    world.cluster.wait_caught_up(LONG).unwrap();
    world
});

/// Somebody who behaves is served, with nothing of anybody else's.
fn assert_served(bystander: &mut Wire, number: usize) {
    let rows = bystander.rows(&format!(
        "SELECT {number}, current_setting('work_mem'), current_user, current_setting('search_path')"
    ));
    let expected = [number.to_string(), "4MB".into(), "app".into(), "\"$user\", public".into()];
    assert_eq!(rows[0].iter().flatten().cloned().collect::<Vec<_>>(), expected);
}

/// Every server connection is idle, outside transactions, with the settings of a new session.
fn assert_clean(proxy: &Running) {
    proxy.wait_quiet();
    let mut wires: Vec<Wire> = (0..5).map(|_| proxy.client()).collect();
    for (number, wire) in wires.iter_mut().enumerate() {
        assert_served(wire, number);
        wire.run("BEGIN; SELECT txid_current()");
    }
    for wire in &mut wires {
        let left = "SELECT (SELECT count(*) FROM pg_listening_channels()), \
                    (SELECT count(*) FROM pg_cursors WHERE is_holdable), \
                    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)";
        assert_eq!(wire.rows(left)[0], vec![Some("0".to_owned()); 3]);
        wire.run("ROLLBACK");
    }
    wires.into_iter().for_each(Wire::terminate);
    let stuck =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in transaction%'";
    wait_until("no transaction is left open", || {
        WORLD.cluster.primary().sql_value(stuck).unwrap().as_deref() == Some("0")
    });
    proxy.wait_quiet();
}

fn first_packets() -> Vec<(&'static str, Vec<u8>)> {
    let version = |code: u32, body: &[u8]| untagged(&[&code.to_be_bytes()[..], body].concat());
    vec![
        ("nothing", vec![]),
        ("half a length", vec![0, 0]),
        ("length 0", vec![0; 8]),
        ("length 3", vec![0, 0, 0, 3, 0, 3, 0, 0]),
        ("length 7", vec![0, 0, 0, 7, 0, 3, 0]),
        ("length -1", vec![0xff; 8]),
        ("length 10001", [&10_001_u32.to_be_bytes()[..], &[0; 9997]].concat()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS without asking", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("protocol 2", version(2 << 16, &[0; 292])),
        ("protocol 4", version(4 << 16, b"user\0app\0\0")),
        ("no user", startup(&[("database", "app")])),
        ("an empty user", startup(&[("user", ""), ("database", "app")])),
        ("no last NUL", version(3 << 16, b"user\0app\0")),
        ("a name without a value", version(3 << 16, b"user\0app\0database\0")),
        ("surplus", version(3 << 16, b"user\0app\0\0surplus")),
        ("not UTF-8", version(3 << 16, b"user\0\xff\xfe\0\0")),
        ("half a packet", app().packet()[..20].to_vec()),
        ("replication", startup(&[("user", "app"), ("replication", "true")])),
        ("a cancel request without a key", version(80_877_102, b"")),
        ("a cancel request with half a key", version(80_877_102, &[0, 0, 0, 1, 2])),
        ("a cancel request of nobody", cancel_request(12345, &[1, 2, 3, 4])),
        ("encryption again and again", ssl_request().repeat(20)),
        ("GSS encryption again and again", untagged(&80_877_104_u32.to_be_bytes()).repeat(20)),
        ("a query instead of a password", [app().packet(), query("SELECT 1")].concat()),
        ("an empty password", [app().packet(), tagged(b'p', b"")].concat()),
        ("a password of 1 MiB", [app().packet(), tagged(b'p', &vec![b'x'; 1 << 20])].concat()),
        ("a password of length -1", [app().packet(), b"p\xff\xff\xff\xff".to_vec()].concat()),
        ("an unknown mechanism", [app().packet(), tagged(b'p', b"PLAIN\0\0\0\0\0")].concat()),
        (
            "a first message that is none",
            [app().packet(), tagged(b'p', b"SCRAM-SHA-256\0\0\0\0\x04\xff\xff\xff\xff")].concat(),
        ),
    ]
}

#[test]
fn no_first_packet_brings_anybody_in_or_anything_down() {
    let proxy = WORLD.proxy(&[]);
    let mut bystander = proxy.client();
    for (number, (name, bytes)) in first_packets().into_iter().enumerate() {
        let mut tcp = socket(proxy.port);
        // It may be closed before the last byte.
        drop(tcp.write_all(&bytes));
        drop(tcp.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        // The end may be a reset; never is it silence.
        if let Err(error) = tcp.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}");
        }
        let ready = answer.ends_with(b"Z\0\0\0\x05I");
        assert!(!ready, "{name} was let in: {}", answer.escape_ascii());
        assert_served(&mut bystander, number);
    }
    assert_eq!(proxy.clients(), 1);
}

#[test]
fn whoever_is_too_slow_to_log_in_is_disconnected() {
    let proxy = WORLD.proxy(&[("limits", "{ login_timeout: 300ms }")]);
    for sent in [&b""[..], &app().packet()[..7], &app().packet()] {
        let mut tcp = socket(proxy.port);
        tcp.write_all(sent).unwrap();
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).unwrap();
        assert!(answer.windows(5).any(|part| part == b"08P01"), "{}", answer.escape_ascii());
    }
    wait_until("a quick one comes in", || {
        Wire::connect(proxy.port, &app()).is_ok_and(|mut wire| wire.value("SELECT 1") == "1")
    });
    wait_until("they are forgotten", || proxy.clients() == 0);
}

#[test]
fn a_message_that_is_none_ends_its_client_with_a_reason() {
    let proxy = WORLD.proxy(&[("limits", "{ message_size: 1MiB }")]);
    let mut bystander = proxy.client();
    let many = [&1000_u16.to_be_bytes()[..], b"\0\0\0\x17"].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("length -1", b"Q\xff\xff\xff\xff".to_vec()),
        ("length 0", b"Q\0\0\0\0".to_vec()),
        ("length 3", b"Q\0\0\0\x03".to_vec()),
        ("length 2 GiB", b"Q\x7f\xff\xff\xff".to_vec()),
        ("length -1 of copy data", b"d\xff\xff\xff\xff".to_vec()),
        ("longer than allowed", [&b"Q\0\x20\0\0"[..], &[b' '; 5000]].concat()),
        ("an unknown type", tagged(b'!', b"what")),
        ("a server's type", tagged(b'Z', b"I")),
        ("a query without its end", tagged(b'Q', b"SELECT 1")),
        ("a query with something behind its end", tagged(b'Q', b"SELECT 1\0\0")),
        ("an empty query message", tagged(b'Q', b"")),
        ("Parse without a text", tagged(b'P', b"name\0")),
        ("Parse with more types than bytes", tagged(b'P', &[&b"\0SELECT 1\0"[..], &many].concat())),
        ("Bind of nothing", tagged(b'B', b"")),
        ("Bind with more formats than bytes", tagged(b'B', &[&b"\0\0"[..], &many].concat())),
        ("Bind with a longer value than its message", tagged(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff")),
        ("Bind with a value of length -2", tagged(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0")),
        ("Describe of neither", tagged(b'D', b"Xname\0")),
        ("Close of nothing", tagged(b'C', b"")),
        ("Execute without a limit", tagged(b'E', b"\0")),
        ("Sync with a body", tagged(b'S', b"surplus")),
        ("a password now", tagged(b'p', b"secret\0")),
        ("a function call that is none", tagged(b'F', b"\0\0")),
    ];
    for (number, (name, bytes)) in cases.into_iter().enumerate() {
        for in_transaction in [false, true] {
            let mut wire = proxy.client();
            if in_transaction {
                wire.run("BEGIN; INSERT INTO rubbish VALUES (1)");
            }
            // Behind something that is fine, in one burst.
            drop(wire.try_send(&[query("SELECT 7"), bytes.clone(), sync(), terminate()].concat()));
            let frames = wire.until_closed();
            // pgweir's word, or the server's where the message could be passed on to it.
            let error = error_of(&frames).unwrap_or_else(|| panic!("{name}: {frames:?}"));
            let known = ["08P01", "26000", "42P02", "3F000", "34000", "25P02"];
            assert!(known.contains(&&*error.sqlstate()), "{name}: {frames:?}");
        }
        assert_served(&mut bystander, number);
    }
    bystander.terminate();
    assert_clean(&proxy);
    assert_eq!(proxy.client().value("/* pgweir.route=primary */ SELECT count(*) FROM rubbish"), "0");
}

#[test]
fn clients_that_stop_in_the_middle_of_a_message_hold_nothing() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2 }")]);
    let half: Vec<Wire> = (1..60)
        .map(|len| {
            let mut wire = proxy.client();
            let bytes = [unnamed("INSERT INTO torn VALUES (2)", &[]), sync()].concat();
            wire.send(&bytes[..len]);
            wire
        })
        .collect();
    let mut bystander = proxy.client();
    for number in 0..20 {
        assert_served(&mut bystander, number);
    }
    proxy.wait_quiet();
    drop(half);
    wait_until("they are forgotten", || proxy.clients() == 1);
    bystander.terminate();
    assert_eq!(proxy.client().value("/* pgweir.route=primary */ SELECT count(*) FROM torn"), "0");
}

#[test]
fn a_client_may_vanish_behind_every_single_byte() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 5 }")]);
    let mut bystander = proxy.client();
    let script = |n: usize| {
        [
            query("BEGIN"),
            parse("s", "INSERT INTO cut VALUES ($1)", &[23]),
            bind("", "s", &[Some(n.to_string().as_bytes())]),
            execute("", 0),
            sync(),
            query("COPY cut FROM STDIN"),
            copy_data(b"1000000\n"),
            copy_done(),
            query("COMMIT"),
        ]
        .concat()
    };
    let whole = script(100).len();
    for len in 1..=whole {
        let mut wire = proxy.client();
        let bytes = script(100 + len);
        let len = len.min(bytes.len() - 1);
        wire.send(&bytes[..len]);
        wire.vanish();
        if len % 10 == 0 {
            assert_served(&mut bystander, len);
        }
    }
    bystander.terminate();
    assert_clean(&proxy);
    wait_until("all are forgotten", || proxy.clients() == 0);
    // Nobody sent the whole COMMIT.
    assert_eq!(proxy.client().value("/* pgweir.route=primary */ SELECT count(*) FROM cut"), "0");
}

/// xorshift64*: a failure prints the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % sides
    }
}

fn random_message(dice: &mut Dice) -> Vec<u8> {
    let texts = [
        "SELECT 1",
        "SELECT $1::int",
        "SELECT 1/0",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "INSERT INTO noise VALUES (9)",
        "SET work_mem = '5MB'",
        "SET LOCAL search_path = nowhere",
        "SET ROLE nobody",
        "COPY noise FROM STDIN",
        "COPY (SELECT generate_series(1, 3000)) TO STDOUT",
        "SELECT repeat('x', 300000)",
        "LISTEN noise",
        "PREPARE p AS SELECT 1",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "CREATE TEMP TABLE mine (n int)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SHOW pgweir.route",
        "SET pgweir.route = primary",
        "EXPLAIN (ROUTE) SELECT 1",
        "",
        "SELECT '",
    ];
    let names = ["", "a", "b"];
    let text = texts[dice.roll(texts.len())];
    let name = names[dice.roll(3)];
    let portal = names[dice.roll(3)];
    let mut message = match dice.roll(16) {
        0..=3 => query(text),
        4 | 5 => parse(name, text, &[]),
        6 | 7 => bind(portal, name, if dice.roll(2) == 0 { &[] } else { &[Some(b"5")] }),
        8 => describe(b"SP"[dice.roll(2)], name),
        9 | 10 => execute(portal, dice.roll(3) as u32),
        11 => close(b"SP"[dice.roll(2)], name),
        12 => [copy_data(b"1\n"), copy_done(), copy_fail("no")][dice.roll(3)].clone(),
        13 => flush(),
        _ => sync(),
    };
    // Now and then something is broken about it.
    match dice.roll(40) {
        0 => {
            let at = dice.roll(message.len());
            message[at] ^= 1 << dice.roll(8);
        }
        1 => message.truncate(dice.roll(message.len())),
        2 => message.extend((0..dice.roll(20)).map(|_| dice.roll(256) as u8)),
        _ => {}
    }
    message
}

/// Another one each time, or that of an earlier time.
fn seed() -> u64 {
    let seed = std::env::var("PGWEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| RandomState::new().hash_one("seed") | 1);
    println!("PGWEIR_TEST_SEED={seed}");
    seed
}

#[test]
fn random_messages_are_answered_or_refused_and_leave_nothing_behind() {
    let seed = seed();
    let mut dice = Dice(seed);
    let proxy = WORLD.proxy(&[("pool", "{ size: 5 }")]);
    let mut bystander = proxy.client();
    for round in 0..150 {
        let messages: Vec<Vec<u8>> = (0..1 + dice.roll(25)).map(|_| random_message(&mut dice)).collect();
        let mut wire = proxy.client();
        let bytes = [messages.concat(), sync(), terminate()].concat();
        let mut writer = wire.tcp.as_ref().unwrap().try_clone().unwrap();
        // Who reads and who writes is not to matter; it may be disconnected before the end.
        let writing = std::thread::spawn(move || {
            drop(writer.write_all(&bytes));
            drop(writer.shutdown(Shutdown::Write));
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wire.until_closed()));
        writing.join().unwrap();
        let shown: Vec<String> = messages.iter().map(|m| m.escape_ascii().to_string()).collect();
        assert!(outcome.is_ok(), "round {round} of seed {seed} hangs: {shown:#?}");
        let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_served(&mut bystander, round);
        }));
        assert!(served.is_ok(), "round {round} of seed {seed} harms others: {shown:#?}");
    }
    bystander.terminate();
    assert_clean(&proxy);
}

#[test]
fn random_bytes_are_refused() {
    let seed = seed();
    let mut dice = Dice(seed);
    let proxy = WORLD.proxy(&[]);
    for round in 0..100 {
        let bytes: Vec<u8> = (0..1 + dice.roll(500)).map(|_| dice.roll(256) as u8).collect();
        let mut tcp = socket(proxy.port);
        drop(tcp.write_all(&bytes));
        drop(tcp.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        drop(tcp.read_to_end(&mut answer));
        let mut wire = proxy.client();
        drop(wire.try_send(&bytes));
        drop(wire.tcp.as_ref().unwrap().shutdown(Shutdown::Write));
        wire.until_closed();
        assert!(!answer.ends_with(b"Z\0\0\0\x05I"), "round {round} of {seed}");
    }
    assert_clean(&proxy);
}
