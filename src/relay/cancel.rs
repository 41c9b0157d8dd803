//! Who is connected, and how a cancel request reaches exactly the statement its client is running.
//!
//! A slot names the server connection only while its client has it. A cancel request in flight marks
//! the slot; a connection that is given back under that mark is closed, never handed to another
//! client, because nobody can say when the server will act on the request. Looking up the connection
//! and marking it is one step, as is giving it back and reading the mark: whichever comes first, a
//! request is either known to be on its way or finds no connection.

use crate::fault::{Fault, SqlState};
use crate::moment::Moment;
use crate::net::stream::Stream;
use crate::node::NodeId;
use crate::pool::connect::open_stream;
use crate::pool::server::BackendKey;
use crate::relay::context::Context;
use crate::wire::startup::LONG_KEY_MINOR;
use crate::wire::writers;
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Clients' cancel requests that are served at the same time; the others wait in line. Each opens a
/// connection to a server, which has only so many.
pub const CANCELS_MAX: usize = 32;

/// How long a server may take to accept a cancel request.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What a client is doing, for SHOW CLIENTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Doing {
    /// Nothing.
    Idle = 0,
    /// It waits for a server.
    Waiting = 1,
    /// It has one.
    Active = 2,
    /// It has one to itself, for WAL.
    Replicating = 3,
}

impl Doing {
    /// The word in SHOW CLIENTS.
    pub fn as_str(self) -> &'static str {
        match self {
            Doing::Idle => "idle",
            Doing::Waiting => "waiting",
            Doing::Active => "active",
            Doing::Replicating => "replicating",
        }
    }
}

/// Where a client's request stands, as a cancel request finds it.
///
/// ```text
///            begin_wait              end_wait
///   Nowhere ────────────▶ InLine ────────────────▶ Nowhere
///      │ ▲   attach                      detach
///      ▼ └──────────────── At ◀──────────────┘
/// ```
#[derive(Debug, Default)]
enum Stand {
    /// There is none, or nobody has taken it up yet: nothing to cancel.
    #[default]
    Nowhere,
    /// It waits for a server, and can be given up here.
    InLine { canceled: bool },
    /// The client has this connection. A cancel request that is on its way marks it until it is given
    /// back: nobody can say when the server will act on it.
    At { node: NodeId, key: Arc<BackendKey>, canceling: bool },
}

/// One connected client, as others see it.
#[derive(Debug)]
pub struct ClientSlot {
    /// The process id that it was told.
    pub pid: u32,
    secret: Secret,
    /// Its database.
    pub database: String,
    /// Its role.
    pub user: String,
    /// From where it came.
    pub address: String,
    /// Its `application_name`.
    pub application: String,
    /// Is it encrypted?
    pub encrypted: bool,
    /// When it logged in.
    pub since: Moment,
    doing: AtomicU8,
    pins: AtomicU32,
    stand: Mutex<Stand>,
    ending: AtomicBool,
    severed: AtomicBool,
    waker: AtomicWaker,
}

/// What a cancel request has to show besides the process id: 4 bytes in protocol 3.0, 32 since 3.2.
#[derive(Clone, Debug)]
struct Secret {
    bytes: [u8; LONG_SECRET],
    len: usize,
}

const SHORT_SECRET: usize = 4;
const LONG_SECRET: usize = 32;

impl Secret {
    fn random(minor: u16) -> Secret {
        let len = if minor >= LONG_KEY_MINOR { LONG_SECRET } else { SHORT_SECRET };
        let mut bytes = [0; LONG_SECRET];
        crate::net::random_fill(&mut bytes[..len]);
        Secret { bytes, len }
    }

    /// That of a process id which nobody has.
    fn nobody() -> Secret {
        Secret { bytes: [0; LONG_SECRET], len: 0 }
    }

    /// In a time that tells neither how much of it is right nor whether there is anybody.
    fn is(&self, shown: &[u8]) -> bool {
        let mut padded = [0; LONG_SECRET];
        let len = shown.len().min(LONG_SECRET);
        padded[..len].copy_from_slice(&shown[..len]);
        bool::from(self.bytes.ct_eq(&padded) & self.len.ct_eq(&shown.len()))
    }
}

/// What is known of a client at its login.
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    /// The minor version of its protocol.
    pub minor: u16,
    /// Its database.
    pub database: String,
    /// Its role.
    pub user: String,
    /// From where it came.
    pub address: String,
    /// Its `application_name`.
    pub application: String,
    /// Is it encrypted?
    pub encrypted: bool,
}

impl ClientSlot {
    /// A client that has just proven itself; its key is random.
    pub fn new(info: ClientInfo, since: Moment) -> ClientSlot {
        let mut pid = [0; 4];
        crate::net::random_fill(&mut pid);
        ClientSlot {
            // Positive, as process ids are, but larger than any: drivers hand it to pg_cancel_backend,
            // which must not find somebody else's backend by it.
            pid: (u32::from_be_bytes(pid) & 0x7fff_ffff) | 0x4000_0000,
            secret: Secret::random(info.minor),
            database: info.database,
            user: info.user,
            address: info.address,
            application: info.application,
            encrypted: info.encrypted,
            since,
            doing: AtomicU8::new(Doing::Idle as u8),
            pins: AtomicU32::new(0),
            stand: Mutex::new(Stand::default()),
            ending: AtomicBool::new(false),
            severed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Writes its BackendKeyData.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        writers::key_data(out, self.pid, &self.secret.bytes[..self.secret.len]);
    }

    /// What it is doing.
    pub fn doing(&self) -> Doing {
        match self.doing.load(Ordering::Relaxed) {
            0 => Doing::Idle,
            1 => Doing::Waiting,
            2 => Doing::Active,
            _ => Doing::Replicating,
        }
    }

    /// It does something else now.
    pub fn set_doing(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// Its pins, as the bits of `Pins`.
    pub fn pins(&self) -> u32 {
        self.pins.load(Ordering::Relaxed)
    }

    /// It has other pins now.
    pub fn set_pins(&self, bits: u32) {
        self.pins.store(bits, Ordering::Relaxed);
    }

    /// It waits for a server connection now.
    pub fn begin_wait(&self) {
        *self.lock() = Stand::InLine { canceled: false };
        self.set_doing(Doing::Waiting);
    }

    /// It waits no longer. True: its request was canceled meanwhile.
    #[must_use]
    pub fn end_wait(&self) -> bool {
        self.set_doing(Doing::Idle);
        matches!(std::mem::take(&mut *self.lock()), Stand::InLine { canceled: true })
    }

    /// Ends when a cancel request finds it waiting. For its own task only.
    pub async fn wait_canceled(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            match *self.lock() {
                Stand::InLine { canceled: true } => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    /// It has this server connection now.
    pub fn attach(&self, node: NodeId, key: &Arc<BackendKey>) {
        *self.lock() = Stand::At { node, key: key.clone(), canceling: false };
        self.set_doing(Doing::Active);
    }

    /// It gives its server connection back. True: a cancel request is on its way to it.
    #[must_use]
    pub fn detach(&self) -> bool {
        self.set_doing(Doing::Idle);
        let mut stand = self.lock();
        self.severed.store(false, Ordering::Release);
        matches!(std::mem::take(&mut *stand), Stand::At { canceling: true, .. })
    }

    /// Asks its task to end when it is idle.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Was it asked to end? Registers the task to be woken.
    pub fn is_ending(&self, cx: &std::task::Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.ending.load(Ordering::Acquire)
    }

    /// Nothing is to be expected any more from `node`: if it has a connection there, its task is told.
    pub fn sever(&self, node: NodeId) {
        let stand = self.lock();
        if matches!(&*stand, Stand::At { node: to, .. } if *to == node) {
            self.severed.store(true, Ordering::Release);
            self.waker.wake();
        }
    }

    /// Was its node given up? Registers the task to be woken.
    pub fn is_severed(&self, cx: &std::task::Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.severed.load(Ordering::Acquire)
    }

    /// The node it has a connection to.
    pub fn node(&self) -> Option<NodeId> {
        match &*self.lock() {
            Stand::At { node, .. } => Some(*node),
            Stand::Nowhere | Stand::InLine { .. } => None,
        }
    }

    fn begin_cancel(&self) -> Canceling {
        match &mut *self.lock() {
            Stand::Nowhere => Canceling::Nothing,
            Stand::InLine { canceled } => {
                *canceled = true;
                self.waker.wake();
                Canceling::Waiting
            }
            Stand::At { node, key, canceling } => {
                *canceling = true;
                Canceling::At(*node, key.clone())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stand> {
        self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a cancel request has found.
enum Canceling {
    /// Nothing to cancel.
    Nothing,
    /// A client in line, which has been told.
    Waiting,
    /// A statement that a server runs.
    At(NodeId, Arc<BackendKey>),
}

/// All connected clients.
#[derive(Debug, Default)]
pub struct Clients {
    slots: Mutex<HashMap<u32, Arc<ClientSlot>>>,
}

impl Clients {
    /// Lets one in, unless there are `limit` already.
    pub fn admit(&self, mut slot: ClientSlot, limit: usize) -> Result<Arc<ClientSlot>, Fault> {
        let mut slots = self.lock();
        if slots.len() >= limit {
            return Err(Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
                .hint("Raise limits.clients.")
                .retriable());
        }
        while slots.contains_key(&slot.pid) {
            slot.pid = (slot.pid.wrapping_add(1) & 0x7fff_ffff) | 0x4000_0000;
        }
        let slot = Arc::new(slot);
        slots.insert(slot.pid, slot.clone());
        Ok(slot)
    }

    /// One has left.
    pub fn leave(&self, slot: &ClientSlot) {
        self.lock().remove(&slot.pid);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<ClientSlot>> {
        self.lock().values().cloned().collect()
    }

    fn find(&self, pid: u32, shown: &[u8]) -> Option<Arc<ClientSlot>> {
        let slot = self.lock().get(&pid).cloned();
        let nobody = Secret::nobody();
        let is_right = slot.as_ref().map_or(&nobody, |slot| &slot.secret).is(shown);
        slot.filter(|_| is_right)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<ClientSlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a cancel request: it reaches the request that its client has under way, or nobody.
pub async fn cancel(context: &Context, pid: u32, secret: &[u8]) {
    let Some(slot) = context.clients.find(pid, secret) else { return };
    // First a place, then the look at what the client is doing: no request is kept that was overtaken.
    let Ok(_place) = context.cancels.acquire().await else { return };
    let reached = match slot.begin_cancel() {
        Canceling::Nothing => false,
        Canceling::Waiting => true,
        Canceling::At(node, key) => send(context, node, &key).await,
    };
    if reached {
        context.counters.cancels.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends a cancel request to a node and waits until the server has closed the connection, which it
/// does when the signal has been sent. True if it took it.
pub async fn send(context: &Context, node: NodeId, key: &BackendKey) -> bool {
    let view = context.monitor.view_handle().load_full();
    let Some(node) = view.node(node).filter(|_| !key.secret.is_empty()) else { return false };
    let tls = context.server_tls.load_full();
    let request = writers::cancel(key.pid, &key.secret);
    let exchange = async {
        let mut stream: Stream = open_stream(&node.host, node.address, node.port, &tls).await.ok()?;
        stream.write_all(&request).await.ok()?;
        stream.flush().await.ok()?;
        stream.read(&mut [0; 1]).await.ok()
    };
    matches!(tokio::time::timeout(CANCEL_TIMEOUT, exchange).await, Ok(Some(_)))
}
