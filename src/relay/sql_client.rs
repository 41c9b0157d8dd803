//! A plain SQL connection of our own, for auth.query and the catalog. Not for clients' bytes.

use crate::cluster::view::{ClusterView, NodeState, NodeView};
use crate::fault::one_line;
use crate::monitor::tls::{self, MonitorTls, TlsDemand};
use crate::net::tls::{ServerTls, TlsOpening, TlsServerSideMode};
use crate::relay::context::Context;

/// Connects to the primary, or where there is none to any node that is up.
pub async fn connect_anywhere(
    context: &Context,
    user: &str,
    password: Option<&str>,
    database: &str,
) -> Result<tokio_postgres::Client, String> {
    let view = context.monitor.view_handle().load_full();
    let mut last = "no node is up".to_owned();
    for node in by_preference(&view) {
        match connect(context, node, user, password, database).await {
            Ok(client) => return Ok(client),
            Err(error) => last = format!("{}: {error}", node.name),
        }
    }
    Err(last)
}

fn by_preference(view: &ClusterView) -> impl Iterator<Item = &NodeView> {
    let primary = view.primary.and_then(|id| view.node(id));
    let others = view.nodes.iter().filter(move |node| {
        node.state == NodeState::Up && primary.is_none_or(|primary| primary.id != node.id)
    });
    primary.into_iter().chain(others)
}

/// Connects to one node.
pub async fn connect(
    context: &Context,
    node: &NodeView,
    user: &str,
    password: Option<&str>,
    database: &str,
) -> Result<tokio_postgres::Client, String> {
    let mut config = tokio_postgres::Config::new();
    config.host(&*node.host).port(node.port).user(user).dbname(database).application_name("pgweir");
    if let Some(address) = node.address {
        config.hostaddr(address);
    }
    config.connect_timeout(std::time::Duration::from_secs(5));
    // Reading definitions takes locks, and holds some while it waits for others. Clients' DDL must not
    // end in a deadlock for it: this gives up long before the server looks for one.
    config.options("-c lock_timeout=100ms -c jit=off");
    if let Some(password) = password {
        config.password(password);
    }
    let tls = tls_of(&context.server_tls.load());
    let (client, driver) = tls::open(&mut config, tls.as_ref()).await.map_err(|error| one_line(&error))?;
    tokio::spawn(driver);
    Ok(client)
}

/// The same TLS as for clients' connections, in the form that the SQL client wants.
pub fn tls_of(tls: &ServerTls) -> Option<MonitorTls> {
    let demand = match tls.mode() {
        TlsServerSideMode::Disable => return None,
        TlsServerSideMode::Prefer => TlsDemand::Prefer,
        TlsServerSideMode::Require | TlsServerSideMode::VerifyCa | TlsServerSideMode::VerifyFull => {
            match tls.opening() {
                TlsOpening::Asked => TlsDemand::Require,
                TlsOpening::Direct => TlsDemand::Direct,
            }
        }
    };
    let connector = tls.connector()?;
    Some(MonitorTls { demand, config: connector.config().clone(), server_name: None })
}
