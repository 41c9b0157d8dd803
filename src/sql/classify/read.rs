//! What may be a read: searched for everything that makes it none, then parsed.

use super::names::{judge_function, name_of};
use super::render::{NotRendered, render};
use super::{Known, Verdict, visit};
use crate::sql::class::Why;
use crate::sql::functions;
use crate::sql::lexer::{Kind, Token};

/// Can a statement that begins with this token be a read by its grammar?
pub(super) fn may_read(text: &[u8], first: &Token) -> bool {
    first.is_mark(text, b'(')
        || ["select", "with", "values", "table"].iter().any(|word| first.is_word(text, word))
}

/// Judges one statement (or the query inside of another) for which `may_read` holds.
pub(super) fn judge(text: &[u8], tokens: &[Token], truncated: bool, known: Known<'_>) -> Verdict {
    if let Some(verdict) = (0..tokens.len()).find_map(|at| judge_token(text, tokens, at, known)) {
        return verdict;
    }
    if truncated {
        return Verdict::unknown(Why::TooLarge);
    }
    match render(text, tokens) {
        Ok(sql) => visit::judge(&sql, known),
        Err(NotRendered::TooLarge) => Verdict::unknown(Why::TooLarge),
        Err(NotRendered::NotText) => Verdict::unknown(Why::Unparsable),
    }
}

/// Does the token at `at` alone make the statement a write? Sound without knowing the grammar, and
/// so a second net under sqlparser: what it reads wrongly (`SELECT INTO t FROM s` is a column to
/// it) or does not visit is found here.
fn judge_token(text: &[u8], tokens: &[Token], at: usize, known: Known<'_>) -> Option<Verdict> {
    let token = tokens.get(at)?;
    let before = at.checked_sub(1).and_then(|i| tokens.get(i));
    let after = tokens.get(at + 1);
    match token.kind {
        Kind::Operator => {
            let operator = std::str::from_utf8(token.bytes(text)).ok()?;
            let writes = known.catalog.is_writing_operator(operator);
            writes.then_some(Verdict::write(Why::VolatileFunction))
        }
        Kind::Word => {
            judge_keyword(text, before, token, after).or_else(|| judge_name(text, tokens, at, known))
        }
        Kind::Quoted => judge_name(text, tokens, at, known),
        Kind::Broken => Some(Verdict::unknown(Why::Unparsable)),
        Kind::Text | Kind::Number | Kind::Param | Kind::Punctuation | Kind::Hint => None,
    }
}

fn judge_keyword(
    text: &[u8],
    before: Option<&Token>,
    token: &Token,
    after: Option<&Token>,
) -> Option<Verdict> {
    let is = |word| token.is_word(text, word);
    let followed_by =
        |words: &[&str]| after.is_some_and(|after| words.iter().any(|word| after.is_word(text, word)));
    let opens = before.is_some_and(|t| t.is_mark(text, b'(') || t.is_mark(text, b')'));
    if is("into") {
        Some(Verdict::write(Why::CreatesTable))
    } else if is("for") && followed_by(&["update", "share", "no", "key"]) {
        Some(Verdict::write(Why::Locks))
    } else if opens && (is("insert") || is("update") || is("delete") || is("merge")) {
        Some(Verdict::write(Why::WritesRows))
    } else {
        None
    }
}

fn judge_name(text: &[u8], tokens: &[Token], at: usize, known: Known<'_>) -> Option<Verdict> {
    let token = tokens.get(at)?;
    let name = name_of(token, text)?;
    let dotted = at >= 1 && tokens.get(at - 1).is_some_and(|t| t.is_mark(text, b'.'));
    if known.catalog.has_writing_types() && known.catalog.is_writing_type(&name) {
        return Some(Verdict::write(Why::VolatileFunction));
    }
    if !tokens.get(at + 1).is_some_and(|t| t.is_mark(text, b'(')) {
        // `t.f` calls f(t) where t has no column f.
        if dotted && known.catalog.is_row_function(&name) {
            return Some(Verdict::write(Why::VolatileFunction));
        }
        return judge_mention(known, &name);
    }
    if name == "current_setting" {
        let same_everywhere = setting_argument(text, tokens.get(at + 2), tokens.get(at + 3));
        return if same_everywhere { None } else { known.node_local() };
    }
    let schema = match dotted {
        true => tokens.get(at.checked_sub(2)?).and_then(|t| name_of(t, text)),
        false => None,
    };
    let verdict = judge_function(known, schema.as_deref(), &name)?;
    if functions::session_function(name.as_bytes()) == Some(functions::SessionFunction::SetConfig) {
        return Some(Verdict::write(Why::SessionState));
    }
    // What is not known may be no call at all (`WITH f(a) AS`); the parser tells.
    (verdict.access == crate::sql::class::Access::Write).then_some(verdict)
}

/// A name that is no call. That a column may be called like a relation of the primary's costs a read
/// on the primary; that sqlparser may take a relation for something else would cost a wrong answer.
fn judge_mention(known: Known<'_>, name: &str) -> Option<Verdict> {
    if functions::is_node_local_relation(name) {
        return known.node_local();
    }
    let primary = known.catalog.is_primary_only(name) || name.starts_with("pg_temp");
    primary.then_some(Verdict::write(Why::PrimaryOnlyRelation))
}

/// Is the argument a plain constant that names a setting which is the same on every node?
fn setting_argument(text: &[u8], argument: Option<&Token>, after: Option<&Token>) -> bool {
    let ends = after.is_some_and(|t| t.is_mark(text, b')') || t.is_mark(text, b','));
    let constant = argument
        .filter(|token| token.kind == Kind::Text && ends)
        .and_then(|token| std::str::from_utf8(token.bytes(text)).ok())
        .and_then(|raw| raw.strip_prefix('\'')?.strip_suffix('\''));
    constant.is_some_and(|name| !name.contains('\'') && !functions::is_node_local_setting(name))
}
