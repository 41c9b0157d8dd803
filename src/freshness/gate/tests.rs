use super::*;
use crate::freshness::ring::{PrimaryRing, PrimarySample, Watermark};
use crate::lsn::{Lsn, TimelineId, WalPosition};
use proptest::prelude::*;

fn reading(insert: u64, flush: u64, sent: u64) -> FreshnessReading {
    FreshnessReading {
        watermark_insert: Moment(insert),
        watermark_flush: Moment(flush),
        sample_sent: Moment(sent),
        incarnation: 1,
    }
}

#[test]
fn a_synchronous_write_needs_the_flush_watermark_and_any_other_the_insert_watermark() {
    let fresh = reading(10, 20, 30);
    let table = [
        (Durability::Flushed, 20, true),
        (Durability::Flushed, 21, false),
        (Durability::Inserted, 10, true),
        (Durability::Inserted, 11, false),
    ];
    for (durability, at, met) in table {
        let floor = Floor { write: Some((Moment(at), durability)), read: None, ..Floor::default() };
        assert_eq!(Need::of_floor(&floor, NodeId(0), 1).is_met_by(&fresh), met, "{durability:?} {at}");
    }
}

#[test]
fn the_same_replica_in_the_same_incarnation_needs_nothing_for_a_read() {
    let read = LastRead { at: Moment(15), node: NodeId(1), incarnation: 1 };
    let floor = Floor { read: Some(read), ..Floor::default() };
    let fresh = reading(10, 20, 30);
    for (node, incarnation, met) in [(1, 1, true), (2, 1, false), (1, 2, false)] {
        let need = Need::of_floor(&floor, NodeId(node), incarnation);
        assert_eq!(need.is_met_by(&fresh), met, "node {node} incarnation {incarnation}");
    }
}

#[test]
fn a_sample_older_than_the_connection_proves_nothing_on_it() {
    let fresh = reading(10, 20, 30);
    let need = Need::default();
    assert!(need.is_met_on(&fresh, Moment(30)));
    assert!(!need.is_met_on(&fresh, Moment(31)));
    assert!(!need.is_met_by(&reading(10, 20, 0)));
}

/// One primary, one replica that restarts behind itself, one monitor, one session.
#[derive(Default)]
struct Model {
    now: u64,
    insert: u64,
    flush: u64,
    replay: u64,
    ring: PrimaryRing,
    mark: Watermark,
    sent: u64,
    incarnation: u64,
    /// When the living server connection was made.
    established: u64,
    floor: Floor,
    /// The end of the last write's record, and what the last read had seen.
    must_see: u64,
}

impl Model {
    fn step(&mut self, step: u8, size: u64) -> Result<(), TestCaseError> {
        self.now += 1;
        match step {
            0 | 1 => self.write(size, step == 0),
            2 => self.flush = self.insert,
            3 => self.sample_primary(),
            4 => self.sample_replica(),
            5 => self.replay = (self.replay + size).min(self.flush),
            // A restart replays from the restartpoint. It kills every connection; the monitor
            // notices its own with the next sample.
            6 => {
                self.replay = self.replay.saturating_sub(size);
                self.established = 0;
                self.sent = 0;
                self.mark = Watermark::default();
                self.incarnation += 1;
            }
            _ => self.read()?,
        }
        Ok(())
    }

    fn write(&mut self, size: u64, synchronous: bool) {
        self.insert += size;
        let durability = if synchronous { Durability::Flushed } else { Durability::Inserted };
        if synchronous {
            self.flush = self.insert;
        }
        self.floor.write = Some((Moment(self.now), durability));
        // A later synchronous commit flushes the earlier ones too.
        self.must_see = self.insert;
    }

    fn sample_primary(&mut self) {
        self.ring.push(PrimarySample {
            sent: Moment(self.now),
            insert: Lsn(self.insert),
            flush: Lsn(self.flush),
            timeline: TimelineId(1),
        });
    }

    fn sample_replica(&mut self) {
        let at = WalPosition { timeline: TimelineId(1), lsn: Lsn(self.replay) };
        self.mark = self.mark.max(self.ring.watermark(at));
        self.sent = self.now;
    }

    fn read(&mut self) -> Result<(), TestCaseError> {
        if self.established == 0 {
            self.established = self.now;
            return Ok(());
        }
        let fresh = FreshnessReading {
            watermark_insert: self.mark.insert,
            watermark_flush: self.mark.flush,
            sample_sent: Moment(self.sent),
            incarnation: self.incarnation,
        };
        let need = Need::of_floor(&self.floor, NodeId(0), self.incarnation);
        let seen = if need.is_met_on(&fresh, Moment(self.established)) {
            prop_assert!(self.replay >= self.must_see, "stale: {} of {}", self.replay, self.must_see);
            self.floor.read =
                Some(LastRead { at: Moment(self.now), node: NodeId(0), incarnation: self.incarnation });
            self.replay
        } else {
            self.floor.read = Some(LastRead { at: Moment(self.now), node: NodeId(9), incarnation: 0 });
            self.insert
        };
        self.must_see = self.must_see.max(seen);
        Ok(())
    }
}

proptest! {
    /// Whatever is written, sampled, replayed or restarted in whatever order: a session never
    /// reads less than it has written or read before.
    #[test]
    fn a_session_never_reads_a_past_that_it_has_left(
        steps in proptest::collection::vec((0u8..12, 32u64..4_000), 1..400)
    ) {
        let mut model = Model { insert: 100_000, flush: 100_000, replay: 100_000, ..Model::default() };
        for (step, size) in steps {
            model.step(step, size)?;
        }
    }
}

#[test]
fn a_read_that_was_not_held_to_the_floor_does_not_hide_the_one_before_it() {
    let read = |at, node| LastRead { at: Moment(at), node: NodeId(node), incarnation: 0 };
    let mut floor = Floor::default();
    floor.saw(read(10, 1));
    floor.saw(read(20, 1));
    assert_eq!(Need::of_floor(&floor, NodeId(1), 0), Need::default());
    // At level eventual, on a node that is behind.
    floor.saw(read(30, 2));
    assert_eq!(Need::of_floor(&floor, NodeId(2), 0).insert, Moment(20));
    assert_eq!(Need::of_floor(&floor, NodeId(1), 0).insert, Moment(30));
    floor.saw(read(40, 2));
    assert_eq!(Need::of_floor(&floor, NodeId(2), 0).insert, Moment(20));
}
