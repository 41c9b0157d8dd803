//! TLS from the monitor to the nodes: rustls behind tokio-postgres' connector traits.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Is TLS a wish or a condition? What is verified is up to the rustls configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsDemand {
    /// Plain where the server has no TLS.
    Prefer,
    /// No connection without it.
    Require,
    /// Nor one that asks for it first.
    Direct,
}

/// TLS for our own SQL connections.
#[derive(Clone)]
pub struct MonitorTls {
    /// Wish or condition.
    pub demand: TlsDemand,
    /// Roots, verification, client certificate.
    pub config: Arc<ClientConfig>,
    /// The name to verify where it is not the node's host.
    pub server_name: Option<ServerName<'static>>,
}

/// What moves the bytes of a connection, until it ends.
pub type Driver = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Connects, over TLS where there is any.
pub async fn open(config: &mut Config, tls: Option<&MonitorTls>) -> Result<(Client, Driver), Error> {
    match tls {
        None => {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await?;
            Ok((client, Box::pin(connection)))
        }
        Some(tls) => {
            tls.demand_in(config);
            let (client, connection) = config.connect(tls.connector()).await?;
            Ok((client, Box::pin(connection)))
        }
    }
}

impl MonitorTls {
    /// Says what is demanded.
    pub fn demand_in(&self, config: &mut tokio_postgres::Config) {
        let (mode, negotiation) = match self.demand {
            TlsDemand::Prefer => (SslMode::Prefer, SslNegotiation::Postgres),
            TlsDemand::Require => (SslMode::Require, SslNegotiation::Postgres),
            TlsDemand::Direct => (SslMode::Require, SslNegotiation::Direct),
        };
        config.ssl_mode(mode).ssl_negotiation(negotiation);
    }

    /// A connector for `tokio_postgres`.
    pub fn connector(&self) -> MakeRustls {
        MakeRustls { tls: TlsConnector::from(Arc::clone(&self.config)), name: self.server_name.clone() }
    }
}

/// Makes a connector per connection.
#[derive(Clone)]
pub struct MakeRustls {
    tls: TlsConnector,
    name: Option<ServerName<'static>>,
}

/// One handshake.
pub struct RustlsConnect {
    tls: TlsConnector,
    name: ServerName<'static>,
}

/// An encrypted stream.
pub struct RustlsStream<S>(TlsStream<S>);

impl<S> MakeTlsConnect<S> for MakeRustls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = RustlsStream<S>;
    type TlsConnect = RustlsConnect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<RustlsConnect> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(domain.to_owned())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
        };
        Ok(RustlsConnect { tls: self.tls.clone(), name })
    }
}

impl<S> TlsConnect<S> for RustlsConnect
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = RustlsStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<RustlsStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.tls.connect(self.name, stream).await.map(RustlsStream) })
    }
}

impl<S> tokio_postgres::tls::TlsStream for RustlsStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for RustlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RustlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
