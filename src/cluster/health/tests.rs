use super::*;

fn at(millis: u64) -> Moment {
    Moment(millis * 1_000_000)
}

fn up(role: Role) -> Health {
    let mut health = Health::default();
    health.answered(role);
    health
}

#[test]
fn one_late_answer_takes_a_replica_out_but_not_a_primary() {
    let policy = HealthPolicy::default();
    for role in [Role::Primary, Role::Replica] {
        let mut health = up(role);
        health.failed(Failure::Late, at(1000), &policy);
        assert_eq!(health.state(), NodeState::Suspect);
        assert!(health.holds_role(role));
        health.answered(role);
        assert_eq!(health.state(), NodeState::Up);
    }
}

#[test]
fn silence_for_down_after_is_down_and_an_answer_brings_it_back() {
    let policy = HealthPolicy::default();
    let mut health = up(Role::Primary);
    for millis in [1000, 1200, 1900] {
        health.failed(Failure::Late, at(millis), &policy);
        assert_eq!(health.state(), NodeState::Suspect);
    }
    health.failed(Failure::Late, at(2000), &policy);
    assert_eq!(health.state(), NodeState::Down);
    assert!(!health.holds_role(Role::Primary));
    health.answered(Role::Replica);
    assert_eq!((health.state(), health.role()), (NodeState::Up, Some(Role::Replica)));
}

#[test]
fn a_refused_connection_is_down_at_once_but_a_full_server_is_not() {
    let policy = HealthPolicy::default();
    let table = [
        (Failure::Refused, NodeState::Down),
        (Failure::Lost, NodeState::Suspect),
        (Failure::Busy, NodeState::Suspect),
    ];
    for (failure, state) in table {
        let mut health = up(Role::Primary);
        health.failed(failure, at(1000), &policy);
        assert_eq!(health.state(), state, "{failure:?}");
    }
    let mut full = up(Role::Primary);
    for millis in (1000..60_000).step_by(1000) {
        full.failed(Failure::Busy, at(millis), &policy);
    }
    assert!(full.holds_role(Role::Primary));
}

#[test]
fn a_change_of_in_hot_standby_drops_the_role_and_other_evidence_only_asks() {
    let mut health = up(Role::Replica);
    assert!(!health.witnessed(Evidence::ConnectionLost));
    assert!(!health.witnessed(Evidence::ReadOnlyError));
    assert!(health.holds_role(Role::Replica));
    assert!(health.witnessed(Evidence::InHotStandbyChanged));
    assert_eq!((health.state(), health.role()), (NodeState::Suspect, None));
    assert!(!health.witnessed(Evidence::InHotStandbyChanged));
}

#[test]
fn what_was_removed_stays_removed() {
    let mut health = up(Role::Replica);
    health.removed();
    health.failed(Failure::Refused, at(1), &HealthPolicy::default());
    assert_eq!(health.state(), NodeState::Removed);
}
