//! Each way in which a parser, a stack or a text was found to mislead.

use super::*;

fn on_small_stack(text: String) -> Class {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    thread.spawn(move || class_of(text.as_bytes())).unwrap().join().unwrap()
}

#[test]
fn a_sum_of_forty_thousand_terms_does_not_overflow_a_small_stack() {
    let sum = format!("SELECT 1{}", "+1".repeat(40_000));
    let class = on_small_stack(sum);
    assert_eq!((class.access, class.why), (Access::Unknown, Why::TooLarge));
}

#[test]
fn the_longest_sum_that_is_parsed_does_not_overflow_a_small_stack() {
    for (shape, why) in [("+a", Why::PlainRead), ("::a", Why::PlainRead), (" is null", Why::PlainRead)] {
        let terms =
            7_900 / if shape.starts_with(' ') { 2 } else { shape.len() - shape.matches("::").count() };
        let class = on_small_stack(format!("SELECT a{}", shape.repeat(terms.min(3_900))));
        assert_eq!(class.why, why, "{shape}");
    }
    let union = on_small_stack(format!("SELECT 1{}", " UNION SELECT a".repeat(2_600)));
    assert_eq!(union.why, Why::PlainRead);
}

#[test]
fn deep_nesting_ends_quickly_and_quietly() {
    for (open, close) in [("(", ")"), ("f(", ")"), ("(SELECT ", ")"), ("CASE WHEN ", " END"), ("ARRAY[", "]")]
    {
        for depth in [30, 200, 1_000, 100_000] {
            let text = format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth));
            let class = on_small_stack(text);
            assert!(depth <= 30 || class.access == Access::Unknown, "{open} {depth}");
        }
    }
    let open_only = on_small_stack(format!("SELECT {}", "(".repeat(100_000)));
    assert_eq!(open_only.access, Access::Unknown);
}

#[test]
fn plausible_nesting_is_understood() {
    let nested = format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(20), ") x".repeat(20));
    assert_eq!(access_of(&nested), Access::Read);
}

#[test]
fn a_ten_megabyte_literal_is_one_token() {
    let text = format!("SELECT '{}'", "x".repeat(10 << 20));
    assert_eq!(access_of(&text), Access::Read);
    let open = format!("SELECT '{}", "x".repeat(10 << 20));
    assert_eq!(access_of(&open), Access::Unknown);
}

#[test]
fn a_list_of_a_hundred_thousand_ids_is_still_a_read() {
    let text = format!("SELECT * FROM t WHERE id IN (1{})", ", 2".repeat(100_000));
    assert_eq!(access_of(&text), Access::Read);
    let hidden = format!("SELECT * FROM t WHERE id IN (1{}, nextval('s'))", ", 2".repeat(100_000));
    assert_eq!(access_of(&hidden), Access::Write);
}

#[test]
fn a_large_text_that_cannot_be_parsed_still_has_its_marks() {
    let text = format!("SELECT {}pg_advisory_lock(1)", "a, ".repeat(10_000));
    let class = class_of(text.as_bytes());
    assert_ne!(class.access, Access::Read);
    assert!(class.marks.contains(Marks::SESSION_EFFECT));
    let plain = class_of(format!("SELECT {}a", "a, ".repeat(10_000)).as_bytes());
    assert!(plain.why == Why::TooLarge && !plain.marks.contains(Marks::SESSION_EFFECT));
}

#[test]
fn what_follows_copy_from_stdin_is_a_statement_of_its_own() {
    let class = class_of(b"COPY t FROM STDIN; BEGIN");
    assert!(class.marks.contains(Marks::MULTI_STATEMENT.with(Marks::COPY).with(Marks::TRANSACTION_CONTROL)));
    assert_eq!(class_of(b"COPY t TO STDOUT; DELETE FROM t").access, Access::Write);
}

#[test]
fn bytes_that_are_no_utf8_are_not_understood_outside_of_literals() {
    assert_eq!(class_of(b"SELECT caf\xe9 FROM t").access, Access::Unknown);
    assert_eq!(class_of(b"SELECT 'caf\xe9' FROM t").access, Access::Read);
    assert_eq!(class_of(b"SELECT 1 /* \xff */").access, Access::Read);
    assert_eq!(class_of(b"DELETE FROM t WHERE a = '\xe9'").access, Access::Write);
}

#[test]
fn a_nul_byte_is_not_understood() {
    assert_eq!(class_of(b"SELECT 1\0; DELETE FROM t").access, Access::Unknown);
}

#[test]
fn capitals_beyond_ascii_are_not_folded() {
    assert_ne!(class_of("SELECT É".as_bytes()).fingerprint, class_of("SELECT é".as_bytes()).fingerprint);
}

#[test]
fn strings_that_the_session_may_read_otherwise_mean_primary() {
    let judge = |text: &[u8], dialect| {
        classify(text, &Catalog::empty(), &Overrides::default(), dialect, &Keys::fixed())
    };
    let loose = Dialect { standard_conforming_strings: false, safe_encoding: true };
    let text = br"SELECT 'a\'; DELETE FROM t; --'";
    assert_eq!(judge(text, loose).why, Why::UnsafeEncoding);
    assert_eq!(judge(b"SELECT 'a'", loose).access, Access::Read);
    let sjis = Dialect { standard_conforming_strings: true, safe_encoding: false };
    assert_eq!(judge(b"SELECT '\x95\x5c'", sjis).why, Why::UnsafeEncoding);
    assert_eq!(judge(b"SELECT 'a'", sjis).access, Access::Read);
}

#[test]
fn before_the_catalog_is_read_only_built_in_names_read() {
    let judge = |text: &str| {
        let catalog = Catalog::not_loaded();
        let class =
            classify(text.as_bytes(), &catalog, &Overrides::default(), Dialect::STANDARD, &Keys::fixed());
        (class.access, class.why)
    };
    let not_loaded = (Access::Unknown, Why::CatalogNotLoaded);
    assert_eq!(judge("SELECT * FROM t"), not_loaded);
    assert_eq!(judge("SELECT app.f()"), not_loaded);
    assert_eq!(judge("SELECT f()"), not_loaded);
    assert_eq!(judge("TABLE t"), not_loaded);
    assert_eq!(judge("COPY t TO STDOUT"), not_loaded);
    assert_eq!(judge("SELECT * FROM ONLY t"), not_loaded);
    assert_eq!(judge("SELECT lower('x'), now()").0, Access::Read);
    assert_eq!(judge("SELECT relname FROM pg_catalog.pg_class").0, Access::Read);
    assert_eq!(judge("SELECT * FROM pg_class").0, Access::Read);
    assert_eq!(judge("SELECT * FROM generate_series(1, 2)").0, Access::Read);
}

#[test]
fn a_function_body_does_not_end_its_statement_nor_change_the_session() {
    let text = b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT set_config('a', 'b', false); END";
    let class = class_of(text);
    assert!(!class.marks.intersects(Marks::MULTI_STATEMENT.with(Marks::SESSION_EFFECT)));
    assert!(!class.marks.contains(Marks::TRANSACTION_CONTROL));
    let class = class_of(b"CREATE RULE r AS ON INSERT TO t DO (INSERT INTO u VALUES (1); COMMIT)");
    assert!(!class.marks.contains(Marks::TRANSACTION_CONTROL));
    let after = class_of(b"CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE a WHEN 1 THEN 2 END; END; COMMIT");
    assert!(after.marks.contains(Marks::TRANSACTION_CONTROL));
}

#[test]
fn marks_say_what_else_a_text_does() {
    // What a standby may do of it has tests of its own.
    let marks = |text: &str| Marks(class_of(text.as_bytes()).marks.0 & 0xff);
    assert_eq!(marks("SELECT 1"), Marks(0));
    assert_eq!(marks("SET a = 1"), Marks::SESSION_EFFECT);
    assert_eq!(marks("BEGIN"), Marks::TRANSACTION_CONTROL);
    assert_eq!(marks("CREATE TABLE t ()"), Marks::DDL);
    assert_eq!(marks("CREATE TEMP TABLE t ()"), Marks::DDL.with(Marks::SESSION_EFFECT));
    assert_eq!(marks("CREATE TABLE pg_temp.t ()"), Marks::DDL.with(Marks::SESSION_EFFECT));
    assert_eq!(marks("SELECT 1 INTO TEMP t"), Marks::SESSION_EFFECT);
    assert_eq!(marks("SELECT 1 INTO t"), Marks(0));
    assert_eq!(marks("SELECT pg_advisory_lock(1)"), Marks::SESSION_EFFECT);
    assert_eq!(marks("INSERT INTO t SELECT set_config('a', 'b', false)"), Marks::SESSION_EFFECT);
    assert_eq!(marks("SELECT pg_advisory_xact_lock(1)"), Marks(0));
    assert_eq!(marks("COPY t TO STDOUT"), Marks::COPY);
    assert_eq!(marks("COPY (SELECT 1) TO STDOUT"), Marks::COPY);
    assert_eq!(marks("SET pgweir.route = auto"), Marks::PGWEIR);
    assert_eq!(marks(" -- nothing"), Marks::EMPTY);
    assert_eq!(marks("/* pgweir.max_staleness=1s */ SELECT 1"), Marks::HINTED);
    assert_eq!(marks("/* pgweir.route=primary */ SELECT 1"), Marks(0));
    let all = marks("BEGIN; SET a = 1; COMMIT");
    assert!(
        all.contains(Marks::MULTI_STATEMENT.with(Marks::SESSION_EFFECT).with(Marks::TRANSACTION_CONTROL))
    );
}

#[test]
fn a_hint_is_the_route_and_part_of_the_shape() {
    let plain = class_of(b"SELECT 1");
    let hinted = class_of(b"/* pgweir.route=primary */ SELECT 1");
    assert_eq!(hinted.route, Route::Primary);
    assert_ne!(plain.fingerprint, hinted.fingerprint);
    assert_eq!(class_of(b"SELECT 1 -- pgweir.route = 'replica'").route, Route::Replica);
    assert_eq!(
        class_of(b"/* pgweir.route=replica */ SELECT 1 /* pgweir.route=primary */").route,
        Route::Primary
    );
    assert_eq!(class_of(b"SELECT '/* pgweir.route=replica */'").route, Route::Auto);
}

#[test]
fn no_nesting_makes_the_parser_try_everything_twice_at_each_level() {
    let shapes = [
        ("SELECT * FROM ", "(", "t", ")"),
        ("SELECT * FROM ", "(SELECT * FROM ", "t", ") x"),
        ("SELECT * FROM ", "(t JOIN ", "u", " ON true)"),
        ("SELECT ", "NOT ", "a", ""),
        ("SELECT ", "- ", "1", ""),
        ("SELECT ", "EXISTS (SELECT ", "1", ")"),
        ("SELECT 1 IN ", "(SELECT 1 IN ", "(1)", ")"),
        ("SELECT ", "CAST(", "a", " AS int)"),
        ("SELECT ", "INTERVAL ", "'1'", ""),
        ("SELECT ", "(1, ", "1", ")"),
        ("SELECT ", "CASE (", "1", ") WHEN 1 THEN 2 END"),
        ("SELECT ", "x -> (", "y", ")"),
        ("", "(", "SELECT 1", ")"),
        ("", "WITH x AS (", "SELECT 1", ") SELECT 1"),
        ("SELECT ", "a[", "1", "]"),
        ("SELECT ", "ROW(", "1", ")"),
        ("SELECT ", "substring(", "a", " FROM 1)"),
        ("SELECT ", "sum(", "a", ") OVER (ORDER BY a)"),
        ("SELECT 1 WHERE ", "(a, b) = (", "1, 2", ")"),
        ("SELECT ", "trim(both 'x' from ", "a", ")"),
        ("SELECT ", "extract(year from ", "a", ")"),
        ("SELECT ", "position('a' in ", "a", ")"),
        ("SELECT ", "coalesce(a, ", "b", ")"),
    ];
    for (head, open, core, close) in shapes {
        for depth in [25, 60, 150, 1_500] {
            let text = format!("{head}{}{core}{}", open.repeat(depth), close.repeat(depth));
            // Exponential time would not come back.
            class_of(text.as_bytes());
        }
    }
}
