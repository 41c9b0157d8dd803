//! TLS to an HTTP API that pgweir asks (Patroni's): we are its client.

use super::verify::Identity;
use super::{TlsError, pem};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::rustls::ClientConfig;

/// How far the API's certificate is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiVerification {
    /// It is signed by a CA that we trust, and made out to the host.
    Host,
    /// It is signed by a CA that we trust.
    Signer,
    /// Not at all.
    Nothing,
}

/// How we speak to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiTls {
    /// How far its certificate is checked.
    pub verification: ApiVerification,
    /// Who signs it (PEM); `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// Our own certificate chain and its private key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ApiTls {
    /// Reads the files.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let identity = match self.verification {
            ApiVerification::Nothing => None,
            ApiVerification::Signer => Some(Identity::AnyName),
            ApiVerification::Host => Some(Identity::HostName),
        };
        let builder = super::verifying(identity, self.ca.as_deref())?;
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                builder.with_client_auth_cert(pem::certificates(cert)?, pem::private_key(key)?).map_err(
                    |error| TlsError::of(cert, format!("not usable with the key {}: {error}", key.display())),
                )?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
