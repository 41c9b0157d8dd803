//! Groups that tell, before they are committed, what can be proven of them afterwards (`freshness::doubt`): in
//! the same pipeline as the client's messages, the transaction is asked for its number and its position.
//!
//! ```text
//! alone          Parse Bind Describe Execute …   [Bind Execute Close] Flush   Sync
//! a COMMIT       [Bind Execute Close] Flush   Parse Bind Execute   Sync
//! ```
//!
//! A simple Query is its own transaction, behind which nothing can be asked; so it goes in parts, as a driver
//! that uses the extended protocol would send it, and its client gets the answers of a simple Query. Flush: a
//! server sends what it has when it is idle or its buffer is full, and a commit may take long.

use super::{Outgoing, Session, plain};
use crate::freshness::doubt::Told;
use crate::lsn::Lsn;
use crate::session::exchange::{Exchange, GroupRecord, InquiryPlace};
use crate::session::prepared::TELLS;
use crate::session::reply_queue::{Act, Kind, Undo};
use crate::sql::class::{Class, Marks};
use crate::sql::effects::effects_of;
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::{Body, FrameError, HEADER_LEN};
use crate::wire::{frontend, writers};

/// The statement and the portal that ask. Both columns are eight bytes in the binary format.
const NAME: &[u8] = b"\x02pgweir_told";
const TEXT: &[u8] =
    b"SELECT pg_catalog.pg_current_xact_id_if_assigned(), pg_catalog.pg_current_wal_insert_lsn()";

impl Session {
    /// Writes the question, and what the server needs to answer it.
    fn ask(exchange: &mut Exchange, to: &mut Outgoing<'_>) {
        let queue = &mut exchange.queue;
        if !std::mem::replace(&mut to.server.tells, true) {
            // Should it be there all the same, it would be an error.
            writers::statement(to.out, b'C', NAME);
            queue.push(Kind::Close, Act::Swallow, Undo::Nothing);
            writers::parse(to.out, NAME, TEXT, &[0, 0]);
            queue.push(Kind::Parse, Act::Swallow, Undo::ServerParse(TELLS));
        }
        // No parameters; all results in the binary format.
        let formats = [0, 0, 0, 0, 0, 1, 0, 1];
        writers::bind_head(to.out, NAME, NAME, formats.len());
        to.out.extend_from_slice(&formats);
        queue.push(Kind::Bind, Act::Swallow, Undo::Asks);
        writers::execute(to.out, NAME);
        queue.push(Kind::Execute, Act::Tell, Undo::Nothing);
        writers::portal(to.out, b'C', NAME);
        queue.push(Kind::Close, Act::Swallow, Undo::Nothing);
        to.out.extend_from_slice(&writers::FLUSH);
    }

    /// The group begins: is it asked in front?
    pub(super) fn ask_in_front(exchange: &mut Exchange, to: &mut Outgoing<'_>) {
        if asked(exchange) == Some(InquiryPlace::InFront) {
            Session::ask(exchange, to);
        }
    }

    /// Its Sync comes: is it asked behind?
    pub(super) fn ask_behind(exchange: &mut Exchange, to: &mut Outgoing<'_>) {
        if asked(exchange) == Some(InquiryPlace::Behind) {
            Session::ask(exchange, to);
        }
    }

    /// A simple Query of one statement, in parts.
    pub(super) fn query_in_parts(
        &mut self,
        frame: &[u8],
        class: Option<Class>,
        exchange: &mut Exchange,
        to: &mut Outgoing<'_>,
    ) -> Result<(), FrameError> {
        let text = frontend::query(frame)?;
        let undo = self.replace_unnamed(&exchange.queue, to);
        if undo != Undo::Nothing {
            exchange.queue.push(Kind::Note, Act::Swallow, undo);
        }
        // What it leaves there is nobody's: whoever uses the unnamed statement next parses his own.
        to.server.unnamed = 0;
        let controls = Marks::SESSION_EFFECT.with(Marks::TRANSACTION_CONTROL);
        if class.is_some_and(|class| class.marks.intersects(controls))
            && let Some(record) = exchange.groups.back_mut()
        {
            record.effects.extend(effects_of(text, to.dialect));
        }
        let queue = &mut exchange.queue;
        writers::parse(to.out, b"", text, &[0, 0]);
        queue.push(Kind::Parse, Act::Quiet, Undo::Nothing);
        // Neither parameters nor formats: everything in text.
        writers::bind_head(to.out, b"", b"", 6);
        to.out.extend_from_slice(&[0; 6]);
        queue.push(Kind::Bind, Act::Quiet, Undo::Nothing);
        writers::portal(to.out, b'D', b"");
        queue.push(Kind::DescribePortal, Act::Quiet, Undo::Nothing);
        writers::execute(to.out, b"");
        // A simple Query says that it is done when it is committed.
        queue.push(Kind::Execute, Act::Late, Undo::Nothing);
        Session::ask_behind(exchange, to);
        plain(Kind::Sync, &writers::SYNC, &mut exchange.queue, to);
        Ok(())
    }
}

/// Is the last group to be asked?
pub(super) fn is_asked(exchange: &Exchange) -> bool {
    asked(exchange).is_some()
}

fn asked(exchange: &Exchange) -> Option<InquiryPlace> {
    exchange.groups.back().and_then(GroupRecord::asked)
}

/// The reply at the front is inquiring. Is this message an answer to the question? What it tells is noted, and
/// what is said later.
pub(super) fn note_told(tag: u8, frame: &[u8], exchange: &mut Exchange) -> bool {
    let telling = exchange.queue.is_telling();
    if let Some(inquiry) = exchange.groups.front_mut().and_then(|record| record.inquiry.as_mut()) {
        match tag {
            b'D' if telling => inquiry.told = told_in(frame),
            b'C' if !telling => inquiry.late = Some(frame.into()),
            _ => {}
        }
    }
    telling
}

/// The end of such a group, with what was to be said with it.
pub(super) fn with_late(record: &GroupRecord, status: TransactionStatus) -> Option<Vec<u8>> {
    let late = record.inquiry.as_ref()?.late.as_deref().filter(|_| !record.failed)?;
    Some([late, &writers::ready(status)].concat())
}

/// What a row of the answer says.
fn told_in(row: &[u8]) -> Option<Told> {
    let mut body = Body::new(row.get(HEADER_LEN..)?);
    if body.u16()? != 2 {
        return None;
    }
    let transaction = match body.u32()? {
        8 => Some(u64::from_be_bytes(body.bytes(8)?.try_into().ok()?)),
        u32::MAX => None,
        _ => return None,
    };
    let position = match body.u32()? {
        8 => Lsn(u64::from_be_bytes(body.bytes(8)?.try_into().ok()?)),
        _ => return None,
    };
    Some(Told { transaction, position })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_a_number_or_none_and_a_position() {
        let row = |columns: &[u8]| [&b"D\0\0\0\0"[..], columns].concat();
        let both = row(b"\0\x02\0\0\0\x08\0\0\0\0\0\0\x02\xbc\0\0\0\x08\0\0\0\x01\0\0\0\x10");
        assert_eq!(told_in(&both), Some(Told { transaction: Some(700), position: Lsn(0x1_0000_0010) }));
        let none = row(b"\0\x02\xff\xff\xff\xff\0\0\0\x08\0\0\0\x01\0\0\0\x10");
        assert_eq!(told_in(&none), Some(Told { transaction: None, position: Lsn(0x1_0000_0010) }));
        for cut in 0..both.len() {
            assert_eq!(told_in(&both[..cut]), None, "{cut}");
        }
        assert_eq!(told_in(&row(b"\0\x01\0\0\0\x08\0\0\0\0\0\0\x02\xbc")), None);
    }
}
