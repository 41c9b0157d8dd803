//! What a statement reads, as far as it can be said for certain: for rules that make something laxer.

use super::names::ident_name;
use super::render::render;
use super::visit::{self, parts};
use crate::sql::functions::{self, Builtin};
use crate::sql::lexer::statements::Statement as Tokens;
use sqlparser::ast::{Expr, ObjectName, Query, Statement, TableFactor, Visit, Visitor};
use std::ops::ControlFlow;

/// A relation as the statement names it, folded as PostgreSQL does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

/// What one statement reads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reads {
    /// Every relation in it; names of its WITH clauses are none.
    pub(crate) relations: Vec<Named>,
    /// Does it call a function that is not PostgreSQL's own? Whatever that one reads is not seen.
    pub(crate) calls: bool,
}

/// What a statement that was judged to be a read reads. `None`: that cannot be said for certain.
pub(crate) fn reads_of(text: &[u8], statement: &Tokens) -> Option<Reads> {
    if statement.truncated || statement.broken {
        return None;
    }
    // sqlparser keeps TABLE's relation where it is not visited, and takes ONLY for a relation.
    let misread = |word| statement.tokens.iter().any(|token| token.is_word(text, word));
    if misread("table") || misread("only") {
        return None;
    }
    let sql = render(text, &statement.tokens).ok()?;
    visit::parsed(&sql, |statement| {
        let statement = statement.ok()?;
        let mut look = Look::default();
        match statement.visit(&mut look) {
            ControlFlow::Continue(()) => Some(look.reads),
            ControlFlow::Break(()) => None,
        }
    })
}

/// The names that a query's WITH has made known so far.
struct Frame {
    /// Where each body begins that makes its name known when it has been read.
    bodies: Vec<(*const Query, String)>,
    known: Vec<String>,
}

#[derive(Default)]
struct Look {
    reads: Reads,
    frames: Vec<Frame>,
    /// The name of a table function, which the relation hook will report too.
    called: Option<*const ObjectName>,
}

impl Look {
    fn function(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let Some((schema, name)) = parts(name) else { return ControlFlow::Break(()) };
        let own = !matches!(schema.as_deref(), None | Some("pg_catalog"));
        self.reads.calls |= own || functions::builtin(&name) != Some(Builtin::Safe);
        ControlFlow::Continue(())
    }
}

impl Visitor for Look {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut frame = Frame { bodies: Vec::new(), known: Vec::new() };
        if let Some(with) = &query.with {
            let named = with.cte_tables.iter().map(|cte| ident_name(&cte.alias.name).into_owned());
            if with.recursive {
                frame.known = named.collect();
            } else {
                let bodies = with.cte_tables.iter().map(|cte| std::ptr::from_ref(&*cte.query));
                frame.bodies = bodies.zip(named).collect();
            }
        }
        self.frames.push(frame);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.frames.pop();
        // A name is known behind its body: inside, `WITH t AS (SELECT * FROM t)` means the relation.
        if let Some(outer) = self.frames.last_mut()
            && let Some(at) = outer.bodies.iter().position(|(body, _)| std::ptr::eq(*body, query))
        {
            let (_, name) = outer.bodies.swap_remove(at);
            outer.known.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } => {
                self.called = Some(std::ptr::from_ref(name));
                self.function(name)
            }
            TableFactor::Function { name, .. } => self.function(name),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if self.called == Some(std::ptr::from_ref(relation)) {
            return ControlFlow::Continue(());
        }
        let Some((schema, name)) = parts(relation) else { return ControlFlow::Break(()) };
        let known = |frame: &Frame| frame.known.iter().any(|known| *known == *name);
        if schema.is_some() || !self.frames.iter().any(known) {
            let schema = schema.map(std::borrow::Cow::into_owned);
            self.reads.relations.push(Named { schema, name: name.into_owned() });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => self.function(&function.name),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}
