//! The drivers that people use, over a real cluster through pgweir in transaction mode, with splitting on.
//!
//! Each driver's own test is a program in `tests/drivers/<driver>/` that says one line per feature:
//! `ok copy`, `FAIL copy: why`, `n/a copy`. They share one cluster and one pgweir with few server
//! connections, which busy neighbours keep changing hands, and one replica that is always late: a setting,
//! a prepared statement or a read that relied on luck would not get through. `make drivers` prints the table.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;
#[path = "drivers/in_process.rs"]
mod in_process;
#[path = "drivers/sqlx/driver.rs"]
mod sqlx_driver;
#[path = "drivers/tokio-postgres/driver.rs"]
mod tokio_postgres_driver;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use comfy_table::{ContentArrangement, Table, presets};
use harness::{NO_WRITER, SERVED_BY, Stage, Tuning, Weir, describe};
use in_process::{Features, World};
use pgweir::devcluster::{APP, APP_DATABASE, Options};

/// What every driver is asked for, in the table's order.
const FEATURES: [&str; 19] = [
    "connect",
    "simple",
    "parameters",
    "types",
    "transactions",
    "prepared",
    "copy",
    "notify",
    "errors",
    "cancel",
    "pipeline",
    "own-writes",
    "settings",
    "cursor",
    "read-only",
    "large-objects",
    "two-phase",
    "pool",
    "replicas",
];

/// How a driver's program is started.
#[derive(Clone, Copy, Debug)]
enum Run {
    /// In this process.
    Here(fn(World) -> Features),
    Python,
    Node,
    Java,
    /// The system's interpreter, which has the system's driver.
    System(&'static str),
}

/// A driver, or a way of using it.
#[derive(Clone, Copy, Debug)]
struct Driver {
    name: &'static str,
    run: Run,
    /// Below `tests/drivers`.
    program: &'static str,
    /// Handed to the program: how to use the driver.
    variant: &'static str,
    /// What the driver has not got; nothing else may be n/a.
    lacks: &'static str,
}

const DRIVERS: [Driver; 20] = [
    driver("tokio-postgres", Run::Here(tokio_postgres_driver::program), "")
        .lacks("large-objects pool two-phase"),
    driver("sqlx", Run::Here(sqlx_driver::program), "").lacks("large-objects pipeline two-phase"),
    driver("psycopg", Run::Python, "psycopg/sync.py").lacks("large-objects"),
    driver("psycopg-simple", Run::Python, "psycopg/sync.py").variant("simple").lacks("large-objects"),
    driver("psycopg-async", Run::Python, "psycopg/aio.py").lacks("large-objects"),
    driver("psycopg2", Run::Python, "psycopg2/driver.py").lacks("pipeline"),
    driver("asyncpg", Run::Python, "asyncpg/driver.py").lacks("large-objects pipeline two-phase"),
    driver("sqlalchemy", Run::Python, "sqlalchemy/driver.py").lacks("large-objects notify pipeline"),
    driver("sqlalchemy-psycopg2", Run::Python, "sqlalchemy/driver.py")
        .variant("psycopg2")
        .lacks("large-objects notify pipeline"),
    driver("django", Run::Python, "django/driver.py").lacks("large-objects notify pipeline two-phase"),
    driver("node-postgres", Run::Node, "pg/driver.js").lacks("large-objects two-phase"),
    driver("knex", Run::Node, "knex/driver.js").lacks("cancel copy large-objects notify pipeline two-phase"),
    driver("jdbc-threshold-1", Run::Java, "jdbc/Driver.java").variant("1"),
    driver("jdbc-threshold-5", Run::Java, "jdbc/Driver.java").variant("5"),
    driver("jdbc-simple", Run::Java, "jdbc/Driver.java").variant("simple"),
    driver("dbd-pg", Run::System("perl"), "dbd-pg/driver.pl").lacks("pipeline two-phase"),
    driver("dbd-pg-simple", Run::System("perl"), "dbd-pg/driver.pl")
        .variant("simple")
        .lacks("pipeline two-phase"),
    driver("pdo", Run::System("php"), "pdo/driver.php").lacks("cancel pipeline two-phase"),
    driver("pdo-simple", Run::System("php"), "pdo/driver.php")
        .variant("simple")
        .lacks("cancel pipeline two-phase"),
    driver("ruby-pg", Run::System("ruby"), "ruby-pg/driver.rb").lacks("pool two-phase"),
];

const fn driver(name: &'static str, run: Run, program: &'static str) -> Driver {
    Driver { name, run, program, variant: "", lacks: "" }
}

impl Driver {
    const fn variant(self, variant: &'static str) -> Driver {
        Driver { variant, ..self }
    }

    const fn lacks(self, lacks: &'static str) -> Driver {
        Driver { lacks, ..self }
    }

    fn command(&self) -> Command {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
        let mut command = match self.run {
            Run::Here(_) => unreachable!("it is no program"),
            Run::Python => Command::new(installed().join("venv/bin/python")),
            Run::Node => Command::new("node"),
            Run::Java => Command::new("java"),
            Run::System(name) => {
                let own = Path::new("/usr/bin").join(name);
                Command::new(if own.exists() { own } else { name.into() })
            }
        };
        if matches!(self.run, Run::Java) {
            // It lives for seconds: what costs a start its time is left out.
            command.args([
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-cp",
                "/usr/share/java/postgresql.jar",
            ]);
        }
        command
            .arg(sources.join(self.program))
            .env("PYTHONPATH", &sources)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NODE_PATH", installed().join("node/node_modules"))
            .env("VARIANT", self.variant);
        command
    }
}

/// Where scripts/prerequisites.sh puts what does not come with the system.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("drivers")
}

/// A driver's program is given up after this.
const DEADLINE: Duration = Duration::from_secs(300);

const SCHEMA: [&str; 4] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL)",
    "CREATE TABLE kind (id int PRIMARY KEY, t text, b bytea, j jsonb, at timestamptz, a int[], words text[], n text)",
];

/// The pgweir that all drivers share.
fn weir() -> &'static Weir<'static> {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    static WEIR: OnceLock<Weir<'static>> = OnceLock::new();
    WEIR.get_or_init(|| {
        let stage = STAGE.get_or_init(|| {
            let stage = Stage::with(Options::default().set("max_prepared_transactions", "10"), &SCHEMA);
            stage.cluster.replica(1).set_apply_delay(Duration::from_millis(200)).unwrap();
            stage
        });
        let tuning =
            Tuning { pool: vec!["size: 6".to_owned(), "wait_timeout: 60s".to_owned()], ..Tuning::default() };
        stage.weir_with(&tuning)
    })
}

/// What a program said, and how it ended.
#[derive(Debug)]
struct Outcome {
    output: String,
    trouble: Option<String>,
}

/// Runs a driver's program from a clean start, amid neighbours.
fn play(driver: &Driver) -> Outcome {
    let weir = weir();
    let stage = weir.stage();
    let primary = stage.cluster.primary();
    // What a driver that failed has left there is not the next one's.
    for row in primary.sql("SELECT gid FROM pg_prepared_xacts").unwrap() {
        primary.sql(&format!("ROLLBACK PREPARED '{}'", row[0].as_deref().unwrap())).unwrap();
    }
    primary
        .sql(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
              WHERE query LIKE '%pg_sleep(61)%' AND pid <> pg_backend_pid()",
        )
        .unwrap();
    primary.sql_as(APP.name, APP_DATABASE, "TRUNCATE item, kind").unwrap();
    stage.cluster.wait_caught_up(harness::LONG).unwrap();
    let neighbours: Vec<_> = (0..3).map(|i| stage.spawn(disturb(weir, i))).collect();
    let outcome = match driver.run {
        Run::Here(program) => {
            let world = World { url: weir.uri(), primary: primary.name().to_owned() };
            let output = stage.run(in_process::run(program(world), driver.lacks));
            Outcome { output, trouble: None }
        }
        _ => run(driver, weir, primary.name()),
    };
    for neighbour in neighbours {
        neighbour.abort();
    }
    outcome
}

/// Takes server connections in turn with the driver, with settings and statements of its own.
async fn disturb(weir: &'static Weir<'static>, number: usize) {
    let client = weir.connect().await;
    let zone = ["Asia/Kathmandu", "America/Caracas", "Pacific/Auckland"][number];
    let set = format!("SET TimeZone = '{zone}'; SET app.tenant = 'neighbour'; SET search_path = pg_catalog");
    client.batch_execute(&set).await.unwrap();
    loop {
        for sql in ["BEGIN", "SELECT pg_sleep(0.001)", "COMMIT", "SELECT 1", "SHOW TimeZone"] {
            if let Err(error) = client.simple_query(sql).await {
                eprintln!("a neighbour: {sql}: {}", describe(&error));
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

fn run(driver: &Driver, weir: &Weir<'_>, primary: &str) -> Outcome {
    let said = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.txt", driver.name));
    let file = File::create(&said).unwrap();
    let mut command = driver.command();
    command
        .env("DATABASE_URL", weir.uri())
        .env("PGHOST", weir.address.ip().to_string())
        .env("PGPORT", weir.address.port().to_string())
        .env("PGUSER", APP.name)
        .env("PGPASSWORD", APP.password)
        .env("PGDATABASE", APP_DATABASE)
        .env("PRIMARY", primary)
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    let trouble = match command.spawn() {
        Err(error) => Some(format!("{command:?}: {error}; `scripts/prerequisites.sh drivers` installs it")),
        Ok(mut child) => {
            let end = Instant::now() + DEADLINE;
            let mut status = None;
            while status.is_none() && Instant::now() < end {
                status = child.try_wait().unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(child.kill());
            child.wait().unwrap();
            match status {
                None => Some(format!("gave up after {DEADLINE:?}")),
                Some(status) if status.success() => None,
                Some(status) => Some(status.to_string()),
            }
        }
    };
    Outcome { output: String::from_utf8_lossy(&fs::read(&said).unwrap()).into_owned(), trouble }
}

/// What the table shows for a feature.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Cell {
    Ok,
    Lacking,
    Failed(String),
}

impl Outcome {
    /// A cell for each feature, in their order.
    fn cells(&self, driver: &Driver) -> Vec<Cell> {
        FEATURES.iter().map(|feature| self.cell(driver, feature)).collect()
    }

    fn cell(&self, driver: &Driver, feature: &str) -> Cell {
        let mut cell = None;
        for line in self.output.lines() {
            let Some((word, rest)) = line.split_once(' ') else { continue };
            let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
            cell = match (word, name == feature) {
                ("ok", true) => cell.or(Some(Cell::Ok)),
                ("FAIL", true) => Some(Cell::Failed(why.to_owned())),
                ("n/a", true) if driver.lacks.split(' ').any(|name| name == feature) => {
                    cell.or(Some(Cell::Lacking))
                }
                _ => cell,
            };
        }
        cell.unwrap_or_else(|| Cell::Failed("said nothing about it".to_owned()))
    }
}

/// Plays a driver and says what was wrong.
fn assert_plays(name: &str) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = DRIVERS.iter().find(|driver| driver.name == name).unwrap();
    let outcome = play(driver);
    let wrong: Vec<_> = FEATURES
        .iter()
        .zip(outcome.cells(driver))
        .filter_map(|(feature, cell)| match cell {
            Cell::Failed(why) => Some(format!("{feature}: {why}")),
            _ => None,
        })
        .collect();
    assert!(
        wrong.is_empty() && outcome.trouble.is_none(),
        "{name}: {wrong:#?} {:?}\n{}",
        outcome.trouble,
        outcome.output
    );
}

/// A test of its own for each driver, in whatever ways it is used.
macro_rules! tests {
    ($($test:ident: $($name:literal),+;)+) => {
        $(#[test]
        fn $test() {
            $(assert_plays($name);)+
        })+

        #[test]
        fn every_driver_has_a_test() {
            let tested = [$($($name),+),+];
            assert_eq!(DRIVERS.map(|driver| driver.name), tested);
        }
    };
}

tests! {
    tokio_postgres: "tokio-postgres";
    sqlx: "sqlx";
    psycopg: "psycopg", "psycopg-simple", "psycopg-async";
    psycopg2: "psycopg2";
    asyncpg: "asyncpg";
    sqlalchemy: "sqlalchemy", "sqlalchemy-psycopg2";
    django: "django";
    node_postgres: "node-postgres";
    knex: "knex";
    jdbc: "jdbc-threshold-1", "jdbc-threshold-5", "jdbc-simple";
    dbd_pg: "dbd-pg", "dbd-pg-simple";
    pdo: "pdo", "pdo-simple";
    ruby_pg: "ruby-pg";
}

/// `make drivers`: the same again, as a table. The variable DRIVERS asks for it, and narrows it to names
/// that contain one of its words.
#[test]
fn table() {
    let Ok(wanted) = std::env::var("DRIVERS") else { return };
    let wanted: Vec<_> = wanted.split_whitespace().collect();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["driver"].iter().chain(&FEATURES));
    let mut failed = Vec::new();
    for driver in &DRIVERS {
        if !wanted.is_empty() && !wanted.iter().any(|part| driver.name.contains(part)) {
            continue;
        }
        eprintln!("{} …", driver.name);
        let outcome = play(driver);
        let cells = outcome.cells(driver);
        let words = cells.iter().map(|cell| match cell {
            Cell::Ok => "ok",
            Cell::Lacking => "–",
            Cell::Failed(_) => "FAIL",
        });
        table.add_row(std::iter::once(driver.name).chain(words));
        for (feature, cell) in FEATURES.iter().zip(&cells) {
            if let Cell::Failed(why) = cell {
                failed.push(format!("{} {feature}: {why}", driver.name));
            }
        }
        failed.extend(outcome.trouble.map(|trouble| format!("{}: {trouble}", driver.name)));
    }
    println!("{table}\n–: the driver has no such thing (or its program says why)");
    assert!(failed.is_empty(), "{failed:#?}");
}
