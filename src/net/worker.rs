//! Worker threads, each with a runtime of its own.
//!
//! A client and the server connection it uses live on one worker, so an answer wakes nobody on another
//! core. Measured against tokio's multi-threaded runtime (2 cores, `pgbench -S`): 0.8 futex calls per
//! transaction less, with the same four data system calls.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// The workers of one process. Dropped, they end with all their tasks.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    next: AtomicUsize,
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads (at least one).
    pub fn start(count: usize) -> io::Result<Workers> {
        let mut workers = Workers {
            handles: Vec::new(),
            next: AtomicUsize::new(0),
            stops: Vec::new(),
            threads: Vec::new(),
        };
        for index in 0..count.max(1) {
            workers.add(u16::try_from(index).unwrap_or(u16::MAX - 1))?;
        }
        Ok(workers)
    }

    fn add(&mut self, index: u16) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        self.handles.push(runtime.handle().clone());
        self.stops.push(stop);
        let name = format!("pgweir-worker-{index}");
        self.threads.push(std::thread::Builder::new().name(name).spawn(move || {
            CURRENT.set(Worker(index));
            // Stopped on purpose or by losing its owner: either way it ends.
            drop(runtime.block_on(stopped));
        })?);
        Ok(())
    }

    /// The next worker in turn: clients are spread evenly, whatever the kernel's hash would do.
    pub fn next(&self) -> Option<&Handle> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles.get(turn.checked_rem(self.handles.len())?)
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
