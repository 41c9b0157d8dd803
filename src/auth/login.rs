//! A client logs in to us: which questions to ask, and whether the answers are right.
//!
//! A wrong password and an unknown user get the same questions, the same work and the same error.

use subtle::ConstantTimeEq;

use crate::auth::keys::{DerivedKeys, ProcessSecret};
use crate::auth::scram::{self, NONCE_BYTES, ScramError, ServerExchange, mock_verifier};
use crate::auth::secret::{MAX_SECRET_BYTES, Md5Hash, Password, ScramVerifier, Secret, ServerCredential};
use crate::auth::{md5, messages};
use crate::fault::{Fault, SqlState};

/// What a client has to do (`auth.method`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// SCRAM only. A user of whom we know no more than an md5 hash cannot log in, as in PostgreSQL.
    ScramSha256,
    /// md5; SCRAM for users of whom we know a SCRAM verifier, as in PostgreSQL.
    Md5,
    /// The password itself, readable on the wire without TLS.
    Plain,
    /// Nothing.
    Trust,
    /// A TLS client certificate whose common name is the user's name.
    Cert,
}

/// Everything that a login depends on; what is random comes from the caller, fresh for each login.
#[derive(Debug)]
pub struct LoginParams {
    /// What the client has to do.
    pub method: Method,
    /// The user that the startup packet names.
    pub user: String,
    /// What we know of that user; `None`: we do not know the user.
    pub secret: Option<Secret>,
    /// The common name of the verified client certificate, if there is one.
    pub certificate_name: Option<String>,
    /// Random, for SCRAM.
    pub nonce: [u8; NONCE_BYTES],
    /// Random, for md5.
    pub salt: [u8; 4],
}

/// What is to be done next.
#[derive(Debug)]
pub enum AuthStep {
    /// Offer these SASL mechanisms, then wait for a 'p' message.
    SendSasl {
        /// In the order of preference.
        mechanisms: &'static [&'static str],
    },
    /// Send a SASL challenge, then wait for a 'p' message.
    SendSaslContinue(Vec<u8>),
    /// Ask for md5 with this salt, then wait for a 'p' message.
    SendMd5 {
        /// The salt.
        salt: [u8; 4],
    },
    /// Ask for the password, then wait for a 'p' message.
    SendCleartext,
    /// The client is who it says: send the SASL outcome, if there is one, and AuthenticationOk.
    Done {
        /// AuthenticationSASLFinal's data.
        sasl_final: Option<Vec<u8>>,
        /// What we may use towards servers in this user's name.
        credential: ServerCredential,
    },
    /// Send this error and close.
    Fail(Box<Fault>),
}

impl AuthStep {
    /// Appends the messages of this step (those of `Done` end with AuthenticationOk). `Fail` has none:
    /// its ErrorResponse is the caller's.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            AuthStep::SendSasl { mechanisms } => messages::write_sasl(out, mechanisms),
            AuthStep::SendSaslContinue(data) => {
                messages::write_authentication(out, messages::SASL_CONTINUE, data);
            }
            AuthStep::SendMd5 { salt } => {
                messages::write_authentication(out, messages::MD5_PASSWORD, salt);
            }
            AuthStep::SendCleartext => {
                messages::write_authentication(out, messages::CLEARTEXT_PASSWORD, &[]);
            }
            AuthStep::Done { sasl_final, .. } => {
                if let Some(data) = sasl_final {
                    messages::write_authentication(out, messages::SASL_FINAL, data);
                }
                messages::write_authentication(out, messages::OK, &[]);
            }
            AuthStep::Fail(_) => {}
        }
    }
}

/// ```text
///            ┌→ SaslFirst ─→ SaslFinal ─┐
///   start ───┼→ Md5 ────────────────────┼→ Over
///            └→ Cleartext ──────────────┘
/// ```
#[derive(Debug)]
enum State {
    SaslFirst { verifier: ScramVerifier, nonce: [u8; NONCE_BYTES], chosen: Chosen },
    SaslFinal { exchange: ServerExchange },
    Md5 { hash: Md5Hash, salt: [u8; 4] },
    Cleartext,
    Over,
}

/// Has the client named its mechanism, without its first message in the same breath?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chosen {
    NotYet,
    Mechanism,
}

/// One client's login.
#[derive(Debug)]
pub struct Login {
    user: String,
    secret: Option<Secret>,
    state: State,
}

impl Login {
    /// Begins; the first step may already be the last.
    pub fn start(params: LoginParams, keys: &DerivedKeys) -> (Login, AuthStep) {
        let LoginParams { method, user, secret, certificate_name, nonce, salt } = params;
        let mut login = Login { user, secret, state: State::Over };
        let step = match method {
            Method::Trust => login.done(),
            Method::Cert => login.on_certificate(certificate_name),
            Method::Plain => {
                login.state = State::Cleartext;
                AuthStep::SendCleartext
            }
            Method::Md5 => login.ask_md5(nonce, salt, keys),
            Method::ScramSha256 => login.ask_scram(nonce, keys),
        };
        (login, step)
    }

    /// The body of the client's 'p' message.
    pub fn on_password_message(&mut self, body: &[u8], keys: &DerivedKeys) -> AuthStep {
        match std::mem::replace(&mut self.state, State::Over) {
            State::SaslFirst { verifier, nonce, chosen } => self.on_sasl_first(body, verifier, nonce, chosen),
            State::SaslFinal { exchange } => self.on_sasl_final(body, exchange),
            State::Md5 { hash, salt } => self.on_md5(body, &hash, salt),
            State::Cleartext => self.on_cleartext(body, keys),
            State::Over => protocol_violation("unexpected password message"),
        }
    }

    fn on_certificate(&self, name: Option<String>) -> AuthStep {
        match name {
            None => fail(Fault::client(
                SqlState::INVALID_AUTHORIZATION,
                "connection requires a valid client certificate",
            )),
            Some(name) if name == self.user => self.done(),
            Some(_) => fail(Fault::client(
                SqlState::INVALID_AUTHORIZATION,
                format!("certificate authentication failed for user \"{}\"", self.user),
            )),
        }
    }

    fn ask_md5(&mut self, nonce: [u8; NONCE_BYTES], salt: [u8; 4], keys: &DerivedKeys) -> AuthStep {
        let hash = match &self.secret {
            Some(Secret::Scram(_)) => return self.ask_scram(nonce, keys),
            Some(Secret::Md5(hash)) => hash.clone(),
            Some(Secret::Plain(password)) => md5::hash(password, &self.user),
            None => mock_md5(keys.secret(), &self.user),
        };
        self.state = State::Md5 { hash, salt };
        AuthStep::SendMd5 { salt }
    }

    fn ask_scram(&mut self, nonce: [u8; NONCE_BYTES], keys: &DerivedKeys) -> AuthStep {
        let verifier = match &self.secret {
            Some(Secret::Scram(verifier)) => verifier.clone(),
            Some(Secret::Plain(password)) => keys.own_verifier(&self.user, password),
            Some(Secret::Md5(_)) | None => mock_verifier(keys.secret(), &self.user),
        };
        self.state = State::SaslFirst { verifier, nonce, chosen: Chosen::NotYet };
        AuthStep::SendSasl { mechanisms: &[scram::MECHANISM] }
    }

    fn on_sasl_first(
        &mut self,
        body: &[u8],
        verifier: ScramVerifier,
        nonce: [u8; NONCE_BYTES],
        chosen: Chosen,
    ) -> AuthStep {
        let first = match chosen {
            Chosen::Mechanism => body,
            Chosen::NotYet => match read_initial_response(body) {
                Ok(Some(first)) => first,
                Ok(None) => {
                    self.state = State::SaslFirst { verifier, nonce, chosen: Chosen::Mechanism };
                    return AuthStep::SendSaslContinue(Vec::new());
                }
                Err(reason) => return protocol_violation(reason),
            },
        };
        match ServerExchange::start(verifier, first, &nonce) {
            Ok((exchange, challenge)) => {
                self.state = State::SaslFinal { exchange };
                AuthStep::SendSaslContinue(challenge)
            }
            Err(error) => self.scram_failed(error),
        }
    }

    fn on_sasl_final(&self, body: &[u8], exchange: ServerExchange) -> AuthStep {
        let finished = match exchange.finish(body) {
            Ok(finished) => finished,
            Err(error) => return self.scram_failed(error),
        };
        let credential = match &self.secret {
            // The salt is our own, so the recovered key is of no use to servers; the password is.
            Some(Secret::Plain(password)) => ServerCredential::Password(password.clone()),
            Some(Secret::Scram(_)) => finished.credential,
            // Nobody can prove a key that stems from no password; should it happen, it is no login.
            Some(Secret::Md5(_)) | None => return self.wrong_password(),
        };
        AuthStep::Done { sasl_final: Some(finished.server_final), credential }
    }

    fn on_md5(&self, body: &[u8], hash: &Md5Hash, salt: [u8; 4]) -> AuthStep {
        let Some(answer) = c_string(body) else { return protocol_violation(BAD_PASSWORD_MESSAGE) };
        let right = md5::verify(hash, salt, answer);
        match right && self.secret.is_some() {
            true => self.done(),
            false => self.wrong_password(),
        }
    }

    fn on_cleartext(&self, body: &[u8], keys: &DerivedKeys) -> AuthStep {
        let Some(answer) = c_string(body) else { return protocol_violation(BAD_PASSWORD_MESSAGE) };
        if answer.is_empty() {
            return fail(Fault::client(SqlState::INVALID_PASSWORD, "empty password returned by client"));
        }
        if answer.len() > MAX_SECRET_BYTES {
            return protocol_violation("the password is too long");
        }
        let answer = Password::new(answer);
        match self.is_right(&answer, keys) {
            true => AuthStep::Done { sasl_final: None, credential: ServerCredential::Password(answer) },
            false => self.wrong_password(),
        }
    }

    /// Each wrong answer costs one PBKDF2, whatever we know of the user, even nothing.
    fn is_right(&self, answer: &Password, keys: &DerivedKeys) -> bool {
        let right = match &self.secret {
            Some(Secret::Scram(verifier)) => return keys.check(&self.user, answer, verifier),
            Some(Secret::Plain(password)) => bool::from(password.as_bytes().ct_eq(answer.as_bytes())),
            Some(Secret::Md5(hash)) => {
                bool::from(md5::hash(answer, &self.user).0.as_slice().ct_eq(hash.0.as_slice()))
            }
            None => false,
        };
        if !right {
            keys.check(&self.user, answer, &mock_verifier(keys.secret(), &self.user));
        }
        right
    }

    /// Success without a SASL exchange.
    fn done(&self) -> AuthStep {
        let credential = match &self.secret {
            Some(Secret::Plain(password)) => ServerCredential::Password(password.clone()),
            Some(Secret::Md5(hash)) => ServerCredential::Md5Hash(hash.clone()),
            Some(Secret::Scram(_)) | None => ServerCredential::None,
        };
        AuthStep::Done { sasl_final: None, credential }
    }

    fn scram_failed(&self, error: ScramError) -> AuthStep {
        match error {
            ScramError::Malformed(reason) => {
                fail(Fault::client(SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message").detail(reason))
            }
            ScramError::Unsupported(what) => fail(Fault::client(SqlState::FEATURE_NOT_SUPPORTED, what)),
            ScramError::WrongProof
            | ScramError::WrongServerSignature
            | ScramError::ServerError(_)
            | ScramError::OtherParameters
            | ScramError::TooManyIterations(_) => self.wrong_password(),
        }
    }

    fn wrong_password(&self) -> AuthStep {
        fail(password_failed(&self.user))
    }
}

/// The one answer to a wrong password and to an unknown user.
pub fn password_failed(user: &str) -> Fault {
    Fault::client(SqlState::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
}

const BAD_PASSWORD_MESSAGE: &str = "invalid password packet size";

fn fail(fault: Fault) -> AuthStep {
    AuthStep::Fail(Box::new(fault))
}

fn protocol_violation(message: &'static str) -> AuthStep {
    fail(Fault::client(SqlState::PROTOCOL_VIOLATION, message))
}

/// A body that is one NUL-terminated string.
fn c_string(body: &[u8]) -> Option<&[u8]> {
    let (last, text) = body.split_last()?;
    (*last == 0 && !text.contains(&0)).then_some(text)
}

/// SASLInitialResponse: the first message, `None` if the client sends it later.
fn read_initial_response(body: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let end = body.iter().position(|&b| b == 0).ok_or("malformed SASL response")?;
    if &body[..end] != scram::MECHANISM.as_bytes() {
        return Err("client selected an invalid SASL authentication mechanism");
    }
    let (length, data) = body[end + 1..].split_first_chunk::<4>().ok_or("malformed SASL response")?;
    match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => Ok(None),
        length if usize::try_from(length) == Ok(data.len()) => Ok(Some(data)),
        _ => Err("malformed SASL response"),
    }
}

/// A hash that belongs to no password.
fn mock_md5(secret: &ProcessSecret, user: &str) -> Md5Hash {
    md5::hash(&Password::new(secret.hash(b"mock md5", user.as_bytes()).0.as_slice()), user)
}

#[cfg(test)]
mod tests;
