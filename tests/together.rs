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

use std::sync::OnceLock;

use harness::{NO_WRITER, SERVED_BY, Scene, Stage, Tuning, Weir, describe, served_by, value, wait_for};
use pgweir::devcluster::{APP, APP_DATABASE, DevNode, Options};
use tokio_postgres::Client;
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
        self.0.iter().for_each(|node| node.resume_replay().unwrap());
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
    let narrow = Tuning {
        pool: vec!["size: 1".to_owned(), "wait_timeout: 100ms".to_owned()],
        ..keyed(Some(&store), "")
    };
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
