use super::*;
use crate::cluster::health::HealthPolicy;
use crate::cluster::patroni::{Member, MemberRole};
use crate::cluster::resolver::Objection;
use crate::freshness::ring::{PrimarySample, WalGeometry};
use crate::lsn::{Lsn, TimelineId};
use crate::monitor::picture::{Identity, Instance, ReplicaSample, Sample};
use crate::monitor::settings::{Addresses, NodeSettings};

fn at(millis: u64) -> Moment {
    Moment(millis * 1_000_000)
}

fn node(port: u16) -> NodeSettings {
    NodeSettings {
        name: format!("pg{port}"),
        host: "h".to_owned(),
        port,
        found: true,
        ..NodeSettings::default()
    }
}

fn identity(started: i64) -> Identity {
    let instance = Some(Instance { started, port: 5432, checkpointer: Some((27, started + 3000)) });
    Identity { system_identifier: 7, geometry: WalGeometry::default(), instance }
}

fn primary(sent: u64, timeline: u32) -> Sample {
    let (insert, flush) = (Lsn(5000), Lsn(5000));
    Sample::Primary(PrimarySample { sent: at(sent), insert, flush, timeline: TimelineId(timeline) })
}

fn replica(sent: u64, timeline: u32) -> Sample {
    let branch = Some(TimelineId(timeline));
    Sample::Replica(ReplicaSample { sent: at(sent), replay: Some(Lsn(5000)), paused: false, branch })
}

const TRUSTED_FOR: Duration = Duration::from_secs(6);

/// pg1 is the primary, pg2 and pg3 follow; Patroni is asked.
fn cluster() -> Picture {
    let mut picture = Picture::new(&[node(1), node(2), node(3)], HealthPolicy::default());
    picture.hear_patroni(Some(TRUSTED_FOR));
    for id in 0..3 {
        picture.connected(NodeId(id), identity(i64::from(id)));
    }
    picture.sampled(NodeId(0), primary(1000, 1), at(1001));
    for id in 1..3 {
        picture.sampled(NodeId(id), replica(1002, 1), at(1003));
    }
    picture
}

fn names(leader: &str, timeline: u32, asked: u64) -> Testimony {
    let member = |name: &str, port| Member {
        name: name.into(),
        role: if name == leader { MemberRole::Leader } else { MemberRole::Follower },
        word: "x".into(),
        state: "running".into(),
        host: Some("h".into()),
        port: Some(port),
        timeline: Some(TimelineId(timeline)),
        lag: None,
        tags: Vec::new(),
    };
    let members = vec![member("pg1", 1), member("pg2", 2), member("other", 3)];
    Testimony { asked: at(asked), endpoint: "e".into(), members, paused: false, disputed: false }
}

#[test]
fn writes_wait_between_the_lock_and_the_promotion() {
    let mut picture = cluster();
    let (_, news) = picture.testified(names("pg1", 1, 1100), at(1101));
    assert_eq!(news.len(), 3, "the first answer is news");
    assert_eq!(picture.view().primary, Some(NodeId(0)));
    let (outcome, news) = picture.testified(names("pg2", 1, 1200), at(1201));
    assert!(outcome.view.is_some() && news.contains(&NodeId(1)), "whoever is named is asked at once");
    assert_eq!(picture.view().primary, None);
    assert_eq!(picture.view().disowned, Some((NodeId(0), Objection::OtherLeader)));
    assert!(!picture.view().may_go_on_writing(NodeId(0)), "nor does an open transaction go on");
    assert!(picture.view().nodes[2].serves_reads, "reads go on");
    // It says so still, and is not believed; then the other is promoted.
    picture.sampled(NodeId(0), primary(1250, 1), at(1251));
    assert_eq!(picture.view().primary, None);
    picture.sampled(NodeId(1), primary(1300, 2), at(1301));
    assert_eq!((picture.view().primary, picture.view().disowned), (Some(NodeId(1)), None));
    let (_, news) = picture.testified(names("pg2", 2, 1400), at(1401));
    assert!(news.is_empty(), "nothing new");
}

#[test]
fn who_was_asked_before_a_promotion_does_not_speak_against_it_and_who_is_asked_since_does() {
    let nobody = |timeline, asked| names("nobody", timeline, asked);
    for last_words in [names("pg1", 1, 1200), nobody(1, 1200)] {
        let mut picture = cluster();
        picture.testified(last_words, at(1201));
        picture.failed(NodeId(0), crate::cluster::health::Failure::Refused, "refused", at(1250));
        picture.sampled(NodeId(1), primary(1300, 2), at(1301));
        assert_eq!(picture.view().primary, Some(NodeId(1)), "it could not know");
        // Its lock moves before a promotion: somebody has promoted this one without it.
        picture.testified(names("pg1", 1, 1400), at(1401));
        assert_eq!(picture.view().primary, None);
        assert_eq!(picture.view().disowned, Some((NodeId(1), Objection::OtherLeader)));
        picture.testified(nobody(1, 1500), at(1501));
        assert_eq!(picture.view().disowned, Some((NodeId(1), Objection::NoLeader)));
        picture.testified(names("pg2", 1, 1600), at(1601));
        assert_eq!((picture.view().primary, picture.view().disowned), (Some(NodeId(1)), None));
    }
}

#[test]
fn a_leader_of_another_cluster_is_reported_and_does_not_count() {
    let mut picture = cluster();
    picture.connected(NodeId(1), Identity { system_identifier: 8, ..identity(1) });
    picture.testified(names("pg2", 3, 1200), at(1201));
    assert_eq!((picture.view().primary, picture.view().disowned), (Some(NodeId(0)), None));
    let says: Vec<String> = picture.evidence(at(1300)).into_iter().map(|line| line.says).collect();
    let expected = "answered by e, pg2 leads, which belongs to another cluster: it does not count";
    assert!(says.iter().any(|says| says == expected), "{says:?}");
}

#[test]
fn a_patroni_that_falls_silent_counts_for_a_while_and_no_longer() {
    let mut picture = cluster();
    picture.testified(names("pg2", 1, 1200), at(1201));
    picture.patroni_failed("connection refused", at(1500));
    assert_eq!(picture.view().primary, None);
    picture.sampled(NodeId(0), primary(7201, 1), at(7201));
    assert_eq!(picture.view().primary, Some(NodeId(0)), "its word is six seconds old");
    let says: Vec<String> = picture.evidence(at(7201)).into_iter().map(|line| line.says).collect();
    assert!(says.contains(&"does not answer: connection refused".to_owned()), "{says:?}");
    assert_eq!(says.last().map(String::as_str), Some("pg1 is the primary, on timeline 1"));
    // And not at all when it is not asked any more.
    picture.testified(names("pg2", 1, 8000), at(8001));
    assert_eq!(picture.view().primary, None);
    picture.hear_patroni(None);
    picture.sampled(NodeId(0), primary(8100, 1), at(8101));
    assert_eq!(picture.view().primary, Some(NodeId(0)));
}

#[test]
fn a_member_is_a_node_by_name_or_by_place() {
    let mut picture = cluster();
    assert!(picture.agrees_with(&names("pg1", 1, 1)));
    assert!(!picture.agrees_with(&names("other", 1, 1)), "it is pg3");
    picture.testified(names("other", 1, 1100), at(1101));
    assert_eq!(picture.view().disowned, Some((NodeId(0), Objection::OtherLeader)));
}

#[test]
fn a_node_that_moved_has_to_prove_everything_again() {
    let mut picture = cluster();
    let place = picture.view().nodes[0].place;
    let moved = NodeSettings { host: "elsewhere".to_owned(), ..node(1) };
    let view = picture.reload(&[moved.clone(), node(2), node(3)], HealthPolicy::default());
    assert_eq!((view.nodes.len(), view.primary), (3, None), "the same node, and nobody knows what it is now");
    assert_eq!((&*view.nodes[0].host, view.nodes[0].place), ("elsewhere", place + 1));
    assert_eq!(view.nodes[0].live.place(), place + 1, "connections to the place before count for nothing");
    assert!(view.nodes[0].live.is_fenced(at(1500), Duration::from_secs(1)));
    assert_eq!((view.nodes[0].role, view.nodes[0].state), (None, NodeState::Unknown));
    assert!(
        picture.is_at(NodeId(0), place + 1) && !picture.is_at(NodeId(0), place),
        "old samples say nothing"
    );
    // The same again is no move.
    let view = picture.reload(&[moved, node(2), node(3)], HealthPolicy::default());
    assert_eq!(view.nodes[0].place, place + 1);
    // Nor is the first address at which a name is found; the second is.
    let address = |last| Some(IpAddr::from([10, 0, 0, last]));
    picture.reached(NodeId(1), address(1), at(2000));
    assert_eq!((picture.view().nodes[1].place, picture.view().nodes[1].address), (0, address(1)));
    assert_eq!(picture.view().nodes[1].role, Some(crate::node::Role::Replica));
    let outcome = picture.reached(NodeId(1), address(2), at(2001));
    assert!(outcome.view.is_some());
    assert_eq!((picture.view().nodes[1].place, picture.view().nodes[1].role), (1, None));
    assert!(picture.reached(NodeId(1), address(2), at(2002)).view.is_none());
}

#[test]
fn a_node_per_address_moves_with_its_number() {
    let fixed =
        |last| NodeSettings { addresses: Addresses::Fixed(IpAddr::from([10, 0, 0, last])), ..node(1) };
    let mut picture = Picture::new(&[fixed(1)], HealthPolicy::default());
    assert_eq!(picture.view().nodes[0].address, Some(IpAddr::from([10, 0, 0, 1])));
    picture.connected(NodeId(0), identity(1));
    picture.sampled(NodeId(0), primary(1000, 1), at(1001));
    let view = picture.reload(&[fixed(2)], HealthPolicy::default());
    assert_eq!((view.nodes.len(), view.nodes[0].place, view.primary), (1, 1, None));
}

#[test]
fn one_server_by_two_names_is_one() {
    let mut picture = Picture::new(&[node(1), node(2)], HealthPolicy::default());
    for id in 0..2 {
        let mut identity = identity(77);
        if id == 1 {
            // Asked by a role that may not see it.
            identity.instance.iter_mut().for_each(|instance| instance.checkpointer = None);
        }
        picture.connected(NodeId(id), identity);
        picture.sampled(NodeId(id), primary(1000 + u64::from(id), 1), at(1001));
    }
    let view = picture.view();
    assert_eq!((view.primary, view.conflict), (Some(NodeId(0)), None));
    assert_eq!(view.nodes[1].last_error.as_deref(), Some("is the same server as another node"));
    // By its first name it is not reached any more.
    picture.failed(NodeId(0), crate::cluster::health::Failure::Refused, "refused", at(1100));
    picture.sampled(NodeId(1), primary(1150, 1), at(1151));
    assert_eq!(picture.view().primary, Some(NodeId(1)));
}

#[test]
fn servers_that_started_at_the_same_moment_are_not_one() {
    let of_one = Instance { started: 77, port: 5432, checkpointer: Some((27, 3077)) };
    let one = Identity { instance: Some(of_one), ..identity(77) };
    let others = [
        Some(Instance { port: 5433, checkpointer: None, ..of_one }),
        Some(Instance { checkpointer: Some((28, 3077)), ..of_one }),
        Some(Instance { checkpointer: Some((27, 3078)), ..of_one }),
        None,
    ];
    for instance in others {
        let mut picture = Picture::new(&[node(1), node(2)], HealthPolicy::default());
        for (id, identity) in [(NodeId(0), one), (NodeId(1), Identity { instance, ..one })] {
            picture.connected(id, identity);
            picture.sampled(id, primary(1000, 1), at(1001));
        }
        assert_eq!(picture.view().conflict, Some((NodeId(0), NodeId(1))), "{instance:?}");
    }
}

#[test]
fn noloadbalance_keeps_reads_away_and_says_so() {
    let mut picture = cluster();
    let quiet = NodeSettings { without_reads: true, ..node(2) };
    let view = picture.reload(&[node(1), quiet, node(3)], HealthPolicy::default());
    assert!(!view.nodes[1].serves_reads && view.nodes[2].serves_reads);
    let error = view.nodes[1].last_error.as_deref();
    assert_eq!(error, Some("no reads: it carries Patroni's tag noloadbalance"));
    let view = picture.reload(&[node(1), node(2), node(3)], HealthPolicy::default());
    assert!(view.nodes[1].serves_reads && view.nodes[1].last_error.is_none());
}
