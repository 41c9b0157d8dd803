//! What a client is told of a group that is not sent.

use crate::fault::{Fault, SqlState};
use crate::relay::buffer::Active;
use crate::relay::client::Client;
use crate::relay::slot::Doing;
use crate::session::group::Group;
use crate::wire::writers::{self, Severity};

impl Client {
    /// An error instead of an answer.
    pub(super) fn answer_refusal(&mut self, active: &mut Active, group: &Group, fault: &Fault) {
        self.slot.set_doing(Doing::Idle);
        (self.replay, self.ended) = (None, None);
        tracing::info!(user = %self.slot.user(), database = %self.slot.database(), sqlstate = %fault.sqlstate,
            "request refused: {fault}");
        let mut bytes = Vec::new();
        writers::fault(&mut bytes, Severity::Error, fault);
        active.answers.insert(&bytes);
        self.close_group(active, group);
    }

    /// Takes the group and says ReadyForQuery: its error has been written already.
    pub(super) fn close_group(&mut self, active: &mut Active, group: &Group) {
        self.fail_promised();
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
