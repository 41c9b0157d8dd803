//! Three tiers: what each thread knows by text (templates, and where there can be none, exact texts), a
//! shared bounded cache by shape, the classifier.

pub mod templates;

use crate::sql::cache::templates::Templates;
use crate::sql::catalog::{Catalog, Overrides};
use crate::sql::class::{Class, Fingerprint};
use crate::sql::classify::classify_shape;
use crate::sql::lexer::{Dialect, Keys, shape_of};
use quick_cache::sync::Cache;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the class of a text depends on besides the text.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Which database; a number that the caller gives to each name.
    pub database: u32,
    /// Its catalog.
    pub catalog: &'a Catalog,
    /// What the configuration says about functions.
    pub overrides: &'a Overrides,
    /// How strings are to be read.
    pub dialect: Dialect,
}

/// The scope as a part of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ScopeKey {
    catalog_epoch: u64,
    overrides_epoch: u64,
    database: u32,
    dialect: Dialect,
}

impl Scope<'_> {
    fn key(&self) -> ScopeKey {
        ScopeKey {
            catalog_epoch: self.catalog.epoch(),
            overrides_epoch: self.overrides.epoch(),
            database: self.database,
            dialect: self.dialect,
        }
    }
}

/// Texts longer than this are not kept by exact text: hashing them costs as much as their shape.
const EXACT_MAX_BYTES: usize = templates::TEXT_MAX_BYTES;

/// The first tier. Each thread owns one.
#[derive(Debug)]
pub struct LocalCache {
    templates: Templates,
    slots: Box<[Option<LocalSlot>]>,
    hits: u64,
}

#[derive(Clone, Copy, Debug)]
struct LocalSlot {
    text: u128,
    scope: ScopeKey,
    class: Class,
}

impl LocalCache {
    /// With this many slots (rounded up to a power of two), and as many templates.
    pub fn new(slots: usize) -> LocalCache {
        let slots = slots.max(templates::WAYS).next_power_of_two();
        LocalCache {
            templates: Templates::new(slots / templates::WAYS),
            slots: vec![None; slots].into_boxed_slice(),
            hits: 0,
        }
    }

    /// Answers it gave.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    fn index(&self, text: u128) -> usize {
        (text as usize) & (self.slots.len() - 1)
    }

    fn find(&mut self, text: u128, scope: &ScopeKey) -> Option<Class> {
        let slot = (*self.slots.get(self.index(text))?)?;
        let found = slot.text == text && slot.scope == *scope;
        self.hits += u64::from(found);
        found.then_some(slot.class)
    }

    fn put(&mut self, slot: LocalSlot) {
        let index = self.index(slot.text);
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(slot);
        }
    }
}

/// How often each shared tier answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheCounts {
    /// From the shared cache.
    pub shared_hits: u64,
    /// Classified.
    pub misses: u64,
    /// Shapes that were learnt to write.
    pub learnt: u64,
}

/// The shared part. One per process.
#[derive(Debug)]
pub struct Classifier {
    keys: Keys,
    shapes: Cache<(Fingerprint, ScopeKey), Class>,
    learnt: Box<[AtomicU64]>,
    shared_hits: AtomicU64,
    misses: AtomicU64,
    learnt_count: AtomicU64,
}

impl Classifier {
    /// Keeps at most `shapes` classes by shape and remembers about `learnt` writing shapes.
    pub fn new(keys: Keys, shapes: usize, learnt: usize) -> Classifier {
        let learnt = (0..learnt.max(1).next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
        Classifier {
            keys,
            shapes: Cache::new(shapes.max(1)),
            learnt,
            shared_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            learnt_count: AtomicU64::new(0),
        }
    }

    /// The key of the fingerprints.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The class of a text.
    pub fn class_of(&self, local: &mut LocalCache, scope: &Scope<'_>, text: &[u8]) -> Class {
        let scope_key = scope.key();
        // Where every byte says what it seems to say, whatever stands in a literal.
        let plain = scope.dialect == Dialect::STANDARD;
        if plain && let Some(class) = local.templates.find(text, &scope_key) {
            local.hits += 1;
            return class;
        }
        let exact = (text.len() <= EXACT_MAX_BYTES).then(|| self.keys.exact(text));
        if let Some(class) = exact.and_then(|exact| local.find(exact, &scope_key)) {
            return class;
        }
        let (class, certain) = self.by_shape(scope, scope_key, text);
        let kept = plain && certain && local.templates.keep(text, scope_key, class);
        if let Some(text) = exact.filter(|_| !kept) {
            local.put(LocalSlot { text, scope: scope_key, class });
        }
        class
    }

    /// Two texts of one shape have one class, because a literal that decides (the name of a setting)
    /// or a hint is part of the shape, and the size limits count shapes, not bytes. What cannot be
    /// read for certain (the second answer) is not kept: whether it can may depend on bytes inside of
    /// literals.
    fn by_shape(&self, scope: &Scope<'_>, scope_key: ScopeKey, text: &[u8]) -> (Class, bool) {
        let shape = shape_of(text, &self.keys);
        let keep = !shape.broken && scope.dialect.can_read(text);
        let key = (shape.fingerprint, scope_key);
        if keep && let Some(class) = self.shapes.get(&key) {
            self.shared_hits.fetch_add(1, Ordering::Relaxed);
            return (class, true);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let class = classify_shape(text, shape, scope.catalog, scope.overrides, scope.dialect);
        if keep {
            self.shapes.insert(key, class);
        }
        (class, keep)
    }

    /// A statement of this shape wrote, or failed, on a replica: the next goes to the primary.
    pub fn learn(&self, fingerprint: Fingerprint, database: u32) {
        let tag = learnt_tag(fingerprint, database);
        if let Some(slot) = self.learnt.get(self.learnt_index(tag))
            && slot.swap(tag, Ordering::Relaxed) != tag
        {
            self.learnt_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Was it learnt? (Bounded: an older shape may have been forgotten; it will be learnt again.)
    pub fn is_learnt(&self, fingerprint: Fingerprint, database: u32) -> bool {
        let tag = learnt_tag(fingerprint, database);
        self.learnt.get(self.learnt_index(tag)).is_some_and(|slot| slot.load(Ordering::Relaxed) == tag)
    }

    fn learnt_index(&self, tag: u64) -> usize {
        (tag >> 32) as usize & (self.learnt.len() - 1)
    }

    /// How often each tier answered.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            shared_hits: self.shared_hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            learnt: self.learnt_count.load(Ordering::Relaxed),
        }
    }

    /// Classes kept by shape.
    pub fn shapes(&self) -> usize {
        self.shapes.len()
    }
}

/// Never zero: zero is an empty slot.
fn learnt_tag(fingerprint: Fingerprint, database: u32) -> u64 {
    let mixed = fingerprint.0 ^ u128::from(database).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (mixed as u64 ^ (mixed >> 64) as u64) | 1
}

#[cfg(test)]
mod tests;
