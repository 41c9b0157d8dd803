#![allow(clippy::unwrap_used)]
use super::*;
use crate::cluster::view::ClusterView;
use crate::http::status::{Readiness, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

struct Source {
    ready: bool,
}

impl StatusSource for Source {
    fn status(&self) -> Status {
        Status { version: "1.2.3".to_owned(), ..Status::default() }
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::of(&ClusterView::default(), false);
        readiness.ready = self.ready;
        readiness
    }

    fn metrics(&self) -> String {
        "pgweir_clients 0\n".to_owned()
    }
}

/// Sends each request on a connection of its own; gives back the answers.
fn answers(ready: bool, requests: &[&[u8]]) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server =
            tokio::spawn(serve(listener, Arc::new(Source { ready }), async { stopped.await.unwrap() }));
        let mut answers = Vec::new();
        for request in requests {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            // A reset after the answer (an oversized request was not read to its end) is fine.
            stream.read_to_end(&mut answer).await.ok();
            answers.push(String::from_utf8(answer).unwrap());
        }
        stop.send(()).unwrap();
        server.await.unwrap();
        answers
    })
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.0\r\n\r\n")
}

#[test]
fn every_page_answers() {
    for (path, status, part) in [
        ("/", "200", "/metrics"),
        ("/healthz", "200", "ok"),
        ("/metrics", "200", "pgweir_clients 0"),
        ("/status.json", "200", "\"version\":\"1.2.3\""),
        ("/readyz", "200", "\"ready\":true"),
        ("/nowhere", "404", "not found"),
    ] {
        let answer = answers(true, &[get(path).as_bytes()]).remove(0);
        assert!(answer.contains(&format!(" {status} ")) && answer.contains(part), "{path}: {answer}");
    }
}

#[test]
fn not_ready_is_503_with_the_reason() {
    let answer = answers(false, &[get("/readyz").as_bytes()]).remove(0);
    assert!(answer.contains(" 503 ") && answer.contains("no primary and no replica serves"), "{answer}");
}

#[test]
fn what_is_not_a_get_is_refused_and_the_next_one_is_served() {
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let requests: [&[u8]; 4] = [
        b"POST / HTTP/1.0\r\n\r\n",
        b"\x00\x01\x02\xff\r\n\r\n",
        huge.as_bytes(),
        b"GET /healthz HTTP/1.0\r\n\r\n",
    ];
    let answers = answers(true, &requests);
    assert!(answers[0].contains(" 405 ") && answers[0].contains("allow: GET, HEAD"), "{}", answers[0]);
    assert!(!answers[1].contains(" 200 "), "{}", answers[1]);
    assert!(!answers[2].contains(" 200 "), "{}", answers[2]);
    assert!(answers[3].contains(" 200 "), "{}", answers[3]);
}
