//! One console client's protocol: frames in; bytes out, and commands that somebody else answers.
//!
//! ```text
//! frame ──▶ on_frame ──▶ Read | Close | Run(command) ──answer──▶ on_answer ──▶ Read | Run(command) | …
//! ```
//! Simple and extended protocol, without parameters. All columns are text, whose binary form is the
//! same bytes, so that either format may be asked for. BEGIN, COMMIT and ROLLBACK are kept as the
//! transaction status alone: drivers insist on it.

mod portal;

use crate::admin::command::{self, Command};
use crate::admin::tables::{Answer, columns_of};
use crate::fault::{Fault, SqlState};
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::FrameError;
use crate::wire::frontend::{self, Named};
use crate::wire::writers::{self, Severity};
use portal::{Portal, check_parameters};
use std::collections::{HashMap, VecDeque};

/// Named statements at most, and portals.
const STATEMENTS_MAX: usize = 100;
const PORTALS_MAX: usize = 8;

const BIND_COMPLETE: [u8; 5] = *b"2\0\0\0\x04";
const NO_DATA: [u8; 5] = *b"n\0\0\0\x04";
const NO_PARAMETERS: [u8; 7] = *b"t\0\0\0\x06\0\0";

const DUPLICATE_STATEMENT: SqlState = SqlState(*b"42P05");
const DUPLICATE_CURSOR: SqlState = SqlState(*b"42P03");
const INVALID_CURSOR_NAME: SqlState = SqlState(*b"34000");

/// What is to happen next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// The next frame is wanted.
    Read,
    /// This command is to be answered with `on_answer`.
    Run(Command),
    /// What was written is to be sent, and the connection closed.
    Close,
}

/// For whom a command runs.
#[derive(Debug)]
enum Running {
    Query,
    Portal { name: Vec<u8>, rows_max: u32 },
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Conversation {
    status: TransactionStatus,
    /// `None`: the empty statement.
    statements: HashMap<Vec<u8>, Option<Command>>,
    portals: HashMap<Vec<u8>, Portal>,
    /// Behind an error of the extended protocol, up to Sync.
    skipping: bool,
    /// What is left of a Query's commands.
    queued: VecDeque<Command>,
    running: Option<Running>,
}

impl Conversation {
    /// One whole frame.
    pub fn on_frame(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Next {
        let tag = frame.first().copied().unwrap_or(0);
        match tag {
            b'X' => return Next::Close,
            b'S' => {
                self.skipping = false;
                self.ready(out);
                return Next::Read;
            }
            b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'F' | b'd' | b'c' | b'f' if self.skipping => {
                return Next::Read;
            }
            _ => {}
        }
        match tag {
            b'Q' => self.query(frame, out),
            b'P' => self.step(out, |this, out| this.parse(frame, out)),
            b'B' => self.step(out, |this, out| this.bind(frame, out)),
            b'D' => self.step(out, |this, out| this.describe(frame, out)),
            b'E' => match self.execute(frame, out) {
                Ok(next) => next,
                Err(fault) => self.refuse_extended(&fault, out),
            },
            b'C' => self.step(out, |this, out| this.close(frame, out)),
            // What comes behind a COPY that never was is dropped, as the server does.
            b'H' | b'd' | b'c' | b'f' => Next::Read,
            b'F' => {
                let fault = Fault::client(SqlState::FEATURE_NOT_SUPPORTED, "the console has no functions");
                self.refuse(&fault, out);
                self.ready(out);
                Next::Read
            }
            _ => self.broken(FrameError::Tag { tag }, out),
        }
    }

    /// The answer to what `Next::Run` asked for.
    pub fn on_answer(&mut self, answer: Result<Answer, Fault>, out: &mut Vec<u8>) -> Next {
        match (self.running.take(), answer) {
            (Some(Running::Query), Ok(answer)) => {
                // A portal that nobody names: sent to its end at once.
                let mut portal = Portal::new(None);
                portal.answered(answer, out);
                portal.send(0, out);
                self.next_of_query(out)
            }
            (Some(Running::Query) | None, Err(fault)) => self.end_query(&fault, out),
            (Some(Running::Portal { name, rows_max }), Ok(answer)) => {
                if let Some(portal) = self.portals.get_mut(&name) {
                    portal.answered(answer, out);
                    portal.send(rows_max, out);
                }
                Next::Read
            }
            (Some(Running::Portal { .. }), Err(fault)) => self.refuse_extended(&fault, out),
            (None, Ok(_)) => Next::Read,
        }
    }

    /// The bytes are not frames: the client is told, and must go.
    pub fn broken(&mut self, error: FrameError, out: &mut Vec<u8>) -> Next {
        let fault = Fault::client(SqlState::PROTOCOL_VIOLATION, error.to_string())
            .hint("The console takes short commands of the simple or extended protocol; try SHOW HELP.");
        writers::fault(out, Severity::Fatal, &fault);
        Next::Close
    }

    fn query(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Next {
        // A Query takes the place of what is unnamed.
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        let commands = frontend::query(frame).map_err(malformed).and_then(command::parse);
        match commands {
            Ok(commands) if commands.is_empty() => {
                out.extend_from_slice(&writers::EMPTY_QUERY);
                self.ready(out);
                Next::Read
            }
            Ok(commands) => {
                self.queued = commands.into();
                self.next_of_query(out)
            }
            Err(fault) => self.end_query(&fault, out),
        }
    }

    fn next_of_query(&mut self, out: &mut Vec<u8>) -> Next {
        while let Some(command) = self.queued.pop_front() {
            match self.own(&command) {
                Ok(Some(tag)) => writers::command_complete(out, tag),
                Ok(None) => {
                    if let Some(columns) = columns_of(&command) {
                        writers::text_columns(out, columns);
                    }
                    self.running = Some(Running::Query);
                    return Next::Run(command);
                }
                Err(fault) => return self.end_query(&fault, out),
            }
        }
        self.ready(out);
        Next::Read
    }

    fn end_query(&mut self, fault: &Fault, out: &mut Vec<u8>) -> Next {
        self.queued.clear();
        self.refuse(fault, out);
        self.ready(out);
        Next::Read
    }

    /// Commands that concern only this conversation: their tag. `None`: somebody else answers.
    fn own(&mut self, command: &Command) -> Result<Option<&'static str>, Fault> {
        let failed = self.status == TransactionStatus::Failed;
        let tag = match command {
            Command::Commit | Command::Rollback => {
                self.status = TransactionStatus::Idle;
                if failed || *command == Command::Rollback { "ROLLBACK" } else { "COMMIT" }
            }
            _ if failed => return Err(block_failed()),
            Command::Begin => {
                self.status = TransactionStatus::InBlock;
                "BEGIN"
            }
            Command::Nothing(tag) => tag,
            Command::Deallocate(Some(name)) => {
                self.statements.remove(name).ok_or_else(|| no_statement(name))?;
                "DEALLOCATE"
            }
            Command::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            Command::Show(_) | Command::Reload | Command::Operate(_) | Command::Value { .. } => {
                return Ok(None);
            }
        };
        Ok(Some(tag))
    }

    fn parse(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let parse = frontend::parse(frame).map_err(malformed)?;
        if parse.types != [0, 0] {
            return Err(no_parameters());
        }
        let mut commands = command::parse(parse.text)?;
        if commands.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Fault::client(SqlState::SYNTAX_ERROR, message).hint("Send them one by one."));
        }
        if !parse.name.is_empty() {
            if self.statements.contains_key(parse.name) {
                let message = format!("prepared statement \"{}\" already exists", lossy(parse.name));
                return Err(Fault::client(DUPLICATE_STATEMENT, message).hint("Close it first."));
            }
            if self.statements.len() >= STATEMENTS_MAX {
                return Err(too_many("prepared statements", STATEMENTS_MAX));
            }
        }
        self.statements.insert(parse.name.to_vec(), commands.pop());
        out.extend_from_slice(&writers::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let bind = frontend::bind(frame).ok_or_else(|| malformed(FrameError::Body { tag: b'B' }))?;
        let command = self.statements.get(bind.statement).ok_or_else(|| no_statement(bind.statement))?;
        check_parameters(bind.rest)?;
        if !bind.portal.is_empty() {
            if self.portals.contains_key(bind.portal) {
                let message = format!("cursor \"{}\" already exists", lossy(bind.portal));
                return Err(Fault::client(DUPLICATE_CURSOR, message).hint("Close it first."));
            }
            if self.portals.len() >= PORTALS_MAX {
                return Err(too_many("portals", PORTALS_MAX));
            }
        }
        self.portals.insert(bind.portal.to_vec(), Portal::new(command.clone()));
        out.extend_from_slice(&BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let command = match frontend::named(frame).map_err(malformed)? {
            Named::Statement(name) => {
                let command = self.statements.get(name).ok_or_else(|| no_statement(name))?;
                out.extend_from_slice(&NO_PARAMETERS);
                command
            }
            Named::Portal(name) => &self.portals.get(name).ok_or_else(|| no_portal(name))?.command,
        };
        match command.as_ref().and_then(columns_of) {
            Some(columns) => writers::text_columns(out, columns),
            None => out.extend_from_slice(&NO_DATA),
        }
        Ok(())
    }

    fn execute(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<Next, Fault> {
        let name = frontend::execute(frame).map_err(malformed)?;
        let rows_max = frame.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        if portal.is_answered() {
            portal.send(rows_max, out);
            return Ok(Next::Read);
        }
        let Some(command) = portal.command.clone() else {
            out.extend_from_slice(&writers::EMPTY_QUERY);
            return Ok(Next::Read);
        };
        match self.own(&command)? {
            Some(tag) => {
                writers::command_complete(out, tag);
                Ok(Next::Read)
            }
            None => {
                self.running = Some(Running::Portal { name: name.to_vec(), rows_max });
                Ok(Next::Run(command))
            }
        }
    }

    /// Closing what is not there is no error (PostgreSQL manual, "Extended Query").
    fn close(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match frontend::named(frame).map_err(malformed)? {
            Named::Statement(name) => drop(self.statements.remove(name)),
            Named::Portal(name) => drop(self.portals.remove(name)),
        }
        out.extend_from_slice(&writers::CLOSE_COMPLETE);
        Ok(())
    }

    fn step(
        &mut self,
        out: &mut Vec<u8>,
        act: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Next {
        match act(self, out) {
            Ok(()) => Next::Read,
            Err(fault) => self.refuse_extended(&fault, out),
        }
    }

    fn refuse_extended(&mut self, fault: &Fault, out: &mut Vec<u8>) -> Next {
        self.skipping = true;
        self.refuse(fault, out);
        Next::Read
    }

    fn refuse(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        if self.status == TransactionStatus::InBlock {
            self.status = TransactionStatus::Failed;
        }
        writers::fault(out, Severity::Error, fault);
    }

    fn ready(&mut self, out: &mut Vec<u8>) {
        if self.status == TransactionStatus::Idle {
            // Portals end with their transaction.
            self.portals.clear();
        }
        out.extend_from_slice(&writers::ready(self.status));
    }
}

fn lossy(name: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name)
}

fn malformed(error: FrameError) -> Fault {
    Fault::client(SqlState::PROTOCOL_VIOLATION, error.to_string())
}

fn no_parameters() -> Fault {
    Fault::client(SqlState::FEATURE_NOT_SUPPORTED, "the console's commands have no parameters")
        .hint("Write the command out; try SHOW HELP.")
}

fn no_statement(name: &[u8]) -> Fault {
    let message = format!("prepared statement \"{}\" does not exist", lossy(name));
    Fault::client(SqlState::INVALID_SQL_STATEMENT_NAME, message)
}

fn no_portal(name: &[u8]) -> Fault {
    Fault::client(INVALID_CURSOR_NAME, format!("portal \"{}\" does not exist", lossy(name)))
}

fn too_many(what: &str, limit: usize) -> Fault {
    Fault::client(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("too many {what} in the console"))
        .detail(format!("There may be {limit}."))
        .hint("Close those that are not needed.")
}

fn block_failed() -> Fault {
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    Fault::client(SqlState::IN_FAILED_SQL_TRANSACTION, message).hint("Send ROLLBACK.")
}

#[cfg(test)]
mod tests;
