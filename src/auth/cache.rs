//! What `auth.query` has told us of users, for a while: known users, and, for a shorter while, names
//! that nobody has. Two caches, so that invented names cannot push real users out.

use std::time::Duration;

use quick_cache::sync::Cache;

use crate::auth::secret::Secret;
use crate::moment::Moment;

/// Longer names are asked for each time: PostgreSQL's own have at most 63 bytes.
const MAX_NAME_BYTES: usize = 255;

/// How much is kept, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SecretCacheLimits {
    /// Known users.
    pub known: usize,
    /// Names that nobody has.
    pub unknown: usize,
    /// How long a secret is believed. A changed password is noticed sooner: see [`SecretCache::may_ask_again`].
    pub known_for: Duration,
    /// How long a name is believed to be nobody's.
    pub unknown_for: Duration,
    /// The least time between two questions about one user that wrong passwords can cause.
    pub ask_again_after: Duration,
}

impl Default for SecretCacheLimits {
    fn default() -> SecretCacheLimits {
        SecretCacheLimits {
            known: 4096,
            unknown: 1024,
            known_for: Duration::from_secs(60),
            unknown_for: Duration::from_secs(5),
            ask_again_after: Duration::from_secs(1),
        }
    }
}

/// An answer of the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cached {
    /// The user has this secret.
    Known {
        /// What the server said.
        secret: Secret,
        /// When it was asked.
        asked: Moment,
    },
    /// There was no such user, or it had no password.
    Unknown {
        /// When the server was asked.
        asked: Moment,
    },
    /// Ask the server.
    Missing,
}

#[derive(Clone, Debug)]
struct Entry {
    secret: Secret,
    asked: Moment,
}

/// The answers of `auth.query` by user name. One for each cluster: roles are the cluster's, not a database's.
#[derive(Debug)]
pub struct SecretCache {
    known: Cache<String, Entry>,
    unknown: Cache<String, Moment>,
    limits: SecretCacheLimits,
}

impl SecretCache {
    /// An empty cache.
    pub fn new(limits: SecretCacheLimits) -> SecretCache {
        SecretCache {
            known: Cache::new(limits.known.max(1)),
            unknown: Cache::new(limits.unknown.max(1)),
            limits,
        }
    }

    /// What is known of `user` at `now`.
    pub fn look_up(&self, user: &str, now: Moment) -> Cached {
        if let Some(Entry { secret, asked }) = self.known.get(user) {
            if now.since(asked) < self.limits.known_for {
                return Cached::Known { secret, asked };
            }
            self.known.remove(user);
        }
        if let Some(asked) = self.unknown.get(user) {
            if now.since(asked) < self.limits.unknown_for {
                return Cached::Unknown { asked };
            }
            self.unknown.remove(user);
        }
        Cached::Missing
    }

    /// The server's answer (`None`: no such user) to a question that was sent at `asked`. An answer that
    /// is older than what is held is dropped: answers of two servers may overtake each other.
    pub fn store(&self, user: &str, answer: Option<Secret>, asked: Moment) {
        let held = match self.look_up(user, asked) {
            Cached::Known { asked, .. } | Cached::Unknown { asked } => asked,
            Cached::Missing => Moment::NEVER,
        };
        if user.len() > MAX_NAME_BYTES || asked < held {
            return;
        }
        match answer {
            Some(secret) => {
                self.unknown.remove(user);
                self.known.insert(user.to_owned(), Entry { secret, asked });
            }
            None => {
                self.known.remove(user);
                self.unknown.insert(user.to_owned(), asked);
            }
        }
    }

    /// A login failed with an answer of `asked`: has enough time passed to ask the server once more? The
    /// password, or the user, may be newer than the answer. The bound keeps wrong passwords from becoming
    /// a load for the server.
    pub fn may_ask_again(&self, asked: Moment, now: Moment) -> bool {
        now.since(asked) >= self.limits.ask_again_after
    }

    /// Forgets everything (`RELOAD`).
    pub fn clear(&self) {
        self.known.clear();
        self.unknown.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(1).plus(Duration::from_secs(seconds))
    }

    fn secret(text: &str) -> Secret {
        Secret::from_config(text).unwrap()
    }

    fn cache() -> SecretCache {
        SecretCache::new(SecretCacheLimits { known: 8, unknown: 8, ..SecretCacheLimits::default() })
    }

    #[test]
    fn an_answer_is_believed_for_its_time_and_no_longer() {
        let cache = cache();
        assert_eq!(cache.look_up("app", at(0)), Cached::Missing);
        cache.store("app", Some(secret("x")), at(0));
        assert_eq!(cache.look_up("app", at(59)), Cached::Known { secret: secret("x"), asked: at(0) });
        assert_eq!(cache.look_up("app", at(60)), Cached::Missing);
        cache.store("nobody", None, at(0));
        assert_eq!(cache.look_up("nobody", at(4)), Cached::Unknown { asked: at(0) });
        assert_eq!(cache.look_up("nobody", at(5)), Cached::Missing);
    }

    #[test]
    fn a_newer_answer_replaces_an_older_one_and_never_the_other_way() {
        let cache = cache();
        cache.store("app", None, at(2));
        cache.store("app", Some(secret("new")), at(3));
        assert_eq!(cache.look_up("app", at(3)), Cached::Known { secret: secret("new"), asked: at(3) });
        cache.store("app", Some(secret("old")), at(1));
        cache.store("app", None, at(2));
        assert_eq!(cache.look_up("app", at(3)), Cached::Known { secret: secret("new"), asked: at(3) });
        cache.store("app", None, at(4));
        assert_eq!(cache.look_up("app", at(4)), Cached::Unknown { asked: at(4) });
    }

    #[test]
    fn invented_names_do_not_push_users_out() {
        let cache = cache();
        cache.store("app", Some(secret("x")), at(0));
        for name in 0..1000 {
            cache.store(&name.to_string(), None, at(0));
        }
        assert!(matches!(cache.look_up("app", at(1)), Cached::Known { .. }));
        assert!(cache.unknown.len() <= 8);
        cache.store(&"x".repeat(300), None, at(0));
        assert_eq!(cache.look_up(&"x".repeat(300), at(0)), Cached::Missing);
    }

    #[test]
    fn wrong_passwords_ask_the_server_at_most_once_in_a_while() {
        let cache = cache();
        assert!(!cache.may_ask_again(at(5), at(5)));
        assert!(cache.may_ask_again(at(5), at(6)));
    }

    #[test]
    fn a_reload_forgets_everything() {
        let cache = cache();
        cache.store("app", Some(secret("x")), at(0));
        cache.store("nobody", None, at(0));
        cache.clear();
        assert_eq!(cache.look_up("app", at(0)), Cached::Missing);
        assert_eq!(cache.look_up("nobody", at(0)), Cached::Missing);
    }
}
