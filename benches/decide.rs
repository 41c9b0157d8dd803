//! The cost of one decision. The budget: about 100 ns with 2 to 16 replicas.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use divan::{Bencher, black_box};
use pgweir::cluster::view::{ClusterView, NodeLive, NodeState, NodeView};
use pgweir::freshness::gate::{Durability, Floor};
use pgweir::moment::Moment;
use pgweir::node::{NodeId, Role};
use pgweir::routing::decide::decide;
use pgweir::routing::request::{Consistency, Demand, Held, Request, RoutingPolicy};
use pgweir::sql::class::{Access, Route, Why};
use std::sync::Arc;

const NOW: Moment = Moment(1_000_000_000_000);

fn main() {
    divan::main();
}

fn cluster(replicas: u16) -> ClusterView {
    let node = |id: u16| {
        let live = NodeLive::default();
        let sent = Moment(NOW.0 - 1_000_000);
        live.publish(sent, sent, sent);
        NodeView {
            id: NodeId(id),
            name: Arc::from("node"),
            host: Arc::from("127.0.0.1"),
            port: 5432,
            address: None,
            place: 0,
            weight: 1,
            zone: None,
            tags: Arc::from([]),
            state: NodeState::Up,
            role: Some(if id == 0 { Role::Primary } else { Role::Replica }),
            timeline: None,
            position: None,
            lag_bytes: Some(0),
            standby: pgweir::cluster::view::Standby::default(),
            replay_paused: false,
            serves_reads: true,
            last_error: None,
            live: Arc::new(live),
        }
    };
    ClusterView {
        nodes: (0..=replicas).map(node).collect(),
        primary: Some(NodeId(0)),
        ..ClusterView::default()
    }
}

fn request(access: Access) -> Request {
    Request {
        access,
        why: Why::PlainRead,
        begins_read_only: false,
        complete: true,
        learnt: false,
        replayed: false,
        route: Route::Auto,
        held: Held::Free,
        consistency: Consistency::Session,
        arrived: Moment::NEVER,
        shows: true,
        max_staleness: None,
        demand: Demand::default(),
        floor: Floor {
            write: Some((Moment(NOW.0 - 5_000_000), Durability::Flushed)),
            read: None,
            ..Floor::default()
        },
        last_write: None,
        pipelined_on: None,
        waiting_until: None,
        excluded: 0,
        rule: pgweir::routing::rules::Asked::default(),
        split: false,
    }
}

#[divan::bench(args = [2, 4, 16])]
fn read(bencher: Bencher, replicas: u16) {
    let (view, policy, request) = (cluster(replicas), RoutingPolicy::default(), request(Access::Read));
    let mut draw = 1u64;
    bencher.bench_local(|| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        decide(black_box(&request), black_box(&view), &policy, NOW, draw)
    });
}

#[divan::bench]
fn write(bencher: Bencher) {
    let (view, policy, request) = (cluster(2), RoutingPolicy::default(), request(Access::Write));
    bencher.bench_local(|| decide(black_box(&request), black_box(&view), &policy, NOW, 1));
}
