//! The client's side of SCRAM: we log in to a server, with a password or with keys passed through.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::server::xor;
use super::{NONCE_BYTES, ScramError, attribute, is_nonce, text};
use crate::auth::keys::{DerivedKeys, hmac};
use crate::auth::secret::{Key, MAX_ITERATIONS, Password, parse_iterations, parse_salt};

/// What a login is proven with.
#[derive(Clone, Debug)]
pub enum ClientKeys {
    /// Keys are derived for whatever salt and iterations the server names.
    Password(Password),
    /// Keys that are good for one salt and iteration count only.
    PassedThrough {
        /// Proves us.
        client_key: Key,
        /// SHA-256 of the client key.
        stored_key: Key,
        /// Checks the server.
        server_key: Key,
        /// The salt that the keys were derived for.
        salt: Vec<u8>,
        /// The iterations that the keys were derived for.
        iterations: u32,
    },
}

#[derive(Debug)]
enum State {
    /// We spoke first; the challenge is due.
    Challenge { keys: ClientKeys },
    /// Our proof was sent; the server's is due.
    Proof { expected: Key },
    /// Over, well or badly.
    Over,
}

/// One exchange: first message, challenge → proof, the server's proof.
///
/// ```text
/// start → Challenge → on_challenge → Proof → on_final → Over
/// ```
#[derive(Debug)]
pub struct ClientExchange {
    client_first_bare: String,
    nonce: String,
    state: State,
}

impl ClientExchange {
    /// The exchange, and the client-first-message. The user name is left empty, as libpq does: the
    /// startup packet names it.
    pub fn start(keys: ClientKeys, nonce: &[u8; NONCE_BYTES]) -> (ClientExchange, Vec<u8>) {
        ClientExchange::with_nonce("", STANDARD.encode(nonce), keys)
    }

    pub(super) fn with_nonce(user: &str, nonce: String, keys: ClientKeys) -> (ClientExchange, Vec<u8>) {
        let client_first_bare = format!("n={user},r={nonce}");
        let first = format!("n,,{client_first_bare}").into_bytes();
        (ClientExchange { client_first_bare, nonce, state: State::Challenge { keys } }, first)
    }

    /// Reads the server-first-message; the client-final-message. `user` only names the cache's entry.
    pub fn on_challenge(
        &mut self,
        server_first: &[u8],
        user: &str,
        derived: &DerivedKeys,
    ) -> Result<Vec<u8>, ScramError> {
        let State::Challenge { keys } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("a challenge was not due"));
        };
        let challenge = text(server_first)?;
        let (nonce, salt, iterations) = read_server_first(challenge, &self.nonce)?;
        let (client_key, stored_key, server_key) = keys.resolve(user, &salt, iterations, derived)?;
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{challenge},{without_proof}", self.client_first_bare);
        let signature = hmac(&stored_key.0, auth_message.as_bytes());
        let proof = xor(&client_key, &signature);
        self.state = State::Proof { expected: hmac(&server_key.0, auth_message.as_bytes()) };
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof.0)).into_bytes())
    }

    /// Reads the server-final-message; the server is who it should be if this is `Ok`.
    pub fn on_final(&mut self, server_final: &[u8]) -> Result<(), ScramError> {
        let State::Proof { expected } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("a final message was not due"));
        };
        let message = text(server_final)?;
        if let Some((error, _)) = attribute(message, b'e') {
            return Err(ScramError::ServerError(error.escape_debug().to_string()));
        }
        let (signature, _) =
            attribute(message, b'v').ok_or(ScramError::Malformed("the signature is missing"))?;
        let signature = STANDARD.decode(signature).ok().and_then(|bytes| Key::from_bytes(&bytes));
        match signature.ok_or(ScramError::Malformed("the signature is malformed"))? == expected {
            true => Ok(()),
            false => Err(ScramError::WrongServerSignature),
        }
    }
}

impl ClientKeys {
    fn resolve(
        self,
        user: &str,
        server_salt: &[u8],
        server_iterations: u32,
        derived: &DerivedKeys,
    ) -> Result<(Key, Key, Key), ScramError> {
        match self {
            ClientKeys::Password(password) => {
                let keys = derived.derive(user, &password, server_salt, server_iterations);
                Ok((keys.client_key.clone(), keys.stored_key.clone(), keys.server_key.clone()))
            }
            ClientKeys::PassedThrough { client_key, stored_key, server_key, salt, iterations } => {
                if salt != server_salt || iterations != server_iterations {
                    return Err(ScramError::OtherParameters);
                }
                Ok((client_key, stored_key, server_key))
            }
        }
    }
}

/// `r=`, `s=` and `i=` of a server-first-message; the nonce must extend ours.
fn read_server_first<'a>(message: &'a str, ours: &str) -> Result<(&'a str, Vec<u8>, u32), ScramError> {
    if message.starts_with('m') {
        return Err(ScramError::Unsupported("the server requires an unsupported SCRAM extension"));
    }
    let (nonce, rest) = attribute(message, b'r').ok_or(ScramError::Malformed("the nonce is missing"))?;
    let added =
        nonce.strip_prefix(ours).ok_or(ScramError::Malformed("the nonce is not an answer to ours"))?;
    if !is_nonce(added) {
        return Err(ScramError::Malformed("the server added nothing usable to the nonce"));
    }
    let (salt, rest) =
        rest.and_then(|rest| attribute(rest, b's')).ok_or(ScramError::Malformed("the salt is missing"))?;
    let salt = parse_salt(salt).ok_or(ScramError::Malformed("bad salt"))?;
    let (iterations, _) = rest
        .and_then(|rest| attribute(rest, b'i'))
        .ok_or(ScramError::Malformed("the iteration count is missing"))?;
    match (parse_iterations(iterations), iterations.parse::<u64>()) {
        (Some(count), _) => Ok((nonce, salt, count)),
        (None, Ok(count)) if count > u64::from(MAX_ITERATIONS) => Err(ScramError::TooManyIterations(count)),
        _ => Err(ScramError::Malformed("bad iteration count")),
    }
}
