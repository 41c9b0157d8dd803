//! Positions in the write-ahead log, and the timelines on which they may be compared.

use std::fmt;
use std::str::FromStr;

/// A byte position in the WAL of one timeline (PostgreSQL's `pg_lsn`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

/// A timeline: it grows by one at each promotion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimelineId(pub u32);

impl TimelineId {
    /// The timeline of a WAL file, which is the first eight digits of its name (manual, "WAL Internals").
    pub fn of_wal_file(name: &str) -> Option<TimelineId> {
        half(name.get(..8)?).ok().map(TimelineId)
    }
}

/// A position together with the timeline on which it was measured. Deliberately without `Ord`:
/// positions on two timelines compare only up to their fork.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WalPosition {
    /// The timeline on which `lsn` was measured.
    pub timeline: TimelineId,
    /// The position.
    pub lsn: Lsn,
}

/// The text is not a `pg_lsn`: two hexadecimal halves of at most 32 bits, divided by a slash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an LSN: expected two hexadecimal numbers as in 16/B374D848")]
pub struct InvalidLsn;

impl Lsn {
    /// Bytes from `earlier` to `self`; 0 when `earlier` is ahead.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Lsn, InvalidLsn> {
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

fn half(digits: &str) -> Result<u32, InvalidLsn> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain {
        return Err(InvalidLsn);
    }
    u32::from_str_radix(digits, 16).map_err(|_| InvalidLsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_of_a_wal_file_is_in_its_name() {
        assert_eq!(TimelineId::of_wal_file("0000001A0000000100000003"), Some(TimelineId(26)));
        for name in ["", "0000001", "+000001A0000", "é0000000000"] {
            assert_eq!(TimelineId::of_wal_file(name), None, "{name}");
        }
    }

    #[test]
    fn text_and_number_are_the_same_position() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/3000060"] {
            assert_eq!(text.parse::<Lsn>().map(|lsn| lsn.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_not_an_lsn_is_refused() {
        for text in ["", "/", "0", "0/", "/0", "0/123456789", "g/0", "+1/0", "0/0/0", " 0/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(InvalidLsn), "{text}");
        }
    }
}
