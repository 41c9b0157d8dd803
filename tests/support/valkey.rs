//! A Valkey (or Redis) of a test's own, as the system has it: in memory only, gone with the test.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Valkey {
    port: u16,
    child: Child,
}

impl Valkey {
    /// Starts one on a port of its own.
    pub fn start() -> Valkey {
        let port = pgweir::devcluster::free_port().unwrap();
        Valkey { port, child: spawn(port) }.ready()
    }

    /// For `causal.store`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// A connection past pgweir.
    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// SIGKILL: nothing is saved, nobody is told.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Again, on the same port, empty.
    pub fn start_again(self) -> Valkey {
        let port = self.port;
        drop(self);
        Valkey { port, child: spawn(port) }.ready()
    }

    /// It keeps its connections and answers nothing.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// It goes on.
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn ready(self) -> Valkey {
        let end = Instant::now() + Duration::from_secs(60);
        let client = redis::Client::open(self.url()).unwrap();
        let pong = || redis::cmd("PING").query::<String>(&mut client.get_connection()?);
        while pong().is_err() {
            assert!(Instant::now() < end, "the store does not start on port {}", self.port);
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        // It may have been killed already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(port: u16) -> Child {
    for program in ["valkey-server", "redis-server", "/usr/bin/valkey-server", "/usr/bin/redis-server"] {
        let mut command = Command::new(program);
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(child) = command.spawn() {
            return child;
        }
    }
    panic!("neither valkey-server nor redis-server: scripts/prerequisites.sh store")
}
