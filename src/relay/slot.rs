//! One connected client, as others see it: the console, cancel requests, the dormitory.

use crate::moment::Moment;
use crate::net::worker::Worker;
use crate::node::NodeId;
use crate::pool::server::BackendKey;
use crate::wire::startup::LONG_KEY_MINOR;
use crate::wire::writers;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use subtle::ConstantTimeEq;

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
    /// Is it encrypted?
    pub encrypted: bool,
    /// When it logged in.
    pub since: Moment,
    secret: Secret,
    names: Names,
    stand: Mutex<Stand>,
    waker: AtomicWaker,
    pins: AtomicU32,
    /// On which worker its task runs, where a dormitory looks after it.
    watched: AtomicU16,
    quiet: AtomicU8,
    doing: AtomicU8,
    ending: AtomicBool,
    severed: AtomicBool,
}

/// What a cancel request has to show besides the process id: 4 bytes in protocol 3.0, 32 since 3.2.
#[derive(Clone, Debug)]
pub(super) enum Secret {
    Short([u8; SHORT_SECRET]),
    Long(Box<[u8; LONG_SECRET]>),
    /// That of a process id which nobody has.
    Nobodys,
}

const SHORT_SECRET: usize = 4;
const LONG_SECRET: usize = 32;

impl Secret {
    fn random(minor: u16) -> Secret {
        let mut bytes = [0; LONG_SECRET];
        crate::net::random_fill(&mut bytes);
        let [one, two, three, four, ..] = bytes;
        match minor >= LONG_KEY_MINOR {
            true => Secret::Long(Box::new(bytes)),
            false => Secret::Short([one, two, three, four]),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Secret::Short(bytes) => bytes,
            Secret::Long(bytes) => &bytes[..],
            Secret::Nobodys => &[],
        }
    }

    /// In a time that tells neither how much of it is right nor whether there is anybody.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let padded = |bytes: &[u8]| {
            let (mut padded, len) = ([0; LONG_SECRET], bytes.len().min(LONG_SECRET));
            padded[..len].copy_from_slice(&bytes[..len]);
            padded
        };
        let own = self.bytes();
        bool::from(padded(own).ct_eq(&padded(shown)) & own.len().ct_eq(&shown.len()))
    }
}

/// What a client is called, in one allocation.
#[derive(Debug)]
struct Names {
    text: Box<str>,
    /// Where database, role and address end; behind them is the application.
    ends: [u32; 3],
}

impl Names {
    fn new(info: &ClientInfo) -> Names {
        let (mut text, mut ends) = (String::new(), [0; 3]);
        for (end, name) in ends.iter_mut().zip([&info.database, &info.user, &info.address]) {
            text.push_str(name);
            *end = u32::try_from(text.len()).unwrap_or(u32::MAX);
        }
        text.push_str(&info.application);
        Names { text: text.into(), ends }
    }

    fn between(&self, start: u32, end: u32) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// How long a client's task has had nothing to do, as its dormitory sees it.
///
/// ```text
///          seen_quiet       ask_to_sleep
///   Stirred ──────▶ Seen ────────────────▶ Asked ──▶ (asleep)
///      ▲   stir      │                       │ stay_awake
///      └─────────────┴───────── Stays ◀──────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Quiet {
    /// It has done something since the last look.
    Stirred = 0,
    /// It had not, at the last look.
    Seen = 1,
    /// It is asked to go to sleep.
    Asked = 2,
    /// It cannot before it has done something.
    Stays = 3,
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
            encrypted: info.encrypted,
            since,
            secret: Secret::random(info.minor),
            names: Names::new(&info),
            stand: Mutex::new(Stand::default()),
            waker: AtomicWaker::new(),
            pins: AtomicU32::new(0),
            watched: AtomicU16::new(Worker::NONE.0),
            quiet: AtomicU8::new(Quiet::Stirred as u8),
            doing: AtomicU8::new(Doing::Idle as u8),
            ending: AtomicBool::new(false),
            severed: AtomicBool::new(false),
        }
    }

    /// Writes its BackendKeyData.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        writers::key_data(out, self.pid, self.secret.bytes());
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Its database.
    pub fn database(&self) -> &str {
        self.names.between(0, self.names.ends[0])
    }

    /// Its role.
    pub fn user(&self) -> &str {
        self.names.between(self.names.ends[0], self.names.ends[1])
    }

    /// From where it came.
    pub fn address(&self) -> &str {
        self.names.between(self.names.ends[1], self.names.ends[2])
    }

    /// Its `application_name`.
    pub fn application(&self) -> &str {
        self.names.text.get(self.names.ends[2] as usize..).unwrap_or_default()
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

    /// The same for its dormitory.
    pub fn is_told_to_end(&self) -> bool {
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

    /// Its task begins to rest. Cheap: once for every request.
    pub fn stir(&self) {
        self.quiet.store(Quiet::Stirred as u8, Ordering::Relaxed);
    }

    /// It is looked at once more. True: it has been at rest since the last look.
    pub fn seen_quiet(&self) -> bool {
        if self.doing() != Doing::Idle {
            return false;
        }
        let (stirred, seen) = (Quiet::Stirred as u8, Quiet::Seen as u8);
        self.quiet.compare_exchange(stirred, seen, Ordering::Relaxed, Ordering::Relaxed) == Err(seen)
    }

    /// Asks its task to go to sleep, unless it has stirred.
    pub fn ask_to_sleep(&self) {
        let (seen, asked) = (Quiet::Seen as u8, Quiet::Asked as u8);
        if self.quiet.compare_exchange(seen, asked, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// Was it asked to?
    pub fn is_asked_to_sleep(&self) -> bool {
        self.quiet.load(Ordering::Relaxed) == Quiet::Asked as u8
    }

    /// It cannot: it is not asked again before it has done something.
    pub fn stay_awake(&self) {
        self.quiet.store(Quiet::Stays as u8, Ordering::Relaxed);
    }

    /// The dormitory of this worker looks after it from now on.
    pub fn watch(&self, worker: Worker) {
        self.watched.store(worker.0, Ordering::Relaxed);
    }

    /// Is it looked after by the dormitory of this worker?
    pub fn is_watched_by(&self, worker: Worker) -> bool {
        self.watched.load(Ordering::Relaxed) == worker.0
    }

    pub(super) fn begin_cancel(&self) -> Canceling {
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
pub(super) enum Canceling {
    /// Nothing to cancel.
    Nothing,
    /// A client in line, which has been told.
    Waiting,
    /// A statement that a server runs.
    At(NodeId, Arc<BackendKey>),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn slot(minor: u16) -> ClientSlot {
        let name = |name: &str| name.to_owned();
        let (database, user, address) = (name("shop"), name(""), name("10.0.0.1:5000"));
        let info = ClientInfo { minor, database, user, address, application: name("psql"), encrypted: true };
        ClientSlot::new(info, Moment(1))
    }

    #[test]
    fn names_are_told_apart() {
        let slot = slot(0);
        assert_eq!((slot.database(), slot.user()), ("shop", ""));
        assert_eq!((slot.address(), slot.application()), ("10.0.0.1:5000", "psql"));
    }

    #[test]
    fn only_the_whole_secret_is_right() {
        for (minor, len) in [(0, 4), (2, 32)] {
            let slot = slot(minor);
            let own = slot.secret.bytes().to_vec();
            assert_eq!(own.len(), len);
            assert!(slot.secret.is(&own));
            let longer = [&own[..], &[0]].concat();
            let other = [&own[..len - 1], &[!own[len - 1]]].concat();
            for wrong in [&own[..len - 1], &longer, &other, &[]] {
                assert!(!slot.secret.is(wrong), "{wrong:?}");
            }
        }
        assert!(Secret::Nobodys.is(&[]) && !Secret::Nobodys.is(&[0; 4]));
    }

    #[test]
    fn who_does_nothing_between_two_looks_is_asked_to_sleep_once() {
        let slot = slot(0);
        assert!(!slot.seen_quiet() && slot.seen_quiet());
        slot.stir();
        slot.ask_to_sleep();
        assert!(!slot.is_asked_to_sleep(), "it has stirred meanwhile");
        assert!(!slot.seen_quiet() && slot.seen_quiet());
        slot.ask_to_sleep();
        assert!(slot.is_asked_to_sleep());
        slot.stay_awake();
        assert!(!slot.seen_quiet() && !slot.seen_quiet() && !slot.is_asked_to_sleep());
        slot.stir();
        slot.set_doing(Doing::Active);
        assert!(!slot.seen_quiet() && !slot.seen_quiet());
    }
}
