#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::admin::command::Show;
use crate::wire::backend;
use crate::wire::frame::{HEADER_LEN, header};
use proptest::prelude::*;

/// A client that is answered at once: SHOW VERSION gives three rows, RELOAD fails.
#[derive(Default)]
struct Talk {
    conversation: Conversation,
    closed: bool,
}

impl Talk {
    /// The tags of what comes back, with errors as `E:` and their SQLSTATE, and Z with its status.
    fn say(&mut self, frames: &[Vec<u8>]) -> String {
        let mut out = Vec::new();
        for frame in frames {
            let mut next = self.conversation.on_frame(frame, &mut out);
            while let Next::Run(command) = next {
                next = self.conversation.on_answer(answer(&command), &mut out);
            }
            self.closed |= next == Next::Close;
        }
        transcript(&out)
    }

    fn query(&mut self, text: &str) -> String {
        let mut frame = Vec::new();
        writers::query(&mut frame, text.as_bytes());
        self.say(&[frame])
    }
}

fn answer(command: &Command) -> Result<Answer, Fault> {
    match command {
        Command::Reload => Err(Fault::proxy(SqlState::INVALID_PARAMETER_VALUE, "bad file").detail("line 1")),
        _ => Ok(Answer::show(vec![vec![Some("a".to_owned())], vec![None], vec![Some(String::new())]])),
    }
}

fn transcript(mut bytes: &[u8]) -> String {
    let mut said = Vec::new();
    while let Some(head) = header(bytes, usize::MAX).unwrap() {
        let (frame, rest) = bytes.split_at(head.frame_len);
        said.push(match head.tag {
            b'E' => format!("E:{}", backend::error(frame).sqlstate.unwrap()),
            b'Z' => format!("Z{}", char::from(frame[HEADER_LEN])),
            tag => char::from(tag).to_string(),
        });
        bytes = rest;
    }
    assert!(bytes.is_empty());
    said.join(" ")
}

fn parse_frame(name: &str, text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    writers::parse(&mut frame, name.as_bytes(), text.as_bytes(), &[0, 0]);
    frame
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    writers::message(&mut frame, tag, |out| out.extend_from_slice(body));
    frame
}

fn bind_frame(portal: &str, statement: &str) -> Vec<u8> {
    let body = format!("{portal}\0{statement}\0\0\0\0\0\0\x01\0\x01");
    message(b'B', body.as_bytes())
}

fn execute_frame(portal: &str, rows: u8) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, rows]].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

#[test]
fn a_query_is_answered_with_columns_rows_tag_and_status() {
    let mut talk = Talk::default();
    assert_eq!(talk.query("SHOW VERSION"), "T D D D C ZI");
    assert_eq!(talk.query(" ; "), "I ZI");
    assert_eq!(talk.query("SET a = 1; SHOW POOLS; RESET ALL;"), "C T D D D C C ZI");
}

#[test]
fn the_first_error_ends_a_query_and_what_is_unknown_runs_nothing() {
    let mut talk = Talk::default();
    assert_eq!(talk.query("SHOW VERSION; RELOAD; SHOW VERSION"), "T D D D C E:22023 ZI");
    assert_eq!(talk.query("SHOW VERSION; NONSENSE"), "E:42601 ZI");
    assert_eq!(talk.query("SUSPEND"), "E:0A000 ZI");
    assert_eq!(talk.query("SHOW VERSION"), "T D D D C ZI");
}

#[test]
fn a_transaction_is_a_status_and_fails_as_a_server_s_does() {
    let mut talk = Talk::default();
    assert_eq!(talk.query("BEGIN"), "C ZT");
    assert_eq!(talk.query("SHOW VERSION"), "T D D D C ZT");
    assert_eq!(talk.query("NONSENSE"), "E:42601 ZE");
    assert_eq!(talk.query("SHOW VERSION"), "E:25P02 ZE");
    assert_eq!(talk.query("COMMIT"), "C ZI");
    assert_eq!(talk.query("BEGIN; COMMIT"), "C C ZI");
}

#[test]
fn the_extended_protocol_describes_and_executes() {
    let mut talk = Talk::default();
    let describe = |what: &[u8]| message(b'D', what);
    let frames = [
        parse_frame("s", "SHOW CLIENTS"),
        describe(b"Ss\0"),
        bind_frame("", "s"),
        describe(b"P\0"),
        execute_frame("", 0),
        sync(),
    ];
    assert_eq!(talk.say(&frames), "1 t T 2 T D D D C ZI");
    let frames = [parse_frame("", "SET a = 1"), bind_frame("", ""), describe(b"P\0"), execute_frame("", 0)];
    assert_eq!(talk.say(&frames), "1 2 n C");
    let frames = [parse_frame("", ""), bind_frame("", ""), describe(b"P\0"), execute_frame("", 0), sync()];
    assert_eq!(talk.say(&frames), "1 2 n I ZI");
    assert_eq!(talk.say(&[message(b'C', b"Ss\0"), message(b'C', b"Snone\0"), sync()]), "3 3 ZI");
    assert_eq!(talk.say(&[bind_frame("", "s"), sync()]), "E:26000 ZI");
}

#[test]
fn a_portal_is_read_in_pieces_until_its_transaction_ends() {
    let mut talk = Talk::default();
    let first = [parse_frame("", "SHOW CLIENTS"), bind_frame("p", ""), execute_frame("p", 2)];
    assert_eq!(talk.say(&first), "1 2 D D s");
    assert_eq!(talk.say(&[execute_frame("p", 2), sync()]), "D C ZI");
    assert_eq!(talk.say(&[execute_frame("p", 0), sync()]), "E:34000 ZI");
    talk.query("BEGIN");
    assert_eq!(talk.say(&[parse_frame("", "SHOW CLIENTS"), bind_frame("p", ""), sync()]), "1 2 ZT");
    assert_eq!(talk.say(&[execute_frame("p", 1), sync()]), "D s ZT");
}

#[test]
fn behind_an_error_everything_is_skipped_up_to_sync() {
    let mut talk = Talk::default();
    let mut query = Vec::new();
    writers::query(&mut query, b"SHOW VERSION");
    let frames = [
        parse_frame("", "NONSENSE"),
        bind_frame("", ""),
        execute_frame("", 0),
        query,
        message(b'H', b""),
        sync(),
    ];
    assert_eq!(talk.say(&frames), "E:42601 ZI");
    let frames =
        [parse_frame("", "RELOAD"), bind_frame("", ""), execute_frame("", 0), execute_frame("", 0), sync()];
    assert_eq!(talk.say(&frames), "1 2 E:22023 ZI");
}

#[test]
fn parameters_and_multiple_commands_are_refused_in_prepared_statements() {
    let mut talk = Talk::default();
    assert_eq!(talk.say(&[parse_frame("", "SHOW POOLS; SHOW POOLS"), sync()]), "E:42601 ZI");
    let mut typed = Vec::new();
    writers::parse(&mut typed, b"", b"SHOW POOLS", &[0, 1, 0, 0, 0, 23]);
    assert_eq!(talk.say(&[typed, sync()]), "E:0A000 ZI");
    let bound = message(b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0");
    assert_eq!(talk.say(&[parse_frame("", "SHOW POOLS"), bound, sync()]), "1 E:08P01 ZI");
    for rest in [&b"\0\0"[..], b"\0\0\0\0\0\x01", b"\0\x01\0\x02\0\0\0\0", b"\0\0\0\0\0\0x", b"\xff\xff"] {
        let frame = message(b'B', &[b"\0\0", rest].concat());
        assert_eq!(talk.say(&[frame, sync()]), "E:08P01 ZI", "{rest:?}");
    }
}

#[test]
fn statements_and_portals_are_bounded_and_their_names_unique() {
    let mut talk = Talk::default();
    for number in 0..STATEMENTS_MAX {
        assert_eq!(talk.say(&[parse_frame(&format!("s{number}"), "SHOW POOLS")]), "1");
    }
    assert_eq!(talk.say(&[parse_frame("s0", "SHOW POOLS"), sync()]), "E:42P05 ZI");
    assert_eq!(talk.say(&[parse_frame("one more", "SHOW POOLS"), sync()]), "E:54000 ZI");
    assert_eq!(talk.query("DEALLOCATE s0; DEALLOCATE s0"), "C E:26000 ZI");
    assert_eq!(talk.say(&[parse_frame("one more", "SHOW POOLS"), sync()]), "1 ZI");
    for number in 0..PORTALS_MAX {
        assert_eq!(talk.say(&[bind_frame(&format!("p{number}"), "s1")]), "2");
    }
    assert_eq!(talk.say(&[bind_frame("q", "s1"), sync()]), "E:54000 ZI");
    assert_eq!(talk.say(&[bind_frame("q", "s1"), bind_frame("q", "s1"), sync()]), "2 E:42P03 ZI");
    assert_eq!(talk.query("DEALLOCATE ALL"), "C ZI");
    assert_eq!(talk.say(&[bind_frame("", "s1"), sync()]), "E:26000 ZI");
}

#[test]
fn unknown_messages_close_and_a_terminate_does_so_silently() {
    for tag in [b'p', b'?', 0] {
        let mut talk = Talk::default();
        assert_eq!(talk.say(&[message(tag, b"")]), "E:08P01");
        assert!(talk.closed);
    }
    let mut talk = Talk::default();
    assert_eq!(talk.say(&[message(b'X', b"")]), "");
    assert!(talk.closed);
}

#[test]
fn malformed_bodies_and_function_calls_are_errors_that_the_client_survives() {
    let mut talk = Talk::default();
    assert_eq!(talk.say(&[message(b'Q', b"SHOW")]), "E:08P01 ZI");
    assert_eq!(talk.say(&[message(b'P', b"x"), sync()]), "E:08P01 ZI");
    assert_eq!(talk.say(&[message(b'F', b"")]), "E:0A000 ZI");
    assert_eq!(talk.say(&[message(b'd', b"x"), message(b'c', b"")]), "");
    assert!(!talk.closed);
}

#[test]
fn a_notice_goes_before_the_tag() {
    let mut conversation = Conversation::default();
    let (mut frame, mut out) = (Vec::new(), Vec::new());
    writers::query(&mut frame, b"RELOAD");
    assert_eq!(conversation.on_frame(&frame, &mut out), Next::Run(Command::Reload));
    let answer = Answer { notice: Some("pools changed".to_owned()), ..Answer::done("RELOAD") };
    assert_eq!(conversation.on_answer(Ok(answer), &mut out), Next::Read);
    assert_eq!(transcript(&out), "N C ZI");
}

#[test]
fn every_command_with_rows_is_described_by_as_many_columns() {
    for (show, ..) in Show::ALL {
        assert!(columns_of(&Command::Show(show)).is_some_and(|columns| !columns.is_empty()));
    }
}

proptest! {
    #[test]
    fn random_frames_in_any_order_never_panic_and_keep_every_bound(
        frames in prop::collection::vec((prop::sample::select(b"QPBDECSHFdcfp?".to_vec()), prop::collection::vec(any::<u8>(), 0..40)), 0..60)
    ) {
        let mut talk = Talk::default();
        for (tag, body) in frames {
            talk.say(&[message(tag, &body)]);
            prop_assert!(talk.conversation.statements.len() <= STATEMENTS_MAX + 1);
            prop_assert!(talk.conversation.portals.len() <= PORTALS_MAX + 1);
        }
    }
}
