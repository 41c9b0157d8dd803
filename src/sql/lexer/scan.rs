//! Where the pieces of a text end: words, strings, names, comments, operators.

use super::swar;

/// What begins with a byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Blank,
    Word,
    /// Punctuation that nothing goes on with.
    Mark,
    Dot,
    Quote,
    DoubleQuote,
    Digit,
    Dollar,
    Colon,
    /// An operator, or a comment.
    DashOrSlash,
    Operator,
    Nothing,
}

/// Bytes of 128 and more are identifier characters, as in PostgreSQL, and are never folded.
pub(super) static START: [Start; 256] = {
    let mut table = [Start::Nothing; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let it = byte as u8;
        table[byte] = match it {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Start::Word,
            b'0'..=b'9' => Start::Digit,
            b'$' => Start::Dollar,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Start::Blank,
            b'(' | b')' | b'[' | b']' | b',' | b';' => Start::Mark,
            b'\'' => Start::Quote,
            b'"' => Start::DoubleQuote,
            b'.' => Start::Dot,
            b':' => Start::Colon,
            b'-' | b'/' => Start::DashOrSlash,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'*' | b'%' | b'<'
            | b'>' | b'=' => Start::Operator,
            _ => Start::Nothing,
        };
        byte += 1;
    }
    table
};

/// Does a word go on with this byte?
pub(super) fn part_of_word(byte: u8) -> bool {
    matches!(START[byte as usize], Start::Word | Start::Digit | Start::Dollar)
}

pub(super) fn part_of_operator(byte: u8) -> bool {
    matches!(START[byte as usize], Start::Operator | Start::DashOrSlash)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    None,
    Backslash,
}

#[inline]
pub(super) fn run_end(text: &[u8], from: usize, part: impl Fn(u8) -> bool) -> usize {
    let mut at = from;
    while let Some(&byte) = text.get(at)
        && part(byte)
    {
        at += 1;
    }
    at
}

#[inline]
pub(super) fn word_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        let length = swar::first(swar::not_word(swar::load(text, at)));
        at += length;
        if length < 8 {
            break;
        }
    }
    match text.get(at) {
        Some(b'$') => run_end(text, at, part_of_word),
        _ => at,
    }
}

/// One blank stands between most words, many at the beginning of a line.
#[inline(always)]
pub(super) fn blanks_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while text.get(at).is_some_and(|&byte| START[byte as usize] == Start::Blank) {
        at += 1;
        at += swar::first(swar::differs(swar::load(text, at), b' '));
    }
    at
}

/// Where the next such byte stands. Names and literals are short: looking begins to pay with their length.
#[inline(always)]
fn find(byte: u8, text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    for _ in 0..NEAR {
        match swar::first(swar::equal(swar::load(text, at), byte)) {
            8 => at += 8,
            here => return Some(at + here),
        }
    }
    Some(at + memchr::memchr(byte, text.get(at..)?)?)
}

/// So many times eight bytes are looked at before `memchr` is called.
const NEAR: usize = 3;

pub(super) fn line_end(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())
}

/// Block comments nest.
pub(crate) fn block_comment_end(text: &[u8], start: usize) -> Option<usize> {
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
pub(super) fn string_end(text: &[u8], quote: usize, escapes: Escapes) -> Option<usize> {
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

#[inline(never)]
pub(super) fn quoted_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at = find(b'"', text, at)?;
        if text.get(at + 1) != Some(&b'"') {
            return (at > start + 1).then_some(at + 1);
        }
        at += 2;
    }
}

pub(super) fn dollar_string_end(text: &[u8], start: usize) -> Option<usize> {
    let tag_end = run_end(text, start + 1, |byte| byte != b'$' && part_of_word(byte));
    if text.get(tag_end) != Some(&b'$') {
        return None;
    }
    let delimiter = text.get(start..=tag_end)?;
    let body = text.get(tag_end + 1..)?;
    Some(tag_end + 1 + memchr::memmem::find(body, delimiter)? + delimiter.len())
}

/// Where an operator ends, and where the signs do that may follow it. A comment ends it; a trailing `+` or `-` belongs
/// to it only if it has one of the characters that standard SQL does not use. Each of the signs that do not is an
/// operator of its own: whoever knows that need not look at all of them again for each.
pub(super) fn operator_end(text: &[u8], start: usize) -> (usize, usize) {
    let mut end = start;
    let mut special = false;
    while let Some(&byte) = text.get(end) {
        let comment = matches!((byte, text.get(end + 1)), (b'-', Some(b'-')) | (b'/', Some(b'*')));
        if !part_of_operator(byte) || comment {
            break;
        }
        special |= matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
        end += 1;
    }
    let signs = end;
    while end > start + 1 && !special && matches!(text.get(end - 1), Some(b'+' | b'-')) {
        end -= 1;
    }
    (end, signs)
}
