//! What tests of sessions share.

use crate::session::group::Classes;
use crate::session::machine::Session;
use crate::sql::catalog::{Catalog, Overrides};
use crate::sql::class::Class;
use crate::sql::classify::classify;
use crate::sql::lexer::{Dialect, Keys};

/// What a text is, where nothing is known of the database.
pub fn class(text: &[u8]) -> Class {
    classify(text, &Catalog::empty(), &Overrides::default(), Dialect::STANDARD, &Keys::fixed())
}

/// The classes of texts, and of what a session has prepared.
pub struct Known<'a>(pub &'a Session);

impl Classes for Known<'_> {
    fn of_text(&mut self, text: &[u8]) -> Class {
        class(text)
    }

    fn of_name(&mut self, name: &[u8]) -> Option<Class> {
        self.0.class_of(name)
    }
}
