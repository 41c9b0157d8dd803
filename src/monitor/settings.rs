//! What the monitor is told.

use crate::cluster::health::HealthPolicy;
use crate::config::settings::{DiscoverSettings, Endpoint};
use crate::freshness::defect::Defect;
use crate::monitor::tls::MonitorTls;
use base64::Engine;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::ClientConfig;
use zeroize::Zeroizing;

/// One node of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSettings {
    /// Its name: what makes it the same node after a reload, together with host and port unless it was found.
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
    /// What its host's name stands for.
    pub addresses: Addresses,
    /// Was it found (by Patroni, as one of a name's addresses, as a standby that streams)? Then it may move and
    /// stay the same node.
    pub found: bool,
    /// Is it not to be read from (Patroni's `noloadbalance`)?
    pub without_reads: bool,
}

/// What a host's name stands for, where it is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Addresses {
    /// Any of its addresses: the first that answers.
    #[default]
    Any,
    /// A node per address.
    Each,
    /// This one.
    Fixed(IpAddr),
}

/// Patroni's REST API.
#[derive(Clone)]
pub struct PatroniSettings {
    /// Where it is; the first that answers is asked.
    pub endpoints: Vec<Endpoint>,
    /// The header's value for basic authentication.
    pub authorization: Option<Zeroizing<String>>,
    /// TLS, where an endpoint has it.
    pub tls: Option<Arc<ClientConfig>>,
    /// Between two questions.
    pub interval: Duration,
    /// For one endpoint.
    pub timeout: Duration,
}

impl PatroniSettings {
    /// How long an answer counts. Afterwards the nodes alone decide.
    pub fn trusted_for(&self) -> Duration {
        (self.interval + self.timeout) * 3
    }
}

/// `Basic …`, as RFC 7617 has it.
pub fn basic_authorization(user: &str, password: &str) -> Zeroizing<String> {
    let plain = Zeroizing::new(format!("{user}:{password}"));
    let mut value = Zeroizing::new("Basic ".to_owned());
    base64::engine::general_purpose::STANDARD.encode_string(plain.as_bytes(), &mut value);
    value
}

/// Everything the monitor needs.
#[derive(Clone)]
pub struct MonitorSettings {
    /// The nodes. At most 64 can take part in balancing; ids are never given to another node.
    pub nodes: Vec<NodeSettings>,
    /// Between two looks at what host names stand for.
    pub resolve_interval: Duration,
    /// Who else knows the nodes.
    pub patroni: Option<PatroniSettings>,
    /// Are standbys that stream from the nodes nodes, too?
    pub discover: Option<DiscoverSettings>,
    /// An ordinary role; with membership in `pg_monitor` a timeline change is proven faster, and
    /// standbys are found.
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
