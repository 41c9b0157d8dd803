//! The only place that reads the monotonic clock.

use crate::moment::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

// The one process-wide value: every Moment counts from it, in every thread.
static START: LazyLock<Start> = LazyLock::new(|| Start {
    nanos: monotonic().saturating_sub(1_000_000_000),
    instant: Instant::now() - Duration::from_secs(1),
});

struct Start {
    nanos: u64,
    instant: Instant,
}

/// Now. Always after `Moment::NEVER`.
pub fn now() -> Moment {
    Moment(monotonic().saturating_sub(START.nanos))
}

/// Nanoseconds of the clock that `Instant` counts with, as they are: it is read several times for each
/// statement, and `Instant` takes a difference apart and puts it together again each time.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// `moment` as the runtime's timers want it.
pub fn instant(moment: Moment) -> Instant {
    START.instant + Duration::from_nanos(moment.0)
}
