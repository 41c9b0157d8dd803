//! What does the monitor cost the primary? Writers at full speed through pgweir, and beside them nobody, or
//! readers of whom each waits for samples; then the processor time of the monitor's server process against that
//! of the whole primary, and the number of its questions against the number of writes.
//!
//! `make monitor-cost`, or `cargo run --release --example monitor_cost -- --seconds 20`

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use pgweir::config;
use pgweir::devcluster::{APP, APP_DATABASE, DevCluster, MONITOR, Options};
use pgweir::proxy::Proxy;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

#[derive(Parser)]
struct Args {
    /// Of each measurement
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Writers
    #[arg(long, default_value_t = 16)]
    writers: i32,
}

/// The most that the monitor may take of the primary's processor time.
const SHARE_MAX: f64 = 0.02;

type Anything = Box<dyn Error>;

fn main() -> Result<(), Anything> {
    let args = Args::parse();
    let cluster = DevCluster::start(Options::default())?;
    let schema = [
        "CREATE TABLE cost (id int PRIMARY KEY, v int)",
        "INSERT INTO cost SELECT id, 0 FROM generate_series(0, 100) id",
    ];
    for sql in schema {
        cluster.primary().sql_as(APP.name, APP_DATABASE, sql)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!(
        "{:<34} {:>10} {:>9} {:>10} {:>10} {:>8}",
        "", "writes/s", "reads/s", "questions", "per write", "CPU"
    );
    let mut too_much = false;
    for (what, readers, level) in [
        ("16 writers", 0, "session"),
        ("16 writers, 4 readers at session", 4, "session"),
        ("16 writers, 4 readers at global", 4, "global"),
    ] {
        let measured = runtime.block_on(measure(&cluster, &args, readers, level))?;
        let share = measured.monitor / measured.primary;
        let seconds = args.seconds as f64;
        println!(
            "{what:<34} {:>10.0} {:>9.0} {:>10} {:>10.4} {:>7.2}%",
            measured.writes as f64 / seconds,
            measured.reads as f64 / seconds,
            measured.questions,
            measured.questions as f64 / measured.writes as f64,
            share * 100.0
        );
        too_much |= readers == 0 && share >= SHARE_MAX;
    }
    println!("CPU: the monitor's process on the primary, of all of the primary's processes");
    if too_much {
        return Err(format!("the monitor took more than {:.0} %", SHARE_MAX * 100.0).into());
    }
    Ok(())
}

struct Measured {
    writes: u64,
    reads: u64,
    /// What the monitor asked the nodes.
    questions: u64,
    /// Processor time of its process there, and of all.
    monitor: f64,
    primary: f64,
}

async fn measure(cluster: &DevCluster, args: &Args, readers: i32, level: &str) -> Result<Measured, Anything> {
    let mut yaml = "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\ncluster:\n  nodes:\n".to_owned();
    for node in cluster.nodes() {
        yaml += &format!("    - {{ name: {}, host: 127.0.0.1, port: {} }}\n", node.name(), node.port());
    }
    yaml += &format!("  monitor: {{ user: {}, password: {} }}\n", MONITOR.name, MONITOR.password);
    yaml += &format!("auth: {{ users: [ {{ name: {}, password: {} }} ] }}\n", APP.name, APP.password);
    yaml += &format!("routing: {{ consistency: {level} }}\n");
    let settings =
        config::parse(Path::new("cost.yaml"), &yaml, &|_| None).map_err(|error| error.to_string())?;
    let mut proxy = Proxy::start(settings, None, None).await?;
    let address = proxy.addresses().first().cloned().ok_or("no address")?;
    let (stop, writes, reads) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for id in 0..args.writers + readers {
        let client = connect(&address).await?;
        let (stop, count) = (stop.clone(), if id < args.writers { writes.clone() } else { reads.clone() });
        let sql = match id < args.writers {
            true => format!("UPDATE cost SET v = v + 1 WHERE id = {id}"),
            false => format!("SELECT v FROM cost WHERE id = {}", id - args.writers),
        };
        tasks.push(tokio::spawn(async move {
            let statement = client.prepare(&sql).await?;
            while !stop.load(Ordering::Relaxed) {
                client.execute(&statement, &[]).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), tokio_postgres::Error>(())
        }));
    }
    // The first second belongs to connections, caches and the catalog.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (begun, counted) = (Instant::now(), [writes.load(Ordering::Relaxed), reads.load(Ordering::Relaxed)]);
    let (before, time) = (questions(&address).await?, times(cluster)?);
    tokio::time::sleep(Duration::from_secs(args.seconds).saturating_sub(begun.elapsed())).await;
    let (after, end) = (questions(&address).await?, times(cluster)?);
    let measured = Measured {
        writes: writes.load(Ordering::Relaxed) - counted[0],
        reads: reads.load(Ordering::Relaxed) - counted[1],
        questions: after - before,
        monitor: end.0 - time.0,
        primary: end.1 - time.1,
    };
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    proxy.drain(Duration::ZERO).await;
    Ok(measured)
}

async fn connect(address: &str) -> Result<Client, Anything> {
    connect_to(address, APP_DATABASE).await
}

async fn connect_to(address: &str, database: &str) -> Result<Client, Anything> {
    let (host, port) = address.rsplit_once(':').ok_or("an address without a port")?;
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port.parse()?).user(APP.name).password(APP.password).dbname(database);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// What the monitor has asked all nodes so far, for whatever purpose.
async fn questions(address: &str) -> Result<u64, Anything> {
    let rows = connect_to(address, "pgweir").await?.simple_query("SHOW STATS").await?;
    let count = |row: &SimpleQueryMessage| match row {
        SimpleQueryMessage::Row(row) if row.get(3)?.starts_with("monitor_") => {
            row.get(4)?.parse::<u64>().ok()
        }
        _ => None,
    };
    Ok(rows.iter().filter_map(count).sum())
}

/// Processor seconds so far of the monitor's process on the primary, and of all of the primary's.
fn times(cluster: &DevCluster) -> Result<(f64, f64), Anything> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgweir monitor'";
    let rows = cluster.primary().sql(sql)?;
    let pids = rows.iter().flatten().flatten();
    let monitor = pids.filter_map(|pid| seconds_of(pid)).sum();
    let postmaster = cluster.primary().postmaster_pid().ok_or("no postmaster")?.to_string();
    let mut all = seconds_of(&postmaster).unwrap_or_default();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if parent_of(&name).as_deref() == Some(postmaster.as_str()) {
            all += seconds_of(&name).unwrap_or_default();
        }
    }
    Ok((monitor, all))
}

/// The fields of /proc/PID/stat behind the name, which may contain anything.
fn fields(pid: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = text.rsplit_once(')')?;
    Some(behind.split_whitespace().map(str::to_owned).collect())
}

fn parent_of(pid: &str) -> Option<String> {
    pid.bytes().all(|byte| byte.is_ascii_digit()).then(|| fields(pid)?.get(1).cloned())?
}

/// utime and stime, in ticks of 10 ms.
fn seconds_of(pid: &str) -> Option<f64> {
    let fields = fields(pid)?;
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}
