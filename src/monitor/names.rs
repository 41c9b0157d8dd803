//! Host names → addresses, and following them when they change.

use crate::clock;
use crate::cluster::health::Failure;
use crate::cluster::view::NodeState;
use crate::monitor::Shared;
use crate::monitor::settings::{Addresses, NodeSettings};
use crate::node::NodeId;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A lookup may take so long.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// An address must be missing from so many answers in a row before a name has moved: servers that answer
/// with a part of their list at a time are no reason to.
const MISSES: u32 = 2;
/// And so many in a row must be the same, while whoever is there answers still.
const MISSES_WHILE_UP: u32 = 3;

/// Is this neither an address nor a socket's folder?
pub fn is_name(host: &str) -> bool {
    !host.starts_with('/') && host.parse::<IpAddr>().is_err()
}

/// What the system's resolver says, in its order.
pub(super) async fn look_up(host: &str, limit: Duration) -> Result<Vec<IpAddr>, String> {
    let found = tokio::time::timeout(limit, tokio::net::lookup_host((host, 0))).await;
    let found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("the name {host} cannot be resolved: {error}")),
        Err(_) => return Err(format!("the name {host} was not resolved in time")),
    };
    let mut seen = BTreeSet::new();
    Ok(found.map(|address| address.ip()).filter(|ip| seen.insert(*ip)).collect())
}

/// Which names no longer have the address that is used for them.
#[derive(Debug, Default)]
struct Missed(HashMap<NodeId, Missing>);

/// What a name has stood for since it was first without the address.
#[derive(Debug, Default)]
struct Missing {
    misses: u32,
    found: BTreeSet<IpAddr>,
}

impl Missed {
    /// The name of `node`, which is reached at `address`, and answers there or not, has just stood for `found`.
    /// Has it moved?
    fn note(&mut self, node: NodeId, address: IpAddr, found: &[IpAddr], answers: bool) -> bool {
        if found.contains(&address) || found.is_empty() {
            self.0.remove(&node);
            return false;
        }
        let found: BTreeSet<IpAddr> = found.iter().copied().collect();
        let missing = self.0.entry(node).or_default();
        // Another list each time is a part of a longer one each time.
        let goes_on = !answers || missing.found == found;
        missing.misses = if goes_on { missing.misses + 1 } else { 1 };
        missing.found = found;
        let moved = missing.misses >= if answers { MISSES_WHILE_UP } else { MISSES };
        if moved {
            self.0.remove(&node);
        }
        moved
    }
}

/// Looks all names up again and again, until the monitor is dropped or the task is aborted.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut missed = Missed::default();
    loop {
        let Some(interval) = round(&shared, &mut missed).await else { return };
        tokio::time::sleep(interval).await;
    }
}

async fn round(shared: &Weak<Shared>, missed: &mut Missed) -> Option<Duration> {
    let (settings, view, nodes) = {
        let shared = shared.upgrade()?;
        (shared.settings.load_full(), shared.view.load_full(), shared.nodes.load_full())
    };
    for node in settings.nodes.iter().filter(|node| node.addresses == Addresses::Each) {
        // A name that cannot be resolved stands for what it stood for.
        let Ok(found) = look_up(&node.host, LOOKUP_LIMIT).await else { continue };
        let shared = shared.upgrade()?;
        shared.members().resolved(&node.name, &found, &|name| shared.is_up(name));
        shared.apply_members();
    }
    for node in view.nodes.iter().filter(|node| node.state != NodeState::Removed && is_name(&node.host)) {
        let is_any = |known: &NodeSettings| known.name == *node.name && known.addresses == Addresses::Any;
        let Some(address) = node.address.filter(|_| nodes.iter().any(is_any)) else { continue };
        let Ok(found) = look_up(&node.host, LOOKUP_LIMIT).await else { continue };
        let answers = matches!(node.state, NodeState::Up | NodeState::Suspect);
        if missed.note(node.id, address, &found, answers) {
            follow(&shared.upgrade()?, node.id, node.place, &node.host);
        }
    }
    Some(settings.resolve_interval)
}

/// Its connection leads to an address that the name has no longer: it is made anew.
fn follow(shared: &Arc<Shared>, node: NodeId, place: u64, host: &str) {
    let why = "its name stands for another address now";
    let outcome = {
        let Some(mut picture) = shared.picture_at(node, place) else { return };
        picture.failed(node, Failure::Lost, why, clock::now())
    };
    tracing::info!(host, "the name stands for another address now");
    shared.perform(outcome);
    shared.restart_probe(node);
}

/// For those who hold the monitor weakly.
pub(super) fn spawn(shared: &Arc<Shared>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(run(Arc::downgrade(shared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_moved_when_its_address_is_missing_twice_in_a_row() {
        let [old, new] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut missed = Missed::default();
        let table: [(&[IpAddr], bool); 8] = [
            (&[old], false),
            (&[new], false),
            (&[new, old], false),
            (&[new], false),
            (&[], false),
            (&[new], false),
            (&[new], true),
            (&[new], false),
        ];
        for (round, (found, moved)) in table.into_iter().enumerate() {
            assert_eq!(missed.note(NodeId(0), old, found, false), moved, "round {round}");
        }
    }

    #[test]
    fn while_a_server_answers_its_name_has_moved_when_it_stands_for_the_same_others_three_times() {
        let [old, new, third] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut missed = Missed::default();
        let table: [(&[IpAddr], bool); 12] = [
            // One address of three at a time, in turn.
            (&[new], false),
            (&[third], false),
            (&[new], false),
            (&[third], false),
            (&[old], false),
            // Moved, in whatever order the others are named.
            (&[new, third], false),
            (&[third, new], false),
            (&[old], false),
            (&[new], false),
            (&[new], false),
            (&[new], true),
            (&[new], false),
        ];
        for (round, (found, moved)) in table.into_iter().enumerate() {
            assert_eq!(missed.note(NodeId(0), old, found, true), moved, "round {round}");
        }
    }

    #[test]
    fn addresses_and_folders_are_no_names() {
        for (host, expected) in
            [("db.internal", true), ("localhost", true), ("10.0.0.1", false), ("::1", false), ("/tmp", false)]
        {
            assert_eq!(is_name(host), expected, "{host}");
        }
    }
}
