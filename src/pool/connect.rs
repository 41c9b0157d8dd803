//! Connects and logs in to a server.

use crate::auth::keys::DerivedKeys;
use crate::auth::secret::ServerCredential;
use crate::auth::server_login::{CleartextPolicy, ServerLogin, ServerLoginStep};
use crate::clock;
use crate::cluster::view::NodeLive;
use crate::fault::{Blame, Fault, Retry, SqlState};
use crate::net::stream::{Socket, Stream};
use crate::net::tls::{ALPN, ServerTls, TlsOpening, TlsServerSideMode, server_name};
use crate::net::worker::Worker;
use crate::node::NodeId;
use crate::pool::server::{BackendKey, ServerConnection};
use crate::session::prepared::ServerStatements;
use crate::session::settings::Settings;
use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::startup::LATEST_MINOR;
use crate::wire::{backend, writers};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// A login's messages are small; a longer one is not PostgreSQL. In bytes.
const LOGIN_MESSAGE_LIMIT: usize = 64 * 1024;

/// Where and as whom to connect.
#[derive(Debug)]
pub struct Target<'a> {
    /// The node.
    pub node: NodeId,
    /// Its name, for messages.
    pub node_name: &'a str,
    /// Its live numbers.
    pub live: Arc<NodeLive>,
    /// Where the node is (`NodeView::place`).
    pub place: u64,
    /// Host name, address, or a socket's folder.
    pub host: &'a str,
    /// The address to use for it, where it is a name.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// The database.
    pub database: &'a str,
    /// The role.
    pub user: &'a str,
    /// The other parameters of the startup packet; pooled connections have none, so that sessions find the
    /// defaults of their database and role.
    pub parameters: &'a [(&'a str, &'a str)],
    /// What proves the role.
    pub credential: ServerCredential,
    /// How to encrypt.
    pub tls: &'a ServerTls,
    /// Keys derived before.
    pub keys: &'a DerivedKeys,
    /// For the whole of it.
    pub timeout: Duration,
}

/// Opens the byte stream to a node: TCP or Unix socket, TLS as the mode says. `address` is where `host`, a
/// name, was found.
pub async fn open_stream(
    host: &str,
    address: Option<IpAddr>,
    port: u16,
    tls: &ServerTls,
) -> Result<Stream, Fault> {
    let unreachable = |error: std::io::Error| cannot_connect(host, port, &error.to_string());
    if host.starts_with('/') {
        let path = format!("{host}/.s.PGSQL.{port}");
        return Ok(Stream::Unix(UnixStream::connect(path).await.map_err(unreachable)?));
    }
    let stream = match address {
        Some(address) => TcpStream::connect((address, port)).await,
        None => TcpStream::connect((host, port)).await,
    };
    let stream = stream.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    keep_alive(&stream).map_err(unreachable)?;
    encrypt(stream, host, port, tls).await
}

fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

async fn encrypt(mut stream: TcpStream, host: &str, port: u16, tls: &ServerTls) -> Result<Stream, Fault> {
    let Some(connector) = tls.connector() else { return Ok(Stream::Tcp(stream)) };
    let broken = |error: std::io::Error| cannot_connect(host, port, &error.to_string());
    if tls.opening() == TlsOpening::Direct {
        let encrypted = handshake(&connector, stream, host, port).await?;
        return match encrypted.application_protocol() == Some(ALPN) {
            true => Ok(encrypted),
            false => Err(cannot_connect(
                host,
                port,
                "it does not speak PostgreSQL inside of TLS (tls.server.negotiation is direct)",
            )),
        };
    }
    stream.write_all(&writers::SSL_REQUEST).await.map_err(broken)?;
    // Exactly one byte: what a man in the middle stuffs in behind it must not be taken for the server's.
    match stream.read_u8().await.map_err(broken)? {
        b'S' => handshake(&connector, stream, host, port).await,
        b'N' if tls.mode() == TlsServerSideMode::Prefer => Ok(Stream::Tcp(stream)),
        b'N' => {
            Err(cannot_connect(host, port, "the server does not support TLS, and tls.server requires it"))
        }
        _ => Err(cannot_connect(host, port, "the server's answer to SSLRequest is not PostgreSQL's")),
    }
}

async fn handshake(
    connector: &TlsConnector,
    stream: TcpStream,
    host: &str,
    port: u16,
) -> Result<Stream, Fault> {
    let name = server_name(host).map_err(|error| cannot_connect(host, port, &error.to_string()))?;
    let encrypted = connector.connect(name, Socket::new(stream)).await;
    let encrypted = encrypted.map_err(|error| cannot_connect(host, port, &error.to_string()))?;
    Ok(Stream::Tls(Box::new(encrypted.into())))
}

fn cannot_connect(host: &str, port: u16, why: &str) -> Fault {
    Fault::server(SqlState::CANNOT_CONNECT, format!("could not connect to server at \"{host}\", port {port}"))
        .detail(why.to_owned())
        .retriable()
}

/// Connects, logs in, and reads until the server is ready.
pub async fn connect(target: &Target<'_>) -> Result<ServerConnection, Fault> {
    match tokio::time::timeout(target.timeout, Box::pin(log_in_speaking(target))).await {
        Ok(result) => result,
        Err(_) => Err(cannot_connect(target.host, target.port, "connecting and logging in took too long")),
    }
}

/// In the newest protocol, for cancel keys that cannot be guessed. Every PostgreSQL that has this major
/// version negotiates; what stands in between may not know how.
async fn log_in_speaking(target: &Target<'_>) -> Result<ServerConnection, Fault> {
    match log_in(target, LATEST_MINOR).await {
        Err(fault) if is_about_the_version(&fault) => log_in(target, 0).await,
        result => result,
    }
}

fn is_about_the_version(fault: &Fault) -> bool {
    matches!(fault.sqlstate, SqlState::FEATURE_NOT_SUPPORTED | SqlState::PROTOCOL_VIOLATION)
}

async fn log_in(target: &Target<'_>, minor: u16) -> Result<ServerConnection, Fault> {
    let mut stream = open_stream(target.host, target.address, target.port, target.tls).await?;
    let mut out = Vec::with_capacity(128);
    let named = [("user", target.user), ("database", target.database)];
    writers::startup(&mut out, minor, named.into_iter().chain(target.parameters.iter().copied()));
    send(&mut stream, target, &out).await?;
    let mut login =
        ServerLogin::new(target.user, target.credential.clone(), rand_nonce(), CleartextPolicy::Allow);
    let mut key = BackendKey::default();
    let mut reported = Vec::new();
    let mut frame = Vec::new();
    loop {
        read_frame(&mut stream, target, &mut frame).await?;
        match frame.first() {
            Some(b'R') => {
                let (code, body) = backend::authentication(&frame).ok_or_else(|| not_postgres(target))?;
                if let ServerLoginStep::Send(bytes) = login.on_authentication(code, body, target.keys)? {
                    send(&mut stream, target, &bytes).await?;
                }
            }
            Some(b'S') => {
                if let Some((name, value)) = backend::parameter_status(&frame) {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    reported.push((text(name), text(value)));
                }
            }
            Some(b'K') => {
                let (pid, secret) = backend::key_data(&frame).ok_or_else(|| not_postgres(target))?;
                key = BackendKey { pid, secret: secret.to_vec() };
            }
            Some(b'v') => {
                // An older version is as good; a newer one than was asked for is none.
                backend::newest_minor(&frame)
                    .filter(|theirs| *theirs <= minor)
                    .ok_or_else(|| not_postgres(target))?;
            }
            Some(b'E') => return Err(refused(&backend::error(&frame))),
            Some(b'N') => {}
            Some(b'Z') => break,
            _ => return Err(not_postgres(target)),
        }
    }
    let now = clock::now();
    Ok(ServerConnection {
        stream,
        node: target.node,
        live: target.live.clone(),
        place: target.place,
        established: now,
        last_used: now,
        key: Arc::new(key),
        parameters: Arc::new(reported),
        settings: Arc::new(Settings::default()),
        statements: ServerStatements::default(),
        home: Worker::current(),
        tainted: false,
    })
}

async fn send(stream: &mut Stream, target: &Target<'_>, bytes: &[u8]) -> Result<(), Fault> {
    let result = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    result.await.map_err(|error: std::io::Error| cannot_connect(target.host, target.port, &error.to_string()))
}

async fn read_frame(stream: &mut Stream, target: &Target<'_>, frame: &mut Vec<u8>) -> Result<(), Fault> {
    let broken = |error: std::io::Error| cannot_connect(target.host, target.port, &error.to_string());
    frame.clear();
    frame.resize(HEADER_LEN, 0);
    stream.read_exact(frame).await.map_err(broken)?;
    let head = header(frame, LOGIN_MESSAGE_LIMIT).ok().flatten().ok_or_else(|| not_postgres(target))?;
    frame.resize(head.frame_len, 0);
    stream.read_exact(&mut frame[HEADER_LEN..]).await.map_err(broken)?;
    Ok(())
}

fn not_postgres(target: &Target<'_>) -> Fault {
    cannot_connect(target.host, target.port, "the server does not speak PostgreSQL's protocol")
}

/// The server said no, in its own words.
fn refused(fields: &backend::ErrorFields<'_>) -> Fault {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let optional = |bytes: &[u8]| (!bytes.is_empty()).then(|| text(bytes).into());
    Fault {
        blame: Blame::Server,
        retry: Retry::Safe,
        sqlstate: fields.sqlstate.unwrap_or(SqlState::CANNOT_CONNECT),
        message: text(fields.message).into(),
        detail: optional(fields.detail),
        hint: optional(fields.hint),
    }
}

/// Fresh random bytes for SCRAM.
fn rand_nonce<const N: usize>() -> [u8; N] {
    let mut nonce = [0; N];
    crate::net::random_fill(&mut nonce);
    nonce
}
