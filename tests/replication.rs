//! Replication connections pass through to the primary: PostgreSQL's own programs, and bytes by hand.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use pgweir::devcluster::{APP, APP_DATABASE, Options, REPLICATION};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use wire_client::*;
use wire_world::*;

fn world(replicas: usize) -> World {
    let world = World::start(Options::with_replicas(replicas).set("wal_level", "logical"));
    world.cluster.primary().sql_as(APP.name, APP_DATABASE, "CREATE TABLE events (n int)").unwrap();
    world
}

static WORLD: LazyLock<World> = LazyLock::new(|| world(0));

fn auth() -> String {
    let user =
        |user: pgweir::devcluster::DevUser| format!("{{ name: {}, password: {} }}", user.name, user.password);
    format!("{{ users: [ {}, {} ] }}", user(APP), user(REPLICATION))
}

fn proxy(world: &World, more: &[(&str, &str)]) -> Running {
    let auth = auth();
    let sections: Vec<_> = [("auth", &*auth)].into_iter().chain(more.iter().copied()).collect();
    world.proxy(&sections)
}

/// A login with `replication`, under a name by which its server process is known.
fn replicator(value: &str, name: &str) -> Login {
    let login = Login::new(REPLICATION.name, REPLICATION.password, APP_DATABASE);
    login.with("replication", value).with("application_name", name)
}

/// One of PostgreSQL's programs, going through pgweir. `None` where the installation lacks it.
fn program(proxy: &Running, name: &str, arguments: &[&str]) -> Option<Command> {
    let path = WORLD.cluster.binaries().program(name);
    if !path.is_file() {
        println!("skipped: there is no {name} in {}", WORLD.cluster.binaries().folder().display());
        return None;
    }
    let mut command = Command::new(path);
    command
        .args(["-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", REPLICATION.name, "-w"])
        .args(arguments)
        .env("PGPASSWORD", REPLICATION.password)
        .stdin(Stdio::null());
    Some(command)
}

fn must_work(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Ends a program that would go on for ever.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until neither pgweir nor the server knows this one any more.
fn wait_gone(proxy: &Running, application: &str) {
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}'");
    let is_gone = || WORLD.cluster.primary().sql_value(&count).unwrap().as_deref() == Some("0");
    wait_until("both ends are closed", || proxy.clients() == 0 && is_gone());
}

/// In the middle of a stream: CopyBothResponse has come, WAL comes.
fn streaming(port: u16, name: &str) -> Wire {
    let mut wire = Wire::connect(port, &replicator("true", name)).unwrap();
    let system = rows_of(&wire.run("IDENTIFY_SYSTEM"));
    let (timeline, position) = (system[0][1].clone().unwrap(), system[0][2].clone().unwrap());
    wire.send(&query(&format!("START_REPLICATION PHYSICAL {position} TIMELINE {timeline}")));
    assert_eq!(wire.next().tag, b'W');
    wire
}

#[test]
fn pg_basebackup_copies_the_cluster() {
    let proxy = proxy(&WORLD, &[]);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("copy");
    let target = target.to_str().unwrap();
    let Some(mut backup) =
        program(&proxy, "pg_basebackup", &["-D", target, "-X", "stream", "-c", "fast", "-R"])
    else {
        return;
    };
    must_work(&backup.output().unwrap());
    let verify = WORLD.cluster.binaries().program("pg_verifybackup");
    must_work(&Command::new(verify).args(["-e", target]).output().unwrap());
    wait_gone(&proxy, "pg_basebackup");
}

#[test]
fn pg_receivewal_keeps_the_log() {
    let proxy = proxy(&WORLD, &[]);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().to_str().unwrap();
    let slot = ["-D", target, "--slot", "receiver"];
    let run = |more: &[&str]| program(&proxy, "pg_receivewal", &[&slot[..], more].concat());
    let Some(mut create) = run(&["--create-slot"]) else { return };
    must_work(&create.output().unwrap());
    let receiver = Process(run(&["--no-loop"]).unwrap().spawn().unwrap());
    let primary = WORLD.cluster.primary();
    let active = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'receiver' AND active";
    wait_until("it streams", || primary.sql_value(active).unwrap().as_deref() == Some("1"));
    let write = "INSERT INTO events SELECT generate_series(1, 1000)";
    primary.sql_as(APP.name, APP_DATABASE, write).unwrap();
    // Inside of a segment: a position at its start would have the name of the one before.
    let segment = primary.sql_value("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap().unwrap();
    primary.sql("SELECT pg_switch_wal()").unwrap();
    let (kept, original) =
        (folder.path().join(&segment), primary.data_folder().join("pg_wal").join(&segment));
    wait_until("the segment is complete", || kept.is_file());
    let same = |one: &Path, other: &Path| std::fs::read(one).unwrap() == std::fs::read(other).unwrap();
    assert!(same(&kept, &original), "{segment}");
    drop(receiver);
    wait_gone(&proxy, "pg_receivewal");
    must_work(&run(&["--drop-slot"]).unwrap().output().unwrap());
}

#[test]
fn pg_recvlogical_decodes_what_is_written() {
    let proxy = proxy(&WORLD, &[]);
    let primary = WORLD.cluster.primary();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changes");
    let slot = ["-d", APP_DATABASE, "--slot", "decoder"];
    let run = |more: &[&str]| program(&proxy, "pg_recvlogical", &[&slot[..], more].concat());
    let Some(mut create) = run(&["--create-slot", "-P", "test_decoding"]) else { return };
    must_work(&create.output().unwrap());
    // Through pgweir too, and more than any buffer holds.
    let mut writer = proxy.client();
    writer.run("CREATE TABLE decoded (n int, word text)");
    writer.run("INSERT INTO decoded SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n");
    let end = primary.sql_value("SELECT pg_current_wal_lsn()").unwrap().unwrap();
    let file = file.to_str().unwrap();
    must_work(
        &run(&["--start", "--endpos", &end, "-f", file, "-o", "include-xids=0"]).unwrap().output().unwrap(),
    );
    let changes = std::fs::read_to_string(file).unwrap();
    let inserts =
        changes.lines().filter(|line| line.starts_with("table public.decoded: INSERT: n[integer]:"));
    let numbers: Vec<usize> =
        inserts.filter_map(|line| line.split(':').nth(3)?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(numbers, (1..=20000).collect::<Vec<_>>());
    must_work(&run(&["--drop-slot"]).unwrap().output().unwrap());
}

#[test]
fn a_logical_connection_speaks_sql_and_replication_and_can_be_canceled() {
    let proxy = proxy(&WORLD, &[]);
    let mut wire = Wire::connect(proxy.port, &replicator("database", "me").speaking(2)).unwrap();
    assert_eq!(wire.rows("IDENTIFY_SYSTEM")[0][3].as_deref(), Some(APP_DATABASE));
    assert_eq!(wire.value("SELECT current_setting('application_name')"), "me");
    wire.send(&query("SELECT pg_sleep(60)"));
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
    wait_until("it runs", || WORLD.cluster.primary().sql_value(running).unwrap().as_deref() == Some("1"));
    cancel(proxy.port, wire.pid, &wire.secret);
    assert_eq!(error_of(&wire.until_ready()).unwrap().sqlstate(), "57014");
    assert!(error_of(&wire.query("SELEKT")).is_some());

    // First: what others write between the two would be decoded without it.
    let publication = "CREATE PUBLICATION everything FOR TABLE events";
    WORLD.cluster.primary().sql_as("postgres", APP_DATABASE, publication).unwrap();
    let created = wire.run("CREATE_REPLICATION_SLOT \"by_hand\" TEMPORARY LOGICAL pgoutput");
    let position = rows_of(&created)[0][1].clone().unwrap();
    let insert = "INSERT INTO events VALUES (4711)";
    WORLD.cluster.primary().sql_as(APP.name, APP_DATABASE, insert).unwrap();
    wire.send(&query(&format!(
        "START_REPLICATION SLOT \"by_hand\" LOGICAL {position} (proto_version '1', publication_names 'everything')"
    )));
    assert_eq!(wire.next().tag, b'W');
    // The change comes, and after CopyDone of both sides the session goes on.
    while !wire.next().body.ends_with(b"4711") {}
    wire.send(&copy_done());
    let rest = wire.until_ready();
    assert!(tags(&rest).contains('c') && tags(&rest).ends_with("CCZ"), "{}", tags(&rest));
    assert_eq!(wire.value("SELECT 1"), "1");

    let mut console = Wire::connect(proxy.port, &Login::new(APP.name, APP.password, "pgweir")).unwrap();
    let shown = console.rows("SHOW CLIENTS");
    let states: Vec<_> =
        shown.iter().map(|row| (row[1].as_deref().unwrap(), row[3].as_deref().unwrap())).collect();
    assert!(states.contains(&(REPLICATION.name, "replicating")), "{states:?}");
    wire.terminate();
    console.terminate();
    wait_gone(&proxy, "me");
    WORLD.cluster.primary().sql_as("postgres", APP_DATABASE, "DROP PUBLICATION everything").unwrap();
}

#[test]
fn who_may_not_replicate_is_told_by_the_server_and_how_many_may_is_bounded() {
    let proxy = proxy(&WORLD, &[("limits", "{ replication_clients: 1 }")]);
    let refused = |login: Login| {
        let frame = Wire::connect(proxy.port, &login).err().unwrap();
        (frame.sqlstate(), frame.message())
    };
    let direct = |login: Login| Wire::connect(WORLD.direct(), &login).err().unwrap().sqlstate();
    for value in ["database", "true"] {
        let login = app().with("replication", value);
        assert_eq!(refused(login.clone()).0, direct(login), "{value}");
    }
    let wrong = Login::new(REPLICATION.name, "wrong", APP_DATABASE).with("replication", "true");
    assert_eq!(refused(wrong).0, "28P01");
    let one = streaming(proxy.port, "vanishing");
    assert_eq!(
        refused(replicator("true", "one too many")),
        ("53300".to_owned(), "too many replication connections".to_owned())
    );
    // Whoever vanishes in the middle of a stream is missed, on both ends.
    one.vanish();
    wait_gone(&proxy, "vanishing");
    Wire::connect(proxy.port, &replicator("off", "plain")).unwrap().terminate();
    drop(Wire::connect(proxy.port, &replicator("on", "next")).unwrap());
}

#[test]
fn at_shutdown_a_stream_ends_between_two_messages() {
    let program = Program::start(&WORLD, &[("auth", &auth())]);
    let mut wire = streaming(program.port, "until the end");
    let primary = WORLD.cluster.primary();
    let insert = "INSERT INTO events SELECT generate_series(1, 100000)";
    primary.sql_as(APP.name, APP_DATABASE, insert).unwrap();
    program.signal(rustix::process::Signal::TERM);
    let frames = wire.until_closed();
    let last = frames.last().unwrap();
    assert_eq!((last.tag, &*last.sqlstate()), (b'E', "57P01"), "{last:?}");
    assert!(frames[..frames.len() - 1].iter().all(|frame| frame.tag == b'd'), "{}", tags(&frames));
}

#[test]
fn when_another_node_becomes_the_primary_a_stream_begins_anew_there() {
    let world = world(1);
    let proxy = proxy(&world, &[]);
    let mut wire = streaming(proxy.port, "follower");
    // Frozen, the old primary closes nothing.
    world.cluster.primary().sigstop().unwrap();
    world.cluster.replica(0).promote().unwrap();
    let frames = wire.until_closed();
    let last = frames.last().unwrap();
    assert_eq!((last.tag, &*last.sqlstate()), (b'E', "57P01"), "{last:?}");
    let mut wire = Wire::connect(proxy.port, &replicator("true", "again")).unwrap();
    assert_eq!(wire.rows("IDENTIFY_SYSTEM")[0][1].as_deref(), Some("2"));
    world.cluster.primary().sigcont().unwrap();
}
