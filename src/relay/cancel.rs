//! Who is connected, and how a cancel request reaches exactly the statement its client is running.
//!
//! A slot names the server connection only while its client has it. A cancel request in flight marks
//! the slot; a connection that is given back under that mark is closed, never handed to another
//! client, because nobody can say when the server will act on the request. Looking up the connection
//! and marking it is one step, as is giving it back and reading the mark: whichever comes first, a
//! request is either known to be on its way or finds no connection.

use crate::fault::{Fault, SqlState};
use crate::net::stream::Stream;
use crate::node::NodeId;
use crate::pool::connect::open_stream;
use crate::pool::server::BackendKey;
use crate::relay::context::Context;
use crate::relay::slot::{Canceling, ClientSlot, Secret};
use crate::wire::writers;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Clients' cancel requests that are served at the same time; the others wait in line. Each opens a
/// connection to a server, which has only so many.
pub const CANCELS_MAX: usize = 32;

/// How long a server may take to accept a cancel request.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// All connected clients.
#[derive(Debug, Default)]
pub struct Clients {
    slots: Mutex<HashMap<u32, Arc<ClientSlot>>>,
}

impl Clients {
    /// Lets one in, unless there are `limit` already.
    pub fn admit(&self, mut slot: ClientSlot, limit: usize) -> Result<Arc<ClientSlot>, Fault> {
        let mut slots = self.lock();
        if slots.len() >= limit {
            return Err(Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
                .hint("Raise limits.clients.")
                .retriable());
        }
        while slots.contains_key(&slot.pid) {
            slot.pid = (slot.pid.wrapping_add(1) & 0x7fff_ffff) | 0x4000_0000;
        }
        let slot = Arc::new(slot);
        slots.insert(slot.pid, slot.clone());
        Ok(slot)
    }

    /// One has left.
    pub fn leave(&self, slot: &ClientSlot) {
        self.lock().remove(&slot.pid);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<ClientSlot>> {
        self.lock().values().cloned().collect()
    }

    fn find(&self, pid: u32, shown: &[u8]) -> Option<Arc<ClientSlot>> {
        let slot = self.lock().get(&pid).cloned();
        let nobody = Secret::Nobodys;
        let is_right = slot.as_ref().map_or(&nobody, |slot| slot.secret()).is(shown);
        slot.filter(|_| is_right)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<ClientSlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a cancel request: it reaches the request that its client has under way, or nobody.
pub async fn cancel(context: &Context, pid: u32, secret: &[u8]) {
    let Some(slot) = context.clients.find(pid, secret) else { return };
    // First a place, then the look at what the client is doing: no request is kept that was overtaken.
    let Ok(_place) = context.cancels.acquire().await else { return };
    let reached = match slot.begin_cancel() {
        Canceling::Nothing => false,
        Canceling::Waiting => true,
        Canceling::At(node, key) => send(context, node, &key).await,
    };
    if reached {
        context.counters.cancels.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends a cancel request to a node and waits until the server has closed the connection, which it
/// does when the signal has been sent. True if it took it.
pub async fn send(context: &Context, node: NodeId, key: &BackendKey) -> bool {
    let view = context.monitor.view_handle().load_full();
    let Some(node) = view.node(node).filter(|_| !key.secret.is_empty()) else { return false };
    let tls = context.server_tls.load_full();
    let request = writers::cancel(key.pid, &key.secret);
    let exchange = async {
        let mut stream: Stream = open_stream(&node.host, node.address, node.port, &tls).await.ok()?;
        stream.write_all(&request).await.ok()?;
        stream.flush().await.ok()?;
        stream.read(&mut [0; 1]).await.ok()
    };
    matches!(tokio::time::timeout(CANCEL_TIMEOUT, exchange).await, Ok(Some(_)))
}
