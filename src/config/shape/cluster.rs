//! `cluster:`

use crate::cluster::health::HealthPolicy;
use crate::config::keys;
use crate::config::mistake::Mistake;
use crate::config::reader::{Field, Reader, Section, Wrong, join};
use crate::config::settings::{
    ClusterSettings, DiscoverSettings, MonitorSettings, NODES_MAX, NodeSettings, PatroniSettings, Place,
    Resolve, Verify,
};
use crate::config::shape::SWITCH;
use crate::config::shape::access::{pair, password, pem};
use crate::config::values::{duration, endpoint, host, number, one_of, place, text};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const NODE_PORT: u16 = 5432;
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
const APPLICATION_NAME_MAX: usize = 63;

const RESOLVES: &[(&str, Resolve)] = &[("one", Resolve::One), ("all", Resolve::All)];
const VERIFIES: &[(&str, Verify)] = &[("full", Verify::Full), ("ca", Verify::Ca), ("none", Verify::None)];

pub(super) fn read(top: &Section<'_>, reader: &mut Reader) -> ClusterSettings {
    if top.field("cluster").is_none() {
        reader.missing(top, "cluster");
        return ClusterSettings {
            nodes: Vec::new(),
            resolve_interval: RESOLVE_INTERVAL,
            patroni: None,
            discover: None,
            monitor: MonitorSettings::default(),
        };
    }
    let section = reader.section(&top.child("cluster"), &keys::CLUSTER);
    let interval = duration(Duration::from_millis(100)..=Duration::from_secs(3600));
    let resolve_interval =
        reader.optional(&section, "resolve_interval", interval).unwrap_or(RESOLVE_INTERVAL);
    let patroni = section.field("patroni").map(|field| patroni(&field, reader));
    let nodes = nodes(&section, patroni.is_some(), reader);
    let discover = section.field("discover").map(|field| discover(&field, &nodes, reader));
    ClusterSettings { nodes, resolve_interval, patroni, discover, monitor: monitor(&section, reader) }
}

fn nodes(section: &Section<'_>, others_know: bool, reader: &mut Reader) -> Vec<NodeSettings> {
    let Some(field) = section.field("nodes") else {
        if !others_know {
            reader.missing(section, "nodes");
        }
        return Vec::new();
    };
    let before = reader.count();
    let items = reader.items(&field);
    if items.is_empty() && !others_know && reader.count() == before {
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
    let resolve = reader.optional(&section, "resolve", one_of(RESOLVES, &[])).unwrap_or_default();
    let is_name = |host: &str| !host.starts_with('/') && host.parse::<IpAddr>().is_err();
    if let (Resolve::All, Some(host), Some(field)) = (resolve, &host, section.field("resolve"))
        && !is_name(host)
    {
        reader.wrong(&field, format!("resolve: all needs a host name, and \"{host}\" is none"));
    }
    let weight = reader.optional(&section, "weight", number(1..=1000)).unwrap_or(1);
    let zone = reader.optional(&section, "zone", text);
    let tags = section.field("tags").map(|field| reader.items(&field)).unwrap_or_default();
    let tags = tags.iter().filter_map(|tag| reader.value(tag, text)).collect();
    // A default in the place of what is wrong could clash with another node: no second mistake.
    let host = host.filter(|_| reader.count() == before)?;
    let name = name.unwrap_or_else(|| format!("{host}:{port}"));
    Some(NodeSettings { name, host, port, resolve, weight, zone, tags })
}

fn check_distinct(nodes: &[NodeSettings], node: &NodeSettings, item: &Field<'_>, reader: &mut Reader) {
    if let Some(index) = nodes.iter().position(|other| other.name == node.name) {
        reader.wrong(item, format!("duplicate node name \"{}\" (first: cluster.nodes[{index}])", node.name));
    } else if let Some(other) = nodes.iter().find(|o| o.host == node.host && o.port == node.port) {
        let message = format!("{}:{} is the node \"{}\" already", node.host, node.port, other.name);
        reader.wrong(item, message);
    }
}

fn patroni(field: &Field<'_>, reader: &mut Reader) -> PatroniSettings {
    let section = reader.section(field, &keys::PATRONI);
    let mut patroni = PatroniSettings::default();
    match section.field("endpoints") {
        None => reader.missing(&section, "endpoints"),
        Some(field) => {
            let before = reader.count();
            let items = reader.items(&field);
            if items.is_empty() && reader.count() == before {
                reader.wrong(&field, "needs at least one endpoint, such as https://10.0.0.1:8008");
            }
            if items.len() > NODES_MAX {
                reader.wrong(&field, format!("at most {NODES_MAX} endpoints, found {}", items.len()));
            }
            patroni.endpoints = items.iter().filter_map(|item| reader.value(item, endpoint)).collect();
        }
    }
    patroni.user = reader.optional(&section, "user", user);
    patroni.password = password(&section, reader);
    if patroni.password.is_some() && section.field("user").is_none() {
        reader.missing(&section, "user");
    }
    patroni.ca = pem(&section, "ca", reader);
    reader.set(&mut patroni.verify, &section, "verify", one_of(VERIFIES, &[]));
    (patroni.cert, patroni.key) = pair(&section, reader);
    let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(60));
    reader.set(&mut patroni.interval, &section, "interval", duration(shortest..=longest));
    reader.set(&mut patroni.timeout, &section, "timeout", duration(shortest..=longest));
    let plain = patroni.endpoints.iter().all(|endpoint| !endpoint.encrypted);
    let unused = ["ca", "verify", "cert", "key"].into_iter().find(|key| section.field(key).is_some());
    if let Some(key) = unused.filter(|_| plain && !patroni.endpoints.is_empty()) {
        let message = format!("{key} means nothing where no endpoint begins with https://");
        reader.report(Mistake::new(section.span_of(key), message).path(section.path_of(key)));
    }
    patroni
}

/// A colon would end it in the header that carries it (RFC 7617).
fn user(value: &str) -> Result<String, Wrong> {
    match value.contains(':') {
        true => Err("must not contain a colon".into()),
        false => text(value),
    }
}

fn discover(field: &Field<'_>, nodes: &[NodeSettings], reader: &mut Reader) -> DiscoverSettings {
    let section = reader.section(field, &keys::DISCOVER);
    let mut discover = DiscoverSettings::default();
    let interval = duration(Duration::from_millis(100)..=Duration::from_secs(3600));
    reader.set(&mut discover.interval, &section, "interval", interval);
    // Of those listed, not of whoever is the primary just now: a failover must not move the others.
    discover.port = nodes.first().map_or(NODE_PORT, |node| node.port);
    reader.set(&mut discover.port, &section, "port", number(1..=u16::MAX));
    let before = reader.count();
    if let Some(field) = section.field("hosts") {
        discover.hosts = hosts(&field, reader);
    }
    reader.set(&mut discover.only_mapped, &section, "only_mapped", one_of(SWITCH, &[]));
    if let Some(field) = section.field("only_mapped").filter(|_| discover.only_mapped)
        && discover.hosts.is_empty()
        && reader.count() == before
    {
        reader.wrong(&field, "leaves out every standby, because hosts names none");
    }
    discover
}

/// By application_name or address: an address is the same however it is written.
fn hosts(field: &Field<'_>, reader: &mut Reader) -> BTreeMap<String, Place> {
    let mut hosts = BTreeMap::new();
    for entry in reader.entries(field) {
        let field = Field { tree: &entry.value, path: join(&field.path, &entry.key) };
        if let Err(message) = standby(&entry.key) {
            reader.report(Mistake::new(entry.span, message).path(&field.path));
        }
        let key = entry.key.parse::<IpAddr>().map_or_else(|_| entry.key.clone(), |ip| ip.to_string());
        let Some(place) = reader.value(&field, place) else { continue };
        if key != entry.key && hosts.contains_key(&key) {
            reader.report(Mistake::new(entry.span, format!("{key} is there already")).path(&field.path));
        }
        hosts.insert(key, place);
    }
    hosts
}

/// Nothing is called what is wrong here: PostgreSQL cuts names off (NAMEDATALEN).
fn standby(key: &str) -> Result<(), String> {
    match key.len() {
        0 => Err("the application_name or address of a standby must not be empty".to_owned()),
        1..=APPLICATION_NAME_MAX => Ok(()),
        length => {
            Err(format!("an application_name has at most {APPLICATION_NAME_MAX} bytes, this has {length}"))
        }
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
