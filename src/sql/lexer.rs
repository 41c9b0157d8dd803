//! One pass over the bytes of a text, as PostgreSQL's own scanner reads them: no allocation, no
//! recursion, linear time. Whatever it cannot read for certain is `Kind::Broken`.

pub mod fingerprint;
pub mod hash;
mod scan;
pub mod statements;
mod swar;

pub use fingerprint::{Keys, Shape, shape_of};
pub(crate) use scan::block_comment_end;
use scan::{
    Escapes, START, Start, blanks_end, dollar_string_end, line_end, operator_end, part_of_operator,
    part_of_word, quoted_end, run_end, string_end, word_end,
};

/// How strings are to be read; part of the class and of the cache key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dialect {
    /// `standard_conforming_strings`: off makes a backslash an escape in plain strings.
    pub standard_conforming_strings: bool,
    /// Is the client encoding one in which no byte below 128 is part of a longer character (UTF-8,
    /// LATIN1, EUC; not SJIS, BIG5, GBK, GB18030, UHC, JOHAB)?
    pub safe_encoding: bool,
}

impl Dialect {
    /// Every modern server and client: UTF-8, standard strings.
    pub const STANDARD: Dialect = Dialect { standard_conforming_strings: true, safe_encoding: true };

    /// Can this text be read for certain, whatever the session's settings make of it?
    pub fn can_read(self, text: &[u8]) -> bool {
        (self.safe_encoding || text.is_ascii())
            && (self.standard_conforming_strings || memchr::memchr(b'\\', text).is_none())
    }
}

impl Default for Dialect {
    fn default() -> Dialect {
        Dialect::STANDARD
    }
}

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// An unquoted word: keyword or identifier.
    Word = 1,
    /// `"…"`, quotes included.
    Quoted,
    /// A string literal of any form, with its prefix and all its continuations.
    Text,
    /// A number.
    Number,
    /// `$1`.
    Param,
    /// An operator, or one of `:` `::` `:=` `=>` `..`.
    Operator,
    /// One of `( ) [ ] , ; .`.
    Punctuation,
    /// A comment that speaks to pgweir, delimiters included.
    Hint,
    /// Something that cannot be read for certain: an open quote or comment, `U&"…"`, a stray byte.
    Broken,
}

/// A piece of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

impl Token {
    /// Its bytes. (Empty when it does not belong to `text`.)
    pub fn bytes<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// Is it this keyword?
    pub fn is_word(&self, text: &[u8], word: &str) -> bool {
        self.kind == Kind::Word && self.bytes(text).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Is it this one of `( ) [ ] , ; .`?
    pub fn is_mark(&self, text: &[u8], mark: u8) -> bool {
        self.kind == Kind::Punctuation && self.bytes(text) == [mark]
    }
}

/// The lexer: an iterator of tokens.
#[derive(Clone, Debug)]
pub struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    /// Up to here there are signs, each an operator of its own.
    signs_until: usize,
}

impl<'t> Lexer<'t> {
    /// Reads from the beginning of `text`.
    pub fn new(text: &'t [u8]) -> Lexer<'t> {
        Lexer { text, at: 0, signs_until: 0 }
    }

    /// The next token, and if it is a word or a quoted one, its first eight bytes (behind the quote): whoever hashes
    /// it has them already. What most tokens are is read here, in the caller's loop; the rest is called.
    #[inline(always)]
    fn read(&mut self) -> Option<(Token, u64)> {
        let text = self.text;
        let mut start = self.at;
        loop {
            let mut byte = *text.get(start)?;
            if byte == b' ' {
                start += 1;
                byte = *text.get(start)?;
            }
            let (token, head) = match START[byte as usize] {
                Start::Blank => {
                    start = blanks_end(text, start + 1);
                    continue;
                }
                Start::Word => word(text, start),
                Start::DoubleQuote => quoted(text, start),
                Start::Mark => (Token { kind: Kind::Punctuation, start, end: start + 1 }, 0),
                Start::Dot if !matches!(text.get(start + 1), Some(b'.' | b'0'..=b'9')) => {
                    (Token { kind: Kind::Punctuation, start, end: start + 1 }, 0)
                }
                Start::DashOrSlash => match comment(text, start) {
                    Some(Ok(end)) => {
                        start = end;
                        continue;
                    }
                    Some(Err(token)) => (token, 0),
                    None => (self.operator(start), 0),
                },
                Start::Operator => (self.operator(start), 0),
                class => (other(text, start, class), 0),
            };
            self.at = token.end;
            return Some((token, head));
        }
    }
}

impl Lexer<'_> {
    /// Nearly every operator is one byte long.
    #[inline(always)]
    fn operator(&mut self, start: usize) -> Token {
        let mut end = start + 1;
        if start >= self.signs_until && self.text.get(end).is_some_and(|&byte| part_of_operator(byte)) {
            (end, self.signs_until) = operator_end(self.text, start);
        }
        Token { kind: Kind::Operator, start, end }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.read().map(|(token, _)| token)
    }
}

/// Where an ordinary comment ends; or the token that it is instead: a hint, or a comment without an end.
#[inline(never)]
fn comment(text: &[u8], start: usize) -> Option<Result<usize, Token>> {
    let end = match (text.get(start)?, text.get(start + 1)?) {
        (b'-', b'-') => line_end(text, start),
        (b'/', b'*') => match block_comment_end(text, start) {
            Some(end) => end,
            None => return Some(Err(broken(text, start))),
        },
        _ => return None,
    };
    let speaks = memchr::memmem::find(text.get(start..end)?, b"pgweir.").is_some();
    Some(if speaks { Err(Token { kind: Kind::Hint, start, end }) } else { Ok(end) })
}

/// Nothing after this can be trusted: the rest is one token.
#[cold]
fn broken(text: &[u8], start: usize) -> Token {
    Token { kind: Kind::Broken, start, end: text.len() }
}

#[inline]
fn token(text: &[u8], kind: Kind, start: usize, end: Option<usize>) -> Token {
    end.map_or_else(|| broken(text, start), |end| Token { kind, start, end })
}

#[inline(always)]
fn word(text: &[u8], start: usize) -> (Token, u64) {
    let head = swar::load(text, start);
    let length = swar::first(swar::not_word(head));
    let end = start + length;
    // The dollar and the eighth byte are not looked at yet, nor what a word of one letter may say about a string.
    if length == 8 || length == 1 || text.get(end) == Some(&b'$') {
        return (rare_word(text, start, end), head);
    }
    (Token { kind: Kind::Word, start, end }, head)
}

#[inline(never)]
fn rare_word(text: &[u8], start: usize, from: usize) -> Token {
    let end = word_end(text, from);
    if end == start + 1 && matches!(text.get(end), Some(b'\'' | b'&')) {
        return prefixed(text, start);
    }
    Token { kind: Kind::Word, start, end }
}

/// A word of one letter before a quote or an ampersand: it may say how to read a string.
#[cold]
fn prefixed(text: &[u8], start: usize) -> Token {
    let at = |ahead: usize| text.get(start + ahead).copied().unwrap_or(0);
    let end = match (at(0) | 0x20, at(1), at(2)) {
        (b'e', b'\'', _) => string_end(text, start + 1, Escapes::Backslash),
        (b'b' | b'x' | b'n', b'\'', _) => string_end(text, start + 1, Escapes::None),
        (b'u', b'&', b'\'') => string_end(text, start + 2, Escapes::None),
        // Its value depends on escapes and on a UESCAPE that follows.
        (b'u', b'&', b'"') => return broken(text, start),
        _ => return Token { kind: Kind::Word, start, end: start + 1 },
    };
    token(text, Kind::Text, start, end)
}

/// Nearly every name is short and without a quote inside.
#[inline(always)]
fn quoted(text: &[u8], start: usize) -> (Token, u64) {
    let head = swar::load(text, start + 1);
    let length = swar::first(swar::equal(head, b'"'));
    let end = start + 2 + length;
    if matches!(length, 1..=7) && text.get(end) != Some(&b'"') {
        return (Token { kind: Kind::Quoted, start, end }, head);
    }
    (token(text, Kind::Quoted, start, quoted_end(text, start)), head)
}

/// Also `..`, `:`, `::` and `:=`, and what nothing begins with.
#[inline(never)]
fn other(text: &[u8], start: usize, class: Start) -> Token {
    let next = text.get(start + 1).copied().unwrap_or(0);
    match class {
        Start::Quote => token(text, Kind::Text, start, string_end(text, start, Escapes::None)),
        Start::Digit => number(text, start),
        Start::Dollar if next.is_ascii_digit() => {
            let end = run_end(text, start + 1, |byte| byte.is_ascii_digit());
            Token { kind: Kind::Param, start, end }
        }
        Start::Dollar => token(text, Kind::Text, start, dollar_string_end(text, start)),
        Start::Dot if next == b'.' => Token { kind: Kind::Operator, start, end: start + 2 },
        Start::Dot => number(text, start),
        Start::Colon => {
            let long = matches!(next, b':' | b'=');
            Token { kind: Kind::Operator, start, end: start + 1 + usize::from(long) }
        }
        _ => broken(text, start),
    }
}

fn number(text: &[u8], start: usize) -> Token {
    // Also 0x1F, 1_000 and 1e-9. What is left over reads as a word, as in PostgreSQL 14.
    let part = |byte: u8| byte < 128 && byte != b'$' && part_of_word(byte);
    let mut at = run_end(text, start, part);
    if text.get(at) == Some(&b'.') && text.get(at + 1) != Some(&b'.') {
        at = run_end(text, at + 1, part);
    }
    let sign = matches!(text.get(at), Some(b'+' | b'-'));
    let exponent = matches!(text.get(at.saturating_sub(1)), Some(b'e' | b'E'));
    let hex = matches!(text.get(start + 1), Some(b'x' | b'X'));
    if sign && exponent && !hex && text.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at = run_end(text, at + 1, |byte| byte.is_ascii_digit() || byte == b'_');
    }
    Token { kind: Kind::Number, start, end: at }
}

#[cfg(test)]
mod tests;
