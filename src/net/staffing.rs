//! How many workers are in use: as few as the load needs.
//!
//! Measured on 2 cores with 16 clients (`pgbench -S`, TPC-B): with two workers, each is woken for fewer
//! events at a time, and a transaction costs about a fifth more CPU than with one that is kept busy.

use crate::clock;
use crate::moment::Moment;
use crate::net::worker::Crew;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at the load.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One worker that computes for more than this share of the time gets help: at once, because its clients
/// already wait for each other.
const BUSY: f64 = 0.65;

/// When the whole load would keep one worker less busy for less than this share of the time …
const SPARE: f64 = 0.4;

/// … for so many looks in a row, one worker is sent home. Changing one's mind costs each client a move.
const PATIENCE: u32 = 30;

/// Decides from what the workers have computed. Pure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staffing {
    in_use: usize,
    all: usize,
    quiet: u32,
}

impl Staffing {
    /// One of `all` workers is in use.
    pub fn new(all: usize) -> Staffing {
        Staffing { in_use: 1, all: all.max(1), quiet: 0 }
    }

    /// `shares`: for which share of the time (0 to 1) each worker has computed since the last look.
    /// Gives how many are to be in use.
    pub fn advise(&mut self, shares: impl Iterator<Item = f64>) -> usize {
        let (mut total, mut most) = (0.0, 0.0_f64);
        for share in shares {
            total += share;
            most = most.max(share);
        }
        let fewer = self.in_use.saturating_sub(1);
        self.quiet = match total < SPARE * fewer as f64 {
            true => self.quiet + 1,
            false => 0,
        };
        if most > BUSY && self.in_use < self.all {
            self.in_use += 1;
        } else if self.quiet >= PATIENCE {
            (self.in_use, self.quiet) = (fewer, 0);
        }
        self.in_use
    }
}

/// Keeps as many workers in use as the load needs. Where the kernel does not tell what threads compute,
/// all of them.
pub async fn run(crew: Arc<Crew>) {
    let mut staffing = Staffing::new(crew.threads().len());
    let mut every = tokio::time::interval(LOOK_EVERY);
    let mut before: Vec<u64> = Vec::new();
    let mut looked = Moment::NEVER;
    loop {
        every.tick().await;
        let Some(computed) = crew.threads().map(computed).collect::<Option<Vec<u64>>>() else {
            return crew.employ(usize::MAX);
        };
        let now = clock::now();
        let passed = now.since(looked).as_nanos() as f64;
        if !before.is_empty() && passed > 0.0 {
            let share = |(now, before): (&u64, &u64)| now.saturating_sub(*before) as f64 / passed;
            crew.employ(staffing.advise(computed.iter().zip(&before).map(share)));
        }
        (before, looked) = (computed, now);
    }
}

/// For how many nanoseconds a thread of this process has computed (proc(5), `schedstat`).
fn computed(thread: i32) -> Option<u64> {
    let line = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advised(staffing: &mut Staffing, shares: &[f64], looks: u32) -> usize {
        (0..looks).map(|_| staffing.advise(shares.iter().copied())).last().unwrap()
    }

    #[test]
    fn a_worker_that_has_too_much_to_do_gets_help_at_once_until_all_work() {
        let mut staffing = Staffing::new(3);
        assert_eq!(advised(&mut staffing, &[0.6, 0.0, 0.0], 100), 1);
        assert_eq!(advised(&mut staffing, &[0.9, 0.0, 0.0], 1), 2);
        assert_eq!(advised(&mut staffing, &[0.9, 0.2, 0.0], 1), 3);
        assert_eq!(advised(&mut staffing, &[1.0, 1.0, 1.0], 10), 3);
    }

    #[test]
    fn a_worker_is_sent_home_when_the_others_could_do_its_work_for_a_while() {
        let mut staffing = Staffing::new(2);
        advised(&mut staffing, &[0.9, 0.0], 1);
        assert_eq!(advised(&mut staffing, &[0.3, 0.3], 100), 2, "0.6 on one would bring it back at once");
        assert_eq!(advised(&mut staffing, &[0.1, 0.1], PATIENCE - 1), 2);
        assert_eq!(advised(&mut staffing, &[0.3, 0.3], 1), 2);
        assert_eq!(advised(&mut staffing, &[0.1, 0.1], PATIENCE), 1);
        assert_eq!(advised(&mut staffing, &[0.0, 0.0], 1000), 1);
    }

    #[test]
    fn the_kernel_tells_what_this_thread_has_computed() {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let before = computed(thread).unwrap();
        while computed(thread).unwrap() == before {
            std::hint::black_box((0..1000).sum::<u64>());
        }
    }
}
