//! Everything together: servers, monitor, clients, and time.

use crate::chance::Set;
use crate::client::{Client, Conn};
use crate::monitor::{Link, Told, us};
use crate::plan::{Plan, Setting, Step, What};
use crate::servers::Servers;
use pgweir::cluster::health::HealthPolicy;
use pgweir::cluster::view::ClusterView;
use pgweir::lsn::Lsn;
use pgweir::moment::Moment;
use pgweir::monitor::NodeSettings;
use pgweir::monitor::picture::Picture;
use pgweir::node::{NodeId, Role};
use pgweir::routing::request::{RoutingPolicy, Target};
use std::time::Duration;

/// What is wrong, in a sentence.
pub type Check = Result<(), String>;

/// That the seeds do something worth checking.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stats {
    pub samples: u64,
    pub sent: u64,
    pub on_replicas: u64,
    pub promotions: u64,
    pub crashes: u64,
    pub unaware: u64,
}

impl Stats {
    pub fn add(&mut self, other: Stats) {
        self.samples += other.samples;
        self.sent += other.sent;
        self.on_replicas += other.on_replicas;
        self.promotions += other.promotions;
        self.crashes += other.crashes;
        self.unaware += other.unaware;
    }
}

pub struct World {
    pub now: Moment,
    pub setting: Setting,
    pub servers: Servers,
    pub health: HealthPolicy,
    pub policy: RoutingPolicy,
    pub picture: Picture,
    /// What `decide` sees: the picture as it was last published.
    pub published: ClusterView,
    pub links: Vec<Option<Link>>,
    pub told: Vec<Told>,
    pub newest_told: u32,
    /// `Defect::KeptPosition`: the best of each replica, whatever became of it.
    pub kept: Vec<Lsn>,
    pub pools: Vec<Vec<Conn>>,
    pub clients: Vec<Client>,
    /// Every commit that somebody was told of.
    pub acked: Set,
    pub stats: Stats,
    pub story: Option<Vec<String>>,
}

impl World {
    fn new(setting: &Setting, with_story: bool) -> World {
        let node = |index: usize| NodeSettings {
            name: format!("pg{index}"),
            host: "sim".to_owned(),
            port: index as u16,
            weight: 1,
            zone: None,
            tags: Vec::new(),
            ..NodeSettings::default()
        };
        let nodes: Vec<NodeSettings> = (0..setting.nodes).map(node).collect();
        let health = HealthPolicy::default();
        let picture = Picture::new(&nodes, health);
        World {
            now: Moment(1_000_000_000),
            servers: Servers::new(setting.nodes),
            health,
            policy: RoutingPolicy {
                max_staleness: setting.max_staleness,
                sample_max_age: health.sample_max_age(),
                wait: setting.wait,
                lag_wait_limit: Duration::from_millis(30),
                on_lag: setting.on_lag,
                pin_after_write: setting.pin_after_write,
                balance: setting.balance,
                ..RoutingPolicy::default()
            },
            published: picture.view().clone(),
            picture,
            links: vec![None; setting.nodes],
            told: vec![Told::default(); setting.nodes],
            newest_told: 0,
            kept: vec![Lsn(0); setting.nodes],
            pools: vec![Vec::new(); setting.nodes],
            clients: setting.levels.iter().map(|&level| Client::new(level)).collect(),
            acked: Set::default(),
            setting: setting.clone(),
            stats: Stats::default(),
            story: with_story.then(Vec::new),
        }
    }

    pub fn tick(&mut self, nanos: u64) {
        self.now = Moment(self.now.0 + nanos);
    }

    fn step(&mut self, step: Step) -> Check {
        self.tick(step.after);
        let count = self.servers.nodes.len();
        let (node, choice) = (step.choice as usize % count, step.choice >> 8);
        match step.what {
            What::Client => {
                let client = step.choice as usize % self.clients.len();
                self.several(choice, |world, choice| world.client(client, choice))
            }
            What::Probe => self.several(choice, |world, choice| world.probe(node, choice)),
            What::Wait => {
                self.tick([2, 30, 250, 1100][choice as usize % 4] * 1_000_000);
                Ok(())
            }
            What::Burst => self.burst(),
            _ => {
                self.server_step(step.what, node, choice);
                match step.what {
                    What::CutLink => self.break_link(node),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Up to six steps in one breath: most of what happens is not interrupted.
    fn several(&mut self, choice: u64, mut act: impl FnMut(&mut World, u64) -> Check) -> Check {
        for turn in 0..=choice % 6 {
            act(self, choice.rotate_right(7 * turn as u32 + 3))?;
            self.tick(1000);
        }
        Ok(())
    }

    fn server_step(&mut self, what: What, node: usize, choice: u64) {
        let (now, amount) = (self.now, [1, 1, 3, 50][choice as usize % 4]);
        let server = &self.servers.nodes[node];
        let (up, role) = (server.up, server.role);
        match what {
            What::Receive if role == Role::Replica => {
                if self.servers.receive(node, amount) > 0 && choice.is_multiple_of(8) {
                    self.servers.replay(node, amount);
                }
            }
            What::Replay => {
                if self.servers.replay(node, amount) > 0 {
                    let position = self.servers.replay_position(node);
                    tell!(self, "pg{node} has replayed up to {position}");
                }
            }
            What::Flush if up && role == Role::Primary => self.servers.flush(node, now),
            What::Neighbour if up && role == Role::Primary => {
                if let Some(commit) = self.servers.insert(node, choice >> 8, true, now) {
                    if choice.is_multiple_of(2) {
                        self.servers.flush(node, now);
                    }
                    self.servers.make_visible(node, commit);
                    self.acked.insert(commit);
                    tell!(self, "pg{node}: a neighbour commits #{commit}");
                }
            }
            What::Pause if up && role == Role::Replica => {
                let paused = !self.servers.nodes[node].paused;
                self.servers.nodes[node].paused = paused;
                tell!(self, "pg{node}: replay {}", if paused { "stops" } else { "goes on" });
            }
            What::Restartpoint if up && role == Role::Replica => self.servers.restartpoint(node),
            What::Crash if up => {
                self.servers.crash(node, choice);
                self.stats.crashes += 1;
                tell!(
                    self,
                    "pg{node} crashes{}",
                    if choice.is_multiple_of(2) { " and restarts" } else { "" }
                );
                self.servers.nodes[node].up = choice.is_multiple_of(2);
            }
            What::Start if !up => {
                self.servers.nodes[node].up = true;
                tell!(self, "pg{node} starts");
            }
            What::Follow if role == Role::Replica => self.servers.follow(node),
            What::Promote => {
                let own = self.setting.twins && choice.is_multiple_of(2);
                if self.servers.promote(node, own, now) {
                    self.stats.promotions += 1;
                    tell!(self, "pg{node} is promoted to timeline {}", self.servers.timeline(node));
                }
            }
            What::Rejoin if self.servers.is_astray(node) => {
                if self.servers.rejoin(node) {
                    tell!(self, "pg{node} is rebuilt as a standby");
                }
            }
            _ => {}
        }
    }

    /// More samples than the ring has room for, each of another position.
    fn burst(&mut self) -> Check {
        let Some(leader) = self.servers.leader() else { return Ok(()) };
        for turn in 0..1100 {
            self.servers.insert(leader, turn, false, self.now);
            self.servers.flush(leader, self.now);
            for _ in 0..4 {
                self.probe(leader, 1 << 3 | 1)?;
                self.tick(100_000);
            }
        }
        Ok(())
    }

    /// Everything heals and stands still; then everybody must be served again, by replicas.
    fn calm(&mut self) -> Check {
        if self.servers.twins {
            return Ok(());
        }
        tell!(self, "everything heals, and nobody writes any more");
        self.give_up();
        let leader = self.servers.newest_branch().of;
        self.servers.nodes[leader].up = true;
        let count = self.servers.nodes.len();
        for node in (0..count).filter(|&node| node != leader) {
            self.servers.nodes[node].up = true;
            self.servers.nodes[node].paused = false;
            self.servers.follow(node);
            if self.servers.is_astray(node) {
                self.servers.rejoin(node);
            }
        }
        self.servers.flush(leader, self.now);
        for node in 0..count {
            self.servers.receive(node, usize::MAX);
            self.servers.replay(node, usize::MAX / 2);
        }
        let calm = self.now;
        self.tick(2_000_000_000);
        for _ in 0..3 {
            self.sample_now(leader)?;
            for node in (0..count).filter(|&node| node != leader) {
                self.sample_now(node)?;
            }
            self.tick(60_000_000);
        }
        self.check_calm(leader, calm)
    }

    fn check_calm(&mut self, leader: usize, calm: Moment) -> Check {
        if self.published.primary != Some(NodeId(leader as u16)) {
            return Err(format!("pg{leader} is the only primary, and not seen as such"));
        }
        for (index, node) in self.published.nodes.iter().enumerate().filter(|(index, _)| *index != leader) {
            let fresh = node.live.freshness();
            if !node.serves_reads || fresh.watermark_insert < calm {
                return Err(format!(
                    "pg{index} has replayed everything, and is not seen to have (serves reads: {}, its watermark is \
                     {}, all has been quiet since {})",
                    node.serves_reads,
                    us(fresh.watermark_insert),
                    us(calm)
                ));
            }
        }
        // The first of the samples above must still be young enough for the bound of staleness.
        if self.setting.max_staleness < Duration::from_millis(300) {
            return Ok(());
        }
        for client in 0..self.clients.len() {
            let decision = self.would_go(client)?;
            if !matches!(decision.target, Target::Replica { .. }) {
                return Err(format!("a read of c{client} would still not go to a replica: {decision:?}"));
            }
        }
        Ok(())
    }
}

/// Runs a plan to its end or to what is wrong.
pub fn run(plan: &Plan, with_story: bool) -> (Check, Stats, Vec<String>) {
    let mut world = World::new(&plan.setting, with_story);
    let steps = plan.steps.iter().try_for_each(|&step| world.step(step));
    let outcome = steps.and_then(|()| world.calm());
    (outcome, world.stats, world.story.unwrap_or_default())
}
