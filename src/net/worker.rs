//! Worker threads, each with a runtime of its own, and who works on which.
//!
//! A client and the server connection it uses live on one worker, so an answer wakes nobody on another
//! core. Measured against tokio's multi-threaded runtime (2 cores, `pgbench -S`): 0.8 futex calls per
//! transaction less, with the same four data system calls.
//!
//! No more workers are in use than the load needs (`net::staffing`): two half idle ones are woken twice as
//! often as a busy one, for half as much work each time.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Which worker a thread is; `Worker::NONE` for every other thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Worker(pub u16);

impl Worker {
    /// Not a worker.
    pub const NONE: Worker = Worker(u16::MAX);

    /// The worker that this thread is.
    pub fn current() -> Worker {
        CURRENT.get()
    }
}

thread_local! {
    static CURRENT: Cell<Worker> = const { Cell::new(Worker::NONE) };
}

/// A client's number: it decides on which of the workers in use the client lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn(u32);

/// The workers as those see them who give them work.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    in_use: AtomicUsize,
    next: AtomicU32,
}

/// One of them.
#[derive(Debug)]
struct Member {
    handle: Handle,
    /// Its thread, as the kernel numbers it.
    thread: i32,
}

impl Crew {
    /// The next client's number: they are spread evenly, whatever the kernel's hash would do.
    pub fn next(&self) -> Turn {
        Turn(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Where a client lives now; it moves when the number of workers in use changes.
    pub fn home(&self, turn: Turn) -> Worker {
        let in_use = self.in_use.load(Ordering::Relaxed).max(1);
        Worker(u16::try_from(turn.0 as usize % in_use).unwrap_or(0))
    }

    /// The runtime of a worker.
    pub fn runtime(&self, worker: Worker) -> Option<&Handle> {
        self.members.get(usize::from(worker.0)).map(|member| &member.handle)
    }

    /// The runtimes of all of them.
    pub fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.members.iter().map(|member| &member.handle)
    }

    /// How many are in use.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// From now on so many are in use: at least one, at most all. Clients move when they are idle.
    pub fn employ(&self, count: usize) {
        self.in_use.store(count.clamp(1, self.members.len().max(1)), Ordering::Relaxed);
    }

    /// The kernel's numbers of their threads.
    pub fn threads(&self) -> impl ExactSizeIterator<Item = i32> {
        self.members.iter().map(|member| member.thread)
    }
}

/// The workers of one process. Dropped, they end with all their tasks.
#[derive(Debug)]
pub struct Workers {
    crew: Arc<Crew>,
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads (at least one). The first is in use.
    pub fn start(count: usize) -> io::Result<Workers> {
        let (mut stops, mut threads, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (stop, stopped) = oneshot::channel();
            let (tell, told) = mpsc::channel();
            let name = format!("pgweir-worker-{index}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || {
                CURRENT.set(Worker(u16::try_from(index).unwrap_or(u16::MAX - 1)));
                if tell.send(rustix::thread::gettid().as_raw_nonzero().get()).is_err() {
                    return;
                }
                // Stopped on purpose or by losing its owner: either way it ends.
                drop(runtime.block_on(stopped));
            })?);
            stops.push(stop);
            let thread = told.recv().map_err(io::Error::other)?;
            members.push(Member { handle, thread });
        }
        let crew = Crew { members, in_use: AtomicUsize::new(1), next: AtomicU32::new(0) };
        Ok(Workers { crew: Arc::new(crew), stops, threads })
    }

    /// Those who work, for those who give work.
    pub fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stops.clear();
        for thread in self.threads.drain(..) {
            // A worker that panicked has ended too.
            drop(thread.join());
        }
    }
}
