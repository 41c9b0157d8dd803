#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

const VERIFIER: &str = "SCRAM-SHA-256$4096:cn6AvD41TGsw0N2E67Dlnw==$\
     wAmLSlGGFpyq71Koe21I/fTZaPUBTlTtyi7yo4OxQ1w=:3Pn9rhJyetGkQjXgQRreJzekq+yUgIixbdgH5Z8ZmtU=";

#[test]
fn rolpassword_is_a_verifier_or_an_md5_hash() {
    assert!(matches!(Secret::from_rolpassword(VERIFIER), Ok(Secret::Scram(v)) if v.iterations == 4096));
    let md5 = "md57cb133e596658708079ed4cfaaf64462";
    assert!(matches!(Secret::from_rolpassword(md5), Ok(Secret::Md5(_))));
    assert_eq!(Secret::from_rolpassword(&md5.to_uppercase()), Err(SecretError::Unrecognized));
    assert_eq!(Secret::from_rolpassword("secret"), Err(SecretError::Unrecognized));
    assert_eq!(Secret::from_rolpassword(""), Err(SecretError::Unrecognized));
}

#[test]
fn a_config_may_hold_a_plain_password_but_no_broken_verifier() {
    assert_eq!(Secret::from_config("secret"), Ok(Secret::Plain(Password::new("secret"))));
    assert!(matches!(Secret::from_config(VERIFIER), Ok(Secret::Scram(_))));
    assert_eq!(Secret::from_config(""), Err(SecretError::Empty));
    assert_eq!(Secret::from_config("md5 is no hash"), Ok(Secret::Plain(Password::new("md5 is no hash"))),);
    for cut in 15..VERIFIER.len() {
        assert!(
            matches!(Secret::from_config(&VERIFIER[..cut]), Err(SecretError::Malformed(_))),
            "{}",
            &VERIFIER[..cut],
        );
    }
}

#[test]
fn iteration_counts_are_bounded() {
    for (count, expected) in [
        ("1", Some(1)),
        ("4096", Some(4096)),
        ("1000000", Some(1_000_000)),
        ("1000001", None),
        ("0", None),
        ("-1", None),
        ("+1", None),
        ("", None),
        ("99999999999", None),
    ] {
        assert_eq!(parse_iterations(count), expected, "{count}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let printed = format!(
        "{:?} {:?} {:?}",
        Secret::from_config("hunter2"),
        Secret::from_config(VERIFIER),
        Secret::from_config("md57cb133e596658708079ed4cfaaf64462"),
    );
    assert!(!printed.contains("hunter2") && !printed.contains("7cb1"), "{printed}");
    assert!(!printed.contains("192, 9, 139"), "{printed}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(SCRAM-SHA-256\\$)?.{0,200}") {
        let _outcome = Secret::from_config(&text);
        let _outcome = Secret::from_rolpassword(&text);
    }
}
