//! A session that held its connection has ended well: the connection is made clean for the next one.

use crate::pool::checkout::Lease;
use crate::relay::context::Context;
use crate::session::settings::Settings;
use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::writers;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long DISCARD ALL may take; beyond that the connection is closed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The answer to DISCARD ALL is short. In bytes.
const MESSAGE_MAX: usize = 64 * 1024;

/// Runs DISCARD ALL; checks the connection in if that worked, closes it otherwise.
pub async fn recycle(mut lease: Lease, context: Arc<Context>) {
    let cleaned = match lease.connection() {
        Some(connection) => {
            let discard = async {
                let mut bytes = Vec::new();
                writers::query(&mut bytes, b"DISCARD ALL");
                connection.stream.write_all(&bytes).await?;
                connection.stream.flush().await?;
                read_until_ready(&mut connection.stream).await
            };
            matches!(tokio::time::timeout(TIMEOUT, discard).await, Ok(Ok(true)))
        }
        None => false,
    };
    if !cleaned || context.is_over() {
        return;
    }
    if let Some(connection) = lease.connection() {
        connection.statements.clear();
        connection.settings = context.intern(Settings::default());
    }
    lease.checkin();
}

/// True if ReadyForQuery came without an error.
async fn read_until_ready(stream: &mut crate::net::stream::Stream) -> std::io::Result<bool> {
    let mut clean = true;
    let mut frame = vec![0; HEADER_LEN];
    loop {
        frame.resize(HEADER_LEN, 0);
        stream.read_exact(&mut frame).await?;
        let Ok(Some(head)) = header(&frame, MESSAGE_MAX) else { return Ok(false) };
        frame.resize(head.frame_len, 0);
        stream.read_exact(&mut frame[HEADER_LEN..]).await?;
        match head.tag {
            b'E' => clean = false,
            b'Z' => return Ok(clean && frame.last() == Some(&b'I')),
            _ => {}
        }
    }
}
