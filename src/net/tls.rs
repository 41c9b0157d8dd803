//! TLS to clients and to servers: configurations made from files, with errors that name the file.
//!
//! Everything here is a plain constructor: a reload makes new values and swaps them in; connections
//! that exist keep what they have.

mod api;
mod certificate;
mod explain;
mod pem;
mod verify;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub use api::{ApiTls, ApiVerification};
pub use certificate::common_name;
pub use explain::server_handshake_fault;
use verify::{Identity, PostgresVerifier};

/// The ALPN name of PostgreSQL's protocol; obligatory for direct TLS, as in PostgreSQL 17.
pub const ALPN: &[u8] = b"postgresql";

/// What clients see: our certificate, and whose certificates we trust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsClientSideSettings {
    /// Our certificate chain (PEM), leaf first.
    pub cert: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Who signs client certificates (PEM). Without it no client is asked for one.
    pub ca: Option<PathBuf>,
}

/// libpq's `sslmode`, towards servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsServerSideMode {
    /// Never TLS.
    Disable,
    /// TLS if the server has it; nothing is verified.
    Prefer,
    /// TLS or nothing. Nothing is verified unless a CA is given: then as `VerifyCa`, like libpq.
    Require,
    /// TLS, and a CA that we trust signed the certificate.
    VerifyCa,
    /// `VerifyCa`, and the certificate is the host's.
    VerifyFull,
}

/// libpq's `sslnegotiation`, towards servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsOpening {
    /// After asking.
    Asked,
    /// With the first byte (PostgreSQL 17 and newer).
    Direct,
}

/// How we speak to servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsServerSideSettings {
    /// libpq's `sslmode`.
    pub mode: TlsServerSideMode,
    /// libpq's `sslnegotiation`.
    pub opening: TlsOpening,
    /// Who signs server certificates (PEM); `None`: the system's roots. Not used by `Prefer`.
    pub ca: Option<PathBuf>,
}

/// What is wrong with a TLS setting, and with which file.
#[derive(Debug, thiserror::Error)]
#[error("{}{problem}", in_file(file.as_deref()))]
pub struct TlsError {
    /// The file, if it is one's fault.
    pub file: Option<PathBuf>,
    /// What is wrong with it.
    pub problem: String,
}

fn in_file(file: Option<&Path>) -> String {
    file.map(|file| format!("{}: ", file.display())).unwrap_or_default()
}

impl TlsError {
    fn of(file: &Path, problem: impl fmt::Display) -> TlsError {
        TlsError { file: Some(file.to_owned()), problem: problem.to_string() }
    }

    fn general(problem: impl fmt::Display) -> TlsError {
        TlsError { file: None, problem: problem.to_string() }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// TLS towards clients: we are its server.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ServerConfig>,
}

impl ClientTls {
    /// Reads the files.
    pub fn load(settings: &TlsClientSideSettings) -> Result<ClientTls, TlsError> {
        let chain = pem::certificates(&settings.cert)?;
        let key = pem::private_key(&settings.key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::general)?;
        let builder = match &settings.ca {
            None => builder.with_no_client_auth(),
            // Optional in the handshake: who has to have one is for the login to say, with a real error.
            Some(ca) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(pem::roots(ca)?), provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::of(ca, error))?,
            ),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            TlsError::of(
                &settings.cert,
                format!("not usable with the key {}: {error}", settings.key.display()),
            )
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(ClientTls { config: Arc::new(config) })
    }

    /// For one more client.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

/// The common name of the certificate that a client has shown and the handshake has verified.
pub fn peer_common_name(certificates: Option<&[CertificateDer<'_>]>) -> Option<String> {
    common_name(certificates?.first()?)
}

/// TLS towards servers: we are its client.
#[derive(Clone)]
pub struct ServerTls {
    mode: TlsServerSideMode,
    opening: TlsOpening,
    config: Option<Arc<ClientConfig>>,
}

/// A client that checks who it speaks to by these roots (PEM; `None`: the system's), or not at all.
fn verifying(
    identity: Option<Identity>,
    ca: Option<&Path>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let verifier = match identity {
        None => PostgresVerifier::trusting(provider()),
        Some(identity) => {
            let roots = match ca {
                Some(ca) => pem::certificates(ca)?,
                None => pem::system_roots()?,
            };
            PostgresVerifier::checking(provider(), roots, ca, identity)?
        }
    };
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::general)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

impl ServerTls {
    /// Reads the files.
    pub fn load(settings: &TlsServerSideSettings) -> Result<ServerTls, TlsError> {
        let identity = match (settings.mode, &settings.ca) {
            (TlsServerSideMode::Disable, _) => {
                return Ok(ServerTls { mode: settings.mode, opening: settings.opening, config: None });
            }
            (TlsServerSideMode::Prefer, _) | (TlsServerSideMode::Require, None) => None,
            (TlsServerSideMode::Require | TlsServerSideMode::VerifyCa, _) => Some(Identity::AnyName),
            (TlsServerSideMode::VerifyFull, _) => Some(Identity::HostName),
        };
        let mut config = verifying(identity, settings.ca.as_deref())?.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(ServerTls { mode: settings.mode, opening: settings.opening, config: Some(Arc::new(config)) })
    }

    /// The mode that it was made for.
    pub fn mode(&self) -> TlsServerSideMode {
        self.mode
    }

    /// How it begins.
    pub fn opening(&self) -> TlsOpening {
        self.opening
    }

    /// For one more server connection; `None` in mode `Disable`.
    pub fn connector(&self) -> Option<TlsConnector> {
        self.config.as_ref().map(|config| TlsConnector::from(Arc::clone(config)))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls({:?})", self.mode)
    }
}

/// A node's host (a name or an address) as TLS wants it.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| TlsError::general(format!("\"{}\" is no host name for TLS", host.escape_debug())))
}

#[cfg(test)]
mod tests;
