//! Writes and COMMITs whose server was lost before it said what became of them, where that can be proven
//! (`routing.prove_commits`): their transactions have told their numbers (`session/machine/told.rs`), and the
//! primary that is there then is asked what became of those (`monitor/doubt.rs`).

use crate::clock;
use crate::fault::SqlState;
use crate::freshness::doubt::{Doubt, Verdict};
use crate::lsn::TimelineId;
use crate::moment::Moment;
use crate::node::{NodeId, Role};
use crate::relay::answer::{Answered, Withdrawal};
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::relay::lost::Lost;
use crate::relay::lost_transaction::{Ended, lost_before_commit};
use crate::relay::reach::Holding;
use crate::session::block::Runs;
use crate::session::exchange::{GroupRecord, Inquiry, InquiryPlace};
use crate::session::group::Group;
use crate::sql::class::{Access, Why};
use crate::sql::effects::Effect;
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::header;
use crate::wire::writers;

/// What a COMMIT is answered.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

/// The group in flight may have been committed, and somebody may know.
#[derive(Debug)]
pub struct InDoubt {
    /// `None`: its server has said that a COMMIT is done, and then no more.
    doubt: Option<Doubt>,
    server: Server,
    /// What its server said last.
    lost: Lost,
    ended: Option<Ended>,
}

/// A server that is lost.
#[derive(Clone, Copy, Debug)]
struct Server {
    node: NodeId,
    incarnation: u64,
    timeline: TimelineId,
}

impl Client {
    /// Is the group's transaction to be asked for its number, and where?
    pub(super) fn inquiry_into(
        &self,
        active: &Active,
        group: &Group,
        record: &GroupRecord,
    ) -> Option<Box<Inquiry>> {
        if !self.context.glance.proves_commits() {
            return None;
        }
        let exchange = &active.exchange;
        // tokio-postgres, for one, closes the statement that it has just used in the same breath.
        let alone = group.complete
            && group.executes
            && !exchange.open
            && exchange.groups.iter().all(|record| record.only_closes);
        let place = match self.session.state.status() {
            _ if !alone => return None,
            TransactionStatus::Idle if record.resumable && self.is_free() && is_one_write(group) => {
                InquiryPlace::Behind
            }
            TransactionStatus::InBlock if self.is_plain_commit(active, group) => InquiryPlace::InFront,
            _ => return None,
        };
        if has_parameter(active, group) {
            return None;
        }
        Some(Box::new(Inquiry { place, timeline: self.proven_timeline()?, told: None, late: None }))
    }

    /// Does it commit a transaction on the primary that may have written, and nothing else?
    fn is_plain_commit(&self, active: &Active, group: &Group) -> bool {
        self.block.as_ref().is_some_and(|block| block.runs == Runs::OnPrimary)
            && self.outlives_server()
            && !self.has_transcript()
            && !group.portals
            && self.only_ends(active, group)
    }

    /// The timeline of the server connection at hand, where the monitor's own connection was seen to be alive
    /// after this one was made: then both are of one run of the server.
    fn proven_timeline(&self) -> Option<TimelineId> {
        let attached = self.attached.as_ref().filter(|attached| attached.role == Role::Primary)?;
        let connection = attached.lease.peek()?;
        let fresh = connection.live.freshness();
        let one_run = fresh.incarnation == attached.incarnation && fresh.sample_sent > connection.established;
        let view = self.context.monitor.view();
        (one_run && view.primary == Some(connection.node)).then_some(view.timeline).flatten()
    }

    /// The server is lost. Can it be found out what became of the group in flight? Then that is next.
    pub(super) fn comes_in_doubt(&mut self, active: &mut Active, lost: Lost) -> Result<(), Lost> {
        let exchange = &active.exchange;
        let alone = exchange.groups.len() == 1 && !exchange.open && !active.answers.is_mid_message();
        let Some(record) = exchange.groups.front().filter(|record| alone && !record.failed) else {
            return Err(lost);
        };
        let (Some((inquiry, told)), Some(attached)) = (record.told(), &self.attached) else {
            return Err(lost);
        };
        let goodbye = lost.why.sqlstate == SqlState::ADMIN_SHUTDOWN;
        let matters = match (inquiry.place, self.session.state.status()) {
            (InquiryPlace::Behind, TransactionStatus::Idle) => true,
            // FATAL comes before the commit, or not at all.
            (InquiryPlace::InFront, TransactionStatus::InBlock) => {
                !(goodbye && !record.completed && !record.committed_locally)
                    && record.effects[..] == [Effect::Commit { chain: false }]
            }
            _ => false,
        };
        if !(matters && exchange.queue.can_finish()) {
            return Err(lost);
        }
        let (node, incarnation) = (attached.lease.pool().node, attached.incarnation);
        let server = Server { node, incarnation, timeline: inquiry.timeline };
        // An Execute of COMMIT says so when its standbys have it.
        let is_done = inquiry.place == InquiryPlace::InFront && record.completed;
        let doubt = match told.transaction {
            _ if is_done => None,
            Some(transaction) => Some(Doubt {
                transaction,
                position: told.position,
                timeline: inquiry.timeline,
                node,
                incarnation,
                committed_there: record.committed_locally,
            }),
            // Without a number it has written nothing here; what else it may have done, nobody can say.
            None => return Err(lost),
        };
        let ended = self.ended_here(goodbye && !record.committed_locally);
        self.end_in_flight(active);
        active.answers.drop_unseen();
        active.to_server.clear();
        active.to_server_written = 0;
        self.drop_connection();
        active.doubt = Some(Box::new(InDoubt { doubt, server, lost, ended }));
        Ok(())
    }

    /// Finds it out, as far as `limits.hold_time` allows, and answers.
    pub(super) async fn settle_doubt(&mut self, active: &mut Active) -> Result<(), End> {
        let Some(in_doubt) = active.doubt.take() else { return Ok(()) };
        let Some(doubt) = in_doubt.doubt else {
            self.answer_committed(active, &in_doubt.server, None);
            return Ok(());
        };
        let (verdict, on) = match self.verdict_on(active, &doubt).await {
            Ok(settled) => settled,
            Err(end) => {
                self.doubt_bonds(active);
                return Err(end);
            }
        };
        self.count_verdict(&doubt, verdict);
        if verdict != Verdict::Committed {
            self.doubt_bonds(active);
        }
        match verdict {
            Verdict::Committed => self.answer_committed(active, &in_doubt.server, on),
            Verdict::RolledBack => self.do_again_or_fail(active, *in_doubt),
            Verdict::Open | Verdict::Unknown => {
                if active.answers.is_holding() {
                    active.answers.withdraw();
                }
                return self.lost_in_flight(active, &in_doubt.lost);
            }
        }
        Ok(())
    }

    fn count_verdict(&self, doubt: &Doubt, verdict: Verdict) {
        let word = match verdict {
            Verdict::Committed => "committed",
            Verdict::RolledBack => "rolled_back",
            Verdict::Open | Verdict::Unknown => "unknown",
        };
        self.context.metrics.settled(word);
        let (user, database) = (self.slot.user(), self.slot.database());
        let (node, transaction) = (doubt.node.0, doubt.transaction);
        match verdict {
            Verdict::Committed | Verdict::RolledBack => {
                tracing::info!(%user, %database, node, transaction, verdict = word,
                    "a transaction whose server was lost");
            }
            Verdict::Open | Verdict::Unknown => {
                tracing::warn!(%user, %database, node, transaction, position = %doubt.position,
                    timeline = doubt.timeline.0, verdict = word,
                    "nobody could say whether a transaction is committed whose server was lost: see pg_xact_status");
            }
        }
    }

    async fn verdict_on(
        &mut self,
        active: &Active,
        doubt: &Doubt,
    ) -> Result<(Verdict, Option<TimelineId>), End> {
        let context = self.context.clone();
        let limits = context.config.load().limits.clone();
        let (_held, may) = Holding::begin(&context.counters, &limits);
        if !may {
            return Ok((Verdict::Unknown, None));
        }
        let until: Moment = clock::now().plus(limits.hold_time);
        self.slot.begin_wait();
        let settled = tokio::select! {
            biased;
            settled = context.monitor.settle(doubt, until) => Some(settled),
            () = self.slot.wait_canceled() => Some((Verdict::Unknown, None)),
            () = self.stream.gone(), if active.requests.fresh().is_empty() => None,
        };
        // Whoever cancels what may have been committed is told that it is in doubt.
        let _canceled: bool = self.slot.end_wait();
        settled.ok_or(End::Gone)
    }

    /// What its server could not say any more.
    fn answer_committed(&mut self, active: &mut Active, server: &Server, on: Option<TimelineId>) {
        let Some(record) = active.exchange.groups.pop_front() else { return };
        let mut bytes = active.exchange.queue.finish(COMMITTED);
        bytes.extend_from_slice(
            record.inquiry.as_ref().and_then(|inquiry| inquiry.late.as_deref()).unwrap_or_default(),
        );
        bytes.extend_from_slice(&writers::ready(TransactionStatus::Idle));
        active.answers.insert(&bytes);
        self.session.end_transaction();
        active.answers.release();
        if active.requests.kept() > 0 {
            active.requests.let_go(record.request_len);
        }
        let Server { node, incarnation, timeline } = *server;
        let answered = Answered { now: clock::now(), role: Role::Primary, node, incarnation, checksum: None };
        self.account(active, &record, TransactionStatus::Idle, &answered);
        if on > Some(timeline) {
            // It is proven to be on the new one, and so is what the session wrote before it.
            self.acknowledged = None;
        }
    }

    /// It runs again, once, where its client has seen nothing of it; a transaction cannot.
    fn do_again_or_fail(&mut self, active: &mut Active, in_doubt: InDoubt) {
        let again = active.answers.is_holding()
            && active.exchange.groups.front().is_some_and(|record| record.resumable && record.tried == 0);
        if again {
            self.withdraw(active, Withdrawal::RolledBack(in_doubt.server.node));
            self.ended = in_doubt.ended;
            return;
        }
        if active.answers.is_holding() {
            active.answers.withdraw();
        }
        if self.session.state.status() != TransactionStatus::Idle {
            self.transaction_is_over();
        }
        self.answer_lost(active, TransactionStatus::Idle, &|_| lost_before_commit(Some(&in_doubt.lost)));
    }
}

/// Is it one statement that writes rows, or may do so? (A CALL behind it might commit it.)
fn is_one_write(group: &Group) -> bool {
    group.access != Access::Read
        && group.others == 1
        && !group.portals
        && matches!(group.why, Why::WritesRows | Why::Locks | Why::VolatileFunction | Why::UnknownFunction)
}

/// A simple Query has no parameters: `$1` in it is an error, which a Parse would not make of it.
fn has_parameter(active: &Active, group: &Group) -> bool {
    let bytes = active.requests.fresh().get(..group.len).unwrap_or_default();
    let simple = header(bytes, usize::MAX).is_ok_and(|head| head.is_some_and(|head| head.tag == b'Q'));
    simple
        && memchr::memchr_iter(b'$', bytes)
            .any(|at| bytes.get(at + 1).is_some_and(|next| next.is_ascii_digit()))
}
