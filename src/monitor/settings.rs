//! What the monitor is told.

use crate::cluster::health::HealthPolicy;
use crate::freshness::defect::Defect;
use crate::monitor::tls::MonitorTls;
use std::fmt;
use zeroize::Zeroizing;

/// One node of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSettings {
    /// Its name: what makes it the same node after a reload, together with host and port.
    pub name: String,
    /// Host name, address, or the folder of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Share of the reads.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<String>,
    /// Free words that rules may ask for.
    pub tags: Vec<String>,
}

/// Everything the monitor needs.
#[derive(Clone)]
pub struct MonitorSettings {
    /// The nodes. At most 64 can take part in balancing; ids are never given to another node.
    pub nodes: Vec<NodeSettings>,
    /// An ordinary role; with membership in `pg_monitor` a timeline change is proven faster.
    pub user: String,
    /// Its password.
    pub password: Option<Zeroizing<String>>,
    /// The database it connects to.
    pub database: String,
    /// Intervals and time-outs.
    pub policy: HealthPolicy,
    /// TLS to the nodes; `None`: plain.
    pub tls: Option<MonitorTls>,
    /// May a small transaction flush an asynchronous commit that somebody waits for?
    pub kick_flush: bool,
    /// For tests: what is missing.
    pub defect: Defect,
}

impl fmt::Debug for MonitorSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorSettings")
            .field("nodes", &self.nodes)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
