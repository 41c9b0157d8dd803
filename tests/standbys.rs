//! Standbys that nobody listed: the nodes that they stream from name them.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/fake_patroni.rs"]
mod fake_patroni;
#[path = "support/fault_proxy.rs"]
mod fault_proxy;
#[path = "support/harness.rs"]
mod harness;
#[path = "support/papers.rs"]
mod papers;
#[path = "support/wire_client.rs"]
mod wire_client;
#[path = "support/wires.rs"]
mod wires;

use fake_patroni::{Demands, FakePatroni, Member, Says};
use fault_proxy::{FaultProxy, Network};
use harness::{LONG, NO_WRITER, SERVED_BY, Stage, Tuning, Weir, served_by, wait_for, wait_until_or};
use pgweir::devcluster::{APP_DATABASE, DevNode, MONITOR, Options, REPLICATION, Stop};
use std::collections::BTreeSet;
use wire_client::{Login, Wire, copy_data, query, rows_of};

const SCHEMA: [&str; 3] =
    [NO_WRITER, SERVED_BY, "CREATE TABLE taken (node text DEFAULT current_setting('cluster_name'))"];

/// These nodes are listed, and what else there is stands in `discover`.
fn finding(listed: &[&DevNode], discover: &str) -> Tuning {
    let node =
        |node: &&DevNode| format!("{{ name: {}, host: 127.0.0.1, port: {} }}", node.name(), node.port());
    let nodes: Vec<String> = listed.iter().map(node).collect();
    Tuning {
        cluster: vec![
            format!("nodes: [ {} ]", nodes.join(", ")),
            format!("discover: {{ interval: 100ms, {discover} }}"),
        ],
        unlisted: true,
        limits: vec!["hold_time: 50s".to_owned()],
        ..Tuning::patient(&[])
    }
}

/// On one machine, where all have one address, a mapping tells them apart.
fn mapped(nodes: &[DevNode]) -> String {
    let place = |node: &DevNode| format!("{}: \"127.0.0.1:{}\"", node.name(), node.port());
    format!("hosts: {{ {} }}", nodes.iter().map(place).collect::<Vec<_>>().join(", "))
}

fn names(weir: &Weir<'_>) -> Vec<String> {
    weir.status().nodes.into_iter().map(|row| row.member).collect()
}

/// What the nodes say of those who stream.
fn said(weir: &Weir<'_>) -> Vec<String> {
    let rows = weir.status().evidence.into_iter().filter(|row| row.source == "replication");
    rows.map(|row| format!("{}: {}", row.member.as_deref().unwrap_or("-"), row.says)).collect()
}

/// Waits until they say just this: who has just begun to stream is still catching up.
fn wait_said(weir: &Weir<'_>, expected: &[&str]) {
    wait_until(weir, &format!("{expected:?} is said"), || said(weir) == expected);
}

fn wait_until(weir: &Weir<'_>, what: &str, condition: impl FnMut() -> bool) {
    wait_until_or(what, condition, || weir.evidence());
}

fn is_there(weir: &Weir<'_>, node: &DevNode) -> bool {
    names(weir).iter().any(|name| name == node.name())
}

/// Waits until exactly these serve reads.
fn wait_served_by(weir: &Weir<'_>, nodes: &[&DevNode]) {
    let expected: BTreeSet<&str> = nodes.iter().map(|node| node.name()).collect();
    weir.stage().run(async {
        wait_for(&format!("{expected:?} serve"), async || {
            let mut seen = BTreeSet::new();
            // Whoever reads again and again is served best where it was just served.
            for _ in 0..20 {
                seen.insert(served_by(&weir.connect().await).await);
            }
            seen.iter().map(String::as_str).collect::<BTreeSet<_>>() == expected
        })
        .await;
    });
}

fn insert(weir: &Weir<'_>) {
    weir.stage().run(async {
        weir.connect().await.batch_execute("INSERT INTO taken DEFAULT VALUES").await.unwrap();
    });
}

/// A replication connection to the primary, and the position from which to stream.
fn replicator(primary: &DevNode, mode: &str, name: &str) -> (Wire, String) {
    let login = Login::new(REPLICATION.name, REPLICATION.password, APP_DATABASE)
        .with("replication", mode)
        .with("application_name", name);
    let mut wire = Wire::connect(primary.port(), &login).unwrap();
    let position = rows_of(&wire.run("IDENTIFY_SYSTEM"))[0][2].clone().unwrap();
    (wire, position)
}

/// Has written and flushed this much, and replayed so much ("Standby status update").
fn tell(wire: &mut Wire, replayed: u64) {
    let mut update = vec![b'r'];
    for number in [0x0100_0000, 0x0100_0000, replayed, 0] {
        update.extend_from_slice(&u64::to_be_bytes(number));
    }
    update.push(0);
    wire.send(&copy_data(&update));
}

/// Streams WAL, and says that it has replayed so much.
fn receiving(primary: &DevNode, name: &str, replayed: u64) -> Wire {
    let (mut wire, position) = replicator(primary, "true", name);
    wire.send(&query(&format!("START_REPLICATION PHYSICAL {position}")));
    assert_eq!(wire.next().tag, b'W');
    tell(&mut wire, replayed);
    wire
}

/// As a subscription does, which says what it has applied.
fn decoding(primary: &DevNode, name: &str) -> Wire {
    primary.sql("CREATE PUBLICATION everything FOR ALL TABLES").unwrap();
    let (mut wire, _) = replicator(primary, "database", name);
    wire.send(&query("CREATE_REPLICATION_SLOT \"decoder\" TEMPORARY LOGICAL pgoutput"));
    // It waits until the log tells which transactions run: now, not every 15 s.
    for _ in 0..3 {
        primary.sql("CHECKPOINT").unwrap();
    }
    let position = rows_of(&wire.until_ready())[0][1].clone().unwrap();
    wire.send(&query(&format!(
        "START_REPLICATION SLOT \"decoder\" LOGICAL {position} \
         (proto_version '1', publication_names 'everything')"
    )));
    assert_eq!(wire.next().tag, b'W');
    tell(&mut wire, 0x0100_0000);
    wire
}

#[test]
fn only_the_primary_is_listed_and_reads_go_to_all_standbys_and_to_nobody_else_who_streams() {
    let stage = Stage::with(Options::default().set("wal_level", "logical"), &SCHEMA);
    let (primary, replicas) = (stage.cluster.primary(), stage.cluster.replicas());
    // Whoever is taken for a standby would be seen.
    let mut hosts = mapped(replicas);
    for (name, port) in [("decoder", 1), ("receiver", 2), ("replayer", 3)] {
        hosts = hosts.replace(" }", &format!(", {name}: \"127.0.0.1:{port}\" }}"));
    }
    let weir = stage.weir_with(&finding(&[primary], &hosts));
    assert_eq!(names(&weir), ["pg1", "pg2", "pg3"]);
    wait_served_by(&weir, &[&replicas[0], &replicas[1]]);
    insert(&weir);
    let pg2 = "pg2: standby of pg1, streaming, calls itself \"pg2\"";
    wait_said(&weir, &[pg2, "pg3: standby of pg1, streaming, calls itself \"pg3\""]);
    assert_eq!(weir.metric("pgweir_standbys_found", ""), 2.0);

    let _decoder = decoding(primary, "decoder");
    let _receiver = receiving(primary, "receiver", 0);
    let receivers = "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn IS NOT NULL";
    let count = || primary.sql_value(receivers).unwrap();
    wait_until(&weir, "both stream", || count().as_deref() == Some("4"));
    // In the answer that has this one, the others were seen, too.
    let replayer = receiving(primary, "replayer", 0x0100_0000);
    wait_until(&weir, "the fourth standby is a node", || names(&weir).len() > 3);
    assert_eq!(names(&weir), ["pg1", "pg2", "pg3", "replayer"]);
    drop(replayer);
    wait_until(&weir, "it is gone, and never answered", || names(&weir).len() == 3);
}

#[test]
fn a_standby_that_is_stopped_comes_back_and_a_new_one_is_found() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (one, other) = (stage.cluster.replica(0), stage.cluster.replica(1));
    other.stop(Stop::Fast).unwrap();
    let weir = stage.weir_at_once(&finding(&[stage.cluster.primary()], &mapped(stage.cluster.replicas())));
    weir.wait_whole(2);
    wait_served_by(&weir, &[one]);
    other.start().unwrap();
    wait_served_by(&weir, &[one, other]);
    assert_eq!(names(&weir), ["pg1", "pg2", "pg3"]);
    one.stop(Stop::Immediate).unwrap();
    wait_until(&weir, "it is gone", || !is_there(&weir, one));
    wait_served_by(&weir, &[other]);
    one.start().unwrap();
    wait_served_by(&weir, &[one, other]);
    // One that does not stream, and answers, stays.
    one.set("primary_conninfo", "host=127.0.0.1 port=1").unwrap();
    wait_until(&weir, "it streams no more", || said(&weir).len() == 1);
    let standby = format!("{}: standby of pg1", other.name());
    for _ in 0..3 {
        assert!(is_there(&weir, one) && said(&weir)[0].starts_with(&standby));
        insert(&weir);
    }
}

#[test]
fn the_mapping_says_where_a_standby_is_reached_and_who_is_left_out() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (primary, one) = (stage.cluster.primary(), stage.cluster.replica(0));
    let detour = stage.run(FaultProxy::before(one.address()));
    let hosts = format!("only_mapped: true, hosts: {{ pg2: \"localhost:{}\" }}", detour.address.port());
    let weir = stage.weir_at_once(&finding(&[primary], &hosts));
    weir.wait_whole(2);
    wait_served_by(&weir, &[one]);
    let row = weir.status().nodes.pop().unwrap();
    assert_eq!(
        (row.member.as_str(), row.host.as_str(), row.port),
        ("pg2", "localhost", detour.address.port())
    );
    detour.becomes(Network::Dropping);
    weir.wait_node("pg2", "is down, and streams", |row| row.state == "down");
    wait_said(&weir, &["pg2: standby of pg1, streaming, calls itself \"pg2\""]);
    detour.becomes(Network::Whole);
    weir.wait_node("pg2", "is back", |row| row.serves_reads);
    assert_eq!(names(&weir), ["pg1", "pg2"]);
}

#[test]
fn a_standby_without_a_name_is_named_by_its_place() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let (primary, standby) = (stage.cluster.primary(), stage.cluster.replica(0));
    let following = standby.sql_value("SHOW primary_conninfo").unwrap().unwrap();
    let anonymous = following.replace("application_name=pg2", "application_name=walreceiver");
    standby.set("primary_conninfo", &anonymous).unwrap();
    let is_anonymous = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'walreceiver' AND replay_lsn > '0/0'";
    harness::wait_until("it streams again", || {
        primary.sql_value(is_anonymous).unwrap().as_deref() == Some("1")
    });
    let weir = stage.weir_at_once(&finding(&[primary], &format!("port: {}", standby.port())));
    weir.wait_whole(2);
    assert_eq!(names(&weir), ["pg1".to_owned(), format!("127.0.0.1:{}", standby.port())]);
    wait_served_by(&weir, &[standby]);
    // It gets a name: it is the same node.
    standby.set("primary_conninfo", &following).unwrap();
    wait_until(&weir, "it has a name", || said(&weir).iter().any(|says| says.ends_with("\"pg2\"")));
    assert_eq!(names(&weir), ["pg1".to_owned(), format!("127.0.0.1:{}", standby.port())]);
}

#[test]
fn after_a_promotion_the_new_primary_names_its_standbys() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (old, new, other) = (stage.cluster.primary(), stage.cluster.replica(0), stage.cluster.replica(1));
    other.stop(Stop::Fast).unwrap();
    let weir = stage.weir_at_once(&finding(&[old], &mapped(stage.cluster.nodes())));
    weir.wait_whole(2);
    insert(&weir);
    new.wait_caught_up(old, LONG).unwrap();
    old.sigkill().unwrap();
    new.promote().unwrap();
    insert(&weir);
    wait_until(&weir, "the new primary is asked", || said(&weir).is_empty());
    assert_eq!(
        (weir.status().primary.as_deref(), names(&weir)),
        (Some("pg2"), vec!["pg1".into(), "pg2".into()])
    );
    other.reattach(new).unwrap();
    weir.wait_node("pg3", "serves", |row| row.serves_reads);
    wait_served_by(&weir, &[other]);
    wait_said(&weir, &["pg3: standby of pg2, streaming, calls itself \"pg3\""]);
    // And the old one comes back as what it was listed as.
    old.reattach(new).unwrap();
    wait_served_by(&weir, &[old, other]);
    wait_until(&weir, "it streams", || said(&weir).len() == 2);
    assert_eq!(names(&weir), ["pg1", "pg2", "pg3"]);
}

#[test]
fn standbys_of_standbys_are_found() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (primary, one, other) = (stage.cluster.primary(), stage.cluster.replica(0), stage.cluster.replica(1));
    other.follow(one).unwrap();
    let weir = stage.weir_with(&finding(&[primary], &mapped(stage.cluster.replicas())));
    let expected = ["pg2: standby of pg1", "pg3: standby of pg2"];
    wait_until(&weir, "both are found", || {
        let said = said(&weir);
        said.len() == 2 && expected.iter().zip(&said).all(|(part, says)| says.starts_with(part))
    });
    wait_served_by(&weir, &[one, other]);
}

#[test]
fn what_the_monitor_may_not_see_is_said() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let primary = stage.cluster.primary();
    primary.sql(&format!("REVOKE pg_monitor FROM {}", MONITOR.name)).unwrap();
    let weir = stage.weir_at_once(&finding(&[primary], &mapped(stage.cluster.replicas())));
    let hidden = "-: the monitor's role may not see who streams, and from where: GRANT pg_monitor to it";
    wait_until(&weir, "it is said", || said(&weir) == [hidden]);
    assert_eq!(names(&weir), ["pg1"]);
    primary.sql(&format!("GRANT pg_monitor TO {}", MONITOR.name)).unwrap();
    weir.wait_whole(2);
    primary.sql(&format!("REVOKE pg_monitor FROM {}", MONITOR.name)).unwrap();
    wait_until(&weir, "it is said again", || said(&weir) == [hidden]);
    assert_eq!(names(&weir), ["pg1", "pg2"]);
}

#[test]
fn who_is_listed_or_a_member_of_patronis_is_no_second_node() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (primary, one, other) = (stage.cluster.primary(), stage.cluster.replica(0), stage.cluster.replica(1));
    let member = Member { name: "third".to_owned(), port: other.port(), timeline: 1, tags: "{}".to_owned() };
    let says = Says { members: vec![member], ..Says::default() };
    let api = stage.run(FakePatroni::start(Demands::default(), Says { paused: true, ..says }));
    let mut tuning = finding(&[primary], &mapped(stage.cluster.replicas()));
    let by_name = format!(", {{ name: other, host: localhost, port: {} }} ]", one.port());
    tuning.cluster[0] = tuning.cluster[0].replace(" ]", &by_name);
    let without_patroni = tuning.clone();
    let weir = stage.weir_with(&without_patroni);
    assert_eq!(names(&weir), ["pg1", "other", "pg3"]);
    let second = "other: standby of pg1, streaming, calls itself \"pg2\"";
    wait_until(&weir, "all is said", || matches!(&said(&weir)[..], [first, _] if first == second));
    drop(weir);
    let endpoint = format!("http://127.0.0.1:{}", api.port);
    tuning
        .cluster
        .push(format!("patroni: {{ endpoints: [ \"{endpoint}\" ], interval: 100ms, timeout: 5s }}"));
    let weir = stage.weir_at_once(&tuning);
    wait_until(&weir, "Patroni's name is its name", || names(&weir) == ["pg1", "other", "third"]);
    weir.wait_whole(3);
    wait_served_by(&weir, &[one, other]);
    assert_eq!(names(&weir), ["pg1", "other", "third"]);
}

#[test]
fn a_reload_begins_to_look_for_standbys_and_ends_it() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let (primary, standby) = (stage.cluster.primary(), stage.cluster.replica(0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let finding = finding(&[primary], &mapped(stage.cluster.replicas()));
    let weir = stage.weir_from(&finding, &file);
    let reload = |tuning: &Tuning| {
        std::fs::write(&file, tuning.yaml(stage.cluster.nodes())).unwrap();
        stage.run(async {
            let console = weir.connect_as(pgweir::devcluster::APP, "pgweir", "").await.unwrap();
            console.batch_execute("RELOAD").await.unwrap();
        });
    };
    // The same standby, reached elsewhere: the same node.
    let detour = stage.run(FaultProxy::before(standby.address()));
    let elsewhere =
        |line: &String| line.replace(&standby.port().to_string(), &detour.address.port().to_string());
    reload(&Tuning { cluster: finding.cluster.iter().map(elsewhere).collect(), ..finding.clone() });
    weir.wait_node("pg2", "is elsewhere", |row| row.port == detour.address.port() && row.serves_reads);
    assert_eq!(names(&weir), ["pg1", "pg2"]);
    reload(&Tuning { cluster: vec![finding.cluster[0].clone()], ..finding.clone() });
    wait_until(&weir, "nobody looks for it", || names(&weir) == ["pg1"] && said(&weir).is_empty());
    reload(&finding);
    weir.wait_node("pg2", "is found again", |row| row.port == standby.port() && row.serves_reads);
    insert(&weir);
}
