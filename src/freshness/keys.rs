//! Floors that connections share: by when was the last write under a causal key acknowledged?
//!
//! A key is a hash here: two keys that meet only make each other's floors higher. Two generations of
//! keys bound their number and their age. What is dropped is not forgotten: all that is not known any
//! more is taken for as new as the newest that was dropped. So a key that is dropped too early costs a
//! read on the primary, never a stale one.

use crate::moment::Moment;
use std::collections::HashMap;
use std::time::Duration;

/// How much is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyLimits {
    /// Keys of both generations together.
    pub keys: usize,
    /// A key is remembered for at least this long, where their number allows it, and at most for twice
    /// as long. Longer than any replica may lag: then what is dropped is needed by nobody.
    pub expiry: Duration,
}

/// See the file's head.
#[derive(Debug)]
pub struct KeyFloors {
    limits: KeyLimits,
    young: HashMap<u64, Moment>,
    old: HashMap<u64, Moment>,
    /// When the young generation began.
    began: Moment,
    /// The newest floor that was dropped.
    dropped: Moment,
    /// The newest write under a key that could not be told.
    of_all: Moment,
}

impl KeyFloors {
    /// None yet.
    pub fn new(limits: KeyLimits) -> KeyFloors {
        KeyFloors {
            limits,
            young: HashMap::new(),
            old: HashMap::new(),
            began: Moment::NEVER,
            dropped: Moment::NEVER,
            of_all: Moment::NEVER,
        }
    }

    /// A write under `key` was acknowledged at `at`, which is now.
    pub fn raise(&mut self, key: u64, at: Moment) {
        let full = self.young.len() >= (self.limits.keys / 2).max(1) && !self.young.contains_key(&key);
        if full || at.since(self.began) >= self.limits.expiry {
            let dropped = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.dropped = dropped.into_values().fold(self.dropped, Moment::max);
            self.began = at;
        }
        let floor = self.young.entry(key).or_default();
        *floor = (*floor).max(at);
    }

    /// A write was acknowledged at `at` under a key that nobody can tell: it counts for every key.
    pub fn raise_all(&mut self, at: Moment) {
        self.of_all = self.of_all.max(at);
    }

    /// By when everything must be visible to who reads under `key`.
    pub fn floor(&self, key: u64) -> Moment {
        let known = self.young.get(&key).or_else(|| self.old.get(&key)).copied();
        known.unwrap_or(self.dropped).max(self.of_all)
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Is none remembered?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: KeyLimits = KeyLimits { keys: 4, expiry: Duration::from_nanos(100) };

    #[test]
    fn a_write_raises_the_floor_of_its_key_alone() {
        let mut floors = KeyFloors::new(LIMITS);
        floors.raise(1, Moment(10));
        assert_eq!((floors.floor(1), floors.floor(2)), (Moment(10), Moment::NEVER));
        floors.raise_all(Moment(15));
        assert_eq!((floors.floor(1), floors.floor(2)), (Moment(15), Moment(15)));
    }

    #[test]
    fn what_has_expired_is_as_new_as_the_newest_that_was_dropped() {
        let mut floors = KeyFloors::new(LIMITS);
        floors.raise(1, Moment(10));
        floors.raise(2, Moment(120));
        floors.raise(3, Moment(240));
        assert_eq!(floors.floor(1), Moment(10), "dropped, and the newest of the dropped");
        assert_eq!(floors.floor(9), Moment(10));
        assert_eq!(floors.floor(2), Moment(120));
    }

    proptest! {
        /// Against a model that forgets nothing.
        #[test]
        fn no_floor_is_lower_than_the_last_write_and_their_number_is_bounded(
            writes in proptest::collection::vec((0_u64..12, 1_u64..60), 0..200)
        ) {
            let mut floors = KeyFloors::new(LIMITS);
            let mut model = HashMap::new();
            let mut now = 0;
            for (key, step) in writes {
                now += step;
                floors.raise(key, Moment(now));
                model.insert(key, Moment(now));
                prop_assert!(floors.len() <= LIMITS.keys);
                for (key, at) in &model {
                    prop_assert!(floors.floor(*key) >= *at);
                    prop_assert!(floors.floor(*key) <= Moment(now));
                }
            }
        }
    }
}
