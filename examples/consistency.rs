//! Everything that `make consistency` proves: a real primary with three replicas, pgweir in front of them,
//! and the checker, while replicas lag, pause, crash and freeze; then the share of reads that replicas
//! serve, against time-based pinning; then broken variants of pgweir, each of which must be caught.
//!
//! `CONSISTENCY_SECONDS` (300) of each level, `CONSISTENCY_OPERATIONS` (in proportion: 1,000,000 in 300 s),
//! `CONSISTENCY_SESSIONS` (48), `CONSISTENCY_SEED` (of the faults; drawn), `CONSISTENCY_MIX_SECONDS` (20).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/harness.rs"]
mod harness;
#[path = "../tests/support/slow_socket.rs"]
mod slow_socket;

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use harness::{LONG, NO_WRITER, Stage, Tuning, Weir};
use pgweir::checker::Level;
use pgweir::cli::check_consistency::{Plan, Progress, Report, examine};
use pgweir::devcluster::{DevClusterError, DevNode, Options};
use pgweir::freshness::defect::Defect;
use slow_socket::SlowSocket;

const REPLICAS: usize = 3;
/// A broken variant is caught within this time.
const CAUGHT_WITHIN: Duration = Duration::from_secs(30);
/// The part of the reads that replicas serve at level session, 1 ms behind.
const REPLICA_SHARE: f64 = 0.85;

fn main() -> ExitCode {
    let settings = Settings::from_environment();
    println!("fault seed {} (CONSISTENCY_SEED={0} repeats the order of the faults)", settings.seed);
    let stage = Stage::with(Options::with_replicas(REPLICAS), &[NO_WRITER]);
    println!("PostgreSQL {}: a primary and {REPLICAS} replicas", stage.cluster.binaries().version());
    let mut verdicts = Verdicts::default();
    for (name, level) in [("session", Level::Session), ("global", Level::Global)] {
        if knows_level(&stage, name) {
            under_faults(&stage, &settings, name, level, &mut verdicts);
        } else {
            println!("\n== level {name}: SKIPPED, this pgweir does not have it ==");
            verdicts.rows.push([format!("level {name}"), "skipped".to_owned(), "-".to_owned()]);
        }
    }
    shares(&stage, &settings, &mut verdicts);
    broken_variants(&stage, &mut verdicts);
    println!("\n{}", verdicts.table());
    if verdicts.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

struct Settings {
    seconds: u64,
    operations: u64,
    sessions: u32,
    mix_seconds: u64,
    seed: u64,
}

impl Settings {
    fn from_environment() -> Settings {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")),
            Err(_) => default,
        };
        let seconds = number("CONSISTENCY_SECONDS", 300);
        Settings {
            seconds,
            operations: number("CONSISTENCY_OPERATIONS", seconds * 1_000_000 / 300),
            sessions: u32::try_from(number("CONSISTENCY_SESSIONS", 48)).unwrap(),
            mix_seconds: number("CONSISTENCY_MIX_SECONDS", 20),
            seed: number("CONSISTENCY_SEED", RandomState::new().hash_one(0) >> 32),
        }
    }
}

/// What was asked, what came of it, and whether that is as it should be.
#[derive(Default)]
struct Verdicts {
    rows: Vec<[String; 3]>,
    failed: bool,
}

impl Verdicts {
    fn add(&mut self, what: &str, result: String, is_right: bool) {
        self.failed |= !is_right;
        let verdict = if is_right { "ok" } else { "FAILED" };
        println!("{what}: {result}: {verdict}");
        self.rows.push([what.to_owned(), result, verdict.to_owned()]);
    }

    fn table(&self) -> Table {
        table(["Check", "Result", ""], &self.rows)
    }
}

fn table(header: [&str; 3], rows: &[[String; 3]]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
    for row in rows {
        table.add_row(row.clone());
    }
    table
}

/// Can `routing.consistency` be that?
fn knows_level(stage: &Stage, level: &str) -> bool {
    let yaml = Tuning::routing(&[&format!("consistency: {level}")]).yaml(stage.cluster.nodes());
    pgweir::config::parse(Path::new("consistency.yaml"), &yaml, &|_| None).is_ok()
}

/// Every examination has a schema of its own.
fn plan(weir: &Weir<'_>) -> Plan {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Plan { schema: format!("check_{number}"), ..Plan::of(weir.uri().parse().unwrap()) }
}

fn examine_now(stage: &Stage, plan: &Plan, loud: bool) -> Report {
    let every = Duration::from_secs(10);
    let tell = |progress: &Progress| {
        if loud {
            println!("{progress}");
        }
    };
    stage
        .run_for(2 * plan.duration + LONG, examine(plan, every, tell))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn under_faults(stage: &Stage, settings: &Settings, name: &str, level: Level, verdicts: &mut Verdicts) {
    println!("\n== level {name}, {} s, with faults ==", settings.seconds);
    let weir = stage.weir_with(&Tuning::routing(&[&format!("consistency: {name}")]));
    let plan = Plan {
        level,
        sessions: settings.sessions,
        slow_sessions: 8,
        async_sessions: 6,
        duration: Duration::from_secs(settings.seconds),
        ..plan(&weir)
    };
    let report = thread::scope(|scope| {
        let examining = scope.spawn(|| {
            let report = examine_now(stage, &plan, true);
            plan.stop.store(true, Ordering::Relaxed);
            report
        });
        let mut faults = Faults { stage, random: settings.seed | 1, begun: Instant::now() };
        while !plan.stop.load(Ordering::Relaxed) && !examining.is_finished() {
            faults.inject();
        }
        faults.mend();
        examining.join().unwrap()
    });
    println!("{}", report.table(10));
    let violations = report.violations_total();
    verdicts.add(&format!("level {name}: violations"), violations.to_string(), violations == 0);
    let wanted = settings.operations;
    let result = format!("{} of {wanted}", report.operations);
    verdicts.add(&format!("level {name}: operations"), result, report.operations >= wanted);
    weir.wait_whole(REPLICAS + 1);
}

/// One fault after the other, on the replicas.
struct Faults<'a> {
    stage: &'a Stage,
    random: u64,
    begun: Instant,
}

impl Faults<'_> {
    fn inject(&mut self) {
        let which = self.below(REPLICAS as u64) as usize;
        let replica = self.stage.cluster.replica(which);
        let millis = self.below(500);
        let (what, done) = match self.below(10) {
            0..=3 => self.lag(),
            4 | 5 => (format!("{} replays nothing for {millis} ms", replica.name()), pulse(replica, millis)),
            6 => (format!("{}: kill -9 of a server process", replica.name()), crash(replica)),
            7 => {
                let done = replica.sigkill().and_then(|()| self.rest(millis)).and_then(|()| replica.start());
                (format!("{}: kill -9 of everything, started again after {millis} ms", replica.name()), done)
            }
            _ => {
                let millis = millis * 2;
                let done =
                    replica.sigstop().and_then(|()| self.rest(millis)).and_then(|()| replica.sigcont());
                (format!("{} is frozen for {millis} ms", replica.name()), done)
            }
        };
        let at = self.begun.elapsed().as_secs_f64();
        match done {
            Ok(()) => println!("  fault {at:6.1} s: {what}"),
            Err(error) => println!("  fault {at:6.1} s: {what}: not done: {error}"),
        }
        let pause = 200 + self.below(800);
        thread::sleep(Duration::from_millis(pause));
    }

    /// Each replica gets a lag of its own; half of them a small one.
    fn lag(&mut self) -> (String, Result<(), DevClusterError>) {
        let delays: Vec<u64> =
            (0..REPLICAS).map(|_| if self.below(2) == 0 { self.below(3) } else { self.below(500) }).collect();
        let nodes = self.stage.cluster.replicas().iter();
        let done = nodes
            .zip(&delays)
            .try_for_each(|(replica, delay)| replica.set_apply_delay(Duration::from_millis(*delay)));
        (format!("lag {delays:?} ms"), done)
    }

    fn rest(&self, millis: u64) -> Result<(), DevClusterError> {
        thread::sleep(Duration::from_millis(millis));
        Ok(())
    }

    fn mend(&self) {
        let cluster = &self.stage.cluster;
        set_lag(self.stage, Duration::ZERO);
        cluster.wait_caught_up(LONG).unwrap();
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}

fn pulse(replica: &DevNode, millis: u64) -> Result<(), DevClusterError> {
    replica.pause_replay()?;
    thread::sleep(Duration::from_millis(millis));
    replica.resume_replay()
}

/// `kill -9` of a process that serves the application: the replica replays from its restartpoint.
fn crash(replica: &DevNode) -> Result<(), DevClusterError> {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend' LIMIT 1";
    let Some(pid) = replica.sql_value(sql)?.and_then(|pid| pid.parse().ok()) else { return Ok(()) };
    let openings = || replica.log().matches("accept read-only connections").count();
    let before = openings();
    replica.sigkill_backend(pid)?;
    harness::wait_until("it has restarted", || openings() > before);
    Ok(())
}

fn set_lag(stage: &Stage, lag: Duration) {
    stage.cluster.replicas().iter().for_each(|replica| replica.set_apply_delay(lag).unwrap());
}

/// The 90/10 mix, 1 ms behind, twice.
fn shares(stage: &Stage, settings: &Settings, verdicts: &mut Verdicts) {
    println!("\n== 90/10 mix, replicas 1 ms behind, {} s each ==", settings.mix_seconds);
    let mut rows = Vec::new();
    let variants: [(&str, &[&str]); 2] = [
        ("consistency: session", &["consistency: session"]),
        ("consistency: eventual, pin_after_write: 5s", &["consistency: eventual", "pin_after_write: 5s"]),
    ];
    let mut of_session = 0.0;
    for (name, routing) in variants {
        let weir = stage.weir_with(&Tuning::routing(routing));
        let mix = Plan {
            sessions: 32,
            slow_sessions: 0,
            async_sessions: 0,
            rest: Duration::from_millis(10),
            duration: Duration::from_secs(settings.mix_seconds),
            ..plan(&weir)
        };
        set_lag(stage, Duration::from_millis(1));
        let report = examine_now(stage, &mix, false);
        set_lag(stage, Duration::ZERO);
        let share = report.replica_share();
        if routing.len() == 1 {
            of_session = share;
            println!("{}", report.table(3));
            println!("{}", reasons(&weir));
        }
        let rate = report.operations as f64 / report.elapsed.as_secs_f64();
        let found = format!("{} violations, {rate:.0} operations/s", report.violations_total());
        rows.push([name.to_owned(), format!("{:.1} %", 100.0 * share), found]);
    }
    println!("{}", table(["Routing", "Reads on replicas", ""], &rows));
    let enough = of_session >= REPLICA_SHARE;
    verdicts.add("reads on replicas, session, 1 ms behind", format!("{:.1} %", 100.0 * of_session), enough);
    verdicts.rows.push(["the same with pin_after_write: 5s".to_owned(), rows[1][1].clone(), "-".to_owned()]);
}

/// Where statements went and why.
fn reasons(weir: &Weir<'_>) -> String {
    let mut counts: Vec<_> = weir.counts().into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let line = |(went, count): &(harness::Went, u64)| format!("  {} {} {count}", went.role, went.reason);
    counts.iter().take(8).map(line).collect::<Vec<_>>().join("\n")
}

/// One mechanism less each time.
fn broken_variants(stage: &Stage, verdicts: &mut Verdicts) {
    println!("\n== broken variants, each caught within {} s ==", CAUGHT_WITHIN.as_secs());
    let lag = Duration::from_millis(300);
    let defective = |defect| Tuning { defect, ..Tuning::default() };
    let caught = |name: &str, tuning: &Tuning, lag: Duration, change: &dyn Fn(Plan) -> Plan| {
        let weir = stage.weir_with(tuning);
        set_lag(stage, lag);
        let report = examine_now(stage, &change(hunt(&weir)), false);
        (name.to_owned(), report)
    };
    let mut results = vec![
        caught("any replica that is up", &defective(Defect::AnyReplica), lag, &|plan| plan),
        caught(
            "pin_after_write: 20ms, 300 ms behind",
            &Tuning::routing(&["consistency: eventual", "pin_after_write: 20ms"]),
            lag,
            &|plan| Plan { rest: Duration::from_millis(10), ..plan },
        ),
        caught(
            "pg_current_wal_lsn() beside asynchronous commits",
            &defective(Defect::WrittenPosition),
            Duration::ZERO,
            &|plan| Plan { async_sessions: plan.sessions / 2, ..plan },
        ),
    ];
    results.push(("a sample in flight when the commit finished".to_owned(), sample_in_flight(stage)));
    results.push(("a position kept across a crash".to_owned(), kept_position(stage)));
    set_lag(stage, Duration::ZERO);
    for (name, report) in results {
        println!("\n-- {name} --\n{}", report.table(1));
        let result = match report.found_after {
            Some(after) => format!("caught after {:.1} s", after.as_secs_f64()),
            None => "not caught".to_owned(),
        };
        verdicts.add(&name, result, report.found_after.is_some_and(|after| after <= CAUGHT_WITHIN));
    }
}

fn hunt(weir: &Weir<'_>) -> Plan {
    Plan { until_found: true, duration: CAUGHT_WITHIN, ..plan(weir) }
}

/// The primary's answers to the monitor travel longer than the replicas are behind.
fn sample_in_flight(stage: &Stage) -> Report {
    let slow = stage.run(SlowSocket::before(stage.cluster.primary().address()));
    set_lag(stage, Duration::ZERO);
    let tuning = Tuning {
        interval: "300ms",
        detour: Some(slow.port),
        defect: Defect::SampleInFlight,
        ..Tuning::default()
    };
    let weir = stage.weir_with(&tuning);
    set_lag(stage, Duration::from_millis(80));
    slow.delay(Duration::from_millis(160));
    examine_now(stage, &hunt(&weir), false)
}

/// Replicas crash, and what they replay again is held back for a while.
fn kept_position(stage: &Stage) -> Report {
    set_lag(stage, Duration::ZERO);
    let tuning = Tuning { defect: Defect::KeptPosition, ..Tuning::routing(&["balance: random"]) };
    let weir = stage.weir_with(&tuning);
    let plan = Plan { slow_sessions: 24, ..hunt(&weir) };
    thread::scope(|scope| {
        let examining = scope.spawn(|| examine_now(stage, &plan, false));
        thread::sleep(Duration::from_secs(1));
        // What replicas return to is a state in which the tables are there.
        let cluster = &stage.cluster;
        cluster.primary().sql("CHECKPOINT").unwrap();
        cluster.wait_caught_up(LONG).unwrap();
        cluster.replicas().iter().for_each(|replica| drop(replica.sql("CHECKPOINT").unwrap()));
        while !examining.is_finished() {
            set_lag(stage, Duration::from_secs(9));
            thread::scope(|scope| {
                for replica in cluster.replicas() {
                    scope.spawn(|| crash(replica).unwrap_or_else(|error| println!("  not crashed: {error}")));
                }
            });
            thread::sleep(Duration::from_secs(2));
            set_lag(stage, Duration::ZERO);
        }
        examining.join().unwrap()
    })
}
