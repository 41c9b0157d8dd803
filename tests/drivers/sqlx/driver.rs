//! sqlx: its pool, named statements in the extended protocol, the simple one for raw SQL.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{Connection, Error, Executor, Row};

use crate::in_process::{FIND_SLEEPER, Features, SLEEP, World, features, until};

pub fn program(world: World) -> Features {
    features!(world:
        "connect" => connect, "simple" => simple, "parameters" => parameters, "types" => types,
        "transactions" => transactions, "prepared" => prepared, "copy" => copy, "notify" => notify,
        "errors" => errors, "cancel" => cancel, "own-writes" => own_writes, "settings" => settings,
        "cursor" => cursor, "read-only" => read_only, "pool" => pool, "replicas" => replicas,
    )
}

async fn open(world: &World) -> PgConnection {
    PgConnection::connect(&world.url).await.unwrap()
}

async fn name_of(db: &mut PgConnection, id: i32) -> String {
    sqlx::query_scalar("SELECT name FROM item WHERE id = $1").bind(id).fetch_one(db).await.unwrap()
}

async fn count(db: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM item").fetch_one(db).await.unwrap()
}

async fn fails<T>(state: &str, action: impl Future<Output = Result<T, Error>>) {
    let error = action.await.err().unwrap_or_else(|| panic!("no error {state}"));
    let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
    assert_eq!(code.as_deref(), Some(state), "{error}");
}

async fn connect(world: World) {
    let options: PgConnectOptions = world.url.parse().unwrap();
    let options = options.application_name("drivers").options([("app.tenant", "t7")]);
    let mut db = PgConnection::connect_with(&options).await.unwrap();
    db.ping().await.unwrap();
    let sql = "SELECT current_setting('app.tenant') || current_setting('application_name')";
    let tenant: String = sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap();
    assert_eq!(tenant, "t7drivers");
}

async fn simple(world: World) {
    let mut db = open(&world).await;
    sqlx::raw_sql("DELETE FROM item; INSERT INTO item VALUES (1, 'one')").execute(&mut db).await.unwrap();
    assert_eq!(name_of(&mut db, 1).await, "one");
}

async fn parameters(world: World) {
    let mut db = open(&world).await;
    let sum =
        sqlx::query_scalar::<_, i32>("SELECT $1 + $2").bind(2).bind(3).fetch_one(&mut db).await.unwrap();
    assert_eq!(sum, 5);
    let ids: Vec<i32> = (10..110).collect();
    let added = sqlx::query("INSERT INTO item SELECT id, 'x' FROM unnest($1) id").bind(ids);
    assert_eq!(added.execute(&mut db).await.unwrap().rows_affected(), 100);
}

async fn types(world: World) {
    let mut db = open(&world).await;
    db.execute("DELETE FROM kind").await.unwrap();
    let (numbers, doc) = (vec![Some(1), Some(2), None], r#"{"a": [1, null]}"#);
    sqlx::query("INSERT INTO kind VALUES ($1, $2, $3, $4::text::jsonb, $5::text::timestamptz, $6, $7, $8)")
        .bind(1)
        .bind("ünï")
        .bind(&b"\x00\xff"[..])
        .bind(doc)
        .bind("2024-02-29 12:30:00.123456Z")
        .bind(&numbers)
        .bind(vec!["x", "y,z"])
        .bind(None::<String>)
        .execute(&mut db)
        .await
        .unwrap();
    let sql = "SELECT t, b, j::text, extract(epoch FROM at)::float8, a, words, n FROM kind WHERE id = $1";
    let row = sqlx::query(sql).bind(1).fetch_one(&mut db).await.unwrap();
    assert_eq!(row.get::<&str, _>(0), "ünï");
    assert_eq!(row.get::<&[u8], _>(1), b"\x00\xff");
    assert_eq!(row.get::<&str, _>(2), doc);
    assert_eq!(row.get::<f64, _>(3), 1_709_209_800.123456);
    assert_eq!(row.get::<Vec<Option<i32>>, _>(4), numbers);
    assert_eq!(row.get::<Vec<String>, _>(5), ["x", "y,z"]);
    assert_eq!(row.get::<Option<String>, _>(6), None);
}

async fn transactions(world: World) {
    let mut db = open(&world).await;
    db.execute("DELETE FROM item").await.unwrap();
    let add = "INSERT INTO item VALUES ($1, 'x')";
    let mut kept = db.begin().await.unwrap();
    sqlx::query(add).bind(1).execute(&mut *kept).await.unwrap();
    let mut inner = kept.begin().await.unwrap();
    sqlx::query(add).bind(2).execute(&mut *inner).await.unwrap();
    inner.rollback().await.unwrap();
    kept.commit().await.unwrap();
    let mut lost = db.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    sqlx::query(add).bind(3).execute(&mut *lost).await.unwrap();
    // What is dropped is rolled back.
    drop(lost);
    assert_eq!(count(&mut db).await, 1);
}

async fn prepared(world: World) {
    let mut db = open(&world).await;
    for i in 10..40 {
        let twice = sqlx::query_scalar::<_, i32>("SELECT $1 * 2").bind(i);
        assert_eq!(twice.fetch_one(&mut db).await.unwrap(), 2 * i);
        sqlx::query("INSERT INTO item VALUES ($1, $2)").bind(i).bind("x").execute(&mut db).await.unwrap();
    }
    assert_eq!(db.cached_statements_size(), 2);
    db.clear_cached_statements().await.unwrap();
    assert_eq!(count(&mut db).await, 31);
}

async fn copy(world: World) {
    let mut db = open(&world).await;
    db.execute("DELETE FROM item").await.unwrap();
    let lines: String = (0..1000).map(|i| format!("{i}\t{}\n", "x".repeat(100))).collect();
    let mut into = db.copy_in_raw("COPY item FROM STDIN").await.unwrap();
    into.send(lines.as_bytes()).await.unwrap();
    assert_eq!(into.finish().await.unwrap(), 1000);
    let out: Vec<_> = db.copy_out_raw("COPY item TO STDOUT").await.unwrap().try_collect().await.unwrap();
    assert_eq!(out.iter().map(|chunk| chunk.len()).sum::<usize>(), lines.len());
    let given_up = db.copy_in_raw("COPY item FROM STDIN").await.unwrap();
    given_up.abort("given up").await.unwrap();
    assert_eq!(count(&mut db).await, 1000);
}

async fn notify(world: World) {
    let mut listener = PgListener::connect(&world.url).await.unwrap();
    listener.listen("sqlx").await.unwrap();
    let mut db = open(&world).await;
    db.execute("NOTIFY sqlx, 'one'").await.unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "one");
    sqlx::query("SELECT pg_notify($1, $2)").bind("sqlx").bind("two").execute(&mut db).await.unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "two");
    listener.unlisten_all().await.unwrap();
}

async fn errors(world: World) {
    let mut db = open(&world).await;
    sqlx::raw_sql("DELETE FROM item; INSERT INTO item VALUES (1, 'one')").execute(&mut db).await.unwrap();
    for _ in 0..3 {
        fails("23505", sqlx::query("INSERT INTO item VALUES ($1, 'again')").bind(1).execute(&mut db)).await;
        fails("42601", sqlx::query("SELEC 1").execute(&mut db)).await;
        fails("22012", sqlx::query("SELECT 1 / $1::int").bind(0).execute(&mut db)).await;
        assert_eq!(name_of(&mut db, 1).await, "one");
    }
}

/// sqlx sends no cancel requests: a statement is ended by the server's timeout, or from another session.
async fn cancel(world: World) {
    let (mut db, mut other) = (open(&world).await, open(&world).await);
    let soon = async {
        let mut pid = None;
        let find = FIND_SLEEPER.replace("count(*)", "pid");
        until("the statement runs", async || {
            pid = sqlx::query_scalar::<_, i32>(&find).fetch_optional(&mut other).await.unwrap();
            pid.is_some()
        })
        .await;
        let cancel = sqlx::query_scalar::<_, bool>("SELECT pg_cancel_backend($1)").bind(pid);
        assert!(cancel.fetch_one(&mut other).await.unwrap());
    };
    futures_util::future::join(fails("57014", db.execute(SLEEP)), soon).await;
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&mut db).await.unwrap(), 1);
}

async fn own_writes(world: World) {
    let mut db = open(&world).await;
    sqlx::raw_sql("DELETE FROM item; INSERT INTO item VALUES (1, '0')").execute(&mut db).await.unwrap();
    for i in 0..100 {
        let update = sqlx::query("UPDATE item SET name = $1 WHERE id = 1").bind(i.to_string());
        update.execute(&mut db).await.unwrap();
        assert_eq!(name_of(&mut db, 1).await, i.to_string());
    }
}

async fn settings(world: World) {
    let options: PgConnectOptions = world.url.parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(3).after_connect(|db, _| {
        Box::pin(
            async move { db.execute("SET TimeZone = 'Asia/Tokyo'; SET app.tenant = 't1'").await.map(drop) },
        )
    });
    let pool = pool.connect_with(options).await.unwrap();
    for _ in 0..20 {
        let sql = "SELECT current_setting('TimeZone') || ' ' || current_setting($1)";
        let both: String = sqlx::query_scalar(sql).bind("app.tenant").fetch_one(&pool).await.unwrap();
        assert_eq!(both, "Asia/Tokyo t1");
    }
    pool.close().await;
}

async fn cursor(world: World) {
    let mut db = open(&world).await;
    let rows = sqlx::query_scalar::<_, i32>("SELECT * FROM generate_series(1, $1)").bind(1000);
    let sum = rows.fetch(&mut db).try_fold(0, async |sum, n| Ok(sum + n)).await.unwrap();
    assert_eq!(sum, 500_500);
    // The rest of an answer that nobody wants any more.
    let first = sqlx::query_scalar::<_, i32>("SELECT * FROM generate_series(1, 1000)").fetch(&mut db);
    futures_util::pin_mut!(first);
    assert_eq!(first.try_next().await.unwrap(), Some(1));
}

async fn read_only(world: World) {
    let mut db = open(&world).await;
    let mut reading = db.begin_with("BEGIN READ ONLY").await.unwrap();
    assert!(count(&mut reading).await >= 0);
    fails("25006", reading.execute("DELETE FROM item")).await;
    reading.rollback().await.unwrap();
}

async fn pool(world: World) {
    let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(60));
    let pool: PgPool = pool.connect(&world.url).await.unwrap();
    let work = |i: i32| {
        let pool = pool.clone();
        async move {
            let mut one = pool.acquire().await.unwrap();
            let add = sqlx::query("INSERT INTO item VALUES ($1, $2)").bind(i).bind(i.to_string());
            add.execute(&mut *one).await.unwrap();
            assert_eq!(name_of(&mut one, i).await, i.to_string());
        }
    };
    futures_util::future::join_all((100..300).map(work)).await;
    pool.close().await;
}

async fn replicas(world: World) {
    let mut db = open(&world).await;
    until("a replica serves", async || {
        let node: String = sqlx::query_scalar("SELECT served_by()").fetch_one(&mut db).await.unwrap();
        node != world.primary
    })
    .await;
}
