//! What all clients share. Built once by the composition root; passed to whoever needs it.

use crate::auth::cache::{SecretCache, SecretCacheLimits};
use crate::auth::keys::DerivedKeys;
use crate::causal::Causal;
use crate::config::settings::Settings as Config;
use crate::fault::{Fault, SqlState};
use crate::monitor::Monitor;
use crate::net::tls::{ClientTls, ServerTls};
use crate::net::worker::{Crew, Worker};
use crate::pool::tenant::Tenant;
use crate::relay::cancel::{CANCELS_MAX, Clients};
use crate::relay::catalogs::{Catalogs, DatabaseCatalog};
use crate::relay::dormitory::Inbox;
use crate::relay::glance::Glance;
use crate::relay::pauses::Pauses;
use crate::relay::rule::Ruling;
use crate::relay::slot::ClientSlot;
use crate::session::settings::{Interner, Settings};
use crate::sql::cache::{Classifier, LocalCache, Scope};
use crate::sql::catalog::Overrides;
use crate::sql::class::Class;
use crate::sql::lexer::Dialect;
use crate::telemetry::metrics::Metrics;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// Slots of the exact-text cache per worker thread.
const LOCAL_CACHE_SLOTS: usize = 1024;

thread_local! {
    static LOCAL: RefCell<LocalCache> = RefCell::new(LocalCache::new(LOCAL_CACHE_SLOTS));
}

/// Counts of rare events, for metrics and SHOW STATS.
#[derive(Debug, Default)]
pub struct Counters {
    /// Logins that succeeded.
    pub logins: AtomicU64,
    /// Logins that were refused.
    pub logins_refused: AtomicU64,
    /// Groups sent again because a replica refused to write.
    pub replays_read_only: AtomicU64,
    /// Groups sent again because of a recovery conflict.
    pub replays_conflict: AtomicU64,
    /// Groups sent again because a replica's connection was lost.
    pub replays_lost: AtomicU64,
    /// Groups sent again because a statement's copy was older than the schema.
    pub replays_stale: AtomicU64,
    /// Transactions that have gone on on another connection.
    pub replays_transaction: AtomicU64,
    /// Statements held because there was no primary.
    pub held: AtomicU64,
    /// Those that are held now.
    pub holding: AtomicU64,
    /// Reads that are on the primary now because no replica was fresh enough.
    pub lag_reads: AtomicU64,
    /// Reads that had to wait for their turn there.
    pub lag_reads_held: AtomicU64,
    /// Cancel requests that reached a server.
    pub cancels: AtomicU64,
    /// Pins, by reason.
    pub pins: [AtomicU64; crate::sql::effects::PinReason::ALL.len()],
}

/// See the file's head.
pub struct Context {
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// Single values of it.
    pub glance: Glance,
    /// The cluster's picture.
    pub monitor: Monitor,
    /// The caches of classes.
    pub classifier: Classifier,
    /// What the configuration says about functions.
    pub overrides: ArcSwap<Overrides>,
    /// The configuration's rules.
    pub ruling: ArcSwap<Ruling>,
    /// Derived SCRAM keys.
    pub keys: DerivedKeys,
    /// Secrets that servers were asked for.
    pub secrets: SecretCache,
    /// TLS towards servers.
    pub server_tls: ArcSwap<ServerTls>,
    /// TLS towards clients.
    pub client_tls: ArcSwapOption<ClientTls>,
    /// What the databases say about their objects.
    pub catalogs: Catalogs,
    /// Floors that connections share.
    pub causal: Causal,
    /// Who is connected.
    pub clients: Clients,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Rare events.
    pub counters: Counters,
    /// What an operator holds.
    pub pauses: Pauses,
    /// Who works.
    pub crew: Arc<Crew>,
    /// Places for cancel requests that are being served.
    pub cancels: Semaphore,
    /// Replication connections.
    pub replicating: AtomicUsize,
    /// Connections that have not logged in yet.
    pub arriving: AtomicUsize,
    /// Clients that sleep.
    pub asleep: AtomicUsize,
    /// Clients on their way to a worker.
    inboxes: Box<[Inbox]>,
    /// Is the process on its way out?
    pub draining: AtomicBool,
    /// All clients have left, or are not waited for any more.
    pub over: AtomicBool,
    tenants: Mutex<HashMap<(String, String), Arc<Tenant>>>,
    interner: Mutex<Interner>,
    ids: AtomicU64,
}

/// What a context is made of.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// The running monitor.
    pub monitor: Monitor,
    /// The caches of classes.
    pub classifier: Classifier,
    /// Derived keys.
    pub keys: DerivedKeys,
    /// TLS towards servers.
    pub server_tls: ServerTls,
    /// TLS towards clients.
    pub client_tls: Option<ClientTls>,
    /// Floors that connections share.
    pub causal: Causal,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Who works.
    pub crew: Arc<Crew>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// Without any client yet.
    pub fn new(parts: Parts) -> Context {
        let overrides = overrides_of(&parts.config, 1);
        let inboxes = parts.crew.runtimes().map(|_| Inbox::default()).collect();
        let ruling = Ruling { epoch: 1, rules: parts.config.routing.rules.rules.clone() };
        Context {
            glance: Glance::new(&parts.config, overrides.epoch()),
            config: ArcSwap::new(parts.config),
            monitor: parts.monitor,
            classifier: parts.classifier,
            overrides: ArcSwap::from_pointee(overrides),
            ruling: ArcSwap::from_pointee(ruling),
            keys: parts.keys,
            secrets: SecretCache::new(SecretCacheLimits::default()),
            server_tls: ArcSwap::from_pointee(parts.server_tls),
            client_tls: ArcSwapOption::from_pointee(parts.client_tls),
            catalogs: Catalogs::default(),
            causal: parts.causal,
            clients: Clients::default(),
            metrics: parts.metrics,
            pauses: Pauses::default(),
            crew: parts.crew,
            counters: Counters::default(),
            cancels: Semaphore::new(CANCELS_MAX),
            replicating: AtomicUsize::new(0),
            arriving: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            inboxes,
            draining: AtomicBool::new(false),
            over: AtomicBool::new(false),
            tenants: Mutex::new(HashMap::new()),
            interner: Mutex::new(Interner::default()),
            ids: AtomicU64::new(1),
        }
    }

    /// Where clients come to a worker from another one.
    pub fn inbox(&self, worker: Worker) -> Option<&Inbox> {
        self.inboxes.get(usize::from(worker.0))
    }

    /// A number that nobody else has.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The shared copy of these settings.
    pub fn intern(&self, settings: Settings) -> Arc<Settings> {
        self.interner.lock().unwrap_or_else(PoisonError::into_inner).intern(settings)
    }

    /// The class of a text in a database.
    pub fn class_of(&self, database: &DatabaseCatalog, dialect: Dialect, text: &[u8]) -> Class {
        let catalog = database.catalog.load();
        let overrides = self.overrides.load();
        let scope = Scope { database: database.id, catalog: &catalog, overrides: &overrides, dialect };
        LOCAL.with_borrow_mut(|local| self.classifier.class_of(local, &scope, text))
    }

    /// Under which knowledge classes of a database's statements are made now.
    pub fn epoch_of(&self, database: &DatabaseCatalog) -> u64 {
        database.epoch().wrapping_add(self.glance.overrides().wrapping_mul(1 << 48))
    }

    /// What a database is called on the servers.
    pub fn server_database(&self, database: &str) -> Result<String, Fault> {
        self.config.load().server_database(database).map(str::to_owned).ok_or_else(|| {
            let message = format!("database \"{database}\" does not exist");
            Fault::client(SqlState::INVALID_CATALOG_NAME, message)
                .detail("It is not among the databases of the configuration.")
        })
    }

    /// The tenant for a database (as clients name it) and a role, made on demand within a bound.
    pub fn tenant(&self, database: &str, user: &str) -> Result<Arc<Tenant>, Fault> {
        let config = self.config.load();
        let server_database = self.server_database(database)?;
        let mut tenants = self.tenants_mut();
        let key = (database.to_owned(), user.to_owned());
        if let Some(tenant) = tenants.get(&key) {
            return Ok(tenant.clone());
        }
        if tenants.len() >= config.pool.max_pools as usize {
            return Err(Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "too many pools")
                .detail(format!("{} pairs of database and role are in use already.", tenants.len()))
                .hint("Raise pool.max_pools."));
        }
        let settings = config.pool_for(database, user);
        let tenant = Arc::new(Tenant::new(
            database.to_owned(),
            server_database,
            user.to_owned(),
            settings,
            self.metrics.clone(),
        ));
        tenants.insert(key, tenant.clone());
        Ok(tenant)
    }

    /// Forgets the tenants that nobody uses and that have no connection: names cost nothing to invent.
    pub fn forget_unused_tenants(&self) {
        self.tenants_mut().retain(|_, tenant| Arc::strong_count(tenant) > 1 || tenant.has_connections());
    }

    /// All tenants.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants_mut().values().cloned().collect()
    }

    fn tenants_mut(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Tenant>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is the process on its way out?
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Is nobody served any more?
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// A client has logged in, or is refused for being one too many.
    pub fn admit(&self, slot: ClientSlot) -> Result<Arc<ClientSlot>, Fault> {
        let limit = self.config.load().limits.clients as usize;
        self.clients.admit(slot, limit)
    }

    /// This configuration is in force now.
    pub fn adopt(&self, config: Arc<Config>) {
        self.glance.show(&config);
        self.config.store(config);
    }

    /// New overrides and rules after a reload: classes made under the old ones are no longer found.
    pub fn reload_overrides(&self) {
        let epoch = self.overrides.load().epoch() + 1;
        let config = self.config.load_full();
        self.overrides.store(Arc::new(overrides_of(&config, epoch)));
        self.glance.show_overrides(epoch);
        self.ruling.store(Arc::new(Ruling { epoch, rules: config.routing.rules.rules.clone() }));
        // Rules may name relations that no catalog was asked about.
        self.catalogs.all().iter().for_each(|catalog| catalog.stale.notify_one());
    }

    /// The key of checksums of answers.
    pub fn answer_key(&self) -> [u64; 2] {
        let key = self.classifier.keys().exact(b"answers");
        [key as u64, (key >> 64) as u64]
    }

    /// The rules that two statements match together.
    pub fn rules_of(&self, one: u64, other: u64) -> u64 {
        self.overrides.load().subjects().together(one | other, one & other)
    }
}

fn overrides_of(config: &Config, epoch: u64) -> Overrides {
    Overrides::new(&config.routing.read_only_functions, &config.routing.writing_functions, epoch)
        .with_subjects(config.routing.rules.subjects.clone())
}
