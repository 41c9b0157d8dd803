//! One small HTTP server: /metrics, /healthz, /readyz, /status.json and a page that names them.

pub mod server;
pub mod status;

pub use server::serve;
pub use status::{Readiness, Status, StatusSource};
