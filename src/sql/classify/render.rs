//! Tokens → a text for sqlparser: no comments, every literal the same short one, names that it
//! could read otherwise than PostgreSQL quoted.

use crate::sql::lexer::{Kind, Token};
use std::borrow::Cow;

/// A text longer than this is not parsed.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// Why there is no text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotRendered {
    TooLarge,
    NotText,
}

/// Renders one statement's tokens.
pub(super) fn render(text: &[u8], tokens: &[Token]) -> Result<String, NotRendered> {
    let mut out = String::new();
    for index in 0..tokens.len() {
        let piece = piece(text, tokens, index)?;
        if piece.is_empty() {
            continue;
        }
        if !out.is_empty() && !glued(tokens, index) {
            out.push(' ');
        }
        out.push_str(&piece);
        if out.len() > MAX_BYTES {
            return Err(NotRendered::TooLarge);
        }
    }
    Ok(out)
}

fn piece<'t>(text: &'t [u8], tokens: &[Token], index: usize) -> Result<Cow<'t, str>, NotRendered> {
    let Some(token) = tokens.get(index) else {
        return Ok(Cow::Borrowed(""));
    };
    let before = index.checked_sub(1).and_then(|i| tokens.get(i));
    Ok(match token.kind {
        // The escape character of `U&'…' UESCAPE '!'`.
        Kind::Text if before.is_some_and(|t| t.is_word(text, "uescape")) => Cow::Borrowed(""),
        Kind::Text => Cow::Borrowed("'x'"),
        Kind::Number => Cow::Borrowed("1"),
        Kind::Word => word(text, before, token, tokens.get(index + 1))?,
        _ => Cow::Borrowed(utf8(text, token)?),
    })
}

/// Stood it right after the one before? (`a.b`, `f(`, `::`; sqlparser cares in places.)
fn glued(tokens: &[Token], index: usize) -> bool {
    let before = index.checked_sub(1).and_then(|i| tokens.get(i));
    let literal = |kind| matches!(kind, Kind::Text | Kind::Number);
    match (before, tokens.get(index)) {
        (Some(before), Some(token)) => {
            before.end == token.start && !literal(before.kind) && !literal(token.kind)
        }
        _ => false,
    }
}

fn utf8<'t>(text: &'t [u8], token: &Token) -> Result<&'t str, NotRendered> {
    std::str::from_utf8(token.bytes(text)).map_err(|_| NotRendered::NotText)
}

/// Words that sqlparser reads otherwise than PostgreSQL, to which they are reserved: so they cannot
/// be anything else here.
fn word<'t>(
    text: &'t [u8],
    before: Option<&Token>,
    token: &Token,
    next: Option<&Token>,
) -> Result<Cow<'t, str>, NotRendered> {
    let word = utf8(text, token)?;
    if !word.is_ascii() || word.contains('$') {
        return Ok(Cow::Owned(format!("\"{}\"", word.to_ascii_lowercase())));
    }
    let is = |token: Option<&Token>, words: &[&str]| {
        token.is_some_and(|token| words.iter().any(|word| token.is_word(text, word)))
    };
    let it = Some(token);
    Ok(Cow::Borrowed(if is(it, &["table"]) {
        // `TABLE t` is defined as this.
        "SELECT * FROM"
    } else if is(it, &["only"]) && !is(before, &["row", "rows"]) {
        // `FROM ONLY t` is a table ONLY called t to sqlparser. (`FETCH … ROWS ONLY` is not that.)
        ""
    } else if is(it, &["variadic"]) || is(it, &["uescape"]) && next.is_some_and(|t| t.kind == Kind::Text) {
        ""
    } else if is(it, &["rows"]) && is(next, &["from"]) {
        // `ROWS FROM (f(), g())` takes a list of calls, as this does.
        "unnest"
    } else if is(it, &["from"]) && is(before, &["rows"]) {
        ""
    } else {
        word
    }))
}
