//! What the child says about itself: /status.json and /metrics.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DemoError;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Three nodes' worth of numbers are far below.
const ANSWER_MAX: u64 = 16 << 20;

/// One row of /status.json, as far as the demo shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatus {
    pub(super) member: String,
    pub(super) role: Option<String>,
    pub(super) state: String,
    pub(super) lag_bytes: Option<u64>,
    pub(super) staleness_seconds: Option<f64>,
    pub(super) reads: u64,
    pub(super) writes: u64,
}

#[derive(Deserialize)]
struct Status {
    nodes: Vec<NodeStatus>,
}

/// One line of /metrics.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// Everything that one table needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) nodes: Vec<NodeStatus>,
    pub(super) samples: Vec<Sample>,
}

impl Snapshot {
    /// The sum of a counter over all its labels.
    pub(super) fn total(&self, name: &str) -> f64 {
        // Not sum(): that of nothing is -0.
        self.samples.iter().filter(|s| s.name == name).fold(0.0, |sum, s| sum + s.value)
    }

    /// `pgweir_statements_total` by node and reason.
    pub(super) fn statements(&self) -> BTreeMap<(&str, &str), f64> {
        let mut counts = BTreeMap::new();
        for sample in self.samples.iter().filter(|s| s.name == "pgweir_statements_total") {
            let label = |name: &str| sample.labels.get(name).map_or("-", String::as_str);
            *counts.entry((label("node"), label("reason"))).or_insert(0.0) += sample.value;
        }
        counts
    }

    /// Writes that were sent to a replica, by pgweir's own count.
    pub(super) fn writes_on_replicas(&self) -> u64 {
        self.nodes.iter().filter(|node| self.is_replica(node)).map(|node| node.writes).sum()
    }

    /// Has this node the role of a replica?
    pub(super) fn is_replica(&self, node: &NodeStatus) -> bool {
        node.role.as_deref() == Some("replica")
    }
}

/// Asks for both.
pub(super) async fn snapshot(address: SocketAddr) -> Result<Snapshot, DemoError> {
    let (status, metrics) = ("/status.json", "/metrics");
    let failed = |path| move |source| DemoError::Status { address, path, source };
    let nodes = get(address, status)
        .await
        .and_then(|body| serde_json::from_str::<Status>(&body).map_err(io::Error::other))
        .map_err(failed(status))?
        .nodes;
    let samples = parse(&get(address, metrics).await.map_err(failed(metrics))?);
    Ok(Snapshot { nodes, samples })
}

/// The body of an answer with status 200. HTTP/1.0: the answer ends with the connection.
pub(super) async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    timeout(TIMEOUT, async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
        let (head, body) =
            answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
        let first = head.lines().next().unwrap_or_default();
        match first.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(io::Error::other(format!("it says {first}"))),
        }
    })
    .await?
}

/// Prometheus' text format; a line that is something else is left out.
fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.trim_end().rsplit_once(' ')?;
    let (name, labels) = match head.split_once('{') {
        Some((name, rest)) => (name, labels(rest)?),
        None => (head, BTreeMap::new()),
    };
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

/// `a="b",c="d"}`, with `\\`, `\"` and `\n` in the values.
fn labels(mut rest: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if rest.starts_with('}') {
            return Some(labels);
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = after.char_indices();
        loop {
            match letters.next()? {
                (at, '"') => {
                    rest = &after[at + 1..];
                    break;
                }
                (_, '\\') => match letters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        }
        labels.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_summed_by_node_and_reason() {
        let text = "# TYPE pgweir_statements_total counter\n\
            pgweir_statements_total{database=\"app\",node=\"pg2\",role=\"replica\",reason=\"balanced\"} 7\n\
            pgweir_statements_total{database=\"b\\\"}\",node=\"pg2\",role=\"replica\",reason=\"balanced\"} 3\n\
            pgweir_pins_total 2\n\
            broken{ 1\n";
        let snapshot = Snapshot { nodes: Vec::new(), samples: parse(text) };
        assert_eq!(snapshot.statements(), BTreeMap::from([(("pg2", "balanced"), 10.0)]));
        assert_eq!(snapshot.total("pgweir_pins_total"), 2.0);
        assert_eq!(snapshot.samples.len(), 3);
        assert_eq!(snapshot.samples[1].labels["database"], "b\"}");
    }
}
