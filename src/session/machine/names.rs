//! The statements that a client names, and their copies on server connections.

use super::{Outgoing, Session, plain};
use crate::fault::{Fault, SqlState};
use crate::session::exchange::{Exchange, GroupRecord};
use crate::session::prepared::{Cause, ClientStatement, Held, SERVER_NAME_PREFIX, Shape, Statement};
use crate::session::reply_queue::{Act, Kind, ReplyQueue, Undo};
use crate::sql::class::Class;
use crate::wire::backend::TransactionStatus;
use crate::wire::{frontend, writers};
use std::sync::Arc;

impl Session {
    /// The unnamed statement ends with the message at hand. It is kept only where that may be skipped.
    pub(super) fn replace_unnamed(&mut self, queue: &ReplyQueue, to: &mut Outgoing<'_>) -> Undo {
        if queue.may_skip() {
            let before = Box::new(std::mem::take(&mut self.unnamed));
            self.unnamed.tag = to.lent.next_id();
            return Undo::Unnamed(self.unnamed.tag, Some(before));
        }
        (self.unnamed.tag, self.unnamed.class) = (0, None);
        Undo::Nothing
    }

    pub(super) fn parse(
        &mut self,
        parse: frontend::Parse<'_>,
        frame: &[u8],
        class: Option<Class>,
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) {
        let Some(class) = class else { return plain(Kind::Parse, frame, &mut exchange.queue, to) };
        if parse.name.is_empty() {
            let before = match self.replace_unnamed(&exchange.queue, to) {
                Undo::Unnamed(_, before) => before,
                _ => None,
            };
            self.unnamed.tag = to.lent.next_id();
            self.unnamed.class = Some(class);
            self.unnamed.epoch = self.epoch;
            self.unnamed.text.clear();
            self.unnamed.text.extend_from_slice(parse.text);
            self.unnamed.types.clear();
            self.unnamed.types.extend_from_slice(parse.types);
            to.server.unnamed = self.unnamed.tag;
            to.out.extend_from_slice(frame);
            return exchange.queue.push(Kind::Parse, Act::Forward, Undo::Unnamed(self.unnamed.tag, before));
        }
        let scope = self.scope_for(parse.text, exchange, || to.lent.next_id());
        let queue = &mut exchange.queue;
        let statement = to.lent.statement(parse.text, parse.types, &scope);
        match self.names.get(parse.name) {
            Some(known) if to.replayed && known.statement.text == statement.text => {}
            Some(_) => return refuse(&duplicate(parse.name), queue, to),
            None if self.names.len() >= to.names_limit => return refuse(&too_many_names(), queue, to),
            None => {}
        }
        let name: Box<[u8]> = parse.name.into();
        let (epoch, parsed, shape) = (self.epoch, to.lent.next_id(), Shape::default());
        let named = ClientStatement { statement: statement.clone(), class, epoch, parsed, shape };
        self.names.insert(name.clone(), named);
        // A failed transaction refuses a Parse, whether or not the statement is there.
        let may_be_refused = match self.state.status() {
            // One that is on its way may have begun, and failed.
            TransactionStatus::Idle => exchange.groups.iter().any(GroupRecord::begins_or_ends),
            TransactionStatus::InBlock => !queue.is_empty(),
            TransactionStatus::Failed => true,
        };
        if may_be_refused && to.server.holds(statement.id) {
            to.server.doubt(statement.id);
        } else if find(&statement, queue, to).is_some() {
            let complete = Act::Fabricate(&writers::PARSE_COMPLETE);
            return queue.push(Kind::Parse, complete, Undo::ClientName(name, statement.id));
        }
        make_room(&statement, Cause::Asked, queue, to);
        writers::parse(to.out, &statement.server_name, &statement.text, &statement.types);
        // One message, two things to take back: the server's copy is the one that must not be forgotten.
        queue.push(Kind::Parse, Act::Forward, Undo::ServerParse(statement.id));
        queue.push(Kind::Note, Act::Swallow, Undo::ClientName(name, statement.id));
    }

    /// Prepares a statement on the server if it is not there yet. An error goes to the client, and the
    /// server skips what depends on it. False: what is there has other columns than its client knows.
    pub(super) fn ensure(
        &self,
        named: &ClientStatement,
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) -> bool {
        let statement = &named.statement;
        if let Some(copy) = find(statement, &exchange.queue, to) {
            if copy.proven < named.parsed {
                copy.proven = named.parsed;
                exchange.groups.back_mut().into_iter().for_each(|record| record.restartable = true);
            }
            return !named.shape.contradicts(copy.columns);
        }
        if statement.sql_types().is_some() {
            // It can be prepared only in a request of its own, and could not: its client prepares it anew.
            return false;
        }
        let as_parsed = statement.scope.is_private()
            || self.settled_scope(exchange).is_some_and(|scope| *scope == statement.scope);
        let queue = &mut exchange.queue;
        let undo = match as_parsed {
            true => {
                make_room(statement, Cause::Moved, queue, to);
                Undo::ServerParse(statement.id)
            }
            // Others who share it need it as it was read under its own scope: it is good for now only.
            false => {
                to.server.count(Cause::Moved);
                to.server.doubt(statement.id);
                close(statement, Undo::Nothing, queue, to);
                Undo::Nothing
            }
        };
        writers::parse(to.out, &statement.server_name, &statement.text, &statement.types);
        queue.push(Kind::Parse, Act::Swallow, undo);
        true
    }

    /// The unnamed statement may have been parsed on another server connection; and the one that is
    /// there may be another client's.
    pub(super) fn ensure_unnamed(&self, queue: &mut ReplyQueue, to: &mut Outgoing<'_>) {
        if self.unnamed.tag == 0 || self.unnamed.class.is_none() {
            writers::statement(to.out, b'C', b"");
            to.server.unnamed = 0;
            queue.push(Kind::Close, Act::Swallow, Undo::Nothing);
        } else if to.server.unnamed != self.unnamed.tag {
            writers::parse(to.out, b"", &self.unnamed.text, &self.unnamed.types);
            to.server.unnamed = self.unnamed.tag;
            queue.push(Kind::Parse, Act::Swallow, Undo::ServerUnnamed(self.unnamed.tag));
        }
    }
}

/// Its copy, if it is there whatever becomes of the groups in flight. Where one of them prepares it and
/// may fail before, it is prepared once more, behind a Close.
fn find<'s>(statement: &Statement, queue: &ReplyQueue, to: &'s mut Outgoing<'_>) -> Option<&'s mut Held> {
    if queue.owes_statement(statement.id) && to.server.holds(statement.id) {
        to.server.doubt(statement.id);
    }
    to.server.find(statement.id)
}

pub(super) fn make_room(
    statement: &Arc<Statement>,
    cause: Cause,
    queue: &mut ReplyQueue,
    to: &mut Outgoing<'_>,
) {
    let now = to.lent.next_id();
    if let Some(evicted) = to.server.insert(statement.clone(), to.prepared_limit, cause, now) {
        close(&evicted, Undo::ServerClose(evicted.id), queue, to);
    }
    if to.server.is_doubted(statement.id) {
        close(statement, Undo::Nothing, queue, to);
    }
}

fn close(statement: &Statement, undo: Undo, queue: &mut ReplyQueue, to: &mut Outgoing<'_>) {
    writers::statement(to.out, b'C', &statement.server_name);
    queue.push(Kind::Close, Act::Swallow, undo);
}

/// A name nobody gave. The server says so by that name, unless it is one of ours.
pub(super) fn harmless(name: &[u8]) -> &[u8] {
    if name.starts_with(SERVER_NAME_PREFIX.as_bytes()) { b"pgweir: no such statement" } else { name }
}

/// A text that fails when it is analysed: behind a failed transaction, that comes first.
const REFUSED: &[u8] = b"TABLE pg_catalog.\"pgweir: refused statement name\"";

pub(super) fn duplicate(name: &[u8]) -> Fault {
    let message = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(name));
    Fault::client(SqlState(*b"42P05"), message)
}

/// The client has given as many names as it may.
pub fn too_many_names() -> Fault {
    Fault::client(SqlState(*b"53400"), "too many prepared statements in this session")
        .hint("Close those that are no longer used, or raise limits.client_statements.")
}

/// The name is refused. The server, which does not know it, is made to fail, so that the implicit
/// transaction fails with it; the client gets this error instead.
fn refuse(fault: &Fault, queue: &mut ReplyQueue, to: &mut Outgoing<'_>) {
    let mut error = Vec::new();
    writers::fault(&mut error, writers::Severity::Error, fault);
    refuse_with(error, queue, to);
}

/// The same for a simple query.
pub(super) fn refuse_query(fault: &Fault, queue: &mut ReplyQueue, to: &mut Outgoing<'_>) {
    let mut error = Vec::new();
    writers::fault(&mut error, writers::Severity::Error, fault);
    writers::query(to.out, REFUSED);
    to.server.unnamed = 0;
    queue.push(Kind::Query, Act::ReplaceError(error.into()), Undo::Nothing);
}

pub(super) fn refuse_with(error: Vec<u8>, queue: &mut ReplyQueue, to: &mut Outgoing<'_>) {
    // Under a name, because the unnamed statement stays what it is.
    writers::parse(to.out, b"pgweir: refused", REFUSED, &[0, 0]);
    queue.push(Kind::Parse, Act::ReplaceError(error.into()), Undo::Nothing);
}
