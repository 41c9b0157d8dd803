//! At levels `strict` and `global`: nobody goes to the primary before it shows what replicas have shown.

use crate::clock;
use crate::config::values::show_duration;
use crate::fault::{Fault, SqlState};
use crate::moment::Moment;
use crate::node::Role;
use crate::relay::buffer::Active;
use crate::relay::client::Client;
use crate::relay::place::Placed;
use crate::routing::fence::{Unfenced, unfenced};
use crate::routing::request::{Consistency, Held, Request};
use crate::session::block::Runs;
use crate::session::group::Group;
use crate::wire::backend::TransactionStatus;
use std::time::Duration;

/// Whoever waits asks again so often: a run that broke is begun anew only for somebody.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Until when one request waits for a fence; `None`: it has not begun to.
#[derive(Default)]
pub(super) struct FenceWait(Option<Moment>);

impl Client {
    /// What the primary is not proven to show yet, of what this request must see there.
    pub(super) fn unfenced(&self, request: &Request) -> Option<Unfenced> {
        if request.consistency < Consistency::Strict {
            return None;
        }
        let config = self.context.config.load();
        unfenced(request, &self.context.monitor.view(), &config.routing.policy)
    }

    /// The same for a group that would follow others on the primary.
    pub(super) fn is_unfenced(&self, group: &Group) -> bool {
        self.level() >= Consistency::Strict && self.unfenced(&self.request(group)).is_some()
    }

    /// Waits for a moment until more is known. An error: it has waited for long enough.
    pub(super) async fn wait_for_fence(
        &self,
        request: &Request,
        wait: &mut FenceWait,
        seen: u64,
    ) -> Result<(), Box<Fault>> {
        let Some(missing) = self.unfenced(request) else { return Ok(()) };
        let (now, limit) = (clock::now(), self.context.config.load().routing.policy.fence_wait);
        let until = *wait.0.get_or_insert(now.plus(limit));
        if now >= until {
            return Err(Box::new(not_shown(limit)));
        }
        let monitor = &self.context.monitor;
        monitor.want_fence(|node| missing.nodes.contains(node), missing.at);
        monitor.published_since(seen, now.plus(ASK_AGAIN).min(until)).await;
        Ok(())
    }

    /// A session that keeps its connection to the primary goes on there when it may. A fault: it may not.
    pub(super) async fn fence_attached(&self, group: &Group) -> Option<Box<Fault>> {
        let on_primary = self.attached.as_ref().is_some_and(|attached| attached.role == Role::Primary);
        if !on_primary || self.level() < Consistency::Strict {
            return None;
        }
        let mut request = self.request(group);
        // What is first done in a transaction is where its reading begins.
        let fresh = |runs: Runs, again: bool| runs == Runs::OnPrimary && again;
        if self.block.as_ref().is_some_and(|block| fresh(block.runs, block.may_begin_again())) {
            request.held = Held::Free;
        }
        let mut wait = FenceWait::default();
        while self.unfenced(&request).is_some() {
            let seen = self.context.monitor.publications();
            if let Err(fault) = Box::pin(self.wait_for_fence(&request, &mut wait, seen)).await {
                return Some(fault);
            }
        }
        None
    }

    /// The answer to a group that may not go on where its session is.
    pub(super) fn refuse_unfenced(
        &mut self,
        active: &mut Active,
        group: &Group,
        fault: Box<Fault>,
    ) -> Placed {
        if self.session.state.status() == TransactionStatus::Idle {
            return Placed::Refused(fault);
        }
        self.refuse_in_block(active, group, &fault);
        Placed::Answered
    }
}

fn not_shown(limit: Duration) -> Fault {
    let limit = show_duration(limit);
    Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "the primary does not show yet what a replica has shown")
        .detail(format!(
            "A transaction that this session, or at level global anybody, may have read on a replica is not \
             visible on the primary after {limit} (routing.fence_wait)."
        ))
        .hint(
            "It may wait for a synchronous standby, or that replica is gone. Retry later, connect again, or SET \
             pgweir.consistency = 'session', which does not wait.",
        )
        .retriable()
}
