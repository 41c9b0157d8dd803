//! A network between two processes that can fail: a TCP relay on loopback that delays, drops and resets.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::net::SocketAddr;
use std::time::Duration;

use socket2::TcpKeepalive;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::wires::{Lost, Wires};

const SECOND: Duration = Duration::from_secs(1);

/// What the network does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// Passes everything.
    Whole,
    /// Passes everything this much later, in both directions.
    Slow(Duration),
    /// Passes nothing, and says nothing: what is sent arrives when it is whole again, as TCP would
    /// send it again.
    Dropping,
    /// Only what the server says gets lost.
    DeafToServer,
    /// Only what is said to the server gets lost.
    DeafToClient,
    /// Connections are reset, and so is every new one.
    Resetting,
    /// Where the kernel can do that: packets vanish, those of a new connection, too.
    Vanishing(Lost),
}

impl Network {
    fn passes(self, way: Way) -> bool {
        match self {
            Network::Whole | Network::Slow(_) | Network::Vanishing(_) => true,
            Network::Dropping | Network::Resetting => false,
            Network::DeafToServer => way == Way::ToServer,
            Network::DeafToClient => way == Way::ToClient,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

/// A relay to one server.
#[derive(Debug)]
pub struct FaultProxy {
    pub address: SocketAddr,
    wires: Option<Wires>,
    network: watch::Sender<Network>,
    listening: tokio::task::JoinHandle<()>,
}

impl FaultProxy {
    /// On a free port, on the current runtime.
    pub async fn before(server: SocketAddr) -> FaultProxy {
        FaultProxy::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, server)
    }

    /// The same in a network of its own, where that is permitted.
    pub async fn beyond_wires(server: SocketAddr) -> FaultProxy {
        match Wires::lay() {
            Ok((wires, listener)) => {
                listener.set_nonblocking(true).unwrap();
                FaultProxy::on(TcpListener::from_std(listener).unwrap(), Some(wires), server)
            }
            Err(why) => {
                println!("no network of its own: {why}");
                FaultProxy::before(server).await
            }
        }
    }

    fn on(listener: TcpListener, wires: Option<Wires>, server: SocketAddr) -> FaultProxy {
        let address = listener.local_addr().unwrap();
        let (network, watched) = watch::channel(Network::Whole);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server, watched.clone()));
            }
        });
        FaultProxy { address, wires, network, listening }
    }

    /// Can packets vanish?
    pub fn has_wires(&self) -> bool {
        self.wires.is_some()
    }

    /// From now on the network is so.
    pub fn becomes(&self, network: Network) {
        if let Some(wires) = &self.wires {
            let lost = match network {
                Network::Vanishing(lost) => lost,
                _ => Lost::default(),
            };
            wires.lose(lost);
        }
        self.network.send_replace(network);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn relay(client: TcpStream, server: SocketAddr, mut network: watch::Receiver<Network>) {
    if *network.borrow_and_update() == Network::Resetting {
        return reset(&client);
    }
    let Ok(server) = TcpStream::connect(server).await else { return reset(&client) };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    // A RST that vanished is not sent again: whoever is gone is found out when the network is whole.
    let keepalive = TcpKeepalive::new().with_time(SECOND).with_interval(SECOND).with_retries(100);
    drop(socket2::SockRef::from(&client).set_tcp_keepalive(&keepalive));
    // Kept so that both can be reset whatever the halves are doing.
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let forth = forward(from_client, to_server, Way::ToServer, network.clone());
    let back = forward(from_server, to_client, Way::ToClient, network.clone());
    let is_reset = async {
        // The sender lives as long as the proxy.
        drop(network.wait_for(|network| *network == Network::Resetting).await);
    };
    // The end of one direction is the end of both, as with a server that closes.
    tokio::select! {
        () = forth => {}
        () = back => {}
        () = is_reset => {}
    }
}

/// Closes with a RST instead of a FIN.
fn reset(stream: &TcpStream) {
    drop(socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut network: watch::Receiver<Network>,
) {
    drop(socket2::SockRef::from(to.as_ref()).set_linger(Some(Duration::ZERO)));
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        // Whether it may pass is asked when it is about to.
        let Ok(now) = network.wait_for(|network| network.passes(way)).await.map(|network| *network) else {
            return;
        };
        if let Network::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        let Ok(length @ 1..) = read else { break };
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    // What was said before must still be read.
    drop(socket2::SockRef::from(to.as_ref()).set_linger(None));
    drop(to.shutdown().await);
}
