//! The metrics' names, units and meanings: what dashboards and alerts rely on.

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Statements by `database`, `node`, `role`, `reason`.
pub const STATEMENTS: &str = "pgweir_statements_total";
/// Time from request to complete answer, by `role`.
pub const STATEMENT_SECONDS: &str = "pgweir_statement_seconds";
/// By `database`, `user`, `node`.
pub const POOL_ACTIVE: &str = "pgweir_pool_active";
/// By `database`, `user`, `node`.
pub const POOL_IDLE: &str = "pgweir_pool_idle";
/// By `database`, `user`, `node`.
pub const POOL_WAITING: &str = "pgweir_pool_waiting";
/// By `node`.
pub const LAG_BYTES: &str = "pgweir_replica_lag_bytes";
/// By `node`.
pub const STALENESS_SECONDS: &str = "pgweir_replica_staleness_seconds";
/// By `node`, `state`.
pub const NODE_STATE: &str = "pgweir_node_state";
/// By `node`, `role`.
pub const NODE_ROLE: &str = "pgweir_node_role";
/// By `node`.
pub const NODE_QUARANTINED: &str = "pgweir_node_quarantined";
/// By `node`.
pub const NODE_TIMELINE: &str = "pgweir_node_timeline";
/// By `node`.
pub const NODE_IN_FLIGHT: &str = "pgweir_node_in_flight";
/// No labels.
pub const PRIMARY_KNOWN: &str = "pgweir_primary_known";
/// By `reason`.
pub const PINS: &str = "pgweir_pins_total";
/// By `cause`.
pub const REPLAYS: &str = "pgweir_replays_total";
/// No labels.
pub const CLIENTS: &str = "pgweir_clients";
/// Those of them that have been idle for long enough to cost no more than they must.
pub const CLIENTS_ASLEEP: &str = "pgweir_clients_asleep";
/// By `result`.
pub const LOGINS: &str = "pgweir_logins_total";
/// By `tier`.
pub const CACHE_HITS: &str = "pgweir_statement_cache_hits_total";
/// No labels.
pub const CACHE_MISSES: &str = "pgweir_statement_cache_misses_total";
/// By `database`, `user`, `node`.
pub const PREPARED: &str = "pgweir_prepared_statements";
/// By `database`, `user`, `node`, `cause`.
pub const PREPARES: &str = "pgweir_prepares_total";
/// By `database`, `user`, `node`.
pub const PREPARED_HITS: &str = "pgweir_prepared_hits_total";
/// By `database`, `user`, `node`.
pub const PREPARED_EVICTIONS: &str = "pgweir_prepared_evictions_total";
/// By `kind`.
pub const MONITOR_QUERIES: &str = "pgweir_monitor_queries_total";
/// No labels.
pub const CAUSAL_KEYS: &str = "pgweir_causal_keys";
/// No labels.
pub const NODES_LEFT_OUT: &str = "pgweir_nodes_left_out";
/// No labels; absent where Patroni is not asked.
pub const PATRONI_UP: &str = "pgweir_patroni_up";
/// No labels; absent where nobody asks who streams.
pub const STANDBYS_FOUND: &str = "pgweir_standbys_found";
/// No labels; absent without a store.
pub const CAUSAL_STORE_UP: &str = "pgweir_causal_store_up";
/// No labels; absent without a store.
pub const CAUSAL_STORE_FAILURES: &str = "pgweir_causal_store_failures_total";
/// By `verdict`.
pub const SETTLED: &str = "pgweir_settled_transactions_total";
/// By `version`.
pub const BUILD_INFO: &str = "pgweir_build_info";

/// All of them, with the help text.
pub const ALL: [(&str, Kind, &str); 33] = [
    (STATEMENTS, Kind::Counter, "Statements by where they went and why"),
    (STATEMENT_SECONDS, Kind::Histogram, "Time from a request to its complete answer"),
    (POOL_ACTIVE, Kind::Gauge, "Server connections in use"),
    (POOL_IDLE, Kind::Gauge, "Server connections idle"),
    (POOL_WAITING, Kind::Gauge, "Clients waiting for a server connection"),
    (LAG_BYTES, Kind::Gauge, "WAL bytes between the primary's insert and this node's replay position"),
    (STALENESS_SECONDS, Kind::Gauge, "Upper bound of this replica's staleness in time; +Inf: unknown"),
    (NODE_STATE, Kind::Gauge, "1 for the state that the node was last measured in"),
    (NODE_ROLE, Kind::Gauge, "1 for the role that the node was last measured in"),
    (
        NODE_QUARANTINED,
        Kind::Gauge,
        "1: it says that it is a primary, and is not written to (why: old_timeline, conflict)",
    ),
    (NODE_TIMELINE, Kind::Gauge, "The newest timeline that the node was measured on"),
    (NODE_IN_FLIGHT, Kind::Gauge, "Requests in flight on the node"),
    (PRIMARY_KNOWN, Kind::Gauge, "1 while there is a proven primary"),
    (NODES_LEFT_OUT, Kind::Gauge, "Nodes that are not used: 64 other names have been nodes since the start"),
    (PINS, Kind::Counter, "Sessions pinned to one server connection, by reason"),
    (REPLAYS, Kind::Counter, "Statements sent again after a replica could not finish them, by cause"),
    (
        SETTLED,
        Kind::Counter,
        "Transactions whose server was lost before it said what became of them, by what is proven",
    ),
    (CLIENTS, Kind::Gauge, "Client connections"),
    (
        CLIENTS_ASLEEP,
        Kind::Gauge,
        "Client connections that have been idle for a while, and cost next to nothing",
    ),
    (LOGINS, Kind::Counter, "Logins by result"),
    (CACHE_HITS, Kind::Counter, "Statements whose class was remembered, by tier"),
    (CACHE_MISSES, Kind::Counter, "Statements that had to be parsed"),
    (PREPARED, Kind::Gauge, "Statements that server connections have prepared"),
    (PREPARES, Kind::Counter, "Statements prepared on a server: asked for, or moved from another connection"),
    (PREPARED_HITS, Kind::Counter, "Uses of a statement that its server connection had prepared already"),
    (PREPARED_EVICTIONS, Kind::Counter, "Statements closed because their server connection had too many"),
    (MONITOR_QUERIES, Kind::Counter, "What the monitor asked: samples, fences, flushes of the primary's WAL"),
    (CAUSAL_KEYS, Kind::Gauge, "Causal keys remembered in memory"),
    (PATRONI_UP, Kind::Gauge, "1 while what Patroni says counts; 0: the nodes alone decide"),
    (
        STANDBYS_FOUND,
        Kind::Gauge,
        "Standbys that streamed when the cluster was asked last; those left out not among them",
    ),
    (CAUSAL_STORE_UP, Kind::Gauge, "1 while the shared store of causal keys answers"),
    (CAUSAL_STORE_FAILURES, Kind::Counter, "Questions that the store of causal keys did not answer"),
    (BUILD_INFO, Kind::Gauge, "1, with the version as label"),
];

/// Upper bounds of the histogram's buckets, in seconds: 50 µs to 30 s.
pub const SECONDS_BUCKETS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0, 30.0,
];
