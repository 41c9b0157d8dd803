//! Two hundred sessions over a handful of server connections, each with a role, a tenant, a search_path
//! and a time zone of its own: nobody ever gets somebody else's answer, whatever breaks meanwhile.
//!
//! `make isolation` runs it at its full size; sizes come from the environment (ISOLATION_CHECKS,
//! ISOLATION_SECONDS, ISOLATION_CLIENTS, ISOLATION_SEED).
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use pgweir::devcluster::Options;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wire_client::*;
use wire_world::*;

/// Nothing takes as long: a machine that is slower than this per check has stopped.
const PATIENCE_PER_CHECK: Duration = Duration::from_millis(40);

/// A server process is terminated this often.
const BETWEEN_KILLS: Duration = Duration::from_millis(250);

/// What the faults that are mixed in may lead to, and nothing else: a cancelled statement, a terminated
/// server process in all its shapes.
const EXPLAINED: [&str; 5] = ["57014", "57P01", "08006", "08007", "40001"];

/// A cancel request may still hit what its client asks next, but not the requests behind that.
const CANCEL_REACHES: u8 = 3;

const ZONES: [&str; 5] = ["Asia/Tokyo", "Europe/Paris", "America/Lima", "Africa/Cairo", "Pacific/Auckland"];

const ASK: &str = "SELECT current_user, current_setting('app.tenant'), current_setting('search_path'), \
                   current_setting('TimeZone'), (SELECT id FROM tag), (SELECT string_agg(secret, ',') FROM shared)";

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// A role, a schema with one row, and a row of a table with row-level security, for each client.
fn world(clients: u64) -> World {
    let world = World::start(Options::with_replicas(1));
    let sql = |text: &str| drop(world.cluster.primary().sql_as("postgres", "app", text).unwrap());
    sql("CREATE TABLE public.shared (tenant text, secret text)");
    sql("ALTER TABLE public.shared ENABLE ROW LEVEL SECURITY");
    sql("CREATE POLICY own ON public.shared USING (tenant = current_setting('app.tenant'))");
    sql("GRANT SELECT ON public.shared TO PUBLIC");
    sql(&format!(
        "DO $$ BEGIN FOR n IN 0..{} LOOP \
         EXECUTE format('CREATE ROLE iso_%s; GRANT iso_%s TO app; CREATE SCHEMA iso_%s', n, n, n); \
         EXECUTE format('CREATE TABLE iso_%s.tag AS SELECT %s AS id', n, n); \
         EXECUTE format('GRANT USAGE ON SCHEMA iso_%s TO iso_%s; GRANT SELECT ON iso_%s.tag TO iso_%s', n, n, n, n); \
         INSERT INTO public.shared VALUES ('tenant ' || n, 'secret of ' || n), ('other ' || n, 'other of ' || n); \
         END LOOP; END $$",
        clients - 1
    ));
    world.cluster.wait_caught_up(LONG).unwrap();
    world
}

/// What happened, over all clients.
#[derive(Default)]
struct Tally {
    checks: AtomicU64,
    disconnects: AtomicU64,
    cancels: AtomicU64,
    kills: AtomicU64,
    transactions: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Tally {
    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Why a request has no answer.
enum Trouble {
    /// An error; the session goes on.
    Error,
    /// The session is over.
    Closed,
}

/// Small, and good enough to mix things.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One client and what it must be told.
struct Member {
    number: u64,
    port: u16,
    wire: Wire,
    zone: &'static str,
    prepared: bool,
    /// So many requests may still meet a cancel request of this client.
    cancelable: u8,
    dice: Dice,
    tally: Arc<Tally>,
}

impl Member {
    fn new(number: u64, port: u16, seed: u64, tally: Arc<Tally>) -> Member {
        let wire = Wire::connect(port, &app()).unwrap_or_else(|error| panic!("login: {error:?}"));
        let dice = Dice(seed.wrapping_add(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Member { number, port, wire, zone: "UTC", prepared: false, cancelable: 0, dice, tally }
    }

    fn expected(&self) -> [String; 6] {
        let n = self.number;
        [
            format!("iso_{n}"),
            format!("tenant {n}"),
            format!("iso_{n}, public"),
            self.zone.to_owned(),
            n.to_string(),
            format!("secret of {n}"),
        ]
    }

    /// Sends messages that end with one ReadyForQuery, and reads up to it.
    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, Trouble> {
        self.wire.try_send(bytes).map_err(|_| Trouble::Closed)?;
        let mut frames = Vec::new();
        let mut error = None;
        loop {
            let Some(frame) = self.wire.try_next() else {
                if error.is_none() {
                    self.count("closed without a word");
                }
                return Err(Trouble::Closed);
            };
            match frame.tag {
                b'E' => {
                    let sqlstate = frame.sqlstate();
                    let strange = sqlstate == "57014" && self.cancelable == 0;
                    if strange || !EXPLAINED.contains(&&*sqlstate) {
                        self.tally.wrong(format!("client {}: unexpected error {frame:?}", self.number));
                    }
                    self.count(&sqlstate);
                    error = Some(sqlstate);
                }
                b'Z' => {
                    self.cancelable = self.cancelable.saturating_sub(1);
                    return error.map_or(Ok(frames), |_| Err(Trouble::Error));
                }
                _ => frames.push(frame),
            }
        }
    }

    fn count(&self, sqlstate: &str) {
        *self.tally.errors.lock().unwrap().entry(sqlstate.to_owned()).or_default() += 1;
    }

    fn run(&mut self, sql: &str) -> Result<Vec<Frame>, Trouble> {
        self.exchange(&query(sql))
    }

    /// Makes the session what it is to be.
    fn settle(&mut self) -> Result<(), Trouble> {
        let n = self.number;
        self.zone = ZONES[(n % 5) as usize];
        (self.prepared, self.cancelable) = (false, 0);
        self.run(&format!("SET ROLE iso_{n}"))?;
        self.run(&format!("SET search_path = iso_{n}, public"))?;
        self.run(&format!("SET app.tenant = 'tenant {n}'; SET TimeZone = '{}'", self.zone))?;
        Ok(())
    }

    /// Asks who it is, in one of the ways there are, and compares.
    fn check(&mut self, expected: &[String; 6]) -> Result<(), Trouble> {
        let frames = match self.dice.roll(3) {
            0 => self.run(ASK)?,
            1 => self.exchange(&[unnamed(ASK, &[]), sync()].concat())?,
            _ => {
                let parse = if self.prepared { Vec::new() } else { parse("ask", ASK, &[]) };
                let frames =
                    self.exchange(&[parse, bind("", "ask", &[]), execute("", 0), sync()].concat())?;
                self.prepared = true;
                frames
            }
        };
        let rows = rows_of(&frames);
        let got: Vec<String> = rows.iter().flatten().map(|value| value.clone().unwrap_or_default()).collect();
        self.tally.checks.fetch_add(1, Ordering::Relaxed);
        if got != expected {
            self.tally.wrong(format!("client {}: got {got:?}, expected {expected:?}", self.number));
        }
        Ok(())
    }

    fn check_own(&mut self) -> Result<(), Trouble> {
        let expected = self.expected();
        self.check(&expected)
    }

    /// A transaction that changes everything for itself.
    fn local(&mut self) -> Result<(), Trouble> {
        let n = self.number;
        self.run("BEGIN")?;
        self.run(&format!("SET LOCAL app.tenant = 'other {n}'; SET LOCAL TimeZone = 'Asia/Kolkata'"))?;
        let mut expected = self.expected();
        expected[1] = format!("other {n}");
        expected[3] = "Asia/Kolkata".to_owned();
        expected[5] = format!("other of {n}");
        self.check(&expected)?;
        let end = ["COMMIT", "ROLLBACK"][self.dice.roll(2) as usize];
        self.run(end)?;
        Ok(())
    }

    /// Settings that are taken back, by savepoint or as a whole.
    fn taken_back(&mut self) -> Result<(), Trouble> {
        let n = self.number;
        let extended = |sql: &str| [unnamed(sql, &[]), sync()].concat();
        self.run("BEGIN")?;
        self.exchange(&extended("SAVEPOINT s"))?;
        self.exchange(&extended(&format!("SET app.tenant = 'other {n}'")))?;
        self.run("RESET ROLE")?;
        self.run("ROLLBACK TO s")?;
        self.check_own()?;
        if self.dice.roll(2) == 0 {
            self.run("COMMIT")?;
        } else {
            self.run("SET TimeZone = 'Asia/Kolkata'")?;
            self.run(&format!("SET search_path = public; SET app.tenant = 'other {n}'"))?;
            self.run("ROLLBACK")?;
        }
        Ok(())
    }

    /// Another time zone from now on, set in one of the ways there are.
    fn move_away(&mut self) -> Result<(), Trouble> {
        let zone = ZONES[self.dice.roll(5) as usize];
        match self.dice.roll(5) {
            0 => {
                self.run("RESET TimeZone")?;
                self.zone = "UTC";
                return Ok(());
            }
            1 => self.run(&format!("SET TIME ZONE '{zone}'"))?,
            2 => self.run(&format!("SELECT set_config('TimeZone', '{zone}', false)"))?,
            3 => self.run(&format!("SELECT set_config('TimeZone', '{zone}' || '', false)"))?,
            _ => self.run(&format!("BEGIN; SET TimeZone = '{zone}'; COMMIT"))?,
        };
        self.zone = zone;
        Ok(())
    }

    /// A statement that is cancelled, or is finished before.
    fn cancelled(&mut self) -> Result<(), Trouble> {
        self.tally.cancels.fetch_add(1, Ordering::Relaxed);
        self.cancelable = CANCEL_REACHES;
        let sql = "/* pgweir.route=primary */ SELECT pg_sleep(0.02)";
        self.wire.try_send(&query(sql)).map_err(|_| Trouble::Closed)?;
        cancel(self.port, self.wire.pid, &self.wire.secret.clone());
        match self.exchange(b"") {
            Ok(_) | Err(Trouble::Error) => Ok(()),
            closed => closed.map(drop),
        }
    }

    fn leave(&mut self) -> Result<(), Trouble> {
        self.tally.disconnects.fetch_add(1, Ordering::Relaxed);
        let fresh = Wire::connect(self.port, &app()).map_err(|_| Trouble::Closed)?;
        let old = std::mem::replace(&mut self.wire, fresh);
        match self.dice.roll(3) {
            0 => old.terminate(),
            1 => old.vanish(),
            _ => {
                // In the middle of something.
                let mut old = old;
                drop(old.try_send(&query("BEGIN; SET app.tenant = 'gone'; SELECT pg_sleep(0.01)")));
                old.vanish();
            }
        }
        self.settle()
    }

    fn step(&mut self) -> Result<(), Trouble> {
        match self.dice.roll(200) {
            0..4 => {
                self.tally.transactions.fetch_add(1, Ordering::Relaxed);
                self.local()
            }
            4..8 => {
                self.tally.transactions.fetch_add(1, Ordering::Relaxed);
                self.taken_back()
            }
            8..12 => self.move_away(),
            12 => self.cancelled(),
            13 => self.leave(),
            _ => return self.read(),
        }?;
        self.check_own()
    }

    /// Outside of a transaction an error of a read changes nothing.
    fn read(&mut self) -> Result<(), Trouble> {
        match self.check_own() {
            Err(Trouble::Error) => {
                // Whether it was prepared is not known.
                self.prepared = false;
                self.run("DEALLOCATE ALL").map(drop)
            }
            other => other,
        }
    }

    fn live(mut self) {
        let mut settled = self.settle();
        while !self.tally.stop.load(Ordering::Relaxed) {
            settled = match settled.and_then(|()| self.step()) {
                Ok(()) => Ok(()),
                // What the session has now is not known to this test: a new one.
                Err(Trouble::Error | Trouble::Closed) => self.leave(),
            };
        }
        self.wire.terminate();
    }
}

/// Terminates server processes of the application, here and there.
fn kill(world: &World, tally: &Tally) {
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                WHERE usename = 'app' ORDER BY random() LIMIT 1) AS one";
    while !tally.stop.load(Ordering::Relaxed) {
        thread::sleep(BETWEEN_KILLS);
        let nodes = world.cluster.nodes();
        let node = &nodes[dice.roll(nodes.len() as u64) as usize];
        if node.sql_value(kill).unwrap().as_deref() == Some("1") {
            tally.kills.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn two_hundred_sessions_never_get_each_others_answers() {
    let clients = from_environment("ISOLATION_CLIENTS", 200);
    let checks = from_environment("ISOLATION_CHECKS", 10_000);
    let seconds = Duration::from_secs(from_environment("ISOLATION_SECONDS", 0));
    let seed = from_environment("ISOLATION_SEED", 1);
    let world = world(clients);
    let proxy = world.proxy(&[
        ("pool", "{ size: 5, wait_timeout: 25s, max_waiting: 1000 }"),
        ("routing", "{ max_staleness: 60s }"),
    ]);
    let tally = Arc::new(Tally::default());
    let begun = Instant::now();
    thread::scope(|scope| {
        for number in 0..clients {
            let (port, tally) = (proxy.port, tally.clone());
            scope.spawn(move || {
                let stopper = Stopper(tally.clone());
                Member::new(number, port, seed, tally).live();
                std::mem::forget(stopper);
            });
        }
        scope.spawn(|| kill(&world, &tally));
        let end = begun + Duration::from_secs(60) + seconds + PATIENCE_PER_CHECK * checks as u32;
        while !tally.stop.load(Ordering::Relaxed) {
            let enough = tally.checks.load(Ordering::Relaxed) >= checks && begun.elapsed() >= seconds;
            if enough || Instant::now() > end {
                tally.stop.store(true, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let took = begun.elapsed();
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let wrong = tally.wrong.lock().unwrap();
    let by_role = |role: &str| proxy.metric("pgweir_statements_total", &format!("role=\"{role}\""));
    println!(
        "isolation: {} checks, {} wrong, {} clients, {:.1} s ({:.0} checks/s), {} transactions, {} disconnects, \
         {} cancels, {} kills; {} requests on the primary, {} on the replica; errors by SQLSTATE: {:?} (seed {seed})",
        count(&tally.checks),
        wrong.len(),
        clients,
        took.as_secs_f64(),
        count(&tally.checks) as f64 / took.as_secs_f64(),
        count(&tally.transactions),
        count(&tally.disconnects),
        count(&tally.cancels),
        count(&tally.kills),
        by_role("primary"),
        by_role("replica"),
        tally.errors.lock().unwrap(),
    );
    assert!(wrong.is_empty(), "{}", wrong[..wrong.len().min(20)].join("\n"));
    assert!(
        count(&tally.checks) >= checks,
        "too slow: {} of {checks} checks in {took:?}",
        count(&tally.checks)
    );
    for (what, number) in
        [("kill", &tally.kills), ("cancel", &tally.cancels), ("disconnect", &tally.disconnects)]
    {
        assert!(count(number) > 0, "no {what} was mixed in");
    }
    assert!(by_role("replica") > 0.0 && by_role("primary") > 0.0, "one of the nodes was never asked");
    let most = || {
        let servers = world.cluster.nodes().iter().map(|node| {
            let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
            node.sql_value(count).unwrap().and_then(|count| count.parse::<u64>().ok()).unwrap_or(u64::MAX)
        });
        servers.max()
    };
    // Processes of connections that were cut a moment ago may still be there.
    wait_until("there are no more than five server connections to a node", || most() <= Some(5));
}

/// A client that panics ends the test, instead of leaving it to wait for the others.
struct Stopper(Arc<Tally>);

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}
