//! What the console changes in a running pgweir: PAUSE, RESUME, BAN, UNBAN, DRAIN.

use crate::admin::command::Operation;
use crate::admin::tables::Answer;
use crate::clock;
use crate::cluster::view::NodeState;
use crate::fault::{Fault, SqlState};
use crate::node::NodeId;
use crate::relay::context::Context;
use std::time::Duration;

/// How often PAUSE and DRAIN look whether somebody is still at work.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Does it, and waits until it has come true.
pub async fn operate(operation: &Operation, user: &str, context: &Context) -> Result<Answer, Fault> {
    tracing::info!(%user, ?operation, "from the console");
    match operation {
        Operation::Pause(database) => pause(database.as_deref(), context).await,
        Operation::Resume(database) => match context.pauses.resume(database.as_deref()) {
            true => Ok(Answer::done("RESUME")),
            false => Err(Fault::client(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "nothing is paused")),
        },
        Operation::Ban(node) => {
            context.monitor.ban(find(node, context)?, true);
            Ok(Answer::done("BAN"))
        }
        Operation::Unban(node) => {
            context.monitor.ban(find(node, context)?, false);
            Ok(Answer::done("UNBAN"))
        }
        Operation::Drain(node) => {
            let node = find(node, context)?;
            if context.monitor.view().primary == Some(node) {
                return Err(Fault::client(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the primary cannot be drained",
                )
                .hint("PAUSE holds what goes to it."));
            }
            context.monitor.ban(node, true);
            let busy = || in_use(context, |_, of| of == node);
            wait_until_unused(context, "DRAIN", busy, "UNBAN lets reads go there again.").await
        }
    }
}

async fn pause(database: Option<&str>, context: &Context) -> Result<Answer, Fault> {
    context.pauses.pause(database);
    if context.is_draining() {
        // Nobody could end it: consoles are.
        context.pauses.resume(None);
        return Err(ended());
    }
    let busy = || in_use(context, |of, _| database.is_none_or(|database| database == of));
    let answer =
        wait_until_unused(context, "PAUSE", busy, "Statements are held all the same; RESUME ends that.")
            .await;
    for tenant in context.tenants() {
        if database.is_none_or(|database| database == tenant.database) {
            for pool in tenant.pools() {
                pool.clear();
            }
        }
    }
    answer
}

/// Server connections that a client has now.
fn in_use(context: &Context, which: impl Fn(&str, NodeId) -> bool) -> usize {
    let mut count = 0;
    for tenant in context.tenants() {
        count += tenant
            .pools()
            .filter(|pool| which(&tenant.database, pool.node))
            .map(|pool| pool.counts().active)
            .sum::<usize>();
    }
    count
}

async fn wait_until_unused(
    context: &Context,
    tag: &'static str,
    busy: impl Fn() -> usize,
    hint: &'static str,
) -> Result<Answer, Fault> {
    let until = clock::now().plus(context.config.load().limits.hold_time);
    loop {
        if context.is_draining() {
            return Err(ended());
        }
        let left = busy();
        if left == 0 {
            return Ok(Answer::done(tag));
        }
        if clock::now() >= until {
            let message = format!("{left} server connections are still in use");
            return Err(Fault::proxy(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).hint(hint));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn ended() -> Fault {
    Fault::proxy(SqlState::ADMIN_SHUTDOWN, "pgweir is shutting down")
        .detail("A PAUSE ends with the process that was asked for it, and so does waiting for a DRAIN.")
}

fn find(name: &str, context: &Context) -> Result<NodeId, Fault> {
    let view = context.monitor.view();
    let node = view.nodes.iter().find(|node| *node.name == *name && node.state != NodeState::Removed);
    node.map(|node| node.id).ok_or_else(|| {
        Fault::client(SqlState::UNDEFINED_OBJECT, format!("there is no node \"{name}\""))
            .hint("SHOW CLUSTER lists them.")
    })
}
