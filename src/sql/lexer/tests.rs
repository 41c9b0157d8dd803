use super::*;

mod differential;
mod reference;

fn kinds(text: &str) -> Vec<(Kind, &str)> {
    Lexer::new(text.as_bytes()).map(|token| (token.kind, &text[token.start..token.end])).collect()
}

fn pieces(text: &str) -> Vec<&str> {
    kinds(text).into_iter().map(|(_, piece)| piece).collect()
}

#[test]
fn strings_of_every_form_are_one_token() {
    for text in [
        "''",
        "'a''b'",
        "'a\\'",
        r"E'a\'b'",
        r"e'\\'",
        "U&'d!0061'",
        "u&'\\'",
        "B'101'",
        "x'1F'",
        "N'a'",
        "$$a'b$$",
        "$t$ $$ $t$",
        "$é$x$é$",
        "'a'\n'b'",
        "'a' -- c\n  'b'",
        "E'a'\n'\\''",
        "'a'\r'b'",
    ] {
        assert_eq!(kinds(text), [(Kind::Text, text)]);
    }
    assert_eq!(pieces("'a' 'b'"), ["'a'", "'b'"]);
    assert_eq!(pieces("'a' /* c\n */ 'b'"), ["'a'", "'b'"]);
}

#[test]
fn what_does_not_end_is_broken() {
    for text in
        ["'", "'a''", r"E'a\'", "\"a", "\"\"", "/* /* */", "$a$ $b$", "$a", "U&\"a\"", "\\", "{", "\u{1}"]
    {
        assert_eq!(kinds(text).last().map(|(kind, _)| *kind), Some(Kind::Broken), "{text}");
    }
}

#[test]
fn words_take_dollars_and_bytes_beyond_ascii() {
    assert_eq!(
        kinds("a$b$ é\u{a0}x _1"),
        [(Kind::Word, "a$b$"), (Kind::Word, "é\u{a0}x"), (Kind::Word, "_1")]
    );
    assert_eq!(kinds("\"a\"\"b\""), [(Kind::Quoted, "\"a\"\"b\"")]);
}

#[test]
fn numbers_and_parameters() {
    for text in ["1", "1.5", ".5", "1.", "1e10", "1e-10", "0x1F", "1_000", "1.5e+3"] {
        assert_eq!(kinds(text), [(Kind::Number, text)]);
    }
    assert_eq!(pieces("1..10"), ["1", "..", "10"]);
    assert_eq!(pieces("0xe-1"), ["0xe", "-", "1"]);
    assert_eq!(kinds("$1$2"), [(Kind::Param, "$1"), (Kind::Param, "$2")]);
}

#[test]
fn operators_end_where_postgresql_ends_them() {
    assert_eq!(pieces("a=-1"), ["a", "=", "-", "1"]);
    assert_eq!(pieces("a@-1"), ["a", "@-", "1"]);
    assert_eq!(pieces("a<>b"), ["a", "<>", "b"]);
    assert_eq!(pieces("a+--c\nb"), ["a", "+", "b"]);
    assert_eq!(pieces("a*/* c */b"), ["a", "*", "b"]);
    assert_eq!(pieces("a::b:=c=>d"), ["a", "::", "b", ":=", "c", "=>", "d"]);
}

#[test]
fn comments_end_at_either_line_end_and_nest() {
    assert_eq!(pieces("a -- b\rc"), ["a", "c"]);
    assert_eq!(pieces("a -- b\nc"), ["a", "c"]);
    assert_eq!(pieces("a /* /* */ */ b"), ["a", "b"]);
    assert_eq!(pieces("a /*/ b */ c"), ["a", "c"]);
}

#[test]
fn lists_of_literals_have_one_shape_from_two_on() {
    let shape = |text: &str| shape_of(text.as_bytes(), &Keys::fixed()).fingerprint;
    assert_eq!(shape("a IN (1, 2)"), shape("a IN ('x', $1, 3, 4)"));
    assert_ne!(shape("a IN (1)"), shape("a IN (1, 2)"));
    assert_ne!(shape("a IN (1, b)"), shape("a IN (1 b)"));
    assert_ne!(shape("a IN (1, b)"), shape("a IN (1, 2, b)"));
    assert_ne!(shape("SELECT 1,"), shape("SELECT 1"));
}

#[test]
fn the_fingerprint_depends_on_the_key_and_is_stable_without_one() {
    let text = b"SELECT 1";
    let of = |keys: Keys| shape_of(text, &keys).fingerprint;
    assert_eq!(of(Keys::fixed()), of(Keys::fixed()));
    assert_ne!(of(Keys::from_seed([1, 2])), of(Keys::from_seed([2, 1])));
    assert_eq!(of(Keys::fixed()).to_string().len(), 32);
}

#[test]
fn marks_end_what_stands_before_them() {
    let shape = |text: &str| shape_of(text.as_bytes(), &Keys::fixed()).fingerprint;
    let different = [
        "ab",
        "a b",
        "\"a\"\"b\"",
        "\"a\" \"b\"",
        "\"a\"b",
        "a\"b\"",
        "a . b",
        "a .. b",
        "a . . b",
        "a = > b",
        "a => b",
        "a : : b",
        "a :: b",
        "a := b",
        "a : = b",
        "a 1",
        "a 1, 2",
        "a 1 2",
        "a (1)",
        "a_b",
        "a$b",
        "a\u{e9}b",
        "A\u{c9}B",
        "\"a\u{1}b\"",
        "\"A\"",
        "\"a\"",
        "'a'",
        "/* pgweir.a */",
        "/* pgweir.a ",
        "-- pgweir.a ",
        "'pgweir.a",
        "\u{1}",
    ];
    for (at, one) in different.iter().enumerate() {
        for other in &different[at + 1..] {
            assert_ne!(shape(one), shape(other), "{one} and {other}");
        }
    }
}

#[test]
fn shapes_longer_than_a_block_count_to_their_last_byte() {
    let shape = |text: &str| shape_of(text.as_bytes(), &Keys::fixed()).fingerprint;
    for length in (1..40).chain(240..280).chain(500..530) {
        for (open, close) in [("", ""), ("\"", "\""), ("a+", ""), ("/*pgweir.", "*/")] {
            let text = |last: char| format!("{open}{}{last}{close}", "x".repeat(length));
            assert_ne!(shape(&text('y')), shape(&text('z')), "{open} {length}");
            assert_ne!(
                shape(&text('x')),
                shape(&format!("{open}{}{close}", "x".repeat(length))),
                "{open} {length}"
            );
        }
    }
}

#[test]
fn every_sign_of_a_run_is_an_operator_and_is_looked_at_once() {
    assert_eq!(pieces("a++-+b"), ["a", "+", "+", "-", "+", "b"]);
    assert_eq!(pieces("a=+-+b+-@-"), ["a", "=", "+", "-", "+", "b", "+-@-"]);
    assert_eq!(pieces("*++--c\n+-/* */-+*"), ["*", "+", "+", "+", "-", "-+*"]);
    // Quadratic, this would take half an hour.
    let signs = vec![b'+'; 1_000_000];
    assert_eq!(Lexer::new(&signs).count(), signs.len());
}
