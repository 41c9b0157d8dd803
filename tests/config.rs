//! Broken configurations: each is refused with file, line, column, the mistake and what was
//! probably meant. And the good one that stands beside the sources is accepted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgweir::config::{ConfigError, Settings, parse};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A complete, good file of few lines; the broken ones below are variations of it.
const GOOD: &str = "\
cluster:
  nodes:
    - { name: pg1, host: 127.0.0.1, port: 5432 }
    - { name: pg2, host: 127.0.0.1, port: 5433 }
auth: { method: trust }
";

struct Broken {
    file: String,
    at: (usize, usize),
    mistake: &'static str,
    nearest: Option<&'static str>,
    key: &'static str,
}

fn broken(
    file: impl Into<String>,
    at: (usize, usize),
    mistake: &'static str,
    nearest: Option<&'static str>,
    key: &'static str,
) -> Broken {
    Broken { file: file.into(), at, mistake, nearest, key }
}

fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

fn and(lines: &str) -> String {
    format!("{GOOD}{lines}\n")
}

fn keys_and_shape() -> Vec<Broken> {
    vec![
        broken(
            with("port: 5432", "prot: 5432"),
            (3, 37),
            "unknown key \"prot\"",
            Some("port"),
            "cluster.nodes[0].prot",
        ),
        broken(and("lissten: 127.0.0.1:1"), (6, 1), "unknown key \"lissten\"", Some("listen"), "lissten"),
        broken(
            and("max_staleness: 1s"),
            (6, 1),
            "unknown key",
            Some("routing.max_staleness"),
            "max_staleness",
        ),
        broken(
            and("pool: { pool_size: 3 }"),
            (6, 9),
            "unknown key \"pool_size\"",
            Some("size"),
            "pool.pool_size",
        ),
        broken(
            and("routing: { functions: { readonly: [] } }"),
            (6, 25),
            "unknown key",
            Some("read_only"),
            "routing.functions.readonly",
        ),
        broken(
            and("databases: { shop: { db_name: x } }"),
            (6, 22),
            "unknown key",
            Some("dbname"),
            "databases.shop.db_name",
        ),
        broken(
            and("tls: { client: { certificate: x } }"),
            (6, 18),
            "unknown key \"certificate\"",
            None,
            "tls.client.certificate",
        ),
        broken(and("pool: { size: 1, size: 2 }"), (6, 18), "duplicate key \"size\"", None, "pool.size"),
        broken(
            with("host: 127.0.0.1, port: 5432", "port: 5432"),
            (3, 7),
            "missing key \"host\"",
            None,
            "cluster.nodes[0].host",
        ),
        broken("auth: { method: trust }\n", (1, 1), "missing key \"cluster\"", None, "cluster"),
        broken(
            "auth: { method: trust }\ncluster: { nodes: [] }\n",
            (2, 19),
            "at least one node",
            None,
            "cluster.nodes",
        ),
        broken(
            "auth: { method: trust }\ncluster: { nodes: { name: a } }\n",
            (2, 19),
            "expected a list, found a mapping",
            None,
            "cluster.nodes",
        ),
        broken(and("pool: 20"), (6, 7), "expected a mapping", None, "pool"),
        broken(
            and("pool: { size: [1] }"),
            (6, 15),
            "expected a single value, found a list",
            None,
            "pool.size",
        ),
        broken(and("pool:\n\tsize: 3"), (7, 1), "a tab is not allowed", None, ""),
        broken(and("pool: { size: 3"), (6, 7), "not valid YAML: unclosed bracket", None, ""),
    ]
}

fn values() -> Vec<Broken> {
    vec![
        broken(
            with("port: 5432", "port: 99999"),
            (3, 43),
            "must be between 1 and 65535, found 99999",
            None,
            "cluster.nodes[0].port",
        ),
        broken(
            with("port: 5432", "port: fivefour"),
            (3, 43),
            "expected a whole number, found \"fivefour\"",
            None,
            "cluster.nodes[0].port",
        ),
        broken(
            with("host: 127.0.0.1, port: 5432", "host: \"db:5432\""),
            (3, 26),
            "a host has no port in it",
            None,
            "cluster.nodes[0].host",
        ),
        broken(
            and("routing: { max_staleness: 10 }"),
            (6, 27),
            "expected a duration such as 100ms",
            None,
            "routing.max_staleness",
        ),
        broken(and("routing: { max_lag: 64mb }"), (6, 21), "expected a size", None, "routing.max_lag"),
        broken(
            and("routing: { transactions: splitt }"),
            (6, 26),
            "unknown value \"splitt\"",
            Some("split"),
            "routing.transactions",
        ),
        broken(
            and("routing: { consistency: sesion }"),
            (6, 25),
            "valid: eventual, session, strict, global",
            Some("session"),
            "routing.consistency",
        ),
        broken(
            and("databases: { shop: { users: { batch: { consistency: globl } } } }"),
            (6, 53),
            "valid: eventual, session, strict, global",
            Some("global"),
            "databases.shop.users.batch.consistency",
        ),
        broken(
            and("routing: { balance: roundrobin }"),
            (6, 21),
            "unknown value",
            Some("round_robin"),
            "routing.balance",
        ),
        broken(
            and("routing: { pin_after_write: until_caughtup }"),
            (6, 29),
            "or a duration",
            Some("until_caught_up"),
            "routing.pin_after_write",
        ),
        broken(
            and("limits: { login_timeout: 2d }"),
            (6, 26),
            "must be between 100ms and 1h",
            None,
            "limits.login_timeout",
        ),
        broken(and("log: { level: inf }"), (6, 15), "unknown value", Some("info"), "log.level"),
        broken(and("listen: localhost"), (6, 9), "expected an address", None, "listen"),
        broken(and("listen: [127.0.0.1:1, unix:rel]"), (6, 23), "must be absolute", None, "listen[1]"),
        broken(and("http: 9632"), (6, 7), "expected an address", None, "http"),
    ]
}

fn discovery() -> Vec<Broken> {
    let patroni = |lines: &str| with("  nodes:", &format!("  patroni: {{ {lines} }}\n  nodes:"));
    let at = "endpoints: [ https://a ]";
    vec![
        broken(
            patroni(&format!("{at}, intervall: 1s")),
            (2, 40),
            "unknown key",
            Some("interval"),
            "cluster.patroni.intervall",
        ),
        broken(patroni("user: a"), (2, 12), "missing key \"endpoints\"", None, "cluster.patroni.endpoints"),
        broken(
            patroni("endpoints: []"),
            (2, 25),
            "needs at least one endpoint",
            None,
            "cluster.patroni.endpoints",
        ),
        broken(
            patroni("endpoints: [ 10.0.0.1:8008 ]"),
            (2, 27),
            "expected a URL",
            None,
            "cluster.patroni.endpoints[0]",
        ),
        broken(
            patroni(&format!("{at}, verify: host")),
            (2, 48),
            "unknown value",
            None,
            "cluster.patroni.verify",
        ),
        broken(
            patroni(&format!("{at}, password: x")),
            (2, 12),
            "missing key \"user\"",
            None,
            "cluster.patroni.user",
        ),
        broken(
            patroni(&format!("{at}, user: \"a:b\"")),
            (2, 46),
            "must not contain a colon",
            None,
            "cluster.patroni.user",
        ),
        broken(
            patroni(&format!("{at}, cert: config.yaml")),
            (2, 46),
            "cert without key",
            None,
            "cluster.patroni.key",
        ),
        broken(
            patroni("endpoints: [ http://a ], verify: none"),
            (2, 47),
            "means nothing",
            None,
            "cluster.patroni.verify",
        ),
        broken(
            patroni(&format!("{at}, interval: 1ms")),
            (2, 50),
            "must be between 100ms and",
            None,
            "cluster.patroni.interval",
        ),
        broken(
            with("port: 5432", "port: 5432, resolve: all"),
            (3, 58),
            "needs a host name",
            None,
            "cluster.nodes[0].resolve",
        ),
        broken(
            with("  nodes:", "  resolve_interval: 1ms\n  nodes:"),
            (2, 21),
            "must be between",
            None,
            "cluster.resolve_interval",
        ),
    ]
}

fn standbys() -> Vec<Broken> {
    let discover = |lines: &str| with("  nodes:", &format!("  discover: {{ {lines} }}\n  nodes:"));
    vec![
        broken(discover("host: { a: b }"), (2, 15), "unknown key", Some("hosts"), "cluster.discover.host"),
        broken(
            with("  nodes:", "  discovery: { }\n  nodes:"),
            (2, 3),
            "unknown key \"discovery\"",
            Some("discover"),
            "cluster.discovery",
        ),
        broken(
            with("  nodes:", "  discover: true\n  nodes:"),
            (2, 13),
            "expected a mapping",
            None,
            "cluster.discover",
        ),
        broken(
            discover("interval: 10ms"),
            (2, 25),
            "must be between 100ms and 1h",
            None,
            "cluster.discover.interval",
        ),
        broken(discover("port: 0"), (2, 21), "must be between 1 and", None, "cluster.discover.port"),
        broken(discover("hosts: [ a ]"), (2, 22), "expected a mapping", None, "cluster.discover.hosts"),
        broken(
            discover("hosts: { pg2: \"10.0.0.2:0\" }"),
            (2, 29),
            "\"0\" is not a port",
            None,
            "cluster.discover.hosts.pg2",
        ),
        broken(
            discover("hosts: { pg2: a b }"),
            (2, 29),
            "not a host name or address",
            None,
            "cluster.discover.hosts.pg2",
        ),
        broken(
            discover("hosts: { pg2: ~ }"),
            (2, 29),
            "expected a single value, found nothing",
            None,
            "cluster.discover.hosts.pg2",
        ),
        broken(
            discover("hosts: { pg2: a, pg2: b }"),
            (2, 32),
            "duplicate key \"pg2\"",
            None,
            "cluster.discover.hosts.pg2",
        ),
        broken(
            discover("hosts: { \"fd00::1\": a, \"FD00::1\": b }"),
            (2, 38),
            "fd00::1 is there already",
            None,
            "cluster.discover.hosts.FD00::1",
        ),
        broken(
            discover("hosts: { x123456789_123456789_123456789_123456789_123456789_123456789_123: a }"),
            (2, 24),
            "at most 63 bytes, this has 64",
            None,
            "cluster.discover.hosts.x123456789_123456789_123456789_123456789_123456789_123456789_123",
        ),
        broken(
            discover("only_mapped: yes"),
            (2, 28),
            "unknown value \"yes\" (valid: true, false)",
            None,
            "cluster.discover.only_mapped",
        ),
        broken(
            discover("only_mapped: true"),
            (2, 28),
            "leaves out every standby",
            None,
            "cluster.discover.only_mapped",
        ),
        broken(
            "auth: { method: trust }\ncluster: { discover: { } }\n",
            (2, 10),
            "missing key \"nodes\"",
            None,
            "cluster.nodes",
        ),
    ]
}

#[test]
fn standbys_are_asked_for_where_the_file_says_so() {
    let discover = |lines: &str| {
        let file = with("  nodes:", &format!("  discover: {lines}\n  nodes:")).replace("5432", "5444");
        load(&file).unwrap().cluster.discover
    };
    assert!(load(GOOD).unwrap().cluster.discover.is_none() && discover("").is_none());
    let plain = discover("{ }").unwrap();
    assert_eq!((plain.interval, plain.port, plain.only_mapped), (Duration::from_secs(10), 5444, false));
    let more = discover(
        "{ port: 5, interval: 1s, only_mapped: true, hosts: { pg2: 10.0.0.2, FD00::2: \"[::1]:6\" } }",
    );
    let more = more.unwrap();
    assert_eq!((more.interval, more.port, more.only_mapped), (Duration::from_secs(1), 5, true));
    let hosts: Vec<String> = more.hosts.iter().map(|(who, place)| format!("{who} {place}")).collect();
    assert_eq!(hosts, ["fd00::2 [::1]:6", "pg2 10.0.0.2"]);
}

#[test]
fn where_patroni_names_the_nodes_none_need_to_be_listed() {
    let file =
        "auth: { method: trust }\ncluster: { patroni: { endpoints: [ https://a, \"http://[::1]:9\" ] } }\n";
    let cluster = load(file).unwrap().cluster;
    let patroni = cluster.patroni.unwrap();
    assert!(cluster.nodes.is_empty());
    let endpoints: Vec<String> = patroni.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["https://a:8008", "http://[::1]:9"]);
    assert_eq!((patroni.interval, patroni.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
}

fn references() -> Vec<Broken> {
    vec![
        broken(
            with("name: pg2", "name: pg1"),
            (4, 7),
            "duplicate node name \"pg1\"",
            None,
            "cluster.nodes[1]",
        ),
        broken(
            with("port: 5433", "port: 5432"),
            (4, 7),
            "is the node \"pg1\" already",
            None,
            "cluster.nodes[1]",
        ),
        broken(
            and("listen: 127.0.0.1:7000\nhttp: 127.0.0.1:7000"),
            (7, 7),
            "http and listen cannot both use",
            None,
            "http",
        ),
        broken(and("pool: { size: 2, min_idle: 3 }"), (6, 28), "larger than size", None, "pool.min_idle"),
        broken(
            with("method: trust", "method: md5, users: [ { name: a, password: \"${PGWEIR_UNSET}\" } ]"),
            (5, 52),
            "the environment variable PGWEIR_UNSET is not set",
            None,
            "auth.users[0].password",
        ),
        broken(
            with("method: trust", "method: md5, users: [ { name: a, password_file: nowhere.txt } ]"),
            (5, 57),
            "cannot read",
            None,
            "auth.users[0].password_file",
        ),
        broken(
            with("method: trust", "method: scram-sha-265, users: [ { name: a, password: x } ]"),
            (5, 17),
            "unknown value \"scram-sha-265\"",
            Some("scram-sha-256"),
            "auth.method",
        ),
        broken(with("method: trust", "method: md5"), (5, 7), "nobody could log in", None, "auth.users"),
        broken(
            with("method: trust", "method: trust, users: [ { name: a }, { name: a } ]"),
            (5, 46),
            "duplicate user \"a\"",
            None,
            "auth.users[1]",
        ),
        broken(
            and("tls: { client: { cert: Cargo.toml } }"),
            (6, 24),
            "cert without key",
            None,
            "tls.client.key",
        ),
        broken(
            and("tls: { client: { mode: require } }"),
            (6, 24),
            "needs a certificate",
            None,
            "tls.client.cert",
        ),
        broken(
            and("tls: { server: { negotiation: direct } }"),
            (6, 31),
            "direct TLS cannot be optional",
            None,
            "tls.server.negotiation",
        ),
        broken(with("trust", "cert"), (5, 7), "auth.method cert needs tls.client.ca", None, "tls.client.ca"),
        broken(
            with("method: trust", "query: { user: a, query: SELECT 1 }"),
            (5, 34),
            "must contain $1",
            None,
            "auth.query.query",
        ),
    ]
}

fn rules() -> Vec<Broken> {
    let tagged = |rule: &str| {
        let file = with("port: 5433 }", "port: 5433, tags: [analytics] }");
        format!("{file}routing: {{ rules: [ {rule} ] }}\n")
    };
    let at =
        |rule: &str, column, mistake, nearest, key| broken(tagged(rule), (6, column), mistake, nearest, key);
    vec![
        at("{ route: primary }", 21, "missing key \"match\"", None, "routing.rules[0].match"),
        at(
            "{ match: { relations: a }, route: primary }",
            32,
            "unknown key \"relations\"",
            Some("relation"),
            "routing.rules[0].match.relations",
        ),
        at(
            "{ match: {}, route: primry }",
            41,
            "unknown value \"primry\"",
            Some("primary"),
            "routing.rules[0].route",
        ),
        at(
            "{ match: {}, tag: analytic }",
            39,
            "no node carries the tag \"analytic\"",
            Some("analytics"),
            "routing.rules[0].tag",
        ),
        at("{ match: { user: a } }", 21, "a rule needs one of", None, "routing.rules[0].route"),
        at(
            "{ match: {}, route: primary, tag: analytics }",
            55,
            "tag means nothing with route: primary",
            None,
            "routing.rules[0].tag",
        ),
        at(
            "{ match: {}, route: replica, fallback: error }",
            60,
            "fallback needs a tag",
            None,
            "routing.rules[0].fallback",
        ),
        at(
            "{ match: { relation: a.b.c }, route: primary }",
            42,
            "expected a relation such as accounts or ledger.entries",
            None,
            "routing.rules[0].match.relation",
        ),
        at(
            "{ match: { relation: [] }, route: primary }",
            42,
            "needs at least one relation",
            None,
            "routing.rules[0].match.relation",
        ),
        at(
            "{ match: { fingerprint: 9f3c }, route: primary }",
            45,
            "expected the 32 hexadecimal digits",
            None,
            "routing.rules[0].match.fingerprint",
        ),
        at(
            "{ match: { comment: job }, route: primary }",
            41,
            "expected a mapping",
            None,
            "routing.rules[0].match.comment",
        ),
        broken(
            and("routing: { always_fresh: [a], may_be_stale: [b, a] }"),
            (6, 45),
            "a is listed as always_fresh and as may_be_stale",
            None,
            "routing.may_be_stale",
        ),
    ]
}

#[test]
fn rules_are_bounded() {
    let rules = |count: usize| {
        let rule = "{ match: {}, consistency: eventual }";
        and(&format!("routing: {{ rules: [ {} ] }}", vec![rule; count].join(", ")))
    };
    assert_eq!(load(&rules(62)).unwrap().routing.rules.rules.list().len(), 62);
    let error = load(&rules(63)).unwrap_err().to_string();
    assert!(error.contains("at most 62 rules, found 63"), "{error}");
}

fn all() -> Vec<Broken> {
    let mut all = keys_and_shape();
    all.extend(rules());
    all.extend(values());
    all.extend(discovery());
    all.extend(standbys());
    all.extend(references());
    all
}

fn load(text: &str) -> Result<Settings, ConfigError> {
    parse(Path::new("config.yaml"), text, &|_| None)
}

/// What `said` lacks of what it should say.
fn lacks(case: &Broken, said: &str, file: &str) -> Vec<String> {
    let (line, column) = case.at;
    let nearest = case.nearest.map(|nearest| format!("did you mean \"{nearest}\"?"));
    let key = Some(case.key).filter(|key| !key.is_empty()).map(|key| format!("= key: {key}\n"));
    let parts = [Some(format!("{file}:{line}:{column}: ")), Some(case.mistake.to_owned()), nearest, key];
    let lacking = parts.into_iter().flatten().filter(|part| !said.contains(part));
    lacking.map(|part| format!("expected {part}\nin {said}\nof {}", case.file)).collect()
}

#[test]
fn the_good_file_is_good() {
    let settings = load(GOOD).unwrap();
    assert_eq!(settings.cluster.nodes.len(), 2);
    assert_eq!(settings.listen[0].to_string(), "127.0.0.1:6432");
    assert_eq!(settings.pool.size, 20);
}

#[test]
fn a_replica_that_is_sampled_less_often_is_believed_for_longer() {
    let age = |text: &str| load(text).unwrap().routing.policy.sample_max_age;
    assert_eq!(age(GOOD), Duration::from_millis(200));
    let slow = with("  nodes:", "  monitor: { interval: 1s }\n  nodes:");
    assert_eq!(age(&slow), Duration::from_secs(2));
}

#[test]
fn broken_files_are_refused_with_place_mistake_and_nearest_key() {
    assert!(all().len() >= 20);
    let mut wrong = Vec::new();
    for case in all() {
        let error = load(&case.file).expect_err(&case.file);
        wrong.extend(lacks(&case, &error.to_string(), "config.yaml"));
        if error.mistakes.len() != 1 {
            wrong.push(format!("more than one mistake: {error}\nof {}", case.file));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_from_top_to_bottom() {
    let text = and("pool: { size: 0, mod: session }\nlog: { format: xml }");
    let error = load(&text.replace("port: 5433", "port: 0")).unwrap_err();
    let lines: Vec<usize> = error.mistakes.iter().map(|mistake| mistake.span.line).collect();
    assert_eq!(lines, [4, 6, 6, 7], "{error}");
}

#[test]
fn a_mistake_shows_its_line_but_no_password() {
    let error = load(&with("method: trust", "users: [ { name: a, pasword: hunter2 } ]")).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("| auth: { users: [ { name: a, pasword: *******"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn variables_are_expanded_after_parsing() {
    let text = with("method: trust", "users: [ { name: a, password: \"${SECRET}\" } ]");
    let lookup = |name: &str| (name == "SECRET").then(|| "x, admin: [#".to_owned());
    let settings = parse(Path::new("config.yaml"), &text, &lookup).unwrap();
    assert_eq!(settings.auth.users[0].password.as_ref().map(|secret| secret.reveal()), Some("x, admin: [#"));
}

#[test]
fn a_password_file_is_read_relative_to_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "s3cret\n").unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, with("method: trust", "users: [ { name: a, password_file: secret } ]")).unwrap();
    let settings = pgweir::config::load(&file).unwrap();
    assert_eq!(settings.auth.users[0].password.as_ref().map(|secret| secret.reveal()), Some("s3cret"));
}

#[test]
fn databases_have_aliases_and_pools_of_their_own() {
    let entry =
        "databases: { shop: { dbname: shop_1, pool: { size: 5 }, users: { batch: { mode: session } } } }";
    let settings = load(&and(entry)).unwrap();
    assert_eq!(settings.server_database("shop"), Some("shop_1"));
    assert_eq!(settings.server_database("other"), Some("other"));
    assert_eq!(settings.pool_for("shop", "app").size, 5);
    assert_eq!(format!("{:?}", settings.pool_for("shop", "batch").mode), "Session");
    let listed = load(&and(entry).replace("method: trust", "method: trust, databases: listed")).unwrap();
    assert_eq!(listed.server_database("other"), None);
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let inside = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{inside}]\n"));
    }
    let error = load(&text).unwrap_err();
    assert!(error.to_string().contains("values in one file"), "{error}");
}

#[test]
fn the_annotated_configuration_shows_the_defaults() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml");
    let annotated = pgweir::config::load(&file).unwrap();
    let defaults = load(GOOD).unwrap();
    assert_eq!(annotated.pool, defaults.pool);
    assert_eq!(annotated.routing, defaults.routing);
    assert_eq!(annotated.limits, defaults.limits);
    assert_eq!(annotated.log, defaults.log);
    assert_eq!(annotated.tls, defaults.tls);
    assert_eq!(annotated.listen, defaults.listen);
    assert_eq!(annotated.http, defaults.http);
}

fn check(file: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
    command.arg("check").arg("--config").arg(file).args(more).env_remove("PGWEIR_UNSET");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn the_binary_refuses_broken_files_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.yaml");
    // The certificate in the table is named relative to this folder.
    std::fs::write(folder.path().join("Cargo.toml"), "").unwrap();
    for case in all() {
        std::fs::write(&file, &case.file).unwrap();
        let (code, said) = check(&file, &[]);
        assert_eq!(code, Some(2), "{said}");
        let lacking = lacks(&case, &said, &file.display().to_string());
        assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    }
}

#[test]
fn the_binary_accepts_a_good_file_and_sums_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("good.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let (code, said) = check(&file, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is valid") && said.contains("pg1") && said.contains("127.0.0.1:6432"), "{said}");
    let (code, said) = check(&file, &["--json"]);
    assert_eq!(code, Some(0), "{said}");
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["valid"], true);
    assert_eq!(json["nodes"][0]["name"], "pg1");
}

#[test]
fn the_binary_reports_mistakes_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.yaml");
    std::fs::write(&file, with("port: 5432", "prot: 5432")).unwrap();
    let (code, said) = check(&file, &["--json"]);
    assert_eq!(code, Some(2), "{said}");
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["valid"], false);
    assert_eq!(json["mistakes"][0]["line"], 3);
    assert_eq!(json["mistakes"][0]["nearest"], "port");
}

#[test]
fn a_file_that_is_not_there_is_said_so() {
    let (code, said) = check(Path::new("/nowhere/config.yaml"), &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("/nowhere/config.yaml:1:1: cannot read the file"), "{said}");
}

#[test]
fn causal_keys_are_checked() {
    let parsed = |lines: &str| parse(Path::new("config.yaml"), &and(lines), &|_| None);
    let settings = parsed("causal: { setting: App.User_Id, store: redis://h:1/0 }").unwrap();
    assert_eq!(settings.causal.setting.as_deref(), Some("app.user_id"));
    // What has expired counts as replayed everywhere.
    let settings = parsed("routing: { max_staleness: 10m }").unwrap();
    assert_eq!(settings.causal.expiry, Duration::from_secs(1200));
    for (lines, word) in [
        ("causal: { expiry: 15s }", "at least twice routing.max_staleness"),
        ("causal: { setting: work_mem }", "custom setting"),
        ("causal: { setting: pgweir.route }", "pgweir's own"),
        ("causal: { store: rediss://h:1/0 }", "TLS"),
        ("causal: { store: h:1 }", "redis://"),
        ("causal: { on_store_down: ignore }", "warning"),
        ("routing: { token_mismatch: ignore }", "warning"),
    ] {
        let error = parsed(lines).unwrap_err().to_string();
        assert!(error.contains(word), "{lines}: {error}");
    }
}

#[test]
fn what_fences_and_tells_in_a_failover_is_checked_and_follows_the_interval() {
    let monitored = |monitor: &str| load(&with("  nodes:", &format!("  monitor: {{ {monitor} }}\n  nodes:")));
    let fence_after = |monitor: &str| monitored(monitor).unwrap().cluster.monitor.fence_after;
    assert_eq!(fence_after("interval: 100ms"), Duration::from_secs(1));
    assert_eq!(fence_after("interval: 1s"), Duration::from_secs(10));
    assert_eq!(fence_after("interval: 1s, fence_after: 3s"), Duration::from_secs(3));
    // One late answer must change nothing.
    assert!(monitored("interval: 1s, fence_after: 1s").is_err());
    let error = parse(Path::new("config.yaml"), &and("routing: { lost_writes: ignore }"), &|_| None);
    assert!(error.unwrap_err().to_string().contains("warning"));
    let settings = parse(Path::new("config.yaml"), &and("reuse_port: true"), &|_| None).unwrap();
    assert!(settings.reuse_port);
}
