//! Which nodes there are: those that are listed, those that names stand for, those that Patroni names, those that
//! stream from the others.
//!
//! Who was found stays until two answers in a row do not name it *and* it does not answer: a member whose Patroni was
//! stopped vanishes from the answers while its PostgreSQL goes on serving, and some name servers answer with
//! a part of their list at a time. A standby that is stopped does not stream.

pub mod standbys;

use crate::cluster::evidence::Line;
use crate::cluster::patroni::{Member, Testimony};
use crate::moment::Moment;
use crate::monitor::members::standbys::{Resolved, Roll, Standbys};
use crate::monitor::settings::{Addresses, NodeSettings};
use std::collections::HashMap;
use std::net::IpAddr;

/// As many can take part in balancing, at a time and in a process' life.
pub const NODES_MAX: usize = 64;

/// So many answers in a row must miss who does not answer: one may be a part of the list, while it is late.
const MISSES: u32 = 2;

/// See the file's head.
#[derive(Debug, Default)]
pub struct Members {
    listed: Vec<NodeSettings>,
    /// Per listed name that stands for a node per address: who has which number.
    addresses: Vec<Vec<Option<IpAddr>>>,
    found: Vec<NodeSettings>,
    missed: Missed,
    asks_patroni: bool,
    /// `None`: nobody asks for them.
    standbys: Option<Standbys>,
}

/// How many answers in a row did not name a node that does not answer itself; those with none are not in it.
#[derive(Debug, Default)]
pub(super) struct Missed(HashMap<String, u32>);

impl Missed {
    /// An answer names `node`, or does not. Does it stay?
    fn stays(&mut self, node: &str, is_named: bool, is_up: &dyn Fn(&str) -> bool) -> bool {
        if is_named || is_up(node) {
            self.0.remove(node);
            return true;
        }
        let misses = self.0.remove(node).unwrap_or(0) + 1;
        let stays = misses < MISSES;
        if stays {
            self.0.insert(node.to_owned(), misses);
        }
        stays
    }
}

impl Members {
    /// As a configuration lists them. What was found before stays found.
    pub fn list(&mut self, listed: &[NodeSettings], asks_patroni: bool) {
        let before = std::mem::take(&mut self.listed);
        let mut known = std::mem::take(&mut self.addresses);
        self.addresses = listed
            .iter()
            .map(|node| match before.iter().position(|other| is_same_name(other, node)) {
                Some(index) => std::mem::take(&mut known[index]),
                None => Vec::new(),
            })
            .collect();
        self.listed = listed.to_vec();
        self.asks_patroni = asks_patroni;
        if !asks_patroni {
            self.found.clear();
        }
    }

    /// Standbys are asked for, or are not. Who was found before stays found.
    pub fn ask_for_standbys(&mut self, asks: bool) {
        self.standbys = asks.then(|| self.standbys.take().unwrap_or_default());
    }

    /// The name of the listed node `name` stands for these addresses. Numbers stay with their addresses;
    /// a new address gets the lowest number that is free.
    pub fn resolved(&mut self, name: &str, found: &[IpAddr], is_up: &dyn Fn(&str) -> bool) {
        let Some(index) = self.listed.iter().position(|node| node.name == name) else { return };
        if found.is_empty() {
            return;
        }
        let places = &mut self.addresses[index];
        for (place, number) in places.iter_mut().zip(1..) {
            let missed = &mut self.missed;
            *place = place.filter(|ip| missed.stays(&numbered(name, number), found.contains(ip), is_up));
        }
        let new: Vec<IpAddr> = found.iter().filter(|ip| !places.contains(&Some(**ip))).copied().collect();
        for ip in new {
            match places.iter().position(Option::is_none) {
                Some(free) => places[free] = Some(ip),
                None if places.len() < NODES_MAX => places.push(Some(ip)),
                None => {}
            }
        }
    }

    /// Patroni named its members. An answer without any proves nothing.
    pub fn testified(&mut self, testimony: &Testimony, is_up: &dyn Fn(&str) -> bool) {
        if !self.asks_patroni || testimony.members.is_empty() {
            return;
        }
        let named = |node: &NodeSettings| testimony.members.iter().any(|member| *member.name == *node.name);
        let missed = &mut self.missed;
        self.found.retain(|node| missed.stays(&node.name, named(node), is_up));
        for member in &testimony.members {
            let before = self.found.iter_mut().find(|node| *node.name == *member.name);
            match (before, node_of(member)) {
                (Some(before), Some(node)) => *before = node,
                (None, Some(node)) => self.found.push(node),
                // Its agent has not written its address down: it stays where it was.
                (_, None) => {}
            }
        }
    }

    /// The cluster named those who stream. What is left to people is told.
    pub fn streamed(&mut self, roll: &Roll, resolved: Resolved, is_up: &dyn Fn(&str) -> bool) -> Vec<String> {
        let others = self.known_otherwise();
        let missed = &mut self.missed;
        let standbys = self.standbys.as_mut();
        standbys.map(|standbys| standbys.heard(roll, resolved, &others, missed, is_up)).unwrap_or_default()
    }

    /// It did not.
    pub fn standbys_not_told(&mut self, error: &str) {
        if let Some(standbys) = &mut self.standbys {
            standbys.failed(error);
        }
    }

    /// How many streamed when the cluster was asked last; `None`: nobody asks.
    pub fn standbys_count(&self) -> Option<usize> {
        self.standbys.as_ref().map(Standbys::count)
    }

    /// What was said of them, for people.
    pub fn standbys_evidence(&self, now: Moment) -> Vec<Line> {
        self.standbys.as_ref().map(|standbys| standbys.evidence(now)).unwrap_or_default()
    }

    /// All of them, at most [`NODES_MAX`]; the listed ones first.
    pub fn nodes(&self) -> Vec<NodeSettings> {
        let mut nodes = self.known_otherwise();
        if let Some(standbys) = &self.standbys {
            standbys.join(&mut nodes);
        }
        nodes.truncate(NODES_MAX);
        nodes
    }

    /// All but those who are known because they stream.
    fn known_otherwise(&self) -> Vec<NodeSettings> {
        let mut nodes: Vec<NodeSettings> = Vec::new();
        for (node, places) in self.listed.iter().zip(&self.addresses) {
            match node.addresses {
                Addresses::Each => nodes.extend(each(node, places)),
                Addresses::Any | Addresses::Fixed(_) => nodes.push(node.clone()),
            }
        }
        for node in &self.found {
            let same_place = |other: &NodeSettings| other.host == node.host && other.port == node.port;
            match nodes.iter_mut().find(|other| other.name == node.name || same_place(other)) {
                // What is listed says where it is; Patroni says what it is for.
                Some(listed) => {
                    listed.without_reads |= node.without_reads;
                    let new = node.tags.iter().filter(|tag| !listed.tags.contains(tag));
                    let new: Vec<String> = new.cloned().collect();
                    listed.tags.extend(new);
                }
                None => nodes.push(node.clone()),
            }
        }
        nodes
    }
}

/// Do both stand for the same addresses? What else is said of them may change.
fn is_same_name(one: &NodeSettings, other: &NodeSettings) -> bool {
    let of = |node: &NodeSettings| (node.port, node.addresses);
    (&one.name, &one.host, of(one)) == (&other.name, &other.host, of(other))
}

fn numbered(name: &str, number: usize) -> String {
    format!("{name}-{number}")
}

fn each<'n>(node: &'n NodeSettings, places: &'n [Option<IpAddr>]) -> impl Iterator<Item = NodeSettings> + 'n {
    places.iter().zip(1..).filter_map(|(place, number)| {
        Some(NodeSettings {
            name: numbered(&node.name, number),
            addresses: Addresses::Fixed((*place)?),
            found: true,
            ..node.clone()
        })
    })
}

fn node_of(member: &Member) -> Option<NodeSettings> {
    Some(NodeSettings {
        name: member.name.to_string(),
        host: member.host.as_deref()?.to_owned(),
        port: member.port?,
        weight: 1,
        zone: None,
        tags: member.tags.iter().map(ToString::to_string).collect(),
        addresses: Addresses::Any,
        found: true,
        without_reads: member.is_without_reads(),
    })
}

#[cfg(test)]
mod tests;
