//! Clients: sessions that read, write and open transactions, and the relay's part for each of them:
//! decide, check out, prove, send, account. What `relay/place.rs` and `relay/answer.rs` do, in single
//! steps; the decisions are the real ones.

use crate::chance::Set;
use crate::monitor::us;
use crate::world::{Check, World};
use pgweir::cluster::health::Evidence;
use pgweir::freshness::defect::Defect;
use pgweir::freshness::gate::{Durability, Floor, Need};
use pgweir::moment::Moment;
use pgweir::node::{NodeId, Role};
use pgweir::routing::decide::decide;
use pgweir::routing::reason::Reason;
use pgweir::routing::request::{Consistency, Decision, Held, Request, Target};
use pgweir::session::settings::Settings;
use pgweir::session::state::{GroupEnd, SessionState};
use pgweir::sql::class::{Access, Route, Why};
use pgweir::sql::effects::{Effect, TransactionModes};
use pgweir::wire::backend::TransactionStatus;
use std::sync::Arc;
use std::time::Duration;

/// As in `relay/place.rs`.
const FIRST_SAMPLE_WAIT: Duration = Duration::from_millis(50);
const HOLD: Duration = Duration::from_millis(500);

/// A server connection.
#[derive(Clone, Debug)]
pub struct Conn {
    pub node: usize,
    epoch: u32,
    established: Moment,
    /// What it said at its login.
    in_hot_standby: bool,
}

/// One client's session.
#[derive(Debug)]
pub struct Client {
    pub state: SessionState,
    phase: Phase,
    /// The transaction's connection, between its groups.
    kept: Option<Attached>,
    /// Has the open transaction written?
    tx_wrote: bool,
    /// Commits of its own that it knows of.
    acked: Set,
    seen_on_primary: Set,
    seen: Set,
    /// When its request arrived, and what anybody knew to be committed by then.
    arrived: Moment,
    before: Set,
}

#[derive(Clone, Debug)]
struct Attached {
    conn: Conn,
    role: Role,
    incarnation: u64,
}

/// What a group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Want {
    Read,
    Write { synchronous: bool, ending: Ending },
    Begin { read_only: bool },
    Commit { synchronous: bool },
    Rollback,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Works,
    /// Several statements in one string: a COMMIT among them works, a later one fails.
    FailsBehindCommit,
    Fails,
}

#[derive(Clone, Debug)]
enum Phase {
    Idle,
    /// Not placed yet; `since`: when it was decided last.
    Finding(Want, Box<Request>),
    /// A replica's connection, not yet proven.
    Proving {
        want: Want,
        request: Box<Request>,
        conn: Conn,
        need: Need,
        decided: Moment,
        reason: Reason,
        until: Moment,
    },
    /// For the primary, while there is none.
    Holding(Want, Box<Request>, Moment),
    Sent(Box<Sent>),
}

#[derive(Clone, Debug)]
struct Sent {
    want: Want,
    to: Attached,
    /// Of a read that a decision placed on a replica: nothing older than this may miss.
    horizon: Option<Moment>,
    /// The newest timeline that pgweir knew of.
    newest_told: u32,
    tried: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Queued,
    /// The commit's record is inserted.
    Inserted(usize),
    Flushed(usize),
    /// Only the answer is missing.
    Done {
        saw: Option<Set>,
        commit: Option<usize>,
    },
}

impl Client {
    pub fn new(level: Consistency) -> Client {
        let mut state = SessionState::new(Arc::new(Settings::default()));
        state.consistency = Some(level);
        Client {
            state,
            phase: Phase::Idle,
            kept: None,
            tx_wrote: false,
            acked: Set::default(),
            seen_on_primary: Set::default(),
            seen: Set::default(),
            arrived: Moment::NEVER,
            before: Set::default(),
        }
    }

    fn level(&self) -> Consistency {
        self.state.consistency.unwrap_or_default()
    }

    /// What a read of this session must show, of what exists in the history that the node serves.
    fn must_see(&self, role: Role) -> Set {
        match (self.level(), role) {
            (Consistency::Eventual, _) => Set::default(),
            (Consistency::Global, Role::Primary) => self.acked.or(self.seen_on_primary).or(self.before),
            (Consistency::Global, Role::Replica) => self.acked.or(self.seen).or(self.before),
            // A standby may show a commit before its primary does. (The fence that `strict` and `global`
            // put there is not part of this model: see `freshness/fence.rs`.)
            (Consistency::Session | Consistency::Strict, Role::Primary) => {
                self.acked.or(self.seen_on_primary)
            }
            (Consistency::Session | Consistency::Strict, Role::Replica) => self.acked.or(self.seen),
        }
    }
}

impl World {
    /// The next thing that happens to this client.
    pub fn client(&mut self, client: usize, choice: u64) -> Check {
        match self.clients[client].phase.clone() {
            Phase::Idle => self.issue(client, choice),
            Phase::Finding(want, request) => self.find(client, want, *request, choice),
            Phase::Proving { want, request, conn, need, decided, reason, until } => {
                let floor = self.floor_of(client);
                let fresh = self.published.nodes[conn.node].live.freshness();
                let id = NodeId(conn.node as u16);
                let whole = need.and(Need::of_floor(&floor, id, fresh.incarnation));
                if whole.is_met_on(&fresh, conn.established) {
                    self.attach(client, want, conn, Role::Replica, Some((&request, decided)), reason)
                } else if self.now >= until {
                    self.checkin(conn);
                    let mut request = request;
                    request.excluded |= 1 << id.0;
                    self.clients[client].phase = Phase::Finding(want, request);
                    Ok(())
                } else {
                    Ok(())
                }
            }
            Phase::Holding(want, request, until) => self.hold(client, want, request.excluded, until),
            Phase::Sent(sent) => self.serve(client, *sent, choice),
        }
    }

    fn floor_of(&self, client: usize) -> Floor {
        match self.clients[client].level() {
            Consistency::Eventual => Floor::default(),
            _ => self.clients[client].state.floor,
        }
    }

    /// A client that had nothing to do sends its next group.
    fn issue(&mut self, client: usize, choice: u64) -> Check {
        let synchronous = !(choice >> 8).is_multiple_of(3);
        let ending = match (choice >> 12) % 12 {
            0 => Ending::FailsBehindCommit,
            1 => Ending::Fails,
            _ => Ending::Works,
        };
        let want = match (self.clients[client].state.status(), choice % 16) {
            (TransactionStatus::Idle, 0..5) => Want::Write { synchronous, ending },
            (TransactionStatus::Idle, 5) => Want::Begin { read_only: false },
            (TransactionStatus::Idle, 6) => Want::Begin { read_only: true },
            (TransactionStatus::Idle, _) => Want::Read,
            (TransactionStatus::InBlock, 0..6) => Want::Commit { synchronous },
            (TransactionStatus::InBlock, 6) => Want::Rollback,
            (TransactionStatus::InBlock, 7..10) if !self.is_on_replica(client) => {
                let ending = if ending == Ending::Fails { ending } else { Ending::Works };
                Want::Write { synchronous, ending }
            }
            (TransactionStatus::InBlock, _) => Want::Read,
            (TransactionStatus::Failed, 0..8) => Want::Commit { synchronous },
            (TransactionStatus::Failed, _) => Want::Rollback,
        };
        if self.clients[client].kept.is_some() {
            return self.stay(client, want);
        }
        self.clients[client].arrived = self.now;
        self.clients[client].before = self.acked;
        self.place(client, want, self.request(client, want), choice >> 16)
    }

    fn is_on_replica(&self, client: usize) -> bool {
        self.clients[client].kept.as_ref().is_some_and(|kept| kept.role == Role::Replica)
    }

    /// The session keeps its connection; a primary that has lost its role is not written to.
    fn stay(&mut self, client: usize, want: Want) -> Check {
        let Some(kept) = self.clients[client].kept.take() else { return Ok(()) };
        let id = NodeId(kept.conn.node as u16);
        if kept.role == Role::Primary && !self.published.may_go_on_writing(id) {
            tell!(self, "c{client}: its server is no longer the primary; disconnected");
            return self.reconnect(client);
        }
        self.send(client, want, kept, None, 0, Reason::InTransaction)
    }

    /// The session ends with an error; its client connects again.
    fn reconnect(&mut self, client: usize) -> Check {
        self.clients[client] = Client::new(self.clients[client].level());
        Ok(())
    }

    fn request(&self, client: usize, want: Want) -> Request {
        let state = &self.clients[client].state;
        let (access, why) = match want {
            Want::Read => (Access::Read, Why::PlainRead),
            Want::Write { .. } => (Access::Write, Why::WritesRows),
            _ => (Access::Unknown, Why::TransactionControl),
        };
        Request {
            access,
            why,
            begins_read_only: want == Want::Begin { read_only: true },
            complete: true,
            learnt: false,
            replayed: false,
            route: Route::Auto,
            held: state.held(),
            consistency: self.clients[client].level(),
            arrived: match self.setting.defect {
                Defect::ForgottenArrival => Moment::NEVER,
                _ => self.clients[client].arrived,
            },
            shows: !matches!(want, Want::Begin { .. }),
            demand: pgweir::routing::request::Demand::default(),
            rule: pgweir::routing::rules::Asked::default(),
            split: false,
            max_staleness: state.max_staleness,
            floor: state.floor,
            last_write: state.last_write,
            pipelined_on: None,
            waiting_until: None,
            excluded: 0,
        }
    }

    fn decide(&mut self, request: &Request, draw: u64) -> Result<Decision, String> {
        let mut decision = decide(request, &self.published, &self.policy, self.now, draw);
        let reads = request.begins_read_only || request.access == Access::Read;
        if self.setting.defect == Defect::AnyReplica && reads && request.held == Held::Free {
            let replicas: Vec<NodeId> = self.published.replicas().map(|node| node.id).collect();
            if let Some(&node) = replicas.get(draw as usize % replicas.len().max(1)) {
                let target = Target::Replica { node, need: Need::default() };
                decision = Decision { target, reason: Reason::Balanced };
            }
        }
        let fits = match (decision.target, decision.reason) {
            (
                Target::Replica { .. },
                Reason::Balanced
                | Reason::Waited
                | Reason::RouteReplica
                | Reason::Pipelined
                | Reason::ReadOnlyTransaction,
            ) => reads && request.held == Held::Free,
            (Target::Replica { .. }, _) => false,
            (Target::Wait { .. } | Target::Refuse, reason) => reads && reason == Reason::NotFreshEnough,
            (Target::Primary, reason) => {
                !matches!(reason, Reason::Balanced | Reason::Waited | Reason::RouteReplica)
            }
        };
        match fits {
            true => Ok(decision),
            false => Err(format!("{request:?} was decided as {decision:?}")),
        }
    }

    /// The ordinary case: the decision is clear, and its pool has an idle connection.
    fn place(&mut self, client: usize, want: Want, request: Request, draw: u64) -> Check {
        let decision = self.decide(&request, draw)?;
        let (node, need, role) = match decision.target {
            Target::Primary => (self.published.primary, Need::default(), Role::Primary),
            Target::Replica { node, need } => (Some(node), need, Role::Replica),
            Target::Wait { .. } | Target::Refuse => (None, Need::default(), Role::Replica),
        };
        if let Some(node) = node
            && let Some(conn) = self.idle(node.index())
        {
            let fresh = self.published.nodes[node.index()].live.freshness();
            if role == Role::Primary || need.is_met_on(&fresh, conn.established) {
                let decided = (role == Role::Replica).then_some((&request, self.now));
                return self.attach(client, want, conn, role, decided, decision.reason);
            }
            self.checkin(conn);
        }
        self.clients[client].phase = Phase::Finding(want, Box::new(request));
        Ok(())
    }

    fn find(&mut self, client: usize, want: Want, mut request: Request, draw: u64) -> Check {
        let decision = self.decide(&request, draw)?;
        let next = match decision.target {
            Target::Primary => Phase::Holding(want, Box::new(request), self.now.plus(HOLD)),
            Target::Refuse => Phase::Idle,
            Target::Wait { until } => {
                request.waiting_until = Some(until);
                Phase::Finding(want, Box::new(request))
            }
            Target::Replica { node, need } => match self.check_out(node.index()) {
                Some(conn) => Phase::Proving {
                    want,
                    request: Box::new(request),
                    conn,
                    need,
                    decided: self.now,
                    reason: decision.reason,
                    until: self.now.plus(FIRST_SAMPLE_WAIT),
                },
                None => {
                    request.excluded |= 1 << node.0;
                    Phase::Finding(want, Box::new(request))
                }
            },
        };
        self.clients[client].phase = next;
        Ok(())
    }

    fn hold(&mut self, client: usize, want: Want, tried: u64, until: Moment) -> Check {
        if let Some(primary) = self.published.primary.map(NodeId::index)
            && let Some(conn) = self.check_out(primary)
        {
            if conn.in_hot_standby {
                self.pools[primary].clear();
                return self.witnessed(primary, Evidence::InHotStandbyChanged);
            }
            let to = self.attached(conn, Role::Primary);
            return self.send(client, want, to, None, tried, Reason::Write);
        }
        if self.now >= until {
            self.clients[client].phase = Phase::Idle;
        }
        Ok(())
    }

    /// An idle connection of the pool that is not known to be dead.
    fn idle(&mut self, node: usize) -> Option<Conn> {
        let server = &self.servers.nodes[node];
        while let Some(conn) = self.pools[node].pop() {
            if server.up && conn.epoch == server.epoch {
                return Some(conn);
            }
        }
        None
    }

    fn check_out(&mut self, node: usize) -> Option<Conn> {
        if let Some(conn) = self.idle(node) {
            return Some(conn);
        }
        let server = &self.servers.nodes[node];
        let established = match self.setting.defect {
            Defect::KeptPosition => Moment::NEVER,
            _ => self.now,
        };
        let in_hot_standby = server.role == Role::Replica;
        server.up.then_some(Conn { node, epoch: server.epoch, established, in_hot_standby })
    }

    fn checkin(&mut self, conn: Conn) {
        let node = conn.node;
        self.pools[node].push(conn);
    }

    fn attached(&self, conn: Conn, role: Role) -> Attached {
        let incarnation = self.published.nodes[conn.node].live.freshness().incarnation;
        Attached { conn, role, incarnation }
    }

    fn attach(
        &mut self,
        client: usize,
        want: Want,
        conn: Conn,
        role: Role,
        decided: Option<(&Request, Moment)>,
        reason: Reason,
    ) -> Check {
        let to = self.attached(conn, role);
        let tried = decided.map_or(0, |(request, _)| request.excluded);
        let horizon = decided.map(|(request, at)| {
            let bound = request.max_staleness.unwrap_or(self.policy.max_staleness);
            at.minus(bound.min(self.policy.max_staleness))
        });
        self.send(client, want, to, horizon, tried, reason)
    }

    /// The bytes go out: the last moment to be wrong.
    fn send(
        &mut self,
        client: usize,
        want: Want,
        to: Attached,
        horizon: Option<Moment>,
        tried: u64,
        reason: Reason,
    ) -> Check {
        let node = to.conn.node;
        tell!(self, "c{client}: {} goes to pg{node} ({})", want.text(), reason.as_str());
        match to.role {
            Role::Primary if want != Want::Read => self.check_written_to(client, node)?,
            Role::Primary => {}
            Role::Replica => {
                let fresh = self.published.nodes[node].live.freshness();
                let known = fresh.sample_sent != Moment::NEVER && fresh.watermark_insert != Moment::NEVER;
                if horizon.is_some() && !known && self.setting.defect != Defect::AnyReplica {
                    return Err(format!("c{client} reads on pg{node}, of which nothing is known"));
                }
                self.stats.on_replicas += 1;
            }
        }
        self.stats.sent += 1;
        let newest_told = self.newest_told;
        let sent = Sent { want, to, horizon, newest_told, tried, stage: Stage::Queued };
        self.clients[client].phase = Phase::Sent(Box::new(sent));
        Ok(())
    }

    /// Only to the proven primary of the newest timeline.
    fn check_written_to(&self, client: usize, node: usize) -> Check {
        let told = self.told[node];
        if told.role != Some(Role::Primary) || told.timeline != Some(self.newest_told) {
            return Err(format!(
                "c{client} writes to pg{node}, which was last told to be {told:?}; the newest timeline told is {}",
                self.newest_told
            ));
        }
        match self.published.primary {
            Some(primary) if primary.index() != node => {
                Err(format!("c{client} writes to pg{node}, but pg{} is the primary", primary.0))
            }
            _ if self.published.conflict.is_some() => {
                Err(format!("c{client} writes to pg{node}, one of two primaries of one timeline"))
            }
            _ => Ok(()),
        }
    }

    /// The server works on it, or is gone.
    fn serve(&mut self, client: usize, mut sent: Sent, choice: u64) -> Check {
        let node = sent.to.conn.node;
        if let Stage::Done { saw, commit } = sent.stage {
            return self.account(client, sent, saw, commit);
        }
        let server = &self.servers.nodes[node];
        if !server.up || server.epoch != sent.to.conn.epoch {
            return self.lost(client, &sent);
        }
        let in_block = self.clients[client].state.status() != TransactionStatus::Idle;
        sent.stage = match (sent.stage, sent.want) {
            (Stage::Queued, Want::Read) => {
                let saw = self.servers.shows(node);
                self.check_read(client, &sent, saw)?;
                Stage::Done { saw: Some(saw), commit: None }
            }
            (Stage::Queued, Want::Write { ending, .. }) if in_block || ending == Ending::Fails => {
                self.clients[client].tx_wrote |= in_block;
                Stage::Done { saw: None, commit: None }
            }
            (Stage::Queued, Want::Commit { .. })
                if !self.clients[client].tx_wrote
                    || self.clients[client].state.status() == TransactionStatus::Failed =>
            {
                Stage::Done { saw: None, commit: None }
            }
            (Stage::Queued, Want::Write { .. } | Want::Commit { .. }) if server.role == Role::Primary => {
                match self.servers.insert(node, choice, true, self.now) {
                    Some(commit) => {
                        tell!(
                            self,
                            "pg{node}: c{client}'s #{commit} is inserted, up to {}",
                            self.servers.insert_position(node)
                        );
                        Stage::Inserted(commit)
                    }
                    None => Stage::Done { saw: None, commit: None },
                }
            }
            (
                Stage::Inserted(commit),
                Want::Write { synchronous: true, .. } | Want::Commit { synchronous: true },
            ) => {
                self.servers.flush(node, self.now);
                Stage::Flushed(commit)
            }
            (Stage::Inserted(commit) | Stage::Flushed(commit), _) => {
                self.servers.make_visible(node, commit);
                Stage::Done { saw: None, commit: Some(commit) }
            }
            _ => Stage::Done { saw: None, commit: None },
        };
        self.clients[client].phase = Phase::Sent(Box::new(sent));
        Ok(())
    }

    /// The invariants of a read, at the moment at which the server takes its snapshot.
    fn check_read(&mut self, client: usize, sent: &Sent, saw: Set) -> Check {
        let node = sent.to.conn.node;
        let branch = &self.servers.branches[self.servers.nodes[node].branch];
        let mut exist = Set::default();
        for later in self.servers.branches.iter().filter(|branch| branch.timeline >= sent.newest_told) {
            exist = exist.or(later.commits);
        }
        let placed = sent.horizon.is_some() || sent.to.role == Role::Primary;
        let phantoms = saw.without(exist);
        if placed && sent.newest_told > 0 && !phantoms.is_empty() {
            return Err(format!(
                "c{client} read {phantoms:?} on pg{node}: lost with an older timeline than {}",
                sent.newest_told
            ));
        }
        if branch.timeline > sent.newest_told || self.servers.twins {
            // pgweir cannot know of a promotion that nobody has told it of, nor tell the standbys of two
            // primaries of one timeline apart.
            self.stats.unaware += 1;
            return Ok(());
        }
        let missing = self.clients[client].must_see(sent.to.role).and(branch.commits).without(saw);
        if !missing.is_empty() {
            return Err(format!(
                "c{client} read on pg{node} without {missing:?}, which it had written or seen"
            ));
        }
        let is_current = self.servers.newest_branch().timeline == sent.newest_told;
        let Some(horizon) = sent.horizon.filter(|_| is_current && placed) else { return Ok(()) };
        for (number, commit) in self.servers.commits.iter().enumerate() {
            if commit.inserted < horizon && branch.commits.has(number) && !saw.has(number) {
                return Err(format!(
                    "c{client} read on pg{node} without #{number}, inserted at {}; the bound was {}",
                    us(commit.inserted),
                    us(horizon)
                ));
            }
        }
        Ok(())
    }

    /// Its answer is complete.
    fn account(&mut self, client: usize, sent: Sent, saw: Option<Set>, commit: Option<usize>) -> Check {
        let node = sent.to.conn.node;
        let me = &mut self.clients[client];
        let before = me.state.status();
        let (failed, rolled_back) = match sent.want {
            Want::Write { ending, .. } => (ending != Ending::Works, false),
            Want::Commit { .. } => (false, before == TransactionStatus::Failed),
            Want::Rollback => (false, true),
            Want::Read | Want::Begin { .. } => (false, false),
        };
        let status = match (sent.want, before) {
            (Want::Begin { .. }, _) => TransactionStatus::InBlock,
            (Want::Commit { .. } | Want::Rollback, _) => TransactionStatus::Idle,
            (Want::Write { .. }, TransactionStatus::InBlock) if failed => TransactionStatus::Failed,
            (_, before) => before,
        };
        let effect = match sent.want {
            Want::Begin { read_only } => {
                let read_only = read_only.then_some(true);
                Some(Effect::Begin(TransactionModes { read_only, ..TransactionModes::default() }))
            }
            Want::Commit { .. } => Some(Effect::Commit { chain: false }),
            Want::Rollback => Some(Effect::Rollback { chain: false }),
            Want::Read | Want::Write { .. } => None,
        };
        let forgets = self.setting.defect == Defect::ForgottenRead;
        let end = GroupEnd {
            status,
            effects: effect.as_slice(),
            failed,
            rolled_back,
            wrote: matches!(sent.want, Want::Write { .. }),
            ddl: false,
            saw: matches!(sent.want, Want::Read | Want::Write { .. }) && !forgets,
            now: self.now,
            node: NodeId(node as u16),
            incarnation: sent.to.incarnation,
        };
        me.state.group_ended(&end, &mut |settings| Arc::new(settings));
        if let Some(saw) = saw {
            me.seen = me.seen.or(saw);
            if sent.to.role == Role::Primary {
                me.seen_on_primary = me.seen_on_primary.or(saw);
            }
            tell!(self, "c{client}: pg{node} has shown {saw:?}");
        }
        if let Some(commit) = commit {
            self.clients[client].acked.insert(commit);
            self.acked.insert(commit);
            tell!(
                self,
                "c{client}: #{commit} is acknowledged{}",
                if failed { ", with a failure" } else { "" }
            );
        }
        self.clients[client].phase = Phase::Idle;
        self.give_back(client, sent, status)
    }

    fn give_back(&mut self, client: usize, sent: Sent, status: TransactionStatus) -> Check {
        let conn = &sent.to.conn;
        let server = &self.servers.nodes[conn.node];
        // ParameterStatus comes with the first answer after a promotion, not with the start of a query.
        let promoted = sent.to.role == Role::Replica && server.up && server.role == Role::Primary;
        if promoted {
            self.witnessed(conn.node, Evidence::InHotStandbyChanged)?;
        }
        if status != TransactionStatus::Idle {
            self.clients[client].kept = Some(sent.to);
            return Ok(());
        }
        self.clients[client].tx_wrote = false;
        if !promoted {
            self.checkin(sent.to.conn);
        }
        Ok(())
    }

    /// The server connection is gone, with the answer.
    fn lost(&mut self, client: usize, sent: &Sent) -> Check {
        let node = sent.to.conn.node;
        tell!(self, "c{client}: its connection to pg{node} is lost");
        self.witnessed(node, Evidence::ConnectionLost)?;
        let in_block = self.clients[client].state.status() != TransactionStatus::Idle;
        if in_block || matches!(sent.want, Want::Begin { .. } | Want::Commit { .. } | Want::Rollback) {
            return self.reconnect(client);
        }
        self.clients[client].phase = Phase::Idle;
        if sent.want == Want::Read && (sent.to.role == Role::Replica || sent.tried == 0) {
            // Once elsewhere, then on the primary.
            let mut request = self.request(client, sent.want);
            request.replayed = sent.tried != 0;
            request.excluded = sent.tried | 1 << node;
            return self.place(client, sent.want, request, 0);
        }
        if let Want::Write { .. } = sent.want {
            // In doubt.
            let state = &mut self.clients[client].state;
            state.floor.write = Some((self.now, Durability::Inserted));
            state.last_write = Some(self.now);
        }
        Ok(())
    }

    /// Requests in flight are given up; sessions stay as they are, outside of transactions.
    pub fn give_up(&mut self) {
        for client in &mut self.clients {
            client.phase = Phase::Idle;
            client.kept = None;
        }
    }

    /// Where a read of this session would go now.
    pub fn would_go(&mut self, client: usize) -> Result<Decision, String> {
        let mut request = self.request(client, Want::Read);
        request.held = Held::Free;
        request.arrived = Moment::NEVER;
        self.decide(&request, 0)
    }
}

impl Want {
    fn text(self) -> &'static str {
        match self {
            Want::Read => "a read",
            Want::Write { synchronous: true, ending: Ending::Works } => "a write",
            Want::Write { synchronous: false, ending: Ending::Works } => "a write (asynchronous commit)",
            Want::Write { ending: Ending::FailsBehindCommit, .. } => "a write that fails behind its COMMIT",
            Want::Write { ending: Ending::Fails, .. } => "a write that fails",
            Want::Begin { read_only: false } => "BEGIN",
            Want::Begin { read_only: true } => "BEGIN READ ONLY",
            Want::Commit { .. } => "COMMIT",
            Want::Rollback => "ROLLBACK",
        }
    }
}
