//! `cluster:` as settings.

use crate::config::secret::Secret;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The cluster.
#[derive(Clone, PartialEq, Debug)]
pub struct ClusterSettings {
    /// At most [`NODES_MAX`], with distinct names; none only where Patroni names them.
    pub nodes: Vec<NodeSettings>,
    /// Between two looks at what the nodes' host names stand for.
    pub resolve_interval: Duration,
    /// Who else knows the nodes, and who leads them.
    pub patroni: Option<PatroniSettings>,
    /// Are standbys that stream from the nodes nodes, too?
    pub discover: Option<DiscoverSettings>,
    /// How they are watched.
    pub monitor: MonitorSettings,
}

/// More nodes than this do not fit into a request's set of excluded nodes.
pub const NODES_MAX: usize = 64;

/// One PostgreSQL instance. Its role is measured, never configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSettings {
    /// Metric label, tables, logs.
    pub name: String,
    /// Host name, address, or the folder of a Unix socket.
    pub host: String,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// What a host name with several addresses stands for.
    pub resolve: Resolve,
    /// Share of the reads relative to its peers, 1 to 1000.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<String>,
    /// Free words that rules may ask for.
    pub tags: Vec<String>,
}

/// What a host name with several addresses stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resolve {
    /// One node: the first address that answers, as long as the name has it.
    #[default]
    One,
    /// A node per address.
    All,
}

/// Patroni's REST API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatroniSettings {
    /// Between 1 and [`NODES_MAX`]; the first that answers is asked.
    pub endpoints: Vec<Endpoint>,
    /// Who asks, where the API wants to know.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Who signs the API's certificates (PEM); `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// How far they are checked.
    pub verify: Verify,
    /// Our own certificate (PEM); with `key`.
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// Between two questions.
    pub interval: Duration,
    /// How long one endpoint may take.
    pub timeout: Duration,
}

/// How far an API's certificate is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verify {
    /// It is signed by `ca` and made out to the endpoint's host.
    #[default]
    Full,
    /// It is signed by `ca`.
    Ca,
    /// Not at all.
    None,
}

/// Where an API is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// `https`?
    pub encrypted: bool,
    /// IP address (without brackets) or name.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// Standbys that nobody listed: the nodes that they stream from name them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiscoverSettings {
    /// Between two questions.
    pub interval: Duration,
    /// Where a standby listens, unless `hosts` knows better.
    pub port: u16,
    /// What a standby is reached as, by its application_name or its address (as [`std::net::IpAddr`] shows it).
    pub hosts: BTreeMap<String, Place>,
    /// Are those left out that are not among `hosts`?
    pub only_mapped: bool,
}

/// Where a standby is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Host name, address (without brackets), or the folder of a Unix socket.
    pub host: String,
    /// Port; `None`: as everybody's.
    pub port: Option<u16>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(&self.host),
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

/// How the nodes are watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonitorSettings {
    /// The role that takes samples; `pg_monitor` membership is enough.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The database it connects to.
    pub database: String,
    /// Between two samples of one node when nobody waits for one.
    pub interval: Duration,
    /// No write goes to a primary that has not answered for so long; it is down then. Ten intervals, at least a
    /// second, unless it is set.
    pub fence_after: Duration,
}

impl Default for PatroniSettings {
    fn default() -> PatroniSettings {
        PatroniSettings {
            endpoints: Vec::new(),
            user: None,
            password: None,
            ca: None,
            verify: Verify::Full,
            cert: None,
            key: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        }
    }
}

impl Default for DiscoverSettings {
    fn default() -> DiscoverSettings {
        DiscoverSettings {
            interval: Duration::from_secs(10),
            port: 5432,
            hosts: BTreeMap::new(),
            only_mapped: false,
        }
    }
}

impl Default for MonitorSettings {
    fn default() -> MonitorSettings {
        MonitorSettings {
            user: "pgweir".to_owned(),
            password: None,
            database: "postgres".to_owned(),
            interval: Duration::from_millis(100),
            fence_after: Duration::from_secs(1),
        }
    }
}
