//! Transcripts of groups and what the session carries behind them.

use super::*;

const REPLICA: NodeId = NodeId(1);

fn session() -> SessionState {
    let startup = Settings::default().with("timezone", Value::Text("UTC".into()));
    SessionState::new(Arc::new(startup))
}

fn end(status: TransactionStatus, effects: &[Effect]) -> GroupEnd<'_> {
    GroupEnd {
        status,
        effects,
        failed: false,
        rolled_back: false,
        wrote: false,
        ddl: false,
        saw: true,
        now: Moment(5),
        node: REPLICA,
        incarnation: 1,
    }
}

fn set(name: &str, value: &str) -> Effect {
    Effect::Set { name: name.into(), value: effects::Value::Sql(value.into()), scope: Scope::Session }
}

fn run(session: &mut SessionState, group: &GroupEnd<'_>) -> Pins {
    session.group_ended(group, &mut |settings| Arc::new(settings))
}

fn value(session: &SessionState, name: &str) -> Option<String> {
    session.settings().get(name).map(|value| match value {
        Value::Sql(text) | Value::Text(text) => text.to_string(),
    })
}

#[test]
fn a_setting_made_in_a_rolled_back_transaction_is_gone() {
    let mut session = session();
    let (begin, rollback) = ([Effect::Begin(Default::default())], [Effect::Rollback { chain: false }]);
    run(&mut session, &end(TransactionStatus::InBlock, &begin));
    run(&mut session, &end(TransactionStatus::InBlock, &[set("work_mem", "'1MB'")]));
    assert_eq!(value(&session, "work_mem").as_deref(), Some("'1MB'"));
    run(&mut session, &GroupEnd { rolled_back: true, ..end(TransactionStatus::Idle, &rollback) });
    assert_eq!(value(&session, "work_mem"), None);
}

#[test]
fn a_setting_made_in_a_committed_transaction_stays() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::InBlock, &[Effect::Begin(Default::default())]));
    run(&mut session, &end(TransactionStatus::InBlock, &[set("work_mem", "'1MB'")]));
    run(&mut session, &end(TransactionStatus::Idle, &[Effect::Commit { chain: false }]));
    assert_eq!(value(&session, "work_mem").as_deref(), Some("'1MB'"));
}

#[test]
fn a_failed_set_changes_nothing() {
    let mut session = session();
    let effects = [set("work_mem", "'nonsense'")];
    run(&mut session, &GroupEnd { failed: true, ..end(TransactionStatus::Idle, &effects) });
    assert_eq!(value(&session, "work_mem"), None);
    assert!(session.pins.is_empty());
}

#[test]
fn reset_comes_back_to_the_startup_packet_and_the_server_is_told_again() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::Idle, &[set("timezone", "'CET'")]));
    run(&mut session, &end(TransactionStatus::Idle, &[Effect::Reset("timezone".into())]));
    assert_eq!(value(&session, "timezone").as_deref(), Some("UTC"));
    assert_eq!(session.carried.get("timezone"), None);
}

#[test]
fn several_statements_of_which_one_failed_pin_the_session() {
    let mut session = session();
    let effects = [set("a.b", "1"), Effect::Commit { chain: false }, set("a.c", "x")];
    let new = run(&mut session, &GroupEnd { failed: true, ..end(TransactionStatus::Idle, &effects) });
    assert!(new.has(PinReason::UnknownSetting));
}

#[test]
fn a_string_that_failed_in_a_block_pins_the_session_if_a_part_of_it_may_stay() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::InBlock, &[Effect::Begin(Default::default())]));
    let effects = [set("a.b", "1"), Effect::Savepoint("s".into())];
    let new = run(&mut session, &GroupEnd { failed: true, ..end(TransactionStatus::Failed, &effects) });
    assert!(new.has(PinReason::UnknownSetting));
}

#[test]
fn a_pin_counts_even_when_its_statement_failed_and_discard_all_ends_it() {
    let mut session = session();
    let effects = [Effect::Pin(PinReason::AdvisoryLock)];
    let new = run(&mut session, &GroupEnd { failed: true, ..end(TransactionStatus::Idle, &effects) });
    assert!(new.has(PinReason::AdvisoryLock));
    assert_eq!(session.held(), Held::Pinned);
    run(&mut session, &end(TransactionStatus::Idle, &[Effect::DiscardAll]));
    assert_eq!(session.held(), Held::Free);
}

#[test]
fn only_what_was_committed_raises_the_write_floor() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::InBlock, &[Effect::Begin(Default::default())]));
    run(&mut session, &GroupEnd { wrote: true, ..end(TransactionStatus::InBlock, &[]) });
    assert_eq!(session.floor.write, None);
    run(&mut session, &GroupEnd { now: Moment(9), ..end(TransactionStatus::Idle, &[]) });
    assert_eq!(session.floor.write, Some((Moment(9), Durability::Inserted)));
    run(&mut session, &end(TransactionStatus::InBlock, &[Effect::Begin(Default::default())]));
    run(&mut session, &GroupEnd { wrote: true, ..end(TransactionStatus::InBlock, &[]) });
    let rolled_back = GroupEnd { rolled_back: true, now: Moment(20), ..end(TransactionStatus::Idle, &[]) };
    run(&mut session, &rolled_back);
    assert_eq!(session.floor.write, Some((Moment(9), Durability::Inserted)));
}

const BEGIN: Effect = Effect::Begin(crate::sql::effects::TransactionModes {
    read_only: None,
    isolation: None,
    deferrable: None,
});
const COMMIT: Effect = Effect::Commit { chain: false };
const ROLLBACK: Effect = Effect::Rollback { chain: false };

fn savepoint(name: &str) -> Effect {
    Effect::Savepoint(name.into())
}

fn back_to(name: &str) -> Effect {
    Effect::RollbackTo(name.into())
}

/// Runs each effect as a group of its own inside a block, and ends it with COMMIT.
fn block(session: &mut SessionState, effects: &[Effect]) {
    run(session, &end(TransactionStatus::InBlock, &[BEGIN]));
    for effect in effects {
        run(session, &end(TransactionStatus::InBlock, std::slice::from_ref(effect)));
    }
    run(session, &end(TransactionStatus::Idle, &[COMMIT]));
}

#[test]
fn several_statements_that_worked_are_followed_exactly() {
    let mut session = session();
    let effects = [BEGIN, set("work_mem", "1"), ROLLBACK, set("a.b", "2"), BEGIN, set("a.c", "3"), COMMIT];
    assert!(run(&mut session, &end(TransactionStatus::Idle, &effects)).is_empty());
    assert_eq!((value(&session, "work_mem"), value(&session, "a.b").as_deref()), (None, Some("2")));
    assert_eq!(value(&session, "a.c").as_deref(), Some("3"));
    // One implicit transaction, taken back by ROLLBACK.
    run(&mut session, &end(TransactionStatus::Idle, &[set("a.b", "4"), BEGIN, set("a.c", "5"), ROLLBACK]));
    assert_eq!(value(&session, "a.b").as_deref(), Some("2"));
    let failed = GroupEnd { failed: true, ..end(TransactionStatus::Idle, &[BEGIN, COMMIT]) };
    assert!(run(&mut session, &failed).is_empty(), "no setting is in doubt");
    let two = [set("a.b", "6"), set("a.c", "7")];
    assert!(run(&mut session, &GroupEnd { failed: true, ..end(TransactionStatus::Idle, &two) }).is_empty());
    assert_eq!(value(&session, "a.b").as_deref(), Some("2"), "one transaction, which failed");
}

#[test]
fn settings_come_back_to_their_savepoint() {
    let mut session = session();
    let effects = [
        set("a.b", "1"),
        savepoint("s"),
        set("a.b", "2"),
        savepoint("inner"),
        set("a.b", "3"),
        set("a.c", "3"),
        back_to("s"),
        set("a.d", "4"),
        savepoint("s"),
        set("a.d", "5"),
        back_to("s"),
        Effect::Release("s".into()),
    ];
    block(&mut session, &effects);
    assert!(session.pins.is_empty());
    assert_eq!(value(&session, "a.b").as_deref(), Some("1"));
    assert_eq!((value(&session, "a.c"), value(&session, "a.d").as_deref()), (None, Some("4")));
}

#[test]
fn a_failed_block_goes_on_behind_its_savepoint_and_its_commit_takes_it_back() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::InBlock, &[BEGIN, set("a.b", "1"), savepoint("s")]));
    run(&mut session, &GroupEnd { failed: true, ..end(TransactionStatus::Failed, &[]) });
    run(&mut session, &end(TransactionStatus::InBlock, &[back_to("s")]));
    run(&mut session, &end(TransactionStatus::Idle, &[COMMIT]));
    assert_eq!(value(&session, "a.b").as_deref(), Some("1"));
    run(&mut session, &end(TransactionStatus::InBlock, &[BEGIN, set("a.b", "2")]));
    run(&mut session, &GroupEnd { failed: true, ..end(TransactionStatus::Failed, &[]) });
    // The COMMIT is a ROLLBACK, and what comes behind it counts.
    run(&mut session, &end(TransactionStatus::Idle, &[COMMIT, set("a.c", "3")]));
    assert_eq!(value(&session, "a.b").as_deref(), Some("1"));
    assert_eq!(value(&session, "a.c").as_deref(), Some("3"));
    assert!(session.pins.is_empty());
}

#[test]
fn chained_transactions_go_back_to_their_own_beginning() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::InBlock, &[BEGIN]));
    run(&mut session, &end(TransactionStatus::InBlock, &[set("a.b", "1")]));
    run(&mut session, &end(TransactionStatus::InBlock, &[Effect::Commit { chain: true }]));
    run(&mut session, &end(TransactionStatus::InBlock, &[set("a.b", "2")]));
    run(&mut session, &end(TransactionStatus::InBlock, &[Effect::Rollback { chain: true }]));
    assert_eq!(value(&session, "a.b").as_deref(), Some("1"));
    run(&mut session, &end(TransactionStatus::InBlock, &[set("a.c", "3")]));
    let rolled_back = GroupEnd { rolled_back: true, ..end(TransactionStatus::Idle, &[ROLLBACK]) };
    run(&mut session, &rolled_back);
    assert_eq!((value(&session, "a.b").as_deref(), value(&session, "a.c")), (Some("1"), None));
    assert!(session.pins.is_empty());
}

fn answer(session: &mut SessionState, left: &[PinReason], values: &[Option<&str>]) -> Question {
    let question = session.question().unwrap_or_default();
    let pins = left.iter().copied().fold(Pins::default(), Pins::with);
    let values = values.iter().map(|value| value.map(Box::from)).collect();
    let answer = Answer { left: pins, values };
    session.answered(&question, Some(&answer), &mut |settings| Arc::new(settings));
    question
}

#[test]
fn what_the_server_does_not_have_any_more_pins_no_longer() {
    let mut session = session();
    block(&mut session, &[Effect::Pin(PinReason::Listen), Effect::Pin(PinReason::AdvisoryLock)]);
    let asked = answer(&mut session, &[PinReason::AdvisoryLock], &[]);
    assert!(asked.pins.has(PinReason::Listen) && asked.pins.has(PinReason::AdvisoryLock));
    assert!(session.pins.has(PinReason::AdvisoryLock) && !session.pins.has(PinReason::Listen));
    // Not asked again without a reason.
    run(&mut session, &end(TransactionStatus::Idle, &[]));
    assert_eq!(session.question(), None);
    run(&mut session, &end(TransactionStatus::InBlock, &[BEGIN]));
    run(&mut session, &end(TransactionStatus::InBlock, &[Effect::MayUnpin(PinReason::AdvisoryLock)]));
    assert_eq!(session.question(), None, "it may still be taken back");
    run(&mut session, &end(TransactionStatus::Idle, &[COMMIT]));
    answer(&mut session, &[], &[]);
    assert_eq!(session.held(), Held::Free);
}

#[test]
fn a_question_without_an_answer_is_asked_again_behind_the_next_group() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::Idle, &[Effect::Pin(PinReason::Listen)]));
    let question = session.question().unwrap_or_default();
    session.answered(&question, None, &mut |settings| Arc::new(settings));
    assert_eq!((session.question(), session.held()), (None, Held::Pinned));
    run(&mut session, &end(TransactionStatus::Idle, &[]));
    assert_eq!(session.question(), Some(question));
}

#[test]
fn dropping_anything_asks_for_temporary_tables_only_where_there_are_some() {
    let mut session = session();
    let drop_table = GroupEnd { ddl: true, ..end(TransactionStatus::Idle, &[]) };
    run(&mut session, &drop_table);
    assert_eq!(session.question(), None);
    run(&mut session, &end(TransactionStatus::Idle, &[Effect::Pin(PinReason::TemporaryTable)]));
    answer(&mut session, &[PinReason::TemporaryTable], &[]);
    assert_eq!((session.question(), session.held()), (None, Held::Pinned));
    run(&mut session, &drop_table);
    answer(&mut session, &[], &[]);
    assert_eq!(session.held(), Held::Free);
}

#[test]
fn a_setting_whose_value_is_not_known_is_asked_for() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::Idle, &[Effect::SetUnread("app.tenant".into())]));
    assert_eq!(session.held(), Held::Pinned);
    let asked = answer(&mut session, &[], &[Some("seven")]);
    assert_eq!(*asked.settings, [Box::<str>::from("app.tenant")]);
    assert_eq!(value(&session, "app.tenant").as_deref(), Some("seven"));
    assert_eq!(session.carried, *session.settings());
    assert_eq!(session.held(), Held::Free);
}

#[test]
fn what_may_or_may_not_have_been_committed_is_asked_for() {
    let mut session = session();
    run(&mut session, &end(TransactionStatus::InBlock, &[BEGIN, set("a.b", "1")]));
    // Did the COMMIT fail, or what came behind it?
    let failed = GroupEnd { failed: true, ..end(TransactionStatus::Idle, &[COMMIT]) };
    assert!(run(&mut session, &failed).has(PinReason::UnknownSetting));
    let asked = answer(&mut session, &[], &[Some("CET"), Some("1")]);
    assert_eq!(asked.settings.len(), 2, "{asked:?}");
    assert_eq!(session.held(), Held::Free);
    // A savepoint that may have been made hides the one before it.
    run(&mut session, &end(TransactionStatus::InBlock, &[BEGIN, savepoint("s"), set("a.b", "2")]));
    let effects = [savepoint("s")];
    run(&mut session, &GroupEnd { failed: true, ..end(TransactionStatus::Failed, &effects) });
    run(&mut session, &end(TransactionStatus::InBlock, &[back_to("s")]));
    run(&mut session, &end(TransactionStatus::Idle, &[COMMIT]));
    assert_eq!(session.held(), Held::Pinned);
    assert!(session.question().is_some_and(|asked| asked.settings.contains(&"a.b".into())));
}

#[test]
fn a_setting_without_a_name_pins_until_everything_is_reset() {
    let mut session = session();
    let unreadable = Effect::Pin(PinReason::UnknownSetting);
    run(&mut session, &end(TransactionStatus::Idle, std::slice::from_ref(&unreadable)));
    assert_eq!((session.question(), session.held()), (None, Held::Pinned));
    run(&mut session, &end(TransactionStatus::Idle, &[Effect::ResetAll]));
    // RESET ALL leaves who one is alone.
    answer(&mut session, &[], &[Some("none"), Some("app")]);
    assert_eq!((value(&session, "role"), session.held()), (None, Held::Free));
    // Taken back with its transaction.
    run(&mut session, &end(TransactionStatus::InBlock, &[BEGIN]));
    run(&mut session, &end(TransactionStatus::InBlock, std::slice::from_ref(&unreadable)));
    let rolled_back = GroupEnd { rolled_back: true, ..end(TransactionStatus::Idle, &[ROLLBACK]) };
    run(&mut session, &rolled_back);
    assert_eq!(session.held(), Held::Free);
}
