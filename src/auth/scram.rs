//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, as PostgreSQL speaks it.
//!
//! Only the mechanism without channel binding: a proxy ends TLS on each side, so a client's binding
//! cannot be passed on. A client that could bind but was offered no `-PLUS` says `y`, which is right.

pub mod client;
pub mod server;

pub use client::{ClientExchange, ClientKeys};
pub use server::{ServerExchange, ServerFinished, mock_verifier};

/// The one mechanism that we offer and accept.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Longest SCRAM message that we read (PostgreSQL's PG_MAX_SASL_MESSAGE_LENGTH).
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// Random bytes behind our half of a nonce, as in PostgreSQL (SCRAM_RAW_NONCE_LEN).
pub const NONCE_BYTES: usize = 18;

/// Why a SCRAM exchange ended. No variant tells a wrong password from an unknown user.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScramError {
    /// Bytes that are not the message that was due.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// Something that PostgreSQL does not support either.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The proof does not fit the verifier.
    #[error("the client's proof is wrong")]
    WrongProof,
    /// The server does not know our keys: it is an impostor, or its secret changed.
    #[error("the server's signature is wrong")]
    WrongServerSignature,
    /// The server reported an error (`e=`).
    #[error("the server reported SCRAM error \"{0}\"")]
    ServerError(String),
    /// The server asks for other keys than those that we hold.
    #[error("the server's salt or iteration count differs from that of the key that is passed through")]
    OtherParameters,
    /// The server asks for more PBKDF2 iterations than we do.
    #[error("the server asks for {0} iterations, more than {max}", max = crate::auth::secret::MAX_ITERATIONS)]
    TooManyIterations(u64),
}

/// Reads the attribute `name=` at the start of `text`: its value, and what follows the comma.
pub(crate) fn attribute(text: &str, name: u8) -> Option<(&str, Option<&str>)> {
    let rest = text.strip_prefix(char::from(name))?.strip_prefix('=')?;
    Some(match rest.split_once(',') {
        Some((value, rest)) => (value, Some(rest)),
        None => (rest, None),
    })
}

/// Printable ASCII without the comma (RFC 5802's `printable`), not empty.
pub(crate) fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b',')
}

/// A message as text, if it is short enough, has no NUL and is UTF-8.
pub(crate) fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(ScramError::Malformed("the message is too long"));
    }
    if message.contains(&0) {
        return Err(ScramError::Malformed("the message contains a NUL byte"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("the message is not UTF-8"))
}

#[cfg(test)]
mod tests;
