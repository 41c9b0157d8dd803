//! The machine of one session: which bytes a server is sent for a request group, and what each of
//! its messages means to the client that is waiting.

mod apart;
mod asleep;
mod names;
mod promised;
mod sql;
mod texts;
mod told;

pub use apart::Estranged;
pub use asleep::Asleep;
use names::harmless;
pub use names::too_many_names;

use crate::fault::SqlState;
use crate::session::bound::bound;
use crate::session::exchange::{Exchange, GroupRecord};
use crate::session::group::GroupBuilder;
use crate::session::prepared::{
    self, ClientStatement, Names, Scope, ServerStatements, Shape, Statement, Unnamed, scope,
};
use crate::session::reply_queue::{Act, Kind, Pass, ReplyQueue, Undo, Unexpected};
use crate::session::settings::Settings;
use crate::session::state::SessionState;
use crate::session::told::Told;
use crate::sql::class::{Class, Marks};
use crate::sql::effects::{Effect, PinReason, effects_of};
use crate::sql::lexer::Dialect;
use crate::wire::backend::{self, TransactionStatus};
use crate::wire::frame::{FrameError, header};
use crate::wire::frontend::{self, Named};
use crate::wire::writers;
use std::collections::HashMap;
use std::sync::Arc;

/// What the shell lends while a session writes.
pub trait Lender {
    /// The pool's shared statement for a text, its parameter types and its scope.
    fn statement(&mut self, text: &[u8], types: &[u8], scope: &Scope) -> Arc<Statement>;
    /// A number that nothing else in the process has; it grows.
    fn next_id(&mut self) -> u64;
}

/// Where forwarded bytes go, and what the shell lends while they are written.
pub struct Outgoing<'a> {
    /// Bytes for the server.
    pub out: &'a mut Vec<u8>,
    /// What the server connection has prepared.
    pub server: &'a mut ServerStatements,
    /// Numbers and shared statements.
    pub lent: &'a mut dyn Lender,
    /// How many statements one server connection may have.
    pub prepared_limit: usize,
    /// How many names one client may give.
    pub names_limit: usize,
    /// How the session's strings are to be read.
    pub dialect: Dialect,
    /// Is a group sent again whose names may already be given?
    pub replayed: bool,
}

/// What a server message means.
#[derive(Debug)]
pub struct Outcome {
    /// What to do with it.
    pub pass: Pass,
    /// ReadyForQuery: the group that is complete.
    pub done: Option<(GroupRecord, TransactionStatus)>,
}

/// The lasting part of a session.
#[derive(Debug)]
pub struct Session {
    /// Settings, transaction, pins, floor.
    pub state: SessionState,
    /// What its client knows of its parameters.
    pub told: Told,
    names: Names,
    unnamed: Unnamed,
    portals: HashMap<Box<[u8]>, Vec<Effect>>,
    /// Which knowledge of the database classes are made under now; it changes with the catalog.
    pub epoch: u64,
    /// Under what a text is read now, as far as complete groups tell.
    scope: Scope,
    /// The settings that `scope` was made from.
    scoped: Option<Arc<Settings>>,
    /// The statement behind the unnamed portal, if its client knows nothing of its columns yet.
    undescribed: Vec<u8>,
    /// Does the open transaction have a schema or settings of its own?
    unsettled: bool,
}

impl Session {
    /// A session that has just logged in.
    pub fn new(state: SessionState) -> Session {
        Session {
            told: Told::default(),
            names: Names::default(),
            unnamed: Unnamed::default(),
            portals: HashMap::new(),
            epoch: 0,
            // Shared with all who began alike until the first text is read.
            scope: Scope { settings: state.settings().clone(), epoch: 0 },
            scoped: None,
            undescribed: Vec::new(),
            unsettled: false,
            state,
        }
    }

    /// Under what texts are read from now on: `schema` counts the changes of the database's schema.
    pub fn observe(&mut self, schema: u64, intern: &mut dyn FnMut(Settings) -> Arc<Settings>) {
        self.scope.epoch = schema;
        let settings = self.state.settings();
        if !self.scoped.as_ref().is_some_and(|scoped| Arc::ptr_eq(scoped, settings)) {
            self.scope.settings = intern(scope::deciding(settings));
            self.scoped = Some(settings.clone());
        }
    }

    /// Under what a text is read now; `None`: nobody knows, because of what is in flight, or what the
    /// open transaction has done.
    fn settled_scope(&self, exchange: &Exchange) -> Option<&Scope> {
        let opaque = || self.state.pins.iter().any(scope::is_opaque);
        let in_flight = || exchange.groups.iter().any(GroupRecord::changes_scope);
        (!self.unsettled && !opaque() && !in_flight()).then_some(&self.scope)
    }

    /// The scope of a statement that is prepared now.
    pub fn scope_for(&self, text: &[u8], exchange: &Exchange, id: impl FnOnce() -> u64) -> Scope {
        match self.settled_scope(exchange) {
            Some(scope) if !scope::is_momentary(text) => scope.clone(),
            _ => self.scope.private(id()),
        }
    }

    /// The class of a statement prepared earlier; the empty name is the unnamed one.
    pub fn class_of(&self, name: &[u8]) -> Option<Class> {
        match name {
            b"" => self.unnamed.class,
            name => self.names.get(name).map(|named| named.class),
        }
    }

    /// The text of a statement whose class was made when less, or something else, was known.
    pub fn outdated(&self, name: &[u8]) -> Option<&[u8]> {
        let epoch = match name {
            b"" => self.unnamed.epoch,
            name => self.names.get(name)?.epoch,
        };
        if epoch == self.epoch { None } else { self.text_of(name) }
    }

    /// How many names the client has given.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// Remembers a name without any server: for statements that pgweir itself answers. `tag` as in `Unnamed`.
    pub fn remember(&mut self, name: &[u8], statement: Arc<Statement>, class: Class, tag: u64) {
        if name.is_empty() {
            self.unnamed = Unnamed {
                tag,
                text: statement.text.to_vec(),
                types: statement.types.to_vec(),
                class: Some(class),
                epoch: self.epoch,
            };
        } else {
            let (epoch, parsed, shape) = (self.epoch, 0, Shape::default());
            self.names.insert(name.into(), ClientStatement { statement, class, epoch, parsed, shape });
        }
    }

    /// The text of a statement prepared earlier.
    pub fn text_of(&self, name: &[u8]) -> Option<&[u8]> {
        match name {
            b"" => self.unnamed.class.map(|_| self.unnamed.text.as_slice()),
            name => self.names.get(name).map(|named| &*named.statement.text),
        }
    }

    /// The parameter types of a statement prepared earlier, as they stood in its Parse.
    pub fn types_of(&self, name: &[u8]) -> &[u8] {
        match name {
            b"" => &self.unnamed.types,
            name => self.names.get(name).map_or(&[], |named| &*named.statement.types),
        }
    }

    /// The client closed a name, or DEALLOCATEd it. True if it was known.
    pub fn forget(&mut self, name: &[u8]) -> bool {
        match name {
            b"" => std::mem::take(&mut self.unnamed).class.is_some(),
            name => self.names.remove(name).is_some(),
        }
    }

    /// No transaction is open any more, and so no portal.
    pub fn forget_portals(&mut self) {
        self.portals.clear();
        self.undescribed.clear();
    }

    /// Every name is gone (DISCARD ALL, DEALLOCATE ALL). The unnamed statement has none.
    pub fn forget_all(&mut self) {
        self.names.clear();
    }

    /// Writes a whole group for the server and notes what it will owe. `bytes` are the group's; its
    /// record has been put into `exchange` by `Exchange::begin`.
    pub fn forward(
        &mut self,
        bytes: &[u8],
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) -> Result<(), FrameError> {
        let mut rest = bytes;
        let mut parsed = 0;
        Session::ask_in_front(exchange, to);
        while let Some(head) = header(rest, usize::MAX)? {
            let Some((frame, behind)) = rest.split_at_checked(head.frame_len) else {
                return Err(FrameError::Body { tag: head.tag });
            };
            rest = behind;
            if exchange.skipping && head.tag != b'S' {
                // Neither sent nor owed. A simple query does not end what has failed either.
                exchange.open = true;
                continue;
            }
            if std::mem::take(&mut exchange.skipping) {
                exchange.open = false;
            }
            self.forward_frame(head.tag, frame, exchange, to, &mut parsed)?;
        }
        Ok(())
    }

    fn forward_frame(
        &mut self,
        tag: u8,
        frame: &[u8],
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
        parsed: &mut usize,
    ) -> Result<(), FrameError> {
        let class = |builder: &GroupBuilder, at: usize| builder.classes().get(at).copied();
        if self.keeps_back(tag, frame, exchange, to.dialect) {
            return Ok(());
        }
        match tag {
            b'Q' => {
                let class = class(&exchange.builder, *parsed);
                self.query(frame, class, exchange, to)?;
            }
            b'P' => {
                let class = class(&exchange.builder, *parsed);
                *parsed += 1;
                self.parse(frontend::parse(frame)?, frame, class, exchange, to);
            }
            b'B' => self.bind(frame, exchange, to)?,
            b'D' => match frontend::named(frame)? {
                Named::Statement(name) => self.describe(name, frame, exchange, to),
                Named::Portal(portal) => {
                    to.out.extend_from_slice(frame);
                    exchange.queue.push(Kind::DescribePortal, self.learner(portal), Undo::Nothing);
                }
            },
            b'E' => {
                let portal = frontend::execute(frame)?;
                if !self.portals.is_empty()
                    && let Some(effects) = self.portals.remove(portal)
                    && let Some(record) = exchange.groups.back_mut()
                {
                    record.effects.extend(effects);
                }
                plain(Kind::Execute, frame, &mut exchange.queue, to);
            }
            b'C' => match frontend::named(frame)? {
                Named::Statement(name) => {
                    let undo = match name {
                        b"" => self.replace_unnamed(&exchange.queue, to),
                        name => (self.names.remove_entry(name))
                            .map_or(Undo::Nothing, |entry| Undo::Closed(Box::new(entry))),
                    };
                    exchange.queue.push(Kind::Close, Act::Fabricate(&writers::CLOSE_COMPLETE), undo);
                }
                Named::Portal(_) => plain(Kind::Close, frame, &mut exchange.queue, to),
            },
            b'S' if exchange.queue.is_copying_in() => exchange.ignore_sync(),
            b'S' => {
                Session::ask_behind(exchange, to);
                plain(Kind::Sync, frame, &mut exchange.queue, to);
            }
            b'F' => plain(Kind::FunctionCall, frame, &mut exchange.queue, to),
            _ => to.out.extend_from_slice(frame),
        }
        Ok(())
    }

    /// A simple Query destroys the unnamed statement (manual, "Extended Query").
    fn query(
        &mut self,
        frame: &[u8],
        class: Option<Class>,
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) -> Result<(), FrameError> {
        if told::is_asked(exchange) {
            return self.query_in_parts(frame, class, exchange, to);
        }
        let undo = self.replace_unnamed(&exchange.queue, to);
        to.server.unnamed = 0;
        if let Some(class) = class
            && class.marks.contains(Marks::NAMED)
            && let Some(named) = self.named_in_query(frame, to)
        {
            if undo != Undo::Nothing {
                exchange.queue.push(Kind::Note, Act::Swallow, undo);
            }
            self.query_named(frontend::query(frame)?, named, class, exchange, to);
            return Ok(());
        }
        if let Some(class) = class
            && class.marks.intersects(Marks::SESSION_EFFECT.with(Marks::TRANSACTION_CONTROL))
            && let Some(record) = exchange.groups.back_mut()
        {
            record.effects.extend(effects_of(frontend::query(frame)?, to.dialect));
        }
        to.out.extend_from_slice(frame);
        exchange.queue.push(Kind::Query, Act::Forward, undo);
        Ok(())
    }

    fn bind(
        &mut self,
        frame: &[u8],
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) -> Result<(), FrameError> {
        let bind = frontend::bind(frame).ok_or(FrameError::Body { tag: b'B' })?;
        self.note_portal(&bind, to.dialect);
        self.undescribed.clear();
        match (bind.statement, self.names.get(bind.statement)) {
            (b"", _) => {
                self.ensure_unnamed(&mut exchange.queue, to);
                plain(Kind::Bind, frame, &mut exchange.queue, to);
            }
            (_, Some(named)) => {
                if !self.ensure(named, exchange, to) {
                    apart::refuse_changed(exchange, to);
                    return Ok(());
                }
                writers::bind_head(to.out, bind.portal, &named.statement.server_name, bind.rest.len());
                to.out.extend_from_slice(bind.rest);
                exchange.queue.push(Kind::Bind, Act::Forward, Undo::Uses(named.statement.id));
                if named.shape.columns == 0 && bind.portal.is_empty() {
                    self.undescribed.extend_from_slice(bind.statement);
                }
            }
            (unknown, None) => {
                writers::bind_head(to.out, bind.portal, harmless(unknown), bind.rest.len());
                to.out.extend_from_slice(bind.rest);
                exchange.queue.forward(Kind::Bind);
            }
        }
        Ok(())
    }

    /// Who describes a portal for the first time learns what its statement looks like.
    fn learner(&mut self, portal: &[u8]) -> Act {
        match portal.is_empty() && !self.undescribed.is_empty() {
            true => Act::Learn(std::mem::take(&mut self.undescribed).into()),
            false => Act::Forward,
        }
    }

    /// What executing this portal will do to the session.
    fn note_portal(&mut self, bind: &frontend::Bind<'_>, dialect: Dialect) {
        let (portal, statement) = (bind.portal, bind.statement);
        let marks = Marks::SESSION_EFFECT.with(Marks::TRANSACTION_CONTROL);
        let class = self.class_of(statement);
        if class.is_some_and(|class| class.marks.intersects(marks)) {
            let effects = self.text_of(statement).map(|text| effects_of(text, dialect)).unwrap_or_default();
            let effects = bound(effects, self.types_of(statement), bind.rest);
            self.portals.insert(portal.into(), effects);
        } else if !self.portals.is_empty() {
            self.portals.remove(portal);
        }
    }

    fn describe(&mut self, name: &[u8], frame: &[u8], exchange: &mut Exchange, to: &mut Outgoing<'_>) {
        match (name, self.names.get(name)) {
            (b"", _) => {
                self.ensure_unnamed(&mut exchange.queue, to);
                plain(Kind::DescribeStatement, frame, &mut exchange.queue, to);
            }
            (_, Some(named)) => {
                if !self.ensure(named, exchange, to) {
                    return apart::refuse_changed(exchange, to);
                }
                writers::statement(to.out, b'D', &named.statement.server_name);
                let uses = Undo::Uses(named.statement.id);
                let act = if named.shape.columns == 0 { Act::Learn(name.into()) } else { Act::Forward };
                exchange.queue.push(Kind::DescribeStatement, act, uses);
            }
            (unknown, None) => {
                writers::statement(to.out, b'D', harmless(unknown));
                exchange.queue.forward(Kind::DescribeStatement);
            }
        }
    }

    /// What was in flight is sent again: names that no server has confirmed are not given yet.
    pub fn take_back(&mut self, exchange: &mut Exchange) {
        for undo in exchange.queue.drain() {
            // A first unnamed Parse stays: it is sent again, or its group gets an error.
            if !matches!(undo, Undo::Unnamed(_, None)) {
                undo_name(undo, &mut self.names, &mut self.unnamed);
            }
        }
        exchange.clear();
    }

    /// One whole message of the server's.
    pub fn on_backend(
        &mut self,
        tag: u8,
        frame: &[u8],
        exchange: &mut Exchange,
        server: &mut ServerStatements,
    ) -> Result<Outcome, Unexpected> {
        let inquiring = exchange.queue.is_inquiring();
        if tag == b'D' && !inquiring {
            // A row changes nothing.
            let verdict = exchange.queue.on_message(tag, &mut drop)?;
            return Ok(Outcome { pass: verdict.pass, done: None });
        }
        if matches!(tag, b't' | b'T' | b'n') {
            self.learn(tag, frame, exchange);
        }
        // What we asked is neither the end of the client's statement nor a row of it.
        let telling = inquiring && matches!(tag, b'C' | b'D') && told::note_told(tag, frame, exchange);
        let mut renamed = if tag == b'E' { prepared::in_clients_words(frame, &self.names) } else { None };
        if matches!(tag, b'E' | b'N')
            && let Some(translation) = exchange.groups.front().and_then(|record| record.translation)
        {
            renamed = translation.apply(renamed.as_deref().unwrap_or(frame)).or(renamed);
        }
        let (names, unnamed) = (&mut self.names, &mut self.unnamed);
        let verdict = exchange.queue.on_message(tag, &mut |undo| match undo {
            Undo::Nothing => {}
            Undo::ServerParse(id) => server.remove(id),
            Undo::ServerClose(_) => server.distrusted = true,
            Undo::Uses(_) | Undo::Asks => {}
            Undo::Prepared(name, id) => {
                server.remove(id);
                undo_name(Undo::ClientName(name, id), names, unnamed);
            }
            Undo::Unnamed(tag, before) => {
                server.lost_unnamed(tag);
                undo_name(Undo::Unnamed(tag, before), names, unnamed);
            }
            Undo::ServerUnnamed(tag) => server.lost_unnamed(tag),
            other => undo_name(other, names, unnamed),
        })?;
        exchange.skipping |= verdict.skipping;
        if !telling {
            self.note(tag, frame, verdict.ends_ignored, exchange);
        }
        let mut done = match verdict.group_done {
            true => {
                let status = backend::ready(frame).ok_or(Unexpected { tag })?;
                exchange.groups.pop_front().map(|record| (record, status))
            }
            false => None,
        };
        let mut told = None;
        if let Some((record, status)) = &mut done {
            told = self.conclude(record, status)?;
        }
        let pass = match (verdict.pass, renamed) {
            // In a failed transaction that comes first, whatever else is wrong.
            (Pass::Replace(_), _) if tag == b'E' && is_in_failed_transaction(frame) => Pass::Forward,
            (Pass::Forward, Some(bytes)) => Pass::Replace(bytes),
            (pass, _) => told.map_or(pass, |told| Pass::Replace(told.into())),
        };
        Ok(Outcome { pass, done })
    }

    /// A group has ended: what its client is told instead of its ReadyForQuery.
    fn conclude(
        &mut self,
        record: &mut GroupRecord,
        status: &mut TransactionStatus,
    ) -> Result<Option<Vec<u8>>, Unexpected> {
        let mut told = None;
        if record.promised {
            *status = promised::told(record, *status)?;
            told = Some(writers::ready(*status).to_vec());
        }
        if record.errand.is_none() {
            // What prepares another connection for the client's transaction does not end it.
            self.unsettled = *status != TransactionStatus::Idle && (self.unsettled || record.unsettles());
        }
        if record.failed && !record.marks.contains(Marks::MULTI_STATEMENT) {
            // A PREPARE that failed has prepared nothing.
            record.effects.retain(|effect| *effect != Effect::Pin(PinReason::SqlPrepare));
        }
        Ok(told.or_else(|| told::with_late(record, *status)))
    }

    /// The transaction has ended, though no server could say so.
    pub fn end_transaction(&mut self) {
        self.unsettled = false;
    }

    /// A statement is described (where somebody learns from it, the frame is here).
    fn learn(&mut self, tag: u8, frame: &[u8], exchange: &mut Exchange) {
        match exchange.queue.front_act() {
            _ if frame.is_empty() => {}
            Some(Act::Learn(name)) => {
                self.names.get_mut(name).into_iter().for_each(|named| named.shape.learn(tag, frame));
            }
            Some(Act::Inspect) => exchange.told.learn(tag, frame),
            _ => {}
        }
    }

    fn note(&mut self, tag: u8, frame: &[u8], ends_ignored: usize, exchange: &mut Exchange) {
        if let Some(record) = exchange.groups.front_mut() {
            match tag {
                b'E' => record.failed = true,
                b'C' => {
                    record.rolled_back = backend::command_tag(frame) == Some(b"ROLLBACK");
                    record.restartable = false;
                    record.completed = true;
                }
                _ => {}
            }
        }
        // The group goes on: its end was none.
        for _ in 0..ends_ignored {
            match exchange.groups.remove(1) {
                Some(next) => {
                    exchange.groups[0].joined_by(&next);
                    exchange.joined += 1;
                }
                None => exchange.open = true,
            }
        }
    }
}

/// Takes back what a skipped request did to the client's names.
fn undo_name(undo: Undo, names: &mut Names, unnamed: &mut Unnamed) {
    match undo {
        Undo::ClientName(name, id) | Undo::Prepared(name, id) => {
            if names.get(&name).is_some_and(|known| known.statement.id == id) {
                names.remove(&name);
            }
        }
        Undo::Closed(entry) => {
            let (name, statement) = *entry;
            names.entry(name).or_insert(statement);
        }
        Undo::Unnamed(tag, before) => {
            if unnamed.tag == tag {
                *unnamed = before.map_or_else(Unnamed::default, |before| *before);
            }
        }
        Undo::Nothing
        | Undo::ServerParse(_)
        | Undo::ServerClose(_)
        | Undo::ServerUnnamed(_)
        | Undo::Asks
        | Undo::Uses(_) => {}
    }
}

fn plain(kind: Kind, frame: &[u8], queue: &mut ReplyQueue, to: &mut Outgoing<'_>) {
    to.out.extend_from_slice(frame);
    queue.forward(kind);
}

fn is_in_failed_transaction(error: &[u8]) -> bool {
    backend::error(error).sqlstate == Some(SqlState(*b"25P02"))
}

#[cfg(test)]
#[path = "machine/tests.rs"]
mod tests;
