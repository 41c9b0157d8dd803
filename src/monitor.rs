//! Samples every node and publishes the picture.
//!
//! One task per node owns one connection, asks one query at a time, and feeds `Picture`, where all
//! is decided under one short lock. Readers take the view from `ArcSwap` and the live numbers from
//! atomics; they never meet the lock.

mod catch_up;
mod dial;
mod discover;
mod doubt;
mod fence;
mod members;
mod names;
mod patroni;
pub mod picture;
mod probe;
mod runs;
mod settings;
pub mod tls;
mod tracked;

pub use crate::cluster::health::Evidence;
pub use crate::monitor::settings::{
    Addresses, MonitorSettings, NodeSettings, PatroniSettings, basic_authorization,
};
pub use crate::monitor::tls::{MonitorTls, TlsDemand};

use crate::clock;
use crate::cluster::evidence::Line as EvidenceLine;
use crate::cluster::view::{ClusterView, NodeState};
use crate::freshness::defect::Defect;
use crate::freshness::losses::Fate;
use crate::freshness::token::{Proof, Token};
use crate::lsn::TimelineId;
use crate::moment::Moment;
use crate::monitor::fence::Line;
use crate::monitor::members::{Members, NODES_MAX};
use crate::monitor::picture::{Outcome, Picture};
use crate::node::{NodeId, Role};
use arc_swap::{ArcSwap, Guard};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// From here on the ids that are used up are worth a warning.
const NODES_WARN: usize = 48;

/// The handle to the monitor; clones share it.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
}

struct Shared {
    view: Arc<ArcSwap<ClusterView>>,
    picture: Mutex<Picture>,
    publications: AtomicU64,
    changed: Notify,
    /// Another node is the primary than before, or one at last.
    new_primary: Arc<Notify>,
    waiters: AtomicUsize,
    settings: ArcSwap<MonitorSettings>,
    members: Mutex<Members>,
    /// The nodes there are, as the picture has them.
    nodes: ArcSwap<Vec<NodeSettings>>,
    /// Those who find nodes.
    sources: Mutex<Vec<JoinHandle<()>>>,
    probes: Mutex<HashMap<NodeId, Probe>>,
    lines: Mutex<HashMap<NodeId, Line>>,
    queries: Queries,
    /// Failovers that may have lost something.
    failovers: AtomicU64,
    /// Whose fate is asked for.
    docket: doubt::Docket,
}

/// What the nodes were asked so far.
#[derive(Debug, Default)]
pub struct Queries {
    /// Samples, of all nodes.
    pub samples: AtomicU64,
    /// Questions of fences: two for the primary and one for the replica, and more while a commit hangs.
    pub fences: AtomicU64,
    /// Flushes of the primary's WAL that somebody waited for.
    pub kicks: AtomicU64,
}

fn count(of: &AtomicU64) {
    of.fetch_add(1, Ordering::Relaxed);
}

/// A node's running tasks, and how to wake them.
struct Probe {
    /// Where the node was when it began (`NodeView::place`).
    place: u64,
    wake: Arc<Notify>,
    fence: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

impl Probe {
    fn abort(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A task that ends with its owner: it drives a connection for whoever asks on it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sampling is fast while one of these lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiters: &'a AtomicUsize) -> Waiting<'a> {
        waiters.fetch_add(1, Ordering::AcqRel);
        Waiting(waiters)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Monitor {
    /// Starts one task per node on the current runtime.
    pub fn start(settings: MonitorSettings) -> Monitor {
        let mut members = Members::default();
        members.list(&settings.nodes, settings.patroni.is_some());
        members.ask_for_standbys(settings.discover.is_some());
        let nodes = members.nodes();
        let mut picture = Picture::new(&nodes, settings.policy);
        picture.hear_patroni(settings.patroni.as_ref().map(PatroniSettings::trusted_for));
        if settings.defect == Defect::KeptPosition {
            picture.keep_proofs();
        }
        let shared = Arc::new(Shared {
            view: Arc::new(ArcSwap::from_pointee(picture.view().clone())),
            picture: Mutex::new(picture),
            publications: AtomicU64::new(0),
            changed: Notify::new(),
            new_primary: Arc::new(Notify::new()),
            waiters: AtomicUsize::new(0),
            settings: ArcSwap::from_pointee(settings),
            members: Mutex::new(members),
            nodes: ArcSwap::from_pointee(nodes),
            sources: Mutex::new(Vec::new()),
            probes: Mutex::new(HashMap::new()),
            lines: Mutex::new(HashMap::new()),
            queries: Queries::default(),
            failovers: AtomicU64::new(0),
            docket: doubt::Docket::default(),
        });
        let monitor = Monitor { shared };
        monitor.shared.spawn_probes();
        monitor.shared.spawn_sources();
        monitor
    }

    /// Does what Patroni said last still count? `None`: it is not asked.
    pub fn patroni_counts(&self) -> Option<bool> {
        self.shared.picture().patroni_counts(clock::now())
    }

    /// Who said what about the nodes, how long ago, and what it led to. Takes the picture's lock for a moment.
    pub fn evidence(&self) -> Vec<EvidenceLine> {
        let now = clock::now();
        let mut lines = self.shared.picture().evidence(now);
        // The verdict comes last.
        let end = lines.len().saturating_sub(1);
        lines.splice(end..end, self.shared.members().standbys_evidence(now));
        lines
    }

    /// How many standbys streamed when the cluster was asked last; `None`: nobody asks.
    pub fn standbys_found(&self) -> Option<usize> {
        self.shared.members().standbys_count()
    }

    /// The picture now.
    pub fn view(&self) -> Guard<Arc<ClusterView>> {
        self.shared.view.load()
    }

    /// Where the picture is published, for `arc_swap::Cache`.
    pub fn view_handle(&self) -> &Arc<ArcSwap<ClusterView>> {
        &self.shared.view
    }

    /// How many samples and pictures were published so far.
    pub fn publications(&self) -> u64 {
        self.shared.publications.load(Ordering::Acquire)
    }

    /// What the nodes were asked so far.
    pub fn queries(&self) -> &Queries {
        &self.shared.queries
    }

    /// Somebody begins to wait: the primary is asked at once, the replicas when it has answered.
    /// Call it when the wait begins, after the moment that must be covered, and then
    /// `changed_since` as often as needed.
    pub fn kick(&self) {
        match self.view().primary {
            Some(primary) => self.shared.wake(|node| node == primary),
            None => self.shared.wake(|_| true),
        }
    }

    /// Waits until more than `seen` publications were made, or until `until`; gives the count.
    pub async fn changed_since(&self, seen: u64, until: Moment) -> u64 {
        let shared = &*self.shared;
        let waiting = Waiting::new(&shared.waiters);
        let mut changed = pin!(shared.changed.notified());
        // Registered before the count is read, so that no publication is missed.
        changed.as_mut().enable();
        if self.publications() == seen {
            // Either way the caller decides again: a time-out is an answer too.
            drop(tokio::time::timeout_at(clock::instant(until).into(), changed).await);
        }
        drop(waiting);
        self.publications()
    }

    /// Waits until another picture than that of `generation` is published, or until `until`. Unlike
    /// `changed_since` it does not ask for samples.
    pub async fn view_changed(&self, generation: u64, until: Moment) {
        let mut changed = pin!(self.shared.changed.notified());
        changed.as_mut().enable();
        if self.view().generation == generation {
            // The caller looks at the picture again, whatever ended the wait.
            drop(tokio::time::timeout_at(clock::instant(until).into(), changed).await);
        }
    }

    /// Somebody waits until everything is visible on the primary that these nodes showed by `at`. Call it
    /// again before each `published_since`: a run that broke is begun anew only for those who still wait.
    pub fn want_fence(&self, nodes: impl Fn(NodeId) -> bool, at: Moment) {
        fence::want(&self.shared, nodes, at);
    }

    /// As `changed_since`, without asking for samples.
    pub async fn published_since(&self, seen: u64, until: Moment) {
        let mut changed = pin!(self.shared.changed.notified());
        changed.as_mut().enable();
        if self.publications() == seen {
            // The caller looks again, whatever ended the wait.
            drop(tokio::time::timeout_at(clock::instant(until).into(), changed).await);
        }
    }

    /// How many failovers there were that may have lost something.
    pub fn failovers(&self) -> u64 {
        self.shared.failovers.load(Ordering::Acquire)
    }

    /// What became of a write that was sent and acknowledged then, in the newest failover.
    pub fn fate(&self, sent: Moment, acknowledged: Moment) -> Fate {
        self.shared.picture().failover().map_or(Fate::Survived, |failover| failover.fate(sent, acknowledged))
    }

    /// What the primary's samples say about a token now. Takes the picture's lock for a moment.
    pub fn prove(&self, token: &Token) -> Proof {
        self.shared.picture().prove(token)
    }

    /// The timeline of the newest sample of the primary.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.shared.picture().present().map(|(token, _)| token.at.timeline)
    }

    /// A position of the primary that covers everything that anybody saw committed by `moment`; samples
    /// are asked for until one does. `None`: none did until `until`.
    pub async fn position_since(&self, moment: Moment, until: Moment) -> Option<Token> {
        let mut kicked = false;
        loop {
            let seen = self.publications();
            let present = self.shared.picture().present();
            if let Some((token, _)) = present.filter(|&(_, sent)| sent >= moment) {
                return Some(token);
            }
            if clock::now() >= until {
                return None;
            }
            if !std::mem::replace(&mut kicked, true) {
                self.kick();
            }
            self.changed_since(seen, until).await;
        }
    }

    /// The relay saw something on its own connections to `node`.
    pub fn report(&self, node: NodeId, evidence: Evidence) {
        let outcome = self.shared.picture().witnessed(node, evidence, clock::now());
        self.shared.perform(outcome);
        self.shared.wake(|other| other == node);
    }

    /// An operator lets no reads go to `node`, or lets them again. As long as this process lives.
    pub fn ban(&self, node: NodeId, banned: bool) {
        let outcome = self.shared.picture().ban(node, banned, clock::now());
        self.shared.perform(outcome);
    }

    /// Other nodes, or other ways to reach them. Nodes that stay keep their ids and what is known.
    pub fn reload(&self, settings: MonitorSettings) {
        let shared = &self.shared;
        shared.stop_sources();
        {
            let mut members = shared.members();
            members.list(&settings.nodes, settings.patroni.is_some());
            members.ask_for_standbys(settings.discover.is_some());
        }
        let trusted_for = settings.patroni.as_ref().map(PatroniSettings::trusted_for);
        shared.picture().hear_patroni(trusted_for);
        shared.settings.store(Arc::new(settings));
        for (_, probe) in shared.probes().drain() {
            probe.abort();
        }
        shared.draw_members();
        shared.spawn_probes();
        shared.spawn_sources();
    }

    /// The same configuration, of which files may have been written anew: certificates. Connections that are open
    /// stay.
    pub fn renew(&self, settings: MonitorSettings) {
        let shared = &self.shared;
        shared.stop_sources();
        shared.settings.store(Arc::new(settings));
        shared.spawn_sources();
    }

    /// Ends every task and its connection.
    pub async fn shutdown(&self) {
        self.shared.stop_sources();
        let ended: Vec<Probe> = self.shared.probes().drain().map(|(_, probe)| probe).collect();
        for probe in ended {
            probe.abort();
            for task in probe.tasks {
                // An aborted task ends with a JoinError, which is what was asked for.
                drop(task.await);
            }
        }
    }
}

/// Who is probed, and who finds out whom to probe.
impl Shared {
    /// Probes every node that is there, and nobody else. Who is probed already, where it is, goes on.
    fn spawn_probes(self: &Arc<Shared>) {
        let mut probes = self.probes();
        // Loaded under the lock: of two who call this, the later must not undo what the other did with a newer
        // picture.
        let view = self.view.load_full();
        let there = |id: NodeId| view.node(id).filter(|node| node.state != NodeState::Removed);
        probes.retain(|id, probe| {
            // What a node was reached at first is no move.
            let stays = there(*id).is_some_and(|node| node.place == probe.place);
            if !stays {
                probe.abort();
                self.lines().remove(id);
            }
            stays
        });
        for node in view.nodes.iter().filter(|node| node.state != NodeState::Removed) {
            probes.entry(node.id).or_insert_with(|| self.probe(node.id, node.place));
        }
    }

    fn probe(self: &Arc<Shared>, node: NodeId, place: u64) -> Probe {
        let (wake, fence) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        // Weak, so that a monitor that everybody dropped ends its tasks.
        let probing = probe::run(Arc::downgrade(self), node, place, Arc::clone(&wake));
        let fencing = fence::run(Arc::downgrade(self), node, Arc::clone(&fence));
        let tasks = [tokio::spawn(probing), tokio::spawn(fencing)];
        Probe { place, wake, fence, tasks }
    }

    /// Its connection is given up, and made anew.
    fn restart_probe(self: &Arc<Shared>, node: NodeId) {
        if let Some(probe) = self.probes().remove(&node) {
            probe.abort();
            self.lines().remove(&node);
        }
        self.spawn_probes();
    }

    /// The node was reached elsewhere by its own probe, which goes on.
    fn moved(&self, node: NodeId, place: u64) {
        if let Some(probe) = self.probes().get_mut(&node) {
            // Another one may have been started meanwhile, for where it is now.
            probe.place = probe.place.max(place);
        }
    }

    fn spawn_sources(self: &Arc<Shared>) {
        let settings = self.settings.load_full();
        let mut sources = vec![names::spawn(self)];
        sources.extend(settings.patroni.clone().map(|patroni| patroni::spawn(self, patroni)));
        sources.extend(settings.discover.clone().map(|standbys| discover::spawn(self, standbys)));
        for before in std::mem::replace(&mut *self.sources(), sources) {
            before.abort();
        }
    }

    fn stop_sources(&self) {
        for source in self.sources().drain(..) {
            source.abort();
        }
    }

    /// Draws the nodes that there are now. Nothing known is no reason to forget all.
    fn draw_members(&self) {
        // Held to the end: of two who find something, the later draws what both have found.
        let members = self.members();
        let nodes = members.nodes();
        if nodes.is_empty() {
            return;
        }
        if nodes.len() == NODES_MAX {
            tracing::warn!("there are {NODES_MAX} nodes: others, if there are any, are left out");
        }
        let policy = self.settings.load().policy;
        let view = self.picture().reload(&nodes, policy);
        log_room(&view, self.view.load().nodes.len(), &nodes);
        self.nodes.store(Arc::new(nodes));
        drop(members);
        self.publish(Some(view));
    }

    /// Nodes may have come, gone or moved.
    fn apply_members(self: &Arc<Shared>) {
        let nodes = self.members().nodes();
        let known = self.nodes.load();
        if nodes.is_empty() || nodes == **known {
            return;
        }
        log_changes(&known, &nodes);
        self.draw_members();
        self.spawn_probes();
    }

    /// Does the node of this name answer? Late counts, too.
    fn is_up(&self, name: &str) -> bool {
        let view = self.view.load();
        let answers = |state| matches!(state, NodeState::Up | NodeState::Suspect);
        view.nodes.iter().any(|node| *node.name == *name && answers(node.state))
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sources(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ids are used up by names, for as long as the process lives.
fn log_room(view: &ClusterView, before: usize, nodes: &[NodeSettings]) {
    let used = view.nodes.len();
    if used > before && used >= NODES_WARN {
        tracing::warn!(
            "{used} names have been nodes, of {NODES_MAX} in a process' life: restart before the last one"
        );
    }
    if view.left_out == 0 {
        return;
    }
    let is_in =
        |name: &str| view.nodes.iter().any(|node| *node.name == *name && node.state != NodeState::Removed);
    for node in nodes.iter().filter(|node| !is_in(&node.name)) {
        tracing::error!(node = %node.name,
            "it is left out: {NODES_MAX} other names have been nodes since the start; restart to take it in");
    }
}

fn log_changes(before: &[NodeSettings], now: &[NodeSettings]) {
    for node in now {
        match before.iter().find(|other| other.name == node.name) {
            None => {
                tracing::info!(node = %node.name, host = %node.host, port = node.port, "a node was found")
            }
            Some(other)
                if (&other.host, other.port, other.addresses) != (&node.host, node.port, node.addresses) =>
            {
                tracing::info!(node = %node.name, host = %node.host, port = node.port, "a node has moved");
            }
            Some(_) => {}
        }
    }
    for node in before.iter().filter(|node| !now.iter().any(|other| other.name == node.name)) {
        tracing::info!(node = %node.name, "a node is gone");
    }
}

impl Shared {
    // A panic under these locks is a defect already reported; what they hold stays consistent
    // enough to be measured anew.
    fn picture(&self) -> MutexGuard<'_, Picture> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For who has measured `node` at this place; `None`: it is elsewhere by now.
    fn picture_at(&self, node: NodeId, place: u64) -> Option<MutexGuard<'_, Picture>> {
        Some(self.picture()).filter(|picture| picture.is_at(node, place))
    }

    fn probes(&self) -> MutexGuard<'_, HashMap<NodeId, Probe>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<NodeId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, which: impl Fn(NodeId) -> bool) {
        for (_, probe) in self.probes().iter().filter(|(node, _)| which(**node)) {
            probe.wake.notify_one();
        }
    }

    fn somebody_waits(&self) -> bool {
        self.waiters.load(Ordering::Acquire) > 0
    }

    fn perform(&self, outcome: Outcome) {
        self.publish(outcome.view);
        if outcome.ask_replicas {
            let view = self.view.load();
            self.wake(|id| view.node(id).is_some_and(|node| node.role == Some(Role::Replica)));
        }
    }

    fn publish(&self, view: Option<ClusterView>) {
        if let Some(view) = view {
            let view = Arc::new(view);
            // It was drawn under the picture's lock and is published outside of it: who comes later with an
            // older one comes too late.
            let before = self.view.rcu(|published| match published.generation < view.generation {
                true => Arc::clone(&view),
                false => Arc::clone(published),
            });
            if view.primary.is_some() && before.primary != view.primary {
                self.new_primary.notify_one();
            }
        }
        self.publications.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop_sources();
        for (_, probe) in self.probes().drain() {
            probe.abort();
        }
    }
}
