//! Named statements whose session, schema or settings have moved on since their Parse: prepared in a
//! round trip of their own, or sent again where a copy was older than what their client saw.

use crate::clock;
use crate::fault::SqlState;
use crate::node::Role;
use crate::pool::tenant::Tenant;
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::relay::context::Context;
use crate::routing::request::Held;
use crate::session::exchange::{Errand, Exchange, GroupRecord};
use crate::session::group::Group;
use crate::session::machine::{Estranged, Lender, Outgoing, Session};
use crate::session::prepared::{Scope, Statement};
use crate::session::reply_queue::{Act, Kind, Undo};
use crate::session::settings::difference;
use crate::sql::class::Marks;
use crate::sql::effects::PinReason;
use crate::wire::backend::{self, TransactionStatus};
use crate::wire::writers;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Requests are kept for another attempt up to this many bytes.
const KEPT_MAX: usize = 64 * 1024;

/// What the process lends a session while it writes.
pub struct Lent<'a> {
    /// Who shares statements.
    pub tenant: &'a Tenant,
    /// Who counts.
    pub context: &'a Context,
}

impl Lender for Lent<'_> {
    fn statement(&mut self, text: &[u8], types: &[u8], scope: &Scope) -> Arc<Statement> {
        self.tenant.statement(text, types, scope, || self.context.next_id())
    }

    fn next_id(&mut self) -> u64 {
        self.context.next_id()
    }
}

/// Writes a group of our own.
type Write = fn(&Session, &[u8], &mut Exchange, &mut Outgoing<'_>);

impl Client {
    /// Does the group use a statement that the connection lacks and that has to be prepared apart?
    pub fn is_estranged(&self, active: &Active, group: &Group) -> bool {
        group.estranged
            && (!self.estranged(active, group).is_empty() || !self.mentioned(active, group).is_empty())
    }

    fn mentioned(&self, active: &Active, group: &Group) -> Vec<Box<[u8]>> {
        let on_primary = self.attached.as_ref().is_some_and(|attached| attached.role == Role::Primary);
        let may = on_primary && self.session.state.status() != TransactionStatus::Failed;
        match group.marks.contains(Marks::NAMED) && may {
            true => self.session.mentioned_in(active.requests.fresh().get(..group.len).unwrap_or_default()),
            false => Vec::new(),
        }
    }

    fn estranged(&self, active: &Active, group: &Group) -> Vec<Estranged> {
        let connection = self.attached.as_ref().and_then(|attached| attached.lease.peek());
        let bytes = active.requests.fresh().get(..group.len).unwrap_or_default();
        connection
            .map(|connection| self.session.estranged_in(bytes, &active.exchange, &connection.statements))
            .unwrap_or_default()
    }

    /// Prepares what the group uses and the connection lacks. False: that failed, and the client has
    /// been told.
    pub async fn reconcile(&mut self, active: &mut Active, group: &Group) -> Result<bool, End> {
        let mut worked = true;
        for estranged in self.estranged(active, group) {
            worked = worked && self.prepare_one(active, &estranged).await?;
        }
        for name in self.mentioned(active, group) {
            worked = worked && self.hand_over(active, &name).await?;
        }
        if worked || self.attached.is_none() {
            // Lost: nothing of the client's was sent.
            return Ok(true);
        }
        self.replay = None;
        self.close_group(active, group);
        Ok(false)
    }

    async fn prepare_one(&mut self, active: &mut Active, estranged: &Estranged) -> Result<bool, End> {
        let here = self.session.scope().clone();
        let there = &estranged.scope;
        let carried = self.session.state.carried.clone();
        let moved = match difference(&here.settings, &there.settings) {
            Some(sql) => self.ask_query(active, &sql).await?,
            None => true,
        };
        let prepared = moved && self.ask_prepare(active, &estranged.name).await?;
        let failed_block = self.session.state.status() == TransactionStatus::Failed;
        if let Some(back) = difference(&there.settings, &here.settings)
            && moved
            && !failed_block
            && self.attached.is_some()
            && !self.ask_query(active, &back).await?
        {
            // What it carries now is anybody's guess.
            if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection())
            {
                connection.tainted = true;
            }
            return Ok(false);
        }
        self.session.state.carried = carried;
        Ok(prepared)
    }

    async fn ask_query(&mut self, active: &mut Active, sql: &str) -> Result<bool, End> {
        writers::query(&mut active.to_server, sql.as_bytes());
        if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) {
            // A simple Query destroys the unnamed statement.
            connection.statements.unnamed = 0;
        }
        active.exchange.queue.push(Kind::Query, Act::Inspect, Undo::Nothing);
        self.perform(active).await
    }

    /// A name of ours that stands where it is not translated becomes the connection's own.
    async fn hand_over(&mut self, active: &mut Active, name: &[u8]) -> Result<bool, End> {
        let carried = self.session.state.carried.clone();
        let worked = self.ask_with(active, Session::hand_over, name).await?;
        self.session.state.carried = carried;
        if worked && self.session.handed_over(name) {
            let reason = PinReason::SqlPrepare;
            self.context.counters.pins[reason as usize].fetch_add(1, Ordering::Relaxed);
            self.context.metrics.pinned(reason.as_str());
            self.slot.set_pins(self.session.state.pins.bits());
        }
        Ok(worked)
    }

    async fn ask_prepare(&mut self, active: &mut Active, name: &[u8]) -> Result<bool, End> {
        let worked = self.ask_with(active, Session::prepare_apart, name).await?;
        if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection())
            && worked
        {
            self.session.prepared_apart(name, &active.exchange, &mut connection.statements);
        }
        Ok(worked)
    }

    async fn ask_with(&mut self, active: &mut Active, write: Write, name: &[u8]) -> Result<bool, End> {
        let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) else {
            return Ok(false);
        };
        {
            let mut outgoing = Outgoing {
                out: &mut active.to_server,
                server: &mut connection.statements,
                lent: &mut Lent { tenant: &self.tenant, context: &self.context },
                prepared_limit: self.prepared_limit,
                names_limit: self.names_limit,
                dialect: self.dialect,
                replayed: false,
            };
            write(&self.session, name, &mut active.exchange, &mut outgoing);
        }
        self.perform(active).await
    }

    /// Sends a group of our own and waits for its end. True: it worked.
    async fn perform(&mut self, active: &mut Active) -> Result<bool, End> {
        active.exchange.groups.push_back(GroupRecord::internal(Errand::Settings, clock::now()));
        self.aligned = true;
        self.drive(active).await?;
        Ok(std::mem::replace(&mut self.aligned, true) && self.attached.is_some())
    }

    /// The group was just forwarded: may it be sent again if a copy of a statement turns out to be older
    /// than the schema that its client saw? Then its answer is held back. Nothing that was sent behind
    /// it, and nothing that it may have executed before, is executed twice.
    pub fn may_restart(&self, active: &mut Active, group: &Group, continued: bool) -> bool {
        let lasting =
            Marks::TRANSACTION_CONTROL.with(Marks::DDL).with(Marks::SESSION_EFFECT).with(Marks::COPY);
        let allowed = group.complete
            && !continued
            && active.exchange.groups.len() == 1
            && !group.marks.intersects(lasting)
            && self.is_free()
            && self.session.state.held() == Held::Free
            && active.requests.kept() < KEPT_MAX;
        let Some(record) = active.exchange.groups.back_mut() else { return false };
        record.restartable &= allowed;
        if record.restartable {
            active.answers.hold();
        }
        record.restartable
    }

    /// The server's copy of a statement is older than the schema: it is made anew when it is needed next.
    /// True: the request may be sent again at once.
    pub(super) fn note_stale_plan(&mut self, active: &Active) -> bool {
        let Some(id) = active.exchange.queue.front_uses() else { return false };
        let connection = self.attached.as_mut().and_then(|attached| attached.lease.connection());
        let copy = connection.and_then(|connection| connection.statements.doubt(id));
        if copy.is_some_and(|copy| copy.scope.epoch == self.database.schema()) {
            // Somebody has changed the schema past pgweir.
            self.database.invalidate();
        }
        let record = active.exchange.groups.front();
        active.exchange.groups.len() == 1 && record.is_some_and(|record| record.restartable)
    }
}

/// "cached plan must not change result type", in whatever language.
pub(super) fn is_stale_plan(fields: &backend::ErrorFields<'_>) -> bool {
    fields.sqlstate == Some(SqlState::FEATURE_NOT_SUPPORTED) && fields.routine == b"RevalidateCachedQuery"
}
