//! The real thing: this very binary as a child, with a configuration file.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::{DemoError, metrics};
use crate::clock;
use crate::devcluster::{APP, DevCluster, MONITOR, free_port};

const READY_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// A `pgweir serve` of our own.
pub(super) struct ProxyProcess {
    child: Child,
    listen: SocketAddr,
    http: SocketAddr,
    log: PathBuf,
}

impl ProxyProcess {
    /// Starts it in front of the cluster and waits until it is ready.
    pub(super) async fn start(cluster: &DevCluster) -> Result<ProxyProcess, DemoError> {
        // Its working folder lies in the cluster's: the cluster's watchdog ends what works there.
        let folder = cluster.folder().join("pgweir");
        fs::create_dir(&folder).map_err(io("making pgweir's folder"))?;
        let listen = address(6432)?;
        let http = address(9632)?;
        let config = folder.join("config.yaml");
        fs::write(&config, configuration(cluster, listen, http)).map_err(io("writing config.yaml"))?;
        let log = folder.join("pgweir.log");
        let child = spawn(&folder, &config, &log)?;
        let mut proxy = ProxyProcess { child, listen, http, log };
        proxy.wait_until_ready().await?;
        Ok(proxy)
    }

    /// Where clients connect.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where it answers for itself.
    pub(super) fn http(&self) -> SocketAddr {
        self.http
    }

    /// An error when it has ended.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait().map_err(io("watching pgweir"))? {
            None => Ok(()),
            Some(status) => Err(self.failed(format!("ended ({status})"))),
        }
    }

    /// Ends it as an operator would, then without asking.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            match kill_process(pid, Signal::TERM) {
                Ok(()) if timeout(STOPPED_WITHIN, self.child.wait()).await.is_ok() => return,
                Ok(()) => tracing::warn!("pgweir did not end within {STOPPED_WITHIN:?} of SIGTERM"),
                Err(error) => tracing::warn!(%error, "SIGTERM not delivered"),
            }
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "pgweir could not be killed");
        }
    }

    async fn wait_until_ready(&mut self) -> Result<(), DemoError> {
        let end = clock::now().plus(READY_WITHIN);
        loop {
            self.check()?;
            match metrics::get(self.http, "/readyz").await {
                Ok(_) => return Ok(()),
                Err(error) if clock::now() >= end => {
                    return Err(self.failed(format!("is not ready after {READY_WITHIN:?} ({error})")));
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn failed(&self, what: String) -> DemoError {
        let log = fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        DemoError::Proxy { what, log: lines[lines.len().saturating_sub(15)..].join("\n") }
    }
}

fn spawn(folder: &Path, config: &Path, log: &Path) -> Result<Child, DemoError> {
    let log = File::create(log).map_err(io("making pgweir's log"))?;
    let copy = log.try_clone().map_err(io("making pgweir's log"))?;
    let ourselves = std::env::current_exe().map_err(io("finding this binary"))?;
    Command::new(ourselves)
        .arg("--config")
        .arg(config)
        .arg("serve")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(copy)
        .stderr(log)
        // Ctrl-C is for the demo, which then ends the traffic first.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(io("starting pgweir"))
}

fn configuration(cluster: &DevCluster, listen: SocketAddr, http: SocketAddr) -> String {
    let nodes: String = cluster
        .nodes()
        .iter()
        .map(|n| format!("    - {{ name: {}, host: 127.0.0.1, port: {} }}\n", n.name(), n.port()))
        .collect();
    format!(
        "listen: {listen}\nhttp: {http}\n\
         cluster:\n  nodes:\n{nodes}  monitor: {{ user: {}, password: {} }}\n\
         auth:\n  method: scram-sha-256\n  users: [ {{ name: {}, password: {} }} ]\n",
        MONITOR.name, MONITOR.password, APP.name, APP.password
    )
}

/// The usual port when nobody has it: easier to type.
fn address(usual: u16) -> Result<SocketAddr, DemoError> {
    let port = match TcpListener::bind((Ipv4Addr::LOCALHOST, usual)) {
        Ok(_) => usual,
        Err(_) => free_port()?,
    };
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> DemoError {
    move |source| DemoError::Io { what, source }
}
