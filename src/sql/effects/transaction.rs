//! BEGIN, COMMIT and kin.

use super::cursor::Cursor;
use super::{Effect, TransactionModes};

pub(super) fn effect(first: &str, cursor: &mut Cursor<'_>) -> Option<Effect> {
    match first {
        "begin" | "start" => {
            noise(cursor);
            Some(Effect::Begin(modes(cursor)))
        }
        "savepoint" => cursor.name().map(Effect::Savepoint),
        "release" => {
            savepoint(cursor);
            cursor.name().map(Effect::Release)
        }
        "commit" | "end" => {
            if cursor.word("prepared") {
                return Some(Effect::FinishPrepared);
            }
            noise(cursor);
            Some(Effect::Commit { chain: chain(cursor) })
        }
        "rollback" | "abort" => {
            if cursor.word("prepared") {
                return Some(Effect::FinishPrepared);
            }
            noise(cursor);
            if cursor.word("to") {
                savepoint(cursor);
                return cursor.name().map(Effect::RollbackTo);
            }
            Some(Effect::Rollback { chain: chain(cursor) })
        }
        _ => None,
    }
}

fn noise(cursor: &mut Cursor<'_>) {
    if !cursor.word("work") {
        cursor.word("transaction");
    }
}

/// The word SAVEPOINT in front of a name; a savepoint may be called so itself.
fn savepoint(cursor: &mut Cursor<'_>) {
    let mut after = cursor.clone();
    if after.word("savepoint") && !after.is_end() {
        *cursor = after;
    }
}

fn chain(cursor: &mut Cursor<'_>) -> bool {
    cursor.word("and") && !cursor.word("no") && cursor.word("chain")
}

/// `ISOLATION LEVEL …`, `READ ONLY`, `READ WRITE`, `[NOT] DEFERRABLE`, with or without commas.
pub(super) fn modes(cursor: &mut Cursor<'_>) -> TransactionModes {
    let mut modes = TransactionModes::default();
    while !cursor.is_end() {
        if cursor.word("isolation") {
            cursor.word("level");
            modes.isolation = level(cursor);
        } else if cursor.word("read") {
            let only = cursor.word("only");
            modes.read_only = (only || cursor.word("write")).then_some(only);
        } else if cursor.word("not") {
            modes.deferrable = cursor.word("deferrable").then_some(false);
        } else if cursor.word("deferrable") {
            modes.deferrable = Some(true);
        } else {
            cursor.skip();
        }
    }
    modes
}

/// The modes of the transaction at hand, as settings. They end with it, whatever SET is said.
pub fn is_mode(name: &str) -> bool {
    ["transaction_isolation", "transaction_read_only", "transaction_deferrable"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

/// What is not understood asks for the most.
pub(super) fn mode(name: &str, value: &str) -> Effect {
    let value = value.to_ascii_lowercase();
    let on = matches!(value.as_str(), "on" | "true" | "yes" | "1" | "t" | "y");
    let levels = ["read committed", "read uncommitted", "repeatable read"];
    let level = levels.into_iter().find(|level| *level == value).unwrap_or("serializable");
    Effect::SetTransaction(match &*name.to_ascii_lowercase() {
        "transaction_read_only" => TransactionModes { read_only: Some(on), ..TransactionModes::default() },
        "transaction_isolation" => TransactionModes { isolation: Some(level), ..TransactionModes::default() },
        _ => TransactionModes { deferrable: Some(true), ..TransactionModes::default() },
    })
}

fn level(cursor: &mut Cursor<'_>) -> Option<&'static str> {
    if cursor.word("serializable") {
        return Some("serializable");
    }
    if cursor.word("repeatable") {
        return cursor.word("read").then_some("repeatable read");
    }
    if cursor.word("read") {
        let committed = cursor.word("committed");
        return Some(if committed || !cursor.word("uncommitted") {
            "read committed"
        } else {
            "read uncommitted"
        });
    }
    None
}
