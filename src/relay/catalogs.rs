//! What each database says about its functions and relations: read from the primary on first use,
//! then on a timer, and at once after DDL has passed through.

use crate::sql::catalog::{Catalog, CatalogRows, CatalogState};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// One database's catalog.
#[derive(Debug)]
pub struct DatabaseCatalog {
    /// A number for the caches.
    pub id: u32,
    /// Its name on the servers.
    pub name: String,
    /// What is known of it.
    pub catalog: ArcSwap<Catalog>,
    last: Mutex<LastReading>,
    schema: AtomicU64,
    epoch: AtomicU64,
    /// Somebody wants it read again.
    pub stale: Notify,
    /// Somebody wants to be alone with the database.
    pub left: Notify,
}

impl DatabaseCatalog {
    /// How often its schema was seen to change.
    pub fn schema(&self) -> u64 {
        self.schema.load(Ordering::Acquire)
    }

    /// The epoch of the catalog, or of the one before it while it changes: classes that are made under a
    /// newer one meanwhile are made once more.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A reading begins: `publish` wants to know how many DDLs had passed through by then.
    pub fn begin_reading(&self) -> u64 {
        self.last().ddls
    }

    /// A newer reading. Its epoch parts it from the classes made under an older one; where nothing
    /// has changed the epoch stays, and so does what the caches know. A reading that DDL has overtaken
    /// (since `begin_reading`) says nothing: another one follows.
    pub fn publish(&self, rows: CatalogRows, ddls: u64) {
        let mut last = self.last();
        if last.ddls != ddls {
            return;
        }
        if last.rows.as_ref() != Some(&rows) {
            // Of whom rules have another wish to know, says nothing about the schema.
            let same =
                |old: &CatalogRows| CatalogRows { readers: rows.readers.clone(), ..old.clone() } == rows;
            if last.rows.as_ref().is_some_and(|old| !same(old)) && last.read_at == ddls {
                // Somebody has gone past pgweir.
                self.schema.fetch_add(1, Ordering::AcqRel);
            }
            last.epoch += 1;
            last.rows = Some(rows.clone());
        }
        last.read_at = ddls;
        self.show(Catalog::new(rows, last.epoch));
    }

    /// DDL has passed through: until it has been read again, nothing is known.
    pub fn invalidate(&self) {
        let mut last = self.last();
        last.ddls += 1;
        self.schema.fetch_add(1, Ordering::AcqRel);
        self.show(Catalog::not_loaded());
        drop(last);
        self.stale.notify_one();
    }

    /// It is about to be dropped, renamed or copied: nothing is known until somebody uses it again, and
    /// its reader's connection ends.
    fn leave(&self) {
        let mut last = self.last();
        last.ddls += 1;
        self.show(Catalog::not_loaded());
        drop(last);
        self.left.notify_one();
    }

    /// Called with `last` locked, so that the two agree in the end.
    fn show(&self, catalog: Catalog) {
        let epoch = catalog.epoch();
        self.catalog.store(Arc::new(catalog));
        self.epoch.store(epoch, Ordering::Release);
    }

    fn last(&self) -> MutexGuard<'_, LastReading> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct LastReading {
    rows: Option<CatalogRows>,
    epoch: u64,
    /// How many DDLs have passed through.
    ddls: u64,
    /// And how many had when it was read last.
    read_at: u64,
}

/// All databases that clients have used.
#[derive(Debug, Default)]
pub struct Catalogs {
    known: Mutex<HashMap<String, Arc<DatabaseCatalog>>>,
    /// A database was used for the first time.
    pub added: Notify,
}

impl Catalogs {
    /// The catalog of a database, not loaded at its first use. The number of databases is bounded by
    /// the number of pools.
    pub fn of(&self, server_database: &str) -> Arc<DatabaseCatalog> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(catalog) = known.get(server_database) {
            if catalog.catalog.load().state() == CatalogState::NotLoaded {
                catalog.stale.notify_one();
            }
            return catalog.clone();
        }
        let catalog = Arc::new(DatabaseCatalog {
            id: u32::try_from(known.len()).unwrap_or(u32::MAX),
            name: server_database.to_owned(),
            epoch: AtomicU64::new(Catalog::not_loaded().epoch()),
            catalog: ArcSwap::from_pointee(Catalog::not_loaded()),
            last: Mutex::new(LastReading::default()),
            schema: AtomicU64::new(0),
            stale: Notify::new(),
            left: Notify::new(),
        });
        known.insert(server_database.to_owned(), catalog.clone());
        self.added.notify_one();
        catalog
    }

    /// See [`DatabaseCatalog::leave`].
    pub fn leave(&self, server_database: &str) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(catalog) = known.get(server_database) {
            catalog.leave();
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<DatabaseCatalog>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_that_ddl_has_overtaken_is_not_believed() {
        let catalog = Catalogs::default().of("app");
        let state = || catalog.catalog.load().state();
        let begun = catalog.begin_reading();
        catalog.publish(CatalogRows::default(), begun);
        assert_eq!(state(), CatalogState::Loaded);
        let begun = catalog.begin_reading();
        catalog.invalidate();
        catalog.publish(CatalogRows::default(), begun);
        assert_eq!(state(), CatalogState::NotLoaded);
        catalog.publish(CatalogRows::default(), catalog.begin_reading());
        assert_eq!(state(), CatalogState::Loaded);
    }
}
