//! Statements that differ in nothing but their literals, recognised by comparing bytes.
//!
//! A template is a text that was lexed once, with its plain literals as holes: integers (`42`) and strings
//! without escapes (`'abc'`). A text matches when it is the template's byte for byte outside of the holes,
//! and has an integer where the template has one and a string where it has one. Then the lexer reads the
//! same tokens in both: it looks ahead by what follows a token, never into a literal's value, and what
//! stands around a hole is the same. So they have one shape, and one class; there is no hash to collide.

use super::ScopeKey;
use crate::sql::class::Class;
use crate::sql::lexer::fingerprint::SettingNames;
use crate::sql::lexer::{Kind, Lexer};

/// Texts longer than this are not kept: a thread's templates have a bound in bytes.
pub const TEXT_MAX_BYTES: usize = 4096;

/// Beyond so many literals it is cheaper to read a text than to compare it.
const HOLES_MAX: usize = 64;

/// So many templates whose texts begin alike.
pub const WAYS: usize = 8;

/// Where they are full, one in so many texts that had no template takes the place of another: a storm of
/// texts that come once must not cost a copy each.
const REPLACE_EVERY: u32 = 8;

/// So many bytes decide what a text is compared with, its first literal not included.
const PREFIX: usize = 64;

/// The templates of one thread.
#[derive(Debug)]
pub struct Templates {
    buckets: Box<[Vec<Template>]>,
    refused: u32,
}

#[derive(Debug)]
struct Template {
    text: Vec<u8>,
    holes: Vec<Hole>,
    scope: ScopeKey,
    class: Class,
}

/// A literal of a template: where it stands in its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hole {
    start: usize,
    end: usize,
    is_string: bool,
}

impl Templates {
    /// At most eight for each of so many (rounded up to a power of two) beginnings.
    pub fn new(beginnings: usize) -> Templates {
        let count = beginnings.max(1).next_power_of_two();
        Templates { buckets: (0..count).map(|_| Vec::new()).collect(), refused: 0 }
    }

    /// The class of a text that differs from a known one in nothing but literals.
    #[inline]
    pub fn find(&mut self, text: &[u8], scope: &ScopeKey) -> Option<Class> {
        let index = self.index(text);
        let bucket = self.buckets.get_mut(index)?;
        let at = bucket.iter().position(|known| known.matches(text) && known.scope == *scope)?;
        let class = bucket.get(at)?.class;
        if at > 0 {
            // What is asked for often is found early, and is the last to be replaced.
            bucket.swap(at - 1, at);
        }
        Some(class)
    }

    /// Keeps a text that has no template, which the lexer could read for certain. False: it has no place.
    pub fn keep(&mut self, text: &[u8], scope: ScopeKey, class: Class) -> bool {
        if text.len() > TEXT_MAX_BYTES {
            return false;
        }
        let index = self.index(text);
        let Some(bucket) = self.buckets.get_mut(index) else { return false };
        if bucket.len() < WAYS {
            let mut template = Template { text: Vec::new(), holes: Vec::new(), scope, class };
            let kept = template.learn(text);
            if kept {
                bucket.push(template);
            }
            return kept;
        }
        self.refused = self.refused.wrapping_add(1);
        let Some(last) = bucket.last_mut().filter(|_| self.refused.is_multiple_of(REPLACE_EVERY)) else {
            return false;
        };
        (last.scope, last.class) = (scope, class);
        let kept = last.learn(text);
        if !kept {
            bucket.pop();
        }
        kept
    }

    fn index(&self, text: &[u8]) -> usize {
        (beginning(text) >> 32) as usize & (self.buckets.len() - 1)
    }
}

impl Template {
    /// Becomes the template of a text. False where it has too many literals.
    fn learn(&mut self, text: &[u8]) -> bool {
        self.text.clear();
        self.text.extend_from_slice(text);
        self.holes.clear();
        let mut names = SettingNames::default();
        for token in Lexer::new(text) {
            let bytes = token.bytes(text);
            let is_string = match token.kind {
                // The name of a setting decides the class.
                _ if names.is_name(&token, bytes) => continue,
                Kind::Number if bytes.iter().all(u8::is_ascii_digit) => false,
                Kind::Text if is_plain(bytes) => true,
                _ => continue,
            };
            if self.holes.len() == HOLES_MAX {
                return false;
            }
            self.holes.push(Hole { start: token.start, end: token.end, is_string });
        }
        true
    }

    fn matches(&self, text: &[u8]) -> bool {
        let (mut known, mut at) = (0, 0);
        for hole in &self.holes {
            let same = self.text.get(known..hole.start).unwrap_or_default();
            if text.get(at..at + same.len()) != Some(same) {
                return false;
            }
            at += same.len();
            let literal = text.get(at..).and_then(if hole.is_string { string_len } else { digits_len });
            let Some(len) = literal else { return false };
            at += len;
            known = hole.end;
        }
        text.get(at..) == self.text.get(known..)
    }
}

/// A string whose end is the next quote, with nothing in it that could be an escape.
fn is_plain(bytes: &[u8]) -> bool {
    string_len(bytes) == Some(bytes.len())
}

/// The length of the string that begins here. That its end is no doubled quote, the byte behind it says:
/// it is the template's.
#[inline]
fn string_len(text: &[u8]) -> Option<usize> {
    let body = text.strip_prefix(b"'")?;
    memchr::memchr(b'\'', body).map(|at| at + 2)
}

#[inline]
fn digits_len(text: &[u8]) -> Option<usize> {
    let len = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    (len > 0).then_some(len)
}

/// A hash of the first bytes, up to the first literal that could be a hole: texts that match have the same.
#[inline]
fn beginning(text: &[u8]) -> u64 {
    let head = text.get(..PREFIX).unwrap_or(text);
    let head = head.get(..before_literals(head)).unwrap_or(head);
    let mut hash = 0u64;
    for chunk in head.chunks(8) {
        let mut word = [0u8; 8];
        if let Some(word) = word.get_mut(..chunk.len()) {
            word.copy_from_slice(chunk);
        }
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where the first quote stands, or the first digit that is not a part of a word (`u1_0`, `sbtest7`).
#[inline]
fn before_literals(head: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = head.get(at..).filter(|rest| !rest.is_empty()) {
        match rest.first_chunk() {
            Some(eight) => match digits_or_quotes(u64::from_le_bytes(*eight)) {
                0 => {
                    at += 8;
                    continue;
                }
                stop => at += stop.trailing_zeros() as usize / 8,
            },
            None => match rest.iter().position(|byte| byte.is_ascii_digit() || *byte == b'\'') {
                Some(near) => at += near,
                None => break,
            },
        }
        let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
        let before = at.checked_sub(1).and_then(|before| head.get(before));
        if head.get(at) == Some(&b'\'') || !before.is_some_and(in_word) {
            return at;
        }
        at += 1;
    }
    head.len()
}

/// The lowest bit that is set stands in the first byte that is a digit or a quote. (The usual test of
/// eight bytes at once for those below a bound: only what is above a true one may be wrong.)
#[inline]
fn digits_or_quotes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & (ONES * 0x80);
    below(word ^ (ONES * 0x30), 10) | below(word ^ (ONES * 0x27), 1)
}

#[cfg(test)]
mod tests;
