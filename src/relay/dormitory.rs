//! Where clients sleep that have had nothing to do for a while.
//!
//! A client that is awake has a task, and its socket is registered with its worker's runtime: together more
//! than a kilobyte, besides the client itself. Most clients of a pooler do nothing most of the time. So those
//! that have rested for a second are taken apart (`Sleeper`), and their sockets are watched by an epoll
//! instance of each worker's dormitory, which is itself watched by the runtime. What comes for one of them
//! makes it a client with a task again, which reads it. Who is busy never gets here, and pays nothing for it
//! but a store per request.
//!
//! A dormitory belongs to its worker's thread; nobody else touches it, but for the inbox.

use crate::clock;
use crate::moment::Moment;
use crate::net::worker::Worker;
use crate::relay::client::Client;
use crate::relay::context::Context;
use crate::relay::sleeper::Sleeper;
use crate::relay::slot::ClientSlot;
use futures_util::task::AtomicWaker;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Between two looks at who is quiet; a client that is found so twice in a row is sent to sleep.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So many are sent to sleep at a time, each a few microseconds' work …
const AT_ONCE: usize = 64;

/// … with such a pause before the next: those who work notice nothing of it.
const PAUSE: Duration = Duration::from_millis(5);

/// So many places an inbox keeps when it is empty.
const INBOX: usize = 64;

/// So many events are taken from the kernel at a time.
const EVENTS: usize = 64;

thread_local! {
    static HERE: RefCell<Option<Dormitory>> = const { RefCell::new(None) };
}

/// The dormitory of one worker.
struct Dormitory {
    context: Arc<Context>,
    epoll: Arc<OwnedFd>,
    bell: Waker,
    beds: Vec<Option<Box<Sleeper>>>,
    free: Vec<usize>,
    /// The clients of this worker that are awake.
    watched: HashMap<u32, Arc<ClientSlot>>,
}

/// Rung where there is something to do that no socket tells.
#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }

    fn poll_rung(&self, cx: &TaskContext<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        match self.rung.swap(false, Ordering::AcqRel) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Who comes to a worker from another one. A client moves as a sleeper, by value: what each worker has allocated
/// for it, that worker frees. (What another thread frees stays with the allocator until its owner needs it.)
#[derive(Debug, Default)]
pub struct Inbox {
    sleepers: Mutex<Vec<Sleeper>>,
    bell: Bell,
}

impl Inbox {
    fn put(&self, sleeper: Sleeper) {
        self.lock().push(sleeper);
        self.bell.ring();
    }

    fn take(&self) -> Option<Sleeper> {
        let mut sleepers = self.lock();
        let sleeper = sleepers.pop();
        if sleeper.is_none() {
            sleepers.shrink_to(INBOX);
        }
        sleeper
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sleeper>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the dormitory of the worker on whose runtime it runs, for as long as that lives. Where the kernel
/// has none to give, clients stay awake.
pub async fn run(context: Arc<Context>) {
    let _open = Open;
    drop(tokio::spawn(let_in(context.clone())));
    if let Err(error) = keep(&context).await {
        tracing::warn!("idle clients keep their tasks: {error}");
    }
    wake_all(&context, |_| true).await;
}

/// Makes clients of those who come from other workers.
async fn let_in(context: Arc<Context>) {
    let Some(inbox) = context.inbox(Worker::current()) else { return };
    loop {
        poll_fn(|cx| inbox.bell.poll_rung(cx)).await;
        let mut woken = 0;
        while let Some(sleeper) = inbox.take() {
            wake_here(&context, sleeper);
            woken += 1;
            if woken % AT_ONCE == 0 {
                yield_now().await;
            }
        }
    }
}

/// Ends the dormitory with its task: who sleeps there when pgweir ends, is gone with the runtime as the others.
struct Open;

impl Drop for Open {
    fn drop(&mut self) {
        drop(HERE.take());
    }
}

async fn keep(context: &Arc<Context>) -> io::Result<()> {
    let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
    let door = watched_by_runtime(epoll.clone())?;
    let bell = Arc::new(Bell::default());
    HERE.set(Some(Dormitory::new(context.clone(), epoll, Waker::from(bell.clone()))));
    drop(tokio::spawn(send_to_sleep(context.clone())));
    loop {
        tokio::select! {
            ready = door.readable() => {
                let mut ready = ready?;
                while here(Dormitory::take_called).transpose()?.is_some_and(|called| wake(context, called) > 0) {
                    // What comes meanwhile is newer than what `ready` has seen, and is not cleared with it.
                    yield_now().await;
                }
                ready.clear_ready();
            }
            () = poll_fn(|cx| bell.poll_rung(cx)) => {
                wake_all(context, |sleeper| sleeper.slot.is_told_to_end()).await;
            }
        }
    }
}

// Deprecated because a type could give up its descriptor while it is registered. This one cannot, and the
// successor is `unsafe`, which nothing here is.
#[allow(deprecated)]
fn watched_by_runtime(epoll: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(epoll, Interest::READABLE)
}

/// Finds out who is quiet, and who has been so for too long.
async fn send_to_sleep(context: Arc<Context>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let quiet = here(Dormitory::find_quiet).unwrap_or_default();
        for slots in quiet.chunks(AT_ONCE) {
            slots.iter().for_each(|slot| slot.ask_to_sleep());
            sleep(PAUSE).await;
        }
        if let Some(limit) = context.glance.idle_timeout() {
            let now = clock::now();
            wake_all(&context, |sleeper| sleeper.since.plus(limit) <= now).await;
        }
    }
}

/// A client lives on this thread's worker now.
pub fn watch(slot: &Arc<ClientSlot>) {
    here(|here| here.watch(slot));
}

/// Takes a client in that was asked to sleep, and may. It has had nothing to do `since` then.
pub fn receive(client: Box<Client>, since: Moment) {
    let (context, slot) = (client.context.clone(), client.slot.clone());
    match client.fall_asleep(since).map(Box::new) {
        Ok(sleeper) => {
            let refused = HERE.with_borrow_mut(|here| match here {
                Some(here) => here.receive(sleeper),
                None => Some(sleeper),
            });
            wake(&context, refused);
        }
        Err(error) => lost(&context, &slot, &error),
    }
}

/// A client that may sleep goes on living on another worker.
pub fn send(client: Box<Client>, home: Worker) {
    let (context, slot) = (client.context.clone(), client.slot.clone());
    match client.fall_asleep(Moment::NEVER) {
        Ok(sleeper) => wake_at(&context, home, sleeper),
        Err(error) => lost(&context, &slot, &error),
    }
}

/// Makes clients of them again, each on the worker where it is at home now. Gives their number.
fn wake(context: &Arc<Context>, sleepers: impl IntoIterator<Item = Box<Sleeper>>) -> usize {
    let wake_one = |sleeper: Box<Sleeper>| wake_at(context, context.crew.home(sleeper.turn), *sleeper);
    sleepers.into_iter().map(wake_one).count()
}

/// Wakes those of this thread's sleepers for whom `condition` holds, not all at once: who is busy on this
/// worker goes on meanwhile.
async fn wake_all(context: &Arc<Context>, condition: impl Fn(&Sleeper) -> bool) {
    while wake(context, take(&condition)) > 0 {
        yield_now().await;
    }
}

fn wake_at(context: &Arc<Context>, home: Worker, sleeper: Sleeper) {
    match context.inbox(home) {
        Some(inbox) if home != Worker::current() => inbox.put(sleeper),
        _ => wake_here(context, sleeper),
    }
}

fn wake_here(context: &Arc<Context>, sleeper: Sleeper) {
    let slot = sleeper.slot.clone();
    match sleeper.awake(context.clone()) {
        Ok(client) => drop(tokio::spawn(client.run())),
        Err(error) => lost(context, &slot, &error),
    }
}

/// Nobody but its task takes a client off the list, and it has none any more.
fn lost(context: &Context, slot: &ClientSlot, error: &io::Error) {
    tracing::warn!(user = %slot.user(), database = %slot.database(),
        "an idle client is disconnected, because this host cannot watch its socket again: {error}");
    context.clients.leave(slot);
}

/// With this thread's dormitory, if it has one.
fn here<T>(then: impl FnOnce(&mut Dormitory) -> T) -> Option<T> {
    HERE.with_borrow_mut(|here| here.as_mut().map(then))
}

/// Some of this thread's sleepers for whom `condition` holds; none where there is none.
// Boxed as the beds have them: taking one out moves a pointer.
#[allow(clippy::vec_box)]
fn take(condition: impl Fn(&Sleeper) -> bool) -> Vec<Box<Sleeper>> {
    here(|here| here.take(condition)).unwrap_or_default()
}

impl Dormitory {
    fn new(context: Arc<Context>, epoll: Arc<OwnedFd>, bell: Waker) -> Dormitory {
        Dormitory { context, epoll, bell, beds: Vec::new(), free: Vec::new(), watched: HashMap::new() }
    }

    fn watch(&mut self, slot: &Arc<ClientSlot>) {
        slot.watch(Worker::current());
        self.watched.insert(slot.pid, slot.clone());
    }

    /// Who was at rest at the last look, too.
    fn find_quiet(&mut self) -> Vec<Arc<ClientSlot>> {
        let (this, mut quiet) = (Worker::current(), Vec::new());
        self.watched.retain(|_, slot| {
            // Its client is there, and has not moved to another worker.
            let is_here = Arc::strong_count(slot) > 1 && slot.is_watched_by(this);
            if is_here && slot.seen_quiet() {
                quiet.push(slot.clone());
            }
            is_here
        });
        if self.watched.len() < self.watched.capacity() / 4 {
            self.watched.shrink_to_fit();
        }
        quiet
    }

    /// Gives it back where it has to be awake after all.
    fn receive(&mut self, sleeper: Box<Sleeper>) -> Option<Box<Sleeper>> {
        self.watched.remove(&sleeper.slot.pid);
        let bed = self.free.pop().unwrap_or_else(|| {
            self.beds.push(None);
            self.beds.len() - 1
        });
        let (called, wanted) =
            (epoll::EventData::new_u64(bed as u64), epoll::EventFlags::IN | epoll::EventFlags::RDHUP);
        let failed = epoll::add(&self.epoll, &*sleeper, called, wanted).is_err();
        self.context.asleep.fetch_add(1, Ordering::Relaxed);
        self.beds[bed] = Some(sleeper);
        let ends = self.beds[bed].as_ref().is_some_and(|sleeper| {
            // From now on the bell rings when it is told to end.
            sleeper.slot.is_ending(&TaskContext::from_waker(&self.bell))
        });
        if failed || ends { self.leave(bed) } else { None }
    }

    /// Those whose sockets have something to say, as many as the kernel tells at a time.
    #[allow(clippy::vec_box)]
    fn take_called(&mut self) -> io::Result<Vec<Box<Sleeper>>> {
        let mut events = Vec::with_capacity(EVENTS);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()))?;
        Ok(events.iter().filter_map(|event: &epoll::Event| self.leave(event.data.u64() as usize)).collect())
    }

    #[allow(clippy::vec_box)]
    fn take(&mut self, condition: impl Fn(&Sleeper) -> bool) -> Vec<Box<Sleeper>> {
        let beds = 0..self.beds.len();
        let is_meant = |here: &Dormitory, bed: usize| here.beds[bed].as_deref().is_some_and(&condition);
        beds.filter_map(|bed| if is_meant(self, bed) { self.leave(bed) } else { None })
            .take(AT_ONCE)
            .collect()
    }

    fn leave(&mut self, bed: usize) -> Option<Box<Sleeper>> {
        let sleeper = self.beds.get_mut(bed)?.take()?;
        // It was never in, or is about to be watched by a runtime.
        let _ended: rustix::io::Result<()> = epoll::delete(&self.epoll, &*sleeper);
        self.context.asleep.fetch_sub(1, Ordering::Relaxed);
        self.free.push(bed);
        Some(sleeper)
    }
}
