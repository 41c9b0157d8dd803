//! The only place that reads the monotonic clock.

use crate::moment::Moment;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

// The one process-wide value: every Moment counts from it, in every thread.
static START: LazyLock<Instant> = LazyLock::new(|| Instant::now() - Duration::from_secs(1));

/// Now. Always after `Moment::NEVER`.
pub fn now() -> Moment {
    Moment(u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// `moment` as the runtime's timers want it.
pub fn instant(moment: Moment) -> Instant {
    *START + Duration::from_nanos(moment.0)
}
