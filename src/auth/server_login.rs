//! We log in to a server in a user's name: what to answer to its Authentication messages.

use crate::auth::keys::DerivedKeys;
use crate::auth::scram::{self, ClientExchange, ClientKeys, NONCE_BYTES, ScramError};
use crate::auth::secret::{Password, ServerCredential};
use crate::auth::{md5, messages};
use crate::fault::{Fault, SqlState};

/// May a password be sent in plain text?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CleartextPolicy {
    /// If the server asks for it.
    Allow,
    /// Never (the connection is not encrypted, and the config says that it must be for this).
    Refuse,
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerLoginStep {
    /// Send this whole message, then wait for the next Authentication message.
    Send(Vec<u8>),
    /// Nothing to send; wait for the next Authentication message.
    Continue,
    /// AuthenticationOk: parameters and ReadyForQuery follow.
    Ok,
}

/// ```text
///   Start ─→ SaslChallenge ─→ SaslFinal ─→ Answered ─→ Over
///     └──── password, md5 ───────────────────┘
/// ```
/// Each Authentication message is accepted in one state only: a server cannot ask for a weaker method
/// after a stronger one, nor say "ok" in the middle of SCRAM, before it has proven itself.
#[derive(Debug)]
enum State {
    Start,
    SaslChallenge(ClientExchange),
    SaslFinal(ClientExchange),
    Answered,
    Over,
}

/// One login to a server.
#[derive(Debug)]
pub struct ServerLogin {
    user: String,
    credential: ServerCredential,
    nonce: [u8; NONCE_BYTES],
    cleartext: CleartextPolicy,
    state: State,
}

impl ServerLogin {
    /// A login as `user`; `nonce` is random and fresh.
    pub fn new(
        user: impl Into<String>,
        credential: ServerCredential,
        nonce: [u8; NONCE_BYTES],
        cleartext: CleartextPolicy,
    ) -> ServerLogin {
        ServerLogin { user: user.into(), credential, nonce, cleartext, state: State::Start }
    }

    /// An Authentication message: its code, and what follows the code.
    pub fn on_authentication(
        &mut self,
        code: u32,
        body: &[u8],
        keys: &DerivedKeys,
    ) -> Result<ServerLoginStep, Fault> {
        match (code, std::mem::replace(&mut self.state, State::Over)) {
            (messages::OK, State::Start | State::Answered) => Ok(ServerLoginStep::Ok),
            (messages::CLEARTEXT_PASSWORD, State::Start) => self.on_cleartext(),
            (messages::MD5_PASSWORD, State::Start) => self.on_md5(body),
            (messages::SASL, State::Start) => self.on_sasl(body),
            (messages::SASL_CONTINUE, State::SaslChallenge(exchange)) => {
                self.on_challenge(body, exchange, keys)
            }
            (messages::SASL_FINAL, State::SaslFinal(mut exchange)) => {
                exchange.on_final(body).map_err(|error| self.scram_failed(error))?;
                self.state = State::Answered;
                Ok(ServerLoginStep::Continue)
            }
            (messages::OK, _) => Err(violation("the server ended SCRAM without proving itself")),
            (code, State::Start) => Err(self.unsupported(code)),
            (code, _) => {
                Err(violation(format!("authentication message {code} is out of place in this login")))
            }
        }
    }

    fn on_cleartext(&mut self) -> Result<ServerLoginStep, Fault> {
        let password = self.password().ok_or_else(|| self.no_use("a password in plain text"))?;
        if self.cleartext == CleartextPolicy::Refuse {
            return Err(self.refused("the server asks for the password in plain text").hint(
                "Encrypt the connection to the server (tls.server.mode: require), or let the server use \
                 scram-sha-256.",
            ));
        }
        let mut out = Vec::new();
        messages::write_password(&mut out, password.as_bytes());
        self.state = State::Answered;
        Ok(ServerLoginStep::Send(out))
    }

    fn on_md5(&mut self, body: &[u8]) -> Result<ServerLoginStep, Fault> {
        let salt: [u8; 4] = body.try_into().map_err(|_| violation("an md5 salt has 4 bytes"))?;
        let hash = match &self.credential {
            ServerCredential::Password(password) => md5::hash(password, &self.user),
            ServerCredential::Md5Hash(hash) => hash.clone(),
            ServerCredential::ClientKey { .. } | ServerCredential::None => {
                return Err(self.no_use("md5"));
            }
        };
        let mut out = Vec::new();
        messages::write_password(&mut out, &md5::response(&hash, salt));
        self.state = State::Answered;
        Ok(ServerLoginStep::Send(out))
    }

    fn on_sasl(&mut self, body: &[u8]) -> Result<ServerLoginStep, Fault> {
        let mechanisms =
            read_mechanisms(body).ok_or_else(|| violation("malformed list of SASL mechanisms"))?;
        if !mechanisms.iter().any(|name| *name == scram::MECHANISM.as_bytes()) {
            return Err(self
                .refused("the server offers no SASL mechanism that pgweir knows")
                .hint("pgweir logs in with SCRAM-SHA-256."));
        }
        let keys = match self.credential.clone() {
            ServerCredential::Password(password) => ClientKeys::Password(password),
            ServerCredential::ClientKey { client_key, server_key, stored_key, salt, iterations } => {
                ClientKeys::PassedThrough { client_key, stored_key, server_key, salt, iterations }
            }
            ServerCredential::Md5Hash(_) | ServerCredential::None => {
                return Err(self.no_use("scram-sha-256"));
            }
        };
        let (exchange, first) = ClientExchange::start(keys, &self.nonce);
        let mut out = Vec::new();
        messages::write_sasl_initial_response(&mut out, scram::MECHANISM, &first);
        self.state = State::SaslChallenge(exchange);
        Ok(ServerLoginStep::Send(out))
    }

    fn on_challenge(
        &mut self,
        body: &[u8],
        mut exchange: ClientExchange,
        keys: &DerivedKeys,
    ) -> Result<ServerLoginStep, Fault> {
        let answer =
            exchange.on_challenge(body, &self.user, keys).map_err(|error| self.scram_failed(error))?;
        let mut out = Vec::new();
        messages::write_sasl_response(&mut out, &answer);
        self.state = State::SaslFinal(exchange);
        Ok(ServerLoginStep::Send(out))
    }

    fn password(&self) -> Option<Password> {
        match &self.credential {
            ServerCredential::Password(password) => Some(password.clone()),
            ServerCredential::ClientKey { .. } | ServerCredential::Md5Hash(_) | ServerCredential::None => {
                None
            }
        }
    }

    /// The server wants `method`, for which what we hold is no use.
    fn no_use(&self, method: &'static str) -> Fault {
        let held = match &self.credential {
            ServerCredential::Password(_) => "the password",
            ServerCredential::ClientKey { .. } => "the SCRAM key of the client's own login",
            ServerCredential::Md5Hash(_) => "an md5 hash of the password",
            ServerCredential::None => "nothing (the client logged in without a password)",
        };
        self.refused(format!("The server asks for {method}; of this user pgweir holds {held}.")).hint(
            "Give the user a scram-sha-256 password on the servers and let clients log in with \
             scram-sha-256, or put the user's password under auth.users.",
        )
    }

    fn unsupported(&self, code: u32) -> Fault {
        let method = match code {
            2 => "Kerberos V5",
            6 => "SCM credentials",
            7 => "GSSAPI",
            9 => "SSPI",
            messages::SASL_CONTINUE | messages::SASL_FINAL | 8 => {
                return violation(format!("authentication message {code} is out of place in this login"));
            }
            code => return self.refused(format!("The server asks for unknown method {code}.")),
        };
        self.refused(format!("The server asks for {method}, which pgweir does not speak."))
            .hint("Let pg_hba.conf use scram-sha-256 for connections from pgweir.")
    }

    fn scram_failed(&self, error: ScramError) -> Fault {
        let fault = match &error {
            ScramError::Malformed(_) | ScramError::Unsupported(_) => {
                return Fault::server(SqlState::PROTOCOL_VIOLATION, "the server's SCRAM message is unusable")
                    .detail(error.to_string());
            }
            _ => self.refused(error.to_string()),
        };
        match error {
            ScramError::OtherParameters => fault.hint(
                "The user's password was changed after this client had logged in, or the servers are not \
                 copies of one another; a new login of the client uses the new password.",
            ),
            ScramError::WrongServerSignature => fault
                .hint("It does not know the user's password: it may not be the server that it claims to be."),
            ScramError::TooManyIterations(_) => {
                fault.hint("Lower scram_iterations on the server and set the password again.")
            }
            _ => fault,
        }
    }

    fn refused(&self, detail: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
        Fault::server(
            SqlState::INVALID_AUTHORIZATION,
            format!("pgweir cannot log in to the server as user \"{}\"", self.user),
        )
        .detail(detail)
    }
}

fn violation(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::server(SqlState::PROTOCOL_VIOLATION, message)
}

/// NUL-terminated names, ended by an empty one.
fn read_mechanisms(body: &[u8]) -> Option<Vec<&[u8]>> {
    let names = body.strip_suffix(b"\0\0")?;
    Some(names.split(|&b| b == 0).take(16).collect())
}

#[cfg(test)]
mod tests;
