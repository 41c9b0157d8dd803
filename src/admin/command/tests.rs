#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use proptest::prelude::*;

fn sqlstate_of(text: &str) -> SqlState {
    parse(text.as_bytes()).unwrap_err().sqlstate
}

#[test]
fn every_list_is_shown_by_its_name_in_any_case_with_comments() {
    for (show, name, _) in Show::ALL {
        for text in [
            format!("SHOW {name}"),
            format!("show {};", name.to_ascii_uppercase()),
            format!("/* a */ Show -- b\n {name} ; ;"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), [Command::Show(show)], "{text}");
        }
    }
}

#[test]
fn several_commands_stand_in_one_text_in_order() {
    let commands = parse(b"SHOW VERSION; reload ;; show pools;").unwrap();
    assert_eq!(commands, [Command::Show(Show::Version), Command::Reload, Command::Show(Show::Pools)]);
    assert_eq!(parse(b" ; -- nothing\n").unwrap(), []);
}

#[test]
fn one_unknown_command_refuses_the_whole_text_with_a_hint() {
    for text in [
        "RELOAD; FOO",
        "SHOW",
        "SHOW CLIENTS now",
        "SELECT 2",
        "RELOAD x",
        "'open",
        "INSERT INTO t VALUES (1)",
    ] {
        let fault = parse(text.as_bytes()).unwrap_err();
        assert_eq!(fault.sqlstate, SqlState::SYNTAX_ERROR, "{text}");
        assert!(fault.hint.unwrap().contains("SHOW HELP"));
    }
}

#[test]
fn a_long_unknown_command_is_quoted_in_part() {
    let fault = parse("é".repeat(5000).as_bytes()).unwrap_err();
    assert!(fault.message.len() < 200, "{}", fault.message);
}

#[test]
fn what_only_pgbouncer_has_is_said_to_be_missing() {
    for text in ["SUSPEND", "KILL shop", "SHOW FDS", "show totals", "SHUTDOWN"] {
        assert_eq!(sqlstate_of(text), SqlState::FEATURE_NOT_SUPPORTED, "{text}");
    }
}

#[test]
fn what_operators_do_names_databases_and_nodes_as_sql_does() {
    let name = |text: &str| text.to_owned();
    let cases = [
        ("PAUSE", Operation::Pause(None)),
        ("pause Shop;", Operation::Pause(Some(name("shop")))),
        ("PAUSE \"Shop\"", Operation::Pause(Some(name("Shop")))),
        ("RESUME", Operation::Resume(None)),
        ("RESUME shop", Operation::Resume(Some(name("shop")))),
        ("BAN pg1", Operation::Ban(name("pg1"))),
        ("UNBAN \"pg-1\"", Operation::Unban(name("pg-1"))),
        ("DRAIN pg1", Operation::Drain(name("pg1"))),
    ];
    for (text, operation) in cases {
        assert_eq!(parse(text.as_bytes()).unwrap(), [Command::Operate(operation)], "{text}");
    }
    for text in ["BAN", "DRAIN", "UNBAN pg1 pg2", "PAUSE 'shop'"] {
        assert_eq!(sqlstate_of(text), SqlState::SYNTAX_ERROR, "{text}");
    }
}

#[test]
fn what_drivers_send_at_connect_is_accepted() {
    let cases = [
        ("SET extra_float_digits = 3", Command::Nothing("SET")),
        ("SET application_name = 'PostgreSQL JDBC Driver'", Command::Nothing("SET")),
        ("RESET ALL", Command::Nothing("RESET")),
        ("DISCARD ALL", Command::Nothing("DISCARD")),
        ("UNLISTEN *", Command::Nothing("UNLISTEN")),
        ("BEGIN READ ONLY", Command::Begin),
        ("START TRANSACTION", Command::Begin),
        ("commit work", Command::Commit),
        ("ROLLBACK", Command::Rollback),
        ("DEALLOCATE ALL", Command::Deallocate(None)),
        ("DEALLOCATE \"_Pg\"\"3\"", Command::Deallocate(Some(b"_Pg\"3".to_vec()))),
        ("DEALLOCATE PREPARE Ab", Command::Deallocate(Some(b"ab".to_vec()))),
    ];
    for (text, command) in cases {
        assert_eq!(parse(text.as_bytes()).unwrap(), [command], "{text}");
    }
}

#[test]
fn single_values_have_the_column_that_the_server_would_name() {
    let cases = [
        ("SELECT 1", "?column?", Value::Fixed("1")),
        ("select pg_catalog.version()", "version", Value::Fixed(VERSION)),
        ("SELECT current_user", "current_user", Value::User),
        ("SHOW server_encoding", "server_encoding", Value::Fixed("UTF8")),
        ("SHOW TimeZone", "TimeZone", Value::Fixed("UTC")),
        ("SHOW TRANSACTION ISOLATION LEVEL", "transaction_isolation", Value::Fixed("read committed")),
    ];
    for (text, expected_column, expected_value) in cases {
        let commands = parse(text.as_bytes()).unwrap();
        let [Command::Value { column, value, .. }] = commands.as_slice() else {
            panic!("{text}: {commands:?}")
        };
        assert_eq!((*column, *value), (&[expected_column][..], expected_value), "{text}");
    }
}

#[test]
fn a_savepoint_is_not_taken_for_the_end_of_the_transaction() {
    for text in ["ROLLBACK TO SAVEPOINT a", "COMMIT PREPARED 'x'", "ROLLBACK AND CHAIN"] {
        assert_eq!(sqlstate_of(text), SqlState::SYNTAX_ERROR, "{text}");
    }
}

proptest! {
    #[test]
    fn random_texts_are_read_or_refused_but_never_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text);
    }
}
