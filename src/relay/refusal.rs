//! What a client is told of a group that is not sent.

use crate::fault::{Fault, SqlState};
use crate::relay::buffer::Active;
use crate::relay::cancel::Doing;
use crate::relay::client::Client;
use crate::relay::lost::Lost;
use crate::session::exchange::GroupRecord;
use crate::session::group::Group;
use crate::sql::class::Access;
use crate::wire::writers::{self, Severity};

impl Client {
    /// An error instead of an answer.
    pub(super) fn answer_refusal(&mut self, active: &mut Active, group: &Group, fault: &Fault) {
        self.slot.set_doing(Doing::Idle);
        self.replay = None;
        tracing::info!(user = %self.slot.user, database = %self.slot.database, sqlstate = %fault.sqlstate,
            "request refused: {fault}");
        let mut bytes = Vec::new();
        writers::fault(&mut bytes, Severity::Error, fault);
        active.answers.insert(&bytes);
        self.close_group(active, group);
    }

    /// Takes the group and says ReadyForQuery: its error has been written already.
    pub(super) fn close_group(&mut self, active: &mut Active, group: &Group) {
        active.requests.take(group.len);
        active.requests.let_go(group.len);
        active.exchange.builder.reset();
        match group.complete {
            true => active.answers.insert(&writers::ready(self.session.state.status())),
            false => {
                active.skip_to_sync = true;
                active.ready_after_skip = true;
            }
        }
    }
}

/// The client has canceled it while it waited.
pub(super) fn canceled() -> Fault {
    Fault::client(SqlState::QUERY_CANCELED, "canceling statement due to user request").retriable()
}

/// What became of a request whose server was lost.
pub(super) fn fate(record: &GroupRecord, lost: &Lost) -> Fault {
    let why = lost.why.to_string();
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

pub(super) fn lost_for_good(lost: &Lost, in_flight: &std::collections::VecDeque<GroupRecord>) -> Fault {
    let unknown = in_flight.iter().any(|record| record.access != Access::Read);
    let sqlstate =
        if unknown { SqlState::TRANSACTION_RESOLUTION_UNKNOWN } else { SqlState::CONNECTION_FAILURE };
    let mut fault = Fault::server(sqlstate, "the server connection of this session was lost")
        .hint("Connect again and retry the transaction.");
    fault.detail = Some(lost.why.to_string().into());
    fault
}
