//! All sources → one primary, none, or a conflict.
//!
//! What the nodes say of themselves decides ([`Standing::advance`]): only a node that was asked, and said
//! that it is the primary of the newest timeline, is written to. Patroni can only object: as long as its
//! newest answer says that somebody else leads, or nobody, writes wait. It cannot object
//!
//! - when it has not answered for long: its store may be lost, and the nodes are all there is to go by;
//! - when it is paused: then people lead, and its lock says nothing;
//! - when it may be behind: it was asked before the newest timeline was first seen, and knows only of older
//!   ones. Whoever is asked after that knows better: Patroni's lock moves before a promotion, so a server that
//!   was promoted without it is not the primary, however new its timeline;
//! - when its leader was measured to be a server of another system;
//! - when its leader is none of the nodes, so that it may be this very primary by another name; unless that
//!   one is on a newer timeline, which this primary cannot be on.

use crate::cluster::patroni::Testimony;
use crate::cluster::roles::{Claim, Standing};
use crate::lsn::TimelineId;
use crate::moment::Moment;
use crate::node::NodeId;
use std::time::Duration;

/// What the sources lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// This node is written to.
    One(NodeId),
    /// Nobody is.
    None,
    /// Two claim to be primary on one timeline; nobody is written to.
    Conflict(NodeId, NodeId),
}

/// Whom Patroni names, among the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leader {
    /// This node.
    Node(NodeId),
    /// A member that is none of the nodes.
    Stranger,
    /// Nobody holds the lock.
    Nobody,
    /// Endpoints disagree, and neither is newer.
    Disputed,
}

/// What Patroni's newest answer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// When it was asked.
    pub asked: Moment,
    /// Whom it names.
    pub leader: Leader,
    /// The timeline that the leader wrote down.
    pub timeline: Option<TimelineId>,
    /// The newest that any member wrote down.
    pub newest: Option<TimelineId>,
    /// Is it paused?
    pub paused: bool,
}

/// Why the primary that the nodes have proven is not written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Objection {
    /// Patroni names another node.
    OtherLeader,
    /// Nobody holds Patroni's lock.
    NoLeader,
    /// Patroni's endpoints disagree.
    Disputed,
}

impl Objection {
    /// One line for tables and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Objection::OtherLeader => "is a primary, but Patroni names another leader",
            Objection::NoLeader => "is a primary, but nobody holds Patroni's leader lock",
            Objection::Disputed => "is a primary, but Patroni's endpoints disagree who leads",
        }
    }
}

impl Word {
    /// What `testimony` says, in terms of nodes.
    pub fn of(testimony: &Testimony, node_of: impl Fn(&str) -> Option<NodeId>) -> Word {
        let leader = testimony.leader();
        Word {
            asked: testimony.asked,
            leader: match leader {
                _ if testimony.disputed => Leader::Disputed,
                None => Leader::Nobody,
                Some(member) => node_of(&member.name).map_or(Leader::Stranger, Leader::Node),
            },
            timeline: leader.and_then(|member| member.timeline),
            newest: testimony.members.iter().filter_map(|member| member.timeline).max(),
            paused: testimony.paused,
        }
    }

    /// Is it new enough to count?
    pub fn counts(&self, now: Moment, trusted_for: Duration) -> bool {
        now.since(self.asked) <= trusted_for
    }

    /// What it has against writing to the primary that `claims` have proven, in `standing`.
    fn objection(&self, primary: NodeId, standing: &Standing, claims: &[Claim]) -> Option<Objection> {
        if self.paused {
            return None;
        }
        let timeline = standing.timeline;
        let asked_since = standing.since.is_some_and(|since| self.asked >= since);
        let may_know = |on: Option<TimelineId>| asked_since || on.is_none() || on >= timeline;
        match self.leader {
            Leader::Node(leader) if leader == primary => None,
            Leader::Node(leader) => {
                let measured = claims.iter().find(|claim| claim.node == leader);
                // Followers of this primary write their timeline down late: whoever was measured on it and
                // is named has been named since.
                let on = self.timeline.max(measured.and_then(|claim| claim.timeline));
                let is_foreign = measured.is_some_and(|claim| standing.is_foreign(claim));
                (!is_foreign && may_know(on)).then_some(Objection::OtherLeader)
            }
            Leader::Stranger => (self.timeline > timeline).then_some(Objection::OtherLeader),
            Leader::Nobody => may_know(self.newest).then_some(Objection::NoLeader),
            Leader::Disputed => may_know(self.newest).then_some(Objection::Disputed),
        }
    }
}

/// The standing after `claims`, the newest of which came at `now`, with what Patroni has to say, if that counts.
pub fn resolve(standing: &Standing, claims: &[Claim], word: Option<&Word>, now: Moment) -> Standing {
    let next = standing.advance(claims);
    let next = Standing { since: next.since.or(next.timeline.map(|_| now)), ..next };
    let (Some(primary), Some(word)) = (next.primary, word) else {
        return next;
    };
    match word.objection(primary, &next, claims) {
        Some(objection) => Standing { primary: None, disowned: Some((primary, objection)), ..next },
        None => next,
    }
}

impl Standing {
    /// In one word.
    pub fn verdict(&self) -> Verdict {
        match (self.primary, self.conflict) {
            (Some(node), _) => Verdict::One(node),
            (None, Some((one, other))) => Verdict::Conflict(one, other),
            (None, None) => Verdict::None,
        }
    }
}

#[cfg(test)]
mod tests;
