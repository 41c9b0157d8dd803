//! `pgweir status`: the nodes of a running pgweir, as `patronictl list` would show them.

use crate::cli::args::StatusArgs;
use crate::cli::{Outcome, load, print};
use crate::http::status::{NodeRow, Status};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
const EVERY: Duration = Duration::from_secs(1);
/// 64 nodes and a thousand pools are far below.
const ANSWER_MAX: u64 = 16 << 20;

/// Asks once, or every second.
pub fn run(config: &Path, args: &StatusArgs) -> Outcome {
    let address = match args.http {
        Some(address) => address,
        None => match load(config).map(|settings| settings.http) {
            None => return Outcome::BadUsage,
            Some(None) => {
                eprintln!("pgweir: http is off in {}: there is nobody to ask", config.display());
                return Outcome::Failed;
            }
            Some(Some(address)) => address,
        },
    };
    let address = reachable(address);
    loop {
        let outcome = show(address, args);
        if !args.watch || outcome != Outcome::Fine {
            return outcome;
        }
        std::thread::sleep(EVERY);
    }
}

/// A server that listens everywhere is asked at home.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

fn show(address: SocketAddr, args: &StatusArgs) -> Outcome {
    let answer = match ask(address) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("pgweir: no pgweir answers at http://{address}: {error}");
            return Outcome::Failed;
        }
    };
    if args.json {
        return print(&format!("{}\n", answer.trim_end()));
    }
    match serde_json::from_str::<Status>(&answer) {
        Ok(status) => {
            let clear = if args.watch { "\x1b[H\x1b[2J" } else { "" };
            let evidence = if args.evidence { evidence(&status) } else { String::new() };
            print(&format!("{clear}{}{evidence}", table(&status)))
        }
        Err(error) => {
            eprintln!("pgweir: what answers at http://{address} is not a pgweir of this version: {error}");
            Outcome::Failed
        }
    }
}

// HTTP/1.0, so that the answer ends with the connection: no client library is needed for one GET.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /status.json HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("the answer is not HTTP"))?;
    let status_line = head.lines().next().unwrap_or_default();
    match status_line.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("it says {status_line}"))),
    }
}

fn table(status: &Status) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "Member",
        "Host",
        "Role",
        "State",
        "TL",
        "Lag",
        "Staleness",
        "Replay",
        "Reads",
        "Writes",
    ]);
    for node in &status.nodes {
        table.add_row(row(node));
    }
    for column in [4, 5, 6, 8, 9] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n{table}\n{}", headline(status), errors(status))
}

fn headline(status: &Status) -> String {
    let cluster = status.system_identifier.as_deref().unwrap_or("unknown");
    let primary = match (&status.conflict, &status.primary) {
        (Some((one, other)), _) => {
            format!("CONFLICT: {one} and {other} both claim to be primary, writes stop")
        }
        (None, Some(name)) => format!("primary {name}"),
        (None, None) if status.disowned.is_some() => {
            let said = status.disowned.as_ref().map(|(node, why)| format!("{node} {why}"));
            format!("no primary, writes wait: {}", said.unwrap_or_default())
        }
        (None, None) => "no primary, writes wait".to_owned(),
    };
    format!("cluster {cluster} · {primary} · {} clients", status.clients)
}

fn row(node: &NodeRow) -> [String; 10] {
    [
        node.member.clone(),
        format!("{}:{}", node.host, node.port),
        node.role.clone().unwrap_or_else(|| "-".to_owned()),
        node.state.clone(),
        node.timeline.map_or("-".to_owned(), |timeline| timeline.to_string()),
        node.lag_bytes.map_or("-".to_owned(), bytes),
        node.staleness_seconds.map_or("-".to_owned(), seconds),
        node.replay.clone().unwrap_or_else(|| "-".to_owned()),
        node.reads.to_string(),
        node.writes.to_string(),
    ]
}

/// Who says what, in the order in which it was weighed.
fn evidence(status: &Status) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["Member", "Source", "Says", "Age"]);
    for row in &status.evidence {
        table.add_row([
            row.member.clone().unwrap_or_else(|| "-".to_owned()),
            row.source.clone(),
            row.says.clone(),
            row.age_seconds.map_or("-".to_owned(), seconds),
        ]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

fn errors(status: &Status) -> String {
    let lines = status.nodes.iter().filter_map(|node| {
        node.last_error
            .as_ref()
            .filter(|_| node.state != "up")
            .map(|error| format!("{}: {error}\n", node.member))
    });
    lines.collect()
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::view::ClusterView;
    use crate::http::status::EvidenceRow;
    use crate::http::{Readiness, StatusSource, serve};
    use std::sync::Arc;

    struct Source;

    impl StatusSource for Source {
        fn status(&self) -> Status {
            Status { primary: Some("pg1".to_owned()), clients: 3, ..Status::default() }
        }

        fn readiness(&self) -> Readiness {
            Readiness::of(&ClusterView::default(), false)
        }

        fn metrics(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn a_running_server_is_asked_and_understood() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::new(Source), std::future::pending()));
        let status: Status = serde_json::from_str(&ask(address).unwrap()).unwrap();
        assert_eq!(headline(&status), "cluster unknown · primary pg1 · 3 clients");
    }

    #[test]
    fn the_table_has_a_row_per_node_and_names_errors() {
        let node = NodeRow {
            member: "pg2".to_owned(),
            host: "10.0.0.2".to_owned(),
            port: 5432,
            role: Some("replica".to_owned()),
            state: "down".to_owned(),
            timeline: Some(3),
            lag_bytes: Some(2048),
            staleness_seconds: Some(0.012),
            reads: 7,
            last_error: Some("connection refused".to_owned()),
            ..NodeRow::default()
        };
        let status = Status { nodes: vec![node], ..Status::default() };
        let shown = table(&status);
        for part in ["pg2", "10.0.0.2:5432", "replica", "down", "2.0 KiB", "12 ms", "pg2: connection refused"]
        {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        assert!(shown.contains("no primary, writes wait"), "{shown}");
        let header: Vec<&str> =
            shown.lines().nth(2).unwrap().split('┆').map(|cell| cell.trim_matches(['│', ' '])).collect();
        assert_eq!(header[..7], ["Member", "Host", "Role", "State", "TL", "Lag", "Staleness"]);
    }

    #[test]
    fn the_evidence_is_shown_with_its_age_and_a_disowned_primary_with_the_reason() {
        let row = EvidenceRow {
            member: Some("pg1".to_owned()),
            source: "patroni".to_owned(),
            says: "leader, running".to_owned(),
            age_seconds: Some(0.25),
        };
        let disowned = Some(("pg2".to_owned(), "is a primary, but Patroni names another leader".to_owned()));
        let status = Status { evidence: vec![row], disowned, ..Status::default() };
        let shown = evidence(&status);
        for part in ["pg1", "patroni", "leader, running", "250 ms"] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        let line = headline(&status);
        assert!(line.contains("writes wait: pg2 is a primary, but Patroni names another leader"), "{line}");
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_at_home() {
        let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9632);
        assert_eq!(reachable(everywhere).to_string(), "127.0.0.1:9632");
    }
}
