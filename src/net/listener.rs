//! Sockets that clients connect to.

use crate::net::stream::Stream;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// May another process listen at the same address?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Its successor may, to take over without a gap.
    WithSuccessor,
    /// No.
    Alone,
}

/// One listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; its file goes with it.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket. Dropped, it is removed, unless a successor has put its own in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    fn at(path: PathBuf) -> io::Result<SocketFile> {
        let id = file_id(&path)?;
        Ok(SocketFile { path, id })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !file_id(&self.path).is_ok_and(|id| id == self.id) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("removing {}: {error}", self.path.display());
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Listener {
    /// Listens on every address that `host` has.
    pub async fn tcp(host: &str, port: u16, sharing: Sharing) -> io::Result<Vec<Listener>> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        addresses.into_iter().map(|address| bind(address, sharing).map(Listener::Tcp)).collect()
    }

    /// A client that the system has connected already, if there is one: closing the socket would reset it.
    pub async fn accept_waiting(&self) -> Option<(Stream, String)> {
        tokio::time::timeout(Duration::from_millis(1), self.accept()).await.ok()
    }

    /// Listens on a Unix socket. A file that a dead process left there is replaced; a living one's only where
    /// the address is shared.
    pub async fn unix(path: PathBuf, sharing: Sharing) -> io::Result<Listener> {
        if let Ok(there) = std::fs::symlink_metadata(&path) {
            if !there.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there, and is no socket"));
            }
            if sharing == Sharing::Alone && tokio::net::UnixStream::connect(&path).await.is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
        }
        let own = path.with_file_name(format!(".{}", std::process::id()));
        if own.exists() {
            std::fs::remove_file(&own)?;
        }
        let listener = UnixListener::bind(&own)?;
        // In one step: nobody finds no file there.
        std::fs::rename(&own, &path)?;
        Ok(Listener::Unix(listener, SocketFile::at(path)?))
    }

    /// Where it listens, for logs.
    pub fn address(&self) -> String {
        match self {
            Listener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
            }
            Listener::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    /// The next client and where it comes from. Out of file descriptors is no reason to stop: it waits.
    pub async fn accept(&self) -> (Stream, String) {
        loop {
            let accepted = match self {
                Listener::Tcp(listener) => listener.accept().await.and_then(|(stream, address)| {
                    tune(&stream)?;
                    Ok((Stream::Tcp(stream), address.to_string()))
                }),
                Listener::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), "unix".to_owned()))
                }
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!("accepting a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Listens on one address.
pub fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::WithSuccessor {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Small answers must not wait for more; half-open clients must be noticed.
fn tune(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}
