#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::sql::cache::{Classifier, LocalCache, Scope};
use crate::sql::catalog::{Catalog, Overrides};
use crate::sql::lexer::{Dialect, Keys, shape_of};
use proptest::prelude::*;

fn template(text: &str) -> Template {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    let scope = Scope { database: 1, catalog: &catalog, overrides: &overrides, dialect: Dialect::STANDARD };
    let class =
        Classifier::new(Keys::fixed(), 8, 8).class_of(&mut LocalCache::new(1), &scope, text.as_bytes());
    let mut template = Template { text: Vec::new(), holes: Vec::new(), scope: scope.key(), class };
    assert!(template.learn(text.as_bytes()));
    template
}

fn fits(known: &str, text: &str) -> bool {
    let alike = beginning(known.as_bytes()) == beginning(text.as_bytes());
    let fits = template(known).matches(text.as_bytes());
    assert!(alike || !fits, "{known} and {text} begin differently");
    fits
}

#[test]
fn texts_that_differ_in_integers_and_plain_strings_fit() {
    let known = "SELECT a, \"b 1\" FROM t1 WHERE c = 42 AND d IN ('x', 'y') -- 7\n AND e = '' LIMIT 10";
    for (from, to) in [("42", "7"), ("42", "12345678901234567890"), ("'x'", "'--'"), ("''", "'a\"$$\\ b'")] {
        assert!(fits(known, &known.replace(from, to)), "{from} -> {to}");
    }
    assert!(fits("SELECT 1..2", "SELECT 10..20"));
}

#[test]
fn whatever_else_differs_does_not_fit() {
    let known = "SELECT a, \"b 1\" FROM t1 WHERE c = 42 AND d IN ('x', 'y') -- 7\n AND e = '' LIMIT 10";
    for (from, to) in [
        ("\"b 1\"", "\"b 2\""),
        ("t1", "t2"),
        ("SELECT", "select"),
        ("42", "4.2"),
        ("42", "42a"),
        ("42", ""),
        ("42", "-42"),
        ("42", "'42'"),
        ("42", "$1"),
        ("'x'", "'x''y'"),
        ("'x'", "E'x'"),
        ("'x'", "'x' 'y'"),
        ("'x'", "'x"),
        ("'x'", "1"),
        ("-- 7", "-- 8"),
        ("LIMIT 10", "LIMIT 10 FOR UPDATE"),
        ("LIMIT 10", "LIMIT "),
        (" LIMIT 10", ""),
    ] {
        assert!(!fits(known, &known.replace(from, to)), "{from} -> {to}");
    }
}

#[test]
fn literals_that_are_not_plain_are_compared_as_they_are() {
    for (known, other) in [
        ("SELECT 1.5", "SELECT 2.5"),
        ("SELECT 1e5", "SELECT 2e5"),
        ("SELECT 0x1F", "SELECT 0x2F"),
        ("SELECT E'a'", "SELECT E'b'"),
        ("SELECT 'a''b'", "SELECT 'c''d'"),
        ("SELECT 'a'\n'b'", "SELECT 'c'\n'b'"),
        ("SELECT $$a$$", "SELECT $$b$$"),
        ("SELECT $1", "SELECT $2"),
        ("SELECT current_setting('a')", "SELECT current_setting('b')"),
        ("SELECT set_config /* 1 */ ('a', '1', true)", "SELECT set_config /* 1 */ ('b', '1', true)"),
    ] {
        assert!(fits(known, known));
        assert!(!fits(known, other), "{known} and {other}");
    }
    assert!(fits("SELECT set_config('a', '1', true)", "SELECT set_config('a', '2', true)"));
}

#[test]
fn digits_of_words_part_beginnings_and_those_of_literals_do_not() {
    let begin = |text: &str| beginning(text.as_bytes());
    assert_ne!(begin("select u1_0.id from users u1_0 where u1_0.id=1"), begin("select u1_0.name from users"));
    assert_ne!(begin("SELECT c FROM sbtest1 WHERE id=1"), begin("SELECT c FROM sbtest2 WHERE id=1"));
    assert_eq!(begin("SELECT c FROM sbtest1 WHERE id=1"), begin("SELECT c FROM sbtest1 WHERE id=22 AND x"));
    assert_eq!(begin("SELECT 'a1', b"), begin("SELECT 'c'"));
    let long = "x".repeat(PREFIX);
    assert_eq!(begin(&format!("{long}y")), begin(&long));
}

#[test]
fn a_bucket_is_bounded_and_keeps_what_is_asked_for() {
    let mut templates = Templates::new(1);
    let known = template("SELECT 1");
    let kept = |templates: &Templates| templates.buckets[0].len();
    templates.keep(b"SELECT often FROM t WHERE a = 1", known.scope, known.class);
    for n in 0..1000 {
        let text = format!("SELECT a{n} FROM t WHERE b = {n}");
        assert!(templates.find(text.as_bytes(), &known.scope).is_none());
        let kept = templates.keep(text.as_bytes(), known.scope, known.class);
        assert_eq!(kept, n < WAYS - 1 || templates.refused.is_multiple_of(REPLACE_EVERY));
        assert!(
            templates.find(format!("SELECT often FROM t WHERE a = {n}").as_bytes(), &known.scope).is_some()
        );
    }
    assert_eq!(kept(&templates), WAYS);
    assert!(!templates.keep(&[b' '; TEXT_MAX_BYTES + 1], known.scope, known.class));
    assert!(templates.find(&[b' '; TEXT_MAX_BYTES + 1], &known.scope).is_none());
    let many = format!("SELECT {}", "1,".repeat(HOLES_MAX + 1));
    let mut template = known;
    assert!(!template.learn(many.as_bytes()));
}

#[test]
fn a_template_belongs_to_what_was_known_of_the_database() {
    let overrides = Overrides::default();
    let scope =
        |catalog| Scope { database: 1, catalog, overrides: &overrides, dialect: Dialect::STANDARD }.key();
    let (old, new) = (Catalog::empty(), Catalog::new(Default::default(), 1));
    let known = template("SELECT 1");
    let mut templates = Templates::new(1);
    templates.keep(b"SELECT 1", scope(&old), known.class);
    assert!(templates.find(b"SELECT 2", &scope(&old)).is_some());
    assert!(templates.find(b"SELECT 2", &scope(&new)).is_none());
}

/// Pieces of statements that meet in all ways: what the lexer could take for something else.
const PIECES: [&str; 40] = [
    "SELECT",
    " ",
    "\n",
    "1",
    "42",
    "0",
    ".",
    "..",
    "e",
    "E",
    "x",
    "_",
    "'",
    "''",
    "'a'",
    "'b c'",
    "E'",
    "U&'",
    "N'",
    "\"",
    "\"a1\"",
    "$",
    "$1",
    "$$",
    "$a$",
    "--",
    "-- 1\n",
    "/*",
    "*/",
    "/* pgweir.route=primary */",
    "-",
    "+",
    "*",
    "(",
    ")",
    ",",
    "::",
    "current_setting",
    "\\",
    "é",
];

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    /// The rule that all depends on: what fits reads as the same tokens, of one shape.
    #[test]
    fn what_fits_has_the_same_shape(known in text(), number in "[0-9]{1,3}", string in "[ -~é]{0,5}", cut in any::<prop::sample::Index>()) {
        let keys = Keys::fixed();
        let shape = shape_of(known.as_bytes(), &keys);
        if shape.broken {
            return Ok(());
        }
        let template = template(&known);
        prop_assert!(template.matches(known.as_bytes()));
        // Literals are exchanged for others where the template has holes, and one of them anywhere.
        let mut holes = known.clone();
        for hole in template.holes.iter().rev() {
            let new = if hole.is_string { format!("'{}'", string.replace('\'', "")) } else { number.clone() };
            holes.replace_range(hole.start..hole.end, &new);
        }
        prop_assert!(template.matches(holes.as_bytes()), "{known:?} {holes:?}");
        let mut anywhere = known.clone();
        let mut at = cut.index(known.len() + 1);
        while !anywhere.is_char_boundary(at) { at -= 1; }
        anywhere.insert_str(at, if cut.index(2) == 0 { &number } else { &string });
        for other in [holes, anywhere] {
            if template.matches(other.as_bytes()) {
                let found = shape_of(other.as_bytes(), &keys);
                prop_assert_eq!(found, shape, "{:?} {:?}", known, other);
                prop_assert_eq!(beginning(known.as_bytes()), beginning(other.as_bytes()));
                let kinds = |text: &str| Lexer::new(text.as_bytes()).map(|token| token.kind).collect::<Vec<_>>();
                prop_assert_eq!(kinds(&known), kinds(&other));
            }
        }
    }
}
