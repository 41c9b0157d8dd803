#![allow(clippy::expect_used)]

use super::*;

fn member(name: &str, role: MemberRole, timeline: u32) -> Member {
    Member {
        name: name.into(),
        role,
        word: "replica".into(),
        state: "running".into(),
        host: None,
        port: None,
        timeline: (timeline > 0).then_some(TimelineId(timeline)),
        lag: None,
        tags: Vec::new(),
    }
}

/// An answer of `endpoint` that names `leader` on `timeline`, with a follower that knows of `other`.
fn answer(endpoint: &str, leader: Option<(&str, u32)>, other: u32) -> Testimony {
    let mut members = vec![member("follower", MemberRole::Follower, other)];
    members.extend(leader.map(|(name, timeline)| member(name, MemberRole::Leader, timeline)));
    Testimony { asked: Moment(1), endpoint: endpoint.into(), members, paused: false, disputed: false }
}

#[test]
fn the_answer_that_knows_of_the_newest_timeline_counts_in_any_order() {
    let old = answer("old", Some(("a", 1)), 1);
    let new = answer("new", Some(("b", 2)), 1);
    for answers in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()]] {
        let newest = newest(answers).expect("there are answers");
        assert_eq!((&*newest.endpoint, newest.disputed), ("new", false));
    }
    assert_eq!(newest(Vec::new()), None);
}

#[test]
fn the_leader_knows_its_timeline_better_than_others_do() {
    // Both know of timeline 2; only one of them says that its leader is on it.
    let stale = answer("stale", Some(("a", 1)), 2);
    let fresh = answer("fresh", Some(("b", 2)), 2);
    assert_eq!(newest(vec![stale, fresh]).map(|answer| answer.endpoint), Some("fresh".into()));
}

#[test]
fn two_answers_of_the_same_age_with_different_leaders_are_disputed() {
    for other in [answer("y", Some(("b", 2)), 2), answer("y", None, 2)] {
        // Without a leader an answer knows less: only one of the same knowledge disputes.
        let disputed = newest(vec![answer("x", Some(("a", 2)), 2), other.clone()]);
        assert_eq!(disputed.map(|answer| answer.disputed), Some(other.leader().is_some()), "{other:?}");
    }
    let agreed = newest(vec![answer("x", Some(("a", 2)), 2), answer("y", Some(("a", 2)), 2)]);
    assert_eq!(agreed.map(|answer| answer.disputed), Some(false));
}
