//! Every key that a file may have, in one table: what is not here is an error.

/// A kind of mapping and its keys. `*` in a name stands for a key that the user chooses.
pub struct Kind {
    /// Where such a mapping stands (`cluster.nodes[]`).
    pub place: &'static str,
    /// The keys that it may have.
    pub keys: &'static [&'static str],
}

/// The file itself.
pub const TOP: Kind = Kind {
    place: "",
    keys: &[
        "listen",
        "reuse_port",
        "http",
        "cluster",
        "pool",
        "databases",
        "routing",
        "causal",
        "auth",
        "tls",
        "limits",
        "log",
    ],
};
/// `cluster:`
pub const CLUSTER: Kind =
    Kind { place: "cluster", keys: &["nodes", "resolve_interval", "patroni", "discover", "monitor"] };
/// One of `cluster.nodes:`
pub const NODE: Kind =
    Kind { place: "cluster.nodes[]", keys: &["name", "host", "port", "resolve", "weight", "zone", "tags"] };
/// `cluster.patroni:`
pub const PATRONI: Kind = Kind {
    place: "cluster.patroni",
    keys: &[
        "endpoints",
        "user",
        "password",
        "password_file",
        "ca",
        "verify",
        "cert",
        "key",
        "interval",
        "timeout",
    ],
};
/// `cluster.discover:`
pub const DISCOVER: Kind =
    Kind { place: "cluster.discover", keys: &["interval", "port", "hosts", "only_mapped"] };
/// `cluster.monitor:`
pub const MONITOR: Kind = Kind {
    place: "cluster.monitor",
    keys: &["user", "password", "password_file", "database", "interval", "fence_after"],
};
/// `pool:`
pub const POOL: Kind = Kind {
    place: "pool",
    keys: &[
        "mode",
        "size",
        "min_idle",
        "max_waiting",
        "wait_timeout",
        "idle_timeout",
        "max_lifetime",
        "connect_timeout",
        "max_pools",
    ],
};
/// One of `databases:`
pub const DATABASE: Kind = Kind { place: "databases.*", keys: &["dbname", "consistency", "pool", "users"] };
/// `databases.*.pool:`
pub const DATABASE_POOL: Kind = Kind { place: "databases.*.pool", keys: &["mode", "size", "min_idle"] };
/// One of `databases.*.users:`
pub const DATABASE_USER: Kind =
    Kind { place: "databases.*.users.*", keys: &["consistency", "mode", "size", "min_idle"] };
/// `routing:`
pub const ROUTING: Kind = Kind {
    place: "routing",
    keys: &[
        "consistency",
        "max_staleness",
        "max_lag",
        "wait",
        "global_wait",
        "fence_wait",
        "kick_flush",
        "on_lag",
        "lag_reads",
        "lag_wait_limit",
        "pin_after_write",
        "balance",
        "transactions",
        "token_mismatch",
        "lost_writes",
        "prove_commits",
        "functions",
        "rules",
        "always_fresh",
        "may_be_stale",
    ],
};
/// One of `routing.rules:`
pub const RULE: Kind = Kind {
    place: "routing.rules[]",
    keys: &["match", "route", "tag", "fallback", "consistency", "max_staleness"],
};
/// `routing.rules[].match:`
pub const MATCH: Kind = Kind {
    place: "routing.rules[].match",
    keys: &["relation", "fingerprint", "user", "database", "application_name", "comment"],
};
/// `routing.functions:`
pub const FUNCTIONS: Kind = Kind { place: "routing.functions", keys: &["read_only", "writing"] };
/// `causal:`
pub const CAUSAL: Kind = Kind {
    place: "causal",
    keys: &["setting", "keys", "expiry", "store", "store_timeout", "on_store_down", "prefix"],
};
/// `auth:`
pub const AUTH: Kind = Kind { place: "auth", keys: &["method", "users", "query", "databases"] };
/// One of `auth.users:`
pub const USER: Kind = Kind { place: "auth.users[]", keys: &["name", "password", "password_file"] };
/// `auth.query:`
pub const AUTH_QUERY: Kind =
    Kind { place: "auth.query", keys: &["user", "password", "password_file", "database", "query"] };
/// `tls:`
pub const TLS: Kind = Kind { place: "tls", keys: &["client", "server"] };
/// `tls.client:`
pub const TLS_CLIENT: Kind = Kind { place: "tls.client", keys: &["mode", "cert", "key", "ca"] };
/// `tls.server:`
pub const TLS_SERVER: Kind =
    Kind { place: "tls.server", keys: &["mode", "negotiation", "ca", "cert", "key"] };
/// `limits:`
pub const LIMITS: Kind = Kind {
    place: "limits",
    keys: &[
        "clients",
        "login_clients",
        "replication_clients",
        "message_size",
        "login_timeout",
        "client_idle_timeout",
        "prepared_statements",
        "client_statements",
        "statement_cache",
        "pipeline",
        "hold_time",
        "hold_clients",
        "replay_size",
        "drain",
        "drain_timeout",
    ],
};
/// `log:`
pub const LOG: Kind = Kind { place: "log", keys: &["level", "format"] };

/// All of them.
pub const ALL: [&Kind; 23] = [
    &TOP,
    &CLUSTER,
    &NODE,
    &PATRONI,
    &DISCOVER,
    &MONITOR,
    &POOL,
    &DATABASE,
    &DATABASE_POOL,
    &DATABASE_USER,
    &ROUTING,
    &FUNCTIONS,
    &CAUSAL,
    &AUTH,
    &USER,
    &AUTH_QUERY,
    &TLS,
    &TLS_CLIENT,
    &TLS_SERVER,
    &LIMITS,
    &LOG,
    &RULE,
    &MATCH,
];

/// Where `key` would be valid: `cluster.nodes` for `nodes`.
pub fn place_of(key: &str) -> Option<String> {
    let kind = ALL.iter().find(|kind| kind.keys.contains(&key))?;
    Some(if kind.place.is_empty() { key.to_owned() } else { format!("{}.{key}", kind.place) })
}
