//! What cannot be replayed keeps its connection, is shown, and lets go as soon as it is over.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use pgweir::devcluster::{APP, Options, SUPERUSER};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use wire_client::*;
use wire_world::*;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(1).set("max_prepared_transactions", "10"));
    let sql = |text: &str| drop(world.cluster.primary().sql_as("app", "app", text).unwrap());
    for table in ["counted", "copied", "prepared"] {
        sql(&format!("CREATE TABLE {table} (n int)"));
    }
    // Whoever sets this search_path must not be able to hide what the session has.
    sql("CREATE SCHEMA evil");
    sql("CREATE TABLE evil.pg_locks (locktype text, pid int)");
    sql("CREATE TABLE evil.pg_depend (refclassid oid, refobjid oid)");
    sql("CREATE FUNCTION evil.never(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false'");
    sql("CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never)");
    sql("CREATE ROLE nobody_much");
    world.cluster.primary().sql("GRANT nobody_much TO app").unwrap();
    world.cluster.wait_caught_up(LONG).unwrap();
    world
});

/// The column `pins` of this client in SHOW CLIENTS.
fn pins(proxy: &Running, client: u32) -> String {
    let mut console = Wire::connect(proxy.port, &Login::new(APP.name, APP.password, "pgweir")).unwrap();
    let rows = console.rows("SHOW CLIENTS");
    console.terminate();
    let row = rows.iter().find(|row| row[10].as_deref() == Some(&*client.to_string()));
    row.and_then(|row| row[9].clone()).unwrap_or_else(|| panic!("no client {client}: {rows:?}"))
}

const WHO: &str = "/* pgweir.route=primary */ SELECT pg_backend_pid()";

fn backend(wire: &mut Wire) -> String {
    wire.value(WHO)
}

/// Waits until it has let go of everything, and nobody has a connection.
fn wait_free(proxy: &Running, client: u32, what: &str) {
    wait_until(&format!("{what}: no pin is left"), || pins(proxy, client).is_empty());
    proxy.wait_quiet();
}

/// It keeps its pin, whatever pgweir asks the server behind its statements.
fn stays_pinned(proxy: &Running, wire: &mut Wire, reason: &str, what: &str) {
    let here = backend(wire);
    for _ in 0..3 {
        assert_eq!(backend(wire), here, "{what}");
    }
    assert_eq!(pins(proxy, wire.pid), reason, "{what}");
    assert_eq!(proxy.pools().0, 1, "{what}");
}

#[test]
fn every_pin_is_shown_and_released_when_its_last_reason_is_gone() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    // What begins it, what leaves it as it is, what ends it.
    let cases: &[(&str, &[&str], &[&str], &str)] = &[
        (
            "temporary_table",
            &["CREATE TEMP TABLE a AS SELECT 42 AS n", "CREATE TEMP TABLE b (n int)"],
            &["DROP TABLE a", "INSERT INTO b VALUES (1)", "BEGIN; DROP TABLE b; ROLLBACK"],
            "DROP TABLE b",
        ),
        ("temporary_table", &["CREATE TEMP VIEW v AS SELECT 1"], &["SELECT * FROM v"], "DROP VIEW v"),
        (
            "temporary_table",
            &[
                "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "CREATE TYPE pg_temp.t AS ENUM ()",
            ],
            &["SELECT pg_temp.f()", "DROP TYPE pg_temp.t"],
            "DISCARD TEMP",
        ),
        ("temporary_table", &["CREATE TEMP SEQUENCE s"], &["SELECT nextval('s')"], "DISCARD ALL"),
        ("listen", &["LISTEN a", "LISTEN b"], &["UNLISTEN a", "BEGIN; UNLISTEN *; ROLLBACK"], "UNLISTEN b"),
        ("listen", &["LISTEN a", "LISTEN b"], &[], "UNLISTEN *"),
        (
            "advisory_lock",
            &["SELECT pg_advisory_lock(7)", "BEGIN; SELECT pg_advisory_lock(7); ROLLBACK"],
            &["SELECT pg_advisory_unlock(8)", "SELECT pg_advisory_unlock(7)"],
            "SELECT pg_advisory_unlock(7)",
        ),
        (
            "advisory_lock",
            &["SELECT pg_advisory_lock_shared(1, 2)", "SELECT pg_try_advisory_lock(3)"],
            &["SELECT pg_advisory_unlock_shared(1, 2)"],
            "SELECT pg_advisory_unlock_all()",
        ),
        (
            "hold_cursor",
            &[
                "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
                "DECLARE d CURSOR WITH HOLD FOR SELECT generate_series(1, 9)",
            ],
            &["CLOSE c", "FETCH 2 FROM d", "FETCH 2 FROM d"],
            "CLOSE d",
        ),
        (
            "hold_cursor",
            &["BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT"],
            &["FETCH c"],
            "CLOSE ALL",
        ),
        (
            "unknown_setting",
            &["SELECT set_config(name, '5MB', false) FROM (VALUES ('work_mem')) AS v (name)"],
            &["SELECT 1"],
            "RESET ALL",
        ),
    ];
    let mut wire = proxy.client();
    let here = backend(&mut wire);
    for (reason, begin, middle, end) in cases {
        let label = format!("reason=\"{reason}\"");
        let before = proxy.metric("pgweir_pins_total", &label);
        begin.iter().for_each(|sql| drop(wire.run(sql)));
        stays_pinned(&proxy, &mut wire, reason, begin[0]);
        assert_eq!(proxy.metric("pgweir_pins_total", &label), before + 1.0, "{reason}");
        for sql in *middle {
            wire.run(sql);
            stays_pinned(&proxy, &mut wire, reason, sql);
        }
        wire.run(end);
        wait_free(&proxy, wire.pid, end);
        // The connection is as good as new.
        assert_eq!(backend(&mut proxy.client()), here, "{end}");
    }
}

#[test]
fn what_was_taken_back_or_never_was_does_not_pin() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut holder = Wire::connect(WORLD.direct(), &app()).unwrap();
    holder.run("SELECT pg_advisory_lock(11)");
    let mut wire = proxy.client();
    let here = backend(&mut wire);
    for sql in [
        "BEGIN; CREATE TEMP TABLE gone (n int) ON COMMIT DROP; INSERT INTO gone VALUES (1); COMMIT",
        "BEGIN; SAVEPOINT s; CREATE TEMP TABLE gone (n int); ROLLBACK TO s; COMMIT",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; CLOSE c; COMMIT",
        "SELECT pg_try_advisory_lock(11)",
        "SELECT pg_try_advisory_lock(12), pg_advisory_unlock(12)",
        "SELECT set_config('app.tenant', 'se' || 'ven', false)",
        "SET TIME ZONE INTERVAL '1' HOUR",
    ] {
        wire.run(sql);
        wait_free(&proxy, wire.pid, sql);
    }
    assert_eq!(
        wire.value("SELECT current_setting('app.tenant') || current_setting('TimeZone')"),
        "seven<+01>-01"
    );
    wire.run("RESET ALL");
    // Statement by statement, as drivers do it.
    for block in [["LISTEN a", "ROLLBACK"], ["CREATE TEMP TABLE gone (n int)", "ROLLBACK"]] {
        wire.run("BEGIN");
        block.iter().for_each(|sql| drop(wire.run(sql)));
        wait_free(&proxy, wire.pid, block[0]);
    }
    wire.run("BEGIN");
    wire.run("CREATE TEMP TABLE gone (n int)");
    wire.fail("SELECT 1/0");
    wire.run("COMMIT");
    wait_free(&proxy, wire.pid, "a failed transaction");
    for sql in ["SELECT pg_advisory_lock(1/0)", "CREATE TEMP TABLE gone (n nothing)", "LISTEN a; SELECT 1/0"]
    {
        wire.fail(sql);
        wait_free(&proxy, wire.pid, sql);
    }
    // Locks of a transaction end with it.
    let before = proxy.metric("pgweir_pins_total", "advisory_lock");
    wire.run("SELECT pg_advisory_xact_lock(13), pg_try_advisory_xact_lock_shared(14)");
    assert_eq!(proxy.metric("pgweir_pins_total", "advisory_lock"), before);
    assert_eq!(backend(&mut proxy.client()), here);
}

#[test]
fn neither_a_search_path_nor_a_role_hides_what_is_left() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut wire = proxy.client();
    wire.run("SET search_path = evil, pg_catalog");
    wire.run("SET ROLE nobody_much");
    wire.run("SELECT pg_advisory_lock(21)");
    stays_pinned(&proxy, &mut wire, "advisory_lock", "lock");
    wire.run("CREATE TEMP TABLE mine (n int)");
    stays_pinned(&proxy, &mut wire, "temporary_table,advisory_lock", "table");
    wire.run("RESET ROLE");
    wire.run("SELECT pg_advisory_unlock(21)");
    stays_pinned(&proxy, &mut wire, "temporary_table", "unlock");
    wire.run("DROP TABLE mine");
    wait_free(&proxy, wire.pid, "drop");
}

#[test]
fn the_extended_protocol_pins_and_releases_and_keeps_its_unnamed_statement() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut wire = proxy.client();
    let prepare = [
        parse("lock", "SELECT pg_advisory_lock($1)", &[20]),
        parse("unlock", "SELECT pg_advisory_unlock($1)", &[20]),
        parse("", "SELECT 'unnamed'", &[]),
        sync(),
    ];
    assert_eq!(tags(&wire.exchange(&prepare.concat(), 1)[0]), "111Z");
    let call = |wire: &mut Wire, name: &str, values: &[Option<&[u8]>]| {
        let frames = wire.exchange(&[bind("", name, values), execute("", 0), sync()].concat(), 1).remove(0);
        first_values(&frames).concat()
    };
    for _ in 0..3 {
        let key = Some(&b"31"[..]);
        call(&mut wire, "lock", &[key]);
        assert_eq!(pins(&proxy, wire.pid), "advisory_lock");
        assert_eq!(call(&mut wire, "", &[]), "unnamed");
        assert_eq!(call(&mut wire, "unlock", &[key]), "t");
        wait_free(&proxy, wire.pid, "unlock");
        // Another client's unnamed statement does not get in its way.
        let mut other = proxy.client();
        other.exchange(&[parse("", "SELECT 'other'", &[]), sync()].concat(), 1);
        assert_eq!(call(&mut wire, "", &[]), "unnamed");
    }
    // A pipeline runs through: pin, use, end, and what follows.
    let pipeline = [
        unnamed("SELECT pg_advisory_lock(32)", &[]),
        sync(),
        query("SELECT 1"),
        unnamed("SELECT pg_advisory_unlock(32)", &[]),
        sync(),
        query("SELECT 2"),
        query("SELECT 3"),
    ];
    let answers = wire.exchange(&pipeline.concat(), 5);
    assert_eq!(first_values(&answers[4]), ["3"]);
    wait_free(&proxy, wire.pid, "pipeline");
}

#[test]
fn forty_clients_pin_and_let_go_over_four_connections() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 4, wait_timeout: 60s }")]);
    let workers: Vec<_> = (0..40_usize)
        .map(|number| {
            let mut wire = proxy.client();
            thread::spawn(move || {
                for round in 0..4 {
                    let key = number * 10 + round;
                    match (number + round) % 4 {
                        0 => {
                            wire.run(&format!("CREATE TEMP TABLE mine AS SELECT {key} AS n"));
                            assert_eq!(wire.value("SELECT n FROM mine"), key.to_string());
                            wire.run("DROP TABLE mine");
                        }
                        1 => {
                            wire.run(&format!("SELECT pg_advisory_lock({key})"));
                            assert_eq!(wire.value(&format!("SELECT pg_advisory_unlock({key})")), "t");
                        }
                        2 => {
                            wire.run(&format!("LISTEN c{key}"));
                            wire.send(&query(&format!("NOTIFY c{key}, 'hello'")));
                            let heard = wire.until_ready();
                            assert!(heard.iter().any(|frame| frame.tag == b'A'), "{heard:?}");
                            wire.run(&format!("UNLISTEN c{key}"));
                        }
                        _ => {
                            wire.run(&format!("DECLARE c CURSOR WITH HOLD FOR SELECT {key}"));
                            assert_eq!(wire.value("FETCH c"), key.to_string());
                            wire.run("CLOSE c");
                        }
                    }
                }
                wire
            })
        })
        .collect();
    let clients: Vec<Wire> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    for wire in &clients {
        wait_until("no pin is left", || pins(&proxy, wire.pid).is_empty());
    }
    proxy.wait_quiet();
    // Other tests hold no lock with such a key for longer than a moment.
    let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid BETWEEN 40 AND 400";
    wait_until("no lock is left", || {
        WORLD.cluster.primary().sql_value(left).unwrap().as_deref() == Some("0")
    });
}

#[test]
fn a_notification_reaches_a_hundred_idle_listeners() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 101, wait_timeout: 60s }")]);
    let mut listeners: Vec<Wire> = (0..100).map(|_| proxy.client()).collect();
    listeners.iter_mut().for_each(|wire| drop(wire.run("LISTEN everybody")));
    let mut speaker = proxy.client();
    speaker.run("NOTIFY everybody, 'first'");
    speaker.run("BEGIN; NOTIFY everybody, 'never'; ROLLBACK");
    speaker.run("SELECT pg_notify('everybody', 'second')");
    let mut heard = 0;
    for wire in &mut listeners {
        for payload in ["first", "second"] {
            let frame = wire.next();
            assert_eq!(frame.tag, b'A', "{frame:?}");
            assert!(frame.body.ends_with(format!("everybody\0{payload}\0").as_bytes()), "{frame:?}");
        }
        heard += 1;
    }
    assert_eq!(heard, 100);
    listeners.iter_mut().for_each(|wire| drop(wire.run("UNLISTEN everybody")));
    proxy.wait_quiet();
    speaker.run("NOTIFY everybody, 'nobody hears it'");
    assert!(listeners.iter_mut().all(|wire| tags(&wire.run("SELECT 1")) == "TDCZ"));
}

#[test]
fn an_advisory_lock_excludes_the_others_until_its_holder_has_gone() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 12, wait_timeout: 60s }")]);
    WORLD.cluster.primary().sql_as("app", "app", "INSERT INTO counted VALUES (0)").unwrap();
    let workers: Vec<_> = (0..10)
        .map(|_| {
            let mut wire = proxy.client();
            thread::spawn(move || {
                for _ in 0..5 {
                    wire.run("SELECT pg_advisory_lock(501)");
                    // Lost updates, if two of them were in here at once.
                    let n: u32 = wire.value("SELECT n FROM counted").parse().unwrap();
                    wire.run(&format!("UPDATE counted SET n = {}", n + 1));
                    wire.run("SELECT pg_advisory_unlock(501)");
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(proxy.client().value("/* pgweir.route=primary */ SELECT n FROM counted"), "50");

    let mut next = proxy.client();
    type Way = (&'static str, fn(Wire));
    let ways: [Way; 2] = [("goodbye", Wire::terminate), ("without a word", Wire::vanish)];
    for (how, leave) in ways {
        let mut holder = proxy.client();
        holder.run("SELECT pg_advisory_lock(502)");
        assert_eq!(next.value("SELECT pg_try_advisory_lock(502)"), "f", "{how}");
        leave(holder);
        next.run("SELECT pg_advisory_lock(502)");
        next.run("SELECT pg_advisory_unlock(502)");
    }
    // A process that is killed.
    let mut psql = Command::new("psql")
        .args(["-X", "-q", &format!("host=127.0.0.1 port={} dbname=app user=app", proxy.port)])
        .env("PGPASSWORD", APP.password)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    psql.stdin.as_mut().unwrap().write_all(b"SELECT pg_advisory_lock(503);\n").unwrap();
    wait_until("psql has its lock", || {
        let free = next.value("SELECT pg_try_advisory_lock(503)") == "t";
        if free {
            next.run("SELECT pg_advisory_unlock(503)");
        }
        !free
    });
    psql.kill().unwrap();
    psql.wait().unwrap();
    next.run("SELECT pg_advisory_lock(503)");
    next.run("SELECT pg_advisory_unlock(503)");
    wait_free(&proxy, next.pid, "unlock");
}

#[test]
fn what_a_pinned_client_leaves_behind_reaches_nobody() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1, wait_timeout: 60s }")]);
    let ways: [fn(Wire); 2] = [Wire::terminate, Wire::vanish];
    for leave in ways {
        let mut wire = proxy.client();
        wire.run("CREATE TEMP TABLE secret AS SELECT 1 AS n");
        wire.run("LISTEN secret");
        wire.run("SELECT pg_advisory_lock(601)");
        wire.run("DECLARE secret CURSOR WITH HOLD FOR SELECT 1");
        wire.run("SELECT set_config('app.secret', 'x' || 'y', false)");
        let all = "temporary_table,listen,advisory_lock,hold_cursor";
        wait_until("the setting is known, the rest pins", || pins(&proxy, wire.pid) == all);
        leave(wire);
        let mut next = proxy.client();
        next.run("NOTIFY secret");
        assert_eq!(next.fail("SELECT * FROM secret").sqlstate(), "42P01");
        assert_eq!(next.fail("FETCH secret").sqlstate(), "34000");
        let rest = next.rows(
            "SELECT pg_my_temp_schema() <> 0 AND EXISTS (SELECT FROM pg_depend WHERE refobjid = pg_my_temp_schema()), \
             (SELECT count(*) FROM pg_listening_channels()), current_setting('app.secret', true)",
        );
        let rest: Vec<_> = rest[0].iter().map(|value| value.clone().unwrap_or_default()).collect();
        assert_eq!(rest, ["f", "0", ""]);
        // Its process may still be on its way out.
        wait_until("the lock is free", || next.value("SELECT pg_try_advisory_xact_lock(601)") == "t");
    }
}

#[test]
fn a_loaded_library_stays_with_its_client() {
    let auth = format!(
        "{{ users: [ {{ name: {}, password: {} }}, {{ name: {}, password: {} }} ] }}",
        APP.name, APP.password, SUPERUSER.name, SUPERUSER.password
    );
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }"), ("auth", &auth)]);
    let login = Login::new(SUPERUSER.name, SUPERUSER.password, "app");
    let mut wire = Wire::connect(proxy.port, &login).unwrap();
    let before = backend(&mut wire);
    wire.run("LOAD 'plpgsql'");
    stays_pinned(&proxy, &mut wire, "load", "LOAD");
    wire.run("DISCARD ALL");
    wait_free(&proxy, wire.pid, "DISCARD ALL");
    let after = backend(&mut wire);
    assert_ne!(after, before, "nothing unloads a library: that connection is nobody else's");
    wire.run("LOAD 'plpgsql'");
    wire.terminate();
    proxy.wait_quiet();
    assert_ne!(backend(&mut Wire::connect(proxy.port, &login).unwrap()), after);
}

#[test]
fn a_copy_keeps_its_connection_to_its_end_and_no_longer() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1, wait_timeout: 60s }")]);
    let mut wire = proxy.client();
    wire.send(&query("COPY copied FROM STDIN"));
    assert_eq!(wire.next().tag, b'G');
    wire.send(&copy_data(b"1\n"));
    let mut other = proxy.client();
    other.send(&query("INSERT INTO copied VALUES (3)"));
    wait_until("the other one waits", || proxy.pools().2 == 1);
    wire.send(&[copy_data(b"2\n"), copy_done()].concat());
    assert_eq!(tags(&wire.until_ready()), "CZ");
    assert_eq!(tags(&other.until_ready()), "CZ");
    proxy.wait_quiet();
    assert_eq!(wire.value("SELECT string_agg(n::text, ',' ORDER BY n) FROM copied"), "1,2,3");
}

#[test]
fn two_phase_commit_and_large_objects_need_no_connection_of_their_own() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let mut wire = proxy.client();
    wire.run("BEGIN");
    wire.run("SET app.phase = 'prepared'");
    wire.run("INSERT INTO prepared VALUES (1)");
    wire.run("PREPARE TRANSACTION 'two'");
    wait_free(&proxy, wire.pid, "PREPARE TRANSACTION");
    assert_eq!(wire.value("SHOW app.phase"), "prepared", "a setting is not a part of what is prepared");
    let mut other = proxy.client();
    assert_eq!(other.value("SELECT count(*) FROM prepared"), "0");
    other.run("COMMIT PREPARED 'two'");
    assert_eq!(other.value("SELECT count(*) FROM prepared"), "1");
    wire.run("BEGIN");
    wire.run("CREATE TEMP TABLE unprepared (n int)");
    assert_eq!(wire.fail("PREPARE TRANSACTION 'never'").sqlstate(), "0A000");
    wait_free(&proxy, wire.pid, "a refused PREPARE TRANSACTION");
    wire.run("BEGIN; INSERT INTO prepared VALUES (2); PREPARE TRANSACTION 'three'");
    other.run("ROLLBACK PREPARED 'three'");
    assert_eq!(wire.value("SELECT count(*) FROM prepared"), "1");

    let object = wire.value("SELECT lo_from_bytea(0, 'the first half')");
    wire.run("BEGIN");
    let handle = wire.value(&format!("SELECT lo_open({object}, x'60000'::int)"));
    assert_eq!(wire.value(&format!("SELECT lo_lseek({handle}, 0, 2)")), "14");
    assert_eq!(wire.value(&format!("SELECT lowrite({handle}, ', the second')")), "12");
    wire.run("COMMIT");
    wait_free(&proxy, wire.pid, "a large object");
    let text = other.value(&format!("SELECT convert_from(lo_get({object}), 'UTF8')"));
    assert_eq!(text, "the first half, the second");
    assert_eq!(other.value(&format!("SELECT lo_unlink({object})")), "1");
}

#[test]
fn in_session_mode_nobody_is_asked() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1, mode: session }")]);
    let mut wire = proxy.client();
    let here = backend(&mut wire);
    wire.run("LISTEN a");
    wire.run("UNLISTEN a");
    let last = format!("SELECT query FROM pg_stat_activity WHERE pid = {here}");
    for _ in 0..5 {
        assert_eq!(WORLD.cluster.primary().sql_value(&last).unwrap().as_deref(), Some("UNLISTEN a"));
    }
    assert_eq!(proxy.pools().0, 1);
}

#[test]
fn a_cancel_request_to_an_idle_listener_tells_it_nothing() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2 }")]);
    let mut wire = proxy.client();
    wire.run("LISTEN quiet");
    for _ in 0..5 {
        cancel(proxy.port, wire.pid, &wire.secret.clone());
    }
    proxy.client().run("NOTIFY quiet");
    assert_eq!(wire.next().tag, b'A');
}
