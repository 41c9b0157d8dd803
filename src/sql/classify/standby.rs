//! What a statement would do in a read-only transaction on a standby: the same as on the primary, or
//! not. Where PostgreSQL refuses it in both, it does not matter; in doubt, it is not fit.

use super::keyword::what_it_is;
use super::names::name_of;
use super::{Known, Node, Verdict};
use crate::sql::class::{Marks, Why};
use crate::sql::effects;
use crate::sql::lexer::Token;
use crate::sql::lexer::statements::Statement;

const NOT_FIT: Marks = Marks::WORKS.with(Marks::NOT_ON_STANDBY);

/// The marks that say so, for a statement that was found to be `verdict`.
pub(super) fn marks(text: &[u8], statement: &Statement, verdict: &Verdict, known: Known<'_>) -> Marks {
    let tokens = statement.tokens.as_slice();
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(text, word));
    let Some(first) = tokens.first().and_then(|first| name_of(first, text)) else {
        return if verdict.is_read() { Marks::WORKS } else { NOT_FIT };
    };
    match (verdict.why, first.as_ref()) {
        (Why::TransactionControl, "prepare") => NOT_FIT,
        (Why::TransactionControl, _) if is(1, "prepared") => NOT_FIT,
        (Why::TransactionControl, _) => asks_read_only(text, tokens),
        // What its snapshot is, only the node knows that exported it.
        (Why::SessionState, "set") if is(1, "transaction") && is(2, "snapshot") => NOT_FIT,
        (Why::SessionState, "set") if is(1, "transaction") => asks_read_only(text, tokens),
        (Why::SessionState, "set" | "reset") => Marks(0),
        // Whether it is nothing but that, its effects tell.
        (Why::SessionState, "select") if effects::only_sets(text, tokens) => Marks(0),
        (Why::SessionState, "fetch" | "move" | "close" | "unlisten" | "deallocate" | "discard") => {
            Marks::WORKS
        }
        (Why::SessionState, "declare") => declared(text, tokens, statement.truncated, known),
        (Why::Locks, "lock") if locks_least(text, tokens) => Marks::WORKS,
        (Why::Locks, "lock") => NOT_FIT.with(Marks::LOCKS),
        (Why::NodeLocal, _) => {
            let here = what_it_is(text, tokens, statement.truncated, Known { node: Node::Chosen, ..known });
            if here.is_read() { Marks::WORKS } else { not_fit(text, tokens) }
        }
        _ if verdict.is_read() => Marks::WORKS,
        _ => not_fit(text, tokens),
    }
}

fn not_fit(text: &[u8], tokens: &[Token]) -> Marks {
    if calls_advisory_lock(text, tokens) { NOT_FIT.with(Marks::LOCKS) } else { NOT_FIT }
}

fn asks_read_only(text: &[u8], tokens: &[Token]) -> Marks {
    let asks = |pair: &[Token]| matches!(pair, [read, only] if read.is_word(text, "read") && only.is_word(text, "only"));
    if tokens.windows(2).any(asks) { Marks::READ_ONLY } else { Marks(0) }
}

/// A cursor is as fit as its query.
fn declared(text: &[u8], tokens: &[Token], truncated: bool, known: Known<'_>) -> Marks {
    let query =
        tokens.iter().position(|token| token.is_word(text, "for")).and_then(|at| tokens.get(at + 1..));
    let verdict = match query {
        Some(query) if !query.is_empty() => {
            what_it_is(text, query, truncated, Known { node: Node::Chosen, ..known })
        }
        _ => return NOT_FIT,
    };
    if verdict.is_read() { Marks::WORKS } else { not_fit(text, tokens) }
}

/// `LOCK … IN ACCESS SHARE MODE` keeps a table from being dropped, on a standby as well.
fn locks_least(text: &[u8], tokens: &[Token]) -> bool {
    let mode = ["in", "access", "share", "mode"];
    tokens
        .windows(mode.len())
        .any(|four| four.iter().zip(mode).all(|(token, word)| token.is_word(text, word)))
}

fn calls_advisory_lock(text: &[u8], tokens: &[Token]) -> bool {
    tokens.windows(2).any(|pair| match pair {
        [name, open] if open.is_mark(text, b'(') => name_of(name, text)
            .is_some_and(|name| name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_")),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use crate::sql::class::Marks;
    use crate::sql::classify::tests::class_of;

    fn marks(text: &str) -> Marks {
        class_of(text.as_bytes()).marks
    }

    #[test]
    fn what_a_standby_does_as_well() {
        for text in [
            "SELECT 1",
            "COMMIT AND CHAIN",
            "SAVEPOINT a; ROLLBACK TO a; RELEASE a",
            "SET LOCAL work_mem = '1MB'",
            "SET ROLE app; RESET ALL",
            "SELECT set_config($1, $2, true), set_config('a', 'b', false) AS x",
            "DECLARE c SCROLL CURSOR FOR SELECT * FROM t",
            "FETCH 10 FROM c; MOVE c; CLOSE c",
            "LOCK TABLE t IN ACCESS SHARE MODE",
            "SELECT pg_is_in_recovery(), inet_server_port()",
            "SELECT * FROM pg_settings",
            "SHOW in_hot_standby",
            "EXPLAIN SELECT * FROM pg_locks",
            "DISCARD PLANS; DEALLOCATE ALL; UNLISTEN *",
            "",
        ] {
            assert!(!marks(text).contains(Marks::NOT_ON_STANDBY), "{text}");
        }
    }

    #[test]
    fn what_a_standby_does_not() {
        for text in [
            "INSERT INTO t VALUES (1)",
            "SELECT 1; DELETE FROM t",
            "SELECT pg_is_in_recovery() FROM t FOR UPDATE",
            "SELECT pg_is_in_recovery(), nextval('s')",
            "SELECT audit()",
            "SELECT nobody_knows()",
            "SELECT * FROM u_log",
            "COPY t TO '/tmp/x'",
            "DECLARE c CURSOR FOR SELECT audit()",
            "DECLARE c CURSOR FOR SELECT 1 FOR UPDATE",
            "PREPARE TRANSACTION 'x'",
            "ROLLBACK PREPARED 'x'",
            "SET TRANSACTION SNAPSHOT '1'",
            "LISTEN c",
            "NOTIFY c",
            "LOAD 'x'",
            "SELECT set_config('a', 'b', true) FROM t",
            "CREATE TABLE x ()",
        ] {
            assert!(marks(text).contains(Marks::NOT_ON_STANDBY), "{text}");
        }
    }

    #[test]
    fn locks_that_a_standby_would_take_for_itself() {
        for text in [
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT PG_TRY_advisory_lock (1), pg_is_in_recovery()",
            "DECLARE c CURSOR FOR SELECT pg_advisory_xact_lock(a) FROM t",
            "LOCK TABLE t",
            "LOCK TABLE t IN ROW EXCLUSIVE MODE",
        ] {
            assert!(marks(text).contains(Marks::LOCKS.with(Marks::NOT_ON_STANDBY)), "{text}");
        }
        assert!(!marks("SELECT 1").contains(Marks::LOCKS));
    }

    #[test]
    fn what_begins_or_sets_is_no_work() {
        for text in
            ["BEGIN", "SET a = 1", "BEGIN; SET TRANSACTION READ ONLY", "SELECT set_config('a', $1, true)"]
        {
            assert!(!marks(text).contains(Marks::WORKS), "{text}");
        }
        for text in
            ["SELECT 1", "BEGIN; SELECT 1", "FETCH c", "SELECT set_config('a', 'b', true) FROM t", "VACUUM"]
        {
            assert!(marks(text).contains(Marks::WORKS), "{text}");
        }
        for text in [
            "BEGIN READ ONLY",
            "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "SET TRANSACTION READ ONLY",
        ] {
            assert!(marks(text).contains(Marks::READ_ONLY), "{text}");
        }
        assert!(!marks("BEGIN READ WRITE").contains(Marks::READ_ONLY));
    }
}
