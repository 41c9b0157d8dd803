//! Causal keys: floors that all connections share which name the same key. In memory always; in a
//! Valkey or Redis too, where several pgweirs stand in front of one cluster.

pub mod store;

use crate::causal::store::Store;
use crate::config::settings::{CausalSettings, OnMismatch};
use crate::freshness::keys::{KeyFloors, KeyLimits};
use crate::moment::Moment;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks are shared by keys that meet in one of so many parts.
const SHARDS: usize = 16;

/// A key has at most so many bytes.
pub const KEY_MAX: usize = 256;

/// See the file's head.
#[derive(Debug)]
pub struct Causal {
    shards: Vec<Mutex<KeyFloors>>,
    hasher: RandomState,
    /// The custom setting that names the key.
    pub setting: Option<Box<str>>,
    /// What several pgweirs share.
    pub store: Option<Arc<Store>>,
    /// What becomes of a write that cannot be recorded there.
    pub on_store_down: OnMismatch,
}

impl Causal {
    /// Nothing has been written yet.
    ///
    /// # Errors
    /// The store's URL is none.
    pub fn new(settings: &CausalSettings) -> Result<Causal, redis::RedisError> {
        let keys = (settings.keys as usize).div_ceil(SHARDS);
        let limits = KeyLimits { keys, expiry: settings.expiry };
        Ok(Causal {
            shards: (0..SHARDS).map(|_| Mutex::new(KeyFloors::new(limits))).collect(),
            hasher: RandomState::new(),
            setting: settings.setting.as_deref().map(Box::from),
            store: Store::new(settings)?.map(Arc::new),
            on_store_down: settings.on_store_down,
        })
    }

    /// A write under `key` was acknowledged at `at`. Whoever asks from now on knows.
    pub fn raise(&self, key: &str, at: Moment) {
        let hash = self.hasher.hash_one(key);
        self.shard(hash).raise(hash, at);
    }

    /// A write was acknowledged at `at` under a key that nobody can tell.
    pub fn raise_all(&self, at: Moment) {
        self.shards.iter().for_each(|shard| locked(shard).raise_all(at));
    }

    /// By when everything must be visible to who reads under `key`, as far as this process knows.
    pub fn floor(&self, key: &str) -> Moment {
        let hash = self.hasher.hash_one(key);
        self.shard(hash).floor(hash)
    }

    /// Keys that are remembered here.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).len()).sum()
    }

    /// Is none remembered?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, KeyFloors> {
        // The upper bits: the map below goes by the lower ones.
        locked(&self.shards[(hash >> 60) as usize % SHARDS])
    }
}

fn locked(shard: &Mutex<KeyFloors>) -> MutexGuard<'_, KeyFloors> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
