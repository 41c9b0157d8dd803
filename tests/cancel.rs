//! Cancel requests reach what their client is doing, wherever that stands, and nobody else.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use pgweir::devcluster::Options;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(0));
    world.cluster.primary().sql_as("app", "app", "CREATE TABLE left_behind (word text)").unwrap();
    world
});

fn client(proxy: &Running, minor: u16) -> Wire {
    Wire::connect(proxy.port, &app().speaking(minor)).unwrap()
}

/// How many sessions run exactly this.
fn running(sql: &str) -> usize {
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{sql}' AND state = 'active'");
    WORLD.cluster.primary().sql_value(&count).unwrap().unwrap().parse().unwrap()
}

/// What became of one client's statements.
#[derive(Default)]
struct Counts {
    canceled: AtomicUsize,
    ran: AtomicUsize,
}

/// Short statements until `over`. Whatever goes wrong but a cancel fails the test.
fn run_statements(mut wire: Wire, counts: &Counts, may_be_canceled: bool, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        match error_of(&wire.query("SELECT pg_sleep(0.001)")) {
            None => counts.ran.fetch_add(1, Ordering::Relaxed),
            Some(error) => {
                let expected = may_be_canceled && error.sqlstate() == "57014";
                if !expected {
                    over.store(true, Ordering::Relaxed);
                    panic!("victim: {may_be_canceled}: {error:?}");
                }
                counts.canceled.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// Three server connections change hands with every statement of eight clients, while cancel requests
/// come for four of them all the time: in the middle of a statement, between two, in line.
#[test]
fn in_a_storm_of_cancel_requests_nobody_else_is_hit() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 3, wait_timeout: 60s }")]);
    let clients: Vec<Wire> = (0..8).map(|n| client(&proxy, if n % 2 == 0 { 0 } else { 2 })).collect();
    let keys: Vec<(u32, Vec<u8>)> = clients.iter().map(|wire| (wire.pid, wire.secret.clone())).collect();
    let (victims, bystanders) = keys.split_at(4);
    let counts: [Counts; 8] = Default::default();
    let (over, port) = (AtomicBool::new(false), proxy.port);
    thread::scope(|scope| {
        for (n, wire) in clients.into_iter().enumerate() {
            let (counts, over) = (&counts[n], &over);
            scope.spawn(move || run_statements(wire, counts, n < 4, over));
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    victims.iter().for_each(|(pid, secret)| cancel(port, *pid, secret));
                    // A process id alone, or with somebody else's secret, is no key.
                    let stolen = victims.iter().zip(bystanders);
                    stolen.for_each(|((_, secret), (pid, _))| cancel(port, *pid, secret));
                }
            });
        }
        let end = Instant::now() + LONG;
        let is_done = || {
            counts[..4].iter().all(|victim| victim.canceled.load(Ordering::Relaxed) >= 10)
                && counts[4..].iter().all(|bystander| bystander.ran.load(Ordering::Relaxed) >= 200)
        };
        while !is_done() && !over.load(Ordering::Relaxed) && Instant::now() < end {
            thread::sleep(std::time::Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
    });
    let seen = |of: &[Counts]| -> Vec<(usize, usize)> {
        let pair = |c: &Counts| (c.ran.load(Ordering::Relaxed), c.canceled.load(Ordering::Relaxed));
        of.iter().map(pair).collect()
    };
    println!("(ran, canceled): victims {:?}, bystanders {:?}", seen(&counts[..4]), seen(&counts[4..]));
    assert!(seen(&counts[..4]).iter().all(|(_, canceled)| *canceled > 0), "{:?}", seen(&counts[..4]));
    proxy.wait_quiet();
}

#[test]
fn only_the_whole_key_is_a_key() {
    let proxy = WORLD.proxy(&[]);
    for minor in [0, 2] {
        let mut wire = client(&proxy, minor);
        let sql = format!("SELECT pg_sleep(60 + {minor})");
        // Of an idle client there is nothing to cancel.
        cancel(proxy.port, wire.pid, &wire.secret);
        wire.send(&query(&sql));
        wait_until("it runs", || running(&sql) == 1);
        let right = wire.secret.clone();
        let last = right.len() - 1;
        let mut flipped = right.clone();
        flipped[last] ^= 1;
        let wrong = [
            flipped,
            [&right[..], &[0]].concat(),
            [&right[..], &[0; 64]].concat(),
            right[..last.max(4)].to_vec(),
            vec![0; right.len()],
        ];
        for secret in wrong.iter().filter(|secret| **secret != right) {
            cancel(proxy.port, wire.pid, secret);
        }
        cancel(proxy.port, wire.pid ^ 1, &right);
        assert_eq!(running(&sql), 1);
        cancel(proxy.port, wire.pid, &right);
        assert_eq!(error_of(&wire.until_ready()).unwrap().sqlstate(), "57014");
        assert_eq!(wire.value("SELECT 1"), "1");
    }
}

/// A client that keeps the pool's only connection.
fn occupied() -> (Running, Wire) {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1, wait_timeout: 60s }")]);
    let mut holder = proxy.client();
    holder.run("BEGIN");
    (proxy, holder)
}

fn wait_in_line(proxy: &Running, count: u64) {
    wait_until("they wait in line", || proxy.pools().2 == count);
}

#[test]
fn whoever_waits_in_line_can_be_canceled() {
    let (proxy, mut holder) = occupied();
    for minor in [0, 2] {
        let mut waiter = client(&proxy, minor);
        waiter.send(&query("SELECT txid_current()"));
        wait_in_line(&proxy, 1);
        cancel(proxy.port, waiter.pid, &waiter.secret);
        let error = error_of(&waiter.until_ready()).unwrap();
        assert_eq!(error.sqlstate(), "57014");
        assert_eq!(error.message(), "canceling statement due to user request");
        // The one in line behind it is served, and so is it when it asks again.
        let group = [unnamed("SELECT txid_current()", &[]), sync()].concat();
        waiter.send(&group);
        wait_in_line(&proxy, 1);
        holder.run("COMMIT");
        assert!(error_of(&waiter.until_ready()).is_none());
        holder.run("BEGIN");
    }
    holder.run("COMMIT");
    assert_eq!(holder.value("SELECT 1"), "1");
    proxy.wait_quiet();
}

#[test]
fn whoever_vanishes_leaves_the_line() {
    let (proxy, mut holder) = occupied();
    let mut waiters: Vec<Wire> = (0..3).map(|_| proxy.client()).collect();
    for waiter in &mut waiters {
        waiter.send(&query("INSERT INTO left_behind VALUES ('vanished')"));
    }
    wait_in_line(&proxy, 3);
    waiters.into_iter().for_each(Wire::vanish);
    wait_until("only the holder is left", || proxy.clients() == 1);
    // A goodbye behind a statement is another thing: the statement runs, as on PostgreSQL.
    let mut leaver = proxy.client();
    leaver.send(&[query("INSERT INTO left_behind VALUES ('said goodbye')"), terminate()].concat());
    wait_in_line(&proxy, 1);
    leaver.vanish();
    holder.run("COMMIT");
    wait_until("all are gone", || proxy.clients() == 1);
    proxy.wait_quiet();
    assert_eq!(holder.rows("SELECT word FROM left_behind"), [[Some("said goodbye".to_owned())]]);
}
