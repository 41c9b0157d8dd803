use super::*;

fn claim(node: u16, role: Option<Role>, timeline: u32, system: u64) -> Claim {
    Claim {
        node: NodeId(node),
        role,
        timeline: (timeline > 0).then_some(TimelineId(timeline)),
        system_identifier: (system > 0).then_some(system),
        attempted: true,
        twin: false,
    }
}

const P: Option<Role> = Some(Role::Primary);
const R: Option<Role> = Some(Role::Replica);

#[test]
fn the_primary_of_the_newest_timeline_wins() {
    let table: [(&[Claim], Option<u16>, bool); 7] = [
        (&[claim(0, P, 1, 7), claim(1, R, 1, 7)], Some(0), false),
        (&[claim(0, P, 1, 7), claim(1, P, 2, 7)], Some(1), false),
        (&[claim(0, P, 2, 7), claim(1, P, 2, 7)], None, true),
        (&[claim(0, R, 1, 7), claim(1, R, 1, 7)], None, false),
        // A replica has seen a newer timeline: the old primary is not written to.
        (&[claim(0, P, 1, 7), claim(1, R, 2, 7)], None, false),
        (&[claim(0, P, 1, 7), claim(1, R, 1, 7), claim(2, P, 9, 8)], Some(0), false),
        (&[claim(0, None, 1, 7), claim(1, R, 1, 7)], None, false),
    ];
    for (claims, primary, conflict) in table {
        let standing = Standing::default().advance(claims);
        assert_eq!(standing.primary, primary.map(NodeId), "{claims:?}");
        assert_eq!(standing.conflict.is_some(), conflict, "{claims:?}");
    }
}

#[test]
fn the_old_primary_that_comes_back_is_refused_also_when_the_new_one_is_gone() {
    let standing = Standing::default().advance(&[claim(0, P, 1, 7), claim(1, P, 2, 7)]);
    let alone = [claim(0, P, 1, 7), claim(1, None, 0, 7)];
    let later = standing.advance(&alone);
    assert_eq!(later.primary, None);
    assert_eq!(later.timeline, Some(TimelineId(2)));
    assert_eq!(later.refusal(&alone[0]), Some(Refusal::OldTimeline));
}

#[test]
fn one_server_by_two_names_is_no_conflict() {
    let twin = Claim { twin: true, ..claim(1, P, 2, 7) };
    let standing = Standing::default().advance(&[claim(0, P, 2, 7), twin]);
    assert_eq!((standing.primary, standing.conflict), (Some(NodeId(0)), None));
    assert_eq!(standing.refusal(&twin), Some(Refusal::Twin));
    assert_eq!(standing.refusal(&Claim { twin: true, ..claim(2, R, 2, 7) }), Some(Refusal::Twin));
}

#[test]
fn a_conflict_names_both() {
    let standing = Standing::default().advance(&[claim(0, P, 2, 7), claim(3, P, 2, 7)]);
    assert_eq!(standing.conflict, Some((NodeId(0), NodeId(3))));
    assert_eq!(standing.refusal(&claim(0, P, 2, 7)), Some(Refusal::Conflict));
}

#[test]
fn a_replica_serves_only_on_the_proven_branch_of_the_same_system() {
    let standing = Standing::default().advance(&[claim(0, P, 2, 7), claim(1, R, 2, 7), claim(2, R, 1, 7)]);
    let table = [
        (claim(1, R, 2, 7), None),
        (claim(1, R, 1, 7), Some(Refusal::UnprovenBranch)),
        (claim(1, R, 0, 7), Some(Refusal::UnprovenBranch)),
        (claim(1, R, 2, 8), Some(Refusal::WrongSystem)),
        (claim(1, R, 2, 0), Some(Refusal::Undecided)),
    ];
    for (claim, refusal) in table {
        assert_eq!(standing.refusal(&claim), refusal, "{claim:?}");
    }
}

#[test]
fn one_early_answer_does_not_settle_the_system() {
    let silent = |node| Claim { attempted: false, ..claim(node, None, 0, 0) };
    let early = [claim(0, P, 1, 8), silent(1), silent(2)];
    assert_eq!(Standing::default().advance(&early).primary, None);
    let later = [claim(0, P, 1, 8), claim(1, P, 1, 7), claim(2, R, 1, 7)];
    let standing = Standing::default().advance(&later);
    assert_eq!((standing.primary, standing.system_identifier), (Some(NodeId(1)), Some(7)));
    assert_eq!(standing.refusal(&later[0]), Some(Refusal::WrongSystem));
    // And once settled it does not change.
    let outvoted = [claim(0, P, 1, 8), claim(1, R, 1, 8), claim(2, P, 1, 7)];
    assert_eq!(standing.advance(&outvoted).primary, Some(NodeId(2)));
}
