//! Text → class. What is not certainly a read goes to the primary.
//!
//! Three layers, the cheap and strict ones first. The first word of a statement decides nearly
//! everything; only what may be a read goes on. The tokens are then searched for what can never be
//! part of a read (INTO, DML inside, locks, functions known to write). Only then sqlparser reads a
//! text rendered from our own tokens, without comments and literals: so it cannot see other
//! strings than PostgreSQL does. A text that it does not understand is `Unknown`.
//!
//! Not seen, by design: what a stable function does inside (PostgreSQL forbids it to write), and
//! session state that a function, DO block or procedure changes from inside.

mod keyword;
mod moment;
mod names;
mod read;
mod relations;
mod render;
mod standby;
mod visit;

pub(crate) use keyword::{creates_temporary, updates_settings};
pub(crate) use names::name_of;
pub(crate) use relations::{Named, reads_of};

use crate::sql::catalog::{Catalog, Overrides};
use crate::sql::class::{Access, Class, Marks, Route, Why};
use crate::sql::effects;
use crate::sql::lexer::statements::{Literals, Statements};
use crate::sql::lexer::{Dialect, Keys, Shape, shape_of};

/// What one statement was found to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) access: Access,
    pub(crate) why: Why,
    pub(crate) marks: Marks,
}

impl Verdict {
    pub(crate) const READ: Verdict = Verdict { access: Access::Read, why: Why::PlainRead, marks: Marks(0) };

    pub(crate) fn write(why: Why) -> Verdict {
        Verdict { access: Access::Write, why, marks: Marks(0) }
    }

    pub(crate) fn unknown(why: Why) -> Verdict {
        Verdict { access: Access::Unknown, why, marks: Marks(0) }
    }

    pub(crate) fn marked(self, marks: Marks) -> Verdict {
        Verdict { marks: self.marks.with(marks), ..self }
    }

    pub(crate) fn is_read(&self) -> bool {
        self.access == Access::Read
    }
}

/// What a statement is judged with.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) overrides: &'a Overrides,
    pub(crate) node: Node,
}

/// Does what differs between the nodes decide?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    /// Yes: it is the primary's to answer.
    Open,
    /// No: another statement has chosen the node, and it answers for itself.
    Chosen,
}

impl Known<'_> {
    /// What a reader of node-local things is judged as.
    pub(crate) fn node_local(self) -> Option<Verdict> {
        match self.node {
            Node::Open => Some(Verdict::write(Why::NodeLocal)),
            Node::Chosen => None,
        }
    }
}

/// Classifies a text: one statement or several.
pub fn classify(
    text: &[u8],
    catalog: &Catalog,
    overrides: &Overrides,
    dialect: Dialect,
    keys: &Keys,
) -> Class {
    classify_shape(text, shape_of(text, keys), catalog, overrides, dialect)
}

/// The same, for a text whose shape is known already.
pub fn classify_shape(
    text: &[u8],
    shape: Shape,
    catalog: &Catalog,
    overrides: &Overrides,
    dialect: Dialect,
) -> Class {
    let known = Known { catalog, overrides, node: Node::Open };
    let hints = effects::hints_of(text);
    let verdict = if dialect.can_read(text) {
        judge(text, known)
    } else {
        // Its bytes may mean anything: it may even begin a transaction.
        let marks = Marks::SESSION_EFFECT.with(Marks::TRANSACTION_CONTROL).with(Marks::DDL);
        let marks = marks.with(Marks::NOT_ON_STANDBY).with(Marks::LOCKS).with(Marks::WORKS);
        Verdict::unknown(Why::UnsafeEncoding).marked(marks)
    };
    // In a read-only transaction what is no plain read may read, too: BEGIN; SELECT …, DECLARE … CURSOR.
    let subjects = overrides.subjects();
    let rules = if dialect.can_read(text) { subjects.matches(text, catalog) } else { subjects.open() };
    let hinted = if hints.only_route() { Marks(0) } else { Marks::HINTED };
    Class {
        access: verdict.access,
        why: verdict.why,
        marks: verdict.marks.with(hinted),
        route: hints.route.unwrap_or(Route::Auto),
        fingerprint: shape.fingerprint,
        rules,
    }
}

/// The strictest of the parts; the first part that is not a read says why.
fn judge(text: &[u8], known: Known<'_>) -> Verdict {
    let mut whole: Option<Verdict> = None;
    for statement in Statements::new(text, Literals::FirstOfList) {
        let part = keyword::judge(text, &statement, known);
        whole = Some(match whole {
            None => part,
            Some(before) => Verdict {
                access: before.access.strictest(part.access),
                why: if before.is_read() { part.why } else { before.why },
                marks: before.marks.with(part.marks).with(Marks::MULTI_STATEMENT),
            },
        });
    }
    whole.unwrap_or(Verdict { access: Access::Read, why: Why::Empty, marks: Marks::EMPTY })
}

#[cfg(test)]
mod tests;
