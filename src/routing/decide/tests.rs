#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::cluster::view::{NodeLive, NodeState};
use crate::freshness::gate::{Durability, Floor, LastRead};
use crate::node::Role;
use crate::routing::request::{Balance, Demand};
use std::sync::Arc;
use std::time::Duration;

const NOW: Moment = Moment(1_000_000_000_000);

fn ago(millis: u64) -> Moment {
    NOW.minus(Duration::from_millis(millis))
}

fn node(id: u16, role: Role) -> NodeView {
    let live = NodeLive::default();
    live.publish(ago(50), ago(40), ago(30));
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
        standby: crate::cluster::view::Standby::default(),
        replay_paused: false,
        serves_reads: true,
        last_error: None,
        live: Arc::new(live),
    }
}

fn cluster(replicas: u16) -> ClusterView {
    let mut nodes = vec![node(0, Role::Primary)];
    nodes.extend((1..=replicas).map(|id| node(id, Role::Replica)));
    ClusterView { nodes, primary: Some(NodeId(0)), ..ClusterView::default() }
}

fn read() -> Request {
    Request {
        access: Access::Read,
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
        floor: Floor::default(),
        demand: Demand::default(),
        last_write: None,
        pipelined_on: None,
        waiting_until: None,
        excluded: 0,
        rule: Asked::default(),
        split: false,
    }
}

/// BEGIN READ ONLY.
fn begins() -> Request {
    Request { access: Access::Write, why: Why::TransactionControl, begins_read_only: true, ..read() }
}

fn wrote(millis_ago: u64) -> Floor {
    Floor { write: Some((ago(millis_ago), Durability::Flushed)), read: None, ..Floor::default() }
}

fn ask(request: &Request, view: &ClusterView, policy: &RoutingPolicy) -> (&'static str, Reason) {
    let decision = decide(request, view, policy, NOW, 7);
    let target = match decision.target {
        Target::Primary => "primary",
        Target::Replica { .. } => "replica",
        Target::Wait { .. } => "wait",
        Target::Refuse => "refuse",
    };
    (target, decision.reason)
}

#[test]
fn the_table_of_what_only_the_primary_may_do() {
    let view = cluster(2);
    let table = [
        (Request { held: Held::Pinned, ..read() }, Reason::Pinned),
        (Request { held: Held::InTransaction, ..read() }, Reason::InTransaction),
        (Request { held: Held::SessionMode, access: Access::Write, ..read() }, Reason::SessionMode),
        (Request { access: Access::Write, why: Why::WritesRows, ..read() }, Reason::Write),
        (Request { access: Access::Write, route: Route::Replica, ..read() }, Reason::Write),
        (Request { access: Access::Unknown, why: Why::Unparsable, ..read() }, Reason::Unknown),
        (
            Request { access: Access::Write, why: Why::TransactionControl, ..read() },
            Reason::TransactionControl,
        ),
        (Request { access: Access::Write, why: Why::SessionState, ..read() }, Reason::SessionState),
        (Request { access: Access::Unknown, why: Why::CatalogNotLoaded, ..read() }, Reason::CatalogNotLoaded),
        (Request { route: Route::Primary, ..read() }, Reason::RoutePrimary),
        (Request { complete: false, ..read() }, Reason::OpenGroup),
        (Request { learnt: true, ..read() }, Reason::Learnt),
        (Request { replayed: true, ..read() }, Reason::Replayed),
        (Request { excluded: 0b110, ..read() }, Reason::Replayed),
        (Request { demand: Demand::barred(Reason::TokenUnproven), ..read() }, Reason::TokenUnproven),
        (
            Request { demand: Demand::barred(Reason::CausalStoreDown), route: Route::Replica, ..read() },
            Reason::CausalStoreDown,
        ),
    ];
    for (request, reason) in table {
        assert_eq!(ask(&request, &view, &RoutingPolicy::default()), ("primary", reason), "{request:?}");
    }
    assert_eq!(ask(&read(), &cluster(0), &RoutingPolicy::default()), ("primary", Reason::NoReplica));
}

#[test]
fn the_table_of_reads() {
    let view = cluster(2);
    let saw = |node, incarnation| Floor {
        read: Some(LastRead { at: ago(1), node: NodeId(node), incarnation }),
        ..Floor::default()
    };
    let table = [
        (read(), "replica", Reason::Balanced),
        (Request { route: Route::Replica, ..read() }, "replica", Reason::RouteReplica),
        (Request { pipelined_on: Some(NodeId(2)), ..read() }, "replica", Reason::Pipelined),
        (Request { pipelined_on: Some(NodeId(2)), excluded: 0b100, ..read() }, "replica", Reason::Balanced),
        (Request { waiting_until: Some(NOW), ..read() }, "replica", Reason::Waited),
        (Request { floor: wrote(45), ..read() }, "replica", Reason::Balanced),
        (begins(), "replica", Reason::ReadOnlyTransaction),
        (Request { split: true, ..read() }, "replica", Reason::SplitTransaction),
        (Request { split: true, floor: wrote(5), ..read() }, "wait", Reason::NotFreshEnough),
        (Request { split: true, ..read() }.begins(), "primary", Reason::TransactionControl),
        (Request { route: Route::Replica, ..begins() }, "replica", Reason::RouteReplica),
        (Request { route: Route::Primary, ..begins() }, "primary", Reason::RoutePrimary),
        (Request { held: Held::Pinned, ..begins() }, "primary", Reason::Pinned),
        (Request { floor: wrote(5), ..begins() }, "wait", Reason::NotFreshEnough),
        (
            Request { floor: wrote(5), waiting_until: Some(NOW), ..begins() },
            "primary",
            Reason::NotFreshEnough,
        ),
        (Request { floor: wrote(5), ..read() }, "wait", Reason::NotFreshEnough),
        (Request { floor: wrote(5), waiting_until: Some(NOW), ..read() }, "primary", Reason::NotFreshEnough),
        (
            Request { floor: wrote(5), consistency: Consistency::Eventual, ..read() },
            "replica",
            Reason::Balanced,
        ),
        (Request { floor: saw(1, 0), ..read() }, "replica", Reason::Balanced),
        (Request { floor: saw(1, 0), excluded: 0b10, ..read() }, "wait", Reason::NotFreshEnough),
        (Request { floor: saw(1, 9), ..read() }, "wait", Reason::NotFreshEnough),
        (Request { max_staleness: Some(Duration::from_millis(60)), ..read() }, "replica", Reason::Balanced),
        (
            Request { max_staleness: Some(Duration::from_millis(10)), ..read() },
            "wait",
            Reason::NotFreshEnough,
        ),
    ];
    for (request, target, reason) in table {
        assert_eq!(ask(&request, &view, &RoutingPolicy::default()), (target, reason), "{request:?}");
    }
}

#[test]
fn waiting_goes_on_until_its_end_and_only_where_it_is_likely_to_be_enough() {
    let view = cluster(1);
    let policy = RoutingPolicy::default();
    let late = Request { floor: wrote(5), ..read() };
    let until = NOW.plus(Duration::from_millis(2));
    let waiting = Request { waiting_until: Some(until), ..late };
    assert_eq!(decide(&waiting, &view, &policy, NOW, 0).target, Target::Wait { until });
    view.nodes[1].live.set_catch_up(Duration::from_millis(300));
    assert_eq!(ask(&late, &view, &policy), ("primary", Reason::NotFreshEnough));
    let error = RoutingPolicy { on_lag: OnLag::Error, ..policy.clone() };
    assert_eq!(ask(&late, &view, &error), ("refuse", Reason::NotFreshEnough));
    let wait = RoutingPolicy { on_lag: OnLag::Wait, ..policy.clone() };
    let limit = NOW.plus(wait.lag_wait_limit);
    assert_eq!(decide(&late, &view, &wait, NOW, 0).target, Target::Wait { until: limit });
    let never = RoutingPolicy { wait: Duration::ZERO, ..policy };
    view.nodes[1].live.set_catch_up(Duration::ZERO);
    assert_eq!(ask(&late, &view, &never), ("primary", Reason::NotFreshEnough));
}

#[test]
fn stickiness_after_a_write() {
    let view = cluster(1);
    let written = Request { last_write: Some(ago(1000)), ..read() };
    let stay = |seconds| RoutingPolicy {
        pin_after_write: PinAfterWrite::For(Duration::from_secs(seconds)),
        ..RoutingPolicy::default()
    };
    let forever =
        RoutingPolicy { pin_after_write: PinAfterWrite::UntilDisconnect, ..RoutingPolicy::default() };
    assert_eq!(ask(&written, &view, &stay(2)), ("primary", Reason::AfterWrite));
    assert_eq!(ask(&written, &view, &stay(1)), ("replica", Reason::Balanced));
    assert_eq!(ask(&written, &view, &forever), ("primary", Reason::AfterWrite));
    assert_eq!(ask(&read(), &view, &forever), ("replica", Reason::Balanced));
    // What somebody else has written under its causal key counts for as long.
    let keyed = Request { demand: Demand::by(ago(1000)), ..read() };
    assert_eq!(ask(&keyed, &view, &stay(2)), ("primary", Reason::AfterWrite));
    assert_eq!(ask(&keyed, &view, &stay(1)), ("replica", Reason::Balanced));
    assert_eq!(ask(&keyed, &view, &forever), ("replica", Reason::Balanced));
}

#[test]
fn unknown_is_stale() {
    type Spoil = (&'static str, fn(&mut NodeView));
    let spoil: [Spoil; 8] = [
        ("suspect", |node| node.state = NodeState::Suspect),
        ("down", |node| node.state = NodeState::Down),
        ("no role", |node| node.role = None),
        ("another system", |node| node.serves_reads = false),
        ("too far behind", |node| node.lag_bytes = Some((64 << 20) + 1)),
        ("forgotten", |node| node.live.forget()),
        ("hung", |node| node.live.publish(ago(300), ago(300), ago(201))),
        ("stale", |node| node.live.publish(ago(10_001), ago(10_001), ago(1))),
    ];
    for (what, change) in spoil {
        let mut view = cluster(1);
        change(&mut view.nodes[1]);
        let request = Request { consistency: Consistency::Eventual, waiting_until: Some(NOW), ..read() };
        assert_eq!(ask(&request, &view, &RoutingPolicy::default()).0, "primary", "{what}");
    }
    // In the first seconds of the process `now - max_staleness` is before the beginning.
    let view = cluster(1);
    view.nodes[1].live.publish(Moment::NEVER, Moment::NEVER, Moment(5));
    let decision = decide(&read(), &view, &RoutingPolicy::default(), Moment(10), 0);
    assert!(!matches!(decision.target, Target::Replica { .. }));
}

#[test]
fn a_tag_is_kept_to_unless_its_rule_falls_back() {
    let policy = RoutingPolicy { wait: Duration::ZERO, ..RoutingPolicy::default() };
    let asked = |tagged, fallback| Request {
        rule: Asked { tagged: Some(tagged), fallback, ..Asked::default() },
        ..read()
    };
    let node_of = |decision: Decision| match decision.target {
        Target::Replica { node, .. } => Some(node),
        _ => None,
    };
    let mut view = cluster(3);
    for draw in 0..64 {
        let decision = decide(&asked(0b0100, Fallback::Replica), &view, &policy, NOW, draw << 58 | draw);
        assert_eq!((node_of(decision), decision.reason), (Some(NodeId(2)), Reason::RuleReplica));
    }
    view.nodes[2].state = NodeState::Down;
    let others = decide(&asked(0b0100, Fallback::Replica), &view, &policy, NOW, 7);
    assert!(node_of(others).is_some_and(|node| node != NodeId(2)));
    assert_eq!(ask(&asked(0b0100, Fallback::Primary), &view, &policy), ("primary", Reason::NoReplica));
    assert_eq!(ask(&asked(0b0100, Fallback::Error), &view, &policy), ("refuse", Reason::NoReplica));
    // Up, but it has not what this session needs.
    view.nodes[2].state = NodeState::Up;
    let behind = |fallback| Request { floor: wrote(1), ..asked(0b0100, fallback) };
    assert_eq!(ask(&behind(Fallback::Replica), &view, &policy).0, "primary");
    assert_eq!(ask(&behind(Fallback::Primary), &view, &policy), ("primary", Reason::NotFreshEnough));
    assert_eq!(ask(&behind(Fallback::Error), &view, &policy), ("refuse", Reason::NotFreshEnough));
}

#[test]
fn a_delayed_standby_is_reached_by_its_tag_alone() {
    let policy = RoutingPolicy::default();
    let mut view = cluster(1);
    view.nodes[1].standby.apply_delay = Duration::from_millis(300);
    assert_eq!(ask(&read(), &view, &policy).0, "replica");
    view.nodes[1].standby.apply_delay = Duration::from_secs(3600);
    assert_eq!(ask(&read(), &view, &policy), ("primary", Reason::NoReplica));
    let wish = Asked { route: Route::Replica, ..Asked::default() };
    assert_eq!(ask(&Request { rule: wish, ..read() }, &view, &policy).0, "primary");
    let tagged = Asked { tagged: Some(0b10), ..Asked::default() };
    assert_eq!(ask(&Request { rule: tagged, ..read() }, &view, &policy).0, "replica");
    // As it is an hour after pgweir was started, and before.
    let eventual = |bound| Request {
        consistency: Consistency::Eventual,
        rule: Asked { max_staleness: Some(bound), ..tagged },
        ..read()
    };
    view.nodes[1].lag_bytes = Some(1 << 40);
    for (watermark, bound, target) in [
        (ago(60_000), Duration::from_secs(120), "replica"),
        (ago(60_000), Duration::from_secs(30), "primary"),
        (Moment::NEVER, Duration::from_secs(86_400), "primary"),
        (Moment::NEVER, UNBOUNDED, "replica"),
    ] {
        view.nodes[1].live.publish(watermark, watermark, ago(30));
        assert_eq!(ask(&eventual(bound), &view, &policy).0, target, "{watermark:?} {bound:?}");
    }
    // A level above eventual has a floor, whatever the rule's bound.
    let session = Request { floor: wrote(1), consistency: Consistency::Session, ..eventual(UNBOUNDED) };
    assert_eq!(ask(&session, &view, &policy).0, "primary");
    // What the client asks for is the smaller bound.
    let stricter = Request { max_staleness: Some(Duration::from_secs(1)), ..eventual(UNBOUNDED) };
    assert_eq!(ask(&stricter, &view, &policy).0, "primary");
}

/// A small generator: what matters here is many states, quickly.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

fn any_view(dice: &mut Dice) -> ClusterView {
    let mut view = cluster(dice.roll(6) as u16);
    for node in &mut view.nodes {
        node.state =
            dice.one(&[NodeState::Up, NodeState::Up, NodeState::Up, NodeState::Suspect, NodeState::Down]);
        node.role = dice.one(&[Some(Role::Replica), Some(Role::Replica), Some(Role::Primary), None]);
        node.serves_reads = dice.roll(8) > 0;
        node.replay_paused = dice.roll(8) == 0;
        node.standby.apply_delay = Duration::from_secs(dice.roll(16).saturating_sub(4));
        node.lag_bytes = dice.one(&[None, Some(0), Some(1 << 20), Some(1 << 40)]);
        node.weight = dice.roll(4) as u32;
        node.live.publish(ago(dice.roll(400)), ago(dice.roll(400)), ago(dice.roll(250)));
        node.live.set_catch_up(Duration::from_millis(dice.roll(6)));
    }
    view.primary = view.nodes.iter().find(|node| node.role == Some(Role::Primary)).map(|node| node.id);
    view
}

fn any_rule(dice: &mut Dice) -> Asked {
    if dice.coin() {
        return Asked::default();
    }
    let bound = Duration::from_millis(dice.roll(900));
    Asked {
        route: dice.one(&[Route::Auto, Route::Auto, Route::Replica, Route::Primary]),
        tagged: dice.coin().then(|| dice.roll(256)),
        max_staleness: dice.coin().then(|| dice.one(&[bound, UNBOUNDED])),
        fallback: dice.one(&[Fallback::Replica, Fallback::Primary, Fallback::Error]),
    }
}

fn any_request(dice: &mut Dice) -> Request {
    let write = (ago(dice.roll(400)), dice.one(&[Durability::Flushed, Durability::Inserted]));
    let seen =
        LastRead { at: ago(dice.roll(400)), node: NodeId(dice.roll(8) as u16), incarnation: dice.roll(2) };
    let barred = dice.one(&[Reason::TokenUnproven, Reason::CausalStoreDown, Reason::CausalKeyInDoubt]);
    Request {
        access: dice.one(&[Access::Read, Access::Read, Access::Read, Access::Write, Access::Unknown]),
        why: dice.one(&[Why::PlainRead, Why::SessionState, Why::TransactionControl, Why::CatalogNotLoaded]),
        begins_read_only: dice.roll(8) == 0,
        complete: dice.roll(8) > 0,
        learnt: dice.roll(8) == 0,
        replayed: dice.roll(8) == 0,
        route: dice.one(&[Route::Auto, Route::Auto, Route::Replica, Route::Primary]),
        held: dice.one(&[Held::Free, Held::Free, Held::Free, Held::Free, Held::Pinned, Held::InTransaction]),
        consistency: dice.one(&[
            Consistency::Session,
            Consistency::Eventual,
            Consistency::Strict,
            Consistency::Global,
        ]),
        arrived: ago(dice.roll(400)),
        shows: dice.coin(),
        max_staleness: dice.coin().then(|| Duration::from_millis(dice.roll(500))),
        floor: Floor {
            write: dice.coin().then_some(write),
            read: dice.coin().then_some(seen),
            ..Floor::default()
        },
        demand: dice.one(&[
            Demand::default(),
            Demand::default(),
            Demand::by(ago(45)),
            Demand::default(),
            Demand::barred(barred),
        ]),
        last_write: dice.coin().then_some(write.0),
        pipelined_on: dice.coin().then(|| NodeId(dice.roll(8) as u16)),
        waiting_until: dice.coin().then(|| ago(3).plus(Duration::from_millis(dice.roll(6)))),
        excluded: dice.roll(4) * dice.roll(64),
        rule: any_rule(dice),
        split: dice.roll(4) == 0,
    }
}

fn may_read(request: &Request) -> bool {
    request.access == Access::Read || request.begins_read_only
}

fn check(request: &Request, view: &ClusterView, policy: &RoutingPolicy, decision: Decision) {
    match decision.target {
        Target::Replica { node, need } => {
            assert!(may_read(request) && request.held == Held::Free);
            assert!(request.complete && !request.learnt && !request.replayed);
            assert_ne!(request.route, Route::Primary);
            let node = view.node(node).unwrap();
            let fresh = node.live.freshness();
            assert!(need.is_met_by(&fresh));
            let limit = request.rule.max_staleness.unwrap_or(policy.max_staleness);
            let bound = request.max_staleness.unwrap_or(limit).min(limit);
            assert!(bound == UNBOUNDED || need.insert >= NOW.minus(bound).max(Moment(1)));
            assert_ne!(request.rule.route, Route::Primary);
            let tagged = request.rule.tagged.is_some_and(|tagged| tagged & bit(node.id) != 0);
            assert!(tagged || !node.standby.is_delayed(), "a delayed standby serves nobody unasked");
            assert!(tagged || request.rule.tagged.is_none() || request.rule.fallback == Fallback::Replica);
            assert!(request.demand.barred.is_none() && need.insert >= request.demand.insert);
            if request.consistency == Consistency::Global {
                assert!(need.insert >= request.arrived);
            }
            if request.consistency >= Consistency::Session {
                let floor = Need::of_floor(&request.floor, node.id, fresh.incarnation);
                assert!(need.insert >= floor.insert && need.flush >= floor.flush);
            }
            assert!(node.state == NodeState::Up && node.role == Some(Role::Replica) && node.serves_reads);
            assert_eq!(request.excluded & bit(node.id), 0);
            assert!(fresh.sample_sent >= NOW.minus(policy.sample_max_age));
        }
        Target::Wait { until } => {
            assert!(may_read(request) && request.held == Held::Free);
            assert!(until > NOW, "a wait that is over already");
            assert!(request.waiting_until.is_none_or(|end| end == until), "a wait that is prolonged");
        }
        Target::Refuse => {
            assert!(may_read(request));
            assert!(policy.on_lag == OnLag::Error || request.rule.fallback == Fallback::Error);
        }
        Target::Primary => {}
    }
}

#[test]
fn a_million_states_never_send_a_write_or_a_stale_read_to_a_replica() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut reasons = [0u32; Reason::ALL.len()];
    for _ in 0..2_000 {
        let view = any_view(&mut dice);
        let policy = RoutingPolicy {
            on_lag: dice.one(&[OnLag::Primary, OnLag::Wait, OnLag::Error]),
            pin_after_write: dice.one(&[
                PinAfterWrite::UntilCaughtUp,
                PinAfterWrite::For(Duration::from_millis(100)),
                PinAfterWrite::UntilDisconnect,
            ]),
            balance: dice.one(&[
                Balance::Lag,
                Balance::LeastBusy,
                Balance::Latency,
                Balance::RoundRobin,
                Balance::Random,
            ]),
            max_staleness: Duration::from_millis(300),
            ..RoutingPolicy::default()
        };
        for _ in 0..500 {
            let request = any_request(&mut dice);
            let decision = decide(&request, &view, &policy, NOW, dice.0);
            check(&request, &view, &policy, decision);
            reasons[decision.reason as usize] += 1;
        }
    }
    for (reason, count) in Reason::ALL.iter().zip(reasons) {
        assert!(count > 0 || *reason == Reason::SessionMode, "{reason:?} never happened");
    }
}

#[test]
fn the_list_of_reasons_is_in_the_order_of_their_numbers() {
    for (number, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, number);
    }
}

/// The shares of two equal replicas, for a client that asks one question at a time.
#[test]
fn equal_replicas_share_sequential_reads() {
    let view = cluster(2);
    for balance in [Balance::Lag, Balance::LeastBusy, Balance::Latency, Balance::RoundRobin, Balance::Random]
    {
        let policy = RoutingPolicy { balance, ..RoutingPolicy::default() };
        let mut dice = Dice(42);
        let first = (0..10_000u64).filter(|&turn| {
            dice.roll(2);
            let draw = if balance == Balance::RoundRobin { turn } else { dice.0 };
            let decision = decide(&read(), &view, &policy, NOW, draw);
            matches!(decision.target, Target::Replica { node: NodeId(1), .. })
        });
        let share = first.count();
        assert!((3_500..=6_500).contains(&share), "{balance:?}: {share}");
    }
}
