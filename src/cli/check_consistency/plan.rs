//! What is to be examined, and how.

use crate::checker::{Level, Shape};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;
use tokio_postgres::Config;

/// One examination.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The endpoint.
    pub endpoint: Config,
    /// Where tables are made and removed, if the endpoint cannot do that.
    pub setup: Option<Config>,
    /// The schema of the tables. It must not exist.
    pub schema: String,
    /// Does the schema stay?
    pub keep: bool,
    /// What is promised.
    pub level: Level,
    /// Sessions at once; each has a register of its own.
    pub sessions: u32,
    /// Cells (rows) of a register.
    pub cells: u32,
    /// Lists that all append to.
    pub lists: u32,
    /// Of a hundred operations, so many are reads.
    pub reads_percent: u32,
    /// It ends after so long.
    pub duration: Duration,
    /// Or after so many operations.
    pub operations: Option<u64>,
    /// Or with the first violation.
    pub until_found: bool,
    /// Or when this becomes true.
    pub stop: Arc<AtomicBool>,
    /// Whenever it changes, each session leaves and comes again, as pools renew their connections.
    pub renewals: Arc<AtomicU32>,
    /// How long every session rests between two operations, on average.
    pub rest: Duration,
    /// So many sessions rest for seconds between a write and what follows.
    pub slow_sessions: u32,
    /// So many sessions commit asynchronously.
    pub async_sessions: u32,
    /// What is drawn follows from it, except for the timing.
    pub seed: u64,
}

impl Plan {
    /// An examination of this endpoint with what is usual.
    pub fn of(endpoint: Config) -> Plan {
        Plan {
            endpoint,
            setup: None,
            schema: "pgweir_check".to_owned(),
            keep: false,
            level: Level::Session,
            sessions: 32,
            cells: 4,
            lists: 8,
            reads_percent: 90,
            duration: Duration::from_secs(60),
            operations: None,
            until_found: false,
            stop: Arc::new(AtomicBool::new(false)),
            renewals: Arc::new(AtomicU32::new(0)),
            rest: Duration::ZERO,
            slow_sessions: 4,
            async_sessions: 4,
            seed: 1,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        Shape { sessions: self.sessions, cells: u64::from(self.cells), lists: self.lists, level: self.level }
    }
}
