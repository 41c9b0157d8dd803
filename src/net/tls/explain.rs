//! A failed handshake in words that say what to do about it.

use std::io;

use tokio_rustls::rustls::{CertificateError, Error};

use crate::fault::{Fault, SqlState};

/// What a failed handshake with the server at `host` means.
pub fn server_handshake_fault(host: &str, error: &io::Error) -> Fault {
    let fault = Fault::server(
        SqlState::CANNOT_CONNECT,
        format!("TLS handshake with server \"{}\" failed", host.escape_debug()),
    )
    .detail(error.to_string())
    .retriable();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(reason)) => match hint(reason) {
            Some(hint) => fault.hint(hint),
            None => fault,
        },
        _ => fault,
    }
}

fn hint(reason: &CertificateError) -> Option<&'static str> {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("The server's certificate has expired: renew it, or check this machine's clock.")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("The server's certificate is not valid yet: check this machine's clock.")
        }
        CertificateError::UnknownIssuer => Some(
            "Nobody in tls.server.ca (or, without it, among the system's roots) signed the server's certificate.",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Some(
            "The server's certificate is for another name: use that name as the node's host, or mode verify-ca.",
        ),
        CertificateError::Other(other) => match other.to_string().as_str() {
            "CaUsedAsEndEntity" => {
                Some("The server's certificate is self-signed: put this very certificate into tls.server.ca.")
            }
            "UnsupportedCertVersion" => Some(
                "The server's certificate is of X.509 version 1: make it anew with extensions (openssl x509 \
                 -req -extfile …), or use mode require without a ca.",
            ),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_run_into_has_a_hint() {
        for (reason, word) in [
            (CertificateError::Expired, "renew"),
            (CertificateError::UnknownIssuer, "tls.server.ca"),
            (CertificateError::NotValidForName, "verify-ca"),
        ] {
            let error = io::Error::new(io::ErrorKind::InvalidData, Error::InvalidCertificate(reason));
            let fault = server_handshake_fault("pg1", &error);
            assert_eq!(fault.message, "TLS handshake with server \"pg1\" failed");
            assert!(fault.hint.is_some_and(|hint| hint.contains(word)), "{word}");
        }
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(server_handshake_fault("pg1", &reset).hint.is_none());
    }
}
