//! Is something inserted into the WAL that nobody flushes? WAL goes to replicas only when it is flushed; an
//! asynchronous commit leaves that to the WAL writer, up to three times `wal_writer_delay` later.

use crate::lsn::Lsn;
use crate::moment::Moment;
use std::time::Duration;

/// A synchronous commit flushes what is before it: only what has lain longer than this lies there for good.
const PATIENCE: Duration = Duration::from_millis(2);

/// What the samples of one primary say about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unflushed {
    /// The end of what was seen unflushed, and when it was asked for.
    since: Option<(Lsn, Moment)>,
}

impl Unflushed {
    /// A sample, its positions rounded. `waited_for`: somebody waits for a replica. True: a flush is worth
    /// while now; the same bytes are not reported twice.
    pub fn sampled(&mut self, insert: Lsn, flush: Lsn, sent: Moment, waited_for: bool) -> bool {
        match self.since {
            Some((end, since)) if flush < end => {
                let kick = waited_for && sent.since(since) >= PATIENCE;
                if kick {
                    self.since = None;
                }
                kick
            }
            _ => {
                self.since = (flush < insert).then_some((insert, sent));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(millis * 1_000_000)
    }

    #[test]
    fn only_what_lies_there_while_somebody_waits_is_flushed() {
        // insert, flush, when, waited for, kick
        let table = [
            (10, 10, 0, true, false),
            // Writers that flush what they write.
            (20, 10, 5, true, false),
            (30, 20, 10, true, false),
            (40, 30, 15, true, false),
            // An asynchronous commit, while nobody waits.
            (50, 30, 20, false, false),
            (50, 30, 120, false, false),
            // Somebody comes.
            (50, 30, 121, true, true),
            (50, 30, 122, true, false),
            // The kick is on its way, and has flushed it.
            (60, 60, 126, true, false),
            (70, 60, 127, true, false),
            (70, 60, 128, true, false),
            (70, 60, 132, true, true),
        ];
        let mut unflushed = Unflushed::default();
        for (insert, flush, when, waited_for, expected) in table {
            let kick = unflushed.sampled(Lsn(insert), Lsn(flush), at(when), waited_for);
            assert_eq!(kick, expected, "at {when}");
        }
    }
}
