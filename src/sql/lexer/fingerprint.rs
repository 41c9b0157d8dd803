//! The shape of a text: what is left when comments, blanks, case and literals are taken away.

use super::hash::{BLOCK, Domain, HashKey, Sip128};
use super::{Kind, Lexer, Token, swar};
use crate::sql::class::Fingerprint;

/// The key of the fingerprints. Drawn once per process by the shell.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    hash: HashKey,
}

impl Keys {
    /// For serving: `seed` is random, so that nobody can prepare collisions.
    pub fn from_seed(seed: [u64; 2]) -> Keys {
        Keys { hash: HashKey::from_seed(seed) }
    }

    /// For the command line: the same fingerprint in every run.
    pub fn fixed() -> Keys {
        const FIXED: HashKey = HashKey::from_seed([0x7067_7765_6972_2d31, 0x6669_7865_642d_6b65]);
        Keys { hash: FIXED }
    }

    /// The identity of an exact text, for the first tier of the cache.
    pub fn exact(&self, text: &[u8]) -> u128 {
        self.hash.hash(Domain::Exact, text)
    }
}

/// What the one pass over a text finds out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The hash of the shape.
    pub fingerprint: Fingerprint,
    /// Could not be read to its end for certain.
    pub broken: bool,
}

/// The marks in a shape. No token but those with a length contains a control character, so each mark ends what
/// stands before it. Punctuation needs none.
const WORD: u8 = 1;
const QUOTED: u8 = 2;
const OPERATOR: u8 = 3;
const LITERAL: u8 = 4;
const LIST: u8 = 5;
const VERBATIM: u8 = 6;

/// Fingerprints a text. Literals become placeholders and a list of literals becomes one mark,
/// except where a literal decides the class: the name of a setting is kept.
pub fn shape_of(text: &[u8], keys: &Keys) -> Shape {
    let mut blocks = Blocks::new(&keys.hash);
    let (filled, broken) = write_shape(text, Writer { blocks: &mut blocks, filled: 0 });
    Shape { fingerprint: Fingerprint(blocks.finish(filled)), broken }
}

#[inline(always)]
fn write_shape(text: &[u8], mut shape: Writer<'_, '_>) -> (usize, bool) {
    let mut lexer = Lexer::new(text);
    let mut behind = Behind::Nothing;
    let mut broken = false;
    while let Some((token, head)) = lexer.read() {
        let length = token.end - token.start;
        behind = match token.kind {
            Kind::Word => {
                behind.end_list(&mut shape);
                shape.short(WORD, swar::fold(head), length);
                if length > 8 {
                    shape.bytes(text, token.start + 8, length - 8, swar::fold);
                }
                Behind::name(&token, text)
            }
            Kind::Quoted => {
                behind.end_list(&mut shape);
                shape.short(QUOTED, head, length - 1);
                if length > 9 {
                    shape.bytes(text, token.start + 9, length - 9, |word| word);
                }
                Behind::name(&token, text)
            }
            Kind::Punctuation => behind.mark(text.get(token.start).copied().unwrap_or_default(), &mut shape),
            Kind::Operator => {
                behind.end_list(&mut shape);
                shape.byte(OPERATOR);
                shape.bytes(text, token.start, length, |word| word);
                Behind::Nothing
            }
            Kind::Text if behind == Behind::SettingOpen => {
                shape.verbatim(&token, text);
                Behind::Nothing
            }
            Kind::Text | Kind::Number | Kind::Param => behind.literal(&mut shape),
            Kind::Hint => {
                behind.end_list(&mut shape);
                shape.verbatim(&token, text);
                behind.hint()
            }
            Kind::Broken => {
                behind.end_list(&mut shape);
                shape.verbatim(&token, text);
                broken = true;
                Behind::Nothing
            }
        };
    }
    behind.end_list(&mut shape);
    (shape.filled, broken)
}

/// What the token before was, as far as it matters to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    Nothing,
    /// The name of a function that takes a setting's name.
    SettingFunction,
    /// Its parenthesis.
    SettingOpen,
    Literal,
    /// The second literal of a list, or a later one.
    List,
    /// The comma behind the first literal. Whether it belongs to a list is not known yet.
    Comma,
    /// A comma behind a list.
    ListComma,
}

impl Behind {
    /// What follows is no literal: a comma that was held back belongs to the shape.
    #[inline(always)]
    fn end_list(self, shape: &mut Writer<'_, '_>) {
        if matches!(self, Behind::Comma | Behind::ListComma) {
            shape.byte(b',');
        }
    }

    #[inline(always)]
    fn name(token: &Token, text: &[u8]) -> Behind {
        // Most names are too short.
        if token.end - token.start >= 10 && is_setting_function(token.bytes(text)) {
            return Behind::SettingFunction;
        }
        Behind::Nothing
    }

    #[inline(always)]
    fn mark(self, mark: u8, shape: &mut Writer<'_, '_>) -> Behind {
        match (self, mark) {
            (Behind::Literal, b',') => return Behind::Comma,
            (Behind::List, b',') => return Behind::ListComma,
            _ => {}
        }
        self.end_list(shape);
        shape.byte(mark);
        if self == Behind::SettingFunction && mark == b'(' { Behind::SettingOpen } else { Behind::Nothing }
    }

    #[inline(always)]
    fn literal(self, shape: &mut Writer<'_, '_>) -> Behind {
        match self {
            Behind::Comma => {
                shape.byte(LIST);
                Behind::List
            }
            Behind::ListComma => Behind::List,
            Behind::Nothing
            | Behind::SettingFunction
            | Behind::SettingOpen
            | Behind::Literal
            | Behind::List => {
                shape.byte(LITERAL);
                Behind::Literal
            }
        }
    }

    /// A comment may stand between the function and its parenthesis; a list it ends.
    fn hint(self) -> Behind {
        match self {
            Behind::SettingFunction | Behind::SettingOpen => self,
            Behind::Nothing | Behind::Literal | Behind::List | Behind::Comma | Behind::ListComma => {
                Behind::Nothing
            }
        }
    }
}

/// Finds the strings that name a setting, which decide the class, for whoever reads the tokens one by one.
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

#[inline(never)]
fn is_setting_function(bytes: &[u8]) -> bool {
    match bytes.len() {
        10 => bytes.eq_ignore_ascii_case(b"set_config"),
        12 => bytes.eq_ignore_ascii_case(b"\"set_config\""),
        15 => bytes.eq_ignore_ascii_case(b"current_setting"),
        17 => bytes.eq_ignore_ascii_case(b"\"current_setting\""),
        _ => false,
    }
}

/// A shape on its way into the hash: the block that is being filled.
struct Blocks<'k> {
    key: &'k HashKey,
    sip: Sip128,
    length: usize,
    block: [u8; BLOCK + SLACK],
}

/// Eight bytes may be written behind a block that is not quite full.
const SLACK: usize = 16;

impl<'k> Blocks<'k> {
    fn new(key: &'k HashKey) -> Blocks<'k> {
        Blocks { key, sip: key.start(Domain::Shape), length: 0, block: [0; BLOCK + SLACK] }
    }

    #[inline(never)]
    fn take_block(&mut self) {
        if let Some((block, slack)) = self.block.split_first_chunk_mut::<BLOCK>() {
            self.key.block(&mut self.sip, block);
            block[..SLACK].copy_from_slice(slack);
        }
        self.length += BLOCK;
    }

    fn finish(self, filled: usize) -> u128 {
        let rest = self.block.get(..filled).unwrap_or_default();
        self.key.end(self.sip, rest, self.length + filled)
    }
}

/// Writes into the blocks. Its place is its own, so that it can stay in a register.
struct Writer<'b, 'k> {
    blocks: &'b mut Blocks<'k>,
    /// Fewer than `BLOCK` between any two calls.
    filled: usize,
}

impl Writer<'_, '_> {
    /// Takes one byte.
    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        self.blocks.block[self.filled % BLOCK] = byte;
        self.advance(1);
    }

    /// Takes a mark and so many of these eight bytes, or all.
    #[inline(always)]
    fn short(&mut self, mark: u8, head: u64, length: usize) {
        let to = self.filled % BLOCK;
        self.blocks.block[to] = mark;
        self.blocks.block[to + 1..to + 9].copy_from_slice(&head.to_le_bytes());
        self.advance(1 + length.min(8));
    }

    /// Takes a piece of the text, eight bytes at a time; each is written over what the one before has written too much.
    #[inline(always)]
    fn bytes(&mut self, text: &[u8], start: usize, length: usize, change: impl Fn(u64) -> u64) {
        let (mut at, mut left) = (start, length);
        loop {
            let word = change(swar::load(text, at));
            let to = self.filled % BLOCK;
            self.blocks.block[to..to + 8].copy_from_slice(&word.to_le_bytes());
            if left <= 8 {
                return self.advance(left);
            }
            self.advance(8);
            at += 8;
            left -= 8;
        }
    }

    #[inline(always)]
    fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
        if self.filled >= BLOCK {
            self.blocks.take_block();
            self.filled -= BLOCK;
        }
    }

    /// Takes a token that may contain anything.
    #[inline(always)]
    fn verbatim(&mut self, token: &Token, text: &[u8]) {
        self.filled = verbatim(self.blocks, self.filled, token.kind, token.bytes(text));
    }
}

#[inline(never)]
fn verbatim(blocks: &mut Blocks<'_>, filled: usize, kind: Kind, piece: &[u8]) -> usize {
    let mut shape = Writer { blocks, filled };
    shape.short(VERBATIM, kind as u64 | (piece.len() as u64) << 8, 8);
    shape.bytes(piece, 0, piece.len(), |word| word);
    shape.filled
}
