//! Reaches a node: its pool, a new connection, and what is said when there is none.

use crate::clock;
use crate::cluster::health::Evidence;
use crate::cluster::view::{ClusterView, NodeState, NodeView};
use crate::config::settings::LimitsSettings;
use crate::fault::{Fault, SqlState};
use crate::node::NodeId;
use crate::pool::checkout::{Begun, Lease, Place};
use crate::pool::connect::{Target as ConnectTarget, connect};
use crate::pool::tenant::Tenant;
use crate::relay::context::{Context, Counters};
use crate::session::settings::Settings;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A connection of this tenant's pool to a node, preferably one with these settings; made now if there
/// is a place for it.
pub async fn check_out(
    context: &Context,
    tenant: &Arc<Tenant>,
    node: &NodeView,
    settings: &Arc<Settings>,
) -> Result<Lease, Fault> {
    let too_many = || Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "too many nodes");
    let pool = tenant.pool(node).ok_or_else(too_many)?;
    match pool.checkout(settings).await? {
        Begun::Connection(lease) => Ok(lease),
        Begun::Place(place) => fill(context, tenant, node, place).await,
    }
}

/// Makes the connection that a place is for.
pub async fn fill(context: &Context, tenant: &Tenant, node: &NodeView, place: Place) -> Result<Lease, Fault> {
    let tls = context.server_tls.load_full();
    let target = ConnectTarget {
        node: node.id,
        node_name: &node.name,
        live: node.live.clone(),
        place: node.place,
        host: &node.host,
        address: node.address,
        port: node.port,
        database: &tenant.server_database,
        user: &tenant.user,
        parameters: &[],
        credential: tenant.credential(),
        tls: &tls,
        keys: &context.keys,
        timeout: tenant.settings().connect_timeout,
    };
    // A frozen node accepts connections and says nothing: the monitor knows sooner than the timeout.
    let made = tokio::select! {
        biased;
        made = connect(&target) => made,
        () = goes_down(context, node.id) => Err(Fault::server(
            SqlState::CANNOT_CONNECT_NOW, "the node stopped answering while it was connected to").retriable()),
    };
    let connection = made.inspect_err(|fault| {
        if fault.sqlstate == SqlState::CANNOT_CONNECT {
            context.monitor.report(node.id, Evidence::ConnectionLost);
        }
    })?;
    // A login takes its time, and a name may have moved meanwhile.
    if !connection.is_in_place() {
        return Err(has_moved());
    }
    place
        .fill(connection)
        .ok_or_else(|| Fault::proxy(SqlState::INTERNAL_ERROR, "a pool's place was used twice"))
}

/// A connection leads to where its node was, and perhaps to another server.
pub fn has_moved() -> Fault {
    Fault::server(SqlState::CANNOT_CONNECT_NOW, "the node has moved while it was connected to")
        .retriable()
        .hint("It is safe to retry. SHOW CLUSTER on the database \"pgweir\" shows where it is now.")
}

/// Waits until the monitor says that the node is down.
async fn goes_down(context: &Context, node: NodeId) {
    loop {
        let generation = {
            let view = context.monitor.view();
            if view.node(node).is_none_or(|node| matches!(node.state, NodeState::Down | NodeState::Removed)) {
                return;
            }
            view.generation
        };
        let until = clock::now().plus(Duration::from_secs(60));
        context.monitor.view_changed(generation, until).await;
    }
}

/// Will another try help? A server that is starting, stopping, gone or demoted: yes. One that says
/// that the password is wrong: no.
pub fn is_worth_waiting(fault: &Fault) -> bool {
    matches!(
        fault.sqlstate,
        SqlState::CANNOT_CONNECT
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CONNECTION_FAILURE
    )
}

/// Why a write cannot be served: nobody, or two, claim to be primary; `last` is what the last attempt met.
pub fn no_primary(view: &ClusterView, last: Option<Fault>) -> Fault {
    let name = |id: NodeId| view.node(id).map_or_else(|| "?".to_owned(), |node| node.name.to_string());
    let fault =
        Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "there is no primary that accepts writes").retriable();
    match (view.conflict, last) {
        (Some((one, other)), _) => fault
            .detail(format!(
                "\"{}\" and \"{}\" both claim to be primary on one timeline.",
                name(one),
                name(other)
            ))
            .hint("Stop the wrong one. pgweir writes to neither of them until only one is left."),
        (None, Some(last)) => fault
            .detail(match last.detail {
                Some(detail) => format!("{}: {detail}", last.message),
                None => last.message.to_string(),
            })
            .hint(
                "It is safe to retry. SHOW CLUSTER on the database \"pgweir\" shows what every node answers.",
            ),
        (None, None) if view.disowned.is_some() => {
            let said =
                view.disowned.map(|(node, objection)| format!("\"{}\" {}.", name(node), objection.as_str()));
            fault.detail(said.unwrap_or_default()).hint(
                "It is safe to retry. SHOW CLUSTER EVIDENCE on the database \"pgweir\" shows who says what.",
            )
        }
        (None, None) => fault.detail("No node of the newest timeline answers as a primary.").hint(
            "It is safe to retry. SHOW CLUSTER on the database \"pgweir\" shows what every node answers.",
        ),
    }
}

/// The session's server was lost before its request was sent.
pub fn lost_while_aligned() -> Fault {
    Fault::server(SqlState::CONNECTION_FAILURE, "the server connection of this session was lost")
        .detail("It was lost while the session's settings were sent to it; the request was not sent.")
        .hint("Connect again.")
        .retriable()
}

/// Why a read cannot be served with `on_lag: error`.
pub fn too_stale() -> Fault {
    Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "no replica is fresh enough for this read")
        .detail("routing.on_lag, or the fallback of the rule that matched, is \"error\".")
        .hint("Retry later, lower the consistency level, or set routing.on_lag to \"primary\".")
        .retriable()
}

/// Why a read is refused that neither a replica nor the primary has taken in time.
pub fn too_many_lag_reads() -> Fault {
    Fault::proxy(
        SqlState::CANNOT_CONNECT_NOW,
        "no replica is fresh enough, and too many reads are on the primary",
    )
    .detail("routing.lag_reads are there because of that already; routing.lag_wait_limit has passed.")
    .hint("Retry later, or lower the consistency level.")
    .retriable()
}

/// Counts a held statement while it is held.
pub struct Holding<'a>(&'a AtomicU64);

impl<'a> Holding<'a> {
    /// It begins. False: more are held than may be (`limits.hold_clients`).
    pub fn begin(counters: &'a Counters, limits: &LimitsSettings) -> (Holding<'a>, bool) {
        counters.held.fetch_add(1, Ordering::Relaxed);
        let others = counters.holding.fetch_add(1, Ordering::Relaxed);
        (Holding(&counters.holding), others < u64::from(limits.hold_clients))
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
