//! Does a read show something of the transaction that it is part of? In a transaction that has not begun
//! on a server yet, it would show something else.

use super::Known;
use super::names::name_of;
use crate::sql::lexer::{Kind, Token};

/// When the transaction began, or what the node's clock says: the clocks of two nodes are not one.
#[rustfmt::skip]
const CLOCKS: &[&str] = &[
    "age", "clock_timestamp", "current_date", "current_time", "current_timestamp", "localtime",
    "localtimestamp", "now", "statement_timestamp", "timeofday", "transaction_timestamp", "uuidv7",
];

/// For a statement that was found to be a read. A name that could mean such a function is taken for one, a
/// function of the database's own that is not IMMUTABLE for one that may call it.
pub(super) fn tells(text: &[u8], tokens: &[Token], known: Known<'_>) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        if !matches!(token.kind, Kind::Word | Kind::Quoted) {
            return false;
        }
        let Some(name) = name_of(token, text) else { return true };
        if CLOCKS.binary_search(&&*name).is_ok() || known.catalog.is_momentary(&name) {
            return true;
        }
        let dotted = at > 0 && tokens.get(at - 1).is_some_and(|before| before.is_mark(text, b'.'));
        let called = tokens.get(at + 1).is_some_and(|after| after.is_mark(text, b'('));
        // `t.f` calls f(t), too.
        (called || dotted)
            && (known.catalog.is_momentary_function(&name) || known.overrides.is_read_only(None, &name))
    })
}

#[cfg(test)]
mod tests {
    use super::CLOCKS;
    use crate::sql::class::{Access, Marks};
    use crate::sql::classify::tests::class_of;

    #[test]
    fn the_names_are_sorted() {
        assert!(CLOCKS.is_sorted());
    }

    #[test]
    fn reads_that_tell_of_their_transaction_are_marked() {
        for (text, tells) in [
            ("SELECT 1", false),
            ("SELECT lower(name), count(*) FROM t WHERE id = $1 GROUP BY 1", false),
            ("SELECT f(x) FROM t", false),
            ("SELECT 'now()' FROM t -- now()", false),
            ("SELECT now()", true),
            ("SELECT pg_catalog.NOW()", true),
            ("SELECT \"now\"()", true),
            ("SELECT * FROM t WHERE at > current_timestamp - interval '1 day'", true),
            ("SELECT CURRENT_DATE", true),
            ("VALUES (localtime)", true),
            ("SELECT age(born) FROM t", true),
            ("EXPLAIN SELECT now()", true),
            ("COPY (SELECT now()) TO STDOUT", true),
            ("SELECT 1; SELECT transaction_timestamp()", true),
            // A function of the database's own.
            ("SELECT tax(price) FROM t", true),
            ("SELECT t.tax FROM t", true),
            ("SELECT tax FROM t", false),
            ("SELECT app.declared()", true),
            // A view that calls one of them.
            ("SELECT * FROM recent", true),
            ("TABLE public.recent", true),
        ] {
            let class = class_of(text.as_bytes());
            if class.access == Access::Read {
                assert_eq!(class.marks.contains(Marks::MOMENTARY), tells, "{text}");
            }
        }
        assert_eq!(class_of(b"SELECT tax(price) FROM t").access, Access::Read);
    }
}
