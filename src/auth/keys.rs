//! SCRAM keys: how they are derived, and a bounded cache so that PBKDF2 runs once.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac, pbkdf2};
use quick_cache::sync::Cache;
use zeroize::Zeroize;

use crate::auth::secret::{Key, Password, ScramVerifier};

/// The three keys of one password, salt and iteration count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScramKeys {
    /// Proves the client.
    pub client_key: Key,
    /// SHA-256 of the client key.
    pub stored_key: Key,
    /// Proves the server.
    pub server_key: Key,
}

impl ScramKeys {
    /// PBKDF2 over the SASLprep'd password: about 0.2 µs for each iteration.
    pub fn derive(password: &Password, salt: &[u8], iterations: u32) -> ScramKeys {
        let mut salted = [0u8; 32];
        // Zero iterations never get here (every parser refuses them); one is the nearest meaning.
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        let mut prepared = prepare(password.as_bytes()).into_owned();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, &prepared, &mut salted);
        prepared.zeroize();
        let client_key = hmac(&salted, b"Client Key");
        let server_key = hmac(&salted, b"Server Key");
        salted.zeroize();
        ScramKeys { stored_key: sha256(&client_key.0), client_key, server_key }
    }

    /// The verifier that a server would store.
    pub fn verifier(&self, salt: &[u8], iterations: u32) -> ScramVerifier {
        ScramVerifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: self.stored_key.clone(),
            server_key: self.server_key.clone(),
        }
    }
}

/// SASLprep (RFC 4013); what cannot be prepared is used as it is, as PostgreSQL does.
fn prepare(password: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(password) else { return Cow::Borrowed(password) };
    if text.chars().any(is_prohibited) {
        return Cow::Borrowed(password);
    }
    match stringprep::saslprep(text) {
        Ok(Cow::Owned(prepared)) if !prepared.is_empty() => Cow::Owned(prepared.into_bytes()),
        _ => Cow::Borrowed(password),
    }
}

/// PostgreSQL looks for what is prohibited *before* it normalizes, where RFC 4013 does so afterwards: it
/// matters for characters that normalization would remove (U+0340).
fn is_prohibited(c: char) -> bool {
    use stringprep::tables;
    let mapped = tables::non_ascii_space_character(c) || tables::commonly_mapped_to_nothing(c);
    !mapped
        && (tables::non_ascii_control_character(c)
            || tables::private_use(c)
            || tables::non_character_code_point(c)
            || tables::inappropriate_for_plain_text(c)
            || tables::inappropriate_for_canonical_representation(c)
            || tables::change_display_properties_or_deprecated(c)
            || tables::tagging_character(c)
            || tables::unassigned_code_point(c))
}

/// HMAC-SHA-256.
pub(crate) fn hmac(key: &[u8], data: &[u8]) -> Key {
    hmac_parts(key, &[data])
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn hmac_parts(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = [0u8; 32];
    out.copy_from_slice(context.sign().as_ref());
    Key(out)
}

/// SHA-256.
pub(crate) fn sha256(data: &[u8]) -> Key {
    let mut out = [0u8; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    Key(out)
}

/// A secret of this process, made once at the start from a good random source. It keys the cache of
/// derived keys, and makes the salts of plain and of unknown users steady, so that the two look alike.
#[derive(Clone, Debug)]
pub struct ProcessSecret(Key);

impl ProcessSecret {
    /// From 32 random bytes.
    pub fn new(random: [u8; 32]) -> ProcessSecret {
        ProcessSecret(Key(random))
    }

    /// From something secret that several instances share (a monitor's password, say): then an unknown
    /// user has the same salt at all of them, and after a restart, as a real user has. With a random
    /// secret for each process, asking two of them tells the two kinds apart.
    pub fn shared(material: &[u8]) -> ProcessSecret {
        ProcessSecret(hmac(b"pgweir process secret", material))
    }

    /// A keyed hash; `purpose` keeps the uses apart.
    pub(crate) fn hash(&self, purpose: &[u8], data: &[u8]) -> Key {
        hmac_parts(&self.0.0, &[purpose, b"\0", data])
    }
}

/// PBKDF2's results, so that it runs once for each user, salt and password: about 0.7 ms saved at each
/// login. Bounded; the least useful entries go first. Passwords are not stored, only keyed hashes.
#[derive(Debug)]
pub struct DerivedKeys {
    secret: ProcessSecret,
    cache: Cache<[u8; 32], Arc<ScramKeys>>,
}

impl DerivedKeys {
    /// A cache of at most `capacity` entries: more than twice the number of users is plenty.
    pub fn new(capacity: usize, secret: ProcessSecret) -> DerivedKeys {
        DerivedKeys { secret, cache: Cache::new(capacity.max(1)) }
    }

    /// The process's secret.
    pub fn secret(&self) -> &ProcessSecret {
        &self.secret
    }

    /// How many results are held.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Is nothing held?
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// The keys of a password that is known to be right (ours, from the config): derived once, then kept.
    pub fn derive(&self, user: &str, password: &Password, salt: &[u8], iterations: u32) -> Arc<ScramKeys> {
        let key = self.cache_key(user, password, salt, iterations);
        if let Some(keys) = self.cache.get(&key) {
            return keys;
        }
        let keys = Arc::new(ScramKeys::derive(password, salt, iterations));
        self.cache.insert(key, Arc::clone(&keys));
        keys
    }

    /// Does a password that a client sent fit the verifier? Only a right one is kept: wrong ones, of
    /// which there are any number, would push the right ones out.
    pub fn check(&self, user: &str, password: &Password, verifier: &ScramVerifier) -> bool {
        let key = self.cache_key(user, password, &verifier.salt, verifier.iterations);
        let keys = match self.cache.get(&key) {
            Some(keys) => keys,
            None => Arc::new(ScramKeys::derive(password, &verifier.salt, verifier.iterations)),
        };
        let right = keys.stored_key == verifier.stored_key;
        if right {
            self.cache.insert(key, keys);
        }
        right
    }

    /// The verifier of a user whose plain password we hold, with a salt that is this process's own.
    pub fn own_verifier(&self, user: &str, password: &Password) -> ScramVerifier {
        let salt = own_salt(&self.secret, user);
        self.derive(user, password, &salt, OWN_ITERATIONS).verifier(&salt, OWN_ITERATIONS)
    }

    /// Derives a configured user's verifier ahead of the first login. Do it for each plain password when
    /// a config is loaded: otherwise a known user's first login takes PBKDF2's time longer than an
    /// unknown user's, which tells the two apart.
    pub fn warm(&self, user: &str, password: &Password) {
        self.own_verifier(user, password);
    }

    fn cache_key(&self, user: &str, password: &Password, salt: &[u8], iterations: u32) -> [u8; 32] {
        let user_length = user.len().to_be_bytes();
        let salt_length = salt.len().to_be_bytes();
        let rounds = iterations.to_be_bytes();
        let parts: [&[u8]; 7] =
            [b"keys\0", &user_length, user.as_bytes(), &salt_length, salt, &rounds, password.as_bytes()];
        hmac_parts(&self.secret.0.0, &parts).0
    }
}

/// PostgreSQL's default (scram_iterations).
pub(crate) const OWN_ITERATIONS: u32 = 4096;

/// A user's salt in this process; the same for a known and an unknown user.
pub(crate) fn own_salt(secret: &ProcessSecret, user: &str) -> [u8; 16] {
    let mut salt = [0u8; 16];
    salt.copy_from_slice(&secret.hash(b"salt", user.as_bytes()).0[..16]);
    salt
}

#[cfg(test)]
mod tests;
