//! Patroni with etcd, both as the distribution packages them, over the servers of a development cluster.
//!
//! Patroni takes over data folders that exist: users, databases, ports and sockets stay what tests know.
//! Everything runs below the cluster's folder, whose watchdog ends it however the test ends.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgweir::devcluster::{Binaries, DevCluster, DevNode, REPLICATION, SUPERUSER, Stop, free_port};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{LONG, wait_until, wait_until_or};

/// Seconds without a word after which etcd lets the leader's key go. Patroni itself asks for at least
/// `loop_wait + 2 × retry_timeout`.
const TTL: u32 = 5;

/// Patroni's cluster name.
pub const SCOPE: &str = "weir";

/// Do commits wait for a standby?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commits {
    Synchronous,
    Asynchronous,
}

/// What Patroni says of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub name: String,
    /// `leader`, `replica`, `sync_standby`.
    pub role: String,
    pub state: String,
    pub timeline: u64,
}

/// A program that is ended when it is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
}

impl Process {
    fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        drop(self.child.wait());
    }
}

/// Patroni beside one server.
#[derive(Debug)]
struct Agent {
    rest: u16,
    process: Mutex<Option<Process>>,
}

/// Patroni's cluster. Dropping it ends Patroni, then the servers, then etcd.
#[derive(Debug)]
pub struct Patroni<'a> {
    cluster: &'a DevCluster,
    agents: Vec<Agent>,
    etcd: Process,
}

impl<'a> Patroni<'a> {
    /// Hands the servers over. They are all there, and stream, when this returns.
    pub fn over(cluster: &'a DevCluster, commits: Commits) -> Patroni<'a> {
        // The primary first: its standbys receive all that it had.
        for node in cluster.nodes() {
            node.stop(Stop::Fast).unwrap();
        }
        let (etcd, etcd_port) = start_etcd(cluster);
        let agents: Vec<Agent> = cluster
            .nodes()
            .iter()
            .map(|node| {
                let rest = free_port().unwrap();
                configure(cluster, node, rest, etcd_port, commits);
                Agent { rest, process: Mutex::new(None) }
            })
            .collect();
        let patroni = Patroni { cluster, agents, etcd };
        // Whoever comes first to an empty etcd leads.
        patroni.start(0);
        wait_until_or("Patroni leads the first node", || patroni.says_primary(0), || patroni.log(0));
        (1..patroni.agents.len()).for_each(|index| patroni.start(index));
        patroni.wait_whole();
        patroni
    }

    /// Whose Patroni this is: `Patroni 3.0.2`.
    pub fn version(&self) -> String {
        let (_, body) = self.ask(0, "GET", "/patroni", "").expect("an answer");
        let told: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        format!("Patroni {}", told["patroni"]["version"].as_str().unwrap_or("?"))
    }

    pub fn node(&self, index: usize) -> &'a DevNode {
        &self.cluster.nodes()[index]
    }

    fn index_of(&self, name: &str) -> usize {
        self.cluster.nodes().iter().position(|node| node.name() == name).unwrap()
    }

    /// Patroni's REST API of a node.
    pub fn endpoint(&self, index: usize) -> String {
        format!("http://127.0.0.1:{}", self.agents[index].rest)
    }

    /// The end of what Patroni has logged.
    pub fn log(&self, index: usize) -> String {
        let path = self.cluster.folder().join(format!("patroni-{}.log", self.node(index).name()));
        let log = fs::read_to_string(path).unwrap_or_default();
        // The server's own words are in it, too.
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("] LOG: ")).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Starts Patroni beside a server, which it starts, too.
    pub fn start(&self, index: usize) {
        let node = self.node(index);
        let log = self.cluster.folder().join(format!("patroni-{}.log", node.name()));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("patroni");
        command.arg(configuration(self.cluster, node)).env("PGHOST", self.cluster.folder());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        *self.process(index) = Some(spawn(self.cluster, command));
    }

    fn process(&self, index: usize) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.agents[index].process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SIGKILL to Patroni alone: its server runs on.
    pub fn sigkill_agent(&self, index: usize) {
        *self.process(index) = None;
    }

    /// SIGKILL to Patroni and its server, as a power cut would.
    pub fn sigkill(&self, index: usize) {
        self.sigkill_agent(index);
        self.sigkill_server(index);
    }

    /// SIGKILL to the server and all its processes.
    pub fn sigkill_server(&self, index: usize) {
        let Some(postmaster) = postmaster(self.node(index)) else { return };
        send(postmaster, Signal::STOP);
        let folder = self.node(index).data_folder();
        let all = processes_in(&folder);
        send(postmaster, Signal::KILL);
        all.into_iter().for_each(|pid| send(pid, Signal::KILL));
        wait_until("its processes end after SIGKILL", || processes_in(&folder).is_empty());
    }

    /// Throws the data of a stopped server away: Patroni copies those of the leader when it starts.
    pub fn forget_data(&self, index: usize) {
        let data = self.node(index).data_folder();
        fs::remove_dir_all(&data).unwrap_or_else(|error| panic!("{}: {error}", data.display()));
    }

    /// SIGSTOP to etcd: whoever asks waits.
    pub fn freeze_etcd(&self) {
        self.etcd.signal(Signal::STOP);
    }

    pub fn thaw_etcd(&self) {
        self.etcd.signal(Signal::CONT);
    }

    /// Does Patroni say that this is the primary, and that it takes writes?
    pub fn says_primary(&self, index: usize) -> bool {
        self.ask(index, "GET", "/primary", "").is_some_and(|(status, _)| status == 200)
    }

    /// The member that leads, as Patroni beside it has it.
    pub fn leader(&self) -> Option<usize> {
        (0..self.agents.len()).find(|&index| self.says_primary(index))
    }

    /// Waits until one of `candidates` leads.
    pub fn wait_leader(&self, candidates: &[usize]) -> usize {
        let mut leader = None;
        wait_until_or(
            "Patroni has a new leader",
            || {
                leader = candidates.iter().copied().find(|&index| self.says_primary(index));
                leader.is_some()
            },
            || self.log(candidates[0]),
        );
        leader.unwrap()
    }

    /// Whoever leads now, or next.
    pub fn wait_any_leader(&self) -> usize {
        self.wait_leader(&Vec::from_iter(0..self.agents.len()))
    }

    /// All members, as any agent that answers has them.
    pub fn members(&self) -> Vec<Member> {
        let answers = (0..self.agents.len()).filter_map(|index| self.ask(index, "GET", "/cluster", ""));
        let Some((_, body)) = answers.into_iter().next() else { return Vec::new() };
        let told: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let members = told["members"].as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        members
            .iter()
            .map(|member| Member {
                name: text(&member["name"]),
                role: text(&member["role"]),
                state: text(&member["state"]),
                timeline: member["timeline"].as_u64().unwrap_or(0),
            })
            .collect()
    }

    /// Waits until one member leads, the others stream from it on its timeline, and, where commits are
    /// synchronous, one of them confirms them.
    pub fn wait_whole(&self) {
        wait_for("Patroni's cluster is whole", || self.is_whole(), || self.evidence());
    }

    /// What everybody says of it, the servers' last words included.
    fn evidence(&self) -> String {
        let logs = (0..self.agents.len()).map(|index| {
            let (node, server) = (self.node(index), self.node(index).log());
            let end = server.lines().rev().take(10).collect::<Vec<_>>().into_iter().rev();
            let server = end.collect::<Vec<_>>().join("\n");
            format!("{}, port {}:\n{}\n{server}\n", node.name(), node.port(), self.log(index))
        });
        format!("{:#?}\n{}", self.members(), logs.collect::<String>())
    }

    fn is_whole(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let members = self.members();
        let running = |member: &&Member| matches!(member.state.as_str(), "running" | "streaming");
        let timeline = members.iter().find(|m| m.role == "leader").map(|m| m.timeline);
        let here = members.iter().filter(running).filter(|m| Some(m.timeline) == timeline).count();
        // Who may lead next is known of a standby that Patroni itself has written down.
        let confirmed = || members.iter().any(|m| m.role == "sync_standby");
        here == self.agents.len()
            && self.streaming(leader) == self.agents.len() - 1
            && (self.commits() == Some(Commits::Asynchronous) || confirmed())
    }

    fn streaming(&self, leader: usize) -> usize {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        self.node(leader).sql_value(sql).ok().flatten().and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Patroni's dynamic configuration says so.
    fn commits(&self) -> Option<Commits> {
        let answers = (0..self.agents.len()).filter_map(|index| self.ask(index, "GET", "/config", ""));
        let (_, body) = answers.into_iter().next()?;
        let told: serde_json::Value = serde_json::from_str(&body).ok()?;
        let on = told["synchronous_mode"].as_bool()?;
        Some(if on { Commits::Synchronous } else { Commits::Asynchronous })
    }

    /// Changes whether commits wait for a standby, and waits until it is so.
    pub fn set_commits(&self, commits: Commits) {
        let leader = self.wait_any_leader();
        let body = format!("{{\"synchronous_mode\": {}}}", commits == Commits::Synchronous);
        let (status, told) = self.ask(leader, "PATCH", "/config", &body).expect("an answer");
        assert_eq!(status, 200, "{told}");
        let wanted = match commits {
            Commits::Synchronous => "<>",
            Commits::Asynchronous => "=",
        };
        let sql = format!("SELECT current_setting('synchronous_standby_names') {wanted} ''");
        let is_so = || self.node(leader).sql_value(&sql).ok().flatten().as_deref() == Some("t");
        wait_for("Patroni has changed how commits are confirmed", is_so, || self.log(leader));
    }

    /// Asks Patroni to make `to` the leader; returns when Patroni says that it has.
    pub fn switch_over(&self, from: usize, to: usize) {
        let (leader, candidate) = (self.node(from).name(), self.node(to).name());
        let body = format!("{{\"leader\": \"{leader}\", \"candidate\": \"{candidate}\"}}");
        let (status, told) = self.ask(from, "POST", "/switchover", &body).expect("an answer");
        // It stops waiting for its members after some seconds, and says that it does not know (503).
        let may_be_done = status == 200 || told.contains("status unknown");
        assert!(may_be_done, "{status}: {told}\n{}", self.log(from));
        self.wait_leader(&[to]);
    }

    /// Restarts a server through Patroni; returns when it answers again.
    pub fn restart(&self, index: usize) {
        let (status, told) = self.ask(index, "POST", "/restart", "{}").expect("an answer");
        assert_eq!(status, 200, "{told}\n{}", self.log(index));
    }

    /// A standby that Patroni holds for fit to lead at once.
    pub fn candidate(&self) -> usize {
        let mut found = None;
        wait_for(
            "a standby may lead",
            || {
                let members = self.members();
                let with = |role: &str| {
                    members
                        .iter()
                        .find(|m| m.role == role && matches!(m.state.as_str(), "running" | "streaming"))
                };
                let standby = match self.commits() {
                    Some(Commits::Synchronous) => with("sync_standby"),
                    _ => with("replica"),
                };
                found = standby.map(|member| self.index_of(&member.name));
                found.is_some()
            },
            || format!("{:#?}", self.members()),
        );
        found.unwrap()
    }

    /// One request to Patroni beside a node; `None`: nobody answers.
    fn ask(&self, index: usize, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        request(self.agents[index].rest, method, path, body)
    }
}

impl Drop for Patroni<'_> {
    fn drop(&mut self) {
        self.thaw_etcd();
        for index in 0..self.agents.len() {
            self.sigkill_agent(index);
        }
        for node in self.cluster.nodes() {
            if let Some(postmaster) = postmaster(node) {
                send(postmaster, Signal::QUIT);
            }
        }
        // Whatever is left then is the watchdog's.
        let left = || self.cluster.nodes().iter().any(|node| !processes_in(&node.data_folder()).is_empty());
        let end = Instant::now() + Duration::from_secs(10);
        while left() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What this installation lacks for Patroni to rule its servers, if it is one that was named (PG_BIN): smaller
/// packages have only what a server needs.
pub fn missing(binaries: &Binaries) -> Option<&'static str> {
    std::env::var_os("PG_BIN")?;
    let needed = ["pg_basebackup", "pg_controldata", "pg_ctl", "pg_isready"];
    needed.into_iter().find(|name| !binaries.program(name).is_file())
}

/// Waits until something of Patroni has changed, which it looks at once a second: to ask it more often would
/// take the processor from what is measured.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool, more: impl FnOnce() -> String) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}\n{}", more());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// One HTTP request; `None`: nobody answers.
fn request(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LONG)).ok()?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// One etcd; the port of its clients.
fn start_etcd(cluster: &DevCluster) -> (Process, u16) {
    let (clients, peers) = (free_port().unwrap(), free_port().unwrap());
    let (clients_url, peers_url) =
        (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
    let log = File::create(cluster.folder().join("etcd.log")).unwrap();
    let mut command = Command::new("etcd");
    command
        .args(["--name", "etcd1", "--logger", "zap", "--log-level", "warn"])
        .arg("--data-dir")
        .arg(cluster.folder().join("etcd"))
        .args(["--listen-client-urls", &clients_url, "--advertise-client-urls", &clients_url])
        .args(["--listen-peer-urls", &peers_url, "--initial-advertise-peer-urls", &peers_url])
        .args(["--initial-cluster", &format!("etcd1={peers_url}")])
        // Nothing of it outlives the test, and who waits for a slow disk loses his lease.
        .env("ETCD_UNSAFE_NO_FSYNC", "true")
        // What Debian builds for arm64 wants to be asked twice.
        .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"))
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let etcd = spawn(cluster, command);
    wait_until_or(
        "etcd is healthy",
        || request(clients, "GET", "/health", "").is_some_and(|(status, _)| status == 200),
        || fs::read_to_string(cluster.folder().join("etcd.log")).unwrap_or_default(),
    );
    (etcd, clients)
}

/// Starts a program below the cluster's folder, as the account that its servers run as.
fn spawn(cluster: &DevCluster, mut command: Command) -> Process {
    command.current_dir(cluster.folder()).stdin(Stdio::null()).process_group(0);
    let (uid, gid) = owner(cluster);
    if rustix::process::geteuid().is_root() {
        command.uid(uid).gid(gid);
    }
    command.env("LC_ALL", "C.UTF-8").env("HOME", cluster.folder());
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.spawn().unwrap_or_else(|error| {
        panic!("{program}: {error}; scripts/prerequisites.sh patroni installs it");
    });
    Process { child }
}

fn owner(cluster: &DevCluster) -> (u32, u32) {
    let meta = fs::metadata(cluster.folder()).unwrap();
    (meta.uid(), meta.gid())
}

fn configuration(cluster: &DevCluster, node: &DevNode) -> PathBuf {
    cluster.folder().join(format!("patroni-{}.yaml", node.name()))
}

fn configure(cluster: &DevCluster, node: &DevNode, rest: u16, etcd: u16, commits: Commits) {
    let (name, port) = (node.name(), node.port());
    let folder = cluster.folder().display();
    let (data, bin) = (node.data_folder(), cluster.binaries().folder());
    let local = format!(
        "scope: {SCOPE}\n\
         name: {name}\n\
         restapi: {{ listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}' }}\n\
         etcd3: {{ host: '127.0.0.1:{etcd}' }}\n\
         postgresql:\n\
         \x20 listen: 127.0.0.1:{port}\n\
         \x20 connect_address: 127.0.0.1:{port}\n\
         \x20 data_dir: {}\n\
         \x20 bin_dir: {}\n\
         \x20 pgpass: {folder}/pgpass-{name}\n\
         \x20 use_unix_socket: true\n\
         \x20 remove_data_directory_on_diverged_timelines: true\n\
         \x20 basebackup: [ {{ checkpoint: fast }}, no-sync ]\n\
         \x20 authentication:\n\
         \x20   superuser: {{ username: {}, password: {} }}\n\
         \x20   replication: {{ username: {}, password: {} }}\n\
         \x20 parameters: {{ unix_socket_directories: '{folder}' }}\n",
        data.display(),
        bin.display(),
        SUPERUSER.name,
        SUPERUSER.password,
        REPLICATION.name,
        REPLICATION.password,
    );
    // Patroni takes its first dynamic configuration from this file, where data folders exist already.
    let dynamic = serde_json::json!({
        "ttl": TTL,
        "loop_wait": 1,
        "retry_timeout": 2,
        "synchronous_mode": commits == Commits::Synchronous,
        "postgresql": {
            "use_slots": true,
            "use_pg_rewind": false,
            "parameters": {
                "max_connections": 200,
                "max_wal_senders": 10,
                "max_replication_slots": 10,
                "max_prepared_transactions": 20,
                "wal_level": "replica",
                "hot_standby": "on",
            },
        },
    });
    let account = owner(cluster);
    place(&configuration(cluster, node), &local, account);
    place(&data.join("patroni.dynamic.json"), &dynamic.to_string(), account);
    // Where a standby finds its primary is Patroni's to say.
    place(&data.join("postgresql.auto.conf"), "", account);
}

fn place(path: &Path, text: &str, (uid, gid): (u32, u32)) {
    fs::write(path, text).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// The process id of a server that Patroni runs.
fn postmaster(node: &DevNode) -> Option<u32> {
    let file = fs::read_to_string(node.data_folder().join("postmaster.pid")).ok()?;
    let pid = file.lines().next()?.trim().parse().ok()?;
    // The id of a file that was left behind may be anybody's.
    processes_in(&node.data_folder()).contains(&pid).then_some(pid)
}

/// The living processes whose working folder is this one.
fn processes_in(folder: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A process that is gone already is as good as one that received it.
        if let Err(error) = kill_process(pid, signal) {
            assert_eq!(error, rustix::io::Errno::SRCH, "{signal:?} to {pid:?}");
        }
    }
}
