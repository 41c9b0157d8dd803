//! A database and a role: their pools, one per node, and what their clients share.

use crate::auth::secret::ServerCredential;
use crate::cluster::view::NodeView;
use crate::config::settings::{PoolMode, PoolSettings};
use crate::node::Role;
use crate::pool::checkout::{Meter, Pool, PoolBounds, PoolCounts};
use crate::pool::server::Parameters;
use crate::routing::request::Consistency;
use crate::session::prepared::{Registry, Scope, Statement};
use crate::session::settings::Settings;
use crate::telemetry::metrics::Metrics;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// Nodes at most; `decide` keeps them in a 64-bit set.
pub const NODES_MAX: usize = 64;

/// Distinct startup settings whose reported parameters are remembered, per tenant.
const WELCOMES_MAX: usize = 64;

/// See the file's head.
#[derive(Debug)]
pub struct Tenant {
    /// The database's name as clients know it.
    pub database: String,
    /// Its name on the servers.
    pub server_database: String,
    /// The role.
    pub user: String,
    settings: RwLock<PoolSettings>,
    /// The mode again, for those who ask at every request.
    session_mode: AtomicBool,
    /// The level again, as its place among the words, from 1; 0: none of its own.
    level: AtomicU8,
    credential: RwLock<ServerCredential>,
    pools: Box<[OnceLock<Arc<Pool>>]>,
    statements: Mutex<Registry>,
    welcomes: Mutex<HashMap<Arc<Settings>, Parameters>>,
    metrics: Arc<Metrics>,
}

impl Tenant {
    /// Without any connection yet.
    pub fn new(
        database: String,
        server_database: String,
        user: String,
        settings: PoolSettings,
        metrics: Arc<Metrics>,
    ) -> Tenant {
        Tenant {
            database,
            server_database,
            user,
            session_mode: AtomicBool::new(settings.mode == PoolMode::Session),
            level: AtomicU8::new(number_of(settings.consistency)),
            settings: RwLock::new(settings),
            credential: RwLock::new(ServerCredential::None),
            pools: (0..NODES_MAX).map(|_| OnceLock::new()).collect(),
            statements: Mutex::new(Registry::default()),
            welcomes: Mutex::new(HashMap::new()),
            metrics,
        }
    }

    /// The pool to this node, made on demand.
    pub fn pool(&self, node: &NodeView) -> Option<&Arc<Pool>> {
        let place = self.pools.get(node.id.index())?;
        Some(place.get_or_init(|| {
            let meters = Role::ALL.map(|role| Meter {
                statements: self.metrics.statements(&self.database, &node.name, role),
                latency: self.metrics.latency(role).clone(),
            });
            Arc::new(Pool::new(node.id, bounds(&self.settings()), meters))
        }))
    }

    /// The pools that exist.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter().filter_map(OnceLock::get)
    }

    /// Is there any connection, or anybody who waits for one?
    pub fn has_connections(&self) -> bool {
        self.pools().any(|pool| pool.counts() != PoolCounts::default())
    }

    /// Its settings.
    pub fn settings(&self) -> PoolSettings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pool mode.
    pub fn mode(&self) -> PoolMode {
        match self.session_mode.load(Ordering::Relaxed) {
            true => PoolMode::Session,
            false => PoolMode::Transaction,
        }
    }

    /// The level that the configuration gives this user, or this database.
    pub fn level(&self) -> Option<Consistency> {
        let number = usize::from(self.level.load(Ordering::Relaxed));
        Consistency::WORDS.get(number.checked_sub(1)?).map(|(_, level)| *level)
    }

    /// New settings after a reload.
    pub fn reload(&self, settings: PoolSettings) {
        let bounds = bounds(&settings);
        self.session_mode.store(settings.mode == PoolMode::Session, Ordering::Relaxed);
        self.level.store(number_of(settings.consistency), Ordering::Relaxed);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.pools().for_each(|pool| pool.resize(bounds));
    }

    /// The shared statement for a text, its types and its scope.
    pub fn statement(
        &self,
        text: &[u8],
        types: &[u8],
        scope: &Scope,
        next_id: impl FnOnce() -> u64,
    ) -> Arc<Statement> {
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        statements.statement(text, types, scope, next_id)
    }

    /// What proves this role to servers.
    pub fn credential(&self) -> ServerCredential {
        self.credential.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client has proven itself; what it proved is good for servers too.
    pub fn set_credential(&self, credential: ServerCredential) {
        if self.credential() != credential {
            *self.credential.write().unwrap_or_else(PoisonError::into_inner) = credential;
        }
    }

    /// The parameters that servers report to a session that starts with these settings.
    pub fn welcome(&self, startup: &Arc<Settings>) -> Option<Parameters> {
        self.welcomes().get(startup).cloned()
    }

    /// Remembers them, up to a bound.
    pub fn remember_welcome(&self, startup: &Arc<Settings>, parameters: Parameters) {
        let mut welcomes = self.welcomes();
        if welcomes.len() >= WELCOMES_MAX {
            welcomes.clear();
        }
        welcomes.insert(startup.clone(), parameters);
    }

    /// Forgets them: another server version or configuration may answer now.
    pub fn forget_welcomes(&self) {
        self.welcomes().clear();
    }

    fn welcomes(&self) -> MutexGuard<'_, HashMap<Arc<Settings>, Parameters>> {
        self.welcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number_of(level: Option<Consistency>) -> u8 {
    let place = Consistency::WORDS.iter().position(|(_, known)| Some(*known) == level);
    place.map_or(0, |place| place as u8 + 1)
}

fn bounds(settings: &PoolSettings) -> PoolBounds {
    PoolBounds {
        size: settings.size as usize,
        waiters: settings.max_waiting as usize,
        wait_timeout: settings.wait_timeout,
    }
}
