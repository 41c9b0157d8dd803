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
pub const BACKLOG: i32 = 4096;

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
    /// A Unix socket.
    Unix(UnixListener, SocketFile),
}

/// An address that this process has, and does not listen at yet: whatever else its start needs may fail, and a
/// predecessor at the same address must not lose clients to one that does not run.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(Socket),
    /// A Unix socket.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket. It goes with it, unless a successor has put its own in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Where it is until clients are to find it.
    hidden: Option<PathBuf>,
    /// Device and inode.
    id: (u64, u64),
    sharing: Sharing,
}

impl SocketFile {
    /// Clients find it from now on; in one step, so that there is no moment in which nobody is found.
    fn show(&mut self) -> io::Result<()> {
        if let Some(hidden) = &self.hidden {
            std::fs::rename(hidden, &self.path)?;
            self.hidden = None;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let path = match (&self.hidden, self.sharing) {
            (Some(hidden), _) => hidden,
            (None, Sharing::Alone) if file_id(&self.path).is_ok_and(|id| id == self.id) => &self.path,
            // A successor may put its own there in this very moment.
            (None, Sharing::Alone | Sharing::WithSuccessor) => return,
        };
        if let Err(error) = std::fs::remove_file(path) {
            tracing::debug!("removing {}: {error}", path.display());
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Bound {
    /// Every address that `host` has.
    pub async fn tcp(host: &str, port: u16, sharing: Sharing) -> io::Result<Vec<Bound>> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        let bound = |address| bind(address, sharing, Family::Own).map(Bound::Tcp);
        addresses.into_iter().map(bound).collect()
    }

    /// A Unix socket. A file that a dead process left there is replaced; a living one's only where the address is
    /// shared.
    pub async fn unix(path: PathBuf, sharing: Sharing) -> io::Result<Bound> {
        if std::fs::metadata(&path).is_ok_and(|there| !there.file_type().is_socket()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there, and is no socket"));
        }
        let hidden = match sharing {
            Sharing::WithSuccessor => {
                let mut random = [0; 4];
                crate::net::random_fill(&mut random);
                Some(path.with_file_name(format!(".{:08x}", u32::from_ne_bytes(random))))
            }
            Sharing::Alone => None,
        };
        if sharing == Sharing::Alone && path.exists() {
            match tokio::net::UnixStream::connect(&path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(&path)?
                }
                Ok(_) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        let at = hidden.as_ref().unwrap_or(&path);
        let listener = UnixListener::bind(at)?;
        let id = file_id(at)?;
        Ok(Bound::Unix(listener, SocketFile { path, hidden, id, sharing }))
    }

    /// Where that is, for errors.
    pub fn address(&self) -> String {
        match self {
            Bound::Tcp(socket) => socket
                .local_addr()
                .ok()
                .and_then(|address| address.as_socket())
                .map_or_else(|| "?".to_owned(), |address| address.to_string()),
            Bound::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    /// Clients come from now on.
    pub fn listen(self) -> io::Result<Listener> {
        match self {
            Bound::Tcp(socket) => listen(socket).map(Listener::Tcp),
            Bound::Unix(listener, mut file) => {
                file.show()?;
                Ok(Listener::Unix(listener, file))
            }
        }
    }
}

/// Listens on a bound socket.
pub fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Listener {
    /// A client that the system has connected already, if there is one: closing the socket would reset it.
    pub async fn accept_waiting(&self) -> Option<(Stream, String)> {
        tokio::time::timeout(Duration::from_millis(1), self.accept()).await.ok()
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

/// What comes to an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv6: whoever wants IPv4 as well lists it.
    Own,
    /// What the system lets come, which is IPv4 as well for `[::]`.
    Both,
}

/// Takes one address.
pub fn bind(address: SocketAddr, sharing: Sharing, family: Family) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::WithSuccessor {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() && family == Family::Own {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
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
