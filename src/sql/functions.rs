//! What the functions and system views that every PostgreSQL has mean for routing.

mod table;

/// What a built-in function is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Builtin {
    /// Reads the same on a replica.
    Safe,
    /// Writes, locks, changes the session, or runs text that may.
    Writing,
    /// Answers for the node that runs it.
    NodeLocal,
}

/// Looks a function of pg_catalog up. `name` is folded as PostgreSQL does. Also covers the
/// extensions that hide writing behind a plain call (dblink, tablefunc).
pub fn builtin(name: &str) -> Option<Builtin> {
    let among = |table: &[&str]| table.binary_search(&name).is_ok();
    if among(table::SAFE) {
        Some(Builtin::Safe)
    } else if among(table::WRITING) || name.starts_with("binary_upgrade_") {
        Some(Builtin::Writing)
    } else if among(table::NODE_LOCAL) || name.starts_with("pg_stat_get_") {
        Some(Builtin::NodeLocal)
    } else {
        None
    }
}

/// Session state that a function may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionFunction {
    /// `set_config`.
    SetConfig,
    /// Takes an advisory lock that outlives the transaction.
    AdvisoryLock,
    /// May end one.
    AdvisoryUnlock,
    /// Opens a connection of the server's own that later calls refer to. (The seed of `setseed` and
    /// the values of `currval` and `lastval` are session state too; they are not tracked.)
    DblinkConnection,
}

/// Does a call of this function change session state that has to be tracked?
pub fn session_function(name: &[u8]) -> Option<SessionFunction> {
    let among = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()));
    if among(&["set_config"]) {
        Some(SessionFunction::SetConfig)
    } else if among(&[
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_try_advisory_lock",
        "pg_try_advisory_lock_shared",
    ]) {
        Some(SessionFunction::AdvisoryLock)
    } else if among(&["pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all"]) {
        Some(SessionFunction::AdvisoryUnlock)
    } else if among(&["dblink_connect", "dblink_connect_u"]) {
        Some(SessionFunction::DblinkConnection)
    } else {
        None
    }
}

/// Shorthand: is it one of `session_function`?
pub fn changes_session(name: &[u8]) -> bool {
    session_function(name).is_some()
}

/// System views and catalogs whose rows differ between the nodes.
pub fn is_node_local_relation(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "pg_aios",
        "pg_available_extension_versions",
        "pg_available_extensions",
        "pg_backend_memory_contexts",
        "pg_buffercache",
        "pg_config",
        "pg_cursors",
        "pg_file_settings",
        "pg_hba_file_rules",
        "pg_ident_file_mappings",
        "pg_locks",
        "pg_prepared_statements",
        "pg_prepared_xacts",
        "pg_replication_origin_status",
        "pg_replication_slots",
        "pg_sequences",
        "pg_settings",
        "pg_shmem_allocations",
        "pg_shmem_allocations_numa",
        "pg_wait_events",
    ];
    let statistics = name.starts_with("pg_stat_") || name.starts_with("pg_statio_");
    statistics || NAMES.binary_search(&name).is_ok()
}

/// Relations of the server itself (not of `initdb`'s user schemas), which need no catalog.
pub fn is_system_relation(schema: Option<&str>, name: &str) -> bool {
    match schema {
        Some("pg_catalog" | "information_schema") => true,
        Some(_) => false,
        None => name.starts_with("pg_"),
    }
}

/// Does the value of this setting depend on the node or on the moment of the transaction?
/// (Settings that a session makes are replayed on every server connection.)
pub fn is_node_local_setting(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "all",
        "autovacuum",
        "cluster_name",
        "config_file",
        "data_directory",
        "data_directory_mode",
        "default_transaction_read_only",
        "external_pid_file",
        "fsync",
        "full_page_writes",
        "hba_file",
        "hot_standby",
        "hot_standby_feedback",
        "ident_file",
        "in_hot_standby",
        "is_superuser",
        "listen_addresses",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "promote_trigger_file",
        "restore_command",
        "sync_replication_slots",
        "synchronized_standby_slots",
        "transaction_deferrable",
        "transaction_isolation",
        "transaction_read_only",
        "vacuum_defer_cleanup_age",
    ];
    const PREFIXES: &[&str] = &[
        "archive_",
        "log_",
        "max_",
        "pgweir.",
        "recovery_",
        "shared_",
        "ssl",
        "synchronous_",
        "unix_socket_",
        "wal_",
    ];
    let name = name.to_ascii_lowercase();
    NAMES.binary_search(&name.as_str()).is_ok() || PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Settings that `SHOW` answers the same on every node, because the session carries them along or
/// the cluster shares them.
pub fn is_session_setting(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "application_name",
        "block_size",
        "bytea_output",
        "client_encoding",
        "client_min_messages",
        "datestyle",
        "default_text_search_config",
        "extra_float_digits",
        "idle_in_transaction_session_timeout",
        "integer_datetimes",
        "intervalstyle",
        "lc_collate",
        "lc_ctype",
        "lc_messages",
        "lc_monetary",
        "lc_numeric",
        "lc_time",
        "lock_timeout",
        "max_identifier_length",
        "search_path",
        "server_encoding",
        "server_version",
        "server_version_num",
        "standard_conforming_strings",
        "statement_timeout",
        "timezone",
        "xmloption",
    ];
    NAMES.binary_search(&name.to_ascii_lowercase().as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_do_not_overlap() {
        for list in [table::SAFE, table::WRITING, table::NODE_LOCAL] {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        }
        for name in table::SAFE {
            assert!(table::WRITING.binary_search(name).is_err(), "{name}");
            assert!(table::NODE_LOCAL.binary_search(name).is_err(), "{name}");
        }
    }

    #[test]
    fn lookups_find_the_ends_of_every_list() {
        assert!(is_node_local_relation("pg_aios"));
        assert!(is_node_local_relation("pg_wait_events"));
        assert!(is_node_local_setting("all"));
        assert!(is_node_local_setting("Transaction_Read_Only"));
        assert!(is_session_setting("TimeZone"));
        assert!(!is_session_setting("transaction_read_only"));
        assert_eq!(builtin("abs"), Some(Builtin::Safe));
        assert_eq!(builtin("nextval"), Some(Builtin::Writing));
        assert_eq!(builtin("pg_is_in_recovery"), Some(Builtin::NodeLocal));
        assert_eq!(builtin("pg_stat_get_numscans"), Some(Builtin::NodeLocal));
        assert_eq!(builtin("no_such_thing"), None);
    }
}
