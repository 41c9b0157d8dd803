//! Old settings, new settings → what a reload has to do.

use crate::config::settings::{NodeSettings, Settings};
use std::fmt;

/// One step of a reload. What it needs beyond its payload stands in the new settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReloadAction {
    /// A node that was not there.
    AddNode(NodeSettings),
    /// The node with this name stands elsewhere, or has another weight, zone or tags.
    ChangeNode(NodeSettings),
    /// The node with this name is gone.
    RemoveNode(String),
    /// `cluster.monitor` changed.
    Monitor,
    /// `cluster.patroni`, `cluster.discover` or `cluster.resolve_interval` changed.
    Discovery,
    /// `pool` or `databases` changed: limits and modes of pools, aliases.
    Pools,
    /// `routing` changed.
    Routing,
    /// `auth` changed; who is logged in stays.
    Auth,
    /// `tls` changed, or is read again: it holds for new connections.
    Tls,
    /// `limits` changed.
    Limits,
    /// `log.level` changed.
    Log,
    /// This key changed, but takes effect at the next start only.
    NeedsRestart(&'static str),
}

impl fmt::Display for ReloadAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadAction::AddNode(node) => write!(f, "node {} added", node.name),
            ReloadAction::ChangeNode(node) => write!(f, "node {} changed", node.name),
            ReloadAction::RemoveNode(name) => write!(f, "node {name} removed"),
            ReloadAction::Monitor => f.write_str("monitor changed"),
            ReloadAction::Discovery => f.write_str("discovery changed"),
            ReloadAction::Pools => f.write_str("pools changed"),
            ReloadAction::Routing => f.write_str("routing changed"),
            ReloadAction::Auth => f.write_str("auth changed"),
            ReloadAction::Tls => f.write_str("tls changed"),
            ReloadAction::Limits => f.write_str("limits changed"),
            ReloadAction::Log => f.write_str("log changed"),
            ReloadAction::NeedsRestart(key) => write!(f, "{key} changed: takes effect after a restart"),
        }
    }
}

/// What makes `old` into `new`.
pub fn diff(old: &Settings, new: &Settings) -> Vec<ReloadAction> {
    let mut actions = nodes(&old.cluster.nodes, &new.cluster.nodes);
    let (old_cache, new_cache) = (old.limits.statement_cache, new.limits.statement_cache);
    let compared = [
        (old.cluster.monitor != new.cluster.monitor, ReloadAction::Monitor),
        (
            old.cluster.patroni != new.cluster.patroni
                || old.cluster.discover != new.cluster.discover
                || old.cluster.resolve_interval != new.cluster.resolve_interval,
            ReloadAction::Discovery,
        ),
        (old.pool != new.pool || old.databases != new.databases, ReloadAction::Pools),
        (old.routing != new.routing, ReloadAction::Routing),
        (old.auth != new.auth, ReloadAction::Auth),
        (old.tls != new.tls, ReloadAction::Tls),
        (old.limits != new.limits, ReloadAction::Limits),
        (old.log.level != new.log.level, ReloadAction::Log),
        (old.log.format != new.log.format, ReloadAction::NeedsRestart("log.format")),
        (old.listen != new.listen, ReloadAction::NeedsRestart("listen")),
        (old.reuse_port != new.reuse_port, ReloadAction::NeedsRestart("reuse_port")),
        (old.http != new.http, ReloadAction::NeedsRestart("http")),
        (old.causal != new.causal, ReloadAction::NeedsRestart("causal")),
        (old_cache != new_cache, ReloadAction::NeedsRestart("limits.statement_cache")),
    ];
    actions.extend(compared.into_iter().filter(|(changed, _)| *changed).map(|(_, action)| action));
    actions
}

fn nodes(old: &[NodeSettings], new: &[NodeSettings]) -> Vec<ReloadAction> {
    let removed = old
        .iter()
        .filter(|node| !new.iter().any(|other| other.name == node.name))
        .map(|node| ReloadAction::RemoveNode(node.name.clone()));
    let others = new.iter().filter_map(|node| match old.iter().find(|other| other.name == node.name) {
        None => Some(ReloadAction::AddNode(node.clone())),
        Some(other) if other != node => Some(ReloadAction::ChangeNode(node.clone())),
        Some(_) => None,
    });
    removed.chain(others).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::path::Path;

    const BASE: &str =
        "auth: { method: trust }\ncluster: { nodes: [ { name: a, host: h1 }, { name: b, host: h2 } ] }\n";

    fn settings(text: &str) -> Settings {
        parse(Path::new("config.yaml"), text, &|_| None).unwrap()
    }

    fn said(text: &str) -> Vec<String> {
        diff(&settings(BASE), &settings(text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_file_asks_for_nothing() {
        assert_eq!(said(BASE), Vec::<String>::new());
    }

    #[test]
    fn nodes_are_compared_by_name() {
        let text = BASE.replace("name: a, host: h1", "name: c, host: h3").replace("h2", "h2, weight: 3");
        assert_eq!(said(&text), ["node a removed", "node c added", "node b changed"]);
    }

    #[test]
    fn what_cannot_change_at_run_time_is_said() {
        let text = format!("{BASE}listen: 127.0.0.1:7000\nhttp: off\nlog: {{ level: debug }}\n");
        assert_eq!(
            said(&text),
            [
                "log changed",
                "listen changed: takes effect after a restart",
                "http changed: takes effect after a restart"
            ]
        );
    }
}
