//! `cluster:`

use crate::cluster::health::HealthPolicy;
use crate::config::keys;
use crate::config::reader::{Field, Reader, Section};
use crate::config::settings::{ClusterSettings, MonitorSettings, NODES_MAX, NodeSettings};
use crate::config::shape::access::password;
use crate::config::values::{duration, host, number, text};
use std::time::Duration;

const NODE_PORT: u16 = 5432;

pub(super) fn read(top: &Section<'_>, reader: &mut Reader) -> ClusterSettings {
    if top.field("cluster").is_none() {
        reader.missing(top, "cluster");
        return ClusterSettings { nodes: Vec::new(), monitor: MonitorSettings::default() };
    }
    let section = reader.section(&top.child("cluster"), &keys::CLUSTER);
    ClusterSettings { nodes: nodes(&section, reader), monitor: monitor(&section, reader) }
}

fn nodes(section: &Section<'_>, reader: &mut Reader) -> Vec<NodeSettings> {
    let Some(field) = section.field("nodes") else {
        reader.missing(section, "nodes");
        return Vec::new();
    };
    let before = reader.count();
    let items = reader.items(&field);
    if items.is_empty() && reader.count() == before {
        reader.wrong(&field, "needs at least one node");
    }
    if items.len() > NODES_MAX {
        reader.wrong(&field, format!("at most {NODES_MAX} nodes, found {}", items.len()));
    }
    let mut nodes = Vec::new();
    for item in &items {
        if let Some(node) = node(item, reader) {
            check_distinct(&nodes, &node, item, reader);
            nodes.push(node);
        }
    }
    nodes
}

fn node(item: &Field<'_>, reader: &mut Reader) -> Option<NodeSettings> {
    let before = reader.count();
    let section = reader.section(item, &keys::NODE);
    let host = reader.required(&section, "host", host);
    let port = reader.optional(&section, "port", number(1..=u16::MAX)).unwrap_or(NODE_PORT);
    let name = reader.optional(&section, "name", text);
    let weight = reader.optional(&section, "weight", number(1..=1000)).unwrap_or(1);
    let zone = reader.optional(&section, "zone", text);
    let tags = section.field("tags").map(|field| reader.items(&field)).unwrap_or_default();
    let tags = tags.iter().filter_map(|tag| reader.value(tag, text)).collect();
    // A default in the place of what is wrong could clash with another node: no second mistake.
    let host = host.filter(|_| reader.count() == before)?;
    let name = name.unwrap_or_else(|| format!("{host}:{port}"));
    Some(NodeSettings { name, host, port, weight, zone, tags })
}

fn check_distinct(nodes: &[NodeSettings], node: &NodeSettings, item: &Field<'_>, reader: &mut Reader) {
    if let Some(index) = nodes.iter().position(|other| other.name == node.name) {
        reader.wrong(item, format!("duplicate node name \"{}\" (first: cluster.nodes[{index}])", node.name));
    } else if let Some(other) = nodes.iter().find(|o| o.host == node.host && o.port == node.port) {
        let message = format!("{}:{} is the node \"{}\" already", node.host, node.port, other.name);
        reader.wrong(item, message);
    }
}

fn monitor(section: &Section<'_>, reader: &mut Reader) -> MonitorSettings {
    let section = reader.section(&section.child("monitor"), &keys::MONITOR);
    let mut monitor = MonitorSettings::default();
    let second = Duration::from_secs(1);
    reader.set(&mut monitor.user, &section, "user", text);
    monitor.password = password(&section, reader);
    reader.set(&mut monitor.database, &section, "database", text);
    reader.set(
        &mut monitor.interval,
        &section,
        "interval",
        duration(Duration::from_millis(10)..=60 * second),
    );
    let default = HealthPolicy::for_interval(monitor.interval);
    // One late answer must change nothing.
    let fence_after = duration(default.probe_timeout..=3600 * second);
    monitor.fence_after = reader.optional(&section, "fence_after", fence_after).unwrap_or(default.down_after);
    monitor
}
