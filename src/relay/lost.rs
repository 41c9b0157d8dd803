//! What becomes of a client whose server connection breaks.

use crate::clock;
use crate::cluster::health::Evidence;
use crate::config::settings::PoolMode;
use crate::fault::{Fault, SqlState};
use crate::freshness::gate::Durability;
use crate::node::Role;
use crate::relay::answer::Withdrawal;
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::relay::lost_transaction::last_words;
use crate::routing::request::Held;
use crate::session::exchange::{Errand, GroupRecord};
use crate::sql::class::{Access, Marks};
use crate::wire::backend::{ErrorFields, TransactionStatus};
use crate::wire::writers::{self, Severity};

/// A server connection broke.
#[derive(Debug)]
pub struct Lost {
    /// What the server said before (FATAL), or what the system said.
    pub why: Fault,
    /// Did the server end it because it did not understand its client?
    misunderstood: bool,
}

impl Lost {
    fn new(why: Fault) -> Lost {
        Lost { why, misunderstood: false }
    }

    /// With the server's own last words.
    pub fn told(fields: &ErrorFields<'_>) -> Lost {
        let message = String::from_utf8_lossy(fields.message).into_owned();
        let sqlstate = fields.sqlstate.unwrap_or(SqlState::CONNECTION_FAILURE);
        Lost {
            why: Fault::server(sqlstate, message),
            misunderstood: sqlstate == SqlState::PROTOCOL_VIOLATION,
        }
    }

    /// By a message that no server sends.
    pub fn not_postgres() -> Lost {
        let message = "the server sent something that the protocol does not allow here";
        Lost::new(Fault::server(SqlState::PROTOCOL_VIOLATION, message))
    }

    /// From an I/O error.
    pub fn broken(error: &std::io::Error) -> Lost {
        Lost::new(
            Fault::server(SqlState::CONNECTION_FAILURE, "the server connection was lost")
                .detail(error.to_string()),
        )
    }

    /// The node has stopped answering, though its connections stand.
    pub fn hung() -> Lost {
        Lost::new(
            Fault::server(SqlState::CONNECTION_FAILURE, "the server has stopped answering")
                .detail("Its node is down, or is no longer the primary."),
        )
    }

    /// Without a word.
    pub fn closed() -> Lost {
        Lost::new(
            Fault::server(SqlState::CONNECTION_FAILURE, "the server closed the connection unexpectedly")
                .detail("This probably means that the server terminated abnormally."),
        )
    }
}

impl Client {
    /// The server connection is gone.
    pub fn lost_server(&mut self, active: &mut Active, lost: Lost) -> Result<(), End> {
        self.tell_of_lost(active.exchange.groups.len(), &lost);
        let lost = match self.comes_in_doubt(active, lost) {
            Ok(()) => return Ok(()),
            Err(lost) => lost,
        };
        self.doubt_bonds(active);
        if active.answers.is_holding() {
            // What the client has not seen of an answer is none.
            active.answers.withdraw();
        }
        let errand = active.exchange.groups.front().and_then(|record| record.errand);
        if matches!(errand, Some(Errand::Settings | Errand::Replay)) {
            // Nothing of the client's was sent yet.
            self.end_in_flight(active);
            active.abandon();
            self.drop_connection();
            return Ok(());
        }
        if lost.misunderstood {
            // The client has said what nobody understands; a server that hears it elsewhere ends as well.
            self.end_in_flight(active);
            self.drop_connection();
            active.answers.drop_unseen();
            return Err(End::Fatal(Box::new(lost.why)));
        }
        if self.may_send_again(active) && !self.is_meant_by(&lost) {
            let ended = self.ends_replayable_write(active, &lost);
            self.withdraw(active, if ended { Withdrawal::ShutDown } else { Withdrawal::Lost });
            return Ok(());
        }
        if self.was_shut_down(active, &lost) {
            self.withdraw(active, Withdrawal::ShutDown);
            return Ok(());
        }
        let between = active.exchange.groups.is_empty() && !active.exchange.open;
        if between && self.is_free() && !active.answers.is_mid_message() {
            // Between two requests: a server that is shut down says so behind a complete answer,
            // often in the same breath. Nobody has lost anything.
            active.abandon();
            self.drop_connection();
            return Ok(());
        }
        self.lost_in_flight(active, &lost)
    }

    /// What was in flight is told what is known of it; the session goes on where it can.
    pub(super) fn lost_in_flight(&mut self, active: &mut Active, lost: &Lost) -> Result<(), End> {
        let held = self.session.state.held();
        self.end_in_flight(active);
        // Behind a lost BEGIN or SET, the rest of the pipeline would run without it.
        let opening = Marks::TRANSACTION_CONTROL.with(Marks::SESSION_EFFECT);
        let opens = active.exchange.groups.iter().any(|record| record.marks.intersects(opening));
        let keeps = held != Held::Free || self.tenant.mode() == PoolMode::Session;
        if self.is_block_on_replica() && !active.answers.is_mid_message() {
            self.lost_read_only(active, lost);
            return Ok(());
        }
        let is_settled = match self.is_promised() {
            true => !opens && self.lost_apart(active, lost),
            false => self.lost_transaction(active, lost),
        };
        if is_settled {
            return Ok(());
        }
        if keeps || opens || active.answers.is_mid_message() {
            self.drop_connection();
            active.answers.drop_unseen();
            return Err(End::Fatal(Box::new(lost_for_good(lost, &active.exchange.groups))));
        }
        self.answer_lost(active, TransactionStatus::Idle, &|record| fate(record, lost));
        Ok(())
    }

    fn tell_of_lost(&self, in_flight: usize, lost: &Lost) {
        let Some(attached) = &self.attached else { return };
        let node = attached.lease.pool().node;
        tracing::warn!(node = node.0, in_flight, "server connection lost: {}", lost.why);
        if !lost.misunderstood {
            self.context.monitor.report(node, Evidence::ConnectionLost);
        }
    }

    /// Reads of a transaction that has not begun have lost their replica, and cannot be sent again: the
    /// transaction fails, as it would with one server. False: nobody could say in which state.
    fn lost_apart(&mut self, active: &mut Active, lost: &Lost) -> bool {
        let is_clear = self.tenant.mode() == PoolMode::Transaction && !active.answers.is_mid_message();
        if is_clear {
            self.fail_promised();
            self.answer_lost(active, TransactionStatus::Failed, &|record| fate(record, lost));
        }
        is_clear
    }

    /// Everything in flight would be sent again. On a replica all of it are reads; behind a read on the
    /// primary there may be a write, which may have taken effect.
    fn may_send_again(&self, active: &Active) -> bool {
        let mut in_flight = active.exchange.groups.iter();
        let on_replica = self.attached.as_ref().is_some_and(|attached| attached.role == Role::Replica);
        in_flight.next().is_some_and(|front| front.retriable)
            && (on_replica || in_flight.all(|record| record.retriable))
    }

    /// Every group in flight gets an error of its own; the session goes on.
    pub(super) fn answer_lost(
        &mut self,
        active: &mut Active,
        status: TransactionStatus,
        fate: &dyn Fn(&GroupRecord) -> Fault,
    ) {
        active.answers.drop_unseen();
        if active.exchange.groups.iter().any(GroupRecord::wrote) {
            // In doubt: who looks whether it took effect must not look at a replica that cannot know.
            let now = clock::now();
            self.session.state.floor.write = Some((now, Durability::Inserted));
            self.session.state.last_write = Some(now);
        }
        let mut bytes = Vec::new();
        for record in &active.exchange.groups {
            writers::fault(&mut bytes, Severity::Error, &fate(record));
            bytes.extend_from_slice(&writers::ready(status));
        }
        active.answers.insert(&bytes);
        let kept = active.requests.kept();
        active.requests.let_go(kept);
        let open = active.exchange.open;
        self.session.take_back(&mut active.exchange);
        // What still comes of an open group belongs to what has failed.
        active.skip_to_sync = open;
        self.drop_connection();
    }

    /// Nobody waits for what was in flight any more.
    pub(super) fn end_in_flight(&mut self, active: &Active) {
        if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) {
            for _ in active.exchange.groups.iter().filter(|record| record.errand.is_none()) {
                connection.live.end(None);
            }
        }
    }
}

/// What became of a request whose server was lost.
fn fate(record: &GroupRecord, lost: &Lost) -> Fault {
    let why = last_words(record, lost);
    match record.access {
        Access::Read => Fault::server(SqlState::CONNECTION_FAILURE, "the server was lost while it answered")
            .detail(why)
            .hint("Nothing was written; it is safe to retry."),
        Access::Write | Access::Unknown => Fault::server(
            SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            "the server was lost before it said whether the statement took effect",
        )
        .detail(why)
        .hint("Find out whether it did before you send it again."),
    }
}

fn lost_for_good(lost: &Lost, in_flight: &std::collections::VecDeque<GroupRecord>) -> Fault {
    let unknown = in_flight.iter().any(|record| record.access != Access::Read);
    let sqlstate =
        if unknown { SqlState::TRANSACTION_RESOLUTION_UNKNOWN } else { SqlState::CONNECTION_FAILURE };
    let mut fault = Fault::server(sqlstate, "the server connection of this session was lost")
        .hint("Connect again and retry the transaction.");
    fault.detail = Some(lost.why.to_string().into());
    fault
}
