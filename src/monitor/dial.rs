//! Makes a connection of the monitor's.

use crate::cluster::view::NodeView;
use crate::monitor::settings::MonitorSettings;
use crate::monitor::{AbortOnDrop, tls};
use std::net::IpAddr;
use std::time::Duration;
use tokio_postgres::{Client, Config, Error};

const KEEPALIVE: Duration = Duration::from_secs(10);

/// Connects to a node as its monitor, with these settings (`options` of the startup packet) besides; `ended` is
/// told how the connection has ended.
pub(super) async fn dial(
    settings: &MonitorSettings,
    at: &NodeView,
    address: Option<IpAddr>,
    options: &str,
    ended: impl FnOnce(Result<(), Error>) + Send + 'static,
) -> Result<(Client, AbortOnDrop), Error> {
    let mut config = Config::new();
    if let Some(address) = address {
        config.hostaddr(address);
    }
    config
        .host(&*at.host)
        .port(at.port)
        .user(&settings.user)
        .dbname(&settings.database)
        .application_name("pgweir monitor")
        .connect_timeout(settings.policy.connect_timeout)
        // Somebody between forgets connections that are silent for long.
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(3)
        .options(options);
    if let Some(password) = &settings.password {
        config.password(password.as_str());
    }
    let (client, connection) = tls::open(&mut config, settings.tls.as_ref()).await?;
    Ok((client, AbortOnDrop(tokio::spawn(async move { ended(connection.await) }))))
}
