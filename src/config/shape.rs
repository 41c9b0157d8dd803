//! The file's shape: each section read into its settings, then what only shows between sections.

mod access;
mod causal;
mod cluster;
mod pools;
mod rules;

use crate::cluster::health::HealthPolicy;
use crate::config::keys;
use crate::config::mistake::Mistake;
use crate::config::reader::{Field, Reader, Section};
use crate::config::settings::{
    AuthMethod, ClusterSettings, Drain, LimitsSettings, Listen, LogFormat, LogSettings, OnLoss, OnMismatch,
    RoutingSettings, Settings,
};
use crate::config::tree::{Tree, Value};
use crate::config::values::{duration, duration_or_off, http, listen, number, one_of, size, text};
use crate::routing::request::{Balance, Consistency, OnLag, PinAfterWrite, RoutingPolicy, Transactions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const DEFAULT_PORT: u16 = 6432;
const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9632);
const DAY: Duration = Duration::from_secs(86_400);
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// PostgreSQL's own bound on a message, less its header.
const MESSAGE_MAX: u64 = 0x7fff_ffff;

/// Reads the whole file. What is missing or wrong is reported and replaced by its default, so that
/// all mistakes are found; the settings are good only if nothing was reported.
pub fn read(tree: &Tree, reader: &mut Reader) -> Settings {
    let top = reader.section(&Field { tree, path: String::new() }, &keys::TOP);
    let cluster = cluster::read(&top, reader);
    let pool = pools::read(&top, reader);
    let (databases, auth) = (pools::databases(&top, reader), access::auth(&top, &cluster.monitor, reader));
    let tls = access::tls(&top, reader);
    let mut routing = routing(&top, &cluster, reader);
    // A replica that is sampled less often must be believed for longer.
    routing.policy.sample_max_age = HealthPolicy::for_interval(cluster.monitor.interval).sample_max_age();
    let settings = Settings {
        listen: read_listen(&top, reader),
        reuse_port: reader.optional(&top, "reuse_port", one_of(SWITCH, &[])).unwrap_or(false),
        http: reader.optional(&top, "http", http).unwrap_or(Some(DEFAULT_HTTP)),
        cluster,
        pool,
        databases,
        causal: causal::read(&top, routing.policy.max_staleness, reader),
        routing,
        auth,
        tls,
        limits: limits(&top, reader),
        log: log(&top, reader),
    };
    check_addresses(&settings, &top, reader);
    if settings.auth.method == AuthMethod::Cert && settings.tls.client.ca.is_none() {
        let message = "auth.method cert needs tls.client.ca, which signs the clients' certificates";
        reader.report(Mistake::new(top.span_of("auth"), message).path("tls.client.ca"));
    }
    settings
}

fn read_listen(top: &Section<'_>, reader: &mut Reader) -> Vec<Listen> {
    let Some(field) = top.field("listen") else {
        return vec![Listen::Tcp { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT }];
    };
    let fields = match field.tree.value {
        Value::List(_) => reader.items(&field),
        _ => vec![field.clone()],
    };
    if fields.is_empty() {
        reader.wrong(&field, "needs at least one address");
    }
    let mut places = Vec::new();
    for field in &fields {
        let Some(place) = reader.value(field, listen) else { continue };
        if places.contains(&place) && !matches!(place, Listen::Tcp { port: 0, .. }) {
            reader.wrong(field, format!("listens on {place} twice"));
        }
        places.push(place);
    }
    places
}

fn check_addresses(settings: &Settings, top: &Section<'_>, reader: &mut Reader) {
    let Some(http) = settings.http.filter(|http| http.port() != 0) else { return };
    for place in &settings.listen {
        let Listen::Tcp { host, port } = place else { continue };
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        let Ok(ip) = host.parse::<IpAddr>() else { continue };
        let meets = ip == http.ip() || ip.is_unspecified() || http.ip().is_unspecified();
        if *port == http.port() && meets {
            let message = format!("http and listen cannot both use {http}");
            let key = if top.field("http").is_some() { "http" } else { "listen" };
            reader.report(Mistake::new(top.span_of(key), message).path(key));
            return;
        }
    }
}

fn routing(top: &Section<'_>, cluster: &ClusterSettings, reader: &mut Reader) -> RoutingSettings {
    let section = reader.section(&top.child("routing"), &keys::ROUTING);
    let mut settings = RoutingSettings::default();
    let policy = &mut settings.policy;
    reader.set(&mut policy.consistency, &section, "consistency", one_of(Consistency::WORDS, &[]));
    reader.set(&mut policy.max_staleness, &section, "max_staleness", duration(MILLISECOND..=DAY));
    reader.set(&mut policy.max_lag_bytes, &section, "max_lag", size(1..=1 << 50));
    reader.set(&mut policy.wait, &section, "wait", duration(Duration::ZERO..=60 * SECOND));
    reader.set(&mut policy.global_wait, &section, "global_wait", duration(Duration::ZERO..=60 * SECOND));
    reader.set(&mut policy.fence_wait, &section, "fence_wait", duration(MILLISECOND..=3600 * SECOND));
    reader.set(&mut policy.on_lag, &section, "on_lag", one_of(ON_LAG, &[]));
    reader.set(&mut policy.lag_reads, &section, "lag_reads", number(0..=1_000_000));
    reader.set(&mut policy.lag_wait_limit, &section, "lag_wait_limit", duration(MILLISECOND..=DAY));
    reader.set(&mut policy.pin_after_write, &section, "pin_after_write", pin_after_write);
    reader.set(&mut policy.balance, &section, "balance", one_of(BALANCES, &[]));
    transactions(policy, &section, reader);
    reader.set(&mut settings.kick_flush, &section, "kick_flush", one_of(SWITCH, &[]));
    reader.set(&mut settings.token_mismatch, &section, "token_mismatch", one_of(MISMATCHES, &[]));
    reader.set(&mut settings.lost_writes, &section, "lost_writes", one_of(LOSSES, &[]));
    reader.set(&mut settings.prove_commits, &section, "prove_commits", one_of(SWITCH, &[]));
    let functions = reader.section(&section.child("functions"), &keys::FUNCTIONS);
    settings.read_only_functions = names(&functions, "read_only", reader);
    settings.writing_functions = names(&functions, "writing", reader);
    for name in settings.read_only_functions.iter().filter(|name| settings.writing_functions.contains(name)) {
        let message = format!("the function {name} is listed as read_only and as writing");
        reader.report(Mistake::new(functions.span(), message).path("routing.functions"));
    }
    settings.rules = rules::read(&section, &settings.policy, cluster, reader);
    settings
}

const SWITCH: &[(&str, bool)] = &[("true", true), ("false", false)];
const ON_LAG: &[(&str, OnLag)] =
    &[("primary", OnLag::Primary), ("wait", OnLag::Wait), ("error", OnLag::Error)];
const MISMATCHES: &[(&str, OnMismatch)] = &[("warning", OnMismatch::Warning), ("error", OnMismatch::Error)];
const DRAINS: &[(&str, Drain)] = &[("transactions", Drain::Transactions), ("clients", Drain::Clients)];
const LOSSES: &[(&str, OnLoss)] =
    &[("warning", OnLoss::Warning), ("error", OnLoss::Error), ("off", OnLoss::Off)];
const BALANCES: &[(&str, Balance)] = &[
    ("lag", Balance::Lag),
    ("least_busy", Balance::LeastBusy),
    ("latency", Balance::Latency),
    ("round_robin", Balance::RoundRobin),
    ("random", Balance::Random),
];
/// Words of `transactions:`; what each of them asks for.
const TRANSACTIONS: &[(&str, (Option<Transactions>, bool))] = &[
    ("primary", (Some(Transactions::Primary), false)),
    ("split", (Some(Transactions::Split), false)),
    ("retry_idempotent_begin", (None, true)),
];
const PINS: &[(&str, PinAfterWrite)] = &[
    ("until_caught_up", PinAfterWrite::UntilCaughtUp),
    ("until_disconnect", PinAfterWrite::UntilDisconnect),
];

/// One word, or a list of them.
fn transactions(policy: &mut RoutingPolicy, section: &Section<'_>, reader: &mut Reader) {
    let Some(field) = section.field("transactions") else { return };
    let items = if matches!(field.tree.value, Value::List(_)) { reader.items(&field) } else { vec![field] };
    let mut asked = None;
    for item in items {
        let Some((place, retry)) = reader.value(&item, one_of(TRANSACTIONS, &[])) else { continue };
        if place.is_some() && asked.is_some() && asked != place {
            let message = "transactions begin either on the primary or split";
            reader.report(Mistake::new(item.tree.span, message.to_owned()).path(&item.path));
        }
        asked = asked.or(place);
        policy.retry_begin |= retry;
    }
    policy.transactions = asked.unwrap_or(policy.transactions);
}

fn pin_after_write(value: &str) -> Result<PinAfterWrite, crate::config::reader::Wrong> {
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        return duration(MILLISECOND..=DAY)(value).map(PinAfterWrite::For);
    }
    one_of(PINS, &[])(value).map_err(|mut wrong| {
        wrong.message = wrong.message.replace(')', ", or a duration such as 5s)");
        wrong
    })
}

/// Names as in SQL: the classifier folds them as PostgreSQL does.
fn names(section: &Section<'_>, key: &str, reader: &mut Reader) -> Vec<String> {
    let Some(field) = section.field(key) else { return Vec::new() };
    let items = reader.items(&field);
    items.iter().filter_map(|item| reader.value(item, text)).collect()
}

fn limits(top: &Section<'_>, reader: &mut Reader) -> LimitsSettings {
    let section = reader.section(&top.child("limits"), &keys::LIMITS);
    let mut limits = LimitsSettings::default();
    reader.set(&mut limits.clients, &section, "clients", number(1..=1_000_000));
    reader.set(&mut limits.login_clients, &section, "login_clients", number(1..=1_000_000));
    reader.set(&mut limits.replication_clients, &section, "replication_clients", number(0..=1_000_000));
    reader.set(&mut limits.message_size, &section, "message_size", size(1 << 16..=MESSAGE_MAX));
    reader.set(
        &mut limits.login_timeout,
        &section,
        "login_timeout",
        duration(100 * MILLISECOND..=3600 * SECOND),
    );
    reader.set(
        &mut limits.client_idle_timeout,
        &section,
        "client_idle_timeout",
        duration_or_off(SECOND..=30 * DAY),
    );
    reader.set(&mut limits.prepared_statements, &section, "prepared_statements", number(1..=100_000));
    reader.set(&mut limits.client_statements, &section, "client_statements", number(1..=1_000_000));
    reader.set(&mut limits.statement_cache, &section, "statement_cache", number(16..=10_000_000));
    reader.set(&mut limits.pipeline, &section, "pipeline", number(1..=1_000_000));
    reader.set(&mut limits.hold_time, &section, "hold_time", duration(Duration::ZERO..=3600 * SECOND));
    reader.set(&mut limits.hold_clients, &section, "hold_clients", number(0..=1_000_000));
    reader.set(&mut limits.replay_size, &section, "replay_size", size(0..=1 << 30));
    reader.set(&mut limits.drain, &section, "drain", one_of(DRAINS, &[]));
    reader.set(&mut limits.drain_timeout, &section, "drain_timeout", duration(Duration::ZERO..=DAY));
    limits
}

fn log(top: &Section<'_>, reader: &mut Reader) -> LogSettings {
    let section = reader.section(&top.child("log"), &keys::LOG);
    let mut log = LogSettings::default();
    reader.set(&mut log.level, &section, "level", level);
    let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    reader.set(&mut log.format, &section, "format", one_of(formats, &[]));
    log
}

const LEVELS: &[(&str, ())] = &[("error", ()), ("warn", ()), ("info", ()), ("debug", ()), ("trace", ())];

fn level(value: &str) -> Result<String, crate::config::reader::Wrong> {
    if value.contains(['=', ',']) {
        return match value.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) => Ok(value.to_owned()),
            Err(error) => Err(format!("not a log filter: {error}").into()),
        };
    }
    one_of(LEVELS, &[])(value).map(|()| value.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::config::parse;
    use crate::routing::request::Transactions;
    use std::path::Path;

    #[test]
    fn transactions_take_one_word_or_several_that_go_together() {
        let nodes = "cluster: { nodes: [ { name: a, host: 127.0.0.1 } ] }\nauth: { method: trust }\n";
        let read = |transactions: &str| {
            let text = format!("{nodes}routing: {{ transactions: {transactions} }}\n");
            let policy = parse(Path::new("test.yaml"), &text, &|_| None).map(|all| all.routing.policy);
            policy.map(|policy| (policy.transactions, policy.retry_begin)).map_err(|error| error.to_string())
        };
        for (transactions, expected) in [
            ("primary", (Transactions::Primary, false)),
            ("split", (Transactions::Split, false)),
            ("retry_idempotent_begin", (Transactions::Primary, true)),
            ("[ split, retry_idempotent_begin ]", (Transactions::Split, true)),
            ("[ retry_idempotent_begin, primary ]", (Transactions::Primary, true)),
        ] {
            assert_eq!(read(transactions).unwrap(), expected, "{transactions}");
        }
        for (transactions, why) in [
            ("[ split, primary ]", "either on the primary or split"),
            ("retry_begin", "unknown value \"retry_begin\" (valid: primary, split, retry_idempotent_begin)"),
        ] {
            let error = read(transactions).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
