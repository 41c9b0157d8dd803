//! The search for a server: decide, check out, prove, and decide again where that did not work out.

use crate::clock;
use crate::cluster::health::Evidence;
use crate::cluster::view::NodeView;
use crate::fault::{Fault, SqlState};
use crate::freshness::gate::{Floor, Need};
use crate::moment::Moment;
use crate::node::{NodeId, Role};
use crate::pool::checkout::Lease;
use crate::pool::server::ServerConnection;
use crate::relay::client::Client;
use crate::relay::context::Context;
use crate::relay::fence::FenceWait;
use crate::relay::lost_transaction::{Meant, ended_by_administrator};
use crate::relay::reach::{
    Holding, check_out, has_moved, is_worth_waiting, no_primary, too_many_lag_reads, too_stale,
};
use crate::routing::lag_reads;
use crate::routing::reason::Reason;
use crate::routing::request::{Consistency, Target};
use crate::session::group::Group;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A connection that was just made has to wait for one sample of its node. At most so long.
const FIRST_SAMPLE_WAIT: Duration = Duration::from_millis(50);

/// Whoever waits for a place among the reads that lag brings to the primary looks again so often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a search for a server ends with.
pub(super) enum Found {
    Connection(Lease, Role, Reason, Option<LagRead>),
    Refused(Box<Fault>),
}

/// A read is on the primary because no replica was fresh enough.
#[derive(Debug)]
pub struct LagRead {
    context: Arc<Context>,
    /// How many were there before it.
    before: u64,
}

impl LagRead {
    fn new(context: Arc<Context>) -> LagRead {
        let before = context.counters.lag_reads.fetch_add(1, Ordering::AcqRel);
        LagRead { context, before }
    }
}

impl Drop for LagRead {
    fn drop(&mut self) {
        self.context.counters.lag_reads.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Client {
    /// Finds a server, unless an operator holds its database: then when that is over.
    pub(super) async fn find(&self, group: &Group) -> Found {
        loop {
            if self.is_paused()
                && let Err(fault) = self.wait_for_resume().await
            {
                return Found::Refused(fault);
            }
            match self.find_now(group).await {
                Found::Connection(lease, ..) if self.is_paused() => lease.checkin(),
                found => return found,
            }
        }
    }

    /// Decides, checks out, and decides again where that did not work out.
    async fn find_now(&self, group: &Group) -> Found {
        let mut request = self.request(group);
        // It may wait in line for long enough that the replica restarts: then the floor demands more.
        let floor = match request.consistency {
            Consistency::Eventual => Floor::default(),
            Consistency::Session | Consistency::Strict | Consistency::Global => request.floor,
        };
        let (mut fence, mut turn) = (FenceWait::default(), None);
        let mut begins_for = None;
        loop {
            let seen = self.context.monitor.publications();
            let (target, reason) = self.decide(&request);
            match target {
                // A transaction begins on the primary, whatever else is said of reads that come there.
                Target::Primary | Target::Refuse if request.split => {
                    begins_for = Some(reason);
                    request = request.begins();
                }
                Target::Primary if self.unfenced(&request).is_some() => {
                    if let Err(fault) = self.wait_for_fence(&request, &mut fence, seen).await {
                        return Found::Refused(fault);
                    }
                }
                Target::Primary => match self.lag_read(reason) {
                    Ok(place) => match self.find_primary(begins_for.unwrap_or(reason), place).await {
                        // There is another primary than when it was asked for.
                        Found::Connection(lease, ..) if self.unfenced(&request).is_some() => lease.checkin(),
                        found => return found,
                    },
                    Err(()) => {
                        if let Err(fault) = self.wait_for_turn(&mut turn, seen).await {
                            return Found::Refused(fault);
                        }
                    }
                },
                Target::Refuse => return Found::Refused(Box::new(too_stale())),
                Target::Wait { until } => {
                    if request.waiting_until.is_none() {
                        self.context.monitor.kick();
                    }
                    request.waiting_until = Some(until);
                    self.context.monitor.changed_since(seen, until).await;
                }
                Target::Replica { node, need } => match self.take_replica(node, need, &floor).await {
                    Ok(lease) => return Found::Connection(lease, Role::Replica, reason, None),
                    // Whatever is wrong with this replica, another or the primary may do.
                    Err(()) => request.excluded |= 1_u64.checked_shl(u32::from(node.0)).unwrap_or(0),
                },
            }
        }
    }

    /// A place among the reads that lag brings to the primary, where it is one. An error: there is none now.
    pub(super) fn lag_read(&self, reason: Reason) -> Result<Option<LagRead>, ()> {
        if !lag_reads::counts(reason) {
            return Ok(None);
        }
        let place = LagRead::new(self.context.clone());
        let there = place.before;
        let config = self.context.config.load();
        lag_reads::may_begin(reason, there, &config.routing.policy).then_some(Some(place)).ok_or(())
    }

    /// Waits for a moment: for a replica that is fresh enough, or for others to be done on the primary.
    async fn wait_for_turn(&self, until: &mut Option<Moment>, seen: u64) -> Result<(), Box<Fault>> {
        let (now, limit) = (clock::now(), self.context.config.load().routing.policy.lag_wait_limit);
        if until.is_none() {
            self.context.counters.lag_reads_held.fetch_add(1, Ordering::Relaxed);
            self.context.monitor.kick();
        }
        let until = *until.get_or_insert(now.plus(limit));
        if now >= until {
            return Err(Box::new(too_many_lag_reads()));
        }
        // Nobody says when a place is free.
        self.context.monitor.changed_since(seen, now.plus(LOOK_AGAIN).min(until)).await;
        Ok(())
    }

    async fn take_replica(&self, node: NodeId, need: Need, floor: &Floor) -> Result<Lease, ()> {
        let view = self.context.monitor.view_handle().load_full();
        let node_view = view.node(node).ok_or(())?;
        let mut lease = match self.check_out(node_view).await {
            Ok(lease) => lease,
            Err(fault) => {
                tracing::debug!(node = %node_view.name, "replica not available: {fault}");
                return Err(());
            }
        };
        let established = lease.connection().map_or(Moment(u64::MAX), |connection| connection.established);
        let proven = self.wait_for_proof(node_view, need, floor, established).await;
        // Asked last: what is proven of a node is proven of where it is now.
        if !(proven && lease.peek().is_some_and(ServerConnection::is_in_place)) {
            lease.checkin();
            return Err(());
        }
        Ok(lease)
    }

    /// A sample counts for a connection only if it was sent after the connection was established:
    /// a replica may restart behind what it has shown, and a restart kills its connections.
    async fn wait_for_proof(&self, node: &NodeView, need: Need, floor: &Floor, established: Moment) -> bool {
        let defect = self.context.config.load().routing.policy.defect;
        let is_met = || {
            let fresh = node.live.freshness();
            let need = need.and(Need::of_floor(floor, node.id, fresh.incarnation));
            need.is_met_on(&fresh, established) || defect.lets_through(&need, &fresh)
        };
        if is_met() {
            return true;
        }
        let until = clock::now().plus(FIRST_SAMPLE_WAIT);
        self.context.monitor.kick();
        loop {
            let seen = self.context.monitor.publications();
            if is_met() {
                return true;
            }
            if clock::now() >= until {
                return false;
            }
            self.context.monitor.changed_since(seen, until).await;
        }
    }

    /// The proven primary; while there is none the statement is held, within a bound of time and number.
    async fn find_primary(&self, reason: Reason, place: Option<LagRead>) -> Found {
        let context = self.context.clone();
        let (limits, fence_after) = {
            let config = context.config.load();
            (config.limits.clone(), config.cluster.monitor.fence_after)
        };
        let until = clock::now().plus(limits.hold_time);
        let mut held = None;
        loop {
            let seen = self.context.monitor.publications();
            let view = self.context.monitor.view_handle().load_full();
            let meant = self.ended.map(|ended| self.meant(ended));
            let last = match view.primary.and_then(|primary| view.node(primary)) {
                _ if matches!(meant, Some(Meant::Unknown)) => None,
                // Nobody knows what it is by now.
                Some(node) if node.live.is_fenced(clock::now(), fence_after) => None,
                _ if matches!(meant, Some(Meant::Statement)) => {
                    return Found::Refused(Box::new(ended_by_administrator()));
                }
                Some(node) => match self.take_primary(node).await {
                    Ok(lease) => return Found::Connection(lease, Role::Primary, reason, place),
                    Err(fault) if is_worth_waiting(&fault) => Some(fault),
                    Err(fault) => return Found::Refused(Box::new(fault)),
                },
                None => None,
            };
            if held.is_none() {
                let (holding, may) = Holding::begin(&context.counters, &limits);
                held = Some(holding);
                if !may {
                    return Found::Refused(Box::new(no_primary(&view, last)));
                }
            }
            if clock::now() >= until {
                return Found::Refused(Box::new(no_primary(&view, last)));
            }
            // A refused connection is tried again soon even if nothing new is published.
            let pause = clock::now().plus(Duration::from_millis(100)).min(until);
            self.context.monitor.changed_since(seen, pause).await;
        }
    }

    async fn take_primary(&self, node: &NodeView) -> Result<Lease, Fault> {
        let mut lease = self.check_out(node).await?;
        if self.context.monitor.view().primary != Some(node.id) {
            // Much may have happened while it waited in line.
            lease.checkin();
            return Err(Fault::server(SqlState::CANNOT_CONNECT_NOW, "the primary has changed").retriable());
        }
        let standby = lease.connection().is_some_and(|connection| {
            connection.parameters.iter().any(|(name, value)| name == "in_hot_standby" && value == "on")
        });
        if standby {
            // Connected before it was promoted, or it was never one: this connection is not trusted.
            self.context.monitor.report(node.id, Evidence::InHotStandbyChanged);
            lease.pool().clear();
            drop(lease);
            return Err(
                Fault::server(SqlState::CANNOT_CONNECT_NOW, "the primary has become a standby").retriable()
            );
        }
        // Asked last: who is the primary now is the primary where it is now.
        if !lease.peek().is_some_and(ServerConnection::is_in_place) {
            lease.checkin();
            return Err(has_moved());
        }
        Ok(lease)
    }

    async fn check_out(&self, node: &NodeView) -> Result<Lease, Fault> {
        check_out(&self.context, &self.tenant, node, self.session.state.settings()).await
    }
}
