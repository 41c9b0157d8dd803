//! Transaction splitting: what a request group is to a transaction that no server knows of yet, because
//! nothing but reads has come since its BEGIN.

use crate::session::block::reads_committed;
use crate::session::group::Group;
use crate::session::machine::Session;
use crate::session::prepared::scope;
use crate::sql::class::{Access, Marks};
use crate::sql::control::{Control, control_of};
use crate::wire::frame::header;
use crate::wire::frontend::{self, Named, Parameter};

/// What becomes of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Part {
    /// It is none of this: in a transaction that was only promised, that one begins.
    #[default]
    Other,
    /// It begins or ends a transaction, and pgweir answers it.
    Answered,
    /// It begins one and reads in it: its reads may go to a replica, without their BEGIN.
    Begins,
    /// It reads in one: on a replica, or the transaction begins.
    Reads,
}

/// What must not be in a read that runs on its own.
const UNFIT: Marks = Marks::SESSION_EFFECT
    .with(Marks::DDL)
    .with(Marks::PGWEIR)
    .with(Marks::NAMED)
    .with(Marks::NOT_ON_STANDBY)
    .with(Marks::LOCKS)
    .with(Marks::MOMENTARY);

/// What a group is where no transaction is open. `may`: the session's transactions may be split.
pub fn of_idle(group: &Group, bytes: &[u8], session: &Session, may: impl FnOnce() -> bool) -> Part {
    let asks = Marks::HINTED.with(Marks::MULTI_STATEMENT).with(Marks::READ_ONLY);
    let unfit = group.writes || group.portals || group.own > 0 || group.marks.intersects(UNFIT.with(asks));
    let whole = group.complete && group.executes && group.others == 1;
    if !group.marks.contains(Marks::TRANSACTION_CONTROL) || unfit || !whole {
        return Part::Other;
    }
    match control_in(bytes, session) {
        Some((Control::Begin { level, .. }, alone))
            if may() && reads_committed(level, session.state.settings()) =>
        {
            match alone {
                true => Part::Answered,
                false if is_momentary(bytes, session) => Part::Other,
                false => Part::Begins,
            }
        }
        _ => Part::Other,
    }
}

/// What it is in a transaction that was promised.
pub fn of_promised(group: &Group, bytes: &[u8], session: &Session, failed: bool) -> Part {
    if !group.complete || group.own > 0 {
        return Part::Other;
    }
    if group.executes && group.others == 1 && group.marks.contains(Marks::TRANSACTION_CONTROL) {
        return match control_in(bytes, session) {
            Some((Control::Commit | Control::Rollback, true)) => Part::Answered,
            _ => Part::Other,
        };
    }
    let control = group.executes && group.marks.contains(Marks::TRANSACTION_CONTROL);
    let unfit = group.portals || (group.executes && group.marks.intersects(UNFIT)) || control;
    // What is only parsed and described leaves no trace, whatever it would do.
    match failed || unfit || group.access != Access::Read || is_momentary(bytes, session) {
        true => Part::Other,
        false => Part::Reads,
    }
}

/// Has it a literal, or a parameter, that may mean the moment at which it is read (`'now'`)?
fn is_momentary(bytes: &[u8], session: &Session) -> bool {
    let mut rest = bytes;
    while let Ok(Some(head)) = header(rest, usize::MAX) {
        let Some((frame, behind)) = rest.split_at_checked(head.frame_len) else { return true };
        rest = behind;
        let moment = match head.tag {
            b'Q' => frontend::query(frame).is_ok_and(scope::is_momentary),
            b'P' => frontend::parse(frame).is_ok_and(|parse| scope::is_momentary(parse.text)),
            b'B' => frontend::bind(frame).is_some_and(|bind| {
                let means = |value: &Parameter<'_>| value.value.is_some_and(scope::means_its_moment);
                session.text_of(bind.statement).is_some_and(scope::is_momentary)
                    || frontend::parameters(bind.rest).is_some_and(|all| all.iter().any(means))
            }),
            _ => false,
        };
        if moment {
            return true;
        }
    }
    false
}

/// The plain beginning or end of a transaction that a group executes first; true: and nothing else.
pub fn control_in(bytes: &[u8], session: &Session) -> Option<(Control, bool)> {
    let (mut parsed, mut found, mut executed) = (Vec::new(), None, false);
    let mut rest = bytes;
    while let Ok(Some(head)) = header(rest, usize::MAX) {
        let (frame, behind) = rest.split_at_checked(head.frame_len)?;
        rest = behind;
        match (head.tag, executed) {
            (b'Q', _) => return Some((control_of(frontend::query(frame).ok()?)?, true)),
            (b'P', false) => parsed.push(frontend::parse(frame).ok()?),
            (b'B', false) if found.is_none() => {
                let bind = frontend::bind(frame)?;
                let here = parsed.iter().rev().find(|parse| parse.name == bind.statement);
                let known = session.text_of(bind.statement);
                let text = match here {
                    // A name that is taken is refused, and parameters that are not there as well.
                    Some(parse) if parse.types != [0, 0] => return None,
                    Some(parse) if !parse.name.is_empty() && known.is_some() => return None,
                    Some(parse) => parse.text,
                    None => known?,
                };
                if !bind.portal.is_empty() || !frontend::parameters(bind.rest)?.is_empty() {
                    return None;
                }
                found = Some(control_of(text)?);
            }
            (b'E', false) => executed = found.is_some(),
            (b'D', false) => match frontend::named(frame).ok()? {
                Named::Portal(_) if found.is_none() => return None,
                Named::Portal(_) | Named::Statement(_) => {}
            },
            (b'P' | b'B' | b'E' | b'D', true) => return Some((found?, false)),
            (b'C' | b'S', _) => {}
            _ => return None,
        }
    }
    found.filter(|_| executed).map(|found| (found, true))
}

#[cfg(test)]
#[path = "split/tests.rs"]
mod tests;
