//! Reads one mapping of the tree: reports what does not belong, hands out what does.

use crate::config::keys::{self, Kind};
use crate::config::mistake::{Mistake, Span};
use crate::config::nearest::nearest;
use crate::config::tree::{Entry, Tree, Value};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Collects the mistakes of one file, and knows what relative paths are relative to.
pub struct Reader {
    mistakes: Vec<Mistake>,
    folder: PathBuf,
}

/// What a parser of single values says about a wrong one.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub message: String,
    /// The nearest valid value.
    pub nearest: Option<&'static str>,
}

impl<T: Into<String>> From<T> for Wrong {
    fn from(message: T) -> Wrong {
        Wrong { message: message.into(), nearest: None }
    }
}

/// One value and its key's path.
#[derive(Clone)]
pub struct Field<'t> {
    /// The value.
    pub tree: &'t Tree,
    /// The key's path.
    pub path: String,
}

/// A mapping whose keys are checked.
pub struct Section<'t> {
    path: String,
    span: Span,
    entries: &'t [Entry],
    keys: &'static [&'static str],
}

impl Reader {
    /// For a file in `folder`.
    pub fn new(folder: &Path) -> Reader {
        Reader { mistakes: Vec::new(), folder: folder.to_owned() }
    }

    /// All that was reported.
    pub fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }

    /// How many were reported so far.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// Reports a mistake.
    pub fn report(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// Reports a mistake in `field`.
    pub fn wrong(&mut self, field: &Field<'_>, wrong: impl Into<Wrong>) {
        let wrong = wrong.into();
        self.report(Mistake::new(field.tree.span, wrong.message).path(&field.path).nearest(wrong.nearest));
    }

    /// A path in the file, relative to the file's folder.
    pub fn file_path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// The mapping of `kind` in `field`; an empty value is an empty mapping.
    pub fn section<'t>(&mut self, field: &Field<'t>, kind: &'static Kind) -> Section<'t> {
        let entries = self.entries(field);
        let section = Section { path: field.path.clone(), span: field.tree.span, entries, keys: kind.keys };
        for entry in entries.iter().filter(|entry| !kind.keys.contains(&entry.key.as_str())) {
            self.unknown(&section, entry);
        }
        section
    }

    fn unknown(&mut self, section: &Section<'_>, entry: &Entry) {
        let near = nearest(&entry.key, section.keys.iter().copied()).map(str::to_owned);
        let elsewhere = keys::place_of(&entry.key);
        let guess = match (near, elsewhere) {
            (Some(near), _) => Some(near),
            (None, elsewhere) => elsewhere,
        };
        let mistake = Mistake::new(entry.span, format!("unknown key \"{}\"", entry.key))
            .path(join(&section.path, &entry.key))
            .nearest(guess)
            .hint(format!("valid keys here: {}", section.keys.join(", ")));
        self.report(mistake);
    }

    /// The entries of a mapping whose keys the user chooses.
    pub fn entries<'t>(&mut self, field: &Field<'t>) -> &'t [Entry] {
        let entries: &[Entry] = match &field.tree.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                self.wrong(field, format!("expected a mapping (key: value), found {}", other.kind()));
                &[]
            }
        };
        let mut seen = HashSet::new();
        for entry in entries.iter().filter(|entry| !seen.insert(entry.key.as_str())) {
            let message = format!("duplicate key \"{}\"", entry.key);
            self.report(Mistake::new(entry.span, message).path(join(&field.path, &entry.key)));
        }
        entries
    }

    /// The items of a list.
    pub fn items<'t>(&mut self, field: &Field<'t>) -> Vec<Field<'t>> {
        match &field.tree.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, tree)| Field { tree, path: format!("{}[{index}]", field.path) })
                .collect(),
            Value::Null => Vec::new(),
            other => {
                self.wrong(field, format!("expected a list, found {}", other.kind()));
                Vec::new()
            }
        }
    }

    /// A single value, understood by `parse`.
    pub fn value<T>(&mut self, field: &Field<'_>, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let Value::Scalar(text) = &field.tree.value else {
            self.wrong(field, format!("expected a single value, found {}", field.tree.value.kind()));
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.wrong(field, wrong);
                None
            }
        }
    }

    /// The value of `key` if it is there and right. Its absence is fine.
    pub fn optional<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let field = section.field(key)?;
        self.value(&field, parse)
    }

    /// The value of `key`; its absence is a mistake.
    pub fn required<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match section.field(key) {
            Some(field) => self.value(&field, parse),
            None => {
                self.missing(section, key);
                None
            }
        }
    }

    /// Reports that `key` is missing.
    pub fn missing(&mut self, section: &Section<'_>, key: &str) {
        let message = format!("missing key \"{key}\"");
        self.report(Mistake::new(section.span, message).path(join(&section.path, key)));
    }

    /// Sets `slot` to the value of `key` if it is there and right.
    pub fn set<T>(
        &mut self,
        slot: &mut T,
        section: &Section<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) {
        if let Some(value) = self.optional(section, key, parse) {
            *slot = value;
        }
    }
}

impl<'t> Section<'t> {
    /// The value of `key`; an empty one counts as absent.
    pub fn field(&self, key: &str) -> Option<Field<'t>> {
        debug_assert!(self.keys.contains(&key), "{key} is missing in keys.rs");
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let field = Field { tree: &entry.value, path: join(&self.path, key) };
        (entry.value.value != Value::Null).then_some(field)
    }

    /// The section that `key` holds, or an empty one that stands where this one does.
    pub fn child(&self, key: &str) -> Field<'t> {
        debug_assert!(self.keys.contains(&key), "{key} is missing in keys.rs");
        static EMPTY: Tree = Tree { value: Value::Null, span: Span::START };
        let tree = self.entries.iter().find(|entry| entry.key == key).map_or(&EMPTY, |entry| &entry.value);
        Field { tree, path: join(&self.path, key) }
    }

    /// Where it begins.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The path of `key` in it.
    pub fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Where the value of `key` stands, or the section if it is not there.
    pub fn span_of(&self, key: &str) -> Span {
        self.field(key).map_or(self.span, |field| field.tree.span)
    }
}

/// `a` and `b` as a path.
pub fn join(a: &str, b: &str) -> String {
    if a.is_empty() { b.to_owned() } else { format!("{a}.{b}") }
}
