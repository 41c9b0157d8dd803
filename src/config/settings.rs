//! What a configuration file means once it is checked and complete: no option is missing, every
//! number is within its range, every reference points at something.

mod cluster;

pub use cluster::{
    ClusterSettings, DiscoverSettings, Endpoint, MonitorSettings, NODES_MAX, NodeSettings, PatroniSettings,
    Place, Resolve, Verify,
};

use crate::config::secret::Secret;
use crate::routing::request::{Consistency, RoutingPolicy};
use crate::routing::rules::Rules;
use crate::sql::subjects::Subjects;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything pgweir was told.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Where clients connect. At least one.
    pub listen: Vec<Listen>,
    /// May another process listen at the same TCP addresses (SO_REUSEPORT)? It takes over from this one.
    pub reuse_port: bool,
    /// Where /metrics, /healthz, /readyz and the status page are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// The nodes, and how they are watched.
    pub cluster: ClusterSettings,
    /// Server connections, unless a database or user has its own word.
    pub pool: PoolSettings,
    /// Databases with settings of their own, by the name that clients use.
    pub databases: BTreeMap<String, DatabaseSettings>,
    /// Which reads may go where.
    pub routing: RoutingSettings,
    /// Floors that connections share.
    pub causal: CausalSettings,
    /// Who may come in, and how that is proven.
    pub auth: AuthSettings,
    /// Encryption on both sides.
    pub tls: TlsSettings,
    /// What is bounded, and by how much.
    pub limits: LimitsSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// What a session is told whose acknowledged write a failover has lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnLoss {
    /// A warning beside its next answer.
    #[default]
    Warning,
    /// An error instead of it.
    Error,
    /// Nothing; the log knows.
    Off,
}

/// Whom a shutdown waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Drain {
    /// Clients are ended as soon as they are between two transactions.
    #[default]
    Transactions,
    /// Clients stay until they leave.
    Clients,
}

/// A place where clients connect.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Listen {
    /// A TCP address; `host` is an IP address or a name that the system resolves.
    Tcp {
        /// IP address (without brackets) or name.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
    },
    /// The socket's own path (libpq looks for `<folder>/.s.PGSQL.<port>`).
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Listen::Tcp { host, port } => write!(f, "{host}:{port}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// When a server connection goes back to its pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PoolMode {
    /// After each transaction.
    #[default]
    Transaction,
    /// When the client leaves.
    Session,
}

/// A pool is (database, user, node); these settings hold for each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolSettings {
    /// When a server connection goes back.
    pub mode: PoolMode,
    /// Server connections at most.
    pub size: u32,
    /// Server connections kept open though idle, to every node, from the first use of a pool on.
    pub min_idle: u32,
    /// Clients that may wait for one connection of a pool at the same time.
    pub max_waiting: u32,
    /// How long a client waits for a server connection.
    pub wait_timeout: Duration,
    /// How long an idle server connection is kept; `None`: as long as it lives.
    pub idle_timeout: Option<Duration>,
    /// How old a server connection may grow; `None`: no limit.
    pub max_lifetime: Option<Duration>,
    /// How long connecting and logging in to a server may take.
    pub connect_timeout: Duration,
    /// Pools at most, over all databases, users and nodes.
    pub max_pools: u32,
    /// The consistency level of the clients of a database or user that has its own.
    pub consistency: Option<Consistency>,
}

/// What a database, or a user of one, has to say differently.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PoolOverrides {
    /// When a server connection goes back.
    pub mode: Option<PoolMode>,
    /// Server connections at most.
    pub size: Option<u32>,
    /// Server connections kept open though idle.
    pub min_idle: Option<u32>,
    /// The consistency level.
    pub consistency: Option<Consistency>,
}

impl PoolSettings {
    /// These settings where `overrides` says nothing else.
    pub fn with(&self, overrides: &PoolOverrides) -> PoolSettings {
        let size = overrides.size.unwrap_or(self.size);
        PoolSettings {
            mode: overrides.mode.unwrap_or(self.mode),
            size,
            min_idle: overrides.min_idle.unwrap_or(self.min_idle).min(size),
            consistency: overrides.consistency.or(self.consistency),
            ..self.clone()
        }
    }
}

/// One entry of `databases:`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatabaseSettings {
    /// The name of the database on the servers (an alias has another than its key).
    pub dbname: String,
    /// Its pools and level.
    pub pool: PoolOverrides,
    /// The same for single users.
    pub users: BTreeMap<String, PoolOverrides>,
}

impl Settings {
    /// Worker threads: one per core that the process may use.
    pub fn workers(&self) -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    /// What `database` is called on the servers; `None`: clients may not connect to it.
    pub fn server_database<'a>(&'a self, database: &'a str) -> Option<&'a str> {
        match (self.databases.get(database), self.auth.databases) {
            (Some(entry), _) => Some(&entry.dbname),
            (None, DatabaseAccess::Any) => Some(database),
            (None, DatabaseAccess::Listed) => None,
        }
    }

    /// The pool settings that hold for `user` in `database` (the name that clients use).
    pub fn pool_for(&self, database: &str, user: &str) -> PoolSettings {
        let Some(entry) = self.databases.get(database) else { return self.pool.clone() };
        let pool = self.pool.with(&entry.pool);
        match entry.users.get(user) {
            Some(overrides) => pool.with(overrides),
            None => pool,
        }
    }
}

/// Which reads may go where.
#[derive(Clone, PartialEq, Debug)]
pub struct RoutingSettings {
    /// What `decide` goes by.
    pub policy: RoutingPolicy,
    /// May the monitor flush an asynchronous commit that somebody waits for?
    pub kick_flush: bool,
    /// Functions declared as reading only, whatever the catalog says (`name` or `schema.name`, as in SQL).
    pub read_only_functions: Vec<String>,
    /// Functions declared as writing, whatever the catalog says.
    pub writing_functions: Vec<String>,
    /// Rules for single statements, users and applications.
    pub rules: RuleSettings,
    /// What a token leads to that this cluster cannot prove.
    pub token_mismatch: OnMismatch,
    /// What a session is told whose acknowledged write a failover has lost.
    pub lost_writes: OnLoss,
    /// Do transactions tell what proves afterwards whether they were committed?
    pub prove_commits: bool,
}

/// Rules: what they ask of a session, what of a statement, and the lists as they were written.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RuleSettings {
    /// Whom they are for, and what they do.
    pub rules: Rules,
    /// The statements that they are for, in the same order.
    pub subjects: Subjects,
    /// Relations that are read on the primary only.
    pub always_fresh: Vec<String>,
    /// Relations whose reads need no floor.
    pub may_be_stale: Vec<String>,
}

/// What is done about what cannot be guaranteed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnMismatch {
    /// The client is warned, and served in the safest way there is.
    #[default]
    Warning,
    /// The request fails.
    Error,
}

/// Floors that all connections share which name the same causal key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CausalSettings {
    /// The custom setting (lower case) whose value is the key, unless `pgweir.causal_key` names one.
    pub setting: Option<String>,
    /// Keys remembered in memory.
    pub keys: u32,
    /// How long a key is remembered at least; longer than any replica that serves may lag.
    pub expiry: Duration,
    /// URL of a Valkey or Redis that several pgweirs share. (It may hold a password.)
    pub store: Option<Secret>,
    /// How long its answer is waited for.
    pub store_timeout: Duration,
    /// What becomes of a write whose key cannot be recorded there.
    pub on_store_down: OnMismatch,
    /// What its keys begin with: clusters that share a store have different ones.
    pub prefix: String,
}

impl Default for CausalSettings {
    fn default() -> CausalSettings {
        CausalSettings {
            setting: None,
            keys: 100_000,
            expiry: Duration::from_secs(60),
            store: None,
            store_timeout: Duration::from_millis(100),
            on_store_down: OnMismatch::Warning,
            prefix: "pgweir".to_owned(),
        }
    }
}

/// How a client proves who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AuthMethod {
    /// SCRAM-SHA-256.
    #[default]
    ScramSha256,
    /// PostgreSQL's MD5 challenge.
    Md5,
    /// The password in the clear.
    Plain,
    /// Not at all.
    Trust,
    /// By a client certificate whose common name is the user's.
    Cert,
}

/// May clients connect to databases that `databases:` does not list?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DatabaseAccess {
    /// To any that the cluster has.
    #[default]
    Any,
    /// Only to those listed.
    Listed,
}

/// Who may come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthSettings {
    /// What clients must do.
    pub method: AuthMethod,
    /// Users known from the file, with distinct names.
    pub users: Vec<UserSettings>,
    /// Where the secrets of all others are read.
    pub query: Option<AuthQuerySettings>,
    /// Which databases they may connect to.
    pub databases: DatabaseAccess,
}

/// One user of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserSettings {
    /// The role's name.
    pub name: String,
    /// Its password, SCRAM verifier (`SCRAM-SHA-256$…`) or MD5 hash (`md5…`).
    pub password: Option<Secret>,
}

/// How secrets are read from the servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthQuerySettings {
    /// The role that asks.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The database that is asked.
    pub database: String,
    /// The question; `$1` is the user's name; it answers with (name, secret).
    pub query: String,
}

/// The question asked unless the file has another.
pub const DEFAULT_AUTH_QUERY: &str = "SELECT * FROM pgweir.user_lookup($1)";

/// Encryption.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsSettings {
    /// Between clients and pgweir.
    pub client: ClientTlsSettings,
    /// Between pgweir and the servers.
    pub server: ServerTlsSettings,
}

/// May, or must, clients encrypt?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientTlsMode {
    /// They cannot.
    #[default]
    Disable,
    /// They may.
    Prefer,
    /// They must.
    Require,
}

/// Between clients and pgweir. Unless `mode` is `Disable`, `cert` and `key` are there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientTlsSettings {
    /// May or must they?
    pub mode: ClientTlsMode,
    /// Certificate chain (PEM).
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// Who signs client certificates (PEM); there when the method is `cert`.
    pub ca: Option<PathBuf>,
}

/// How far a server's identity is checked (libpq's `sslmode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ServerTlsMode {
    /// No encryption.
    Disable,
    /// Encrypted if the server can.
    #[default]
    Prefer,
    /// Encrypted, whoever the server is.
    Require,
    /// And its certificate is signed by `ca`.
    VerifyCa,
    /// And it is made out to the node's host.
    VerifyFull,
}

/// How encryption begins (libpq's `sslnegotiation`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsNegotiation {
    /// The server is asked whether it can.
    #[default]
    Postgres,
    /// At once.
    Direct,
}

/// Between pgweir and the servers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerTlsSettings {
    /// How far their identity is checked.
    pub mode: ServerTlsMode,
    /// How encryption begins; `Direct` only where it is required.
    pub negotiation: TlsNegotiation,
    /// Who signs their certificates (PEM); `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// Our own certificate (PEM); with `key`.
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
}

/// What is bounded, and by how much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitsSettings {
    /// Client connections.
    pub clients: u32,
    /// Connections that have not logged in yet.
    pub login_clients: u32,
    /// Replication connections, which count as clients too; 0: they are refused.
    pub replication_clients: u32,
    /// Bytes of one message, either way. (Large ones are streamed, not buffered.)
    pub message_size: u64,
    /// How long a login may take.
    pub login_timeout: Duration,
    /// How long a client may be idle outside a transaction; `None`: for ever.
    pub client_idle_timeout: Option<Duration>,
    /// Prepared statements per server connection.
    pub prepared_statements: u32,
    /// Prepared statements that one client may name.
    pub client_statements: u32,
    /// Statement shapes whose class is remembered.
    pub statement_cache: u32,
    /// Request groups of one client in flight.
    pub pipeline: u32,
    /// How long a statement is held while there is no primary.
    pub hold_time: Duration,
    /// Clients whose statements are held at the same time.
    pub hold_clients: u32,
    /// Bytes of requests that are remembered of a transaction which may be replayed.
    pub replay_size: u64,
    /// Whom a shutdown waits for.
    pub drain: Drain,
    /// How long it waits.
    pub drain_timeout: Duration,
}

/// The lines' form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, one object per line.
    Json,
}

/// What is logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a tracing filter (`info,pgweir::relay=debug`).
    pub level: String,
    /// The lines' form.
    pub format: LogFormat,
}

impl Default for RoutingSettings {
    fn default() -> RoutingSettings {
        RoutingSettings {
            policy: RoutingPolicy::default(),
            kick_flush: true,
            read_only_functions: Vec::new(),
            writing_functions: Vec::new(),
            rules: RuleSettings::default(),
            token_mismatch: OnMismatch::default(),
            lost_writes: OnLoss::default(),
            prove_commits: false,
        }
    }
}

impl Default for PoolSettings {
    fn default() -> PoolSettings {
        PoolSettings {
            mode: PoolMode::Transaction,
            size: 20,
            min_idle: 0,
            max_waiting: 10_000,
            wait_timeout: Duration::from_secs(5),
            idle_timeout: Some(Duration::from_secs(600)),
            max_lifetime: Some(Duration::from_secs(3600)),
            connect_timeout: Duration::from_secs(5),
            max_pools: 1000,
            consistency: None,
        }
    }
}

impl Default for LimitsSettings {
    fn default() -> LimitsSettings {
        LimitsSettings {
            clients: 10_000,
            login_clients: 10_000,
            replication_clients: 10,
            message_size: 1 << 30,
            login_timeout: Duration::from_secs(15),
            client_idle_timeout: None,
            prepared_statements: 200,
            client_statements: 10_000,
            statement_cache: 10_000,
            pipeline: 1000,
            hold_time: Duration::from_secs(10),
            hold_clients: 1000,
            replay_size: 64 << 10,
            drain: Drain::default(),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { level: "info".to_owned(), format: LogFormat::Text }
    }
}
