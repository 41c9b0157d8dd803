//! Transactions that have only read (`routing.transactions: retry_idempotent_begin`): what they say is
//! remembered, and when their primary is lost, said again to the one that is there then. Only if it
//! answers the same does the transaction go on.

use crate::clock;
use crate::cluster::view::NodeView;
use crate::config::settings::PoolMode;
use crate::fault::{Fault, SqlState};
use crate::freshness::losses::Fate;
use crate::moment::Moment;
use crate::node::Role;
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::relay::context::Context;
use crate::relay::lost::Lost;
use crate::relay::lost_transaction::MORE_THAN_ROWS;
use crate::relay::place::{KEPT_MAX, Placed};
use crate::routing::reason::Reason;
use crate::session::block::{Block, Runs};
use crate::session::exchange::GroupRecord;
use crate::session::group::Group;
use crate::session::split::{Part, control_in};
use crate::session::transcript::{Transcript, room, transcribed};
use crate::sql::class::{Access, Marks, Why};
use crate::sql::control::Control;
use crate::sql::effects::Effect;
use crate::wire::backend::TransactionStatus;
use std::sync::atomic::Ordering;

/// So many connections may be lost one after the other while a transaction is said again.
const ATTEMPTS: u8 = 3;

/// Why a transaction was not said again, or in vain.
pub(super) enum Unreplayed {
    /// Something was answered otherwise.
    Differs,
    /// An acknowledged write of its session may not be on the new primary.
    LostWrite,
    /// It took too long.
    TooLong,
    /// Connections to the primary were lost, one after the other.
    Lost,
    /// There was no server for it.
    Refused(Box<Fault>),
}

impl Unreplayed {
    /// For the DETAIL of an error.
    pub(super) fn detail(&self) -> String {
        let why = match self {
            Unreplayed::Differs => "the primary that is there now answers otherwise".into(),
            Unreplayed::LostWrite => "an acknowledged write of its session may have been lost".into(),
            Unreplayed::TooLong => "that took longer than limits.hold_time".into(),
            Unreplayed::Lost => "the connection was lost again and again".into(),
            Unreplayed::Refused(fault) => fault.to_string(),
        };
        format!("It had only read, but could not be replayed: {why}.")
    }
}

impl Client {
    /// The group as it could be said again, if it is to be remembered. To be asked before it is forwarded.
    pub(super) fn transcribe(&self, active: &Active, group: &Group) -> Option<Vec<u8>> {
        let follows = |last: &GroupRecord| last.begins_or_ends() || last.transcribed.is_some();
        let may = match &self.block {
            Some(block) => block.transcript.is_some() && active.exchange.groups.back().is_none_or(follows),
            None => {
                group.marks.contains(Marks::TRANSACTION_CONTROL)
                    || active.exchange.groups.back().is_some_and(follows)
            }
        };
        let on_primary = self.attached.as_ref().is_some_and(|attached| attached.role == Role::Primary);
        if !may
            || !on_primary
            || self.part != Part::Other
            || !self.session.state.pins.is_empty()
            || self.tenant.mode() != PoolMode::Transaction
            || !self.context.config.load().routing.policy.retry_begin
        {
            return None;
        }
        let said = self.block.as_ref().and_then(|block| block.transcript.as_ref());
        let room = room(replay_limit(&self.context), said, &active.exchange);
        let bytes = active.requests.fresh().get(..group.len)?;
        let class_of = &mut |text: &[u8]| self.context.class_of(&self.database, self.dialect, text);
        transcribed(group, bytes, &self.session, self.dialect, room, class_of)
    }

    /// May the group be sent again when its server is lost, behind all that its transaction has said?
    /// Nothing has been written by then, nor is it by a write whose transaction cannot be committed.
    pub(super) fn is_replayable(&self, active: &Active, group: &Group, is_transcribed: bool) -> bool {
        let is_kept = active.requests.kept() < KEPT_MAX && group.len < KEPT_MAX;
        let reads = |ahead: &GroupRecord| ahead.retriable && ahead.transcribed.is_some();
        let whole = group.complete && !active.exchange.open && is_kept;
        if !whole || !active.exchange.groups.iter().all(reads) {
            return false;
        }
        match self.has_transcript() {
            true => is_transcribed || is_one_write(group) || self.only_ends(active, group),
            // It begins the transaction, and does not end it.
            false => {
                is_transcribed
                    && active.exchange.groups.is_empty()
                    && self.session.state.status() == TransactionStatus::Idle
            }
        }
    }

    /// Is it a plain COMMIT, and nothing else?
    pub(super) fn only_ends(&self, active: &Active, group: &Group) -> bool {
        group.marks.contains(Marks::TRANSACTION_CONTROL)
            && active
                .requests
                .fresh()
                .get(..group.len)
                .and_then(|bytes| control_in(bytes, &self.session))
                .is_some_and(|found| found == (Control::Commit, true))
    }

    /// Is all that the open transaction has done remembered?
    pub(super) fn has_transcript(&self) -> bool {
        let remembered = |block: &Block| block.runs == Runs::OnPrimary && block.transcript.is_some();
        self.block.as_ref().is_some_and(|block| remembered(block))
    }

    /// Has it only read, whatever became of what is in flight? Then a COMMIT that is the last of that, and
    /// alone in its group, could not do anything.
    pub(super) fn has_only_read(&self, active: &Active) -> bool {
        let groups = &active.exchange.groups;
        let before = groups.len().saturating_sub(1);
        self.has_transcript() && groups.iter().take(before).all(|record| record.transcribed.is_some())
    }

    /// Has the server ended this connection for a reason of its own (a time-out, say), and not itself?
    pub(super) fn is_meant_by(&self, lost: &Lost) -> bool {
        let of_server = [
            SqlState::CONNECTION_FAILURE,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
        ];
        self.has_transcript() && !of_server.contains(&lost.why.sqlstate)
    }

    /// A group of the transaction on the primary is complete; `answer`: its checksum.
    pub(super) fn note_transcript(
        &mut self,
        record: &GroupRecord,
        status: TransactionStatus,
        role: Role,
        answer: Option<u128>,
    ) {
        let begins = self.session.state.status() == TransactionStatus::Idle;
        let Some(block) = &mut self.block else { return };
        let before = if begins { Some(Transcript::default()) } else { block.transcript.take() };
        let worked = role == Role::Primary && !record.failed && status == TransactionStatus::InBlock;
        let (Some(mut transcript), Some(said), Some(answer), true) =
            (before, &record.transcribed, answer, worked)
        else {
            block.transcript = None;
            return;
        };
        let limit = replay_limit(&self.context);
        block.transcript = transcript.note(said, answer, limit).then_some(transcript);
    }

    /// Could the transaction that has lost its primary be said again, for a group with these effects?
    pub(super) fn may_say_again(&self, group: &Group, effects: &[Effect]) -> bool {
        self.has_transcript()
            && self.session.state.status() == TransactionStatus::InBlock
            // The portal of an earlier group is gone.
            && !group.portals
            && !matches!(effects, [Effect::Rollback { chain: false }])
    }

    /// The transaction that the client has open is said again to whoever is the primary now.
    pub(super) async fn say_again(
        &mut self,
        active: &mut Active,
        group: &Group,
    ) -> Result<Result<Placed, Unreplayed>, End> {
        let mut until = None;
        for _ in 0..ATTEMPTS {
            match self.find_free(group).await? {
                Placed::Here(_) => {}
                Placed::Refused(fault) => return Ok(Err(Unreplayed::Refused(fault))),
                other => return Ok(Ok(other)),
            }
            if self.may_have_lost_a_write() {
                self.give_back(active);
                return Ok(Err(Unreplayed::LostWrite));
            }
            if self.carries_other() && !self.align(active, group).await? {
                return Ok(Ok(Placed::Answered));
            }
            if self.attached.is_none() {
                continue;
            }
            // Counted from when there is a server: until then it was held like anything else.
            let limit = self.context.config.load().limits.hold_time;
            let until = *until.get_or_insert_with(|| clock::now().plus(limit));
            let in_time = self.say(active, until).await?;
            let Some(attached) = &self.attached else {
                match in_time {
                    true => continue,
                    false => return Ok(Err(Unreplayed::TooLong)),
                }
            };
            let on_primary = attached.role == Role::Primary;
            if on_primary && !self.is_on_proven_primary() {
                // Much may have happened while it was said: what comes next may be a write.
                self.drop_connection();
                continue;
            }
            if let Some(block) = &mut self.block
                && on_primary
                && block.transcript.as_ref().is_some_and(Transcript::is_same)
            {
                block.runs = Runs::OnPrimary;
                self.context.counters.replays_transaction.fetch_add(1, Ordering::Relaxed);
                self.context.metrics.replayed("transaction");
                tracing::info!(user = %self.slot.user(), database = %self.slot.database(),
                    "a transaction that had only read goes on on another connection");
                return Ok(Ok(Placed::Here(Reason::InTransaction)));
            }
            self.drop_connection();
            return Ok(Err(Unreplayed::Differs));
        }
        Ok(Err(Unreplayed::Lost))
    }

    /// Is the node of its connection the primary that a write may be sent to now?
    fn is_on_proven_primary(&self) -> bool {
        let Some(attached) = &self.attached else { return false };
        let (view, id) = (self.context.monitor.view(), attached.lease.pool().node);
        let fence_after = self.context.config.load().cluster.monitor.fence_after;
        let is_proven = |node: &NodeView| {
            let same = node.live.freshness().incarnation == attached.incarnation;
            same && !node.live.is_fenced(clock::now(), fence_after)
        };
        view.primary == Some(id) && self.is_in_place() && view.node(id).is_some_and(is_proven)
    }

    /// Says everything once more, and compares. False: that has taken too long. The connection may have
    /// been lost on the way.
    async fn say(&mut self, active: &mut Active, until: Moment) -> Result<bool, End> {
        let key = self.context.answer_key();
        let transcript = self.block.as_mut().and_then(|block: &mut Box<Block>| block.transcript.as_mut());
        let Some(transcript) = transcript else { return Ok(true) };
        transcript.say(&mut active.to_server, &mut active.exchange, clock::now());
        if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) {
            connection.statements.unnamed = 0;
        }
        active.answers.watch(key);
        let in_time = match tokio::time::timeout(until.since(clock::now()), self.drive(active)).await {
            Ok(driven) => {
                driven?;
                true
            }
            Err(_) => {
                active.abandon();
                self.drop_connection();
                false
            }
        };
        active.answers.unwatch();
        Ok(in_time)
    }

    /// A group was answered once more.
    pub(super) fn said_again(
        &mut self,
        record: &GroupRecord,
        status: TransactionStatus,
        answer: Option<u128>,
    ) {
        let transcript = self.block.as_mut().and_then(|block| block.transcript.as_mut());
        if let Some(transcript) = transcript {
            let worked = !record.failed && status == TransactionStatus::InBlock;
            transcript.answered(answer.filter(|_| worked));
        }
    }

    /// Was there a failover that its session has not been told of, and which may have cost it a write?
    fn may_have_lost_a_write(&self) -> bool {
        let monitor = &self.context.monitor;
        self.failovers != monitor.failovers()
            && self.acknowledged.is_some_and(|(sent, at)| !matches!(monitor.fate(sent, at), Fate::Survived))
    }

    /// The open transaction is not said again.
    pub(super) fn forget_transcript(&mut self) {
        self.block.iter_mut().for_each(|block| block.transcript = None);
    }

    /// Did the server end (57P01) a write that can be sent again? Then it matters whom it meant.
    pub(super) fn ends_replayable_write(&self, active: &Active, lost: &Lost) -> bool {
        self.has_transcript()
            && lost.why.sqlstate == SqlState::ADMIN_SHUTDOWN
            && active.exchange.groups.front().is_some_and(|front| front.writes)
    }
}

/// So many bytes of one transaction may be remembered.
fn replay_limit(context: &Context) -> usize {
    usize::try_from(context.config.load().limits.replay_size).unwrap_or(usize::MAX)
}

/// Does it write, in one statement, and only what is rolled back with its transaction?
fn is_one_write(group: &Group) -> bool {
    group.access == Access::Write
        && matches!(group.why, Why::WritesRows | Why::Locks)
        && !group.marks.intersects(MORE_THAN_ROWS)
        && group.others == 1
        && group.own == 0
        && !group.portals
}
