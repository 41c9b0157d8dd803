//! Who comes in, and how pgweir proves itself to the servers.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/papers.rs"]
mod papers;
#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use papers::*;
use pgweir::devcluster::{APP, DevUser, MD5_USER, MONITOR, Options, PLAIN_USER, ServerTls, TRUST_USER};
use std::io::Read;
use std::process::Command;
use std::sync::LazyLock;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let tls = ServerTls { certificate: PAPERS.certificate.clone(), key: PAPERS.key.clone() };
    World::start(Options { tls: Some(tls), ..Options::with_replicas(0) })
});

fn login(user: DevUser, password: &str) -> Login {
    Login::new(user.name, password, "app")
}

fn connect(proxy: &Running, login: &Login) -> Result<Wire, Frame> {
    Wire::connect(proxy.port, login)
}

/// Wrong and unknown are refused in the same words.
fn assert_refused(proxy: &Running, name: &str) {
    for user in [name, "nobody_of_that_name"] {
        let error = connect(proxy, &Login::new(user, "wrong", "app")).err().expect("refused");
        assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
        assert_eq!(error.sqlstate(), "28P01");
        assert_eq!(error.message(), format!("password authentication failed for user \"{user}\""));
        assert_eq!(error.field(b'D'), None);
    }
}

#[test]
fn each_method_lets_the_right_password_in_and_nobody_else() {
    let users = format!("users: [ {{ name: {}, password: {} }} ]", APP.name, APP.password);
    for method in ["scram-sha-256", "md5", "plain"] {
        let proxy = WORLD.proxy(&[("auth", &format!("{{ method: {method}, {users} }}"))]);
        let mut wire = connect(&proxy, &login(APP, APP.password)).unwrap();
        assert_eq!(wire.value("SELECT current_user"), APP.name, "{method}");
        assert_refused(&proxy, APP.name);
        assert!(proxy.metric("pgweir_logins_total", "refused") >= 2.0);
    }
    let proxy = WORLD.proxy(&[("auth", &format!("{{ method: trust, {users} }}"))]);
    assert_eq!(connect(&proxy, &login(APP, "whatever")).unwrap().value("SELECT current_user"), APP.name);
    // Whoever is trusted by pgweir is not yet trusted by the server.
    let error = connect(&proxy, &login(MD5_USER, "")).err().unwrap();
    assert!(error.sqlstate().starts_with("28"), "{error:?}");
}

#[test]
fn every_method_of_the_servers_is_spoken() {
    let all = [APP, MD5_USER, PLAIN_USER];
    let users: Vec<String> =
        all.iter().map(|user| format!("{{ name: {}, password: {} }}", user.name, user.password)).collect();
    let proxy = WORLD.proxy(&[("auth", &format!("{{ users: [ {} ] }}", users.join(", ")))]);
    for user in all {
        let mut wire = connect(&proxy, &login(user, user.password)).unwrap();
        assert_eq!(wire.value("SELECT current_user"), user.name);
    }
    let trust = format!("{{ method: trust, users: [ {{ name: {} }} ] }}", TRUST_USER.name);
    let proxy = WORLD.proxy(&[("auth", &trust)]);
    let mut wire = connect(&proxy, &login(TRUST_USER, "")).unwrap();
    assert_eq!(wire.value("SELECT current_user"), TRUST_USER.name);
}

#[test]
fn a_verifier_is_enough_because_the_clients_proof_reveals_the_key() {
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
    let verifier = WORLD.cluster.primary().sql_value(verifier).unwrap().unwrap();
    assert!(verifier.starts_with("SCRAM-SHA-256$"));
    let auth = format!("{{ users: [ {{ name: app, password: \"{verifier}\" }} ] }}");
    let proxy = WORLD.proxy(&[("auth", &auth)]);
    let mut wire = connect(&proxy, &login(APP, APP.password)).unwrap();
    wire.run("CREATE TABLE IF NOT EXISTS proven (n int)");
    assert_eq!(wire.value("SELECT current_user"), APP.name);
    assert_refused(&proxy, APP.name);

    let hash = "SELECT rolpassword FROM pg_authid WHERE rolname = 'md5user'";
    let hash = WORLD.cluster.primary().sql_value(hash).unwrap().unwrap();
    let auth = format!("{{ method: md5, users: [ {{ name: md5user, password: \"{hash}\" }} ] }}");
    let proxy = WORLD.proxy(&[("auth", &auth)]);
    let mut wire = connect(&proxy, &login(MD5_USER, MD5_USER.password)).unwrap();
    assert_eq!(wire.value("SELECT current_user"), MD5_USER.name);
    assert_refused(&proxy, MD5_USER.name);
}

fn auth_query(method: &str) -> String {
    format!(
        "{{ method: {method}, query: {{ user: {}, password: {}, database: postgres }} }}",
        MONITOR.name, MONITOR.password
    )
}

#[test]
fn with_auth_query_no_password_of_a_user_stands_in_the_configuration() {
    let proxy = WORLD.proxy(&[("auth", &auth_query("scram-sha-256")), ("pool", "{ size: 3 }")]);
    for _ in 0..3 {
        let mut wire = connect(&proxy, &login(APP, APP.password)).unwrap();
        assert_eq!(wire.value("SELECT current_user"), APP.name);
    }
    assert_refused(&proxy, APP.name);
    // Many at once, each on a server connection that is made with the recovered key.
    let mut wires: Vec<Wire> = (0..3).map(|_| connect(&proxy, &login(APP, APP.password)).unwrap()).collect();
    for wire in &mut wires {
        wire.run("BEGIN; SELECT txid_current()");
    }
    wires.iter_mut().for_each(|wire| drop(wire.run("COMMIT")));

    let proxy = WORLD.proxy(&[("auth", &auth_query("md5"))]);
    let mut wire = connect(&proxy, &login(MD5_USER, MD5_USER.password)).unwrap();
    assert_eq!(wire.value("SELECT current_user"), MD5_USER.name);
    assert_refused(&proxy, MD5_USER.name);
}

#[test]
fn a_changed_password_is_noticed() {
    let superuser = |sql: &str| drop(WORLD.cluster.primary().sql(sql).unwrap());
    superuser("CREATE ROLE changing LOGIN PASSWORD 'old'; GRANT CONNECT ON DATABASE app TO changing");
    let proxy = WORLD.proxy(&[("auth", &auth_query("scram-sha-256"))]);
    let attempt = |password: &str| connect(&proxy, &Login::new("changing", password, "app"));
    assert_eq!(attempt("old").unwrap().value("SELECT current_user"), "changing");
    superuser("ALTER ROLE changing PASSWORD 'new'");
    wait_until("the new password is asked for", || attempt("new").is_ok());
    assert_eq!(attempt("old").err().unwrap().sqlstate(), "28P01");
    assert_eq!(attempt("new").unwrap().value("SELECT current_user"), "changing");
    let mut wire = attempt("new").unwrap();
    wire.run("BEGIN; SELECT txid_current()");
    // A new server connection is made with the new key.
    let mut another = attempt("new").unwrap();
    another.run("BEGIN; SELECT txid_current()");
}

fn encrypted(proxy: &Running, login: &Login) -> Result<Wire, Frame> {
    let mut tcp = socket(proxy.port);
    std::io::Write::write_all(&mut tcp, &ssl_request()).unwrap();
    let mut answer = [0];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
    let mut wire = Wire::over(Box::new(handshake(tcp, &[])));
    wire.log_in(login)?;
    Ok(wire)
}

#[test]
fn clients_may_encrypt_or_must_as_configured() {
    let proxy = WORLD.proxy(&[("tls", &client_tls("prefer"))]);
    assert_eq!(connect(&proxy, &app()).unwrap().value("SELECT 1"), "1");
    let mut wire = encrypted(&proxy, &app()).unwrap();
    assert_eq!(wire.value("SELECT current_user"), "app");
    // Much data, both ways.
    let large = "z".repeat(3 << 20);
    let group = [unnamed("SELECT $1::text", &[Some(large.as_bytes())]), sync()].concat();
    let frames = wire.exchange(&group, 1).remove(0);
    assert!(rows_of(&frames)[0][0].as_deref() == Some(&*large));

    let proxy = WORLD.proxy(&[("tls", &client_tls("require"))]);
    let error = connect(&proxy, &app()).err().unwrap();
    assert_eq!((error.field(b'S').unwrap(), error.sqlstate()), ("FATAL".to_owned(), "28000".to_owned()));
    assert_eq!(encrypted(&proxy, &app()).unwrap().value("SELECT 1"), "1");
    if let Some(psql) = WORLD.cluster.binaries().optional_program("psql") {
        let uri = |mode: &str| {
            let ca = path("ca.crt");
            format!(
                "host=127.0.0.1 port={} user=app password=app-secret dbname=app sslmode={mode} sslrootcert={ca}",
                proxy.port
            )
        };
        let run =
            |mode: &str| Command::new(&psql).args(["-X", "-c", "SELECT 1", &uri(mode)]).output().unwrap();
        assert!(run("verify-full").status.success(), "{:?}", run("verify-full"));
        assert!(!run("disable").status.success());
    }

    let proxy = WORLD.proxy(&[]);
    let mut tcp = socket(proxy.port);
    std::io::Write::write_all(&mut tcp, &ssl_request()).unwrap();
    let mut answer = [0];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"N");
    // The login goes on in the clear on the same connection.
    let mut wire = Wire::over(Box::new(tcp));
    wire.log_in(&app()).unwrap();
    assert_eq!(wire.value("SELECT 1"), "1");
}

#[test]
fn bytes_stuffed_in_behind_the_request_for_encryption_are_not_taken_for_the_clients() {
    let proxy = WORLD.proxy(&[("tls", &client_tls("prefer"))]);
    let mut tcp = socket(proxy.port);
    let stuffed = [ssl_request(), app().packet()].concat();
    std::io::Write::write_all(&mut tcp, &stuffed).unwrap();
    let mut answer = Vec::new();
    // The end may be a reset.
    drop(tcp.read_to_end(&mut answer));
    // Refused at once, or (when they come later) by TLS.
    assert!(matches!(answer.first(), Some(b'E' | b'S')), "{answer:?}");
    assert_ne!(answer.get(1), Some(&b'R'), "no authentication request in the clear: {answer:?}");
    assert_eq!(connect(&proxy, &app()).unwrap().value("SELECT 1"), "1");
}

#[test]
fn servers_are_spoken_to_as_safely_as_configured() {
    let is_encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let node = |host: &str| {
        format!(
            "{{ nodes: [ {{ name: pg1, host: {host}, port: {} }} ], monitor: {{ user: {}, password: {} }} }}",
            WORLD.direct(),
            MONITOR.name,
            MONITOR.password
        )
    };
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
    let good = [
        ("disable", None, "127.0.0.1", "f"),
        ("prefer", None, "127.0.0.1", "t"),
        ("require", None, "127.0.0.1", "t"),
        ("verify-ca", Some("ca.crt"), "127.0.0.1", "t"),
        ("verify-ca", Some("ca.crt"), "localhost", "t"),
        ("verify-full", Some("ca.crt"), "127.0.0.1", "t"),
    ];
    let tls = |mode: &str, ca: Option<&str>| match ca {
        Some(ca) => format!("{{ server: {{ mode: {mode}, ca: {} }} }}", path(ca)),
        None => format!("{{ server: {{ mode: {mode} }} }}"),
    };
    for (mode, ca, host, expected) in good {
        let proxy = WORLD.proxy(&[("tls", &tls(mode, ca)), ("cluster", &node(host))]);
        let mut wire = connect(&proxy, &app()).unwrap_or_else(|error| panic!("{mode} {host}: {error:?}"));
        assert_eq!(wire.value(is_encrypted), expected, "{mode} {host}");
        // Cancel requests go the same way.
        wire.send(&query("SELECT pg_sleep(60)"));
        wait_until("it runs", || {
            WORLD.cluster.primary().sql_value(sleeping).unwrap().as_deref() == Some("1")
        });
        cancel(proxy.port, wire.pid, &wire.secret);
        assert_eq!(error_of(&wire.until_ready()).unwrap().sqlstate(), "57014", "{mode} {host}");
    }
    let bad = [("verify-ca", Some("other.crt"), "127.0.0.1"), ("verify-full", Some("ca.crt"), "localhost")];
    for (mode, ca, host) in bad {
        let proxy = WORLD.proxy_at_once(&[
            ("tls", &tls(mode, ca)),
            ("cluster", &node(host)),
            ("limits", "{ hold_time: 300ms }"),
        ]);
        let error = connect(&proxy, &app()).err().unwrap_or_else(|| panic!("{mode} {host} is unsafe"));
        assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
        assert_eq!(error.sqlstate(), "57P03", "{error:?}");
        wait_until("the status says why", || {
            proxy.status()["nodes"][0]["last_error"].as_str().is_some_and(|why| why.contains("certificate"))
        });
    }
}

#[test]
fn too_many_clients_and_unknown_databases_are_refused_in_postgresqls_words() {
    let proxy = WORLD.proxy(&[("limits", "{ clients: 2 }")]);
    let one = connect(&proxy, &app()).unwrap();
    let two = connect(&proxy, &app()).unwrap();
    let error = connect(&proxy, &app()).err().unwrap();
    assert_eq!(error.sqlstate(), "53300");
    assert_eq!(error.message(), "sorry, too many clients already");
    one.terminate();
    wait_until("there is room again", || connect(&proxy, &app()).is_ok());
    drop(two);

    wait_until("the others are gone", || proxy.clients() == 0);
    let nowhere = Login::new("app", APP.password, "nowhere");
    let error = connect(&proxy, &nowhere).err().unwrap();
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(error.sqlstate(), "3D000");
    assert_eq!(error.message(), "database \"nowhere\" does not exist");
    assert_eq!(proxy.clients(), 0);

    let listed = format!("{{ databases: listed, users: [ {{ name: app, password: {} }} ] }}", APP.password);
    let proxy = WORLD.proxy(&[("auth", &listed), ("databases", "{ alias: { dbname: app } }")]);
    let mut wire = connect(&proxy, &Login::new("app", APP.password, "alias")).unwrap();
    assert_eq!(wire.value("SELECT current_database()"), "app");
    assert_eq!(connect(&proxy, &app()).err().unwrap().sqlstate(), "3D000");
}

#[test]
fn clients_come_in_through_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(".s.PGSQL.6432");
    let listen = format!("[ 127.0.0.1:0, \"unix:{}\" ]", socket.display());
    let proxy = WORLD.proxy(&[("listen", &listen)]);
    let mut wire = Wire::connect_unix(&socket, &app()).unwrap();
    assert_eq!(wire.value("SELECT current_user"), "app");
    assert_eq!(Wire::connect_unix(&socket, &login(APP, "wrong")).err().unwrap().sqlstate(), "28P01");
    assert_eq!(connect(&proxy, &app()).unwrap().value("SELECT 1"), "1");
    drop(proxy);
}
