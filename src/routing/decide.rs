//! The heart: a table from request, view and policy to a target with its reason. The default row is the primary.

use crate::cluster::view::{ClusterView, FreshnessReading, NodeView};
use crate::freshness::defect::Defect;
use crate::freshness::gate::Need;
use crate::moment::Moment;
use crate::node::NodeId;
use crate::routing::balance::{self, Eligible, bit};
use crate::routing::reason::Reason;
use crate::routing::request::{
    Consistency, Decision, Held, OnLag, PinAfterWrite, Request, RoutingPolicy, Target,
};
use crate::routing::rules::{Asked, Fallback, UNBOUNDED};
use crate::sql::class::{Access, Route, Why};
use std::time::Duration;

/// Decides where one request group goes. Pure: `now` and `draw` come in (`draw`: uniform random
/// bits; with `balance: round_robin` a number that grows by one).
///
/// `request.replayed` asks for the primary. A read that is only to avoid the replicas that failed
/// it leaves it false and sets `request.excluded`.
pub fn decide(
    request: &Request,
    view: &ClusterView,
    policy: &RoutingPolicy,
    now: Moment,
    draw: u64,
) -> Decision {
    match primary_only(request, policy, now) {
        Some(reason) => Decision { target: Target::Primary, reason },
        None => read(request, view, policy, now, draw),
    }
}

/// The rows of the table that do not depend on the replicas.
fn primary_only(request: &Request, policy: &RoutingPolicy, now: Moment) -> Option<Reason> {
    let held = match request.held {
        Held::Pinned => Some(Reason::Pinned),
        Held::InTransaction => Some(Reason::InTransaction),
        Held::SessionMode => Some(Reason::SessionMode),
        Held::Free => None,
    };
    held.or_else(|| not_a_read(request)).or_else(|| {
        let rows = [
            (request.rule.route == Route::Primary, Reason::RulePrimary),
            (request.route == Route::Primary, Reason::RoutePrimary),
            (!request.complete, Reason::OpenGroup),
            (request.learnt, Reason::Learnt),
            (request.replayed, Reason::Replayed),
            (pinned_after_write(request, policy, now), Reason::AfterWrite),
        ];
        rows.into_iter().find_map(|(applies, reason)| applies.then_some(reason)).or(request.demand.barred)
    })
}

fn not_a_read(request: &Request) -> Option<Reason> {
    match (request.access, request.why) {
        _ if request.begins_read_only => None,
        (Access::Read, _) => None,
        (_, Why::TransactionControl) => Some(Reason::TransactionControl),
        (_, Why::SessionState) => Some(Reason::SessionState),
        (_, Why::CatalogNotLoaded) => Some(Reason::CatalogNotLoaded),
        (Access::Write, _) => Some(Reason::Write),
        (Access::Unknown, _) => Some(Reason::Unknown),
    }
}

/// An explicit wish for a replica is stronger than stickiness by time, which proves nothing; the
/// session's floor holds in any case. What others have written under the request's causal key, or behind
/// its token, counts for the time, as the session's own writes do.
fn pinned_after_write(request: &Request, policy: &RoutingPolicy, now: Moment) -> bool {
    match policy.pin_after_write {
        _ if request.route == Route::Replica || request.rule.wants_replica() => false,
        PinAfterWrite::UntilCaughtUp => false,
        PinAfterWrite::For(stay) => {
            let written = request.last_write.unwrap_or(Moment::NEVER).max(request.demand.insert);
            written != Moment::NEVER && now < written.plus(stay)
        }
        PinAfterWrite::UntilDisconnect => request.last_write.is_some(),
    }
}

/// What the replicas look like to one read.
#[derive(Default)]
struct Survey {
    /// Up, and fresh enough.
    eligible: Eligible,
    /// Somebody is up, though not fresh enough.
    any_up: bool,
    /// Somebody is likely to be fresh enough within `wait_of` the request.
    likely: bool,
}

fn read(request: &Request, view: &ClusterView, policy: &RoutingPolicy, now: Moment, draw: u64) -> Decision {
    let mut survey = survey(request, view, policy, now);
    if survey.eligible.is_empty() && request.rule.may_go_beyond_tag() {
        let untagged = Request { rule: Asked { tagged: None, ..request.rule }, ..*request };
        survey = self::survey(&untagged, view, policy, now);
    }
    if survey.eligible.is_empty() {
        return no_replica(request, policy, &survey, now);
    }
    let kept = request.pipelined_on.filter(|&node| survey.eligible.contains(node));
    let reason = match (kept, request.waiting_until, request.route) {
        (Some(_), _, _) => Reason::Pipelined,
        (None, _, _) if request.split => Reason::SplitTransaction,
        (None, Some(_), _) => Reason::Waited,
        (None, None, Route::Replica) => Reason::RouteReplica,
        (None, None, _) if request.rule.wants_replica() => Reason::RuleReplica,
        (None, None, _) if request.begins_read_only => Reason::ReadOnlyTransaction,
        (None, None, Route::Auto | Route::Primary) => Reason::Balanced,
    };
    let chosen = kept.or_else(|| balance::choose(policy.balance, survey.eligible, view, now, draw));
    match chosen.and_then(|id| view.node(id)) {
        Some(node) => {
            let fresh = node.live.freshness();
            let need = need_of(request, policy, now, node.id, &fresh);
            Decision { target: Target::Replica { node: node.id, need }, reason }
        }
        None => Decision { target: Target::Primary, reason: Reason::NoReplica },
    }
}

fn survey(request: &Request, view: &ClusterView, policy: &RoutingPolicy, now: Moment) -> Survey {
    let mut survey = Survey::default();
    let oldest = now.minus(policy.sample_max_age);
    for node in view.replicas() {
        let id_bit = bit(node.id);
        if id_bit == 0 || request.excluded & id_bit != 0 || !request.rule.admits(node) {
            continue;
        }
        survey.any_up = true;
        if policy.defect == Defect::AnyReplica {
            survey.eligible.insert(node.id);
            continue;
        }
        if !near_enough(node, policy) && !request.rule.outbids(policy.max_staleness) {
            continue;
        }
        let fresh = node.live.freshness();
        let alive = fresh.sample_sent >= oldest;
        if alive && need_of(request, policy, now, node.id, &fresh).is_met_by(&fresh) {
            survey.eligible.insert(node.id);
        } else if alive && may_catch_up(node, wait_of(request, policy)) {
            survey.likely = true;
        }
    }
    survey
}

fn near_enough(node: &NodeView, policy: &RoutingPolicy) -> bool {
    node.lag_bytes.is_none_or(|bytes| bytes <= policy.max_lag_bytes)
}

fn may_catch_up(node: &NodeView, wait: Duration) -> bool {
    !wait.is_zero() && !node.replay_paused && node.live.catch_up() <= wait
}

/// How long this read may wait where that is likely to be enough. At level `global` every read has to wait
/// for a sample that was sent after it came.
fn wait_of(request: &Request, policy: &RoutingPolicy) -> Duration {
    match request.consistency {
        Consistency::Global => policy.global_wait,
        Consistency::Eventual | Consistency::Session | Consistency::Strict => policy.wait,
    }
}

/// What `node` must have replayed for this request.
fn need_of(
    request: &Request,
    policy: &RoutingPolicy,
    now: Moment,
    node: NodeId,
    fresh: &FreshnessReading,
) -> Need {
    let limit = request.rule.max_staleness.unwrap_or(policy.max_staleness);
    let bound = request.max_staleness.unwrap_or(limit).min(limit);
    // Never `NEVER`, also in the first seconds of the process: unknown is stale.
    let horizon = if bound == UNBOUNDED { Moment::NEVER } else { now.minus(bound).max(Moment(1)) };
    let floor = match request.consistency {
        Consistency::Eventual => Need::default(),
        Consistency::Session | Consistency::Strict => Need::of_floor(&request.floor, node, fresh.incarnation),
        Consistency::Global => {
            Need::of_floor(&request.floor, node, fresh.incarnation).and_inserted_by(request.arrived)
        }
    };
    floor.and_inserted_by(horizon.max(request.demand.insert))
}

/// No replica may serve: wait a moment where that is likely to be enough, else as `on_lag` says.
fn no_replica(request: &Request, policy: &RoutingPolicy, survey: &Survey, now: Moment) -> Decision {
    let reason = match (survey.any_up, request.excluded) {
        (true, _) => Reason::NotFreshEnough,
        (false, 0) => Reason::NoReplica,
        (false, _) => Reason::Replayed,
    };
    let target = match (survey.any_up, request.waiting_until) {
        (false, _) => Target::otherwise(request.rule.fallback),
        (true, Some(until)) if now < until => Target::Wait { until },
        (true, None) if policy.on_lag == OnLag::Wait => {
            Target::Wait { until: now.plus(policy.lag_wait_limit) }
        }
        (true, None) if survey.likely => Target::Wait { until: now.plus(wait_of(request, policy)) },
        (true, _) if request.rule.fallback == Fallback::Primary => Target::Primary,
        (true, _) if policy.on_lag == OnLag::Error => Target::Refuse,
        (true, _) => Target::otherwise(request.rule.fallback),
    };
    Decision { target, reason }
}

impl Target {
    /// Where a read goes that no replica serves, unless `on_lag` has something to say.
    fn otherwise(fallback: Fallback) -> Target {
        match fallback {
            Fallback::Error => Target::Refuse,
            Fallback::Replica | Fallback::Primary => Target::Primary,
        }
    }
}

#[cfg(test)]
mod tests;
