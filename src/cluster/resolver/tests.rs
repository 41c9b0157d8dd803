#![allow(clippy::expect_used)]

use super::*;
use crate::cluster::roles::Refusal;
use crate::node::Role;
use proptest::prelude::*;

fn claim(node: u16, role: Option<Role>, timeline: u32) -> Claim {
    Claim {
        node: NodeId(node),
        role,
        timeline: (timeline > 0).then_some(TimelineId(timeline)),
        system_identifier: Some(7),
        attempted: true,
        twin: false,
    }
}

const P: Option<Role> = Some(Role::Primary);
const R: Option<Role> = Some(Role::Replica);

/// When the timelines of these tests are first seen.
const SEEN: Moment = Moment(100);

/// Asked before.
fn word(leader: Leader, timeline: u32) -> Word {
    let timeline = (timeline > 0).then_some(TimelineId(timeline));
    Word { asked: Moment(1), leader, timeline, newest: timeline, paused: false }
}

/// Asked since.
fn since(word: Word) -> Word {
    Word { asked: Moment(101), ..word }
}

fn names(node: u16, timeline: u32) -> Word {
    word(Leader::Node(NodeId(node)), timeline)
}

fn one(node: u16) -> Verdict {
    Verdict::One(NodeId(node))
}

/// What is tried, what nodes and Patroni say, what comes of it, and what Patroni has against it.
type Row<'a> = (&'a str, &'a [Claim], Word, Verdict, Option<Objection>);

#[test]
fn patroni_objects_and_never_proposes() {
    let settled = [claim(0, P, 1), claim(1, R, 1), claim(2, R, 1)];
    let promoted = [claim(0, None, 1), claim(1, P, 2), claim(2, R, 1)];
    let both = [claim(0, P, 1), claim(1, P, 2), claim(2, R, 2)];
    let nobody = [claim(0, None, 1), claim(1, R, 1), claim(2, R, 1)];
    let split = [claim(0, P, 2), claim(1, P, 2), claim(2, R, 2)];
    let other = Some(Objection::OtherLeader);
    let foreign = [claim(0, P, 1), Claim { system_identifier: Some(8), ..claim(1, P, 9) }, claim(2, R, 1)];
    let (no_leader, disputed) = (Some(Objection::NoLeader), Some(Objection::Disputed));
    let table: [Row; 26] = [
        ("all agree", &settled, names(0, 1), one(0), None),
        ("the lock has moved, nobody is promoted yet", &settled, names(1, 1), Verdict::None, other),
        ("a leader that has written nothing down yet", &settled, names(1, 0), Verdict::None, other),
        ("it leads on a timeline that nobody here has seen", &settled, names(1, 2), Verdict::None, other),
        (
            "nobody holds the lock",
            &settled,
            word(Leader::Nobody, 0),
            Verdict::None,
            Some(Objection::NoLeader),
        ),
        ("endpoints disagree", &settled, word(Leader::Disputed, 1), Verdict::None, Some(Objection::Disputed)),
        ("paused", &settled, Word { paused: true, ..names(1, 1) }, one(0), None),
        ("its leader goes by another name", &settled, word(Leader::Stranger, 1), one(0), None),
        ("of unknown timeline", &settled, word(Leader::Stranger, 0), one(0), None),
        ("but on a newer timeline it is another", &settled, word(Leader::Stranger, 2), Verdict::None, other),
        ("Patroni was asked before: it names the dead one", &promoted, names(0, 1), one(1), None),
        ("asked before, and the old primary is still there", &both, names(0, 1), one(1), None),
        ("asked since: promoted without the lock", &promoted, since(names(0, 1)), Verdict::None, other),
        ("asked since, and its leader is there", &both, since(names(0, 1)), Verdict::None, other),
        ("asked since, and it agrees", &both, since(names(1, 1)), one(1), None),
        ("nobody held the lock before the promotion", &promoted, word(Leader::Nobody, 1), one(1), None),
        ("nor on this timeline", &promoted, word(Leader::Nobody, 2), Verdict::None, no_leader),
        ("nor since", &promoted, since(word(Leader::Nobody, 1)), Verdict::None, no_leader),
        ("it was disputed before the promotion", &promoted, word(Leader::Disputed, 1), one(1), None),
        ("it is since", &promoted, since(word(Leader::Disputed, 1)), Verdict::None, disputed),
        ("its leader is a server of another system", &foreign, since(names(1, 9)), one(0), None),
        ("a stranger on an older timeline", &promoted, since(word(Leader::Stranger, 1)), one(1), None),
        ("promoted, with its old timeline written down", &promoted, names(1, 1), one(1), None),
        ("the next leader, which follows this primary", &both, names(2, 1), Verdict::None, other),
        ("Patroni alone makes nobody primary", &nobody, names(1, 2), Verdict::None, None),
        ("nor decides between two", &split, names(0, 2), Verdict::Conflict(NodeId(0), NodeId(1)), None),
    ];
    for (what, claims, word, verdict, objection) in table {
        let standing = resolve(&Standing::default(), claims, Some(&word), SEEN);
        assert_eq!(standing.verdict(), verdict, "{what}");
        assert_eq!(standing.disowned.map(|(_, objection)| objection), objection, "{what}");
    }
}

#[test]
fn the_disowned_primary_is_named_with_the_reason() {
    let claims = [claim(0, P, 1), claim(1, R, 1)];
    let standing = resolve(&Standing::default(), &claims, Some(&names(1, 1)), SEEN);
    assert_eq!(standing.refusal(&claims[0]), Some(Refusal::Disowned(Objection::OtherLeader)));
    assert_eq!(standing.refusal(&claims[1]), None, "its replicas go on serving");
    // Patroni falls silent, or agrees: the nodes decide.
    assert_eq!(resolve(&standing, &claims, None, SEEN).verdict(), one(0));
    assert_eq!(resolve(&standing, &claims, Some(&names(0, 1)), SEEN).verdict(), one(0));
}

#[test]
fn a_word_counts_for_so_long_and_no_longer() {
    let word = Word { asked: Moment(1_000), ..names(0, 1) };
    let limit = Duration::from_nanos(500);
    assert!(word.counts(Moment(1_500), limit));
    assert!(!word.counts(Moment(1_501), limit));
}

fn any_claim(node: u16) -> impl Strategy<Value = Claim> {
    let role = prop_oneof![Just(None), Just(P), Just(R)];
    (role, 0..4_u32, 6..8_u64, any::<bool>(), 0..8_u8).prop_map(
        move |(role, timeline, system, attempted, twin)| Claim {
            system_identifier: Some(system),
            attempted,
            twin: twin == 0,
            ..claim(node, role, timeline)
        },
    )
}

fn any_word() -> impl Strategy<Value = Word> {
    let leader = prop_oneof![
        (0..4_u16).prop_map(|node| Leader::Node(NodeId(node))),
        Just(Leader::Stranger),
        Just(Leader::Nobody),
        Just(Leader::Disputed),
    ];
    (leader, 0..5_u32, 0..5_u32, any::<bool>(), 0..14_u64).prop_map(
        |(leader, timeline, others, paused, asked)| {
            let word = word(leader, timeline);
            let newest = word.timeline.max((others > 0).then_some(TimelineId(others)));
            Word { asked: Moment(asked), newest, paused, ..word }
        },
    )
}

fn any_round() -> impl Strategy<Value = (Vec<Claim>, Option<Word>)> {
    ((any_claim(0), any_claim(1), any_claim(2)), proptest::option::of(any_word()))
        .prop_map(|((a, b, c), word)| (vec![a, b, c], word))
}

proptest! {
    /// Whatever the sources say, in whatever order: who is written to has said itself that it is a primary,
    /// of the cluster's system, on the newest timeline ever seen, as the only one; and Patroni, where it
    /// counts, does not name another one of that timeline.
    #[test]
    fn only_a_proven_primary_that_nobody_speaks_against_is_written_to(
        rounds in proptest::collection::vec(any_round(), 1..12)
    ) {
        let mut standing = Standing::default();
        let mut newest = None;
        let mut first_seen = Moment::NEVER;
        for (now, (claims, word)) in (1..).map(Moment).zip(&rounds) {
            let alone = standing.advance(claims);
            let next = resolve(&standing, claims, word.as_ref(), now);
            if next.timeline > newest {
                first_seen = now;
            }
            prop_assert!(next.timeline >= standing.timeline, "the newest timeline is never forgotten");
            newest = newest.max(next.timeline);
            // Patroni takes a primary away, and changes nothing else.
            prop_assert_eq!((next.conflict, next.timeline), (alone.conflict, alone.timeline));
            prop_assert!(next.primary.is_none() || next.primary == alone.primary);
            prop_assert_eq!(next.primary.or(next.disowned.map(|(node, _)| node)), alone.primary);
            if let Verdict::One(node) = next.verdict() {
                let claim = claims.iter().find(|claim| claim.node == node).expect("it was asked");
                prop_assert_eq!(claim.role, P);
                prop_assert!(!claim.twin);
                prop_assert_eq!(claim.timeline, newest);
                prop_assert_eq!(claim.system_identifier, next.system_identifier);
                let rivals = claims.iter().filter(|other| {
                    other.node != node && !other.twin && other.role == P && other.timeline == newest
                        && other.system_identifier == next.system_identifier
                });
                prop_assert_eq!(rivals.count(), 0);
                prop_assert_eq!(next.refusal(claim), None);
                if let Some(word) = word.filter(|word| !word.paused) {
                    let knows = word.asked >= first_seen;
                    let nobody = matches!(word.leader, Leader::Nobody | Leader::Disputed);
                    prop_assert!(!nobody || !(knows || word.newest >= newest || word.newest.is_none()));
                    let is_ours = |other: NodeId| claims.iter().all(|claim| {
                        claim.node != other || !next.is_foreign(claim)
                    });
                    let another = matches!(word.leader, Leader::Node(other) if other != node && is_ours(other));
                    prop_assert!(!another || !(knows || word.timeline >= newest));
                    prop_assert!(word.leader != Leader::Stranger || word.timeline <= newest);
                }
            }
            standing = next;
        }
    }

    /// Without a word that counts, Patroni might as well not be there.
    #[test]
    fn a_silent_patroni_changes_nothing(rounds in proptest::collection::vec(any_round(), 1..12)) {
        let (mut with, mut without) = (Standing::default(), Standing::default());
        for (claims, word) in &rounds {
            with = resolve(&with, claims, word.as_ref(), SEEN);
            without = resolve(&without, claims, None, SEEN);
        }
        let (last, _) = &rounds[rounds.len() - 1];
        prop_assert_eq!(resolve(&with, last, None, SEEN), resolve(&without, last, None, SEEN));
    }
}
