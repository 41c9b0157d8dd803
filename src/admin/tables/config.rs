//! SHOW CONFIG. Every settings struct is taken apart completely, so that a key which is added and
//! not shown does not compile.

use super::{Columns, Row, cell, yes_no};
use crate::config::settings::{
    AuthMethod, AuthQuerySettings, AuthSettings, CausalSettings, ClientTlsMode, ClientTlsSettings,
    ClusterSettings, DatabaseAccess, DatabaseSettings, DiscoverSettings, Drain, LimitsSettings, LogFormat,
    LogSettings, MonitorSettings, NodeSettings, OnLoss, OnMismatch, PatroniSettings, PoolMode, PoolOverrides,
    PoolSettings, Resolve, RoutingSettings, RuleSettings, ServerTlsMode, ServerTlsSettings, Settings,
    TlsNegotiation, TlsSettings, Verify,
};
use crate::config::values::{show_duration, show_size};
use crate::config::{self, Secret};
use crate::routing::request::{Balance, OnLag, PinAfterWrite, RoutingPolicy, Transactions};
use crate::routing::rules::Origin;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// PgBouncer's columns.
pub const COLUMNS: Columns = &["key", "value", "default", "changeable"];

/// What stands for a secret.
const HIDDEN: &str = "(hidden)";

/// What a reload cannot change.
const FIXED: &[&str] = &["listen", "reuse_port", "http", "log.format", "limits.statement_cache"];

/// The smallest file that says nothing about any key with a default.
const SMALLEST: &str =
    "cluster: { nodes: [ { name: a, host: a } ] }\nauth: { users: [ { name: a, password: a } ] }\n";

/// Sections whose entries have names that the file chooses: they have no defaults.
const NAMED: &[&str] = &[
    "cluster.nodes.",
    "cluster.patroni.",
    "cluster.discover.",
    "databases.",
    "auth.users",
    "routing.rules.",
];

type Pairs = Vec<(String, Option<String>)>;

/// Its rows: what holds now, and what would hold if the file said nothing.
pub fn rows(settings: &Settings) -> Vec<Row> {
    let defaults: BTreeMap<String, Option<String>> = match config::parse(Path::new(""), SMALLEST, &|_| None) {
        Ok(smallest) => pairs(&smallest).into_iter().collect(),
        Err(_) => BTreeMap::new(),
    };
    let default_of = |key: &str| {
        let named = NAMED.iter().any(|place| key.starts_with(place));
        if named { None } else { defaults.get(key).cloned().flatten() }
    };
    pairs(settings)
        .into_iter()
        .map(|(key, value)| {
            let (default, changeable) =
                (default_of(&key), yes_no(!FIXED.contains(&key.as_str()) && !key.starts_with("causal.")));
            vec![Some(key), value, default, changeable]
        })
        .collect()
}

fn pairs(settings: &Settings) -> Pairs {
    let Settings {
        listen,
        reuse_port,
        http,
        cluster,
        pool,
        databases,
        routing,
        causal,
        auth,
        tls,
        limits,
        log,
    } = settings;
    let mut pairs = vec![
        ("listen".to_owned(), cell(list(listen.iter().map(ToString::to_string)))),
        ("reuse_port".to_owned(), cell(reuse_port)),
        ("http".to_owned(), Some(http.map_or_else(|| "off".to_owned(), |address| address.to_string()))),
    ];
    of_cluster(cluster, &mut pairs);
    of_pool(pool, &mut pairs);
    databases.iter().for_each(|(name, database)| of_database(name, database, &mut pairs));
    of_routing(routing, &mut pairs);
    of_causal(causal, &mut pairs);
    of_auth(auth, &mut pairs);
    of_tls(tls, &mut pairs);
    of_limits(limits, &mut pairs);
    of_log(log, &mut pairs);
    pairs
}

fn push(pairs: &mut Pairs, section: &str, entries: impl IntoIterator<Item = (&'static str, Option<String>)>) {
    pairs.extend(entries.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
}

fn of_cluster(cluster: &ClusterSettings, pairs: &mut Pairs) {
    let ClusterSettings { nodes, resolve_interval, patroni, discover, monitor } = cluster;
    for NodeSettings { name, host, port, resolve, weight, zone, tags } in nodes {
        let entries = [
            ("host", cell(host)),
            ("port", cell(port)),
            ("resolve", cell(resolve_word(*resolve))),
            ("weight", cell(weight)),
            ("zone", zone.clone()),
            ("tags", cell(list(tags.iter().cloned()))),
        ];
        push(pairs, &format!("cluster.nodes.{name}"), entries);
    }
    push(pairs, "cluster", [("resolve_interval", time(*resolve_interval))]);
    of_patroni(patroni.as_ref(), pairs);
    of_discover(discover.as_ref(), pairs);
    let MonitorSettings { user, password, database, interval, fence_after } = monitor;
    let entries = [
        ("user", cell(user)),
        ("password", hidden(password.as_ref())),
        ("database", cell(database)),
        ("interval", time(*interval)),
        ("fence_after", time(*fence_after)),
    ];
    push(pairs, "cluster.monitor", entries);
}

/// Only where it is asked.
fn of_patroni(patroni: Option<&PatroniSettings>, pairs: &mut Pairs) {
    let Some(patroni) = patroni else { return };
    let PatroniSettings { endpoints, user, password, ca, verify, cert, key, interval, timeout } = patroni;
    let entries = [
        ("endpoints", cell(list(endpoints.iter().map(ToString::to_string)))),
        ("user", user.clone()),
        ("password", hidden(password.as_ref())),
        ("ca", path(ca)),
        ("verify", cell(verify_word(*verify))),
        ("cert", path(cert)),
        ("key", path(key)),
        ("interval", time(*interval)),
        ("timeout", time(*timeout)),
    ];
    push(pairs, "cluster.patroni", entries);
}

/// Only where standbys are asked for.
fn of_discover(discover: Option<&DiscoverSettings>, pairs: &mut Pairs) {
    let Some(DiscoverSettings { interval, port, hosts, only_mapped }) = discover else { return };
    let entries = [
        ("interval", time(*interval)),
        ("port", cell(port)),
        ("hosts", cell(list(hosts.iter().map(|(standby, place)| format!("{standby}: {place}"))))),
        ("only_mapped", cell(only_mapped)),
    ];
    push(pairs, "cluster.discover", entries);
}

fn of_pool(pool: &PoolSettings, pairs: &mut Pairs) {
    let PoolSettings {
        mode,
        size,
        min_idle,
        max_waiting,
        wait_timeout,
        idle_timeout,
        max_lifetime,
        connect_timeout,
        max_pools,
        // Only databases and users have one; for all others it is routing's.
        consistency: _,
    } = pool;
    let entries = [
        ("mode", cell(mode_word(*mode))),
        ("size", cell(size)),
        ("min_idle", cell(min_idle)),
        ("max_waiting", cell(max_waiting)),
        ("wait_timeout", time(*wait_timeout)),
        ("idle_timeout", time_or_off(*idle_timeout)),
        ("max_lifetime", time_or_off(*max_lifetime)),
        ("connect_timeout", time(*connect_timeout)),
        ("max_pools", cell(max_pools)),
    ];
    push(pairs, "pool", entries);
}

fn of_database(name: &str, database: &DatabaseSettings, pairs: &mut Pairs) {
    let DatabaseSettings { dbname, pool, users } = database;
    push(pairs, &format!("databases.{name}"), [("dbname", cell(dbname))]);
    of_level(&format!("databases.{name}"), pool, pairs);
    of_overrides(&format!("databases.{name}.pool"), pool, pairs);
    for (user, own) in users {
        of_level(&format!("databases.{name}.users.{user}"), own, pairs);
        of_overrides(&format!("databases.{name}.users.{user}"), own, pairs);
    }
}

fn of_level(section: &str, overrides: &PoolOverrides, pairs: &mut Pairs) {
    let level = overrides.consistency.map(|level| ("consistency", cell(level.word())));
    push(pairs, section, level);
}

/// Only what is said.
fn of_overrides(section: &str, overrides: &PoolOverrides, pairs: &mut Pairs) {
    let PoolOverrides { mode, size, min_idle, consistency: _ } = overrides;
    let entries = [
        ("mode", mode.and_then(|mode| cell(mode_word(mode)))),
        ("size", size.and_then(cell)),
        ("min_idle", min_idle.and_then(cell)),
    ];
    push(pairs, section, entries.into_iter().filter(|(_, value)| value.is_some()));
}

fn of_routing(routing: &RoutingSettings, pairs: &mut Pairs) {
    let RoutingSettings {
        policy,
        kick_flush,
        read_only_functions,
        writing_functions,
        rules,
        token_mismatch,
        lost_writes,
        prove_commits,
    } = routing;
    let RuleSettings { rules, subjects: _, always_fresh, may_be_stale } = rules;
    let RoutingPolicy {
        consistency,
        max_staleness,
        max_lag_bytes,
        // Follows from the monitor's interval.
        sample_max_age: _,
        wait,
        global_wait,
        fence_wait,
        lag_wait_limit,
        on_lag,
        lag_reads,
        pin_after_write,
        balance,
        transactions,
        retry_begin,
        defect: _,
    } = policy;
    let entries = [
        ("consistency", cell(consistency.word())),
        ("max_staleness", time(*max_staleness)),
        ("max_lag", Some(show_size(*max_lag_bytes))),
        ("wait", time(*wait)),
        ("global_wait", time(*global_wait)),
        ("fence_wait", time(*fence_wait)),
        ("kick_flush", cell(kick_flush)),
        ("on_lag", cell(on_lag_word(*on_lag))),
        ("lag_reads", cell(lag_reads)),
        ("lag_wait_limit", time(*lag_wait_limit)),
        ("pin_after_write", Some(pin_word(*pin_after_write))),
        ("balance", cell(balance_word(*balance))),
        ("transactions", cell(transactions_words(*transactions, *retry_begin))),
        ("token_mismatch", cell(mismatch_word(*token_mismatch))),
        ("lost_writes", cell(loss_word(*lost_writes))),
        ("prove_commits", cell(prove_commits)),
        ("functions.read_only", cell(list(read_only_functions.iter().cloned()))),
        ("functions.writing", cell(list(writing_functions.iter().cloned()))),
        ("always_fresh", cell(list(always_fresh.iter().cloned()))),
        ("may_be_stale", cell(list(may_be_stale.iter().cloned()))),
    ];
    push(pairs, "routing", entries);
    pairs.extend(rules.list().iter().filter_map(|rule| match rule.origin {
        Origin::Rule(number, _) => {
            let said = format!("{} -> {}", rule.matches, rule.effect);
            Some((format!("routing.rules.{number}"), Some(said)))
        }
        Origin::AlwaysFresh | Origin::MayBeStale => None,
    }));
}

fn of_causal(causal: &CausalSettings, pairs: &mut Pairs) {
    let CausalSettings { setting, keys, expiry, store, store_timeout, on_store_down, prefix } = causal;
    let entries = [
        ("setting", setting.clone()),
        ("keys", cell(keys)),
        ("expiry", time(*expiry)),
        ("store", hidden(store.as_ref())),
        ("store_timeout", time(*store_timeout)),
        ("on_store_down", cell(mismatch_word(*on_store_down))),
        ("prefix", cell(prefix)),
    ];
    push(pairs, "causal", entries);
}

fn drain_word(word: Drain) -> &'static str {
    match word {
        Drain::Transactions => "transactions",
        Drain::Clients => "clients",
    }
}

fn loss_word(word: OnLoss) -> &'static str {
    match word {
        OnLoss::Warning => "warning",
        OnLoss::Error => "error",
        OnLoss::Off => "off",
    }
}

fn mismatch_word(word: OnMismatch) -> &'static str {
    match word {
        OnMismatch::Warning => "warning",
        OnMismatch::Error => "error",
    }
}

fn of_auth(auth: &AuthSettings, pairs: &mut Pairs) {
    let AuthSettings { method, users, query, databases } = auth;
    let databases = match databases {
        DatabaseAccess::Any => "any",
        DatabaseAccess::Listed => "listed",
    };
    let entries = [
        ("method", cell(method_word(*method))),
        ("users", cell(list(users.iter().map(|user| user.name.clone())))),
        ("databases", cell(databases)),
    ];
    push(pairs, "auth", entries);
    let Some(AuthQuerySettings { user, password, database, query }) = query else { return };
    let entries = [
        ("user", cell(user)),
        ("password", hidden(password.as_ref())),
        ("database", cell(database)),
        ("query", cell(query)),
    ];
    push(pairs, "auth.query", entries);
}

fn of_tls(tls: &TlsSettings, pairs: &mut Pairs) {
    let TlsSettings { client, server } = tls;
    let ClientTlsSettings { mode, cert, key, ca } = client;
    let mode = match mode {
        ClientTlsMode::Disable => "disable",
        ClientTlsMode::Prefer => "prefer",
        ClientTlsMode::Require => "require",
    };
    let entries = [("mode", cell(mode)), ("cert", path(cert)), ("key", path(key)), ("ca", path(ca))];
    push(pairs, "tls.client", entries);
    let ServerTlsSettings { mode, negotiation, ca, cert, key } = server;
    let mode = match mode {
        ServerTlsMode::Disable => "disable",
        ServerTlsMode::Prefer => "prefer",
        ServerTlsMode::Require => "require",
        ServerTlsMode::VerifyCa => "verify-ca",
        ServerTlsMode::VerifyFull => "verify-full",
    };
    let negotiation = match negotiation {
        TlsNegotiation::Postgres => "postgres",
        TlsNegotiation::Direct => "direct",
    };
    let entries = [
        ("mode", cell(mode)),
        ("negotiation", cell(negotiation)),
        ("ca", path(ca)),
        ("cert", path(cert)),
        ("key", path(key)),
    ];
    push(pairs, "tls.server", entries);
}

fn of_limits(limits: &LimitsSettings, pairs: &mut Pairs) {
    let LimitsSettings {
        clients,
        login_clients,
        replication_clients,
        message_size,
        login_timeout,
        client_idle_timeout,
        prepared_statements,
        client_statements,
        statement_cache,
        pipeline,
        hold_time,
        hold_clients,
        replay_size,
        drain,
        drain_timeout,
    } = limits;
    let entries = [
        ("clients", cell(clients)),
        ("login_clients", cell(login_clients)),
        ("replication_clients", cell(replication_clients)),
        ("message_size", Some(show_size(*message_size))),
        ("login_timeout", time(*login_timeout)),
        ("client_idle_timeout", time_or_off(*client_idle_timeout)),
        ("prepared_statements", cell(prepared_statements)),
        ("client_statements", cell(client_statements)),
        ("statement_cache", cell(statement_cache)),
        ("pipeline", cell(pipeline)),
        ("hold_time", time(*hold_time)),
        ("hold_clients", cell(hold_clients)),
        ("replay_size", Some(show_size(*replay_size))),
        ("drain", Some(drain_word(*drain).to_owned())),
        ("drain_timeout", time(*drain_timeout)),
    ];
    push(pairs, "limits", entries);
}

fn of_log(log: &LogSettings, pairs: &mut Pairs) {
    let LogSettings { level, format } = log;
    let format = match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    push(pairs, "log", [("level", cell(level)), ("format", cell(format))]);
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// That there is one, and nothing else: not its length either.
fn hidden(secret: Option<&Secret>) -> Option<String> {
    secret.map(|_| HIDDEN.to_owned())
}

fn path(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.display().to_string())
}

fn time(duration: Duration) -> Option<String> {
    Some(show_duration(duration))
}

fn time_or_off(duration: Option<Duration>) -> Option<String> {
    Some(duration.map_or_else(|| "off".to_owned(), show_duration))
}

/// The word in the file.
pub fn mode_word(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}

fn method_word(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::ScramSha256 => "scram-sha-256",
        AuthMethod::Md5 => "md5",
        AuthMethod::Plain => "plain",
        AuthMethod::Trust => "trust",
        AuthMethod::Cert => "cert",
    }
}

fn resolve_word(resolve: Resolve) -> &'static str {
    match resolve {
        Resolve::One => "one",
        Resolve::All => "all",
    }
}

fn verify_word(verify: Verify) -> &'static str {
    match verify {
        Verify::Full => "full",
        Verify::Ca => "ca",
        Verify::None => "none",
    }
}

fn on_lag_word(on_lag: OnLag) -> &'static str {
    match on_lag {
        OnLag::Primary => "primary",
        OnLag::Wait => "wait",
        OnLag::Error => "error",
    }
}

fn pin_word(pin: PinAfterWrite) -> String {
    match pin {
        PinAfterWrite::UntilCaughtUp => "until_caught_up".to_owned(),
        PinAfterWrite::For(duration) => show_duration(duration),
        PinAfterWrite::UntilDisconnect => "until_disconnect".to_owned(),
    }
}

fn transactions_words(transactions: Transactions, retry_begin: bool) -> &'static str {
    match (transactions, retry_begin) {
        (Transactions::Primary, false) => "primary",
        (Transactions::Primary, true) => "retry_idempotent_begin",
        (Transactions::Split, false) => "split",
        (Transactions::Split, true) => "split, retry_idempotent_begin",
    }
}

fn balance_word(balance: Balance) -> &'static str {
    match balance {
        Balance::Lag => "lag",
        Balance::LeastBusy => "least_busy",
        Balance::Latency => "latency",
        Balance::RoundRobin => "round_robin",
        Balance::Random => "random",
    }
}

#[cfg(test)]
mod tests;
