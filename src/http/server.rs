//! The server: bounded in connections, header size and time.

use crate::http::status::StatusSource;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at the same time; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
const HEADER_TIME: Duration = Duration::from_secs(5);
/// A connection lives at most so long, whatever it does.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// How long open connections are left when it ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

const INDEX: &str = "\
pgweir: writes to the primary, reads to the replicas

/metrics      for Prometheus
/healthz      200 while the process lives (with reuse_port: until it drains)
/readyz       200 while a primary or a replica serves, else 503 with the reason
/status.json  nodes, pools and statements (pgweir status shows it as a table)
";

/// Serves until `shutdown` is done; open connections are then closed, within a second.
pub async fn serve(listener: TcpListener, source: Arc<dyn StatusSource>, shutdown: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Ok(slot) = slots.clone().try_acquire_owned() {
                        connections.spawn(connection(stream, source.clone(), slot));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "http: cannot accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            },
        }
    }
    // Who was connected before gets an answer.
    for _ in 0..CONNECTIONS_MAX {
        let waiting = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
        let Ok(Ok((stream, _))) = waiting else { break };
        let Ok(slot) = slots.clone().try_acquire_owned() else { break };
        connections.spawn(connection(stream, source.clone(), slot));
    }
    drop(listener);
    let answered = async { while connections.join_next().await.is_some() {} };
    drop(tokio::time::timeout(LAST_ANSWERS, answered).await);
}

async fn connection(stream: TcpStream, source: Arc<dyn StatusSource>, _slot: OwnedSemaphorePermit) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &*source);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "http: connection failed"),
        Err(_) => tracing::debug!("http: connection closed: it took too long"),
    }
}

fn answer(method: &Method, path: &str, source: &dyn StatusSource) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/" => text(StatusCode::OK, INDEX),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/metrics" => response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", source.metrics()),
        "/readyz" => {
            let readiness = source.readiness();
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, &readiness)
        }
        "/status.json" => json(StatusCode::OK, &source.status()),
        _ => text(StatusCode::NOT_FOUND, "not found; / says what there is\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => response(status, "application/json", body),
        Err(error) => {
            tracing::error!(%error, "http: cannot encode an answer");
            text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the answer\n")
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
