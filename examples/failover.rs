//! What `make failover` proves: a real cluster, pgweir in front of it, clients that write, read and wait,
//! and everything that can happen to servers and networks. What applications notice of it is counted.
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

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use events::{EVENTS, Event, Outcome, Theatre};
use load::Crowd;

fn main() -> ExitCode {
    let rounds = number("FAILOVER_ROUNDS", 20);
    let crowd = Crowd { writers: 8, in_transactions: 2, readers: 16, idle: number("FAILOVER_IDLE", 500) };
    let only = std::env::var("FAILOVER_ONLY").unwrap_or_default();
    let stage = events::stage();
    println!(
        "PostgreSQL {}: a primary and 2 standbys, one of which confirms each commit; {crowd:?}",
        stage.cluster.binaries().version()
    );
    let mut theatre = Theatre::open(&stage, crowd);
    let mut table = BTreeMap::new();
    for event in EVENTS.into_iter().filter(|event| event.name().contains(&only)) {
        for round in 1..=rounds {
            let begun = Instant::now();
            let outcome = theatre.play(event);
            println!(
                "{} {round}/{rounds} ({:.1} s): {}",
                event.name(),
                begun.elapsed().as_secs_f32(),
                line(&outcome)
            );
            table.entry(event).or_insert_with(Row::default).add(outcome);
        }
    }
    theatre.close();
    println!("{}", render(&table));
    let mut examples = BTreeMap::new();
    table.values().for_each(|row| examples.extend(row.sum.examples.clone()));
    for (code, example) in &examples {
        println!("{code}: {example}");
    }
    let failed = table.iter().filter(|(event, row)| !row.is_right(**event)).count();
    println!("{}", if failed == 0 { "ok".to_owned() } else { format!("FAILED: {failed} events") });
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
}

impl Row {
    fn add(&mut self, round: Outcome) {
        self.rounds += 1;
        let sum = &mut self.sum;
        for (code, count) in round.errors {
            *sum.errors.entry(code).or_default() += count;
        }
        sum.examples.extend(round.examples);
        sum.disconnects += round.disconnects;
        sum.write_gap = sum.write_gap.max(round.write_gap);
        sum.read_gap = sum.read_gap.max(round.read_gap);
        sum.servers_back = sum.servers_back.max(round.servers_back);
        sum.lost += round.lost;
        sum.stale.extend(round.stale);
        sum.astray += round.astray;
        sum.idle_lost += round.idle_lost;
    }

    /// What must hold of every event.
    fn is_right(&self, event: Event) -> bool {
        let sum = &self.sum;
        let quiet = |code: &String| event.allows(code);
        sum.lost == 0
            && sum.stale.is_empty()
            && sum.astray == 0
            && sum.idle_lost == 0
            && (sum.disconnects == 0 || !event.keeps_clients())
            && sum.errors.keys().all(quiet)
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn errors(outcome: &Outcome) -> String {
    let each: Vec<String> = outcome.errors.iter().map(|(code, count)| format!("{count} × {code}")).collect();
    if each.is_empty() { "0".to_owned() } else { each.join("\n") }
}

fn line(outcome: &Outcome) -> String {
    format!(
        "errors {}; {} disconnected; writes stood still for {}, reads for {}; servers back after {}; lost {}, astray {}, idle lost {}, stale {:?}",
        errors(outcome).replace('\n', ", "),
        outcome.disconnects,
        seconds(outcome.write_gap),
        seconds(outcome.read_gap),
        outcome.servers_back.map_or("-".to_owned(), seconds),
        outcome.lost,
        outcome.astray,
        outcome.idle_lost,
        outcome.stale,
    )
}

fn render(rows: &BTreeMap<Event, Row>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "Event",
        "Rounds",
        "Errors",
        "Disconnected",
        "Longest write gap",
        "Servers' own",
        "Longest read gap",
        "Lost",
        "Astray",
        "Stale",
        "Idle lost",
    ]);
    for (event, row) in rows {
        let sum = &row.sum;
        table.add_row([
            event.name().to_owned(),
            row.rounds.to_string(),
            errors(sum),
            sum.disconnects.to_string(),
            seconds(sum.write_gap),
            sum.servers_back.map_or("-".to_owned(), seconds),
            seconds(sum.read_gap),
            sum.lost.to_string(),
            sum.astray.to_string(),
            sum.stale.len().to_string(),
            sum.idle_lost.to_string(),
        ]);
    }
    table
}
