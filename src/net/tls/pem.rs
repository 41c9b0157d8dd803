//! Certificates and keys from PEM files, with errors that say what is wrong.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::RootCertStore;

use super::TlsError;

/// More than any bundle of roots has.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// All certificates of a file; at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| TlsError::of(file, format!("is not valid PEM: {error}")))?;
    if found.is_empty() {
        return Err(TlsError::of(file, "holds no certificate (\"-----BEGIN CERTIFICATE-----\")"));
    }
    Ok(found)
}

/// The first private key of a file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(file)?;
    if memchr::memmem::find(&text, b"ENCRYPTED").is_some() {
        return Err(TlsError::of(file, "the key is encrypted; pgweir has nobody to ask for a passphrase"));
    }
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| TlsError::of(file, format!("holds no usable private key: {error}")))
}

/// The certificates of a file as trust anchors.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(file)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            TlsError::of(file, format!("certificate {} cannot be a root: {error}", index + 1))
        })?;
    }
    Ok(roots)
}

/// The system's trust anchors.
pub(super) fn system_roots() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reason = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(TlsError::general(format!(
            "the system has no root certificates{reason}; install ca-certificates, or set tls.server.ca"
        )));
    }
    Ok(found.certs)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    File::open(file)
        .and_then(|open| open.take(MAX_FILE_BYTES).read_to_end(&mut text))
        .map_err(|error| TlsError::of(file, format!("cannot be read: {error}")))?;
    Ok(text)
}
