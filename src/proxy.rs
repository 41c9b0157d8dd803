//! The composition root: builds everything from the settings, supervises it, reloads it, drains it.

mod draining;
pub mod housekeeping;
pub mod reload;
mod sources;
pub mod status;

use crate::auth::keys::{DerivedKeys, ProcessSecret};
use crate::auth::secret::Secret;
use crate::causal::Causal;
use crate::clock;
use crate::cluster::health::HealthPolicy;
use crate::config::Settings;
use crate::config::settings::{
    ClientTlsMode, ClientTlsSettings, Listen, ServerTlsMode, ServerTlsSettings, TlsNegotiation,
};
use crate::monitor::{Monitor, MonitorSettings};
use crate::net::listener::{self, Bound, Family, Listener, Sharing};
use crate::net::staffing;
use crate::net::stream::Stream;
use crate::net::tls::{
    ClientTls, ServerTls, TlsClientSideSettings, TlsError, TlsOpening, TlsServerSideMode,
    TlsServerSideSettings,
};
use crate::net::worker::{Crew, Turn, Workers};
use crate::proxy::draining::{Draining, Stage};
use crate::relay::context::{Context, Parts};
use crate::relay::login::{self, Arrived};
use crate::relay::{catalog_reader, dormitory, sql_client};
use crate::sql::cache::Classifier;
use crate::sql::lexer::Keys;
use crate::telemetry::logs::LogControl;
use crate::telemetry::metrics::Metrics;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Shapes that were found to write on a replica; remembered per process.
const LEARNT_SHAPES: usize = 4096;
/// Derived SCRAM keys beyond those of the configured users.
const DERIVED_KEYS: usize = 1024;

/// Clients of a pgweir that is being replaced are not ended for so long after their login.
const NEWCOMERS: Duration = Duration::from_secs(1);
/// How often a pgweir that drains looks who is left.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often it looks for consoles, while everybody else may stay.
const LOOK_FOR_CONSOLES: Duration = Duration::from_millis(500);
/// How often it says how many are left.
const TELL: Duration = Duration::from_secs(60);

/// Why pgweir could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listening socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The metrics recorder.
    #[error("metrics: {0}")]
    Metrics(String),
    /// Worker threads.
    #[error("worker threads: {0}")]
    Workers(io::Error),
    /// The store of causal keys.
    #[error("causal.store: {0}")]
    Causal(#[from] redis::RedisError),
    /// Signal handlers.
    #[error("signals: {0}")]
    Signals(io::Error),
}

/// A running pgweir.
#[derive(Debug)]
pub struct Proxy {
    context: Arc<Context>,
    addresses: Vec<String>,
    http: Option<std::net::SocketAddr>,
    reloader: Arc<reload::Reloader>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Clients live there; they end with it.
    _workers: Workers,
}

impl Proxy {
    /// Builds and starts everything. `file` is read again at a reload.
    pub async fn start(
        settings: Settings,
        file: Option<PathBuf>,
        logs: Option<LogControl>,
    ) -> Result<Proxy, StartError> {
        let workers = Workers::start(settings.workers()).map_err(StartError::Workers)?;
        let context = Arc::new(build(Arc::new(settings), workers.crew().clone())?);
        let config = context.config.load_full();
        let sharing = if config.reuse_port { Sharing::WithSuccessor } else { Sharing::Alone };
        let bound = bind(&config.listen, sharing).await?;
        let reloader = Arc::new(reload::Reloader::new(context.clone(), file, logs));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let http = match config.http {
            Some(address) => Some(serve_http(address, sharing, &context, &stopped, &mut tasks)?),
            None => None,
        };
        let listeners = bound.into_iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners.iter().map(Listener::address).collect();
        for runtime in workers.crew().runtimes() {
            drop(runtime.spawn(dormitory::run(context.clone())));
        }
        for listener in listeners {
            let door = Door { context: context.clone(), reloader: reloader.clone() };
            tasks.spawn(accept(listener, door, stopped.clone()));
        }
        for task in housekeeping::tasks(&context) {
            tasks.spawn(task);
        }
        tasks.spawn(catalog_reader::run(context.clone()));
        tasks.spawn(staffing::run(workers.crew().clone()));
        if let Some(store) = &context.causal.store {
            tasks.spawn(store.clone().run());
        }
        Ok(Proxy { context, addresses, http, reloader, stop, tasks, _workers: workers })
    }

    /// Where clients connect.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Its workers.
    pub fn crew(&self) -> &Crew {
        &self.context.crew
    }

    /// Where /metrics and /status.json are.
    pub fn http(&self) -> Option<std::net::SocketAddr> {
        self.http
    }

    /// Runs until a signal ends it: SIGTERM and SIGINT drain, SIGHUP reloads, as does a change of the file.
    pub async fn run(mut self) -> Result<(), StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
        let mut draining = None;
        loop {
            tokio::select! {
                _ = hangup.recv() => self.reloader.reload_and_log("SIGHUP").await,
                () = self.reloader.file_changed() => self.reloader.reload_and_log("the file has changed").await,
                _ = terminate.recv() => self.told_to_stop(&mut draining),
                _ = interrupt.recv() => self.told_to_stop(&mut draining),
                () = self.parted(draining) => break,
            }
        }
        self.end().await;
        Ok(())
    }

    fn told_to_stop(&self, draining: &mut Option<Draining>) {
        match draining {
            Some(draining) => {
                let what = match draining.hurry(clock::now()) {
                    Stage::Waiting | Stage::Ending => "clients are ended between two transactions",
                    Stage::Over => "leaving at once",
                };
                tracing::info!(clients = self.context.clients.len(), "told again to stop: {what}");
            }
            None => {
                let begun = self.close(self.context.config.load().limits.drain_timeout);
                tracing::info!(clients = self.context.clients.len(), "draining: no new clients; {begun}");
                *draining = Some(begun);
            }
        }
    }

    /// Takes no new clients, parts with those that are there as `limits.drain` says, within `limit`, and ends.
    pub async fn drain(&mut self, limit: Duration) {
        let draining = self.close(limit);
        self.parted(Some(draining)).await;
        self.end().await;
    }

    /// Takes no new clients from now on. Who was one, and how long it may stay, is in the answer.
    fn close(&self, limit: Duration) -> Draining {
        self.context.draining.store(true, Ordering::Release);
        self.stop.send_replace(true);
        if self.context.pauses.resume(None) {
            tracing::warn!("RESUME: nobody could ask this process for it any more");
        }
        let config = self.context.config.load();
        // Who was connected when the successor took over logs in here, and gets an answer before it is ended.
        let grace = if config.reuse_port { NEWCOMERS } else { Duration::ZERO };
        Draining::begin(config.limits.drain, limit, grace, clock::now())
    }

    /// Done when no client is left, or when those that are left are not waited for. Never without a stop.
    async fn parted(&self, draining: Option<Draining>) {
        let Some(draining) = draining else { return std::future::pending().await };
        let context = &self.context;
        let mut look = clock::now();
        let mut tell = look.plus(TELL);
        loop {
            let now = clock::now();
            let stage = draining.stage(now);
            // Whoever is logging in is refused, unless there is a successor to which it could have come.
            let comes = draining.has_grace() && context.arriving.load(Ordering::Acquire) > 0;
            let is_empty = context.clients.is_empty() && !comes && draining.expects_nobody(now);
            if stage == Stage::Over || is_empty {
                return;
            }
            if stage == Stage::Ending || now >= look {
                look = now.plus(LOOK_FOR_CONSOLES);
                for slot in context.clients.all() {
                    // Nobody works on a console: it is not waited for.
                    let leaves = stage == Stage::Ending || login::is_console(&slot);
                    if leaves && draining.may_end(slot.since, now) {
                        slot.end();
                    }
                }
            }
            if now >= tell {
                tell = now.plus(TELL);
                tracing::info!(clients = context.clients.len(), "draining");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn end(&mut self) {
        self.context.over.store(true, Ordering::Release);
        self.tasks.abort_all();
        self.context.monitor.shutdown().await;
    }
}

fn build(config: Arc<Settings>, crew: Arc<Crew>) -> Result<Context, StartError> {
    let server_tls = ServerTls::load(&server_tls_settings(&config.tls.server))?;
    let client_tls = load_client_tls(&config.tls.client)?;
    let monitor = Monitor::start(monitor_settings(&config, &server_tls)?);
    let mut seed = [0; 16];
    crate::net::random_fill(&mut seed);
    let half = |bytes: &[u8]| bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let keys = Keys::from_seed([half(&seed[..8]), half(&seed[8..])]);
    let classifier = Classifier::new(keys, config.limits.statement_cache as usize, LEARNT_SHAPES);
    let metrics = Metrics::new().map_err(|error| StartError::Metrics(error.to_string()))?;
    let derived = derived_keys(&config);
    let causal = Causal::new(&config.causal)?;
    Ok(Context::new(Parts {
        config,
        monitor,
        classifier,
        keys: derived,
        server_tls,
        client_tls,
        causal,
        metrics: Arc::new(metrics),
        crew,
    }))
}

/// Keys of users from the configuration are derived before the first login, so that the time a login
/// takes does not tell who is configured.
fn derived_keys(config: &Settings) -> DerivedKeys {
    let secret = match &config.cluster.monitor.password {
        // All instances in front of one cluster show an unknown user the same salt.
        Some(password) => ProcessSecret::shared(password.reveal().as_bytes()),
        None => {
            let mut random = [0; 32];
            crate::net::random_fill(&mut random);
            ProcessSecret::new(random)
        }
    };
    let keys = DerivedKeys::new(DERIVED_KEYS + 2 * config.auth.users.len(), secret);
    warm(&keys, config);
    keys
}

/// Derives the keys of all users with a plain password.
fn warm(keys: &DerivedKeys, config: &Settings) {
    for user in &config.auth.users {
        if let Some(Ok(Secret::Plain(password))) =
            user.password.as_ref().map(|secret| Secret::from_config(secret.reveal()))
        {
            keys.warm(&user.name, &password);
        }
    }
}

fn server_tls_settings(settings: &ServerTlsSettings) -> TlsServerSideSettings {
    let mode = match settings.mode {
        ServerTlsMode::Disable => TlsServerSideMode::Disable,
        ServerTlsMode::Prefer => TlsServerSideMode::Prefer,
        ServerTlsMode::Require => TlsServerSideMode::Require,
        ServerTlsMode::VerifyCa => TlsServerSideMode::VerifyCa,
        ServerTlsMode::VerifyFull => TlsServerSideMode::VerifyFull,
    };
    let opening = match settings.negotiation {
        TlsNegotiation::Postgres => TlsOpening::Asked,
        TlsNegotiation::Direct => TlsOpening::Direct,
    };
    TlsServerSideSettings { mode, opening, ca: settings.ca.clone() }
}

fn load_client_tls(settings: &ClientTlsSettings) -> Result<Option<ClientTls>, TlsError> {
    match (settings.mode, &settings.cert, &settings.key) {
        (ClientTlsMode::Prefer | ClientTlsMode::Require, Some(cert), Some(key)) => {
            let side =
                TlsClientSideSettings { cert: cert.clone(), key: key.clone(), ca: settings.ca.clone() };
            ClientTls::load(&side).map(Some)
        }
        _ => Ok(None),
    }
}

fn monitor_settings(config: &Settings, tls: &ServerTls) -> Result<MonitorSettings, TlsError> {
    let cluster = &config.cluster;
    Ok(MonitorSettings {
        nodes: cluster.nodes.iter().map(sources::node).collect(),
        resolve_interval: cluster.resolve_interval,
        patroni: cluster.patroni.as_ref().map(sources::patroni).transpose()?,
        discover: cluster.discover.clone(),
        user: cluster.monitor.user.clone(),
        password: cluster.monitor.password.as_ref().map(|secret| secret.reveal().to_owned().into()),
        database: cluster.monitor.database.clone(),
        policy: HealthPolicy {
            down_after: cluster.monitor.fence_after,
            ..HealthPolicy::for_interval(cluster.monitor.interval)
        },
        tls: sql_client::tls_of(tls),
        kick_flush: config.routing.kick_flush,
        defect: config.routing.policy.defect,
    })
}

async fn bind(wanted: &[Listen], sharing: Sharing) -> Result<Vec<Bound>, StartError> {
    let mut bound = Vec::new();
    for listen in wanted {
        let failed = |source| StartError::Listen { address: listen.to_string(), source };
        match listen {
            Listen::Tcp { host, port } => {
                bound.extend(Bound::tcp(host, *port, sharing).await.map_err(failed)?);
            }
            Listen::Unix(path) => {
                bound.push(Bound::unix(path.clone(), sharing).await.map_err(failed)?);
            }
        }
    }
    Ok(bound)
}

fn listen(bound: Bound) -> Result<Listener, StartError> {
    let address = bound.address();
    bound.listen().map_err(|source| StartError::Listen { address, source })
}

fn serve_http(
    address: std::net::SocketAddr,
    sharing: Sharing,
    context: &Arc<Context>,
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<std::net::SocketAddr, StartError> {
    let failed = |source| StartError::Listen { address: format!("http {address}"), source };
    let listener =
        listener::bind(address, sharing, Family::Both).and_then(listener::listen).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let source = Arc::new(status::Source::new(context.clone()));
    let mut stopped = stopped.clone();
    let until = async move {
        match sharing {
            // It is the successor who is asked from now on.
            Sharing::WithSuccessor => drop(stopped.changed().await),
            // The status stays readable while clients drain; the task is ended with the others.
            Sharing::Alone => std::future::pending().await,
        }
    };
    tasks.spawn(crate::http::serve(listener, source, until));
    Ok(bound)
}

/// What a new connection is given.
#[derive(Clone)]
struct Door {
    context: Arc<Context>,
    reloader: Arc<reload::Reloader>,
}

async fn accept(listener: Listener, door: Door, mut stopped: watch::Receiver<bool>) {
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        admit(stream, address, &door);
    }
    // A successor gets what comes from now on; who has been connected to this socket is served from it.
    for _ in 0..listener::BACKLOG {
        let Some((stream, address)) = listener.accept_waiting().await else { break };
        admit(stream, address, &door);
    }
}

fn admit(stream: Stream, address: String, door: &Door) {
    let crew = &door.context.crew;
    let turn = crew.next();
    if let Some(worker) = crew.runtime(crew.home(turn)) {
        worker.spawn(enter(stream, address, turn, door.clone()));
    }
}

async fn enter(stream: Stream, address: String, turn: Turn, door: Door) {
    let Door { context, reloader } = door;
    let stream = match stream.settle() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%address, "a connection could not be taken over: {error}"),
    };
    match login::arrive(context.clone(), stream, address).await {
        // A task of its own: the login's state is not kept while the client lives.
        Arrived::Client(mut client) => {
            client.turn = turn;
            drop(tokio::spawn(client.run()));
        }
        Arrived::Replicating(stream, replicating) => drop(tokio::spawn(replicating.run(stream))),
        Arrived::Console(console) => drop(tokio::spawn(reload::serve_console(*console, context, reloader))),
        Arrived::Done => {}
    }
}
