//! One portal: a command, and what is left of its answer.

use crate::admin::command::Command;
use crate::admin::tables::{Answer, Row};
use crate::fault::{Fault, SqlState};
use crate::wire::frame::Body;
use crate::wire::writers::{self, Severity};

const PORTAL_SUSPENDED: [u8; 5] = *b"s\0\0\0\x04";

/// See the file's head.
#[derive(Debug)]
pub struct Portal {
    /// `None`: the empty statement.
    pub command: Option<Command>,
    answer: Option<(std::vec::IntoIter<Row>, &'static str)>,
}

impl Portal {
    /// Not executed yet.
    pub fn new(command: Option<Command>) -> Portal {
        Portal { command, answer: None }
    }

    /// Has its command been run?
    pub fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// Its command has been run. What is said besides goes first.
    pub fn answered(&mut self, answer: Answer, out: &mut Vec<u8>) {
        if let Some(text) = answer.notice.filter(|text| !text.is_empty()) {
            let notice = Fault::proxy(SqlState::SUCCESSFUL_COMPLETION, text);
            writers::fault(out, Severity::Notice, &notice);
        }
        self.answer = Some((answer.rows.into_iter(), answer.tag));
    }

    /// Writes the next rows, at most `rows_max` of them (0: all).
    pub fn send(&mut self, rows_max: u32, out: &mut Vec<u8>) {
        let Some((rows, tag)) = &mut self.answer else { return };
        let limit = match rows_max {
            0 => usize::MAX,
            limit => limit as usize,
        };
        for row in rows.by_ref().take(limit) {
            writers::text_row(out, row.iter().map(Option::as_deref));
        }
        match rows.as_slice() {
            [] => writers::command_complete(out, tag),
            [_, ..] => out.extend_from_slice(&PORTAL_SUSPENDED),
        }
    }
}

/// What stands behind the names in a Bind: parameter formats, no parameters, result formats.
pub fn check_parameters(rest: &[u8]) -> Result<(), Fault> {
    let malformed = || Fault::client(SqlState::PROTOCOL_VIOLATION, "invalid message format in Bind");
    let mut body = Body::new(rest);
    let formats = |body: &mut Body<'_>| {
        let count = body.u16()?;
        (0..count).all(|_| matches!(body.u16(), Some(0 | 1))).then_some(())
    };
    formats(&mut body).ok_or_else(malformed)?;
    let parameters = body.u16().ok_or_else(malformed)?;
    if parameters > 0 {
        let message = format!(
            "bind message supplies {parameters} parameters, but the console's commands have no parameters"
        );
        return Err(Fault::client(SqlState::PROTOCOL_VIOLATION, message).hint("Write the command out."));
    }
    formats(&mut body).ok_or_else(malformed)?;
    if body.rest().is_empty() { Ok(()) } else { Err(malformed()) }
}
