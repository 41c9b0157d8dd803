//! Statements that were read under another scope than the session's present one. A connection that
//! lacks one gets it in a round trip of its own: read as it was read then, and looked at before its
//! client, who knows what it looked like, gets rows of it.

use super::names::{make_room, refuse_with};
use super::{Outgoing, Session};
use crate::session::exchange::Exchange;
use crate::session::prepared::{Cause, ClientStatement, Scope, ServerStatements, Statement};
use crate::session::reply_queue::{Act, Kind, Undo};
use crate::sql::effects::PinReason;
use crate::sql::named as sql;
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::header;
use crate::wire::frontend::{self, Named};
use crate::wire::writers;

/// A statement that has to be prepared apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Estranged {
    /// The client's name for it.
    pub name: Box<[u8]>,
    /// Under what it was read.
    pub scope: Scope,
}

impl Session {
    /// Was the statement of this name read under another scope than the present one?
    pub fn is_estranged(&self, name: &[u8]) -> bool {
        self.names.get(name).is_some_and(|named| self.is_apart(&named.statement))
    }

    fn is_apart(&self, statement: &Statement) -> bool {
        statement.scope != self.scope || statement.sql_types().is_some()
    }

    /// The statements of a group that this server lacks and that cannot be prepared in the same breath:
    /// they were read under another scope, or are executed in SQL.
    pub fn estranged_in(
        &self,
        bytes: &[u8],
        exchange: &Exchange,
        server: &ServerStatements,
    ) -> Vec<Estranged> {
        let mut found: Vec<Estranged> = Vec::new();
        if self.state.status() == TransactionStatus::Failed {
            // The server will say so.
            return found;
        }
        let settled = self.settled_scope(exchange).is_some();
        let mut rest = bytes;
        while let Ok(Some(head)) = header(rest, usize::MAX) {
            let Some((frame, behind)) = rest.split_at_checked(head.frame_len) else { break };
            rest = behind;
            let executed = match head.tag {
                b'Q' => frontend::query(frame).ok().and_then(|text| match self.named_in(text) {
                    Some(sql::Named::Execute { name, .. }) => Some(name),
                    _ => None,
                }),
                _ => None,
            };
            let name = match (&executed, head.tag) {
                (Some(name), _) => name.as_slice(),
                (None, b'B') if settled => frontend::bind(frame).map_or(&b""[..], |bind| bind.statement),
                (None, b'D') if settled => match frontend::named(frame) {
                    Ok(Named::Statement(name)) => name,
                    _ => b"",
                },
                _ => b"",
            };
            let Some(ClientStatement { statement, .. }) = self.names.get(name) else { continue };
            let apart = executed.is_some() || self.is_apart(statement);
            if apart && !server.holds(statement.id) && found.iter().all(|known| *known.name != *name) {
                let scope = if settled { &statement.scope } else { &self.scope };
                found.push(Estranged { name: name.into(), scope: scope.clone() });
            }
        }
        found
    }

    /// The statements of ours that a group's texts name where no name is translated: among several
    /// statements, or in the extended protocol.
    pub fn mentioned_in(&self, bytes: &[u8]) -> Vec<Box<[u8]>> {
        let mut found: Vec<Box<[u8]>> = Vec::new();
        let mut rest = bytes;
        while let Ok(Some(head)) = header(rest, usize::MAX) {
            let Some((frame, behind)) = rest.split_at_checked(head.frame_len) else { break };
            rest = behind;
            let text = match head.tag {
                b'Q' => frontend::query(frame).ok().filter(|text| self.named_in(text).is_none()),
                b'P' => frontend::parse(frame).ok().map(|parse| parse.text),
                _ => None,
            };
            for name in text.map(sql::mentions).unwrap_or_default() {
                if self.names.contains_key(&*name) && found.iter().all(|known| **known != *name) {
                    found.push(name.into());
                }
            }
        }
        found
    }

    /// Writes a group of our own that prepares what `name` stands for under that very name.
    pub fn hand_over(&self, name: &[u8], exchange: &mut Exchange, to: &mut Outgoing<'_>) {
        let Some(named) = self.names.get(name) else { return };
        let statement = &named.statement;
        if let Some(types) = statement.sql_types() {
            write_prepare(to.out, name, types, &statement.text);
            return exchange.queue.push(Kind::Query, Act::Inspect, Undo::Nothing);
        }
        writers::parse(to.out, name, &statement.text, &statement.types);
        exchange.queue.push(Kind::Parse, Act::Inspect, Undo::Nothing);
        to.out.extend_from_slice(&writers::SYNC);
        exchange.queue.push(Kind::Sync, Act::Inspect, Undo::Nothing);
    }

    /// It worked: the name is the connection's from now on, and the session keeps that.
    pub fn handed_over(&mut self, name: &[u8]) -> bool {
        self.names.remove(name);
        self.state.pins.add(PinReason::SqlPrepare)
    }

    /// Under what texts are read now, as far as complete groups tell.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Writes a group of our own that prepares what `name` stands for and has it described.
    pub fn prepare_apart(&self, name: &[u8], exchange: &mut Exchange, to: &mut Outgoing<'_>) {
        let Some(named) = self.names.get(name) else { return };
        let statement = &named.statement;
        exchange.told = Default::default();
        make_room(statement, Cause::Moved, &mut exchange.queue, to);
        if let Some(types) = statement.sql_types() {
            write_prepare(to.out, &statement.server_name, types, &statement.text);
            return exchange.queue.push(Kind::Query, Act::Inspect, Undo::ServerParse(statement.id));
        }
        let types = match &*named.shape.parameters {
            // PostgreSQL infers them once, and keeps them when it reads a text anew.
            [] => &statement.types,
            told => told,
        };
        writers::parse(to.out, &statement.server_name, &statement.text, types);
        exchange.queue.push(Kind::Parse, Act::Inspect, Undo::ServerParse(statement.id));
        writers::statement(to.out, b'D', &statement.server_name);
        exchange.queue.push(Kind::DescribeStatement, Act::Inspect, Undo::Nothing);
        to.out.extend_from_slice(&writers::SYNC);
        exchange.queue.push(Kind::Sync, Act::Inspect, Undo::Nothing);
    }

    /// It worked: whoever was told of other columns is not served from this copy.
    pub fn prepared_apart(&self, name: &[u8], exchange: &Exchange, server: &mut ServerStatements) {
        let Some(named) = self.names.get(name) else { return };
        let id = named.statement.id;
        if self.settled_scope(exchange).is_none() && !named.statement.scope.is_private() {
            // As it was read just now, it is good for this transaction only.
            server.doubt(id);
        }
        server.note_columns(id, exchange.told.columns);
    }
}

fn write_prepare(out: &mut Vec<u8>, name: &[u8], types: &[u8], text: &[u8]) {
    writers::message(out, b'Q', |out| {
        out.extend_from_slice(b"PREPARE \"");
        for &byte in name {
            // A quote inside stands twice.
            out.extend_from_slice(if byte == b'"' { b"\"\"" } else { std::slice::from_ref(&byte) });
        }
        for part in [b"\" ", types, b" AS ", text, b"\0"] {
            out.extend_from_slice(part);
        }
    });
}

/// What PostgreSQL says in this case; drivers know it by its code and routine, and prepare anew.
pub(super) fn refuse_changed(exchange: &mut Exchange, to: &mut Outgoing<'_>) {
    let mut error = Vec::new();
    writers::message(&mut error, b'E', |out| {
        for field in [
            "SERROR",
            "VERROR",
            "C0A000",
            "Mcached plan must not change result type",
            "Fplancache.c",
            "RRevalidateCachedQuery",
            "",
        ] {
            out.extend_from_slice(field.as_bytes());
            out.push(0);
        }
    });
    refuse_with(error, &mut exchange.queue, to);
}
