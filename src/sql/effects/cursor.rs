//! Walks over the tokens of one statement.

use crate::sql::classify::name_of;
use crate::sql::lexer::{Kind, Token};

#[derive(Clone, Debug)]
pub(super) struct Cursor<'t> {
    text: &'t [u8],
    tokens: &'t [Token],
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t [u8], tokens: &'t [Token]) -> Cursor<'t> {
        Cursor { text, tokens }
    }

    pub(super) fn is_end(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(super) fn skip(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    /// Takes this keyword if it is next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let is = self.tokens.first().is_some_and(|token| token.is_word(self.text, word));
        if is {
            self.skip();
        }
        is
    }

    pub(super) fn is_mark(&self, mark: u8) -> bool {
        self.tokens.first().is_some_and(|token| token.is_mark(self.text, mark))
    }

    /// Takes this punctuation if it is next.
    pub(super) fn mark(&mut self, mark: u8) -> bool {
        let is = self.is_mark(mark);
        if is {
            self.skip();
        }
        is
    }

    /// Takes this operator if it is next.
    pub(super) fn operator(&mut self, operator: &[u8]) -> bool {
        let is = self
            .tokens
            .first()
            .is_some_and(|token| token.kind == Kind::Operator && token.bytes(self.text) == operator);
        if is {
            self.skip();
        }
        is
    }

    /// Takes a word or quoted name, folded.
    pub(super) fn name(&mut self) -> Option<String> {
        let name = name_of(self.tokens.first()?, self.text)?.into_owned();
        self.skip();
        Some(name)
    }

    /// Takes a string literal, quotes included.
    pub(super) fn literal(&mut self) -> Option<String> {
        let token = self.tokens.first().filter(|token| token.kind == Kind::Text)?;
        let raw = std::str::from_utf8(token.bytes(self.text)).ok()?.to_owned();
        self.skip();
        Some(raw)
    }

    /// Takes a parameter (`$1`) and gives its number.
    pub(super) fn param(&mut self) -> Option<u16> {
        let token = self.tokens.first().filter(|token| token.kind == Kind::Param)?;
        let digits = token.bytes(self.text).strip_prefix(b"$")?;
        let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        self.skip();
        Some(number)
    }

    /// From the next token to the end of the last.
    pub(super) fn rest(&self) -> Option<(usize, usize)> {
        Some((self.tokens.first()?.start, self.tokens.last()?.end))
    }

    /// The same as text.
    pub(super) fn tail(&self) -> Option<String> {
        let (start, end) = self.rest()?;
        std::str::from_utf8(self.text.get(start..end)?).ok().map(str::to_owned)
    }
}

/// The value of a plain literal `'…'` without escapes; anything else is left as it stands.
pub(super) fn unquoted(raw: &str) -> String {
    match raw.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')) {
        Some(inner) => inner.replace("''", "'"),
        None => raw.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(raw).to_owned(),
    }
}
