//! SQL that speaks of prepared statements by name: PREPARE, EXECUTE and what contains it.

use super::lexer::statements::{Literals, Statement, Statements};
use super::lexer::{Kind, Lexer, Token};
use std::ops::Range;

/// PostgreSQL cuts longer names.
const NAME_MAX: usize = 63;
/// A longer list of parameter types is left to the server.
const TYPES_MAX: usize = 64 * 1024;

/// What a text of one statement does with a prepared one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// PREPARE name [(types)] AS body.
    Prepare {
        /// The name, as PostgreSQL keeps it.
        name: Vec<u8>,
        /// Where it stands.
        at: Range<usize>,
        /// The types with their parentheses; empty: none are given.
        types: Range<usize>,
        /// The statement that is prepared.
        body: Range<usize>,
    },
    /// EXECUTE name [(arguments)], or EXPLAIN EXECUTE, or CREATE TABLE … AS EXECUTE.
    Execute {
        /// The name, as PostgreSQL keeps it.
        name: Vec<u8>,
        /// Where it stands.
        at: Range<usize>,
        /// Where the arguments stand, where nothing but EXECUTE does; with their parentheses.
        arguments: Option<Range<usize>>,
    },
}

/// May this statement speak of a prepared one by name?
pub(crate) fn speaks_of_names(text: &[u8], tokens: &[Token]) -> bool {
    let Some(first) = tokens.first() else { return false };
    let is = |word| first.is_word(text, word);
    is("prepare")
        || is("execute")
        || is("deallocate")
        || (is("explain") || is("create")) && tokens.iter().any(|token| token.is_word(text, "execute"))
}

/// What `text` does with a prepared statement, if it is certain.
pub fn named(text: &[u8]) -> Option<Named> {
    let mut statements = Statements::new(text, Literals::All);
    let statement = statements.next()?;
    if statements.next().is_some() || statement.broken || statement.truncated {
        return None;
    }
    let Statement { tokens, .. } = &statement;
    match tokens.first()? {
        first if first.is_word(text, "prepare") => prepare(text, tokens),
        first if first.is_word(text, "execute") => execute(text, tokens, true),
        first if first.is_word(text, "explain") => execute(text, explained(text, tokens)?, false),
        first if first.is_word(text, "create") => {
            let from = tokens
                .windows(2)
                .position(|pair| pair[0].is_word(text, "as") && pair[1].is_word(text, "execute"))?;
            execute(text, tokens.get(from + 1..)?, false)
        }
        _ => None,
    }
}

/// The names that a text executes or deallocates, wherever they stand in it.
pub fn mentions(text: &[u8]) -> Vec<Vec<u8>> {
    let tokens: Vec<Token> = Lexer::new(text).filter(|token| token.kind != Kind::Hint).collect();
    let speaks = |token: &Token| ["execute", "deallocate"].iter().any(|word| token.is_word(text, word));
    let mut found = Vec::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| speaks(token)) {
        let mut behind = tokens.iter().skip(at + 1).skip_while(|token| token.is_word(text, "prepare"));
        found.extend(behind.next().and_then(|token| name(text, token)));
    }
    found
}

fn prepare(text: &[u8], tokens: &[Token]) -> Option<Named> {
    let name = name(text, tokens.get(1)?)?;
    let mut rest = tokens.get(2..)?;
    let mut types = 0..0;
    if rest.first()?.is_mark(text, b'(') {
        // Type names have parentheses of their own: numeric(10, 2).
        let end = closing(text, rest)?;
        types = rest.first()?.start..rest.get(end)?.end;
        rest = rest.get(end + 1..)?;
    }
    let (keyword, body) = rest.split_first()?;
    let first = body.first()?;
    let preparable = first.is_mark(text, b'(')
        || ["select", "insert", "update", "delete", "merge", "values", "with", "table"]
            .iter()
            .any(|word| first.is_word(text, word));
    if !keyword.is_word(text, "as") || !preparable || types.len() > TYPES_MAX {
        return None;
    }
    let token = tokens.get(1)?;
    let body = first.start..body.last()?.end;
    Some(Named::Prepare { name, at: token.start..token.end, types, body })
}

fn execute(text: &[u8], tokens: &[Token], alone: bool) -> Option<Named> {
    let (token, rest) = match tokens {
        [execute, name, rest @ ..] if execute.is_word(text, "execute") => (name, rest),
        _ => return None,
    };
    let arguments = match rest {
        [] => token.end..token.end,
        [first, .., last] if first.is_mark(text, b'(') => first.start..last.end,
        _ if alone => return None,
        _ => 0..0,
    };
    let whole = alone && (rest.is_empty() || closing(text, rest)? == rest.len() - 1);
    if alone && !whole {
        return None;
    }
    let name = name(text, token)?;
    Some(Named::Execute { name, at: token.start..token.end, arguments: alone.then_some(arguments) })
}

/// What stands behind EXPLAIN and its options.
fn explained<'t>(text: &[u8], tokens: &'t [Token]) -> Option<&'t [Token]> {
    let mut rest = tokens.get(1..)?;
    if rest.first()?.is_mark(text, b'(') {
        return rest.get(closing(text, rest)? + 1..);
    }
    while ["analyze", "analyse", "verbose"]
        .iter()
        .any(|word| rest.first().is_some_and(|t| t.is_word(text, word)))
    {
        rest = rest.get(1..)?;
    }
    Some(rest)
}

/// The index of the parenthesis that closes the first token.
fn closing(text: &[u8], tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|token| {
        depth += usize::from(token.is_mark(text, b'('));
        if token.is_mark(text, b')') {
            depth = depth.saturating_sub(1);
            return depth == 0;
        }
        false
    })
}

/// A name as PostgreSQL keeps it. `None`: a word that is none, or one that cannot be told for certain.
fn name(text: &[u8], token: &Token) -> Option<Vec<u8>> {
    let bytes = token.bytes(text);
    let name = match token.kind {
        Kind::Word => {
            let name = bytes.to_ascii_lowercase();
            let reserved =
                std::str::from_utf8(&name).ok().is_none_or(|name| RESERVED.binary_search(&name).is_ok());
            (!reserved && name.is_ascii()).then_some(name)?
        }
        Kind::Quoted => {
            let inner = bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            let mut name = Vec::with_capacity(inner.len());
            let mut quoted = false;
            for &byte in inner {
                // A quote inside stands twice.
                quoted = byte == b'"' && !quoted;
                if !quoted {
                    name.push(byte);
                }
            }
            name
        }
        _ => return None,
    };
    (!name.is_empty() && name.len() <= NAME_MAX).then_some(name)
}

/// The reserved key words, those that may name a function or type included; sorted.
const RESERVED: [&str; 100] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn prepare_is_taken_apart() {
        assert!(RESERVED.is_sorted());
        let cases: [(&str, &str, &str, &str); 4] = [
            ("PREPARE q AS SELECT 1", "q", "", "SELECT 1"),
            (
                "prepare \"Q\"\"x\" (int, numeric(3,2)) as values ($1) ; -- end",
                "Q\"x",
                "(int, numeric(3,2))",
                "values ($1)",
            ),
            ("/* a */ PREPARE Q(text) AS (SELECT 1);", "q", "(text)", "(SELECT 1)"),
            ("PREPARE p AS WITH x AS (SELECT 1) TABLE x", "p", "", "WITH x AS (SELECT 1) TABLE x"),
        ];
        for (text, expected, of_types, of_body) in cases {
            let Some(Named::Prepare { name, at, types, body }) = named(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!((&*name, &text[types], &text[body]), (expected.as_bytes(), of_types, of_body));
            assert!(text[at].eq_ignore_ascii_case(expected) || expected.contains('"'));
        }
        for text in [
            "PREPARE TRANSACTION 'x'",
            "PREPARE q AS CREATE TABLE t ()",
            "PREPARE q AS",
            "PREPARE q (int AS SELECT 1",
            "PREPARE table AS SELECT 1",
            "PREPARE q AS SELECT 1; SELECT 2",
            "PREPARE \"\" AS SELECT 1",
        ] {
            assert_eq!(named(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn execute_is_found_where_it_may_stand() {
        for (text, expected, of_arguments) in [
            ("EXECUTE q", "q", Some("")),
            ("EXECUTE q(1, f(2));", "q", Some("(1, f(2))")),
            ("EXPLAIN (COSTS OFF) EXECUTE \"Q\"(1)", "Q", None),
            ("EXPLAIN ANALYZE VERBOSE EXECUTE q", "q", None),
            ("CREATE TEMP TABLE t AS EXECUTE q(1) WITH NO DATA", "q", None),
        ] {
            let Some(Named::Execute { name, arguments, .. }) = named(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(
                (&*name, arguments.map(|at| &text[at])),
                (expected.as_bytes(), of_arguments),
                "{text}"
            );
        }
        let many =
            mentions(b"BEGIN; EXECUTE q; SELECT 'EXECUTE r'; DEALLOCATE PREPARE \"S\"; DEALLOCATE ALL");
        assert_eq!(many, [b"q".to_vec(), b"S".to_vec()]);
        for text in ["EXECUTE q(1) x", "EXECUTE", "EXPLAIN SELECT 1", "CREATE TRIGGER t EXECUTE FUNCTION f()"]
        {
            assert_eq!(named(text.as_bytes()), None, "{text}");
        }
    }
}
