//! What counts as the same answer of PostgreSQL and of pgweir.
//!
//! Frames are equal byte for byte, with these differences and no others:
//!
//! - BackendKeyData: the key of a session is pgweir's own. (It comes at login, which is not compared.)
//! - `in_hot_standby`: never reported after login, because a session behind pgweir can write.
//! - ParameterStatus messages in a row may come in another order: PostgreSQL promises none.
//! - File, line and routine of an error: some errors are found by pgweir itself.
//! - The answer of a group that Terminate cuts off before its Sync: nobody reads it.
//! - Which of two errors comes first in a failed transaction: 25P02 instead of 08P01 for a Bind with the
//!   wrong number of parameters, where its statement had to be parsed again behind a request that may fail;
//!   or instead of 42P05, where a name that is taken is given to a COMMIT or ROLLBACK.
//! - The statement's name in an error: one that the same burst has closed is the server's own by then.
#![allow(dead_code)]

use crate::wire_client::Frame;

/// The frames as they are compared.
pub fn comparable(frames: &[Frame]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut parameters = 0;
    for frame in frames {
        if frame.tag == b'S' && frame.body.starts_with(b"in_hot_standby\0") {
            continue;
        }
        if frame.tag == b'S' {
            parameters += 1;
        } else if parameters > 0 {
            let from = all.len() - parameters;
            all[from..].sort();
            parameters = 0;
        }
        all.push(shown(frame));
    }
    all
}

fn shown(frame: &Frame) -> String {
    match frame.tag {
        b'E' if frame.message().contains("prepared statement \"") => format!("E {}", frame.sqlstate()),
        b'E' | b'N' => {
            let fields: Vec<String> = (frame.body.split(|&byte| byte == 0))
                .filter(|field| !field.is_empty() && !matches!(field[0], b'F' | b'L' | b'R'))
                .map(|field| String::from_utf8_lossy(field).into_owned())
                .collect();
            format!("{} {fields:?}", frame.tag as char)
        }
        _ => format!("{frame:?}"),
    }
}

/// Fails with the first message that differs.
pub fn assert_alike(name: &str, expected: &[String], found: &[String]) {
    let alike = |(one, other): (&String, &String)| one == other || is_earlier_error(one, other);
    if expected.len() == found.len() && expected.iter().zip(found).all(alike) {
        return;
    }
    let differs = expected.iter().zip(found).position(|pair| !alike(pair));
    let at = differs.unwrap_or(expected.len().min(found.len()));
    panic!(
        "{name}: message {at}\nPostgreSQL: {:?}\npgweir:     {:?}\nall of PostgreSQL's: {expected:#?}\nall of pgweir's: {found:#?}",
        expected.get(at),
        found.get(at)
    );
}

fn is_earlier_error(expected: &str, found: &str) -> bool {
    matches!(expected, "E 08P01" | "E 42P05") && found.contains("\"C25P02\"")
}
