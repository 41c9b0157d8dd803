//! The part of the routing rules that depends on the statement alone: its relations and its shape.
//! Judged once per shape, and kept with the class as a bit set of rules.
//!
//! Names match as in the catalog: without a schema they mean the relation in every schema. A rule that
//! makes routing stricter matches whatever *may* be meant (a column of that name, too); one that makes
//! it laxer only what certainly is.

use crate::sql::catalog::Catalog;
use crate::sql::class::Fingerprint;
use crate::sql::classify::{Named, name_of, reads_of};
use crate::sql::lexer::statements::{Literals, Statement, Statements};
use crate::sql::lexer::{Keys, Kind, shape_of};
use std::borrow::Cow;

/// How sure it must be that a relation is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Caution {
    /// The rule matches whenever it may be: for rules that only make routing stricter.
    #[default]
    Possible,
    /// Only when it certainly is: for all others.
    Certain,
    /// Only when nothing but the listed relations is read.
    Only,
}

/// A relation as a rule names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relation {
    schema: Option<String>,
    name: String,
}

impl Relation {
    /// From `name` or `schema.name`, as in SQL: folded unless quoted. `None`: it is neither.
    pub fn parse(written: &str) -> Option<Relation> {
        let text = written.trim().as_bytes();
        let mut statements = Statements::new(text, Literals::All);
        let statement = statements.next()?;
        let name = |at: usize| statement.tokens.get(at).and_then(|token| name_of(token, text));
        let relation = match statement.tokens.as_slice() {
            [_] => Relation { schema: None, name: name(0)?.into_owned() },
            [_, dot, _] if dot.is_mark(text, b'.') => {
                Relation { schema: Some(name(0)?.into_owned()), name: name(2)?.into_owned() }
            }
            _ => return None,
        };
        statements.next().is_none().then_some(relation)
    }

    /// Could a statement that says `schema.name` mean it?
    fn may_be(&self, schema: Option<&str>, name: &str) -> bool {
        self.name == name
            && !matches!((self.schema.as_deref(), schema), (Some(own), Some(said)) if own != said)
    }

    /// Does a statement that says `schema.name` certainly mean it, as far as names tell?
    fn is(&self, schema: Option<&str>, name: &str) -> bool {
        self.name == name && (self.schema.is_none() || self.schema.as_deref() == schema)
    }
}

/// What one rule asks of a statement. Empty lists ask nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// It reads one of these.
    pub relations: Vec<Relation>,
    /// It has one of these shapes (of `Keys::fixed`).
    pub fingerprints: Vec<Fingerprint>,
    /// How sure that must be.
    pub caution: Caution,
}

/// What all rules ask, by their bits: at most 64.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subjects {
    list: Vec<Subject>,
    /// Rules that ask nothing.
    open: u64,
    /// Rules that hold for several statements when they hold for one of them.
    strict: u64,
    /// The names of all relations, sorted.
    names: Vec<String>,
    /// Does any rule ask about a shape?
    shapes: bool,
}

impl Subjects {
    /// Of rules in the order of their bits.
    pub fn new(list: Vec<Subject>) -> Subjects {
        let bits = |of: &dyn Fn(&Subject) -> bool| {
            let set = list.iter().take(64).enumerate().filter(|(_, subject)| of(subject));
            set.fold(0, |bits, (at, _)| bits | 1 << at)
        };
        let open = bits(&|subject| subject.relations.is_empty() && subject.fingerprints.is_empty());
        let strict = bits(&|subject| subject.caution == Caution::Possible);
        let relations = list.iter().flat_map(|subject| &subject.relations);
        let mut names: Vec<String> = relations.map(|relation| relation.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let shapes = list.iter().any(|subject| !subject.fingerprints.is_empty());
        Subjects { list, open, strict, names, shapes }
    }

    /// The relations whose readers the catalog must know, sorted.
    pub fn relations(&self) -> &[String] {
        &self.names
    }

    /// The rules that ask nothing of a statement.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// The rules that several statements together match: `any` has the bits of one of them at least,
    /// `all` those of every one.
    pub fn together(&self, any: u64, all: u64) -> u64 {
        (any & self.strict) | (all & !self.strict)
    }

    /// The rules that a text matches. (Of what writes, only what may be meant is found.)
    pub fn matches(&self, text: &[u8], catalog: &Catalog) -> u64 {
        if self.names.is_empty() && !self.shapes {
            return self.open;
        }
        let shape = self.shapes.then(|| shape_of(text, &Keys::fixed()).fingerprint);
        let (mut any, mut all) = (0, u64::MAX);
        for statement in Statements::new(text, Literals::FirstOfList) {
            let found = self.of_statement(text, &statement, shape, catalog);
            (any, all) = (any | found, all & found);
        }
        // Without any statement, `all` has every bit.
        self.together(any, if any == 0 { 0 } else { all }) | self.open
    }

    fn of_statement(
        &self,
        text: &[u8],
        statement: &Statement,
        shape: Option<Fingerprint>,
        catalog: &Catalog,
    ) -> u64 {
        let reading = Reading::new(text, statement, catalog, self);
        let matches = |subject: &Subject| {
            let shaped = subject.fingerprints.is_empty()
                || shape.is_some_and(|shape| subject.fingerprints.contains(&shape));
            shaped && (subject.relations.is_empty() || reading.touches(subject))
        };
        let found = self.list.iter().take(64).enumerate().filter(|(_, subject)| matches(subject));
        found.fold(0, |bits, (at, _)| bits | 1 << at)
    }
}

/// What one statement reads, seen both ways.
struct Reading<'a> {
    catalog: &'a Catalog,
    /// Names in it, each with the one before its dot; and operators.
    mentions: Vec<(Option<Cow<'a, str>>, Cow<'a, str>)>,
    /// Its relations, if they can be told.
    relations: Option<Vec<Named>>,
    /// Might anything in it read any relation whatsoever?
    opaque: bool,
    /// Does it call what may read other relations than it names?
    calls: bool,
}

impl<'a> Reading<'a> {
    fn new(text: &'a [u8], statement: &Statement, catalog: &'a Catalog, subjects: &Subjects) -> Reading<'a> {
        let tokens = &statement.tokens;
        let named = |at: usize| tokens.get(at).and_then(|token| name_of(token, text));
        let mention = |at: usize| {
            let dotted = at >= 2 && tokens[at - 1].is_mark(text, b'.');
            Some((dotted.then(|| named(at - 2)).flatten(), named(at)?))
        };
        let operators = tokens.iter().filter(|token| token.kind == Kind::Operator);
        let operators = operators.map(|token| (None, String::from_utf8_lossy(token.bytes(text))));
        let reads = if subjects.names.is_empty() { None } else { reads_of(text, statement) };
        let empty = reads.as_ref().is_some_and(|reads| reads.relations.is_empty() && !reads.calls);
        Reading {
            catalog,
            mentions: (0..tokens.len()).filter_map(mention).chain(operators).collect(),
            calls: reads.as_ref().is_none_or(|reads| reads.calls),
            opaque: statement.truncated
                || statement.broken
                || (!catalog.knows_readers_of(&subjects.names) && !empty),
            relations: reads.map(|reads| reads.relations),
        }
    }

    fn touches(&self, subject: &Subject) -> bool {
        match subject.caution {
            Caution::Possible => self.opaque || self.mentions.iter().any(|said| self.may_be(subject, said)),
            Caution::Certain => self.relations.iter().flatten().any(|named| self.certainly(subject, named)),
            Caution::Only => self.relations.as_ref().is_some_and(|named| {
                let listed = |named: &Named| {
                    subject.relations.iter().any(|relation| relation.is(named.schema.as_deref(), &named.name))
                };
                !named.is_empty() && !self.calls && named.iter().all(listed)
            }),
        }
    }

    fn may_be(&self, subject: &Subject, (schema, name): &(Option<Cow<'_, str>>, Cow<'_, str>)) -> bool {
        let through = |name: &str| self.catalog.read_by(name).iter();
        subject.relations.iter().any(|relation| {
            relation.may_be(schema.as_deref(), name)
                || through(name).any(|reader| relation.may_be(Some(&reader.schema), &reader.of))
        })
    }

    fn certainly(&self, subject: &Subject, named: &Named) -> bool {
        let views = self.catalog.read_by(&named.name).iter().filter(|reader| reader.certain);
        let seen = views.map(|view| (Some(view.schema.as_str()), view.of.as_str()));
        let mut seen = seen.chain([(named.schema.as_deref(), named.name.as_str())]);
        seen.any(|(schema, name)| subject.relations.iter().any(|relation| relation.is(schema, name)))
    }
}

#[cfg(test)]
mod tests;
