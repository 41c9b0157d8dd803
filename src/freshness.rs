//! Watermarks: which moments of the primary has a replica provably replayed?

pub mod defect;
pub mod fence;
pub mod flush;
pub mod gate;
pub mod ring;
