//! May a request go to the primary yet, or could that take its session, or the world, back in time?

use crate::cluster::view::{ClusterView, NodeState, NodeView};
use crate::freshness::defect::Defect;
use crate::moment::Moment;
use crate::node::Role;
use crate::routing::balance::Eligible;
use crate::routing::request::{Consistency, Held, Request, RoutingPolicy};
use crate::sql::class::{Access, Why};
use std::time::Duration;

/// What the primary is not proven to show yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unfenced {
    /// Replicas whose fences are to be raised.
    pub nodes: Eligible,
    /// Up to this moment.
    pub at: Moment,
}

/// The fence that a request needs before it goes to the primary; `None`: it may.
///
/// From level `strict` on, everything that the session has read on a replica must be visible on the primary.
/// At level `global`, for whatever shows something, also what anybody may have read on any replica before
/// it arrived. Inside a transaction block nothing is asked any more: the block is one operation, which begins
/// with the first statement in it.
pub fn unfenced(request: &Request, view: &ClusterView, policy: &RoutingPolicy) -> Option<Unfenced> {
    if request.consistency < Consistency::Strict
        || request.held == Held::InTransaction
        || policy.defect == Defect::NoFence
    {
        return None;
    }
    // While there is none, there is nothing to compare with.
    let primary = view.primary?;
    // Whoever has proven it: what was inserted by then is visible on the primary.
    let covered = view.nodes.iter().map(|node| node.live.fenced_insert()).max().unwrap_or(Moment::NEVER);
    let mut missing = Unfenced { nodes: Eligible::default(), at: Moment::NEVER };
    if let Some(read) = request.floor.read.filter(|read| read.node != primary && read.at > covered) {
        let reader = view.node(read.node);
        let proven = reader.map_or(Moment::NEVER, |node| node.live.fenced(read.incarnation));
        let lives = reader
            .is_some_and(|node| may_show(node) && node.live.freshness().incarnation == read.incarnation);
        // What it read before that elsewhere, the last read need not have had (at level `eventual`).
        let earlier = request.floor.seen > covered;
        if proven < read.at || earlier {
            missing.at = read.at.max(proven.plus(Duration::from_nanos(1)));
            match lives && !earlier {
                true => missing.nodes.insert(read.node),
                // Another replica proves as much as soon as it has replayed as much.
                false => replicas(view).for_each(|node| missing.nodes.insert(node.id)),
            }
            if missing.nodes.is_empty() {
                // Nobody can prove it now. Any bit makes the request wait; it is looked at again.
                missing.nodes.insert(read.node);
            }
        }
    }
    if request.consistency == Consistency::Global && shows(request) && request.arrived > covered {
        for node in replicas(view) {
            if node.live.fenced(node.live.freshness().incarnation) < request.arrived {
                missing.nodes.insert(node.id);
                missing.at = missing.at.max(request.arrived);
            }
        }
    }
    (!missing.nodes.is_empty()).then_some(missing)
}

/// Can its answer depend on what others have committed? What only writes is ordered by the primary itself.
fn shows(request: &Request) -> bool {
    let only_writes = request.access == Access::Write && request.why != Why::TransactionControl;
    request.shows && !only_writes
}

/// Those that may have shown somebody something a moment ago.
fn replicas(view: &ClusterView) -> impl Iterator<Item = &NodeView> {
    view.nodes.iter().filter(|node| may_show(node))
}

fn may_show(node: &NodeView) -> bool {
    node.role == Some(Role::Replica) && matches!(node.state, NodeState::Up | NodeState::Suspect)
}

#[cfg(test)]
mod tests;
