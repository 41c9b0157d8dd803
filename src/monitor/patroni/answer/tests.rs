#![allow(clippy::unwrap_used)]

use super::*;

/// As Patroni 3.0.2 prints it.
const CLUSTER: &str = r#"{"members": [
  {"name": "pg1", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:8008/patroni",
   "host": "127.0.0.1", "port": 5432, "timeline": 3, "pending_restart": true,
   "tags": {"analytics": true, "nofailover": false, "clonefrom": "yes", "replicatefrom": "pg2"}},
  {"name": "pg2", "role": "sync_standby", "state": "running", "api_url": "http://127.0.0.1:8009/patroni",
   "host": "127.0.0.1", "port": 5433, "timeline": 3, "tags": {"noloadbalance": true}, "lag": 16},
  {"name": "pg3", "role": "replica", "state": "start failed", "api_url": "http://127.0.0.1:8010/patroni",
   "lag": "unknown"}],
 "pause": true, "sync": {"quorum": 1, "members": ["pg1", "pg2"]},
 "scheduled_switchover": {"at": "2026-11-21T20:00:00+00:00", "from": "pg1"}}"#;

#[test]
fn what_patroni_prints_is_understood() {
    let testimony = read(CLUSTER.as_bytes(), Moment(7), "http://127.0.0.1:8008").unwrap();
    assert!(testimony.paused && !testimony.disputed && testimony.asked == Moment(7));
    let [one, two, three] = testimony.members.as_slice() else { unreachable!() };
    assert_eq!(testimony.leader(), Some(one));
    assert_eq!(
        (one.host.as_deref(), one.port, one.timeline),
        (Some("127.0.0.1"), Some(5432), Some(TimelineId(3)))
    );
    let mut tags: Vec<&str> = one.tags.iter().map(AsRef::as_ref).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["analytics", "clonefrom"]);
    assert_eq!(
        (&*two.word, two.role, two.lag, two.is_without_reads()),
        ("sync_standby", MemberRole::Follower, Some(16), true)
    );
    assert_eq!(
        (&*three.state, three.host.as_deref(), three.port, three.timeline, three.lag),
        ("start failed", None, None, None, None)
    );
}

#[test]
fn what_is_not_patronis_is_refused() {
    let two_leaders = r#"{"members": [{"name": "a", "role": "leader"}, {"name": "b", "role": "master"}]}"#;
    let many: Vec<String> = (0..65).map(|number| format!(r#"{{"name": "m{number}"}}"#)).collect();
    let many = format!(r#"{{"members": [{}]}}"#, many.join(","));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [
        "",
        "{}",
        "[]",
        "<html></html>",
        r#"{"members": 1}"#,
        r#"{"members": []}"#,
        r#"{"members": [{}]}"#,
        r#"{"members": [{"name": ""}]}"#,
        r#"{"members": [{"name": "a\u0000"}]}"#,
        r#"{"members": [{"name": "a"}, {"name": "a"}]}"#,
        two_leaders,
        &many,
        &deep,
    ] {
        assert!(read(body.as_bytes(), Moment(1), "e").is_err(), "{}", &body[..body.len().min(80)]);
    }
}

#[test]
fn a_member_that_says_nonsense_of_itself_says_nothing() {
    let body = r#"{"members": [{"name": "a", "role": "replica", "host": "/tmp", "port": 70000,
        "timeline": -1, "lag": {}, "tags": {"x": 1}}]}"#;
    let testimony = read(body.as_bytes(), Moment(1), "e").unwrap();
    let member = &testimony.members[0];
    assert_eq!((&member.host, member.port, member.timeline, member.lag), (&None, None, None, None));
    assert!(member.tags.is_empty() && testimony.leader().is_none());
}
