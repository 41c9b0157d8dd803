//! How a pgweir that was told to stop parts with its clients: whom it waits for, and for how long.

use crate::config::settings::Drain;
use crate::moment::Moment;
use std::fmt;
use std::time::Duration;

/// Clients that were waited for have so long at most, of the time there is, to end what they are doing.
const PARTING: Duration = Duration::from_secs(10);

/// What is done with the clients that are still there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// They stay until they leave.
    Waiting,
    /// They are ended when they are between two transactions.
    Ending,
    /// They are left where they are.
    Over,
}

/// The times of a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Draining {
    begun: Moment,
    /// How long newcomers may stay.
    grace: Duration,
    /// Until then `Waiting`.
    ending: Moment,
    /// From then on `Over`.
    over: Moment,
}

impl Draining {
    /// A stop that begins at `now` and takes `limit` at most. Whoever has been connected by the system may still
    /// come, and stays for `grace` at least.
    pub fn begin(drain: Drain, limit: Duration, grace: Duration, now: Moment) -> Draining {
        let waits = match drain {
            Drain::Transactions => Duration::ZERO,
            Drain::Clients => limit.saturating_sub(PARTING.min(limit / 4)),
        };
        Draining { begun: now, grace: grace.min(limit), ending: now.plus(waits), over: now.plus(limit) }
    }

    /// What is done at `now`.
    pub fn stage(&self, now: Moment) -> Stage {
        match now {
            now if now >= self.over => Stage::Over,
            now if now >= self.ending => Stage::Ending,
            _ => Stage::Waiting,
        }
    }

    /// May newcomers stay?
    pub fn has_grace(&self) -> bool {
        !self.grace.is_zero()
    }

    /// Will nobody come any more?
    pub fn expects_nobody(&self, now: Moment) -> bool {
        now >= self.begun.plus(self.grace)
    }

    /// May a client that came at `since` be ended?
    pub fn may_end(&self, since: Moment, now: Moment) -> bool {
        now >= since.plus(self.grace)
    }

    /// It was told once more at `now`: the next stage, which is the answer, begins.
    pub fn hurry(&mut self, now: Moment) -> Stage {
        match self.stage(now) {
            Stage::Waiting => self.ending = now,
            Stage::Ending | Stage::Over => self.over = now,
        }
        self.stage(now)
    }
}

/// What there is to come, for the log.
impl fmt::Display for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = |until: Moment| until.since(self.begun);
        match self.ending > self.begun {
            true => write!(
                f,
                "clients may stay for {:?}, and are then ended between two transactions, {:?} at most",
                within(self.ending),
                within(self.over)
            ),
            false => write!(f, "clients are ended between two transactions, {:?} at most", within(self.over)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    fn begin(drain: Drain, limit: u64) -> Draining {
        Draining::begin(drain, Duration::from_secs(limit), Duration::ZERO, at(5))
    }

    fn stages(draining: Draining, seconds: &[u64]) -> Vec<Stage> {
        seconds.iter().map(|&second| draining.stage(at(second))).collect()
    }

    #[test]
    fn clients_are_ended_at_once_or_waited_for_until_shortly_before_the_end() {
        let at_once = begin(Drain::Transactions, 100);
        assert_eq!(stages(at_once, &[5, 104, 105]), [Stage::Ending, Stage::Ending, Stage::Over]);
        let waits = begin(Drain::Clients, 100);
        assert_eq!(
            stages(waits, &[5, 94, 95, 104, 105]),
            [Stage::Waiting, Stage::Waiting, Stage::Ending, Stage::Ending, Stage::Over]
        );
        let short = begin(Drain::Clients, 4);
        assert_eq!(stages(short, &[7, 8, 9]), [Stage::Waiting, Stage::Ending, Stage::Over]);
        let none = begin(Drain::Clients, 0);
        assert_eq!(none.stage(at(5)), Stage::Over);
    }

    #[test]
    fn each_further_signal_begins_the_next_stage() {
        let mut draining = begin(Drain::Clients, 100);
        assert_eq!(draining.hurry(at(10)), Stage::Ending);
        assert_eq!(stages(draining, &[10, 104, 105]), [Stage::Ending, Stage::Ending, Stage::Over]);
        assert_eq!(draining.hurry(at(20)), Stage::Over);
        assert_eq!(draining.hurry(at(30)), Stage::Over);
    }

    #[test]
    fn whoever_comes_while_a_successor_takes_over_is_not_ended_at_once() {
        let grace = Duration::from_secs(1);
        let draining = Draining::begin(Drain::Transactions, Duration::from_secs(100), grace, at(5));
        assert!(!draining.expects_nobody(at(5)) && draining.expects_nobody(at(6)));
        assert!(!draining.may_end(at(5), at(5)) && draining.may_end(at(4), at(5)));
        let short = Draining::begin(Drain::Transactions, Duration::ZERO, grace, at(5));
        assert!(short.expects_nobody(at(5)));
    }
}
