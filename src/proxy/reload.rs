//! New settings in a running process. A bad file leaves the old ones in force.

use crate::config::{self, ReloadAction, Settings};
use crate::net::tls::ServerTls;
use crate::relay::context::Context;
use crate::relay::login::Console;
use crate::telemetry::logs::LogControl;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How often the file's time of change is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// See the file's head.
pub struct Reloader {
    context: Arc<Context>,
    file: Option<PathBuf>,
    logs: Option<LogControl>,
    changed_at: Mutex<Option<SystemTime>>,
    /// One at a time: the console, a signal and the file's time of change may all ask for it.
    reloading: Mutex<()>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Reloader {
    /// For the process that was started with `file`.
    pub fn new(context: Arc<Context>, file: Option<PathBuf>, logs: Option<LogControl>) -> Reloader {
        let changed_at = Mutex::new(file.as_ref().and_then(modified));
        Reloader { context, file, logs, changed_at, reloading: Mutex::new(()) }
    }

    /// Waits until the file has another time of change than at its last reading.
    pub async fn file_changed(&self) {
        let Some(file) = &self.file else { return std::future::pending().await };
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let now = modified(file);
            let mut last = self.changed_at.lock().unwrap_or_else(PoisonError::into_inner);
            if now.is_some() && *last != now {
                *last = now;
                return;
            }
        }
    }

    /// Reloads, and logs what came of it.
    pub async fn reload_and_log(&self, why: &str) {
        match self.reload() {
            Ok(what) => tracing::info!("reloaded ({why}): {what}"),
            Err(error) => tracing::error!("not reloaded ({why}), the old configuration stays: {error}"),
        }
    }

    /// Reads the file again and applies what has changed. Answers in one line what that was.
    pub fn reload(&self) -> Result<String, String> {
        let file = self.file.as_ref().ok_or("pgweir was started without a file")?;
        // Held to the end: what is compared with is what is in force, and the later file is the one that stays.
        let _reloading = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let new = config::load(file).map_err(|error| error.to_string())?;
        let old = self.context.config.load_full();
        let actions = config::diff(&old, &new);
        // Whatever can fail is done before anything is changed.
        let server_tls = ServerTls::load(&super::server_tls_settings(&new.tls.server))
            .map_err(|error| error.to_string())?;
        let client_tls = super::load_client_tls(&new.tls.client).map_err(|error| error.to_string())?;
        let settings = super::monitor_settings(&new, &server_tls).map_err(|error| error.to_string())?;
        if let Some(logs) = &self.logs {
            logs.set(&new.log).map_err(|error| error.to_string())?;
        }
        let kick = old.routing.kick_flush != new.routing.kick_flush;
        let monitor = kick || actions.iter().any(is_for_monitor);
        self.context.server_tls.store(Arc::new(server_tls));
        self.context.client_tls.store(client_tls.map(Arc::new));
        let new: Arc<Settings> = Arc::new(new);
        super::warm(&self.context.keys, &new);
        self.context.adopt(new.clone());
        match monitor {
            true => self.context.monitor.reload(settings),
            false => self.context.monitor.renew(settings),
        }
        for action in &actions {
            self.apply(action, &new);
        }
        Ok(match actions.is_empty() {
            true => "nothing has changed".to_owned(),
            false => actions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        })
    }

    fn apply(&self, action: &ReloadAction, new: &Settings) {
        match action {
            ReloadAction::Routing => self.context.reload_overrides(),
            ReloadAction::Auth => self.context.secrets.clear(),
            ReloadAction::Pools => {
                for tenant in self.context.tenants() {
                    tenant.reload(new.pool_for(&tenant.database, &tenant.user));
                }
            }
            ReloadAction::NeedsRestart(key) => tracing::warn!("{key} changed: takes effect after a restart"),
            ReloadAction::AddNode(_)
            | ReloadAction::ChangeNode(_)
            | ReloadAction::RemoveNode(_)
            | ReloadAction::Monitor
            | ReloadAction::Discovery
            | ReloadAction::Tls
            | ReloadAction::Limits
            | ReloadAction::Log => {}
        }
    }
}

fn is_for_monitor(action: &ReloadAction) -> bool {
    matches!(
        action,
        ReloadAction::AddNode(_)
            | ReloadAction::ChangeNode(_)
            | ReloadAction::RemoveNode(_)
            | ReloadAction::Monitor
            | ReloadAction::Discovery
            | ReloadAction::Tls
    )
}

fn modified(file: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|data| data.modified()).ok()
}

/// Serves a client of the virtual database.
pub async fn serve_console(console: Console, context: Arc<Context>, reloader: Arc<Reloader>) {
    crate::admin::serve(console, context, Arc::new(move || reloader.reload())).await;
}
