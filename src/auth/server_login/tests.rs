#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;
use crate::auth::keys::{ProcessSecret, ScramKeys};
use crate::auth::scram::ServerExchange;

fn cache() -> DerivedKeys {
    DerivedKeys::new(16, ProcessSecret::new([7; 32]))
}

fn login(credential: ServerCredential) -> ServerLogin {
    ServerLogin::new("app", credential, [4; NONCE_BYTES], CleartextPolicy::Allow)
}

fn password() -> ServerCredential {
    ServerCredential::Password(Password::new("pencil"))
}

const OFFER: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

#[test]
fn what_cannot_be_used_is_explained() {
    let hash = ServerCredential::Md5Hash(md5::hash(&Password::new("pencil"), "app"));
    for (credential, code, body, detail) in [
        (
            hash.clone(),
            messages::SASL,
            OFFER,
            "asks for scram-sha-256; of this user pgweir holds an md5 hash",
        ),
        (hash, messages::CLEARTEXT_PASSWORD, b"", "asks for a password in plain text"),
        (
            ServerCredential::None,
            messages::MD5_PASSWORD,
            b"salt",
            "asks for md5; of this user pgweir holds nothing",
        ),
        (password(), 7, b"", "GSSAPI"),
        (password(), 9, b"", "SSPI"),
        (password(), 2, b"", "Kerberos"),
        (password(), 77, b"", "unknown method 77"),
        (password(), messages::SASL, b"OAUTHBEARER\0\0", "no SASL mechanism that pgweir knows"),
    ] {
        let fault = login(credential).on_authentication(code, body, &cache()).unwrap_err();
        assert_eq!(fault.sqlstate, SqlState::INVALID_AUTHORIZATION);
        assert_eq!(fault.message, "pgweir cannot log in to the server as user \"app\"");
        assert!(fault.detail.as_deref().unwrap().contains(detail), "{:?}", fault.detail);
    }
}

#[test]
fn a_password_in_plain_text_is_sent_only_where_the_config_allows_it() {
    let ask = |policy| {
        let mut login = ServerLogin::new("app", password(), [4; NONCE_BYTES], policy);
        login.on_authentication(messages::CLEARTEXT_PASSWORD, b"", &cache())
    };
    assert_eq!(ask(CleartextPolicy::Allow).unwrap(), ServerLoginStep::Send(b"p\0\0\0\x0bpencil\0".to_vec()));
    assert!(ask(CleartextPolicy::Refuse).unwrap_err().hint.is_some());
}

#[test]
fn a_server_that_trusts_us_may_say_so_at_once() {
    assert_eq!(login(password()).on_authentication(0, b"", &cache()).unwrap(), ServerLoginStep::Ok);
}

#[test]
fn a_server_cannot_end_scram_before_it_has_proven_itself_nor_ask_for_less() {
    let keys = ScramKeys::derive(&Password::new("pencil"), b"salt", 2).verifier(b"salt", 2);
    for steps in 1..=2 {
        for (code, body) in [(0, &b""[..]), (3, b""), (5, b"salt"), (10, OFFER)] {
            let mut login = login(password());
            let ServerLoginStep::Send(frame) = login.on_authentication(10, OFFER, &cache()).unwrap() else {
                panic!("nothing sent");
            };
            let first = &frame[5 + scram::MECHANISM.len() + 5..];
            let (_, challenge) = ServerExchange::start(keys.clone(), first, &[1; NONCE_BYTES]).unwrap();
            if steps == 2 {
                login.on_authentication(11, &challenge, &cache()).unwrap();
            }
            let fault = login.on_authentication(code, body, &cache()).unwrap_err();
            assert_eq!(fault.sqlstate, SqlState::PROTOCOL_VIOLATION, "{code} after {steps}");
            assert!(login.on_authentication(0, b"", &cache()).is_err());
        }
    }
}

proptest! {
    #[test]
    fn no_messages_make_it_panic(frames in prop::collection::vec((0u32..14, any::<Vec<u8>>()), 1..6)) {
        let mut login = login(password());
        for (code, body) in &frames {
            let _outcome = login.on_authentication(*code, body, &cache());
        }
    }
}
