//! The checker finds what broken routing shows, and nothing where nothing is broken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/slow_socket.rs"]
mod slow_socket;

use harness::{LONG, NO_WRITER, Over, Scene, Stage, Tuning, Weir, wait_until};
use pgweir::checker::{Guarantee, Level};
use pgweir::cli::check_consistency::{Plan, Report, examine};
use pgweir::devcluster::{DevNode, Options};
use pgweir::freshness::defect::Defect;
use slow_socket::SlowSocket;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

static STAGE: OnceLock<Stage> = OnceLock::new();

fn scene() -> Scene {
    let scene = Scene::on(&STAGE, || Stage::with(Options::with_replicas(2), &[NO_WRITER]));
    set_delay(&scene, Duration::ZERO);
    scene.cluster.wait_caught_up(LONG).unwrap();
    scene
}

fn set_delay(scene: &Scene, delay: Duration) {
    scene.cluster.replicas().iter().for_each(|replica| replica.set_apply_delay(delay).unwrap());
}

/// Every examination has a schema of its own, so that a test that failed leaves nothing in the way.
fn plan(weir: &Weir<'_>) -> Plan {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Plan {
        schema: format!("check_{number}"),
        sessions: 16,
        slow_sessions: 4,
        async_sessions: 2,
        duration: LONG,
        ..Plan::of(weir.uri().parse().unwrap())
    }
}

/// Examines while `disturb` runs, and ends with it (or before, if the plan says so).
fn examine_while(scene: &Scene, plan: &Plan, disturb: impl FnOnce()) -> Report {
    let examined = thread::scope(|scope| {
        let examining = scope.spawn(|| scene.run(examine(plan, LONG, |_| {})));
        let over = Over(&plan.stop);
        disturb();
        drop(over);
        examining.join().unwrap()
    });
    let report = examined.unwrap();
    println!("{}", report.table(3));
    report
}

/// The same until a violation is found; `disturb` goes on until then.
fn hunt(scene: &Scene, plan: Plan, mut disturb: impl FnMut()) -> Report {
    let plan = Plan { until_found: true, ..plan };
    let report = thread::scope(|scope| {
        let examining = scope.spawn(|| scene.run(examine(&plan, LONG, |_| {})));
        while !examining.is_finished() {
            disturb();
            thread::sleep(Duration::from_millis(20));
        }
        examining.join().unwrap().unwrap()
    });
    println!("{}", report.table(1));
    report
}

fn assert_found(report: &Report, guarantees: &[Guarantee]) {
    assert!(
        report.counts.keys().any(|found| guarantees.contains(found)),
        "nothing was found where it had to be\n{}",
        report.table(3)
    );
    let violation = &report.violations[0];
    let text = violation.describe(&report.names);
    assert!(text.contains("\n  1. session") && text.contains("\n  2. session"), "{text}");
}

const OF_A_SESSION: [Guarantee; 2] = [Guarantee::ReadYourWrites, Guarantee::MonotonicReads];

fn defective(defect: Defect) -> Tuning {
    Tuning { defect, ..Tuning::default() }
}

/// A process of the replica that serves the application, if there is one.
fn serving_process(replica: &DevNode) -> Option<u32> {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend' LIMIT 1";
    replica.sql_value(sql).ok().flatten()?.parse().ok()
}

/// `kill -9` of one server process: the replica replays from its restartpoint.
fn crash(replica: &DevNode) {
    let openings = || replica.log().matches("accept read-only connections").count();
    let before = openings();
    wait_until("one of its server processes is killed", || {
        serving_process(replica).is_some_and(|pid| replica.sigkill_backend(pid).is_ok())
    });
    wait_until("it has restarted", || openings() > before);
}

/// Replicas lag, pause, crash, freeze, and are killed; nothing may be found.
fn assert_clean_under_faults(name: &str, level: Level) {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::routing(&[&format!("consistency: {name}")]));
    let (one, other) = (scene.cluster.replica(0), scene.cluster.replica(1));
    // The sessions are there as long as the faults go on.
    let duration = 5 * LONG;
    let plan = Plan { level, rest: Duration::from_millis(3), slow_sessions: 6, duration, ..plan(&weir) };
    let report = examine_while(&scene, &plan, || {
        wait_until("the sessions have begun", || serving_process(one).is_some());
        for delay in [300, 0, 40, 0] {
            set_delay(&scene, Duration::from_millis(delay));
            one.pause_replay().unwrap();
            weir.wait_node(one.name(), "is seen as paused", |row| row.replay_paused);
            one.resume_replay().unwrap();
            crash(other);
            weir.wait_whole(3);
            other.sigstop().unwrap();
            weir.wait_node(other.name(), "is seen as frozen", |row| row.state != "up");
            other.sigcont().unwrap();
            weir.wait_whole(3);
        }
        one.sigkill().unwrap();
        one.start().unwrap();
        set_delay(&scene, Duration::ZERO);
        weir.wait_whole(3);
    });
    assert_eq!(report.violations_total(), 0, "{}", report.table(10));
    assert!(report.operations > 100 && report.replica_share() > 0.0, "{}", report.table(0));
}

#[test]
fn nothing_is_found_at_session_while_replicas_lag_pause_crash_and_freeze() {
    assert_clean_under_faults("session", Level::Session);
}

#[test]
fn nothing_is_found_at_strict_while_replicas_lag_pause_crash_and_freeze() {
    assert_clean_under_faults("strict", Level::Strict);
}

#[test]
fn nothing_is_found_at_global_while_replicas_lag_pause_crash_and_freeze() {
    assert_clean_under_faults("global", Level::Global);
}

#[test]
fn any_replica_is_found_out() {
    let scene = scene();
    let weir = scene.weir_with(&defective(Defect::AnyReplica));
    set_delay(&scene, Duration::from_millis(300));
    assert_found(&hunt(&scene, plan(&weir), || {}), &OF_A_SESSION);
}

#[test]
fn a_pin_shorter_than_the_lag_is_found_out() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::routing(&["consistency: eventual", "pin_after_write: 20ms"]));
    set_delay(&scene, Duration::from_millis(300));
    // Between two operations there is time for the pin to end.
    let plan = Plan { rest: Duration::from_millis(10), ..plan(&weir) };
    assert_found(&hunt(&scene, plan, || {}), &OF_A_SESSION);
}

#[test]
fn a_sample_that_was_in_flight_is_found_out_and_a_late_one_is_not_blamed() {
    let scene = scene();
    let slow = scene.run(SlowSocket::before(scene.cluster.primary().address()));
    for (defect, is_broken) in [(Defect::SampleInFlight, true), (Defect::None, false)] {
        let tuning = Tuning { interval: "300ms", detour: Some(slow.port), ..defective(defect) };
        let weir = scene.weir_with(&tuning);
        set_delay(&scene, Duration::from_millis(80));
        slow.delay(Duration::from_millis(160));
        let plan = plan(&weir);
        if is_broken {
            assert_found(&hunt(&scene, plan, || {}), &OF_A_SESSION);
        } else {
            let plan = Plan { operations: Some(3000), ..plan };
            let report = scene.run(examine(&plan, LONG, |_| {})).unwrap();
            assert_eq!(report.violations_total(), 0, "{}", report.table(10));
        }
        slow.delay(Duration::ZERO);
        set_delay(&scene, Duration::ZERO);
    }
}

#[test]
fn the_written_position_is_found_out_where_commits_are_asynchronous() {
    let scene = scene();
    let weir = scene.weir_with(&defective(Defect::WrittenPosition));
    let plan = Plan { async_sessions: 16, ..plan(&weir) };
    assert_found(&hunt(&scene, plan, || {}), &OF_A_SESSION);
}

#[test]
fn a_position_kept_across_a_crash_is_found_out() {
    let scene = scene();
    // By lag, the other replica would always be preferred.
    let tuning = Tuning { defect: Defect::KeptPosition, ..Tuning::routing(&["balance: random"]) };
    let weir = scene.weir_with(&tuning);
    let plan = Plan { sessions: 24, slow_sessions: 20, ..plan(&weir) };
    let mut is_settled = false;
    let report = hunt(&scene, plan, || {
        let replicas = scene.cluster.replicas();
        if replicas.iter().any(|replica| serving_process(replica).is_none()) {
            return;
        }
        if !std::mem::replace(&mut is_settled, true) {
            // What they return to is a state in which the tables are there.
            scene.cluster.primary().sql("CHECKPOINT").unwrap();
            scene.cluster.wait_caught_up(LONG).unwrap();
            replicas.iter().for_each(|replica| drop(replica.sql("CHECKPOINT").unwrap()));
        }
        // What they have shown they must replay again, and of that the delay keeps back what is not old.
        set_delay(&scene, Duration::from_secs(9));
        thread::scope(|scope| replicas.iter().for_each(|replica| drop(scope.spawn(|| crash(replica)))));
        thread::sleep(Duration::from_secs(2));
        set_delay(&scene, Duration::ZERO);
        weir.wait_whole(3);
    });
    assert_found(&report, &OF_A_SESSION);
}

#[test]
fn global_is_not_what_session_promises() {
    let scene = scene();
    let weir = scene.weir();
    set_delay(&scene, Duration::from_millis(200));
    // Sessions that rest have floors that replicas meet, and do not see what others write.
    let plan = Plan { level: Level::Global, slow_sessions: 8, ..plan(&weir) };
    let report = hunt(&scene, plan, || {});
    assert_found(&report, &[Guarantee::Linearizability]);
}

#[test]
fn the_command_teaches_and_its_exit_code_tells() {
    let scene = scene();
    let weir = scene.weir();
    let pgweir = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pgweir")).arg("check-consistency").args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, help, _) = pgweir(&["--help"]);
    assert!(code == Some(0) && help.contains("--setup-url") && help.contains("Exit codes"), "{help}");
    assert_eq!(pgweir(&["--url", "nonsense"]).0, Some(2));
    let (code, _, error) = pgweir(&["--url", "postgres://app:wrong@127.0.0.1:1/app"]);
    assert!(code == Some(2) && error.contains("cannot make the tables"), "{error}");

    let uri = weir.uri();
    let common = ["--url", &uri, "--sessions", "8", "--seconds", "60"];
    let (code, json, error) = pgweir(&[&common[..], &["--operations", "2000", "--json"]].concat());
    assert_eq!(code, Some(0), "{json}{error}");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["violations_total"], 0);
    assert!(report["operations"].as_u64().unwrap() >= 2000, "{json}");

    // The tables are gone: the same schema can be made again. Now on broken routing.
    drop(weir);
    let broken = scene.weir_with(&Tuning::routing(&["consistency: eventual"]));
    set_delay(&scene, Duration::from_millis(300));
    let uri = broken.uri();
    let args = ["--url", &uri, "--sessions", "8", "--until-found", "--show", "1"];
    let (code, text, error) = pgweir(&args);
    assert_eq!(code, Some(1), "{text}{error}");
    assert!(text.contains("violated on register") || text.contains("violated on list"), "{text}");
}
