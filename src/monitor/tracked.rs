//! What is known of one node, and how it is drawn into the picture.

use crate::cluster::health::Health;
use crate::cluster::resolver::Objection;
use crate::cluster::roles::{Claim, Refusal, Standing};
use crate::cluster::view::{NodeLive, NodeState, NodeView, Standby};
use crate::freshness::ring::{WalGeometry, Watermark};
use crate::lsn::{Lsn, TimelineId};
use crate::moment::Moment;
use crate::monitor::catch_up::CatchUp;
use crate::monitor::picture::Instance;
use crate::monitor::runs::Runs;
use crate::node::{NodeId, Role};
use std::sync::Arc;

/// One node.
#[derive(Debug)]
pub struct Tracked {
    /// State and role.
    pub health: Health,
    /// What its connection told.
    pub system_identifier: Option<u64>,
    /// Sizes of its WAL.
    pub geometry: WalGeometry,
    /// Which running server it is; `None`: it was not asked yet.
    pub instance: Option<Instance>,
    /// And which it was.
    pub runs: Runs,
    /// Was it ever asked?
    pub attempted: bool,
    /// The timeline it is proven to be on.
    pub timeline: Option<TimelineId>,
    /// Its replay or insert position.
    pub position: Option<Lsn>,
    /// How it replays.
    pub standby: Standby,
    /// Is replay paused?
    pub paused: bool,
    /// When the question was sent that it answered last.
    pub answered: Option<Moment>,
    /// The newest sample since its connection was made.
    pub sent: Option<Moment>,
    /// The best proof since its connection was made.
    pub watermark: Watermark,
    /// How long replay takes.
    pub catch_up: CatchUp,
    /// When a client's connection reported another `in_hot_standby`.
    pub changed: Option<Moment>,
    /// Has an operator banned it from serving reads?
    pub banned: bool,
    /// Is it not to be read from, as Patroni says?
    pub without_reads: bool,
    /// For tests: what was proven once counts for ever.
    pub keeps_proofs: bool,
}

impl Tracked {
    /// Nothing known.
    pub fn new() -> Tracked {
        Tracked {
            health: Health::default(),
            system_identifier: None,
            geometry: WalGeometry::default(),
            instance: None,
            runs: Runs::default(),
            attempted: false,
            timeline: None,
            position: None,
            standby: Standby::default(),
            paused: false,
            answered: None,
            sent: None,
            watermark: Watermark::default(),
            catch_up: CatchUp::default(),
            changed: None,
            banned: false,
            without_reads: false,
            keeps_proofs: false,
        }
    }

    /// Nothing is proven any more.
    pub fn forget(&mut self, live: &NodeLive) {
        if self.keeps_proofs {
            return;
        }
        self.sent = None;
        self.watermark = Watermark::default();
        self.catch_up = CatchUp::default();
        live.forget();
    }

    /// It is somewhere else now, and may be another server: nothing of it is known.
    pub fn start_over(&mut self, live: &NodeLive) {
        live.moved();
        let (banned, without_reads, keeps_proofs) = (self.banned, self.without_reads, self.keeps_proofs);
        *self = Tracked { banned, without_reads, keeps_proofs, ..Tracked::new() };
    }

    /// Is it the same server as `other`, by another name?
    pub fn is_twin_of(&self, other: &Tracked) -> bool {
        self.instance.zip(other.instance).is_some_and(|(one, other)| one.is(&other))
            && self.system_identifier == other.system_identifier
            && matches!(other.health.state(), NodeState::Up | NodeState::Suspect)
    }

    /// For `cluster::roles`; `twin`: it is the server that another node is, too.
    pub fn claim(&self, node: NodeId, twin: bool) -> Claim {
        let role = self.health.role().filter(|&role| self.health.holds_role(role));
        Claim {
            node,
            role,
            timeline: self.timeline,
            system_identifier: self.system_identifier,
            attempted: self.attempted,
            twin,
        }
    }

    /// Brings the node's view up to date; `true` when more than numbers changed.
    pub fn draw(&self, node: &mut NodeView, insert: Option<Lsn>, standing: &Standing, twin: bool) -> bool {
        let role = self.health.role();
        let refusal = match self.health.state() {
            NodeState::Up | NodeState::Suspect => standing.refusal(&self.claim(node.id, twin)),
            NodeState::Unknown | NodeState::Down | NodeState::Removed => None,
        };
        let serves_reads = refusal.is_none() && self.sent.is_some() && !self.banned && !self.without_reads;
        let changed = node.state != self.health.state()
            || node.role != role
            || node.timeline != self.timeline
            || node.standby != self.standby
            || node.replay_paused != self.paused
            || node.serves_reads != serves_reads;
        node.state = self.health.state();
        node.role = role;
        node.timeline = self.timeline;
        if node.standby != self.standby {
            node.standby = self.standby.clone();
        }
        node.replay_paused = self.paused;
        node.serves_reads = serves_reads;
        node.position = self.position;
        node.lag_bytes = match (role, insert, self.position) {
            (Some(Role::Replica), Some(insert), Some(replay)) => Some(insert.bytes_since(replay)),
            (Some(Role::Primary), ..) => Some(0),
            _ => None,
        };
        let kept_away = self.banned.then_some(BANNED).or(self.without_reads.then_some(WITHOUT_READS));
        note_refusal(node, refusal.map(Refusal::as_str).or(kept_away));
        changed
    }
}

/// What tables say of a node that an operator has banned.
const BANNED: &str = "banned by an operator: UNBAN ends that";

/// The same of Patroni's wish.
const WITHOUT_READS: &str = "no reads: it carries Patroni's tag noloadbalance";

/// A refusal stands in `last_error` while it lasts.
fn note_refusal(node: &mut NodeView, wanted: Option<&'static str>) {
    const ALL: [Refusal; 9] = [
        Refusal::WrongSystem,
        Refusal::OldTimeline,
        Refusal::Conflict,
        Refusal::Disowned(Objection::OtherLeader),
        Refusal::Disowned(Objection::NoLeader),
        Refusal::Disowned(Objection::Disputed),
        Refusal::Twin,
        Refusal::UnprovenBranch,
        Refusal::Undecided,
    ];
    let shown = node.last_error.as_deref();
    if wanted.is_some() && shown != wanted {
        node.last_error = wanted.map(Arc::from);
    } else if wanted.is_none()
        && (shown == Some(BANNED)
            || shown == Some(WITHOUT_READS)
            || ALL.iter().any(|refusal| shown == Some(refusal.as_str())))
    {
        node.last_error = None;
    }
}
