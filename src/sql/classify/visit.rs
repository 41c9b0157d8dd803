//! Reads a rendered statement with sqlparser and looks at every node.

use super::names::{ident_name, judge_function, judge_relation};
use super::{Known, Verdict};
use crate::sql::class::Why;
use sqlparser::ast::{Expr, ObjectName, Query, Select, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// Parsing, visiting and above all dropping the tree recurse: under `MAX_TOKENS` levels of the
/// largest frames fit into this.
const STACK: usize = 32 << 20;
/// With this much left on the stack a short statement needs no other.
const RED_ZONE: usize = 512 << 10;
/// A statement rendered shorter than this cannot nest deeply enough to need more than `RED_ZONE`.
const SHORT: usize = 1024;
/// sqlparser counts several per level of nesting; its own default (50) refuses plausible queries.
const RECURSION_LIMIT: usize = 200;

/// Judges one rendered statement, which may only read.
pub(super) fn judge(sql: &str, known: Known<'_>) -> Verdict {
    parsed(sql, |statement| match statement {
        Ok(statement @ Statement::Query(_)) => look_at(statement, known),
        Ok(_) | Err(NotOne) => Verdict::unknown(Why::Unparsable),
    })
}

/// It is not one statement that sqlparser understands.
pub(super) struct NotOne;

/// Shows the tree of one rendered statement to `look`, with a stack that is deep enough.
pub(super) fn parsed<T>(sql: &str, look: impl FnOnce(Result<&Statement, NotOne>) -> T) -> T {
    let red_zone = if sql.len() < SHORT { RED_ZONE } else { STACK };
    stacker::maybe_grow(red_zone, STACK, || {
        let parsed = Parser::new(&PostgreSqlDialect {})
            .with_recursion_limit(RECURSION_LIMIT)
            .try_with_sql(sql)
            .and_then(|mut parser| parser.parse_statements());
        match parsed.as_deref() {
            Ok([statement]) => look(Ok(statement)),
            Ok(_) | Err(_) => look(Err(NotOne)),
        }
        // The tree is dropped here, on the grown stack.
    })
}

fn look_at(statement: &Statement, known: Known<'_>) -> Verdict {
    let mut look = Look { known, found: Verdict::READ, called: None };
    match statement.visit(&mut look) {
        ControlFlow::Break(()) => look.found,
        ControlFlow::Continue(()) => Verdict::READ,
    }
}

struct Look<'a> {
    known: Known<'a>,
    found: Verdict,
    /// The name of a table function, which the relation hook will report too.
    called: Option<*const ObjectName>,
}

impl Look<'_> {
    fn stop(&mut self, verdict: Verdict) -> ControlFlow<()> {
        self.found = verdict;
        ControlFlow::Break(())
    }

    fn result(&mut self, verdict: Option<Verdict>) -> ControlFlow<()> {
        match verdict {
            Some(verdict) => self.stop(verdict),
            None => ControlFlow::Continue(()),
        }
    }

    fn function(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let verdict = match parts(name) {
            Some((schema, name)) => judge_function(self.known, schema.as_deref(), &name),
            None => Some(Verdict::unknown(Why::Unparsable)),
        };
        self.result(verdict)
    }
}

type Part<'n> = std::borrow::Cow<'n, str>;

/// Schema and name; a database in front of them is dropped.
pub(super) fn parts(name: &ObjectName) -> Option<(Option<Part<'_>>, Part<'_>)> {
    match name.0.as_slice() {
        [name] => Some((None, ident_name(name.as_ident()?))),
        [schema, name] | [_, schema, name] => {
            Some((Some(ident_name(schema.as_ident()?)), ident_name(name.as_ident()?)))
        }
        _ => None,
    }
}

impl Visitor for Look<'_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
                self.stop(Verdict::write(Why::WritesRows))
            }
            _ => self.stop(Verdict::unknown(Why::Unparsable)),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if !query.locks.is_empty() {
            return self.stop(Verdict::write(Why::Locks));
        }
        let foreign = query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if foreign { self.stop(Verdict::unknown(Why::Unparsable)) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        match select.into {
            Some(_) => self.stop(Verdict::write(Why::CreatesTable)),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } => {
                self.called = Some(std::ptr::from_ref(name));
                self.function(name)
            }
            TableFactor::Function { name, .. } => self.function(name),
            TableFactor::Table { .. }
            | TableFactor::Derived { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::JsonTable { .. }
            | TableFactor::XmlTable { .. } => ControlFlow::Continue(()),
            // Other products' syntax: PostgreSQL would read it otherwise, if at all.
            _ => self.stop(Verdict::unknown(Why::Unparsable)),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if self.called == Some(std::ptr::from_ref(relation)) {
            return ControlFlow::Continue(());
        }
        let verdict = match parts(relation) {
            Some((schema, name)) => judge_relation(self.known, schema.as_deref(), &name),
            None => Some(Verdict::unknown(Why::Unparsable)),
        };
        self.result(verdict)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => self.function(&function.name),
            _ => ControlFlow::Continue(()),
        }
    }
}
