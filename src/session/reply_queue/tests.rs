//! Transcripts: requests on the left, server messages on the right.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn queue(kinds: &[Kind]) -> ReplyQueue {
    let mut queue = ReplyQueue::default();
    kinds.iter().for_each(|&kind| queue.forward(kind));
    queue
}

fn play(queue: &mut ReplyQueue, tags: &[u8]) -> Result<Vec<Verdict>, Unexpected> {
    tags.iter().map(|&tag| queue.on_message(tag, &mut |_| {})).collect()
}

#[test]
fn an_extended_group_is_answered_in_order() {
    let mut queue = queue(&[Kind::Parse, Kind::Bind, Kind::DescribePortal, Kind::Execute, Kind::Sync]);
    let verdicts = play(&mut queue, b"12TDDCZ").unwrap();
    assert!(verdicts.iter().all(|verdict| verdict.pass == Pass::Forward));
    assert!(verdicts.last().unwrap().group_done && queue.is_empty());
}

#[test]
fn an_error_skips_to_the_next_sync_and_takes_back_what_was_skipped() {
    let mut queue = queue(&[Kind::Bind]);
    queue.push(Kind::Parse, Act::Swallow, Undo::ServerParse(7));
    queue.push(Kind::Parse, Act::Fabricate(b"1"), Undo::Nothing);
    queue.forward(Kind::Sync);
    queue.forward(Kind::Sync);
    let mut undone = Vec::new();
    let verdict = queue.on_message(b'E', &mut |undo| undone.push(undo)).unwrap();
    assert_eq!(verdict.pass, Pass::Forward);
    assert_eq!(undone, [Undo::Nothing, Undo::ServerParse(7), Undo::Nothing]);
    assert_eq!((queue.len(), queue.groups()), (2, 2));
    assert!(queue.pop_fabricated().is_none());
    play(&mut queue, b"ZZ").unwrap();
}

#[test]
fn what_pgweir_asked_is_swallowed_with_its_notices_but_not_what_is_the_clients() {
    let mut queue = ReplyQueue::default();
    queue.push(Kind::Query, Act::Swallow, Undo::Nothing);
    queue.forward(Kind::Query);
    let verdicts = play(&mut queue, b"CNSAZSTDCZ").unwrap();
    let forwarded: Vec<_> = verdicts.iter().map(|verdict| verdict.pass == Pass::Forward).collect();
    assert_eq!(forwarded, [false, false, true, true, false, true, true, true, true, true]);
}

#[test]
fn an_error_made_on_purpose_is_replaced() {
    let mut queue = ReplyQueue::default();
    queue.push(Kind::Parse, Act::ReplaceError((*b"ours").into()), Undo::Nothing);
    queue.forward(Kind::Sync);
    let verdicts = play(&mut queue, b"EZ").unwrap();
    assert_eq!(verdicts[0].pass, Pass::Replace((*b"ours").into()));
}

#[test]
fn syncs_sent_before_the_end_of_a_copy_get_no_answer() {
    let mut queue = queue(&[Kind::Bind, Kind::Execute, Kind::Sync]);
    play(&mut queue, b"2G").unwrap();
    assert_eq!(queue.groups(), 0);
    queue.forward(Kind::CopyEnd);
    queue.forward(Kind::Sync);
    play(&mut queue, b"CZ").unwrap();
    assert!(queue.is_empty());
}

#[test]
fn a_sync_behind_a_pipelined_copy_end_is_kept() {
    let mut queue = queue(&[Kind::Execute, Kind::Sync, Kind::CopyEnd, Kind::Sync]);
    play(&mut queue, b"GCZ").unwrap();
    assert!(queue.is_empty());
}

#[test]
fn an_error_in_a_simple_query_still_waits_for_ready() {
    let mut queue = queue(&[Kind::Query]);
    let verdicts = play(&mut queue, b"TDEZ").unwrap();
    assert!(verdicts.last().unwrap().group_done);
}

#[test]
fn unexplained_messages_are_refused() {
    assert!(play(&mut ReplyQueue::default(), b"Z").is_err());
    assert!(play(&mut queue(&[Kind::Parse]), b"2").is_err());
    assert!(play(&mut queue(&[Kind::Bind, Kind::Sync]), b"Z").is_err());
    assert!(play(&mut queue(&[Kind::Query]), b"?").is_err());
}

proptest! {
    #[test]
    fn random_orders_never_panic_and_groups_are_counted(
        script in prop::collection::vec((any::<bool>(), 0..10_usize, any::<u8>()), 0..60)
    ) {
        const KINDS: [Kind; 10] = [Kind::Query, Kind::Parse, Kind::Bind, Kind::DescribeStatement,
            Kind::DescribePortal, Kind::Execute, Kind::Close, Kind::Sync, Kind::FunctionCall, Kind::CopyEnd];
        const TAGS: &[u8] = b"12CDEGHIKNSTVWZdcnst3A";
        let mut queue = ReplyQueue::default();
        for (push, kind, tag) in script {
            if push {
                queue.forward(KINDS[kind]);
            } else {
                let _ = queue.on_message(TAGS[usize::from(tag) % TAGS.len()], &mut |_| {});
            }
            let expected = queue.owed.iter().filter(|owed| owed.kind.ends_group()).count();
            prop_assert_eq!(queue.groups(), expected);
        }
    }
}

#[test]
fn a_query_that_was_made_to_fail_still_gets_its_ready_for_query() {
    let mut queue = ReplyQueue::default();
    queue.push(Kind::Query, Act::ReplaceError((*b"no").into()), Undo::Prepared((*b"q").into(), 3));
    let mut undone = Vec::new();
    let refused = queue.on_message(b'E', &mut |undo| undone.push(undo)).unwrap();
    assert_eq!(
        (refused.pass, undone),
        (Pass::Replace((*b"no").into()), vec![Undo::Prepared((*b"q").into(), 3)])
    );
    let ready = queue.on_message(b'Z', &mut |_| {}).unwrap();
    assert_eq!((ready.pass, ready.group_done), (Pass::Forward, true));
}
