use super::*;
use crate::cluster::patroni::MemberRole;
use crate::lsn::TimelineId;
use crate::moment::Moment;

fn listed(name: &str, host: &str, addresses: Addresses) -> NodeSettings {
    NodeSettings {
        name: name.to_owned(),
        host: host.to_owned(),
        port: 5432,
        weight: 3,
        addresses,
        ..NodeSettings::default()
    }
}

fn testimony(members: &[(&str, Option<&str>, &[&str])]) -> Testimony {
    let member = |(name, host, tags): &(&str, Option<&str>, &[&str])| Member {
        name: (*name).into(),
        role: MemberRole::Follower,
        word: "replica".into(),
        state: "running".into(),
        host: host.map(Into::into),
        port: Some(5432),
        timeline: Some(TimelineId(1)),
        lag: None,
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
    };
    Testimony {
        asked: Moment(1),
        endpoint: "e".into(),
        members: members.iter().map(member).collect(),
        paused: false,
        disputed: false,
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

const NOBODY: &dyn Fn(&str) -> bool = &|_| false;

/// `name@host`, or `name@address`.
fn drawn(members: &Members) -> Vec<String> {
    let nodes = members.nodes().into_iter();
    nodes
        .map(|node| match node.addresses {
            Addresses::Fixed(address) => format!("{}@{address}", node.name),
            Addresses::Any | Addresses::Each => format!("{}@{}", node.name, node.host),
        })
        .collect()
}

#[test]
fn a_name_is_a_node_per_address_and_numbers_stay_with_their_addresses() {
    let mut members = Members::default();
    members.list(&[listed("db", "db.internal", Addresses::Each), listed("pg", "h", Addresses::Any)], false);
    assert_eq!(drawn(&members), ["pg@h"], "nobody knows yet what the name stands for");
    members.resolved("db", &[ip(1), ip(2)], NOBODY);
    assert_eq!(drawn(&members), ["db-1@10.0.0.1", "db-2@10.0.0.2", "pg@h"]);
    assert!(members.nodes()[0].weight == 3 && members.nodes()[0].found);
    // Another order is no change; who is gone is gone, unless it answers; a new one takes the free number.
    members.resolved("db", &[ip(2), ip(1)], NOBODY);
    assert_eq!(drawn(&members), ["db-1@10.0.0.1", "db-2@10.0.0.2", "pg@h"]);
    members.resolved("db", &[ip(2)], &|name| name == "db-1");
    assert_eq!(drawn(&members), ["db-1@10.0.0.1", "db-2@10.0.0.2", "pg@h"]);
    members.resolved("db", &[ip(2)], NOBODY);
    assert_eq!(drawn(&members), ["db-1@10.0.0.1", "db-2@10.0.0.2", "pg@h"], "once is not enough");
    members.resolved("db", &[ip(2)], &|name| name == "db-1");
    members.resolved("db", &[ip(2)], NOBODY);
    assert_eq!(drawn(&members), ["db-1@10.0.0.1", "db-2@10.0.0.2", "pg@h"], "nor is twice, not in a row");
    members.resolved("db", &[ip(2)], NOBODY);
    assert_eq!(drawn(&members), ["db-2@10.0.0.2", "pg@h"]);
    members.resolved("db", &[ip(2), ip(9)], NOBODY);
    assert_eq!(drawn(&members), ["db-1@10.0.0.9", "db-2@10.0.0.2", "pg@h"]);
    members.resolved("db", &[], NOBODY);
    assert_eq!(drawn(&members), ["db-1@10.0.0.9", "db-2@10.0.0.2", "pg@h"], "no answer proves nothing");
}

#[test]
fn a_reload_that_says_something_else_of_a_name_keeps_what_it_stands_for() {
    let mut members = Members::default();
    let before = listed("db", "db.internal", Addresses::Each);
    members.list(std::slice::from_ref(&before), false);
    members.resolved("db", &[ip(1), ip(2)], NOBODY);
    let (zone, tags) = (Some("a".to_owned()), vec!["reports".to_owned()]);
    members.list(&[NodeSettings { weight: 7, zone, tags, ..before.clone() }], false);
    assert_eq!(drawn(&members), ["db-1@10.0.0.1", "db-2@10.0.0.2"]);
    assert!(members.nodes().iter().all(|node| node.weight == 7 && node.tags == ["reports"]));
    // Where it is, is another matter.
    members.list(&[listed("db", "elsewhere.internal", Addresses::Each)], false);
    assert!(members.nodes().is_empty());
}

#[test]
fn patronis_members_come_move_and_go() {
    let mut members = Members::default();
    members.list(&[], true);
    members.testified(
        &testimony(&[("a", Some("10.0.0.1"), &[]), ("b", Some("10.0.0.2"), &["noloadbalance"])]),
        NOBODY,
    );
    assert_eq!(drawn(&members), ["a@10.0.0.1", "b@10.0.0.2"]);
    assert_eq!(members.nodes().iter().map(|node| node.without_reads).collect::<Vec<_>>(), [false, true]);
    // a has a new address; b's agent is being started; c is new, and nobody knows where.
    members
        .testified(&testimony(&[("a", Some("10.0.0.7"), &[]), ("b", None, &[]), ("c", None, &[])]), NOBODY);
    assert_eq!(drawn(&members), ["a@10.0.0.7", "b@10.0.0.2"]);
    // b's agent was stopped, its server was not.
    members.testified(&testimony(&[("a", Some("10.0.0.7"), &[])]), &|name| name == "b");
    assert_eq!(drawn(&members), ["a@10.0.0.7", "b@10.0.0.2"]);
    members.testified(&testimony(&[("a", Some("10.0.0.7"), &[])]), NOBODY);
    assert_eq!(drawn(&members), ["a@10.0.0.7", "b@10.0.0.2"], "once is not enough");
    members.testified(&testimony(&[]), NOBODY);
    members.testified(&testimony(&[("a", Some("10.0.0.7"), &[])]), NOBODY);
    assert_eq!(drawn(&members), ["a@10.0.0.7"]);
    members.testified(&testimony(&[]), NOBODY);
    assert_eq!(drawn(&members), ["a@10.0.0.7"], "an answer without members proves nothing");
    members.list(&[listed("x", "h", Addresses::Any)], false);
    assert_eq!(drawn(&members), ["x@h"], "Patroni is not asked any more");
}

#[test]
fn what_is_listed_says_where_and_patroni_says_what_for() {
    let mut members = Members::default();
    members.list(
        &[listed("a", "public.example", Addresses::Any), listed("y", "10.0.0.2", Addresses::Any)],
        true,
    );
    members.testified(
        &testimony(&[("a", Some("10.0.0.1"), &["analytics", "noloadbalance"]), ("b", Some("10.0.0.2"), &[])]),
        NOBODY,
    );
    assert_eq!(drawn(&members), ["a@public.example", "y@10.0.0.2"], "by name, and by place");
    let first = &members.nodes()[0];
    assert_eq!((first.tags.len(), first.without_reads, first.weight, first.found), (2, true, 3, false));
}

#[test]
fn there_are_never_more_nodes_than_can_take_part() {
    let mut members = Members::default();
    members.list(&[listed("db", "db.internal", Addresses::Each), listed("pg", "h", Addresses::Any)], true);
    let many: Vec<IpAddr> = (0..=255).map(ip).collect();
    members.resolved("db", &many, NOBODY);
    members.testified(&testimony(&[("a", Some("10.1.0.1"), &[])]), NOBODY);
    assert_eq!(members.nodes().len(), NODES_MAX);
}
