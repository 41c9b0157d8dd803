//! Finds a server for a request group, brings it to the session's state, and forwards the group.

use crate::clock;
use crate::config::settings::PoolMode;
use crate::fault::{Fault, SqlState};
use crate::freshness::gate::Need;
use crate::node::Role;
use crate::pool::checkout::Lease;
use crate::relay::apart::Lent;
use crate::relay::buffer::Active;
use crate::relay::client::{Attached, Client, End, Hints};
use crate::relay::draw::draw;
use crate::relay::find::{Found, LagRead};
use crate::relay::lost_transaction::{is_repeatable, is_resumable};
use crate::relay::own;
use crate::relay::reach::lost_while_aligned;
use crate::relay::read_only::misleading;
use crate::relay::refusal::canceled;
use crate::routing::decide::decide;
use crate::routing::fence::unfenced;
use crate::routing::reason::Reason;
use crate::routing::request::{Consistency, Held, Request, Target};
use crate::session::exchange::GroupRecord;
use crate::session::group::Group;
use crate::session::machine::Outgoing;
use crate::session::reply_queue::Act;
use crate::session::settings::difference;
use crate::session::split::Part;
use crate::sql::class::{Access, Marks, Route, Why};
use crate::sql::effects;
use crate::wire::backend::TransactionStatus;
use crate::wire::writers;
use std::sync::Arc;

/// So many connections may be lost one after the other while they are brought to a session's settings.
const ALIGN_ATTEMPTS: u8 = 3;

/// Where a group goes.
#[derive(Debug)]
pub(super) enum Placed {
    /// On the connection that the client has now.
    Here(Reason),
    /// Not yet: earlier answers come first.
    Later,
    /// Nowhere: this is the answer.
    Refused(Box<Fault>),
    /// Nowhere: it has been answered.
    Answered,
}

impl Client {
    /// Sends a group on its way, or answers it. False: earlier answers have to be complete first.
    pub async fn place(&mut self, active: &mut Active, group: &Group) -> Result<bool, End> {
        let idle = active.exchange.is_between_groups() && !active.skip_to_sync;
        if idle && self.tells_of_loss(active, group) {
            return Ok(true);
        }
        self.place_within(active, group, ALIGN_ATTEMPTS).await
    }

    /// What the group asks for, apart from its text. True: nothing is in flight before it.
    fn look_at(&mut self, active: &mut Active, group: &Group) -> bool {
        self.hints = self.hints_of(active, group);
        self.ruled = self.rule_of(active, group);
        if self.level() == Consistency::Global {
            self.arrived = active.requests.arrived();
        }
        self.begins_read_only = self.begins_read_only_with(active, group);
        let idle = active.exchange.is_between_groups();
        // What is in flight may begin or end a transaction.
        self.part = if idle { self.part_of(active, group) } else { Part::Other };
        if idle && !active.skip_to_sync {
            // Nothing is decided by where the last request went.
            self.release(active);
        }
        idle
    }

    async fn place_within(&mut self, active: &mut Active, group: &Group, attempts: u8) -> Result<bool, End> {
        let idle = self.look_at(active, group);
        if active.skip_to_sync {
            return Ok(self.skip(active, group));
        }
        if group.needs_name && active.exchange.queue.owes_name(None) {
            // Whether the name is given is known when that group has ended.
            return Ok(false);
        }
        if self.part == Part::Answered {
            Box::pin(self.answer_own(active, group)).await;
            return Ok(true);
        }
        if (self.bonds.is_some() || self.hints.asks)
            && let Some(done) = Box::pin(self.bind(active, group, idle)).await?
        {
            return Ok(done);
        }
        if idle && !group.needs_server {
            self.leave_lost_primary();
        }
        let needless = !group.needs_server && self.attached.is_none();
        if group.own > 0 || needless || self.deallocates(active, group) {
            if idle {
                Box::pin(self.answer_own(active, group)).await;
            }
            return Ok(idle);
        }
        let kept = self.attached.is_some();
        let placed = self.choose(active, group, idle).await?;
        match placed {
            Placed::Later => Ok(false),
            Placed::Answered => Ok(true),
            Placed::Refused(fault) => {
                let opening = Marks::TRANSACTION_CONTROL.with(Marks::SESSION_EFFECT);
                let more = active.requests.fresh().len() > group.len;
                if more && group.marks.intersects(opening) {
                    // Behind a refused BEGIN or SET, the rest of the pipeline would run without it.
                    return Err(End::Fatal(fault));
                }
                self.answer_refusal(active, group, &fault);
                Ok(true)
            }
            Placed::Here(reason) => {
                if idle && self.is_askew() && !Box::pin(self.align(active, group)).await? {
                    return Ok(true);
                }
                if idle && group.estranged && !Box::pin(self.reconcile(active, group)).await? {
                    return Ok(true);
                }
                if self.attached.is_none() {
                    if kept || attempts <= 1 {
                        // A connection that the session kept has taken its state with it.
                        return Err(End::Fatal(Box::new(lost_while_aligned())));
                    }
                    // Lost while its settings were sent: nothing of the client's was, so once more.
                    return Box::pin(self.place_within(active, group, attempts - 1)).await;
                }
                if group.marks.contains(Marks::DDL) {
                    self.make_way(active, group);
                }
                self.send(active, group, reason)?;
                Ok(true)
            }
        }
    }

    /// Where it goes, with a connection to there.
    async fn choose(&mut self, active: &mut Active, group: &Group, idle: bool) -> Result<Placed, End> {
        if idle && let Some(fault) = self.refuse_lost_commit(active, group) {
            return Ok(Placed::Refused(Box::new(fault)));
        }
        Ok(match self.attached {
            Some(_) if active.exchange.open && self.misleads(active, group) => {
                self.refuse_in_block(active, group, &misleading());
                Placed::Answered
            }
            Some(_) if active.exchange.open => Placed::Here(Reason::OpenGroup),
            Some(_) if !idle => self.follow(active, group),
            Some(_) => match self.fence_attached(group).await {
                Some(fault) => self.refuse_unfenced(active, group, fault),
                None => self.stay(active, group).await?,
            },
            None if self.is_promised() => Box::pin(self.go_on_promised(active, group)).await?,
            None if self.session.state.status() != TransactionStatus::Idle => {
                Box::pin(self.resume(active, group)).await?
            }
            None => match self.find_at_once(group) {
                Some(placed) => placed,
                None => {
                    // What stands behind it, a goodbye perhaps, is heard first.
                    let last = active.requests.fresh().len() <= group.len;
                    Box::pin(self.wait_for_server(group, last)).await?
                }
            },
        })
    }

    /// Earlier groups are in flight: this one follows them if it belongs to the same place.
    fn follow(&mut self, active: &Active, group: &Group) -> Placed {
        let Some(attached) = &self.attached else { return Placed::Later };
        if active.exchange.groups.iter().any(GroupRecord::forgets_statements) {
            // Which names are free again is known when it has worked; what is prepared afterwards must
            // not be forgotten with what was prepared before.
            return Placed::Later;
        }
        // Whether a promised transaction has failed decides what may follow.
        let open = |record: &GroupRecord| record.restartable || record.promised;
        if active.exchange.groups.iter().any(open) || self.is_estranged(active, group) {
            return Placed::Later;
        }
        if self.session.state.has_lost_block() {
            // Whether it would commit is asked when nothing is in flight.
            return Placed::Later;
        }
        if attached.role == Role::Primary {
            // Whatever it is, and whatever the groups before it do, the primary is right, while it is one.
            let is_deposed = || !active.exchange.queue.is_copying_in() && self.has_lost_its_primary();
            return match self.is_unfenced(group) || is_deposed() {
                true => Placed::Later,
                false => Placed::Here(Reason::Pipelined),
            };
        }
        if self.fits_behind(active, group) {
            return Placed::Here(Reason::ReadOnlyTransaction);
        }
        let node = attached.lease.pool().node;
        let mut request = self.request(group);
        request.pipelined_on = Some(node);
        let still_one_breath = active.exchange.groups.iter().all(|record| record.access == Access::Read);
        match self.decide(&request) {
            (Target::Replica { node: chosen, .. }, _) if chosen == node && still_one_breath => {
                Placed::Here(Reason::Pipelined)
            }
            _ => Placed::Later,
        }
    }

    /// The session keeps its connection; a primary that has lost its role is not written to.
    pub(super) fn keep(&mut self) -> Result<Placed, End> {
        let reason = match self.session.state.held() {
            Held::InTransaction if self.is_block_on_replica() => Reason::ReadOnlyTransaction,
            Held::InTransaction => Reason::InTransaction,
            Held::Pinned => Reason::Pinned,
            Held::Free | Held::SessionMode => Reason::SessionMode,
        };
        let node = self.attached.as_ref().map(|attached| (attached.lease.pool().node, attached.role));
        let view = self.context.monitor.view();
        match node {
            Some((node, Role::Primary)) if !view.may_go_on_writing(node) || !self.is_in_place() => {
                self.drop_connection();
                // The rest of the transaction must not run elsewhere on its own.
                Err(End::Fatal(Box::new(
                    Fault::server(
                        SqlState::CONNECTION_FAILURE,
                        "the session's server is no longer the primary",
                    )
                    .hint("Connect again and retry the transaction."),
                )))
            }
            // What it is pinned for is on this connection, and writes must not go to it.
            Some((_, Role::Replica)) if reason == Reason::Pinned => {
                self.drop_connection();
                Err(End::Fatal(Box::new(lost_while_aligned())))
            }
            _ => Ok(Placed::Here(reason)),
        }
    }

    /// The ordinary case: the decision is clear, and its pool has an idle connection with the right
    /// settings. Nothing is waited for.
    pub(super) fn find_at_once(&mut self, group: &Group) -> Option<Placed> {
        let (lease, role, reason, place) = self.idle_connection(group)?;
        self.attach(lease, role, place);
        Some(Placed::Here(reason))
    }

    fn idle_connection(&self, group: &Group) -> Option<(Lease, Role, Reason, Option<LagRead>)> {
        let view = self.context.monitor.view();
        let config = self.context.config.load();
        let policy = &config.routing.policy;
        let request = self.request(group);
        let now = clock::now();
        let decision = decide(&request, &view, policy, now, draw());
        let (node, need, role) = match decision.target {
            // Looked at once more: where it reads no more, it begins.
            Target::Primary | Target::Refuse if request.split => return None,
            // First it must be known whom the end of it was meant for.
            Target::Primary if self.ended.is_some() => return None,
            Target::Primary if unfenced(&request, &view, policy).is_some() => return None,
            Target::Primary => (view.primary?, Need::default(), Role::Primary),
            Target::Replica { node, need } => (node, need, Role::Replica),
            Target::Wait { .. } | Target::Refuse => return None,
        };
        let place = match role {
            Role::Primary => self.lag_read(decision.reason).ok()?,
            Role::Replica => None,
        };
        let node = view.node(node)?;
        if role == Role::Primary && node.live.is_fenced(now, config.cluster.monitor.fence_after) {
            return None;
        }
        let mut lease = self.tenant.pool(node)?.try_checkout(self.session.state.settings())?;
        if self.is_paused() {
            lease.checkin();
            return None;
        }
        let established = lease.connection()?.established;
        let fresh = node.live.freshness();
        // The replica may have restarted since it was chosen: then what it has shown counts no more.
        let need = match request.consistency {
            Consistency::Eventual => need,
            _ => need.and(Need::of_floor(&request.floor, node.id, fresh.incarnation)),
        };
        let proven = need.is_met_on(&fresh, established) || policy.defect.lets_through(&need, &fresh);
        // Asked last: what is proven of a node is proven of where it is now.
        if role == Role::Replica && !(proven && lease.connection()?.is_in_place()) {
            lease.checkin();
            return None;
        }
        Some((lease, role, decision.reason, place))
    }

    /// Finds a server, unless the client cancels the request meanwhile, or vanishes with it as its last.
    pub(super) async fn wait_for_server(&mut self, group: &Group, last: bool) -> Result<Placed, End> {
        self.slot.begin_wait();
        let found = tokio::select! {
            biased;
            found = self.find(group) => found,
            () = self.slot.wait_canceled() => Found::Refused(Box::new(canceled())),
            () = self.stream.gone(), if last => return Err(End::Gone),
        };
        let is_canceled = self.slot.end_wait();
        Ok(match found {
            Found::Refused(fault) => Placed::Refused(fault),
            Found::Connection(lease, ..) if is_canceled => {
                lease.checkin();
                Placed::Refused(Box::new(canceled()))
            }
            Found::Connection(lease, role, reason, place) => {
                self.attach(lease, role, place);
                Placed::Here(reason)
            }
        })
    }

    pub(super) fn decide(&self, request: &Request) -> (Target, Reason) {
        let config = self.context.config.load();
        let view = self.context.monitor.view();
        let decision = decide(request, &view, &config.routing.policy, clock::now(), draw());
        (decision.target, decision.reason)
    }

    /// The group as `decide` sees it.
    pub fn request(&self, group: &Group) -> Request {
        let state = &self.session.state;
        let replay = self.replay.unwrap_or_default();
        let held = match (state.held(), self.tenant.mode()) {
            // Its transaction begins again.
            (Held::InTransaction, _) if self.begins_read_only || self.attached.is_none() => Held::Free,
            (Held::Free, PoolMode::Session) => Held::SessionMode,
            (held, _) => held,
        };
        let hints = self.hints;
        let (access, why) = match self.resumes_on_primary() {
            true => (Access::Write, Why::TransactionControl),
            false => (group.access, group.why),
        };
        self.split_request(Request {
            access,
            why,
            begins_read_only: self.begins_read_only,
            complete: group.complete,
            learnt: group
                .fingerprint
                .is_some_and(|shape| self.context.classifier.is_learnt(shape, self.database.id)),
            replayed: replay.primary,
            route: if group.route == Route::Auto { state.route } else { group.route },
            held,
            consistency: self.level(),
            arrived: self.arrived,
            shows: group.marks.contains(Marks::WORKS),
            max_staleness: hints.max_staleness.or(state.max_staleness),
            floor: state.floor,
            demand: state.demand.and(hints.demand),
            last_write: state.last_write,
            pipelined_on: None,
            waiting_until: None,
            excluded: replay.excluded,
            rule: self.ruled.asked,
            split: false,
        })
    }

    /// The level of the group at hand: the stricter of what its client (in a comment, else for the
    /// session) and a rule ask for; else that of its user, its database, or the whole of `routing`.
    pub fn level(&self) -> Consistency {
        let wish = self.hints.consistency.or(self.session.state.consistency);
        let own = wish.max(self.ruled.consistency).or_else(|| self.tenant.level());
        own.unwrap_or_else(|| self.context.glance.level())
    }

    /// The client has this connection now.
    fn attach(&mut self, mut lease: Lease, role: Role, lag_read: Option<LagRead>) {
        let mut incarnation = 0;
        if let Some(connection) = lease.connection() {
            incarnation = connection.live.freshness().incarnation;
            self.slot.attach(connection.node, &connection.key);
            self.session.state.carried = connection.settings.clone();
        }
        self.ended = None;
        self.attached = Some(Attached { lease, role, incarnation, lag_read });
    }

    /// Does the connection carry other settings than the session wants?
    fn is_askew(&self) -> bool {
        let between = self.session.state.status() == TransactionStatus::Idle || self.is_promised();
        self.carries_other() && between
    }

    pub(super) fn carries_other(&self) -> bool {
        !Arc::ptr_eq(&self.session.state.carried, self.session.state.settings())
    }

    /// Brings the connection to the session's settings. This is a round trip of its own, because a
    /// request must not run when its settings were refused (a role, a tenant). False: they were, and
    /// the client has been told.
    pub(super) async fn align(&mut self, active: &mut Active, group: &Group) -> Result<bool, End> {
        let state = &self.session.state;
        let taken = match difference(&state.carried, state.settings()) {
            Some(sql) => self.ask(active, &sql, Act::Swallow).await?,
            None => true,
        };
        if taken {
            self.session.state.carried = self.session.state.settings().clone();
            return Ok(true);
        }
        // What it carries now is anybody's guess.
        if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) {
            connection.tainted = true;
        }
        self.drop_connection();
        self.close_group(active, group);
        Ok(false)
    }

    /// What is remembered of a group that is about to be sent, `tried` by these replicas in vain.
    fn record_of(&mut self, active: &Active, group: &Group, reason: Reason, tried: u64) -> GroupRecord {
        let on_replica = self.attached.as_ref().is_some_and(|attached| attached.role == Role::Replica);
        let mut record = GroupRecord::new(group, reason, clock::now());
        record.tried = tried;
        if on_replica {
            // A replica writes nothing, whatever it is asked.
            (record.access, record.writes) = (Access::Read, false);
        }
        record.bond = if self.bonds.is_some() { self.take_bond(group) } else { None };
        record.promised = on_replica && matches!(self.part, Part::Begins | Part::Reads);
        if self.begins_read_only || self.part == Part::Begins {
            // A refusal is not the fault of its BEGIN.
            record.fingerprint = None;
        }
        // A read that has met two nodes in vain ends with the primary's answer, whatever it is: it may be
        // what brings them down. One that has written before is none.
        let can_go_elsewhere = on_replica || (record.tried == 0 && reason != Reason::Learnt);
        let unseen = match &self.block {
            Some(block) => on_replica && (record.promised || block.may_begin_again()),
            None => self.is_free(),
        };
        record.retriable = can_go_elsewhere
            && group.complete
            && record.access == Access::Read
            && unseen
            && active.requests.kept() < KEPT_MAX;
        record.resumable = !on_replica
            && is_resumable(group, self.session.state.held())
            && active.requests.kept() < KEPT_MAX
            && group.len < KEPT_MAX;
        record.inquiry = self.inquiry_into(active, group, &record);
        record.transcribed = self.transcribe(active, group);
        if tried == 0 && (record.transcribed.is_some() || self.has_transcript()) {
            record.retriable |= self.is_replayable(active, group, record.transcribed.is_some());
        }
        record
    }

    /// The last step: the bytes.
    fn send(&mut self, active: &mut Active, group: &Group, reason: Reason) -> Result<(), End> {
        let replay = self.replay.take();
        let replayed = replay.is_some();
        let record = self.record_of(active, group, reason, replay.map_or(0, |replay| replay.excluded));
        let Some(attached) = self.attached.as_mut() else { return Ok(()) };
        let continued = active.exchange.open;
        let keep = record.retriable || record.resumable || active.requests.kept() > 0;
        let alone = active.exchange.groups.is_empty();
        if alone && (record.retriable || record.resumable) {
            active.answers.hold();
        }
        if record.transcribed.is_some() {
            active.answers.watch(self.context.answer_key());
        }
        attached.lease.pool().count(attached.role, reason);
        active.exchange.begin(group, record);
        active.requests.take(group.len);
        let Some(connection) = attached.lease.connection() else { return Ok(()) };
        if !continued {
            connection.live.begin();
        }
        let mut outgoing = Outgoing {
            out: &mut active.to_server,
            server: &mut connection.statements,
            lent: &mut Lent { tenant: &self.tenant, context: &self.context },
            prepared_limit: self.prepared_limit,
            names_limit: self.names_limit,
            dialect: self.dialect,
            replayed,
        };
        let bytes = active.requests.taken(group.len);
        self.session.forward(bytes, &mut active.exchange, &mut outgoing)?;
        (0..std::mem::take(&mut active.exchange.joined)).for_each(|_| connection.live.end(None));
        let keep = self.may_restart(active, group, continued) || keep;
        let keep = self.may_repeat(active, group, alone && !continued) || keep;
        active.exchange.builder.reset();
        if !keep {
            active.requests.let_go(group.len);
        }
        active.pass_fabricated();
        Ok(())
    }

    /// A lone BEGIN or ROLLBACK is sent again wherever its server is lost.
    fn may_repeat(&self, active: &mut Active, group: &Group, alone: bool) -> bool {
        let Some(record) = active.exchange.groups.back_mut() else { return false };
        let repeatable = alone
            && group.complete
            && (self.is_free() || self.outlives_server())
            && is_repeatable(&record.effects, record.marks);
        if repeatable {
            record.retriable = true;
            active.answers.hold();
        }
        repeatable
    }

    /// The texts of a group that is still to be sent.
    pub(super) fn texts_in<'a>(&'a self, active: &'a Active, group: &Group) -> Vec<&'a [u8]> {
        self.session.texts_in(active.requests.fresh().get(..group.len).unwrap_or_default())
    }

    /// What the group's comments ask for, besides a route: of several, the strictest.
    fn hints_of(&self, active: &Active, group: &Group) -> Hints {
        if !group.marks.contains(Marks::HINTED) {
            return Hints::default();
        }
        let mut hints = Hints::default();
        for text in self.texts_in(active, group) {
            let asked = effects::hints_of(text);
            let levels = asked.levels.iter().filter_map(|level| Consistency::parse(level));
            hints.consistency = levels.chain(hints.consistency).max();
            let bounds = asked.bounds.iter().filter_map(|bound| own::duration(bound));
            hints.max_staleness = bounds.chain(hints.max_staleness).min();
            hints.asks |= !asked.tokens.is_empty() || !asked.causal_keys.is_empty();
        }
        hints
    }

    /// Where a group would go now.
    pub fn decide_now(&self, group: &Group) -> (Target, Reason) {
        self.decide(&self.request(group))
    }

    /// The rest of a group whose server was lost: PostgreSQL skips to Sync as well.
    fn skip(&mut self, active: &mut Active, group: &Group) -> bool {
        active.skip_to_sync = !group.complete;
        if group.complete && std::mem::take(&mut active.ready_after_skip) {
            active.answers.insert(&writers::ready(self.session.state.status()));
        }
        active.requests.take(group.len);
        active.requests.let_go(group.len);
        active.exchange.builder.reset();
        true
    }
}

/// Requests are kept for a replay up to this many bytes.
pub(super) const KEPT_MAX: usize = 64 * 1024;
