#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

fn cache() -> DerivedKeys {
    DerivedKeys::new(16, ProcessSecret::new([7; 32]))
}

/// Written by PostgreSQL 15: (password, rolpassword).
const FROM_POSTGRESQL: &[(&str, &str)] = &[
    (
        "pencil",
        "SCRAM-SHA-256$4096:cn6AvD41TGsw0N2E67Dlnw==$wAmLSlGGFpyq71Koe21I/fTZaPUBTlTtyi7yo4OxQ1w=:3Pn9rhJyetGkQjXgQRreJzekq+yUgIixbdgH5Z8ZmtU=",
    ),
    (
        "I\u{ad}X\u{aa} p\u{e4}ssword\u{2168}",
        "SCRAM-SHA-256$4096:bLaEZW5zYusniEkb1/+08A==$+b+EBNqT0Fh7y9xc/meOqISP5R/qzU3pdvV7F1aaovY=:doJAGRWfpwhlCVeUsuJiJ53JFJv9cJUd2PqmeUoLBHA=",
    ),
    (
        "x\u{e000}y",
        "SCRAM-SHA-256$4096:0HMC1i0HFWQJ117RPcP+jA==$CTIbBH2wCsSm/hX4k6VoS/JOWuBTqhdi/eY4jTHkJN8=:bnnim58Girvw6lNCjKHcRk7xC9bIGoNJt25jrp0aLTw=",
    ),
    (
        "\u{ad}",
        "SCRAM-SHA-256$4096:nUhuGLi5xgqbN1zxr2me9A==$UqtCk0VRR0GI9Mjqlevvn6WXp19pgEPQ9/8xr7TQ0uU=:rq4YKtjQtZX+QwP1vuIRiNnS2E5xmdwMRL8ahivJ45c=",
    ),
    (
        "e\u{340}z",
        "SCRAM-SHA-256$4096:B/b+xmKhp8EJTPA0Qh3j+w==$RzCkXnGM8po/CYtarwOC+bdtr2pEmscNje9l7QtOyzE=:IhW8LPa+5QSZ7aTYt37Cm5X/XnmM9IbXNrVZh7Wn6iI=",
    ),
    (
        "a\u{1}b",
        "SCRAM-SHA-256$4096:ayyUyvUFO6+Nq7lVS87FNQ==$KGqq8VkWxfv4yaN7ZU/iDzUPq44EY9HmB/fnmZB7d+I=:GqVSpTuV/n0iPj0SQLL0vfvfvgCM4Z//24JQVVSP4qk=",
    ),
    (
        "a\u{a0}b",
        "SCRAM-SHA-256$4096:v6OkYovgl39Raq8TOqDEpQ==$y34Xr+b7biyxo9S9cACW1h3l8CIGrb3bj+d1igJ8Qmo=:tz6uHHY3vF8ZSzISbrbZX5iBfpyWmylS+6BuFIRVpPs=",
    ),
    (
        "\u{627}1",
        "SCRAM-SHA-256$4096:CyWZ0lzR/erFwnk2iF2WWg==$FswjqWPx/+bSNgypJMraKiKMpWiEIFjVr4ZylBhXdmY=:ogv2hF3RDcZZ2tAJIVdB2hmcYkMMjs7na4/0YSDAJco=",
    ),
    (
        "a\u{221}b",
        "SCRAM-SHA-256$4096:lQG5uzcCGg5BO/OsY0DR5w==$quBBq1XPJnN/hWHceiIoxWbYRpzSuDYhe6WLphzSavk=:WiqcEQ4wRCxP+mAb4raEGGRmPEDVfW05hNrKZuPqHuY=",
    ),
];

#[test]
fn passwords_give_the_keys_that_postgresql_stores_whatever_saslprep_makes_of_them() {
    for (password, stored) in FROM_POSTGRESQL {
        let verifier = ScramVerifier::parse(stored).unwrap();
        let keys = ScramKeys::derive(&Password::new(*password), &verifier.salt, verifier.iterations);
        assert_eq!(keys.verifier(&verifier.salt, verifier.iterations), verifier, "{password:?}");
        assert_eq!(verifier.to_text(), *stored);
    }
}

#[test]
fn bytes_that_are_not_utf8_are_a_password_too() {
    let keys = ScramKeys::derive(&Password::new(vec![0xff, 0xfe]), b"salt", 1);
    assert_ne!(keys, ScramKeys::derive(&Password::new(vec![0xff, 0xfd]), b"salt", 1));
}

#[test]
fn keys_are_derived_once_for_each_user_password_salt_and_count() {
    let cache = cache();
    let password = Password::new("pencil");
    let first = cache.derive("app", &password, b"salt", 2);
    assert!(Arc::ptr_eq(&first, &cache.derive("app", &password, b"salt", 2)));
    assert!(!Arc::ptr_eq(&first, &cache.derive("other", &password, b"salt", 2)));
    assert_ne!(first, cache.derive("app", &Password::new("pencil2"), b"salt", 2));
    assert_ne!(first, cache.derive("app", &password, b"salT", 2));
    assert_ne!(first, cache.derive("app", &password, b"salt", 3));
}

#[test]
fn wrong_passwords_are_not_kept() {
    let cache = cache();
    let verifier = ScramVerifier::parse(FROM_POSTGRESQL[0].1).unwrap();
    assert!(!cache.check("app", &Password::new("pen"), &verifier));
    assert!(cache.is_empty());
    assert!(cache.check("app", &Password::new("pencil"), &verifier));
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_cache_is_bounded() {
    let cache = cache();
    for user in 0..200 {
        cache.derive(&user.to_string(), &Password::new("pencil"), b"salt", 1);
    }
    assert!(cache.len() <= 16, "{}", cache.len());
}
