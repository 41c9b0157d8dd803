#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::sql::catalog::CatalogRows;
use crate::sql::class::Access;

fn scope<'a>(catalog: &'a Catalog, overrides: &'a Overrides) -> Scope<'a> {
    Scope { database: 1, catalog, overrides, dialect: Dialect::STANDARD }
}

fn classifier() -> (Classifier, LocalCache) {
    (Classifier::new(Keys::from_seed([3, 4]), 64, 64), LocalCache::new(16))
}

#[test]
fn the_same_text_is_answered_by_the_thread_and_the_same_shape_by_the_process() {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    let (classifier, mut local) = classifier();
    let scope = scope(&catalog, &overrides);
    let first = classifier.class_of(&mut local, &scope, b"SELECT a FROM t WHERE b = 1");
    assert_eq!(first, classifier.class_of(&mut local, &scope, b"SELECT a FROM t WHERE b = 1"));
    assert_eq!(first, classifier.class_of(&mut local, &scope, b"SELECT a FROM t WHERE b = 23"));
    assert_eq!(local.hits(), 2);
    assert_eq!(first, classifier.class_of(&mut local, &scope, b"select a FROM t WHERE b = 1"));
    assert_eq!(local.hits(), 2);
    assert_eq!(classifier.counts(), CacheCounts { shared_hits: 1, misses: 1, learnt: 0 });
}

#[test]
fn what_has_no_template_is_found_by_its_exact_text() {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    let (classifier, mut local) = classifier();
    let scope = scope(&catalog, &overrides);
    let text = format!("SELECT {}", vec!["a, 1"; 100].join(" + "));
    let first = classifier.class_of(&mut local, &scope, text.as_bytes());
    assert_eq!(first, classifier.class_of(&mut local, &scope, text.as_bytes()));
    assert_eq!(local.hits(), 1);
}

#[test]
fn a_new_catalog_is_a_new_answer() {
    let overrides = Overrides::default();
    let (classifier, mut local) = classifier();
    let empty = Catalog::empty();
    assert_eq!(classifier.class_of(&mut local, &scope(&empty, &overrides), b"TABLE v").access, Access::Read);
    let rows = CatalogRows { primary_only_relations: vec!["v".into()], ..CatalogRows::default() };
    let newer = Catalog::new(rows, 1);
    assert_eq!(classifier.class_of(&mut local, &scope(&newer, &overrides), b"TABLE v").access, Access::Write);
    assert_eq!(classifier.class_of(&mut local, &scope(&empty, &overrides), b"TABLE v").access, Access::Read);
}

#[test]
fn databases_and_dialects_do_not_share_answers() {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    let (classifier, mut local) = classifier();
    let mut scope = scope(&catalog, &overrides);
    let text = br"SELECT 'a\'";
    assert_eq!(classifier.class_of(&mut local, &scope, text).access, Access::Read);
    scope.dialect.standard_conforming_strings = false;
    assert_eq!(classifier.class_of(&mut local, &scope, text).access, Access::Unknown);
    // The same shape without a backslash: what was not certain was not kept.
    assert_eq!(classifier.class_of(&mut local, &scope, b"SELECT 'a'").access, Access::Read);
}

#[test]
fn a_setting_s_name_is_not_lost_in_the_shape() {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    let (classifier, mut local) = classifier();
    let scope = scope(&catalog, &overrides);
    let mut ask = |text: &str| classifier.class_of(&mut local, &scope, text.as_bytes()).access;
    assert_eq!(ask("SELECT current_setting('timezone')"), Access::Read);
    assert_eq!(ask("SELECT current_setting('in_hot_standby')"), Access::Write);
    assert_eq!(ask("SELECT \"current_setting\"/* c */('in_hot_standby')"), Access::Write);
    assert_eq!(ask("SELECT \"current_setting\" ('timezone')"), Access::Read);
}

#[test]
fn the_caches_are_bounded() {
    let (catalog, overrides) = (Catalog::empty(), Overrides::default());
    let (classifier, mut local) = classifier();
    let scope = scope(&catalog, &overrides);
    for n in 0..1_000 {
        classifier.class_of(&mut local, &scope, format!("SELECT a{n} FROM t").as_bytes());
        classifier.learn(Fingerprint(n), 1);
    }
    assert!(classifier.shapes() <= 64, "{}", classifier.shapes());
    assert_eq!(classifier.learnt.len(), 64);
}

#[test]
fn what_was_learnt_holds_for_its_database() {
    let (classifier, _) = classifier();
    let shape = Fingerprint(0x1234_5678_9abc_def0_1122_3344_5566_7788);
    assert!(!classifier.is_learnt(shape, 1));
    classifier.learn(shape, 1);
    classifier.learn(shape, 1);
    assert!(classifier.is_learnt(shape, 1));
    assert!(!classifier.is_learnt(shape, 2));
    assert!(!classifier.is_learnt(Fingerprint(0), 0));
    assert_eq!(classifier.counts().learnt, 1);
}
