//! A socket between pgweir's monitor and a server, whose answers can be made late.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// The monitor says so in its startup packet.
const MONITOR: &[u8] = b"pgweir monitor";

/// A detour to one server. Only the monitor's answers are ever delayed.
#[derive(Debug)]
pub struct SlowSocket {
    pub port: u16,
    delay_millis: Arc<AtomicU64>,
    listening: tokio::task::JoinHandle<()>,
}

impl SlowSocket {
    /// On a free port, on the current runtime.
    pub async fn before(server: SocketAddr) -> SlowSocket {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let delay_millis = Arc::new(AtomicU64::new(0));
        let delay = delay_millis.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let delay = delay.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        relay(client, server, delay).await;
                    }
                });
            }
        });
        SlowSocket { port, delay_millis, listening }
    }

    /// From now on what the server says to the monitor arrives so much later.
    pub fn delay(&self, by: Duration) {
        self.delay_millis.store(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Drop for SlowSocket {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn relay(client: TcpStream, server: TcpStream, delay: Arc<AtomicU64>) {
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let is_monitor = Arc::new(AtomicBool::new(false));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let forth = forward(from_client, to_server, |bytes| {
        if bytes.windows(MONITOR.len()).any(|window| window == MONITOR) {
            is_monitor.store(true, Ordering::Relaxed);
        }
        Duration::ZERO
    });
    let back = forward(from_server, to_client, |_| match is_monitor.load(Ordering::Relaxed) {
        true => Duration::from_millis(delay.load(Ordering::Relaxed)),
        false => Duration::ZERO,
    });
    // The end of one direction is the end of both, as with a server that closes.
    tokio::select! {
        () = forth => {}
        () = back => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut pause: impl FnMut(&[u8]) -> Duration) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let pause = pause(&buffer[..length]);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
