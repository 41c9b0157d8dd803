//! What a client has been told of its run-time parameters: it hears news, and nothing twice.

use std::sync::Arc;

/// Names and values, in a server's order.
pub type Reported = Arc<Vec<(String, String)>>;

/// See the file's head. The greeting is shared by all sessions that started alike; a session has of its
/// own only what differs from it.
#[derive(Debug, Default)]
pub struct Told {
    at_login: Reported,
    since: Vec<Change>,
}

/// A name and its value now.
type Change = (Box<[u8]>, Box<[u8]>);

impl Told {
    /// A client that has just been greeted with these.
    pub fn new(at_login: Reported) -> Told {
        Told { at_login, since: Vec::new() }
    }

    /// What the greeting said.
    pub fn at_login(&self, name: &[u8]) -> Option<&[u8]> {
        let known = self.at_login.iter().find(|(known, _)| known.as_bytes() == name);
        known.map(|(_, value)| value.as_bytes())
    }

    /// What the client was told last.
    pub fn last(&self, name: &[u8]) -> Option<&[u8]> {
        let since = self.since.iter().find(|(known, _)| **known == *name);
        since.map(|(_, value)| &**value).or_else(|| self.at_login(name))
    }

    /// It is about to be told this. False: it knows already.
    pub fn tell(&mut self, name: &[u8], value: &[u8]) -> bool {
        if self.last(name) == Some(value) {
            return false;
        }
        self.since.retain(|(known, _)| **known != *name);
        if self.at_login(name) != Some(value) {
            self.since.push((name.into(), value.into()));
        }
        true
    }

    /// Keeps no more room than it needs.
    pub fn shrink(&mut self) {
        self.since.shrink_to_fit();
    }

    /// What the greeting said of those `names` of which the client has heard something else since.
    pub fn outdated(&self, names: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let changed = |name: &str| self.since.iter().any(|(known, _)| **known == *name.as_bytes());
        (self.at_login.iter()).filter(|(name, _)| changed(name) && names(name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_told_once_and_the_greeting_is_remembered() {
        let greeting = vec![("TimeZone".to_owned(), "UTC".to_owned())];
        let mut told = Told::new(Arc::new(greeting.clone()));
        assert!(!told.tell(b"TimeZone", b"UTC"));
        assert!(told.tell(b"TimeZone", b"Asia/Tokyo"));
        assert!(!told.tell(b"TimeZone", b"Asia/Tokyo"));
        assert!(told.tell(b"search_path", b"a"));
        assert_eq!(told.outdated(|_| true), greeting);
        assert!(told.tell(b"TimeZone", b"UTC"));
        assert_eq!((told.last(b"TimeZone"), told.last(b"search_path")), (Some(&b"UTC"[..]), Some(&b"a"[..])));
        assert!(told.outdated(|_| true).is_empty());
    }
}
