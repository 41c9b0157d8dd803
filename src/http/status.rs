//! What is told about a running pgweir: the table of nodes, pools and counts.

use crate::cluster::evidence::Line;
use crate::cluster::view::{ClusterView, NodeState, NodeView};
use crate::moment::Moment;
use crate::telemetry::metrics::{Metrics, Traffic, staleness};
use serde::{Deserialize, Serialize};

/// Whom the HTTP server asks. Must not block: it is called on the runtime's threads.
pub trait StatusSource: Send + Sync + 'static {
    /// For /status.json and `pgweir status`.
    fn status(&self) -> Status;

    /// For /readyz.
    fn readiness(&self) -> Readiness;

    /// For /metrics.
    fn metrics(&self) -> String;
}

/// May traffic be sent here?
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Readiness {
    /// A primary, or at least one replica, serves, and pgweir is not draining.
    pub ready: bool,
    /// Why (not).
    pub reason: String,
    /// Which process says so: a successor may listen at the same address.
    pub pid: u32,
}

impl Readiness {
    /// As `view` has it.
    pub fn of(view: &ClusterView, draining: bool) -> Readiness {
        let replicas = view.replicas().count();
        let (ready, reason) = match (draining, view.primary, replicas) {
            (true, ..) => (false, "draining".to_owned()),
            (_, None, 0) => (false, "no primary and no replica serves".to_owned()),
            (_, None, replicas) => (true, format!("reads only: no primary, {replicas} replicas")),
            (_, Some(_), replicas) => (true, format!("primary and {replicas} replicas")),
        };
        Readiness { ready, reason, pid: std::process::id() }
    }
}

/// The whole picture. Unknown fields are ignored, missing ones are empty: versions may differ.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// pgweir's version.
    pub version: String,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// PostgreSQL's system identifier, as text (it does not fit into JavaScript's numbers).
    pub system_identifier: Option<String>,
    /// The newest timeline seen.
    pub timeline: Option<u32>,
    /// The proven primary's name.
    pub primary: Option<String>,
    /// Two nodes that both claim to be primary.
    pub conflict: Option<(String, String)>,
    /// Client connections.
    pub clients: u64,
    /// Who would be the primary, had Patroni nothing against it, and what that is.
    pub disowned: Option<(String, String)>,
    /// The nodes, in the configuration's order.
    pub nodes: Vec<NodeRow>,
    /// Who says what about them; the verdict comes last.
    pub evidence: Vec<EvidenceRow>,
    /// The pools.
    pub pools: Vec<PoolRow>,
    /// Statements by node, role and reason.
    pub statements: Vec<StatementRow>,
}

/// One node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRow {
    /// Its name.
    pub member: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `primary` or `replica`, as measured.
    pub role: Option<String>,
    /// `unknown`, `up`, `suspect`, `down`.
    pub state: String,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// Its replay (replica) or insert (primary) position.
    pub lsn: Option<String>,
    /// WAL bytes behind the primary.
    pub lag_bytes: Option<u64>,
    /// Upper bound of its staleness; `None`: unknown.
    pub staleness_seconds: Option<f64>,
    /// Does it serve reads?
    pub serves_reads: bool,
    /// How a replica replays: `streaming`, `paused`, `delayed 1h`, `cascading from pg2`, or several of them.
    pub replay: Option<String>,
    /// Is replay paused?
    pub replay_paused: bool,
    /// Statements sent there that only read.
    pub reads: u64,
    /// All others.
    pub writes: u64,
    /// Requests in flight.
    pub in_flight: u32,
    /// Moving average of a read's latency.
    pub latency_micros: u32,
    /// Share of the reads.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The last error.
    pub last_error: Option<String>,
}

/// What somebody says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvidenceRow {
    /// About whom; `None`: all.
    pub member: Option<String>,
    /// `sql`, `connections`, `patroni`, `replication`, `verdict`.
    pub source: String,
    /// What.
    pub says: String,
    /// How old it is.
    pub age_seconds: Option<f64>,
}

impl From<Line> for EvidenceRow {
    fn from(line: Line) -> EvidenceRow {
        EvidenceRow {
            member: line.member.map(|member| member.to_string()),
            source: line.source.as_str().to_owned(),
            says: line.says,
            age_seconds: line.age.map(|age| age.as_secs_f64()),
        }
    }
}

/// One pool.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolRow {
    /// Database.
    pub database: String,
    /// User.
    pub user: String,
    /// Node.
    pub node: String,
    /// `transaction` or `session`.
    pub mode: String,
    /// Server connections in use.
    pub active: u32,
    /// Server connections idle.
    pub idle: u32,
    /// Clients waiting.
    pub waiting: u32,
    /// Server connections at most.
    pub size: u32,
}

/// Statements that went to one node in one role for one reason.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatementRow {
    /// Database.
    pub database: String,
    /// Node.
    pub node: String,
    /// Its role at the time.
    pub role: String,
    /// Why there.
    pub reason: String,
    /// How many.
    pub count: u64,
}

impl Status {
    /// What `view` and `metrics` say; `clients`, `pools`, `evidence` and `uptime_seconds` are the caller's.
    pub fn of(view: &ClusterView, metrics: &Metrics, now: Moment) -> Status {
        let name = |id| view.node(id).map(|node| node.name.to_string());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            system_identifier: view.system_identifier.map(|id| id.to_string()),
            timeline: view.timeline.map(|timeline| timeline.0),
            primary: view.primary.and_then(name),
            conflict: view.conflict.and_then(|(one, other)| name(one).zip(name(other))),
            disowned: view
                .disowned
                .and_then(|(node, objection)| name(node).zip(Some(objection.as_str().to_owned()))),
            nodes: view
                .nodes
                .iter()
                .filter(|node| node.state != NodeState::Removed)
                .map(|node| NodeRow::of(view, node, metrics.traffic(&node.name), now))
                .collect(),
            statements: statements(metrics),
            ..Status::default()
        }
    }
}

impl NodeRow {
    /// What is known of `node`, in its view.
    pub fn of(view: &ClusterView, node: &NodeView, traffic: Traffic, now: Moment) -> NodeRow {
        NodeRow {
            member: node.name.to_string(),
            host: node.host.to_string(),
            port: node.port,
            role: node.role.map(|role| role.as_str().to_owned()),
            state: node.state.as_str().to_owned(),
            timeline: node.timeline.map(|timeline| timeline.0),
            lsn: node.position.map(|lsn| lsn.to_string()),
            lag_bytes: node.lag_bytes,
            staleness_seconds: staleness(node, now).map(|staleness| staleness.as_secs_f64()),
            serves_reads: node.serves_reads,
            replay: view.replay_of(node),
            replay_paused: node.replay_paused,
            reads: traffic.reads,
            writes: traffic.writes,
            in_flight: node.live.in_flight(),
            latency_micros: node.live.latency_micros(),
            weight: node.weight,
            zone: node.zone.as_ref().map(ToString::to_string),
            tags: node.tags.iter().map(ToString::to_string).collect(),
            last_error: node.last_error.as_ref().map(ToString::to_string),
        }
    }
}

fn statements(metrics: &Metrics) -> Vec<StatementRow> {
    let mut rows = Vec::new();
    for counters in metrics.statement_counters() {
        for reason in crate::routing::reason::Reason::ALL {
            let count = counters.of(reason);
            if count > 0 {
                rows.push(StatementRow {
                    database: counters.database().to_owned(),
                    node: counters.node().to_owned(),
                    role: counters.role().as_str().to_owned(),
                    reason: reason.as_str().to_owned(),
                    count,
                });
            }
        }
    }
    rows
}
