//! The fence: when does the primary show everything that a replica has shown?
//!
//! A commit becomes visible on its primary only after it was written, flushed and, with synchronous
//! replication, confirmed by others. So a replica can show it before. One run of the fence:
//!
//! 1. the primary is asked for its snapshot;
//! 2. the replica is asked which transactions are committed there and not visible in that snapshot;
//! 3. the primary is asked until all of them are visible.
//!
//! What the replica showed before step 2 was committed there: it is visible in the snapshot or listed, so
//! after step 3 the primary shows it. One run serves everybody whose reading was over before its step 2.

use crate::moment::Moment;

/// What is to be asked next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: nobody waits for more than is proven.
    Rest,
    /// The primary's snapshot.
    Snapshot,
    /// What the replica has committed beyond this snapshot of the primary's.
    Beyond(String),
    /// Which of these transactions the primary does not show yet.
    Hidden(Vec<i64>),
}

/// What a run has proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// Everything that the replica showed by then is visible on the primary.
    pub shown: Moment,
    /// Everything that was inserted into the primary's WAL by then is visible on the primary: what the
    /// replica had provably replayed when it was asked.
    pub inserted: Moment,
}

/// How far a run has come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Run {
    #[default]
    None,
    Snapshot(String),
    Listed(Fenced, Vec<i64>),
}

/// The fence of one replica, in one incarnation of it and of the primary.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fence {
    wanted: Moment,
    proven: Moment,
    run: Run,
}

impl Fence {
    /// Somebody waits until everything is visible that the replica showed by `moment`.
    pub fn want(&mut self, moment: Moment) {
        self.wanted = self.wanted.max(moment);
    }

    /// What is to be asked next.
    pub fn next(&self) -> Step {
        match &self.run {
            Run::None if self.wanted > self.proven => Step::Snapshot,
            Run::None => Step::Rest,
            Run::Snapshot(snapshot) => Step::Beyond(snapshot.clone()),
            Run::Listed(_, hidden) => Step::Hidden(hidden.clone()),
        }
    }

    /// The primary's snapshot.
    pub fn snapshot(&mut self, snapshot: String) {
        self.run = Run::Snapshot(snapshot);
    }

    /// The replica's list, and what its being visible will prove: `shown` must have been taken before the
    /// replica was asked, and `inserted` must have been its watermark then.
    pub fn beyond(&mut self, of: Fenced, listed: Vec<i64>) -> Option<Fenced> {
        if let Run::Snapshot(_) = self.run {
            self.run = Run::Listed(of, listed);
        }
        self.end()
    }

    /// What the primary still hides of the list.
    pub fn hidden(&mut self, still: Vec<i64>) -> Option<Fenced> {
        if let Run::Listed(_, hidden) = &mut self.run {
            // What was visible once stays visible.
            hidden.retain(|transaction| still.contains(transaction));
        }
        self.end()
    }

    fn end(&mut self) -> Option<Fenced> {
        let fenced = match &self.run {
            Run::Listed(fenced, hidden) if hidden.is_empty() => *fenced,
            _ => return None,
        };
        self.proven = self.proven.max(fenced.shown);
        self.run = Run::None;
        Some(fenced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(shown: u64) -> Fenced {
        Fenced { shown: Moment(shown), inserted: Moment(shown / 2) }
    }

    #[test]
    fn one_run_serves_all_that_was_read_before_the_replica_was_asked() {
        let mut fence = Fence::default();
        assert_eq!(fence.next(), Step::Rest);
        fence.want(Moment(10));
        fence.want(Moment(7));
        assert_eq!(fence.next(), Step::Snapshot);
        fence.snapshot("5:9:6".to_owned());
        assert_eq!(fence.next(), Step::Beyond("5:9:6".to_owned()));
        assert_eq!(fence.beyond(of(20), vec![6, 9]), None);
        // Whoever comes now may have read what is not on the list.
        fence.want(Moment(25));
        assert_eq!(fence.next(), Step::Hidden(vec![6, 9]));
        assert_eq!(fence.hidden(vec![9]), None);
        assert_eq!(fence.next(), Step::Hidden(vec![9]));
        assert_eq!(fence.hidden(Vec::new()), Some(of(20)));
        assert_eq!(fence.next(), Step::Snapshot);
        fence.snapshot("9:9:".to_owned());
        assert_eq!(fence.beyond(of(30), Vec::new()), Some(of(30)));
        assert_eq!(fence.next(), Step::Rest);
        fence.want(Moment(30));
        assert_eq!(fence.next(), Step::Rest);
    }

    /// A primary that shows transactions in any order, long after the replica, and a session that reads
    /// the replica and then, when it may, the primary.
    #[test]
    fn whatever_the_replica_had_shown_the_primary_shows_behind_the_fence() {
        let mut state = 0x9E37_79B9_u64;
        let mut roll = |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % sides
        };
        let (mut replica, mut primary): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
        let (mut fence, mut proven, mut snapshot) = (Fence::default(), Moment::NEVER, Vec::new());
        let mut read: Option<(Moment, Vec<i64>)> = None;
        let mut checked = 0;
        for now in 1..20_000_u64 {
            match roll(8) {
                0 => replica.push(now as i64),
                1 | 2 => {
                    let behind: Vec<i64> = replica.iter().filter(|x| !primary.contains(x)).copied().collect();
                    if let Some(next) = behind.get(roll(behind.len().max(1) as u64) as usize) {
                        primary.push(*next);
                    }
                }
                3 if read.is_none() => {
                    read = Some((Moment(now), replica.clone()));
                    fence.want(Moment(now));
                }
                4..=6 => match fence.next() {
                    Step::Rest => {}
                    Step::Snapshot => {
                        snapshot = primary.clone();
                        fence.snapshot(String::new());
                    }
                    Step::Beyond(_) => {
                        let listed = replica.iter().filter(|x| !snapshot.contains(x)).copied().collect();
                        let done = fence.beyond(of(now), listed);
                        proven = done.map_or(proven, |fenced| fenced.shown);
                    }
                    Step::Hidden(listed) => {
                        let still = listed.into_iter().filter(|x| !primary.contains(x)).collect();
                        let done = fence.hidden(still);
                        proven = done.map_or(proven, |fenced| fenced.shown);
                    }
                },
                _ => {}
            }
            if let Some((at, seen)) = &read
                && proven >= *at
            {
                assert!(seen.iter().all(|x| primary.contains(x)), "went backwards at {now}");
                checked += 1;
                read = None;
            }
            if read.is_none()
                && replica.len() > 50
                && replica.len() == primary.len()
                && fence.next() == Step::Rest
            {
                replica.clear();
                primary.clear();
            }
        }
        assert!(checked > 500, "{checked}");
    }
}
