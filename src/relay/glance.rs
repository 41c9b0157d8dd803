//! What every statement wants to know of the configuration, without taking a snapshot of it.

use crate::config::Settings;
use crate::routing::request::Consistency;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Single values of the configuration in force. Each is right by itself; whoever needs two that belong
/// together takes the whole configuration.
#[derive(Debug)]
pub struct Glance {
    level: AtomicUsize,
    idle_timeout: AtomicU64,
    pipeline: AtomicUsize,
    message_size: AtomicUsize,
    proves_commits: AtomicBool,
    overrides: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Glance {
    /// Of a configuration.
    pub fn new(config: &Settings, overrides: u64) -> Glance {
        let glance = Glance {
            level: AtomicUsize::new(0),
            idle_timeout: AtomicU64::new(NEVER),
            pipeline: AtomicUsize::new(1),
            message_size: AtomicUsize::new(0),
            proves_commits: AtomicBool::new(false),
            overrides: AtomicU64::new(overrides),
        };
        glance.show(config);
        glance
    }

    /// From now on this configuration is in force.
    pub fn show(&self, config: &Settings) {
        let limits = &config.limits;
        let nanos = |timeout: Duration| u64::try_from(timeout.as_nanos()).unwrap_or(NEVER);
        self.level.store(config.routing.policy.consistency as usize, Ordering::Relaxed);
        self.idle_timeout.store(limits.client_idle_timeout.map_or(NEVER, nanos), Ordering::Relaxed);
        self.pipeline.store(limits.pipeline as usize, Ordering::Relaxed);
        self.proves_commits.store(config.routing.prove_commits, Ordering::Relaxed);
        self.message_size
            .store(usize::try_from(limits.message_size).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// These overrides are in force, after they have been published: who reads an older number than that of
    /// the overrides that it uses asks once more, never once too little.
    pub fn show_overrides(&self, epoch: u64) {
        self.overrides.store(epoch, Ordering::Release);
    }

    /// `routing.consistency`.
    pub fn level(&self) -> Consistency {
        let number = self.level.load(Ordering::Relaxed);
        Consistency::WORDS.get(number).map_or(Consistency::Global, |(_, level)| *level)
    }

    /// `limits.client_idle_timeout`.
    pub fn idle_timeout(&self) -> Option<Duration> {
        Some(self.idle_timeout.load(Ordering::Relaxed))
            .filter(|nanos| *nanos != NEVER)
            .map(Duration::from_nanos)
    }

    /// `limits.pipeline`.
    pub fn pipeline(&self) -> usize {
        self.pipeline.load(Ordering::Relaxed)
    }

    /// `limits.message_size`, in bytes.
    pub fn message_size(&self) -> usize {
        self.message_size.load(Ordering::Relaxed)
    }

    /// `routing.prove_commits`.
    pub fn proves_commits(&self) -> bool {
        self.proves_commits.load(Ordering::Relaxed)
    }

    /// The epoch of the overrides.
    pub fn overrides(&self) -> u64 {
        self.overrides.load(Ordering::Acquire)
    }
}
