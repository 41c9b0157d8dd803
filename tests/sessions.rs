//! Sessions keep what is theirs on whatever server connection they meet, and pools keep their bounds.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wire_world.rs"]
mod wire_world;

use pgweir::devcluster::Options;
use rustix::process::Signal;
use std::sync::LazyLock;
use std::thread;
use wire_client::*;
use wire_world::*;

const TENANTS: usize = 20;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let world = World::start(Options::with_replicas(1));
    let sql = |text: &str| drop(world.cluster.primary().sql_as("app", "app", text).unwrap());
    for tenant in 0..TENANTS {
        sql(&format!("CREATE ROLE tenant_{tenant}"));
        world.cluster.primary().sql(&format!("GRANT tenant_{tenant} TO app")).unwrap();
    }
    world.cluster.primary().sql("CREATE ROLE doomed; GRANT doomed TO app").unwrap();
    for table in ["refused", "orphans", "waited"] {
        sql(&format!("CREATE TABLE {table} (n int)"));
    }
    sql("GRANT ALL ON refused TO doomed");
    world.cluster.wait_caught_up(LONG).unwrap();
    world
});

/// What a session is known by on the server: tenant, search path, time zone, role.
const WHO: &str = "SELECT current_setting('app.tenant', true), current_setting('search_path'), \
                   current_setting('TimeZone'), current_user, current_setting('work_mem')";

fn who(wire: &mut Wire) -> Vec<String> {
    let rows = wire.rows(WHO);
    rows[0].iter().map(|value| value.clone().unwrap_or_default()).collect()
}

#[test]
fn twenty_sessions_share_two_connections_and_each_keeps_its_settings() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2, wait_timeout: 60s }")]);
    let zones = ["UTC", "Asia/Tokyo", "Europe/Paris", "America/Lima"];
    let workers: Vec<_> = (0..TENANTS)
        .map(|tenant| {
            let mut wire = proxy.client();
            thread::spawn(move || {
                let zone = zones[tenant % 4];
                let mine = |memory: &str| {
                    vec![
                        format!("tenant {tenant}'s"),
                        format!("\"path {tenant}\", public"),
                        zone.to_owned(),
                        format!("tenant_{tenant}"),
                        memory.to_owned(),
                    ]
                };
                wire.run(&format!("SET app.tenant = 'tenant {tenant}''s'"));
                wire.run(&format!("SET search_path = \"path {tenant}\", public"));
                wire.run(&format!("SELECT set_config('TimeZone', '{zone}', false)"));
                wire.run(&format!("SET ROLE tenant_{tenant}"));
                for round in 0..25 {
                    assert_eq!(who(&mut wire), mine("4MB"), "round {round}");
                    match round % 5 {
                        0 => {
                            wire.run("BEGIN; SET LOCAL work_mem = '7MB'; SET LOCAL app.tenant = 'other'");
                            assert_eq!(wire.value("SHOW work_mem"), "7MB");
                            wire.run("COMMIT");
                        }
                        1 => {
                            wire.run("BEGIN");
                            wire.run("SET work_mem = '9MB'");
                            wire.run("RESET ROLE");
                            assert_eq!(wire.value("SELECT current_user"), "app");
                            wire.run("ROLLBACK");
                        }
                        2 => {
                            wire.run("SET work_mem = '11MB'");
                            assert_eq!(who(&mut wire), mine("11MB"), "round {round}");
                            wire.run("RESET work_mem");
                        }
                        3 => {
                            wire.run("BEGIN");
                            wire.run("SET work_mem = '12MB'");
                            wire.fail("SELECT 1/0");
                            wire.run("COMMIT");
                        }
                        _ => drop(wire.fail("SET work_mem = 'much'")),
                    }
                }
                wire.terminate();
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    proxy.wait_quiet();
    // Nothing of theirs is left for somebody else.
    for _ in 0..4 {
        assert_eq!(who(&mut proxy.client()), ["", "\"$user\", public", "UTC", "app", "4MB"]);
    }
}

#[test]
fn startup_options_hold_on_every_connection_and_reset_comes_back_to_them() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }")]);
    let login =
        app().with("options", "-c work_mem=5MB -c app.tenant=from\\ options").with("TimeZone", "Asia/Tokyo");
    let mut wire = Wire::connect(proxy.port, &login).unwrap();
    assert_eq!(wire.parameters["TimeZone"], "Asia/Tokyo");
    let mut other = proxy.client();
    let expected = ["from options", "\"$user\", public", "Asia/Tokyo", "app", "5MB"];
    for _ in 0..3 {
        assert_eq!(who(&mut wire), expected);
        assert_eq!(who(&mut other), ["", "\"$user\", public", "UTC", "app", "4MB"]);
        wire.run("SET work_mem = '6MB'; SET TimeZone = 'UTC'");
        wire.run("RESET work_mem");
        wire.run("RESET ALL");
    }
    wire.run("DISCARD ALL");
    assert_eq!(who(&mut wire), expected);
    let bad = app().with("options", "-c work_mem=much");
    assert_eq!(Wire::connect(proxy.port, &bad).err().unwrap().sqlstate(), "22023");
}

#[test]
fn a_request_does_not_run_when_its_sessions_settings_are_refused() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1 }"), ("routing", "{ transactions: primary }")]);
    let mut wire = proxy.client();
    wire.run("SET ROLE doomed");
    wire.run("INSERT INTO refused VALUES (1)");
    // Somebody else uses the connection in between, and the role is taken away.
    assert_eq!(proxy.client().value("SELECT current_user"), "app");
    proxy.client().run("INSERT INTO refused VALUES (2)");
    WORLD.cluster.primary().sql("REVOKE doomed FROM app").unwrap();
    assert_eq!(wire.fail("INSERT INTO refused VALUES (3)").sqlstate(), "42501");
    let group = [unnamed("INSERT INTO refused VALUES (4)", &[]), sync()].concat();
    let frames = wire.exchange(&group, 1).remove(0);
    assert_eq!(error_of(&frames).unwrap().sqlstate(), "42501");
    // In a burst, each request is refused for itself, and the open group up to its Sync.
    let burst = [query("INSERT INTO refused VALUES (5)"), group, query("INSERT INTO refused VALUES (6)")];
    for frames in wire.exchange(&burst.concat(), 3) {
        assert_eq!(tags(&frames), "EZ");
    }
    WORLD.cluster.primary().sql("GRANT doomed TO app").unwrap();
    wire.run("INSERT INTO refused VALUES (7)");
    wire.run("RESET ROLE");
    let kept = "SELECT string_agg(n::text, ',' ORDER BY n) FROM refused";
    assert_eq!(wire.value(kept), "1,2,7");
    drop(wire);
    proxy.wait_quiet();
}

#[test]
fn what_cannot_be_replayed_pins_the_session_and_discard_all_frees_it() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 3 }")]);
    let cases = [
        ("temporary_table", "CREATE TEMP TABLE mine AS SELECT 42 AS n", "SELECT n FROM mine", "42"),
        ("listen", "LISTEN pinned", "SELECT pg_listening_channels()", "pinned"),
        (
            "advisory_lock",
            "SELECT pg_advisory_lock(99)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99 AND pid = pg_backend_pid()",
            "1",
        ),
        (
            "hold_cursor",
            "BEGIN; DECLARE kept SCROLL CURSOR WITH HOLD FOR SELECT 7; COMMIT",
            "FETCH ABSOLUTE 1 FROM kept",
            "7",
        ),
    ];
    for (reason, make, ask, expected) in cases {
        let label = format!("reason=\"{reason}\"");
        let before = proxy.metric("pgweir_pins_total", &label);
        let mut wire = proxy.client();
        wire.run(make);
        assert_eq!(proxy.metric("pgweir_pins_total", &label), before + 1.0, "{reason}");
        for _ in 0..3 {
            assert_eq!(wire.value(ask), expected, "{reason}");
            // Others work beside it, on other connections.
            let mut other = proxy.client();
            other.run("BEGIN");
            other.query(ask);
            other.run("ROLLBACK");
        }
        assert!(proxy.pools().0 >= 1, "{reason}: the connection is kept");
        wire.run("DISCARD ALL");
        proxy.wait_quiet();
        let gone = wire.query(ask);
        assert!(error_of(&gone).is_some() || first_values(&gone) != [expected], "{reason}: {gone:?}");
        // Pinned, and gone without DISCARD: what it had is gone with it.
        let mut wire = proxy.client();
        wire.run(make);
        wire.terminate();
        proxy.wait_quiet();
        let gone = proxy.client().query(ask);
        assert!(error_of(&gone).is_some() || first_values(&gone) != [expected], "{reason}: {gone:?}");
    }
}

#[test]
fn in_session_mode_a_client_keeps_its_connection_and_leaves_it_clean() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1, mode: session }")]);
    let mut wire = proxy.client();
    let pid = wire.value("SELECT pg_backend_pid()");
    wire.run("SET work_mem = '33MB'");
    wire.run("DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE hidden (n int)'; END $$");
    wire.exchange(&[parse("s", "SELECT 5", &[]), sync()].concat(), 1);
    assert_eq!(wire.value("SELECT count(*) FROM hidden"), "0");
    assert_eq!(wire.value("SELECT pg_backend_pid()"), pid);
    assert_eq!(proxy.pools().0, 1);
    wire.terminate();
    proxy.wait_quiet();
    let mut next = proxy.client();
    assert_eq!(next.value("SELECT pg_backend_pid()"), pid, "the connection is used again");
    assert_eq!(next.value("SHOW work_mem"), "4MB");
    assert_eq!(next.fail("SELECT count(*) FROM hidden").sqlstate(), "42P01");
    assert_eq!(next.value("SELECT count(*) FROM pg_prepared_statements"), "0");
    // Gone in the middle of a transaction: it is not used again.
    next.run("BEGIN; INSERT INTO orphans VALUES (1)");
    next.vanish();
    proxy.wait_quiet();
    let mut last = proxy.client();
    assert_ne!(last.value("SELECT pg_backend_pid()"), pid);
}

#[test]
fn whoever_waits_too_long_for_a_connection_is_told_what_to_do() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1, wait_timeout: 200ms }")]);
    let mut holder = proxy.client();
    holder.run("BEGIN; INSERT INTO waited VALUES (1)");
    let mut wire = proxy.client();
    let error = wire.fail("INSERT INTO waited VALUES (2)");
    assert_eq!(error.sqlstate(), "53300");
    assert!(error.field(b'H').unwrap().contains("pool.size"), "{error:?}");
    let group = [unnamed("INSERT INTO waited VALUES (3)", &[]), sync()].concat();
    assert_eq!(tags(&wire.exchange(&group, 1)[0]), "EZ");
    holder.run("COMMIT");
    proxy.wait_quiet();
    wire.run("INSERT INTO waited VALUES (4)");
    assert_eq!(wire.value("SELECT string_agg(n::text, ',' ORDER BY n) FROM waited"), "1,4");
}

#[test]
fn who_waits_first_is_served_first() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1, wait_timeout: 30s }")]);
    let mut holder = proxy.client();
    holder.run("CREATE TABLE line (place serial, n int)");
    holder.run("BEGIN; SELECT txid_current()");
    let mut waiters: Vec<Wire> = (0..10).map(|_| proxy.client()).collect();
    for (n, wire) in waiters.iter_mut().enumerate() {
        wire.send(&query(&format!("INSERT INTO line (n) VALUES ({n})")));
        wait_until("it stands in line", || proxy.pools().2 == n as u64 + 1);
    }
    // Two milliseconds of waiting make up for the wrong core.
    holder.run("SELECT pg_sleep(0.05); COMMIT");
    for wire in &mut waiters {
        assert_eq!(tags(&wire.until_ready()), "CZ");
    }
    let order =
        holder.value("/* pgweir.route=primary */ SELECT string_agg(n::text, ',' ORDER BY place) FROM line");
    assert_eq!(order, "0,1,2,3,4,5,6,7,8,9");
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 1, wait_timeout: 30s }")]);
    let insert = "INSERT INTO orphans VALUES (7)";
    // In a transaction.
    let mut wire = proxy.client();
    wire.run("BEGIN");
    wire.run(insert);
    wire.vanish();
    proxy.wait_quiet();
    // While its statement runs.
    let mut wire = proxy.client();
    wire.send(&query("SELECT pg_sleep(600)"));
    let sleeps = "SELECT count(*) FROM pg_stat_activity \
                  WHERE query = 'SELECT pg_sleep(600)' AND wait_event = 'PgSleep'";
    let sleep = || {
        let nodes = WORLD.cluster.nodes().iter();
        nodes.filter(|node| node.sql_value(sleeps).unwrap().as_deref() != Some("0")).count()
    };
    wait_until("it runs", || sleep() == 1);
    wire.vanish();
    proxy.wait_quiet();
    wait_until("it is canceled", || sleep() == 0);
    // In the middle of a result.
    let mut wire = proxy.client();
    wire.send(&query("SELECT repeat('x', 10000) FROM generate_series(1, 100000)"));
    assert_eq!(wire.next().tag, b'T');
    wire.vanish();
    proxy.wait_quiet();
    // In the middle of a COPY, of a message of it, and of a statement.
    for rest in [&copy_data(b"8\n")[..], &copy_data(b"8\n")[..4], b"", b"Q\0\0\0"] {
        let mut wire = proxy.client();
        wire.send(&query("COPY orphans FROM STDIN"));
        assert_eq!(wire.next().tag, b'G');
        wire.send(rest);
        wire.vanish();
        proxy.wait_quiet();
    }
    // While it waits in line.
    let mut holder = proxy.client();
    holder.run("BEGIN; SELECT txid_current()");
    let mut wire = proxy.client();
    wire.send(&query("SELECT txid_current()"));
    wait_until("it waits", || proxy.pools().2 == 1);
    wire.vanish();
    holder.run("COMMIT");
    assert_eq!(holder.value("SELECT 1"), "1");
    drop(holder);
    proxy.wait_quiet();
    wait_until("all clients are forgotten", || proxy.clients() == 0);
    assert_eq!(
        proxy.client().value("/* pgweir.route=primary */ SELECT count(*) FROM orphans WHERE n > 6"),
        "0"
    );
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%generate_series(1, 100000)%' AND state <> 'idle'";
    wait_until("the server has stopped working for them", || {
        WORLD.cluster.nodes().iter().all(|node| node.sql_value(busy).unwrap().as_deref() == Some("0"))
    });
}

#[test]
fn settings_made_by_set_config_with_parameters_are_carried_and_do_not_pin() {
    let proxy = WORLD.proxy(&[]);
    let mut clients: Vec<Wire> = (0..6).map(|_| proxy.client()).collect();
    for (number, wire) in clients.iter_mut().enumerate() {
        let tenant = number.to_string();
        let set =
            unnamed("SELECT set_config($1, $2, false)", &[Some(b"app.tenant"), Some(tenant.as_bytes())]);
        let named = [
            parse("zone", "SELECT pg_catalog.set_config('TimeZone', $1::text, $2)", &[]),
            bind("", "zone", &[Some(format!("Etc/GMT+{number}").as_bytes()), Some(b"f")]),
            execute("", 0),
        ];
        for frames in wire.exchange(&[set, sync(), named.concat(), sync()].concat(), 2) {
            assert!(error_of(&frames).is_none(), "{frames:?}");
        }
        assert_eq!(wire.parameters["TimeZone"], format!("Etc/GMT+{number}"));
        // One that cannot be read from the message stays where it was made.
        assert_eq!(proxy.metric("pgweir_pins_total", ""), 0.0);
    }
    for _ in 0..5 {
        for (number, wire) in clients.iter_mut().enumerate() {
            let rows = wire.rows("SELECT current_setting('app.tenant'), current_setting('TimeZone')");
            assert_eq!(rows, [[Some(number.to_string()), Some(format!("Etc/GMT+{number}"))]]);
            let rows = wire.rows("/* pgweir.route=primary */ SELECT current_setting('app.tenant')");
            assert_eq!(rows, [[Some(number.to_string())]]);
        }
    }
    // What a transaction set and took back is gone.
    let wire = &mut clients[0];
    wire.run("BEGIN");
    let set = unnamed("SELECT set_config('app.tenant', $1, false)", &[Some(b"other")]);
    assert!(error_of(&wire.exchange(&[set, sync()].concat(), 1)[0]).is_none());
    assert_eq!(wire.value("SELECT current_setting('app.tenant')"), "other");
    wire.run("ROLLBACK");
    assert_eq!(wire.value("SELECT current_setting('app.tenant')"), "0");
    proxy.wait_quiet();
}

#[test]
fn idle_clients_hold_no_server_connection() {
    let proxy = WORLD.proxy(&[("pool", "{ size: 2 }")]);
    let mut clients: Vec<Wire> = (0..40).map(|_| proxy.client()).collect();
    for wire in &mut clients {
        wire.run("SET work_mem = '5MB'");
        assert_eq!(wire.value("SELECT 1"), "1");
    }
    assert_eq!(proxy.clients(), 40);
    proxy.wait_quiet();
    let (_, idle, _) = proxy.pools();
    assert!(idle <= 4, "{idle} server connections, at most two to each of two nodes");
    for wire in &mut clients {
        assert_eq!(wire.value("SHOW work_mem"), "5MB");
    }
}

#[test]
fn a_server_connection_that_is_ended_inside_a_transaction_fails_that_but_not_its_session() {
    let proxy = WORLD.proxy(&[]);
    let mut wire = proxy.client();
    wire.run("BEGIN; INSERT INTO orphans VALUES (3)");
    let pid = wire.value("SELECT pg_backend_pid()");
    WORLD.cluster.primary().sql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let error = wire.fail("INSERT INTO orphans VALUES (3)");
    assert_eq!(error.field(b'S').as_deref(), Some("ERROR"));
    assert_eq!(error.sqlstate(), "40001");
    wire.run("ROLLBACK");
    assert_eq!(wire.value("SELECT count(*) FROM orphans WHERE n = 3"), "0");
    drop(wire);
    wait_until("it has left", || proxy.status()["clients"] == 0);
    // Outside of one, nobody notices.
    let mut wire = proxy.client();
    let pid = wire.value("/* pgweir.route=primary */ SELECT pg_backend_pid()");
    WORLD.cluster.primary().sql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("it is gone", || {
        let gone = WORLD.cluster.primary().sql_value(&there).unwrap().as_deref() == Some("0");
        gone && proxy.status()["clients"] == 1
    });
    wire.run("INSERT INTO orphans VALUES (4)");
    proxy.wait_quiet();
}

#[test]
fn sighup_takes_a_good_file_and_leaves_the_old_one_running_for_a_bad_one() {
    let program = Program::start(&WORLD, &[("limits", "{ clients: 1 }")]);
    let mut first = program.client();
    assert_eq!(Wire::connect(program.port, &app()).err().unwrap().sqlstate(), "53300");
    program.write_config(&WORLD, &[("limits", "{ clients: 2 }")]);
    program.signal(Signal::HUP);
    let mut second = None;
    wait_until("the new limit holds", || {
        second = Wire::connect(program.port, &app()).ok();
        second.is_some()
    });
    program.write_config(&WORLD, &[("limits", "{ cliens: 1000 }")]);
    program.signal(Signal::HUP);
    wait_until("the mistake is reported", || program.log().contains("cliens"));
    assert_eq!(Wire::connect(program.port, &app()).err().unwrap().sqlstate(), "53300");
    assert_eq!(first.value("SELECT 1"), "1");
    assert_eq!(second.unwrap().value("SELECT 1"), "1");
}
