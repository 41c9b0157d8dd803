//! The server's side of SCRAM: we authenticate a client, and recover its client key from the proof.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroize;

use super::{NONCE_BYTES, ScramError, attribute, is_nonce, text};
use crate::auth::keys::{OWN_ITERATIONS, ProcessSecret, hmac, own_salt, sha256};
use crate::auth::secret::{Key, ScramVerifier, ServerCredential};

/// Did the client say that it could have bound the channel?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Binding {
    /// `n`: it cannot.
    Unable,
    /// `y`: it could, and believes that we cannot. It is right.
    NotOffered,
}

/// A challenge was sent; the client's proof is due.
#[derive(Debug)]
pub struct ServerExchange {
    verifier: ScramVerifier,
    binding: Binding,
    nonce: String,
    client_first_bare: String,
    server_first: String,
}

/// The client has proven itself.
#[derive(Debug)]
pub struct ServerFinished {
    /// The server-final-message, our own proof.
    pub server_final: Vec<u8>,
    /// What the client logged in with, good for logging in to servers that hold the same verifier.
    pub credential: ServerCredential,
}

impl ServerExchange {
    /// Reads the client-first-message and makes the server-first-message. The user name in it is not
    /// used (libpq sends it empty): the startup packet's counts.
    pub fn start(
        verifier: ScramVerifier,
        client_first: &[u8],
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<(ServerExchange, Vec<u8>), ScramError> {
        let (binding, bare, client_nonce) = read_client_first(text(client_first)?)?;
        let nonce = format!("{client_nonce}{}", STANDARD.encode(nonce));
        let server_first =
            format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let answer = server_first.clone().into_bytes();
        let client_first_bare = bare.to_owned();
        Ok((ServerExchange { verifier, binding, nonce, client_first_bare, server_first }, answer))
    }

    /// Reads the client-final-message; checks the proof in constant time.
    pub fn finish(self, client_final: &[u8]) -> Result<ServerFinished, ScramError> {
        let message = text(client_final)?;
        let (without_proof, proof) = self.read_client_final(message)?;
        let auth_message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = hmac(&self.verifier.stored_key.0, auth_message.as_bytes());
        let client_key = xor(&proof, &signature);
        if sha256(&client_key.0) != self.verifier.stored_key {
            return Err(ScramError::WrongProof);
        }
        let server_signature = hmac(&self.verifier.server_key.0, auth_message.as_bytes());
        Ok(ServerFinished {
            server_final: format!("v={}", STANDARD.encode(server_signature.0)).into_bytes(),
            credential: ServerCredential::ClientKey {
                client_key,
                server_key: self.verifier.server_key,
                stored_key: self.verifier.stored_key,
                salt: self.verifier.salt,
                iterations: self.verifier.iterations,
            },
        })
    }

    fn read_client_final<'a>(&self, message: &'a str) -> Result<(&'a str, Key), ScramError> {
        let (without_proof, proof) =
            message.rsplit_once(",p=").ok_or(ScramError::Malformed("the proof is missing"))?;
        let (binding, rest) =
            attribute(without_proof, b'c').ok_or(ScramError::Malformed("the channel binding is missing"))?;
        let expected = match self.binding {
            Binding::Unable => "biws",
            Binding::NotOffered => "eSws",
        };
        if binding != expected {
            return Err(ScramError::Malformed(
                "the channel binding of the last message differs from the first's",
            ));
        }
        let (nonce, extensions) = rest
            .and_then(|rest| attribute(rest, b'r'))
            .ok_or(ScramError::Malformed("the nonce is missing"))?;
        if nonce != self.nonce {
            return Err(ScramError::Malformed("the nonce does not match"));
        }
        check_extensions(extensions)?;
        let mut bytes =
            STANDARD.decode(proof).map_err(|_| ScramError::Malformed("the proof is not base64"))?;
        let key = Key::from_bytes(&bytes).ok_or(ScramError::Malformed("the proof has a wrong length"));
        bytes.zeroize();
        Ok((without_proof, key?))
    }
}

/// gs2-header and client-first-message-bare: the binding flag, the bare message, the client's nonce.
fn read_client_first(message: &str) -> Result<(Binding, &str, &str), ScramError> {
    let (binding, rest) = match message.as_bytes().first() {
        Some(b'n') => (Binding::Unable, &message[1..]),
        Some(b'y') => (Binding::NotOffered, &message[1..]),
        Some(b'p') => {
            return Err(ScramError::Malformed(
                "the client binds the channel, but chose a mechanism that cannot",
            ));
        }
        _ => return Err(ScramError::Malformed("unexpected channel-binding flag")),
    };
    let rest = rest.strip_prefix(',').ok_or(ScramError::Malformed("a comma is missing"))?;
    if rest.starts_with('a') {
        return Err(ScramError::Unsupported("client uses authorization identity, but it is not supported"));
    }
    let bare = rest.strip_prefix(',').ok_or(ScramError::Malformed("unexpected attribute"))?;
    if bare.starts_with('m') {
        return Err(ScramError::Unsupported("client requires an unsupported SCRAM extension"));
    }
    let (_, rest) = attribute(bare, b'n').ok_or(ScramError::Malformed("the user name is missing"))?;
    let (nonce, extensions) =
        rest.and_then(|rest| attribute(rest, b'r')).ok_or(ScramError::Malformed("the nonce is missing"))?;
    if !is_nonce(nonce) {
        return Err(ScramError::Malformed("non-printable characters in the nonce"));
    }
    check_extensions(extensions)?;
    Ok((binding, bare, nonce))
}

/// Optional extensions are to be ignored, but each has to be one: a letter, `=`, a value.
fn check_extensions(extensions: Option<&str>) -> Result<(), ScramError> {
    let Some(extensions) = extensions else { return Ok(()) };
    let well_formed = |part: &str| {
        let bytes = part.as_bytes();
        bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b'='
    };
    if extensions.split(',').all(well_formed) {
        return Ok(());
    }
    Err(ScramError::Malformed("bad extension attribute"))
}

/// Byte-wise exclusive or.
pub(super) fn xor(a: &Key, b: &Key) -> Key {
    let mut out = a.clone();
    out.0.iter_mut().zip(b.0).for_each(|(out, b)| *out ^= b);
    out
}

/// What an unknown user is checked against, so that the exchange looks like a known user's: the salt is
/// always the same one, and nobody has a password for it (the keys come from no password at all).
pub fn mock_verifier(secret: &ProcessSecret, user: &str) -> ScramVerifier {
    ScramVerifier {
        iterations: OWN_ITERATIONS,
        salt: own_salt(secret, user).to_vec(),
        stored_key: secret.hash(b"mock stored key", user.as_bytes()),
        server_key: secret.hash(b"mock server key", user.as_bytes()),
    }
}
