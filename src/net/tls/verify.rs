//! libpq's ideas of a good server certificate, on top of webpki's.
//!
//! webpki alone is stricter than libpq in three ways that PostgreSQL's own manual runs into: the
//! self-signed certificate that is its own root (`openssl req -x509`), the name that stands in the
//! common name only, and version 1 certificates (those with `require` alone).

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{TlsError, certificate};

/// Which certificates of a trusted signer are good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Identity {
    /// Any (`verify-ca`).
    AnyName,
    /// The host's (`verify-full`).
    HostName,
}

#[derive(Debug)]
struct Check {
    webpki: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    identity: Identity,
}

/// Checks servers' certificates as libpq's sslmode says; without a check any certificate will do.
#[derive(Debug)]
pub(super) struct PostgresVerifier {
    provider: Arc<CryptoProvider>,
    check: Option<Check>,
}

impl PostgresVerifier {
    pub(super) fn trusting(provider: Arc<CryptoProvider>) -> PostgresVerifier {
        PostgresVerifier { provider, check: None }
    }

    pub(super) fn checking(
        provider: Arc<CryptoProvider>,
        roots: Vec<CertificateDer<'static>>,
        file: Option<&Path>,
        identity: Identity,
    ) -> Result<PostgresVerifier, TlsError> {
        let problem = |error: String| match file {
            Some(file) => TlsError::of(file, error),
            None => TlsError::general(error),
        };
        let mut store = RootCertStore::empty();
        for (index, root) in roots.iter().enumerate() {
            match (store.add(root.clone()), file) {
                (Err(error), Some(_)) => {
                    return Err(problem(format!("certificate {} cannot be a root: {error}", index + 1)));
                }
                // One odd root among the system's does not spoil the others.
                (Ok(()), _) | (Err(_), None) => {}
            }
        }
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .build()
            .map_err(|error| problem(error.to_string()))?;
        // Only a root that the operator named may be a server's own certificate.
        let roots = if file.is_some() { roots } else { Vec::new() };
        Ok(PostgresVerifier { provider, check: Some(Check { webpki, roots, identity }) })
    }
}

impl Check {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.roots.iter().any(|root| root == leaf) {
            certificate::check_validity(leaf, now.as_secs())?;
            return self.verify_name(leaf, host);
        }
        // webpki judges the name last: an error about it means that the chain is good.
        match self.webpki.verify_server_cert(leaf, intermediates, host, ocsp, now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => self.verify_name(leaf, host),
            Err(error) => Err(error),
        }
    }

    fn verify_name(&self, leaf: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), Error> {
        if self.identity == Identity::AnyName {
            return Ok(());
        }
        match verify_server_name(&ParsedCertificate::try_from(leaf)?, host) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented, ..
            })) if presented.is_empty() && is_common_name(leaf, host) => Ok(()),
            other => other,
        }
    }
}

/// As libpq does it where a certificate has no subject alternative names at all.
fn is_common_name(leaf: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let Some(name) = certificate::common_name(leaf) else { return false };
    let host = host.to_str();
    match name.strip_prefix("*.") {
        // One label, and never a whole top-level domain.
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(_, rest)| rest.contains('.') && rest.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(&host),
    }
}

impl ServerCertVerifier for PostgresVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(check) = &self.check {
            check.verify(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.tolerate(verify_tls12_signature(message, cert, dss, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.tolerate(verify_tls13_signature(message, cert, dss, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl PostgresVerifier {
    /// Where any certificate will do, so will one that webpki cannot read (version 1, as the manual's
    /// recipe makes them): whoever is in the middle could show a certificate of its own anyway.
    pub(super) fn tolerate(
        &self,
        outcome: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match outcome {
            Err(Error::InvalidCertificate(error))
                if self.check.is_none() && error != CertificateError::BadSignature =>
            {
                Ok(HandshakeSignatureValid::assertion())
            }
            other => other,
        }
    }
}
