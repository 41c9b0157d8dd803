//! PostgreSQL's md5 authentication: md5(md5(password + user) + salt), in hexadecimal.
//!
//! It is here because old clusters use it. The hash is as good as the password to whoever reads it.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use crate::auth::secret::{Md5Hash, Password};

/// What PostgreSQL stores for a password: hex of md5(password + user).
pub fn hash(password: &Password, user: &str) -> Md5Hash {
    Md5Hash(digest(&[password.as_bytes(), user.as_bytes()]))
}

/// What a client answers to a salt: `md5` and 32 hexadecimal digits.
pub fn response(hash: &Md5Hash, salt: [u8; 4]) -> [u8; 35] {
    let mut out = *b"md500000000000000000000000000000000";
    out[3..].copy_from_slice(&digest(&[&hash.0, &salt]));
    out
}

/// Is `answer` (without a trailing NUL) right? In constant time.
pub fn verify(hash: &Md5Hash, salt: [u8; 4], answer: &[u8]) -> bool {
    response(hash, salt).as_slice().ct_eq(answer).into()
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    let mut out = [0u8; 32];
    for (pair, byte) in out.chunks_exact_mut(2).zip(md5.finalize()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_what_postgresql_stores() {
        // Written by PostgreSQL 15 for role old
        let hash = hash(&Password::new("secret"), "old");
        assert_eq!(Some(hash), Md5Hash::parse("md57cb133e596658708079ed4cfaaf64462"));
    }

    #[test]
    fn only_the_answer_to_this_salt_is_right() {
        let hash = hash(&Password::new("secret"), "old");
        let answer = response(&hash, [1, 2, 3, 4]);
        assert!(verify(&hash, [1, 2, 3, 4], &answer));
        assert!(!verify(&hash, [1, 2, 3, 5], &answer));
        assert!(!verify(&hash, [1, 2, 3, 4], &answer[..34]));
        assert!(!verify(&hash, [1, 2, 3, 4], b""));
    }
}
