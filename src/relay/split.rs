//! Transaction splitting (`routing.transactions: split`): a READ COMMITTED transaction begins on the primary
//! with the first thing that is not plainly a read. Until then pgweir has promised it, and its reads run
//! on replicas, each on its own.

use crate::clock;
use crate::config::settings::PoolMode;
use crate::node::{NodeId, Role};
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::relay::place::Placed;
use crate::routing::reason::Reason;
use crate::routing::request::{Consistency, Held, Request, Transactions};
use crate::session::block::{Block, Runs};
use crate::session::group::Group;
use crate::session::reply_queue::Act;
use crate::session::split::{self, Part};
use crate::session::state::GroupEnd;
use crate::sql::class::{Access, Marks, Route, Why};
use crate::sql::control::{Control, control_of};
use crate::sql::effects::effects_of;
use crate::wire::backend::TransactionStatus;

/// Fails in any transaction, and says why in the server's log.
const FAILS: &str = "ROLLBACK TO \"pgweir: this transaction has failed on a replica\"";

impl Client {
    /// Is a transaction open that no server knows of yet?
    pub(super) fn is_promised(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.runs == Runs::Nowhere)
    }

    /// What the group at hand is to a transaction that is split.
    pub(super) fn part_of(&self, active: &Active, group: &Group) -> Part {
        let bytes = || active.requests.fresh().get(..group.len).unwrap_or_default();
        match self.session.state.status() {
            TransactionStatus::Idle if group.marks.contains(Marks::TRANSACTION_CONTROL) => {
                let split = self.context.config.load().routing.policy.transactions == Transactions::Split;
                if !split || self.begins_read_only {
                    return Part::Other;
                }
                split::of_idle(group, bytes(), &self.session, || self.may_promise(group.route))
            }
            TransactionStatus::Idle => Part::Other,
            status if self.is_promised() => {
                split::of_promised(group, bytes(), &self.session, status == TransactionStatus::Failed)
            }
            TransactionStatus::InBlock | TransactionStatus::Failed => Part::Other,
        }
    }

    /// The same for one statement that is only asked about.
    pub(super) fn part_of_statement(&self, group: &Group) -> Part {
        match self.session.state.status() {
            TransactionStatus::InBlock if self.is_promised() => {
                split::of_promised(group, b"", &self.session, false)
            }
            _ => Part::Other,
        }
    }

    /// May a transaction of this session be promised now? Where nobody could serve its reads, or where it
    /// may begin as something else than READ COMMITTED, it begins.
    fn may_promise(&self, route: Route) -> bool {
        let state = &self.session.state;
        state.held() == Held::Free
            && self.tenant.mode() == PoolMode::Transaction
            && (state.route != Route::Primary || route == Route::Replica)
            && route != Route::Primary
            && !self.database.catalog.load().other_isolation_possible()
            && self.context.monitor.view().replicas().next().is_some()
    }

    /// Would this statement only be promised?
    pub(super) fn would_promise(&self, text: &[u8]) -> bool {
        let split = self.context.config.load().routing.policy.transactions == Transactions::Split;
        let idle = self.session.state.status() == TransactionStatus::Idle;
        let begins = |level| crate::session::block::reads_committed(level, self.session.state.settings());
        split
            && idle
            && matches!(control_of(text), Some(Control::Begin { level, .. }) if begins(level))
            && self.may_promise(Route::Auto)
    }

    /// A BEGIN is promised, or the end of what was promised comes. Its command tag.
    pub(super) fn answer_control(&mut self, control: Control, text: &[u8]) -> &'static str {
        let failed = self.session.state.status() == TransactionStatus::Failed;
        let begins = matches!(control, Control::Begin { .. });
        let effects = effects_of(text, self.dialect);
        if begins {
            // Wherever it begins, the connection is brought to these settings first.
            self.session.state.carried = self.session.state.settings().clone();
            self.block = Some(Box::new(Block::begun(Runs::Nowhere, &effects, Marks(0))));
        } else {
            self.block = None;
            self.session.forget_portals();
        }
        let end = GroupEnd {
            status: if begins { TransactionStatus::InBlock } else { TransactionStatus::Idle },
            effects: &effects,
            failed: false,
            rolled_back: false,
            wrote: false,
            ddl: false,
            saw: false,
            now: clock::now(),
            // It has shown nothing of anybody.
            node: NodeId(0),
            incarnation: 0,
        };
        self.session.state.group_ended(&end, &mut |settings| self.context.intern(settings));
        if failed { Control::Rollback.tag() } else { control.tag() }
    }

    /// An error fails the transaction, wherever it comes from.
    pub(super) fn fail_promised(&mut self) {
        if self.is_promised() {
            self.session.state.fail_block();
        }
    }

    /// The next group of a transaction that was promised: a read on a replica, or the transaction begins.
    pub(super) async fn go_on_promised(&mut self, active: &mut Active, group: &Group) -> Result<Placed, End> {
        let (mut sql, mut act) = (String::new(), Act::Swallow);
        if let Some(block) = &self.block {
            sql = block.begin_promised();
        }
        if self.session.state.status() == TransactionStatus::Failed {
            sql.push_str(FAILS);
            act = Act::Own;
        }
        let placed = self.begin_with(active, group, sql, act).await?;
        match placed {
            Placed::Here(_) if !self.is_promised() && group.marks.contains(Marks::READ_ONLY) => {
                self.stay(active, group).await
            }
            // Why a read has not found a replica is worth knowing.
            Placed::Here(reason) if self.is_promised() || self.part == Part::Reads => {
                Ok(Placed::Here(reason))
            }
            Placed::Here(_) => Ok(Placed::Here(Reason::InTransaction)),
            Placed::Refused(fault) => {
                self.fail_promised();
                Ok(Placed::Refused(fault))
            }
            other => Ok(other),
        }
    }

    /// Is the server that was found to run a read of the transaction, and not the transaction?
    pub(super) fn reads_apart(&self) -> bool {
        let on_replica = self.attached.as_ref().is_some_and(|attached| attached.role == Role::Replica);
        on_replica && matches!(self.part, Part::Reads | Part::Begins)
    }

    /// The request of a group of such a transaction. Each of its statements sees what those before it saw,
    /// and more, as READ COMMITTED has it, on whichever nodes they run: hence the level.
    pub(super) fn split_request(&self, request: Request) -> Request {
        let mut request = request;
        match self.part {
            Part::Begins => {
                (request.access, request.why, request.split) = (Access::Read, Why::PlainRead, true)
            }
            Part::Reads => request.split = true,
            Part::Other | Part::Answered if self.is_promised() && request.access == Access::Read => {
                (request.access, request.why) = (Access::Write, Why::TransactionControl);
            }
            Part::Other | Part::Answered => {}
        }
        // One that has failed sees nothing any more.
        let goes_on = self.is_promised() && self.session.state.status() == TransactionStatus::InBlock;
        if goes_on && self.block.as_ref().is_some_and(|block| block.has_read()) {
            if request.consistency == Consistency::Eventual {
                request.floor.write = None;
            }
            request.consistency = request.consistency.max(Consistency::Strict);
        }
        request
    }
}
