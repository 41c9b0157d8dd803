use super::*;
use crate::cluster::view::{NodeLive, NodeState};
use crate::node::Role;
use std::sync::Arc;

const NOW: Moment = Moment(1_000_000_000_000);

fn node(id: u16, weight: u32, in_flight: u32) -> NodeView {
    let live = NodeLive::default();
    live.publish(NOW, NOW, NOW);
    (0..in_flight).for_each(|_| live.begin());
    NodeView {
        id: NodeId(id),
        name: Arc::from("n"),
        host: Arc::from("h"),
        port: 5432,
        address: None,
        place: 0,
        weight,
        zone: None,
        tags: Arc::from([]),
        state: NodeState::Up,
        role: Some(Role::Replica),
        timeline: None,
        position: None,
        lag_bytes: None,
        standby: crate::cluster::view::Standby::default(),
        replay_paused: false,
        serves_reads: true,
        last_error: None,
        live: Arc::new(live),
    }
}

/// Of 9,000 choices, how many fell on each.
fn shares(strategy: Balance, nodes: Vec<NodeView>) -> Vec<u32> {
    let mut eligible = Eligible::default();
    nodes.iter().for_each(|node| eligible.insert(node.id));
    let mut counts = vec![0; nodes.len()];
    let view = ClusterView { nodes, ..ClusterView::default() };
    let mut draw = 0x2545_F491_4F6C_DD1Du64;
    for turn in 0..9_000u64 {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        let argument = if strategy == Balance::RoundRobin { turn } else { draw };
        if let Some(id) = choose(strategy, eligible, &view, NOW, argument) {
            counts[id.index()] += 1;
        }
    }
    counts
}

#[test]
fn idle_replicas_share_by_weight() {
    for strategy in [Balance::Lag, Balance::LeastBusy, Balance::RoundRobin, Balance::Random, Balance::Latency]
    {
        let counts = shares(strategy, vec![node(0, 2, 0), node(1, 1, 0)]);
        assert!((5_600..=6_400).contains(&counts[0]), "{strategy:?} {counts:?}");
    }
}

#[test]
fn in_turn_is_exactly_in_turn() {
    assert_eq!(shares(Balance::RoundRobin, vec![node(0, 1, 0), node(1, 1, 9), node(2, 1, 0)]), [3_000; 3]);
}

#[test]
fn a_busy_or_lagging_or_slow_replica_is_avoided() {
    let lagging = node(0, 1, 0);
    lagging.live.publish(Moment(NOW.0 - 2_000_000_000), NOW, NOW);
    let slow = node(0, 1, 0);
    slow.live.begin();
    slow.live.end(Some(9_000));
    let quick = node(1, 1, 0);
    quick.live.begin();
    quick.live.end(Some(100));
    let table = [
        (Balance::Lag, node(0, 1, 5), node(1, 1, 1)),
        (Balance::LeastBusy, node(0, 1, 5), node(1, 1, 1)),
        (Balance::Lag, lagging, node(1, 1, 0)),
        (Balance::Latency, slow, quick),
    ];
    for (strategy, bad, good) in table {
        let counts = shares(strategy, vec![bad, good]);
        assert!(counts[0] * 10 < counts[1], "{strategy:?} {counts:?}");
    }
}

#[test]
fn what_does_not_fit_into_the_set_is_never_chosen() {
    let mut eligible = Eligible::default();
    eligible.insert(NodeId(64));
    eligible.insert(NodeId(u16::MAX));
    assert!(eligible.is_empty());
    assert_eq!(choose(Balance::Lag, eligible, &ClusterView::default(), NOW, 1), None);
}
