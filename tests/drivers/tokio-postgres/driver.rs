//! tokio-postgres: named statements in the extended protocol, the simple one, and pipelining by polling
//! several futures at once.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future, pin_mut, stream};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Error, IsolationLevel, NoTls};

use crate::in_process::{FIND_SLEEPER, Features, SLEEP, World, features, until};

pub fn program(world: World) -> Features {
    features!(world:
        "connect" => connect, "simple" => simple, "parameters" => parameters, "types" => types,
        "transactions" => transactions, "prepared" => prepared, "copy" => copy, "notify" => notify,
        "errors" => errors, "cancel" => cancel, "pipeline" => pipeline, "own-writes" => own_writes,
        "settings" => settings, "cursor" => cursor, "read-only" => read_only, "replicas" => replicas,
    )
}

async fn open(world: &World) -> Client {
    let (client, connection) = tokio_postgres::connect(&world.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn name_of(db: &Client, id: i32) -> String {
    db.query_one("SELECT name FROM item WHERE id = $1", &[&id]).await.unwrap().get(0)
}

async fn count(db: &Client) -> i64 {
    db.query_one("SELECT count(*) FROM item", &[]).await.unwrap().get(0)
}

async fn fails<T>(state: SqlState, action: impl Future<Output = Result<T, Error>>) {
    let error = action.await.err().unwrap_or_else(|| panic!("no error {state:?}"));
    assert_eq!(error.code(), Some(&state), "{error}");
}

async fn connect(world: World) {
    let mut config: Config = world.url.parse().unwrap();
    let (db, connection) =
        config.application_name("drivers").options("-c app.tenant=t7").connect(NoTls).await.unwrap();
    assert_eq!(connection.parameter("application_name"), Some("drivers"));
    tokio::spawn(connection);
    let row = db.query_one("SELECT current_setting('app.tenant')", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "t7");
}

async fn simple(world: World) {
    let db = open(&world).await;
    let messages =
        db.simple_query("DELETE FROM item; INSERT INTO item VALUES (1, 'one'); SELECT 1").await.unwrap();
    assert_eq!(messages.len(), 5);
    assert_eq!(name_of(&db, 1).await, "one");
}

async fn parameters(world: World) {
    let db = open(&world).await;
    let row = db.query_one("SELECT $1::int + $2::int", &[&2, &3]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 5);
    // Without a statement of its own: types given, one round trip.
    let typed: [(&(dyn ToSql + Sync), Type); 1] = [(&7_i64, Type::INT8)];
    let rows = db.query_typed("SELECT $1 + 1", &typed).await.unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 8);
}

async fn types(world: World) {
    let db = open(&world).await;
    db.execute("DELETE FROM kind", &[]).await.unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_209_800_123_456);
    let numbers = vec![Some(1), Some(2), None];
    let insert = "INSERT INTO kind VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7, $8)";
    let doc = r#"{"a": [1, null]}"#;
    db.execute(
        insert,
        &[&1, &"ünï", &&b"\x00\xff"[..], &doc, &at, &numbers, &vec!["x", "y,z"], &None::<&str>],
    )
    .await
    .unwrap();
    let row =
        db.query_one("SELECT t, b, j::text, at, a, words, n FROM kind WHERE id = $1", &[&1]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "ünï");
    assert_eq!(row.get::<_, &[u8]>(1), b"\x00\xff");
    assert_eq!(row.get::<_, &str>(2), doc);
    assert_eq!(row.get::<_, SystemTime>(3), at);
    assert_eq!(row.get::<_, Vec<Option<i32>>>(4), numbers);
    assert_eq!(row.get::<_, Vec<&str>>(5), ["x", "y,z"]);
    assert_eq!(row.get::<_, Option<&str>>(6), None);
}

async fn transactions(world: World) {
    let mut db = open(&world).await;
    db.execute("DELETE FROM item", &[]).await.unwrap();
    let mut kept = db.transaction().await.unwrap();
    kept.execute("INSERT INTO item VALUES ($1, 'kept')", &[&1]).await.unwrap();
    let inner = kept.savepoint("here").await.unwrap();
    inner.execute("INSERT INTO item VALUES ($1, 'lost')", &[&2]).await.unwrap();
    inner.rollback().await.unwrap();
    kept.commit().await.unwrap();
    let lost = db.build_transaction().isolation_level(IsolationLevel::Serializable).start().await.unwrap();
    lost.execute("INSERT INTO item VALUES ($1, 'lost')", &[&3]).await.unwrap();
    // What is dropped is rolled back.
    drop(lost);
    assert_eq!(count(&db).await, 1);
}

async fn prepared(world: World) {
    let db = open(&world).await;
    let twice = db.prepare("SELECT $1::int * 2").await.unwrap();
    let add = db.prepare("INSERT INTO item VALUES ($1, $2)").await.unwrap();
    assert_eq!(add.params(), [Type::INT4, Type::TEXT]);
    for i in 10..40 {
        assert_eq!(db.query_one(&twice, &[&i]).await.unwrap().get::<_, i32>(0), 2 * i);
        db.execute(&add, &[&i, &"x"]).await.unwrap();
    }
    assert_eq!(name_of(&db, 39).await, "x");
}

async fn copy(world: World) {
    let db = open(&world).await;
    db.execute("DELETE FROM item", &[]).await.unwrap();
    let sink = db.copy_in("COPY item FROM STDIN").await.unwrap();
    pin_mut!(sink);
    for i in 0..1000 {
        sink.send(Bytes::from(format!("{i}\t{}\n", "x".repeat(100)))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 1000);
    let out = db.copy_out("COPY item TO STDOUT").await.unwrap();
    let lines: Vec<Bytes> = out.try_collect().await.unwrap();
    assert_eq!(lines.len(), 1000);
    let again = db.copy_in::<_, Bytes>("COPY item FROM STDIN").await.unwrap();
    pin_mut!(again);
    again.send(Bytes::from("1\tagain\n")).await.unwrap();
    fails(SqlState::UNIQUE_VIOLATION, again.finish()).await;
    // What is dropped before it is finished is given up.
    let given_up = db.copy_in::<_, Bytes>("COPY item FROM STDIN").await.unwrap();
    drop(given_up);
    assert_eq!(count(&db).await, 1000);
}

async fn notify(world: World) {
    let (listener, mut connection) = tokio_postgres::connect(&world.url, NoTls).await.unwrap();
    let (heard, mut hear) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(note) = message {
                heard.send(note.payload().to_owned()).unwrap();
            }
        }
    });
    listener.batch_execute("LISTEN tokio_postgres").await.unwrap();
    let db = open(&world).await;
    db.batch_execute("NOTIFY tokio_postgres, 'one'").await.unwrap();
    assert_eq!(hear.recv().await.unwrap(), "one");
    db.query("SELECT pg_notify($1, $2)", &[&"tokio_postgres", &"two"]).await.unwrap();
    assert_eq!(hear.recv().await.unwrap(), "two");
}

async fn errors(world: World) {
    let db = open(&world).await;
    db.batch_execute("DELETE FROM item; INSERT INTO item VALUES (1, 'one')").await.unwrap();
    for _ in 0..3 {
        fails(SqlState::UNIQUE_VIOLATION, db.execute("INSERT INTO item VALUES ($1, 'again')", &[&1])).await;
        fails(SqlState::SYNTAX_ERROR, db.batch_execute("SELEC 1")).await;
        fails(SqlState::SYNTAX_ERROR, db.prepare("SELEC $1")).await;
        fails(SqlState::DIVISION_BY_ZERO, db.query("SELECT 1 / $1::int", &[&0])).await;
        assert_eq!(name_of(&db, 1).await, "one");
    }
}

async fn cancel(world: World) {
    let (db, other) = (open(&world).await, open(&world).await);
    let token = db.cancel_token();
    let soon = async {
        until("the statement runs", async || {
            other.query_one(FIND_SLEEPER, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        token.cancel_query(NoTls).await.unwrap();
    };
    future::join(fails(SqlState::QUERY_CANCELED, db.batch_execute(SLEEP)), soon).await;
    assert_eq!(db.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

async fn pipeline(world: World) {
    let db = open(&world).await;
    db.execute("DELETE FROM item", &[]).await.unwrap();
    let add = db.prepare("INSERT INTO item VALUES ($1, 'x')").await.unwrap();
    let all = db.prepare("SELECT count(*) FROM item").await.unwrap();
    // Reads and writes in turn, all sent before the first is answered; each read sees the writes before it.
    let (db, add, all) = (&db, &add, &all);
    let pairs = (0..100_i32).map(|i| async move {
        let id: [&(dyn ToSql + Sync); 1] = [&i];
        let (added, counted) = future::join(db.execute(add, &id), db.query_one(all, &[])).await;
        assert_eq!(added.unwrap(), 1);
        counted.unwrap().get::<_, i64>(0)
    });
    let counts = future::join_all(pairs).await;
    assert_eq!(counts, (1..=100).collect::<Vec<i64>>());
    let twice = fails(SqlState::UNIQUE_VIOLATION, db.execute(add, &[&1]));
    let ((), after) = future::join(twice, name_of(db, 5)).await;
    assert_eq!(after, "x");
}

async fn own_writes(world: World) {
    let db = open(&world).await;
    db.batch_execute("DELETE FROM item; INSERT INTO item VALUES (1, '0')").await.unwrap();
    for i in 0..100 {
        db.execute("UPDATE item SET name = $1 WHERE id = 1", &[&i.to_string()]).await.unwrap();
        assert_eq!(name_of(&db, 1).await, i.to_string());
    }
}

async fn settings(world: World) {
    let db = open(&world).await;
    db.batch_execute("SET TimeZone = 'Asia/Tokyo'; SET app.tenant = 't1'").await.unwrap();
    for _ in 0..20 {
        let sql = "SELECT current_setting('TimeZone'), current_setting($1)";
        let row = db.query_one(sql, &[&"app.tenant"]).await.unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("Asia/Tokyo", "t1"));
    }
}

async fn cursor(world: World) {
    let mut db = open(&world).await;
    let transaction = db.transaction().await.unwrap();
    // A portal, some rows at a time.
    let portal = transaction.bind("SELECT * FROM generate_series(1, 1000)", &[]).await.unwrap();
    let mut sum = 0;
    loop {
        let rows = transaction.query_portal(&portal, 100).await.unwrap();
        if rows.is_empty() {
            break;
        }
        sum += rows.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>();
    }
    assert_eq!(sum, 500_500);
    transaction.commit().await.unwrap();
}

async fn read_only(world: World) {
    let mut db = open(&world).await;
    let reading = db.build_transaction().read_only(true).start().await.unwrap();
    let rows = reading.query("SELECT name FROM item WHERE id = $1", &[&-1]).await.unwrap();
    assert!(rows.is_empty());
    fails(SqlState::READ_ONLY_SQL_TRANSACTION, reading.execute("DELETE FROM item", &[])).await;
    reading.rollback().await.unwrap();
}

async fn replicas(world: World) {
    let db = open(&world).await;
    let served = db.prepare("SELECT served_by()").await.unwrap();
    until("a replica serves", async || {
        db.query_one(&served, &[]).await.unwrap().get::<_, &str>(0) != world.primary
    })
    .await;
}
