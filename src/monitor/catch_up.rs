//! How long does a replica take, of late, to replay what the primary has just shown?
//! Pure: a decision whether waiting is worth while needs an estimate that falls as fast as it rises.

use crate::lsn::Lsn;
use crate::moment::Moment;
use std::time::Duration;

/// The estimate for one replica.
///
/// Two things are measured: how long it took until the replica had replayed what the primary had just shown
/// (which is all there is to know while it keeps up: the way there takes longer than the replay), and, while
/// much is left to replay, how fast it does that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CatchUp {
    timed: Option<Timed>,
    /// The last three results, newest first.
    recent: [Duration; 3],
    /// The newest position that the primary has shown.
    newest: Lsn,
    /// The last sample with much left to replay.
    busy: Option<(Lsn, Moment)>,
    /// Bytes per second while there was much to replay.
    rate: Option<u64>,
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

/// So many bytes are much: with fewer left, a replica may have had nothing to do between two samples, and
/// what it replayed says nothing about how fast it is.
const MUCH: u64 = 256 << 10;

/// What cannot be foreseen.
const NEVER: Duration = Duration::from_secs(86_400);

impl CatchUp {
    /// The primary, asked at `asked`, has shown `insert`, and the replica is behind it.
    pub fn primary_at(&mut self, insert: Lsn, asked: Moment) {
        self.newest = self.newest.max(insert);
        self.timed.get_or_insert(Timed { insert, asked, at_least: Duration::ZERO });
    }

    /// The replica, asked at `asked`, has shown `replay`; known at `now`. Gives the new estimate:
    /// the median of three (one hiccup does not count), but never less than what is being waited
    /// for already, nor than what is left takes at the rate of late.
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
        let waited = self.timed.map_or(Duration::ZERO, |timed| timed.at_least);
        median.max(waited).max(self.left(replay, asked))
    }

    /// How long the rest takes, where that is much.
    fn left(&mut self, replay: Lsn, asked: Moment) -> Duration {
        let left = self.newest.bytes_since(replay);
        if left < MUCH {
            self.busy = None;
            return Duration::ZERO;
        }
        match self.busy.replace((replay, asked)) {
            Some((before, then)) if asked > then => {
                let nanos = asked.since(then).as_nanos().max(1);
                let bytes = u128::from(replay.bytes_since(before));
                let rate = u64::try_from(bytes * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
                let old = self.rate.unwrap_or(rate);
                self.rate = Some(old - old / 4 + rate / 4);
            }
            // The same sample, seen again because the primary has shown more.
            Some(same) => self.busy = Some(same),
            None => {}
        }
        match self.rate {
            Some(0) => NEVER,
            Some(rate) => Duration::from_nanos(left.saturating_mul(1_000_000) / rate.div_ceil(1000).max(1)),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn at(millis: u64) -> Moment {
        Moment(millis * MILLI)
    }

    /// Much is left: what it replays per millisecond decides, at once and in both directions.
    #[test]
    fn what_is_left_takes_as_long_as_it_does_at_the_rate_of_late() {
        const MIB: u64 = 1 << 20;
        let mut estimate = CatchUp::default();
        estimate.primary_at(Lsn(100 * MIB), at(1000));
        let mut shown = Duration::ZERO;
        // One MiB per millisecond.
        for step in 0..20 {
            shown = estimate.replica_at(Lsn(50 * MIB + step * MIB), at(1000 + step), at(1001 + step));
        }
        let expected = Duration::from_millis(100 - 69);
        assert!(shown >= expected && shown < expected * 11 / 10, "{shown:?}");
        // The primary runs ahead: known before any sample of the replica's.
        estimate.primary_at(Lsn(200 * MIB), at(1020));
        let more = estimate.replica_at(Lsn(69 * MIB), at(1019), at(1021));
        assert!(more >= Duration::from_millis(131) && more < Duration::from_millis(145), "{more:?}");
        // It stands still.
        for step in 0..200 {
            shown = estimate.replica_at(Lsn(70 * MIB), at(1030 + step), at(1031 + step));
        }
        assert!(shown > Duration::from_secs(60), "{shown:?}");
        // It is through: the rate says nothing any more.
        estimate.replica_at(Lsn(200 * MIB), at(1300), at(1301));
        for start in [1400, 1500] {
            estimate.primary_at(Lsn(200 * MIB + start), at(start));
            shown = estimate.replica_at(Lsn(200 * MIB + start), at(start + 1), at(start + 2));
        }
        assert_eq!(shown, GUESS);
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
