//! Metric handles and logs.

pub mod logs;
pub mod metrics;
pub mod names;
pub mod statements;
