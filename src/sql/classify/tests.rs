#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::sql::catalog::CatalogRows;

mod hazards;
mod properties;

fn rows(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The catalog and overrides that cases.txt is judged with.
pub(crate) fn example_catalog() -> Catalog {
    let cut = "a_relation_whose_name_is_sixty_three_bytes_long_when_it_is_cut_by_the_server";
    Catalog::new(
        CatalogRows {
            writing_functions: rows(&["audit", "row_audit", "initcap"]),
            safe_functions: rows(&["tax", "Tax"]),
            row_functions: rows(&["row_audit"]),
            primary_only_relations: rows(&["v_audit", "u_log", "a_sequence", &cut[..63]]),
            writing_types: rows(&["checked"]),
            writing_operators: rows(&["<#!>"]),
            async_commit_possible: false,
            momentary_functions: rows(&["tax"]),
            momentary_relations: rows(&["recent"]),
            other_isolation_possible: false,
            readers: crate::sql::catalog::Readers::default(),
        },
        7,
    )
}

fn example_overrides() -> Overrides {
    Overrides::new(&rows(&["app.declared"]), &rows(&["forbidden"]), 1)
}

pub(super) fn class_of(text: &[u8]) -> Class {
    classify(text, &example_catalog(), &example_overrides(), Dialect::STANDARD, &Keys::fixed())
}

pub(super) fn access_of(text: &str) -> Access {
    class_of(text.as_bytes()).access
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('\\') => out.push('\\'),
                other => panic!("unknown escape {other:?} in {text}"),
            },
            (letter, false) => out.push(letter),
        }
    }
    out
}

/// Every golden statement: access, why, SQL.
pub(crate) fn cases() -> Vec<(usize, &'static str, &'static str, String)> {
    let lines = include_str!("../cases.txt").lines().enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with("# "))
        .map(|(number, line)| {
            let mut parts = line.splitn(3, " | ");
            let mut part = || parts.next().unwrap_or_else(|| panic!("line {}: {line}", number + 1));
            (number + 1, part(), part(), unescape(part()))
        })
        .collect()
}

#[test]
fn every_golden_statement_has_its_class() {
    let cases = cases();
    assert!(cases.len() >= 400, "{}", cases.len());
    let mut wrong = String::new();
    for (line, access, why, sql) in &cases {
        let class = class_of(sql.as_bytes());
        if (class.access.as_str(), class.why.as_str()) != (*access, *why) {
            let got = format!("{} | {}", class.access.as_str(), class.why.as_str());
            wrong.push_str(&format!("cases.txt:{line}: {access} | {why} | {sql}\n    got {got}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
