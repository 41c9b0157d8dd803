use super::*;
use crate::cluster::patroni::{Member, MemberRole, Testimony};
use crate::monitor::members::Members;
use std::collections::BTreeMap;

const NOBODY: &dyn Fn(&str) -> bool = &|_| false;

/// `name@address`, or `name` for one that comes through a Unix socket.
fn receiver(who: &str) -> Receiver {
    let (name, address) = who.split_once('@').unwrap_or((who, ""));
    Receiver {
        from: "pg1".into(),
        application_name: name.to_owned(),
        address: address.parse().ok(),
        state: Some("streaming".to_owned()),
        replays: true,
    }
}

fn settings(hosts: &[(&str, &str, Option<u16>)]) -> DiscoverSettings {
    let place = |host: &str, port: &Option<u16>| Place { host: host.to_owned(), port: *port };
    let hosts: BTreeMap<String, Place> =
        hosts.iter().map(|(who, host, port)| ((*who).to_owned(), place(host, port))).collect();
    DiscoverSettings { port: 5432, hosts, ..DiscoverSettings::default() }
}

fn roll_of(receivers: &[&str], settings: &DiscoverSettings) -> Roll {
    call_the_roll(Moment(1), receivers.iter().map(|who| receiver(who)).collect(), settings)
}

fn roll(receivers: &[&str]) -> Roll {
    roll_of(receivers, &settings(&[]))
}

fn called(roll: &Roll) -> Vec<String> {
    let standbys = roll.standbys.iter();
    standbys
        .map(|standby| format!("{} {}:{}", standby.receiver.application_name, standby.host, standby.port))
        .collect()
}

fn listed(name: &str, host: &str) -> NodeSettings {
    NodeSettings {
        name: name.to_owned(),
        host: host.to_owned(),
        port: 5432,
        weight: 3,
        ..NodeSettings::default()
    }
}

/// Only the primary is listed.
fn members() -> Members {
    let mut members = Members::default();
    members.list(&[listed("pg1", "10.0.0.1")], false);
    members.ask_for_standbys(true);
    members
}

/// `name@host:port` of all but the first.
fn drawn(members: &Members) -> Vec<String> {
    members.nodes()[1..].iter().map(|node| format!("{}@{}:{}", node.name, node.host, node.port)).collect()
}

fn streamed(members: &mut Members, receivers: &[&str]) -> Vec<String> {
    members.streamed(&roll(receivers), Resolved::default(), NOBODY)
}

#[test]
fn whoever_replays_is_a_standby_where_it_comes_from_or_where_it_is_mapped() {
    assert_eq!(called(&roll(&["pg2@10.0.0.2", "pg3@::1"])), ["pg2 10.0.0.2:5432", "pg3 ::1:5432"]);
    let map = settings(&[("pg2", "b.example", Some(5433)), ("10.0.0.3", "c.example", None)]);
    let receivers = ["pg2@10.0.0.2", "pg3@10.0.0.3", "pg4@10.0.0.4"];
    let mapped = ["pg2 b.example:5433", "pg3 c.example:5432"];
    assert_eq!(called(&roll_of(&receivers, &map)), [&mapped[..], &["pg4 10.0.0.4:5432"]].concat());
    let map = DiscoverSettings { only_mapped: true, ..map };
    assert_eq!(called(&roll_of(&receivers, &map)), mapped);
    // What it calls itself is nearer than where it comes from.
    let map = settings(&[("pg2", "b.example", None), ("10.0.0.2", "c.example", None)]);
    assert_eq!(called(&roll_of(&["pg2@10.0.0.2"], &map)), ["pg2 b.example:5432"]);
    let receivewal = Receiver { replays: false, ..receiver("pg2@10.0.0.2") };
    assert_eq!(called(&call_the_roll(Moment(1), vec![receivewal], &settings(&[]))), [""; 0]);
    // Its walsender of before lingers on; and one place is one standby, whatever comes from it.
    assert_eq!(called(&roll(&["pg2@10.0.0.2", "pg2@10.0.0.2", "x@10.0.0.2"])), ["pg2 10.0.0.2:5432"]);
}

#[test]
fn who_comes_through_a_unix_socket_needs_a_mapping() {
    let unmapped = roll(&["pg2"]);
    assert!(unmapped.standbys.is_empty());
    assert!(unmapped.complaints[0].starts_with("the standby \"pg2\" streams from pg1 over a Unix socket"));
    let mapped = roll_of(&["pg2"], &settings(&[("pg2", "/run/postgresql", Some(5433))]));
    assert_eq!(called(&mapped), ["pg2 /run/postgresql:5433"]);
    assert_eq!(mapped.complaints, [""; 0]);
    let only = DiscoverSettings { only_mapped: true, ..settings(&[("pg3", "h", None)]) };
    assert_eq!(roll_of(&["pg2"], &only).complaints, [""; 0], "it was asked to be left out");
}

#[test]
fn what_is_hidden_proves_nothing() {
    let mut members = members();
    streamed(&mut members, &["pg2@10.0.0.2"]);
    let hidden = Receiver { address: None, state: None, replays: false, ..receiver("pg2") };
    let hidden = call_the_roll(Moment(2), vec![hidden], &settings(&[]));
    assert!(hidden.is_hidden && hidden.standbys.is_empty() && hidden.complaints.is_empty());
    for _ in 0..3 {
        members.streamed(&hidden, Resolved::default(), NOBODY);
    }
    assert_eq!(drawn(&members), ["pg2@10.0.0.2:5432"]);
    let said = members.standbys_evidence(Moment(3));
    assert_eq!((said.len(), said[0].says.as_str()), (1, HIDDEN));
}

#[test]
fn a_standby_stays_until_it_is_missed_twice_and_does_not_answer() {
    let mut members = members();
    streamed(&mut members, &["pg2@10.0.0.2", "pg3@10.0.0.3"]);
    assert_eq!(drawn(&members), ["pg2@10.0.0.2:5432", "pg3@10.0.0.3:5432"]);
    assert!(members.nodes()[1].found && members.nodes()[1].weight == 1);
    members.streamed(&roll(&[]), Resolved::default(), &|name| name == "pg2");
    assert_eq!(drawn(&members).len(), 2, "once is not enough");
    members.streamed(&roll(&[]), Resolved::default(), &|name| name == "pg2");
    assert_eq!(drawn(&members), ["pg2@10.0.0.2:5432"], "it answers, whoever sends it WAL");
    members.ask_for_standbys(true);
    assert_eq!(drawn(&members), ["pg2@10.0.0.2:5432"], "a reload");
    assert_eq!(members.standbys_count(), Some(0));
    members.ask_for_standbys(false);
    assert_eq!((drawn(&members).len(), members.standbys_count()), (0, None));
}

#[test]
fn names_are_given_once() {
    let table: [(&str, &[&str], &[&str]); 9] = [
        ("as it calls itself", &["pg2@10.0.0.2"], &["pg2@10.0.0.2:5432"]),
        ("with no name", &["walreceiver@10.0.0.2"], &["10.0.0.2:5432@10.0.0.2:5432"]),
        ("with an empty one", &["@10.0.0.2"], &["10.0.0.2:5432@10.0.0.2:5432"]),
        (
            // Debian's cluster_name, which is the application_name where there is no other.
            "with one for all",
            &["18/main@10.0.0.2", "18/main@10.0.0.3"],
            &["10.0.0.2:5432@10.0.0.2:5432", "10.0.0.3:5432@10.0.0.3:5432"],
        ),
        ("with that of a listed node", &["pg1@10.0.0.2"], &["10.0.0.2:5432@10.0.0.2:5432"]),
        ("a listed node", &["pg2@10.0.0.1"], &[]),
        ("over IPv6", &["walreceiver@::1"], &["[::1]:5432@::1:5432"]),
        ("with another's place as its name", &["10.0.0.1:5432@10.0.0.2"], &["10.0.0.1:5432@10.0.0.2:5432"]),
        ("nobody", &[], &[]),
    ];
    for (what, receivers, expected) in table {
        let mut members = members();
        streamed(&mut members, receivers);
        assert_eq!(drawn(&members), expected, "{what}");
    }
}

#[test]
fn a_name_stays_with_its_standby() {
    let mut members = members();
    streamed(&mut members, &["main@10.0.0.2"]);
    streamed(&mut members, &["main@10.0.0.2", "main@10.0.0.3"]);
    let both = ["main@10.0.0.2:5432", "10.0.0.3:5432@10.0.0.3:5432"];
    assert_eq!(drawn(&members), both);
    streamed(&mut members, &["main@10.0.0.3"]);
    assert_eq!(drawn(&members), both, "the other one is not taken for the one that is missing");
    streamed(&mut members, &["main@10.0.0.3", "main@10.0.0.2"]);
    streamed(&mut members, &["main@10.0.0.3", "renamed@10.0.0.2"]);
    assert_eq!(drawn(&members), both, "what it calls itself has changed, where it is has not");
    // The same standby, which a new configuration reaches elsewhere.
    let map = settings(&[("renamed", "b.example", Some(5433))]);
    members.streamed(&roll_of(&["main@10.0.0.3", "renamed@10.0.0.2"], &map), Resolved::default(), &|_| true);
    assert_eq!(drawn(&members), ["main@b.example:5433", both[1]]);
}

#[test]
fn one_that_comes_back_elsewhere_is_the_same_node_if_it_is_gone_from_where_it_was() {
    let mut members = members();
    streamed(&mut members, &["pg2@10.0.0.2"]);
    members.streamed(&roll(&["pg2@10.0.0.9"]), Resolved::default(), &|name| name == "pg2");
    let two = ["pg2@10.0.0.2:5432", "10.0.0.9:5432@10.0.0.9:5432"];
    assert_eq!(drawn(&members), two, "where it was, somebody answers");
    let mut members = self::members();
    streamed(&mut members, &["pg2@10.0.0.2"]);
    streamed(&mut members, &["pg2@10.0.0.9"]);
    assert_eq!(drawn(&members), ["pg2@10.0.0.9:5432"]);
}

#[test]
fn who_is_known_otherwise_is_no_second_node() {
    let mut members = Members::default();
    let nodes = [listed("pg1", "10.0.0.1"), listed("b", "b.example")];
    members.list(&nodes, true);
    members.ask_for_standbys(true);
    let known = |host: &str, last: u8| {
        Resolved(HashMap::from([(host.to_owned(), vec![IpAddr::from([10, 0, 0, last])])]))
    };
    // Before anybody knows where b.example is.
    members.streamed(&roll(&["pg2@10.0.0.2", "pg3@10.0.0.3"]), Resolved::default(), &|_| true);
    assert_eq!(drawn(&members), ["b@b.example:5432", "pg2@10.0.0.2:5432", "pg3@10.0.0.3:5432"]);
    members.streamed(&roll(&["pg2@10.0.0.2", "pg3@10.0.0.3"]), known("b.example", 2), &|_| true);
    assert_eq!(drawn(&members), ["b@b.example:5432", "pg3@10.0.0.3:5432"]);
    // Patroni names it, too: Patroni's name counts, and its tags.
    let member = Member {
        name: "third".into(),
        role: MemberRole::Follower,
        word: "replica".into(),
        state: "streaming".into(),
        host: Some("10.0.0.3".into()),
        port: Some(5432),
        timeline: None,
        lag: None,
        tags: vec!["analytics".into()],
    };
    let testimony = Testimony {
        asked: Moment(1),
        endpoint: "e".into(),
        members: vec![member],
        paused: false,
        disputed: false,
    };
    members.testified(&testimony, NOBODY);
    assert_eq!(drawn(&members), ["b@b.example:5432", "third@10.0.0.3:5432"]);
    assert_eq!(members.nodes()[2].tags, ["analytics"]);
    members.streamed(&roll(&["pg3@10.0.0.3"]), known("b.example", 2), &|_| true);
    assert_eq!(drawn(&members), ["b@b.example:5432", "third@10.0.0.3:5432"]);
    let said: Vec<_> = members.standbys_evidence(Moment(1)).into_iter().map(|line| line.member).collect();
    assert_eq!(said, [Some("third".into())]);
}

#[test]
fn a_name_that_is_given_to_another_is_given_up() {
    let mut members = members();
    streamed(&mut members, &["pg2@10.0.0.2"]);
    members.list(&[listed("pg1", "10.0.0.1"), listed("pg2", "10.0.0.7")], false);
    assert_eq!(drawn(&members), ["pg2@10.0.0.7:5432"], "two nodes are never called the same");
    streamed(&mut members, &["pg2@10.0.0.2"]);
    assert_eq!(drawn(&members), ["pg2@10.0.0.7:5432", "10.0.0.2:5432@10.0.0.2:5432"]);
}

#[test]
fn an_address_of_a_name_is_a_node_already() {
    let mut members = Members::default();
    let each = NodeSettings { addresses: Addresses::Each, ..listed("db", "db.internal") };
    members.list(&[each], false);
    members.ask_for_standbys(true);
    members.resolved("db", &[[10, 0, 0, 1].into(), [10, 0, 0, 2].into()], NOBODY);
    streamed(&mut members, &["pg2@10.0.0.2", "pg3@10.0.0.3"]);
    let names: Vec<String> = members.nodes().into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["db-1", "db-2", "pg3"]);
}

#[test]
fn a_standby_that_would_be_where_its_source_is_is_told_of() {
    let mut members = members();
    let told = streamed(&mut members, &["pg2@10.0.0.1"]);
    assert_eq!(
        told,
        ["the standby \"pg2\" streams from pg1, and comes from 10.0.0.1: it cannot be where pg1 is, at \
          10.0.0.1:5432; cluster.discover.hosts can say where it is"]
    );
    assert_eq!(drawn(&members), [""; 0]);
}

#[test]
fn there_are_never_more_than_can_take_part() {
    let mut members = members();
    let many: Vec<String> = (0..=255).map(|last| format!("pg{last}@10.1.0.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    streamed(&mut members, &many);
    assert_eq!(members.nodes().len(), NODES_MAX);
    streamed(&mut members, &["x@10.2.0.1"]);
    assert_eq!(members.nodes().len(), NODES_MAX);
}

#[test]
fn what_was_said_is_shown_with_its_age_and_why_there_is_nothing_newer() {
    let mut members = members();
    let shown = |members: &Members| {
        let lines = members.standbys_evidence(Moment(5_000_001)).into_iter();
        let age = |age: Option<std::time::Duration>| age.map_or(String::new(), |age| format!("{age:?} "));
        let line = |line: Line| {
            let member = line.member.as_deref().unwrap_or("-").to_owned();
            format!("{member} {} {}{}", line.source.as_str(), age(line.age), line.says)
        };
        lines.map(line).collect::<Vec<_>>()
    };
    assert_eq!(shown(&members), ["- replication not asked yet"]);
    streamed(&mut members, &["walreceiver@10.0.0.2"]);
    let said = "10.0.0.2:5432 replication 5ms standby of pg1, streaming, calls itself \"walreceiver\"";
    assert_eq!(shown(&members), [said]);
    members.standbys_not_told("pg1: no answer in time");
    assert_eq!(shown(&members), ["- replication not told: pg1: no answer in time", said]);
}
