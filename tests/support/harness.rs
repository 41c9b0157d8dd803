//! What integration tests share: a development cluster with pgweir in front of it, clients through it,
//! and the question every one of them asks: who served this?
//!
//! `#[path = "support/harness.rs"] mod harness;`. One cluster per test binary ([`Stage`]); any number
//! of pgweirs ([`Weir`]) in front of it, each inside this process on the stage's runtime.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pgweir::config::{self, Settings};
use pgweir::devcluster::{
    APP, APP_DATABASE, DevCluster, DevNode, DevUser, MONITOR, Options, SUPERUSER, USERS,
};
use pgweir::fault::one_line;
use pgweir::freshness::defect::Defect;
use pgweir::http::status::{NodeRow, Status};
use pgweir::proxy::Proxy;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// No condition of these tests takes as long; its end means that something is wrong.
pub const LONG: Duration = Duration::from_secs(60);

/// No test takes as long, on whatever machine.
const HANGS: Duration = Duration::from_secs(600);

/// A pause of a client, longer than two of the monitor's intervals: whatever it has read by then is
/// known of every replica that keeps up.
pub const PAUSE: Duration = Duration::from_millis(50);

/// A cluster and a runtime, for the life of the test process.
#[derive(Debug)]
pub struct Stage {
    pub cluster: DevCluster,
    runtime: Runtime,
    scene: Mutex<()>,
}

/// One test at a time has the stage: clusters are disturbed, and counters compared.
#[derive(Debug)]
pub struct Scene {
    stage: &'static Stage,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Scene {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        self.stage
    }
}

impl Scene {
    /// Waits for its turn on `stage`, which the first caller builds. Statics are never dropped:
    /// the cluster's watchdog clears up when the process ends.
    pub fn on(stage: &'static OnceLock<Stage>, build: impl FnOnce() -> Stage) -> Scene {
        let stage = stage.get_or_init(build);
        let turn = stage.scene.lock().unwrap_or_else(PoisonError::into_inner);
        Scene { stage, _turn: turn }
    }
}

impl Drop for Scene {
    /// A test that fails does not take along those behind it, which would wait in vain.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.calm();
        }
    }
}

/// Something is over when this is dropped, however a test ends.
#[derive(Debug)]
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Undoes what a test does to the servers, however it ends.
#[derive(Debug)]
pub struct Calm<'a>(pub &'a Stage);

impl Drop for Calm<'_> {
    fn drop(&mut self) {
        self.0.calm();
    }
}

impl Stage {
    /// Every server runs, nobody waits for standbys, and replay goes on; as far as that can be had again.
    pub fn calm(&self) {
        for node in self.cluster.nodes() {
            drop(node.sigcont());
            drop(node.start());
            drop(node.set("synchronous_standby_names", ""));
        }
        for replica in self.cluster.replicas() {
            drop(replica.resume_replay());
            drop(replica.set_apply_delay(Duration::ZERO));
        }
        let roles = [format!("{} LOGIN", MONITOR.name), format!("{} RESET ALL", SUPERUSER.name)];
        for role in roles {
            drop(self.cluster.primary().sql(&format!("ALTER ROLE {role}")));
        }
        drop(self.cluster.wait_caught_up(LONG));
    }

    /// A cluster with these options and this schema (of the application's database, run by its owner).
    pub fn with(options: Options, schema: &[&str]) -> Stage {
        if let Ok(level) = std::env::var("PGWEIR_TEST_LOG") {
            let settings = config::settings::LogSettings { level, ..Default::default() };
            drop(pgweir::telemetry::logs::start(&settings));
        }
        let cluster = DevCluster::start(options).unwrap();
        for statement in schema {
            cluster.primary().sql_as(APP.name, APP_DATABASE, statement).unwrap();
        }
        if !cluster.replicas().is_empty() {
            cluster.wait_caught_up(LONG).unwrap();
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        Stage { cluster, runtime, scene: Mutex::new(()) }
    }

    /// Runs a future to its end. One that hangs fails.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.run_for(HANGS, future)
    }

    /// The same, however long a test is meant to take.
    pub fn run_for<T>(&self, limit: Duration, future: impl Future<Output = T>) -> T {
        let bounded = self.runtime.block_on(async { tokio::time::timeout(limit, future).await });
        bounded.unwrap_or_else(|_| panic!("no end of it after {limit:?}"))
    }

    /// Runs a future beside the test, until it ends or is aborted.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        self.runtime.spawn(task)
    }

    /// A pgweir with all defaults in front of the cluster, ready to serve from every node.
    pub fn weir(&self) -> Weir<'_> {
        self.weir_with(&Tuning::default())
    }

    /// A pgweir with these settings, ready to serve from every node.
    pub fn weir_with(&self, tuning: &Tuning) -> Weir<'_> {
        let weir = self.weir_at_once(tuning);
        weir.wait_whole(self.cluster.nodes().len());
        weir.wait_catalog();
        weir
    }

    /// As [`Stage::weir_with`], from a file that can be reloaded.
    pub fn weir_from(&self, tuning: &Tuning, file: &Path) -> Weir<'_> {
        std::fs::write(file, tuning.yaml(self.cluster.nodes())).unwrap();
        let weir = self.start(tuning, Some(file.to_owned()));
        weir.wait_whole(self.cluster.nodes().len());
        weir.wait_catalog();
        weir
    }

    /// As [`Stage::weir_with`], without waiting for anything.
    pub fn weir_at_once(&self, tuning: &Tuning) -> Weir<'_> {
        self.start(tuning, None)
    }

    fn start(&self, tuning: &Tuning, file: Option<std::path::PathBuf>) -> Weir<'_> {
        let settings = tuning.settings(self.cluster.nodes());
        let proxy = self.run(Proxy::start(settings, file, None)).unwrap();
        let address = proxy.addresses()[0].parse().unwrap();
        let http = proxy.http().unwrap();
        Weir { stage: self, proxy: Some(proxy), address, http }
    }
}

/// Lines for sections of the configuration file.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Below `routing:`.
    pub routing: Vec<String>,
    /// Below `pool:`.
    pub pool: Vec<String>,
    /// Below `limits:`.
    pub limits: Vec<String>,
    /// Top-level YAML of its own.
    pub more: String,
    /// Tags of nodes, by their names.
    pub tags: Vec<(&'static str, &'static str)>,
    /// The monitor's interval.
    pub interval: &'static str,
    /// What is missing.
    pub defect: Defect,
    /// The first node is reached through this port instead of its own.
    pub detour: Option<u16>,
    /// Where clients connect; 0: any port.
    pub port: u16,
    /// Nodes that are reached at other addresses than their own, by their names.
    pub detours: Vec<(String, SocketAddr)>,
    /// Below `cluster:`, besides the nodes and the monitor.
    pub cluster: Vec<String>,
    /// The nodes are not listed: somebody else knows them.
    pub unlisted: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            routing: Vec::new(),
            pool: Vec::new(),
            limits: Vec::new(),
            more: String::new(),
            tags: Vec::new(),
            interval: "20ms",
            defect: Defect::None,
            detour: None,
            port: 0,
            detours: Vec::new(),
            cluster: Vec::new(),
            unlisted: false,
        }
    }
}

impl Tuning {
    /// Lines of `routing:`, such as `consistency: eventual`.
    pub fn routing(lines: &[&str]) -> Tuning {
        Tuning { routing: lines.iter().map(|&line| line.to_owned()).collect(), ..Tuning::default() }
    }

    /// Reads wait for a replica instead of turning to the primary when the machine is busy and a sample
    /// comes late: for tests of what must be seen on a replica. Further lines of `routing:` may follow.
    pub fn patient(lines: &[&str]) -> Tuning {
        let lines = [&["on_lag: wait", "lag_wait_limit: 60s"], lines].concat();
        Tuning { interval: "200ms", ..Tuning::routing(&lines) }
    }

    /// The configuration file for these nodes.
    pub fn yaml(&self, nodes: &[DevNode]) -> String {
        let section = |name: &str, lines: &[String]| match lines {
            [] => String::new(),
            lines => format!("{name}:\n{}", lines.iter().map(|l| format!("  {l}\n")).collect::<String>()),
        };
        let node = |node: &DevNode| {
            let detour = self.detour.filter(|_| node.port() == nodes[0].port());
            let own = SocketAddr::from(([127, 0, 0, 1], detour.unwrap_or(node.port())));
            let named = self.detours.iter().find(|(name, _)| name == node.name());
            let (name, at) = (node.name(), named.map_or(own, |(_, address)| *address));
            let tags = self.tags.iter().filter(|(tagged, _)| *tagged == name).map(|(_, tag)| *tag);
            let tags = tags.collect::<Vec<_>>().join(", ");
            format!("    - {{ name: {name}, host: {}, port: {}, tags: [{tags}] }}\n", at.ip(), at.port())
        };
        // Somebody without a password cannot prove anything by SCRAM.
        let with_password = USERS.iter().filter(|user| !user.password.is_empty());
        let user = |user: &DevUser| format!("    - {{ name: {}, password: {} }}\n", user.name, user.password);
        [
            format!("listen: 127.0.0.1:{}\nhttp: 127.0.0.1:0\ncluster:\n", self.port),
            self.cluster.iter().map(|line| format!("  {line}\n")).collect(),
            if self.unlisted { String::new() } else { "  nodes:\n".to_owned() },
            nodes.iter().filter(|_| !self.unlisted).map(node).collect(),
            format!(
                "  monitor: {{ user: {}, password: {}, interval: {} }}\n",
                MONITOR.name, MONITOR.password, self.interval
            ),
            "auth:\n  users:\n".to_owned(),
            with_password.map(user).collect(),
            section("routing", &self.routing),
            section("pool", &self.pool),
            section("limits", &self.limits),
            self.more.clone(),
        ]
        .concat()
    }

    fn settings(&self, nodes: &[DevNode]) -> Settings {
        let yaml = self.yaml(nodes);
        let mut settings =
            config::parse(Path::new("test.yaml"), &yaml, &|_| None).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        settings.routing.policy.defect = self.defect;
        settings
    }
}

/// A running pgweir. Dropping it closes it.
#[derive(Debug)]
pub struct Weir<'a> {
    stage: &'a Stage,
    proxy: Option<Proxy>,
    pub address: SocketAddr,
    pub http: SocketAddr,
}

impl Drop for Weir<'_> {
    fn drop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            let drained = async move { tokio::time::timeout(LONG, proxy.drain(Duration::ZERO)).await };
            // A second panic would end the other tests, too.
            drop(self.stage.runtime.block_on(drained));
        }
    }
}

/// How many statements went to a node (in a role, for a reason).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Went {
    pub node: String,
    pub role: String,
    pub reason: String,
}

/// Statements by where they went.
pub type Counts = BTreeMap<Went, u64>;

impl<'a> Weir<'a> {
    /// What it runs on.
    pub fn stage(&self) -> &'a Stage {
        self.stage
    }
}

impl Weir<'_> {
    /// Takes no new clients, and lets the others finish.
    pub fn drain(&mut self, limit: Duration) {
        if let Some(mut proxy) = self.proxy.take() {
            self.stage.run(async move { proxy.drain(limit).await });
        }
    }

    /// The same beside the test; done when nobody is left.
    pub fn leave(mut self, limit: Duration) -> tokio::task::JoinHandle<()> {
        let proxy = self.proxy.take();
        self.stage.spawn(async move {
            if let Some(mut proxy) = proxy {
                proxy.drain(limit).await;
            }
        })
    }

    /// A connection of the application.
    pub async fn connect(&self) -> Client {
        self.connect_as(APP, APP_DATABASE, "").await.unwrap()
    }

    /// A connection of the application with startup options (`-c name=value`).
    pub async fn connect_with(&self, options: &str) -> Client {
        self.connect_as(APP, APP_DATABASE, options).await.unwrap()
    }

    /// A connection of anybody.
    pub async fn connect_as(
        &self,
        user: DevUser,
        database: &str,
        options: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        connect_to(self.address, user, database, options).await
    }

    /// A libpq URI for the application.
    pub fn uri(&self) -> String {
        format!("postgres://{}:{}@{}/{APP_DATABASE}", APP.name, APP.password, self.address)
    }

    /// GET over HTTP/1.1; the body.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: pgweir\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    /// What /status.json says.
    pub fn status(&self) -> Status {
        serde_json::from_str(&self.get("/status.json")).unwrap()
    }

    /// Statements so far.
    pub fn counts(&self) -> Counts {
        let rows = self.status().statements.into_iter();
        let mut counts = Counts::new();
        for row in rows {
            let went = Went { node: row.node, role: row.role, reason: row.reason };
            *counts.entry(went).or_default() += row.count;
        }
        counts
    }

    /// Statements since `before`.
    pub fn counts_since(&self, before: &Counts) -> Counts {
        let mut counts = self.counts();
        for (went, count) in &mut counts {
            *count -= before.get(went).copied().unwrap_or(0);
        }
        counts.retain(|_, count| *count > 0);
        counts
    }

    /// The sum of a metric over all lines whose labels contain `label` (`cause="lost"`; empty: all).
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.get("/metrics")
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(label))
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Statements that were sent again, for whatever cause.
    pub fn replays(&self) -> u64 {
        self.metric("pgweir_replays_total", "") as u64
    }

    /// Runs one simple-protocol string on `client`, and says where it went (one entry per group) and why.
    pub async fn route(&self, client: &Client, sql: &str) -> Vec<(String, String)> {
        let before = self.counts();
        client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
        let since = self.counts_since(&before);
        since.into_keys().map(|went| (went.role, went.reason)).collect()
    }

    /// Waits until `nodes` nodes are up with a role and every replica serves reads.
    pub fn wait_whole(&self, nodes: usize) {
        let is_whole = || {
            let status = self.status();
            let up = status.nodes.iter().filter(|n| n.state == "up" && n.role.is_some()).count();
            let serving = status
                .nodes
                .iter()
                .filter(|n| n.role.as_deref() == Some("replica"))
                .all(|n| n.serves_reads && n.staleness_seconds.is_some_and(|s| s < 1.0));
            up == nodes && serving && status.primary.is_some()
        };
        wait_until_or("pgweir sees the whole cluster", is_whole, || self.evidence());
    }

    /// Waits until every node is up with a role, this one as the primary, and every replica serves reads.
    pub fn wait_whole_under(&self, primary: &DevNode) {
        let is_whole = || {
            let status = self.status();
            let serves = |node: &NodeRow| match node.role.as_deref() {
                Some("primary") => true,
                Some(_) => node.serves_reads,
                None => false,
            };
            status.primary.as_deref() == Some(primary.name())
                && status.nodes.iter().all(|node| node.state == "up" && serves(node))
        };
        wait_until_or("pgweir sees the whole cluster", is_whole, || self.evidence());
    }

    /// What pgweir knows of the cluster, for messages.
    pub fn evidence(&self) -> String {
        let servers = self.stage.cluster.nodes().iter().map(|node| {
            let position = node.sql(
                "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text \
                 ELSE pg_current_wal_insert_lsn() || ' ' || pg_current_wal_flush_lsn() END, \
                 (SELECT r::text FROM pg_stat_wal_receiver r)",
            );
            format!("{}: {position:?}\n", node.name())
        });
        format!("{}\n{}{}", self.get("/status.json"), self.nodes(), servers.collect::<String>())
    }

    /// The nodes in a line each, for messages.
    pub fn nodes(&self) -> String {
        let rows = self.status().nodes.into_iter();
        rows.map(|row| {
            format!(
                "{} {} {:?} serves={} in_flight={} staleness={:?} latency={}us paused={} {:?}\n",
                row.member,
                row.state,
                row.role,
                row.serves_reads,
                row.in_flight,
                row.staleness_seconds,
                row.latency_micros,
                row.replay_paused,
                row.last_error
            )
        })
        .collect()
    }

    /// Waits until this node has answered the monitor a question that was sent after now.
    pub fn wait_sampled(&self, node: &DevNode) {
        let since = Instant::now();
        wait_until("the monitor has asked once more", || {
            let elapsed = since.elapsed().as_secs_f64();
            self.status().evidence.iter().any(|row| {
                row.member.as_deref() == Some(node.name())
                    && row.source == "sql"
                    && row.age_seconds.is_some_and(|age| age < elapsed)
            })
        });
    }

    /// Waits until this node's row satisfies `condition`.
    pub fn wait_node(&self, node: &str, what: &str, condition: impl Fn(&NodeRow) -> bool) {
        wait_until(&format!("{node} {what}"), || {
            self.status().nodes.iter().any(|row| row.member == node && condition(row))
        });
    }

    /// Waits until the catalog of the application's database has been read.
    fn wait_catalog(&self) {
        self.stage.run(async {
            let client = self.connect().await;
            wait_for("the catalog has been read", async || {
                let explained = value(&client, "EXPLAIN (ROUTE) SELECT no_writer()").await;
                !explained.contains("catalog_not_loaded")
            })
            .await;
        });
    }
}

/// A function that the catalog has to vouch for: reads go to replicas only when it is loaded.
pub const NO_WRITER: &str = "CREATE FUNCTION no_writer() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'";

/// A read, as far as anybody can see, that tells which node it ran on.
pub const SERVED_BY: &str = "CREATE FUNCTION served_by() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('cluster_name') $$";

/// The node that a read on this connection is served by now.
pub async fn served_by(client: &Client) -> String {
    value(client, "SELECT served_by()").await
}

/// The first column of the first row of a simple query.
pub async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
    first_value(&messages).unwrap_or_else(|| panic!("{sql}: no row"))
}

/// The first column of the first row.
pub fn first_value(messages: &[SimpleQueryMessage]) -> Option<String> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

/// Connects to a server or proxy over TCP.
pub async fn connect_to(
    address: SocketAddr,
    user: DevUser,
    database: &str,
    options: &str,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port()).user(user.name).dbname(database);
    config.connect_timeout(LONG);
    if !user.password.is_empty() {
        config.password(user.password);
    }
    if !options.is_empty() {
        config.options(options);
    }
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// An error with its causes in one line.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{error}: {db} ({}) {}", db.code().code(), db.detail().unwrap_or_default()),
        None => one_line(error),
    }
}

/// Waits until another process has done something.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_until_or(what, condition, String::new);
}

/// Waits until another process has done something; says `more` if it does not.
pub fn wait_until_or(what: &str, mut condition: impl FnMut() -> bool, more: impl FnOnce() -> String) {
    let end = Instant::now() + LONG;
    while !condition() {
        if Instant::now() >= end {
            panic!("waited in vain: {what}\n{}", more());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits, on the runtime, until another process has done something.
pub async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition().await {
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
