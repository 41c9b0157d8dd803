//! `pgweir demo`: a cluster, a pgweir in front of it, traffic through it, and what becomes of it, live.

mod metrics;
mod process;
mod screen;
mod traffic;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock;
use crate::devcluster::{APP, APP_DATABASE, DevCluster, DevClusterError, Options};
use crate::moment::Moment;

use self::metrics::Snapshot;
use self::process::ProxyProcess;
use self::screen::Screen;
use self::traffic::{Tally, Traffic};

/// Between two pictures on a terminal.
const LIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Between two lines where nobody can rewrite them.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Did pgweir keep its promises?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// No stale read, no write on a replica, and enough was tried to say so.
    Kept,
    /// It did not, or nothing was proven.
    Broken,
}

/// Why the demo could not go on.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] DevClusterError),
    /// The pgweir that stands in front of it.
    #[error("pgweir {what}; the end of its log:\n{log}")]
    Proxy {
        /// What happened.
        what: String,
        /// The last lines that it logged.
        log: String,
    },
    /// pgweir's status or metrics.
    #[error("asking http://{address}{path}: {source}")]
    Status {
        /// Whom.
        address: std::net::SocketAddr,
        /// For what.
        path: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Runs for so long, or until Ctrl-C, and prints the summary. Blocks; brings its own runtime.
pub fn run(seconds: Option<Duration>, replicas: u16) -> Result<Verdict, DemoError> {
    let begun = clock::now();
    say(format_args!("starting PostgreSQL: a primary and {replicas} replicas …"))?;
    // Before any signal handler: Ctrl-C ends the process here, and the cluster's watchdog clears up.
    let cluster = DevCluster::start(Options::with_replicas(usize::from(replicas)))?;
    let version = cluster.binaries().version();
    let took = clock::now().since(begun).as_secs_f64();
    say(format_args!("PostgreSQL {version} is up after {took:.1} s"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| DemoError::Io { what: "starting the runtime", source })?;
    let verdict = runtime.block_on(demonstrate(&cluster, seconds));
    runtime.shutdown_timeout(Duration::from_secs(2));
    say(format_args!("stopping the cluster …"))?;
    drop(cluster);
    verdict
}

async fn demonstrate(cluster: &DevCluster, seconds: Option<Duration>) -> Result<Verdict, DemoError> {
    let on_signal = |kind| signal(kind).map_err(|source| DemoError::Io { what: "handling signals", source });
    let mut interrupted = on_signal(SignalKind::interrupt())?;
    let mut terminated = on_signal(SignalKind::terminate())?;
    let mut proxy = ProxyProcess::start(cluster).await?;
    let traffic = Traffic::start(cluster, proxy.listen())?;
    introduce(&proxy, seconds)?;

    let end = async {
        match seconds {
            Some(seconds) => sleep(seconds).await,
            None => std::future::pending().await,
        }
    };
    let watched = tokio::select! {
        outcome = watch(&mut proxy, &traffic) => outcome,
        () = end => Ok(()),
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    };
    let tally = traffic.stop().await;
    // The last statement is counted when its answer has been sent: by now it has been.
    let last = metrics::snapshot(proxy.http()).await;
    proxy.stop().await;
    watched?;
    let last = last?;
    let misplaced = last.writes_on_replicas().max(refused_writes(cluster));
    println_all(&screen::summary(&last, &tally, misplaced))?;
    Ok(screen::verdict(&tally, misplaced))
}

/// Shows what happens until something fails.
async fn watch(proxy: &mut ProxyProcess, traffic: &Traffic) -> Result<(), DemoError> {
    let live = io::stdout().is_terminal();
    let mut screen = Screen::default();
    let mut ticks = interval(if live { LIVE_INTERVAL } else { LINE_INTERVAL });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun: Moment = clock::now();
    ticks.tick().await;
    loop {
        ticks.tick().await;
        proxy.check()?;
        let snapshot: Snapshot = metrics::snapshot(proxy.http()).await?;
        let tally = traffic.tally();
        let elapsed = clock::now().since(begun);
        let text = match live {
            true => screen.picture(&snapshot, &tally, elapsed),
            false => screen::line(&snapshot, &tally, elapsed),
        };
        println_all(&text)?;
    }
}

fn introduce(proxy: &ProxyProcess, seconds: Option<Duration>) -> Result<(), DemoError> {
    let listen = proxy.listen();
    say(format_args!("pgweir is up on {listen}; status page: http://{}/", proxy.http()))?;
    say(format_args!(
        "try it by hand:  psql postgres://{}:{}@{listen}/{APP_DATABASE}",
        APP.name, APP.password
    ))?;
    match seconds {
        Some(seconds) => say(format_args!("traffic for {} s …\n", seconds.as_secs())),
        None => say(format_args!("traffic until Ctrl-C …\n")),
    }
}

/// PostgreSQL's own word: a write that reaches a standby ends with an error in its log.
fn refused_writes(cluster: &DevCluster) -> u64 {
    let refusals = |log: String| log.matches("in a read-only transaction").count() as u64;
    cluster.replicas().iter().map(|replica| refusals(replica.log())).sum()
}

fn say(text: fmt::Arguments<'_>) -> Result<(), DemoError> {
    println_all(&format!("{text}\n"))
}

fn println_all(text: &str) -> Result<(), DemoError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| DemoError::Io { what: "writing to standard output", source })
}

impl Tally {
    /// Enough was tried to say something.
    fn proves_something(&self) -> bool {
        self.reads > 0 && self.checks > 0
    }
}
