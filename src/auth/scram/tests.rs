#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;
use crate::auth::keys::{DerivedKeys, ProcessSecret, ScramKeys};
use crate::auth::secret::{Key, Password, ScramVerifier, ServerCredential};

const SERVER_NONCE: [u8; NONCE_BYTES] = [9; NONCE_BYTES];
const CLIENT_NONCE: [u8; NONCE_BYTES] = [4; NONCE_BYTES];

fn cache() -> DerivedKeys {
    DerivedKeys::new(16, ProcessSecret::new([7; 32]))
}

fn verifier() -> ScramVerifier {
    ScramKeys::derive(&Password::new("pencil"), b"0123456789abcdef", 64).verifier(b"0123456789abcdef", 64)
}

fn password(text: &str) -> ClientKeys {
    ClientKeys::Password(Password::new(text))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// RFC 7677, section 3.
#[test]
fn the_example_of_rfc_7677_is_reproduced_by_the_client() {
    let keys = password("pencil");
    let (mut client, first) = ClientExchange::with_nonce("user", "rOprNGfwEbeRWgbNEkqO".into(), keys);
    assert_eq!(text_of(&first), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let proof = client.on_challenge(challenge, "user", &cache()).unwrap();
    assert_eq!(
        text_of(&proof),
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    );
    client.on_final(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
}

fn log_in(keys: ClientKeys, verifier: ScramVerifier) -> Result<ServerCredential, ScramError> {
    let (mut client, first) = ClientExchange::start(keys, &CLIENT_NONCE);
    let (server, challenge) = ServerExchange::start(verifier, &first, &SERVER_NONCE)?;
    let proof = client.on_challenge(&challenge, "app", &cache())?;
    let finished = server.finish(&proof)?;
    client.on_final(&finished.server_final)?;
    Ok(finished.credential)
}

fn passed_through(credential: ServerCredential) -> ClientKeys {
    let ServerCredential::ClientKey { client_key, server_key, stored_key, salt, iterations } = credential
    else {
        panic!("not a client key: {credential:?}");
    };
    ClientKeys::PassedThrough { client_key, stored_key, server_key, salt, iterations }
}

#[test]
fn the_right_password_logs_in_and_a_wrong_one_does_not() {
    assert!(log_in(password("pencil"), verifier()).is_ok());
    assert_eq!(log_in(password("pencils"), verifier()), Err(ScramError::WrongProof));
    assert_eq!(log_in(password(""), verifier()), Err(ScramError::WrongProof));
}

#[test]
fn the_recovered_client_key_logs_in_to_every_holder_of_the_verifier() {
    let credential = log_in(password("pencil"), verifier()).unwrap();
    let again = log_in(passed_through(credential.clone()), verifier()).unwrap();
    assert_eq!(credential, again);
}

#[test]
fn a_passed_through_key_is_refused_where_salt_or_count_differ() {
    let credential = log_in(password("pencil"), verifier()).unwrap();
    let salted = ScramVerifier { salt: b"another salt".to_vec(), ..verifier() };
    assert_eq!(log_in(passed_through(credential.clone()), salted), Err(ScramError::OtherParameters));
    let counted = ScramVerifier { iterations: 65, ..verifier() };
    assert_eq!(log_in(passed_through(credential), counted), Err(ScramError::OtherParameters));
}

#[test]
fn a_server_that_does_not_know_the_secret_is_found_out() {
    let impostor = ScramVerifier { server_key: Key([1; 32]), ..verifier() };
    assert_eq!(log_in(password("pencil"), impostor), Err(ScramError::WrongServerSignature));
}

#[test]
fn an_unknown_user_is_always_asked_the_same_and_never_let_in() {
    let secret = ProcessSecret::new([3; 32]);
    assert_eq!(mock_verifier(&secret, "nobody"), mock_verifier(&secret, "nobody"));
    assert_ne!(mock_verifier(&secret, "nobody").salt, mock_verifier(&secret, "somebody").salt);
    let real = ScramKeys::derive(&Password::new("x"), b"0123456789abcdef", 4096);
    let real = real.verifier(b"0123456789abcdef", 4096);
    let mock = mock_verifier(&secret, "nobody");
    assert_eq!((mock.salt.len(), mock.iterations), (real.salt.len(), real.iterations));
    assert_eq!(log_in(password("pencil"), mock), Err(ScramError::WrongProof));
}

#[test]
fn the_first_message_is_read_as_postgresql_reads_it() {
    use ScramError::{Malformed, Unsupported};
    let start = |message: &str| ServerExchange::start(verifier(), message.as_bytes(), &SERVER_NONCE);
    for good in ["n,,n=,r=abc", "y,,n=,r=abc", "n,,n=app,r=abc", "n,,n=,r=abc,x=ignored,y=too"] {
        let (_, challenge) = start(good).unwrap();
        assert!(text_of(&challenge).starts_with("r=abc"), "{good}");
    }
    for bad in [
        "",
        "n",
        "n,",
        "n,,",
        "x,,n=,r=abc",
        "p=tls-server-end-point,,n=,r=abc",
        "n,,r=abc",
        "n,,n=",
        "n,,n=,r=",
        "n,,n=,r=a\u{7}c",
        "n,,n=,r=ä",
        "n,,n=,r=a\0c",
        "n,,n=,r=abc,",
        "n,,n=,r=abc,xyz",
        "n,b,n=,r=abc",
        "ä,,n=,r=abc",
    ] {
        assert!(matches!(start(bad).unwrap_err(), Malformed(_)), "{bad:?}");
    }
    for refused in ["n,a=other,n=,r=abc", "n,,m=x,n=,r=abc"] {
        assert!(matches!(start(refused).unwrap_err(), Unsupported(_)), "{refused}");
    }
    let long = format!("n,,n=,r={}", "a".repeat(MAX_MESSAGE_BYTES));
    assert!(matches!(start(&long).unwrap_err(), Malformed(_)));
}

/// A client's last message, made by hand: `y` clients say so again at the end.
fn final_message(gs2: &str, binding: &str, change: impl Fn(String) -> String) -> Result<(), ScramError> {
    let first = format!("{gs2}n=,r=abc");
    let (server, challenge) = ServerExchange::start(verifier(), first.as_bytes(), &SERVER_NONCE).unwrap();
    let challenge = text_of(&challenge);
    let nonce = challenge[2..].split_once(',').unwrap().0;
    let without_proof = format!("c={binding},r={nonce}");
    let keys = ScramKeys::derive(&Password::new("pencil"), b"0123456789abcdef", 64);
    let auth_message = format!("n=,r=abc,{challenge},{without_proof}");
    let signature = crate::auth::keys::hmac(&keys.stored_key.0, auth_message.as_bytes());
    let proof = server::xor(&keys.client_key, &signature);
    let proof = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, proof.0);
    server.finish(change(format!("{without_proof},p={proof}")).as_bytes()).map(|_| ())
}

#[test]
fn the_channel_binding_flag_must_be_repeated_exactly() {
    let same = |message| message;
    assert_eq!(final_message("n,,", "biws", same), Ok(()));
    assert_eq!(final_message("y,,", "eSws", same), Ok(()));
    assert!(matches!(final_message("y,,", "biws", same), Err(ScramError::Malformed(_))));
    assert!(matches!(final_message("n,,", "eSws", same), Err(ScramError::Malformed(_))));
}

#[test]
fn every_part_of_the_last_message_counts() {
    let length = final_message_length();
    for at in 0..length {
        let outcome = final_message("n,,", "biws", |message| {
            let mut bytes = message.into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        });
        assert!(outcome.is_err(), "byte {at} does not count");
        let outcome = final_message("n,,", "biws", |message| message[..at].to_owned());
        assert!(outcome.is_err(), "{at} bytes are enough");
    }
    assert!(final_message("n,,", "biws", |message| message + "A").is_err());
}

fn final_message_length() -> usize {
    let length = std::cell::Cell::new(0);
    let outcome = final_message("n,,", "biws", |message| {
        length.set(message.len());
        message
    });
    assert_eq!(outcome, Ok(()));
    length.get()
}

#[test]
fn the_client_refuses_challenges_that_are_not_for_it_or_too_dear() {
    let ask = |challenge: &str| {
        let (mut client, _) = ClientExchange::with_nonce("", "abc".into(), password("pencil"));
        client.on_challenge(challenge.as_bytes(), "app", &cache())
    };
    assert!(ask("r=abcd,s=c2FsdA==,i=1").is_ok());
    assert!(ask("r=abcd,s=c2FsdA==,i=1,x=ignored").is_ok());
    for bad in [
        "",
        "r=abc,s=c2FsdA==,i=1",
        "r=xbcd,s=c2FsdA==,i=1",
        "r=abcd",
        "r=abcd,s=c2FsdA==",
        "r=abcd,s=,i=1",
        "r=abcd,s=!,i=1",
        "r=abcd,s=c2FsdA==,i=0",
        "r=abcd,s=c2FsdA==,i=-1",
        "r=abcd,s=c2FsdA==,i=1x",
    ] {
        assert!(matches!(ask(bad), Err(ScramError::Malformed(_))), "{bad}");
    }
    assert_eq!(ask("r=abcd,s=c2FsdA==,i=4000000000"), Err(ScramError::TooManyIterations(4_000_000_000)));
    assert!(matches!(ask("m=x,r=abcd,s=c2FsdA==,i=1"), Err(ScramError::Unsupported(_))));
}

#[test]
fn the_client_wants_each_message_once_and_in_order() {
    let (mut client, _) = ClientExchange::with_nonce("", "abc".into(), password("pencil"));
    assert!(matches!(client.on_final(b"v=AAAA"), Err(ScramError::Malformed(_))));
    assert!(client.on_challenge(b"r=abcd,s=c2FsdA==,i=1", "app", &cache()).is_err());
    let (mut client, _) = ClientExchange::with_nonce("", "abc".into(), password("pencil"));
    client.on_challenge(b"r=abcd,s=c2FsdA==,i=1", "app", &cache()).unwrap();
    let error = client.on_final(b"e=invalid-proof").unwrap_err();
    assert_eq!(error, ScramError::ServerError("invalid-proof".into()));
}

proptest! {
    #[test]
    fn no_bytes_make_the_server_panic(first: Vec<u8>, last: Vec<u8>) {
        let _outcome = ServerExchange::start(verifier(), &first, &SERVER_NONCE);
        let (server, _) = ServerExchange::start(verifier(), b"n,,n=,r=abc", &SERVER_NONCE).unwrap();
        prop_assert!(server.finish(&last).is_err());
    }

    #[test]
    fn no_text_makes_the_server_panic(first in "[nyp]?,?[a-z=,]{0,40}", last in "(c=biws,)?[a-z=,ä]{0,60}(,p=[a-zA-Z=]{0,50})?") {
        let _outcome = ServerExchange::start(verifier(), first.as_bytes(), &SERVER_NONCE);
        let (server, _) = ServerExchange::start(verifier(), b"n,,n=,r=abc", &SERVER_NONCE).unwrap();
        prop_assert!(server.finish(last.as_bytes()).is_err());
    }

    #[test]
    fn no_bytes_make_the_client_panic(challenge: Vec<u8>, last: Vec<u8>) {
        let (mut client, _) = ClientExchange::with_nonce("", "abc".into(), password("pencil"));
        prop_assert!(client.on_challenge(&challenge, "app", &cache()).is_err());
        let (mut client, _) = ClientExchange::with_nonce("", "abc".into(), password("pencil"));
        client.on_challenge(b"r=abcd,s=c2FsdA==,i=1", "app", &cache()).unwrap();
        prop_assert!(client.on_final(&last).is_err());
    }

    #[test]
    fn any_password_logs_in_against_its_own_verifier(secret: Vec<u8>, salt in prop::collection::vec(any::<u8>(), 1..40), iterations in 1u32..20) {
        let secret = Password::new(secret);
        let verifier = ScramKeys::derive(&secret, &salt, iterations).verifier(&salt, iterations);
        prop_assert!(log_in(ClientKeys::Password(secret), verifier).is_ok());
    }
}
