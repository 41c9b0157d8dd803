//! Transactions that lose their server: begun again where nobody sees a difference, else failed with an
//! error that can be retried, and in doubt only where a COMMIT was on its way.

use crate::clock;
use crate::config::settings::PoolMode;
use crate::fault::{Fault, SqlState};
use crate::freshness::gate::Durability;
use crate::moment::Moment;
use crate::node::{NodeId, Role};
use crate::relay::buffer::Active;
use crate::relay::client::Client;
use crate::relay::lost::Lost;
use crate::relay::transcript::Unreplayed;
use crate::routing::request::Held;
use crate::session::block::Runs;
use crate::session::exchange::{GroupRecord, InquiryPlace};
use crate::session::group::Group;
use crate::sql::class::{Access, Marks, Why};
use crate::sql::effects::Effect;
use crate::wire::backend::TransactionStatus;
use std::time::Duration;

/// A server that is shut down ends all its connections together. One that still answers so much later has
/// ended this one alone.
const SHUTS_DOWN_WITHIN: Duration = Duration::from_millis(250);
/// A server that is killed dies process by process: other connections to it are not trusted before.
const DIES_WITHIN: Duration = Duration::from_millis(20);

/// Where the connection to a primary was lost, and in which of its node's incarnations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The node.
    pub node: NodeId,
    /// Its incarnation when the connection was checked out.
    pub incarnation: u64,
    /// When.
    pub at: Moment,
    /// Did the server end (57P01) a write? Then it matters whom it meant.
    pub ended_write: bool,
}

/// What was lost: one connection, or the server?
pub(super) enum Meant {
    /// The statement can be sent to whoever is the primary now.
    Server,
    /// This statement: an administrator does not want it to run.
    Statement,
    /// Not yet known.
    Unknown,
}

impl Client {
    /// Does the session hold its server connection for an open transaction alone? Then it outlives it.
    pub(super) fn outlives_server(&self) -> bool {
        self.session.state.status() != TransactionStatus::Idle
            && self.session.state.pins.is_empty()
            && self.tenant.mode() == PoolMode::Transaction
    }

    /// The server of an open transaction is gone. What was in flight gets an error, and the session goes
    /// on. False: nobody could say in which state.
    pub(super) fn lost_transaction(&mut self, active: &mut Active, lost: &Lost) -> bool {
        if !self.outlives_server() || active.answers.is_mid_message() {
            return false;
        }
        let groups = &active.exchange.groups;
        let Some(last) = groups.back() else {
            if active.exchange.open {
                return false;
            }
            // Whether it can begin again is seen when its client goes on with it.
            if self.is_meant_by(lost) {
                self.forget_transcript();
            }
            active.abandon();
            self.ended = self.ended_here(false);
            self.drop_connection();
            return true;
        };
        if !groups.iter().any(may_end) {
            self.session.state.lose_block();
            self.answer_lost(active, TransactionStatus::Failed, &|_| lost_before_commit(Some(lost)));
            return true;
        }
        // FATAL comes before the commit, or not at all.
        let was_ended = lost.why.sqlstate == SqlState::ADMIN_SHUTDOWN && !last.completed;
        // The effects do not tell what else is in it: a write in front of the COMMIT, or behind a ROLLBACK.
        let is_alone = last.only_controls();
        let commits = match &last.effects[..] {
            // What was to follow it has not begun, which the status says.
            [Effect::Commit { .. }] => {
                !was_ended && !(is_alone && (self.stays_failed(active) || self.has_only_read(active)))
            }
            [Effect::Rollback { chain: false }] => !was_ended && !is_alone,
            _ => return false,
        };
        if groups.iter().filter(|record| may_end(record)).count() > 1 {
            return false;
        }
        self.transaction_is_over();
        if commits {
            // In doubt: who looks whether it took effect must not look at a replica that cannot know.
            let now = clock::now();
            self.session.state.floor.write = Some((now, Durability::Inserted));
            self.session.state.last_write = Some(now);
            self.answer_lost(active, TransactionStatus::Idle, &|record| lost_at_commit(record, lost));
        } else {
            self.answer_lost(active, TransactionStatus::Idle, &|_| lost_before_commit(Some(lost)));
        }
        true
    }

    /// Has the transaction failed, whatever became of what is in flight?
    fn stays_failed(&self, active: &Active) -> bool {
        let mends = |effect: &Effect| matches!(effect, Effect::RollbackTo(_));
        self.session.state.status() == TransactionStatus::Failed
            && !active.exchange.groups.iter().any(|record| record.effects.iter().any(mends))
    }

    /// Does a transaction of the primary's that has lost it begin again? Its reads belong there as well.
    pub(super) fn resumes_on_primary(&self) -> bool {
        self.attached.is_none()
            && !self.begins_read_only
            && self.session.state.status() != TransactionStatus::Idle
            && self.block.as_ref().is_some_and(|block| block.runs == Runs::OnPrimary)
    }

    /// Nothing of the open transaction is left.
    pub(super) fn transaction_is_over(&mut self) {
        self.session.state.transaction_lost();
        self.block = None;
        if std::mem::take(&mut self.ddl) {
            // It may have been committed.
            self.database.invalidate();
            self.database.stale.notify_one();
        }
    }

    /// A group of a transaction that has lost its primary, and cannot begin again. `None`: it ends the
    /// transaction, or was told already; a transaction that fails takes its place.
    pub(super) fn refuse_lost(&mut self, effects: &[Effect], why: Option<&Unreplayed>) -> Option<Fault> {
        if self.session.state.status() != TransactionStatus::InBlock
            || matches!(effects, [Effect::Rollback { chain: false }])
        {
            return None;
        }
        match effects {
            // A server that refuses a COMMIT has ended the transaction.
            [Effect::Commit { chain: false }] => self.transaction_is_over(),
            _ => self.session.state.lose_block(),
        }
        match why {
            // The client, or an administrator, did not want it to run.
            Some(Unreplayed::Refused(fault)) if is_meant(fault) => Some((**fault).clone()),
            Some(why) => Some(lost_before_commit(None).detail(why.detail())),
            None => Some(lost_before_commit(None)),
        }
    }

    /// A group that would commit a transaction which has failed with its server, whether its client has heard
    /// that or not: a server would answer it `ROLLBACK`, which is no error to most drivers.
    pub(super) fn refuse_lost_commit(&mut self, active: &Active, group: &Group) -> Option<Fault> {
        if !self.session.state.has_lost_block() || !group.marks.contains(Marks::TRANSACTION_CONTROL) {
            return None;
        }
        let ends = |effect: &Effect| match effect {
            Effect::Commit { .. } | Effect::PrepareTransaction => Some(true),
            Effect::Rollback { .. } => Some(false),
            _ => None,
        };
        let commits = self.effects_in(active, group).iter().find_map(ends).unwrap_or(false);
        commits.then(|| {
            // Whoever runs a failed transaction in its place has no more use.
            self.drop_connection();
            self.transaction_is_over();
            lost_before_commit(None)
        })
    }

    /// Has the server said that it ended what is in flight before it was done, and may that be sent again?
    /// It rolled it back: FATAL comes before the commit, or not at all.
    pub(super) fn was_shut_down(&self, active: &Active, lost: &Lost) -> bool {
        lost.why.sqlstate == SqlState::ADMIN_SHUTDOWN
            && !active.exchange.open
            && active.exchange.groups.front().is_some_and(|front| {
                // What is asked behind it comes before its commit. Where it has a number, that is looked up.
                let numbered = front.told().is_some_and(|(_, told)| told.transaction.is_some());
                let behind = front.asked() == Some(InquiryPlace::Behind);
                let before = behind && !numbered;
                (!front.completed || before) && !front.committed_locally
            })
            && active.exchange.groups.iter().all(|record| record.resumable || record.retriable)
    }

    /// What the primary's connection was that is being lost.
    pub(super) fn ended_here(&self, ended_write: bool) -> Option<Ended> {
        let attached = self.attached.as_ref().filter(|attached| attached.role == Role::Primary)?;
        let (node, incarnation) = (attached.lease.pool().node, attached.incarnation);
        Some(Ended { node, incarnation, at: clock::now(), ended_write })
    }

    /// What has become of the primary whose connection was lost, as far as is known now.
    pub(super) fn meant(&self, ended: Ended) -> Meant {
        let view = self.context.monitor.view();
        if view.primary != Some(ended.node) {
            return Meant::Server;
        }
        let Some(node) = view.node(ended.node) else { return Meant::Server };
        let fresh = node.live.freshness();
        if fresh.incarnation != ended.incarnation {
            return match clock::now() >= ended.at.plus(DIES_WITHIN) {
                true => Meant::Server,
                false => Meant::Unknown,
            };
        }
        match ended.ended_write {
            true if fresh.sample_sent >= ended.at.plus(SHUTS_DOWN_WITHIN) => Meant::Statement,
            false if fresh.sample_sent >= ended.at.plus(DIES_WITHIN) => Meant::Server,
            true | false => Meant::Unknown,
        }
    }
}

/// Marks of what is more than one statement, or does more than read and write rows.
pub(super) const MORE_THAN_ROWS: Marks = Marks::TRANSACTION_CONTROL
    .with(Marks::SESSION_EFFECT)
    .with(Marks::MULTI_STATEMENT)
    .with(Marks::COPY)
    .with(Marks::NAMED)
    .with(Marks::DDL);

/// May it be sent again when its server was shut down before it was done? All that it did is in the
/// database, in one transaction of its own.
pub(super) fn is_resumable(group: &Group, held: Held) -> bool {
    held == Held::Free
        && group.complete
        && !group.marks.intersects(MORE_THAN_ROWS)
        && match group.access {
            Access::Read => true,
            Access::Write | Access::Unknown => matches!(
                group.why,
                Why::WritesRows
                    | Why::Locks
                    | Why::VolatileFunction
                    | Why::UnknownFunction
                    | Why::PrimaryOnlyRelation
                    | Why::CatalogNotLoaded
            ),
        }
}

/// Does it do nothing that cannot be done once more?
pub(super) fn is_repeatable(effects: &[Effect], marks: Marks) -> bool {
    !marks.contains(Marks::WORKS)
        && matches!(effects, [Effect::Begin(_)] | [Effect::Rollback { chain: false }])
}

/// May it end the transaction?
fn may_end(record: &GroupRecord) -> bool {
    let stays = |effect: &Effect| {
        matches!(
            effect,
            Effect::Savepoint(_) | Effect::RollbackTo(_) | Effect::Release(_) | Effect::SetTransaction(_)
        )
    };
    record.executes
        && record.marks.contains(Marks::TRANSACTION_CONTROL)
        && (record.effects.is_empty() || !record.effects.iter().all(stays))
}

fn is_meant(fault: &Fault) -> bool {
    [SqlState::QUERY_CANCELED, SqlState::ADMIN_SHUTDOWN].contains(&fault.sqlstate)
}

/// What the server said of it last.
pub(super) fn last_words(record: &GroupRecord, lost: &Lost) -> String {
    // Its own words, when it is shut down while a commit waits for its standbys.
    const COMMITTED: &str =
        "The transaction has already committed locally, but might not have been replicated to the standby.";
    match record.committed_locally {
        true => COMMITTED.to_owned(),
        false => lost.why.to_string(),
    }
}

/// Nothing of a transaction is left, and whoever retries 40001 is right to do so.
pub(super) fn lost_before_commit(lost: Option<&Lost>) -> Fault {
    let fault = Fault::server(SqlState::SERIALIZATION_FAILURE, "the server of this transaction was lost")
        .hint("Nothing of it was committed. Retry the transaction.");
    match lost {
        Some(lost) => fault.detail(lost.why.to_string()),
        None => fault.detail(
            "Between two statements: its node is gone, has another role now, or has ended the connection.",
        ),
    }
}

fn lost_at_commit(record: &GroupRecord, lost: &Lost) -> Fault {
    Fault::server(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        "the server was lost before it said whether the transaction was committed",
    )
    .detail(last_words(record, lost))
    .hint("Find out whether it was before you retry the transaction.")
}

/// An administrator has ended this statement, and not its server.
pub(super) fn ended_by_administrator() -> Fault {
    Fault::server(SqlState::ADMIN_SHUTDOWN, "the statement was ended by an administrator of its server")
        .detail("terminating connection due to administrator command")
        .hint("It was rolled back.")
}
