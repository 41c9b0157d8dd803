//! Asks Patroni's REST API, and tells the picture what it says.

mod answer;

use crate::clock;
use crate::cluster::patroni::{Testimony, newest};
use crate::config::settings::Endpoint;
use crate::fault::one_line;
use crate::monitor::settings::PatroniSettings;
use crate::monitor::{AbortOnDrop, Shared};
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A cluster of 64 members is described in less.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Never more often than this, however unsettled things are.
const MIN_GAP: Duration = Duration::from_millis(100);

/// Asks again and again, until the monitor is dropped or the task is aborted.
pub(super) async fn run(shared: Weak<Shared>, settings: PatroniSettings) {
    let mut preferred = 0;
    loop {
        let asked = clock::now();
        let answer = consult(&shared, &settings, &mut preferred).await;
        let Some(shared) = shared.upgrade() else { return };
        match answer {
            Ok(testimony) => hear(&shared, testimony),
            Err(error) => {
                let outcome = shared.picture().patroni_failed(&error, clock::now());
                shared.perform(outcome);
            }
        }
        let settled = shared.view.load().primary.is_some();
        let gap = if settled { settings.interval } else { (settings.interval / 5).max(MIN_GAP) };
        drop(shared);
        tokio::time::sleep_until(clock::instant(asked.plus(gap)).into()).await;
    }
}

fn hear(shared: &Arc<Shared>, testimony: Testimony) {
    shared.members().testified(&testimony, &|name| shared.is_up(name));
    shared.apply_members();
    let (outcome, news) = shared.picture().testified(testimony, clock::now());
    shared.perform(outcome);
    // Whoever it names, or does not name any more, says so itself sooner when it is asked.
    shared.wake(|node| news.contains(&node));
}

/// The answer of the first endpoint that gives one, beginning with the one that did before; where it does not
/// agree with what the nodes say themselves, the newest of all answers.
async fn consult(
    shared: &Weak<Shared>,
    settings: &PatroniSettings,
    preferred: &mut usize,
) -> Result<Testimony, String> {
    let count = settings.endpoints.len();
    let mut said = Vec::new();
    for turn in 0..count {
        let index = (*preferred + turn) % count;
        match ask(settings, &settings.endpoints[index]).await {
            Ok(testimony) => {
                *preferred = index;
                let agrees = shared.upgrade().is_some_and(|shared| shared.picture().agrees_with(&testimony));
                if agrees || count == 1 {
                    return Ok(testimony);
                }
                return Ok(newest_of_all(settings, index, testimony).await);
            }
            Err(error) => said.push(format!("{}: {error}", settings.endpoints[index])),
        }
    }
    Err(said.join("; "))
}

async fn newest_of_all(settings: &PatroniSettings, first: usize, testimony: Testimony) -> Testimony {
    let others = settings.endpoints.iter().enumerate().filter(|(index, _)| *index != first);
    let asked = join_all(others.map(|(_, endpoint)| ask(settings, endpoint))).await;
    let answers = std::iter::once(testimony.clone()).chain(asked.into_iter().flatten());
    newest(answers.collect()).unwrap_or(testimony)
}

async fn ask(settings: &PatroniSettings, endpoint: &Endpoint) -> Result<Testimony, String> {
    let asked = clock::now();
    let body = match tokio::time::timeout(settings.timeout, Box::pin(fetch(settings, endpoint))).await {
        Ok(body) => body?,
        Err(_) => return Err("no answer in time".to_owned()),
    };
    answer::read(&body, asked, &endpoint.to_string())
}

/// GET /cluster; the body.
async fn fetch(settings: &PatroniSettings, endpoint: &Endpoint) -> Result<Bytes, String> {
    let stream =
        TcpStream::connect((&*endpoint.host, endpoint.port)).await.map_err(|error| one_line(&error))?;
    if !endpoint.encrypted {
        return exchange(stream, settings, endpoint).await;
    }
    let tls = settings.tls.as_ref().ok_or("TLS is not set up")?;
    let name = crate::net::tls::server_name(&endpoint.host).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(name, stream).await.map_err(|error| one_line(&error))?;
    exchange(stream, settings, endpoint).await
}

async fn exchange<S>(stream: S, settings: &PatroniSettings, endpoint: &Endpoint) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| one_line(&error))?;
    // How it ended shows in the answer, or in its absence.
    let _driver = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
    let request = request(settings, endpoint).map_err(|error| one_line(&error))?;
    let response = sender.send_request(request).await.map_err(|error| one_line(&error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => return Err("it wants another user or password (401)".to_owned()),
        status => return Err(format!("it says {status}")),
    }
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| format!("its answer broke off, or is too long: {error}"))?.to_bytes())
}

fn request(
    settings: &PatroniSettings,
    endpoint: &Endpoint,
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let url = endpoint.to_string();
    let authority = url.split_once("://").map_or("", |(_, authority)| authority);
    let mut request = Request::get("/cluster")
        .header(HOST, authority)
        .header(USER_AGENT, concat!("pgweir/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close");
    if let Some(authorization) = &settings.authorization {
        let mut value = HeaderValue::from_str(authorization)?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Empty::new())
}

/// For those who hold the monitor weakly.
pub(super) fn spawn(shared: &Arc<Shared>, settings: PatroniSettings) -> tokio::task::JoinHandle<()> {
    tokio::spawn(run(Arc::downgrade(shared), settings))
}
