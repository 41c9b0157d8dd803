//! The lexer and the shape as they are meant, byte by byte and token by token: what the fast ones are compared with.

use super::super::fingerprint::SettingNames;
use super::super::{Kind, Token};

/// A shape that is not hashed: what its tokens leave, with a tag each.
pub(super) fn shape(text: &[u8]) -> Vec<(u8, Vec<u8>)> {
    const LITERAL: u8 = 12;
    const LIST: u8 = 13;
    let mut shape: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut names = SettingNames::default();
    for token in Lexer::new(text) {
        let bytes = token.bytes(text).to_vec();
        let name = names.is_name(&token, &bytes);
        let tags: Vec<u8> = shape.iter().rev().take(2).map(|(tag, _)| *tag).collect();
        let comma = shape.last().is_some_and(|(_, bytes)| bytes == b",");
        match token.kind {
            Kind::Word => shape.push((Kind::Word as u8, bytes.to_ascii_lowercase())),
            Kind::Text if name => shape.push((Kind::Text as u8, bytes)),
            Kind::Text | Kind::Number | Kind::Param => match *tags {
                [_, LIST] if comma => drop(shape.pop()),
                [_, LITERAL] if comma => {
                    shape.pop();
                    shape.push((LIST, Vec::new()));
                }
                _ => shape.push((LITERAL, Vec::new())),
            },
            _ => shape.push((token.kind as u8, bytes)),
        }
    }
    shape
}

/// The lexer: an iterator of tokens.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Lexer<'t> {
    /// Reads from the beginning of `text`.
    pub(super) fn new(text: &'t [u8]) -> Lexer<'t> {
        Lexer { text, at: 0 }
    }

    #[inline]
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Skips blanks and ordinary comments. `Some`: a hint comment, or one that does not end.
    #[inline]
    fn skip_blanks(&mut self) -> Option<Token> {
        while CLASS[self.peek(0) as usize] & BLANK != 0 {
            self.at += 1;
        }
        match self.peek(0) {
            b'-' | b'/' => self.skip_comments(),
            _ => None,
        }
    }

    fn skip_comments(&mut self) -> Option<Token> {
        loop {
            match self.peek(0) {
                byte if CLASS[byte as usize] & BLANK != 0 => self.at += 1,
                b'-' if self.peek(1) == b'-' => {
                    let start = self.at;
                    self.at = line_end(self.text, self.at);
                    if let Some(hint) = self.hint(start) {
                        return Some(hint);
                    }
                }
                b'/' if self.peek(1) == b'*' => {
                    let start = self.at;
                    let Some(end) = block_comment_end(self.text, self.at) else {
                        return Some(self.broken(start));
                    };
                    self.at = end;
                    if let Some(hint) = self.hint(start) {
                        return Some(hint);
                    }
                }
                _ => return None,
            }
        }
    }

    fn hint(&self, start: usize) -> Option<Token> {
        let comment = self.text.get(start..self.at)?;
        let speaks = memchr::memmem::find(comment, b"pgweir.").is_some();
        speaks.then_some(Token { kind: Kind::Hint, start, end: self.at })
    }

    /// Nothing after this can be trusted: the rest is one token.
    fn broken(&mut self, start: usize) -> Token {
        self.at = self.text.len();
        Token { kind: Kind::Broken, start, end: self.at }
    }

    fn token(&mut self, kind: Kind, start: usize, end: Option<usize>) -> Token {
        match end {
            Some(end) => {
                self.at = end;
                Token { kind, start, end }
            }
            None => self.broken(start),
        }
    }

    fn word(&mut self, start: usize) -> Token {
        match (self.peek(0) | 0x20, self.peek(1)) {
            (_, second) if CLASS[second as usize] & WORD_PART != 0 => {}
            (b'e', b'\'') => {
                let end = string_end(self.text, start + 1, Escapes::Backslash);
                return self.token(Kind::Text, start, end);
            }
            (b'b' | b'x' | b'n', b'\'') => {
                let end = string_end(self.text, start + 1, Escapes::None);
                return self.token(Kind::Text, start, end);
            }
            (b'u', b'&') if self.peek(2) == b'\'' => {
                let end = string_end(self.text, start + 2, Escapes::None);
                return self.token(Kind::Text, start, end);
            }
            // Its value depends on escapes and on a UESCAPE that follows.
            (b'u', b'&') if self.peek(2) == b'"' => return self.broken(start),
            _ => {}
        }
        let end = run_end(self.text, start, |byte| CLASS[byte as usize] & WORD_PART != 0);
        self.token(Kind::Word, start, Some(end))
    }

    fn dollar(&mut self, start: usize) -> Token {
        if self.peek(1).is_ascii_digit() {
            let end = run_end(self.text, start + 1, |byte| byte.is_ascii_digit());
            return self.token(Kind::Param, start, Some(end));
        }
        let end = dollar_string_end(self.text, start);
        self.token(Kind::Text, start, end)
    }

    fn number(&mut self, start: usize) -> Token {
        // Also 0x1F, 1_000 and 1e-9. What is left over reads as a word, as in PostgreSQL 14.
        let mut at = run_end(self.text, start, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if self.text.get(at) == Some(&b'.') && self.text.get(at + 1) != Some(&b'.') {
            at = run_end(self.text, at + 1, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
        }
        let sign = matches!(self.text.get(at), Some(b'+' | b'-'));
        let exponent = matches!(self.text.get(at.saturating_sub(1)), Some(b'e' | b'E'));
        let hex = matches!(self.text.get(start + 1), Some(b'x' | b'X'));
        if sign && exponent && !hex && self.text.get(at + 1).is_some_and(u8::is_ascii_digit) {
            at = run_end(self.text, at + 1, |byte| byte.is_ascii_digit() || byte == b'_');
        }
        self.token(Kind::Number, start, Some(at))
    }

    fn operator(&mut self, start: usize) -> Token {
        let end = operator_end(self.text, start);
        self.token(Kind::Operator, start, Some(end))
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        if let Some(token) = self.skip_blanks() {
            return Some(token);
        }
        let start = self.at;
        let byte = *self.text.get(start)?;
        // Most tokens are words.
        if CLASS[byte as usize] & WORD_START != 0 {
            return Some(self.word(start));
        }
        Some(match byte {
            b'\'' => {
                let end = string_end(self.text, start, Escapes::None);
                self.token(Kind::Text, start, end)
            }
            b'"' => {
                let end = quoted_end(self.text, start);
                self.token(Kind::Quoted, start, end)
            }
            b'$' => self.dollar(start),
            b'0'..=b'9' => self.number(start),
            b'.' if self.peek(1).is_ascii_digit() => self.number(start),
            b'.' if self.peek(1) == b'.' => self.token(Kind::Operator, start, Some(start + 2)),
            b'(' | b')' | b'[' | b']' | b',' | b';' | b'.' => {
                self.token(Kind::Punctuation, start, Some(start + 1))
            }
            b':' => {
                let long = matches!(self.peek(1), b':' | b'=');
                self.token(Kind::Operator, start, Some(start + 1 + usize::from(long)))
            }
            _ if CLASS[byte as usize] & OPERATOR != 0 => self.operator(start),
            _ => self.broken(start),
        })
    }
}

const WORD_START: u8 = 1;
const WORD_PART: u8 = 2;
const OPERATOR: u8 = 4;
const BLANK: u8 = 8;

/// Bytes of 128 and more are identifier characters, as in PostgreSQL, and are never folded.
const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let it = byte as u8;
        table[byte] = match it {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => WORD_START | WORD_PART,
            b'0'..=b'9' | b'$' => WORD_PART,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => BLANK,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/'
            | b'%' | b'<' | b'>' | b'=' => OPERATOR,
            _ => 0,
        };
        byte += 1;
    }
    table
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Backslash,
}

#[inline]
fn run_end(text: &[u8], from: usize, part: impl Fn(u8) -> bool) -> usize {
    let mut at = from;
    while let Some(&byte) = text.get(at)
        && part(byte)
    {
        at += 1;
    }
    at
}

/// Where the next such byte stands. Names and literals are short: looking begins to pay with their length.
#[inline]
fn find(byte: u8, text: &[u8], from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    let (near, far) = rest.split_at(rest.len().min(NEAR));
    match near.iter().position(|&here| here == byte) {
        Some(at) => Some(from + at),
        None => memchr::memchr(byte, far).map(|at| from + near.len() + at),
    }
}

/// So many bytes are looked at one by one before `memchr` is called.
const NEAR: usize = 16;

fn line_end(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment_end(text: &[u8], start: usize) -> Option<usize> {
    let mut depth = 1usize;
    let mut at = start + 2;
    loop {
        at += memchr::memchr2(b'*', b'/', text.get(at..)?)?;
        match (text.get(at)?, text.get(at + 1)) {
            (b'*', Some(b'/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            (b'/', Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
}

/// `quote` is where the opening quote stands. A string goes on after white space with a line break
/// in it, in the same mode: `E'a'⏎'\''` is one.
fn string_end(text: &[u8], quote: usize, escapes: Escapes) -> Option<usize> {
    let mut at = quote + 1;
    loop {
        at = match escapes {
            Escapes::None => find(b'\'', text, at)?,
            Escapes::Backslash => at + memchr::memchr2(b'\'', b'\\', text.get(at..)?)?,
        };
        if text.get(at) == Some(&b'\\') {
            at += 2;
            continue;
        }
        if text.get(at + 1) == Some(&b'\'') {
            at += 2;
            continue;
        }
        match continuation(text, at + 1) {
            Some(next) => at = next + 1,
            None => return Some(at + 1),
        }
    }
}

/// Where the next opening quote of a continued string stands.
fn continuation(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut line_break = false;
    loop {
        match text.get(at)? {
            b'\n' | b'\r' => {
                line_break = true;
                at += 1;
            }
            b' ' | b'\t' | 0x0b | 0x0c => at += 1,
            b'-' if text.get(at + 1) == Some(&b'-') => at = line_end(text, at),
            b'\'' if line_break => return Some(at),
            _ => return None,
        }
    }
}

fn quoted_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at = find(b'"', text, at)?;
        if text.get(at + 1) != Some(&b'"') {
            return (at > start + 1).then_some(at + 1);
        }
        at += 2;
    }
}

fn dollar_string_end(text: &[u8], start: usize) -> Option<usize> {
    let tag_end = run_end(text, start + 1, |byte| byte != b'$' && CLASS[byte as usize] & WORD_PART != 0);
    if text.get(tag_end) != Some(&b'$') {
        return None;
    }
    let delimiter = text.get(start..=tag_end)?;
    let body = text.get(tag_end + 1..)?;
    Some(tag_end + 1 + memchr::memmem::find(body, delimiter)? + delimiter.len())
}

/// A comment ends an operator; a trailing `+` or `-` belongs to it only if the operator has one of
/// the characters that standard SQL does not use.
fn operator_end(text: &[u8], start: usize) -> usize {
    let mut end = start;
    let mut special = false;
    while let Some(&byte) = text.get(end) {
        let comment = matches!((byte, text.get(end + 1)), (b'-', Some(b'-')) | (b'/', Some(b'*')));
        if CLASS[byte as usize] & OPERATOR == 0 || comment {
            break;
        }
        special |= matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
        end += 1;
    }
    while end > start + 1 && !special && matches!(text.get(end - 1), Some(b'+' | b'-')) {
        end -= 1;
    }
    end
}
