//! May this replica serve this read? A comparison of its watermark with the session's floor.

use crate::cluster::view::FreshnessReading;
use crate::moment::Moment;
use crate::node::NodeId;

/// Which watermark covers a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The commit was certainly synchronous: the flush watermark covers it.
    Flushed,
    /// It may have been asynchronous: only the insert watermark does.
    Inserted,
}

/// What a session has acknowledged and seen, as moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    /// When the last write was acknowledged, and how.
    pub write: Option<(Moment, Durability)>,
    /// When the last read finished, where, and in which incarnation of that node.
    pub read: Option<LastRead>,
    /// When the newest read before it finished that another node, or another incarnation, served. A last
    /// read that was held to the floor had all of that; one at level `eventual` was not.
    pub seen: Moment,
}

impl Floor {
    /// A read has finished.
    pub fn saw(&mut self, read: LastRead) {
        if let Some(last) = self.read.replace(read)
            && (last.node, last.incarnation) != (read.node, read.incarnation)
        {
            self.seen = self.seen.max(last.at);
        }
    }
}

/// The session's last read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastRead {
    /// When its answer was complete.
    pub at: Moment,
    /// Who served it.
    pub node: NodeId,
    /// That node's monitor incarnation at the time.
    pub incarnation: u64,
}

/// What a replica must have replayed to serve one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// Everything inserted by then.
    pub insert: Moment,
    /// Everything flushed by then.
    pub flush: Moment,
}

impl Need {
    /// The floor's demand on `node` in its present `incarnation`.
    pub fn of_floor(floor: &Floor, node: NodeId, incarnation: u64) -> Need {
        let mut need = Need::default().and_inserted_by(floor.seen);
        match floor.write {
            Some((at, Durability::Flushed)) => need.flush = at,
            Some((at, Durability::Inserted)) => need = need.and_inserted_by(at),
            None => {}
        }
        if let Some(read) = floor.read
            && (read.node != node || read.incarnation != incarnation)
        {
            need.insert = need.insert.max(read.at);
        }
        need
    }

    /// With everything inserted by `moment` too.
    pub fn and_inserted_by(mut self, moment: Moment) -> Need {
        self.insert = self.insert.max(moment);
        self
    }

    /// With everything that `other` needs too.
    pub fn and(mut self, other: Need) -> Need {
        self.insert = self.insert.max(other.insert);
        self.flush = self.flush.max(other.flush);
        self
    }

    /// Has a replica with this freshness replayed it?
    pub fn is_met_by(&self, fresh: &FreshnessReading) -> bool {
        fresh.sample_sent != Moment::NEVER
            && fresh.watermark_insert >= self.insert
            && fresh.watermark_flush >= self.flush
    }

    /// The same for one server connection: the sample must have been sent after the connection was
    /// established, because a restart that lost replayed WAL would have killed the connection.
    pub fn is_met_on(&self, fresh: &FreshnessReading, established: Moment) -> bool {
        fresh.sample_sent >= established && self.is_met_by(fresh)
    }
}

#[cfg(test)]
mod tests;
