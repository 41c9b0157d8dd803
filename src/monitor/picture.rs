//! Samples and failures in, the published picture out. No I/O and no clock: the tasks of
//! `monitor::probe` feed it under one lock, so that every node's live numbers have one writer.

mod testimony;

use crate::cluster::health::{Evidence, Failure, HealthPolicy};
use crate::cluster::resolver::resolve;
use crate::cluster::roles::{Claim, Standing};
use crate::cluster::view::{ClusterView, NodeLive, NodeState, NodeView, Standby};
use crate::freshness::forks::Forks;
use crate::freshness::losses::Failover;
use crate::freshness::ring::{PrimaryRing, PrimarySample, Pushed, WalGeometry};
use crate::freshness::token::{Proof, Token};
use crate::lsn::{Lsn, TimelineId, WalPosition};
use crate::moment::Moment;
use crate::monitor::members::NODES_MAX;
use crate::monitor::picture::testimony::Hearing;
use crate::monitor::settings::{Addresses, NodeSettings};
use crate::monitor::tracked::Tracked;
use crate::node::{NodeId, Role};
use std::sync::Arc;
use std::time::Duration;

/// What a node tells once per connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// `pg_control_system()`.
    pub system_identifier: u64,
    /// Sizes of its WAL.
    pub geometry: WalGeometry,
    /// Which running server it is.
    pub instance: Option<Instance>,
}

/// One run of one server. The moment of its start alone does not tell servers apart: two that are started
/// together can have it in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instance {
    /// `pg_postmaster_start_time()`, in microseconds.
    pub started: i64,
    /// Where it listens itself.
    pub port: i32,
    /// The process that is its checkpointer, and when that was started, in microseconds. Only `pg_monitor` sees it.
    pub checkpointer: Option<(i32, i64)>,
}

impl Instance {
    /// Is it the same server, as far as both tell?
    pub fn is(&self, other: &Instance) -> bool {
        let differ =
            matches!((self.checkpointer, other.checkpointer), (Some(one), Some(other)) if one != other);
        (self.started, self.port) == (other.started, other.port) && !differ
    }
}

/// One answer of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sample {
    /// Of a primary.
    Primary(PrimarySample),
    /// Of a standby.
    Replica(ReplicaSample),
}

/// One answer of a standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaSample {
    /// Taken before the query was sent.
    pub sent: Moment,
    /// `pg_last_wal_replay_lsn()`.
    pub replay: Option<Lsn>,
    /// `pg_is_wal_replay_paused()`.
    pub paused: bool,
    /// The timeline on which it was proven to be, if this answer proves any.
    pub branch: Option<TimelineId>,
}

/// What the shell does after an input.
#[derive(Debug, Default)]
pub struct Outcome {
    /// A new picture to publish.
    pub view: Option<ClusterView>,
    /// The primary has shown something that replicas are to be asked about now.
    pub ask_replicas: bool,
    /// This node is a replica that has not replayed what the primary has shown.
    pub behind: bool,
    /// It must prove its timeline.
    pub prove_branch: bool,
}

/// All that is known.
#[derive(Debug)]
pub struct Picture {
    policy: HealthPolicy,
    tracked: Vec<Tracked>,
    view: ClusterView,
    standing: Standing,
    ring: PrimaryRing,
    /// Whose samples the ring holds.
    ring_of: Option<NodeId>,
    forks: Forks,
    /// Samples of the timeline that was left last.
    left: PrimaryRing,
    /// Was its primary shut down properly? Then nothing of it was lost.
    shut_down: Option<NodeId>,
    /// The newest failover.
    failover: Option<Failover>,
    /// What Patroni said.
    hearing: Hearing,
    /// The newest moment that was told.
    now: Moment,
    refreshed: Moment,
}

impl Picture {
    /// Nothing known about `nodes`.
    pub fn new(nodes: &[NodeSettings], policy: HealthPolicy) -> Picture {
        let mut picture = Picture {
            policy,
            tracked: Vec::new(),
            view: ClusterView::default(),
            standing: Standing::default(),
            ring: PrimaryRing::default(),
            ring_of: None,
            forks: Forks::default(),
            left: PrimaryRing::default(),
            shut_down: None,
            failover: None,
            hearing: Hearing::default(),
            now: Moment::NEVER,
            refreshed: Moment::NEVER,
        };
        picture.reload(nodes, policy);
        picture
    }

    /// For tests: a replica's proofs outlive its connection.
    pub fn keep_proofs(&mut self) {
        self.tracked.iter_mut().for_each(|tracked| tracked.keeps_proofs = true);
    }

    /// The picture as last published.
    pub fn view(&self) -> &ClusterView {
        &self.view
    }

    /// The samples of the primary that watermarks are proven with.
    pub fn ring(&self) -> &PrimaryRing {
        &self.ring
    }

    /// Other nodes, or another policy. A node that stays keeps its id and all that is known of it.
    pub fn reload(&mut self, nodes: &[NodeSettings], policy: HealthPolicy) -> ClusterView {
        self.policy = policy;
        let listed = |node: &NodeView| nodes.iter().any(|settings| is_same(node, settings));
        for index in 0..self.tracked.len() {
            if !listed(&self.view.nodes[index]) && self.tracked[index].health.state() != NodeState::Removed {
                self.tracked[index].forget(&self.view.nodes[index].live);
                self.tracked[index] = Tracked::new();
                self.tracked[index].health.removed();
            }
        }
        if self.tracked.iter().all(|tracked| tracked.health.state() == NodeState::Removed) {
            // Nobody is left of the cluster that was measured: another one may take its place.
            self.standing = Standing::default();
            self.ring.clear();
            self.forks.clear();
        }
        self.view.left_out = 0;
        for settings in nodes {
            self.add(settings);
        }
        self.settle();
        self.view.generation += 1;
        self.redraw(Moment::NEVER);
        self.view.clone()
    }

    fn add(&mut self, settings: &NodeSettings) {
        match self.view.nodes.iter().position(|node| is_same(node, settings)) {
            Some(index) => {
                let (node, tracked) = (&mut self.view.nodes[index], &mut self.tracked[index]);
                if tracked.health.state() == NodeState::Removed {
                    *tracked = Tracked::new();
                }
                place_at(settings, node, tracked);
                tracked.without_reads = settings.without_reads;
                node.weight = settings.weight.max(1);
                node.zone = settings.zone.as_deref().map(Arc::from);
                node.tags = settings.tags.iter().map(|tag| Arc::from(tag.as_str())).collect();
            }
            // Ids are never given to another node, and pools and `decide` have room for so many.
            None => match u16::try_from(self.tracked.len()) {
                Ok(number) if self.tracked.len() < NODES_MAX => {
                    self.view.nodes.push(unknown_node(NodeId(number), settings));
                    let without_reads = settings.without_reads;
                    self.tracked.push(Tracked { without_reads, ..Tracked::new() });
                }
                _ => self.view.left_out += 1,
            },
        }
    }

    /// A new connection to `node` told who it is.
    pub fn connected(&mut self, node: NodeId, identity: Identity) {
        let Some((tracked, view)) = self.entry(node) else { return };
        if tracked.health.state() == NodeState::Removed {
            return;
        }
        tracked.runs.ended(view.live.freshness().incarnation);
        tracked.forget(&view.live);
        tracked.runs.began(view.live.freshness().incarnation, identity.instance);
        tracked.attempted = true;
        // Another system behind the same address: its timelines are not this one's.
        if tracked.system_identifier != Some(identity.system_identifier) {
            tracked.timeline = None;
        }
        tracked.system_identifier = Some(identity.system_identifier);
        tracked.geometry = identity.geometry;
        tracked.instance = identity.instance;
        // It restarted: what it proved before, it must prove again.
        if tracked.health.role() == Some(Role::Replica) {
            tracked.timeline = None;
        }
    }

    /// `node` answered.
    pub fn sampled(&mut self, node: NodeId, sample: Sample, now: Moment) -> Outcome {
        self.now = self.now.max(now);
        self.note_promotion(node, sample);
        let Some((tracked, view)) = self.entry(node) else { return Outcome::default() };
        if tracked.health.state() == NodeState::Removed {
            return Outcome::default();
        }
        let (role, sent) = match sample {
            Sample::Primary(sample) => (Role::Primary, sample.sent),
            Sample::Replica(sample) => (Role::Replica, sample.sent),
        };
        tracked.answered = Some(sent);
        if tracked.health.role().is_some_and(|old| old != role) {
            tracked.timeline = None;
            tracked.forget(&view.live);
        }
        let recovered = tracked.health.state() != NodeState::Up;
        tracked.health.answered(role);
        if recovered {
            view.last_error = None;
        }
        match sample {
            Sample::Primary(sample) => self.primary_sampled(node, sample, now),
            Sample::Replica(sample) => self.replica_sampled(node, sample, now),
        }
    }

    /// What a standby had replayed before it became a primary is part of its new timeline.
    fn note_promotion(&mut self, node: NodeId, sample: Sample) {
        let Sample::Primary(sample) = sample else { return };
        let Some(tracked) = self.tracked.get(node.index()) else { return };
        let ours = tracked.system_identifier == self.standing.system_identifier;
        if let (true, Some(Role::Replica), Some(timeline), Some(lsn), Some(_)) =
            (ours, tracked.health.role(), tracked.timeline, tracked.position, tracked.sent)
        {
            self.forks.promoted(WalPosition { timeline, lsn }, sample.timeline);
        }
    }

    fn primary_sampled(&mut self, node: NodeId, sample: PrimarySample, now: Moment) -> Outcome {
        let Some((tracked, _)) = self.entry(node) else { return Outcome::default() };
        let geometry = tracked.geometry;
        tracked.timeline = Some(sample.timeline);
        tracked.position = Some(geometry.last_record_end(sample.insert));
        tracked.sent = Some(sample.sent);
        tracked.paused = false;
        self.settle();
        let is_primary = self.standing.primary == Some(node);
        if let Some((tracked, view)) = self.entry(node) {
            // Readers look at these numbers without the picture: one that only claims to be the primary must
            // not look fresh for a moment to a request that takes it for the replica that it was.
            match is_primary {
                true => view.live.publish(sample.sent, sample.sent, sample.sent),
                false => tracked.forget(&view.live),
            }
        }
        if is_primary {
            self.ring.set_geometry(geometry);
            // It is back.
            self.shut_down = self.shut_down.filter(|&down| down != node);
            if self.ring.push(sample) != Pushed::OutOfOrder {
                self.cover_replicas(sample, now);
            }
        }
        let ask_replicas = self.standing.primary == Some(node);
        Outcome { view: self.refresh(now), ask_replicas, behind: false, prove_branch: false }
    }

    /// A newer sample of the primary makes what replicas had already replayed worth more.
    fn cover_replicas(&mut self, sample: PrimarySample, now: Moment) {
        let insert = self.ring.newest().map_or(sample.insert, |newest| newest.insert);
        for index in 0..self.tracked.len() {
            let tracked = &mut self.tracked[index];
            // What it had replayed before anybody asked says nothing about how long replay takes.
            if tracked.position.is_some_and(|replay| replay < insert) {
                tracked.catch_up.primary_at(insert, sample.sent);
            }
            self.cover(index, now);
        }
    }

    /// Publishes the watermark of one replica. `true`: it is behind the newest primary sample.
    fn cover(&mut self, index: usize, now: Moment) -> bool {
        let (Some(tracked), Some(view)) = (self.tracked.get_mut(index), self.view.nodes.get(index)) else {
            return false;
        };
        let (Some(newest), Some(timeline), Some(lsn), Some(sent)) =
            (self.ring.newest(), tracked.timeline, tracked.position, tracked.sent)
        else {
            return false;
        };
        if !tracked.health.holds_role(Role::Replica)
            || tracked.system_identifier != self.standing.system_identifier
        {
            return false;
        }
        if timeline == newest.timeline {
            let proven = self.ring.watermark(WalPosition { timeline, lsn });
            tracked.watermark = tracked.watermark.max(proven);
        }
        view.live.publish(tracked.watermark.insert, tracked.watermark.flush, sent);
        let behind = lsn < newest.insert;
        let took = tracked.catch_up.replica_at(lsn, sent, now);
        // With nothing left to replay a sample is all there is to wait for, however long it took
        // before; on an idle cluster nothing would ever correct the old figure.
        view.live.set_catch_up(if behind { took } else { Duration::ZERO });
        behind
    }

    fn replica_sampled(&mut self, node: NodeId, sample: ReplicaSample, now: Moment) -> Outcome {
        let Some((tracked, view)) = self.entry(node) else { return Outcome::default() };
        if tracked.position > sample.replay && tracked.sent.is_some() {
            // Impossible while its connection lives: nothing is proven any more.
            tracked.forget(&view.live);
            tracked.timeline = None;
            tracked.runs.distrust();
        }
        sample.branch.iter().for_each(|&branch| tracked.runs.stands_by_on(branch));
        tracked.position = sample.replay;
        tracked.sent = sample.replay.map(|_| sample.sent);
        tracked.paused = sample.paused;
        // While it runs, a standby only goes on to newer timelines.
        tracked.timeline = sample.branch.max(tracked.timeline);
        self.settle();
        let behind = self.cover(node.index(), now);
        let proven = self.tracked.get(node.index()).and_then(|tracked| tracked.timeline);
        let prove_branch = proven.is_none() || proven != self.standing.timeline;
        Outcome { view: self.refresh(now), ask_replicas: false, behind, prove_branch }
    }

    /// The primary of `timeline` says where that forked, asked by a new connection or after a promotion.
    /// `true`: writes of the timeline before may be lost.
    pub fn forked(&mut self, node: NodeId, timeline: TimelineId, at: Lsn, now: Moment) -> bool {
        let Some(old) = self.left.timeline().filter(|&old| old < timeline) else { return false };
        if self.standing.primary != Some(node) || self.standing.timeline != Some(timeline) {
            return false;
        }
        self.forks.forked(WalPosition { timeline: old, lsn: at }, timeline);
        let old = std::mem::take(&mut self.left);
        let failover = Failover::new(old, at, timeline, now);
        self.failover = Some(match self.shut_down.take() {
            Some(_) => failover.in_order(),
            None => failover,
        });
        true
    }

    /// An operator lets no reads go to a node, or lets them again.
    pub fn ban(&mut self, node: NodeId, banned: bool, now: Moment) -> Outcome {
        if let Some((tracked, _)) = self.entry(node) {
            tracked.banned = banned;
        }
        Outcome { view: self.refresh(now), ..Outcome::default() }
    }

    /// A node said that it is shut down in order.
    pub fn is_shut_down(&mut self, node: NodeId) {
        if self.ring_of == Some(node) {
            self.shut_down = Some(node);
        }
    }

    /// The newest failover that may have lost something.
    pub fn failover(&self) -> Option<&Failover> {
        self.failover.as_ref()
    }

    /// A standby told how it replays.
    pub fn replays(&mut self, node: NodeId, standby: Standby) {
        if let Some((tracked, _)) = self.entry(node) {
            tracked.standby = standby;
        }
    }

    /// An attempt to measure `node` failed.
    pub fn failed(&mut self, node: NodeId, failure: Failure, error: &str, now: Moment) -> Outcome {
        self.now = self.now.max(now);
        let policy = self.policy;
        let Some((tracked, view)) = self.entry(node) else { return Outcome::default() };
        tracked.attempted = true;
        tracked.health.failed(failure, now, &policy);
        if failure != Failure::Late {
            tracked.runs.ended(view.live.freshness().incarnation);
            tracked.forget(&view.live);
        }
        if view.last_error.as_deref() != Some(error) {
            view.last_error = Some(Arc::from(error));
        }
        self.settle();
        Outcome { view: self.refresh(now), ..Outcome::default() }
    }

    /// The relay saw something on its own connections.
    pub fn witnessed(&mut self, node: NodeId, evidence: Evidence, now: Moment) -> Outcome {
        self.now = self.now.max(now);
        let Some((tracked, view)) = self.entry(node) else { return Outcome::default() };
        if tracked.health.witnessed(evidence) {
            tracked.changed = Some(now);
            tracked.forget(&view.live);
            tracked.timeline = None;
            view.last_error = Some(Arc::from("in_hot_standby changed: its role is being measured again"));
        }
        self.settle();
        Outcome { view: self.refresh(now), ..Outcome::default() }
    }

    /// What the primary's samples say about a token.
    pub fn prove(&self, token: &Token) -> Proof {
        let (Some(system), Some(newest)) = (self.standing.system_identifier, self.ring.newest()) else {
            return Proof::NoSample;
        };
        if token.system.is_some_and(|other| other != system) {
            return Proof::Foreign(system);
        }
        if token.at.timeline < newest.timeline {
            return match self.forks.has(token.at, newest.timeline) {
                // Whoever is proven to be on the newest timeline has all that it began with.
                true => Proof::By(Moment(1)),
                false => match self.forks.lost(token.at, newest.timeline) {
                    Some((fork, next)) => Proof::Lost { next, fork },
                    None => Proof::LeftBehind(newest.timeline),
                },
            };
        }
        let moment = (token.at.timeline == newest.timeline).then(|| self.ring.moment_of(token.at.lsn));
        moment.flatten().map_or(Proof::Newer { than: newest.sent }, Proof::By)
    }

    /// The primary's position in its newest sample, and when that was sent: it covers everything that
    /// anybody saw committed by then.
    pub fn present(&self) -> Option<(Token, Moment)> {
        let system = self.standing.system_identifier?;
        // Without a primary nobody knows whether the ring's timeline goes on.
        self.standing.primary.filter(|&primary| self.ring_of == Some(primary))?;
        let newest = self.ring.newest()?;
        let at = WalPosition { timeline: newest.timeline, lsn: newest.insert };
        Some((Token { system: Some(system), at }, newest.sent))
    }

    fn entry(&mut self, node: NodeId) -> Option<(&mut Tracked, &mut NodeView)> {
        Some((self.tracked.get_mut(node.index())?, self.view.nodes.get_mut(node.index())?))
    }

    /// Who is primary now? On a new timeline, or under another primary of the same one, everybody else
    /// must prove themselves again.
    fn settle(&mut self) {
        let claims: Vec<Claim> = self.claims().collect();
        let next = resolve(&self.standing, &claims, self.hearing.word_at(self.now), self.now);
        let new_timeline = next.timeline != self.standing.timeline;
        let previous = next.primary.and_then(|primary| self.ring_of.replace(primary));
        let of_another = next.primary.is_some() && previous != next.primary && self.ring.newest().is_some();
        self.standing = next;
        if !(new_timeline || of_another) {
            return;
        }
        match new_timeline && !self.ring.is_empty() {
            true => self.left = std::mem::take(&mut self.ring),
            false => self.ring.clear(),
        }
        for (tracked, view) in self.tracked.iter_mut().zip(&self.view.nodes) {
            if Some(view.id) != next.primary {
                tracked.forget(&view.live);
            }
        }
    }

    fn claims(&self) -> impl Iterator<Item = Claim> {
        let configured = |(_, tracked): &(usize, &Tracked)| tracked.health.state() != NodeState::Removed;
        let nodes = self.tracked.iter().enumerate().filter(configured);
        nodes.map(|(index, tracked)| tracked.claim(self.view.nodes[index].id, self.has_twin(index)))
    }

    /// Is this node the same server as one before it?
    fn has_twin(&self, index: usize) -> bool {
        self.tracked[..index].iter().any(|other| self.tracked[index].is_twin_of(other))
    }

    /// The new picture, if something in it matters or its numbers have become old.
    fn refresh(&mut self, now: Moment) -> Option<ClusterView> {
        let old = now.since(self.refreshed) >= self.policy.interval / 2;
        (self.redraw(now) || old).then(|| {
            self.refreshed = now;
            self.view.generation += 1;
            self.view.clone()
        })
    }

    /// Brings the view up to date; `true` when more than numbers changed.
    fn redraw(&mut self, now: Moment) -> bool {
        let insert = self.ring.newest().map(|sample| sample.insert);
        let standing = self.standing;
        let mut changed = now == Moment::NEVER;
        for (index, node) in self.view.nodes.iter_mut().enumerate() {
            let (before, tracked) = (&self.tracked[..index], &self.tracked[index]);
            let twin = before.iter().any(|other| tracked.is_twin_of(other));
            changed |= tracked.draw(node, insert, &standing, twin);
        }
        changed |= self.view.primary != standing.primary
            || self.view.conflict != standing.conflict
            || self.view.disowned != standing.disowned
            || self.view.timeline != standing.timeline;
        self.view.primary = standing.primary;
        self.view.conflict = standing.conflict;
        self.view.disowned = standing.disowned;
        self.view.timeline = standing.timeline;
        self.view.system_identifier = standing.system_identifier;
        changed
    }
}

fn is_same(node: &NodeView, settings: &NodeSettings) -> bool {
    let listed_there = *node.host == *settings.host && node.port == settings.port;
    *node.name == *settings.name && (settings.found || listed_there)
}

/// A node that was found may be found elsewhere the next time.
fn place_at(settings: &NodeSettings, node: &mut NodeView, tracked: &mut Tracked) {
    let address = match settings.addresses {
        Addresses::Fixed(address) => Some(address),
        Addresses::Any | Addresses::Each => node.address.filter(|_| *node.host == *settings.host),
    };
    if *node.host == *settings.host && node.port == settings.port && node.address == address {
        return;
    }
    tracked.start_over(&node.live);
    node.host = Arc::from(settings.host.as_str());
    node.port = settings.port;
    node.address = address;
    node.place = node.live.place();
}

fn unknown_node(id: NodeId, settings: &NodeSettings) -> NodeView {
    NodeView {
        id,
        name: Arc::from(settings.name.as_str()),
        host: Arc::from(settings.host.as_str()),
        port: settings.port,
        address: match settings.addresses {
            Addresses::Fixed(address) => Some(address),
            Addresses::Any | Addresses::Each => None,
        },
        place: 0,
        weight: settings.weight.max(1),
        zone: settings.zone.as_deref().map(Arc::from),
        tags: settings.tags.iter().map(|tag| Arc::from(tag.as_str())).collect(),
        state: NodeState::Unknown,
        role: None,
        timeline: None,
        position: None,
        lag_bytes: None,
        standby: Standby::default(),
        replay_paused: false,
        serves_reads: false,
        last_error: None,
        live: Arc::new(NodeLive::default()),
    }
}

#[cfg(test)]
mod tests;
