//! Replication connections: one client, one connection to the primary, and their bytes, unread.
//!
//! Nothing is pooled, judged or renamed. Both ends are closed together: when one of them goes, when
//! another node becomes the primary, and at shutdown.

use crate::auth::secret::ServerCredential;
use crate::clock;
use crate::cluster::view::NodeView;
use crate::fault::{Fault, SqlState};
use crate::net::stream::Stream;
use crate::pool::connect::{Target, connect};
use crate::pool::server::ServerConnection;
use crate::relay::context::Context;
use crate::relay::reach;
use crate::relay::slot::{ClientSlot, Doing};
use crate::wire::frame::Boundary;
use crate::wire::startup::{Replication, Startup};
use crate::wire::writers::{self, Severity};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is on its way in each direction, at most. In bytes.
const BUFFER: usize = 64 * 1024;

/// How long a client may take to hear why it is disconnected.
const FAREWELL: Duration = Duration::from_secs(5);

/// Counts a replication connection while there is one.
#[derive(Debug)]
struct Permit(Arc<Context>);

impl Permit {
    fn new(context: &Arc<Context>) -> Result<Permit, Fault> {
        let limit = context.config.load().limits.replication_clients as usize;
        let before = context.replicating.fetch_add(1, Ordering::AcqRel);
        let permit = Permit(context.clone());
        if before < limit {
            return Ok(permit);
        }
        Err(Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "too many replication connections")
            .detail(format!("limits.replication_clients is {limit}."))
            .retriable())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.replicating.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A client that replicates, once its server is ready.
#[derive(Debug)]
pub struct Replicating {
    /// The connection to the primary.
    pub server: ServerConnection,
    slot: Arc<ClientSlot>,
    permit: Permit,
}

/// Logs in to the primary in the client's name. While there is none, it waits as a statement does.
pub async fn begin(
    context: &Arc<Context>,
    startup: &Startup,
    kind: Replication,
    credential: ServerCredential,
    slot: &Arc<ClientSlot>,
) -> Result<Box<Replicating>, Fault> {
    let permit = Permit::new(context)?;
    let database = match kind {
        Replication::Physical => startup.database.clone(),
        Replication::Logical => context.server_database(&startup.database)?,
    };
    let until = clock::now().plus(context.config.load().limits.hold_time);
    slot.set_doing(Doing::Waiting);
    loop {
        let seen = context.monitor.publications();
        let view = context.monitor.view_handle().load_full();
        let last = match view.primary.and_then(|primary| view.node(primary)) {
            Some(node) => match log_in(context, node, startup, kind, &database, &credential).await {
                Ok(server) => {
                    slot.attach(server.node, &server.key);
                    slot.set_doing(Doing::Replicating);
                    return Ok(Box::new(Replicating { server, slot: slot.clone(), permit }));
                }
                Err(fault) if reach::is_worth_waiting(&fault) => Some(fault),
                Err(fault) => return Err(fault),
            },
            None => None,
        };
        if clock::now() >= until {
            return Err(reach::no_primary(&view, last));
        }
        let pause = clock::now().plus(Duration::from_millis(100)).min(until);
        context.monitor.changed_since(seen, pause).await;
    }
}

async fn log_in(
    context: &Context,
    node: &NodeView,
    startup: &Startup,
    kind: Replication,
    database: &str,
    credential: &ServerCredential,
) -> Result<ServerConnection, Fault> {
    let tls = context.server_tls.load_full();
    let mut parameters = vec![("replication", kind.as_str())];
    parameters.extend(startup.parameters.iter().map(|(name, value)| (&**name, &**value)));
    let server = connect(&Target {
        node: node.id,
        node_name: &node.name,
        live: node.live.clone(),
        place: node.place,
        host: &node.host,
        address: node.address,
        port: node.port,
        database,
        user: &startup.user,
        parameters: &parameters,
        credential: credential.clone(),
        tls: &tls,
        keys: &context.keys,
        timeout: context.config.load().pool.connect_timeout,
    })
    .await?;
    let is_primary = context.monitor.view().primary == Some(node.id);
    // Asked last: who is the primary now is the primary where it is now.
    match is_primary && server.is_in_place() {
        true => Ok(server),
        false => Err(Fault::server(SqlState::CANNOT_CONNECT_NOW, "the primary has changed").retriable()),
    }
}

/// Bytes on their way from one side to the other. More is read only when all of them are gone.
struct Way {
    bytes: Box<[u8]>,
    sent: usize,
    len: usize,
}

impl Way {
    fn new() -> Way {
        Way { bytes: vec![0; BUFFER].into(), sent: 0, len: 0 }
    }

    /// Writes what there is. Ready when it is gone, and flushed.
    fn poll_write(&mut self, cx: &mut std::task::Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while self.sent < self.len {
            match ready!(to.poll_write_some(cx, &self.bytes[self.sent..self.len]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.sent += len,
            }
        }
        to.poll_flush_all(cx)
    }

    /// Reads up to `limit` bytes; none: the other side has ended.
    fn poll_read(
        &mut self,
        cx: &mut std::task::Context<'_>,
        from: &mut Stream,
        limit: usize,
    ) -> Poll<io::Result<&[u8]>> {
        let limit = limit.min(self.bytes.len());
        let len = ready!(from.poll_read_some(cx, &mut self.bytes[..limit]))?;
        (self.sent, self.len) = (0, len);
        Poll::Ready(Ok(&self.bytes[..len]))
    }
}

/// Both ways, and where the server's messages end.
struct Ways {
    up: Way,
    down: Way,
    boundary: Boundary,
    farewell: Option<Fault>,
}

impl Ways {
    /// Inside of a server's message there is no place for one of ours.
    fn is_between_messages(&self) -> bool {
        self.boundary.missing() == 0 && self.down.sent == self.down.len
    }
}

impl Replicating {
    /// Passes bytes until one side leaves or pgweir has to end it.
    pub async fn run(mut self: Box<Self>, mut client: Stream) {
        let mut ways =
            Ways { up: Way::new(), down: Way::new(), boundary: Boundary::default(), farewell: None };
        if let Some(fault) = self.pass(&mut client, &mut ways).await {
            tracing::info!(user = %self.slot.user(), "ending a replication connection: {fault}");
            drop(tokio::time::timeout(FAREWELL, say_goodbye(&mut client, &fault)).await);
        }
        self.permit.0.clients.leave(&self.slot);
        // The connection is closed, whether a cancel request is on its way to it or not.
        let _canceled: bool = self.slot.detach();
    }

    /// The fault that the client is to be told.
    async fn pass(&mut self, client: &mut Stream, ways: &mut Ways) -> Option<Fault> {
        let mut deadline = None;
        loop {
            let step = poll_fn(|cx| self.poll_pass(cx, client, ways));
            let passed = match deadline {
                None => step.await,
                Some(deadline) => {
                    let deadline = clock::instant(deadline).into();
                    tokio::time::timeout_at(deadline, step).await.unwrap_or(Ok(true))
                }
            };
            match passed {
                Ok(true) | Err(_) => return ways.farewell.take().filter(|_| ways.is_between_messages()),
                Ok(false) => deadline = Some(clock::now().plus(FAREWELL)),
            }
        }
    }

    /// Ready with false when there is a reason to end, with true when the end has come.
    fn poll_pass(
        &mut self,
        cx: &mut std::task::Context<'_>,
        client: &mut Stream,
        ways: &mut Ways,
    ) -> Poll<io::Result<bool>> {
        if ways.farewell.is_none() {
            ways.farewell = self.reason_to_end(cx);
            if ways.farewell.is_some() {
                return Poll::Ready(Ok(false));
            }
            while ways.up.poll_write(cx, &mut self.server.stream)?.is_ready() {
                match ways.up.poll_read(cx, client, BUFFER)? {
                    Poll::Ready([]) => return Poll::Ready(Ok(true)),
                    Poll::Ready(_) => {}
                    Poll::Pending => break,
                }
            }
        }
        loop {
            ready!(ways.down.poll_write(cx, client))?;
            let limit = match &ways.farewell {
                None => BUFFER,
                Some(_) => ways.boundary.missing(),
            };
            if limit == 0 {
                return Poll::Ready(Ok(true));
            }
            let bytes = ready!(ways.down.poll_read(cx, &mut self.server.stream, limit))?;
            if bytes.is_empty() {
                return Poll::Ready(Ok(true));
            }
            let passed = ways.boundary.pass(bytes);
            passed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    fn reason_to_end(&self, cx: &std::task::Context<'_>) -> Option<Fault> {
        let ended = |message: &'static str| {
            Fault::proxy(SqlState::ADMIN_SHUTDOWN, message).hint("Connect again.").retriable()
        };
        if self.slot.is_severed(cx) {
            return Some(ended("terminating replication because another node is the primary now"));
        }
        self.slot.is_ending(cx).then(|| ended("terminating connection because pgweir is shutting down"))
    }
}

/// Says it, and reads until the client has closed: bytes that nobody has read would make the socket
/// forget what was said.
async fn say_goodbye(client: &mut Stream, fault: &Fault) -> io::Result<()> {
    let mut bytes = Vec::new();
    writers::fault(&mut bytes, Severity::Fatal, fault);
    client.write_all(&bytes).await?;
    client.shutdown().await?;
    let mut unheard = [0; 4096];
    while client.read(&mut unheard).await? > 0 {}
    Ok(())
}
