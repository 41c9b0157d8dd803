//! What a seed means: a setting and a list of steps. A step that makes no sense when its turn comes does
//! nothing, so any step can be cut out of a list, and a story shrinks to what it needs.

use crate::chance::Chance;
use pgweir::freshness::defect::Defect;
use pgweir::routing::request::{Balance, Consistency, OnLag, PinAfterWrite};
use std::time::Duration;

/// What stays the same while a seed runs.
#[derive(Clone, Debug)]
pub struct Setting {
    pub nodes: usize,
    /// The level of each client.
    pub levels: Vec<Consistency>,
    pub on_lag: OnLag,
    pub wait: Duration,
    pub balance: Balance,
    pub pin_after_write: PinAfterWrite,
    pub max_staleness: Duration,
    /// May two samples of one node be in flight, and their answers overtake each other?
    pub reorders: bool,
    /// May two standbys be promoted to one timeline?
    pub twins: bool,
    pub defect: Defect,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A client goes on.
    Client,
    /// The monitor goes on with a node.
    Probe,
    Receive,
    Replay,
    /// The WAL writer.
    Flush,
    /// Somebody who does not use pgweir commits.
    Neighbour,
    /// Many small records and samples.
    Burst,
    Pause,
    Restartpoint,
    Crash,
    Start,
    CutLink,
    Follow,
    Promote,
    Rejoin,
    /// Time passes, and nothing else.
    Wait,
}

#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub what: What,
    /// Decides everything that is left open.
    pub choice: u64,
    /// How much later than the step before, in nanoseconds.
    pub after: u64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub setting: Setting,
    pub steps: Vec<Step>,
}

/// How often a step is drawn, and whether a seed may go without it.
const WEIGHTS: [(What, u64, bool); 15] = [
    (What::Client, 300, false),
    (What::Probe, 400, false),
    (What::Receive, 150, false),
    (What::Replay, 150, false),
    (What::Flush, 30, false),
    (What::Neighbour, 30, true),
    (What::Pause, 10, true),
    (What::Restartpoint, 15, true),
    (What::Crash, 12, true),
    (What::Start, 30, false),
    (What::CutLink, 10, true),
    (What::Follow, 15, false),
    (What::Promote, 5, true),
    (What::Rejoin, 10, true),
    (What::Wait, 10, true),
];

impl Plan {
    pub fn of(seed: u64, defect: Defect) -> Plan {
        let mut chance = Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let setting = Setting::draw(&mut chance, defect);
        // Each seed prefers other steps: what all of them do, no seed does often.
        let mut weights = WEIGHTS.map(|(what, weight, optional)| match chance.below(4) {
            0 if optional => (what, 0),
            1 => (what, weight * 3),
            _ => (what, weight),
        });
        if setting.twins {
            weights[12].1 += 10;
        }
        let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let pace = chance.of(&[20_000, 100_000, 400_000]);
        let count = 100 + chance.below(600);
        let mut steps: Vec<Step> = (0..count)
            .map(|_| {
                let mut slot = chance.below(total);
                let drawn = weights.iter().find(|(_, weight)| {
                    let here = slot < *weight;
                    slot = slot.saturating_sub(*weight);
                    here
                });
                let what = drawn.map_or(What::Wait, |(what, _)| *what);
                Step { what, choice: chance.next(), after: 1000 + chance.below(pace) }
            })
            .collect();
        if seed.is_multiple_of(200) {
            let step = Step { what: What::Burst, choice: chance.next(), after: 1000 };
            steps.insert(steps.len() / 2, step);
        }
        Plan { setting, steps }
    }
}

impl Setting {
    fn draw(chance: &mut Chance, defect: Defect) -> Setting {
        use Consistency::{Eventual, Global, Session, Strict};
        let levels = [Session, Session, Session, Eventual, Global, Global, Strict, Eventual];
        Setting {
            nodes: 2 + chance.below(3) as usize,
            levels: (0..1 + chance.below(4)).map(|_| chance.of(&levels)).collect(),
            on_lag: chance.of(&[OnLag::Primary, OnLag::Primary, OnLag::Wait, OnLag::Error]),
            wait: Duration::from_millis(chance.of(&[0, 3, 20])),
            balance: chance.of(&[Balance::Lag, Balance::LeastBusy, Balance::Latency, Balance::Random]),
            pin_after_write: chance.of(&[
                PinAfterWrite::UntilCaughtUp,
                PinAfterWrite::UntilCaughtUp,
                PinAfterWrite::UntilCaughtUp,
                PinAfterWrite::For(Duration::from_millis(2)),
            ]),
            max_staleness: Duration::from_millis(chance.of(&[3, 30, 300, 10_000])),
            reorders: chance.one_in(3),
            twins: chance.one_in(20),
            defect,
        }
    }
}

/// The fewest steps that still fail, or nearly: larger and smaller pieces are cut out in turn.
pub fn shrunk(plan: &Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut runs = 0;
    let mut piece = (best.steps.len() / 2).max(1);
    loop {
        let mut from = 0;
        let mut cut = false;
        while from < best.steps.len() && runs < 3000 {
            let mut shorter = best.clone();
            let to = (from + piece).min(shorter.steps.len());
            shorter.steps.drain(from..to);
            runs += 1;
            if fails(&shorter) {
                best = shorter;
                cut = true;
            } else {
                from += piece;
            }
        }
        match (piece, cut) {
            (1, false) => return best,
            _ if runs >= 3000 => return best,
            (1, true) => {}
            _ => piece = (piece / 2).max(1),
        }
    }
}
