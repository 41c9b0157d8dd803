//! What pgweir knows of a database's objects, on real servers: at the start, after DDL through it, and
//! after DDL that it has not seen.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;

use std::sync::OnceLock;

use harness::{
    LONG, NO_WRITER, SERVED_BY, Scene, Stage, Weir, connect_to, describe, served_by, value, wait_for,
};
use pgweir::devcluster::{APP_DATABASE, MONITOR, Options, SUPERUSER, TRUST_USER};
use pgweir::sql::catalog::QUERIES;
use tokio_postgres::Client;

const SCHEMA: [&str; 24] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE plain (id int PRIMARY KEY, v text)",
    "INSERT INTO plain SELECT id, 'v' FROM generate_series(1, 100) id",
    "CREATE TABLE note (at text)",
    "CREATE FUNCTION writer() RETURNS int VOLATILE LANGUAGE sql AS $$ INSERT INTO note VALUES ('w') RETURNING 1 $$",
    "CREATE UNLOGGED TABLE unlogged (id int)",
    "CREATE VIEW plain_view AS SELECT id FROM plain",
    "CREATE VIEW writing_view AS SELECT id, writer() FROM plain",
    "CREATE VIEW view_of_view AS SELECT id FROM writing_view",
    "CREATE VIEW unlogged_view AS SELECT id FROM unlogged",
    "CREATE TABLE parent (id int, part int) PARTITION BY LIST (part)",
    "CREATE TABLE parent_1 PARTITION OF parent FOR VALUES IN (1)",
    "CREATE UNLOGGED TABLE parent_2 PARTITION OF parent FOR VALUES IN (2)",
    "CREATE TABLE all_logged (id int, part int) PARTITION BY LIST (part)",
    "CREATE TABLE all_logged_1 PARTITION OF all_logged FOR VALUES IN (1)",
    "CREATE SEQUENCE seq",
    // An overload of a built-in name that writes: calls of that name cannot be told apart.
    "CREATE FUNCTION upper(int) RETURNS int VOLATILE LANGUAGE sql AS $$ SELECT writer() $$",
    "CREATE FUNCTION checks(int) RETURNS boolean VOLATILE LANGUAGE sql AS $$ SELECT writer() > 0 $$",
    "CREATE DOMAIN checked AS int CHECK (checks(VALUE))",
    "CREATE FUNCTION compare(int, text) RETURNS boolean VOLATILE LANGUAGE sql AS $$ SELECT writer() > 0 $$",
    "CREATE OPERATOR <<%>> (LEFTARG = int, RIGHTARG = text, FUNCTION = compare)",
    "CREATE FUNCTION of_row(plain) RETURNS int VOLATILE LANGUAGE sql AS $$ SELECT writer() $$",
    "CREATE MATERIALIZED VIEW stored AS SELECT count(*) AS n FROM plain",
];

const BY_SUPERUSER: [&str; 7] = [
    "CREATE FOREIGN DATA WRAPPER nowhere",
    "CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere",
    "CREATE FOREIGN TABLE distant (id int) SERVER nowhere",
    "CREATE VIEW distant_view AS SELECT id FROM distant",
    "CREATE TABLE guarded (id int)",
    "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY writes ON guarded USING (writer() = 1)",
];

/// Reading a view's definition locks what the view is made of, one view after the other.
#[test]
fn reading_the_catalog_never_ends_a_clients_ddl_in_a_deadlock() {
    let scene = scene();
    scene.cluster.primary().sql("CREATE TABLE base_1 (n int); CREATE TABLE base_2 (n int)").unwrap();
    scene.cluster.primary().sql("CREATE VIEW on_1 AS SELECT * FROM base_1").unwrap();
    scene.cluster.primary().sql("CREATE VIEW on_2 AS SELECT * FROM base_2").unwrap();
    let weir = scene.weir();
    scene.run(async {
        let holder =
            connect_to(scene.cluster.primary().address(), SUPERUSER, APP_DATABASE, "").await.unwrap();
        holder.batch_execute("BEGIN; LOCK base_2 IN ACCESS EXCLUSIVE MODE").await.unwrap();
        // It makes the catalog be read again.
        weir.connect().await.batch_execute("CREATE TABLE some_ddl (n int)").await.unwrap();
        wait_for("the reader waits for the table", async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'base_2'::regclass";
            value(&holder, waiting).await != "0"
        })
        .await;
        holder.batch_execute("LOCK base_1 IN ACCESS EXCLUSIVE MODE").await.unwrap();
        holder.batch_execute("COMMIT; DROP TABLE base_1, base_2, some_ddl CASCADE").await.unwrap();
    });
}

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || {
        let stage = Stage::with(Options::default(), &SCHEMA);
        BY_SUPERUSER.iter().for_each(|sql| drop(stage.cluster.primary().sql(sql).unwrap()));
        stage.cluster.wait_caught_up(LONG).unwrap();
        stage
    })
}

/// `primary` or `replica`, and the reason.
async fn explained(client: &Client, sql: &str) -> (String, String) {
    let line = value(client, &format!("EXPLAIN (ROUTE) {sql}")).await;
    let role = line.strip_prefix("Route: ").unwrap().split(' ').next().unwrap().to_owned();
    (role, line)
}

#[test]
fn what_reaches_something_that_only_the_primary_has_goes_there() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        for sql in [
            "SELECT writer()",
            "SELECT id FROM writing_view",
            "SELECT id FROM view_of_view",
            "SELECT id FROM public.view_of_view",
            "SELECT id FROM unlogged",
            "SELECT id FROM unlogged_view",
            "SELECT id FROM parent",
            "SELECT id FROM parent_2",
            "SELECT id FROM distant",
            "SELECT id FROM distant_view",
            "SELECT id FROM guarded",
            "SELECT last_value FROM seq",
            "SELECT upper(1)",
            "SELECT 1::checked",
            "SELECT CAST(id AS checked) FROM plain",
            "SELECT 1 <<%>> 'x'",
            "SELECT p.of_row FROM plain p",
            "SELECT of_row(p) FROM plain p",
            "TABLE unlogged",
            "SELECT 1 WHERE EXISTS (SELECT FROM unlogged)",
            "WITH u AS (SELECT * FROM unlogged) SELECT * FROM u",
            "SELECT id FROM plain UNION SELECT id FROM unlogged",
        ] {
            let (role, line) = explained(&client, sql).await;
            assert_eq!(role, "primary", "{sql}: {line}");
            assert!(!line.contains("catalog_not_loaded"), "{sql}: {line}");
        }
        for sql in [
            "SELECT id FROM plain",
            "SELECT id FROM plain_view",
            "SELECT id FROM all_logged",
            "SELECT n FROM stored",
            "SELECT no_writer()",
            "SELECT lower(v) FROM plain",
            "SELECT count(*) FROM parent_1",
        ] {
            // A late sample may send one to the primary; what the catalog says decides for the next.
            wait_for(sql, async || explained(&client, sql).await.0 == "replica").await;
        }
        // What works on the primary works through pgweir, without a detour.
        for sql in ["SELECT id FROM unlogged_view", "SELECT id FROM parent", "SELECT last_value FROM seq"] {
            client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
        }
        assert_eq!(weir.replays(), 0);
    });
}

/// Runs on the primary at once, and sends nothing twice.
async fn assert_direct(weir: &Weir<'_>, client: &Client, sql: &str) {
    let replays = weir.replays();
    let routed = weir.route(client, sql).await;
    assert!(routed.iter().all(|(role, _)| role == "primary"), "{sql}: {routed:?}");
    assert_eq!(weir.replays(), replays, "{sql} was sent again");
}

/// Waits until the statement goes to replicas.
async fn comes_to_replicas(weir: &Weir<'_>, client: &Client, sql: &str) {
    wait_for(&format!("{sql} goes to replicas"), async || {
        let routed = weir.route(client, sql).await;
        routed.iter().all(|(role, _)| role == "replica")
    })
    .await;
}

#[test]
fn ddl_through_pgweir_counts_at_once_for_everybody() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let (one, other) = (weir.connect().await, weir.connect().await);
        let ddl = async |sql: &str| {
            one.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)))
        };

        ddl("CREATE FUNCTION changes() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'").await;
        assert_eq!(value(&one, "SELECT changes()").await, "1");
        comes_to_replicas(&weir, &other, "SELECT changes()").await;
        ddl("CREATE OR REPLACE FUNCTION changes() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT writer()'")
            .await;
        for _ in 0..5 {
            assert_direct(&weir, &one, "SELECT changes()").await;
            assert_direct(&weir, &other, "SELECT changes()").await;
        }

        ddl("CREATE TABLE turns (id int)").await;
        assert_eq!(value(&one, "SELECT count(*) FROM turns").await, "0");
        comes_to_replicas(&weir, &other, "SELECT count(*) FROM turns").await;
        ddl("ALTER TABLE turns SET UNLOGGED").await;
        for _ in 0..5 {
            assert_direct(&weir, &other, "SELECT count(*) FROM turns").await;
        }
        ddl("ALTER TABLE turns SET LOGGED").await;
        comes_to_replicas(&weir, &other, "SELECT count(*) FROM turns").await;

        ddl("BEGIN; CREATE VIEW late AS SELECT 1 AS id; COMMIT").await;
        comes_to_replicas(&weir, &other, "SELECT id FROM late").await;
        ddl("BEGIN").await;
        ddl("CREATE OR REPLACE VIEW late AS SELECT writer() AS id").await;
        ddl("COMMIT").await;
        assert_direct(&weir, &other, "SELECT id FROM late").await;
        assert_direct(&weir, &one, "SELECT id FROM late").await;
    });
}

#[test]
fn ddl_in_the_extended_protocol_and_in_do_blocks_counts_too() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        client
            .execute("CREATE FUNCTION by_protocol() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'", &[])
            .await
            .unwrap();
        comes_to_replicas(&weir, &client, "SELECT by_protocol()").await;
        let replace =
            "CREATE OR REPLACE FUNCTION by_protocol() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT writer()'";
        client.execute(replace, &[]).await.unwrap();
        assert_direct(&weir, &client, "SELECT by_protocol()").await;

        client.batch_execute("CREATE VIEW by_block AS SELECT 1 AS id").await.unwrap();
        comes_to_replicas(&weir, &client, "SELECT id FROM by_block").await;
        let block = "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW by_block AS SELECT writer() AS id'; END $$";
        client.batch_execute(block).await.unwrap();
        // Whether a block contains DDL cannot be known: at worst a replica refuses, once.
        let before = weir.replays();
        for _ in 0..5 {
            assert_eq!(value(&client, "SELECT id FROM by_block").await, "1");
        }
        assert!(weir.replays() <= before + 1);
    });
}

#[test]
fn ddl_behind_pgweirs_back_is_found_by_the_replicas_refusal() {
    let scene = scene();
    let primary = scene.cluster.primary();
    let direct = |sql: &str| drop(primary.sql_as("app", APP_DATABASE, sql).unwrap());
    direct("CREATE FUNCTION behind() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'");
    direct("CREATE TABLE behind_table (id int)");
    scene.cluster.wait_caught_up(LONG).unwrap();
    let weir = scene.weir();
    scene.run(async {
        let client = weir.connect().await;
        comes_to_replicas(&weir, &client, "SELECT behind()").await;
        comes_to_replicas(&weir, &client, "SELECT count(*) FROM behind_table").await;
        direct("CREATE OR REPLACE FUNCTION behind() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT writer()'");
        direct("ALTER TABLE behind_table SET UNLOGGED");
        scene.cluster.wait_caught_up(LONG).unwrap();
        direct("DELETE FROM note");
        for _ in 0..10 {
            assert_eq!(value(&client, "SELECT behind()").await, "1");
            assert_eq!(value(&client, "SELECT count(*) FROM behind_table").await, "0");
        }
        assert!(weir.replays() <= 2, "each shape is learnt after its first refusal: {}", weir.replays());
        let written = value(&client, "/* pgweir.route=primary */ SELECT count(*) FROM note").await;
        assert_eq!(written, "10", "each call ran exactly once");

        // A relation that the catalog has never heard of.
        direct("CREATE UNLOGGED TABLE unheard_of (id int)");
        direct("INSERT INTO unheard_of VALUES (7)");
        scene.cluster.wait_caught_up(LONG).unwrap();
        assert_eq!(value(&client, "SELECT id FROM unheard_of").await, "7");
    });
}

#[test]
fn a_temporary_table_is_its_sessions_own_also_where_it_hides_another() {
    let scene = scene();
    let weir = scene.weir();
    scene.run(async {
        let (owner, other) = (weir.connect().await, weir.connect().await);
        owner
            .batch_execute("CREATE TEMPORARY TABLE plain (id int); INSERT INTO plain VALUES (-1)")
            .await
            .unwrap();
        for _ in 0..5 {
            assert_eq!(value(&owner, "SELECT min(id) FROM plain").await, "-1");
            assert_eq!(value(&other, "SELECT min(id) FROM plain").await, "1");
        }
        assert_eq!(served_by(&owner).await, "pg1", "the session keeps its connection");
        owner.batch_execute("DISCARD ALL").await.unwrap();
        assert_eq!(value(&owner, "SELECT min(id) FROM plain").await, "1");
        wait_for("the session is free again", async || served_by(&owner).await != "pg1").await;

        owner.batch_execute("SELECT 1 AS made INTO TEMP made_by_select").await.unwrap();
        assert_eq!(value(&owner, "SELECT made FROM made_by_select").await, "1");
        assert!(other.simple_query("SELECT made FROM made_by_select").await.is_err());
    });
}

#[test]
fn the_catalog_queries_run_for_the_monitor_and_for_a_role_without_privileges() {
    let scene = scene();
    let primary = scene.cluster.primary();
    for user in [MONITOR.name, TRUST_USER.name] {
        let names = |sql: &str| -> Vec<String> {
            let rows = primary.sql_as(user, APP_DATABASE, sql).unwrap_or_else(|e| panic!("{user}: {e}"));
            rows.into_iter().map(|mut row| row.swap_remove(0).unwrap()).collect()
        };
        let has = |names: &[String], wanted: &[&str]| {
            for name in wanted {
                assert!(names.iter().any(|known| known == name), "{user}: no {name} in {names:?}");
            }
        };
        has(&names(QUERIES.writing_functions), &["writer", "upper", "checks", "compare", "of_row"]);
        has(&names(QUERIES.safe_functions), &["no_writer", "served_by"]);
        has(&names(QUERIES.row_functions), &["of_row"]);
        let relations = names(QUERIES.primary_only_relations);
        has(
            &relations,
            &["unlogged", "unlogged_view", "distant", "distant_view", "writing_view", "view_of_view"],
        );
        has(&relations, &["parent", "parent_2", "guarded", "seq"]);
        for plain in ["plain", "plain_view", "all_logged", "stored", "parent_1"] {
            assert!(!relations.iter().any(|known| known == plain), "{plain} can be read anywhere");
        }
        has(&names(QUERIES.writing_types), &["checked"]);
        has(&names(QUERIES.writing_operators), &["<<%>>"]);
        assert_eq!(names(QUERIES.async_commit_possible), ["f"]);
        let functions = names(QUERIES.momentary_functions);
        has(&functions, &["served_by", "writer"]);
        assert!(!functions.iter().any(|known| known == "no_writer"), "it is IMMUTABLE");
        let relations = names(QUERIES.momentary_relations);
        has(&relations, &["writing_view", "view_of_view", "guarded"]);
        assert!(!relations.iter().any(|known| known == "plain_view"), "{relations:?}");
        assert_eq!(names(QUERIES.other_isolation_possible), ["f"]);
    }
    println!("on PostgreSQL {}", scene.cluster.binaries().version());
}

#[test]
fn each_database_has_a_catalog_of_its_own() {
    let scene = scene();
    let primary = scene.cluster.primary();
    primary.sql_as("postgres", "postgres", "CREATE DATABASE second OWNER app").unwrap();
    primary
        .sql_as("app", "second", "CREATE FUNCTION writer() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'")
        .unwrap();
    primary.sql_as("app", "second", "CREATE TABLE unlogged (id int)").unwrap();
    scene.cluster.wait_caught_up(LONG).unwrap();
    let weir = scene.weir();
    scene.run(async {
        let (first, second) =
            (weir.connect().await, weir.connect_as(pgweir::devcluster::APP, "second", "").await.unwrap());
        wait_for("the second database's catalog has been read", async || {
            !explained(&second, "SELECT writer()").await.1.contains("catalog_not_loaded")
        })
        .await;
        for sql in ["SELECT writer()", "SELECT id FROM unlogged"] {
            assert_eq!(explained(&first, sql).await.0, "primary", "{sql}");
            // A late sample may send one to the primary; what the catalog says decides for the next.
            wait_for("the second database's own catalog decides", async || {
                explained(&second, sql).await.0 == "replica"
            })
            .await;
        }
    });
}
