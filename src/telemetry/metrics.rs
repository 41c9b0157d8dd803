//! The registry: hands out handles that are held, never looked up on the hot path, and renders
//! them for Prometheus. Not global: what counts is given what it counts with.

use crate::cluster::view::{ClusterView, NodeState, NodeView};
use crate::moment::Moment;
use crate::node::Role;
use crate::telemetry::names::{self, Kind};
use crate::telemetry::statements::{StatementCounters, is_read};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The exporter keeps raw samples of histograms until its upkeep; without it memory grows.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Databases and users are named by clients and series are never forgotten: once there are so many
/// of a kind, further ones are counted together, under [`OTHER`].
pub const SERIES_MAX: usize = 10_000;
/// The label of what is counted together.
pub const OTHER: &str = "other";

const METADATA: Metadata<'static> = Metadata::new("pgweir", Level::INFO, Some(module_path!()));

/// All metrics of a process.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    // At most SERIES_MAX, and OTHER for each node and role.
    statements: Mutex<Vec<Arc<StatementCounters>>>,
    // At most SERIES_MAX: database, user, node.
    pools: Mutex<HashSet<[Arc<str>; 3]>>,
    latency: [Histogram; 2],
    /// Client connections.
    pub clients: Gauge,
    /// Those that sleep.
    pub asleep: Gauge,
    /// Logins.
    pub logins: Logins,
    /// The classifier's cache.
    pub cache: CacheCounters,
    /// What the monitor asked.
    pub monitor: MonitorCounters,
}

/// Logins by result.
pub struct Logins {
    /// Came in.
    pub accepted: Counter,
    /// Wrong password, unknown user, no certificate.
    pub refused: Counter,
    /// Spoke something else, or too slowly.
    pub broken: Counter,
    /// Too many clients.
    pub full: Counter,
}

/// How the classes of statements were found.
pub struct CacheCounters {
    /// By exact text, in the thread's own table.
    pub exact: Counter,
    /// By shape, in the shared cache.
    pub shape: Counter,
    /// Not found: parsed.
    pub misses: Counter,
}

/// What the monitor asked the nodes.
pub struct MonitorCounters {
    /// For their positions.
    pub samples: Counter,
    /// For what they show, when somebody goes from a replica to the primary.
    pub fences: Counter,
    /// To flush what somebody waited for.
    pub kicks: Counter,
}

/// One pool's gauges.
pub struct PoolGauges {
    /// Server connections in use.
    pub active: Gauge,
    /// Server connections idle.
    pub idle: Gauge,
    /// Clients waiting.
    pub waiting: Gauge,
    /// The prepared statements of its connections.
    pub prepared: PreparedMetrics,
}

/// One pool's prepared statements.
pub struct PreparedMetrics {
    /// Prepared now.
    pub open: Gauge,
    /// Prepared because their client asked for it.
    pub asked: Counter,
    /// Prepared because their client has met another connection.
    pub moved: Counter,
    /// Found prepared.
    pub hits: Counter,
    /// Closed to make room.
    pub evicted: Counter,
}

/// What one node was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Statements that only read.
    pub reads: u64,
    /// All others.
    pub writes: u64,
}

impl Metrics {
    /// A registry of its own.
    pub fn new() -> Result<Metrics, BuildError> {
        let seconds = Matcher::Full(names::STATEMENT_SECONDS.to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(seconds, &names::SECONDS_BUCKETS)?
            .build_recorder();
        for (name, kind, help) in names::ALL {
            match kind {
                Kind::Counter => recorder.describe_counter(name.into(), None, help.into()),
                Kind::Gauge => recorder.describe_gauge(name.into(), None, help.into()),
                Kind::Histogram => recorder.describe_histogram(name.into(), None, help.into()),
            }
        }
        let handle = recorder.handle();
        let metrics = Metrics {
            latency: [Role::Primary, Role::Replica].map(|role| {
                recorder.register_histogram(
                    &key(names::STATEMENT_SECONDS, &[("role", role.as_str().into())]),
                    &METADATA,
                )
            }),
            clients: recorder.register_gauge(&key(names::CLIENTS, &[]), &METADATA),
            asleep: recorder.register_gauge(&key(names::CLIENTS_ASLEEP, &[]), &METADATA),
            logins: logins(&recorder),
            cache: cache(&recorder),
            monitor: monitor(&recorder),
            statements: Mutex::default(),
            pools: Mutex::default(),
            recorder,
            handle,
        };
        metrics.gauge(names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION").into())]).set(1.0);
        Ok(metrics)
    }

    /// The counters of `database` on `node` in `role`: the same ones for the same arguments.
    pub fn statements(&self, database: &str, node: &str, role: Role) -> Arc<StatementCounters> {
        let mut all = self.all_statements();
        if let Some(counters) = all.iter().find(|counters| counters.is(database, node, role)) {
            return counters.clone();
        }
        if all.len() >= SERIES_MAX && database != OTHER {
            drop(all);
            return self.statements(OTHER, node, role);
        }
        let counters = Arc::new(StatementCounters::new(database.into(), node.into(), role));
        all.push(counters.clone());
        counters
    }

    /// Where the latency of statements on nodes in `role` is recorded, in seconds.
    pub fn latency(&self, role: Role) -> &Histogram {
        &self.latency[role as usize]
    }

    /// The gauges of one pool.
    pub fn pool(&self, database: &str, user: &str, node: &str) -> PoolGauges {
        let wanted = [database, user, node].map(Arc::from);
        let [database, user, node] = self.known_pool(wanted);
        let labels = [("database", database), ("user", user), ("node", node)];
        PoolGauges {
            active: self.gauge(names::POOL_ACTIVE, &labels),
            idle: self.gauge(names::POOL_IDLE, &labels),
            waiting: self.gauge(names::POOL_WAITING, &labels),
            prepared: self.prepared(labels),
        }
    }

    fn prepared(&self, labels: [(&'static str, Arc<str>); 3]) -> PreparedMetrics {
        let by_cause = |cause: &'static str| {
            let [database, user, node] = labels.clone();
            self.counter(names::PREPARES, &[database, user, node, ("cause", cause.into())])
        };
        PreparedMetrics {
            open: self.gauge(names::PREPARED, &labels),
            asked: by_cause("asked"),
            moved: by_cause("moved"),
            hits: self.counter(names::PREPARED_HITS, &labels),
            evicted: self.counter(names::PREPARED_EVICTIONS, &labels),
        }
    }

    fn known_pool(&self, pool: [Arc<str>; 3]) -> [Arc<str>; 3] {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.contains(&pool) || pools.len() < SERIES_MAX {
            pools.insert(pool.clone());
            return pool;
        }
        let [_, _, node] = pool;
        [OTHER.into(), OTHER.into(), node]
    }

    /// A session was pinned for `reason` (a word of a closed list). Rare: looked up each time.
    pub fn pinned(&self, reason: &'static str) {
        self.counter(names::PINS, &[("reason", reason.into())]).increment(1);
    }

    /// A statement was sent again because of `cause` (a word of a closed list). Rare.
    pub fn replayed(&self, cause: &'static str) {
        self.counter(names::REPLAYS, &[("cause", cause.into())]).increment(1);
    }

    /// It is known, or not, what became of a transaction whose server was lost. Rare.
    pub fn settled(&self, verdict: &'static str) {
        self.counter(names::SETTLED, &[("verdict", verdict.into())]).increment(1);
    }

    /// What `node` was sent so far.
    pub fn traffic(&self, node: &str) -> Traffic {
        let mut traffic = Traffic::default();
        for counters in self.all_statements().iter().filter(|counters| counters.node() == node) {
            for reason in crate::routing::reason::Reason::ALL {
                let slot = if is_read(reason) { &mut traffic.reads } else { &mut traffic.writes };
                *slot += counters.of(reason);
            }
        }
        traffic
    }

    /// All counters of statements, for summaries by node and reason.
    pub fn statement_counters(&self) -> Vec<Arc<StatementCounters>> {
        self.all_statements().clone()
    }

    /// Sets the gauges of the nodes. Called about once a second, and before rendering.
    pub fn publish_view(&self, view: &ClusterView, now: Moment) {
        for node in &view.nodes {
            self.publish_node(node, now);
            let quarantined = f64::from(u8::from(view.quarantined(node).is_some()));
            self.gauge(names::NODE_QUARANTINED, &[("node", node.name.clone())]).set(quarantined);
        }
        self.gauge(names::PRIMARY_KNOWN, &[]).set(f64::from(u8::from(view.primary.is_some())));
        self.gauge(names::NODES_LEFT_OUT, &[]).set(view.left_out as f64);
    }

    /// Sets the gauge of Patroni, where it is asked: does what it says count?
    pub fn publish_patroni(&self, counts: Option<bool>) {
        if let Some(counts) = counts {
            self.gauge(names::PATRONI_UP, &[]).set(f64::from(u8::from(counts)));
        }
    }

    /// Sets the gauge of standbys that stream, where they are asked for.
    pub fn publish_standbys(&self, found: Option<usize>) {
        if let Some(found) = found {
            self.gauge(names::STANDBYS_FOUND, &[]).set(found as f64);
        }
    }

    /// Sets the gauges of causal keys. `store`: does it answer, and how often did it not?
    pub fn publish_causal(&self, keys: usize, store: Option<(bool, u64)>) {
        self.gauge(names::CAUSAL_KEYS, &[]).set(keys as f64);
        if let Some((is_up, failures)) = store {
            self.gauge(names::CAUSAL_STORE_UP, &[]).set(f64::from(u8::from(is_up)));
            self.counter(names::CAUSAL_STORE_FAILURES, &[]).absolute(failures);
        }
    }

    fn publish_node(&self, node: &NodeView, now: Moment) {
        let name: (&'static str, Arc<str>) = ("node", node.name.clone());
        let is = |yes: bool| f64::from(u8::from(yes));
        for state in
            [NodeState::Unknown, NodeState::Up, NodeState::Suspect, NodeState::Down, NodeState::Removed]
        {
            let labels = [name.clone(), ("state", state.as_str().into())];
            self.gauge(names::NODE_STATE, &labels).set(is(node.state == state));
        }
        for role in [Role::Primary, Role::Replica] {
            let labels = [name.clone(), ("role", role.as_str().into())];
            self.gauge(names::NODE_ROLE, &labels).set(is(node.role == Some(role)));
        }
        let labels = [name];
        // Unknown is stale: no number that looks like health.
        let lag = node.lag_bytes.map_or(f64::NAN, |bytes| bytes as f64);
        let staleness = staleness(node, now).map_or(f64::INFINITY, |staleness| staleness.as_secs_f64());
        let timeline = node.timeline.map_or(0.0, |timeline| f64::from(timeline.0));
        self.gauge(names::LAG_BYTES, &labels).set(lag);
        self.gauge(names::STALENESS_SECONDS, &labels).set(staleness);
        self.gauge(names::NODE_TIMELINE, &labels).set(timeline);
        self.gauge(names::NODE_IN_FLIGHT, &labels).set(f64::from(node.live.in_flight()));
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        for counters in self.all_statements().iter() {
            counters.export(|labels| self.counter(names::STATEMENTS, labels));
        }
        self.handle.render()
    }

    /// To be called every [`UPKEEP_EVERY`].
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, Arc<str>)]) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, Arc<str>)]) -> Gauge {
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    fn all_statements(&self) -> MutexGuard<'_, Vec<Arc<StatementCounters>>> {
        // Only pushed to: whoever panicked meanwhile left it whole.
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// An upper bound of how stale `node` is; `None`: unknown. The primary is never stale.
pub fn staleness(node: &NodeView, now: Moment) -> Option<Duration> {
    match node.role {
        Some(Role::Primary) => Some(Duration::ZERO),
        Some(Role::Replica) => {
            let watermark = node.live.freshness().watermark_insert;
            (watermark != Moment::NEVER).then(|| now.since(watermark))
        }
        None => None,
    }
}

fn key(name: &'static str, labels: &[(&'static str, Arc<str>)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
    Key::from_parts(name, labels)
}

fn logins(recorder: &PrometheusRecorder) -> Logins {
    let by = |result: &str| {
        recorder.register_counter(&key(names::LOGINS, &[("result", result.into())]), &METADATA)
    };
    Logins { accepted: by("accepted"), refused: by("refused"), broken: by("broken"), full: by("full") }
}

fn monitor(recorder: &PrometheusRecorder) -> MonitorCounters {
    let by = |kind: &str| {
        recorder.register_counter(&key(names::MONITOR_QUERIES, &[("kind", kind.into())]), &METADATA)
    };
    MonitorCounters { samples: by("sample"), fences: by("fence"), kicks: by("flush") }
}

fn cache(recorder: &PrometheusRecorder) -> CacheCounters {
    let by =
        |tier: &str| recorder.register_counter(&key(names::CACHE_HITS, &[("tier", tier.into())]), &METADATA);
    CacheCounters {
        exact: by("exact"),
        shape: by("shape"),
        misses: recorder.register_counter(&key(names::CACHE_MISSES, &[]), &METADATA),
    }
}

#[cfg(test)]
mod tests;
