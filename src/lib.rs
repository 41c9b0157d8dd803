//! pgweir divides a PostgreSQL session: writes to the primary, reads to the replicas, and never a
//! read that has not seen its own write. What follows is ARCHITECTURE.md.
#![doc = ""]
#![doc = include_str!("../ARCHITECTURE.md")]

// Vocabulary: std only, used by everybody.
pub mod fault;
pub mod lsn;
pub mod moment;
pub mod node;

// Pure cores: no async, no clock, no socket, no randomness.
pub mod checker;
pub mod cluster;
pub mod freshness;
pub mod pool;
pub mod routing;
pub mod session;
pub mod sql;
pub mod wire;

// Shells: they perform what the cores decide.
#[cfg(feature = "shell")]
pub mod admin;
pub mod auth;
#[cfg(feature = "shell")]
pub mod causal;
#[cfg(feature = "shell")]
pub mod cli;
#[cfg(feature = "shell")]
pub mod clock;
#[cfg(feature = "shell")]
pub mod config;
#[cfg(feature = "shell")]
pub mod devcluster;
#[cfg(feature = "shell")]
pub mod http;
#[cfg(feature = "shell")]
pub mod monitor;
#[cfg(feature = "shell")]
pub mod net;
#[cfg(feature = "shell")]
pub mod proxy;
#[cfg(feature = "shell")]
pub mod relay;
#[cfg(feature = "shell")]
pub mod telemetry;
