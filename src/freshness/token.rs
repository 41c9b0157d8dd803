//! A position that leaves the process: what a session has written and seen, for its next connection.
//!
//! `v1.<system identifier>.<timeline>.<lsn>` is what pgweir hands out; `<timeline>/<lsn>`, which says
//! nothing about the system, is taken too. Applications treat both as opaque.

use crate::lsn::{Lsn, TimelineId, WalPosition};
use crate::moment::Moment;
use std::fmt;
use std::str::FromStr;

/// No token is longer than this, in bytes: 3 + 20 + 1 + 10 + 1 + 17.
pub const TOKEN_MAX: usize = 52;

/// Everything up to this position is to be visible.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    /// PostgreSQL's system identifier; `None` in the short form, which is not checked against it.
    pub system: Option<u64>,
    /// The position.
    pub at: WalPosition,
}

/// The text is not a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a token: expected v1.<system identifier>.<timeline>.<lsn> or <timeline>/<lsn>")]
pub struct InvalidToken;

impl Token {
    /// Is everything that `earlier` asks for asked for by `self` too? `None`: two timelines or two
    /// systems cannot be compared by their tokens alone.
    pub fn covers(&self, earlier: &Token) -> Option<bool> {
        let same_system = match (self.system, earlier.system) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let same = same_system && self.at.timeline == earlier.at.timeline;
        same.then_some(self.at.lsn >= earlier.at.lsn)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WalPosition { timeline, lsn } = self.at;
        match self.system {
            Some(system) => write!(f, "v1.{system}.{timeline}.{lsn}"),
            None => write!(f, "{timeline}/{lsn}"),
        }
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Token, InvalidToken> {
        if text.len() > TOKEN_MAX {
            return Err(InvalidToken);
        }
        let (system, timeline, lsn) = match text.strip_prefix("v1.") {
            Some(rest) => {
                let (system, rest) = rest.split_once('.').ok_or(InvalidToken)?;
                let (timeline, lsn) = rest.split_once('.').ok_or(InvalidToken)?;
                (Some(decimal(system)?), timeline, lsn)
            }
            None => {
                let (timeline, lsn) = text.split_once('/').ok_or(InvalidToken)?;
                (None, timeline, lsn)
            }
        };
        let timeline = u32::try_from(decimal(timeline)?).map_err(|_| InvalidToken)?;
        let lsn: Lsn = lsn.parse().map_err(|_| InvalidToken)?;
        // PostgreSQL has neither a timeline 0 nor a system 0.
        if timeline == 0 || system == Some(0) {
            return Err(InvalidToken);
        }
        Ok(Token { system, at: WalPosition { timeline: TimelineId(timeline), lsn } })
    }
}

fn decimal(digits: &str) -> Result<u64, InvalidToken> {
    match !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().map_err(|_| InvalidToken),
        false => Err(InvalidToken),
    }
}

/// What the samples of the present primary say about a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// What was inserted by then contains it: the moment to ask of a replica.
    By(Moment),
    /// It is newer than the newest sample, which was sent then. One that is sent from now on covers
    /// it, unless there is no such position.
    Newer {
        /// When the newest sample was sent.
        than: Moment,
    },
    /// No primary has been sampled yet.
    NoSample,
    /// It belongs to another system; this one is given.
    Foreign(u64),
    /// The cluster goes on on this newer timeline, and nothing proves that it has the position.
    LeftBehind(TimelineId),
    /// It lies behind the fork of a newer timeline: the cluster has lost it.
    Lost {
        /// The timeline that goes on.
        next: TimelineId,
        /// Where it forked.
        fork: Lsn,
    },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(text: &str) -> Token {
        text.parse().unwrap()
    }

    #[test]
    fn both_forms_are_read_and_printed() {
        for text in ["1/0/3000060", "v1.7301234567890123456.2.16/B374D848", "4294967295/FFFFFFFF/FFFFFFFF"] {
            assert_eq!(token(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        let long = format!("v1.1.1.{}/0", "0".repeat(60));
        let malformed = [
            "",
            "/",
            "1",
            "1/",
            "1/0",
            "0/0/1",
            "-1/0/1",
            "+1/0/1",
            "1/0/1/",
            "1/0/1 ",
            " 1/0/1",
            "v1",
            "v1.",
            "v1.1.1",
            "v1.1.1.0",
            "v1.0.1.0/1",
            "v1.1.0.0/1",
            "v1..1.0/1",
            "v2.1.1.0/1",
            "v1.1.1.0/1.",
            "4294967296/0/1",
            "v1.18446744073709551616.1.0/1",
            "1/0/123456789",
            "1/g/1",
            "'1/0/1'",
            "1/0/1;",
            long.as_str(),
        ];
        for text in malformed {
            assert_eq!(text.parse::<Token>(), Err(InvalidToken), "{text}");
        }
    }

    #[test]
    fn tokens_compare_on_one_timeline_of_one_system_only() {
        assert_eq!(token("1/0/20").covers(&token("1/0/10")), Some(true));
        assert_eq!(token("1/0/10").covers(&token("1/0/20")), Some(false));
        assert_eq!(token("2/0/20").covers(&token("1/0/10")), None);
        assert_eq!(token("v1.7.1.0/20").covers(&token("1/0/10")), Some(true));
        assert_eq!(token("v1.7.1.0/20").covers(&token("v1.8.1.0/10")), None);
    }

    proptest! {
        #[test]
        fn a_printed_token_is_read_back(system in proptest::option::of(1_u64..), timeline in 1_u32.., lsn: u64) {
            let token = Token { system, at: WalPosition { timeline: TimelineId(timeline), lsn: Lsn(lsn) } };
            let text = token.to_string();
            prop_assert!(text.len() <= TOKEN_MAX);
            prop_assert_eq!(text.parse::<Token>(), Ok(token));
        }

        #[test]
        fn no_text_is_read_as_something_that_prints_differently(text in "(v1\\.)?[0-9a-fA-F./+ -]{0,40}") {
            if let Ok(token) = text.parse::<Token>() {
                // Leading zeros and letters in either case are PostgreSQL's freedom, too.
                let again: Token = token.to_string().parse().unwrap();
                prop_assert_eq!(again, token);
            }
        }

        #[test]
        fn covering_is_an_order(a: u64, b: u64, c: u64) {
            let at = |lsn| Token { system: None, at: WalPosition { timeline: TimelineId(1), lsn: Lsn(lsn) } };
            let (a, b, c) = (at(a), at(b), at(c));
            prop_assert_eq!(a.covers(&a), Some(true));
            prop_assert!(a.covers(&b) == Some(true) || b.covers(&a) == Some(true));
            if a.covers(&b) == Some(true) && b.covers(&c) == Some(true) {
                prop_assert_eq!(a.covers(&c), Some(true));
            }
        }
    }
}
