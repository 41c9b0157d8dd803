//! What a transaction has said, with a checksum of each answer: where it has only read, it can be said again
//! on another server, and if the answers are the same, nobody sees a difference.

use crate::moment::Moment;
use crate::session::bound::bound;
use crate::session::exchange::{Errand, Exchange, GroupRecord};
use crate::session::group::Group;
use crate::session::machine::Session;
use crate::session::reply_queue::{Act, Kind, Undo};
use crate::sql::class::{Access, Class, Marks, Why};
use crate::sql::effects::{Effect, Scope, effects_of};
use crate::sql::lexer::Dialect;
use crate::sql::lexer::hash::Sip128;
use crate::sql::lexer::statements::{Literals, Statements};
use crate::wire::frame::header;
use crate::wire::frontend::{self, Named, Parse};
use crate::wire::writers;

/// A transaction with more request groups than this is not remembered any further.
const GROUPS_MAX: usize = 1000;

/// What must not be in a statement that is said again.
const UNFIT: Marks = Marks::DDL
    .with(Marks::COPY)
    .with(Marks::PGWEIR)
    .with(Marks::NAMED)
    .with(Marks::NOT_ON_STANDBY)
    .with(Marks::LOCKS);

/// See the file's head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transcript {
    /// Whole request groups, in order, that need nothing of the connection they were first said on.
    said: Vec<u8>,
    /// The checksum of each one's answer.
    answers: Vec<u128>,
    /// So many of them have come once more.
    again: usize,
    /// Was one of them another one?
    differs: bool,
}

impl Transcript {
    /// A group was said and answered. False: that is more than may be remembered.
    pub fn note(&mut self, said: &[u8], answer: u128, limit: usize) -> bool {
        self.said.extend_from_slice(said);
        self.answers.push(answer);
        self.said.len() <= limit && self.answers.len() <= GROUPS_MAX
    }

    /// Says all of it again, in one go: writes it for the server, and notes what will be owed.
    pub fn say(&mut self, out: &mut Vec<u8>, exchange: &mut Exchange, now: Moment) {
        (self.again, self.differs) = (0, false);
        out.extend_from_slice(&self.said);
        let mut rest = self.said.as_slice();
        while let Ok(Some(head)) = header(rest, usize::MAX) {
            let Some((frame, behind)) = rest.split_at_checked(head.frame_len) else { break };
            rest = behind;
            let kind = match (head.tag, frame.get(5)) {
                (b'Q', _) => Kind::Query,
                (b'P', _) => Kind::Parse,
                (b'B', _) => Kind::Bind,
                (b'D', Some(b'S')) => Kind::DescribeStatement,
                (b'D', _) => Kind::DescribePortal,
                (b'E', _) => Kind::Execute,
                (_, _) => Kind::Sync,
            };
            exchange.queue.push(kind, Act::Own, Undo::Nothing);
            if kind.ends_group() {
                exchange.groups.push_back(GroupRecord::internal(Errand::Replay, now));
            }
        }
    }

    /// The next group was answered again; `None`: otherwise than with its rows.
    pub fn answered(&mut self, answer: Option<u128>) {
        self.differs |= answer.is_none() || self.answers.get(self.again).copied() != answer;
        self.again += 1;
    }

    /// Has every group been answered as it was the first time?
    pub fn is_same(&self) -> bool {
        !self.differs && self.again == self.answers.len()
    }
}

/// The checksum of an answer, whatever the pieces are in which it comes: 128 bits under a key that nobody
/// outside of the process knows.
#[derive(Clone, Debug)]
pub struct AnswerDigest {
    key: [u64; 2],
    hash: Sip128,
    /// Bytes that do not fill a word yet.
    word: u64,
    len: u64,
}

impl AnswerDigest {
    /// Of nothing.
    pub fn new(key: [u64; 2]) -> AnswerDigest {
        AnswerDigest { key, hash: Sip128::new(key), word: 0, len: 0 }
    }

    /// Does this message show something? What else a server says (parameters, notices, that something was
    /// parsed) does not matter.
    pub fn counts(tag: u8) -> bool {
        matches!(tag, b'T' | b'D' | b'C' | b'I' | b's' | b't' | b'n')
    }

    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        let missing = (8 - (self.len % 8) as usize) % 8;
        let (first, rest) = bytes.split_at(missing.min(bytes.len()));
        first.iter().for_each(|byte| self.byte(*byte));
        let mut words = rest.chunks_exact(8);
        for eight in &mut words {
            let mut word = [0; 8];
            word.copy_from_slice(eight);
            self.hash.word(u64::from_le_bytes(word));
            self.len += 8;
        }
        words.remainder().iter().for_each(|byte| self.byte(*byte));
    }

    fn byte(&mut self, byte: u8) {
        self.word |= u64::from(byte) << (8 * (self.len % 8));
        self.len += 1;
        if self.len.is_multiple_of(8) {
            self.hash.word(std::mem::take(&mut self.word));
        }
    }

    /// The checksum; the next answer begins.
    pub fn finish(&mut self) -> u128 {
        let AnswerDigest { mut hash, word, len, .. } = std::mem::replace(self, AnswerDigest::new(self.key));
        hash.word(word);
        hash.word(len);
        hash.finish()
    }
}

/// How many more bytes of a transaction may be remembered, beside what it has said and what is in flight.
pub fn room(limit: usize, said: Option<&Transcript>, exchange: &Exchange) -> usize {
    let in_flight = exchange.groups.iter().filter_map(|record| record.transcribed.as_ref());
    let taken =
        in_flight.fold(said.map_or(0, |said| said.said.len()), |sum, piece| sum.saturating_add(piece.len()));
    limit.saturating_sub(taken)
}

/// A group as it can be said again on any connection, with the unnamed statement in the place of names;
/// `None`: it does more than read and set what ends with its transaction, or takes more than `room` bytes.
/// `class_of` judges a text.
pub fn transcribed(
    group: &Group,
    bytes: &[u8],
    session: &Session,
    dialect: Dialect,
    room: usize,
    class_of: &mut dyn FnMut(&[u8]) -> Class,
) -> Option<Vec<u8>> {
    if group.own > 0 || group.portals || group.estranged || bytes.len() > room {
        return None;
    }
    let reads = group.access == Access::Read && !group.marks.intersects(UNFIT);
    let mut fits = |text: &[u8], bind: Option<(&[u8], &[u8])>| reads || is_fit(text, bind, dialect, class_of);
    let mut out = Vec::with_capacity(bytes.len());
    let mut parsed: Vec<Parse<'_>> = Vec::new();
    let mut unnamed = None;
    let mut rest = bytes;
    while let Ok(Some(head)) = header(rest, usize::MAX) {
        let (frame, behind) = rest.split_at_checked(head.frame_len)?;
        rest = behind;
        match head.tag {
            b'Q' if fits(frontend::query(frame).ok()?, None) => out.extend_from_slice(frame),
            b'P' => parsed.push(frontend::parse(frame).ok()?),
            b'B' => {
                let bind = frontend::bind(frame)?;
                let statement = statement_of(bind.statement, &parsed, session)?;
                if !fits(statement.0, Some((statement.1, bind.rest))) {
                    return None;
                }
                prepare(&mut out, &mut unnamed, statement);
                writers::bind_head(&mut out, b"", b"", bind.rest.len());
                out.extend_from_slice(bind.rest);
            }
            b'D' => match frontend::named(frame).ok()? {
                Named::Statement(name) => {
                    prepare(&mut out, &mut unnamed, statement_of(name, &parsed, session)?);
                    writers::statement(&mut out, b'D', b"");
                }
                Named::Portal(_) => out.extend_from_slice(frame),
            },
            b'E' | b'S' => out.extend_from_slice(frame),
            b'C' | b'H' => {}
            _ => return None,
        }
        // A short Bind may bring a long statement with it.
        if out.len() > room {
            return None;
        }
    }
    Some(out)
}

/// Text and parameter types of what a name stands for.
fn statement_of<'a>(name: &[u8], parsed: &[Parse<'a>], session: &'a Session) -> Option<(&'a [u8], &'a [u8])> {
    let (text, types) = match parsed.iter().rev().find(|parse| parse.name == name) {
        Some(parse) => (parse.text, parse.types),
        None => (session.text_of(name)?, session.types_of(name)),
    };
    // Types that were given in SQL have no numbers.
    (!types.starts_with(&[0xff, 0xff])).then_some((text, types))
}

/// The unnamed statement becomes this one.
fn prepare<'a>(
    out: &mut Vec<u8>,
    unnamed: &mut Option<(&'a [u8], &'a [u8])>,
    statement: (&'a [u8], &'a [u8]),
) {
    if *unnamed != Some(statement) {
        writers::parse(out, b"", statement.0, statement.1);
        *unnamed = Some(statement);
    }
}

/// Does it read, or begin or set what ends with the transaction, and nothing else? `bind`: parameter types,
/// and the rest of a Bind.
fn is_fit(
    text: &[u8],
    bind: Option<(&[u8], &[u8])>,
    dialect: Dialect,
    class_of: &mut dyn FnMut(&[u8]) -> Class,
) -> bool {
    let class = class_of(text);
    if class.access == Access::Read || !class.marks.contains(Marks::MULTI_STATEMENT) {
        return is_fit_alone(text, &class, bind, dialect);
    }
    // The strictest of them decides the class of all, so each is asked.
    Statements::new(text, Literals::FirstOfList).all(|statement| {
        let (Some(first), Some(last)) = (statement.tokens.first(), statement.tokens.last()) else {
            return false;
        };
        let Some(part) = text.get(first.start..last.end) else { return false };
        let class = class_of(part);
        let whole = !statement.truncated && !statement.broken;
        whole && !class.marks.contains(Marks::MULTI_STATEMENT) && is_fit_alone(part, &class, None, dialect)
    })
}

fn is_fit_alone(text: &[u8], class: &Class, bind: Option<(&[u8], &[u8])>, dialect: Dialect) -> bool {
    if class.marks.intersects(UNFIT) {
        return false;
    }
    match (class.access, class.why) {
        (Access::Read, _) => true,
        // What it asks of its node changes nothing there.
        (_, Why::NodeLocal) => class.marks.contains(Marks::WORKS),
        (_, Why::TransactionControl | Why::SessionState) if !class.marks.contains(Marks::WORKS) => {
            let effects = effects_of(text, dialect);
            let effects = match bind {
                Some((types, rest)) => bound(effects, types, rest),
                None => effects,
            };
            !effects.is_empty() && effects.iter().all(ends_with_transaction)
        }
        _ => false,
    }
}

/// Is nothing left of it when the transaction is over, and is that not its own end?
fn ends_with_transaction(effect: &Effect) -> bool {
    match effect {
        Effect::Begin(_)
        | Effect::SetTransaction(_)
        | Effect::Savepoint(_)
        | Effect::RollbackTo(_)
        | Effect::Release(_)
        | Effect::SetLocalUnknown => true,
        Effect::Set { scope, .. } => *scope == Scope::Local,
        Effect::SetConfig(call) => call.is_local(),
        _ => false,
    }
}

#[cfg(test)]
#[path = "transcript/tests.rs"]
mod tests;
