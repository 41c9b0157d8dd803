//! What /status.json and /metrics show, gathered from everywhere.

use crate::clock;
use crate::config::settings::PoolMode;
use crate::http::status::PoolRow;
use crate::http::{Readiness, Status, StatusSource};
use crate::moment::Moment;
use crate::relay::context::Context;
use std::sync::Arc;

/// See the file's head.
#[derive(Debug)]
pub struct Source {
    context: Arc<Context>,
    since: Moment,
}

impl Source {
    /// Counting its age from now.
    pub fn new(context: Arc<Context>) -> Source {
        Source { context, since: clock::now() }
    }
}

impl StatusSource for Source {
    fn status(&self) -> Status {
        let now = clock::now();
        let view = self.context.monitor.view_handle().load_full();
        let mut status = Status::of(&view, &self.context.metrics, now);
        status.clients = self.context.clients.len() as u64;
        status.uptime_seconds = now.since(self.since).as_secs();
        status.pools = pools(&self.context);
        status.evidence = self.context.monitor.evidence().into_iter().map(Into::into).collect();
        status
    }

    fn readiness(&self) -> Readiness {
        Readiness::of(&self.context.monitor.view(), self.context.is_draining())
    }

    fn metrics(&self) -> String {
        super::housekeeping::publish(&self.context);
        self.context.metrics.render()
    }
}

/// One row per pool.
pub fn pools(context: &Context) -> Vec<PoolRow> {
    let view = context.monitor.view_handle().load_full();
    let mut rows = Vec::new();
    for tenant in context.tenants() {
        let settings = tenant.settings();
        for pool in tenant.pools() {
            let counts = pool.counts();
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            rows.push(PoolRow {
                database: tenant.database.clone(),
                user: tenant.user.clone(),
                node: view.node(pool.node).map_or_else(String::new, |node| node.name.to_string()),
                mode: match settings.mode {
                    PoolMode::Transaction => "transaction",
                    PoolMode::Session => "session",
                }
                .to_owned(),
                active: number(counts.active),
                idle: number(counts.idle),
                waiting: number(counts.waiting),
                size: settings.size,
            });
        }
    }
    rows
}
