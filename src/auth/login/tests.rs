#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;
use crate::auth::keys::ScramKeys;
use crate::auth::server_login::{CleartextPolicy, ServerLogin, ServerLoginStep};

fn cache() -> DerivedKeys {
    DerivedKeys::new(16, ProcessSecret::new([7; 32]))
}

fn plain() -> Option<Secret> {
    Some(Secret::Plain(Password::new("pencil")))
}

fn scram() -> Option<Secret> {
    let keys = ScramKeys::derive(&Password::new("pencil"), b"0123456789abcdef", 64);
    Some(Secret::Scram(keys.verifier(b"0123456789abcdef", 64)))
}

fn md5() -> Option<Secret> {
    Some(Secret::Md5(md5::hash(&Password::new("pencil"), "app")))
}

fn params(method: Method, secret: Option<Secret>) -> LoginParams {
    let user = "app".to_owned();
    LoginParams { method, user, secret, certificate_name: None, nonce: [9; 18], salt: [1, 2, 3, 4] }
}

/// What a login came to, and the questions that were asked on the way (codes of 'R' messages).
struct Outcome {
    asked: Vec<u32>,
    result: Result<ServerCredential, Fault>,
}

/// A whole login, with our own client's machine at the other end, in protocol bytes.
fn log_in(params: LoginParams, held: ServerCredential) -> Outcome {
    let keys = cache();
    let mut client = ServerLogin::new("app", held, [4; 18], CleartextPolicy::Allow);
    let (mut login, mut step) = Login::start(params, &keys);
    let mut asked = Vec::new();
    loop {
        let mut out = Vec::new();
        step.write(&mut out);
        let mut answer = None;
        for (code, body) in authentications(&out) {
            asked.push(code);
            answer = match client.on_authentication(code, &body, &keys) {
                Ok(ServerLoginStep::Send(frame)) => Some(frame),
                Ok(ServerLoginStep::Continue | ServerLoginStep::Ok) => None,
                Err(fault) => return Outcome { asked, result: Err(fault) },
            };
        }
        match step {
            AuthStep::Done { credential, .. } => return Outcome { asked, result: Ok(credential) },
            AuthStep::Fail(fault) => return Outcome { asked, result: Err(*fault) },
            _ => step = login.on_password_message(&answer.unwrap()[5..], &keys),
        }
    }
}

fn authentications(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        assert_eq!(head[0], b'R');
        let length = usize::try_from(u32::from_be_bytes(head[1..5].try_into().unwrap())).unwrap() - 8;
        let code = u32::from_be_bytes(head[5..9].try_into().unwrap());
        found.push((code, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    found
}

fn holding(text: &str) -> ServerCredential {
    ServerCredential::Password(Password::new(text))
}

const SCRAM: &[u32] = &[messages::SASL, messages::SASL_CONTINUE, messages::SASL_FINAL, messages::OK];
const SCRAM_FAILED: &[u32] = &[messages::SASL, messages::SASL_CONTINUE];

#[test]
fn each_method_and_secret_asks_what_postgresql_asks_and_leaves_a_credential() {
    let keeps_password = |c: &ServerCredential| *c == holding("pencil");
    let keeps_key = |c: &ServerCredential| matches!(c, ServerCredential::ClientKey { .. });
    let keeps_hash = |c: &ServerCredential| matches!(c, ServerCredential::Md5Hash(_));
    let keeps_nothing = |c: &ServerCredential| *c == ServerCredential::None;
    type Row<'a> = (Method, Option<Secret>, &'a [u32], &'a dyn Fn(&ServerCredential) -> bool);
    let rows: &[Row<'_>] = &[
        (Method::ScramSha256, plain(), SCRAM, &keeps_password),
        (Method::ScramSha256, scram(), SCRAM, &keeps_key),
        (Method::Md5, plain(), &[5, 0], &keeps_password),
        (Method::Md5, md5(), &[5, 0], &keeps_hash),
        (Method::Md5, scram(), SCRAM, &keeps_key),
        (Method::Plain, plain(), &[3, 0], &keeps_password),
        (Method::Plain, scram(), &[3, 0], &keeps_password),
        (Method::Plain, md5(), &[3, 0], &keeps_password),
        (Method::Trust, None, &[0], &keeps_nothing),
        (Method::Trust, scram(), &[0], &keeps_nothing),
        (Method::Trust, plain(), &[0], &keeps_password),
        (Method::Trust, md5(), &[0], &keeps_hash),
    ];
    for (method, secret, asked, keeps) in rows {
        let outcome = log_in(params(*method, secret.clone()), holding("pencil"));
        assert_eq!(&outcome.asked, asked, "{method:?} {secret:?}");
        assert!(keeps(&outcome.result.unwrap()), "{method:?} {secret:?}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_questions_and_answer() {
    for method in [Method::ScramSha256, Method::Md5, Method::Plain] {
        let unknown = log_in(params(method, None), holding("pencil"));
        let wrong = log_in(params(method, plain()), holding("pen"));
        assert_eq!(unknown.asked, wrong.asked, "{method:?}");
        let (unknown, wrong) = (unknown.result.unwrap_err(), wrong.result.unwrap_err());
        assert_eq!(format!("{unknown:?}"), format!("{wrong:?}"));
        assert_eq!(unknown.sqlstate, SqlState::INVALID_PASSWORD);
        assert_eq!(unknown.message, "password authentication failed for user \"app\"");
    }
}

#[test]
fn the_challenge_of_a_plain_and_an_unknown_user_has_the_same_salt() {
    let challenge = |secret| {
        let keys = cache();
        let (mut login, _) = Login::start(params(Method::ScramSha256, secret), &keys);
        let body = b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc";
        let AuthStep::SendSaslContinue(challenge) = login.on_password_message(body, &keys) else { panic!() };
        challenge
    };
    assert_eq!(challenge(plain()), challenge(None));
}

#[test]
fn scram_is_never_weakened_to_md5() {
    let outcome = log_in(params(Method::ScramSha256, md5()), holding("pencil"));
    assert_eq!(outcome.asked, SCRAM_FAILED);
    assert_eq!(outcome.result.unwrap_err().sqlstate, SqlState::INVALID_PASSWORD);
}

#[test]
fn a_recovered_key_logs_in_to_a_server_with_the_same_verifier() {
    let credential = log_in(params(Method::ScramSha256, scram()), holding("pencil")).result.unwrap();
    let again = log_in(params(Method::ScramSha256, scram()), credential.clone());
    assert_eq!(again.result.unwrap(), credential);
}

#[test]
fn a_certificate_has_to_be_the_users_own() {
    let with = |name: Option<&str>| {
        let certificate_name = name.map(str::to_owned);
        let params = LoginParams { certificate_name, ..params(Method::Cert, None) };
        log_in(params, ServerCredential::None).result.map_err(|fault| fault.message.into_owned())
    };
    assert_eq!(with(Some("app")), Ok(ServerCredential::None));
    assert_eq!(with(Some("App")).unwrap_err(), "certificate authentication failed for user \"app\"");
    assert_eq!(with(None).unwrap_err(), "connection requires a valid client certificate");
}

#[test]
fn the_first_message_may_come_after_the_mechanism() {
    let keys = cache();
    let (mut login, _) = Login::start(params(Method::ScramSha256, plain()), &keys);
    let step = login.on_password_message(b"SCRAM-SHA-256\0\xff\xff\xff\xff", &keys);
    assert!(matches!(step, AuthStep::SendSaslContinue(data) if data.is_empty()));
    let step = login.on_password_message(b"n,,n=,r=abc", &keys);
    assert!(matches!(step, AuthStep::SendSaslContinue(data) if data.starts_with(b"r=abc")));
}

#[test]
fn malformed_answers_are_protocol_violations() {
    let first = |method, body: &[u8]| {
        let keys = cache();
        let (mut login, _) = Login::start(params(method, plain()), &keys);
        let step = login.on_password_message(body, &keys);
        let AuthStep::Fail(fault) = step else { panic!("{body:?} gives {step:?}") };
        assert!(matches!(login.on_password_message(body, &keys), AuthStep::Fail(_)));
        fault.sqlstate
    };
    for (method, body) in [
        (Method::ScramSha256, &b""[..]),
        (Method::ScramSha256, b"SCRAM-SHA-256"),
        (Method::ScramSha256, b"SCRAM-SHA-256\0"),
        (Method::ScramSha256, b"SCRAM-SHA-256\0\0\0\0\x0c"),
        (Method::ScramSha256, b"SCRAM-SHA-256\0\0\0\0\0n"),
        (Method::ScramSha256, b"SCRAM-SHA-256\0\xff\xff\xff\xfe"),
        (Method::ScramSha256, b"SCRAM-SHA-256-PLUS\0\0\0\0\x0bn,,n=,r=abc"),
        (Method::ScramSha256, b"SCRAM-SHA-256\0\0\0\0\x0cn,,n=,r=\0abc"),
        (Method::Md5, b""),
        (Method::Md5, b"md5"),
        (Method::Plain, b"pencil"),
        (Method::Plain, b"pen\0cil\0"),
    ] {
        assert_eq!(first(method, body), SqlState::PROTOCOL_VIOLATION, "{body:?}");
    }
    assert_eq!(first(Method::Plain, b"\0"), SqlState::INVALID_PASSWORD);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_let_anybody_in(bodies in prop::collection::vec(any::<Vec<u8>>(), 1..4)) {
        let keys = cache();
        for method in [Method::ScramSha256, Method::Md5] {
            let (mut login, _) = Login::start(params(method, md5()), &keys);
            for body in &bodies {
                let done = matches!(login.on_password_message(body, &keys), AuthStep::Done { .. });
                prop_assert!(!done);
            }
        }
    }
}
