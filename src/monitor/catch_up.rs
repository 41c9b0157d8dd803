//! How long does a replica take, of late, to replay what the primary has just shown?
//! Pure: a decision whether waiting is worth while needs an estimate that falls as fast as it rises.

use crate::lsn::Lsn;
use crate::moment::Moment;
use std::time::Duration;

/// The estimate for one replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CatchUp {
    timed: Option<Timed>,
    /// The last three results, newest first.
    recent: [Duration; 3],
}

/// A position of the primary that the replica had not replayed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Timed {
    insert: Lsn,
    /// When the primary was asked.
    asked: Moment,
    /// It was not replayed yet in a sample sent this long after.
    at_least: Duration,
}

/// Between two samples nobody knows when it happened. The guess is early: a wait in vain is short
/// and measures exactly, while an estimate above the wait's limit would never be put to the test.
const GUESS: Duration = Duration::from_millis(1);

impl CatchUp {
    /// The primary, asked at `asked`, has shown `insert`, and the replica is behind it.
    pub fn primary_at(&mut self, insert: Lsn, asked: Moment) {
        self.timed.get_or_insert(Timed { insert, asked, at_least: Duration::ZERO });
    }

    /// The replica, asked at `asked`, has shown `replay`; known at `now`. Gives the new estimate:
    /// the median of three (one hiccup does not count), but never less than what is being waited
    /// for already.
    pub fn replica_at(&mut self, replay: Lsn, asked: Moment, now: Moment) -> Duration {
        match &mut self.timed {
            Some(timed) if timed.insert <= replay => {
                let took = now.since(timed.asked).min(timed.at_least + GUESS);
                self.recent = [took, self.recent[0], self.recent[1]];
                self.timed = None;
            }
            Some(timed) => timed.at_least = asked.since(timed.asked),
            None => {}
        }
        let [a, b, c] = self.recent;
        let median = a.max(b).min(a.min(b).max(c));
        median.max(self.timed.map_or(Duration::ZERO, |timed| timed.at_least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn at(millis: u64) -> Moment {
        Moment(millis * MILLI)
    }

    #[test]
    fn a_replica_with_apply_delay_shows_it_at_once_and_recovers_in_two_samples() {
        let mut estimate = CatchUp::default();
        let delayed = |estimate: &mut CatchUp, start| {
            estimate.primary_at(Lsn(start), at(start));
            let shown = estimate.replica_at(Lsn(start - 1), at(start + 250), at(start + 251));
            estimate.replica_at(Lsn(start), at(start + 350), at(start + 351));
            shown
        };
        for start in [1000, 2000, 3000] {
            assert!(delayed(&mut estimate, start) >= Duration::from_millis(250));
        }
        assert_eq!(estimate.replica_at(Lsn(3000), at(3600), at(3601)), Duration::from_millis(251));
        for start in [4000, 4100] {
            estimate.primary_at(Lsn(start), at(start));
            estimate.replica_at(Lsn(start), at(start + 1), at(start + 2));
        }
        assert_eq!(estimate.replica_at(Lsn(4100), at(4200), at(4201)), GUESS);
    }
}
