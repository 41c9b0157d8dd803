//! What `make failover` proves: real clusters, pgweir in front of them, clients that write, read and wait,
//! and everything that can happen to servers and networks. What applications notice of it is counted, and
//! judged, times included.
//!
//! `FAILOVER_ROUNDS` (20), `FAILOVER_IDLE` (500), `FAILOVER_ONLY` (a part of an event's name).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/events.rs"]
mod events;
#[path = "../tests/support/fault_proxy.rs"]
mod fault_proxy;
#[path = "../tests/support/harness.rs"]
mod harness;
#[path = "../tests/support/load.rs"]
mod load;
#[path = "../tests/support/patroni.rs"]
mod patroni;
#[path = "../tests/support/patroni_theatre.rs"]
mod patroni_theatre;
#[path = "../tests/support/sockets.rs"]
mod sockets;
#[path = "../tests/support/theatre.rs"]
mod theatre;
#[path = "../tests/support/watchers.rs"]
mod watchers;
#[path = "../tests/support/wires.rs"]
mod wires;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use events::{EVENTS, Event, Outcome, PATRONI_EVENTS, Times};
use load::Crowd;
use patroni::{Commits, Patroni};
use patroni_theatre::{Known, PatroniTheatre};
use pgweir::cli::check_consistency::Report;
use theatre::Theatre;

fn main() -> ExitCode {
    let rounds = number("FAILOVER_ROUNDS", 20);
    let idle = number("FAILOVER_IDLE", 500);
    let rest = Duration::from_millis(4);
    let crowd = Crowd { writers: 8, in_transactions: 2, readers: 16, idle, rest };
    let only = std::env::var("FAILOVER_ONLY").unwrap_or_default();
    let wanted = |events: &[Event]| -> Vec<Event> {
        events.iter().copied().filter(|event| event.name().contains(&only)).collect()
    };
    let (bare, ruled) = (wanted(&EVENTS), wanted(&PATRONI_EVENTS));
    let all: Duration = bare.iter().chain(&ruled).map(|event| event.usual()).sum();
    let minutes = (all * rounds as u32).as_secs_f64() / 60.0;
    println!(
        "{} events, {rounds} rounds each: about {minutes:.0} minutes; {crowd:?}",
        bare.len() + ruled.len()
    );
    let mut play = Play { rounds, table: BTreeMap::new(), violations: 0 };
    if !bare.is_empty() {
        play.without_patroni(&bare, crowd);
    }
    if !ruled.is_empty() {
        // Half of the rounds each.
        let half = rounds.div_ceil(2);
        play.with_patroni(&ruled, crowd, Known::Listed, 1..=half);
        if half < rounds {
            play.with_patroni(&ruled, crowd, Known::ToPatroni, half + 1..=rounds);
        }
    }
    play.tell()
}

fn number(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")),
        Err(_) => default,
    }
}

/// All rounds of an event.
#[derive(Default)]
struct Row {
    rounds: usize,
    sum: Outcome,
    /// Each round is judged for itself.
    faults: Vec<String>,
}

/// All events.
struct Play {
    rounds: usize,
    table: BTreeMap<Event, Row>,
    violations: u64,
}

impl Play {
    fn without_patroni(&mut self, events: &[Event], crowd: Crowd) {
        let stage = theatre::stage();
        let version = stage.cluster.binaries().version();
        println!("PostgreSQL {version}: a primary and 2 standbys, one of which confirms each commit");
        let mut theatre = Theatre::open(&stage, crowd, 0);
        for &event in events {
            for round in 1..=self.rounds {
                self.round(event, round, || theatre.play(event));
            }
        }
        self.examined(&theatre.close());
    }

    fn with_patroni(&mut self, events: &[Event], crowd: Crowd, known: Known, rounds: RangeInclusive<usize>) {
        let stage = patroni_theatre::stage();
        let patroni = Patroni::over(&stage.cluster, Commits::Synchronous);
        println!("{}: {} nodes, for pgweir {known:?}", patroni.version(), stage.cluster.nodes().len());
        let theatre = PatroniTheatre::open(&stage, &patroni, crowd, known);
        for &event in events {
            for round in rounds.clone() {
                self.round(event, round, || theatre.play(event));
            }
        }
        self.examined(&theatre.close());
    }

    fn round(&mut self, event: Event, number: usize, play: impl FnOnce() -> Outcome) {
        let begun = Instant::now();
        let outcome = play();
        let took = begun.elapsed().as_secs_f32();
        println!("{} {number}/{} ({took:.1} s): {}", event.name(), self.rounds, line(&outcome));
        let faults = outcome.faults(event, Times::Judged);
        faults.iter().for_each(|fault| println!("  FAULT: {fault}"));
        outcome.stale.iter().for_each(|stale| println!("  {stale}"));
        let row = self.table.entry(event).or_default();
        row.rounds += 1;
        row.faults.extend(faults);
        row.sum.add(outcome);
    }

    fn examined(&mut self, report: &Report) {
        self.violations += report.violations_total();
        println!("the consistency checker beside them: {}", report.table(3));
    }

    /// The table, an example of each error, and the verdict.
    fn tell(&self) -> ExitCode {
        println!("{}", render(&self.table));
        let mut examples = BTreeMap::new();
        self.table.values().for_each(|row| examples.extend(row.sum.examples.clone()));
        for (code, example) in &examples {
            println!("{code}: {example}");
        }
        for (event, row) in &self.table {
            row.faults.iter().for_each(|fault| println!("FAULT: {}: {fault}", event.name()));
        }
        let failed = self.table.values().filter(|row| !row.faults.is_empty()).count();
        if failed == 0 && self.violations == 0 {
            println!("ok");
            return ExitCode::SUCCESS;
        }
        println!("FAILED: {failed} events, {} violations", self.violations);
        ExitCode::FAILURE
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn maybe(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), seconds)
}

fn errors(outcome: &Outcome) -> String {
    let each: Vec<String> = outcome.errors.iter().map(|(code, count)| format!("{count} × {code}")).collect();
    if each.is_empty() { "0".to_owned() } else { each.join("\n") }
}

fn line(outcome: &Outcome) -> String {
    format!(
        "errors {}; {} disconnected; no write for {} (servers {}, after the election {}), no read for {}; lost {}, denied {}, stale {}, violations {}, astray {}, idle lost {}",
        errors(outcome).replace('\n', ", "),
        outcome.disconnects,
        seconds(outcome.write_gap),
        maybe(outcome.servers_gap),
        maybe(outcome.after_leader),
        seconds(outcome.read_gap),
        outcome.lost,
        outcome.denied,
        outcome.stale.len(),
        outcome.violations,
        outcome.astray,
        outcome.idle_lost,
    )
}

fn render(rows: &BTreeMap<Event, Row>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "Event",
        "Rounds",
        "Errors",
        "Discon-\nnected",
        "Longest\nwrite gap",
        "Servers'\nown",
        "After the\nelection",
        "Longest\nread gap",
        "Lost",
        "Denied",
        "Stale",
        "Viola-\ntions",
        "Astray",
        "Idle\nlost",
    ]);
    for (event, row) in rows {
        let sum = &row.sum;
        table.add_row([
            event.name().to_owned(),
            row.rounds.to_string(),
            errors(sum),
            sum.disconnects.to_string(),
            seconds(sum.write_gap),
            maybe(sum.servers_gap),
            maybe(sum.after_leader),
            seconds(sum.read_gap),
            sum.lost.to_string(),
            sum.denied.to_string(),
            sum.stale.len().to_string(),
            sum.violations.to_string(),
            sum.astray.to_string(),
            sum.idle_lost.to_string(),
        ]);
    }
    table
}
