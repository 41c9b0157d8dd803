//! What can be said again, how, and when its answers are the same.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::session::fixtures::{Known, class};
use crate::session::group::{GroupBuilder, Scan};
use crate::session::prepared::Statement;
use crate::session::settings::Settings;
use crate::session::state::SessionState;
use std::sync::Arc;

const KEY: [u64; 2] = [1, 2];

/// A session that has prepared a read, a BEGIN, a write and a setting.
fn session() -> Session {
    let mut session = Session::new(SessionState::new(Arc::new(Settings::default())));
    let texts = [
        ("r", "SELECT $1"),
        ("b", "BEGIN"),
        ("w", "INSERT INTO t VALUES ($1)"),
        ("s", "SELECT set_config('app.tenant', $1, true)"),
        ("g", "SELECT set_config('app.tenant', $1, false)"),
    ];
    for (name, text) in texts {
        let statement = Statement { text: text.as_bytes().into(), ..plain() };
        session.remember(name.as_bytes(), Arc::new(statement), class(text.as_bytes()), 1);
    }
    let in_sql =
        Statement { text: b"SELECT $1".as_slice().into(), types: b"\xff\xff(int)"[..].into(), ..plain() };
    session.remember(b"q", Arc::new(in_sql), class(b"SELECT $1"), 1);
    session
}

fn plain() -> Statement {
    Statement {
        id: 1,
        server_name: b"server's"[..].into(),
        text: Default::default(),
        types: [0, 0].into(),
        scope: Default::default(),
    }
}

/// `Q text`, `P name text`, `B portal name`, `D portal`, `DS name`, `E [limit]`, `C name`, `H`, `S`.
fn bytes(script: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let name = |name: &str| if name == "-" { Vec::new() } else { name.as_bytes().to_vec() };
    for message in script.split('|').map(str::trim) {
        let (tag, rest) = message.split_once(' ').unwrap_or((message, ""));
        match tag {
            "Q" => writers::query(&mut out, rest.as_bytes()),
            "P" => {
                let (given, text) = rest.split_once(' ').unwrap();
                writers::parse(&mut out, &name(given), text.as_bytes(), &[0, 0]);
            }
            "B" => {
                let (portal, statement) = rest.split_once(' ').unwrap();
                let behind = b"\0\0\0\x01\0\0\0\x01x\0\0";
                writers::bind_head(&mut out, &name(portal), &name(statement), behind.len());
                out.extend(behind);
            }
            "D" => writers::message(&mut out, b'D', |out| out.extend(b"P\0")),
            "DS" => writers::statement(&mut out, b'D', &name(rest)),
            "C" => writers::statement(&mut out, b'C', &name(rest)),
            "E" => {
                let limit: u32 = rest.parse().unwrap_or(0);
                writers::message(&mut out, b'E', |out| {
                    out.push(0);
                    out.extend(limit.to_be_bytes());
                });
            }
            "H" => writers::message(&mut out, b'H', |_| {}),
            "S" => out.extend(writers::SYNC),
            other => panic!("{other}"),
        }
    }
    out
}

fn again(script: &str) -> Option<Vec<u8>> {
    again_within(script, usize::MAX)
}

fn again_within(script: &str, room: usize) -> Option<Vec<u8>> {
    let (session, bytes) = (session(), bytes(script));
    match GroupBuilder::default().scan(&bytes, 1 << 20, &mut Known(&session)).unwrap() {
        Scan::Group(group) => {
            transcribed(&group, &bytes[..group.len], &session, Dialect::STANDARD, room, &mut class)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_only_reads_or_ends_with_its_transaction_is_said_again() {
    for script in [
        "Q BEGIN ISOLATION LEVEL REPEATABLE READ",
        "Q BEGIN; SET LOCAL work_mem = '5MB'; SELECT 1; SAVEPOINT a; SHOW transaction_isolation",
        "Q SELECT a FROM t; SELECT 2",
        "Q SELECT now()",
        "Q SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "Q SET LOCAL ROLE reader",
        "Q SAVEPOINT a",
        "Q ROLLBACK TO a",
        "Q RELEASE a",
        "Q SELECT set_config('app.tenant', 'x', true)",
        "Q SHOW transaction_isolation",
        "Q SELECT * FROM pg_stat_activity",
        "Q ",
    ] {
        assert_eq!(again(script), Some(bytes(script)), "{script}");
    }
    for script in [
        "Q COMMIT",
        "Q ROLLBACK",
        "Q COMMIT AND CHAIN",
        "Q BEGIN; SELECT 1; COMMIT",
        "Q BEGIN; INSERT INTO t VALUES (1)",
        "Q BEGIN; SELECT nextval('s')",
        "Q SELECT 1; SELECT nextval('s')",
        "Q SAVEPOINT a; SELECT pg_advisory_xact_lock(1)",
        "Q SELECT 1 FROM t FOR UPDATE",
        "Q SELECT set_config('app.tenant', 'x', true), nextval('s')",
        "Q SELECT set_config('app.tenant', 'x', false)",
        "Q SET work_mem = '5MB'",
        "Q SET TRANSACTION SNAPSHOT '00000003-1'",
        "Q RESET ALL",
        "Q LISTEN c",
        "Q LOCK TABLE t",
        "Q DECLARE c CURSOR FOR SELECT 1",
        "Q FETCH c",
        "Q PREPARE p AS SELECT 1",
        "Q EXECUTE r(1)",
        "Q COPY t TO STDOUT",
        "Q CREATE TEMP TABLE x (a int)",
        "Q SELECT 1 INTO x",
        "Q SELECT txid_current()",
        "Q SELECT pg_export_snapshot()",
        "Q SET LOCAL pgweir.route = 'replica'",
        "Q DO $$ BEGIN END $$",
        "Q CALL p()",
        "Q BEGIN; SELECT 'unfinished",
    ] {
        assert_eq!(again(script), None, "{script}");
    }
}

#[test]
fn names_become_the_unnamed_statement() {
    let (read, tenant) = ("SELECT $1", "SELECT set_config('app.tenant', $1, true)");
    for (script, expected) in [
        ("B - r | E | S", format!("P - {read} | B - - | E | S")),
        ("P x SELECT 1 | DS x | S", "P - SELECT 1 | DS - | S".to_owned()),
        // Not executed.
        ("P x INSERT INTO t VALUES (1) | DS x | S", "P - INSERT INTO t VALUES (1) | DS - | S".to_owned()),
        ("P x SELECT 1 | DS x | H", "P - SELECT 1 | DS -".to_owned()),
        ("B - s | E | S", format!("P - {tenant} | B - - | E | S")),
        // JDBC begins in the same breath.
        (
            "B - b | E | P - SELECT 2 | B - - | D | E | B - r | E | C r | S",
            format!("P - BEGIN | B - - | E | P - SELECT 2 | B - - | D | E | P - {read} | B - - | E | S"),
        ),
        ("B - r | E | B - r | E | S", format!("P - {read} | B - - | E | B - - | E | S")),
    ] {
        assert_eq!(again(script), Some(bytes(&expected)), "{script}");
    }
    for script in [
        "B - w | E | S",
        "B - r | E | B - w | E | S",
        "B - g | E | S",
        "B - unknown | E | S",
        // Its types stand in SQL.
        "B - q | E | S",
        // Portals that outlive their group, or are of an earlier one.
        "B p r | E | S",
        "B - r | E 5 | S",
        "E | S",
        "B - r | H",
    ] {
        assert_eq!(again(script), None, "{script}");
    }
}

#[test]
fn the_checksum_is_of_the_bytes_whatever_the_pieces() {
    let answer: Vec<u8> = (0..100).collect();
    let mut digest = AnswerDigest::new(KEY);
    digest.take(&answer);
    let whole = digest.finish();
    for size in 1..=answer.len() {
        answer.chunks(size).for_each(|piece| digest.take(piece));
        assert_eq!(digest.finish(), whole, "{size}");
    }
    for other in [&answer[..99], &[answer.clone(), vec![0]].concat(), &[0; 100], &[]] {
        digest.take(other);
        assert_ne!(digest.finish(), whole);
    }
    let mut keyed = AnswerDigest::new([1, 3]);
    keyed.take(&answer);
    assert_ne!(keyed.finish(), whole);
}

#[test]
fn all_answers_have_to_come_again_in_order() {
    let mut transcript = Transcript::default();
    let said = [bytes("Q BEGIN"), bytes("P - SELECT 1 | DS - | B - - | D | E | S"), bytes("Q SELECT 2")];
    for (said, answer) in said.iter().zip(1..) {
        assert!(transcript.note(said, answer, 1000));
    }
    let mut say = |answers: &[Option<u128>]| {
        let (mut out, mut exchange) = (Vec::new(), Exchange::default());
        transcript.say(&mut out, &mut exchange, Moment(1));
        assert_eq!(out, said.concat());
        assert_eq!((exchange.groups.len(), exchange.queue.groups(), exchange.queue.len()), (3, 3, 8));
        answers.iter().for_each(|answer| transcript.answered(*answer));
        transcript.is_same()
    };
    assert!(say(&[Some(1), Some(2), Some(3)]));
    for other in [
        vec![Some(1), Some(2)],
        vec![Some(1), Some(2), None],
        vec![Some(2), Some(1), Some(3)],
        vec![Some(1), Some(9), Some(3)],
        vec![Some(1), Some(2), Some(3), Some(3)],
        vec![],
    ] {
        assert!(!say(&other), "{other:?}");
    }
    assert!(say(&[Some(1), Some(2), Some(3)]));
}

#[test]
fn a_transcript_is_bounded_in_bytes_and_in_number() {
    let mut transcript = Transcript::default();
    assert!(transcript.note(&[0; 60], 1, 100));
    assert!(!transcript.note(&[0; 60], 1, 100));
    let mut transcript = Transcript::default();
    assert_eq!((0..2000).take_while(|_| transcript.note(b"", 1, 100)).count(), GROUPS_MAX);
}

#[test]
fn what_takes_more_room_than_there_is_is_not_remembered() {
    let read = "Q SELECT a FROM t";
    let len = bytes(read).len();
    assert_eq!(again_within(read, len), Some(bytes(read)));
    assert_eq!(again_within(read, len - 1), None);
    assert_eq!(again_within("Q ", 0), None);
    // Each Bind takes its statement with it, if another one was said before.
    let long = format!("SELECT '{}'", "x".repeat(1000));
    let binds = "B - s | E | B - t | E |".repeat(10);
    let script = format!("P s {long} | P t {long}, 2 | {binds} S");
    let len = again(&script).unwrap().len();
    assert!(len > 20 * 1000 && bytes(&script).len() < 4000, "{len}");
    assert_eq!(again_within(&script, len).map(|said| said.len()), Some(len));
    assert_eq!(again_within(&script, len - 1), None);
    assert_eq!(again_within(&script, 4000), None);
}

#[test]
fn what_is_in_flight_takes_room_as_well() {
    let mut exchange = Exchange::default();
    let read = bytes("P - SELECT 1 | H");
    let open = match GroupBuilder::default().scan(&read, 1 << 20, &mut Known(&session())).unwrap() {
        Scan::Group(group) => group,
        other => panic!("{other:?}"),
    };
    let mut begin = |piece: Option<&[u8]>, complete: bool| {
        let group = Group { complete, ..open };
        let mut record = GroupRecord::internal(Errand::Replay, Moment(1));
        record.transcribed = piece.map(<[u8]>::to_vec);
        exchange.begin(&group, record);
        let last = exchange.groups.back().and_then(|last| last.transcribed.clone());
        (last, room(100, None, &exchange))
    };
    assert_eq!(begin(Some(&[1; 10]), true), (Some(vec![1; 10]), 90));
    // Pieces of one group are said in one.
    assert_eq!(begin(Some(&[2; 20]), false), (Some(vec![2; 20]), 70));
    assert_eq!(begin(Some(&[2; 5]), false), (Some(vec![2; 25]), 65));
    // One that is not remembered takes its group with it, and what comes behind it.
    assert_eq!(begin(None, false), (None, 90));
    assert_eq!(begin(Some(&[2; 5]), true), (None, 90));
    assert_eq!(begin(Some(&[3; 95]), true), (Some(vec![3; 95]), 0));
    let mut transcript = Transcript::default();
    assert!(transcript.note(&[0; 60], 1, 100));
    assert_eq!(room(100, Some(&transcript), &Exchange::default()), 40);
    assert_eq!(room(0, Some(&transcript), &Exchange::default()), 0);
}
