//! A session is told, once, that a write of it which was acknowledged is not part of the cluster any more.

use crate::config::settings::OnLoss;
use crate::fault::{Fault, SqlState};
use crate::freshness::gate::Durability;
use crate::freshness::losses::{Evidence, Fate};
use crate::moment::Moment;
use crate::relay::buffer::Active;
use crate::relay::client::Client;
use crate::session::exchange::GroupRecord;
use crate::session::group::Group;
use crate::wire::backend::TransactionStatus;
use crate::wire::writers::{self, Severity};

/// When the session's last write was acknowledged, and how durable it is.
type Written = Option<(Moment, Durability)>;

impl Client {
    /// A group is complete, before which the last write was `before`.
    pub(super) fn note_acknowledged(&mut self, record: &GroupRecord, before: Written) {
        let written = self.session.state.floor.write;
        if let Some((at, _)) = written.filter(|_| written != before) {
            self.acknowledged = Some((record.sent, at));
        }
    }

    /// There was a failover since it was told of one. True: the group is refused with the news.
    pub(super) fn tells_of_loss(&mut self, active: &mut Active, group: &Group) -> bool {
        let failovers = self.context.monitor.failovers();
        if self.failovers == failovers || self.session.state.status() != TransactionStatus::Idle {
            return false;
        }
        self.failovers = failovers;
        let Some((sent, at)) = self.acknowledged.take() else { return false };
        let fault = match self.context.monitor.fate(sent, at) {
            Fate::Survived => {
                self.acknowledged = Some((sent, at));
                return false;
            }
            Fate::Lost(evidence) => lost(&evidence),
            Fate::Unknown(evidence) => perhaps_lost(&evidence),
        };
        tracing::warn!(user = %self.slot.user(), database = %self.slot.database(), "{fault}");
        match self.context.config.load().routing.lost_writes {
            OnLoss::Off => false,
            OnLoss::Warning => {
                let mut bytes = Vec::new();
                writers::fault(&mut bytes, Severity::Warning, &fault);
                active.answers.insert(&bytes);
                false
            }
            OnLoss::Error => {
                self.answer_refusal(active, group, &fault);
                true
            }
        }
    }
}

fn lost(evidence: &Evidence) -> Fault {
    let Evidence { behind, next, fork } = evidence;
    let message = format!(
        "acknowledged write at {}/{} was lost in the failover to timeline {}, which forked at {fork}",
        behind.timeline.0, behind.lsn, next.0
    );
    Fault::server(SqlState::ACKNOWLEDGED_WRITE_LOST, message)
        .detail("It lies at that position or behind it. The session goes on; this is said once.")
}

fn perhaps_lost(evidence: &Evidence) -> Fault {
    let Evidence { behind, next, fork } = evidence;
    let message = format!(
        "acknowledged write behind {}/{} may have been lost in the failover to timeline {}, which forked at {fork}",
        behind.timeline.0, behind.lsn, next.0
    );
    Fault::server(SqlState::ACKNOWLEDGED_WRITE_LOST, message)
        .detail("Nothing proves on which side of the fork it lies. The session goes on; this is said once.")
        .hint("With synchronous replication it is not lost.")
}
