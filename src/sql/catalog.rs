//! What one database's own objects mean for routing: pure data, built from the rows of `queries`.
//!
//! Names match without their schema, in every schema at once: so neither `search_path` nor an
//! overload can make a name mean something less strict than what was judged.

pub mod queries;

pub use queries::QUERIES;

use crate::sql::subjects::Subjects;

/// Has the database been read yet?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CatalogState {
    /// No: every relation and every function that the server does not bring along means primary.
    NotLoaded,
    /// Yes.
    Loaded,
}

/// The rows that the monitor read. Names as `pg_proc`, `pg_class`, … have them, unquoted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CatalogRows {
    /// Functions with at least one overload that may write (volatile, a procedure, an aggregate
    /// over one, or a stable one whose body does it through a built-in).
    pub writing_functions: Vec<String>,
    /// Functions, none of whose overloads may write.
    pub safe_functions: Vec<String>,
    /// Writing functions of one row argument: PostgreSQL calls `f(t)` for `t.f` too.
    pub row_functions: Vec<String>,
    /// Relations that only the primary answers for: unlogged, foreign, temporary, sequences, and
    /// views and row security policies that reach one, or a writing or node-local function.
    pub primary_only_relations: Vec<String>,
    /// Types with a cast, a domain constraint or an input function that may write.
    pub writing_types: Vec<String>,
    /// Operators whose function may write.
    pub writing_operators: Vec<String>,
    /// Does any role, database or function set `synchronous_commit`?
    pub async_commit_possible: bool,
    /// Functions with an overload that may tell something of the transaction: not IMMUTABLE.
    pub momentary_functions: Vec<String>,
    /// Views, and relations with policies, that call one of them, or a clock.
    pub momentary_relations: Vec<String>,
    /// May a transaction in this database begin at another level than READ COMMITTED without the client
    /// having asked for it?
    pub other_isolation_possible: bool,
    /// What reads the relations that rules name.
    pub readers: Readers,
}

/// What reads the relations that rules name: views, functions, parents, policies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Readers {
    /// The relations that were asked about, sorted.
    pub asked: Vec<String>,
    /// What was found.
    pub found: Vec<Reader>,
}

/// A relation or function that reads another relation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// One of those asked about.
    pub of: String,
    /// The schema of that one.
    pub schema: String,
    /// Is it a view that certainly does? (Of functions only the text is known.)
    pub certain: bool,
}

/// A set of names: small, sorted, searched by halves.
#[derive(Clone, Debug, Default)]
struct Names(Vec<Box<str>>);

impl Names {
    fn new(rows: Vec<String>) -> Names {
        let mut names: Vec<Box<str>> = rows.into_iter().map(String::into_boxed_str).collect();
        names.sort_unstable();
        names.dedup();
        Names(names)
    }

    fn has(&self, name: &str) -> bool {
        self.0.binary_search_by(|probe| probe.as_ref().cmp(name)).is_ok()
    }
}

/// One database's catalog. Immutable; replaced as a whole, with a new epoch.
#[derive(Clone, Debug)]
pub struct Catalog {
    state: CatalogState,
    epoch: u64,
    writing_functions: Names,
    safe_functions: Names,
    row_functions: Names,
    relations: Names,
    types: Names,
    operators: Names,
    async_commit_possible: bool,
    momentary_functions: Names,
    momentary_relations: Names,
    other_isolation_possible: bool,
    readers: Readers,
}

impl Catalog {
    /// From what was read. `epoch` differs from that of every earlier catalog of this database.
    pub fn new(rows: CatalogRows, epoch: u64) -> Catalog {
        Catalog {
            state: CatalogState::Loaded,
            epoch,
            writing_functions: Names::new(rows.writing_functions),
            safe_functions: Names::new(rows.safe_functions),
            row_functions: Names::new(rows.row_functions),
            relations: Names::new(rows.primary_only_relations),
            types: Names::new(rows.writing_types),
            operators: Names::new(rows.writing_operators),
            async_commit_possible: rows.async_commit_possible,
            momentary_functions: Names::new(rows.momentary_functions),
            momentary_relations: Names::new(rows.momentary_relations),
            other_isolation_possible: rows.other_isolation_possible,
            readers: {
                let mut readers = rows.readers;
                readers.found.sort_unstable();
                readers
            },
        }
    }

    /// A database with ordinary tables only and no functions of its own.
    pub fn empty() -> Catalog {
        Catalog::new(CatalogRows::default(), 0)
    }

    /// A database that has not been read yet.
    pub fn not_loaded() -> Catalog {
        let rows = CatalogRows {
            async_commit_possible: true,
            other_isolation_possible: true,
            ..CatalogRows::default()
        };
        Catalog { state: CatalogState::NotLoaded, ..Catalog::new(rows, u64::MAX) }
    }

    /// Has it been read?
    pub fn state(&self) -> CatalogState {
        self.state
    }

    /// Which reading it is; part of the cache's key.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Can a commit in this database be asynchronous without the client having asked for it?
    pub fn async_commit_possible(&self) -> bool {
        self.async_commit_possible
    }

    /// Can a transaction in this database begin at another level than READ COMMITTED without the client
    /// having asked for it?
    pub fn other_isolation_possible(&self) -> bool {
        self.other_isolation_possible
    }

    /// May reading a relation of this name tell something of the transaction?
    pub fn is_momentary(&self, name: &str) -> bool {
        self.momentary_relations.has(name)
    }

    /// May calling a function of this name?
    pub fn is_momentary_function(&self, name: &str) -> bool {
        self.momentary_functions.has(name)
    }

    /// Was it asked who reads exactly these (sorted) relations?
    pub fn knows_readers_of(&self, relations: &[String]) -> bool {
        self.readers.asked == relations
    }

    /// Which of the relations asked about something of this name reads.
    pub fn read_by(&self, name: &str) -> &[Reader] {
        let found = &self.readers.found;
        let from = found.partition_point(|reader| *reader.name < *name);
        let to = from + found[from..].partition_point(|reader| *reader.name == *name);
        &found[from..to]
    }

    /// May a function of this name write?
    pub fn writes(&self, name: &str) -> bool {
        self.writing_functions.has(name)
    }

    /// Is a function of this name known, and does none of them write?
    pub fn is_safe_function(&self, name: &str) -> bool {
        self.safe_functions.has(name)
    }

    /// May reading an attribute of this name call a writing function?
    pub fn is_row_function(&self, name: &str) -> bool {
        self.row_functions.has(name)
    }

    /// Must a relation of this name be read on the primary?
    pub fn is_primary_only(&self, name: &str) -> bool {
        self.relations.has(name)
    }

    /// May making a value of this type write?
    pub fn is_writing_type(&self, name: &str) -> bool {
        self.types.has(name)
    }

    /// Are there such types at all?
    pub fn has_writing_types(&self) -> bool {
        !self.types.0.is_empty()
    }

    /// May this operator write?
    pub fn is_writing_operator(&self, name: &str) -> bool {
        self.operators.has(name)
    }
}

/// What the configuration says about statements: functions (`routing.functions`, stronger than the
/// catalog), and what rules ask of them.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    read_only: Names,
    writing: Names,
    subjects: Subjects,
    epoch: u64,
}

impl Overrides {
    /// Names with or without a schema, as in SQL: folded unless quoted. `epoch` changes with each
    /// reload; it is part of the cache's key.
    pub fn new(read_only: &[String], writing: &[String], epoch: u64) -> Overrides {
        let names = |list: &[String]| Names::new(list.iter().map(|name| normalise(name)).collect());
        Overrides {
            read_only: names(read_only),
            writing: names(writing),
            subjects: Subjects::default(),
            epoch,
        }
    }

    /// With what rules ask about statements.
    pub fn with_subjects(self, subjects: Subjects) -> Overrides {
        Overrides { subjects, ..self }
    }

    /// What rules ask about statements.
    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// Which configuration it is from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Declared as writing? Beats `is_read_only`.
    pub fn is_writing(&self, schema: Option<&str>, name: &str) -> bool {
        listed(&self.writing, schema, name)
    }

    /// Declared as reading only?
    pub fn is_read_only(&self, schema: Option<&str>, name: &str) -> bool {
        listed(&self.read_only, schema, name)
    }
}

/// A call without a schema may mean any of the functions listed with one; for `read_only` too: who
/// declares `app.total` as reading only can be expected not to have a writing `total` elsewhere on
/// the search path.
fn listed(names: &Names, schema: Option<&str>, name: &str) -> bool {
    if names.0.is_empty() {
        return false;
    }
    match schema {
        Some(schema) => names.has(name) || names.has(&format!("{schema}.{name}")),
        None => {
            names.has(name)
                || names
                    .0
                    .iter()
                    .any(|listed| listed.strip_suffix(name).is_some_and(|schema| schema.ends_with('.')))
        }
    }
}

pub(crate) fn normalise(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut quoted = false;
    for letter in name.trim().trim_end_matches("()").chars() {
        match letter {
            '"' => quoted = !quoted,
            _ if quoted => out.push(letter),
            _ => out.push(letter.to_ascii_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_match_bare_and_qualified_names() {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let overrides = Overrides::new(&list(&["App.Total", "\"Odd\"()"]), &list(&["audit"]), 1);
        assert!(overrides.is_read_only(None, "total"));
        assert!(overrides.is_read_only(Some("app"), "total"));
        assert!(!overrides.is_read_only(Some("other"), "total"));
        assert!(!overrides.is_read_only(None, "subtotal"));
        assert!(overrides.is_read_only(None, "Odd"));
        assert!(overrides.is_writing(Some("any"), "audit"));
    }

    #[test]
    fn a_catalog_not_read_yet_has_no_safe_names() {
        let catalog = Catalog::not_loaded();
        assert_eq!(catalog.state(), CatalogState::NotLoaded);
        assert!(catalog.async_commit_possible());
        assert!(!catalog.is_safe_function("f"));
    }
}
