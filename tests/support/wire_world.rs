//! A development cluster with proxies in front of it, for tests that speak the raw protocol.
#![allow(dead_code)]

use crate::wire_client::{Login, Wire};
use pgweir::devcluster::{APP, APP_DATABASE, DevCluster, MONITOR, Options};
use pgweir::proxy::{Proxy, StartError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};

/// Anything that should happen happens within this time, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(30);

pub struct World {
    pub cluster: DevCluster,
    runtime: Runtime,
}

impl World {
    pub fn start(options: Options) -> World {
        if std::env::var_os("PGWEIR_TEST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_env("PGWEIR_TEST_LOG");
            drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
        }
        let runtime = Runtime::new().expect("runtime");
        World { cluster: DevCluster::start(options).expect("cluster"), runtime }
    }

    /// The section `cluster`, with this interval of the monitor: a replica whose answer comes later than two of
    /// them serves nobody.
    pub fn nodes_asked_every(&self, interval: &str) -> String {
        let nodes: Vec<String> = (self.cluster.nodes().iter())
            .map(|node| format!("{{ name: {}, host: 127.0.0.1, port: {} }}", node.name(), node.port()))
            .collect();
        format!(
            "{{ nodes: [{}], monitor: {{ user: {}, password: {}, interval: {interval} }} }}",
            nodes.join(", "),
            MONITOR.name,
            MONITOR.password
        )
    }

    /// The configuration in front of this cluster: these sections, and the usual ones besides.
    pub fn config(&self, sections: &[(&str, &str)]) -> String {
        let cluster = self.nodes_asked_every("100ms");
        let auth = format!("{{ users: [ {{ name: {}, password: {} }} ] }}", APP.name, APP.password);
        let usual = [
            ("listen", "127.0.0.1:0"),
            ("http", "127.0.0.1:0"),
            ("cluster", &cluster),
            ("auth", &auth),
            ("pool", "{ size: 5 }"),
        ];
        let mut all: BTreeMap<&str, &str> = usual.into_iter().collect();
        all.extend(sections.iter().copied());
        all.iter().map(|(name, text)| format!("{name}: {text}\n")).collect()
    }

    /// A proxy with these sections that knows every node.
    pub fn proxy(&self, sections: &[(&str, &str)]) -> Running {
        let running = self.proxy_at_once(sections);
        let serves = self.cluster.nodes().len();
        wait_until("every node is known", || {
            running.status()["nodes"]
                .as_array()
                .is_some_and(|nodes| nodes.iter().filter(|node| node["role"].is_string()).count() == serves)
        });
        running
    }

    /// A proxy with these sections, without waiting for anything.
    pub fn proxy_at_once(&self, sections: &[(&str, &str)]) -> Running {
        let proxy = self.try_proxy(sections).expect("proxy");
        let port = proxy.addresses()[0].rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Running {
            port: port.unwrap_or_default(),
            http: proxy.http().expect("http"),
            proxy: Some(proxy),
            handle: self.runtime.handle().clone(),
        }
    }

    /// A proxy with these sections, or why it does not start.
    pub fn try_proxy(&self, sections: &[(&str, &str)]) -> Result<Proxy, StartError> {
        let text = self.config(sections);
        let settings = pgweir::config::parse(Path::new("/tmp/test.yaml"), &text, &|_| None)
            .unwrap_or_else(|error| panic!("{text}\n{error}"));
        self.runtime.block_on(Proxy::start(settings, None, None))
    }

    /// PostgreSQL's own port.
    pub fn direct(&self) -> u16 {
        self.cluster.primary().port()
    }
}

/// A proxy in this process; it ends when dropped.
pub struct Running {
    pub port: u16,
    pub http: SocketAddr,
    proxy: Option<Proxy>,
    handle: Handle,
}

impl Running {
    pub fn client(&self) -> Wire {
        Wire::connect(self.port, &app()).unwrap_or_else(|error| panic!("login: {error:?}"))
    }

    /// From now on so many workers are in use, as far as the load allows.
    pub fn employ(&self, workers: usize) {
        self.proxy.as_ref().expect("running").crew().employ(workers);
    }

    /// What /status.json says.
    pub fn status(&self) -> Value {
        serde_json::from_str(&get(self.http, "/status.json")).expect("JSON")
    }

    /// What /metrics says.
    pub fn metrics(&self) -> String {
        get(self.http, "/metrics")
    }

    /// The sum of a metric's series that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        (self.metrics().lines())
            .filter(|line| !line.starts_with('#') && line.contains(label))
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// (active, idle, waiting) over all pools.
    pub fn pools(&self) -> (u64, u64, u64) {
        let status = self.status();
        let sum = |name: &str| {
            status["pools"].as_array().expect("pools").iter().filter_map(|pool| pool[name].as_u64()).sum()
        };
        (sum("active"), sum("idle"), sum("waiting"))
    }

    pub fn clients(&self) -> u64 {
        self.status()["clients"].as_u64().expect("clients")
    }

    /// Waits until no client has a server connection and nobody waits for one.
    pub fn wait_quiet(&self) {
        let end = Instant::now() + LONG;
        loop {
            let seen = self.pools();
            if (seen.0, seen.2) == (0, 0) {
                return;
            }
            assert!(Instant::now() < end, "server connections are still in use: {seen:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            self.handle.block_on(proxy.drain(Duration::from_millis(200)));
        }
    }
}

pub fn app() -> Login {
    Login::new(APP.name, APP.password, APP_DATABASE)
}

pub fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("http");
    stream.set_read_timeout(Some(LONG)).expect("timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: pgweir\r\nConnection: close\r\n\r\n").expect("request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("response");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    match head.contains("chunked") {
        true => unchunk(body),
        false => body.to_owned(),
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    whole
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A pgweir of its own: the program as people start it. Killed when dropped.
pub struct Program {
    pub child: std::process::Child,
    pub port: u16,
    pub http: SocketAddr,
    pub file: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Program {
    /// Starts it with these sections and waits until it is ready.
    pub fn start(world: &World, sections: &[(&str, &str)]) -> Program {
        Program::start_at(world, sections, free_port(), free_port())
    }

    /// One more at the same addresses.
    pub fn successor(&self, world: &World, sections: &[(&str, &str)]) -> Program {
        Program::start_at(world, sections, self.port, self.http.port())
    }

    fn start_at(world: &World, sections: &[(&str, &str)], port: u16, http: u16) -> Program {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("config.yaml");
        let (listen, http_listen) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{http}"));
        let mut all = vec![("listen", &*listen), ("http", &*http_listen)];
        // Theirs are stronger.
        all.retain(|(key, _)| sections.iter().all(|(other, _)| other != key));
        all.extend(sections);
        std::fs::write(&file, world.config(&all)).expect("config");
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_pgweir"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("log"))
            .spawn()
            .expect("pgweir");
        let program =
            Program { child, port, http: SocketAddr::from(([127, 0, 0, 1], http)), file, _folder: folder };
        // Another one may listen at the same addresses.
        wait_until("pgweir listens", || program.log().contains("listening"));
        wait_until("pgweir is ready", || {
            TcpStream::connect(program.http).is_ok()
                && get(program.http, "/readyz").contains("\"ready\":true")
        });
        program
    }

    /// Writes the configuration anew, with these sections.
    pub fn write_config(&self, world: &World, sections: &[(&str, &str)]) {
        let (listen, http) = (format!("127.0.0.1:{}", self.port), self.http.to_string());
        let mut all = vec![("listen", &*listen), ("http", &*http)];
        all.extend(sections);
        std::fs::write(&self.file, world.config(&all)).expect("config");
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file.with_file_name("log")).unwrap_or_default()
    }

    pub fn client(&self) -> Wire {
        Wire::connect(self.port, &app()).unwrap_or_else(|error| panic!("login: {error:?}"))
    }

    /// Its memory, in bytes.
    pub fn resident(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("statm");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    pgweir::devcluster::free_port().expect("a free port")
}
