//! The pool of one database, role and node: checkout, waiting in line, checkin.

use crate::fault::{Fault, SqlState};
use crate::moment::Moment;
use crate::net::worker::Worker;
use crate::node::{NodeId, Role};
use crate::pool::server::ServerConnection;
use crate::pool::slots::{Checkout, Slots};
use crate::routing::reason::Reason;
use crate::session::prepared::{PreparedCounts, ServerStatements};
use crate::session::settings::Settings;
use crate::telemetry::statements::StatementCounters;
use crate::{clock, fault};
use metrics::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

type Connection = Box<ServerConnection>;

/// Somebody in line.
#[derive(Debug)]
struct Waiter {
    /// What is handed over goes back to the pool if nobody takes it out any more.
    hand: oneshot::Sender<Begun>,
    worker: Worker,
    since: Moment,
}

/// Until a waiter has waited this long, one on the connection's own worker may be served before it:
/// moving a connection to another core costs more than the queue's order is worth.
const ORDER_SLACK: Duration = Duration::from_millis(2);

/// A pool's bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolBounds {
    /// Server connections at most.
    pub size: usize,
    /// Waiters at most.
    pub waiters: usize,
    /// How long each of them waits.
    pub wait_timeout: Duration,
}

/// The handles of what is counted on the hot path.
pub struct Meter {
    /// Request groups by reason.
    pub statements: Arc<StatementCounters>,
    /// How long their answers took.
    pub latency: Histogram,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.statements.fmt(f)
    }
}

/// How many connections a pool has, and who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolCounts {
    /// Idle connections.
    pub idle: usize,
    /// Connections in use, or being made.
    pub active: usize,
    /// Clients in line.
    pub waiting: usize,
}

/// One idle connection, for SHOW SERVERS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdleServer {
    /// Since its login.
    pub age: Duration,
    /// Since it was checked in.
    pub idle: Duration,
    /// The server's process; 0: it named none.
    pub pid: u32,
    /// Is it encrypted?
    pub encrypted: bool,
    /// Statements that it has prepared.
    pub prepared: usize,
}

/// See the file's head.
#[derive(Debug)]
pub struct Pool {
    /// The node its connections lead to.
    pub node: NodeId,
    slots: Mutex<Slots<Connection, Waiter>>,
    wait_timeout_nanos: AtomicU64,
    /// Grows when all connections made so far are to go.
    generation: AtomicU64,
    /// What is counted, by the node's role.
    meters: [Meter; 2],
    /// What its connections have prepared.
    pub prepared: Arc<PreparedCounts>,
}

/// What a checkout begins with.
#[derive(Debug)]
pub enum Begun {
    /// A connection.
    Connection(Lease),
    /// A place for one that the caller makes.
    Place(Place),
}

/// A place in the pool without a connection yet. Dropped, it passes to the next waiter.
#[derive(Debug)]
pub struct Place(Option<Arc<Pool>>);

/// A connection that is checked out. Dropped without checkin, it is closed.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    generation: u64,
}

impl Pool {
    /// An empty pool.
    pub fn new(node: NodeId, bounds: PoolBounds, meters: [Meter; 2]) -> Pool {
        let pool = Pool {
            node,
            slots: Mutex::new(Slots::new(bounds.size, bounds.waiters)),
            wait_timeout_nanos: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            meters,
            prepared: Arc::default(),
        };
        pool.set_wait_timeout(bounds.wait_timeout);
        pool
    }

    /// New bounds after a reload.
    pub fn resize(self: &Arc<Pool>, bounds: PoolBounds) {
        self.lock().resize(bounds.size, bounds.waiters);
        self.set_wait_timeout(bounds.wait_timeout);
        loop {
            let next = self.lock().grown(|waiter| !waiter.hand.is_closed());
            let Some(waiter) = next else { return };
            self.hand_place(waiter);
        }
    }

    fn set_wait_timeout(&self, timeout: Duration) {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self.wait_timeout_nanos.store(nanos, Ordering::Relaxed);
    }

    /// Its numbers.
    pub fn counts(&self) -> PoolCounts {
        let slots = self.lock();
        PoolCounts { idle: slots.idle(), active: slots.busy(), waiting: slots.waiting() }
    }

    /// A request group was sent through it.
    pub fn count(&self, role: Role, reason: Reason) {
        self.meters[role as usize].statements.count(reason);
    }

    /// One was answered, after so long.
    pub fn answered(&self, role: Role, took: Duration) {
        self.meters[role as usize].latency.record(took.as_secs_f64());
    }

    /// An idle connection that carries `settings` already, if there is one: no waiting, no round trip.
    pub fn try_checkout(self: &Arc<Pool>, settings: &Arc<Settings>) -> Option<Lease> {
        let here = Worker::current();
        let mut connection = {
            let mut slots = self.lock();
            slots
                .take_idle(|idle| idle.home == here && Arc::ptr_eq(&idle.settings, settings))
                .or_else(|| slots.take_idle(|idle| Arc::ptr_eq(&idle.settings, settings)))?
        };
        if connection.stream.is_disturbed() {
            drop(connection);
            self.closed();
            return None;
        }
        self.settled(connection)
    }

    /// An idle connection, preferably one that carries `settings` already; else a place; else the line.
    pub async fn checkout(self: &Arc<Pool>, settings: &Arc<Settings>) -> Result<Begun, Fault> {
        let waiting = {
            let mut slots = self.lock();
            match slots.checkout(|idle| Arc::ptr_eq(&idle.settings, settings)) {
                Checkout::Ready(mut connection) => {
                    drop(slots);
                    if connection.stream.is_disturbed() {
                        // Closed, or with something to say that nobody asked for: not to be trusted.
                        // Its place is taken over.
                        drop(connection);
                        return Ok(Begun::Place(Place(Some(self.clone()))));
                    }
                    let lost = || Fault::proxy(SqlState::CONNECTION_FAILURE, "a server connection was lost");
                    return self.settled(connection).map(Begun::Connection).ok_or_else(lost);
                }
                Checkout::MayConnect => return Ok(Begun::Place(Place(Some(self.clone())))),
                Checkout::Full => {
                    let (hand, waiting) = oneshot::channel();
                    let waiter = Waiter { hand, worker: Worker::current(), since: clock::now() };
                    slots.enqueue(waiter).map_err(|_| line_is_full(slots.waiting()))?;
                    waiting
                }
            }
        };
        self.wait(waiting).await
    }

    /// The connection on the worker that is going to use it; one that cannot be moved is lost.
    fn settled(self: &Arc<Pool>, connection: Connection) -> Option<Lease> {
        if !connection.is_in_place() {
            drop(connection);
            self.closed();
            return None;
        }
        match connection.settle() {
            Ok(connection) => Some(Lease::new(self, connection)),
            Err(error) => {
                tracing::warn!("a server connection could not be moved to another worker: {error}");
                self.closed();
                None
            }
        }
    }

    async fn wait(self: &Arc<Pool>, waiting: oneshot::Receiver<Begun>) -> Result<Begun, Fault> {
        let limit = Duration::from_nanos(self.wait_timeout_nanos.load(Ordering::Relaxed));
        let mut line = InLine { pool: self, waiting, served: false };
        let handed = match tokio::time::timeout(limit, &mut line.waiting).await {
            Ok(handed) => handed.ok(),
            Err(_) => {
                line.waiting.close();
                // It may have been handed over in the very last moment.
                line.waiting.try_recv().ok()
            }
        };
        line.served = handed.is_some();
        drop(line);
        match handed {
            Some(Begun::Connection(mut lease)) => {
                let connection = lease.connection.take();
                let settled = connection.and_then(|connection| self.settled(connection));
                settled.map(Begun::Connection).ok_or_else(|| waited_in_vain(limit))
            }
            Some(place) => Ok(place),
            None => Err(waited_in_vain(limit)),
        }
    }

    fn checkin(self: &Arc<Pool>, mut connection: Connection) {
        connection.last_used = clock::now();
        let now = connection.last_used;
        let over = self.lock().checkin(
            connection,
            |waiter| !waiter.hand.is_closed(),
            |waiter, connection| waiter.worker == connection.home || now.since(waiter.since) > ORDER_SLACK,
        );
        if let Some((connection, Some(waiter))) = over
            && let Err(Begun::Connection(mut lease)) =
                waiter.hand.send(Begun::Connection(Lease::new(self, connection)))
            && let Some(connection) = lease.connection.take()
        {
            // The waiter left in this moment: the next one, please.
            self.checkin(connection);
        }
    }

    fn closed(self: &Arc<Pool>) {
        let next = self.lock().closed(|waiter| !waiter.hand.is_closed());
        if let Some(waiter) = next {
            self.hand_place(waiter);
        }
    }

    /// A place that the waiter does not take any more passes on as it is dropped.
    fn hand_place(self: &Arc<Pool>, waiter: Waiter) {
        drop(waiter.hand.send(Begun::Place(Place(Some(self.clone())))));
    }

    /// Closes idle connections that are too old, idle for too long, or dead. Returns how many.
    pub fn evict(
        &self,
        now: Moment,
        idle: Option<Duration>,
        lifetime: Option<Duration>,
        keep: usize,
    ) -> usize {
        let mut kept = 0;
        let mut slots = self.lock();
        let evicted = slots.evict(|connection| {
            let too_old = lifetime.is_some_and(|limit| now.since(connection.established) > limit);
            let too_idle = idle.is_some_and(|limit| now.since(connection.last_used) > limit);
            let gone = too_old || connection.stream.is_disturbed() || (too_idle && kept >= keep);
            kept += usize::from(!gone);
            gone
        });
        drop(slots);
        evicted.len()
    }

    /// A place for a further connection while there are fewer than `keep`, used or not.
    pub fn reserve(self: &Arc<Pool>, keep: usize) -> Option<Place> {
        self.lock().reserve(keep).then(|| Place(Some(self.clone())))
    }

    /// Closes every idle connection now, and the others when they come back: the node is no longer
    /// what it was.
    pub fn clear(&self) -> usize {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let evicted = self.lock().evict(|_| true);
        evicted.len()
    }

    /// Its idle connections as they are at `now`.
    pub fn idle_servers(&self, now: Moment) -> Vec<IdleServer> {
        let slots = self.lock();
        let facts = |connection: &Connection| IdleServer {
            age: now.since(connection.established),
            idle: now.since(connection.last_used),
            pid: connection.key.pid,
            encrypted: connection.stream.is_encrypted(),
            prepared: connection.statements.len(),
        };
        slots.idle_connections().iter().map(facts).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slots<Connection, Waiter>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiter's place in the line, which it leaves when it is not served: it gave up, or vanished.
struct InLine<'a> {
    pool: &'a Pool,
    waiting: oneshot::Receiver<Begun>,
    served: bool,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if !self.served {
            self.waiting.close();
            self.pool.lock().leave_line(|waiter| !waiter.hand.is_closed());
        }
    }
}

impl Place {
    /// The connection has been made.
    pub fn fill(mut self, mut connection: ServerConnection) -> Option<Lease> {
        let pool = self.0.take()?;
        connection.statements = ServerStatements::counted(pool.prepared.clone());
        Some(Lease::new(&pool, Box::new(connection)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.closed();
        }
    }
}

impl Lease {
    fn new(pool: &Arc<Pool>, connection: Connection) -> Lease {
        let generation = pool.generation.load(Ordering::Acquire);
        Lease { pool: pool.clone(), connection: Some(connection), generation }
    }

    /// The pool it belongs to.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The connection; there is one until checkin.
    pub fn connection(&mut self) -> Option<&mut ServerConnection> {
        self.connection.as_deref_mut()
    }

    /// The connection, to be looked at.
    pub fn peek(&self) -> Option<&ServerConnection> {
        self.connection.as_deref()
    }

    /// It goes back: idle, clean, with its session state known. The caller vouches for it.
    pub fn checkin(mut self) {
        if let Some(connection) = self.connection.take() {
            let current = self.generation == self.pool.generation.load(Ordering::Acquire);
            match connection.is_reusable() && current {
                true => self.pool.checkin(connection),
                false => {
                    drop(connection);
                    self.pool.closed();
                }
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.connection.take().is_some() {
            self.pool.closed();
        }
    }
}

fn waited_in_vain(limit: Duration) -> Fault {
    Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "timed out waiting for a server connection")
        .detail(format!("All connections of the pool were in use for {limit:?}."))
        .hint("Raise pool.size or pool.wait_timeout, or look for transactions that stay open.")
        .retriable()
}

fn line_is_full(waiting: usize) -> Fault {
    fault::Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "too many clients wait for a server connection")
        .detail(format!("{waiting} clients are waiting already."))
        .hint("Raise pool.size or pool.max_waiting, or look for transactions that stay open.")
        .retriable()
}
