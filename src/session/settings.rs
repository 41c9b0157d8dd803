//! The run-time parameters that a session carries from one server connection to the next.
//!
//! A server connection remembers which `Settings` it carries; at checkout the difference is sent.
//! `Settings` are immutable and shared: equal ones are one allocation where the shell interns them.

use crate::sql::effects;
use std::sync::Arc;

/// How a value is to be set again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Value {
    /// What stood behind `SET name =`, verbatim: lists, quoted words, `DEFAULT` excluded.
    Sql(Box<str>),
    /// The parameter's text form, as a startup packet or `set_config` gives it.
    Text(Box<str>),
}

/// An immutable set of parameters, sorted by name (lower case).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Settings {
    entries: Vec<(Box<str>, Value)>,
}

impl Settings {
    /// From names and values; a later entry for the same name wins.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, Value)>) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings = settings.with(&name, value);
        }
        settings
    }

    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `name` (lower case).
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.find(name).ok()?;
        Some(&self.entries[at].1)
    }

    /// All names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(name, value)| (&**name, value))
    }

    /// With `name` set to `value`.
    pub fn with(mut self, name: &str, value: Value) -> Settings {
        let name = name.to_ascii_lowercase();
        match self.find(&name) {
            Ok(at) => self.entries[at].1 = value,
            Err(at) => self.entries.insert(at, (name.into(), value)),
        }
        self
    }

    /// Without `name`.
    pub fn without(mut self, name: &str) -> Settings {
        if let Ok(at) = self.find(&name.to_ascii_lowercase()) {
            self.entries.remove(at);
        }
        self
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(entry, _)| (**entry).cmp(name))
    }
}

/// The SQL that turns a connection which carries `carried` into one that carries `wanted`; `None`
/// when they are equal. Who one is comes first: the session's user, then its role, then the rest,
/// because a role may be needed to be allowed the rest.
pub fn difference(carried: &Settings, wanted: &Settings) -> Option<String> {
    let mut sql = String::new();
    for name in ["session_authorization", "role"] {
        change(&mut sql, name, carried.get(name), wanted.get(name));
    }
    let ordinary = |name: &str| !is_identity(name);
    for (name, value) in carried.iter().filter(|(name, _)| ordinary(name)) {
        if wanted.get(name).is_none() {
            change(&mut sql, name, Some(value), None);
        }
    }
    for (name, value) in wanted.iter().filter(|(name, _)| ordinary(name)) {
        change(&mut sql, name, carried.get(name), Some(value));
    }
    (!sql.is_empty()).then_some(sql)
}

/// Who one is has statements of its own.
fn is_identity(name: &str) -> bool {
    matches!(name, "session_authorization" | "role")
}

fn change(sql: &mut String, name: &str, from: Option<&Value>, to: Option<&Value>) {
    if from == to {
        return;
    }
    match to {
        None => {
            sql.push_str("RESET ");
            name_into(sql, name);
        }
        Some(Value::Sql(value)) => {
            sql.push_str("SET ");
            name_into(sql, name);
            // SET SESSION AUTHORIZATION knows no TO, and SET ROLE does without.
            sql.push_str(if is_identity(name) { " " } else { " TO " });
            sql.push_str(value);
        }
        Some(Value::Text(value)) => {
            sql.push_str("SELECT pg_catalog.set_config(");
            literal_into(sql, name);
            sql.push_str(", ");
            literal_into(sql, value);
            sql.push_str(", false)");
        }
    }
    sql.push(';');
}

/// The SQL that sets `name` for the transaction.
pub fn set_local_into(sql: &mut String, name: &str, value: &effects::Value) {
    match value {
        effects::Value::Sql(value) => {
            sql.push_str("SET LOCAL ");
            name_into(sql, name);
            sql.push_str(" TO ");
            sql.push_str(value);
        }
        effects::Value::Config(value) => {
            sql.push_str("SELECT pg_catalog.set_config(");
            literal_into(sql, name);
            sql.push_str(", ");
            literal_into(sql, value);
            sql.push_str(", true)");
        }
    }
    sql.push(';');
}

/// A parameter's name as an identifier, each part quoted.
fn name_into(sql: &mut String, name: &str) {
    match name {
        "session_authorization" => return sql.push_str("SESSION AUTHORIZATION"),
        "role" => return sql.push_str("ROLE"),
        _ => {}
    }
    for (position, part) in name.split('.').enumerate() {
        if position > 0 {
            sql.push('.');
        }
        sql.push('"');
        sql.push_str(&part.replace('"', "\"\""));
        sql.push('"');
    }
}

/// A literal that reads the same whatever `standard_conforming_strings` says.
pub(super) fn literal_into(sql: &mut String, text: &str) {
    if text.contains('\\') {
        sql.push_str(" E");
    }
    sql.push('\'');
    sql.push_str(&text.replace('\\', "\\\\").replace('\'', "''"));
    sql.push('\'');
}

/// One allocation per distinct `Settings`; bounded, and forgetful of what nobody uses.
#[derive(Debug)]
pub struct Interner {
    known: std::collections::HashSet<Arc<Settings>>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Interner {
        Interner { known: std::collections::HashSet::new(), sweep_at: 1024 }
    }
}

impl Interner {
    /// The shared copy of `settings`.
    pub fn intern(&mut self, settings: Settings) -> Arc<Settings> {
        if let Some(known) = self.known.get(&settings) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = (self.known.len() * 2).max(1024);
        }
        let shared = Arc::new(settings);
        self.known.insert(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(value: &str) -> Value {
        Value::Sql(value.into())
    }

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    #[test]
    fn only_the_difference_is_sent_and_who_one_is_comes_first() {
        let carried = Settings::default().with("work_mem", sql("'1MB'")).with("DateStyle", text("ISO"));
        let wanted = Settings::default()
            .with("datestyle", text("ISO"))
            .with("app.tenant", text("o'hara\\"))
            .with("session_authorization", sql("bob"))
            .with("role", sql("\"Ann\""))
            .with("search_path", sql("a, b"));
        assert_eq!(
            difference(&carried, &wanted).as_deref(),
            Some(concat!(
                "SET SESSION AUTHORIZATION bob;SET ROLE \"Ann\";RESET \"work_mem\";",
                "SELECT pg_catalog.set_config('app.tenant',  E'o''hara\\\\', false);",
                "SET \"search_path\" TO a, b;"
            ))
        );
        assert_eq!(difference(&wanted, &wanted), None);
    }

    #[test]
    fn equal_settings_are_one_allocation_and_unused_ones_are_forgotten() {
        let mut interner = Interner::default();
        let first = interner.intern(Settings::default().with("a", text("1")));
        let second = interner.intern(Settings::default().with("A", text("1")));
        assert!(Arc::ptr_eq(&first, &second));
        for number in 0..5000 {
            interner.intern(Settings::default().with("a", text(&number.to_string())));
        }
        assert!(interner.known.len() <= 1025);
    }
}
