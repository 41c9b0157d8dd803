//! psql prints through pgweir, byte for byte, what it prints directly: scripts in the manner of
//! PostgreSQL's manual, which use every SQL command of its reference.
//!
//! Each script runs three times, directly and in both pool modes, each time in a new database of the
//! same name. `-- needs: 15` in its first line skips it on older servers.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use harness::*;
use pgweir::devcluster::{Options, SUPERUSER};

static STAGE: OnceLock<Stage> = OnceLock::new();

fn scene() -> Scene {
    Scene::on(&STAGE, || {
        // Autovacuum changes plans and statistics under the scripts.
        let options = Options::with_replicas(1).set("autovacuum", "off");
        Stage::with(options, &[NO_WRITER])
    })
}

/// Scripts at a time. They share roles' and databases' names with nobody.
const WORKERS: usize = 2;

/// What a script may print differently through pgweir: its name, a part of the direct line, why.
/// There is nothing of the kind.
const ALLOWED: &[(&str, &str, &str)] = &[];

#[test]
fn psql_prints_through_pgweir_what_it_prints_directly() {
    let scene = scene();
    let Some(psql) = Psql::find(&scene) else { return };
    let session = Tuning { pool: vec!["mode: session".to_owned()], ..Tuning::default() };
    // What may be read on a replica is read there, however busy the machine is.
    let weirs = [scene.weir_with(&Tuning::patient(&[])), scene.weir_with(&session)];
    let ways = [
        Way { name: "directly", port: scene.cluster.primary().port() },
        Way { name: "in transaction mode", port: weirs[0].address.port() },
        Way { name: "in session mode", port: weirs[1].address.port() },
    ];
    let before = shared_objects(&scene);
    let queue = Mutex::new(scripts());
    let (ran, wrong) = (Mutex::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(script) = next(&queue) {
                    if psql.server < script.needs {
                        println!("skipped: {} needs PostgreSQL {}", script.name, script.needs);
                        continue;
                    }
                    let differences = compare(&scene, &psql, &script, &ways);
                    wrong.lock().unwrap().extend(differences);
                    *ran.lock().unwrap() += 1;
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(shared_objects(&scene), before, "scripts leave nothing behind");
    let (ran, on_replicas) = (ran.into_inner().unwrap(), reads_on_replicas(&weirs[0]));
    println!("{ran} scripts printed the same in three ways; {on_replicas} statements ran on the replica");
    assert!(ran >= 60, "{ran}");
    assert!(on_replicas > 0, "splitting is on");
}

fn next(queue: &Mutex<Vec<Script>>) -> Option<Script> {
    queue.lock().unwrap().pop()
}

fn reads_on_replicas(weir: &Weir<'_>) -> u64 {
    weir.counts().iter().filter(|(went, _)| went.role == "replica").map(|(_, count)| count).sum()
}

/// One of the ways to the server.
struct Way {
    name: &'static str,
    port: u16,
}

struct Script {
    name: String,
    path: PathBuf,
    needs: u32,
    text: String,
}

/// The scripts, the last first.
fn scripts() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manual");
    let mut scripts: Vec<Script> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let needs = text.lines().next().and_then(|line| line.strip_prefix("-- needs: "));
            let needs = needs.map_or(0, |number| number.trim().parse().unwrap());
            Script { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), path, needs, text }
        })
        .collect();
    scripts.sort_by(|a, b| b.name.cmp(&a.name));
    scripts
}

/// What psql said, and how it ended.
#[derive(PartialEq, Eq)]
struct Said {
    stdout: String,
    stderr: String,
    status: String,
}

/// Runs the script in all ways, and says where one prints something else than the first.
fn compare(scene: &Scene, psql: &Psql, script: &Script, ways: &[Way]) -> Vec<String> {
    let [direct, others @ ..] = ways else { return Vec::new() };
    let expected = run(scene, psql, script, direct);
    let mut wrong = Vec::new();
    for way in others {
        let said = run(scene, psql, script, way);
        let parts = [
            ("stdout", &expected.stdout, &said.stdout),
            ("stderr", &expected.stderr, &said.stderr),
            ("exit", &expected.status, &said.status),
        ];
        for (what, expected, said) in parts {
            if let Some(difference) = difference(&script.name, expected, said) {
                wrong.push(format!("{} {}, {what}:\n{difference}", script.name, way.name));
            }
        }
    }
    if !wrong.is_empty() && run(scene, psql, script, direct) != expected {
        wrong.push(format!("{} does not print the same twice directly either", script.name));
    }
    wrong
}

/// The first line that differs without leave, with what surrounds it.
fn difference(script: &str, expected: &str, said: &str) -> Option<String> {
    let (mut left, mut right) = (expected.lines(), said.lines());
    let mut passed: Vec<&str> = Vec::new();
    loop {
        let (expected, said) = (left.next(), right.next());
        if expected.is_none() && said.is_none() {
            return None;
        }
        let allowed =
            |line: &str| ALLOWED.iter().any(|(name, part, _)| *name == script && line.contains(part));
        if expected == said || expected.is_some_and(allowed) {
            passed.extend(expected);
            continue;
        }
        let context = passed[passed.len().saturating_sub(4)..].iter().map(|line| format!("    {line}\n"));
        let expected = marked('-', expected.into_iter().chain(left));
        return Some(context.collect::<String>() + &expected + &marked('+', said.into_iter().chain(right)));
    }
}

fn marked<'a>(mark: char, lines: impl Iterator<Item = &'a str>) -> String {
    lines.take(4).map(|line| format!("  {mark} {line}\n")).collect()
}

/// A run in a database and a folder of its own.
fn run(scene: &Scene, psql: &Psql, script: &Script, way: &Way) -> Said {
    let database = format!("manual_{}", script.name);
    let admin = |sql: String| scene.cluster.primary().sql_as(SUPERUSER.name, "postgres", &sql).unwrap();
    admin(format!("CREATE DATABASE {database}"));
    let folder = tempfile::tempdir().unwrap();
    let said = psql.run(folder.path(), way.port, &database, &["-a", "-f", script.path.to_str().unwrap()]);
    admin(format!("DROP DATABASE {database} WITH (FORCE)"));
    said
}

/// What belongs to no single database.
fn shared_objects(scene: &Scene) -> Vec<String> {
    let sql = "SELECT 'role ' || rolname FROM pg_roles UNION ALL SELECT 'database ' || datname FROM pg_database \
               UNION ALL SELECT 'tablespace ' || spcname FROM pg_tablespace \
               UNION ALL SELECT 'subscription ' || subname FROM pg_subscription \
               UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts ORDER BY 1";
    let rows = scene.cluster.primary().sql(sql).unwrap();
    rows.into_iter().flatten().flatten().collect()
}

/// The client program.
struct Psql {
    program: PathBuf,
    /// The server's major version.
    server: u32,
}

impl Psql {
    /// None, with the reason printed, where there is none that knows this server.
    fn find(scene: &Scene) -> Option<Psql> {
        let binaries = scene.cluster.binaries();
        let server = binaries.major();
        let Some(program) = binaries.optional_program("psql") else {
            println!("skipped: there is no psql");
            return None;
        };
        let version = Command::new(&program).arg("--version").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let major = version.split_whitespace().nth(2).and_then(|number| number.split('.').next());
        let major: u32 = major.unwrap().trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        if major < server {
            println!("skipped: psql is of version {major}, the server of version {server}");
            return None;
        }
        Some(Psql { program, server })
    }

    /// Starts psql as the superuser, with its output in files of this folder.
    fn spawn(&self, folder: &Path, port: u16, database: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new(&self.program);
        command.arg("-X").args(arguments).current_dir(folder).stdin(Stdio::null());
        command.stdout(File::create(folder.join("stdout")).unwrap());
        command.stderr(File::create(folder.join("stderr")).unwrap());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(name);
        }
        command.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGDATABASE", database);
        command.env("PGUSER", SUPERUSER.name).env("PGPASSWORD", SUPERUSER.password).env("LC_ALL", "C");
        command.spawn().unwrap()
    }

    /// Runs it to its end.
    fn run(&self, folder: &Path, port: u16, database: &str, arguments: &[&str]) -> Said {
        let mut child = self.spawn(folder, port, database, arguments);
        let status = ended(&mut child);
        said(folder, status)
    }
}

/// Waits until it has ended; kills it when it does not.
fn ended(child: &mut Child) -> Option<ExitStatus> {
    let end = Instant::now() + LONG;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn said(folder: &Path, status: Option<ExitStatus>) -> Said {
    let read = |name: &str| String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap()).into_owned();
    Said {
        stdout: without_processes(&read("stdout")),
        stderr: without_processes(&read("stderr")),
        status: status.map_or_else(|| "it did not end".to_owned(), |status| status.to_string()),
    }
}

/// Every connection has another server process: `from server process with PID 123` becomes `… PID N`.
fn without_processes(text: &str) -> String {
    let mut parts = text.split("with PID ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push_str("with PID N");
        whole.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    whole
}

#[test]
fn every_command_of_the_reference_is_in_some_script() {
    let statements: Vec<String> = scripts().iter().flat_map(|script| statements(&script.text)).collect();
    let commands = commands();
    assert_eq!(commands.len(), 185, "none is listed twice");
    let missing: Vec<&String> = commands
        .iter()
        .filter(|command| !statements.iter().any(|statement| is_command(statement, command)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// In capitals, a space between words, without comments that begin a line.
fn statements(script: &str) -> Vec<String> {
    let lines = script.lines().map(str::trim_start);
    let code: Vec<&str> = lines.filter(|line| !line.starts_with("--") && !line.starts_with('\\')).collect();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
    code.join("\n")
        .replace("\\gx", ";")
        .replace("\\g", ";")
        .split(';')
        .map(|text| words(text.trim_end_matches('\\')))
        .collect()
}

/// `CREATE TABLE … AS`: begins with the words before the dots, and has those behind them.
fn is_command(statement: &str, command: &str) -> bool {
    let (begins, has) = command.split_once(" … ").unwrap_or((command, ""));
    statement.strip_prefix(begins).is_some_and(|rest| {
        let whole_words = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        whole_words && (has.is_empty() || rest.split(' ').any(|word| word == has))
    })
}

/// Every SQL command of the reference.
fn commands() -> BTreeSet<String> {
    let of = |verb: &'static str, objects: &'static str| {
        objects.split(',').map(move |object| format!("{verb} {}", object.trim()))
    };
    OTHERS
        .split(',')
        .map(|command| command.trim().to_owned())
        .chain(["ALTER", "CREATE", "DROP"].into_iter().flat_map(|verb| of(verb, OBJECTS)))
        .chain(of("ALTER", ALTERED))
        .chain(of("CREATE", CREATED))
        .chain(of("DROP", DROPPED))
        .collect()
}

/// What is created, altered and dropped.
const OBJECTS: &str = "AGGREGATE, COLLATION, CONVERSION, DATABASE, DOMAIN, EVENT TRIGGER, EXTENSION, \
    FOREIGN DATA WRAPPER, FOREIGN TABLE, FUNCTION, GROUP, INDEX, LANGUAGE, MATERIALIZED VIEW, OPERATOR, \
    OPERATOR CLASS, OPERATOR FAMILY, POLICY, PROCEDURE, PUBLICATION, ROLE, RULE, SCHEMA, SEQUENCE, SERVER, \
    STATISTICS, SUBSCRIPTION, TABLE, TABLESPACE, TEXT SEARCH CONFIGURATION, TEXT SEARCH DICTIONARY, \
    TEXT SEARCH PARSER, TEXT SEARCH TEMPLATE, TRIGGER, TYPE, USER, USER MAPPING, VIEW";

const ALTERED: &str = "DEFAULT PRIVILEGES, LARGE OBJECT, ROUTINE, SYSTEM";

const CREATED: &str = "ACCESS METHOD, CAST, TABLE … AS, TRANSFORM";

const DROPPED: &str = "ACCESS METHOD, CAST, OWNED, ROUTINE, TRANSFORM";

const OTHERS: &str = "ABORT, ANALYZE, BEGIN, CALL, CHECKPOINT, CLOSE, CLUSTER, COMMENT, COMMIT, \
    COMMIT PREPARED, COPY, DEALLOCATE, DECLARE, DELETE, DISCARD, DO, END, EXECUTE, EXPLAIN, FETCH, GRANT, \
    IMPORT FOREIGN SCHEMA, INSERT, LISTEN, LOAD, LOCK, MERGE, MOVE, NOTIFY, PREPARE, PREPARE TRANSACTION, \
    REASSIGN OWNED, REFRESH MATERIALIZED VIEW, REINDEX, RELEASE SAVEPOINT, RESET, REVOKE, ROLLBACK, \
    ROLLBACK PREPARED, ROLLBACK TO SAVEPOINT, SAVEPOINT, SECURITY LABEL, SELECT, SELECT … INTO, SET, \
    SET CONSTRAINTS, SET ROLE, SET SESSION AUTHORIZATION, SET TRANSACTION, SHOW, START TRANSACTION, TABLE, \
    TRUNCATE, UNLISTEN, UPDATE, VACUUM, VALUES, WITH";
