//! The loop of one client.

use crate::fault::{Fault, SqlState};
use crate::moment::Moment;
use crate::net::stream::Stream;
use crate::net::worker::{Turn, Worker};
use crate::node::Role;
use crate::pool::checkout::Lease;
use crate::pool::tenant::Tenant;
use crate::relay::answer::Digested;
use crate::relay::bonds::Bonds;
use crate::relay::buffer::{self, Active};
use crate::relay::cancel;
use crate::relay::catalogs::DatabaseCatalog;
use crate::relay::context::Context;
use crate::relay::dormitory;
use crate::relay::find::LagRead;
use crate::relay::lookup::Lookup;
use crate::relay::lost_transaction::Ended;
use crate::relay::recycle;
use crate::relay::rest::Woken;
use crate::relay::rule::{MetBySession, Ruled};
use crate::relay::slot::ClientSlot;
use crate::relay::survey::Survey;
use crate::routing::request::Demand;
use crate::session::block::Block;
use crate::session::exchange::Bond;
use crate::session::group::Scan;
use crate::session::machine::Session;
use crate::session::reply_queue::{Act, Kind, Undo};
use crate::session::split::Part;
use crate::sql::effects::Upheaval;
use crate::sql::lexer::Dialect;
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::{FrameError, HEADER_LEN, header};
use crate::wire::writers::{self, Severity};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

/// Copied bytes for a server wait for its socket; beyond this the client is not read. In bytes.
pub const TO_SERVER_MAX: usize = 256 * 1024;

/// Why a client's loop ended.
#[derive(Debug)]
pub enum End {
    /// It said Terminate.
    Terminate,
    /// It is gone without a word.
    Gone,
    /// It is told why, and disconnected.
    Fatal(Box<Fault>),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> End {
        End::Fatal(Box::new(Fault::client(SqlState::PROTOCOL_VIOLATION, error.to_string())))
    }
}

/// The server connection that a client has now.
#[derive(Debug)]
pub struct Attached {
    /// The connection.
    pub lease: Lease,
    /// What its node was when it was chosen.
    pub role: Role,
    /// Its node's incarnation then: what is read before a restart is not stamped with what came after it.
    pub incarnation: u64,
    /// Its place among the reads that lag has brought to the primary.
    pub lag_read: Option<LagRead>,
}

/// One client between login and goodbye.
#[derive(Debug)]
pub struct Client {
    /// What all clients share.
    pub context: Arc<Context>,
    /// Its database and role.
    pub tenant: Arc<Tenant>,
    /// What its database says about its objects.
    pub database: Arc<DatabaseCatalog>,
    /// Its bytes.
    pub stream: Stream,
    /// It decides on which worker it lives.
    pub turn: Turn,
    /// What lasts of its session.
    pub session: Session,
    /// As others see it.
    pub slot: Arc<ClientSlot>,
    /// How its strings are to be read.
    pub dialect: Dialect,
    /// The same where it has set nothing.
    pub default_dialect: Dialect,
    /// Its server connection, while it has one.
    pub attached: Option<Attached>,
    /// Has DDL been run that is not committed yet?
    pub ddl: bool,
    /// What it has done to whole databases and roles.
    pub upheavals: Option<Box<Vec<Upheaval>>>,
    /// Is the next group one that a replica could not finish?
    pub replay: Option<Replay>,
    /// When its last acknowledged write was sent, and when it was acknowledged.
    pub acknowledged: Option<(Moment, Moment)>,
    /// So many failovers it has been told of.
    pub failovers: u64,
    /// Where it has lost its primary's connection, until it has another.
    pub ended: Option<Ended>,
    /// What the comments of the group at hand ask for.
    pub hints: Hints,
    /// When the group at hand arrived, where its level asks for it.
    pub arrived: Moment,
    /// What a rule asks of it.
    pub ruled: Ruled,
    /// The rules that the session may meet.
    pub met_by_session: Option<Box<MetBySession>>,
    /// Its causal key, and what belongs to it.
    pub bonds: Option<Box<Bonds>>,
    /// What the group at hand has promised.
    pub bond: Option<Box<Bond>>,
    /// What its server is being asked, behind its answers.
    pub survey: Option<Box<Survey>>,
    /// Does the group at hand begin (again) a transaction that a replica can serve?
    pub begins_read_only: bool,
    /// What the group at hand is to a transaction that is split.
    pub part: Part,
    /// The transaction block that is open. Boxed: an idle client has none.
    pub block: Option<Box<Block>>,
    /// Did the server accept what pgweir asked it last?
    pub aligned: bool,
    /// The text behind the portal of a statement that pgweir itself answers.
    pub own_portal: Option<Vec<u8>>,
    /// Prepared statements per server connection.
    pub prepared_limit: usize,
    /// Names that it may give to statements.
    pub names_limit: usize,
    /// Since when it has rested, where it was asleep meanwhile.
    pub rests_since: Moment,
}

/// What a client is made of.
#[derive(Debug)]
pub struct Parts {
    /// What all clients share.
    pub context: Arc<Context>,
    /// Its database and role.
    pub tenant: Arc<Tenant>,
    /// What its database says about its objects.
    pub database: Arc<DatabaseCatalog>,
    /// Its bytes.
    pub stream: Stream,
    /// Its session.
    pub session: Session,
    /// As others see it.
    pub slot: Arc<ClientSlot>,
    /// How its strings are to be read.
    pub dialect: Dialect,
}

/// What comments ask for, besides a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    /// A level.
    pub consistency: Option<crate::routing::request::Consistency>,
    /// A bound of staleness.
    pub max_staleness: Option<std::time::Duration>,
    /// Do they speak of a token or a causal key?
    pub asks: bool,
    /// What it must see because of one.
    pub demand: Demand,
}

/// A group is being sent again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replay {
    /// Replicas that failed it, as bits of node ids.
    pub excluded: u64,
    /// Must it be the primary now?
    pub primary: bool,
}

impl Client {
    /// A client that has just been greeted.
    pub fn new(parts: Parts) -> Client {
        let (prepared_limit, names_limit) = {
            let limits = &parts.context.config.load().limits;
            (limits.prepared_statements as usize, limits.client_statements as usize)
        };
        let keyed = parts.context.causal.setting.is_some();
        let failovers = parts.context.monitor.failovers();
        Client {
            context: parts.context,
            tenant: parts.tenant,
            database: parts.database,
            stream: parts.stream,
            turn: Turn::default(),
            session: parts.session,
            slot: parts.slot,
            dialect: parts.dialect,
            default_dialect: parts.dialect,
            attached: None,
            ddl: false,
            upheavals: None,
            replay: None,
            ended: None,
            acknowledged: None,
            failovers,
            hints: Hints::default(),
            arrived: Moment::NEVER,
            ruled: Ruled::default(),
            met_by_session: None,
            bonds: keyed.then(Box::default),
            bond: None,
            survey: None,
            begins_read_only: false,
            part: Part::Other,
            block: None,
            aligned: true,
            own_portal: None,
            prepared_limit,
            names_limit,
            rests_since: Moment::NEVER,
        }
    }

    /// Serves the client until it leaves.
    pub async fn run(mut self: Box<Self>) {
        dormitory::watch(&self.slot);
        let (end, in_flight) = loop {
            let (mut active, result) = match self.rest().await {
                Ok(Woken::Bytes(mut active)) => {
                    let result = self.busy(&mut active).await;
                    (active, result)
                }
                Ok(Woken::Server(mut active)) => {
                    let result = self.unasked(&mut active).await;
                    (active, result)
                }
                Ok(Woken::Quiet) => return self.retire(),
                Err(end) => {
                    let mut active = buffer::borrow();
                    Box::pin(self.answer_fatal(&mut active, &end)).await;
                    break (end, 0);
                }
            };
            match result {
                Ok(()) => {
                    buffer::give_back(active);
                    if self.attached.is_none() && self.context.crew.home(self.turn) != Worker::current() {
                        return self.move_home();
                    }
                }
                Err(end) => {
                    Box::pin(self.answer_fatal(&mut active, &end)).await;
                    break (end, active.exchange.groups.len());
                }
            }
        };
        // Boxed: the rest is rare or long past, and an idle client should not carry it.
        Box::pin(self.leave(end, in_flight)).await;
    }

    /// Goes on living on another worker: the number of those in use has changed.
    fn move_home(self: Box<Self>) {
        let context = self.context.clone();
        let home = context.crew.home(self.turn);
        if self.may_sleep() {
            return dormitory::send(self, home);
        }
        let Some(runtime) = context.crew.runtime(home) else { return };
        runtime.spawn(async move {
            match self.settled() {
                Ok(client) => client.run().await,
                Err(error) => tracing::warn!("a client could not be moved to another worker: {error}"),
            }
        });
    }

    fn settled(self: Box<Self>) -> io::Result<Box<Client>> {
        let (context, slot) = (self.context.clone(), self.slot.clone());
        // Nobody but its task takes a client off the list.
        let lost = |error| {
            context.clients.leave(&slot);
            error
        };
        let client = *self;
        Ok(Box::new(Client { stream: client.stream.settle().map_err(lost)?, ..client }))
    }

    /// Serves until nothing is in flight.
    async fn busy(&mut self, active: &mut Active) -> Result<(), End> {
        loop {
            if active.doubt.is_some() {
                Box::pin(self.settle_doubt(active)).await?;
            }
            while active.withheld.is_some() {
                Box::pin(self.publish(active)).await?;
            }
            self.take_groups(active).await?;
            if active.exchange.is_idle() && active.to_server.is_empty() {
                if let Some(question) = self.question() {
                    Box::pin(self.survey(active, question)).await?;
                    continue;
                }
                self.release(active);
            }
            if active.is_idle() {
                return Ok(());
            }
            poll_fn(|cx| self.poll_pump(active, cx)).await?;
            if active.answers.comes_in_drops() {
                Box::pin(self.gather(active)).await;
            }
        }
    }

    /// A server that we hold has said something nobody asked for: a notification, a parameter, goodbye.
    async fn unasked(&mut self, active: &mut Active) -> Result<(), End> {
        if let Digested::Lost(lost) = self.digest(active)? {
            return self.lost_server(active, lost);
        }
        // The client may say something in the same moment.
        self.busy(active).await
    }

    /// Takes whatever is complete of the client's bytes and sends it on its way.
    async fn take_groups(&mut self, active: &mut Active) -> Result<(), End> {
        let (pipeline, limit) = (self.context.glance.pipeline(), self.context.glance.message_size());
        loop {
            if active.requests.fresh().is_empty() {
                active.wanted = active.exchange.builder.wanted(&[]);
                return Ok(());
            }
            if active.exchange.groups.len() >= pipeline || active.to_server.len() >= TO_SERVER_MAX {
                return Ok(());
            }
            if active.copy_left > 0 {
                self.pass_copy(active);
                if active.copy_left > 0 {
                    return Ok(());
                }
                continue;
            }
            self.session.epoch = self.context.epoch_of(&self.database);
            self.session.observe(self.database.schema(), &mut |settings| self.context.intern(settings));
            let mut lookup = Lookup {
                context: &self.context,
                database: &self.database,
                session: &self.session,
                queue: &active.exchange.queue,
                dialect: self.dialect,
            };
            match active.exchange.builder.scan(active.requests.fresh(), limit, &mut lookup)? {
                Scan::NeedMore => {
                    active.wanted = active.exchange.builder.wanted(active.requests.fresh());
                    return Ok(());
                }
                Scan::Terminate => return goodbye(active),
                Scan::Copy => {
                    if !self.take_copy(active, limit)? {
                        return Ok(());
                    }
                }
                Scan::Group(group) => {
                    if !self.place(active, &group).await? {
                        // It is read once more when its turn has come.
                        active.exchange.builder.reset();
                        return Ok(());
                    }
                    if let Some(bond) = self.bond.take() {
                        Box::pin(self.release_bond(&bond)).await;
                    }
                }
            }
        }
    }

    /// CopyData, CopyDone, CopyFail. False while the message is not there far enough.
    fn take_copy(&mut self, active: &mut Active, limit: usize) -> Result<bool, End> {
        let Some(head) = header(active.requests.fresh(), usize::MAX)? else { return Ok(false) };
        if head.tag == b'd' {
            // As many as have come: each costs its header alone.
            let (fresh, mut len) = (active.requests.fresh(), head.frame_len);
            while let Ok(Some(next)) = header(fresh.get(len..).unwrap_or_default(), limit)
                && next.tag == b'd'
            {
                len += next.frame_len;
            }
            active.copy_left = len;
            return Ok(true);
        }
        if head.frame_len > HEADER_LEN + TO_SERVER_MAX {
            return Err(FrameError::Length { tag: head.tag, length: head.frame_len as u32 }.into());
        }
        if active.requests.fresh().len() < head.frame_len {
            return Ok(false);
        }
        active.copy_left = head.frame_len;
        if self.attached.is_some() {
            active.exchange.queue.push(Kind::CopyEnd, Act::Swallow, Undo::Nothing);
        }
        Ok(true)
    }

    /// As much of a COPY message as is there. Without a server it is dropped, as the server drops
    /// what comes behind a failed COPY.
    fn pass_copy(&mut self, active: &mut Active) {
        let len = active.copy_left.min(active.requests.fresh().len());
        if self.attached.is_some() {
            active.to_server.extend_from_slice(&active.requests.fresh()[..len]);
        }
        active.copy_left -= len;
        take_and_forget(active, len);
    }

    /// May the session do without the server connection that it has?
    pub fn is_free(&self) -> bool {
        if self.is_promised() {
            // No server knows of its transaction.
            return true;
        }
        self.session.state.held() == crate::routing::request::Held::Free
            && self.tenant.mode() == crate::config::settings::PoolMode::Transaction
    }

    /// Gives the server connection back, if the session may do without it.
    pub fn release(&mut self, active: &mut Active) {
        if self.is_free() {
            self.give_back(active);
        }
    }

    /// Gives the server connection back: it is idle, and carries what `carried` says.
    pub fn give_back(&mut self, active: &mut Active) {
        let Some(mut attached) = self.attached.take() else { return };
        let canceled = self.slot.detach();
        // Half a message behind ReadyForQuery: its rest must not reach the next client.
        let torn = !active.answers.unseen().is_empty() || active.answers.is_mid_message();
        if torn {
            active.answers.drop_unseen();
        }
        if let Some(connection) = attached.lease.connection() {
            connection.tainted |= canceled | torn;
            connection.settings = self.session.state.carried.clone();
        }
        attached.lease.checkin();
    }

    /// Lets the connection go for good.
    pub fn drop_connection(&mut self) {
        if self.attached.take().is_some() {
            // Whether a cancel request is on its way does not matter to a closed connection.
            let _canceled: bool = self.slot.detach();
        }
    }

    async fn answer_fatal(&mut self, active: &mut Active, end: &End) {
        let End::Fatal(fault) = end else { return };
        tracing::info!(user = %self.slot.user(), database = %self.slot.database(), sqlstate = %fault.sqlstate,
            blame = ?fault.blame, "disconnecting client: {fault}");
        if active.answers.is_mid_message() {
            return;
        }
        active.answers.release();
        let mut bytes = Vec::new();
        writers::fault(&mut bytes, Severity::Fatal, fault);
        active.answers.insert(&bytes);
        let send = poll_fn(|cx| self.poll_answer(active, cx));
        // A client that does not read its own obituary is not waited for.
        drop(tokio::time::timeout(std::time::Duration::from_secs(5), send).await);
    }

    /// Cleans up behind the client, which has left `in_flight` groups unanswered.
    async fn leave(mut self: Box<Self>, end: End, in_flight: usize) {
        self.context.clients.leave(&self.slot);
        if in_flight == 0 {
            self.abandon_bonds();
        }
        let Some(mut attached) = self.attached.take() else { return };
        // Of several, a cancel request may hit the BEGIN before the others, which then would commit.
        let running = matches!(end, End::Gone | End::Fatal(_)) && in_flight == 1;
        let canceled = self.slot.detach();
        let idle = self.session.state.status() == TransactionStatus::Idle;
        if matches!(end, End::Terminate) && idle && !canceled {
            recycle::recycle(attached.lease, self.context.clone()).await;
        } else if running && let Some(connection) = attached.lease.connection() {
            // Nobody wants its answer any more: the server need not go on working.
            let (node, key) = (connection.node, connection.key.clone());
            cancel::send(&self.context, node, &key).await;
        }
    }
}

/// Terminate has come. What was asked before it is finished and answered first, as a server does;
/// a group without its Sync, or a COPY without its end, never will be.
fn goodbye(active: &mut Active) -> Result<(), End> {
    let exchange = &active.exchange;
    let waits = exchange.groups.len() > usize::from(exchange.open) || !active.answers.sendable().is_empty();
    if exchange.queue.is_copying_in() || (exchange.open && !waits) {
        return Err(End::Gone);
    }
    active.leaving = true;
    if waits { Ok(()) } else { Err(End::Terminate) }
}

/// The oldest kept bytes go at once where no replay needs them.
pub fn take_and_forget(active: &mut Active, len: usize) {
    let keep = active.requests.kept() > 0;
    active.requests.take(len);
    if keep {
        // They count for the last group in flight and go with it.
        if let Some(record) = active.exchange.groups.back_mut() {
            record.request_len += len;
            return;
        }
    }
    active.requests.let_go(len);
}

#[cfg(test)]
mod tests {
    /// What every idle client's task carries; the allocator's next size class would cost a kilobyte.
    #[test]
    fn an_idle_clients_task_is_small() {
        fn output_size<T, R>(_: fn(T) -> R) -> usize {
            std::mem::size_of::<R>()
        }
        let size = output_size(super::Client::run);
        assert!(size <= 1536, "{size}");
    }
}
