//! The monitor's part: samples that are asked for, answered in two halves, and delivered late, in another
//! order, or never. What the tasks of `monitor/probe.rs` do, in single steps; `Picture` is the real one.

use crate::servers::GEOMETRY;
use crate::world::{Check, World};
use pgweir::cluster::health::{Evidence, Failure};
use pgweir::freshness::defect::Defect;
use pgweir::freshness::ring::{CAPACITY, PrimarySample, WalGeometry};
use pgweir::lsn::{Lsn, TimelineId};
use pgweir::moment::Moment;
use pgweir::monitor::picture::{Identity, Outcome, ReplicaSample, Sample};
use pgweir::node::{NodeId, Role};

/// The monitor's connection to a node.
#[derive(Clone, Debug)]
pub struct Link {
    pub epoch: u32,
    prove_branch: bool,
    queries: Vec<Query>,
}

#[derive(Clone, Debug)]
struct Query {
    sent: Moment,
    stage: Stage,
}

/// A query evaluates its columns one after the other.
#[derive(Clone, Debug)]
enum Stage {
    Asked,
    Half(Role, Lsn),
    Answered(Sample),
}

/// What the monitor last told the picture of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told {
    pub role: Option<Role>,
    pub timeline: Option<u32>,
}

impl World {
    /// The next thing that the monitor does with this node.
    pub fn probe(&mut self, node: usize, choice: u64) -> Check {
        let Some(link) = &self.links[node] else { return self.connect_link(node) };
        let server = &self.servers.nodes[node];
        let dead = !server.up || server.epoch != link.epoch;
        let Some(oldest) = link.queries.first().map(|query| query.sent) else {
            return if dead { self.link_lost(node) } else { self.ask(node) };
        };
        let policy = self.health;
        if self.now.since(oldest) >= policy.down_after {
            self.links[node] = None;
            tell!(self, "pg{node}: no answer within down_after");
            return self.failed(node, Failure::Refused);
        }
        if self.now.since(oldest) > policy.probe_timeout && choice.is_multiple_of(4) {
            self.failed(node, Failure::Late)?;
        }
        let link = self.links[node].as_ref().map_or(0, |link| link.queries.len());
        if !dead && link < 2 && self.setting.reorders && (choice >> 3).is_multiple_of(8) {
            return self.ask(node);
        }
        self.proceed(node, (choice >> 6) as usize % link, dead)
    }

    fn connect_link(&mut self, node: usize) -> Check {
        let server = &self.servers.nodes[node];
        if !server.up {
            return self.failed(node, Failure::Refused);
        }
        let link = Link { epoch: server.epoch, prove_branch: true, queries: Vec::new() };
        self.links[node] = Some(link);
        let geometry = match self.setting.defect {
            Defect::UnroundedPosition => WalGeometry { block_size: 0, segment_size: 0 },
            _ => GEOMETRY,
        };
        tell!(self, "pg{node}: the monitor connects");
        self.picture
            .connected(NodeId(node as u16), Identity { system_identifier: 7, geometry, instance: None });
        Ok(())
    }

    fn link_lost(&mut self, node: usize) -> Check {
        let server = &self.servers.nodes[node];
        if self.setting.defect == Defect::KeptPosition && server.up && server.role == Role::Replica {
            // Nobody notices that this is another connection.
            let epoch = server.epoch;
            self.links[node].iter_mut().for_each(|link| link.epoch = epoch);
            return Ok(());
        }
        self.links[node] = None;
        tell!(self, "pg{node}: the monitor loses its connection");
        self.failed(node, Failure::Lost)
    }

    /// A network that breaks.
    pub fn break_link(&mut self, node: usize) -> Check {
        match self.links[node].take() {
            Some(_) => {
                tell!(self, "pg{node}: the monitor's connection is cut");
                self.failed(node, Failure::Lost)
            }
            None => Ok(()),
        }
    }

    fn ask(&mut self, node: usize) -> Check {
        let sent = self.now;
        if let Some(link) = &mut self.links[node] {
            link.queries.push(Query { sent, stage: Stage::Asked });
        }
        Ok(())
    }

    /// One query goes on: its first half, its second half, its delivery.
    fn proceed(&mut self, node: usize, index: usize, dead: bool) -> Check {
        let Some(link) = &self.links[node] else { return Ok(()) };
        let Query { sent, stage } = link.queries[index].clone();
        let next = match stage {
            Stage::Answered(sample) => {
                if let Some(link) = &mut self.links[node] {
                    link.queries.remove(index);
                }
                return self.deliver(node, sample);
            }
            // A restart swallows what was not answered.
            _ if dead => return self.link_lost(node),
            Stage::Asked => self.first_half(node),
            Stage::Half(role, position) => {
                Stage::Answered(self.second_half(node, sent, role, position, link.prove_branch))
            }
        };
        if let Some(link) = &mut self.links[node] {
            link.queries[index].stage = next;
        }
        Ok(())
    }

    fn first_half(&mut self, node: usize) -> Stage {
        let role = self.servers.nodes[node].role;
        let position = match role {
            Role::Primary if self.setting.defect == Defect::WrittenPosition => {
                self.servers.flush_position(node)
            }
            Role::Primary => self.servers.insert_position(node),
            Role::Replica => self.servers.replay_position(node),
        };
        Stage::Half(role, position)
    }

    fn second_half(&mut self, node: usize, sent: Moment, role: Role, first: Lsn, prove: bool) -> Sample {
        let server = &self.servers.nodes[node];
        if role == Role::Primary {
            let timeline = TimelineId(self.servers.timeline(node));
            let flush = self.servers.flush_position(node);
            return Sample::Primary(PrimarySample { sent, insert: first, flush, timeline });
        }
        let known = match server.role {
            Role::Replica => server.streams.max(prove.then_some(server.control)),
            Role::Primary => None,
        };
        let branch = match self.setting.defect {
            Defect::AnyBranch => self.picture.view().timeline.or(known.map(TimelineId)),
            _ => known.map(TimelineId),
        };
        let replay = match self.setting.defect {
            Defect::KeptPosition => {
                self.kept[node] = self.kept[node].max(first);
                self.kept[node]
            }
            _ => first,
        };
        Sample::Replica(ReplicaSample { sent, replay: Some(replay), paused: server.paused, branch })
    }

    fn deliver(&mut self, node: usize, mut sample: Sample) -> Check {
        if let (Defect::SampleInFlight, Sample::Primary(primary)) = (self.setting.defect, &mut sample) {
            primary.sent = self.now;
        }
        let told = match sample {
            Sample::Primary(primary) => {
                tell!(
                    self,
                    "pg{node}: sample of a primary, sent at {}: insert {} flush {} timeline {}",
                    us(primary.sent),
                    primary.insert,
                    primary.flush,
                    primary.timeline
                );
                Told { role: Some(Role::Primary), timeline: Some(primary.timeline.0) }
            }
            Sample::Replica(replica) => {
                let (replay, branch) = (replica.replay.unwrap_or_default(), replica.branch);
                tell!(
                    self,
                    "pg{node}: sample of a replica, sent at {}: replay {replay}{}{}",
                    us(replica.sent),
                    branch.map(|branch| format!(" timeline {branch}")).unwrap_or_default(),
                    if replica.paused { " paused" } else { "" }
                );
                Told { role: Some(Role::Replica), timeline: branch.map(|branch| branch.0) }
            }
        };
        self.newest_told = self.newest_told.max(told.timeline.unwrap_or(0));
        self.told[node] = told;
        let outcome = self.picture.sampled(NodeId(node as u16), sample, self.now);
        if let Some(link) = &mut self.links[node] {
            link.prove_branch = outcome.prove_branch;
        }
        self.stats.samples += 1;
        self.publish(outcome)?;
        if self.picture.ring().len() > CAPACITY {
            return Err(format!("the ring has {} entries", self.picture.ring().len()));
        }
        self.check_watermarks()
    }

    fn failed(&mut self, node: usize, failure: Failure) -> Check {
        let outcome = self.picture.failed(NodeId(node as u16), failure, "failed", self.now);
        self.publish(outcome)
    }

    /// The relay saw something on a connection to `node`.
    pub fn witnessed(&mut self, node: usize, evidence: Evidence) -> Check {
        if evidence == Evidence::InHotStandbyChanged {
            self.told[node].role = None;
        }
        let outcome = self.picture.witnessed(NodeId(node as u16), evidence, self.now);
        self.publish(outcome)
    }

    fn publish(&mut self, outcome: Outcome) -> Check {
        let Some(view) = outcome.view else { return Ok(()) };
        for (node, seen) in view.nodes.iter().enumerate() {
            if self.published.nodes.get(node).is_some_and(|before| before.role != seen.role) {
                self.pools[node].clear();
            }
        }
        if view.primary != self.published.primary || view.timeline != self.published.timeline {
            tell!(
                self,
                "picture: primary {}, timeline {}{}",
                view.primary.map_or("nobody".to_owned(), |node| format!("pg{}", node.0)),
                view.timeline.map_or("unknown".to_owned(), |timeline| timeline.to_string()),
                if view.conflict.is_some() { ", in conflict" } else { "" }
            );
        }
        self.published = view;
        Ok(())
    }

    /// A watermark is a promise about the replica, not only about who reads it.
    fn check_watermarks(&self) -> Check {
        let view = self.picture.view();
        let Some(primary) = view.primary.map(NodeId::index) else { return Ok(()) };
        let of = &self.servers.nodes[primary];
        let stands = of.up
            && of.role == Role::Primary
            && view.timeline == Some(TimelineId(self.servers.timeline(primary)));
        if !stands || self.servers.twins {
            return Ok(());
        }
        for (node, server) in self.servers.nodes.iter().enumerate() {
            let same_run = self.links[node].as_ref().is_some_and(|link| link.epoch == server.epoch);
            if !server.up || !same_run || server.role != Role::Replica || server.branch != of.branch {
                continue;
            }
            let fresh = view.nodes[node].live.freshness();
            let shown = self.servers.shows(node);
            for (number, commit) in self.servers.commits.iter().enumerate() {
                let by_insert = commit.inserted < fresh.watermark_insert;
                let by_flush = commit.flushed.is_some_and(|at| at < fresh.watermark_flush);
                let exists = self.servers.branches[of.branch].commits.has(number);
                if (by_insert || by_flush) && exists && !shown.has(number) {
                    return Err(format!(
                        "pg{node}'s watermarks are {} (inserted) and {} (flushed), but it does not show #{number}, \
                         inserted at {}",
                        us(fresh.watermark_insert),
                        us(fresh.watermark_flush),
                        us(commit.inserted)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Connects where needed, and takes one whole sample.
    pub fn sample_now(&mut self, node: usize) -> Check {
        if let Some(link) = &mut self.links[node] {
            link.queries.clear();
            self.setting.reorders = false;
        }
        loop {
            let before = self.stats.samples;
            self.probe(node, 1 << 3 | 1)?;
            self.tick(10_000);
            if self.stats.samples > before {
                return Ok(());
            }
        }
    }
}

/// A moment of the story, in microseconds.
pub fn us(moment: Moment) -> String {
    match moment {
        Moment::NEVER => "never".to_owned(),
        moment => format!("{}us", moment.0 / 1000),
    }
}
