//! Rules of the configuration on real servers: each kind by where its statements ran and what
//! `EXPLAIN (ROUTE)` says, and standbys that are delayed, paused or cascading.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use harness::{
    LONG, NO_WRITER, SERVED_BY, Scene, Stage, Tuning, Weir, describe, first_value, served_by, value, wait_for,
};
use pgweir::devcluster::{APP, APP_DATABASE, MD5_USER, Options, SUPERUSER, Stop};
use std::sync::OnceLock;
use std::time::Duration;
use tokio_postgres::{Client, SimpleQueryMessage};

const SCHEMA: [&str; 14] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)",
    "INSERT INTO accounts VALUES (1, 100)",
    "CREATE VIEW rich AS SELECT id FROM accounts WHERE balance > 50",
    "CREATE VIEW richest AS SELECT max(id) AS id FROM rich",
    "CREATE FUNCTION balance_of(i int) RETURNS int STABLE LANGUAGE sql AS 'SELECT balance FROM accounts WHERE id = i'",
    "CREATE VIEW by_function AS SELECT balance_of(1) AS balance",
    "CREATE TABLE likes (id int PRIMARY KEY, n int NOT NULL)",
    "INSERT INTO likes VALUES (1, 0)",
    "CREATE TABLE reports (id int PRIMARY KEY)",
    "CREATE VIEW report_view AS SELECT * FROM reports",
    "CREATE SCHEMA ledger CREATE TABLE entries (id int PRIMARY KEY)",
    "CREATE TABLE parted (id int) PARTITION BY RANGE (id); \
     CREATE TABLE part_one PARTITION OF parted FOR VALUES FROM (0) TO (10)",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || Stage::with(Options::with_replicas(2), &SCHEMA))
}

/// What `EXPLAIN (ROUTE)` says, in one string.
async fn explain(client: &Client, sql: &str) -> String {
    let sql = format!("EXPLAIN (ROUTE) {sql}");
    let messages = client.simple_query(&sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.collect::<Vec<_>>().join("\n")
}

async fn named(weir: &Weir<'_>, application_name: &str) -> Client {
    weir.connect_with(&format!("-c application_name={application_name}")).await
}

/// Explained so, and gone there for that reason. (For a replica it may have had to wait.)
async fn goes(weir: &Weir<'_>, client: &Client, sql: &str, role: &str, reason: &str) {
    let explained = explain(client, sql).await;
    let waits = role == "replica" && explained.contains("a replica, after a moment's wait");
    assert!(waits || explained.contains(&format!("reason: {reason})")), "{sql}\n{explained}");
    let went = weir.route(client, sql).await;
    let [(to, why)] = went.as_slice() else { panic!("{sql}: {went:?}") };
    assert!(to == role && (why == reason || (role == "replica" && why == "waited")), "{sql}: {went:?}");
}

#[test]
fn what_may_touch_an_always_fresh_relation_is_read_on_the_primary() {
    let scene = scene();
    let tuning = Tuning::patient(&["always_fresh: [accounts, ledger.entries, parted]"]);
    let weir = scene.weir_with(&tuning);
    scene.run(async {
        let client = weir.connect().await;
        for sql in [
            "SELECT * FROM accounts",
            "SELECT balance FROM \"accounts\" WHERE id = 1",
            "SELECT * FROM public.Accounts",
            "TABLE accounts",
            "SELECT * FROM ONLY accounts",
            "SELECT 1 WHERE EXISTS (SELECT FROM accounts)",
            "SELECT * FROM likes UNION ALL SELECT * FROM accounts",
            "SELECT * FROM rich",
            "SELECT * FROM richest",
            "SELECT balance_of(1)",
            "SELECT * FROM by_function",
            "SELECT * FROM ledger.entries",
            "SELECT * FROM part_one",
            // The body means the relation; what comes behind it is the price of being careful.
            "WITH accounts AS (SELECT * FROM accounts) SELECT * FROM accounts",
            "/* pgweir.route=replica */ SELECT * FROM accounts",
            "EXPLAIN SELECT * FROM accounts",
        ] {
            goes(&weir, &client, sql, "primary", "rule_primary").await;
            let explained = explain(&client, sql).await;
            assert!(explained.contains("Rule: routing.always_fresh: route primary"), "{sql}\n{explained}");
        }
        for sql in ["SELECT * FROM likes", "SELECT * FROM report_view", "SELECT served_by()", "SELECT 1"] {
            goes(&weir, &client, sql, "replica", "balanced").await;
        }
        // What the client asks for does not weaken it, the extended protocol neither.
        client.simple_query("SET pgweir.route = replica; SET pgweir.consistency = eventual").await.unwrap();
        let before = weir.counts();
        let prepared = client.prepare("SELECT balance FROM accounts WHERE id = $1").await.unwrap();
        for _ in 0..3 {
            assert_eq!(client.query_one(&prepared, &[&1]).await.unwrap().get::<_, i32>(0), 100);
        }
        let since = weir.counts_since(&before);
        assert!(
            since.keys().all(|went| went.role == "primary" && went.reason == "rule_primary"),
            "{since:?}"
        );
        assert!(!since.is_empty());
    });
}

#[test]
fn a_comment_counts_for_its_own_statement_and_not_for_the_next_unnamed_one() {
    let scene = scene();
    let rule = "rules: [ { match: { comment: { controller: reports } }, route: primary } ]";
    let weir = scene.weir_with(&Tuning::patient(&[rule]));
    scene.run(async {
        let client = weir.connect().await;
        for _ in 0..3 {
            for (sql, role, reason) in [
                ("SELECT 1 /*controller='reports'*/", "primary", "rule_primary"),
                ("SELECT 2", "replica", "balanced"),
            ] {
                let before = weir.counts();
                client.query_typed(sql, &[]).await.unwrap();
                let since = weir.counts_since(&before);
                let went: Vec<_> =
                    since.keys().map(|went| (went.role.as_str(), went.reason.as_str())).collect();
                assert!(went == [(role, reason)] || went == [("replica", "waited")], "{sql}: {went:?}");
            }
        }
    });
}

#[test]
fn an_always_fresh_relation_behind_an_operator_a_domain_or_a_cast_is_read_on_the_primary() {
    let scene = scene();
    for sql in [
        "CREATE FUNCTION richer(i int, j int) RETURNS bool STABLE LANGUAGE sql AS 'SELECT balance_of(i) > j'",
        "CREATE OPERATOR >>>> (LEFTARG = int, RIGHTARG = int, FUNCTION = richer)",
        "CREATE DOMAIN rich_id AS int CHECK (richer(value, 5))",
        "CREATE DOMAIN richer_id AS rich_id",
        "CREATE VIEW by_operator AS SELECT id FROM likes WHERE id >>>> 5",
        "CREATE FUNCTION compares(i int) RETURNS bool STABLE LANGUAGE sql AS 'SELECT i >>>> 5'",
        "CREATE TYPE money_of AS (n int)",
        "CREATE FUNCTION money_of(i int) RETURNS money_of STABLE LANGUAGE sql AS 'SELECT ROW(balance_of(i))::money_of'",
        "CREATE CAST (int AS money_of) WITH FUNCTION money_of(int)",
    ] {
        scene.cluster.primary().sql_as(APP.name, APP_DATABASE, sql).unwrap();
    }
    let weir = scene.weir_with(&Tuning::patient(&["always_fresh: [accounts]"]));
    scene.run(async {
        let client = weir.connect().await;
        for sql in [
            "SELECT 1 >>>> 5",
            "SELECT 1 OPERATOR(public.>>>>) 5",
            "SELECT '1'::rich_id",
            "SELECT CAST(1 AS richer_id)",
            "SELECT * FROM by_operator",
            "SELECT compares(1)",
            "SELECT 1::money_of",
        ] {
            goes(&weir, &client, sql, "primary", "rule_primary").await;
        }
        goes(&weir, &client, "SELECT 1 > 5", "replica", "balanced").await;
    });
}

#[test]
fn a_view_made_later_over_an_always_fresh_relation_is_one_too() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::patient(&["always_fresh: [accounts]"]));
    scene.run(async {
        let client = weir.connect().await;
        client.simple_query("CREATE VIEW late AS SELECT * FROM accounts").await.unwrap();
        // Until the catalog has been read again, reads of relations stay on the primary anyway.
        wait_for("the catalog is read again", async || {
            !explain(&client, "SELECT * FROM likes").await.contains("catalog_not_loaded")
        })
        .await;
        goes(&weir, &client, "SELECT * FROM late", "primary", "rule_primary").await;
        client.simple_query("DROP VIEW late").await.unwrap();
    });
}

#[test]
fn in_a_read_only_transaction_the_first_read_decides() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::patient(&["always_fresh: [accounts]"]));
    scene.run(async {
        let client = weir.connect().await;
        client.simple_query("BEGIN READ ONLY").await.unwrap();
        assert_eq!(weir.route(&client, "SELECT * FROM accounts").await[0].0, "primary");
        client.simple_query("COMMIT").await.unwrap();
        client.simple_query("BEGIN READ ONLY").await.unwrap();
        let cursor = "DECLARE c CURSOR FOR SELECT * FROM accounts";
        assert_eq!(weir.route(&client, cursor).await[0].0, "primary");
        client.simple_query("COMMIT").await.unwrap();
        let whole = "BEGIN READ ONLY; SELECT * FROM accounts; COMMIT";
        assert_eq!(weir.route(&client, whole).await[0].0, "primary");
        assert_eq!(weir.route(&client, "BEGIN READ ONLY; SELECT * FROM likes; COMMIT").await[0].0, "replica");
    });
}

const RULES: &str = "\
rules:
    - { match: { user: 'md5*', database: app }, tag: analytics }
    - { match: { application_name: 'cron*' }, route: primary }
    - { match: { comment: { controller: reports } }, tag: analytics }
    - { match: { relation: [reports, ledger.entries] }, tag: analytics, consistency: eventual, max_staleness: 1h }
    - { match: { fingerprint: FINGERPRINT }, route: primary }
    - { match: { application_name: wisher }, route: replica }";

#[test]
fn each_condition_matches_what_it_says_and_nothing_else() {
    let scene = scene();
    let shape = pgweir::sql::lexer::shape_of(b"SELECT n FROM likes", &pgweir::sql::lexer::Keys::fixed());
    let rules = RULES.replace("FINGERPRINT", &shape.fingerprint.to_string());
    let tags = vec![("pg3", "analytics")];
    let weir = scene.weir_with(&Tuning { tags, interval: "1s", ..Tuning::patient(&[&rules]) });
    scene.run(async {
        let client = weir.connect().await;
        let rule = async |client: &Client, sql: &str| {
            let explained = explain(client, sql).await;
            let line = explained.lines().find(|line| line.contains("Rule: "));
            line.and_then(|line| {
                line.trim().strip_prefix("Rule: routing.rules, number ")?.get(..1)?.parse().ok()
            })
        };
        let none: Option<u32> = None;

        let reporting = weir.connect_as(MD5_USER, APP_DATABASE, "").await.unwrap();
        assert_eq!(rule(&reporting, "SELECT served_by()").await, Some(1));
        // Its first connection there may not be in time.
        wait_for("pg3 serves", async || served_by(&reporting).await == "pg3").await;
        for _ in 0..20 {
            assert_eq!(served_by(&reporting).await, "pg3");
        }
        assert_eq!(rule(&client, "SELECT served_by()").await, none);

        let cron = named(&weir, "cron-nightly").await;
        assert_eq!(rule(&cron, "SELECT served_by()").await, Some(2));
        assert_eq!(served_by(&cron).await, "pg1");
        // The name that counts is the one that it has now.
        cron.simple_query("SET application_name = 'interactive'").await.unwrap();
        assert_eq!(rule(&cron, "SELECT served_by()").await, none);
        cron.simple_query("SET application_name TO cron").await.unwrap();
        assert_eq!(served_by(&cron).await, "pg1");

        let commented = "SELECT served_by() /*action='index',controller='reports'*/";
        assert_eq!(rule(&client, commented).await, Some(3));
        assert_eq!(rule(&client, "SELECT served_by() /*controller='others'*/").await, none);
        wait_for("pg3 serves", async || value(&client, commented).await == "pg3").await;
        for _ in 0..20 {
            assert_eq!(value(&client, commented).await, "pg3");
        }
        let prepared = client.prepare(commented).await.unwrap();
        for _ in 0..5 {
            assert_eq!(client.query_one(&prepared, &[]).await.unwrap().get::<_, String>(0), "pg3");
        }

        for sql in [
            "SELECT served_by() FROM generate_series(1, 2) LEFT JOIN reports ON true",
            "SELECT * FROM report_view",
        ] {
            assert_eq!(rule(&client, sql).await, Some(4), "{sql}");
            goes(&weir, &client, sql, "replica", "rule_replica").await;
        }
        assert_eq!(rule(&client, "SELECT * FROM ledger.entries").await, Some(4));
        for sql in [
            // In another schema for all that is known, a CTE, a column.
            "SELECT * FROM entries",
            "WITH reports AS (SELECT 1) SELECT * FROM reports",
            "SELECT n AS reports FROM likes",
            "DELETE FROM reports",
        ] {
            assert_eq!(rule(&client, sql).await, none, "{sql}");
        }

        assert_eq!(rule(&client, "select  n from LIKES -- x").await, Some(5));
        goes(&weir, &client, "SELECT n FROM likes", "primary", "rule_primary").await;
        assert_eq!(rule(&client, "SELECT n FROM likes WHERE id = 1").await, none);

        let wisher = named(&weir, "wisher").await;
        goes(&weir, &wisher, "SELECT * FROM likes", "replica", "rule_replica").await;
        // The client may be stricter than the rule.
        goes(&weir, &wisher, "/* pgweir.route=primary */ SELECT * FROM likes", "primary", "route_primary")
            .await;
        goes(&weir, &reporting, "/* pgweir.route=primary */ SELECT 1", "primary", "route_primary").await;
    });
}

/// What counts is what replicas that stand still still show.
#[test]
fn what_may_be_stale_needs_no_floor_and_all_else_does() {
    let scene = scene();
    let lines = ["may_be_stale: [likes]", "always_fresh: [accounts]", "max_staleness: 1h", "max_lag: 1TiB"];
    let weir = scene.weir_with(&Tuning { interval: "200ms", ..Tuning::routing(&lines) });
    scene.cluster.replicas().iter().for_each(|replica| replica.pause_replay().unwrap());
    scene.run(async {
        let client = weir.connect().await;
        let old = value(&client, "SELECT n FROM likes WHERE id = 1").await;
        client.simple_query("UPDATE likes SET n = n + 1; INSERT INTO reports VALUES (77)").await.unwrap();
        // A sample that comes late on a busy machine sends a read to the primary.
        wait_for("the old count is seen on a replica", async || {
            value(&client, "SELECT n FROM likes WHERE id = 1").await == old
        })
        .await;
        let explained = explain(&client, "SELECT n FROM likes").await;
        assert!(explained.contains("Rule: routing.may_be_stale: consistency eventual"), "{explained}");
        // With anything else in it, it is an ordinary read: this session has written.
        for sql in ["SELECT n FROM likes JOIN reports ON true", "SELECT n, no_writer() FROM likes"] {
            assert_ne!(value(&client, sql).await, old, "{sql}");
        }
        assert_eq!(value(&client, "SELECT count(*) FROM reports WHERE id = 77").await, "1");
        // A client that asks for more gets it.
        client.simple_query("SET pgweir.consistency = session").await.unwrap();
        assert_ne!(value(&client, "SELECT n FROM likes WHERE id = 1").await, old);
        client.simple_query("DELETE FROM reports").await.unwrap();
    });
    weir.wait_node("pg2", "is shown as paused", |row| row.replay.as_deref() == Some("paused"));
    scene.cluster.replicas().iter().for_each(|replica| replica.resume_replay().unwrap());
    scene.cluster.wait_caught_up(LONG).unwrap();
    weir.wait_node("pg2", "is shown as streaming", |row| row.replay.as_deref() == Some("streaming"));
}

#[test]
fn a_tag_that_nobody_can_serve_falls_back_as_its_rule_says() {
    let scene = scene();
    let rules = "\
rules:
    - { match: { application_name: others }, tag: analytics }
    - { match: { application_name: home }, tag: analytics, fallback: primary }
    - { match: { application_name: fails }, tag: analytics, fallback: error }";
    let tags = vec![("pg3", "analytics")];
    let weir = scene.weir_with(&Tuning { tags, interval: "1s", ..Tuning::patient(&[rules]) });
    let pg3 = scene.cluster.replica(1);
    scene.run(async {
        for name in ["others", "home", "fails"] {
            let client = named(&weir, name).await;
            wait_for("pg3 serves", async || {
                let rows = client.simple_query("SELECT served_by()").await;
                rows.is_ok_and(|rows| first_value(&rows).as_deref() == Some("pg3"))
            })
            .await;
        }
    });
    pg3.stop(Stop::Fast).unwrap();
    weir.wait_node("pg3", "is down", |row| row.state == "down");
    scene.run(async {
        let others = named(&weir, "others").await;
        wait_for("pg2 serves", async || served_by(&others).await == "pg2").await;
        assert_eq!(served_by(&named(&weir, "home").await).await, "pg1");
        let error = named(&weir, "fails").await.simple_query("SELECT served_by()").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "57P03", "{}", describe(&error));
    });
    pg3.start().unwrap();
    pg3.wait_streaming(LONG).unwrap();
}

#[test]
fn a_reload_changes_the_rules_also_of_statements_that_are_prepared() {
    let scene = scene();
    let file = scene.cluster.folder().join("rules.yaml");
    let with = |lines: &[&str]| Tuning { tags: vec![("pg3", "analytics")], ..Tuning::patient(lines) };
    let weir = scene.weir_from(&with(&[]), &file);
    scene.run(async {
        let console = weir.connect_as(SUPERUSER, "pgweir", "").await.unwrap();
        let reload = async |lines: &[&str]| {
            // What changes the addresses would need a restart.
            std::fs::write(&file, with(lines).yaml(scene.cluster.nodes())).unwrap();
            console.simple_query("RELOAD").await.unwrap_or_else(|e| panic!("{}", describe(&e)));
        };
        let client = weir.connect().await;
        let prepared = client.prepare("SELECT served_by() FROM accounts").await.unwrap();
        let served = async || client.query_one(&prepared, &[]).await.unwrap().get::<_, String>(0);
        wait_for("a replica serves", async || served().await != "pg1").await;
        reload(&["always_fresh: [accounts]"]).await;
        assert_eq!(served().await, "pg1");
        assert_eq!(value(&client, "SELECT served_by() FROM rich").await, "pg1");
        reload(&["rules: [ { match: { relation: accounts }, tag: analytics } ]"]).await;
        wait_for("the catalog is asked about other relations", async || {
            value(&client, "SELECT served_by() FROM rich").await == "pg3"
        })
        .await;
        assert_eq!(served().await, "pg3");
        reload(&["rules: [ { match: { application_name: nobody }, tag: analytics } ]"]).await;
        assert!(!explain(&client, "SELECT * FROM accounts").await.contains("Rule:"));
        reload(&[]).await;
        assert!(!explain(&client, "SELECT * FROM accounts").await.contains("Rule:"));
    });
}

/// A small generator of rules; its seed is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }

    fn rule(&mut self) -> String {
        let condition = self.one(&[
            "",
            "user: app",
            "user: 'a*', database: app",
            "application_name: '*'",
            "relation: likes",
            "relation: [accounts, likes, ledger.entries]",
            "comment: { a: b }",
        ]);
        let effect = self.one(&[
            "route: replica",
            "tag: analytics",
            "tag: analytics, fallback: error, consistency: eventual, max_staleness: off",
            "tag: analytics, fallback: primary",
            "consistency: eventual",
            "consistency: session, max_staleness: 1h",
            "route: primary",
        ]);
        format!("    - {{ match: {{ {condition} }}, {effect} }}")
    }
}

#[test]
fn no_rule_sends_a_write_away_from_the_primary() {
    let scene = scene();
    let seed = std::env::var("PGWEIR_RULES_SEED").ok().map_or(20_261_121, |text| text.parse().unwrap());
    println!("PGWEIR_RULES_SEED={seed}");
    let mut dice = Dice(seed);
    for _ in 0..6 {
        let rules: Vec<String> = (0..=dice.roll(5)).map(|_| dice.rule()).collect();
        let mut lines = vec![format!("rules:\n{}", rules.join("\n")), "may_be_stale: [likes]".to_owned()];
        lines.extend((dice.roll(2) == 0).then(|| "always_fresh: [accounts]".to_owned()));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        println!("{}", lines.join("\n"));
        let tuning = Tuning { tags: vec![("pg3", "analytics")], ..Tuning::patient(&lines) };
        let weir = scene.weir_with(&tuning);
        scene.run(async {
            let client = weir.connect().await;
            let writes = [
                "INSERT INTO likes VALUES (99, 1) /* a=b */",
                "/* pgweir.route=replica a=b */ UPDATE likes SET n = 2 WHERE id = 99",
                "WITH gone AS (DELETE FROM likes WHERE id = 99 RETURNING *) SELECT * FROM gone",
                "SELECT * FROM likes FOR UPDATE",
                "SELECT * FROM likes; UPDATE accounts SET balance = balance",
                "SELECT n INTO TEMPORARY scratch FROM likes; DROP TABLE scratch",
                "SELECT pg_current_xact_id() FROM likes",
            ];
            for sql in writes {
                let before = weir.counts();
                client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
                let since = weir.counts_since(&before);
                assert!(since.keys().all(|went| went.role == "primary"), "{sql}: {since:?}");
            }
            assert_eq!(weir.replays(), 0, "nothing was refused by a replica");
        });
    }
}

#[test]
fn a_delayed_standby_serves_only_whom_a_rule_sends_there() {
    let scene = scene();
    let pg3 = scene.cluster.replica(1);
    pg3.set_apply_delay(Duration::from_secs(3600)).unwrap();
    let rules = "\
rules:
    - { match: { application_name: forensics }, tag: delayed, fallback: error, consistency: eventual, max_staleness: off }";
    let tuning = Tuning { tags: vec![("pg3", "delayed")], interval: "200ms", ..Tuning::routing(&[rules]) };
    let weir = scene.weir_at_once(&tuning);
    weir.wait_node("pg3", "is shown as delayed", |row| row.replay.as_deref() == Some("delayed 1h"));
    weir.wait_node("pg2", "serves", |row| row.replay.as_deref() == Some("streaming"));
    scene.run(async {
        let client = weir.connect().await;
        wait_for("reads are served by replicas", async || served_by(&client).await == "pg2").await;
        client.simple_query("INSERT INTO reports VALUES (1)").await.unwrap();
        for _ in 0..50 {
            assert_ne!(served_by(&client).await, "pg3");
        }
        let forensics = named(&weir, "forensics").await;
        let read = async |sql| loop {
            // On a busy machine a sample may be late: then its rule refuses it.
            match forensics.simple_query(sql).await {
                Ok(messages) => return first_value(&messages).unwrap(),
                Err(error) => assert_eq!(error.code().unwrap().code(), "57P03", "{}", describe(&error)),
            }
        };
        assert_eq!(read("SELECT served_by()").await, "pg3");
        assert_eq!(read("SELECT count(*) FROM reports").await, "0");
        assert_eq!(value(&client, "SELECT count(*) FROM reports").await, "1");
        // Who asks for more than it can give gets what its rule says.
        forensics.simple_query("SET pgweir.consistency = session").await.unwrap();
        forensics.simple_query("DELETE FROM reports").await.unwrap();
        let error = forensics.simple_query("SELECT count(*) FROM reports").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "57P03", "{}", describe(&error));
    });
    // It comes back without a delay: noticed, and it serves like any other.
    pg3.sql("ALTER SYSTEM SET recovery_min_apply_delay = 0").unwrap();
    pg3.restart().unwrap();
    pg3.wait_caught_up(scene.cluster.primary(), LONG).unwrap();
    weir.wait_node("pg3", "is shown as streaming", |row| row.replay.as_deref() == Some("streaming"));
    scene.run(async {
        let client = weir.connect().await;
        wait_for("it serves", async || served_by(&client).await == "pg3").await;
    });
}

#[test]
fn a_cascading_standby_is_shown_and_serves() {
    let scene = scene();
    let (pg2, pg3) = (scene.cluster.replica(0), scene.cluster.replica(1));
    pg3.follow(pg2).unwrap();
    pg3.wait_streaming(LONG).unwrap();
    let weir = scene.weir_with(&Tuning::patient(&[]));
    weir.wait_node("pg3", "is shown as cascading", |row| {
        row.replay.as_deref() == Some("cascading from pg2") && row.serves_reads
    });
    scene.run(async {
        let client = weir.connect().await;
        client.simple_query("INSERT INTO likes VALUES (5, 5)").await.unwrap();
        wait_for("it serves what was written", async || served_by(&client).await == "pg3").await;
        client.simple_query("DELETE FROM likes WHERE id = 5").await.unwrap();
        let console = weir.connect_as(APP, "pgweir", "").await.unwrap();
        let rows = console.simple_query("SHOW CLUSTER").await.unwrap();
        let shown = rows.iter().any(|message| match message {
            SimpleQueryMessage::Row(row) => row.get("replay") == Some("cascading from pg2"),
            _ => false,
        });
        assert!(shown);
    });
    pg3.follow(scene.cluster.primary()).unwrap();
    pg3.wait_streaming(LONG).unwrap();
    weir.wait_node("pg3", "streams from the primary", |row| row.replay.as_deref() == Some("streaming"));
}
