//! The shape of a text: what is left when comments, blanks, case and literals are taken away.

use super::hash::{Fold, Sip128};
use super::{Kind, Lexer, Token};
use crate::sql::class::Fingerprint;

/// The key of the fingerprints. Drawn once per process by the shell.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    seed: [u64; 2],
}

impl Keys {
    /// For serving: `seed` is random, so that nobody can prepare collisions.
    pub fn from_seed(seed: [u64; 2]) -> Keys {
        Keys { seed }
    }

    /// For the command line: the same fingerprint in every run.
    pub fn fixed() -> Keys {
        Keys { seed: [0x7067_7765_6972_2d31, 0x6669_7865_642d_6b65] }
    }

    /// The identity of an exact text, for the first tier of the cache.
    pub fn exact(&self, text: &[u8]) -> u128 {
        let mut hash = Sip128::new([self.seed[0] ^ 1, self.seed[1]]);
        let mut chunks = text.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0u8; 8];
            word.copy_from_slice(chunk);
            hash.word(u64::from_le_bytes(word));
        }
        hash.bytes(0, chunks.remainder(), Fold::No);
        hash.word(text.len() as u64);
        hash.finish()
    }
}

/// What the one pass over a text finds out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The hash of the shape.
    pub fingerprint: Fingerprint,
    /// Number of tokens, hints not counted.
    pub tokens: usize,
    /// Could not be read to its end for certain.
    pub broken: bool,
}

const LIST: u8 = 12;
const LITERAL: u8 = 13;

/// Fingerprints a text. Literals become placeholders and a list of literals becomes one mark,
/// except where a literal decides the class: the name of a setting is kept.
pub fn shape_of(text: &[u8], keys: &Keys) -> Shape {
    let mut hash = Sip128::new(keys.seed);
    let mut shape = Shape { fingerprint: Fingerprint(0), tokens: 0, broken: false };
    let mut list = List::No;
    let mut names = SettingNames::default();
    for token in Lexer::new(text) {
        let bytes = token.bytes(text);
        shape.tokens += usize::from(token.kind != Kind::Hint);
        shape.broken |= token.kind == Kind::Broken;
        if names.is_name(&token, bytes) {
            hash.bytes(Kind::Text as u8, bytes, Fold::No);
            list = List::No;
            continue;
        }
        list = match (list, token.kind) {
            (List::Comma | List::MoreComma, Kind::Text | Kind::Number | Kind::Param) => {
                if list == List::Comma {
                    hash.word(u64::from(LIST) << 56);
                }
                List::More
            }
            (List::One, Kind::Punctuation) if bytes == b"," => List::Comma,
            (List::More, Kind::Punctuation) if bytes == b"," => List::MoreComma,
            (before, kind) => {
                if matches!(before, List::Comma | List::MoreComma) {
                    hash.bytes(Kind::Punctuation as u8, b",", Fold::No);
                }
                feed(&mut hash, &token, bytes);
                match kind {
                    Kind::Text | Kind::Number | Kind::Param => List::One,
                    _ => List::No,
                }
            }
        };
    }
    if matches!(list, List::Comma | List::MoreComma) {
        hash.bytes(Kind::Punctuation as u8, b",", Fold::No);
    }
    shape.fingerprint = Fingerprint(hash.finish());
    shape
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    No,
    One,
    Comma,
    More,
    MoreComma,
}

fn feed(hash: &mut Sip128, token: &Token, bytes: &[u8]) {
    match token.kind {
        Kind::Word => hash.bytes(Kind::Word as u8, bytes, Fold::Ascii),
        Kind::Text | Kind::Number | Kind::Param => hash.word(u64::from(LITERAL) << 56),
        Kind::Quoted | Kind::Operator | Kind::Punctuation | Kind::Hint | Kind::Broken => {
            hash.bytes(token.kind as u8, bytes, Fold::No);
        }
    }
}

/// Finds the strings that name a setting: those decide the class.
#[derive(Clone, Copy, Default, Debug)]
pub struct SettingNames {
    /// 1 after the name of a function that takes a setting's name, 2 after its parenthesis, 3 at a
    /// string there.
    state: u8,
}

impl SettingNames {
    /// Is the next token one? It is to be asked about every token of a text, in order.
    #[inline]
    pub fn is_name(&mut self, token: &Token, bytes: &[u8]) -> bool {
        self.state = match (self.state, token.kind) {
            (_, Kind::Word | Kind::Quoted) if is_setting_function(bytes) => 1,
            (1, Kind::Punctuation) if bytes == b"(" => 2,
            (2, Kind::Text) => 3,
            (state, Kind::Hint) => state,
            _ => 0,
        };
        self.state == 3
    }
}

fn is_setting_function(bytes: &[u8]) -> bool {
    // Longest first test: nearly every word fails at its length.
    match bytes.len() {
        10 => bytes.eq_ignore_ascii_case(b"set_config"),
        12 => bytes.eq_ignore_ascii_case(b"\"set_config\""),
        15 => bytes.eq_ignore_ascii_case(b"current_setting"),
        17 => bytes.eq_ignore_ascii_case(b"\"current_setting\""),
        _ => false,
    }
}
