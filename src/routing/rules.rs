//! Rules of the configuration: who matches, and what a rule asks of a request. The part of a match that
//! depends on the statement alone is `sql::subjects`; here is what depends on the session, the choice of
//! the first rule, and its effect.
//!
//! A rule never weakens what a statement needs: what is not a read goes to the primary, whatever a rule
//! says. Between a rule and a wish of the client (`SET pgweir.…`, startup option, comment) the stricter
//! wins: the primary before a replica, the higher level, the smaller staleness.

use crate::cluster::view::{ClusterView, NodeView};
use crate::routing::balance::bit;
use crate::routing::request::Consistency;
use crate::sql::class::Route;
use std::sync::Arc;
use std::time::Duration;

/// So many rules, so that they, `always_fresh` and `may_be_stale` fit into a bit set.
pub const RULES_MAX: usize = 62;

/// `max_staleness: off` in a rule.
pub const UNBOUNDED: Duration = Duration::MAX;

/// A text with `*` for any run of characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

impl Pattern {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Pattern {
        Pattern(text.into())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does all of `text` match?
    pub fn matches(&self, text: &str) -> bool {
        let mut pieces = self.0.split('*');
        let Some(rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        // The earliest place of each piece leaves the most room for the others.
        let middle = pieces.try_fold(rest, |rest, piece| rest.split_once(piece).map(|(_, behind)| behind));
        middle.is_some_and(|rest| rest.ends_with(last))
    }
}

/// Where a read goes when no replica with the tag may serve it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fallback {
    /// To another replica, else as `on_lag` says.
    #[default]
    Replica,
    /// To the primary.
    Primary,
    /// Nowhere: it fails.
    Error,
}

/// What a rule asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Effect {
    /// The primary, or a replica.
    pub route: Route,
    /// A replica that carries this tag.
    pub tag: Option<Arc<str>>,
    /// Where to, when none does.
    pub fallback: Fallback,
    /// Another level than the policy's.
    pub consistency: Option<Consistency>,
    /// Another bound than the policy's, larger or smaller.
    pub max_staleness: Option<Duration>,
}

impl Effect {
    /// Does it ask for a replica?
    pub fn wants_replica(&self) -> bool {
        self.route == Route::Replica || self.tag.is_some()
    }

    /// What it means for a request now.
    pub fn asked(&self, view: &ClusterView) -> Asked {
        let carries = |node: &&NodeView, tag: &str| node.tags.iter().any(|other| **other == *tag);
        let tagged = self.tag.as_deref().map(|tag| {
            let nodes = view.nodes.iter().filter(|node| carries(node, tag));
            nodes.fold(0, |nodes, node| nodes | bit(node.id))
        });
        Asked { route: self.route, tagged, fallback: self.fallback, max_staleness: self.max_staleness }
    }
}

/// A rule's effect on one request, as `decide` sees it. (Its level is part of `Request::consistency`.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// The primary, or a replica.
    pub route: Route,
    /// The nodes that carry the tag, as a bit set of node ids. `None`: no tag is asked for.
    pub tagged: Option<u64>,
    /// Where to, when none of them may serve.
    pub fallback: Fallback,
    /// In place of the policy's bound.
    pub max_staleness: Option<Duration>,
}

impl Asked {
    /// To the primary.
    pub const PRIMARY: Asked =
        Asked { route: Route::Primary, tagged: None, fallback: Fallback::Replica, max_staleness: None };

    /// Does it ask for a replica?
    pub fn wants_replica(&self) -> bool {
        self.route == Route::Replica || self.tagged.is_some()
    }

    /// May replicas without the tag serve, too?
    pub fn may_go_beyond_tag(&self) -> bool {
        self.tagged.is_some() && self.fallback == Fallback::Replica
    }

    /// May this replica serve it? One that is delayed on purpose only when it is asked for by its tag.
    pub fn admits(&self, node: &NodeView) -> bool {
        match self.tagged {
            Some(tagged) => tagged & bit(node.id) != 0,
            None => !node.standby.is_delayed(),
        }
    }

    /// Does it allow more staleness than the policy, and so more lag?
    pub fn outbids(&self, max_staleness: Duration) -> bool {
        self.max_staleness.is_some_and(|bound| bound > max_staleness)
    }
}

/// Where a rule stands in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// `routing.always_fresh`, which comes before all rules.
    AlwaysFresh,
    /// `routing.rules`, its number (from 1) and line.
    Rule(usize, usize),
    /// `routing.may_be_stale`, which comes behind them.
    MayBeStale,
}

/// One rule, but for what it asks of the statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Where it stands.
    pub origin: Origin,
    /// The name that the client logged in with.
    pub user: Option<Pattern>,
    /// The database as the client named it.
    pub database: Option<Pattern>,
    /// `application_name`.
    pub application_name: Option<Pattern>,
    /// Tags in comments: all of them.
    pub comment: Vec<(String, Pattern)>,
    /// What it matches, in the file's words.
    pub matches: String,
    /// What it asks for.
    pub effect: Effect,
}

impl Rule {
    fn is_for(&self, session: &Who<'_>) -> bool {
        let fits = |pattern: &Option<Pattern>, text| pattern.as_ref().is_none_or(|p| p.matches(text));
        fits(&self.user, session.user)
            && fits(&self.database, session.database)
            && fits(&self.application_name, session.application_name)
    }

    /// Do comments with these tags satisfy it?
    pub fn is_tagged(&self, tags: &[(String, String)]) -> bool {
        self.comment
            .iter()
            .all(|(key, pattern)| tags.iter().any(|(name, value)| name == key && pattern.matches(value)))
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.origin {
            Origin::AlwaysFresh => f.write_str("routing.always_fresh")?,
            Origin::MayBeStale => f.write_str("routing.may_be_stale")?,
            Origin::Rule(number, line) => write!(f, "routing.rules, number {number} (line {line})")?,
        }
        write!(f, ": {}", self.effect)
    }
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Effect { route, tag, fallback, consistency, max_staleness } = self;
        let bound = |bound: Duration| match bound {
            UNBOUNDED => "off".to_owned(),
            bound => format!("{bound:?}"),
        };
        let words = [
            match route {
                Route::Auto => None,
                Route::Primary => Some("route primary".to_owned()),
                Route::Replica => Some("route replica".to_owned()),
            },
            tag.as_ref().map(|tag| format!("tag {tag}")),
            match fallback {
                Fallback::Replica => None,
                Fallback::Primary => Some("fallback primary".to_owned()),
                Fallback::Error => Some("fallback error".to_owned()),
            },
            consistency.map(|level| format!("consistency {level:?}").to_lowercase()),
            max_staleness.map(|limit| format!("max_staleness {}", bound(limit))),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// A session, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The name that the client logged in with.
    pub user: &'a str,
    /// The database as it named it.
    pub database: &'a str,
    /// `application_name`.
    pub application_name: &'a str,
}

/// All rules, in the order of their bits: the first that matches counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    list: Vec<Rule>,
}

impl Rules {
    /// Of at most 64.
    pub fn new(list: Vec<Rule>) -> Rules {
        Rules { list }
    }

    /// The rules.
    pub fn list(&self) -> &[Rule] {
        &self.list
    }

    /// The rules that a session may meet, as a bit set.
    pub fn of_session(&self, who: &Who<'_>) -> u64 {
        let meant = self.list.iter().take(64).enumerate().filter(|(_, rule)| rule.is_for(who));
        meant.fold(0, |bits, (at, _)| bits | 1 << at)
    }

    /// The first of `candidates` whose comment tags are there. `tags` is asked only where one has any.
    pub fn first(&self, candidates: u64, tags: impl FnOnce() -> Vec<(String, String)>) -> Option<&Rule> {
        let (mut rest, mut tags, mut read) = (candidates, Some(tags), None);
        while rest != 0 {
            let rule = self.list.get(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            if rule.comment.is_empty() {
                return Some(rule);
            }
            if let Some(tags) = tags.take() {
                read = Some(tags());
            }
            if rule.is_tagged(read.as_deref().unwrap_or_default()) {
                return Some(rule);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
