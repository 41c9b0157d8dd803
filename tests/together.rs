//! Levels, tokens, causal keys and rules where they meet: what one of them promises holds whatever the others
//! do in the same session.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/valkey.rs"]
mod valkey;
#[path = "support/wire_client.rs"]
mod wire_client;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use harness::{NO_WRITER, SERVED_BY, Scene, Stage, Tuning, Weir, describe, served_by, value, wait_for};
use pgweir::causal::store::Store;
use pgweir::config;
use pgweir::config::Secret;
use pgweir::config::settings::CausalSettings;
use pgweir::devcluster::{APP, APP_DATABASE, DevNode, Options};
use pgweir::freshness::token::Token;
use pgweir::lsn::{Lsn, TimelineId, WalPosition};
use pgweir::proxy::Proxy;
use tokio_postgres::{Client, NoTls};
use valkey::Valkey;

const SCHEMA: [&str; 5] = [
    NO_WRITER,
    SERVED_BY,
    "CREATE TABLE kv (id int PRIMARY KEY, v int NOT NULL)",
    "INSERT INTO kv SELECT id, 0 FROM generate_series(0, 100) id",
    "CREATE PROCEDURE commits(i int, n int) LANGUAGE plpgsql AS \
     'BEGIN UPDATE kv SET v = n WHERE id = i; COMMIT; END'",
];

fn scene() -> Scene {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    Scene::on(&STAGE, || Stage::with(Options::with_replicas(2), &SCHEMA))
}

/// Replicas that replay nothing while it lives.
struct Paused<'a>(Vec<&'a DevNode>);

impl<'a> Paused<'a> {
    fn new(nodes: impl IntoIterator<Item = &'a DevNode>) -> Paused<'a> {
        let nodes: Vec<_> = nodes.into_iter().collect();
        nodes.iter().for_each(|node| node.pause_replay().unwrap());
        Paused(nodes)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|node| drop(node.resume_replay()));
    }
}

fn keyed(store: Option<&Valkey>, more: &str) -> Tuning {
    let store =
        store.map_or(String::new(), |store| format!("  store: {}\n  store_timeout: 2s\n", store.url()));
    Tuning { more: format!("causal:\n  setting: app.user_id\n{store}{more}"), ..Tuning::default() }
}

async fn all(client: &Client, statements: &[&str]) {
    for sql in statements {
        client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
    }
}

async fn v_of(client: &Client, hint: &str, id: i32) -> i32 {
    value(client, &format!("{hint}SELECT v FROM kv WHERE id = {id}")).await.parse().unwrap()
}

/// What somebody else sees of `id`, on a new connection that names this key.
async fn seen_under(weir: &Weir<'_>, key: &str, id: i32) -> i32 {
    let reader = weir.connect().await;
    all(&reader, &[&format!("SET pgweir.causal_key = '{key}'")]).await;
    v_of(&reader, "", id).await
}

#[test]
fn the_key_of_a_write_that_was_refused_is_not_that_of_the_next_one() {
    let scene = scene();
    let store = Valkey::start();
    let narrow =
        Tuning { pool: vec!["size: 1".to_owned(), "wait_timeout: 1s".to_owned()], ..keyed(Some(&store), "") };
    let (one, other) = (scene.weir_with(&narrow), scene.weir_with(&keyed(Some(&store), "")));
    let _paused = Paused::new(scene.cluster.replicas());
    scene.run(async {
        // What is not recorded need not be newer than this.
        assert_eq!(seen_under(&other, "none", 22).await, 0);
        let (holder, writer) = (one.connect().await, one.connect().await);
        all(&holder, &["BEGIN", "UPDATE kv SET v = 0 WHERE id = 20"]).await;
        let refused = "/* pgweir.causal_key='one' */ UPDATE kv SET v = 1 WHERE id = 21";
        assert_eq!(writer.simple_query(refused).await.unwrap_err().code().unwrap().code(), "53300");
        all(&holder, &["ROLLBACK"]).await;
        all(&writer, &["/* pgweir.causal_key='two' */ UPDATE kv SET v = 1 WHERE id = 22"]).await;
        assert_eq!(seen_under(&other, "two", 22).await, 1);
        // Nobody is about to write under the first one any more.
        let fields: Vec<String> =
            redis::cmd("HKEYS").arg("pgweir:key:one").query(&mut store.connection()).unwrap();
        assert_eq!(fields, Vec::<String>::new());
    });
}

#[test]
fn a_write_counts_for_every_key_that_was_in_force_in_its_transaction() {
    let scene = scene();
    let weir = scene.weir_with(&keyed(None, ""));
    let _paused = Paused::new(scene.cluster.replicas());
    let cases: [(&str, &[&str]); 6] = [
        ("a", &["SET app.user_id = 'a'; UPDATE kv SET v = 30 WHERE id = 30; RESET app.user_id"]),
        ("b", &["SET app.user_id = 'b'", "UPDATE kv SET v = 30 WHERE id = 30; RESET app.user_id"]),
        (
            "c",
            &[
                "SET pgweir.causal_key = 'c'",
                "BEGIN",
                "UPDATE kv SET v = 30 WHERE id = 30",
                "SET pgweir.causal_key = 'd'",
                "COMMIT",
            ],
        ),
        (
            "e",
            &[
                "SET app.user_id = 'e'",
                "BEGIN",
                "UPDATE kv SET v = 30 WHERE id = 30",
                "SET app.user_id = 'f'",
                "COMMIT",
            ],
        ),
        ("g", &["SET app.user_id = 'g'", "UPDATE kv SET v = 30 WHERE id = 30; SET app.user_id = 'h'"]),
        (
            "i",
            &[
                "BEGIN; SET app.user_id = 'i'; UPDATE kv SET v = 30 WHERE id = 30; SET app.user_id = 'j'; COMMIT",
            ],
        ),
    ];
    scene.run(async {
        for (at, (key, statements)) in cases.into_iter().enumerate() {
            let id = 30 + at as i32;
            let statements = statements.iter().map(|sql| sql.replace("id = 30", &format!("id = {id}")));
            let statements: Vec<String> = statements.collect();
            let writer = weir.connect().await;
            all(&writer, &statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(seen_under(&weir, key, id).await, 30, "{key}");
        }
    });
}

#[test]
fn a_key_in_a_comment_that_cannot_be_taken_counts_as_every_key() {
    let scene = scene();
    let weir = scene.weir_with(&keyed(None, ""));
    let _paused = Paused::new(scene.cluster.replicas());
    scene.run(async {
        let writer = weir.connect().await;
        let hint = format!("/* pgweir.causal_key='{}' */ ", "x".repeat(300));
        all(&writer, &[&format!("{hint}UPDATE kv SET v = 1 WHERE id = 40")]).await;
        assert_eq!(seen_under(&weir, "any", 40).await, 1);
        scene.cluster.primary().sql_as(APP.name, APP_DATABASE, "UPDATE kv SET v = 2 WHERE id = 40").unwrap();
        assert_eq!(v_of(&weir.connect().await, &hint, 40).await, 2);
        // Two that differ in one request.
        let both = "/* pgweir.causal_key='one' */ UPDATE kv SET v = 3 WHERE id = 41; \
                    /* pgweir.causal_key='two' */ UPDATE kv SET v = 3 WHERE id = 42";
        all(&writer, &[both]).await;
        assert_eq!((seen_under(&weir, "one", 41).await, seen_under(&weir, "two", 42).await), (3, 3));
    });
}

#[test]
fn what_was_set_of_pgweirs_own_is_gone_when_everything_is_reset() {
    let scene = scene();
    let weir = scene.weir_with(&keyed(None, ""));
    scene.run(async {
        let options = "-c pgweir.consistency=global -c pgweir.route=primary -c pgweir.causal_key=mine";
        let (plain, asked) = (weir.connect().await, weir.connect_with(options).await);
        let shown = async |client: &Client| {
            let mut shown = Vec::new();
            for name in ["consistency", "route", "max_staleness", "causal_key", "report_token"] {
                shown.push(value(client, &format!("SHOW pgweir.{name}")).await);
            }
            shown
        };
        for client in [&plain, &asked] {
            let before = shown(client).await;
            for reset in ["DISCARD ALL", "RESET ALL"] {
                all(
                    client,
                    &[
                        "SET pgweir.consistency = 'eventual'",
                        "SET pgweir.route = 'replica'",
                        "SET pgweir.max_staleness = '9s'",
                        "SET pgweir.causal_key = 'other'",
                        "SET pgweir.report_token = 'on'",
                        reset,
                    ],
                )
                .await;
                assert_eq!(shown(client).await, before, "{reset}");
            }
            all(client, &["SET pgweir.consistency = 'eventual'", "RESET pgweir.consistency"]).await;
            all(client, &["SET pgweir.causal_key = 'other'", "RESET pgweir.causal_key"]).await;
            assert_eq!(shown(client).await, before);
        }
    });
}

#[test]
fn what_may_be_stale_does_not_take_the_rest_of_the_session_back() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::routing(&["balance: random", "max_staleness: 60s"]));
    let stale = scene.cluster.replica(1);
    let _paused = Paused::new([stale]);
    scene.run(async {
        let id = 50;
        weir.connect().await.simple_query("UPDATE kv SET v = 1 WHERE id = 50").await.unwrap();
        let session = weir.connect().await;
        wait_for("the session has seen the write on the other replica", async || {
            v_of(&session, "", id).await == 1 && served_by(&session).await != stale.name()
        })
        .await;
        let mut back = 0;
        for turn in 0..60 {
            let served = value(&session, "/* pgweir.consistency=eventual */ SELECT served_by()").await;
            if served == stale.name() {
                assert_eq!(v_of(&session, "", id).await, 1, "turn {turn}, after {served}");
                back += 1;
            }
        }
        assert!(back > 5, "{back}");
    });
}

#[test]
fn what_the_first_statement_of_a_read_only_transaction_asks_for_holds_in_it() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::routing(&["max_staleness: 60s"]));
    let rules = "rules: [ { match: { relation: kv }, consistency: global } ]";
    let ruled = scene.weir_with(&Tuning::routing(&[rules, "max_staleness: 60s"]));
    let _paused = Paused::new(scene.cluster.replicas());
    scene.run(async {
        scene.cluster.primary().sql_as(APP.name, APP_DATABASE, "UPDATE kv SET v = 1 WHERE id = 55").unwrap();
        for (weir, hint) in [
            (&weir, "/* pgweir.consistency=global */ "),
            (&weir, "/* pgweir.max_staleness=0s */ "),
            (&ruled, ""),
        ] {
            let session = weir.connect().await;
            all(&session, &["BEGIN READ ONLY"]).await;
            assert_eq!(v_of(&session, hint, 55).await, 1, "{hint}");
            all(&session, &["COMMIT"]).await;
        }
    });
}

#[test]
fn of_several_hints_in_one_request_the_strictest_counts() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::routing(&["max_staleness: 60s"]));
    let _paused = Paused::new(scene.cluster.replicas());
    scene.run(async {
        let session = weir.connect().await;
        scene.cluster.primary().sql_as(APP.name, APP_DATABASE, "UPDATE kv SET v = 1 WHERE id = 57").unwrap();
        let read = "SELECT v FROM kv WHERE id = 57";
        for (one, other) in [
            ("consistency=eventual", "consistency=global"),
            ("consistency=global", "consistency=eventual"),
            ("consistency=global", "consistency=nonsense"),
            ("max_staleness=0s", "max_staleness=60s"),
            ("max_staleness=60s", "max_staleness=0s"),
        ] {
            let both = format!("/* pgweir.{one} */ {read}; /* pgweir.{other} */ {read}");
            assert_eq!(value(&session, &both).await, "1", "{both}");
        }
    });
}

#[test]
fn what_a_procedure_committed_is_read_back_though_a_rollback_came_behind_it() {
    let scene = scene();
    let weir = scene.weir_with(&Tuning::routing(&["max_staleness: 60s"]));
    let _paused = Paused::new(scene.cluster.replicas());
    let login = wire_client::Login::new(APP.name, APP.password, APP_DATABASE);
    let mut client = wire_client::Wire::connect(weir.address.port(), &login).unwrap();
    let both = ["CALL commits(60, 1)", "ROLLBACK"].map(|sql| wire_client::unnamed(sql, &[]));
    client.send(&[both.concat(), wire_client::sync()].concat());
    client.until_ready();
    assert_eq!(client.value("SELECT v FROM kv WHERE id = 60"), "1");
}

/// A position of timeline 1.
fn position(lsn: u64) -> Token {
    Token { system: None, at: WalPosition { timeline: TimelineId(1), lsn: Lsn(lsn) } }
}

/// A pgweir's own end of the store, connected.
async fn end_of(store: &Valkey) -> Arc<Store> {
    let settings = CausalSettings {
        store: Some(Secret::new(store.url())),
        store_timeout: Duration::from_secs(2),
        ..CausalSettings::default()
    };
    let end = Arc::new(Store::new(&settings).unwrap().unwrap());
    tokio::spawn(end.clone().run());
    wait_for("the store answers", async || end.is_up()).await;
    end
}

#[test]
fn what_one_could_not_record_is_no_base_for_what_others_have_recorded() {
    let scene = scene();
    let mut store = Valkey::start();
    scene.run(async {
        let (one, other) = (end_of(&store).await, end_of(&store).await);
        let run = other.met().unwrap();
        other.found_base(&run, position(10)).await.unwrap();
        other.record("key", &[], Some(position(200))).await.unwrap();
        store.kill();
        assert!(one.record("mine", &[], Some(position(100))).await.is_err());
        let _store = store.start_again();
        wait_for("both have met the new run", async || {
            one.read("key").await.is_ok() && other.read("key").await.is_ok()
        })
        .await;
        // The record of 200 is lost, and 100 says nothing about it.
        assert_eq!(other.read("key").await.unwrap().base, None);
        assert!(other.found_base(&run, position(90)).await.is_err(), "of the run before");
        let run = other.met().unwrap();
        other.found_base(&run, position(90)).await.unwrap();
        assert_eq!(other.read("key").await.unwrap().base, Some(position(100)), "what was missed counts");
        other.raise_all(position(300)).await.unwrap();
        assert_eq!(one.read("any").await.unwrap().base, Some(position(300)));
    });
}

#[test]
fn a_replica_of_the_store_is_not_believed() {
    let scene = scene();
    let (first, second) = (Valkey::start(), Valkey::start());
    scene.run(async {
        let end = end_of(&second).await;
        end.record("key", &[], Some(position(100))).await.unwrap();
        let port = first.url().rsplit(':').next().unwrap().trim_end_matches("/0").to_owned();
        let follow = |host: &str, port: &str| {
            redis::cmd("REPLICAOF").arg(host).arg(port).exec(&mut second.connection()).unwrap();
        };
        follow("127.0.0.1", &port);
        assert!(end.read("key").await.is_err());
        follow("no", "one");
        wait_for("it is a primary again", async || end.read("key").await.is_ok()).await;
    });
}

#[test]
fn a_key_that_has_expired_in_the_store_counts_where_a_rule_allows_more_lag_than_that() {
    let scene = scene();
    let store = Valkey::start();
    let stale = "rules: [ { match: { user: app }, max_staleness: off } ]";
    let tuning = Tuning {
        routing: vec![stale.to_owned(), "max_staleness: 500ms".to_owned()],
        ..keyed(Some(&store), "  expiry: 1s\n")
    };
    let (one, other) = (scene.weir_with(&tuning), scene.weir_with(&tuning));
    scene.run(async {
        assert_eq!(seen_under(&other, "none", 70).await, 0);
        let _paused = Paused::new(scene.cluster.replicas());
        let writer = one.connect().await;
        all(&writer, &["SET pgweir.causal_key = 'old'", "UPDATE kv SET v = 1 WHERE id = 70"]).await;
        wait_for("the key has expired", async || {
            let there: u8 =
                redis::cmd("EXISTS").arg("pgweir:key:old").query(&mut store.connection()).unwrap();
            there == 0
        })
        .await;
        wait_for("replicas serve whoever has no key", async || {
            v_of(&other.connect().await, "", 70).await == 0
        })
        .await;
        assert_eq!(seen_under(&other, "old", 70).await, 1);
    });
}

#[test]
fn nobody_is_about_to_write_when_the_writer_is_gone() {
    let scene = scene();
    let store = Valkey::start();
    let weir = scene.weir_with(&keyed(Some(&store), "  expiry: 1h\n"));
    scene.run(async {
        let login = wire_client::Login::new(APP.name, APP.password, APP_DATABASE);
        for end in 0..2 {
            let mut writer = wire_client::Wire::connect(weir.address.port(), &login).unwrap();
            for sql in ["SET pgweir.causal_key = 'gone'", "BEGIN", "UPDATE kv SET v = 1 WHERE id = 75"] {
                writer.run(sql);
            }
            let pid = writer.value("SELECT pg_backend_pid()");
            match end {
                0 => writer.vanish(),
                _ => drop(scene.cluster.primary().sql(&format!("SELECT pg_terminate_backend({pid})"))),
            }
            wait_for("nothing is announced any more", async || {
                let fields: Vec<String> =
                    redis::cmd("HKEYS").arg("pgweir:key:gone").query(&mut store.connection()).unwrap();
                fields.is_empty()
            })
            .await;
        }
    });
}

#[test]
fn a_transaction_announces_its_writes_once() {
    let scene = scene();
    let store = Valkey::start();
    let weir = scene.weir_with(&keyed(Some(&store), ""));
    scene.run(async {
        let writer = weir.connect().await;
        all(&writer, &["SET pgweir.causal_key = 'once'", "BEGIN"]).await;
        for n in 0..40 {
            all(&writer, &[&format!("UPDATE kv SET v = {n} WHERE id = 77")]).await;
        }
        let fields = || -> Vec<String> {
            redis::cmd("HKEYS").arg("pgweir:key:once").query(&mut store.connection()).unwrap()
        };
        assert_eq!(fields().len(), 1);
        all(&writer, &["COMMIT"]).await;
        assert_eq!(fields(), ["at"]);
    });
}

#[test]
fn clients_that_move_between_workers_keep_their_answers_their_floor_and_their_cancel_key() {
    let scene = scene();
    let yaml = Tuning::default().yaml(scene.cluster.nodes());
    let settings = config::parse(Path::new("test.yaml"), &yaml, &|_| None).unwrap();
    let mut proxy = scene.run(Proxy::start(settings, None, None)).unwrap();
    let address = proxy.addresses()[0].parse().unwrap();
    scene.run(async {
        let moves = async {
            for workers in (1..=2).cycle() {
                proxy.crew().employ(workers);
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let talks = async {
            let clients = (80..96).map(|id| async move {
                let client = harness::connect_to(address, APP, APP_DATABASE, "").await.unwrap();
                for n in 1..=150 {
                    all(&client, &[&format!("UPDATE kv SET v = {n} WHERE id = {id}")]).await;
                    let both = format!("SELECT id || '/' || v FROM kv WHERE id = {id}");
                    assert_eq!(value(&client, &both).await, format!("{id}/{n}"));
                }
                let cancel = client.cancel_token();
                let done = AtomicBool::new(false);
                let sleeps = async {
                    let canceled = client.simple_query("SELECT pg_sleep(60)").await;
                    done.store(true, Ordering::Relaxed);
                    canceled
                };
                // One that comes before its statement finds nothing; one that comes late would hit the next.
                let cancels = async {
                    while !done.load(Ordering::Relaxed) {
                        cancel.cancel_query(NoTls).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                let (canceled, ()) = tokio::join!(sleeps, cancels);
                assert_eq!(canceled.unwrap_err().code().unwrap().code(), "57014");
            });
            join_all(clients).await;
        };
        tokio::select! { () = moves => {}, _ = talks => {} }
    });
    scene.run(async move { proxy.drain(Duration::ZERO).await });
}
