//! A server that speaks as Patroni's REST API does, and says what a test wants it to say.
#![allow(dead_code, reason = "no test binary uses all of it")]

use base64::Engine;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// One member, as it stands in the answer.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub port: u16,
    pub timeline: u32,
    /// JSON.
    pub tags: String,
}

/// What it says.
#[derive(Clone, Debug, Default)]
pub struct Says {
    pub members: Vec<Member>,
    pub leader: Option<String>,
    pub paused: bool,
    /// In the place of the answer: a status, or (0) nothing at all.
    pub instead: Option<u16>,
}

/// A running API. Dropped, it refuses connections.
pub struct FakePatroni {
    pub port: u16,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

/// What it demands.
#[derive(Clone, Default)]
pub struct Demands {
    /// `user:password`.
    pub login: Option<String>,
    /// Certificate and key, as PEM.
    pub papers: Option<(String, String)>,
}

impl Drop for FakePatroni {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakePatroni {
    /// Listens on any port of 127.0.0.1.
    pub async fn start(demands: Demands, says: Says) -> FakePatroni {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (says, asked, refused) = (Arc::new(Mutex::new(says)), Arc::default(), Arc::default());
        let desk = Desk {
            login: demands.login.map(|login| base64::engine::general_purpose::STANDARD.encode(login)),
            tls: demands.papers.map(|(certificate, key)| acceptor(&certificate, &key)),
            says: Arc::clone(&says),
            asked: Arc::clone(&asked),
            refused: Arc::clone(&refused),
        };
        let task = tokio::spawn(async move {
            let mut callers = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                callers.spawn(desk.clone().serve(stream));
                while callers.try_join_next().is_some() {}
            }
        });
        FakePatroni { port, says, asked, refused, task }
    }

    /// From now on it says something else.
    pub fn say(&self, change: impl FnOnce(&mut Says)) {
        change(&mut lock(&self.says));
    }

    /// How often it answered.
    pub fn answered(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How often it was asked without the right login.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

fn lock(says: &Mutex<Says>) -> MutexGuard<'_, Says> {
    says.lock().unwrap_or_else(PoisonError::into_inner)
}

fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[derive(Clone)]
struct Desk {
    login: Option<String>,
    tls: Option<TlsAcceptor>,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Desk {
    async fn serve(self, stream: TcpStream) {
        match self.tls.clone() {
            None => self.answer(stream).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.answer(stream).await;
                }
            }
        }
    }

    async fn answer(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            let mut more = [0; 1024];
            match stream.read(&mut more).await {
                Ok(read) if read > 0 => head.extend_from_slice(&more[..read]),
                _ => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("GET /cluster HTTP/1.1\r\n"), "{head}");
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
        };
        assert!(header("host").is_some(), "{head}");
        let says = lock(&self.says).clone();
        let wanted = self.login.as_ref().map(|login| format!("Basic {login}"));
        let (status, body) = match says.instead {
            Some(0) => return std::future::pending().await,
            Some(status) => (status, String::new()),
            None if wanted.as_deref().is_some_and(|wanted| header("authorization") != Some(wanted)) => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                (401, "no auth header received".to_owned())
            }
            None => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                (200, body(&says))
            }
        };
        // As Python's http.server does: HTTP/1.0, and the connection's end is the answer's.
        let answer = format!(
            "HTTP/1.0 {status} X\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n\r\n{body}"
        );
        drop(stream.write_all(answer.as_bytes()).await);
        drop(stream.shutdown().await);
    }
}

/// As `cluster_as_json` of Patroni 3.0.2 has it.
fn body(says: &Says) -> String {
    let member = |member: &Member| {
        let leads = says.leader.as_ref() == Some(&member.name);
        let (role, lag) = if leads { ("leader", "") } else { ("replica", ", \"lag\": 0") };
        format!(
            "{{\"name\": \"{name}\", \"role\": \"{role}\", \"state\": \"running\", \
             \"api_url\": \"http://127.0.0.1:8008/patroni\", \"host\": \"127.0.0.1\", \"port\": {port}, \
             \"timeline\": {timeline}, \"tags\": {tags}{lag}}}",
            name = member.name,
            port = member.port,
            timeline = member.timeline,
            tags = member.tags,
        )
    };
    let members: Vec<String> = says.members.iter().map(member).collect();
    let pause = if says.paused { ", \"pause\": true" } else { "" };
    format!("{{\"members\": [{}]{pause}}}", members.join(", "))
}
