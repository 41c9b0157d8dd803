//! Read-only transactions run on a replica, and nobody can tell but by asking where.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use pgweir::devcluster::Options;
use std::sync::LazyLock;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(1));
    let sql = |text: &str| drop(world.cluster.primary().sql_as("app", "app", text).unwrap());
    sql("CREATE TABLE fruit (n int, name text); INSERT INTO fruit VALUES (1, 'apple'), (2, 'pear')");
    sql("CREATE TABLE basket (n int)");
    sql("CREATE UNLOGGED TABLE scratch (n int)");
    world.cluster.wait_caught_up(LONG).unwrap();
    world
});

/// A pgweir whose reads wait for a replica that is fresh enough, however busy the machine is.
fn patient() -> Running {
    patient_and("")
}

/// The same with more settings of `routing:`.
fn patient_and(more: &str) -> Running {
    let proxy = WORLD.proxy(&[
        ("cluster", &WORLD.nodes_asked_every("1s")),
        ("routing", &format!("{{ on_lag: wait{more} }}")),
    ]);
    let mut wire = proxy.client();
    wait_until("reads of tables go to the replica", || {
        let plan = first_values(&wire.run("EXPLAIN (ROUTE) SELECT * FROM fruit"));
        plan[0].starts_with("Route: replica")
    });
    wait_connected(&mut wire);
    proxy
}

/// A connection to the replica is there, and known to be to what the monitor has asked: one that has just been
/// made may not be in time.
fn wait_connected(wire: &mut Wire) {
    wait_until("the replica serves a transaction", || {
        wire.run("BEGIN READ ONLY");
        let there = is_on_replica(wire);
        wire.run("COMMIT");
        there
    });
}

/// Where everything went so far, and why.
fn routes(proxy: &Running) -> String {
    let metrics = proxy.metrics();
    let lines = metrics.lines().filter(|line| line.starts_with("pgweir_statements_total"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Where the open transaction runs: the answer is that of the node.
const WHERE: &str = "SELECT pg_is_in_recovery()";

fn is_on_replica(wire: &mut Wire) -> bool {
    wire.value(WHERE) == "t"
}

#[test]
fn transactions_that_can_only_read_run_on_a_replica() {
    let proxy = patient();
    let mut wire = proxy.client();
    let beginnings: [&[&str]; 7] = [
        &["BEGIN READ ONLY"],
        &["START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"],
        &["BEGIN; SET TRANSACTION READ ONLY"],
        &["BEGIN", "SET TRANSACTION READ ONLY"],
        &["BEGIN ISOLATION LEVEL READ COMMITTED", "SET LOCAL work_mem = '7MB'", "SET TRANSACTION READ ONLY"],
        &["/* pgweir.route=replica */ BEGIN READ ONLY"],
        &["BEGIN READ ONLY; SELECT 1"],
    ];
    for beginning in beginnings {
        for part in beginning {
            wire.run(part);
        }
        assert!(is_on_replica(&mut wire), "{beginning:?}");
        let pid = wire.value("SELECT pg_backend_pid()");
        assert_eq!(wire.value("SELECT count(*) FROM fruit"), "2");
        assert_eq!(wire.value("SHOW transaction_read_only"), "on");
        wire.run("SAVEPOINT a; SELECT 1; ROLLBACK TO a");
        wire.run("DECLARE c CURSOR FOR SELECT name FROM fruit ORDER BY n");
        assert_eq!(first_values(&wire.run("FETCH 5 FROM c")), ["apple", "pear"]);
        assert_eq!(wire.value("SELECT pg_backend_pid()"), pid, "{beginning:?}: one connection for all of it");
        if beginning.len() == 3 {
            assert_eq!(wire.value("SHOW work_mem"), "7MB");
        }
        wire.run("COMMIT");
        assert_ne!(wire.value("SHOW work_mem"), "7MB");
    }
    wire.run("INSERT INTO basket VALUES (1)");
    let all = routes(&proxy);
    let counted = |line: &str| line.contains("role=\"replica\"") && line.contains("read_only_transaction");
    assert!(all.lines().any(counted), "{all}");
}

#[test]
fn transactions_that_need_the_primary_run_there() {
    let proxy = patient();
    let mut wire = proxy.client();
    for beginning in [
        "BEGIN",
        "BEGIN READ WRITE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
        "BEGIN READ ONLY; SET TRANSACTION READ WRITE",
        "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT txid_current_if_assigned()",
        "/* pgweir.route=primary */ BEGIN READ ONLY",
        "BEGIN READ ONLY; COMMIT; BEGIN",
    ] {
        wire.run(beginning);
        let there = is_on_replica(&mut wire);
        wire.run("COMMIT");
        let replica = beginning.contains("REPEATABLE");
        assert_eq!(there, replica, "{beginning}");
    }
    // pg_dump begins like this, and may ask for more than a replica has.
    wire.run("BEGIN");
    wire.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    assert!(!is_on_replica(&mut wire));
    wire.run("COMMIT");
    wire.run("SET default_transaction_isolation = 'serializable'");
    wire.run("BEGIN READ ONLY");
    assert!(!is_on_replica(&mut wire));
    wire.run("COMMIT");
}

#[test]
fn sessions_that_only_read_by_default_begin_on_a_replica() {
    let proxy = patient();
    for set in [
        "SET default_transaction_read_only = on",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SELECT set_config('default_transaction_read_only', 'true', false)",
    ] {
        let mut wire = proxy.client();
        wire.run(set);
        wire.run("BEGIN");
        assert!(is_on_replica(&mut wire), "{set}\n{}", routes(&proxy));
        wire.run("COMMIT");
        wire.run("BEGIN READ WRITE; INSERT INTO basket VALUES (2)");
        assert!(!is_on_replica(&mut wire), "{set}");
        wire.run("ROLLBACK");
        assert_eq!(wire.fail("INSERT INTO basket VALUES (3)").sqlstate(), "25006");
        wire.run("SET default_transaction_read_only = off; SELECT 1");
        wire.run("BEGIN");
        assert!(!is_on_replica(&mut wire), "{set}");
        wire.run("ROLLBACK");
    }
    let login = app().with("options", "-c default_transaction_read_only=on");
    let mut wire = Wire::connect(proxy.port, &login).unwrap();
    wire.run("BEGIN");
    assert!(is_on_replica(&mut wire));
    wire.run("COMMIT");
}

#[test]
fn a_whole_transaction_may_come_in_one_group_or_one_pipeline() {
    let proxy = patient();
    let mut wire = proxy.client();
    let of = |texts: &[&str]| texts.iter().flat_map(|text| unnamed(text, &[])).collect::<Vec<u8>>();
    // As JDBC sends it: BEGIN and the query before one Sync.
    let frames = wire.exchange(&[of(&["BEGIN READ ONLY", WHERE]), sync()].concat(), 1).remove(0);
    assert_eq!(first_values(&frames), ["t"]);
    assert_eq!(frames.last().unwrap().text(), "T");
    let frames = wire.exchange(&[of(&[WHERE, "COMMIT"]), sync()].concat(), 1).remove(0);
    assert_eq!(
        (first_values(&frames), frames.last().unwrap().text()),
        (vec!["t".to_owned()], "I".to_owned())
    );
    // All of it before the first answer, and a write behind it.
    for round in 0..20 {
        let groups = ["BEGIN READ ONLY", WHERE, WHERE, "COMMIT", "INSERT INTO basket VALUES (4)", "SELECT 5"];
        let bytes: Vec<u8> = groups.iter().flat_map(|text| [of(&[text]), sync()].concat()).collect();
        let answers = wire.exchange(&bytes, groups.len());
        for (frames, text) in answers.iter().zip(groups) {
            assert!(error_of(frames).is_none(), "{round} {text}: {frames:?}");
        }
        assert_eq!(
            (first_values(&answers[1]), first_values(&answers[2])),
            (vec!["t".into()], vec!["t".into()])
        );
        let statuses: String = answers.iter().map(|frames| frames.last().unwrap().text()).collect();
        assert_eq!(statuses, "TTTIII");
    }
}

#[test]
fn what_a_replica_cannot_do_moves_the_transaction_while_it_has_seen_nothing() {
    let proxy = patient();
    let mut wire = proxy.client();
    for first in [
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT txid_current()",
        "SELECT * FROM scratch",
        "SET TRANSACTION READ WRITE",
        "SET transaction_read_only = off",
        "LISTEN moved",
        "/* pgweir.route=primary */ SELECT 1",
        "LOCK TABLE fruit IN ROW EXCLUSIVE MODE",
    ] {
        wire.run("BEGIN READ ONLY");
        wire.run("SET LOCAL app.mark = 'it''s'");
        if !first.starts_with("SET") {
            wire.run("SAVEPOINT spot");
        }
        wire.run(first);
        if !first.starts_with("SET") {
            wire.run("RELEASE spot");
        }
        assert!(!is_on_replica(&mut wire), "{first}");
        assert_eq!(wire.value("SELECT current_setting('app.mark')"), "it's", "{first}");
        wire.run("COMMIT");
        wire.run("UNLISTEN *");
    }
    wire.run("BEGIN READ ONLY");
    wire.run("SET TRANSACTION READ WRITE");
    wire.run("INSERT INTO basket VALUES (6)");
    wire.run("COMMIT");
    assert_eq!(wire.value("SELECT count(*) FROM basket WHERE n = 6"), "1");
    // Settings by call, as PostgREST makes them, are no reason to move.
    wire.run("BEGIN READ ONLY");
    let set = unnamed(
        "SELECT set_config('app.who', $1, true), set_config($2, $3, true)",
        &[Some(b"me"), Some(b"app.mark"), Some(b"x")],
    );
    assert!(error_of(&wire.exchange(&[set, sync()].concat(), 1)[0]).is_none());
    assert!(is_on_replica(&mut wire));
    assert_eq!(wire.value("SELECT current_setting('app.who') || current_setting('app.mark')"), "mex");
    wire.run("COMMIT");
    // A write is refused as ever.
    wire.run("BEGIN READ ONLY");
    assert_eq!(wire.fail("INSERT INTO basket VALUES (7)").sqlstate(), "25006");
    assert_eq!(wire.query("COMMIT")[0].text(), "ROLLBACK");
    // What ends one and begins another in one string leaves the replica.
    wire.run("BEGIN READ ONLY");
    assert!(is_on_replica(&mut wire));
    wire.run("COMMIT; BEGIN; INSERT INTO basket VALUES (8)");
    assert!(!is_on_replica(&mut wire));
    wire.run("ROLLBACK");
    proxy.wait_quiet();
}

#[test]
fn behind_its_first_read_a_transaction_stays_and_what_would_mislead_is_refused() {
    let proxy = patient();
    let mut wire = proxy.client();
    let refused = [
        ("INSERT INTO basket VALUES (9)", "25006"),
        ("SELECT nextval('nowhere')", "42P01"),
        ("NOTIFY c", "25006"),
        ("SET TRANSACTION READ WRITE", "25001"),
        ("SELECT pg_advisory_xact_lock(1)", "0A000"),
        ("SELECT pg_try_advisory_lock(1)", "0A000"),
        ("LISTEN c", "0A000"),
        ("LOCK TABLE fruit IN ROW SHARE MODE", "0A000"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "0A000"),
    ];
    for (text, sqlstate) in refused {
        for extended in [false, true] {
            wire.run("BEGIN READ ONLY");
            assert!(is_on_replica(&mut wire), "{text}\n{}", routes(&proxy));
            let frames = match extended {
                false => wire.query(text),
                true => wire.exchange(&[unnamed(text, &[]), sync()].concat(), 1).remove(0),
            };
            let error = error_of(&frames).unwrap_or_else(|| panic!("{text}: {frames:?}"));
            assert_eq!(error.sqlstate(), sqlstate, "{text}: {error:?}");
            assert_eq!(frames.last().unwrap().text(), "E", "{text}");
            if sqlstate == "0A000" {
                assert!(error.field(b'D').is_some() && error.field(b'H').is_some(), "{error:?}");
            }
            assert_eq!(wire.fail("SELECT 1").sqlstate(), "25P02");
            wire.run("ROLLBACK");
            assert_eq!(wire.value("SELECT 1"), "1");
        }
    }
    proxy.wait_quiet();
}

#[test]
fn it_sees_what_its_session_has_written_and_leaves_no_trace_of_a_write() {
    let proxy = patient();
    let mut wire = proxy.client();
    for n in 100..120 {
        wire.run(&format!("INSERT INTO basket VALUES ({n})"));
        wire.run("BEGIN READ ONLY");
        let seen = wire.value(&format!("SELECT count(*) FROM basket WHERE n = {n}"));
        wire.run("COMMIT");
        assert_eq!(seen, "1");
    }
    let sticky = patient_and(", pin_after_write: until_disconnect");
    let mut wire = sticky.client();
    wire.run("BEGIN READ ONLY");
    wire.run("SELECT count(*) FROM fruit");
    wire.run("DECLARE c CURSOR FOR SELECT 1");
    wire.run("COMMIT");
    wire.run("BEGIN READ ONLY");
    assert!(is_on_replica(&mut wire), "nothing was written yet");
    wire.run("COMMIT");
    wire.run("INSERT INTO basket VALUES (10)");
    wire.run("BEGIN READ ONLY");
    assert!(!is_on_replica(&mut wire));
    wire.run("COMMIT");
}

/// Ends the server process that serves this session on the replica.
fn end_on_replica(pid: &str) {
    let replica = &WORLD.cluster.replicas()[0];
    replica.sql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("it is gone", || replica.sql_value(&there).unwrap().as_deref() == Some("0"));
}

#[test]
fn a_replica_that_is_lost_in_the_middle_costs_an_error_that_can_be_retried() {
    let proxy = patient();
    let mut wire = proxy.client();
    for (next, sqlstate, tag) in
        [("SELECT 1", Some("40001"), ""), ("COMMIT", None, "ROLLBACK"), ("ROLLBACK", None, "ROLLBACK")]
    {
        wait_connected(&mut wire);
        wire.run("BEGIN READ ONLY");
        assert!(is_on_replica(&mut wire));
        end_on_replica(&wire.value("SELECT pg_backend_pid()"));
        let frames = wire.query(next);
        match sqlstate {
            Some(sqlstate) => {
                assert_eq!(error_of(&frames).unwrap().sqlstate(), sqlstate, "{frames:?}");
                assert_eq!(frames.last().unwrap().text(), "E");
                assert_eq!(wire.fail("SELECT 1").sqlstate(), "25P02");
                assert_eq!(wire.query("ROLLBACK")[0].text(), "ROLLBACK");
            }
            // It was on its way already when the server was lost.
            None if error_of(&frames).is_some() => {
                assert_eq!(error_of(&frames).unwrap().sqlstate(), "40001", "{frames:?}");
                assert_eq!(wire.query("ROLLBACK")[0].text(), "ROLLBACK");
            }
            None => assert_eq!((frames[0].text(), tags(&frames)), (tag.to_owned(), "CZ".to_owned())),
        }
        assert_eq!(wire.value("SELECT 1"), "1");
        wire.run("INSERT INTO basket VALUES (11)");
    }
    proxy.wait_quiet();
}

#[test]
fn a_replica_that_is_lost_before_anything_was_seen_costs_nothing() {
    let proxy = patient();
    let mut wire = proxy.client();
    wire.run("BEGIN READ ONLY /* and nothing seen */");
    let busy = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'";
    let replica = &WORLD.cluster.replicas()[0];
    let mut pid = None;
    wait_until("the transaction is open", || {
        pid = replica.sql_value(&format!("{busy} AND query LIKE '%and nothing seen%'")).unwrap();
        pid.is_some()
    });
    end_on_replica(&pid.unwrap());
    assert_eq!(wire.value("SELECT count(*) FROM fruit"), "2");
    assert_eq!(wire.value("SHOW transaction_read_only"), "on");
    wire.run("COMMIT");
}

#[test]
fn copy_to_stdout_comes_from_a_replica() {
    let proxy = patient();
    let mut wire = proxy.client();
    let data = |frames: &[Frame]| -> Vec<u8> {
        frames.iter().filter(|frame| frame.tag == b'd').flat_map(|frame| frame.body.clone()).collect()
    };
    let before = proxy.metric("pgweir_statements_total", "role=\"replica\"");
    let frames = wire.run("COPY fruit TO STDOUT");
    assert_eq!((tags(&frames).as_str(), &*data(&frames)), ("HddcCZ", &b"1\tapple\n2\tpear\n"[..]));
    let csv = wire.run("COPY (SELECT n FROM fruit ORDER BY n DESC) TO STDOUT WITH (FORMAT csv, HEADER)");
    assert_eq!(data(&csv), b"n\n2\n1\n");
    let binary = wire.exchange(&[unnamed("COPY fruit TO STDOUT (FORMAT binary)", &[]), sync()].concat(), 1);
    assert!(data(&binary[0]).starts_with(b"PGCOPY\n\xff\r\n\0"));
    assert_eq!(
        proxy.metric("pgweir_statements_total", "role=\"replica\"") - before,
        3.0,
        "{}",
        proxy.metrics()
    );
    // Larger than every buffer.
    let large = wire.run("COPY (SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i) TO STDOUT");
    assert_eq!(large.iter().filter(|frame| frame.tag == b'd').count(), 5000);
    // Inside of a read-only transaction, and with an error in the middle.
    wire.run("BEGIN READ ONLY");
    assert_eq!(data(&wire.run("COPY (SELECT pg_is_in_recovery()) TO STDOUT")), b"t\n");
    let frames = wire.query("COPY (SELECT 1/(n-2) FROM generate_series(1, 3) n) TO STDOUT");
    assert_eq!(error_of(&frames).unwrap().sqlstate(), "22012");
    wire.run("ROLLBACK");
}
