#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use tempfile::TempDir;
use tokio_rustls::TlsStream;

use super::*;

struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { params, key: KeyPair::generate().unwrap() }
    }

    fn pem(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    /// Certificate and key, PEM.
    fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn named(common_name: &str, alternatives: &[&str]) -> CertificateParams {
    let names: Vec<String> = alternatives.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
    params
}

fn self_signed(params: &CertificateParams) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn acceptor(folder: &TempDir, (cert, key): (String, String), ca: Option<&str>) -> ClientTls {
    let settings = TlsClientSideSettings {
        cert: file(folder, "server.crt", &cert),
        key: file(folder, "server.key", &key),
        ca: ca.map(|ca| file(folder, "client-ca.crt", ca)),
    };
    ClientTls::load(&settings).unwrap()
}

fn connector(folder: &TempDir, mode: TlsServerSideMode, ca: Option<&str>) -> ServerTls {
    let ca = ca.map(|ca| file(folder, "root.crt", ca));
    ServerTls::load(&TlsServerSideSettings { mode, opening: TlsOpening::Asked, ca }).unwrap()
}

async fn handshake(
    server: &ClientTls,
    client: TlsConnector,
    host: &str,
) -> Result<TlsStream<tokio::io::DuplexStream>, String> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (accepted, connected) =
        tokio::join!(server.acceptor().accept(ours), client.connect(server_name(host).unwrap(), theirs));
    connected.map_err(|error| error.to_string())?;
    accepted.map(TlsStream::Server).map_err(|error| error.to_string())
}

use TlsServerSideMode::{Prefer, Require, VerifyCa, VerifyFull};

/// Which certificates each mode takes, as libpq does: (what, certificate, root, modes that take it).
#[tokio::test]
async fn each_mode_accepts_exactly_what_libpq_accepts() {
    let folder = TempDir::new().unwrap();
    let ours = Authority::new("our root");
    let other = Authority::new("another root");
    let (root, wrong_root) = (ours.pem(), other.pem());
    let (own, own_key) = self_signed(&{
        let mut params = named("db.example.com", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    });
    let (old, old_key) = self_signed(&expired(named("db.example.com", &["db.example.com"])));
    let good = ours.sign(&named("x", &["db.example.com", "127.0.0.1"]));
    let by_common_name = ours.sign(&named("DB.example.com", &[]));
    let by_wildcard = ours.sign(&named("*.example.com", &[]));
    let elsewhere = ours.sign(&named("db.example.com", &["other.example.com"]));
    let stale = ours.sign(&expired(named("x", &["db.example.com"])));
    let full: &[TlsServerSideMode] = &[Prefer, Require, VerifyCa, VerifyFull];
    let chain = &full[..3];
    let any = &full[..1];
    let rows = [
        ("good", &good, &root, "db.example.com", full),
        ("good, by address", &good, &root, "127.0.0.1", full),
        ("another address", &good, &root, "127.0.0.2", chain),
        ("wrong name", &good, &root, "db2.example.com", chain),
        ("common name only", &by_common_name, &root, "db.example.com", full),
        ("common name, another host", &by_common_name, &root, "db2.example.com", chain),
        ("wildcard common name", &by_wildcard, &root, "db.example.com", full),
        ("wildcard is one label", &by_wildcard, &root, "a.db.example.com", chain),
        ("alternative names outweigh the common name", &elsewhere, &root, "db.example.com", chain),
        ("wrong root", &good, &wrong_root, "db.example.com", any),
        ("expired", &stale, &root, "db.example.com", any),
        ("self-signed, its own root", &(own.clone(), own_key), &own, "db.example.com", full),
        ("self-signed, expired", &(old.clone(), old_key), &old, "db.example.com", any),
    ];
    for (what, certificate, root, host, accepting) in rows {
        let server = acceptor(&folder, certificate.clone(), None);
        for mode in full {
            let client = connector(&folder, *mode, Some(root)).connector().unwrap();
            let outcome = handshake(&server, client, host).await;
            assert_eq!(outcome.is_ok(), accepting.contains(mode), "{what}, {mode:?}: {:?}", outcome.err());
        }
        let client = connector(&folder, Require, None).connector().unwrap();
        assert!(handshake(&server, client, host).await.is_ok(), "{what}: require without a root takes all");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_that_is_no_root_of_ours_gets_a_hint() {
    let folder = TempDir::new().unwrap();
    let mut params = named("pg1", &["pg1"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let server = acceptor(&folder, self_signed(&params), None);
    let root = Authority::new("our root").pem();
    let client = connector(&folder, VerifyCa, Some(&root)).connector().unwrap();
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let name = server_name("pg1").unwrap();
    let (_, connected) = tokio::join!(server.acceptor().accept(ours), client.connect(name, theirs));
    let fault = server_handshake_fault("pg1", &connected.unwrap_err());
    assert!(fault.hint.unwrap().contains("put this very certificate"));
}

#[test]
fn only_a_verifier_that_takes_any_certificate_takes_an_unreadable_one() {
    use tokio_rustls::rustls::{CertificateError, Error};
    let folder = TempDir::new().unwrap();
    let root = file(&folder, "root.crt", &Authority::new("our root").pem());
    let roots = pem::certificates(&root).unwrap();
    let checking = PostgresVerifier::checking(provider(), roots, Some(&root), Identity::AnyName).unwrap();
    let trusting = PostgresVerifier::trusting(provider());
    let unreadable = || Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    let forged = || Err(Error::InvalidCertificate(CertificateError::BadSignature));
    assert!(trusting.tolerate(unreadable()).is_ok());
    assert!(trusting.tolerate(forged()).is_err());
    assert!(checking.tolerate(unreadable()).is_err());
}

#[tokio::test]
async fn a_client_certificate_gives_its_common_name() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new("client root");
    let root = authority.pem();
    let server = acceptor(&folder, self_signed(&named("pgweir", &["pgweir"])), Some(&root));
    for (name, signer, expected) in [
        (Some("app"), &authority, Ok(Some("app".to_owned()))),
        (Some("ünïcode"), &authority, Ok(Some("ünïcode".to_owned()))),
        (None, &authority, Ok(None)),
        (Some("app"), &Authority::new("stranger"), Err(())),
    ] {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PostgresVerifier::trusting(provider())));
        let config = match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (cert, key) = signer.sign(&named(name, &[]));
                let chain = pem::certificates(&file(&folder, "client.crt", &cert)).unwrap();
                let key = pem::private_key(&file(&folder, "client.key", &key)).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = handshake(&server, TlsConnector::from(Arc::new(config)), "pgweir").await;
        let found = stream.map(|stream| peer_common_name(stream.get_ref().1.peer_certificates()));
        assert_eq!(found.map_err(|_| ()), expected, "{name:?}");
    }
}

#[tokio::test]
async fn the_protocol_is_named_and_another_one_refused() {
    let folder = TempDir::new().unwrap();
    let server = acceptor(&folder, self_signed(&named("pgweir", &["pgweir"])), None);
    let client = connector(&folder, Require, None).connector().unwrap();
    let stream = handshake(&server, client, "pgweir").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN));
    let mut config = (**connector(&folder, Require, None).config.as_ref().unwrap()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert!(handshake(&server, TlsConnector::from(Arc::new(config)), "pgweir").await.is_err());
}

#[test]
fn disabled_tls_reads_no_files_and_has_no_connector() {
    let ca = Some(PathBuf::from("/nonexistent"));
    let tls = ServerTls::load(&TlsServerSideSettings {
        mode: TlsServerSideMode::Disable,
        opening: TlsOpening::Asked,
        ca,
    })
    .unwrap();
    assert!(tls.connector().is_none());
}

#[test]
fn errors_name_the_file_and_what_is_wrong_with_it() {
    let folder = TempDir::new().unwrap();
    let (cert, key) = self_signed(&named("pgweir", &["pgweir"]));
    let (_, other_key) = self_signed(&named("pgweir", &["pgweir"]));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let load = |cert: &str, key: &str, ca: Option<&str>| {
        let settings = TlsClientSideSettings {
            cert: file(&folder, "c.crt", cert),
            key: file(&folder, "c.key", key),
            ca: ca.map(|ca| file(&folder, "ca.crt", ca)),
        };
        ClientTls::load(&settings).unwrap_err().to_string()
    };
    for (error, file, problem) in [
        (load("", &key, None), "c.crt", "holds no certificate"),
        (load(&key, &key, None), "c.crt", "holds no certificate"),
        (load("-----BEGIN CERTIFICATE-----\n!!\n", &key, None), "c.crt", "is not valid PEM"),
        (load(&cert, "", None), "c.key", "holds no usable private key"),
        (load(&cert, encrypted, None), "c.key", "the key is encrypted"),
        (load(&cert, &other_key, None), "c.crt", "not usable with the key"),
        (load(&cert, &key, Some("nothing")), "ca.crt", "holds no certificate"),
    ] {
        assert!(error.contains(file) && error.contains(problem), "{error}");
    }
    let missing = TlsServerSideSettings {
        mode: VerifyCa,
        opening: TlsOpening::Asked,
        ca: Some(folder.path().join("none.crt")),
    };
    let error = ServerTls::load(&missing).unwrap_err().to_string();
    assert!(error.contains("none.crt: cannot be read"), "{error}");
    assert!(server_name("no host").is_err() && server_name("pg_1.internal").is_ok());
}
