//! Through pgweir, a client gets PostgreSQL's answers: the same messages in the same order.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/alike.rs"]
mod alike;
#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use alike::{assert_alike, comparable};
use pgweir::devcluster::Options;
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(1));
    let tables = "CREATE TABLE numbers (n int PRIMARY KEY, word text); \
         INSERT INTO numbers SELECT n, 'word ' || n FROM generate_series(1, 1000) n; \
         CREATE TABLE copied (n int, word text); \
         CREATE TABLE bulk (n int, word text); \
         CREATE TABLE piped (n int); \
         CREATE TABLE aborted (n int); \
         CREATE TABLE clients (n int); \
         CREATE TABLE goodbye (n int)";
    world.cluster.primary().sql_as("app", "app", tables).unwrap();
    world.cluster.wait_caught_up(LONG).unwrap();
    world
});

static PROXY: LazyLock<Running> = LazyLock::new(|| WORLD.proxy(&[]));

type Script = (&'static str, Vec<Vec<u8>>);

fn scripts() -> Vec<Script> {
    let one = |text: &str| unnamed(text, &[]);
    vec![
        (
            "simple queries, their errors, empty ones, several in one string",
            vec![
                query("SELECT 1 AS one, NULL AS nothing, 'x' AS word"),
                query(""),
                query(" ; "),
                query("SELECT 1; SELECT 2, 3; SELECT n FROM numbers WHERE n < 3 ORDER BY n"),
                query("SELEKT"),
                query("SELECT 1; SELECT 1/0; SELECT 2"),
                query("SELECT * FROM nowhere"),
            ],
        ),
        (
            "transactions, and what fails in them",
            vec![
                query("BEGIN"),
                query("SELECT 1"),
                query("SELECT 1/0"),
                query("SELECT 1"),
                query("COMMIT"),
                query("BEGIN; SAVEPOINT a; SELECT 1/0"),
                query("ROLLBACK TO a"),
                query("COMMIT"),
                query("COMMIT"),
            ],
        ),
        (
            "one extended group of everything",
            vec![
                parse("", "SELECT n, word FROM numbers WHERE n <= $1 ORDER BY n", &[23]),
                describe(b'S', ""),
                bind("", "", &[Some(b"3")]),
                describe(b'P', ""),
                execute("", 0),
                close(b'P', ""),
                sync(),
            ],
        ),
        (
            "an error skips the rest of its group and nothing else",
            vec![
                one("SELECT 1"),
                one("SELECT 1/0"),
                one("SELECT 2"),
                sync(),
                one("SELECT 3"),
                sync(),
                parse("bad", "SELEKT", &[]),
                bind("", "bad", &[]),
                sync(),
                sync(),
                one("SELECT 4"),
                sync(),
            ],
        ),
        (
            "portals with row limits",
            vec![
                query("BEGIN"),
                parse("", "SELECT n FROM numbers ORDER BY n LIMIT 5", &[]),
                bind("p", "", &[]),
                execute("p", 2),
                sync(),
                execute("p", 2),
                execute("p", 2),
                sync(),
                execute("p", 2),
                close(b'P', "p"),
                execute("p", 0),
                sync(),
                query("ROLLBACK"),
            ],
        ),
        (
            "a portal is gone with its transaction",
            vec![parse("", "SELECT 1", &[]), bind("q", "", &[]), sync(), execute("q", 0), sync()],
        ),
        (
            "Flush inside a group",
            vec![
                parse("", "SELECT $1::int + 1", &[]),
                describe(b'S', ""),
                flush(),
                bind("", "", &[Some(b"41")]),
                execute("", 0),
                flush(),
                flush(),
                sync(),
                flush(),
                sync(),
            ],
        ),
        (
            "named statements: duplicates, descriptions, closing, and the unknown",
            vec![
                parse("s1", "SELECT $1::text || '!'", &[]),
                sync(),
                parse("s1", "SELECT 2", &[]),
                sync(),
                bind("", "s1", &[Some(b"hello")]),
                execute("", 0),
                describe(b'S', "s1"),
                sync(),
                close(b'S', "s1"),
                sync(),
                bind("", "s1", &[Some(b"hello")]),
                execute("", 0),
                sync(),
                describe(b'S', "nobody"),
                sync(),
                describe(b'P', "nobody"),
                sync(),
                execute("nobody", 0),
                sync(),
                close(b'S', "nobody"),
                close(b'P', "nobody"),
                sync(),
                parse("s1", "SELECT 3", &[]),
                bind("", "s1", &[]),
                execute("", 0),
                close(b'S', "s1"),
                sync(),
            ],
        ),
        (
            "a statement that is parsed in a failed group is nobody's",
            vec![
                parse("f1", "SELECT 1", &[]),
                one("SELECT 1/0"),
                parse("f2", "SELECT 2", &[]),
                sync(),
                bind("", "f2", &[]),
                execute("", 0),
                sync(),
                bind("", "f1", &[]),
                execute("", 0),
                close(b'S', "f1"),
                sync(),
            ],
        ),
        (
            "what an error skips leaves the unnamed statement as it was",
            vec![
                parse("", "SELECT 'first'", &[]),
                sync(),
                execute("nobody", 0),
                parse("", "SELEKT", &[]),
                sync(),
                bind("", "", &[]),
                execute("", 0),
                sync(),
                execute("nobody", 0),
                query("SELECT 2"),
                close(b'S', ""),
                sync(),
                bind("", "", &[]),
                execute("", 0),
                sync(),
                parse("", "SELEKT", &[]),
                sync(),
                bind("", "", &[]),
                sync(),
            ],
        ),
        (
            "a name that is given in a failed transaction is not given",
            vec![
                parse("t1", "SELECT 'shared'", &[]),
                sync(),
                query("BEGIN"),
                query("SELECT 1/0"),
                parse("t2", "SELECT 'shared'", &[]),
                sync(),
                parse("t1", "SELECT 'other'", &[]),
                sync(),
                query("ROLLBACK"),
                bind("", "t2", &[]),
                sync(),
                parse("t2", "SELECT 'now it is'", &[]),
                bind("", "t2", &[]),
                execute("", 0),
                sync(),
            ],
        ),
        (
            "the unnamed statement lives until a simple query",
            vec![
                parse("", "SELECT $1::int * 2", &[]),
                sync(),
                bind("", "", &[Some(b"4")]),
                execute("", 0),
                sync(),
                bind("", "", &[Some(b"5")]),
                execute("", 0),
                sync(),
                query("SELECT 1"),
                bind("", "", &[Some(b"6")]),
                execute("", 0),
                sync(),
                describe(b'S', ""),
                sync(),
            ],
        ),
        (
            "wrong numbers of parameters and unknown types",
            vec![
                parse("", "SELECT $1::int", &[]),
                bind("", "", &[]),
                sync(),
                parse("", "SELECT $1::int", &[99_999_999]),
                sync(),
                parse("", "SELECT $1::int", &[]),
                bind("", "", &[Some(b"word")]),
                execute("", 0),
                sync(),
                parse("", "SELECT 1; SELECT 2", &[]),
                sync(),
                parse("", "", &[]),
                bind("", "", &[]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ],
        ),
        (
            "a simple query behind an unfinished extended group",
            vec![one("SELECT 1"), query("SELECT 2"), one("SELECT 3"), sync()],
        ),
        (
            "a simple query behind a failed extended group is skipped with it",
            vec![
                one("SELECT 1/0"),
                query("SELECT 2"),
                one("SELECT 3"),
                sync(),
                one("SELECT 4"),
                sync(),
                query("SELECT 5"),
            ],
        ),
        (
            "COPY out, simple and extended",
            vec![
                query("COPY (SELECT n, word FROM numbers WHERE n < 4 ORDER BY n) TO STDOUT"),
                parse("", "COPY (SELECT n FROM numbers WHERE n < 3 ORDER BY n) TO STDOUT (FORMAT csv)", &[]),
                bind("", "", &[]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
                query("COPY (SELECT 1/(3-n) FROM numbers WHERE n < 5 ORDER BY n) TO STDOUT"),
            ],
        ),
        (
            "COPY in, simple: done, failed by the client, failed by the data",
            vec![
                query("BEGIN; TRUNCATE copied"),
                query("SAVEPOINT a"),
                query("COPY copied FROM STDIN"),
                copy_data(b"1\tone\n2\t"),
                copy_data(b"two\n"),
                copy_done(),
                query("SELECT count(*) FROM copied"),
                query("COPY copied FROM STDIN"),
                copy_data(b"3\tthree\n"),
                copy_fail("enough"),
                query("ROLLBACK TO a"),
                query("COPY copied FROM STDIN"),
                copy_data(b"x\ty\n"),
                copy_data(b"4\tfour\n"),
                copy_done(),
                query("ROLLBACK TO a"),
                query("COPY copied FROM STDIN; SELECT count(*) FROM copied"),
                copy_data(b"5\tfive\n"),
                copy_done(),
                query("ROLLBACK"),
            ],
        ),
        (
            "COPY in, extended, with a Sync that is ignored",
            vec![
                query("BEGIN"),
                parse("", "COPY copied FROM STDIN", &[]),
                bind("", "", &[]),
                execute("", 0),
                flush(),
                copy_data(b"1\tone\n"),
                sync(),
                copy_data(b"2\ttwo\n"),
                copy_done(),
                sync(),
                query("SELECT count(*) FROM copied"),
                query("ROLLBACK"),
            ],
        ),
        (
            "COPY messages where there is no COPY",
            vec![copy_data(b"lost"), copy_done(), query("SELECT 1"), copy_fail("what?"), query("SELECT 2")],
        ),
        (
            "function calls",
            vec![
                function_call(177, &[b"20", b"22"]),
                function_call(177, &[b"20", b"x"]),
                function_call(4_000_000_000, &[]),
                query("SELECT 1"),
            ],
        ),
        (
            "notices and warnings",
            vec![
                query("DO $$ BEGIN RAISE NOTICE 'look: %', 1; RAISE WARNING 'careful'; END $$"),
                query("ROLLBACK"),
                one("DO $$ BEGIN RAISE NOTICE 'again'; END $$"),
                sync(),
            ],
        ),
        (
            "parameters that the client is told of",
            vec![
                query("SET DateStyle = 'German'"),
                query("SELECT date '2026-11-21'"),
                query("SET TimeZone = 'Asia/Tokyo'; SET application_name = 'a b'"),
                query("SHOW TimeZone"),
                query("SELECT set_config('intervalstyle', 'iso_8601', false)"),
                query("BEGIN; SET DateStyle = 'SQL'"),
                query("ROLLBACK"),
                query("SHOW DateStyle"),
                query("BEGIN; SET LOCAL TimeZone = 'UTC'"),
                query("COMMIT"),
                query("RESET DateStyle"),
                query("RESET ALL"),
            ],
        ),
        (
            "SQL PREPARE, EXECUTE, DEALLOCATE, DISCARD",
            vec![
                query("PREPARE q (int) AS SELECT $1 + 1"),
                query("EXECUTE q (1)"),
                query("PREPARE q AS SELECT 1"),
                query("DEALLOCATE q"),
                query("EXECUTE q (1)"),
                parse("d1", "SELECT 7", &[]),
                sync(),
                query("DEALLOCATE ALL"),
                bind("", "d1", &[]),
                execute("", 0),
                sync(),
                parse("d1", "SELECT 8", &[]),
                bind("", "d1", &[]),
                execute("", 0),
                sync(),
                query("DISCARD ALL"),
                bind("", "d1", &[]),
                execute("", 0),
                sync(),
                parse("d2", "SELECT 9", &[]),
                sync(),
                query("DEALLOCATE d2"),
                bind("", "d2", &[]),
                execute("", 0),
                sync(),
                parse("d2", "SELECT 10", &[]),
                bind("", "d2", &[]),
                execute("", 0),
                sync(),
                query("DEALLOCATE PREPARE d2"),
                query("DEALLOCATE d2"),
            ],
        ),
        (
            "transactions of the extended protocol",
            vec![
                one("BEGIN"),
                one("SELECT 1"),
                sync(),
                one("SELECT 1/0"),
                sync(),
                one("SELECT 1"),
                sync(),
                one("ROLLBACK"),
                sync(),
                one("BEGIN"),
                one("SELECT 2"),
                one("COMMIT"),
                one("SELECT 3"),
                sync(),
            ],
        ),
    ]
}

fn answers(port: u16, script: &[Vec<u8>], how: impl Fn(&mut Wire, &[Vec<u8>])) -> Vec<String> {
    let mut wire = Wire::connect(port, &app().with("application_name", "test")).unwrap();
    how(&mut wire, script);
    comparable(&wire.until_closed())
}

fn at_once(wire: &mut Wire, script: &[Vec<u8>]) {
    wire.send(&[&script.concat()[..], &terminate()].concat());
}

fn one_by_one(wire: &mut Wire, script: &[Vec<u8>]) {
    script.iter().for_each(|message| wire.send(message));
    wire.send(&terminate());
}

#[test]
fn every_script_has_the_answers_of_postgresql() {
    let mut wrong = Vec::new();
    for (name, script) in scripts() {
        let expected = answers(WORLD.direct(), &script, at_once);
        for how in [at_once, one_by_one] {
            let result = std::panic::catch_unwind(|| {
                assert_alike(name, &expected, &answers(PROXY.port, &script, how));
            });
            if result.is_err() {
                wrong.push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Scripts that may be run again and again on one connection.
fn repeatable() -> Vec<Script> {
    let one = |text: &str| unnamed(text, &[]);
    vec![
        (
            "reads around a write",
            vec![
                query("SELECT 1"),
                query("BEGIN"),
                query("TRUNCATE copied"),
                query("ROLLBACK"),
                query("SELECT 2; SELECT 3"),
            ],
        ),
        (
            "an error in an extended group",
            vec![
                parse("r", "SELECT $1::int", &[]),
                bind("", "r", &[Some(b"7")]),
                execute("", 0),
                one("SELECT 1/0"),
                sync(),
                one("SELECT 'next'"),
                sync(),
                close(b'S', "r"),
                sync(),
            ],
        ),
        (
            "a copy",
            vec![
                query("BEGIN"),
                query("COPY copied FROM STDIN"),
                copy_data(b"1\tone\n"),
                copy_done(),
                query("ROLLBACK"),
            ],
        ),
    ]
}

fn ends_of_groups(frames: &[String]) -> usize {
    frames.iter().filter(|frame| frame.starts_with('Z')).count()
}

#[test]
fn where_a_clients_bytes_are_cut_makes_no_difference() {
    for (name, script) in repeatable() {
        let bytes = script.concat();
        let expected = answers(WORLD.direct(), &script, at_once);
        let groups = ends_of_groups(&expected);
        let mut wire = PROXY.client();
        for cut in 0..=bytes.len() {
            wire.send(&bytes[..cut]);
            // Not a wait for anything: it makes it likely that the two parts are read apart.
            thread::sleep(Duration::from_micros(300));
            wire.send(&bytes[cut..]);
            let found: Vec<Frame> = (0..groups).flat_map(|_| wire.until_ready()).collect();
            assert_alike(&format!("{name}, cut at {cut}"), &expected, &comparable(&found));
        }
        wire.terminate();
    }
}

#[test]
fn a_burst_of_reads_and_writes_is_answered_in_order_and_each_read_sees_the_writes_before_it() {
    let mut wire = PROXY.client();
    let mut burst = Vec::new();
    for n in 0..50 {
        burst.extend(query("SELECT count(*) FROM piped"));
        burst.extend(unnamed("SELECT count(*) FROM piped", &[]));
        burst.extend(sync());
        burst.extend(query(&format!("INSERT INTO piped VALUES ({n})")));
    }
    burst.extend(query("SELECT count(*) FROM piped"));
    let answers = wire.exchange(&burst, 151);
    for (n, group) in answers.iter().enumerate() {
        let count = (n / 3).to_string();
        match n % 3 {
            2 => assert_eq!(group[0].text(), "INSERT 0 1"),
            _ => assert_eq!(first_values(group), [count], "group {n}"),
        }
    }
    let served = PROXY.status()["statements"].to_string();
    assert!(served.contains("pipelined"), "{served}");
}

#[test]
fn a_thousand_groups_may_be_in_flight() {
    let mut wire = PROXY.client();
    let burst: Vec<u8> = (0..3000).flat_map(|n| query(&format!("SELECT {n}"))).collect();
    let answers = wire.exchange(&burst, 3000);
    for (n, group) in answers.iter().enumerate() {
        assert_eq!(first_values(group), [n.to_string()]);
    }
}

#[test]
fn named_statements_work_on_whatever_connection_they_meet() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 4 }")]);
    let workers: Vec<_> = (0..12)
        .map(|worker: i32| {
            let mut wire = proxy.client();
            thread::spawn(move || {
                // One name, another text in every client; and texts that all of them share.
                let text = format!("SELECT $1::int + {worker}");
                wire.exchange(&[parse("same", &text, &[]), sync()].concat(), 1);
                wire.exchange(&[parse("shared", "SELECT $1::int * 2", &[]), sync()].concat(), 1);
                for n in 0..60_i32 {
                    let value = n.to_string();
                    let name = if n % 2 == 0 { "same" } else { "shared" };
                    let group = [
                        describe(b'S', name),
                        bind("", name, &[Some(value.as_bytes())]),
                        execute("", 0),
                        sync(),
                    ];
                    let frames = wire.exchange(&group.concat(), 1).remove(0);
                    let expected = if n % 2 == 0 { n + worker } else { n * 2 };
                    assert_eq!(first_values(&frames), [expected.to_string()]);
                    assert_eq!(tags(&frames), "tT2DCZ");
                    if n % 10 == 0 {
                        wire.run("INSERT INTO clients VALUES (1)");
                    }
                }
                wire.terminate();
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    proxy.wait_quiet();
}

#[test]
fn more_statements_than_a_connection_may_hold_replace_each_other() {
    let proxy = WORLD.proxy(&[("limits", "{ prepared_statements: 3 }"), ("pool", "{ size: 1 }")]);
    let mut wire = proxy.client();
    for n in 0..20 {
        let group = [parse(&format!("s{n}"), &format!("SELECT {n}"), &[]), sync()].concat();
        assert_eq!(tags(&wire.exchange(&group, 1)[0]), "1Z");
    }
    for round in 0..3 {
        // In one burst, so that statements are evicted while others are in flight.
        let burst: Vec<u8> = (0..20)
            .flat_map(|n| [bind("", &format!("s{n}"), &[]), execute("", 0), sync()].concat())
            .collect();
        for (n, group) in wire.exchange(&burst, 20).iter().enumerate() {
            assert_eq!(first_values(group), [n.to_string()], "round {round}");
            assert_eq!(tags(group), "2DCZ");
        }
    }
    wire.run("BEGIN; INSERT INTO clients VALUES (2)");
    let held = wire.value("SELECT count(*) FROM pg_prepared_statements");
    assert!(held.parse::<u32>().unwrap() <= 3, "{held} statements are prepared on one connection");
    wire.run("ROLLBACK");
}

#[test]
fn a_shape_that_changes_under_a_prepared_statement_is_the_servers_error_and_the_session_goes_on() {
    let mut wire = PROXY.client();
    wire.run("CREATE TABLE shape (a int); INSERT INTO shape VALUES (1)");
    let ask = [bind("", "s", &[]), execute("", 0), sync()].concat();
    wire.exchange(&[parse("s", "SELECT * FROM shape", &[]), sync()].concat(), 1);
    assert_eq!(first_values(&wire.exchange(&ask, 1)[0]), ["1"]);
    wire.run("ALTER TABLE shape ADD b text");
    let frames = wire.exchange(&ask, 1).remove(0);
    let error = error_of(&frames).map(|error| error.sqlstate());
    assert!(error.is_none() || error.as_deref() == Some("0A000"), "{frames:?}");
    assert_eq!(wire.value("SELECT 1"), "1");
}

/// Sends and reads at the same time, as a client must with so many bytes.
fn copy_in(wire: &mut Wire, statement: &[u8], rows: usize, row: impl Fn(usize) -> String) -> Vec<Frame> {
    wire.send(statement);
    let mut chunk = String::new();
    for n in 0..rows {
        chunk.push_str(&row(n));
        if chunk.len() > 100_000 {
            wire.send(&copy_data(chunk.as_bytes()));
            chunk.clear();
        }
    }
    wire.send(&copy_data(chunk.as_bytes()));
    wire.send(&copy_done());
    wire.until_ready()
}

#[test]
fn twenty_megabytes_are_copied_in_and_out_unharmed() {
    const ROWS: usize = 20_000;
    let word = "0123456789abcdef".repeat(64);
    let mut wire = PROXY.client();
    let row = |n: usize| format!("{n}\t{word}\n");
    let frames = copy_in(&mut wire, &query("COPY bulk FROM STDIN"), ROWS, row);
    assert_eq!(frames.iter().find(|frame| frame.tag == b'C').unwrap().text(), format!("COPY {ROWS}"));

    wire.send(&query("COPY (SELECT * FROM bulk ORDER BY n) TO STDOUT"));
    let frames = wire.until_ready();
    let lines = frames.iter().filter(|frame| frame.tag == b'd');
    assert_eq!(lines.clone().count(), ROWS);
    assert!(lines.enumerate().all(|(n, line)| line.body == row(n).as_bytes()));
    assert_eq!(tags(&frames[frames.len() - 3..]), "cCZ");

    wire.run("TRUNCATE bulk");
    // The extended protocol ends it with a Sync of its own.
    let statement = [unnamed("COPY bulk FROM STDIN", &[]), flush()].concat();
    wire.send(&statement);
    for n in 0..1000 {
        wire.send(&copy_data(row(n).as_bytes()));
    }
    wire.send(&[copy_done(), sync()].concat());
    assert_eq!(tags(&wire.until_ready()), "12GCZ");
    assert_eq!(wire.value("SELECT count(*) FROM bulk"), "1000");
    wire.run("TRUNCATE bulk");
}

#[test]
fn a_copy_that_fails_in_the_middle_of_much_data_leaves_a_usable_session() {
    let proxy = WORLD.proxy(&[]);
    let mut wire = proxy.client();
    let row = |n: usize| {
        if n == 500 { "not a number\tx\n".to_owned() } else { format!("{n}\t{}\n", "y".repeat(2000)) }
    };
    let frames = copy_in(&mut wire, &query("COPY aborted FROM STDIN"), 0, row);
    assert_eq!(error_of(&frames).map(|error| error.sqlstate()), None);
    wire.run("ALTER TABLE aborted ADD word text");
    let frames = copy_in(&mut wire, &query("COPY aborted FROM STDIN"), 3000, row);
    assert_eq!(error_of(&frames).unwrap().sqlstate(), "22P02");
    assert_eq!(wire.value("SELECT count(*) FROM aborted"), "0");
    wire.send(&[query("COPY aborted FROM STDIN"), copy_data(b"1\tx\n")].concat());
    assert_eq!(wire.next().tag, b'G');
    wire.vanish();
    proxy.wait_quiet();
    assert_eq!(proxy.client().value("/* pgweir.route=primary */ SELECT count(*) FROM aborted"), "0");
}

#[test]
fn a_slow_reader_of_a_large_result_gets_every_byte_and_holds_little_memory() {
    let program = Program::start(&WORLD, &[]);
    let mut wire = program.client();
    wire.run("SELECT n, repeat('x', 1000) FROM generate_series(1, 100) n");
    let before = program.resident();
    wire.send(&query("SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n"));
    assert_eq!(wire.next().tag, b'T');
    // The sockets' buffers fill, then the server is stopped: pgweir must not read on for itself.
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    wait_until("the server waits for its reader", || {
        WORLD.cluster.nodes().iter().any(|node| node.sql_value(blocked).unwrap().as_deref() != Some("0"))
    });
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more while the client reads nothing");
    let frames = wire.until_ready();
    let rows = rows_of(&frames);
    assert_eq!(rows.len(), 20_000);
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(row[0].as_deref(), Some(&*(n + 1).to_string()));
        assert_eq!(row[1].as_ref().unwrap().len(), 1000);
    }
}

#[test]
fn a_large_result_that_comes_in_drops_arrives_whole() {
    let mut wire = PROXY.client();
    let drops = "CASE WHEN n > 6000 AND n % 40 = 0 THEN pg_sleep(0.003) END";
    for copied in [false, true] {
        let rows = format!("SELECT n, repeat('x', 1000), {drops} FROM generate_series(1, 8000) n");
        if copied {
            let frames = wire.run(&format!("COPY ({rows}) TO STDOUT"));
            let lines: Vec<_> = frames.iter().filter(|frame| frame.tag == b'd').collect();
            assert_eq!(lines.len(), 8000);
            assert!(
                lines.iter().zip(1..).all(|(line, n)| line.body.starts_with(format!("{n}\txxx").as_bytes()))
            );
        } else {
            let rows = rows_of(&wire.run(&rows));
            assert_eq!(rows.len(), 8000);
            assert!(rows.iter().zip(1..).all(|(row, n)| row[0].as_deref() == Some(&*n.to_string())));
        }
        // Its connection is listened to again.
        assert_eq!(wire.value("/* pgweir.route=primary */ SELECT 7"), "7");
    }
}

#[test]
fn parameters_and_rows_of_many_megabytes_pass() {
    let mut wire = PROXY.client();
    let large = "z".repeat(5 << 20);
    let group = [unnamed("SELECT $1::text, length($1::text)", &[Some(large.as_bytes())]), sync()].concat();
    let frames = wire.exchange(&group, 1).remove(0);
    let rows = rows_of(&frames);
    assert_eq!(rows[0][1].as_deref(), Some("5242880"));
    assert!(rows[0][0].as_deref() == Some(&*large));
    // The same in a simple query, whose text is large then.
    let rows = wire.rows(&format!("SELECT '{large}', 1"));
    assert!(rows[0][0].as_deref() == Some(&*large));
    // And several in one pipeline.
    let frames = wire.exchange(&group.repeat(3), 3);
    assert!(frames.iter().all(|frames| rows_of(frames)[0][1].as_deref() == Some("5242880")));
}

#[test]
fn a_notification_reaches_a_client_that_is_idle() {
    let mut listener = PROXY.client();
    let mut sender = PROXY.client();
    listener.run("LISTEN news");
    for n in 0..20 {
        sender.run(&format!("NOTIFY news, 'number {n}'"));
        let frame = listener.next();
        assert_eq!(frame.tag, b'A');
        assert!(frame.body.ends_with(format!("news\0number {n}\0").as_bytes()), "{frame:?}");
    }
    // Both at once, again and again: neither is lost.
    for n in 0..50 {
        sender.send(&query("NOTIFY news"));
        listener.send(&query(&format!("SELECT {n}")));
        let frames = listener.until_ready();
        assert_eq!(first_values(&frames), [n.to_string()]);
        sender.until_ready();
        let early = frames.iter().filter(|frame| frame.tag == b'A').count();
        if early == 0 {
            assert_eq!(listener.next().tag, b'A');
        }
    }
    assert!(PROXY.metric("pgweir_pins_total", "listen") >= 1.0);
    listener.run("UNLISTEN *");
    listener.terminate();
}

#[test]
fn a_cancel_request_ends_exactly_the_statement_its_client_is_running() {
    let mut one = PROXY.client();
    let mut other = PROXY.client();
    one.send(&query("SELECT pg_sleep(60)"));
    other.send(&query("SELECT pg_sleep(60)"));
    wait_until("both run", || running("SELECT pg_sleep(60)") == 2);
    // The wrong secret, and the key of nobody, do nothing.
    let wrong = (u32::from_be_bytes(one.secret[..].try_into().unwrap()) ^ 1).to_be_bytes();
    cancel(PROXY.port, one.pid, &wrong);
    cancel(PROXY.port, one.pid ^ 1, &one.secret);
    assert_eq!(running("SELECT pg_sleep(60)"), 2);
    cancel(PROXY.port, one.pid, &one.secret);
    assert_eq!(error_of(&one.until_ready()).unwrap().sqlstate(), "57014");
    assert_eq!(running("SELECT pg_sleep(60)"), 1);
    assert_eq!(one.value("SELECT 1"), "1");
    cancel(PROXY.port, other.pid, &other.secret);
    assert_eq!(error_of(&other.until_ready()).unwrap().sqlstate(), "57014");
    // Of an idle client: nothing to cancel, and nothing is canceled later.
    cancel(PROXY.port, one.pid, &one.secret);
    for _ in 0..20 {
        assert_eq!(one.value("SELECT 1"), "1");
    }
}

#[test]
fn cancel_requests_never_hit_the_next_user_of_a_connection() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2 }")]);
    let mut victim = proxy.client();
    let (pid, secret) = (victim.pid, victim.secret.clone());
    let port = proxy.port;
    let storm = thread::spawn(move || (0..100).for_each(|_| cancel(port, pid, &secret)));
    let mut bystander = proxy.client();
    let mut canceled = 0;
    while !storm.is_finished() {
        canceled += usize::from(error_of(&victim.query("SELECT pg_sleep(0.001)")).is_some());
        assert_eq!(bystander.value("SELECT count(*) FROM numbers"), "1000");
    }
    storm.join().unwrap();
    println!("{canceled} statements of the victim were canceled");
    proxy.wait_quiet();
}

fn running(text: &str) -> usize {
    let ask = format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{text}'");
    (WORLD.cluster.nodes().iter())
        .map(|node| node.sql_value(&ask).unwrap().unwrap().parse::<usize>().unwrap())
        .sum()
}

#[test]
fn what_was_asked_before_goodbye_is_done() {
    let proxy = WORLD.proxy(&[]);
    for _ in 0..20 {
        let mut wire = proxy.client();
        wire.send(&[query("INSERT INTO goodbye VALUES (1)"), terminate()].concat());
        let frames = wire.until_closed();
        assert_eq!(tags(&frames), "CZ");
    }
    let mut wire = proxy.client();
    // Without its Sync, nothing is committed.
    wire.send(&[unnamed("INSERT INTO goodbye VALUES (1)", &[]), terminate()].concat());
    wire.until_closed();
    proxy.wait_quiet();
    assert_eq!(proxy.client().value("/* pgweir.route=primary */ SELECT count(*) FROM goodbye"), "20");
}

#[test]
fn psql_works_as_against_postgresql() {
    let Some(psql) = WORLD.cluster.binaries().optional_program("psql") else {
        println!("there is no psql on this machine");
        return;
    };
    let uri = format!("postgres://app:app-secret@127.0.0.1:{}/app", PROXY.port);
    let version = Command::new(&psql).arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.contains(&format!(" {}.", WORLD.cluster.binaries().major())) {
        println!("{version} asks an other version's catalogs: not compared");
        return;
    }
    let run = |arguments: &[&str]| -> Output {
        let mut command = Command::new(&psql);
        command.args(["-X", "-A", "-v", "ON_ERROR_STOP=1", &uri]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    };
    let said = |arguments: &[&str]| String::from_utf8(run(arguments).stdout).unwrap();
    assert!(said(&["-c", "\\d numbers"]).contains("numbers_pkey"));
    assert!(said(&["-c", "\\dt"]).contains("numbers"));
    assert!(said(&["-c", "\\l"]).contains("app"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("words.csv");
    let path = file.display().to_string();
    run(&["-c", &format!("\\copy (SELECT n, word FROM numbers ORDER BY n) TO '{path}' CSV")]);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1000);
    let script = [
        "CREATE TABLE psql_words (n int, word text)",
        &format!("\\copy psql_words FROM '{path}' CSV"),
        "BEGIN",
        "DELETE FROM psql_words WHERE n > 10",
        "SAVEPOINT a",
        "DELETE FROM psql_words",
        "ROLLBACK TO a",
        "COMMIT",
        "SELECT count(*) FROM psql_words",
    ];
    let arguments: Vec<&str> = script.iter().flat_map(|line| ["-c", line]).collect();
    let answer = said(&arguments);
    assert!(answer.ends_with("count\n10\n(1 row)\n"), "{answer}");
    // \watch with a number of rounds is of PostgreSQL 16; a statement that fails ends it everywhere.
    let watch = "SELECT 1/(3 - nextval('rounds')) \\watch 0.05";
    PROXY.client().run("CREATE SEQUENCE rounds");
    let file = folder.path().join("watch.sql");
    std::fs::write(&file, watch).unwrap();
    let mut command = Command::new(&psql);
    command.args(["-X", "-A", "-t", &uri, "-f", &file.display().to_string()]);
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("division by zero"), "{output:?}");
    assert_eq!(PROXY.client().value("/* pgweir.route=primary */ SELECT last_value FROM rounds"), "3");
}
