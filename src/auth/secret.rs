//! What we know of a user, and what we may use towards servers in that user's name.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// More iterations than this are refused everywhere: each costs about 0.2 µs of a worker's time, and a
/// hostile or mistaken peer chooses the number. PostgreSQL's own default is 4096.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// Salts longer than this are refused; PostgreSQL's are 16 bytes.
pub const MAX_SALT_BYTES: usize = 256;

/// Longest password and secret text accepted.
pub const MAX_SECRET_BYTES: usize = 4096;

/// A 32-byte SCRAM key. Erased when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct Key(pub(crate) [u8; 32]);

impl Key {
    /// Exactly 32 bytes, or nothing.
    pub fn from_bytes(bytes: &[u8]) -> Option<Key> {
        bytes.try_into().ok().map(Key)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Key {}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A password in plain text. Bytes, because PostgreSQL does not demand UTF-8 of it.
#[derive(Clone)]
pub struct Password(Vec<u8>);

impl Password {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Password {
        Password(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Password) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Password {}

impl Drop for Password {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The `md5…` form of `pg_authid.rolpassword`: hex of md5(password + user), 32 lower-case digits.
#[derive(Clone)]
pub struct Md5Hash(pub(crate) [u8; 32]);

impl Md5Hash {
    /// From `md5` followed by 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Md5Hash> {
        let mut hex: [u8; 32] = text.strip_prefix("md5")?.as_bytes().try_into().ok()?;
        hex.make_ascii_lowercase();
        hex.iter().all(u8::is_ascii_hexdigit).then_some(Md5Hash(hex))
    }
}

impl PartialEq for Md5Hash {
    fn eq(&self, other: &Md5Hash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Md5Hash {}

impl Drop for Md5Hash {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(…)")
    }
}

/// A SCRAM verifier, as PostgreSQL stores it in `pg_authid`: enough to check a client, not enough to be one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScramVerifier {
    /// PBKDF2 iterations, 1 to [`MAX_ITERATIONS`].
    pub iterations: u32,
    /// The salt.
    pub salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub stored_key: Key,
    /// What the server proves itself with.
    pub server_key: Key,
}

impl ScramVerifier {
    /// From `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (base64).
    pub fn parse(text: &str) -> Result<ScramVerifier, SecretError> {
        if text.len() > MAX_SECRET_BYTES {
            return Err(SecretError::TooLong);
        }
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(SecretError::Unrecognized)?;
        let (parameters, keys) = rest.split_once('$').ok_or(SecretError::Malformed("keys are missing"))?;
        let (iterations, salt) =
            parameters.split_once(':').ok_or(SecretError::Malformed("the salt is missing"))?;
        let (stored, server) =
            keys.split_once(':').ok_or(SecretError::Malformed("the server key is missing"))?;
        Ok(ScramVerifier {
            iterations: parse_iterations(iterations).ok_or(SecretError::Malformed("bad iteration count"))?,
            salt: parse_salt(salt).ok_or(SecretError::Malformed("bad salt"))?,
            stored_key: parse_key(stored).ok_or(SecretError::Malformed("bad stored key"))?,
            server_key: parse_key(server).ok_or(SecretError::Malformed("bad server key"))?,
        })
    }

    /// The text that `pg_authid.rolpassword` holds.
    pub fn to_text(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key.0),
            STANDARD.encode(self.server_key.0),
        )
    }
}

/// A decimal iteration count within our bounds.
pub(crate) fn parse_iterations(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let count = text.parse::<u32>().ok().filter(|_| digits)?;
    (1..=MAX_ITERATIONS).contains(&count).then_some(count)
}

/// A base64 salt within our bounds.
pub(crate) fn parse_salt(text: &str) -> Option<Vec<u8>> {
    let salt = STANDARD.decode(text).ok()?;
    (!salt.is_empty() && salt.len() <= MAX_SALT_BYTES).then_some(salt)
}

fn parse_key(text: &str) -> Option<Key> {
    STANDARD.decode(text).ok().and_then(|bytes| Key::from_bytes(&bytes))
}

/// Why a stored secret is not usable. Never contains the secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// Neither form that PostgreSQL stores.
    #[error("it is neither a SCRAM-SHA-256 verifier nor an md5 hash")]
    Unrecognized,
    /// It begins like a SCRAM verifier but is none.
    #[error("it begins with SCRAM-SHA-256$ but is not a verifier: {0}")]
    Malformed(&'static str),
    /// Longer than [`MAX_SECRET_BYTES`].
    #[error("it is longer than {MAX_SECRET_BYTES} bytes")]
    TooLong,
    /// It is empty, which PostgreSQL never accepts as a password.
    #[error("it is empty")]
    Empty,
}

/// What we know of a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Secret {
    /// The password itself (`auth.users`).
    Plain(Password),
    /// A SCRAM verifier (`auth.query`, or `auth.users`).
    Scram(ScramVerifier),
    /// An md5 hash (`auth.query`, or `auth.users`).
    Md5(Md5Hash),
}

impl Secret {
    /// From `pg_authid.rolpassword`, which never holds a plain password.
    pub fn from_rolpassword(text: &str) -> Result<Secret, SecretError> {
        if let Some(hash) = Md5Hash::parse(text) {
            return Ok(Secret::Md5(hash));
        }
        ScramVerifier::parse(text).map(Secret::Scram)
    }

    /// From a config: a verifier or an md5 hash in PostgreSQL's form, else a plain password. What only
    /// looks like a verifier is an error: taken as a password it would lock its user out silently.
    pub fn from_config(text: &str) -> Result<Secret, SecretError> {
        match Secret::from_rolpassword(text) {
            Err(SecretError::Unrecognized) if text.is_empty() => Err(SecretError::Empty),
            Err(SecretError::Unrecognized) => Ok(Secret::Plain(Password::new(text))),
            other => other,
        }
    }
}

/// What we log in to servers with, in a user's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerCredential {
    /// The password itself: good for every method.
    Password(Password),
    /// SCRAM keys recovered from a client's proof: good for SCRAM with the same salt and iterations.
    ClientKey {
        /// Proves the client.
        client_key: Key,
        /// Checks the server.
        server_key: Key,
        /// SHA-256 of the client key.
        stored_key: Key,
        /// The salt that the keys were derived for.
        salt: Vec<u8>,
        /// The iterations that the keys were derived for.
        iterations: u32,
    },
    /// An md5 hash: good for md5 only.
    Md5Hash(Md5Hash),
    /// Nothing: good for servers that trust us, or know us by our certificate.
    None,
}

#[cfg(test)]
mod tests;
