//! One of several eligible replicas.

use crate::cluster::view::{ClusterView, NodeView};
use crate::moment::Moment;
use crate::node::NodeId;
use crate::routing::request::Balance;
use std::time::Duration;

/// Replicas as a bit set of node ids: at most 64 nodes take part in balancing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Eligible(pub u64);

impl Eligible {
    /// With `node` too. Ids above 63 do not fit, and are left out.
    pub fn insert(&mut self, node: NodeId) {
        self.0 |= bit(node);
    }

    /// Is `node` in it?
    pub fn contains(self, node: NodeId) -> bool {
        self.0 & bit(node) != 0
    }

    /// Is nobody in it?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn ids(self) -> impl Iterator<Item = NodeId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let lowest = rest.trailing_zeros();
            (lowest < 64).then(|| {
                rest &= rest - 1;
                NodeId(lowest as u16)
            })
        })
    }
}

/// The bit of a node in a set; none for ids above 63.
pub fn bit(node: NodeId) -> u64 {
    1u64.checked_shl(u32::from(node.0)).unwrap_or(0)
}

/// Chooses by `strategy`. `draw` is 64 uniform random bits; for `round_robin` it is a number that
/// grows by one with each request (random bits make it a weighted random choice).
pub fn choose(
    strategy: Balance,
    eligible: Eligible,
    view: &ClusterView,
    now: Moment,
    draw: u64,
) -> Option<NodeId> {
    if eligible.0.is_power_of_two() {
        return eligible.ids().next();
    }
    let total: u64 = eligible.ids().map(|id| weight(view, id)).sum();
    if total == 0 {
        return None;
    }
    let first = by_weight(eligible, view, draw % total)?;
    match strategy {
        Balance::RoundRobin | Balance::Random => Some(first),
        Balance::Lag => better(first, eligible, view, draw, |node| lag_cost(node, now)),
        Balance::LeastBusy => better(first, eligible, view, draw, busy_cost),
        // One draw in eight explores: a node that was slow once must be measured again.
        Balance::Latency if draw >> 61 == 0 => Some(first),
        Balance::Latency => better(first, eligible, view, draw, latency_cost),
    }
}

/// Power of two choices: `first`, unless a second one, drawn from the others, costs less. Equal
/// costs keep the draw, so idle replicas share by weight.
fn better(
    first: NodeId,
    eligible: Eligible,
    view: &ClusterView,
    draw: u64,
    cost: impl Fn(&NodeView) -> u64,
) -> Option<NodeId> {
    let others = Eligible(eligible.0 & !bit(first));
    let total: u64 = others.ids().map(|id| weight(view, id)).sum();
    let second = by_weight(others, view, (draw >> 32) % total.max(1)).unwrap_or(first);
    let cheaper = cost(view.node(second)?) < cost(view.node(first)?);
    Some(if cheaper { second } else { first })
}

fn by_weight(eligible: Eligible, view: &ClusterView, slot: u64) -> Option<NodeId> {
    let mut left = slot;
    for id in eligible.ids() {
        let share = weight(view, id);
        if left < share {
            return Some(id);
        }
        left -= share;
    }
    None
}

fn weight(view: &ClusterView, id: NodeId) -> u64 {
    view.node(id).map_or(0, |node| u64::from(node.weight.max(1)))
}

/// Zero for an idle node, whatever its weight: weight is honoured by the draw.
fn busy_cost(node: &NodeView) -> u64 {
    u64::from(node.live.in_flight()) * 1024 / u64::from(node.weight.max(1))
}

/// `(in flight + 1) × penalty / weight`, but zero for a fresh idle node.
fn lag_cost(node: &NodeView, now: Moment) -> u64 {
    let load = (u64::from(node.live.in_flight()) + 1) * penalty(node, now) - 1;
    load * 1024 / u64::from(node.weight.max(1))
}

/// 1 to 16. Coarse, so that the phase of the sampling does not matter between two fresh replicas.
fn penalty(node: &NodeView, now: Moment) -> u64 {
    const STEP: Duration = Duration::from_millis(250);
    const STEP_BYTES: u64 = 4 << 20;
    let stale = now.since(node.live.freshness().watermark_insert).as_nanos() / STEP.as_nanos();
    let behind = node.lag_bytes.unwrap_or(0) / STEP_BYTES;
    (1 + u64::try_from(stale).unwrap_or(u64::MAX).saturating_add(behind).min(15)).min(16)
}

/// Powers of √2 of microseconds, so that noise between two equal nodes is a tie. Not measured yet
/// is the lowest: it is to be measured.
fn latency_cost(node: &NodeView) -> u64 {
    let micros = u64::from(node.live.latency_micros());
    let square = micros.saturating_mul(micros);
    u64::from(u64::BITS - square.leading_zeros())
}

#[cfg(test)]
mod tests;
