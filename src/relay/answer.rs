//! What servers say: passed on, swallowed, withdrawn, or the reason to try elsewhere.

use crate::clock;
use crate::cluster::health::Evidence;
use crate::fault::SqlState;
use crate::moment::Moment;
use crate::node::{NodeId, Role};
use crate::relay::apart::is_stale_plan;
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End, Replay};
use crate::relay::login::dialect_of;
use crate::relay::lost::Lost;
use crate::session::exchange::{Errand, GroupRecord};
use crate::session::reply_queue::Pass;
use crate::session::state::GroupEnd;
use crate::sql::class::{Access, Marks};
use crate::sql::effects::Effect;
use crate::wire::backend::{self, TransactionStatus};
use crate::wire::frame::header;
use std::sync::atomic::Ordering;
use std::task::Poll;

/// A message larger than this is passed on without being looked into. In bytes.
const LOOK_INTO_MAX: usize = 256 * 1024;

/// Rows are held back up to the size of a server's own buffer, which it fills before it sends
/// anything: nobody waits longer for them. In bytes.
const HELD_MAX: usize = 8192;

/// Why an answer can be withdrawn and its request sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Withdrawal {
    /// The replica refused to write.
    ReadOnly,
    /// No replica can do it in this session, though it writes nothing.
    Standby,
    /// Recovery needed what the read was using.
    Conflict,
    /// The connection was lost.
    Lost,
    /// The server was shut down before it had done it, and has rolled it back.
    ShutDown,
    /// Its copy of a statement is older than the schema that its client saw.
    Stale,
    /// It is proven that this node, which was lost, has not committed it.
    RolledBack(NodeId),
}

/// By whom a group was answered, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    /// When the answer was complete.
    pub now: Moment,
    /// As what.
    pub role: Role,
    /// Who.
    pub node: NodeId,
    /// In which incarnation.
    pub incarnation: u64,
    /// The answer's checksum, where somebody wants it.
    pub checksum: Option<u128>,
}

impl Client {
    /// Reads what the server has sent and looks at it. True: a group is complete. The inner error
    /// is a lost server (Ok) or the end of the client (Err).
    pub fn poll_receive(
        &mut self,
        active: &mut Active,
        cx: &mut std::task::Context<'_>,
    ) -> Result<bool, Result<Lost, End>> {
        let mut changed = false;
        loop {
            let wanted = self.wanted(active);
            let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection())
            else {
                return Ok(changed);
            };
            let Some(room) = active.answers.room(wanted) else {
                // The client has to take something first; what is held back cannot be any longer.
                self.commit_to_answer(active);
                return Ok(changed);
            };
            match connection.stream.poll_read_some(cx, room) {
                Poll::Pending => return Ok(changed),
                Poll::Ready(Ok(0)) => return Err(Ok(Lost::closed())),
                Poll::Ready(Err(error)) => return Err(Ok(Lost::broken(&error))),
                Poll::Ready(Ok(len)) => active.answers.filled(len),
            }
            match self.digest(active).map_err(Err)? {
                Digested::More => {}
                Digested::GroupDone | Digested::Withdrawn => changed = true,
                Digested::Lost(lost) => return Err(Ok(lost)),
            }
            if changed || !active.answers.sendable().is_empty() {
                // Write first: the client should not wait for the rest, and the buffer is bounded.
                return Ok(true);
            }
        }
    }

    /// Looks at every message that is there.
    pub fn digest(&mut self, active: &mut Active) -> Result<Digested, End> {
        let mut digested = Digested::More;
        if active.answers.is_mid_message() && !active.answers.pass_on() {
            return Ok(digested);
        }
        while let Ok(Some(head)) = header(active.answers.unseen(), usize::MAX).map_err(|_| ()) {
            active.pass_fabricated();
            let whole = active.answers.unseen().len() >= head.frame_len;
            let look = self.looks_into(active, head.tag) && head.frame_len <= LOOK_INTO_MAX;
            if look && !whole {
                return Ok(digested);
            }
            if !look && is_row(head.tag) && !fits_in_what_is_held(active, head.tag, head.frame_len) {
                self.commit_to_answer(active);
            }
            match self.message(active, head.tag, head.frame_len, look)? {
                // A row changes nothing, and rows follow rows.
                Digested::More
                    if matches!(head.tag, b'D' | b'd') && !look && !active.answers.is_holding() =>
                {
                    if !active.answers.is_mid_message() {
                        active.answers.pass_run(head.tag);
                    }
                }
                Digested::More => {}
                Digested::GroupDone => {
                    active.answers.complete();
                    digested = Digested::GroupDone;
                }
                other => return Ok(other),
            }
            if active.answers.is_mid_message() || active.withheld.is_some() {
                return Ok(digested);
            }
        }
        if header(active.answers.unseen(), usize::MAX).is_err() {
            return Ok(Digested::Lost(Lost::not_postgres()));
        }
        if active.answers.unseen().is_empty() {
            active.pass_fabricated();
        }
        Ok(digested)
    }

    /// How long a message must be to be seen whole; 0: what is there is enough.
    fn wanted(&self, active: &Active) -> usize {
        match header(active.answers.unseen(), usize::MAX) {
            Ok(Some(head)) if self.looks_into(active, head.tag) && head.frame_len <= LOOK_INTO_MAX => {
                head.frame_len
            }
            _ => 0,
        }
    }

    fn looks_into(&self, active: &Active, tag: u8) -> bool {
        is_looked_into(active, tag) || (tag == b'D' && self.survey.is_some())
    }

    /// One message; `look`: it is whole in the buffer and may change state.
    fn message(&mut self, active: &mut Active, tag: u8, len: usize, look: bool) -> Result<Digested, End> {
        // The frame is short wherever it is looked into; rows and the like are not copied.
        let frame: Vec<u8> = match look {
            true if tag != b'Z' && tag != b'C' => active.answers.unseen()[..len].to_vec(),
            _ => Vec::new(),
        };
        if let Some(other) = self.before_message(active, tag, &frame) {
            return Ok(other);
        }
        let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) else {
            return Ok(Digested::More);
        };
        let bytes = match look {
            true => &active.answers.unseen()[..len],
            false => &[],
        };
        let outcome = self.session.on_backend(tag, bytes, &mut active.exchange, &mut connection.statements);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(unexpected) => {
                tracing::error!(node = ?connection.node, "protocol: {unexpected}");
                return Ok(Digested::Lost(Lost::not_postgres()));
            }
        };
        (0..std::mem::take(&mut active.exchange.joined)).for_each(|_| connection.live.end(None));
        match outcome.pass {
            Pass::Forward if tag == b'S' => self.pass_parameter(active, len, &frame),
            Pass::Forward => active.answers.pass(len, true),
            Pass::Swallow => active.answers.pass(len, false),
            Pass::Replace(bytes) => {
                active.answers.pass(len, false);
                active.answers.insert(&bytes);
            }
        }
        match outcome.done {
            Some((record, status)) => {
                self.group_done(active, &record, status);
                Ok(Digested::GroupDone)
            }
            None => Ok(Digested::More),
        }
    }

    /// What has to be known before a message takes its course: errors that lead elsewhere, news of the node.
    fn before_message(&mut self, active: &mut Active, tag: u8, frame: &[u8]) -> Option<Digested> {
        match tag {
            b'E' => {
                let fields = backend::error(frame);
                self.note_read_only(&fields);
                if is_stale_plan(&fields) && self.note_stale_plan(active) {
                    self.withdraw(active, Withdrawal::Stale);
                    return Some(Digested::Withdrawn);
                }
                if let Some(cause) = withdrawal(&fields)
                    && self.attached.as_ref().is_some_and(|attached| attached.role == Role::Replica)
                    && active.exchange.groups.front().is_some_and(|record| record.retriable)
                {
                    self.withdraw(active, cause);
                    return Some(Digested::Withdrawn);
                }
                fields.is_fatal().then(|| Digested::Lost(Lost::told(&fields)))
            }
            b'N' => {
                let fields = backend::error(frame);
                // Whoever is stopped at once says 57P01, too (quickdie).
                if fields.sqlstate == Some(SqlState::ADMIN_SHUTDOWN)
                    && fields.routine == b"SyncRepWaitForLSN"
                    && let Some(record) = active.exchange.groups.front_mut()
                {
                    // SyncRepWaitForLSN: it says so, and then closes the connection without another word.
                    record.committed_locally = true;
                    if record.told().is_some() {
                        // Not before it is known what became of it.
                        active.answers.pass(frame.len(), false);
                        return Some(Digested::More);
                    }
                }
                None
            }
            b'D' => {
                self.survey_row(frame);
                None
            }
            b'S' => {
                if let Some((b"in_hot_standby", value)) = backend::parameter_status(frame) {
                    self.role_news(value);
                }
                None
            }
            b'Z' => {
                self.tell_what_was_reset(active);
                None
            }
            _ => None,
        }
    }

    fn note_read_only(&self, fields: &backend::ErrorFields<'_>) {
        if let Some(attached) = &self.attached
            && attached.role == Role::Primary
            && fields.sqlstate == Some(SqlState::READ_ONLY_SQL_TRANSACTION)
        {
            self.context.monitor.report(attached.lease.pool().node, Evidence::ReadOnlyError);
        }
    }

    fn role_news(&mut self, value: &[u8]) {
        let Some(attached) = &mut self.attached else { return };
        let is = if value == b"on" { Role::Replica } else { Role::Primary };
        if is != attached.role {
            self.context.monitor.report(attached.lease.pool().node, Evidence::InHotStandbyChanged);
            if let Some(connection) = attached.lease.connection() {
                connection.tainted = true;
            }
        }
    }

    /// It goes out: from here on this answer is the answer.
    fn commit_to_answer(&mut self, active: &mut Active) {
        if !active.answers.is_holding() {
            return;
        }
        active.answers.release();
        if let Some(record) = active.exchange.groups.front_mut() {
            (record.retriable, record.restartable, record.resumable) = (false, false, false);
        }
    }

    /// A group's answer is complete.
    fn group_done(&mut self, active: &mut Active, record: &GroupRecord, status: TransactionStatus) {
        active.answers.release();
        let answer = active.answers.end_of_answer();
        match record.errand {
            Some(Errand::Settings) => return self.settings_done(record, status),
            Some(Errand::Replay) => return self.said_again(record, status, answer),
            Some(Errand::Pins) => return self.survey_done(record, status),
            None => {}
        }
        if active.requests.kept() > 0 {
            active.requests.let_go(record.request_len);
        }
        let now = clock::now();
        let Some(attached) = self.attached.as_mut() else { return };
        let (node, role, incarnation) = (attached.lease.pool().node, attached.role, attached.incarnation);
        attached.lease.pool().answered(role, now.since(record.sent));
        let Some(connection) = attached.lease.connection() else { return };
        let micros = u32::try_from(now.since(record.sent).as_micros()).unwrap_or(u32::MAX);
        connection.live.end((role == Role::Replica).then_some(micros));
        if record.forgets_statements() {
            // DEALLOCATE is not undone by a failure: then nobody knows what is left.
            connection.statements.distrusted |= record.failed;
            connection.statements.clear();
            if !record.failed {
                self.session.forget_all();
            }
        }
        self.account(active, record, status, &Answered { now, role, node, incarnation, checksum: answer });
    }

    /// What a complete answer means to the session.
    pub(super) fn account(
        &mut self,
        active: &mut Active,
        record: &GroupRecord,
        status: TransactionStatus,
        by: &Answered,
    ) {
        if status == TransactionStatus::Idle && active.exchange.groups.is_empty() {
            self.session.forget_portals();
        }
        // Of several transactions that ended here, an earlier one may have kept something.
        let ends = |effect: &&Effect| matches!(effect, Effect::Commit { .. } | Effect::Rollback { .. });
        let multi =
            record.marks.contains(Marks::MULTI_STATEMENT) || record.effects.iter().filter(ends).count() > 1;
        self.note_block(active, record, status, by.role, by.checksum);
        let had_settings = self.session.state.settings().clone();
        let had_written = self.session.state.floor.write;
        let new_pins = self.session.state.group_ended(
            &GroupEnd {
                status,
                effects: &record.effects,
                failed: record.failed,
                rolled_back: record.rolled_back && !multi,
                wrote: record.wrote(),
                ddl: record.marks.contains(Marks::DDL),
                saw: record.saw(),
                now: by.now,
                node: by.node,
                incarnation: by.incarnation,
            },
            &mut |settings| self.context.intern(settings),
        );
        self.note_acknowledged(record, had_written);
        self.note_pins(record, new_pins);
        if !std::sync::Arc::ptr_eq(&had_settings, self.session.state.settings()) {
            self.dialect = dialect_of(self.session.state.settings(), self.default_dialect);
        }
        self.note_ddl(record, status);
        if self.bonds.is_some() {
            let written = self.session.state.floor.write;
            let written = written.filter(|_| written != had_written).map(|(at, _)| at);
            self.settle_bonds(active, record, status, written, &had_settings);
        }
        if active.withheld.is_none()
            && let Some(next) = active.exchange.groups.front()
            && (next.retriable || next.resumable)
        {
            active.answers.hold();
        }
    }

    /// Classes made from the catalog before this DDL are no longer to be trusted; until it has been
    /// read again, the primary answers whatever it might have changed.
    fn note_ddl(&mut self, record: &GroupRecord, status: TransactionStatus) {
        let temporary = record.effects.iter().any(|effect| matches!(effect, Effect::Pin(_)));
        self.ddl |= record.marks.contains(Marks::DDL) && !temporary;
        if self.ddl && status == TransactionStatus::Idle {
            self.ddl = false;
            self.database.invalidate();
            self.database.stale.notify_one();
            self.settle_upheavals();
        }
    }

    /// What pgweir asked for itself is answered. If the server refused, its error has gone to the client
    /// in the place of the answer, and the request is not sent.
    fn settings_done(&mut self, record: &GroupRecord, status: TransactionStatus) {
        self.aligned = !record.failed;
        if record.failed && status == TransactionStatus::Failed {
            self.session.state.fail_block();
        }
    }

    /// Nothing of the answer has been passed on: the request is sent again, elsewhere.
    pub(super) fn withdraw(&mut self, active: &mut Active, cause: Withdrawal) {
        self.end_in_flight(active);
        let counters = &self.context.counters;
        let (counter, word) = match cause {
            Withdrawal::ReadOnly => (&counters.replays_read_only, "read_only"),
            Withdrawal::Standby => (&counters.replays_read_only, "standby"),
            Withdrawal::Conflict => (&counters.replays_conflict, "recovery_conflict"),
            Withdrawal::Lost => (&counters.replays_lost, "connection_lost"),
            Withdrawal::ShutDown => (&counters.replays_lost, "shut_down"),
            Withdrawal::Stale => (&counters.replays_stale, "stale_statement"),
            Withdrawal::RolledBack(_) => (&counters.replays_lost, "rolled_back"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.context.metrics.replayed(word);
        let node = self.attached.as_ref().map(|attached| attached.lease.pool().node);
        let front = active.exchange.groups.front();
        let fingerprint = front.and_then(|record| record.fingerprint);
        let tried = front.map_or(0, |record| record.tried);
        let node = match cause {
            Withdrawal::Stale => None,
            Withdrawal::RolledBack(node) => Some(node),
            _ => node,
        };
        let failed_it = node.map_or(0, |node| 1_u64.checked_shl(u32::from(node.0)).unwrap_or(0));
        // Once on another replica, then on the primary.
        let for_primary = matches!(cause, Withdrawal::ReadOnly | Withdrawal::Standby) || tried != 0;
        if matches!(cause, Withdrawal::Lost | Withdrawal::ShutDown) {
            let writes = active.exchange.groups.front().is_some_and(|record| record.access != Access::Read);
            self.ended = self.ended_here(writes && cause == Withdrawal::ShutDown);
        }
        let replay = Replay { primary: for_primary, excluded: tried | failed_it };
        if let (Withdrawal::ReadOnly, Some(fingerprint)) = (cause, fingerprint) {
            self.context.classifier.learn(fingerprint, self.database.id);
        }
        tracing::debug!(?cause, ?node, "an answer was withdrawn; the request is sent again");
        active.answers.withdraw();
        active.requests.rewind();
        active.copy_left = 0;
        active.to_server.clear();
        active.to_server_written = 0;
        self.session.take_back(&mut active.exchange);
        self.replay = Some(replay);
        // Later requests of the pipeline were sent to it too: it is closed, not drained.
        self.drop_connection();
    }
}

/// What looking at the buffer led to.
#[derive(Debug)]
pub enum Digested {
    /// Nothing that the loop has to know.
    More,
    /// A group is complete.
    GroupDone,
    /// A replica's answer was withdrawn.
    Withdrawn,
    /// The server says goodbye, or is none.
    Lost(Lost),
}

fn is_looked_into(active: &Active, tag: u8) -> bool {
    match tag {
        b'D' => active.exchange.queue.is_telling(),
        b'Z' | b'C' | b'E' | b'S' | b'N' | b'A' => true,
        b't' | b'T' | b'n' => active.exchange.queue.is_learning(),
        _ => false,
    }
}

fn is_row(tag: u8) -> bool {
    matches!(tag, b'D' | b'd' | b'H' | b'G' | b'W')
}

/// Does a row still fit into what is held back? A server sends nothing of a short answer before it
/// is complete, except when it dies in the middle of it: those rows are not yet the answer.
fn fits_in_what_is_held(active: &Active, tag: u8, len: usize) -> bool {
    matches!(tag, b'D' | b'd' | b'H') && active.answers.held() + len <= HELD_MAX
}

/// Which errors of a replica say that another node may do better. Only for reads outside a
/// transaction block, before the first row.
fn withdrawal(fields: &backend::ErrorFields<'_>) -> Option<Withdrawal> {
    let about_recovery = || {
        memchr::memmem::find(fields.message, b"recovery").is_some()
            || fields.routine.starts_with(b"PreventCommandDuringRecovery")
    };
    match fields.sqlstate? {
        SqlState::READ_ONLY_SQL_TRANSACTION => Some(Withdrawal::ReadOnly),
        SqlState::FEATURE_NOT_SUPPORTED | SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE if about_recovery() => {
            Some(Withdrawal::ReadOnly)
        }
        SqlState::SERIALIZATION_FAILURE | SqlState::DEADLOCK_DETECTED => Some(Withdrawal::Conflict),
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => {
            Some(Withdrawal::Lost)
        }
        // "cannot use serializable mode in a hot standby", in whatever language.
        SqlState::FEATURE_NOT_SUPPORTED if fields.routine == b"GetSerializableTransactionSnapshot" => {
            Some(Withdrawal::Standby)
        }
        // It would not be understood elsewhere either.
        SqlState::PROTOCOL_VIOLATION => None,
        _ if fields.is_fatal() => Some(Withdrawal::Lost),
        _ => None,
    }
}
