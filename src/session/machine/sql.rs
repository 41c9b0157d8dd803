//! PREPARE and EXECUTE in SQL: the same names as in the protocol, under names of our own on servers.

use super::names::{make_room, refuse_query};
use super::{Outgoing, Session, names};
use crate::session::exchange::Exchange;
use crate::session::prepared::{Cause, ClientStatement, SERVER_NAME_PREFIX, Shape, Statement, Translation};
use crate::session::reply_queue::{Act, Kind, Undo};
use crate::sql::class::{Class, Marks};
use crate::sql::effects::effects_of;
use crate::sql::named::{Named, named};
use crate::wire::backend::TransactionStatus;
use crate::wire::{frontend, writers};
use std::ops::Range;

/// The answer to PREPARE.
const PREPARED: [u8; 13] = *b"C\0\0\0\x0cPREPARE\0";

impl Session {
    /// What a text says of a prepared statement whose name is ours to translate.
    pub fn named_in(&self, text: &[u8]) -> Option<Named> {
        match named(text)? {
            Named::Execute { name, .. } if !self.is_ours(&name) => None,
            named => Some(named),
        }
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        self.names.contains_key(name) || name.starts_with(SERVER_NAME_PREFIX.as_bytes())
    }

    /// The same of a simple query.
    pub(super) fn named_in_query(&self, frame: &[u8], to: &Outgoing<'_>) -> Option<Named> {
        self.named_in(frontend::query(frame).ok().filter(|text| to.dialect.can_read(text))?)
    }

    /// Sends a simple query that speaks of a prepared statement.
    pub(super) fn query_named(
        &mut self,
        text: &[u8],
        named: Named,
        class: Class,
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) {
        match named {
            Named::Prepare { name, at, types, body } => {
                self.prepare_sql(text, name, at, (types, body), class, exchange, to);
            }
            Named::Execute { name, at, .. } => self.execute_sql(text, (&name, at), class, exchange, to),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one statement")]
    fn prepare_sql(
        &mut self,
        text: &[u8],
        name: Vec<u8>,
        at: Range<usize>,
        (types, body): (Range<usize>, Range<usize>),
        class: Class,
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) {
        let name: Box<[u8]> = name.into();
        if self.names.contains_key(&name) && !to.replayed {
            return refuse_query(&names::duplicate(&name), &mut exchange.queue, to);
        }
        if self.names.len() >= to.names_limit {
            return refuse_query(&names::too_many_names(), &mut exchange.queue, to);
        }
        let alone = exchange.groups.len() == 1 && self.state.status() != TransactionStatus::Failed;
        let body = &text[body];
        let scope = match alone {
            true => self.scope_for(body, exchange, || to.lent.next_id()),
            // Whether it is there already is known when the groups before it have ended.
            false => self.scope.private(to.lent.next_id()),
        };
        let statement = to.lent.statement(body, &Statement::types_of_sql(&text[types]), &scope);
        let named = ClientStatement {
            statement: statement.clone(),
            class,
            // Classified at each use: the class is that of PREPARE.
            epoch: u64::MAX,
            parsed: to.lent.next_id(),
            shape: Shape::default(),
        };
        self.names.insert(name.clone(), named);
        if alone && to.server.find(statement.id).is_some() {
            let queue = &mut exchange.queue;
            queue.push(Kind::Execute, Act::Fabricate(&PREPARED), Undo::ClientName(name, statement.id));
            to.out.extend_from_slice(&writers::SYNC);
            return queue.forward(Kind::Sync);
        }
        make_room(&statement, Cause::Asked, &mut exchange.queue, to);
        self.send_renamed(text, at, &statement, Undo::Prepared(name, statement.id), exchange, to);
    }

    fn execute_sql(
        &mut self,
        text: &[u8],
        (name, at): (&[u8], Range<usize>),
        class: Class,
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) {
        let Some(named) = self.names.get(name) else {
            // One of our names, which is nobody's.
            let mut query = text[..at.start].to_vec();
            query.extend_from_slice(b"\"pgweir: no such statement\"");
            query.extend_from_slice(&text[at.end..]);
            writers::query(to.out, &query);
            return exchange.queue.forward(Kind::Query);
        };
        let statement = named.statement.clone();
        let stale = to.server.find(statement.id).is_some_and(|copy| {
            let earlier = copy.proven < named.parsed;
            copy.proven = copy.proven.max(named.parsed);
            earlier
        });
        if let Some(record) = exchange.groups.back_mut() {
            record.restartable |= stale;
            if class.marks.intersects(Marks::SESSION_EFFECT.with(Marks::TRANSACTION_CONTROL)) {
                record.effects.extend(effects_of(&statement.text, to.dialect));
                record.effects.extend(effects_of(text, to.dialect));
            }
        }
        self.send_renamed(text, at, &statement, Undo::Uses(statement.id), exchange, to);
    }

    /// The client's text with our name in the place of its own.
    fn send_renamed(
        &self,
        text: &[u8],
        at: Range<usize>,
        statement: &Statement,
        undo: Undo,
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) {
        let ours = &statement.server_name;
        writers::message(to.out, b'Q', |out| {
            for part in [&text[..at.start], b"\"", ours, b"\"", &text[at.end..], b"\0"] {
                out.extend_from_slice(part);
            }
        });
        if let Some(record) = exchange.groups.back_mut() {
            record.translation = Some(Translation::new(text, at, ours.len() + 2));
        }
        exchange.queue.push(Kind::Query, Act::Forward, undo);
    }
}
