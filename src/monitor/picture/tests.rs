#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::cluster::roles::Refusal;
use std::time::Duration;

fn at(millis: u64) -> Moment {
    Moment(millis * 1_000_000)
}

fn settings(port: u16) -> NodeSettings {
    let name = format!("pg{port}");
    NodeSettings {
        name,
        host: "h".to_owned(),
        port,
        weight: 1,
        zone: None,
        tags: Vec::new(),
        ..NodeSettings::default()
    }
}

fn identity(system_identifier: u64) -> Identity {
    Identity { system_identifier, geometry: WalGeometry::default(), instance: None }
}

fn primary(sent: u64, lsn: u64, timeline: u32) -> Sample {
    let (insert, flush) = (Lsn(lsn), Lsn(lsn));
    Sample::Primary(PrimarySample { sent: at(sent), insert, flush, timeline: TimelineId(timeline) })
}

fn replica(sent: u64, replay: u64, branch: Option<u32>) -> Sample {
    let branch = branch.map(TimelineId);
    Sample::Replica(ReplicaSample { sent: at(sent), replay: Some(Lsn(replay)), paused: false, branch })
}

/// A primary and two replicas on timeline 1, all at 5000.
fn cluster() -> Picture {
    let mut picture = Picture::new(&[settings(1), settings(2), settings(3)], HealthPolicy::default());
    for node in 0..3 {
        picture.connected(NodeId(node), identity(7));
    }
    picture.sampled(NodeId(0), primary(1000, 5000, 1), at(1001));
    for node in 1..3 {
        picture.sampled(NodeId(node), replica(1002, 5000, Some(1)), at(1003));
    }
    picture
}

fn watermark(picture: &Picture, node: usize) -> Moment {
    picture.view().nodes[node].live.freshness().watermark_insert
}

#[test]
fn a_replica_is_as_fresh_as_the_newest_primary_sample_that_it_has_replayed() {
    let mut picture = cluster();
    assert_eq!(picture.view().primary, Some(NodeId(0)));
    assert_eq!(watermark(&picture, 1), at(1000));
    // Nothing was written: the replica need not even be asked again.
    picture.sampled(NodeId(0), primary(1100, 5000, 1), at(1101));
    assert_eq!(watermark(&picture, 1), at(1100));
    picture.sampled(NodeId(0), primary(1200, 6000, 1), at(1201));
    let outcome = picture.sampled(NodeId(1), replica(1202, 5999, None), at(1203));
    assert!(outcome.behind);
    assert_eq!(watermark(&picture, 1), at(1100));
    let outcome = picture.sampled(NodeId(1), replica(1204, 6000, None), at(1205));
    assert!(!outcome.behind);
    assert_eq!(watermark(&picture, 1), at(1200));
    assert_eq!(picture.view().nodes[2].lag_bytes, Some(1000));
}

#[test]
fn a_lost_connection_forgets_everything_and_a_new_one_begins_behind() {
    let mut picture = cluster();
    let before = picture.view().nodes[1].live.freshness().incarnation;
    picture.failed(NodeId(1), Failure::Lost, "gone", at(1100));
    let fresh = picture.view().nodes[1].live.freshness();
    assert_eq!((fresh.sample_sent, fresh.watermark_insert), (Moment::NEVER, Moment::NEVER));
    assert!(fresh.incarnation > before);
    // The primary's samples alone do not bring it back.
    picture.sampled(NodeId(0), primary(1150, 5000, 1), at(1151));
    assert_eq!(watermark(&picture, 1), Moment::NEVER);
    picture.connected(NodeId(1), identity(7));
    picture.sampled(NodeId(1), replica(1200, 4000, Some(1)), at(1201));
    assert_eq!(watermark(&picture, 1), Moment::NEVER);
    picture.sampled(NodeId(1), replica(1202, 5000, Some(1)), at(1203));
    assert_eq!(watermark(&picture, 1), at(1150));
}

#[test]
fn replay_that_goes_backwards_proves_nothing_any_more() {
    let mut picture = cluster();
    picture.sampled(NodeId(1), replica(1100, 4000, Some(1)), at(1101));
    assert_eq!(watermark(&picture, 1), Moment::NEVER);
}

#[test]
fn after_a_promotion_a_replica_serves_only_when_it_proved_the_new_timeline() {
    let mut picture = cluster();
    picture.failed(NodeId(0), Failure::Refused, "refused", at(1100));
    assert_eq!(picture.view().primary, None);
    assert!(picture.view().nodes[2].serves_reads, "reads go on without a primary");
    picture.sampled(NodeId(1), primary(1200, 5100, 2), at(1201));
    assert_eq!(picture.view().primary, Some(NodeId(1)));
    // It ran ahead of the fork: numerically fine, and not to be believed.
    let outcome = picture.sampled(NodeId(2), replica(1210, 9000, Some(1)), at(1211));
    assert!(outcome.prove_branch);
    assert!(!picture.view().nodes[2].serves_reads);
    assert_eq!(watermark(&picture, 2), Moment::NEVER);
    picture.sampled(NodeId(2), replica(1220, 9000, Some(2)), at(1221));
    assert!(picture.view().nodes[2].serves_reads);
    assert_eq!(watermark(&picture, 2), at(1200));
    // The old primary comes back, and is not written to.
    picture.connected(NodeId(0), identity(7));
    picture.sampled(NodeId(0), primary(1300, 9999, 1), at(1301));
    assert_eq!(picture.view().primary, Some(NodeId(1)));
    assert_eq!(picture.view().nodes[0].last_error.as_deref(), Some(Refusal::OldTimeline.as_str()));
}

#[test]
fn a_replica_that_was_promoted_and_overtaken_proves_nothing_to_those_who_still_wait_for_it() {
    let mut picture = cluster();
    picture.sampled(NodeId(1), primary(1200, 5100, 2), at(1201));
    assert_eq!(watermark(&picture, 1), at(1200));
    picture.sampled(NodeId(2), primary(1300, 5000, 3), at(1301));
    assert_eq!(picture.view().primary, Some(NodeId(2)));
    assert_eq!(watermark(&picture, 1), Moment::NEVER);
    picture.sampled(NodeId(1), primary(1400, 5200, 2), at(1401));
    assert_eq!(watermark(&picture, 1), Moment::NEVER);
}

#[test]
fn what_was_proven_with_one_primary_is_not_believed_under_another_of_the_same_timeline() {
    let mut picture = cluster();
    picture.failed(NodeId(0), Failure::Refused, "refused", at(1100));
    picture.sampled(NodeId(1), primary(1200, 4000, 1), at(1201));
    assert_eq!(picture.view().primary, Some(NodeId(1)));
    assert_eq!(watermark(&picture, 2), Moment::NEVER);
    picture.sampled(NodeId(2), replica(1300, 5000, Some(1)), at(1301));
    assert_eq!(watermark(&picture, 2), at(1200));
}

#[test]
fn two_primaries_on_one_timeline_stop_the_writes_until_one_is_gone() {
    let mut picture = cluster();
    picture.sampled(NodeId(1), primary(1100, 5000, 1), at(1101));
    assert_eq!(picture.view().primary, None);
    assert_eq!(picture.view().conflict, Some((NodeId(0), NodeId(1))));
    picture.failed(NodeId(0), Failure::Refused, "refused", at(1200));
    assert_eq!((picture.view().primary, picture.view().conflict), (Some(NodeId(1)), None));
}

#[test]
fn a_node_of_another_cluster_serves_nothing_and_says_so() {
    let mut picture = cluster();
    picture.connected(NodeId(2), identity(8));
    picture.sampled(NodeId(2), replica(1100, 5000, Some(1)), at(1101));
    let node = &picture.view().nodes[2];
    assert!(!node.serves_reads);
    assert_eq!(node.last_error.as_deref(), Some(Refusal::WrongSystem.as_str()));
    assert_eq!(watermark(&picture, 2), Moment::NEVER);
}

#[test]
fn a_change_of_in_hot_standby_stops_a_primary_at_once() {
    let mut picture = cluster();
    let outcome = picture.witnessed(NodeId(0), Evidence::InHotStandbyChanged, at(1100));
    assert_eq!(outcome.view.map(|view| view.primary), Some(None));
    picture.sampled(NodeId(0), primary(1101, 5000, 1), at(1102));
    assert_eq!(picture.view().primary, Some(NodeId(0)));
}

#[test]
fn a_reload_keeps_ids_and_what_is_known() {
    let mut picture = cluster();
    let policy = HealthPolicy::default();
    let view = picture.reload(&[settings(1), settings(3), settings(4)], policy);
    assert_eq!(view.nodes[1].state, NodeState::Removed);
    assert_eq!((&*view.nodes[3].name, view.nodes[3].state), ("pg4", NodeState::Unknown));
    assert_eq!((view.primary, watermark(&picture, 2)), (Some(NodeId(0)), at(1000)));
    picture.sampled(NodeId(1), replica(1100, 5000, Some(1)), at(1101));
    assert_eq!(picture.view().nodes[1].state, NodeState::Removed);
    let view = picture.reload(&[settings(2)], policy);
    assert_eq!((view.nodes[1].state, view.nodes.len(), view.primary), (NodeState::Unknown, 4, None));
}

#[test]
fn the_65th_name_of_a_process_is_left_out_and_counted() {
    let policy = HealthPolicy::default();
    let all: Vec<NodeSettings> = (1..=64).map(settings).collect();
    let mut picture = Picture::new(&all, policy);
    let view = picture.reload(&[settings(1), settings(65), settings(66)], policy);
    assert_eq!((view.nodes.len(), view.left_out), (64, 2));
    // A name that has an id comes back to it.
    let view = picture.reload(&[settings(1), settings(64)], policy);
    assert_eq!((view.nodes[63].state, view.left_out), (NodeState::Unknown, 0));
}

#[test]
fn the_picture_is_published_when_it_matters_or_its_numbers_are_old() {
    let mut picture = cluster();
    assert!(picture.sampled(NodeId(1), replica(1010, 5000, None), at(1011)).view.is_none());
    let later = at(1011).plus(Duration::from_millis(50));
    assert!(picture.sampled(NodeId(1), replica(1012, 5000, None), later).view.is_some());
    assert!(picture.failed(NodeId(1), Failure::Late, "late", later).view.is_some());
}

fn token(timeline: u32, lsn: u64) -> Token {
    Token { system: Some(7), at: WalPosition { timeline: TimelineId(timeline), lsn: Lsn(lsn) } }
}

#[test]
fn a_token_is_the_moment_of_the_first_sample_that_had_reached_it() {
    let mut picture = Picture::new(&[settings(1)], HealthPolicy::default());
    assert_eq!(picture.prove(&token(1, 1)), Proof::NoSample);
    assert_eq!(picture.present(), None);
    picture.connected(NodeId(0), identity(7));
    for (sent, lsn) in [(1000, 5000), (1100, 6000), (1200, 6000), (1300, 7000)] {
        picture.sampled(NodeId(0), primary(sent, lsn, 1), at(sent + 1));
    }
    assert_eq!(picture.prove(&token(1, 5000)), Proof::By(at(1000)));
    assert_eq!(picture.prove(&token(1, 5001)), Proof::By(at(1200)));
    assert_eq!(picture.prove(&token(1, 7000)), Proof::By(at(1300)));
    assert_eq!(picture.prove(&token(1, 7001)), Proof::Newer { than: at(1300) });
    assert_eq!(picture.prove(&token(2, 1)), Proof::Newer { than: at(1300) });
    assert_eq!(picture.prove(&Token { system: Some(8), ..token(1, 1) }), Proof::Foreign(7));
    assert_eq!(picture.present(), Some((token(1, 7000), at(1300))));
    // 24 bytes into a page: the record ended before its header.
    assert_eq!(picture.prove(&token(1, 8192 + 24)), Proof::Newer { than: at(1300) });
    picture.sampled(NodeId(0), primary(1400, 8192 + 24, 1), at(1401));
    assert_eq!(picture.present(), Some((token(1, 8192), at(1400))));
    assert_eq!(picture.prove(&token(1, 8192 + 24)), Proof::By(at(1400)));
}

#[test]
fn a_token_of_the_old_timeline_is_proven_as_far_as_the_promoted_standby_had_replayed() {
    let mut picture = cluster();
    picture.sampled(NodeId(0), primary(1100, 9000, 1), at(1101));
    picture.sampled(NodeId(1), replica(1105, 8000, Some(1)), at(1106));
    picture.sampled(NodeId(1), primary(1300, 9500, 2), at(1301));
    assert_eq!(picture.prove(&token(1, 8000)), Proof::By(Moment(1)));
    assert_eq!(picture.prove(&token(1, 8001)), Proof::LeftBehind(TimelineId(2)));
    assert_eq!(picture.prove(&token(2, 9500)), Proof::By(at(1300)));
}
