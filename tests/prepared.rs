//! Prepared statements behave as on one's own connection, whichever server connection they meet.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use futures_util::future::{join_all, try_join_all};
use pgweir::devcluster::{APP, APP_DATABASE, Options, Stop};
use std::sync::LazyLock;
use tokio_postgres::NoTls;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(1));
    for sql in [
        "CREATE SCHEMA one",
        "CREATE SCHEMA two",
        "CREATE SCHEMA three",
        "CREATE TABLE one.t AS SELECT 'one' AS v",
        "CREATE TABLE two.t AS SELECT 'two' AS v",
        "CREATE TABLE three.t AS SELECT 3 AS v",
        "CREATE TABLE grows (n int)",
        "CREATE TABLE swaps (n int)",
        "CREATE TABLE kept (n int)",
    ] {
        world.cluster.primary().sql_as(APP.name, APP_DATABASE, sql).unwrap();
    }
    world.cluster.wait_caught_up(LONG).unwrap();
    world
});

/// Everything runs on the primary, as directly.
fn on_primary(port: u16) -> Wire {
    Wire::connect(port, &app().with("options", "-c pgweir.route=primary")).unwrap()
}

fn direct() -> Wire {
    Wire::connect(WORLD.direct(), &app()).unwrap()
}

/// Parse and Describe.
fn prepared(name: &str, sql: &str) -> Vec<u8> {
    [parse(name, sql, &[]), describe(b'S', name), sync()].concat()
}

/// Bind, Describe of the portal, Execute.
fn run(name: &str, values: &[&str]) -> Vec<u8> {
    let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_bytes())).collect();
    [bind("", name, &values), describe(b'P', ""), execute("", 0), sync()].concat()
}

/// Two sessions, one without and one with pgweir between; whatever is said to one is said to the other.
struct Twins {
    direct: Wire,
    through: Wire,
}

impl Twins {
    fn new(proxy: &Running) -> Twins {
        Twins { direct: direct(), through: on_primary(proxy.port) }
    }

    /// The answer, which is the same for both.
    fn say(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let answers = [&mut self.direct, &mut self.through].map(|wire| {
            wire.send(bytes);
            wire.until_ready()
        });
        let [direct, through] = answers.map(|mut frames| {
            frames.retain(|frame| frame.tag != b'S');
            // Where in its source a server found an error is its own business.
            for error in frames.iter_mut().filter(|frame| frame.tag == b'E') {
                let fields = b"VCMDHP".map(|code| error.field(code).unwrap_or_default());
                error.body = fields.join("|").into();
            }
            frames
        });
        assert_eq!(through, direct, "{}", bytes.escape_ascii());
        through
    }

    fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.say(&query(sql))
    }
}

/// The first value of the answer.
fn first(frames: &[Frame]) -> String {
    first_values(frames).into_iter().next().unwrap_or_else(|| panic!("{frames:?}"))
}

const CLIENTS: usize = 50;
const STATEMENTS: usize = 500;
const CONNECTIONS: usize = 10;
const LIMIT: usize = 300;

async fn one_of_fifty(port: u16, number: usize) -> Result<(), tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(APP.name).password(APP.password).dbname(APP_DATABASE);
    config.options("-c pgweir.route=primary");
    let (client, connection) = config.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let expected = |n: usize, x: i32| i32::try_from(number * STATEMENTS + n).unwrap() + x;
    let texts: Vec<String> =
        (0..STATEMENTS).map(|n| format!("SELECT {} + $1::int4", number * STATEMENTS + n)).collect();
    let mut statements = Vec::new();
    for texts in texts.chunks(50) {
        statements.extend(try_join_all(texts.iter().map(|text| client.prepare(text))).await?);
    }
    for (round, from) in statements.chunks(20).enumerate() {
        let x = i32::try_from(round).unwrap();
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&x];
        let rows = try_join_all(from.iter().map(|s| client.query_one(s, &parameters))).await?;
        let seen: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        let wanted: Vec<i32> = (0..from.len()).map(|n| expected(round * 20 + n, x)).collect();
        assert_eq!(seen, wanted, "client {number}");
    }
    drop(statements);
    drop(client);
    connection.await.unwrap()
}

#[test]
fn fifty_clients_with_500_named_statements_each_share_ten_connections() {
    let limits = format!("{{ prepared_statements: {LIMIT} }}");
    let pool = format!("{{ size: {CONNECTIONS}, wait_timeout: 1m }}");
    let proxy = WORLD.proxy(&[("pool", &pool), ("limits", &limits)]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let results = runtime.block_on(async {
        let port = proxy.port;
        let clients = (0..CLIENTS).map(|number| tokio::spawn(one_of_fifty(port, number)));
        tokio::time::timeout(std::time::Duration::from_secs(600), join_all(clients))
            .await
            .expect("a client hangs")
    });
    for result in results {
        result.unwrap().unwrap_or_else(|error| panic!("{error:?}"));
    }
    // All connections at once, each asked for what it has.
    let mut holders: Vec<Wire> = (0..CONNECTIONS).map(|_| on_primary(proxy.port)).collect();
    let counts: Vec<usize> = (holders.iter_mut())
        .map(|wire| {
            wire.run("BEGIN");
            wire.value("SELECT count(*) FROM pg_prepared_statements").parse().unwrap()
        })
        .collect();
    println!("statements per server connection: {counts:?}");
    assert!(counts.iter().all(|&count| count <= LIMIT), "{counts:?}");
    let of = |name: &str, label: &str| proxy.metric(name, label) as usize;
    let open = of("pgweir_prepared_statements", "");
    let asked = of("pgweir_prepares_total", "asked");
    let moved = of("pgweir_prepares_total", "moved");
    let hits = of("pgweir_prepared_hits_total", "");
    let evicted = of("pgweir_prepared_evictions_total", "");
    println!("open {open}, asked {asked}, moved {moved}, hits {hits}, evicted {evicted}");
    assert_eq!(open, counts.iter().sum::<usize>());
    assert_eq!(asked, CLIENTS * STATEMENTS, "each is another text");
    assert_eq!(evicted, asked + moved - open);
    assert!(hits > 0);
}

#[test]
fn one_name_means_to_each_client_what_it_has_said() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2 }")]);
    let mut clients: Vec<Wire> = (0..6).map(|_| proxy.client()).collect();
    for (number, wire) in clients.iter_mut().enumerate() {
        wire.exchange(&prepared("s", &format!("SELECT 'client {number} ' || $1")), 1);
    }
    for round in 0..5 {
        for (number, wire) in clients.iter_mut().enumerate() {
            let answer = wire.exchange(&run("s", &[&round.to_string()]), 1).remove(0);
            assert_eq!(first(&answer), format!("client {number} {round}"));
        }
    }
    // Closed and given anew by one of them, it is nobody else's.
    clients[0].exchange(&[close(b'S', "s"), sync(), prepared("s", "SELECT $1 || ' new'")].concat(), 2);
    for (number, wire) in clients.iter_mut().enumerate() {
        let answer = first(&wire.exchange(&run("s", &["x"]), 1)[0]);
        assert_eq!(answer, if number == 0 { "x new".to_owned() } else { format!("client {number} x") });
    }
}

#[test]
fn a_primary_and_a_replica_each_get_what_they_need() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut wire = proxy.client();
    let told = wire.exchange(&prepared("s", "SELECT pg_is_in_recovery(), $1::int"), 1).remove(0);
    assert_eq!(tags(&told), "1tTZ");
    for _ in 0..3 {
        // A transaction block is the primary's; Describe and Bind find the statement on either.
        wire.run("BEGIN");
        let answer = wire.exchange(&run("s", &["1"]), 1).remove(0);
        assert_eq!((first(&answer), tags(&answer)), ("f".to_owned(), "2TDCZ".to_owned()));
        wire.run("COMMIT");
        let again = wire.exchange(&[describe(b'S', "s"), sync()].concat(), 1).remove(0);
        assert_eq!(again[..], told[1..], "described wherever it lives");
        let elsewhere = [parse("", "SELECT v FROM one.t", &[]), run("", &[])].concat();
        assert_eq!(first(&wire.exchange(&elsewhere, 1)[0]), "one");
    }
}

#[test]
fn settings_that_decide_what_a_text_means_part_statements() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let texts = ["SELECT v FROM t", "SELECT '01/02/2020'::date - '2020-01-01'::date", "SELECT 'a\\\\b'"];
    for settings in [
        "SET search_path = one",
        "SET search_path = two; SET DateStyle = 'SQL, DMY'",
        "SET search_path = three; SET standard_conforming_strings = off",
    ] {
        let mut twins = Twins::new(&proxy);
        twins.query(settings);
        for (number, text) in texts.iter().enumerate() {
            twins.say(&prepared(&format!("s{number}"), text));
            twins.say(&run(&format!("s{number}"), &[]));
        }
        // Changed behind Parse: what was read stays read, names are looked up anew.
        twins.query("SET search_path = two; SET DateStyle = 'SQL, DMY'");
        for number in 0..texts.len() {
            twins.say(&run(&format!("s{number}"), &[]));
        }
    }
}

#[test]
fn settings_of_one_transaction_spoil_no_shared_statement() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut other = on_primary(proxy.port);
    other.run("SET search_path = one");
    let mut twins = Twins::new(&proxy);
    twins.query("SET search_path = one");
    twins.say(&prepared("outside", "SELECT v FROM t"));
    twins.query("BEGIN; SET LOCAL search_path = two");
    twins.say(&prepared("inside", "SELECT v FROM t"));
    assert_eq!(first(&twins.say(&run("inside", &[]))), "two");
    assert_eq!(first(&twins.say(&run("outside", &[]))), "two");
    twins.query("COMMIT");
    other.exchange(&prepared("s", "SELECT v FROM t"), 1);
    assert_eq!(first(&other.exchange(&run("s", &[]), 1)[0]), "one");
    assert_eq!(first(&twins.say(&run("inside", &[]))), "one");
    // In one pipeline: the SET is not answered yet when the Parse comes.
    let pipeline =
        [unnamed("SET search_path = two", &[]), sync(), prepared("piped", "SELECT v FROM t")].concat();
    for wire in [&mut twins.direct, &mut twins.through] {
        wire.exchange(&pipeline, 2);
    }
    assert_eq!(first(&twins.say(&run("piped", &[]))), "two");
    other.exchange(&[close(b'S', "s"), sync()].concat(), 1);
    other.exchange(&prepared("s", "SELECT v FROM t"), 1);
    assert_eq!(first(&other.exchange(&run("s", &[]), 1)[0]), "one");
}

#[test]
fn settings_that_decide_nothing_share_one_statement() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    for tenant in 0..5 {
        let mut wire = on_primary(proxy.port);
        wire.run(&format!("SET app.tenant = '{tenant}'; SET statement_timeout = {}", 60_000 + tenant));
        wire.exchange(&prepared("s", "SELECT current_setting('app.tenant'), 'shared'"), 1);
        assert_eq!(first(&wire.exchange(&run("s", &[]), 1)[0]), tenant.to_string());
    }
    let mine = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%''shared''%'";
    assert_eq!(on_primary(proxy.port).value(mine), "1");
}

#[test]
fn a_literal_that_means_now_means_the_moment_of_its_own_parse() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut wire = on_primary(proxy.port);
        wire.exchange(&prepared("s", "SELECT 'now'::timestamptz(6)::text"), 1);
        let answers = wire.exchange(&[run("s", &[]), run("s", &[])].concat(), 2);
        assert_eq!(first(&answers[0]), first(&answers[1]));
        seen.push(first(&answers[0]));
    }
    assert!(seen[0] < seen[1] && seen[1] < seen[2], "{seen:?}");
}

#[test]
fn after_ddl_a_new_parse_meets_the_new_schema() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let text = "SELECT * FROM grows";
    let mut before = on_primary(proxy.port);
    before.exchange(&prepared("s", text), 1);
    assert_eq!(tags(&before.exchange(&run("s", &[]), 1)[0]), "2TCZ");
    on_primary(proxy.port).run("ALTER TABLE grows ADD COLUMN more int");
    let mut after = on_primary(proxy.port);
    assert_eq!(tags(&after.exchange(&prepared("s", text), 1)[0]), "1tTZ");
    let answer = after.exchange(&run("s", &[]), 1).remove(0);
    assert_eq!(tags(&answer), "2TCZ");
    assert_eq!(answer[1].body[..2], [0, 2], "two columns");
    // Who prepared it before knows of one column, and is told, as directly.
    let error = error_of(&before.exchange(&run("s", &[]), 1)[0]).unwrap();
    assert_eq!(
        (error.sqlstate(), error.message()),
        ("0A000".to_owned(), "cached plan must not change result type".to_owned())
    );
}

#[test]
fn within_one_transaction_ddl_and_what_is_prepared_behind_it() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let text = "SELECT * FROM swaps";
    let mut wire = on_primary(proxy.port);
    wire.exchange(&prepared("s", text), 1);
    wire.exchange(&run("s", &[]), 1);
    for round in 1..3 {
        wire.run("BEGIN");
        wire.run("ALTER TABLE swaps ADD COLUMN more int");
        let name = format!("inside {round}");
        let answer = wire.exchange(&[parse(&name, text, &[]), run(&name, &[])].concat(), 1).remove(0);
        assert_eq!((tags(&answer), &answer[2].body[..2]), ("12TCZ".to_owned(), &[0, 2][..]));
        wire.run("ROLLBACK");
    }
    // In one pipeline as well.
    let pipeline =
        [unnamed("ALTER TABLE swaps ADD COLUMN more int", &[]), parse("piped", text, &[]), run("piped", &[])];
    let answer = wire.exchange(&pipeline.concat(), 1).remove(0);
    assert_eq!((tags(&answer), &answer[5].body[..2]), ("12C12TCZ".to_owned(), &[0, 2][..]));
}

/// A second server connection, which `wire` gets while the guard holds the first.
fn beside(port: u16) -> Wire {
    let mut guard = on_primary(port);
    guard.run("BEGIN");
    guard
}

const STALE: (&str, &str) = ("0A000", "cached plan must not change result type");

fn told(frames: &[Frame]) -> (String, String) {
    error_of(frames).map(|error| (error.sqlstate(), error.message())).unwrap_or_default()
}

#[test]
fn ddl_is_no_surprise_on_a_connection_that_prepares_late() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2 }")]);
    let mut ddl = on_primary(proxy.port);
    ddl.run("CREATE TABLE late (n int); INSERT INTO late VALUES (1)");
    let mut told_of = on_primary(proxy.port);
    let mut not_told = on_primary(proxy.port);
    let mut of_portal = on_primary(proxy.port);
    told_of.exchange(&prepared("s", "SELECT * FROM late WHERE n = $1"), 1);
    told_of.exchange(&prepared("same", "SELECT n FROM late WHERE n = $1"), 1);
    not_told.exchange(&[parse("s", "SELECT * FROM late WHERE n = $1", &[]), sync()].concat(), 1);
    of_portal.exchange(&[parse("s", "SELECT * FROM late WHERE n = $1", &[]), sync()].concat(), 1);
    of_portal.exchange(&run("s", &["1"]), 1);
    ddl.run("ALTER TABLE late ADD COLUMN more int");
    ddl.run("ALTER TABLE late ADD COLUMN most int");
    // The first connection is taken; the second one has met none of the statements.
    let mut guard = beside(proxy.port);
    for _ in 0..2 {
        for wire in [&mut told_of, &mut of_portal] {
            let answer = wire.exchange(&run("s", &["1"]), 1).remove(0);
            assert_eq!((told(&answer).0, told(&answer).1), (STALE.0.to_owned(), STALE.1.to_owned()));
            assert_eq!(error_of(&answer).unwrap().field(b'R').unwrap(), "RevalidateCachedQuery");
            let described = wire.exchange(&[describe(b'S', "s"), sync()].concat(), 1).remove(0);
            assert_eq!(told(&described).0, STALE.0);
        }
        // Who knows nothing of columns is told nothing wrong.
        assert_eq!(tags(&not_told.exchange(&run("s", &["1"]), 1)[0]), "2TDCZ");
        assert_eq!(tags(&told_of.exchange(&run("same", &["1"]), 1)[0]), "2TDCZ");
    }
    // In a block, it fails.
    told_of.run("BEGIN");
    assert_eq!(told(&told_of.exchange(&run("s", &["1"]), 1)[0]).0, STALE.0);
    assert_eq!(told_of.fail("SELECT 1").sqlstate(), "25P02");
    told_of.run("ROLLBACK");
    // Prepared anew, it works.
    told_of
        .exchange(&[close(b'S', "s"), sync(), prepared("s", "SELECT * FROM late WHERE n = $1")].concat(), 2);
    assert_eq!(tags(&told_of.exchange(&run("s", &["1"]), 1)[0]), "2TDCZ");
    guard.run("ROLLBACK");
}

#[test]
fn parameters_keep_the_types_that_the_client_was_told() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2 }")]);
    let mut ddl = on_primary(proxy.port);
    ddl.run("CREATE TABLE widened (n int, name text); INSERT INTO widened VALUES (7, 'seven')");
    let mut wire = on_primary(proxy.port);
    wire.exchange(&prepared("s", "SELECT name FROM widened WHERE n = $1"), 1);
    ddl.run("ALTER TABLE widened ALTER COLUMN n TYPE bigint");
    let mut guard = beside(proxy.port);
    // Four binary bytes, as an int4 has.
    let mut body = [cstr(""), cstr("s")].concat();
    body.extend([0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0]);
    let bytes = [tagged(b'B', &body), execute("", 0), sync()].concat();
    assert_eq!(first(&wire.exchange(&bytes, 1)[0]), "seven");
    guard.run("ROLLBACK");
}

#[test]
fn ddl_past_pgweir_is_met_with_another_attempt() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let past = |sql: &str| drop(WORLD.cluster.primary().sql_as(APP.name, APP_DATABASE, sql).unwrap());
    past("CREATE TABLE past (n int); INSERT INTO past VALUES (1)");
    let text = "SELECT * FROM past";
    let write = "INSERT INTO past (n) VALUES (5) RETURNING *";
    let mut before = on_primary(proxy.port);
    before.exchange(&[prepared("s", text), prepared("w", write), run("s", &[])].concat(), 3);
    past("ALTER TABLE past ADD COLUMN more int");
    // Parsed, described and executed now: the connection's copy is older.
    let mut fresh = on_primary(proxy.port);
    let answer = fresh.exchange(&prepared("s", text), 1).remove(0);
    assert_eq!((tags(&answer), &answer[2].body[..2]), ("1tTZ".to_owned(), &[0, 2][..]));
    assert_eq!(tags(&fresh.exchange(&run("s", &[]), 1)[0]), "2TDCZ");
    assert_eq!(proxy.metric("pgweir_replays_total", "stale_statement"), 1.0);
    // Who was told of one column is told of the error, however often it asks.
    for _ in 0..2 {
        assert_eq!(told(&before.exchange(&run("s", &[]), 1)[0]).0, STALE.0);
        assert_eq!(told(&before.exchange(&run("w", &[]), 1)[0]).0, STALE.0);
    }
    // A write, without Describe of the statement: once, and once only.
    past("ALTER TABLE past ADD COLUMN most int");
    let mut stale = on_primary(proxy.port);
    stale.exchange(&[parse("s", write, &[]), sync(), run("s", &[])].concat(), 2);
    past("ALTER TABLE past ADD COLUMN last int");
    let mut fresh = on_primary(proxy.port);
    fresh.exchange(&[parse("s", write, &[]), sync()].concat(), 1);
    let answer = fresh.exchange(&run("s", &[]), 1).remove(0);
    assert_eq!((tags(&answer), &answer[1].body[..2]), ("2TDCZ".to_owned(), &[0, 4][..]));
    assert_eq!(fresh.value("SELECT count(*) FROM past WHERE n = 5"), "2");
    // In a block there is no other attempt, but the next one works.
    let mut warm = on_primary(proxy.port);
    warm.exchange(&[parse("s", write, &[]), sync(), run("s", &[])].concat(), 2);
    past("ALTER TABLE past DROP COLUMN more");
    let mut block = on_primary(proxy.port);
    block.exchange(&[parse("s", write, &[]), sync()].concat(), 1);
    block.run("BEGIN");
    assert_eq!(told(&block.exchange(&run("s", &[]), 1)[0]).0, STALE.0);
    block.run("ROLLBACK");
    assert_eq!(tags(&block.exchange(&run("s", &[]), 1)[0]), "2TDCZ");
}

/// Closes the one server connection of a pool, as an idle timeout would: the next statement meets a
/// new one.
fn cut(through: &mut Wire) {
    let node = WORLD.cluster.primary();
    let pid = through.value("SELECT pg_backend_pid()");
    node.sql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let gone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("the connection is gone", || node.sql_value(&gone).unwrap().as_deref() == Some("t"));
}

#[test]
fn sql_prepare_is_as_directly_on_whatever_connection() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut twins = Twins::new(&proxy);
    let mut other = on_primary(proxy.port);
    other.run("PREPARE q AS SELECT 'of the other'");
    let statements = [
        "PREPARE q AS SELECT 1 AS one",
        "EXECUTE q",
        "PREPARE q AS SELECT 2",
        "execute Q;",
        "EXECUTE \"Q\"",
        "PREPARE \"Odd \"\"name\" (int, numeric(5,2)) AS SELECT $1 + 1 AS n, $2 AS x",
        "/* é */ EXECUTE \"Odd \"\"name\"(1, 2.5)",
        "EXECUTE \"Odd \"\"name\"(1)",
        "/* é */ EXECUTE \"Odd \"\"name\"(1, nope)",
        "PREPARE bad (int) AS SELECT nope FROM kept",
        "EXECUTE bad(1)",
        "PREPARE bad AS SELEC",
        "PREPARE bad (no_such_type) AS SELECT 1",
        "PREPARE ins (int) AS INSERT INTO kept VALUES ($1) RETURNING n",
        "EXECUTE ins(4)",
        "EXPLAIN (COSTS OFF) EXECUTE ins(5)",
        "BEGIN",
        "PREPARE inside AS SELECT 'inside'",
        "EXECUTE inside",
        "PREPARE inside AS SELECT 2",
        "EXECUTE inside",
        "PREPARE failed AS SELECT 1",
        "ROLLBACK",
        "EXECUTE inside",
        "EXECUTE failed",
        "DEALLOCATE inside",
        "EXECUTE inside",
        "DEALLOCATE inside",
        "DEALLOCATE PREPARE q",
        "PREPARE q AS SELECT 'anew'",
        "EXECUTE q",
        "DEALLOCATE ALL",
        "EXECUTE q",
        "PREPARE q(text) AS SELECT $1 || ' again'",
        "EXECUTE q('once')",
    ];
    for sql in statements {
        let idle = twins.query(sql).last().unwrap().text() == "I";
        if idle {
            assert_eq!(other.value("EXECUTE q"), "of the other", "behind {sql}");
            cut(&mut other);
        }
    }
    // One namespace for SQL and the protocol.
    twins.say(&prepared("q", "SELECT 1"));
    twins.say(&run("q", &["bound"]));
    twins.say(&prepared("p", "SELECT $1::int + 1"));
    cut(&mut other);
    twins.query("EXECUTE p(41)");
    twins.query("DEALLOCATE p");
    twins.say(&run("p", &["1"]));
    cut(&mut other);
    twins.say(&run("q", &["bound elsewhere"]));
    assert_eq!(proxy.metric("pgweir_pins_total", "sql_prepare"), 0.0);
    assert_eq!(other.value("EXECUTE q"), "of the other");
}

#[test]
fn execute_of_a_read_may_go_to_a_replica() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut wire = proxy.client();
    wire.run("PREPARE r (int) AS SELECT v FROM one.t WHERE $1 = 1");
    wire.run("PREPARE w AS INSERT INTO kept VALUES (1)");
    let on_replicas = || proxy.metric("pgweir_statements_total", "role=\"replica\"");
    wait_until("a replica answers EXECUTE", || {
        let before = on_replicas();
        assert_eq!(wire.value("EXECUTE r(1)"), "one");
        on_replicas() > before
    });
    let before = on_replicas();
    wire.run("BEGIN");
    assert_eq!(wire.value("EXECUTE r(1)"), "one");
    wire.run("COMMIT");
    assert_eq!(on_replicas(), before, "a block is the primary's");
    for _ in 0..3 {
        wire.run("EXECUTE w");
        // What an argument does decides too.
        wire.run("PREPARE a (bigint) AS SELECT $1");
        wire.run("EXECUTE a(txid_current())");
        wire.run("DEALLOCATE a");
    }
    assert_eq!(proxy.metric("pgweir_pins_total", ""), 0.0);
    assert_eq!(proxy.metric("pgweir_replays_total", ""), 0.0);
}

#[test]
fn deallocate_all_takes_nothing_from_others() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut ann = on_primary(proxy.port);
    let mut bob = on_primary(proxy.port);
    for wire in [&mut ann, &mut bob] {
        wire.exchange(&prepared("s", "SELECT 'kept by the other'"), 1);
    }
    ann.run("DEALLOCATE ALL");
    assert_eq!(told(&ann.exchange(&run("s", &[]), 1)[0]).0, "26000");
    let before = proxy.metric("pgweir_prepares_total", "");
    assert_eq!(first(&bob.exchange(&run("s", &[]), 1)[0]), "kept by the other");
    assert_eq!(proxy.metric("pgweir_prepares_total", ""), before);
    // Nobody reaches a statement by the server's name for it.
    let names = "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%kept by the other%' LIMIT 1";
    let name = bob.value(names);
    for sql in [format!("EXECUTE \"{name}\""), format!("DEALLOCATE \"{name}\"")] {
        assert_eq!(ann.fail(&sql).sqlstate(), "26000", "{}", sql.escape_debug());
    }
    assert_eq!(first(&bob.exchange(&run("s", &[]), 1)[0]), "kept by the other");
}

#[test]
fn statements_outlive_a_failover() {
    let world = World::start(Options::with_replicas(1));
    world.cluster.primary().sql_as(APP.name, APP_DATABASE, "CREATE TABLE f (n int)").unwrap();
    world.cluster.wait_caught_up(LONG).unwrap();
    let proxy = world.proxy(&[("limits", "{ hold_time: 1m }")]);
    let mut wire = proxy.client();
    wire.exchange(&prepared("w", "INSERT INTO f VALUES ($1) RETURNING n"), 1);
    wire.exchange(&prepared("r", "SELECT count(*) FROM f"), 1);
    wire.run("PREPARE sql_w (int) AS INSERT INTO f VALUES ($1) RETURNING n");
    assert_eq!(first(&wire.exchange(&run("w", &["1"]), 1)[0]), "1");
    world.cluster.wait_caught_up(LONG).unwrap();
    world.cluster.primary().stop(Stop::Immediate).unwrap();
    world.cluster.replica(0).promote().unwrap();
    assert_eq!(first(&wire.exchange(&run("w", &["2"]), 1)[0]), "2");
    assert_eq!(wire.value("EXECUTE sql_w(3)"), "3");
    assert_eq!(first(&wire.exchange(&run("r", &[]), 1)[0]), "3");
}

#[test]
fn a_name_that_is_not_translated_becomes_the_connections_own() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2 }")]);
    let mut twins = Twins::new(&proxy);
    twins.query("PREPARE q (int) AS SELECT $1 + 1");
    twins.query("PREPARE \"o\"\"dd\" AS SELECT 'odd'");
    twins.say(&prepared("p", "SELECT 'of the protocol'"));
    twins.query("EXECUTE q(1)");
    assert_eq!(proxy.metric("pgweir_pins_total", "sql_prepare"), 0.0);
    twins.say(&[unnamed("EXECUTE q(2)", &[]), sync()].concat());
    twins.say(&prepared("inner", "EXECUTE q(3)"));
    twins.say(&run("inner", &[]));
    twins.query("EXECUTE q(4); EXECUTE \"o\"\"dd\"; EXECUTE p");
    assert_eq!(proxy.metric("pgweir_pins_total", "sql_prepare"), 1.0);
    twins.say(&run("q", &["5"]));
    twins.query("DEALLOCATE q; EXECUTE q(6)");
    twins.query("EXECUTE q(7)");
    twins.query("DEALLOCATE p");
    twins.say(&run("p", &[]));
    twins.query("DEALLOCATE ALL");
    twins.query("EXECUTE \"o\"\"dd\"");
}
