//! Properties over random bytes and over the golden statements.

use super::*;
use proptest::prelude::*;

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("SELECT ".to_owned()),
        Just(" FROM ".to_owned()),
        Just("'".to_owned()),
        Just("\"".to_owned()),
        Just("$$".to_owned()),
        Just("/*".to_owned()),
        Just("*/".to_owned()),
        Just("--".to_owned()),
        Just("\n".to_owned()),
        Just(";".to_owned()),
        Just("(".to_owned()),
        Just(")".to_owned()),
        Just("E'\\'".to_owned()),
        Just("U&'".to_owned()),
        Just(" EXPLAIN ( ".to_owned()),
        Just(" COPY ".to_owned()),
        Just("CREATE BEGIN ATOMIC ".to_owned()),
        Just(" END ".to_owned()),
        Just("SET pgweir.".to_owned()),
        Just("set_config(".to_owned()),
        "[a-z0-9é$.,:=<>+-]{0,6}",
    ]
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        class_of(&bytes);
        crate::sql::effects::effects_of(&bytes, Dialect::STANDARD);
        crate::sql::effects::hints_of(&bytes);
    }

    #[test]
    fn random_pieces_of_sql_never_panic(pieces in proptest::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        class_of(text.as_bytes());
        crate::sql::effects::effects_of(text.as_bytes(), Dialect::STANDARD);
    }

    #[test]
    fn tokens_are_in_order_and_inside_the_text(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut at = 0;
        for token in crate::sql::lexer::Lexer::new(&bytes) {
            prop_assert!(at <= token.start && token.start < token.end && token.end <= bytes.len());
            at = token.end;
        }
    }

    #[test]
    fn blanks_comments_and_literals_keep_the_fingerprint(
        a in 0..1_000_000u32,
        text in "[a-z ';]{0,12}",
        blank in prop_oneof![Just(" "), Just("\n\t"), Just(" /* ; ' \" */ "), Just(" -- '\n"), Just("/**/")],
        tag in "[a-z]{0,3}",
    ) {
        let quoted = text.replace('\'', "''");
        let base = class_of(b"SELECT a FROM t WHERE b = 1 AND c = 'x' LIMIT $1");
        let same = [
            format!("select{blank}A from{blank}T where b = {a} and c = '{quoted}' limit $2"),
            format!("SELECT a FROM t WHERE b = {a}{blank}AND c = ${tag}${}${tag}${blank}LIMIT $1;", text.replace(['$', ';'], "")),
        ];
        prop_assert_eq!(base.fingerprint, class_of(same[0].as_bytes()).fingerprint);
        let cut = same[1].trim_end_matches(';');
        prop_assert_eq!(base.fingerprint, class_of(cut.as_bytes()).fingerprint);
    }

    #[test]
    fn a_write_after_any_read_is_never_a_read(
        index in any::<prop::sample::Index>(),
        write in prop_oneof![
            Just("DELETE FROM t"), Just("INSERT INTO t VALUES (1)"), Just("UPDATE t SET a = 1"), Just("DROP TABLE t"),
            Just("SELECT nextval('s')"), Just("SELECT 1 FOR UPDATE"), Just("TRUNCATE t"), Just("COMMIT"),
        ],
        blank in prop_oneof![Just(""), Just(" "), Just("\n"), Just("/* x */")],
    ) {
        let cases = cases();
        let (line, _, _, sql) = index.get(&cases);
        let text = format!("{sql}\n;{blank}{write}{blank}");
        let class = class_of(text.as_bytes());
        prop_assert_ne!(class.access, Access::Read, "cases.txt:{} {}", line, text);
    }

    #[test]
    fn cutting_a_golden_write_anywhere_never_panics(index in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let cases = cases();
        let (_, _, _, sql) = index.get(&cases);
        if !sql.is_empty() {
            class_of(&sql.as_bytes()[..at.index(sql.len())]);
        }
    }
}

#[test]
fn blanks_between_all_tokens_change_neither_class_nor_fingerprint() {
    for (line, _, _, sql) in cases() {
        if sql.contains("pgweir.") {
            continue;
        }
        let mut spread = Vec::new();
        for token in crate::sql::lexer::Lexer::new(sql.as_bytes()) {
            spread.extend_from_slice(token.bytes(sql.as_bytes()));
            spread.extend_from_slice(b" /* it's; */ ");
        }
        let (before, after) = (class_of(sql.as_bytes()), class_of(&spread));
        let broken = before.why == Why::Unparsable;
        assert!(broken || before == after, "cases.txt:{line}: {sql}\n{before:?}\n{after:?}");
    }
}

#[test]
fn one_fingerprint_means_one_class() {
    let mut seen: std::collections::HashMap<u128, (Class, String)> = std::collections::HashMap::new();
    for (line, _, _, sql) in cases() {
        let class = class_of(sql.as_bytes());
        if class.why == Why::Unparsable {
            continue;
        }
        if let Some((other, text)) = seen.insert(class.fingerprint.0, (class, sql.clone())) {
            assert_eq!(class, other, "cases.txt:{line}: {sql}\nand {text}");
        }
    }
}
