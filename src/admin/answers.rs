//! Collects the facts that a command asks for. Reads shared state; changes it only by RELOAD.

use crate::admin::command::{Command, Show, Value};
use crate::admin::operate;
use crate::admin::tables::clients::{self, ClientFacts};
use crate::admin::tables::config::mode_word;
use crate::admin::tables::overview::{self, DatabaseFacts};
use crate::admin::tables::pools::{self, PoolFacts};
use crate::admin::tables::stats::{self, Sent};
use crate::admin::tables::{Answer, Row, cluster, config};
use crate::clock;
use crate::cluster::view::{ClusterView, NodeState};
use crate::fault::{Fault, SqlState};
use crate::node::NodeId;
use crate::pool::tenant::Tenant;
use crate::relay::context::Context;
use crate::relay::login::CONSOLE_DATABASE;
use crate::relay::slot::{ClientSlot, Doing};
use crate::routing::reason::Reason;
use crate::sql::effects::PinReason;
use crate::telemetry::statements::StatementCounters;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reads the configuration again: what changed, or why nothing did.
pub type Reload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

const INSUFFICIENT_PRIVILEGE: SqlState = SqlState(*b"42501");

/// The answer to `command`, asked by `user`.
pub async fn answer(
    command: &Command,
    user: &str,
    context: &Context,
    reload: &Reload,
) -> Result<Answer, Fault> {
    match command {
        Command::Show(show) => Ok(Answer::show(rows(*show, context))),
        Command::Reload => reload_now(user, context, reload).await,
        Command::Operate(operation) => {
            check_operator(user, context, "operate pgweir")?;
            operate::operate(operation, user, context).await
        }
        Command::Value { value, tag, .. } => {
            let text = match value {
                Value::Fixed(text) => (*text).to_owned(),
                Value::User => user.to_owned(),
            };
            Ok(Answer { rows: vec![vec![Some(text)]], notice: None, tag })
        }
        // The conversation answers these itself.
        Command::Begin => Ok(Answer::done("BEGIN")),
        Command::Commit => Ok(Answer::done("COMMIT")),
        Command::Rollback => Ok(Answer::done("ROLLBACK")),
        Command::Deallocate(_) => Ok(Answer::done("DEALLOCATE")),
        Command::Nothing(tag) => Ok(Answer::done(tag)),
    }
}

/// Who was found by `auth.query` alone may look, and change nothing.
fn check_operator(user: &str, context: &Context, what: &str) -> Result<(), Fault> {
    match context.config.load().auth.users.iter().any(|known| known.name == user) {
        true => Ok(()),
        false => Err(Fault::client(INSUFFICIENT_PRIVILEGE, format!("permission denied to {what}"))
            .hint("Only users listed in auth.users may; SIGHUP reloads the configuration, too.")),
    }
}

async fn reload_now(user: &str, context: &Context, reload: &Reload) -> Result<Answer, Fault> {
    check_operator(user, context, "reload the configuration")?;
    let reload = reload.clone();
    // It reads files: not on a thread that serves clients.
    match tokio::task::spawn_blocking(move || reload()).await {
        Ok(Ok(changes)) => {
            tracing::info!(%user, "configuration reloaded from the console: {changes}");
            Ok(Answer { notice: Some(changes), ..Answer::done("RELOAD") })
        }
        Ok(Err(mistakes)) => {
            tracing::warn!(%user, "reload from the console refused: {mistakes}");
            Err(Fault::proxy(SqlState::INVALID_PARAMETER_VALUE, "the configuration was not reloaded")
                .detail(mistakes.trim_end().to_owned())
                .hint("The old configuration stays in force; pgweir check reads the file without using it."))
        }
        Err(_) => Err(Fault::proxy(SqlState::INTERNAL_ERROR, "the reload did not come to its end")),
    }
}

fn rows(show: Show, context: &Context) -> Vec<Row> {
    let view = context.monitor.view_handle().load_full();
    match show {
        Show::Cluster => cluster::rows(&view, clock::now()),
        Show::Evidence => cluster::evidence_rows(context.monitor.evidence()),
        Show::Pools => pools::rows(pool_facts(context, &view)),
        Show::Servers => pools::server_rows(pool_facts(context, &view)),
        Show::Clients => clients::rows(client_facts(context, &view)),
        Show::Stats => stats::rows(sent(context), &process_stats(context)),
        Show::Config => config::rows(&context.config.load()),
        Show::Databases => {
            let primary = view.primary.and_then(|id| view.node(id)).map(|node| (&*node.host, node.port));
            overview::database_rows(&database_facts(context), primary)
        }
        Show::Lists => overview::list_rows(&lists(context, &view)),
        Show::Version => overview::version_rows(),
        Show::Help => overview::help_rows(),
    }
}

fn node_name(view: &ClusterView, id: NodeId) -> String {
    view.node(id).map_or_else(|| id.index().to_string(), |node| node.name.to_string())
}

fn client_facts(context: &Context, view: &ClusterView) -> Vec<ClientFacts> {
    let now = clock::now();
    let facts = |slot: Arc<ClientSlot>| ClientFacts {
        user: slot.user().to_owned(),
        database: slot.database().to_owned(),
        state: slot.doing().as_str(),
        address: slot.address().to_owned(),
        application: slot.application().to_owned(),
        encrypted: slot.encrypted,
        age: now.since(slot.since),
        node: slot.node().map(|id| node_name(view, id)),
        pins: slot.pins(),
        pid: slot.pid,
    };
    context.clients.all().into_iter().map(facts).collect()
}

/// A client's pool: database, user, node.
type PoolKey = (String, String, NodeId);

fn pool_facts(context: &Context, view: &ClusterView) -> Vec<PoolFacts> {
    let now = clock::now();
    let mut users: HashMap<PoolKey, Vec<(u32, String)>> = HashMap::new();
    for slot in context.clients.all() {
        if let Some(node) = slot.node() {
            let key = (slot.database().to_owned(), slot.user().to_owned(), node);
            users.entry(key).or_default().push((slot.pid, slot.application().to_owned()));
        }
    }
    let mut facts = Vec::new();
    for tenant in context.tenants() {
        let settings = tenant.settings();
        for pool in tenant.pools() {
            let key = (tenant.database.clone(), tenant.user.clone(), pool.node);
            facts.push(PoolFacts {
                node: node_name(view, pool.node),
                counts: pool.counts(),
                size: settings.size,
                min_idle: settings.min_idle,
                mode: mode_word(settings.mode),
                idle: pool.idle_servers(now),
                users: users.remove(&key).unwrap_or_default(),
                database: key.0,
                user: key.1,
            });
        }
    }
    facts
}

fn sent(context: &Context) -> Vec<Sent> {
    let of = |counters: Arc<StatementCounters>| Sent {
        database: counters.database().to_owned(),
        node: counters.node().to_owned(),
        role: Some(counters.role().as_str()),
        by_reason: Reason::ALL.map(|reason| (reason.as_str(), counters.of(reason))).to_vec(),
    };
    context.metrics.statement_counters().into_iter().map(of).collect()
}

fn process_stats(context: &Context) -> Vec<(String, u64)> {
    let counters = &context.counters;
    let cache = context.classifier.counts();
    let counted = [
        ("logins", &counters.logins),
        ("logins_refused", &counters.logins_refused),
        ("replays_read_only", &counters.replays_read_only),
        ("replays_conflict", &counters.replays_conflict),
        ("replays_lost", &counters.replays_lost),
        ("replays_stale", &counters.replays_stale),
        ("held", &counters.held),
        ("holding", &counters.holding),
        ("lag_reads", &counters.lag_reads),
        ("lag_reads_held", &counters.lag_reads_held),
        ("cancels", &counters.cancels),
        ("monitor_samples", &context.monitor.queries().samples),
        ("monitor_fences", &context.monitor.queries().fences),
        ("monitor_flushes", &context.monitor.queries().kicks),
    ];
    let counted = counted.map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)));
    let pins = PinReason::ALL.into_iter().zip(&counters.pins);
    let pins =
        pins.map(|(reason, count)| (format!("pins_{}", reason.as_str()), count.load(Ordering::Relaxed)));
    let cached = [
        ("cache_shared_hits".to_owned(), cache.shared_hits),
        ("cache_misses".to_owned(), cache.misses),
        ("shapes_learnt".to_owned(), cache.learnt),
        ("causal_keys".to_owned(), context.causal.len() as u64),
        (
            "causal_store_failures".to_owned(),
            context.causal.store.as_ref().map_or(0, |store| store.failures()),
        ),
    ];
    counted.into_iter().chain(pins).chain(cached).collect()
}

/// Those that the file lists, those in use, and the console.
fn database_facts(context: &Context) -> Vec<DatabaseFacts> {
    let config = context.config.load();
    let mut names: BTreeMap<String, String> =
        config.databases.iter().map(|(name, database)| (name.clone(), database.dbname.clone())).collect();
    let (mut servers, mut clients) = (HashMap::<String, usize>::new(), HashMap::<String, usize>::new());
    for tenant in context.tenants() {
        *servers.entry(tenant.database.clone()).or_default() += connections(&tenant);
        names.entry(tenant.database.clone()).or_insert_with(|| tenant.server_database.clone());
    }
    for slot in context.clients.all() {
        *clients.entry(slot.database().to_owned()).or_default() += 1;
    }
    names.entry(CONSOLE_DATABASE.to_owned()).or_insert_with(|| CONSOLE_DATABASE.to_owned());
    let facts = |(name, server_name): (String, String)| {
        let pool = match config.databases.get(&name) {
            Some(database) => config.pool.with(&database.pool),
            None => config.pool.clone(),
        };
        DatabaseFacts {
            size: pool.size,
            min_idle: pool.min_idle,
            mode: mode_word(pool.mode),
            servers: servers.get(&name).copied().unwrap_or(0),
            clients: clients.get(&name).copied().unwrap_or(0),
            name,
            server_name,
        }
    };
    names.into_iter().map(facts).collect()
}

fn connections(tenant: &Tenant) -> usize {
    tenant.pools().map(|pool| pool.counts()).map(|counts| counts.active + counts.idle).sum()
}

fn lists(context: &Context, view: &ClusterView) -> Vec<(&'static str, usize)> {
    let (tenants, clients) = (context.tenants(), context.clients.all());
    let counts: Vec<_> = tenants.iter().flat_map(|tenant| tenant.pools().map(|pool| pool.counts())).collect();
    let users: HashSet<&str> = tenants.iter().map(|tenant| tenant.user.as_str()).collect();
    let doing = |wanted: Doing| clients.iter().filter(|slot| slot.doing() == wanted).count();
    vec![
        ("databases", database_facts(context).len()),
        ("users", users.len()),
        ("pools", counts.len()),
        ("nodes", view.nodes.iter().filter(|node| node.state != NodeState::Removed).count()),
        ("clients", clients.len()),
        ("active_clients", doing(Doing::Active)),
        ("waiting_clients", doing(Doing::Waiting)),
        ("used_servers", counts.iter().map(|counts| counts.active).sum()),
        ("free_servers", counts.iter().map(|counts| counts.idle).sum()),
        ("statement_shapes", context.classifier.shapes()),
    ]
}
