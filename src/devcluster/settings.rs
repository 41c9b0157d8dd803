//! What a development cluster's servers are configured with, and who may log in to them.

use std::time::Duration;

use super::Options;

/// A database user and its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevUser {
    /// The role's name.
    pub name: &'static str,
    /// Its password.
    pub password: &'static str,
}

/// The superuser.
pub const SUPERUSER: DevUser = DevUser { name: "postgres", password: "secret" };
/// The application: owns the database [`APP_DATABASE`], logs in with SCRAM.
pub const APP: DevUser = DevUser { name: "app", password: "app-secret" };
/// What pgweir's monitor logs in as (member of pg_monitor).
pub const MONITOR: DevUser = DevUser { name: "pgweir", password: "monitor-secret" };
/// Logs in with an md5 hash.
pub const MD5_USER: DevUser = DevUser { name: "md5user", password: "md5-secret" };
/// Logs in with its password in the clear.
pub const PLAIN_USER: DevUser = DevUser { name: "plainuser", password: "plain-secret" };
/// Needs no password.
pub const TRUST_USER: DevUser = DevUser { name: "trustuser", password: "" };
/// What the replicas stream with.
pub const REPLICATION: DevUser = DevUser { name: "repl", password: "repl-secret" };
/// The application's database.
pub const APP_DATABASE: &str = "app";

/// The users of tests and demo, without the one for replication.
pub const USERS: [DevUser; 6] = [SUPERUSER, APP, MONITOR, MD5_USER, PLAIN_USER, TRUST_USER];

/// What `auth.query` calls by default, as the documentation tells people to create it.
const USER_LOOKUP: &str = "\
CREATE SCHEMA pgweir;
CREATE FUNCTION pgweir.user_lookup(wanted text) RETURNS TABLE (name text, secret text) \
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS \
$$ SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = wanted AND rolcanlogin \
AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) $$;
REVOKE ALL ON FUNCTION pgweir.user_lookup(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA pgweir TO pgweir;
GRANT EXECUTE ON FUNCTION pgweir.user_lookup(text) TO pgweir;
";

/// For `postgres --single`, in the database postgres: one statement a line.
pub(super) fn bootstrap_statements() -> String {
    let role = |user: DevUser, more: &str| {
        format!("CREATE ROLE {} LOGIN PASSWORD '{}' {more};\n", user.name, user.password)
    };
    [
        "SET password_encryption = 'scram-sha-256';\n".to_owned(),
        role(APP, "CREATEROLE"),
        role(MONITOR, "IN ROLE pg_monitor"),
        role(PLAIN_USER, ""),
        role(REPLICATION, "REPLICATION"),
        format!("CREATE ROLE {} LOGIN;\n", TRUST_USER.name),
        "SET password_encryption = 'md5';\n".to_owned(),
        role(MD5_USER, ""),
        USER_LOOKUP.to_owned(),
        format!("CREATE DATABASE {APP_DATABASE} OWNER {};\n", APP.name),
    ]
    .concat()
}

/// postgresql.conf, the same on every node: what differs is on each one's command line.
pub(super) fn server_settings(options: &Options, sockets: &str) -> String {
    let own = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", sockets),
        ("max_connections", "200"),
        ("shared_buffers", "64MB"),
        // Files in the data folder: nothing is left in /dev/shm after a SIGKILL.
        ("dynamic_shared_memory_type", "mmap"),
        ("password_encryption", "scram-sha-256"),
        // Nothing here has to survive a power cut; a SIGKILL it does survive.
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("wal_level", "replica"),
        ("hot_standby", "on"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("max_prepared_transactions", "20"),
        ("wal_receiver_status_interval", "1s"),
        ("wal_retrieve_retry_interval", "100ms"),
        ("logging_collector", "off"),
        ("log_line_prefix", "%m [%p] "),
        ("log_checkpoints", "off"),
        ("max_wal_size", "1GB"),
        // A checkpoint (of pg_basebackup, say) must not take the log from under who streams without a slot.
        ("wal_keep_size", "256MB"),
        ("TimeZone", "UTC"),
        ("log_timezone", "UTC"),
    ];
    let mut text = String::from("# A pgweir development cluster. The last line of a name wins.\n");
    let mut put = |name: &str, value: &str| {
        text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    };
    for (name, value) in own {
        put(name, value);
    }
    if options.apply_delay > Duration::ZERO {
        put("recovery_min_apply_delay", &milliseconds(options.apply_delay));
    }
    if options.tls.is_some() {
        put("ssl", "on");
        put("ssl_cert_file", "server.crt");
        put("ssl_key_file", "server.key");
    }
    for (name, value) in &options.settings {
        put(name, value);
    }
    text
}

/// pg_hba.conf: trust on the socket (in a temporary folder), passwords over TCP.
pub(super) fn host_access(options: &Options) -> String {
    let mut text = options.hba.join("\n");
    let tcp = |database: &str, user: &str, method: &str| {
        ["127.0.0.1/32", "::1/128"].map(|from| format!("host {database} {user} {from} {method}\n")).concat()
    };
    text.push_str("\nlocal all all trust\n");
    text.push_str(&tcp("replication", REPLICATION.name, "scram-sha-256"));
    text.push_str(&tcp("all", TRUST_USER.name, "trust"));
    text.push_str(&tcp("all", MD5_USER.name, "md5"));
    text.push_str(&tcp("all", PLAIN_USER.name, "password"));
    text.push_str(&tcp("all", "all", "scram-sha-256"));
    text
}

pub(super) fn milliseconds(delay: Duration) -> String {
    format!("{}ms", delay.as_millis())
}

/// postgresql.auto.conf of a node that follows the server on `port` through the slot of its own name.
pub(super) fn following(port: u16, node: &str) -> String {
    format!(
        "primary_conninfo = '{}'\nprimary_slot_name = '{node}'\nrecovery_target_timeline = 'latest'\n",
        primary_conninfo(port, node)
    )
}

pub(super) fn primary_conninfo(port: u16, node: &str) -> String {
    format!(
        "host=127.0.0.1 port={port} user={} password={} application_name={node} connect_timeout=3",
        REPLICATION.name, REPLICATION.password
    )
}
