//! All nodes: who is primary, on which timeline, on what evidence.

use crate::cluster::resolver::Objection;
use crate::lsn::TimelineId;
use crate::moment::Moment;
use crate::node::{NodeId, Role};

/// What one node was measured to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Which node.
    pub node: NodeId,
    /// The role it holds now (`None`: it does not answer, or its role was dropped).
    pub role: Option<Role>,
    /// The timeline it was last proven to be on.
    pub timeline: Option<TimelineId>,
    /// The system identifier that it last told.
    pub system_identifier: Option<u64>,
    /// Was it ever asked, whatever came of it?
    pub attempted: bool,
    /// Is it the same server as another node, reached by another name?
    pub twin: bool,
}

/// Why a node may not serve although it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It belongs to another cluster.
    WrongSystem,
    /// It claims to be primary on a timeline older than the newest seen.
    OldTimeline,
    /// It claims to be primary on the timeline of another primary.
    Conflict,
    /// It is a primary, and Patroni objects.
    Disowned(Objection),
    /// It is the server that another node is, too.
    Twin,
    /// A replica that is not proven to be on the primary's timeline: it may have run ahead of the
    /// fork, and show rows that the cluster lost.
    UnprovenBranch,
    /// Not yet known: which system, or which timeline, is the cluster's.
    Undecided,
}

impl Refusal {
    /// One line for tables and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::WrongSystem => "belongs to another cluster (different system identifier)",
            Refusal::OldTimeline => "is a primary on an old timeline",
            Refusal::Conflict => "is one of two primaries on the same timeline",
            Refusal::Disowned(objection) => objection.as_str(),
            Refusal::Twin => "is the same server as another node",
            Refusal::UnprovenBranch => "is not proven to be on the primary's timeline",
            Refusal::Undecided => "is not yet known to belong to this cluster",
        }
    }
}

/// What is settled about the cluster. It only grows: the newest timeline is never forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The proven primary of the newest timeline.
    pub primary: Option<NodeId>,
    /// Two primaries on the newest timeline.
    pub conflict: Option<(NodeId, NodeId)>,
    /// Who would be the primary, had Patroni nothing against it.
    pub disowned: Option<(NodeId, Objection)>,
    /// The newest timeline seen.
    pub timeline: Option<TimelineId>,
    /// When it was first seen.
    pub since: Option<Moment>,
    /// The cluster's system identifier.
    pub system_identifier: Option<u64>,
}

impl Standing {
    /// The standing after `claims`. When a newer timeline was first seen is for the caller to say.
    pub fn advance(&self, claims: &[Claim]) -> Standing {
        let system_identifier = self.system_identifier.or_else(|| elect_system(claims));
        let ours =
            |claim: &&Claim| system_identifier.is_some() && claim.system_identifier == system_identifier;
        let seen = claims.iter().filter(ours).filter_map(|claim| claim.timeline).max();
        let timeline = self.timeline.max(seen);
        let since = self.since.filter(|_| timeline == self.timeline);
        let mut claimants = claims
            .iter()
            .filter(ours)
            .filter(|claim| claim.timeline.is_some())
            .filter(|claim| claim.role == Some(Role::Primary) && claim.timeline == timeline && !claim.twin)
            .map(|claim| claim.node);
        let (primary, conflict) = match (claimants.next(), claimants.next()) {
            (Some(one), Some(other)) => (None, Some((one, other))),
            (one, _) => (one, None),
        };
        Standing { primary, conflict, disowned: None, timeline, since, system_identifier }
    }

    /// Was it measured to be a server of another cluster?
    pub fn is_foreign(&self, claim: &Claim) -> bool {
        claim.system_identifier.is_some()
            && self.system_identifier.is_some()
            && claim.system_identifier != self.system_identifier
    }

    /// Why the node of `claim` may not serve; `None`: it may.
    pub fn refusal(&self, claim: &Claim) -> Option<Refusal> {
        if claim.system_identifier.is_none() || self.system_identifier.is_none() {
            return Some(Refusal::Undecided);
        }
        if self.is_foreign(claim) {
            return Some(Refusal::WrongSystem);
        }
        if claim.twin && claim.role.is_some() {
            return Some(Refusal::Twin);
        }
        let objection = self.disowned.filter(|(node, _)| *node == claim.node);
        match claim.role? {
            Role::Primary if claim.timeline != self.timeline => Some(Refusal::OldTimeline),
            Role::Primary if self.conflict.is_some() => Some(Refusal::Conflict),
            Role::Primary => objection.map(|(_, objection)| Refusal::Disowned(objection)),
            Role::Replica if claim.timeline != self.timeline => Some(Refusal::UnprovenBranch),
            Role::Replica => None,
        }
    }
}

/// The identifier that most nodes have, once no silent node could outvote it, or all were asked.
/// A tie goes to the node that comes first.
fn elect_system(claims: &[Claim]) -> Option<u64> {
    let votes = |id: u64| claims.iter().filter(|claim| claim.system_identifier == Some(id)).count();
    let (id, count) = claims
        .iter()
        .filter_map(|claim| claim.system_identifier)
        .map(|id| (id, votes(id)))
        .reduce(|best, next| if next.1 > best.1 { next } else { best })?;
    let settled = count * 2 > claims.len() || claims.iter().all(|claim| claim.attempted);
    settled.then_some(id)
}

#[cfg(test)]
mod tests;
