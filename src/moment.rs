//! An instant of the monotonic clock as a number, so that it fits into an atomic and into a simulation.

use std::time::Duration;

/// Nanoseconds of the monotonic clock since the process started. `Moment::NEVER` (0) lies before
/// every real moment: a watermark of `NEVER` proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Before everything.
    pub const NEVER: Moment = Moment(0);

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self` moved `by` into the future (saturating).
    pub fn plus(self, by: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(by)))
    }

    /// `self` moved `by` into the past (never before `NEVER`).
    pub fn minus(self, by: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(by)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
