//! The short form of `make failover`: two rounds of everything, on real clusters, under load. Times are
//! measured, and judged there only: here other tests use the machine, too.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/events.rs"]
mod events;
#[path = "support/fault_proxy.rs"]
mod fault_proxy;
#[path = "support/harness.rs"]
mod harness;
#[path = "support/load.rs"]
mod load;
#[path = "support/patroni.rs"]
mod patroni;
#[path = "support/patroni_theatre.rs"]
mod patroni_theatre;
#[path = "support/sockets.rs"]
mod sockets;
#[path = "support/theatre.rs"]
mod theatre;
#[path = "support/watchers.rs"]
mod watchers;
#[path = "support/wires.rs"]
mod wires;

use std::time::{Duration, Instant};

use events::{EVENTS, Event, Outcome, PATRONI_EVENTS, Times};
use load::Crowd;
use patroni::{Commits, Patroni};
use patroni_theatre::{Known, PatroniTheatre};
use pgweir::cli::check_consistency::Report;
use theatre::Theatre;
use wires::Lost;

const CROWD: Crowd =
    Crowd { writers: 4, in_transactions: 1, readers: 6, idle: 20, rest: Duration::from_millis(30) };

/// Two rounds, each on a cluster of its own, at the same time: they wait for servers most of the time.
fn rounds<T: Copy + Send>(kinds: [T; 2], round: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for kind in kinds {
            let round = &round;
            scope.spawn(move || round(kind));
        }
    });
}

fn judge(event: Event, begun: Instant, outcome: &Outcome) {
    println!("{} ({:.1?}): {outcome:?}", event.name(), begun.elapsed());
    assert_eq!(
        outcome.faults(event, Times::Measured),
        Vec::<String>::new(),
        "{}: {outcome:#?}",
        event.name()
    );
}

fn judge_all(report: &Report) {
    assert_eq!(report.violations_total(), 0, "{}", report.table(3));
}

#[test]
fn nothing_that_happens_to_servers_or_networks_loses_a_write_or_a_client_or_shows_the_past() {
    rounds([0, 5], |before| {
        let stage = theatre::stage();
        let mut theatre = Theatre::open(&stage, CROWD, before);
        for event in EVENTS {
            let begun = Instant::now();
            let outcome = theatre.play(event);
            judge(event, begun, &outcome);
        }
        judge_all(&theatre.close());
    });
}

#[test]
fn nothing_that_patroni_does_or_suffers_loses_a_write_or_a_client_or_shows_the_past() {
    rounds([Known::Listed, Known::ToPatroni], |known| {
        let stage = patroni_theatre::stage();
        if let Some(program) = patroni::missing(stage.cluster.binaries()) {
            println!("not played: PG_BIN has no {program}, which Patroni needs");
            return;
        }
        let patroni = Patroni::over(&stage.cluster, Commits::Synchronous);
        let theatre = PatroniTheatre::open(&stage, &patroni, CROWD, known);
        for event in PATRONI_EVENTS {
            let begun = Instant::now();
            let outcome = theatre.play(event);
            judge(event, begun, &outcome);
        }
        judge_all(&theatre.close());
    });
}

#[test]
fn what_vanishes_in_a_network_of_its_own_is_answered_by_nobody_and_the_rest_arrives() {
    let (wires, listener) = match wires::Wires::lay() {
        Ok(laid) => laid,
        Err(why) => return println!("not played: {why}"),
    };
    let address = listener.local_addr().unwrap();
    let connect = |within| std::net::TcpStream::connect_timeout(&address, within);
    let long = Duration::from_secs(10);
    connect(long).unwrap();
    for (to_server, to_client) in [(true, true), (true, false), (false, true)] {
        wires.lose(Lost { to_server, to_client });
        let silence = connect(Duration::from_millis(300)).unwrap_err();
        assert_eq!(silence.kind(), std::io::ErrorKind::TimedOut);
        wires.lose(Lost::default());
        connect(long).unwrap();
    }
}
