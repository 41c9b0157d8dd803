//! Groups as drivers send them, and what becomes of each.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::session::fixtures::{Known, class};
use crate::session::group::{GroupBuilder, Scan};
use crate::session::prepared::{Scope, Statement};
use crate::session::settings::{Settings, Value};
use crate::session::state::SessionState;
use crate::wire::writers;
use std::sync::Arc;

/// A session with these settings that has prepared BEGIN, COMMIT and two reads under names.
fn session(settings: &[(&str, &str)]) -> Session {
    let all = settings.iter().map(|(name, value)| ((*name).to_owned(), Value::Text((*value).into())));
    let mut session = Session::new(SessionState::new(Arc::new(Settings::from_pairs(all))));
    let prepared = [("b", "BEGIN"), ("c", "COMMIT"), ("r", "SELECT $1"), ("n", "SELECT date 'today'")];
    for (name, text) in prepared {
        let statement = Statement {
            id: 1,
            server_name: name.as_bytes().into(),
            text: text.as_bytes().into(),
            types: [0, 0].into(),
            scope: Scope::default(),
        };
        session.remember(name.as_bytes(), Arc::new(statement), class(text.as_bytes()), 1);
    }
    session
}

/// `Q text`, `P name text`, `B portal name [value]`, `D`, `E [limit]`, `S`, `H`; messages are parted by `|`.
fn bytes(script: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for message in script.split('|').map(str::trim) {
        let (tag, rest) = message.split_once(' ').unwrap_or((message, ""));
        let mut parts = rest.splitn(3, ' ').map(|part| if part == "-" { "" } else { part });
        match tag {
            "Q" => writers::query(&mut out, rest.as_bytes()),
            "P" => {
                let (name, text) = rest.split_once(' ').unwrap();
                let name = if name == "-" { "" } else { name };
                writers::parse(&mut out, name.as_bytes(), text.as_bytes(), &[0, 0]);
            }
            "B" => {
                let (portal, name, value) = (parts.next().unwrap(), parts.next().unwrap(), parts.next());
                let mut behind = vec![0, 0];
                match value {
                    None => behind.extend([0, 0, 0, 0]),
                    Some(value) => {
                        behind.extend([0, 1, 0, 0, 0, u8::try_from(value.len()).unwrap()]);
                        behind.extend(value.as_bytes());
                        behind.extend([0, 0]);
                    }
                }
                writers::bind_head(&mut out, portal.as_bytes(), name.as_bytes(), behind.len());
                out.extend(behind);
            }
            "D" => writers::message(&mut out, b'D', |out| out.extend(b"P\0")),
            "E" => {
                let limit: u32 = rest.parse().unwrap_or(0);
                writers::message(&mut out, b'E', |out| {
                    out.push(0);
                    out.extend(limit.to_be_bytes());
                });
            }
            "S" => out.extend(writers::SYNC),
            "H" => writers::message(&mut out, b'H', |_| {}),
            other => panic!("{other}"),
        }
    }
    out
}

fn group(bytes: &[u8], session: &Session) -> Group {
    match GroupBuilder::default().scan(bytes, 1 << 20, &mut Known(session)).unwrap() {
        Scan::Group(group) => group,
        other => panic!("{other:?}"),
    }
}

fn idle(script: &str, session: &Session) -> Part {
    let bytes = bytes(script);
    of_idle(&group(&bytes, session), &bytes, session, || true)
}

fn promised(script: &str, failed: bool) -> Part {
    let (bytes, session) = (bytes(script), session(&[]));
    of_promised(&group(&bytes, &session), &bytes, &session, failed)
}

#[test]
fn what_a_group_is_where_no_transaction_is_open() {
    let session = session(&[]);
    for (script, expected) in [
        ("Q BEGIN", Part::Answered),
        ("Q START TRANSACTION ISOLATION LEVEL READ COMMITTED", Part::Answered),
        ("P - BEGIN | B - - | E | S", Part::Answered),
        ("P - BEGIN | B - - | D | E | S", Part::Answered),
        ("B - b | E | S", Part::Answered),
        ("P x BEGIN | B - x | E 1 | S", Part::Other),
        ("P b BEGIN | B - b | E | S", Part::Other),
        ("B - b 1 | E | S", Part::Other),
        ("B p b | E | S", Part::Other),
        ("P - BEGIN | B - - | S", Part::Other),
        ("P - BEGIN | B - - | E | H", Part::Other),
        ("P - BEGIN | S", Part::Other),
        // JDBC.
        ("P - BEGIN | B - - | E | P - SELECT 1 | B - - | D | E | S", Part::Begins),
        ("B - b | E | B - r 7 | D | E | S", Part::Begins),
        ("B - b | E | P x SELECT 1 | S", Part::Begins),
        ("B - b | E | B - r 7 | E 10 | S", Part::Other),
        ("B - b | E | B p r 7 | E | S", Part::Other),
        ("B - b | E | B - r now | E | S", Part::Other),
        ("B - b | E | B - n | E | S", Part::Other),
        ("B - b | E | P - INSERT INTO t VALUES (1) | B - - | E | S", Part::Other),
        ("B - b | E | P - INSERT INTO t VALUES (1) | S", Part::Other),
        ("B - b | E | P - SELECT now() | B - - | E | S", Part::Other),
        ("B - b | E | P - SELECT 1 FOR UPDATE | B - - | E | S", Part::Other),
        ("B - b | E | P - SET LOCAL a = 1 | B - - | E | S", Part::Other),
        ("B - b | E | B - c | E | S", Part::Other),
        ("B - b | E | B - b | E | S", Part::Other),
        ("B - r 7 | E | B - b | E | S", Part::Other),
        ("Q BEGIN; SELECT 1", Part::Other),
        ("Q BEGIN READ ONLY", Part::Other),
        ("Q BEGIN ISOLATION LEVEL SERIALIZABLE", Part::Other),
        ("Q COMMIT", Part::Other),
        ("Q SELECT 1", Part::Other),
        ("Q INSERT INTO t VALUES (1)", Part::Other),
    ] {
        assert_eq!(idle(script, &session), expected, "{script}");
    }
    let bytes = bytes("Q BEGIN");
    assert_eq!(of_idle(&group(&bytes, &session), &bytes, &session, || false), Part::Other);
}

#[test]
fn the_sessions_settings_decide_what_a_plain_begin_is() {
    for (name, value, expected) in [
        ("default_transaction_isolation", "read committed", Part::Answered),
        ("default_transaction_isolation", "Repeatable Read", Part::Other),
        ("default_transaction_isolation", "serializable", Part::Other),
        ("default_transaction_isolation", "read uncommitted", Part::Other),
        ("default_transaction_read_only", "off", Part::Answered),
        ("default_transaction_read_only", "on", Part::Other),
        ("default_transaction_deferrable", "true", Part::Other),
        ("idle_in_transaction_session_timeout", "0", Part::Answered),
        ("idle_in_transaction_session_timeout", "10s", Part::Other),
        ("transaction_timeout", "5000", Part::Other),
        ("work_mem", "7MB", Part::Answered),
    ] {
        assert_eq!(idle("Q BEGIN", &session(&[(name, value)])), expected, "{name} = {value}");
    }
    let serializable = session(&[("default_transaction_isolation", "serializable")]);
    assert_eq!(idle("Q BEGIN ISOLATION LEVEL READ COMMITTED", &serializable), Part::Answered);
}

#[test]
fn what_a_group_is_in_a_transaction_that_was_promised() {
    for (script, expected, failed) in [
        ("Q COMMIT", Part::Answered, Part::Answered),
        ("Q ROLLBACK;", Part::Answered, Part::Answered),
        ("B - c | E | S", Part::Answered, Part::Answered),
        ("P - END | B - - | D | E | S", Part::Answered, Part::Answered),
        ("Q COMMIT AND CHAIN", Part::Other, Part::Other),
        ("Q COMMIT; SELECT 1", Part::Other, Part::Other),
        ("B - r 7 | E | B - c | E | S", Part::Other, Part::Other),
        ("Q BEGIN", Part::Other, Part::Other),
        ("Q SAVEPOINT a", Part::Other, Part::Other),
        ("Q SELECT 1", Part::Reads, Part::Other),
        ("Q SELECT 1; SELECT 2", Part::Reads, Part::Other),
        ("Q  ", Part::Reads, Part::Other),
        ("Q COPY (SELECT 1) TO STDOUT", Part::Reads, Part::Other),
        ("B - r 7 | E | S", Part::Reads, Part::Other),
        ("P x INSERT INTO t VALUES (1) | S", Part::Reads, Part::Other),
        ("B - r 7 | E 1 | S", Part::Other, Part::Other),
        ("B p r 7 | E | S", Part::Other, Part::Other),
        ("B - r 7 | S", Part::Other, Part::Other),
        ("E | S", Part::Other, Part::Other),
        ("B - r today | E | S", Part::Other, Part::Other),
        ("B - n | E | S", Part::Other, Part::Other),
        ("Q SELECT now()", Part::Other, Part::Other),
        ("Q SELECT 'now'::date", Part::Other, Part::Other),
        ("Q SELECT 1 FOR UPDATE", Part::Other, Part::Other),
        ("Q SELECT nextval('s')", Part::Other, Part::Other),
        ("Q SET LOCAL a = 1", Part::Other, Part::Other),
        ("Q DECLARE c CURSOR FOR SELECT 1", Part::Other, Part::Other),
        ("Q SHOW pgweir.route", Part::Other, Part::Other),
        ("B - r 7 | E | H", Part::Other, Part::Other),
    ] {
        assert_eq!(promised(script, false), expected, "{script}");
        assert_eq!(promised(script, true), failed, "{script}, failed");
    }
}
