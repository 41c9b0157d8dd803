#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn rule(number: usize) -> Rule {
    Rule {
        origin: Origin::Rule(number, number),
        user: None,
        database: None,
        application_name: None,
        comment: Vec::new(),
        matches: String::new(),
        effect: Effect::default(),
    }
}

fn who<'a>(user: &'a str, application_name: &'a str) -> Who<'a> {
    Who { user, database: "shop", application_name }
}

#[test]
fn a_star_stands_for_any_run_of_characters() {
    for (pattern, text) in [
        ("cron", "cron"),
        ("cron*", "cron"),
        ("cron*", "cron: nightly"),
        ("*", ""),
        ("**", "x"),
        ("*job", "nightly job"),
        ("a*b*c", "a-b-b-c"),
        ("a*a", "aa"),
        ("", ""),
        ("*ä*", "xäy"),
    ] {
        assert!(Pattern::new(pattern).matches(text), "{pattern} {text}");
    }
    for (pattern, text) in
        [("cron", "cron1"), ("cron*", "acron"), ("a*a", "a"), ("a*b*c", "acb"), ("", "x"), ("*a", "ab")]
    {
        assert!(!Pattern::new(pattern).matches(text), "{pattern} {text}");
    }
}

#[test]
fn the_first_rule_that_matches_counts() {
    let pattern = |text: &str| Some(Pattern::new(text));
    let rules = Rules::new(vec![
        Rule { user: pattern("reporting"), application_name: pattern("cron*"), ..rule(1) },
        Rule { user: pattern("reporting"), ..rule(2) },
        Rule { comment: vec![("controller".to_owned(), Pattern::new("reports"))], ..rule(3) },
        rule(4),
    ]);
    let first = |who: Who<'_>, tags: &[(&str, &str)]| {
        let tags = || tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        rules.first(rules.of_session(&who), tags).unwrap().origin
    };
    assert_eq!(first(who("reporting", "cron 1"), &[]), Origin::Rule(1, 1));
    assert_eq!(first(who("reporting", "psql"), &[("controller", "reports")]), Origin::Rule(2, 2));
    assert_eq!(first(who("app", "cron 1"), &[("a", "b"), ("controller", "reports")]), Origin::Rule(3, 3));
    assert_eq!(first(who("app", "cron 1"), &[("controller", "others")]), Origin::Rule(4, 4));
    assert!(rules.first(0, Vec::new).is_none());
}

#[test]
fn comments_are_read_only_where_a_rule_asks_for_them() {
    let tagged = Rule { comment: vec![("a".to_owned(), Pattern::new("b"))], ..rule(1) };
    let rules = Rules::new(vec![rule(1), tagged]);
    let unread = || -> Vec<(String, String)> { unreachable!("nobody asked for tags") };
    assert!(rules.first(0b01, unread).is_some());
    assert!(rules.first(0b11, unread).is_some());
    assert!(rules.first(0b10, Vec::new).is_none());
}

proptest! {
    /// As a regular expression would have it, written out naively.
    #[test]
    fn patterns_match_as_their_definition_says(pattern in "[ab*]{0,6}", text in "[ab]{0,6}") {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
                Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
            }
        }
        prop_assert_eq!(Pattern::new(&*pattern).matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
    }

    /// The lowest of the candidates that the session may meet.
    #[test]
    fn the_lowest_bit_is_the_first_rule(candidates: u64) {
        let rules = Rules::new((1..=64).map(rule).collect());
        prop_assert_eq!(rules.of_session(&who("u", "a")), u64::MAX);
        let found = rules.first(candidates, Vec::new).map(|rule| rule.origin);
        let expected = (candidates != 0).then(|| candidates.trailing_zeros() as usize + 1);
        prop_assert_eq!(found, expected.map(|number| Origin::Rule(number, number)));
    }
}
