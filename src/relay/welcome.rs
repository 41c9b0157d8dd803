//! The parameters that a new session is told, as a server with its settings reports them.

use crate::clock;
use crate::fault::{Fault, SqlState};
use crate::pool::checkout::Lease;
use crate::pool::server::{Parameters, ServerConnection};
use crate::pool::tenant::Tenant;
use crate::relay::context::Context;
use crate::relay::reach;
use crate::session::settings::{Settings, difference};
use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::{backend, writers};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Settings are answered shortly. In bytes.
const MESSAGE_MAX: usize = 256 * 1024;

/// The parameters for a session that starts with these settings. Remembered: only the first session
/// of its kind asks a server, and thereby learns whether the database lets it in.
pub async fn parameters(
    context: &Context,
    tenant: &Arc<Tenant>,
    settings: &Arc<Settings>,
) -> Result<Parameters, Fault> {
    if let Some(known) = tenant.welcome(settings) {
        return Ok(known);
    }
    let mut lease = any_server(context, tenant, settings).await?;
    let lost = || Fault::server(SqlState::CONNECTION_FAILURE, "the server was lost during login").retriable();
    let connection = lease.connection().ok_or_else(lost)?;
    let mut reported = (*connection.parameters).clone();
    // Through its defaults: a server does not report what does not change.
    let none = Settings::default();
    let steps = [difference(&connection.settings, &none), difference(&none, settings)];
    for sql in steps.into_iter().flatten() {
        let changes = apply(connection, &sql).await.map_err(|_| lost())??;
        for (name, value) in changes {
            match reported.iter_mut().find(|(known, _)| *known == name) {
                Some(entry) => entry.1 = value,
                None => reported.push((name, value)),
            }
        }
    }
    connection.settings = settings.clone();
    connection.statements.unnamed = 0;
    lease.checkin();
    let parameters = Arc::new(reported);
    tenant.remember_welcome(settings, parameters.clone());
    Ok(parameters)
}

/// A connection to the primary, else to any replica; waits for the first measurements at start-up.
async fn any_server(
    context: &Context,
    tenant: &Arc<Tenant>,
    settings: &Arc<Settings>,
) -> Result<Lease, Fault> {
    let until = clock::now().plus(context.config.load().limits.hold_time);
    loop {
        let seen = context.monitor.publications();
        let view = context.monitor.view_handle().load_full();
        let primary = view.primary.and_then(|id| view.node(id));
        let mut last = None;
        for node in primary.into_iter().chain(view.replicas()) {
            match reach::check_out(context, tenant, node, settings).await {
                Ok(lease) => return Ok(lease),
                Err(fault) if reach::is_worth_waiting(&fault) => last = Some(fault),
                Err(fault) => return Err(fault),
            }
        }
        if clock::now() >= until {
            return Err(last.unwrap_or_else(|| {
                Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "no server of the cluster answers").retriable()
            }));
        }
        let pause = clock::now().plus(std::time::Duration::from_millis(100)).min(until);
        context.monitor.changed_since(seen, pause).await;
    }
}

type Changes = Vec<(String, String)>;

/// Sends settings; gives the parameters that changed, or the server's refusal.
async fn apply(connection: &mut ServerConnection, sql: &str) -> io::Result<Result<Changes, Fault>> {
    let mut bytes = Vec::new();
    writers::query(&mut bytes, sql.as_bytes());
    connection.stream.write_all(&bytes).await?;
    connection.stream.flush().await?;
    let (mut changes, mut refused) = (Changes::new(), None);
    let mut frame = vec![0; HEADER_LEN];
    loop {
        frame.resize(HEADER_LEN, 0);
        connection.stream.read_exact(&mut frame).await?;
        let head = header(&frame, MESSAGE_MAX).ok().flatten().ok_or(io::ErrorKind::InvalidData)?;
        frame.resize(head.frame_len, 0);
        connection.stream.read_exact(&mut frame[HEADER_LEN..]).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match head.tag {
            b'S' => {
                changes
                    .extend(backend::parameter_status(&frame).map(|(name, value)| (text(name), text(value))));
            }
            b'E' => {
                let fields = backend::error(&frame);
                connection.tainted = true;
                let sqlstate = fields.sqlstate.unwrap_or(SqlState::INVALID_PARAMETER_VALUE);
                refused = Some(Fault::client(sqlstate, text(fields.message)));
            }
            b'Z' => return Ok(refused.map_or(Ok(changes), Err)),
            _ => {}
        }
    }
}

/// What the console says of itself.
pub fn console_parameters() -> Parameters {
    let pairs = [
        ("server_version", concat!(env!("CARGO_PKG_VERSION"), "/pgweir")),
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "off"),
    ];
    Arc::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}
