//! What is known of how timelines branched: positions of an old one that a newer one certainly has.
//!
//! A standby that was promoted had replayed, at its last sample before, up to a position that lies at or
//! below the fork. So whatever of the old timeline lies below that position is part of the new one.

use crate::lsn::{Lsn, TimelineId, WalPosition};

/// The newest so many are remembered; of older timelines nothing is proven.
const KEPT: usize = 8;

/// A promotion that was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fork {
    /// Replayed before it; at or below the fork.
    reached: WalPosition,
    /// The timeline that began with it.
    next: TimelineId,
    /// Is `reached` the fork itself?
    exact: bool,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Forks {
    seen: Vec<Fork>,
}

impl Forks {
    /// A standby that had replayed up to `reached` goes on as primary on the timeline `next`.
    pub fn promoted(&mut self, reached: WalPosition, next: TimelineId) {
        if next <= reached.timeline {
            return;
        }
        let same = |fork: &&mut Fork| fork.reached.timeline == reached.timeline && fork.next == next;
        if let Some(fork) = self.seen.iter_mut().find(same) {
            if !fork.exact {
                // Two that took the same number: what both have is certain.
                fork.reached.lsn = fork.reached.lsn.min(reached.lsn);
            }
            return;
        }
        if self.seen.len() >= KEPT {
            self.seen.remove(0);
        }
        self.seen.push(Fork { reached, next, exact: false });
    }

    /// The primary of the timeline `next` says that it forked at `at`.
    pub fn forked(&mut self, at: WalPosition, next: TimelineId) {
        if next <= at.timeline {
            return;
        }
        self.seen.retain(|fork| fork.reached.timeline != at.timeline || fork.next != next);
        if self.seen.len() >= KEPT {
            self.seen.remove(0);
        }
        self.seen.push(Fork { reached: at, next, exact: true });
    }

    /// Where, and for which timeline, the branch of `at` was left before it came that far. `None`: nothing
    /// says that it was.
    pub fn lost(&self, at: WalPosition, newest: TimelineId) -> Option<(Lsn, TimelineId)> {
        let from = |fork: &&Fork| fork.reached.timeline == at.timeline && fork.next <= newest;
        let fork = self.seen.iter().rev().find(from).filter(|fork| fork.exact)?;
        (at.lsn > fork.reached.lsn).then_some((fork.reached.lsn, fork.next))
    }

    /// Is `at` certainly part of the timeline `newest`?
    pub fn has(&self, at: WalPosition, newest: TimelineId) -> bool {
        let mut timeline = at.timeline;
        // Each step leads to a newer timeline.
        while timeline < newest {
            let from = |fork: &&Fork| fork.reached.timeline == timeline && fork.next <= newest;
            let Some(fork) = self.seen.iter().rev().find(from) else { return false };
            if at.lsn > fork.reached.lsn {
                return false;
            }
            timeline = fork.next;
        }
        timeline == newest
    }

    /// Forgets all: it is another cluster.
    pub fn clear(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timeline: u32, lsn: u64) -> WalPosition {
        WalPosition { timeline: TimelineId(timeline), lsn: Lsn(lsn) }
    }

    #[test]
    fn what_a_promoted_standby_had_replayed_is_part_of_its_timeline() {
        let mut forks = Forks::default();
        assert!(forks.has(at(1, 10), TimelineId(1)) && !forks.has(at(1, 10), TimelineId(2)));
        forks.promoted(at(1, 100), TimelineId(2));
        forks.promoted(at(2, 500), TimelineId(4));
        let cases = [
            (at(1, 100), 2, true),
            (at(1, 101), 2, false),
            (at(1, 100), 4, true),
            (at(2, 500), 4, true),
            (at(2, 501), 4, false),
            (at(3, 1), 4, false),
            (at(4, 9999), 4, true),
            (at(5, 1), 4, false),
            (at(1, 100), 3, false),
        ];
        for (position, newest, expected) in cases {
            assert_eq!(forks.has(position, TimelineId(newest)), expected, "{position:?} on {newest}");
        }
    }

    #[test]
    fn a_fork_that_was_told_proves_what_is_lost_and_what_is_not() {
        let mut forks = Forks::default();
        forks.promoted(at(1, 90), TimelineId(2));
        assert_eq!(forks.lost(at(1, 200), TimelineId(2)), None);
        forks.forked(at(1, 100), TimelineId(2));
        assert!(forks.has(at(1, 100), TimelineId(2)) && !forks.has(at(1, 101), TimelineId(2)));
        assert_eq!(forks.lost(at(1, 101), TimelineId(2)), Some((Lsn(100), TimelineId(2))));
        assert_eq!(forks.lost(at(1, 100), TimelineId(2)), None);
        // What was seen of it before says less.
        forks.promoted(at(1, 90), TimelineId(2));
        assert!(forks.has(at(1, 100), TimelineId(2)));
    }

    #[test]
    fn two_promotions_of_one_number_prove_what_both_have_and_old_ones_are_dropped() {
        let mut forks = Forks::default();
        forks.promoted(at(1, 100), TimelineId(2));
        forks.promoted(at(1, 90), TimelineId(2));
        assert!(forks.has(at(1, 90), TimelineId(2)) && !forks.has(at(1, 91), TimelineId(2)));
        forks.promoted(at(3, 5), TimelineId(3));
        (2..20).for_each(|timeline| forks.promoted(at(timeline, 1000), TimelineId(timeline + 1)));
        assert!(!forks.has(at(1, 1), TimelineId(20)) && forks.has(at(19, 1), TimelineId(20)));
        assert!(forks.seen.len() <= KEPT);
    }
}
