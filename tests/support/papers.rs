//! Certificates for tests, and TLS clients that trust them.
#![allow(dead_code)]

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A certificate authority, and what it has signed for 127.0.0.1, in files.
pub struct Papers {
    folder: TempDir,
    authority: String,
    pub certificate: String,
    pub key: String,
}

pub static PAPERS: LazyLock<Papers> = LazyLock::new(|| {
    let named = |name: &str, hosts: &[&str]| {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let authority = |name: &str| {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params, KeyPair::generate().unwrap())
    };
    let (params, authority_key) = authority("our authority");
    let (other, other_key) = authority("another authority");
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&params, &authority_key);
    let certificate = named("server", &["127.0.0.1"]).signed_by(&key, &issuer).unwrap().pem();
    let papers = Papers {
        folder: tempfile::tempdir().unwrap(),
        authority: params.self_signed(&authority_key).unwrap().pem(),
        certificate,
        key: key.serialize_pem(),
    };
    let file = |name: &str, text: &str| std::fs::write(papers.folder.path().join(name), text).unwrap();
    file("ca.crt", &papers.authority);
    file("other.crt", &other.self_signed(&other_key).unwrap().pem());
    file("server.crt", &papers.certificate);
    file("server.key", &papers.key);
    papers
});

pub fn path(name: &str) -> String {
    PAPERS.folder.path().join(name).display().to_string()
}

/// `tls:` with this mode towards clients.
pub fn client_tls(mode: &str) -> String {
    format!("{{ client: {{ mode: {mode}, cert: {}, key: {} }} }}", path("server.crt"), path("server.key"))
}

/// TLS over a socket, which begins with the first byte; `protocols` are offered (ALPN).
pub fn handshake(tcp: TcpStream, protocols: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(PAPERS.authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp)
}
