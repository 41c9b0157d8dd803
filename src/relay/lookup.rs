//! The classes of a session's statements, by text and by name.

use crate::relay::catalogs::DatabaseCatalog;
use crate::relay::context::Context;
use crate::session::group::Classes;
use crate::session::machine::Session;
use crate::session::reply_queue::ReplyQueue;
use crate::sql::class::{Access, Class, Marks, Route};
use crate::sql::lexer::Dialect;
use crate::sql::named::Named;

/// The classes that a session's group builder asks for.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// What all clients share.
    pub context: &'a Context,
    /// What its database says about its objects.
    pub database: &'a DatabaseCatalog,
    /// The session that asks.
    pub session: &'a Session,
    /// What its server still owes it.
    pub queue: &'a ReplyQueue,
    /// How its strings are to be read.
    pub dialect: Dialect,
}

impl Classes for Lookup<'_> {
    fn of_text(&mut self, text: &[u8]) -> Class {
        self.context.class_of(self.database, self.dialect, text)
    }

    fn of_query(&mut self, text: &[u8]) -> Class {
        let class = self.of_text(text);
        if class.marks.contains(Marks::NAMED) { self.of_execute(text, class) } else { class }
    }

    fn of_name(&mut self, name: &[u8]) -> Option<Class> {
        match self.session.outdated(name) {
            // What was not known at Parse may be known now, or may have changed since.
            Some(text) => Some(self.context.class_of(self.database, self.dialect, text)),
            None => self.session.class_of(name),
        }
    }

    fn is_estranged(&mut self, name: &[u8]) -> bool {
        self.session.is_estranged(name)
    }

    fn is_pending(&mut self, name: &[u8]) -> bool {
        self.queue.owes_name(Some(name))
    }
}

impl Lookup<'_> {
    /// EXECUTE does what its statement does, and what its arguments do.
    fn of_execute(&mut self, text: &[u8], class: Class) -> Class {
        let Some(Named::Execute { name, arguments: Some(at), .. }) = self.session.named_in(text) else {
            return class;
        };
        let Some(body) = self.of_name(&name) else { return class };
        let bare = at.is_empty();
        let arguments = match bare {
            true => body,
            false => self.context.class_of(self.database, self.dialect, &[b"SELECT ", &text[at]].concat()),
        };
        Class {
            access: body.access.strictest(arguments.access),
            why: if body.access == Access::Read { arguments.why } else { body.why },
            marks: body.marks.with(arguments.marks).with(Marks::NAMED),
            route: if class.route == Route::Auto { body.route } else { class.route },
            fingerprint: body.fingerprint,
            rules: match bare {
                true => body.rules,
                false => self.context.rules_of(body.rules, arguments.rules),
            },
        }
    }
}
