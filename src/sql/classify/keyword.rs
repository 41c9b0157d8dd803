//! The first word of a statement, which decides nearly everything.

use super::names::{judge_relation, name_of};
use super::{Known, Verdict, moment, read, standby};
use crate::sql::class::{Access, Marks, Why};
use crate::sql::functions;
use crate::sql::lexer::statements::Statement;
use crate::sql::lexer::{Kind, Token};
use crate::sql::named::speaks_of_names;

/// Judges one statement.
pub(super) fn judge(text: &[u8], statement: &Statement, known: Known<'_>) -> Verdict {
    let tokens = statement.tokens.as_slice();
    if statement.broken {
        // PostgreSQL refuses it wherever it is.
        return Verdict::unknown(Why::Unparsable).marked(Marks::WORKS);
    }
    let verdict = what_it_is(text, tokens, statement.truncated, known);
    let verdict = verdict.marked(standby::marks(text, statement, &verdict, known));
    let Some(first) = tokens.first() else { return verdict };
    // The body of a function is stored, not run.
    let effect = !first.is_word(text, "create")
        && (statement.late_effect || calls_session_function(text, tokens) || updates_settings(text, tokens));
    let temporary =
        (verdict.why == Why::CreatesTable || verdict.why == Why::Ddl) && creates_temporary(text, tokens);
    let verdict = if effect || temporary { verdict.marked(Marks::SESSION_EFFECT) } else { verdict };
    let tells = verdict.is_read() && moment::tells(text, tokens, known);
    let verdict = if tells { verdict.marked(Marks::MOMENTARY) } else { verdict };
    let names = !verdict.is_read() && speaks_of_names(text, tokens);
    if names { verdict.marked(Marks::NAMED) } else { verdict }
}

/// What a statement is, apart from what it does to its session.
pub(super) fn what_it_is(text: &[u8], tokens: &[Token], truncated: bool, known: Known<'_>) -> Verdict {
    match tokens.first() {
        None => Verdict::READ,
        Some(first) if read::may_read(text, first) => read::judge(text, tokens, truncated, known),
        Some(_) => by_keyword(text, tokens, truncated, known),
    }
}

fn by_keyword(text: &[u8], tokens: &[Token], truncated: bool, known: Known<'_>) -> Verdict {
    let word = tokens.first().and_then(|first| name_of(first, text)).unwrap_or_default();
    let second = |words: &[&str]| {
        tokens.get(1).is_some_and(|second| words.iter().any(|word| second.is_word(text, word)))
    };
    if tokens.first().is_none_or(|first| first.kind != Kind::Word) {
        return Verdict::unknown(Why::Unparsable);
    }
    match word.as_ref() {
        "explain" => explain(text, tokens, truncated, known),
        "copy" => copy(text, tokens, truncated, known),
        "show" => show(text, tokens, known),
        "set" | "reset" => setting(text, tokens),
        "insert" | "update" | "delete" | "merge" => Verdict::write(Why::WritesRows),
        "lock" => Verdict::write(Why::Locks),
        "do" => Verdict::write(Why::OpaqueCode).marked(Marks::DDL),
        "call" | "execute" => Verdict::write(Why::OpaqueCode),
        "prepare" if second(&["transaction"]) => transaction(),
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            transaction()
        }
        "discard" | "listen" | "unlisten" | "load" | "prepare" | "deallocate" | "declare" | "close" => {
            Verdict::write(Why::SessionState).marked(Marks::SESSION_EFFECT)
        }
        "fetch" | "move" | "notify" => Verdict::write(Why::SessionState),
        "create" if creates_from_query(text, tokens) => Verdict::write(Why::CreatesTable).marked(Marks::DDL),
        "create" | "alter" | "drop" | "grant" | "revoke" | "comment" | "security" | "reassign"
        | "refresh" | "import" => Verdict::write(Why::Ddl).marked(Marks::DDL),
        "truncate" | "reindex" | "cluster" | "vacuum" | "analyze" | "analyse" | "checkpoint" | "repack" => {
            Verdict::write(Why::Ddl)
        }
        _ => Verdict::unknown(Why::Unparsable),
    }
}

fn transaction() -> Verdict {
    Verdict::write(Why::TransactionControl).marked(Marks::TRANSACTION_CONTROL)
}

fn pgweir() -> Verdict {
    Verdict { access: Access::Read, why: Why::Pgweir, marks: Marks::PGWEIR }
}

/// SET and RESET.
fn setting(text: &[u8], tokens: &[Token]) -> Verdict {
    let scope = ["session", "local"];
    let skip = usize::from(tokens.get(1).is_some_and(|t| scope.iter().any(|w| t.is_word(text, w))));
    if speaks_to_pgweir(text, tokens.get(1 + skip..).unwrap_or_default()) {
        return pgweir();
    }
    Verdict::write(Why::SessionState).marked(Marks::SESSION_EFFECT)
}

fn speaks_to_pgweir(text: &[u8], tokens: &[Token]) -> bool {
    matches!(tokens, [name, dot, ..] if name.is_word(text, "pgweir") && dot.is_mark(text, b'.'))
}

/// SHOW: the session's own settings read the same everywhere; what may differ by node does not.
fn show(text: &[u8], tokens: &[Token], known: Known<'_>) -> Verdict {
    let rest = tokens.get(1..).unwrap_or_default();
    if speaks_to_pgweir(text, rest) {
        return pgweir();
    }
    let same = match rest {
        [name] => name_of(name, text).is_some_and(|name| functions::is_session_setting(&name)),
        [time, zone] => time.is_word(text, "time") && zone.is_word(text, "zone"),
        _ => false,
    };
    if same { Verdict::READ } else { known.node_local().unwrap_or(Verdict::READ) }
}

/// EXPLAIN of a read is a read, with or without ANALYZE. Of anything else: the primary, which
/// would plan it too.
fn explain(text: &[u8], tokens: &[Token], truncated: bool, known: Known<'_>) -> Verdict {
    let mut rest = tokens.get(1..).unwrap_or_default();
    let query_in_parentheses = matches!(rest, [open, first, ..]
        if open.is_mark(text, b'(') && read::may_read(text, first));
    if rest.first().is_some_and(|t| t.is_mark(text, b'(')) && !query_in_parentheses {
        let Some(close) = closing(text, rest) else {
            return Verdict::unknown(Why::Unparsable);
        };
        if rest.get(1..close).unwrap_or_default().iter().any(|t| t.is_word(text, "route")) {
            return pgweir();
        }
        rest = rest.get(close + 1..).unwrap_or_default();
    } else {
        while let [option, tail @ ..] = rest {
            if !["analyze", "analyse", "verbose"].iter().any(|word| option.is_word(text, word)) {
                break;
            }
            rest = tail;
        }
    }
    match rest.first() {
        None => Verdict::unknown(Why::Unparsable),
        Some(first) if read::may_read(text, first) => read::judge(text, rest, truncated, known),
        Some(_) => Verdict { marks: Marks(0), ..by_explained(text, rest) },
    }
}

fn by_explained(text: &[u8], rest: &[Token]) -> Verdict {
    let word = rest.first().and_then(|first| name_of(first, text)).unwrap_or_default();
    match word.as_ref() {
        "insert" | "update" | "delete" | "merge" => Verdict::write(Why::WritesRows),
        "create" | "refresh" => Verdict::write(Why::CreatesTable),
        "execute" => Verdict::write(Why::OpaqueCode),
        "declare" => Verdict::write(Why::SessionState),
        _ => Verdict::unknown(Why::Unparsable),
    }
}

/// COPY … TO STDOUT of a read is a read; files, programs and FROM belong to the primary.
fn copy(text: &[u8], tokens: &[Token], truncated: bool, known: Known<'_>) -> Verdict {
    let mut rest = tokens.get(1..).unwrap_or_default();
    if rest.first().is_some_and(|t| t.is_mark(text, b'(')) {
        let Some(close) = closing(text, rest) else {
            return Verdict::unknown(if truncated { Why::TooLarge } else { Why::Unparsable });
        };
        let query = rest.get(1..close).unwrap_or_default();
        let target = copy_target(text, rest.get(close + 1..).unwrap_or_default());
        let verdict = match query.first() {
            Some(first) if read::may_read(text, first) => read::judge(text, query, false, known),
            Some(_) => by_explained(text, query),
            None => Verdict::unknown(Why::Unparsable),
        };
        return if verdict.is_read() { target } else { verdict.marked(Marks::COPY) };
    }
    if rest.len() > 2 && rest.first().is_some_and(|t| t.is_word(text, "binary")) {
        rest = rest.get(1..).unwrap_or_default();
    }
    let (names, tail) = qualified(text, rest);
    let tail = match tail.first() {
        Some(open) if open.is_mark(text, b'(') => match closing(text, tail) {
            Some(close) => tail.get(close + 1..).unwrap_or_default(),
            None => return Verdict::unknown(Why::Unparsable).marked(Marks::COPY),
        },
        _ => tail,
    };
    let target = copy_target(text, tail);
    let (Some(name), true) = (names.last().and_then(|t| name_of(t, text)), target.is_read()) else {
        return target;
    };
    let schema = names.len().checked_sub(2).and_then(|i| names.get(i)).and_then(|t| name_of(t, text));
    judge_relation(known, schema.as_deref(), &name).unwrap_or(Verdict::READ).marked(Marks::COPY)
}

/// `TO STDOUT …`, `TO 'file'`, `FROM …`.
fn copy_target(text: &[u8], tail: &[Token]) -> Verdict {
    match tail {
        [to, out, ..] if to.is_word(text, "to") && out.is_word(text, "stdout") => {
            Verdict::READ.marked(Marks::COPY)
        }
        [to, ..] if to.is_word(text, "to") => Verdict::write(Why::NodeLocal),
        [from, ..] if from.is_word(text, "from") => Verdict::write(Why::WritesRows).marked(Marks::COPY),
        _ => Verdict::unknown(Why::Unparsable).marked(Marks::COPY),
    }
}

/// The tokens of a name with its schema, and what follows.
fn qualified<'a>(text: &[u8], tokens: &'a [Token]) -> (Vec<&'a Token>, &'a [Token]) {
    let mut names = Vec::new();
    let mut rest = tokens;
    while let [name, tail @ ..] = rest {
        names.push(name);
        match tail {
            [dot, after @ ..] if dot.is_mark(text, b'.') => rest = after,
            _ => return (names, tail),
        }
    }
    (names, rest)
}

/// The index of the parenthesis that closes the first token.
fn closing(text: &[u8], tokens: &[Token]) -> Option<usize> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        if token.is_mark(text, b'(') {
            depth += 1;
        } else if token.is_mark(text, b')') {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(index);
            }
        }
    }
    None
}

fn calls_session_function(text: &[u8], tokens: &[Token]) -> bool {
    tokens.windows(2).any(|pair| match pair {
        [name, open] if open.is_mark(text, b'(') => {
            name_of(name, text).is_some_and(|name| functions::changes_session(name.as_bytes()))
        }
        _ => false,
    })
}

/// `UPDATE pg_settings` is a SET.
pub(crate) fn updates_settings(text: &[u8], tokens: &[Token]) -> bool {
    let view = |token: &Token| name_of(token, text).is_some_and(|name| name == "pg_settings");
    tokens.iter().any(view) && tokens.iter().any(|token| token.is_word(text, "update"))
}

/// `CREATE TEMP …`, `CREATE … pg_temp.t`, `SELECT … INTO TEMP t`.
pub(crate) fn creates_temporary(text: &[u8], tokens: &[Token]) -> bool {
    tokens.iter().enumerate().any(|(index, token)| {
        let before = index.checked_sub(1).and_then(|i| tokens.get(i));
        let leads = before.is_some_and(|t| {
            ["create", "into", "local", "global", "replace", "recursive"].iter().any(|w| t.is_word(text, w))
        });
        let named = (token.kind == Kind::Word || token.kind == Kind::Quoted)
            && tokens.get(index + 1).is_some_and(|t| t.is_mark(text, b'.'))
            && name_of(token, text).is_some_and(|name| name.starts_with("pg_temp"));
        named || leads && (token.is_word(text, "temp") || token.is_word(text, "temporary"))
    })
}

/// `CREATE TABLE … AS query`, `CREATE MATERIALIZED VIEW`.
fn creates_from_query(text: &[u8], tokens: &[Token]) -> bool {
    let kind = tokens.iter().take(6).position(|t| t.is_word(text, "table"));
    let view = tokens.get(1).is_some_and(|t| t.is_word(text, "materialized"));
    let from_query = tokens.windows(2).any(|pair| match pair {
        [as_word, first] => {
            as_word.is_word(text, "as") && (read::may_read(text, first) || first.is_word(text, "execute"))
        }
        _ => false,
    });
    view || kind.is_some() && from_query
}
