//! Was an acknowledged write lost in a failover? What samples of the old primary prove about it.
//!
//! A commit record lies behind whatever had been inserted before its statement was sent, and before
//! whatever was inserted when its acknowledgement was there. A new timeline has what lies before its fork.

use crate::freshness::ring::PrimaryRing;
use crate::lsn::{Lsn, TimelineId, WalPosition};
use crate::moment::Moment;

/// The newest failover, and what is left of the timeline before it.
#[derive(Clone, Debug)]
pub struct Failover {
    /// Samples of the old primary.
    old: PrimaryRing,
    /// Where the new timeline forked off the old one.
    fork: Lsn,
    /// The timeline that goes on.
    next: TimelineId,
    /// Whoever sent a write before this moment sent it to the old primary.
    noticed: Moment,
    /// Was the old primary shut down in order? Then its last WAL went to all standbys that were connected.
    in_order: bool,
}

/// What became of a write that the old primary had acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is part of the new timeline.
    Survived,
    /// It is not.
    Lost(Evidence),
    /// It lies so close to the fork that nothing proves either.
    Unknown(Evidence),
}

/// Between which positions a write lies, and what goes on without them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// It lies behind this position of the old timeline.
    pub behind: WalPosition,
    /// The timeline that goes on.
    pub next: TimelineId,
    /// Where it forked.
    pub fork: Lsn,
}

impl Failover {
    /// The timeline `next` forked at `fork` off that of the samples in `old`.
    pub fn new(old: PrimaryRing, fork: Lsn, next: TimelineId, noticed: Moment) -> Failover {
        Failover { old, fork, next, noticed, in_order: false }
    }

    /// The old primary was shut down in order: what cannot be proven to be lost is not.
    #[must_use]
    pub fn in_order(self) -> Failover {
        Failover { in_order: true, ..self }
    }

    /// The timeline that goes on.
    pub fn next(&self) -> TimelineId {
        self.next
    }

    /// What became of a write that was sent and acknowledged then.
    pub fn fate(&self, sent: Moment, acknowledged: Moment) -> Fate {
        let Some(timeline) = self.old.timeline().filter(|_| sent < self.noticed) else {
            return Fate::Survived;
        };
        if self.old.inserted_by(acknowledged).is_some_and(|high| high <= self.fork) {
            return Fate::Survived;
        }
        let low = self.old.inserted_before(sent).unwrap_or(Lsn(0));
        let behind = WalPosition { timeline, lsn: low };
        let evidence = Evidence { behind, next: self.next, fork: self.fork };
        match low >= self.fork {
            true => Fate::Lost(evidence),
            false if self.in_order => Fate::Survived,
            false => Fate::Unknown(evidence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freshness::ring::PrimarySample;

    fn failover(fork: u64) -> Failover {
        let mut old = PrimaryRing::default();
        for (sent, lsn) in [(10, 1100), (20, 1200), (30, 1300), (40, 1400)] {
            let (insert, flush) = (Lsn(lsn), Lsn(lsn));
            old.push(PrimarySample { sent: Moment(sent), insert, flush, timeline: TimelineId(1) });
        }
        Failover::new(old, Lsn(fork), TimelineId(2), Moment(60))
    }

    #[test]
    fn a_write_is_lost_only_when_it_provably_lies_behind_the_fork() {
        let evidence = |low: u64, fork: u64| Evidence {
            behind: WalPosition { timeline: TimelineId(1), lsn: Lsn(low) },
            next: TimelineId(2),
            fork: Lsn(fork),
        };
        let cases = [
            // Sent and acknowledged before a sample that is not past the fork.
            (1300, 21, 29, Fate::Survived),
            (1300, 12, 19, Fate::Survived),
            // The sample after it is past the fork, the one before it is not.
            (1250, 21, 29, Fate::Unknown(evidence(1100, 1250))),
            // What had been inserted before it was sent is past the fork already. The newest sample that
            // was sent before it may have been answered after it: the one before that counts.
            (1300, 41, 42, Fate::Lost(evidence(1300, 1300))),
            (1299, 41, 42, Fate::Lost(evidence(1300, 1299))),
            (1301, 41, 42, Fate::Unknown(evidence(1300, 1301))),
            // Nothing was sampled after it.
            (5000, 41, 42, Fate::Unknown(evidence(1300, 5000))),
            // The new primary has it.
            (1000, 60, 61, Fate::Survived),
            (1000, 5, 6, Fate::Unknown(evidence(0, 1000))),
        ];
        for (fork, sent, acknowledged, expected) in cases {
            let fate = failover(fork).fate(Moment(sent), Moment(acknowledged));
            assert_eq!(fate, expected, "fork {fork}, sent {sent}, acknowledged {acknowledged}");
            let in_order = failover(fork).in_order().fate(Moment(sent), Moment(acknowledged));
            let certain = if let Fate::Unknown(_) = expected { Fate::Survived } else { expected };
            assert_eq!(in_order, certain, "fork {fork}, sent {sent}, acknowledged {acknowledged}");
        }
    }
}
