//! psql at a terminal, with somebody who presses Ctrl-C: whatever it was doing ends, and the session goes
//! on, in both pool modes.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use harness::*;
use pgweir::devcluster::{APP, APP_DATABASE, Options};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

static STAGE: OnceLock<Stage> = OnceLock::new();

const SCHEMA: [&str; 2] = [NO_WRITER, "CREATE TABLE lines (line text)"];

/// Runs `play` at a terminal through pgweir in both pool modes, where there is a psql.
fn at_a_terminal(play: impl Fn(&Scene, &mut Terminal)) {
    let scene = Scene::on(&STAGE, || Stage::with(Options::with_replicas(1), &SCHEMA));
    let Some(psql) = scene.cluster.binaries().optional_program("psql") else {
        println!("skipped: there is no psql");
        return;
    };
    for mode in ["transaction", "session"] {
        let tuning =
            Tuning { pool: vec![format!("mode: {mode}"), "size: 2".to_owned()], ..Tuning::patient(&[]) };
        let weir = scene.weir_with(&tuning);
        let mut terminal = Terminal::open(&psql, &weir);
        play(&scene, &mut terminal);
        terminal.is_usable();
        terminal.types("\\q");
        wait_until("psql ends", || terminal.psql.try_wait().unwrap().is_some());
    }
}

/// psql, with a terminal of its own.
struct Terminal {
    psql: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    /// How much of the screen has been read.
    seen: usize,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.psql.kill());
        drop(self.psql.wait());
    }
}

impl Terminal {
    fn open(psql: &Path, weir: &Weir<'_>) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = || {
            let file = OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(name.as_bytes()));
            Stdio::from(file.unwrap())
        };
        let mut command = Command::new(psql);
        // Without line editing, pager and start-up file.
        command.args(["-X", "-n", "-q", "-P", "pager=off", &weir.uri()]);
        command.env("LC_ALL", "C").env("TERM", "dumb").env_remove("PGOPTIONS");
        let psql = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let lines = screen.clone();
        thread::spawn(move || {
            let mut bytes = vec![0; 65536];
            // The terminal of a process that has ended says EIO.
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                lines.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
        });
        let mut terminal = Terminal { psql, keyboard, screen, seen: 0 };
        terminal.shows("=> ");
        terminal
    }

    fn types(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until this appears behind what has been seen. What is typed appears, too: ask for something
    /// that is not in it.
    fn shows(&mut self, what: &str) {
        let (screen, seen) = (self.screen.clone(), self.seen);
        let at = || screen.lock().unwrap()[seen..].find(what);
        let end = || screen.lock().unwrap()[seen..].chars().take(2000).collect();
        wait_until_or(&format!("{what:?} on the screen"), || at().is_some(), end);
        self.seen = seen + at().unwrap() + what.len();
    }

    fn presses_ctrl_c(&self) {
        kill_process(Pid::from_child(&self.psql), Signal::INT).unwrap();
    }

    fn is_usable(&mut self) {
        self.types("SELECT 'us' || 'able', current_user;");
        self.shows("usable   | app");
        self.shows("=> ");
    }
}

/// Waits until one of the nodes runs a statement that begins so.
fn runs(scene: &Scene, statement: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND datname = '{APP_DATABASE}' \
         AND state = 'active' AND query LIKE '{statement}%'",
        APP.name
    );
    wait_until(statement, || {
        let counts = scene.cluster.nodes().iter().map(|node| node.sql_value(&sql).unwrap());
        counts.flatten().any(|count| count == "1")
    });
}

const CANCELED: &str = "canceling statement due to user request";

#[test]
fn ctrl_c_ends_a_statement_and_not_the_session() {
    at_a_terminal(|scene, terminal| {
        terminal.types("SELECT pg_sleep(600);");
        runs(scene, "SELECT pg_sleep");
        terminal.presses_ctrl_c();
        terminal.shows(CANCELED);
        terminal.is_usable();
        terminal.types("BEGIN;");
        terminal.shows("app=*> ");
        terminal.types("INSERT INTO lines SELECT 'kept not' FROM pg_sleep(600);");
        runs(scene, "INSERT INTO lines");
        terminal.presses_ctrl_c();
        terminal.shows(CANCELED);
        terminal.shows("app=!> ");
        terminal.types("COMMIT;");
        terminal.shows("app=> ");
        terminal.types("SELECT 'lines: ' || count(*) FROM lines;");
        terminal.shows("lines: 0");
    });
}

#[test]
fn ctrl_c_ends_copy_to_stdout_in_its_middle() {
    at_a_terminal(|scene, terminal| {
        terminal.types("COPY (SELECT 'li' || 'ne', generate_series(1, 1000000000)) TO STDOUT;");
        terminal.shows("line\t5000\r");
        terminal.presses_ctrl_c();
        terminal.shows(CANCELED);
        terminal.is_usable();
        // Rows that psql collects.
        terminal.types("SELECT generate_series(1, 1000000000);");
        runs(scene, "SELECT generate_series");
        terminal.presses_ctrl_c();
        terminal.shows(CANCELED);
    });
}

#[test]
fn ctrl_c_ends_copy_from_stdin_and_nothing_of_it_is_kept() {
    at_a_terminal(|_, terminal| {
        terminal.types("COPY lines FROM STDIN;");
        terminal.shows(">> ");
        terminal.types("one");
        terminal.shows(">> ");
        terminal.presses_ctrl_c();
        terminal.shows("COPY from stdin failed: canceled by user");
        terminal.is_usable();
        terminal.types("SELECT 'lines: ' || count(*) FROM lines;");
        terminal.shows("lines: 0");
        // The next one works.
        terminal.types("COPY lines FROM STDIN;");
        terminal.shows(">> ");
        terminal.types("two\n\\.");
        terminal.types("DELETE FROM lines RETURNING 'gone: ' || line;");
        terminal.shows("gone: two");
    });
}

#[test]
fn ctrl_c_ends_watch() {
    at_a_terminal(|_, terminal| {
        terminal.types("SELECT 'watch' || 'ed' \\watch 0.01");
        (0..3).for_each(|_| terminal.shows("watched"));
        terminal.presses_ctrl_c();
        // The loop's own end, or the statement's, if it was under way.
        terminal.shows("=> ");
    });
}
