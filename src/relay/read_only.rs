//! Read-only transactions: begun on a replica that can serve them, moved to another node while nobody
//! would see a difference, and ended with an error that can be retried where their replica is lost.

use crate::clock;
use crate::config::settings::PoolMode;
use crate::fault::{Fault, SqlState};
use crate::node::Role;
use crate::pool::server::ServerConnection;
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::relay::lost::Lost;
use crate::relay::place::Placed;
use crate::relay::reach::lost_while_aligned;
use crate::relay::rule::Ruled;
use crate::routing::reason::Reason;
use crate::routing::request::{Held, Request, Target};
use crate::session::block::{self, Block, Fit, Runs};
use crate::session::bound::bound;
use crate::session::exchange::{Errand, GroupRecord};
use crate::session::group::Group;
use crate::session::reply_queue::{Act, Kind, Undo};
use crate::sql::class::{Class, Marks};
use crate::sql::effects::{Effect, effects_of};
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::header;
use crate::wire::frontend;
use crate::wire::writers::{self, Severity};

/// So many connections may be lost one after the other while a transaction begins again.
const ATTEMPTS: u8 = 3;

/// Fails in any transaction, and says why in the server's log.
const FAILS: &str = "BEGIN READ ONLY;ROLLBACK TO \"pgweir: the server of this transaction was lost\"";

/// What becomes of a transaction block before its next group is sent.
enum Step {
    /// It stays where it is.
    Stay,
    /// It begins again on such a node.
    Move(Runs),
    /// The group may run neither here nor elsewhere.
    Refuse,
}

impl Client {
    /// Does this group begin a transaction that a replica can serve?
    pub(super) fn begins_read_only_with(&self, active: &Active, group: &Group) -> bool {
        let state = &self.session.state;
        let unfit = Marks::NOT_ON_STANDBY.with(Marks::LOCKS);
        group.marks.contains(Marks::TRANSACTION_CONTROL)
            && !group.marks.intersects(unfit)
            && group.complete
            && group.executes
            && state.status() == TransactionStatus::Idle
            && (group.marks.contains(Marks::READ_ONLY) || block::reads_only_by_default(state.settings()))
            && block::begins_read_only(&self.effects_in(active, group), state.settings())
    }

    /// The same for one statement that is only asked about.
    pub(super) fn would_begin_read_only(&self, class: &Class, text: &[u8]) -> bool {
        let settings = self.session.state.settings();
        class.marks.contains(Marks::TRANSACTION_CONTROL)
            && !class.marks.intersects(Marks::NOT_ON_STANDBY.with(Marks::LOCKS))
            && block::begins_read_only(&effects_of(text, self.dialect), settings)
    }

    /// Does a replica serve the transaction that is open?
    pub(super) fn is_block_on_replica(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.runs == Runs::OnReplica)
    }

    /// May a group follow those in flight in a transaction that a replica serves?
    pub(super) fn fits_behind(&self, active: &Active, group: &Group) -> bool {
        let unclear = Marks::NOT_ON_STANDBY.with(Marks::LOCKS).with(Marks::SESSION_EFFECT);
        let ends = |record: &GroupRecord| record.marks.contains(Marks::TRANSACTION_CONTROL);
        self.is_block_on_replica()
            && !group.marks.intersects(unclear.with(Marks::READ_ONLY).with(Marks::MULTI_STATEMENT))
            && !self.asks_for_primary(group)
            && !self.asks_of_its_own(group)
            && !active.exchange.groups.iter().any(ends)
    }

    /// The next group of an open transaction: where it is, unless that would not do.
    pub(super) async fn stay(&mut self, active: &mut Active, group: &Group) -> Result<Placed, End> {
        if self.has_lost_its_primary() && self.outlives_server() {
            self.drop_connection();
            return self.resume(active, group).await;
        }
        match self.next_step(active, group) {
            Step::Stay => self.keep(),
            Step::Move(runs) => Box::pin(self.move_block(active, group, runs)).await,
            Step::Refuse => {
                self.refuse_in_block(active, group, &misleading());
                Ok(Placed::Answered)
            }
        }
    }

    fn next_step(&self, active: &Active, group: &Group) -> Step {
        let Some(block) = &self.block else { return Step::Stay };
        match block.runs {
            Runs::OnPrimary => {
                let turns = group.marks.contains(Marks::READ_ONLY)
                    && block.may_begin_again()
                    && group.complete
                    && !group.marks.contains(Marks::NOT_ON_STANDBY)
                    && self.session.state.pins.is_empty()
                    && self.tenant.mode() == PoolMode::Transaction
                    && block
                        .becomes_read_only(&self.effects_in(active, group), self.session.state.settings());
                if turns { Step::Move(Runs::OnReplica) } else { Step::Stay }
            }
            Runs::OnReplica => self.next_on_replica(active, group, block),
            // It has no server to stay on.
            Runs::Nowhere => Step::Stay,
        }
    }

    fn next_on_replica(&self, active: &Active, group: &Group, block: &Block) -> Step {
        let asks = self.asks_for_primary(group) && block.may_begin_again();
        let (fit, effects) = self.fit(active, group, block);
        // What ends the transaction leaves nothing behind that could differ.
        let ends = matches!(
            effects.first(),
            Some(Effect::Commit { chain: false } | Effect::Rollback { chain: false })
        ) && !self.session.state.has_set();
        match fit {
            Fit::Yes if asks => Step::Move(Runs::OnPrimary),
            // It was placed before it said what it needs.
            Fit::Yes if self.session.state.has_local() && block.may_begin_again() => {
                match group.marks.contains(Marks::WORKS) {
                    true => Step::Move(Runs::OnReplica),
                    false => Step::Stay,
                }
            }
            Fit::Yes if block.may_begin_again() && self.asks_for_more(group) => Step::Move(Runs::OnReplica),
            Fit::Yes => Step::Stay,
            Fit::No | Fit::Misleading if block.may_begin_again() || ends => Step::Move(Runs::OnPrimary),
            Fit::No => Step::Stay,
            Fit::Misleading => Step::Refuse,
        }
    }

    /// Does it ask, by a comment or a rule, for something that its BEGIN did not?
    fn asks_of_its_own(&self, group: &Group) -> bool {
        let hints = self.hints.consistency.is_some() || self.hints.max_staleness.is_some();
        group.marks.contains(Marks::WORKS) && (hints || self.ruled != Ruled::default())
    }

    /// And would not go to the replica that its transaction is on?
    fn asks_for_more(&self, group: &Group) -> bool {
        let Some(attached) = self.attached.as_ref().filter(|_| self.asks_of_its_own(group)) else {
            return false;
        };
        let node = attached.lease.pool().node;
        let request = Request {
            held: Held::Free,
            begins_read_only: true,
            pipelined_on: Some(node),
            ..self.request(group)
        };
        !matches!(self.decide(&request), (Target::Replica { node: chosen, .. }, _) if chosen == node)
    }

    fn fit(&self, active: &Active, group: &Group, block: &Block) -> (Fit, Vec<Effect>) {
        let told = Marks::SESSION_EFFECT.with(Marks::TRANSACTION_CONTROL);
        let effects = match group.marks.intersects(told) && group.executes {
            true => self.effects_in(active, group),
            false => Vec::new(),
        };
        let marks = if group.executes || !group.complete { group.marks } else { Marks(0) };
        (block.fits(marks, &effects), effects)
    }

    /// What the statements of a group do to the session when they are executed.
    pub(super) fn effects_in(&self, active: &Active, group: &Group) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut parsed: Vec<frontend::Parse<'_>> = Vec::new();
        let mut rest = active.requests.fresh().get(..group.len).unwrap_or_default();
        while let Ok(Some(head)) = header(rest, usize::MAX) {
            let Some((frame, behind)) = rest.split_at_checked(head.frame_len) else { break };
            rest = behind;
            match head.tag {
                b'Q' => {
                    let text = frontend::query(frame).unwrap_or_default();
                    effects.extend(effects_of(text, self.dialect));
                }
                b'P' => parsed.extend(frontend::parse(frame)),
                b'B' => {
                    let Some(bind) = frontend::bind(frame) else { continue };
                    let here = parsed.iter().rev().find(|parse| parse.name == bind.statement);
                    let (text, types) = match here {
                        Some(parse) => (Some(parse.text), parse.types),
                        None => (self.session.text_of(bind.statement), self.session.types_of(bind.statement)),
                    };
                    let found = effects_of(text.unwrap_or_default(), self.dialect);
                    effects.extend(bound(found, types, bind.rest));
                }
                _ => {}
            }
        }
        effects
    }

    /// Ends the transaction where it is and begins it again on such a node.
    async fn move_block(&mut self, active: &mut Active, group: &Group, runs: Runs) -> Result<Placed, End> {
        self.begins_read_only = runs == Runs::OnReplica;
        let stays = self.begins_read_only && !self.is_block_on_replica();
        if stays && matches!(self.decide_now(group), (Target::Primary | Target::Refuse, _)) {
            return self.keep();
        }
        if !self.ask(active, "ROLLBACK", Act::Swallow).await?
            && let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection())
        {
            connection.tainted = true;
        }
        self.give_back(active);
        self.begin_again(active, group).await
    }

    /// A session in a transaction that has lost its server, which was a replica.
    pub(super) async fn resume(&mut self, active: &mut Active, group: &Group) -> Result<Placed, End> {
        let fails = self.session.state.status() == TransactionStatus::Failed;
        let again = self.block.as_ref().filter(|block| block.may_begin_again() && !fails);
        let on_replica = self.is_block_on_replica();
        if let Some(block) = again {
            let (fit, _) = self.fit(active, group, block);
            self.begins_read_only = on_replica && fit == Fit::Yes && !self.asks_for_primary(group);
            return self.begin_again(active, group).await;
        }
        if !on_replica {
            let effects = self.effects_in(active, group);
            let mut why = None;
            if self.may_say_again(group, &effects) {
                match Box::pin(self.say_again(active, group)).await? {
                    Ok(placed) => return Ok(placed),
                    Err(unreplayed) => why = Some(unreplayed),
                }
            }
            if let Some(fault) = self.refuse_lost(&effects, why.as_ref()) {
                return Ok(Placed::Refused(Box::new(fault)));
            }
            return self.begin_failed(active, group).await;
        }
        let ends = group.marks.contains(Marks::TRANSACTION_CONTROL);
        if self.session.state.status() == TransactionStatus::InBlock && !ends {
            self.session.state.fail_block();
            return Ok(Placed::Refused(Box::new(lost_in_the_middle(None))));
        }
        self.begin_failed(active, group).await
    }

    /// A transaction that has failed goes on as one that has failed, on whatever server there is.
    async fn begin_failed(&mut self, active: &mut Active, group: &Group) -> Result<Placed, End> {
        self.session.state.forget_set_in_block();
        self.begins_read_only = true;
        self.begin_with(active, group, FAILS.to_owned(), Act::Own).await
    }

    /// A server for a session that has lost, or left, the one of its transaction.
    pub(super) async fn find_free(&mut self, group: &Group) -> Result<Placed, End> {
        match self.find_at_once(group) {
            Some(placed) => Ok(placed),
            None => Box::pin(self.wait_for_server(group, false)).await,
        }
    }

    async fn begin_again(&mut self, active: &mut Active, group: &Group) -> Result<Placed, End> {
        let sql = self.block.as_ref().map(|block| block.begin()).unwrap_or_default();
        self.begin_with(active, group, sql, Act::Swallow).await
    }

    /// Finds a server, brings it to the session's settings, and begins with `sql` there.
    pub(super) async fn begin_with(
        &mut self,
        active: &mut Active,
        group: &Group,
        sql: String,
        act: Act,
    ) -> Result<Placed, End> {
        for _ in 0..ATTEMPTS {
            let reason = match self.find_free(group).await? {
                Placed::Here(reason) => reason,
                other => return Ok(other),
            };
            if self.carries_other() && !self.align(active, group).await? {
                return Ok(Placed::Answered);
            }
            if self.attached.is_none() {
                continue;
            }
            if self.is_promised() && self.reads_apart() {
                return Ok(Placed::Here(reason));
            }
            let fails = act != Act::Swallow;
            let began = self.ask(active, &sql, act.clone()).await?;
            let Some(attached) = &self.attached else { continue };
            if !began && !fails {
                // Its error has gone to the client.
                self.drop_connection();
                self.close_group(active, group);
                return Ok(Placed::Answered);
            }
            let runs = if attached.role == Role::Replica { Runs::OnReplica } else { Runs::OnPrimary };
            if let Some(block) = &mut self.block {
                block.runs = runs;
            }
            return Ok(Placed::Here(reason));
        }
        Err(End::Fatal(Box::new(lost_while_aligned())))
    }

    /// Runs statements of our own. False: the server refused one, and the client has been told (unless
    /// `act` replaces that). The connection may have been lost on the way.
    pub(super) async fn ask(&mut self, active: &mut Active, sql: &str, act: Act) -> Result<bool, End> {
        writers::query(&mut active.to_server, sql.as_bytes());
        if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) {
            // A simple Query destroys the unnamed statement.
            connection.statements.unnamed = 0;
        }
        active.exchange.queue.push(Kind::Query, act, Undo::Nothing);
        active.exchange.groups.push_back(GroupRecord::internal(Errand::Settings, clock::now()));
        self.aligned = true;
        self.drive(active).await?;
        Ok(self.aligned)
    }

    /// The group is not sent. The transaction fails with it, as it does with any other error.
    pub(super) fn refuse_in_block(&mut self, active: &mut Active, group: &Group, fault: &Fault) {
        tracing::info!(user = %self.slot.user(), database = %self.slot.database(), sqlstate = %fault.sqlstate,
            "request refused: {fault}");
        let mut error = Vec::new();
        writers::fault(&mut error, Severity::Error, fault);
        writers::parse(&mut active.to_server, b"", b"pgweir: refused in a read-only transaction", &[0, 0]);
        let continued = active.exchange.open;
        if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) {
            connection.statements.unnamed = 0;
            if !continued {
                connection.live.begin();
            }
        }
        let record = GroupRecord::new(group, Reason::ReadOnlyTransaction, clock::now());
        active.exchange.begin(group, record);
        active.exchange.queue.push(Kind::Parse, Act::ReplaceError(error.into()), Undo::Nothing);
        if group.complete {
            active.to_server.extend_from_slice(b"S\0\0\0\x04");
            active.exchange.queue.forward(Kind::Sync);
        }
        let keep = active.requests.kept() > 0;
        active.requests.take(group.len);
        if !keep {
            active.requests.let_go(group.len);
        }
        active.exchange.builder.reset();
    }

    /// A group that needs no server comes: what its transaction has lost is told to one that does, for
    /// nobody listens to what a Close is answered.
    pub(super) fn leave_lost_primary(&mut self) {
        if self.has_lost_its_primary() && self.outlives_server() {
            self.drop_connection();
        }
    }

    /// Is its node no longer one to write to?
    pub(super) fn has_lost_its_primary(&self) -> bool {
        let Some(attached) = &self.attached else { return false };
        attached.role == Role::Primary
            && !(self.context.monitor.view().may_go_on_writing(attached.lease.pool().node)
                && self.is_in_place())
    }

    /// Does its server connection, if it has one, lead to where its node is now?
    pub(super) fn is_in_place(&self) -> bool {
        let connection = self.attached.as_ref().and_then(|attached| attached.lease.peek());
        connection.is_none_or(ServerConnection::is_in_place)
    }

    /// May the next piece of an open group not be sent to a replica?
    pub(super) fn misleads(&self, active: &Active, group: &Group) -> bool {
        let block = self.block.as_ref().filter(|block| block.runs == Runs::OnReplica);
        block.is_some_and(|block| self.fit(active, group, block).0 == Fit::Misleading)
    }

    /// A group's answer is complete: what it makes of the transaction block. To be asked before the
    /// session's status changes.
    pub(super) fn note_block(
        &mut self,
        active: &mut Active,
        record: &GroupRecord,
        status: TransactionStatus,
        role: Role,
        answer: Option<u128>,
    ) {
        let was_idle = self.session.state.status() == TransactionStatus::Idle;
        if active.exchange.groups.is_empty() {
            active.answers.unwatch();
        }
        if status == TransactionStatus::Idle {
            self.block = None;
            return;
        }
        let runs = match role {
            _ if record.promised => Runs::Nowhere,
            Role::Replica => Runs::OnReplica,
            Role::Primary => Runs::OnPrimary,
        };
        match &mut self.block {
            Some(block) if !was_idle => {
                if record.executes {
                    block.went_on(&record.effects, record.marks);
                }
            }
            _ => self.block = Some(Box::new(Block::begun(runs, &record.effects, record.marks))),
        }
        self.note_transcript(record, status, role, answer);
        let Some(block) = &mut self.block else { return };
        if record.failed || status == TransactionStatus::Failed {
            block.failed();
        }
        if !block.may_begin_again() && block.transcript.is_none() {
            // Those behind it see what it has seen.
            active.exchange.groups.iter_mut().for_each(|behind| behind.retriable = false);
        }
    }

    /// The replica of an open transaction is gone. What is in flight gets an error that can be
    /// retried; the session goes on, in a transaction that has failed.
    pub(super) fn lost_read_only(&mut self, active: &mut Active, lost: &Lost) {
        if !active.exchange.groups.is_empty() {
            self.session.state.fail_block();
        }
        self.answer_lost(active, TransactionStatus::Failed, &|_| lost_in_the_middle(Some(lost)));
    }
}

pub(super) fn misleading() -> Fault {
    Fault::proxy(
        SqlState::FEATURE_NOT_SUPPORTED,
        "cannot do this in a read-only transaction that runs on a replica",
    )
    .detail("Its locks, or what it changes in the session, would not be those of the primary.")
    .hint("Do it first in the transaction, or SET pgweir.route = 'primary' before it begins.")
}

fn lost_in_the_middle(lost: Option<&Lost>) -> Fault {
    let fault =
        Fault::server(SqlState::SERIALIZATION_FAILURE, "the replica of this read-only transaction was lost")
            .hint("Nothing was written. Retry the transaction.");
    match lost {
        Some(lost) => fault.detail(lost.why.to_string()),
        None => fault,
    }
}
