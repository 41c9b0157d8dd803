//! The fast lexer reads the tokens that the plain one reads, and two texts have one fingerprint exactly if they have one
//! shape.

use super::reference;
use crate::sql::lexer::{Keys, Kind, Lexer, Token, shape_of};
use proptest::prelude::*;

/// A piece of a text, and others of the same shape.
fn piece() -> impl Strategy<Value = Vec<String>> {
    let fixed = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let blanks = fixed(&[
        " ",
        "  ",
        "\n",
        "\r\n        \t ",
        "/**/",
        " /* it's \" */ ",
        "-- '\n",
        "\u{b}\u{c}",
        "                       ",
    ]);
    let literals = fixed(&[
        "1",
        "'a'",
        "1.5e-3",
        "'it''s'",
        "$1",
        "$$a'\"$$",
        "$x$ $$ $x$",
        "E'\\''",
        "U&'a'",
        "'a'\n  'b'",
        "0x1F",
        "'a long, long string of more than twenty-four bytes'",
    ]);
    prop_oneof![
        4 => "[A-Za-z_é][A-Za-z0-9_é$]{0,20}".prop_map(|word| vec![word.to_ascii_uppercase(), word.to_ascii_lowercase(), word]),
        2 => Just(fixed(&["SET_CONFIG", "set_config"])),
        1 => Just(fixed(&["\"set_config\"", "\"SET_CONFIG\""])),
        1 => Just(fixed(&["Current_Setting", "current_setting"])),
        4 => "\"[A-Za-z0-9_é ]{1,20}\"".prop_map(|name| vec![name]),
        1 => "\"[a\u{1}]{0,9}(\"\")?[a'.]{0,9}\"".prop_map(|name| vec![name]),
        8 => Just(blanks),
        8 => Just(literals),
        8 => "[(),;.\\[\\]]".prop_map(|mark| vec![mark]),
        2 => "[=<>*+/@#:.-]{1,4}".prop_map(|operator| vec![operator]),
        1 => "/\\* pgweir\\.[a-z]{1,9} \\*/".prop_map(|hint| vec![hint]),
        1 => prop::sample::select(fixed(&["'", "\"", "/*", "--", "$", "$a$", "E'", "u&\"", "\\", "\u{7f}", "\u{1}", "\0"])).prop_map(|text| vec![text]),
    ]
}

/// Texts that have mostly one shape, but not always.
fn texts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let choice = any::<prop::sample::Index>;
    (
        proptest::collection::vec((piece(), choice(), choice(), choice()), 0..30),
        proptest::collection::vec((choice(), choice(), any::<u8>()), 2),
    )
        .prop_map(|(pieces, changes)| {
            let render = |which: usize| -> Vec<u8> {
                let texts = pieces.iter().map(|(piece, one, two, three)| [one, two, three][which].get(piece));
                texts.map(String::as_str).collect::<String>().into_bytes()
            };
            let mut texts: Vec<Vec<u8>> = (0..3).map(render).collect();
            for (text, at, byte) in changes {
                let mut text = text.get(&texts).clone();
                if !text.is_empty() {
                    let at = at.index(text.len());
                    text[at] = byte;
                    texts.push(text);
                }
            }
            texts
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn the_tokens_are_those_of_the_plain_lexer(texts in texts()) {
        for text in texts {
            let plain: Vec<Token> = reference::Lexer::new(&text).collect();
            let fast: Vec<Token> = Lexer::new(&text).collect();
            prop_assert_eq!(fast, plain, "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn any_bytes_give_the_tokens_of_the_plain_lexer(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let plain: Vec<Token> = reference::Lexer::new(&bytes).collect();
        prop_assert_eq!(Lexer::new(&bytes).collect::<Vec<Token>>(), plain);
    }

    #[test]
    fn one_shape_is_one_fingerprint_and_two_are_two(texts in texts()) {
        for text in &texts {
            let broken = reference::Lexer::new(text).any(|token| token.kind == Kind::Broken);
            prop_assert_eq!(shape_of(text, &Keys::fixed()).broken, broken);
        }
        let shapes: Vec<_> = texts.iter().map(|text| (reference::shape(text), shape_of(text, &Keys::fixed()))).collect();
        for (at, (plain, fast)) in shapes.iter().enumerate() {
            for (other, (other_plain, other_fast)) in shapes.iter().enumerate().skip(at + 1) {
                prop_assert_eq!(
                    plain == other_plain,
                    fast.fingerprint == other_fast.fingerprint,
                    "{} and {}", String::from_utf8_lossy(&texts[at]), String::from_utf8_lossy(&texts[other])
                );
            }
        }
    }
}
