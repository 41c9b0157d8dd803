//! The short form of `make failover`: one round of what matters most, on a real cluster, under load.
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

use events::{Event, Theatre};
use load::Crowd;

#[test]
fn nothing_that_happens_to_servers_or_networks_loses_a_write_or_a_client_or_shows_the_past() {
    let stage = events::stage();
    let crowd = Crowd { writers: 4, in_transactions: 1, readers: 6, idle: 20 };
    let mut theatre = Theatre::open(&stage, crowd);
    let short = [
        Event::PrimaryKilled,
        Event::SwitchoverAsync,
        Event::SwitchoverPaused,
        Event::NoReplicaLeft,
        Event::CutFromPrimaryAndPromotion,
        Event::SplitBrain,
        Event::RollingRestart,
        Event::PgweirReplaced,
    ];
    for event in short {
        let outcome = theatre.play(event);
        println!("{}: {outcome:?}", event.name());
        let name = event.name();
        assert_eq!((outcome.lost, outcome.astray, outcome.idle_lost), (0, 0, 0), "{name}: {outcome:?}");
        assert_eq!(outcome.stale, Vec::<String>::new(), "{name}");
        assert!(!event.keeps_clients() || outcome.disconnects == 0, "{name}: {outcome:?}");
        assert!(outcome.errors.keys().all(|code| event.allows(code)), "{name}: {outcome:?}");
    }
    theatre.close();
}
