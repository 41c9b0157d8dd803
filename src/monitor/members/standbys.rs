//! Standbys that nobody listed: who streams, as `pg_stat_replication` has it → where they are, and what they are
//! called.
//!
//! A standby keeps the name that it was given, by what it calls itself and where it comes from; another one with its
//! name gets another. Where two could be the same by name only, they are two: that one server has two names is seen
//! when it answers, that two have one name is not.

use crate::cluster::evidence::{Line, Source};
use crate::config::settings::{DiscoverSettings, Place};
use crate::moment::Moment;
use crate::monitor::members::{Missed, NODES_MAX};
use crate::monitor::settings::{Addresses, NodeSettings};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What a standby calls itself that was told nothing else (`libpqrcv_connect`).
const NAMELESS: &str = "walreceiver";

/// One who receives WAL from a node, physically.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// From whom: the node's name.
    pub from: Arc<str>,
    /// What it calls itself.
    pub application_name: String,
    /// Where it comes from, as the node sees it; `None`: through a Unix socket, or that is hidden.
    pub address: Option<IpAddr>,
    /// `streaming`, `catchup`, …; `None`: hidden from whoever is no member of `pg_monitor`.
    pub state: Option<String>,
    /// Does it tell what it has replayed? Only standbys do: pg_receivewal and pg_basebackup, whatever they call
    /// themselves, write WAL down and replay none.
    pub replays: bool,
}

/// A standby, and where it is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standby {
    receiver: Receiver,
    /// Host name, address, or the folder of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// One answer of the cluster, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roll {
    /// Taken before the question was sent.
    pub asked: Moment,
    /// The standbys, each in a place of its own.
    pub standbys: Vec<Standby>,
    /// What is to be done about others, for people.
    pub complaints: Vec<String>,
    /// May the monitor's role not see them? Then the answer proves nothing.
    pub is_hidden: bool,
}

/// What host names stand for.
#[derive(Clone, Debug, Default)]
pub struct Resolved(pub HashMap<String, Vec<IpAddr>>);

impl Resolved {
    fn ips(&self, host: &str, addresses: Addresses) -> Vec<IpAddr> {
        match (addresses, host.parse()) {
            (Addresses::Fixed(ip), _) | (_, Ok(ip)) => vec![ip],
            (Addresses::Any | Addresses::Each, Err(_)) => self.0.get(host).cloned().unwrap_or_default(),
        }
    }

    /// Do both lead to the same place?
    fn is_same(&self, one: &NodeSettings, other: &NodeSettings) -> bool {
        let is_fixed = |node: &NodeSettings| matches!(node.addresses, Addresses::Fixed(_));
        let same_host = one.host == other.host && !is_fixed(one) && !is_fixed(other);
        let ips = self.ips(&other.host, other.addresses);
        let meets = || self.ips(&one.host, one.addresses).iter().any(|ip| ips.contains(ip));
        one.port == other.port && (same_host || meets())
    }
}

/// Whom of them to take for a standby, and where each is reached.
pub fn call_the_roll(asked: Moment, receivers: Vec<Receiver>, settings: &DiscoverSettings) -> Roll {
    let is_hidden = receivers.iter().any(|receiver| receiver.state.is_none());
    let mut roll = Roll { asked, standbys: Vec::new(), complaints: Vec::new(), is_hidden };
    if is_hidden {
        return roll;
    }
    for receiver in receivers.into_iter().filter(|receiver| receiver.replays) {
        let of_address = || settings.hosts.get(&receiver.address?.to_string());
        let mapped = settings.hosts.get(&receiver.application_name).or_else(of_address).cloned();
        let place = match (mapped, receiver.address) {
            (Some(place), _) => place,
            (None, _) if settings.only_mapped => continue,
            (None, Some(address)) => Place { host: address.to_string(), port: None },
            (None, None) => {
                roll.complaints.push(format!(
                    "the standby \"{}\" streams from {} over a Unix socket, and so has no address: it is left \
                     out, unless cluster.discover.hosts says where it is",
                    receiver.application_name, receiver.from
                ));
                continue;
            }
        };
        let (host, port) = (place.host, place.port.unwrap_or(settings.port));
        let is_there = |other: &Standby| other.host == host && other.port == port;
        if roll.standbys.len() < NODES_MAX && !roll.standbys.iter().any(is_there) {
            roll.standbys.push(Standby { receiver, host, port });
        }
    }
    roll
}

/// A standby that became a node.
#[derive(Debug)]
struct Found {
    application_name: String,
    address: Option<IpAddr>,
    node: NodeSettings,
}

impl Found {
    fn is(&self, standby: &Standby) -> bool {
        self.application_name == standby.receiver.application_name && self.address == standby.receiver.address
    }
}

/// Those who are nodes, and what was said last.
#[derive(Debug, Default)]
pub(super) struct Standbys {
    found: Vec<Found>,
    resolved: Resolved,
    said: Said,
}

/// What was said last, for people.
#[derive(Debug, Default)]
struct Said {
    asked: Option<Moment>,
    standbys: usize,
    lines: Vec<(Option<Arc<str>>, String)>,
    error: Option<String>,
}

impl Standbys {
    /// An answer. `others`: the nodes that somebody else knows; they need no second name. Gives what people must do.
    pub(super) fn heard(
        &mut self,
        roll: &Roll,
        resolved: Resolved,
        others: &[NodeSettings],
        missed: &mut Missed,
        is_up: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        self.resolved = resolved;
        let mut complaints = roll.complaints.clone();
        if !roll.is_hidden {
            self.release(roll, others, missed, is_up);
            for standby in &roll.standbys {
                self.take(standby, roll, others, is_up);
            }
            complaints.extend(roll.standbys.iter().filter_map(|standby| self.misplaced(standby, others)));
        }
        self.said = self.say(roll, others, &complaints);
        complaints
    }

    /// There was no answer.
    pub(super) fn failed(&mut self, error: &str) {
        self.said.error = Some(error.to_owned());
    }

    /// Those who are gone, or whom somebody else knows by now.
    fn release(
        &mut self,
        roll: &Roll,
        others: &[NodeSettings],
        missed: &mut Missed,
        is_up: &dyn Fn(&str) -> bool,
    ) {
        let resolved = &self.resolved;
        self.found.retain(|found| {
            if others.iter().any(|other| resolved.is_same(other, &found.node)) {
                return false;
            }
            let is_it =
                |standby: &Standby| found.is(standby) || resolved.is_same(&found.node, &node_at(standby));
            missed.stays(&found.node.name, roll.standbys.iter().any(is_it), is_up)
        });
    }

    /// It is a node, or becomes one.
    fn take(
        &mut self,
        standby: &Standby,
        roll: &Roll,
        others: &[NodeSettings],
        is_up: &dyn Fn(&str) -> bool,
    ) {
        let there = node_at(standby);
        if others.iter().any(|other| self.resolved.is_same(other, &there)) {
            return;
        }
        let known = self.known(standby, &there, roll, is_up);
        let name = match known {
            // Unless a configuration, or Patroni, has given its name to another meanwhile.
            Some(index) if !others.iter().any(|other| other.name == self.found[index].node.name) => {
                Some(self.found[index].node.name.clone())
            }
            _ => self.new_name(standby, roll, others),
        };
        let Some(name) = name else { return };
        let Receiver { application_name, address, .. } = standby.receiver.clone();
        let found = Found { application_name, address, node: NodeSettings { name, ..there } };
        match known {
            Some(index) => self.found[index] = found,
            None if self.found.len() < NODES_MAX => self.found.push(found),
            None => {}
        }
    }

    /// Which node it is: by who it is and where it comes from, else by where it is; else it bears the name of one
    /// that neither streams nor answers, and has moved.
    fn known(
        &self,
        standby: &Standby,
        there: &NodeSettings,
        roll: &Roll,
        is_up: &dyn Fn(&str) -> bool,
    ) -> Option<usize> {
        let has_moved = |found: &Found| {
            found.node.name == standby.receiver.application_name
                && !roll.standbys.iter().any(|other| found.is(other))
                && !is_up(&found.node.name)
        };
        let position = |is: &dyn Fn(&Found) -> bool| self.found.iter().position(is);
        position(&|found| found.is(standby))
            .or_else(|| position(&|found| self.resolved.is_same(&found.node, there)))
            .or_else(|| position(&has_moved))
    }

    /// What it calls itself, if nobody else is called so; else where it is.
    fn new_name(&self, standby: &Standby, roll: &Roll, others: &[NodeSettings]) -> Option<String> {
        let own = &standby.receiver.application_name;
        let so_called = roll.standbys.iter().filter(|other| other.receiver.application_name == *own).count();
        let own = (so_called == 1 && !own.is_empty() && own != NAMELESS).then(|| own.clone());
        let place = Place { host: standby.host.clone(), port: Some(standby.port) };
        let nodes = || self.found.iter().map(|found| &found.node).chain(others);
        own.into_iter().chain([place.to_string()]).find(|name| !nodes().any(|node| node.name == *name))
    }

    /// It would be reached where its own source is.
    fn misplaced(&self, standby: &Standby, others: &[NodeSettings]) -> Option<String> {
        let node = self.node_of(standby, others)?;
        let Receiver { from, application_name, address, .. } = &standby.receiver;
        let comes_from = address.map_or("a Unix socket".to_owned(), |address| address.to_string());
        (*node.name == **from).then(|| {
            format!(
                "the standby \"{application_name}\" streams from {from}, and comes from {comes_from}: it cannot \
                 be where {from} is, at {}:{}; cluster.discover.hosts can say where it is",
                standby.host, standby.port
            )
        })
    }

    fn node_of<'n>(&'n self, standby: &Standby, others: &'n [NodeSettings]) -> Option<&'n NodeSettings> {
        let there = node_at(standby);
        let mut nodes = others.iter().chain(self.found.iter().map(|found| &found.node));
        nodes.find(|node| self.resolved.is_same(node, &there))
    }

    /// Adds them to those whom others know.
    pub(super) fn join(&self, nodes: &mut Vec<NodeSettings>) {
        for Found { node, .. } in &self.found {
            let is_it = |other: &NodeSettings| other.name == node.name || self.resolved.is_same(other, node);
            if !nodes.iter().any(is_it) {
                nodes.push(node.clone());
            }
        }
    }

    fn say(&self, roll: &Roll, others: &[NodeSettings], complaints: &[String]) -> Said {
        let mut lines: Vec<(Option<Arc<str>>, String)> = Vec::new();
        for standby in &roll.standbys {
            let Receiver { from, application_name, state, .. } = &standby.receiver;
            let node = self.node_of(standby, others).filter(|node| *node.name != **from);
            let state = state.as_deref().unwrap_or_default();
            let says = format!("standby of {from}, {state}, calls itself \"{application_name}\"");
            lines.extend(node.map(|node| (Some(Arc::from(node.name.as_str())), says)));
        }
        lines.extend(complaints.iter().map(|complaint| (None, complaint.clone())));
        if roll.is_hidden {
            lines.push((None, HIDDEN.to_owned()));
        }
        Said { asked: Some(roll.asked), standbys: roll.standbys.len(), lines, error: None }
    }

    /// How many there were in the newest answer.
    pub(super) fn count(&self) -> usize {
        self.said.standbys
    }

    /// What was said last, how old it is, and why there is nothing newer.
    pub(super) fn evidence(&self, now: Moment) -> Vec<Line> {
        let line = |member, says, age| Line { member, source: Source::Replication, says, age };
        let age = self.said.asked.map(|asked| now.since(asked));
        let mut lines = Vec::new();
        lines.extend(self.said.error.as_ref().map(|error| line(None, format!("not told: {error}"), None)));
        if age.is_none() && lines.is_empty() {
            lines.push(line(None, "not asked yet".to_owned(), None));
        }
        lines.extend(self.said.lines.iter().map(|(member, says)| line(member.clone(), says.clone(), age)));
        lines
    }
}

/// What is wrong where the states are hidden.
pub const HIDDEN: &str = "the monitor's role may not see who streams, and from where: GRANT pg_monitor to it";

fn node_at(standby: &Standby) -> NodeSettings {
    NodeSettings {
        host: standby.host.clone(),
        port: standby.port,
        weight: 1,
        addresses: Addresses::Any,
        found: true,
        ..NodeSettings::default()
    }
}

#[cfg(test)]
mod tests;
