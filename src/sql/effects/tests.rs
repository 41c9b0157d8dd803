#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn of(text: &str) -> Vec<Effect> {
    effects_of(text.as_bytes(), Dialect::STANDARD)
}

fn set(name: &str, value: &str) -> Vec<Effect> {
    vec![Effect::Set { name: name.into(), value: Value::Sql(value.into()), scope: Scope::Session }]
}

#[test]
fn settings_keep_their_value_as_it_was_written() {
    assert_eq!(of("SET search_path TO App, \"Other\", 'x'"), set("search_path", "App, \"Other\", 'x'"));
    assert_eq!(of("set Work_Mem = '1MB';"), set("work_mem", "'1MB'"));
    assert_eq!(of("SET SESSION a.B = on"), set("a.b", "on"));
    assert_eq!(of("SET x = -1 -- c"), set("x", "-1"));
    let local = Effect::Set { name: "a".into(), value: Value::Sql("1".into()), scope: Scope::Local };
    assert_eq!(of("SET LOCAL a TO 1"), [local]);
}

#[test]
fn special_forms_become_plain_settings() {
    assert_eq!(of("SET TIME ZONE 'UTC'"), set("timezone", "'UTC'"));
    assert_eq!(of("SET TIME ZONE LOCAL"), [Effect::Reset("timezone".into())]);
    assert_eq!(of("SET TIME ZONE DEFAULT"), [Effect::Reset("timezone".into())]);
    assert_eq!(of("SET TIME ZONE INTERVAL '1' HOUR"), [Effect::SetUnread("timezone".into())]);
    assert_eq!(of("SET NAMES 'utf8'"), set("client_encoding", "'utf8'"));
    assert_eq!(of("SET NAMES"), [Effect::Reset("client_encoding".into())]);
    assert_eq!(of("SET SCHEMA 'app'"), set("search_path", "'app'"));
    assert_eq!(of("SET ROLE app"), set("role", "app"));
    assert_eq!(of("SET role = 'app'"), set("role", "'app'"));
    assert_eq!(of("SET SESSION ROLE app"), set("role", "app"));
    assert_eq!(of("SET SESSION AUTHORIZATION 'app'"), set("session_authorization", "'app'"));
    assert_eq!(of("SET SESSION AUTHORIZATION DEFAULT"), [Effect::Reset("session_authorization".into())]);
    assert_eq!(of("RESET SESSION AUTHORIZATION"), [Effect::Reset("session_authorization".into())]);
    assert_eq!(of("SET XML OPTION DOCUMENT"), set("xmloption", "DOCUMENT"));
    assert_eq!(
        of("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
        set("default_transaction_isolation", "'repeatable read'")
    );
    assert_eq!(of("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, NOT DEFERRABLE").len(), 2);
}

#[test]
fn resets() {
    assert_eq!(of("SET a TO DEFAULT"), [Effect::Reset("a".into())]);
    assert_eq!(of("RESET \"A\".b"), [Effect::Reset("a.b".into())]);
    assert_eq!(of("RESET ALL"), [Effect::ResetAll]);
    assert_eq!(of("DISCARD ALL"), [Effect::DiscardAll]);
    assert_eq!(of("DISCARD TEMPORARY"), [Effect::Discard(DiscardKind::Temp)]);
    assert_eq!(of("DISCARD PLANS"), [Effect::Discard(DiscardKind::Plans)]);
    assert_eq!(of("DEALLOCATE PREPARE ALL"), [Effect::DeallocateAll]);
    assert_eq!(of("DEALLOCATE \"P\""), [Effect::Deallocate("P".into())]);
    assert_eq!(of("UNLISTEN *"), [Effect::Unlisten(None)]);
    assert_eq!(of("UNLISTEN c"), [Effect::Unlisten(Some("c".into()))]);
}

#[test]
fn set_config_of_constants_is_a_setting() {
    let config = |scope| Effect::Set { name: "a.b".into(), value: Value::Config("x, y".into()), scope };
    assert_eq!(of("SELECT set_config('a.B', 'x, y', false)"), [config(Scope::Session)]);
    assert_eq!(of("SELECT pg_catalog.set_config('a.b', 'x, y', true) AS z"), [config(Scope::Local)]);
    assert_eq!(of("SELECT set_config('a.b','x, y',false), set_config('a.b','x, y',true)").len(), 2);
    for other in [
        "SELECT set_config('a', b, false) FROM t",
        "SELECT set_config('a', f($1, true), false)",
        "SELECT set_config('a', 'b', false) WHERE false",
        "SELECT CASE WHEN x THEN set_config('a', 'b', false) END FROM t",
        "SELECT set_config('a', NULL, false)",
        "SELECT set_config('a', E'b\\n', false)",
        "INSERT INTO t SELECT pg_catalog.set_config('a', 'b', false)",
    ] {
        assert_eq!(of(other), [Effect::SetUnread("a".into())], "{other}");
    }
    for nameless in [
        "UPDATE pg_settings SET setting = '0' WHERE name = 'statement_timeout'",
        "SELECT set_config($1, lower($2), false)",
        "SELECT set_config($1, $2::int::text, false)",
        "SELECT set_config(E'a', 'b', true), set_config",
    ] {
        assert_eq!(of(nameless), [Effect::Pin(PinReason::UnknownSetting)], "{nameless}");
    }
}

#[test]
fn set_config_with_parameters_is_a_setting_when_they_are_bound() {
    let given = |number: u16, slot| match (number, slot) {
        (1, Slot::Text) => Some("App.Tenant".to_owned()),
        (2, Slot::Text) => Some("7".to_owned()),
        (3, Slot::Flag) => Some("false".to_owned()),
        (4, Slot::Text) => Some("pgweir.route".to_owned()),
        _ => None,
    };
    let of_bound = |text: &str| bound(of(text), &given);
    let config = |scope| Effect::Set { name: "app.tenant".into(), value: Value::Config("7".into()), scope };
    assert_eq!(of_bound("SELECT set_config($1, $2, false)"), [config(Scope::Session)]);
    assert_eq!(of_bound("SELECT set_config('app.tenant', $2::text, true)"), [config(Scope::Local)]);
    assert_eq!(of_bound("SELECT set_config($1, '7', $3)"), [config(Scope::Session)]);
    assert_eq!(of_bound("SELECT set_config($1, $9, true)"), [Effect::SetLocalUnknown]);
    assert_eq!(
        of_bound("SELECT set_config('App.Tenant', $9, false)"),
        [Effect::SetUnread("app.tenant".into())]
    );
    for unreadable in [
        "SELECT set_config($9, $2, false)",
        "SELECT set_config($1, $2, $9)",
        "SELECT set_config($4, 'x', true)",
    ] {
        assert_eq!(of_bound(unreadable), [Effect::Pin(PinReason::UnknownSetting)], "{unreadable}");
    }
}

#[test]
fn transactions() {
    let modes = TransactionModes::default();
    assert_eq!(of("BEGIN"), [Effect::Begin(modes)]);
    assert_eq!(of("begin work"), [Effect::Begin(modes)]);
    let strict =
        TransactionModes { read_only: Some(true), isolation: Some("serializable"), deferrable: Some(true) };
    assert_eq!(
        of("START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"),
        [Effect::Begin(strict)]
    );
    let write = TransactionModes { read_only: Some(false), isolation: Some("read committed"), ..modes };
    assert_eq!(
        of("SET TRANSACTION READ WRITE ISOLATION LEVEL READ COMMITTED"),
        [Effect::SetTransaction(write)]
    );
    let only = Effect::SetTransaction(TransactionModes { read_only: Some(true), ..modes });
    assert_eq!(of("SET transaction_read_only = on"), std::slice::from_ref(&only));
    assert_eq!(of("SELECT set_config('transaction_read_only', 'true', false)"), [only]);
    let strictest = Effect::SetTransaction(TransactionModes { isolation: Some("serializable"), ..modes });
    assert_eq!(of("SET LOCAL transaction_isolation TO 'what'"), [strictest]);
    assert_eq!(of("COMMIT"), [Effect::Commit { chain: false }]);
    assert_eq!(of("END TRANSACTION AND CHAIN"), [Effect::Commit { chain: true }]);
    assert_eq!(of("ROLLBACK WORK AND NO CHAIN"), [Effect::Rollback { chain: false }]);
    assert_eq!(of("ABORT AND CHAIN"), [Effect::Rollback { chain: true }]);
    assert_eq!(of("SAVEPOINT A"), [Effect::Savepoint("a".into())]);
    assert_eq!(of("ROLLBACK TO a"), [Effect::RollbackTo("a".into())]);
    assert_eq!(of("ROLLBACK TRANSACTION TO SAVEPOINT \"A\""), [Effect::RollbackTo("A".into())]);
    assert_eq!(of("RELEASE savepoint"), [Effect::Release("savepoint".into())]);
    assert_eq!(of("RELEASE SAVEPOINT a"), [Effect::Release("a".into())]);
    assert_eq!(of("PREPARE TRANSACTION 'x'"), [Effect::PrepareTransaction]);
    assert_eq!(of("COMMIT PREPARED 'x'"), [Effect::FinishPrepared]);
}

#[test]
fn what_cannot_be_replayed_pins() {
    let pin = |text: &str, reason| assert_eq!(of(text), [Effect::Pin(reason)], "{text}");
    pin("CREATE TEMP TABLE t (a int)", PinReason::TemporaryTable);
    pin("CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1", PinReason::TemporaryTable);
    pin("CREATE LOCAL TEMP TABLE t AS SELECT 1", PinReason::TemporaryTable);
    pin("CREATE TABLE pg_temp.t (a int)", PinReason::TemporaryTable);
    pin("SELECT 1 INTO TEMP t", PinReason::TemporaryTable);
    pin("LISTEN c", PinReason::Listen);
    pin("SELECT pg_try_advisory_lock(1)", PinReason::AdvisoryLock);
    pin("DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1", PinReason::HoldCursor);
    pin("PREPARE p AS SELECT 1", PinReason::SqlPrepare);
    pin("LOAD 'x'", PinReason::Load);
    assert_eq!(of("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1 WITH"), []);
    assert_eq!(of("SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)"), []);
    let may = |text: &str, reason| assert_eq!(of(text), [Effect::MayUnpin(reason)], "{text}");
    may("SELECT pg_catalog.pg_advisory_unlock($1)", PinReason::AdvisoryLock);
    may("SELECT pg_advisory_unlock_shared(1, 2)", PinReason::AdvisoryLock);
    may("SELECT pg_advisory_unlock_all()", PinReason::AdvisoryLock);
    may("CLOSE c", PinReason::HoldCursor);
    may("CLOSE ALL", PinReason::HoldCursor);
    assert_eq!(of("CREATE FUNCTION f() BEGIN ATOMIC SELECT pg_advisory_lock(1); COMMIT; END"), []);
    let unsafe_text = Dialect { standard_conforming_strings: false, safe_encoding: true };
    assert_eq!(effects_of(br"SET a = '\'", unsafe_text), [Effect::Pin(PinReason::Opaque)]);
}

#[test]
fn effects_come_in_order_and_a_broken_text_has_none() {
    let effects = of("BEGIN; SET a = 'x;y'; COMMIT; SELECT 'SET b = 1'");
    assert!(matches!(effects.as_slice(), [Effect::Begin(_), Effect::Set { .. }, Effect::Commit { .. }]));
    assert_eq!(of("BEGIN; SELECT 'open"), []);
}

#[test]
fn pgweir_s_own_words() {
    let route = |value: &str| Effect::PgweirSet {
        name: PgweirName::Route,
        value: value.into(),
        scope: Scope::Session,
    };
    assert_eq!(of("SET pgweir.route = 'primary'"), [route("primary")]);
    assert_eq!(of("SET pgweir.route TO replica;"), [route("replica")]);
    assert_eq!(of("SELECT set_config('pgweir.route', 'auto', false)"), [route("auto")]);
    assert_eq!(of("SET pgweir.route TO DEFAULT"), [Effect::PgweirReset(PgweirName::Route)]);
    assert_eq!(of("RESET pgweir.max_staleness"), [Effect::PgweirReset(PgweirName::MaxStaleness)]);
    assert_eq!(of("SHOW pgweir.token"), [Effect::PgweirShow(PgweirName::Token)]);
    assert_eq!(of("SET pgweir.rout = 1"), [Effect::PgweirUnknown("pgweir.rout".into())]);
    let text = "EXPLAIN (FORMAT json, ROUTE) SELECT * FROM t ;";
    let [Effect::ExplainRoute { start, end }] = of(text)[..] else { panic!("{:?}", of(text)) };
    assert_eq!(&text[start..end], "SELECT * FROM t");
}

#[test]
fn hints_are_read_from_comments_only() {
    let hints = hints_of(
        b"/* pgweir.consistency=Eventual pgweir.max_staleness='2s' */ SELECT 1 -- pgweir.route=replica",
    );
    assert_eq!((hints.levels, hints.bounds), (vec!["eventual".to_owned()], vec!["2s".to_owned()]));
    assert_eq!(hints.route, Some(crate::sql::class::Route::Replica));
    assert_eq!(hints_of(b"SELECT 'pgweir.route=primary'"), Hints::default());
    assert_eq!(hints_of(b"/* pgweir.route */ SELECT 1"), Hints::default());
    let hints =
        hints_of(b"/* pgweir.token=v1.7.1.0/3A */ SELECT 1 /*app='x',pgweir.causal_key='User%3A42 b'*/");
    assert_eq!((&*hints.tokens[0], &*hints.causal_keys[0]), ("v1.7.1.0/3A", "User:42 b"));
    assert!(!hints.only_route());
    let sqlcommenter = hints_of(b"SELECT 1 /*pgweir.token='v1.7.1.0%2F3A',route='%2Fusers'*/");
    assert_eq!((&*sqlcommenter.tokens[0], sqlcommenter.route), ("v1.7.1.0/3A", None));
}

#[test]
fn what_is_not_read_says_the_same_as_what_is() {
    for word in ["BEGIN", "end", "Commit", "rollback"] {
        // A comment is nothing to the statement, but makes it be read.
        assert_eq!(of(word), of(&format!("{word}/**/")), "{word}");
        assert_eq!(of(&format!("{word};")), of(word));
        assert_eq!(of(word).len(), 1);
        assert_eq!(of(&format!("{word}s")), []);
    }
}
