//! Groups of a transaction that no server knows of yet: what its server is not sent, and what its client
//! is told instead.

use super::Session;
use crate::session::exchange::{Exchange, GroupRecord};
use crate::session::reply_queue::{Act, Kind, Undo, Unexpected};
use crate::sql::class::Marks;
use crate::sql::control::{Control, control_of};
use crate::sql::lexer::Dialect;
use crate::wire::backend::TransactionStatus;
use crate::wire::frontend::{self, Named};
use crate::wire::writers;

/// CommandComplete.
const BEGIN: &[u8] = b"C\0\0\0\x0aBEGIN\0";
const START_TRANSACTION: &[u8] = b"C\0\0\0\x16START TRANSACTION\0";

impl Session {
    /// Is it a message about the BEGIN in front of the reads? It is answered in its turn, and not sent.
    pub(super) fn keeps_back(
        &mut self,
        tag: u8,
        frame: &[u8],
        exchange: &mut Exchange,
        dialect: Dialect,
    ) -> bool {
        let Some(record) = exchange.groups.back_mut().filter(|record| record.promised) else { return false };
        let (kind, bytes) = match (tag, record.begins) {
            (b'B', _) => {
                let Some(bind) = frontend::bind(frame) else { return false };
                record.begins = self.begins(bind.statement);
                if record.begins.is_none() {
                    return false;
                }
                self.note_portal(&bind, dialect);
                self.undescribed.clear();
                (Kind::Bind, &writers::BIND_COMPLETE[..])
            }
            (b'D', Some(_)) if matches!(frontend::named(frame), Ok(Named::Portal(_))) => {
                (Kind::DescribePortal, &writers::NO_DATA[..])
            }
            (b'E', Some(done)) => {
                record.begins = None;
                record.effects.extend(self.portals.remove(&b""[..]).unwrap_or_default());
                (Kind::Execute, done)
            }
            _ => return false,
        };
        exchange.queue.push(kind, Act::Fabricate(bytes), Undo::Nothing);
        true
    }

    /// The answer to a statement, if it is a BEGIN.
    fn begins(&self, statement: &[u8]) -> Option<&'static [u8]> {
        self.class_of(statement).filter(|class| class.marks.contains(Marks::TRANSACTION_CONTROL))?;
        match control_of(self.text_of(statement)?)? {
            Control::Begin { tag: "BEGIN", .. } => Some(BEGIN),
            Control::Begin { .. } => Some(START_TRANSACTION),
            Control::Commit | Control::Rollback => None,
        }
    }
}

/// What the client is told at the end of such a group; its server is idle again.
pub(super) fn told(record: &GroupRecord, status: TransactionStatus) -> Result<TransactionStatus, Unexpected> {
    match (status, record.failed) {
        (TransactionStatus::Idle, false) => Ok(TransactionStatus::InBlock),
        (TransactionStatus::Idle, true) => Ok(TransactionStatus::Failed),
        (TransactionStatus::InBlock | TransactionStatus::Failed, _) => Err(Unexpected { tag: b'Z' }),
    }
}
