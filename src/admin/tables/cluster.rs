//! SHOW CLUSTER, SHOW CLUSTER EVIDENCE.

use super::{Columns, Row, cell, seconds, yes_no};
use crate::cluster::evidence::Line;
use crate::cluster::view::{ClusterView, NodeState, NodeView};
use crate::moment::Moment;
use crate::telemetry::metrics::staleness;

/// Its columns.
pub const COLUMNS: Columns = &[
    "member",
    "host",
    "role",
    "state",
    "timeline",
    "lag_bytes",
    "staleness_seconds",
    "port",
    "position",
    "serves_reads",
    "serves_writes",
    "replay",
    "replay_paused",
    "in_flight",
    "latency_micros",
    "weight",
    "zone",
    "tags",
    "last_error",
];

/// Its rows: the nodes of the configuration. What is not known is NULL.
pub fn rows(view: &ClusterView, now: Moment) -> Vec<Row> {
    let nodes = view.nodes.iter().filter(|node| node.state != NodeState::Removed);
    nodes.map(|node| row(view, node, now)).collect()
}

fn row(view: &ClusterView, node: &NodeView, now: Moment) -> Row {
    vec![
        cell(&node.name),
        cell(&node.host),
        node.role.map(|role| role.as_str().to_owned()),
        cell(node.state.as_str()),
        node.timeline.and_then(cell),
        node.lag_bytes.and_then(cell),
        staleness(node, now).and_then(seconds),
        cell(node.port),
        node.position.and_then(cell),
        yes_no(node.serves_reads && node.state == NodeState::Up),
        // Only the proven primary: another that says it is one gets no writes.
        yes_no(view.primary == Some(node.id)),
        view.replay_of(node),
        yes_no(node.replay_paused),
        cell(node.live.in_flight()),
        cell(node.live.latency_micros()),
        cell(node.weight),
        node.zone.as_ref().and_then(cell),
        cell(node.tags.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(",")),
        node.last_error.as_ref().and_then(cell),
    ]
}

/// The columns of SHOW CLUSTER EVIDENCE.
pub const EVIDENCE_COLUMNS: Columns = &["member", "source", "says", "age_seconds"];

/// Its rows. The last one is the verdict.
pub fn evidence_rows(lines: Vec<Line>) -> Vec<Row> {
    let row = |line: Line| {
        vec![
            line.member.as_ref().and_then(cell),
            cell(line.source.as_str()),
            Some(line.says),
            line.age.and_then(seconds),
        ]
    };
    lines.into_iter().map(row).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeLive;
    use crate::lsn::{Lsn, TimelineId};
    use crate::node::{NodeId, Role};
    use std::sync::Arc;

    fn node(id: u16, state: NodeState, role: Option<Role>) -> NodeView {
        NodeView {
            id: NodeId(id),
            name: format!("pg{id}").into(),
            host: "10.0.0.1".into(),
            port: 5432,
            address: None,
            place: 0,
            weight: 1,
            zone: None,
            tags: Arc::from([Arc::from("a"), Arc::from("b")]),
            state,
            role,
            timeline: role.map(|_| TimelineId(3)),
            position: role.map(|_| Lsn(0x16_0000_00ff)),
            lag_bytes: role.map(|_| 7),
            standby: crate::cluster::view::Standby::default(),
            replay_paused: false,
            serves_reads: true,
            last_error: None,
            live: Arc::new(NodeLive::default()),
        }
    }

    fn value(row: &Row, column: &str) -> Option<String> {
        row[COLUMNS.iter().position(|name| *name == column).unwrap()].clone()
    }

    #[test]
    fn what_was_never_measured_is_null_and_removed_nodes_are_left_out() {
        let view = ClusterView {
            nodes: vec![
                node(0, NodeState::Up, Some(Role::Primary)),
                node(1, NodeState::Up, Some(Role::Replica)),
                node(2, NodeState::Removed, None),
                node(3, NodeState::Unknown, None),
            ],
            primary: Some(NodeId(0)),
            ..ClusterView::default()
        };
        view.nodes[1].live.publish(Moment(1_500_000_000), Moment(1_500_000_000), Moment(1_600_000_000));
        let rows = rows(&view, Moment(2_000_000_000));
        assert!(rows.iter().all(|row| row.len() == COLUMNS.len()));
        let shown = |column| rows.iter().map(|row| value(row, column)).collect::<Vec<_>>();
        assert_eq!(shown("member"), [Some("pg0".into()), Some("pg1".into()), Some("pg3".into())]);
        assert_eq!(shown("role"), [Some("primary".into()), Some("replica".into()), None]);
        assert_eq!(shown("staleness_seconds"), [Some("0.000".into()), Some("0.500".into()), None]);
        assert_eq!(shown("position"), [Some("16/FF".into()), Some("16/FF".into()), None]);
        assert_eq!(shown("serves_writes"), [Some("yes".into()), Some("no".into()), Some("no".into())]);
        assert_eq!(shown("serves_reads")[2], Some("no".into()));
        assert_eq!(shown("tags")[0], Some("a,b".into()));
    }
}
