//! The runs of one server, as far as the monitor's connections to it can tell them apart: every connection is of
//! one run, and lives through some incarnations.

use crate::freshness::doubt::Run;
use crate::lsn::TimelineId;
use crate::monitor::picture::Instance;
use std::collections::VecDeque;

/// The newest so many connections are remembered; of older ones nothing is said.
const KEPT: usize = 8;

/// One connection of the monitor's.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// Its first incarnation, and its last, once it has ended.
    incarnations: (u64, Option<u64>),
    instance: Option<Instance>,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    connections: VecDeque<Connection>,
    /// The newest timeline that the present run was proven to be on as a standby.
    stood_by_on: Option<TimelineId>,
}

impl Runs {
    /// A connection was made, and told which server it is of.
    pub fn began(&mut self, incarnation: u64, instance: Option<Instance>) {
        let last = self.connections.back().and_then(|connection| connection.instance);
        if compared(last, instance) != Run::Same {
            self.stood_by_on = None;
        }
        if self.connections.len() >= KEPT {
            self.connections.pop_front();
        }
        self.connections.push_back(Connection { incarnations: (incarnation, None), instance });
    }

    /// The present connection has ended; its last incarnation was this one.
    pub fn ended(&mut self, incarnation: u64) {
        if let Some(Connection { incarnations: (_, last @ None), .. }) = self.connections.back_mut() {
            *last = Some(incarnation);
        }
    }

    /// It is a standby, proven to be on this timeline.
    pub fn stands_by_on(&mut self, timeline: TimelineId) {
        self.stood_by_on = self.stood_by_on.max(Some(timeline));
    }

    /// What it showed was impossible.
    pub fn distrust(&mut self) {
        self.stood_by_on = None;
    }

    /// The newest timeline that the present run was proven to be on as a standby.
    pub fn stood_by_on(&self) -> Option<TimelineId> {
        self.stood_by_on
    }

    /// Which run answers now, compared with that of `incarnation`?
    pub fn compared_with(&self, incarnation: u64) -> Run {
        let Some(now) = self.connections.back().filter(|now| now.incarnations.1.is_none()) else {
            return Run::Unknown;
        };
        if incarnation >= now.incarnations.0 {
            return Run::Same;
        }
        let of = |connection: &&Connection| {
            let (first, last) = connection.incarnations;
            incarnation >= first && last.is_some_and(|last| incarnation <= last)
        };
        let then = self.connections.iter().find(of).and_then(|connection| connection.instance);
        compared(then, now.instance)
    }
}

/// A server whose processes are started anew behind a crash keeps its start: only the checkpointer tells.
fn compared(one: Option<Instance>, other: Option<Instance>) -> Run {
    match (one, other) {
        (Some(one), Some(other)) if !one.is(&other) => Run::Other,
        (Some(one), Some(other)) if one.checkpointer.is_some() && other.checkpointer.is_some() => Run::Same,
        _ => Run::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(started: i64, checkpointer: Option<(i32, i64)>) -> Option<Instance> {
        Some(Instance { started, port: 5432, checkpointer })
    }

    #[test]
    fn a_run_is_told_by_the_connection_or_by_its_start_and_checkpointer() {
        let mut runs = Runs::default();
        assert_eq!(runs.compared_with(1), Run::Unknown);
        runs.began(2, instance(10, Some((7, 11))));
        assert_eq!(runs.compared_with(3), Run::Same);
        runs.ended(4);
        assert_eq!(runs.compared_with(3), Run::Unknown, "nobody answers");
        runs.began(6, instance(10, Some((7, 11))));
        assert_eq!(
            [2, 4, 5, 6].map(|then| runs.compared_with(then)),
            [Run::Same, Run::Same, Run::Unknown, Run::Same]
        );
        runs.ended(6);
        // Its processes crashed, and were started anew.
        runs.began(8, instance(10, Some((9, 12))));
        assert_eq!(
            [3, 6, 7, 8].map(|then| runs.compared_with(then)),
            [Run::Other, Run::Other, Run::Unknown, Run::Same]
        );
        runs.ended(8);
        runs.began(10, instance(10, None));
        assert_eq!(runs.compared_with(8), Run::Unknown, "nobody may look");
        runs.ended(10);
        runs.began(12, instance(20, None));
        assert_eq!([8, 10].map(|then| runs.compared_with(then)), [Run::Other, Run::Other]);
    }

    #[test]
    fn what_a_standby_was_on_is_forgotten_with_its_run() {
        let mut runs = Runs::default();
        runs.began(1, instance(10, Some((7, 11))));
        runs.stands_by_on(TimelineId(3));
        runs.stands_by_on(TimelineId(2));
        runs.ended(1);
        runs.began(3, instance(10, Some((7, 11))));
        assert_eq!(runs.stood_by_on(), Some(TimelineId(3)));
        runs.distrust();
        assert_eq!(runs.stood_by_on(), None);
        runs.stands_by_on(TimelineId(3));
        runs.ended(3);
        runs.began(5, instance(12, Some((7, 13))));
        assert_eq!(runs.stood_by_on(), None);
    }

    #[test]
    fn old_connections_are_forgotten() {
        let mut runs = Runs::default();
        for number in 0..20 {
            runs.began(2 * number, instance(1, Some((1, 1))));
            runs.ended(2 * number);
        }
        runs.began(40, instance(1, Some((1, 1))));
        assert_eq!((runs.compared_with(0), runs.compared_with(38)), (Run::Unknown, Run::Same));
        assert!(runs.connections.len() <= KEPT);
    }
}
