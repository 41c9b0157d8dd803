//! The cores of consistency and failover in virtual time: clients, a primary, replicas and the monitor in
//! whatever order a seed says, while samples get lost, nodes crash, fall back and are promoted. The
//! invariants of DESIGN §2 are checked at every step.
//!
//! `PGWEIR_SIM_SEEDS=100000` runs so many seeds, `PGWEIR_SIM_SEED=17` the one and tells its story.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::collapsible_match, reason = "a match guard should change nothing")]

/// A line of the story, if anybody wants to hear it.
macro_rules! tell {
    ($world:expr, $($what:tt)*) => {
        if $world.story.is_some() {
            let line = format!("{:>10}us  {}", $world.now.0 / 1000, format_args!($($what)*));
            $world.story.iter_mut().for_each(|story| story.push(line.clone()));
        }
    };
}

#[path = "simulation/chance.rs"]
mod chance;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/monitor.rs"]
mod monitor;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/servers.rs"]
mod servers;
#[path = "simulation/world.rs"]
mod world;

use pgweir::freshness::defect::Defect;
use plan::{Plan, shrunk};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Stats, run};

/// Seeds that once failed: reads that waited for the proof of a replica which became the primary of an old
/// timeline; transactions that went on on a node that was rebuilt, or behind news of a newer timeline.
/// (What a seed means changes with `plan.rs`.)
const CORPUS: [u64; 7] = [27_067, 27_068, 27_218, 27_601, 28_062, 28_507, 28_815];

/// Of the seeds below `count`, the lowest that fails; and what all of them did.
fn first_failure(count: u64, defect: Defect) -> (Option<u64>, Stats) {
    let (next, lowest) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let stats = Mutex::new(Stats::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Stats::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count.min(lowest.load(Ordering::Relaxed)) {
                        break;
                    }
                    let (outcome, stats, _) = run(&Plan::of(seed, defect), false);
                    own.add(stats);
                    if outcome.is_err() {
                        lowest.fetch_min(seed, Ordering::Relaxed);
                    }
                }
                stats.lock().unwrap().add(own);
            });
        }
    });
    let lowest = lowest.into_inner();
    ((lowest != u64::MAX).then_some(lowest), stats.into_inner().unwrap())
}

/// What led to it, in as few steps as it needs.
fn story(seed: u64, defect: Defect) -> String {
    let plan = Plan::of(seed, defect);
    let short = shrunk(&plan, |plan| run(plan, false).0.is_err());
    let (outcome, _, lines) = run(&short, true);
    let wrong = outcome.err().unwrap_or_default();
    format!(
        "seed {seed}: {wrong}\n{:#?}\n{} of its {} steps lead there:\n{}\n{wrong}\nagain: PGWEIR_SIM_SEED={seed} \
         cargo test --test simulation",
        short.setting,
        short.steps.len(),
        plan.steps.len(),
        lines.join("\n")
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_happens_in_whatever_order_nobody_reads_what_is_behind_them() {
    if let Some(seed) = number("PGWEIR_SIM_SEED") {
        let (outcome, stats, lines) = run(&Plan::of(seed, Defect::None), true);
        assert!(outcome.is_ok(), "{}", story(seed, Defect::None));
        println!("{}\n{stats:?}", lines.join("\n"));
        return;
    }
    for seed in CORPUS {
        assert!(run(&Plan::of(seed, Defect::None), false).0.is_ok(), "{}", story(seed, Defect::None));
    }
    let count = number("PGWEIR_SIM_SEEDS").unwrap_or(4_000);
    let (failed, stats) = first_failure(count, Defect::None);
    if let Some(seed) = failed {
        panic!("{}", story(seed, Defect::None));
    }
    println!("{count} seeds: {stats:?}");
    assert!(stats.on_replicas > count, "replicas serve, or nothing was tested: {stats:?}");
    assert!(stats.promotions > count / 10 && stats.crashes > count / 10, "{stats:?}");
    assert!(stats.unaware < stats.sent / 20, "nearly every read is checked: {stats:?}");
}

#[test]
fn without_one_of_its_mechanisms_a_seed_fails() {
    let defects = [
        Defect::SampleInFlight,
        Defect::WrittenPosition,
        Defect::KeptPosition,
        Defect::UnroundedPosition,
        Defect::AnyReplica,
        Defect::AnyBranch,
        Defect::ForgottenRead,
        Defect::ForgottenArrival,
    ];
    for defect in defects {
        let (found, _) = first_failure(10_000, defect);
        let seed = found.unwrap_or_else(|| panic!("{defect:?} is not found in 10,000 seeds"));
        println!("{defect:?}: {}\n", story(seed, defect));
    }
}
