//! A real primary with streaming replicas on this machine, for tests, benchmarks and the demo.
//!
//! It needs `initdb` and `postgres` only, of any version from 14 on, blocks (no runtime), lives in a
//! temporary folder on free ports, and leaves nothing behind, however its owner ends.

mod account;
mod binaries;
mod fault;
mod files;
mod node;
mod processes;
mod settings;
mod sql;
mod watchdog;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock;

use self::account::Account;
use self::fault::Doing;
use self::files::Source;
use self::watchdog::Watchdog;

pub use self::binaries::Binaries;
pub use self::fault::DevClusterError;
pub use self::node::{DevNode, Stop};
pub use self::settings::{
    APP, APP_DATABASE, DevUser, MD5_USER, MONITOR, PLAIN_USER, REPLICATION, SUPERUSER, TRUST_USER, USERS,
};
pub use self::sql::Rows;

/// What kind of cluster to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many replicas.
    pub replicas: usize,
    /// `recovery_min_apply_delay` of every replica.
    pub apply_delay: Duration,
    /// Further settings of every node; they win over the cluster's own.
    pub settings: Vec<(String, String)>,
    /// Lines of pg_hba.conf that come before the cluster's own.
    pub hba: Vec<String>,
    /// Switches TLS on, on every node.
    pub tls: Option<ServerTls>,
}

/// A server's certificate and key, in PEM.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The certificate chain.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Default for Options {
    fn default() -> Self {
        Options { replicas: 2, apply_delay: Duration::ZERO, settings: Vec::new(), hba: Vec::new(), tls: None }
    }
}

impl Options {
    /// The default with this many replicas.
    pub fn with_replicas(replicas: usize) -> Options {
        Options { replicas, ..Options::default() }
    }

    /// Adds a setting of every node.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Options {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running cluster. Dropping it stops the servers and removes their folder.
#[derive(Debug)]
pub struct DevCluster {
    // Dropped in this order: the servers stop, then the watchdog finds nothing left to do.
    nodes: Vec<DevNode>,
    binaries: Binaries,
    folder: Folder,
}

/// The temporary folder, removed with what is in it.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    _watchdog: Watchdog,
}

impl DevCluster {
    /// Starts a primary and its replicas and waits until all of them answer and stream.
    pub fn start(options: Options) -> Result<DevCluster, DevClusterError> {
        let binaries = Binaries::find()?;
        let account = Account::choose()?;
        if !account.can_reach(binaries.folder()) {
            return Err(DevClusterError::UnusableServer {
                folder: binaries.folder().to_owned(),
                why: "the unprivileged user that must run it cannot enter that folder".to_owned(),
            });
        }
        let folder = account.temporary_folder()?;
        let watchdog = Watchdog::over(&folder).doing(|| "starting the watchdog".to_owned())?;
        let folder = Folder { path: folder, _watchdog: watchdog };
        make_template(&folder.path, &options, &binaries, account)?;
        let nodes = start_nodes(&folder.path, &options, &binaries, account)?;
        let cluster = DevCluster { nodes, binaries, folder };
        for replica in cluster.replicas() {
            replica.wait_streaming(Duration::from_secs(30))?;
        }
        Ok(cluster)
    }

    /// The node that started as the primary.
    pub fn primary(&self) -> &DevNode {
        &self.nodes[0]
    }

    /// The node that started as the replica of this index, from 0.
    pub fn replica(&self, index: usize) -> &DevNode {
        &self.nodes[index + 1]
    }

    /// The nodes that started as replicas.
    pub fn replicas(&self) -> &[DevNode] {
        &self.nodes[1..]
    }

    /// All nodes, the first primary first.
    pub fn nodes(&self) -> &[DevNode] {
        &self.nodes
    }

    /// The programs that the cluster runs on.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The temporary folder of data, logs and sockets.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Waits until every replica shows everything that the first primary has committed by now.
    pub fn wait_caught_up(&self, deadline: Duration) -> Result<(), DevClusterError> {
        self.replicas().iter().try_for_each(|replica| replica.wait_caught_up(self.primary(), deadline))
    }

    /// The replicas, the one that received the most WAL first: who is to be promoted when the first
    /// primary is dead, because whoever is ahead of a new primary can never follow it. Waits until
    /// none of them receives anything any more.
    pub fn successors(&self, deadline: Duration) -> Result<Vec<&DevNode>, DevClusterError> {
        let mut received = Vec::new();
        for replica in self.replicas() {
            received.push((replica.wait_received_all(deadline)?, replica));
        }
        received.sort_by_key(|(lsn, _)| std::cmp::Reverse(*lsn));
        Ok(received.into_iter().map(|(_, replica)| replica).collect())
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        // Together: one after the other would take three times as long.
        thread::scope(|scope| {
            for node in &self.nodes {
                scope.spawn(|| {
                    if let Err(error) = node.stop(Stop::Immediate) {
                        tracing::warn!(%error, "left to the watchdog");
                    }
                });
            }
        });
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A killed postmaster's shared memory is the watchdog's to remove: it needs the pid file for it.
        let killed = fs::read_dir(&self.path)
            .is_ok_and(|nodes| nodes.flatten().any(|node| node.path().join("postmaster.pid").exists()));
        if !killed && let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "left to the watchdog");
        }
    }
}

const TEMPLATE: &str = "template";

/// A data folder that has everything but a place in the cluster: the primary takes it, the others copy it.
fn make_template(
    folder: &Path,
    options: &Options,
    binaries: &Binaries,
    account: Account,
) -> Result<(), DevClusterError> {
    let data = folder.join(TEMPLATE);
    let password = folder.join("password");
    files::write_file(&password, SUPERUSER.password, account)?;
    let mut initdb = Command::new(binaries.program("initdb"));
    initdb
        .arg("-D")
        .arg(&data)
        .args(["-U", SUPERUSER.name, "--no-sync", "--encoding=UTF8", "--locale=C"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile"])
        .arg(&password);
    run(initdb, "", folder, account)?;
    fs::remove_file(&password).doing(|| "removing the password file".to_owned())?;

    let sockets = folder.display().to_string();
    let settings = settings::server_settings(options, &sockets);
    files::write_file(&data.join("postgresql.conf"), &settings, account)?;
    files::write_file(&data.join("pg_hba.conf"), &settings::host_access(options), account)?;
    if let Some(tls) = &options.tls {
        files::write_file(&data.join("server.crt"), &tls.certificate, account)?;
        files::write_file(&data.join("server.key"), &tls.key, account)?;
    }

    // Without a start and a stop of a whole server: it is the quickest way to a first database.
    let mut single = Command::new(binaries.program("postgres"));
    single.args(["--single", "-c", "exit_on_error=on", "-D"]).arg(&data).arg("postgres");
    run(single, &settings::bootstrap_statements(), folder, account)
}

/// The primary on a port that nobody else took in between, its slots, and the replicas all at once.
fn start_nodes(
    folder: &Path,
    options: &Options,
    binaries: &Binaries,
    account: Account,
) -> Result<Vec<DevNode>, DevClusterError> {
    let template = folder.join(TEMPLATE);
    let names: Vec<String> = (1..=options.replicas + 1).map(|number| format!("pg{number}")).collect();
    for name in &names[1..] {
        files::copy_data(&template, &folder.join(name), Source::Stopped, account)?;
    }
    fs::rename(&template, folder.join(&names[0])).doing(|| "placing the primary".to_owned())?;

    let node = |name: &String| -> Result<DevNode, DevClusterError> {
        Ok(DevNode::new(name.clone(), free_port()?, folder, binaries, account))
    };
    let started = |name: &String, primary: Option<&DevNode>| -> Result<DevNode, DevClusterError> {
        let mut attempts = 0;
        loop {
            let node = node(name)?;
            if let Some(primary) = primary {
                node.become_standby_of(primary)?;
            }
            attempts += 1;
            match node.start() {
                Ok(()) => return Ok(node),
                Err(_) if attempts < 5 && node.lost_its_port() => {}
                Err(error) => return Err(error),
            }
        }
    };
    let primary = started(&names[0], None)?;
    names[1..].iter().try_for_each(|name| primary.ensure_slot(name))?;
    let replicas = thread::scope(|scope| {
        let starting: Vec<_> =
            names[1..].iter().map(|name| scope.spawn(|| started(name, Some(&primary)))).collect();
        starting
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut nodes = vec![primary];
    nodes.extend(replicas);
    Ok(nodes)
}

/// Runs a program of the server to its end.
fn run(mut command: Command, input: &str, folder: &Path, account: Account) -> Result<(), DevClusterError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let what = || format!("running {program}");
    command.current_dir(folder).env("LC_ALL", "C").env_remove("PGDATA");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    account.apply(&mut command);
    let mut child = command.spawn().doing(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that failed early does not read: its own words say why, not the broken pipe.
        if let Err(error) = stdin.write_all(input.as_bytes()) {
            tracing::debug!(%error, %program, "its input was not read");
        }
    }
    let Output { status, stdout, stderr } = child.wait_with_output().doing(what)?;
    if status.success() {
        return Ok(());
    }
    let output = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    Err(DevClusterError::Program { program: program.clone(), status: status.to_string(), output })
}

/// A port below the range that the kernel gives to outgoing connections: none of those can take it
/// while its node is stopped. Nobody else in this process is given it.
pub fn free_port() -> Result<u16, DevClusterError> {
    use std::hash::{BuildHasher, RandomState};
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let is_new = |port| GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
    for attempt in 0..1000_u32 {
        // std has no random numbers, but a hasher with random keys.
        let draw = RandomState::new().hash_one(attempt) % 12_000;
        let Ok(port) = u16::try_from(20_000 + draw) else { continue };
        if is_new(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .doing(|| "looking for a free port".to_owned())
}

/// Asks again until there is an answer or the time is up. What it waits for is another process's
/// doing, which announces nothing: it looks often, and gives the processor away in between.
fn poll<T>(
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>, DevClusterError>,
) -> Result<Option<T>, DevClusterError> {
    let end = clock::now().plus(deadline);
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if clock::now() >= end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}
