//! Was a transaction committed whose server was lost before it said so? What a primary says about it that is
//! there afterwards, and what that proves.
//!
//! Before it is committed, a transaction is asked for its number and for a position behind what it has written.
//! Its commit record lies behind that position, and records with its number before it (if it has written
//! anything that is logged; what is not, a crash empties). So on a timeline that forked, or after a recovery
//! that ended,
//!
//! ```text
//! at or before the position    there is no commit record: it was not committed
//! behind it                    the number was never given again, and `pg_xact_status` speaks of it
//! ```
//!
//! Where that status is anything but committed, nothing else needs to be known.
//!
//! (Manual, "Transaction ID and Snapshot Information Functions"; `StartupXLOG` in xlog.c takes the next number
//! from the log that was replayed, and ends what is open in it.)

use crate::lsn::{Lsn, TimelineId};
use crate::node::NodeId;

/// What a transaction said before it was to be committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// Its number (`pg_current_xact_id_if_assigned()`); `None`: it has written nothing.
    pub transaction: Option<u64>,
    /// `pg_current_wal_insert_lsn()` behind what it had written.
    pub position: Lsn,
}

/// A transaction whose server was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doubt {
    /// Its number.
    pub transaction: u64,
    /// Behind what it had written, before its commit record.
    pub position: Lsn,
    /// The timeline of its server.
    pub timeline: TimelineId,
    /// Its server.
    pub node: NodeId,
    /// In this incarnation.
    pub incarnation: u64,
    /// Did its server say that it is committed there (and flushed), before it was lost?
    pub committed_there: bool,
}

/// `pg_xact_status`, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Committed.
    Committed,
    /// Rolled back, or ended by a crash.
    RolledBack,
    /// Neither; or this server has not come to that number yet.
    Open,
    /// So old that it is not known any more.
    Forgotten,
}

/// Which run of a server, compared with the one that was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    /// It is that one: the server was not lost, its connection was.
    Same,
    /// Another one.
    Other,
    /// Nobody can say.
    Unknown,
}

/// What the primary that is there now says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Of the transaction's number.
    pub status: Status,
    /// Who.
    pub node: NodeId,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where its recovery ended (`pg_last_wal_replay_lsn()`): a promotion, or a crash. `None`: it was started
    /// behind an orderly shutdown.
    pub recovered: Option<Lsn>,
    /// Which run of it answers.
    pub run: Run,
    /// The newest timeline that this run was proven to be on as a standby.
    pub stood_by_on: Option<TimelineId>,
}

/// What is proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is committed, and part of what goes on.
    Committed,
    /// It is not, and never will be.
    RolledBack,
    /// It may still become either.
    Open,
    /// Neither is proven.
    Unknown,
}

impl Doubt {
    /// What the answer of the proven primary proves.
    pub fn judge(&self, answer: &Answer) -> Verdict {
        if answer.timeline < self.timeline || (answer.timeline == self.timeline && answer.node != self.node) {
            return Verdict::Unknown;
        }
        // A primary stays on its timeline while it runs.
        let run = match answer.timeline == self.timeline {
            true => answer.run,
            false => Run::Other,
        };
        match (answer.status, run) {
            (Status::Committed, _) => self.whose_commit(answer, run),
            // Whosever number that is: had this transaction been committed here, it would be committed.
            (Status::RolledBack, _) | (Status::Open, Run::Other) => Verdict::RolledBack,
            (Status::Open, Run::Same | Run::Unknown) => Verdict::Open,
            (Status::Forgotten, _) => Verdict::Unknown,
        }
    }

    /// Somebody's transaction of this number is committed. This one, or another that got its number?
    fn whose_commit(&self, answer: &Answer, run: Run) -> Verdict {
        let (end, is_its_end) = match answer.timeline == self.timeline {
            _ if run == Run::Same => return Verdict::Committed,
            // What is flushed comes up again with its server. (What has recovered says itself how far.)
            true if self.committed_there && answer.recovered.is_none() => return Verdict::Committed,
            true => (answer.recovered, run == Run::Other),
            // Only the next timeline certainly forked off this one, if that is what it stood by on.
            false => {
                let follows = answer.timeline.0 - 1 == self.timeline.0;
                let forked = follows && answer.stood_by_on == Some(self.timeline);
                (answer.recovered.filter(|_| forked), true)
            }
        };
        match end {
            Some(end) if end > self.position => Verdict::Committed,
            Some(_) if is_its_end => Verdict::RolledBack,
            Some(_) | None => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOUBT: Doubt = Doubt {
        transaction: 700,
        position: Lsn(1000),
        timeline: TimelineId(3),
        node: NodeId(0),
        incarnation: 5,
        committed_there: false,
    };

    fn answer(status: Status) -> Answer {
        Answer {
            status,
            node: NodeId(0),
            timeline: TimelineId(3),
            recovered: None,
            run: Run::Unknown,
            stood_by_on: None,
        }
    }

    const STATUSES: [Status; 4] = [Status::Committed, Status::RolledBack, Status::Open, Status::Forgotten];

    fn verdicts(doubt: &Doubt, change: impl Fn(Answer) -> Answer) -> [Verdict; 4] {
        STATUSES.map(|status| doubt.judge(&change(answer(status))))
    }

    use Verdict::{Committed, Open, RolledBack, Unknown};

    #[test]
    fn the_run_that_had_it_knows_and_may_not_have_ended_it_yet() {
        let same = verdicts(&DOUBT, |answer| Answer { run: Run::Same, recovered: Some(Lsn(10)), ..answer });
        assert_eq!(same, [Committed, RolledBack, Open, Unknown]);
    }

    #[test]
    fn a_promoted_standby_knows_what_lies_before_its_fork_and_has_not_got_the_rest() {
        let promoted = |node: u16, timeline: u32, fork: u64, stood_by_on: u32| {
            verdicts(&DOUBT, |answer| Answer {
                node: NodeId(node),
                timeline: TimelineId(timeline),
                recovered: Some(Lsn(fork)),
                stood_by_on: Some(TimelineId(stood_by_on)),
                ..answer
            })
        };
        for node in [0, 1] {
            assert_eq!(promoted(node, 4, 1001, 3), [Committed, RolledBack, RolledBack, Unknown]);
            // Another transaction may have its number there by now.
            assert_eq!(promoted(node, 4, 1000, 3), [RolledBack, RolledBack, RolledBack, Unknown]);
            // A standby that never was on its branch; a timeline that may have forked off another one.
            let other = [Unknown, RolledBack, RolledBack, Unknown];
            assert_eq!(promoted(node, 4, 1001, 2), other);
            assert_eq!(promoted(node, 5, 1001, 3), other);
            assert_eq!(promoted(node, 2, 1001, 3), [Unknown; 4]);
        }
        let started_anew = verdicts(&DOUBT, |answer| Answer {
            timeline: TimelineId(4),
            stood_by_on: Some(TimelineId(3)),
            ..answer
        });
        assert_eq!(started_anew, [Unknown, RolledBack, RolledBack, Unknown]);
    }

    #[test]
    fn a_server_that_was_started_again_knows_what_its_recovery_has_reached() {
        let recovered = |run: Run, end: u64| {
            verdicts(&DOUBT, |answer| Answer { recovered: Some(Lsn(end)), run, ..answer })
        };
        assert_eq!(recovered(Run::Other, 1001), [Committed, RolledBack, RolledBack, Unknown]);
        assert_eq!(recovered(Run::Unknown, 1001), [Committed, RolledBack, Open, Unknown]);
        assert_eq!(recovered(Run::Other, 1000), [RolledBack, RolledBack, RolledBack, Unknown]);
        // It may be the same run, which recovered before the transaction began.
        assert_eq!(recovered(Run::Unknown, 1000), [Unknown, RolledBack, Open, Unknown]);
    }

    #[test]
    fn what_its_server_had_flushed_comes_up_again_with_it() {
        let flushed = Doubt { committed_there: true, ..DOUBT };
        let again = |doubt: &Doubt, run: Run, recovered: Option<Lsn>| {
            verdicts(doubt, |answer| Answer { run, recovered, ..answer })
        };
        assert_eq!(again(&flushed, Run::Other, None), [Committed, RolledBack, RolledBack, Unknown]);
        assert_eq!(again(&flushed, Run::Unknown, None), [Committed, RolledBack, Open, Unknown]);
        // Then it was not.
        let behind = [RolledBack, RolledBack, RolledBack, Unknown];
        assert_eq!(again(&flushed, Run::Other, Some(Lsn(1000))), behind);
        // An orderly stop, of a server that may have come up in between.
        assert_eq!(again(&DOUBT, Run::Other, None), [Unknown, RolledBack, RolledBack, Unknown]);
        // Another server on the same timeline is not it by another name.
        let elsewhere = verdicts(&flushed, |answer| Answer { node: NodeId(1), ..answer });
        assert_eq!(elsewhere, [Unknown; 4]);
        // A standby may not have got it.
        let promoted = verdicts(&flushed, |answer| Answer {
            node: NodeId(1),
            timeline: TimelineId(4),
            recovered: Some(Lsn(1000)),
            stood_by_on: Some(TimelineId(3)),
            ..answer
        });
        assert_eq!(promoted, [RolledBack, RolledBack, RolledBack, Unknown]);
    }
}
