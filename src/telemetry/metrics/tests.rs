#![allow(clippy::unwrap_used)]
use super::*;
use crate::cluster::view::NodeLive;
use crate::lsn::TimelineId;
use crate::node::NodeId;
use crate::routing::reason::Reason;

fn node(role: Option<Role>, state: NodeState) -> NodeView {
    NodeView {
        id: NodeId(0),
        name: "pg1".into(),
        host: "h".into(),
        port: 5432,
        address: None,
        place: 0,
        weight: 1,
        zone: None,
        tags: Arc::from([]),
        state,
        role,
        timeline: Some(TimelineId(3)),
        position: None,
        lag_bytes: Some(4096),
        standby: crate::cluster::view::Standby::default(),
        replay_paused: false,
        serves_reads: true,
        last_error: None,
        live: Arc::new(NodeLive::default()),
    }
}

#[test]
fn statements_are_rendered_with_their_four_labels() {
    let metrics = Metrics::new().unwrap();
    let counters = metrics.statements("shop", "pg1", Role::Replica);
    counters.count(Reason::Balanced);
    counters.count(Reason::Balanced);
    metrics.statements("shop", "pg1", Role::Replica).count(Reason::Waited);
    metrics.render();
    counters.count(Reason::Balanced);
    let text = metrics.render();
    let line =
        "pgweir_statements_total{database=\"shop\",node=\"pg1\",role=\"replica\",reason=\"balanced\"} 3";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("reason=\"write\""), "a series that never counted is not made: {text}");
    assert_eq!(metrics.traffic("pg1"), Traffic { reads: 4, writes: 0 });
}

#[test]
fn latency_is_a_histogram_with_buckets() {
    let metrics = Metrics::new().unwrap();
    metrics.latency(Role::Primary).record(0.0003);
    metrics.upkeep();
    let text = metrics.render();
    assert!(text.contains("pgweir_statement_seconds_bucket{role=\"primary\",le=\"0.0005\"} 1"), "{text}");
    assert!(text.contains("# TYPE pgweir_statement_seconds histogram"), "{text}");
}

#[test]
fn what_is_unknown_does_not_look_healthy() {
    let metrics = Metrics::new().unwrap();
    let view =
        ClusterView { nodes: vec![node(Some(Role::Replica), NodeState::Up)], ..ClusterView::default() };
    let now = Moment(5_000_000_000);
    metrics.publish_view(&view, now);
    let text = metrics.render();
    assert!(text.contains("pgweir_replica_staleness_seconds{node=\"pg1\"} inf"), "{text}");
    assert!(text.contains("pgweir_primary_known 0"), "{text}");
    view.nodes[0].live.publish(Moment(4_000_000_000), Moment(4_000_000_000), now);
    metrics.publish_view(&view, now);
    let text = metrics.render();
    assert!(text.contains("pgweir_replica_staleness_seconds{node=\"pg1\"} 1\n"), "{text}");
    assert!(text.contains("pgweir_node_state{node=\"pg1\",state=\"up\"} 1"), "{text}");
}

#[test]
fn what_a_pool_was_set_to_outlives_the_handle() {
    let metrics = Metrics::new().unwrap();
    metrics.pool("shop", "app", "pg1").active.set(2.0);
    assert!(metrics.render().contains("pgweir_pool_active{database=\"shop\",user=\"app\",node=\"pg1\"} 2"));
}

#[test]
fn every_metric_has_the_prefix_and_a_unit_of_its_kind() {
    for (name, kind, help) in names::ALL {
        assert!(name.starts_with("pgweir_") && !help.is_empty(), "{name}");
        assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
    }
}

#[test]
fn labels_from_clients_cannot_break_the_format() {
    let metrics = Metrics::new().unwrap();
    metrics.statements("a\"b\n} 1", "pg1", Role::Primary).count(Reason::Write);
    let text = metrics.render();
    assert!(text.contains("database=\"a\\\"b\\n} 1\""), "{text}");
}

#[test]
fn the_number_of_series_is_bounded() {
    let metrics = Metrics::new().unwrap();
    for number in 0..SERIES_MAX + 10 {
        metrics.statements(&format!("db{number}"), "pg1", Role::Primary);
    }
    assert_eq!(metrics.statement_counters().len(), SERIES_MAX + 1);
    assert_eq!(metrics.statements("db10009", "pg1", Role::Primary).database(), OTHER);
    assert_eq!(metrics.statements("db9", "pg1", Role::Primary).database(), "db9");
}
