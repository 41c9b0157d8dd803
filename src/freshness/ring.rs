//! Samples of the primary; a replay position becomes a watermark.
//!
//! A sample says: every commit that anyone saw finish before `sent` lies below `insert`, and below
//! `flush` if it was synchronous. So a replica that has replayed up to an LSN shows everything that
//! was committed by the newest `sent` whose LSN is not above it.

use crate::lsn::{Lsn, TimelineId, WalPosition};
use crate::moment::Moment;

/// Entries per track. Thinning keeps far fewer; this is the bound.
pub const CAPACITY: usize = 1024;

/// After thinning, two neighbours `age` old may be up to `age / RESOLUTION` apart, so a watermark
/// that is that old may look that much older than it is: about 3 %.
const RESOLUTION: u64 = 32;

/// The sizes that say where WAL records can start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalGeometry {
    /// `wal_block_size` in bytes.
    pub block_size: u64,
    /// `wal_segment_size` in bytes.
    pub segment_size: u64,
}

impl Default for WalGeometry {
    fn default() -> WalGeometry {
        WalGeometry { block_size: 8 << 10, segment_size: 16 << 20 }
    }
}

impl WalGeometry {
    const PAGE_HEADER: u64 = 24;
    const SEGMENT_HEADER: u64 = 40;

    /// Where the last record really ended. When it ended exactly at a page boundary, PostgreSQL's
    /// insert position already points past the next page's header, and no replica would reach it
    /// until more WAL is written (up to 15 s on an idle primary).
    pub fn last_record_end(self, position: Lsn) -> Lsn {
        let into = |size: u64| position.0.checked_rem(size);
        let header = match (into(self.segment_size), into(self.block_size)) {
            (Some(WalGeometry::SEGMENT_HEADER), _) => WalGeometry::SEGMENT_HEADER,
            // 24 bytes into a segment is inside its long header: not a position of a record.
            (Some(WalGeometry::PAGE_HEADER), _) => 0,
            (_, Some(WalGeometry::PAGE_HEADER)) => WalGeometry::PAGE_HEADER,
            _ => 0,
        };
        Lsn(position.0 - header)
    }
}

/// One answer of the primary, its LSNs as the server gave them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrimarySample {
    /// Taken before the query was sent.
    pub sent: Moment,
    /// `pg_current_wal_insert_lsn()`.
    pub insert: Lsn,
    /// `pg_current_wal_flush_lsn()`.
    pub flush: Lsn,
    /// The timeline on which it inserts.
    pub timeline: TimelineId,
}

/// What a replica has provably replayed; `Moment::NEVER` where nothing is proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermark {
    /// Everything inserted by then.
    pub insert: Moment,
    /// Everything flushed by then.
    pub flush: Moment,
}

impl Watermark {
    /// The later of each. Sound for one incarnation of a replica: there, replay only grows.
    pub fn max(self, other: Watermark) -> Watermark {
        Watermark { insert: self.insert.max(other.insert), flush: self.flush.max(other.flush) }
    }
}

/// What a sample did to the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// It is the newest now.
    Kept,
    /// It was on another timeline: the ring starts anew with it.
    NewTimeline,
    /// A position went backwards (the primary lost unflushed WAL in a crash): the older samples
    /// are forgotten, the ring starts anew with it.
    Backwards,
    /// It was sent before the newest one, and says nothing.
    OutOfOrder,
}

/// The samples of one timeline.
#[derive(Clone, Debug, Default)]
pub struct PrimaryRing {
    geometry: WalGeometry,
    newest: Option<PrimarySample>,
    insert: Track,
    flush: Track,
}

impl PrimaryRing {
    /// An empty ring.
    pub fn new(geometry: WalGeometry) -> PrimaryRing {
        PrimaryRing { geometry, ..PrimaryRing::default() }
    }

    /// A connection to the primary has told its sizes. (They differ only between clusters.)
    pub fn set_geometry(&mut self, geometry: WalGeometry) {
        if self.geometry != geometry {
            *self = PrimaryRing::new(geometry);
        }
    }

    /// Takes a sample. Its LSNs are rounded down to where the last record ended.
    pub fn push(&mut self, sample: PrimarySample) -> Pushed {
        let sample = PrimarySample {
            insert: self.geometry.last_record_end(sample.insert),
            flush: self.geometry.last_record_end(sample.flush),
            ..sample
        };
        let pushed = self.relation(&sample);
        match pushed {
            Pushed::OutOfOrder => return pushed,
            Pushed::NewTimeline | Pushed::Backwards => self.clear(),
            Pushed::Kept => {}
        }
        self.newest = Some(sample);
        self.insert.push(sample.insert, sample.sent);
        self.flush.push(sample.flush, sample.sent);
        pushed
    }

    /// What a replica has provably replayed when its replay position is `replay`.
    pub fn watermark(&self, replay: WalPosition) -> Watermark {
        if self.timeline() != Some(replay.timeline) {
            return Watermark::default();
        }
        Watermark { insert: self.insert.covered_by(replay.lsn), flush: self.flush.covered_by(replay.lsn) }
    }

    /// The moment of a watermark that covers everything inserted up to `lsn`: that of the first sample
    /// which had reached it. `None`: no sample has.
    pub fn moment_of(&self, lsn: Lsn) -> Option<Moment> {
        self.insert.first_at(self.geometry.last_record_end(lsn))
    }

    /// What had certainly been inserted by `moment`: the sample before the last one that was sent by then,
    /// whose answer may have come later.
    pub fn inserted_before(&self, moment: Moment) -> Option<Lsn> {
        let sent_by = self.insert.entries.partition_point(|&(_, sent)| sent <= moment);
        sent_by.checked_sub(2).map(|index| self.insert.entries[index].0)
    }

    /// What covers everything that had been inserted by `moment`: the first sample sent afterwards.
    pub fn inserted_by(&self, moment: Moment) -> Option<Lsn> {
        let before = self.insert.entries.partition_point(|&(_, sent)| sent < moment);
        self.insert.entries.get(before).map(|&(lsn, _)| lsn)
    }

    /// The newest sample, its LSNs rounded.
    pub fn newest(&self) -> Option<PrimarySample> {
        self.newest
    }

    /// The timeline of its samples.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.newest.map(|sample| sample.timeline)
    }

    /// Entries of its longer track; never more than `CAPACITY`.
    pub fn len(&self) -> usize {
        self.insert.entries.len().max(self.flush.entries.len())
    }

    /// Has it no sample?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every sample.
    pub fn clear(&mut self) {
        *self = PrimaryRing::new(self.geometry);
    }

    fn relation(&self, sample: &PrimarySample) -> Pushed {
        let Some(newest) = self.newest else { return Pushed::Kept };
        if sample.timeline != newest.timeline {
            Pushed::NewTimeline
        } else if sample.sent < newest.sent {
            Pushed::OutOfOrder
        } else if sample.insert < newest.insert || sample.flush < newest.flush {
            Pushed::Backwards
        } else {
            Pushed::Kept
        }
    }
}

/// Both columns grow strictly from entry to entry.
#[derive(Clone, Debug, Default)]
struct Track {
    entries: Vec<(Lsn, Moment)>,
}

impl Track {
    fn push(&mut self, lsn: Lsn, sent: Moment) {
        if let Some(last) = self.entries.last_mut()
            && last.0 == lsn
        {
            // An idle primary: the same position proves ever later moments.
            last.1 = sent;
            return;
        }
        if self.entries.len() >= CAPACITY {
            self.thin(sent);
        }
        self.entries.push((lsn, sent));
    }

    fn covered_by(&self, replay: Lsn) -> Moment {
        let reached = self.entries.partition_point(|&(lsn, _)| lsn <= replay);
        reached.checked_sub(1).map_or(Moment::NEVER, |index| self.entries[index].1)
    }

    fn first_at(&self, lsn: Lsn) -> Option<Moment> {
        let before = self.entries.partition_point(|&(entry, _)| entry < lsn);
        self.entries.get(before).map(|&(_, sent)| sent)
    }

    /// Drops entries so that gaps grow with age. A dropped entry only makes a watermark older.
    fn thin(&mut self, now: Moment) {
        // From the newest to the oldest; an entry stays when it is far enough from its newer
        // neighbour for its age.
        let mut newer = Moment(u64::MAX);
        self.entries.reverse();
        self.entries.retain(|&(_, sent)| {
            let gap = u64::try_from(now.since(sent).as_nanos()).unwrap_or(u64::MAX) / RESOLUTION;
            let keep = newer.0.saturating_sub(sent.0) >= gap;
            if keep {
                newer = sent;
            }
            keep
        });
        self.entries.truncate(CAPACITY * 3 / 4);
        self.entries.reverse();
    }
}

#[cfg(test)]
mod tests;
