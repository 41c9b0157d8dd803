#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::cluster::view::NodeLive;
use crate::freshness::gate::{Floor, LastRead};
use crate::node::NodeId;
use crate::routing::balance::bit;
use crate::routing::request::Demand;
use crate::routing::rules::Asked;
use crate::sql::class::Route;
use std::sync::Arc;

fn node(id: u16, role: Role) -> NodeView {
    NodeView {
        id: NodeId(id),
        name: Arc::from("n"),
        host: Arc::from("h"),
        port: 5432,
        address: None,
        place: 0,
        weight: 1,
        zone: None,
        tags: Arc::from([]),
        state: NodeState::Up,
        role: Some(role),
        timeline: None,
        position: None,
        lag_bytes: Some(0),
        replay_paused: false,
        standby: crate::cluster::view::Standby::default(),
        serves_reads: true,
        last_error: None,
        live: Arc::new(NodeLive::default()),
    }
}

fn cluster() -> ClusterView {
    let nodes = vec![node(0, Role::Primary), node(1, Role::Replica), node(2, Role::Replica)];
    ClusterView { nodes, primary: Some(NodeId(0)), ..ClusterView::default() }
}

/// It read on node 1 at 100, and arrived at 200.
fn request(consistency: Consistency) -> Request {
    Request {
        access: Access::Read,
        why: Why::PlainRead,
        begins_read_only: false,
        complete: true,
        learnt: false,
        replayed: false,
        route: Route::Auto,
        held: Held::Free,
        consistency,
        arrived: Moment(200),
        shows: true,
        demand: Demand::default(),
        rule: Asked::default(),
        split: false,
        max_staleness: None,
        floor: Floor {
            write: None,
            read: Some(LastRead { at: Moment(100), node: NodeId(1), incarnation: 0 }),
            seen: Moment::NEVER,
        },
        last_write: None,
        pipelined_on: None,
        waiting_until: None,
        excluded: 0,
    }
}

fn missing(request: &Request, view: &ClusterView) -> (u64, u64) {
    let found = unfenced(request, view, &RoutingPolicy::default());
    found.map_or((0, 0), |unfenced| (unfenced.nodes.0, unfenced.at.0))
}

const ONE: u64 = 0b10;
const BOTH: u64 = 0b110;

#[test]
fn strict_needs_what_its_session_has_read_and_global_what_anybody_may_have() {
    use Consistency::{Eventual, Global, Session, Strict};
    let view = cluster();
    let write = |level| Request { access: Access::Write, why: Why::WritesRows, ..request(level) };
    let begins = |level, shows| Request {
        access: Access::Write,
        why: Why::TransactionControl,
        shows,
        ..request(level)
    };
    let nothing_read = |level| Request { floor: Floor::default(), ..request(level) };
    let table = [
        (request(Eventual), (0, 0)),
        (request(Session), (0, 0)),
        (request(Strict), (ONE, 100)),
        (request(Global), (BOTH, 200)),
        (write(Strict), (ONE, 100)),
        (write(Global), (ONE, 100)),
        (begins(Global, false), (ONE, 100)),
        (begins(Global, true), (BOTH, 200)),
        (nothing_read(Strict), (0, 0)),
        (nothing_read(Global), (BOTH, 200)),
        (Request { held: Held::InTransaction, ..request(Global) }, (0, 0)),
        (Request { held: Held::Pinned, ..request(Strict) }, (ONE, 100)),
    ];
    for (request, expected) in table {
        assert_eq!(missing(&request, &view), expected, "{request:?}");
    }
    let off = RoutingPolicy { defect: Defect::NoFence, ..RoutingPolicy::default() };
    assert_eq!(unfenced(&request(Global), &view, &off), None);
}

#[test]
fn what_was_read_on_the_primary_it_shows_and_without_one_nothing_is_compared() {
    let mut view = cluster();
    let mut own = request(Consistency::Strict);
    own.floor.read = Some(LastRead { at: Moment(100), node: NodeId(0), incarnation: 7 });
    assert_eq!(missing(&own, &view), (0, 0));
    view.primary = None;
    assert_eq!(missing(&request(Consistency::Global), &view), (0, 0));
}

#[test]
fn a_fence_counts_for_its_node_in_its_incarnation() {
    let view = cluster();
    let strict = request(Consistency::Strict);
    view.nodes[1].live.set_fenced(Moment(99), Moment(0));
    assert_eq!(missing(&strict, &view), (ONE, 100));
    view.nodes[2].live.set_fenced(Moment(500), Moment(0));
    assert_eq!(missing(&strict, &view), (ONE, 100), "another replica may have been behind");
    view.nodes[1].live.set_fenced(Moment(100), Moment(0));
    assert_eq!(missing(&strict, &view), (0, 0));
    assert_eq!(missing(&request(Consistency::Global), &view), (ONE, 200));
    view.nodes[1].live.forget();
    assert_eq!(missing(&strict, &view), (BOTH, 100), "it restarted: any other may prove it");
    view.nodes[1].live.set_fenced(Moment(600), Moment(0));
    assert_eq!(missing(&strict, &view).1, 100, "a later incarnation proves nothing about what it lost");
}

#[test]
fn whoever_had_replayed_it_all_proves_it_for_everybody() {
    let mut view = cluster();
    view.nodes[1].live.forget();
    view.nodes[2].live.set_fenced(Moment(190), Moment(150));
    assert_eq!(missing(&request(Consistency::Strict), &view), (0, 0));
    assert_eq!(missing(&request(Consistency::Global), &view), (BOTH, 200));
    view.nodes[2].live.set_fenced(Moment(290), Moment(200));
    assert_eq!(missing(&request(Consistency::Global), &view), (0, 0));
    // Nobody is left who could prove what was read: it waits nevertheless.
    view.nodes[2].live.forget();
    view.nodes[1].state = NodeState::Down;
    view.nodes[2].state = NodeState::Down;
    let unfenced = unfenced(&request(Consistency::Strict), &view, &RoutingPolicy::default());
    assert_eq!(unfenced.unwrap().nodes.0, bit(NodeId(1)));
}

#[test]
fn what_was_read_before_the_last_read_is_waited_for_where_that_did_not_have_it() {
    let (view, policy) = (cluster(), RoutingPolicy::default());
    let mut request = request(Consistency::Strict);
    // The last read, at 100 on node 1, was at level eventual: node 1 was behind what node 2 showed at 80.
    request.floor.seen = Moment(80);
    view.nodes[1].live.set_fenced(Moment(150), Moment(70));
    let missing = unfenced(&request, &view, &policy).unwrap();
    assert!(missing.nodes.contains(NodeId(1)) && missing.nodes.contains(NodeId(2)), "{missing:?}");
    assert!(missing.at > Moment(150), "node 1 has to prove more than it has");
    view.nodes[2].live.set_fenced(Moment(160), Moment(80));
    assert_eq!(unfenced(&request, &view, &policy), None);
}
