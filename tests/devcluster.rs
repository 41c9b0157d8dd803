//! The development cluster keeps its own promises: other tests stand on it.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pgweir::devcluster::{DevCluster, DevNode, Options, Stop};
use rustix::process::{Pid, Signal, kill_process};

const LONG: Duration = Duration::from_secs(30);
const COUNT: &str = "SELECT count(*) FROM t";

/// Makes the second copy of this test binary own a cluster until it is killed.
const OWNER: &str = "PGWEIR_TEST_OWNS_A_CLUSTER";

fn with_table(options: Options) -> DevCluster {
    let cluster = DevCluster::start(options).unwrap();
    cluster.primary().sql("CREATE TABLE t (id int)").unwrap();
    cluster.wait_caught_up(LONG).unwrap();
    cluster
}

fn count(node: &DevNode) -> String {
    node.sql_value(COUNT).unwrap().unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Processes that work in the folder: a server's postmaster and children all do.
fn processes_in(folder: &Path) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// System V segments of the machine, by id: a postmaster leaves its own behind when it is killed.
fn shared_memory(pid: u32) -> usize {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    table.lines().filter(|l| l.split_whitespace().nth(4) == Some(&pid.to_string())).count()
}

#[test]
fn what_the_primary_commits_appears_on_every_replica() {
    let cluster = with_table(Options::default());
    cluster.primary().sql("INSERT INTO t VALUES (1)").unwrap();
    cluster.wait_caught_up(LONG).unwrap();
    assert_eq!(cluster.replicas().len(), 2);
    for replica in cluster.replicas() {
        assert_eq!(count(replica), "1");
        assert!(replica.is_in_recovery().unwrap());
    }
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE active";
    assert_eq!(cluster.primary().sql_value(slots).unwrap().as_deref(), Some("2"));
}

#[test]
fn an_apply_delay_holds_commits_back_until_it_is_lifted() {
    let options = Options { apply_delay: Duration::from_secs(3600), ..Options::with_replicas(1) };
    let cluster = DevCluster::start(options).unwrap();
    let replica = cluster.replica(0);
    cluster.primary().sql("CREATE TABLE t (id int)").unwrap();
    assert!(replica.wait_caught_up(cluster.primary(), Duration::from_millis(500)).is_err());
    assert!(replica.sql(COUNT).unwrap_err().to_string().contains("42P01"));
    replica.set_apply_delay(Duration::ZERO).unwrap();
    cluster.wait_caught_up(LONG).unwrap();
    assert_eq!(count(replica), "0");
}

#[test]
fn paused_replay_stands_still_until_it_is_resumed() {
    let cluster = with_table(Options::with_replicas(1));
    let replica = cluster.replica(0);
    replica.pause_replay().unwrap();
    cluster.primary().sql("INSERT INTO t VALUES (1)").unwrap();
    assert!(replica.wait_caught_up(cluster.primary(), Duration::from_millis(300)).is_err());
    assert_eq!(count(replica), "0");
    replica.resume_replay().unwrap();
    cluster.wait_caught_up(LONG).unwrap();
    assert_eq!(count(replica), "1");
}

#[test]
fn a_killed_node_comes_back_on_its_port_with_its_data() {
    let cluster = with_table(Options::with_replicas(1));
    cluster.primary().sql("INSERT INTO t VALUES (1)").unwrap();
    for node in [cluster.replica(0), cluster.primary()] {
        node.sigkill().unwrap();
        assert!(node.postmaster_pid().is_none());
        assert!(node.sql("SELECT 1").is_err());
        node.start().unwrap();
    }
    cluster.primary().sql("INSERT INTO t VALUES (2)").unwrap();
    cluster.replica(0).wait_streaming(LONG).unwrap();
    cluster.wait_caught_up(LONG).unwrap();
    assert_eq!(count(cluster.replica(0)), "2");
}

#[test]
fn a_killed_server_process_restarts_the_whole_server() {
    let cluster = DevCluster::start(Options::with_replicas(0)).unwrap();
    let node = cluster.primary();
    let checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let pid: u32 = node.sql_value(checkpointer).unwrap().unwrap().parse().unwrap();
    let postmaster = node.postmaster_pid();
    node.sigkill_backend(pid).unwrap();
    wait_until("the server is back with another checkpointer", || {
        node.sql_value(checkpointer).is_ok_and(|now| now.is_some_and(|now| now != pid.to_string()))
    });
    assert_eq!(node.postmaster_pid(), postmaster);
    assert!(node.sigkill_backend(1).is_err(), "only the node's own processes may be killed");
}

#[test]
fn a_frozen_node_answers_nobody_until_it_is_thawed() {
    let cluster = with_table(Options::with_replicas(1));
    let replica = cluster.replica(0);
    replica.sigstop().unwrap();
    thread::scope(|scope| {
        let answer = scope.spawn(|| replica.sql("SELECT 1"));
        // Nothing can tell that an answer will never come; this long it does not.
        thread::sleep(Duration::from_millis(300));
        assert!(!answer.is_finished());
        replica.sigcont().unwrap();
        assert_eq!(answer.join().unwrap().unwrap().len(), 1);
    });
}

#[test]
fn a_frozen_node_can_be_stopped_and_killed() {
    let cluster = DevCluster::start(Options::with_replicas(1)).unwrap();
    cluster.replica(0).sigstop().unwrap();
    cluster.replica(0).stop(Stop::Fast).unwrap();
    cluster.primary().sigstop().unwrap();
    cluster.primary().sigkill().unwrap();
    assert!(cluster.nodes().iter().all(|node| node.postmaster_pid().is_none()));
}

#[test]
fn a_promoted_replica_leads_the_other_and_takes_the_old_primary_back() {
    let cluster = with_table(Options::default());
    let (old, new, other) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    // The other one is behind at the fork, never ahead: it can follow without a new copy.
    other.pause_replay().unwrap();
    old.sql("INSERT INTO t VALUES (1)").unwrap();
    new.wait_caught_up(old, LONG).unwrap();
    other.resume_replay().unwrap();
    other.wait_caught_up(old, LONG).unwrap();
    new.promote().unwrap();
    // This one is lost with the old timeline.
    old.sql("INSERT INTO t VALUES (666)").unwrap();
    old.sigkill().unwrap();
    new.sql("INSERT INTO t VALUES (2)").unwrap();
    old.reattach(new).unwrap();
    old.wait_caught_up(new, LONG).unwrap();
    assert!(old.is_in_recovery().unwrap());
    assert_eq!(old.sql_value("SELECT max(id) FROM t").unwrap().as_deref(), Some("2"));
    other.reattach(new).unwrap();
    other.wait_caught_up(new, LONG).unwrap();
    assert_eq!(count(other), "2");
}

#[test]
fn a_standby_follows_another_primary_without_a_restart() {
    let cluster = with_table(Options::default());
    let (old, new, other) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.stop(Stop::Fast).unwrap();
    new.promote().unwrap();
    let postmaster = other.postmaster_pid();
    other.follow(new).unwrap();
    new.sql("INSERT INTO t VALUES (1)").unwrap();
    other.wait_caught_up(new, LONG).unwrap();
    assert_eq!(count(other), "1");
    assert_eq!(other.postmaster_pid(), postmaster);
}

#[test]
fn clusters_stand_side_by_side() {
    let clusters: Vec<DevCluster> = thread::scope(|scope| {
        let starting: Vec<_> =
            (0..2).map(|_| scope.spawn(|| DevCluster::start(Options::with_replicas(1)))).collect();
        starting.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    let mut ports: Vec<u16> = clusters.iter().flat_map(DevCluster::nodes).map(DevNode::port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
    let id = "SELECT system_identifier FROM pg_control_system()";
    let ids: Vec<_> = clusters.iter().map(|c| c.primary().sql_value(id).unwrap()).collect();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn the_monitor_user_may_look_secrets_up_and_nobody_else_may() {
    let cluster = DevCluster::start(Options::with_replicas(0)).unwrap();
    let lookup = "SELECT secret FROM pgweir.user_lookup('md5user')";
    let rows = cluster.primary().sql_as("pgweir", "postgres", lookup).unwrap();
    assert!(rows[0][0].as_ref().unwrap().starts_with("md5"));
    let refused = cluster.primary().sql_as("app", "postgres", lookup).unwrap_err();
    assert!(refused.to_string().contains("42501"), "{refused}");
}

#[test]
fn settings_of_a_test_win_over_the_clusters_own() {
    let options = Options::with_replicas(0).set("max_connections", "33").set("application_name", "it's");
    let cluster = DevCluster::start(options).unwrap();
    assert_eq!(cluster.primary().sql_value("SHOW max_connections").unwrap().as_deref(), Some("33"));
    cluster.primary().set("work_mem", "5MB").unwrap();
    assert_eq!(cluster.primary().sql_value("SHOW work_mem").unwrap().as_deref(), Some("5MB"));
}

#[test]
fn a_setting_that_the_server_refuses_is_reported_with_its_log() {
    let error = DevCluster::start(Options::with_replicas(0).set("no_such_setting", "1")).unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn nothing_is_left_after_a_drop() {
    let cluster = DevCluster::start(Options::with_replicas(1)).unwrap();
    let folder = cluster.folder().to_owned();
    let killed = cluster.primary().postmaster_pid().unwrap();
    assert!(!processes_in(&folder).is_empty());
    cluster.primary().sigkill().unwrap();
    drop(cluster);
    assert!(!folder.exists());
    assert_eq!(processes_in(&folder), Vec::<String>::new());
    assert_eq!(shared_memory(killed), 0);
}

#[test]
fn nothing_is_left_after_a_panic() {
    let folder = std::sync::Mutex::new(PathBuf::new());
    let panicked = thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let cluster = DevCluster::start(Options::with_replicas(0)).unwrap();
            folder.lock().unwrap().push(cluster.folder());
            std::panic::resume_unwind(Box::new("a test failed"));
        });
        owner.join().is_err()
    });
    let folder = folder.into_inner().unwrap();
    assert!(panicked && folder.starts_with("/"));
    assert!(!folder.exists());
    assert_eq!(processes_in(&folder), Vec::<String>::new());
}

#[test]
fn nothing_is_left_after_the_owner_was_killed() {
    nothing_is_left_after(Signal::KILL);
}

#[test]
fn nothing_is_left_after_the_owner_was_interrupted() {
    nothing_is_left_after(Signal::INT);
}

#[test]
fn owner_for_the_tests_that_kill_it() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let cluster = DevCluster::start(Options::with_replicas(1)).unwrap();
    // A frozen replica is the hardest to get rid of.
    cluster.replica(0).sigstop().unwrap();
    println!("\nfolder={}", cluster.folder().display());
    let mut end = Vec::new();
    std::io::stdin().read_to_end(&mut end).unwrap();
}

fn nothing_is_left_after(signal: Signal) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_for_the_tests_that_kill_it", "--nocapture"])
        .env(OWNER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = folder_of(&mut owner);
    assert!(!processes_in(&folder).is_empty());
    kill_process(Pid::from_child(&owner), signal).unwrap();
    owner.wait().unwrap();
    wait_until("the folder goes", || !folder.exists());
    wait_until("the processes go", || processes_in(&folder).is_empty());
}

fn folder_of(owner: &mut Child) -> PathBuf {
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).find_map(|l| l.strip_prefix("folder=").map(PathBuf::from)).unwrap()
}
