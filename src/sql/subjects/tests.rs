#![allow(clippy::unwrap_used)]

use super::*;
use crate::sql::catalog::{CatalogRows, Reader, Readers};

fn subject(caution: Caution, relations: &[&str]) -> Subject {
    let relations = relations.iter().map(|name| Relation::parse(name).unwrap()).collect();
    Subject { relations, fingerprints: Vec::new(), caution }
}

/// `v` is a view over `public.accounts`, `balance` a function that may read it, and `w` one of `likes`.
fn catalog(asked: &Subjects) -> Catalog {
    let reader = |name: &str, of: &str, certain| Reader {
        name: name.to_owned(),
        of: of.to_owned(),
        schema: "public".to_owned(),
        certain,
    };
    let found =
        vec![reader("v", "accounts", true), reader("balance", "accounts", false), reader("w", "likes", true)];
    let readers = Readers { asked: asked.relations().to_vec(), found };
    Catalog::new(CatalogRows { readers, ..CatalogRows::default() }, 1)
}

fn matches(subject: Subject, sql: &str) -> bool {
    let subjects = Subjects::new(vec![subject]);
    subjects.matches(sql.as_bytes(), &catalog(&subjects)) == 1
}

#[test]
fn a_strict_rule_matches_whatever_may_be_meant() {
    for sql in [
        "SELECT * FROM accounts",
        "SELECT * FROM ACCOUNTS a",
        "SELECT * FROM \"accounts\"",
        "SELECT * FROM public.accounts",
        "SELECT * FROM shop.public.accounts",
        "SELECT 1 FROM t JOIN public . accounts USING (id)",
        "TABLE accounts",
        "SELECT * FROM ONLY accounts",
        "SELECT (SELECT max(x) FROM accounts)",
        "WITH a AS (SELECT * FROM accounts) SELECT * FROM a",
        // Not one, but nobody would bet on it.
        "SELECT accounts FROM t",
        "SELECT * FROM v",
        "SELECT balance(1)",
        "SELECT t.balance FROM t",
        "EXPLAIN SELECT * FROM accounts",
        "SELECT 1; SELECT * FROM accounts",
    ] {
        assert!(matches(subject(Caution::Possible, &["public.accounts"]), sql), "{sql}");
    }
    for sql in ["SELECT 1", "SELECT * FROM t", "SELECT 'accounts'", "SELECT \"Accounts\" FROM t"] {
        assert!(!matches(subject(Caution::Possible, &["public.accounts"]), sql), "{sql}");
    }
    assert!(!matches(subject(Caution::Possible, &["public.accounts"]), "SELECT * FROM other.accounts"));
    assert!(matches(subject(Caution::Possible, &["accounts"]), "SELECT * FROM other.accounts"));
}

#[test]
fn a_lax_rule_matches_only_what_is_certainly_read() {
    for sql in [
        "SELECT * FROM accounts",
        "SELECT * FROM t, accounts AS a",
        "SELECT * FROM other.accounts",
        "SELECT * FROM v",
        "WITH accounts AS (SELECT * FROM accounts) SELECT * FROM accounts",
        "WITH a AS (SELECT 1) SELECT * FROM a, accounts",
    ] {
        assert!(matches(subject(Caution::Certain, &["accounts"]), sql), "{sql}");
    }
    for sql in [
        "SELECT accounts FROM t",
        "SELECT t.accounts FROM t",
        "SELECT balance(1)",
        "WITH accounts AS (SELECT 1) SELECT * FROM accounts",
        "WITH RECURSIVE accounts AS (SELECT 1 UNION SELECT * FROM accounts) SELECT * FROM accounts",
        "SELECT * FROM t WHERE EXISTS (WITH accounts AS (SELECT 1) SELECT * FROM accounts)",
        "SELECT * FROM accounts; SELECT * FROM t",
        "SELECT * FROM accounts()",
        "SELECT * FROM \"Accounts\"",
    ] {
        assert!(!matches(subject(Caution::Certain, &["accounts"]), sql), "{sql}");
    }
    // Without a schema it may be another one's.
    assert!(!matches(subject(Caution::Certain, &["public.accounts"]), "SELECT * FROM accounts"));
    assert!(matches(subject(Caution::Certain, &["public.accounts"]), "SELECT * FROM public.accounts"));
}

#[test]
fn only_means_that_nothing_else_is_read() {
    for sql in ["SELECT count(*) FROM likes", "SELECT * FROM likes a JOIN likes b USING (id)"] {
        assert!(matches(subject(Caution::Only, &["likes"]), sql), "{sql}");
    }
    for sql in [
        "SELECT 1",
        "SELECT * FROM likes, accounts",
        "SELECT * FROM likes WHERE id IN (SELECT id FROM accounts)",
        "SELECT own(id) FROM likes",
        // What else a view reads is not known here.
        "SELECT * FROM w",
        "WITH likes AS (SELECT * FROM accounts) SELECT * FROM likes",
        "TABLE likes",
        "SELECT * FROM likes; SELECT * FROM accounts",
        "",
    ] {
        assert!(!matches(subject(Caution::Only, &["likes"]), sql), "{sql}");
    }
}

#[test]
fn what_the_catalog_was_not_asked_about_may_read_anything() {
    let subjects =
        Subjects::new(vec![subject(Caution::Possible, &["accounts"]), subject(Caution::Certain, &["likes"])]);
    let unasked = Catalog::empty();
    assert_eq!(subjects.matches(b"SELECT * FROM some_view", &unasked), 1);
    assert_eq!(subjects.matches(b"SELECT some_function()", &unasked), 1);
    assert_eq!(subjects.matches(b"SELECT * FROM likes", &unasked), 3);
    assert_eq!(subjects.matches(b"SELECT now()", &unasked), 0);
}

#[test]
fn a_fingerprint_is_that_of_explain_and_joins_the_other_conditions() {
    let shape = |sql: &str| shape_of(sql.as_bytes(), &Keys::fixed()).fingerprint;
    let shaped = Subject {
        fingerprints: vec![shape("SELECT * FROM t WHERE id = 1")],
        ..subject(Caution::Certain, &[])
    };
    assert!(matches(shaped.clone(), "select *  from t where id = 42 -- x"));
    assert!(!matches(shaped.clone(), "SELECT * FROM t WHERE id = 1 AND x = 2"));
    let both = Subject { relations: subject(Caution::Certain, &["accounts"]).relations, ..shaped };
    assert!(!matches(both, "SELECT * FROM t WHERE id = 1"));
}

#[test]
fn several_statements_are_as_strict_as_the_strictest() {
    let subjects = Subjects::new(vec![
        subject(Caution::Possible, &["accounts"]),
        subject(Caution::Certain, &["likes"]),
        Subject::default(),
    ]);
    assert_eq!(subjects.open(), 0b100);
    assert_eq!(subjects.together(0b111, 0b100), 0b101);
    assert_eq!(subjects.together(0b110, 0b110), 0b110);
}

#[test]
fn names_are_read_as_in_sql() {
    let named = |schema: Option<&str>, name: &str| {
        Some(Relation { schema: schema.map(str::to_owned), name: name.to_owned() })
    };
    assert_eq!(Relation::parse("Accounts"), named(None, "accounts"));
    assert_eq!(Relation::parse("Ledger . \"Entries\""), named(Some("ledger"), "Entries"));
    assert_eq!(Relation::parse("\"a.b\""), named(None, "a.b"));
    for wrong in ["", "a.b.c", "a b", "a; b", "'a'", "1", "a.", "\"", "a(b)"] {
        assert_eq!(Relation::parse(wrong), None, "{wrong}");
    }
}

proptest::proptest! {
    /// Whatever certainly reads a relation may read it.
    #[test]
    fn what_is_certain_is_possible(words in proptest::collection::vec(0..WORDS.len(), 0..12)) {
        let sql: Vec<&str> = words.iter().map(|&word| WORDS[word]).collect();
        let sql = format!("SELECT * FROM {}", sql.join(" "));
        for name in ["accounts", "public.accounts", "likes"] {
            let possible = matches(subject(Caution::Possible, &[name]), &sql);
            for caution in [Caution::Certain, Caution::Only] {
                assert!(possible || !matches(subject(caution, &[name]), &sql), "{sql}");
            }
        }
    }
}

const WORDS: &[&str] = &[
    "accounts",
    "likes",
    "public",
    ".",
    ",",
    "(",
    ")",
    "SELECT",
    "*",
    "FROM",
    "WITH",
    "AS",
    "JOIN",
    "v",
    "w",
    "ON",
    "true",
    "x",
    ";",
    "\"accounts\"",
    "balance(1)",
    "--\n",
    "WHERE",
    "1",
    "=",
    "LATERAL",
    "UNION",
];
