//! Watermarks: which moments of the primary has a replica provably replayed?

pub mod defect;
pub mod doubt;
pub mod fence;
pub mod flush;
pub mod forks;
pub mod gate;
pub mod keys;
pub mod losses;
pub mod ring;
pub mod token;
