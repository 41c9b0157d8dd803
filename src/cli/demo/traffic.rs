//! Mixed traffic: 80 % reads, 10 % writes, and after each write a check that it is seen.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls, Statement};

use crate::devcluster::{APP, APP_DATABASE, DevCluster, DevClusterError};

/// Connections through pgweir. Each has a row of its own.
const WORKERS: i32 = 24;
const READS_PER_WRITE: u32 = 8;
/// Between two reads, on average. An application thinks; a benchmark would not.
const THINK: Duration = Duration::from_millis(10);
/// After a write and its check: what most sessions do is nothing.
const PAUSE: Duration = Duration::from_millis(150);
const AFTER_AN_ERROR: Duration = Duration::from_millis(200);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the workers have done and seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) reads: u64,
    pub(super) writes: u64,
    /// Reads of a session's own row directly after it was written.
    pub(super) checks: u64,
    /// Reads that did not show what the same session had written before.
    pub(super) stale: u64,
    pub(super) errors: u64,
    pub(super) last_error: Option<String>,
}

#[derive(Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    checks: AtomicU64,
    stale: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
    stopping: AtomicBool,
}

/// The running workers.
pub(super) struct Traffic {
    counters: Arc<Counters>,
    workers: JoinSet<()>,
}

impl Traffic {
    /// Makes the workers' rows on the primary and sets the workers to work.
    pub(super) fn start(cluster: &DevCluster, proxy: SocketAddr) -> Result<Traffic, DevClusterError> {
        let table = format!(
            "CREATE TABLE demo (id int PRIMARY KEY, value bigint NOT NULL); \
             INSERT INTO demo SELECT id, 0 FROM generate_series(1, {WORKERS}) id"
        );
        cluster.primary().sql_as(APP.name, APP_DATABASE, &table)?;
        cluster.wait_caught_up(Duration::from_secs(30))?;
        let counters = Arc::new(Counters::default());
        let mut workers = JoinSet::new();
        for id in 1..=WORKERS {
            let counters = Arc::clone(&counters);
            workers.spawn(async move { Worker::new(id, proxy, counters).run().await });
        }
        Ok(Traffic { counters, workers })
    }

    /// What they have done so far.
    pub(super) fn tally(&self) -> Tally {
        let c = &*self.counters;
        Tally {
            reads: c.reads.load(Ordering::Relaxed),
            writes: c.writes.load(Ordering::Relaxed),
            checks: c.checks.load(Ordering::Relaxed),
            stale: c.stale.load(Ordering::Relaxed),
            errors: c.errors.load(Ordering::Relaxed),
            last_error: c.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Lets every worker finish its statement.
    pub(super) async fn stop(mut self) -> Tally {
        self.counters.stopping.store(true, Ordering::Relaxed);
        let all = async { while self.workers.join_next().await.is_some() {} };
        if timeout(ANSWER_WITHIN + PAUSE, all).await.is_err() {
            tracing::warn!("some workers did not end");
        }
        self.tally()
    }
}

struct Worker {
    id: i32,
    proxy: SocketAddr,
    counters: Arc<Counters>,
    random: u64,
    /// The value that our own row has at least: what the last acknowledged write returned.
    written: i64,
}

struct Statements {
    client: Client,
    read: Statement,
    write: Statement,
}

impl Worker {
    fn new(id: i32, proxy: SocketAddr, counters: Arc<Counters>) -> Worker {
        // std has no random numbers, but a hasher with random keys.
        let random = RandomState::new().hash_one(id) | 1;
        Worker { id, proxy, counters, random, written: 0 }
    }

    async fn run(mut self) {
        while !self.stopping() {
            if let Err(error) = self.session().await {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                let text = describe(&error);
                *self.counters.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                sleep(AFTER_AN_ERROR).await;
            }
        }
    }

    /// One connection, until an error or the end.
    async fn session(&mut self) -> Result<(), tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.proxy.ip().to_string())
            .port(self.proxy.port())
            .user(APP.name)
            .password(APP.password)
            .dbname(APP_DATABASE)
            .application_name("pgweir-demo")
            .connect_timeout(ANSWER_WITHIN);
        let (client, connection) = config.connect(NoTls).await?;
        // Ends with the client, and its error is the client's too.
        let connection = tokio::spawn(connection);
        let result = self.work(client).await;
        connection.abort();
        result
    }

    async fn work(&mut self, client: Client) -> Result<(), tokio_postgres::Error> {
        let read = client.prepare("SELECT value FROM demo WHERE id = $1").await?;
        let write = client.prepare("UPDATE demo SET value = value + 1 WHERE id = $1 RETURNING value").await?;
        let mut statements = Statements { client, read, write };
        while !self.stopping() {
            self.write(&mut statements).await?;
            let seen = self.read(&statements, self.id).await?;
            self.count_read(seen, &self.counters.checks);
            self.think(PAUSE).await;
            for _ in 0..READS_PER_WRITE {
                let own = self.draw().is_multiple_of(2);
                let row = if own { self.id } else { self.somebody() };
                let seen = self.read(&statements, row).await?;
                // Nobody has promised anything about rows that others write.
                self.count_read(if own { seen } else { i64::MAX }, &self.counters.reads);
                self.think(THINK).await;
                if self.stopping() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Every fifth write stands in a transaction with a read.
    async fn write(&mut self, statements: &mut Statements) -> Result<(), tokio_postgres::Error> {
        let id = self.id;
        let row = if self.draw().is_multiple_of(5) {
            let transaction = statements.client.transaction().await?;
            transaction.query_one(&statements.read, &[&id]).await?;
            let row = transaction.query_one(&statements.write, &[&id]).await?;
            transaction.commit().await?;
            row
        } else {
            statements.client.query_one(&statements.write, &[&id]).await?
        };
        self.written = row.get(0);
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Most reads are prepared; some are simple queries, as psql's are.
    async fn read(&self, statements: &Statements, id: i32) -> Result<i64, tokio_postgres::Error> {
        if id % 4 != 0 {
            return Ok(statements.client.query_one(&statements.read, &[&id]).await?.get(0));
        }
        let sql = format!("SELECT value FROM demo WHERE id = {id}");
        let rows = statements.client.simple_query(&sql).await?;
        let value = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        // A row that is not there is older than any.
        Ok(value.unwrap_or(-1))
    }

    fn count_read(&self, seen: i64, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
        if seen < self.written {
            self.counters.stale.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Half to one and a half of `mean`.
    async fn think(&mut self, mean: Duration) {
        let share = 50 + u32::try_from(self.draw() % 100).unwrap_or(0);
        sleep(mean * share / 100).await;
    }

    fn somebody(&mut self) -> i32 {
        i32::try_from(self.draw() % u64::from(WORKERS.unsigned_abs())).unwrap_or(0) + 1
    }

    fn stopping(&self) -> bool {
        self.counters.stopping.load(Ordering::Relaxed)
    }

    /// xorshift64*.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message(), server.code().code()),
        None => error.to_string(),
    }
}
