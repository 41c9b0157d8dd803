//! What has to be done from time to time: old connections closed, gauges set, roles followed.

use crate::clock;
use crate::cluster::view::NodeState;
use crate::node::{NodeId, Role};
use crate::pool::tenant::Tenant;
use crate::relay::context::Context;
use crate::relay::reach;
use crate::telemetry::metrics::UPKEEP_EVERY;
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two rounds of closing what is too old.
const EVICT_EVERY: Duration = Duration::from_secs(1);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks, each endless.
pub fn tasks(context: &Arc<Context>) -> Vec<Task> {
    vec![
        Box::pin(evict(context.clone())),
        Box::pin(keep_metrics(context.clone())),
        Box::pin(follow_roles(context.clone())),
    ]
}

async fn evict(context: Arc<Context>) {
    let mut every = tokio::time::interval(EVICT_EVERY);
    loop {
        every.tick().await;
        let now = clock::now();
        context.forget_unused_tenants();
        for tenant in context.tenants() {
            let settings = tenant.settings();
            // A successor has its own.
            let keep = if context.is_draining() { 0 } else { settings.min_idle as usize };
            for pool in tenant.pools() {
                pool.evict(now, settings.idle_timeout, settings.max_lifetime, keep);
            }
            if keep > 0 && tenant.has_connections() {
                fill_up(&context, &tenant, keep);
            }
        }
    }
}

/// Opens what `min_idle` asks for, node by node; what does not work out is tried again the next time.
fn fill_up(context: &Arc<Context>, tenant: &Arc<Tenant>, keep: usize) {
    let view = context.monitor.view_handle().load_full();
    for node in view.nodes.iter().filter(|node| node.state == NodeState::Up && node.role.is_some()) {
        let Some(pool) = tenant.pool(node).cloned() else { continue };
        let (context, tenant, node) = (context.clone(), tenant.clone(), node.clone());
        tokio::spawn(async move {
            while let Some(place) = pool.reserve(keep) {
                match reach::fill(&context, &tenant, &node, place).await {
                    Ok(lease) => lease.checkin(),
                    Err(fault) => {
                        tracing::debug!(node = %node.name, "min_idle: {fault}");
                        return;
                    }
                }
            }
        });
    }
}

async fn keep_metrics(context: Arc<Context>) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        publish(&context);
        context.metrics.upkeep();
    }
}

/// Sets the gauges.
pub fn publish(context: &Context) {
    let metrics = &context.metrics;
    let view = context.monitor.view_handle().load_full();
    metrics.publish_view(&view, clock::now());
    metrics.publish_patroni(context.monitor.patroni_counts());
    metrics.publish_standbys(context.monitor.standbys_found());
    let store = context.causal.store.as_ref().map(|store| (store.is_up(), store.failures()));
    metrics.publish_causal(context.causal.len(), store);
    metrics.clients.set(context.clients.len() as f64);
    metrics.asleep.set(context.asleep.load(Ordering::Relaxed) as f64);
    let counts = context.classifier.counts();
    metrics.cache.shape.absolute(counts.shared_hits);
    metrics.cache.misses.absolute(counts.misses);
    let queries = context.monitor.queries();
    metrics.monitor.samples.absolute(queries.samples.load(Ordering::Relaxed));
    metrics.monitor.fences.absolute(queries.fences.load(Ordering::Relaxed));
    metrics.monitor.kicks.absolute(queries.kicks.load(Ordering::Relaxed));
    for tenant in context.tenants() {
        for pool in tenant.pools() {
            let Some(node) = view.node(pool.node) else { continue };
            let counts = pool.counts();
            let gauges = metrics.pool(&tenant.database, &tenant.user, &node.name);
            gauges.active.set(counts.active as f64);
            gauges.idle.set(counts.idle as f64);
            gauges.waiting.set(counts.waiting as f64);
            let (prepared, metrics) = (&pool.prepared, &gauges.prepared);
            metrics.open.set(prepared.open.load(Ordering::Relaxed) as f64);
            metrics.asked.absolute(prepared.asked.load(Ordering::Relaxed));
            metrics.moved.absolute(prepared.moved.load(Ordering::Relaxed));
            metrics.hits.absolute(prepared.hits.load(Ordering::Relaxed));
            metrics.evicted.absolute(prepared.evicted.load(Ordering::Relaxed));
        }
    }
}

/// Connections to a node that has another role now, or came back, are not to be used again. A node
/// in doubt loses its connections only when its role is known to be another one.
async fn follow_roles(context: Arc<Context>) {
    let mut known: HashMap<NodeId, Role> = HashMap::new();
    let mut down = HashSet::new();
    let mut states = HashMap::new();
    let mut places: HashMap<NodeId, u64> = HashMap::new();
    let mut quarantined = HashSet::new();
    let mut primary = None;
    loop {
        let view = context.monitor.view_handle().load_full();
        for node in &view.nodes {
            if places.insert(node.id, node.place).is_some_and(|before| before != node.place) {
                tracing::info!(node = %node.name, "it has moved: its connections are closed");
                clear(&context, node.id);
                sever(&context, node.id);
                known.remove(&node.id);
            }
            let before = states.insert(node.id, node.state);
            if node.state == NodeState::Removed {
                known.remove(&node.id);
                take_out(&context, node.id, before);
                continue;
            }
            if node.state != NodeState::Down {
                down.remove(&node.id);
            } else if down.insert(node.id) && node.role != Some(Role::Primary) {
                // Frozen, it would keep its readers waiting. A primary is missed only when there is another.
                sever(&context, node.id);
            }
            match view.quarantined(node) {
                Some(why) if quarantined.insert(node.id) => {
                    tracing::error!(node = %node.name, timeline = node.timeline.map(|timeline| timeline.0), why,
                        "it says that it is a primary, and is not written to");
                }
                Some(_) => {}
                None => drop(quarantined.remove(&node.id)),
            }
            let Some(role) = node.role else { continue };
            if known.insert(node.id, role).is_some_and(|before| before != role) {
                tracing::info!(node = %node.name, role = %role, "role changed: its connections are closed");
                clear(&context, node.id);
            }
        }
        if view.primary.is_some() && view.primary != primary {
            let name = view.primary.and_then(|id| view.node(id)).map(|node| node.name.clone());
            tracing::info!(
                primary = name.as_deref(),
                timeline = view.timeline.map(|timeline| timeline.0),
                "there is a primary"
            );
            if let Some(before) = primary {
                clear(&context, before);
                sever(&context, before);
            }
            primary = view.primary;
            for database in context.catalogs.all() {
                database.stale.notify_one();
            }
        }
        let until = clock::now().plus(Duration::from_secs(3600));
        let generation = view.generation;
        drop(view);
        while context.monitor.view().generation == generation {
            context.monitor.view_changed(generation, until).await;
        }
    }
}

/// A node is no longer there; `before`: how it was measured last.
fn take_out(context: &Context, node: NodeId, before: Option<NodeState>) {
    if before == Some(NodeState::Removed) {
        return;
    }
    clear(context, node);
    // Nobody asks it any more, and nobody would find out that it still does not answer. Where it did when it was
    // taken out, what is open there may end in peace.
    if before != Some(NodeState::Up) {
        sever(context, node);
    }
}

/// Clients that wait for an answer of this node are told not to.
fn sever(context: &Context, node: NodeId) {
    for slot in context.clients.all() {
        slot.sever(node);
    }
}

fn clear(context: &Context, node: NodeId) {
    for tenant in context.tenants() {
        tenant.forget_welcomes();
        for pool in tenant.pools().filter(|pool| pool.node == node) {
            pool.clear();
        }
    }
}
