//! Where a request goes, and why.

pub mod balance;
pub mod decide;
pub mod fence;
pub mod lag_reads;
pub mod reason;
pub mod request;
