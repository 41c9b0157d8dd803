//! What Patroni said, where names led, and the evidence for people: the picture's other inputs.

use crate::cluster::evidence::{self, Line, Witness};
use crate::cluster::patroni::Testimony;
use crate::cluster::resolver::Word;
use crate::cluster::roles::Claim;
use crate::cluster::view::{NodeState, NodeView};
use crate::moment::Moment;
use crate::monitor::picture::{Outcome, Picture};
use crate::monitor::runs::Runs;
use crate::node::{NodeId, Role};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Patroni's newest answer.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// Is Patroni asked at all, and how long does an answer count?
    trusted_for: Option<Duration>,
    testimony: Option<(Testimony, Word)>,
    error: Option<Arc<str>>,
}

impl Hearing {
    /// What it says, if that counts at `now`.
    pub(super) fn word_at(&self, now: Moment) -> Option<&Word> {
        let (_, word) = self.testimony.as_ref()?;
        self.trusted_for.filter(|&trusted_for| word.counts(now, trusted_for)).map(|_| word)
    }
}

impl Picture {
    /// Patroni is asked, and its answers count for so long; or it is not.
    pub fn hear_patroni(&mut self, trusted_for: Option<Duration>) {
        self.hearing.trusted_for = trusted_for;
        if trusted_for.is_none() {
            self.hearing = Hearing::default();
        }
    }

    /// Patroni answered. Besides what is to be done: whom to probe at once, because there is news of them.
    pub fn testified(&mut self, testimony: Testimony, now: Moment) -> (Outcome, Vec<NodeId>) {
        self.now = self.now.max(now);
        let word = Word::of(&testimony, |name| self.node_of(&testimony, name));
        let before = self.hearing.testimony.as_ref().map(|(_, word)| word.leader);
        let mut news = Vec::new();
        if before != Some(word.leader) {
            news.extend(self.view.nodes.iter().map(|node| node.id));
        }
        self.hearing.testimony = Some((testimony, word));
        self.hearing.error = None;
        self.settle();
        (Outcome { view: self.refresh(now), ..Outcome::default() }, news)
    }

    /// Does what Patroni said last still count? `None`: it is not asked.
    pub fn patroni_counts(&self, now: Moment) -> Option<bool> {
        self.hearing.trusted_for.map(|_| self.hearing.word_at(now).is_some())
    }

    /// Patroni did not answer.
    pub fn patroni_failed(&mut self, error: &str, now: Moment) -> Outcome {
        self.now = self.now.max(now);
        if self.hearing.error.as_deref() != Some(error) {
            self.hearing.error = Some(Arc::from(error));
        }
        self.settle();
        Outcome { view: self.refresh(now), ..Outcome::default() }
    }

    /// Is the leader that Patroni names the primary that the nodes have proven?
    pub fn agrees_with(&self, testimony: &Testimony) -> bool {
        let leader = testimony.leader().and_then(|leader| self.node_of(testimony, &leader.name));
        leader.is_some() && leader == self.standing.primary
    }

    /// The node that a member is: by its name, else by where it is.
    fn node_of(&self, testimony: &Testimony, member: &str) -> Option<NodeId> {
        let there = |node: &&NodeView| node.state != NodeState::Removed;
        let named = self.view.nodes.iter().filter(there).find(|node| *node.name == *member);
        if let Some(node) = named {
            return Some(node.id);
        }
        let member = testimony.members.iter().find(|other| *other.name == *member)?;
        let (host, port) = (member.host.as_deref()?, member.port?);
        let at = |node: &&NodeView| {
            let same_host = *node.host == *host || node.address.is_some_and(|ip| ip.to_string() == host);
            same_host && node.port == port
        };
        self.view.nodes.iter().filter(there).find(at).map(|node| node.id)
    }

    /// Is `node` where it was when its place had this number? Who has measured it elsewhere has measured another
    /// server.
    pub fn is_at(&self, node: NodeId, place: u64) -> bool {
        self.view.node(node).is_some_and(|node| node.place == place)
    }

    /// `node` was reached at this address of its name. Another one than before: perhaps another server.
    pub fn reached(&mut self, node: NodeId, address: Option<IpAddr>, now: Moment) -> Outcome {
        self.now = self.now.max(now);
        let Some((tracked, view)) = self.entry(node) else { return Outcome::default() };
        if view.address == address || tracked.health.state() == NodeState::Removed {
            return Outcome::default();
        }
        if view.address.is_some() {
            tracked.start_over(&view.live);
            view.place = view.live.place();
        }
        view.address = address;
        self.settle();
        self.view.generation += 1;
        self.redraw(Moment::NEVER);
        Outcome { view: Some(self.view.clone()), ..Outcome::default() }
    }

    /// The runs of `node` that are known.
    pub(in crate::monitor) fn runs(&self, node: NodeId) -> Option<&Runs> {
        self.tracked.get(node.index()).map(|tracked| &tracked.runs)
    }

    /// The primary, and then the standbys that answer and are proven to be on its branch; nobody without a primary.
    pub fn on_branch(&self) -> Vec<NodeId> {
        let Some(primary) = self.standing.primary else { return Vec::new() };
        let is_up = |claim: &Claim| {
            claim.role == Some(Role::Replica)
                && self.standing.refusal(claim).is_none()
                && self.view.node(claim.node).is_some_and(|node| node.state == NodeState::Up)
        };
        let standbys = self.claims().filter(is_up).map(|claim| claim.node);
        std::iter::once(primary).chain(standbys).collect()
    }

    /// Who said what, how long ago, and what it led to.
    pub fn evidence(&self, now: Moment) -> Vec<Line> {
        let nodes = self.tracked.iter().enumerate().zip(&self.view.nodes);
        let there = nodes.filter(|(_, view)| view.state != NodeState::Removed);
        let witnesses: Vec<Witness<'_>> = there
            .map(|((index, tracked), view)| Witness {
                name: &view.name,
                claim: tracked.claim(view.id, self.has_twin(index)),
                state: view.state,
                asked: tracked.answered,
                position: tracked.position,
                upstream: tracked.standby.upstream.as_ref(),
                error: view.last_error.as_deref(),
                changed: tracked.changed,
            })
            .collect();
        let hearing = self.hearing.trusted_for.map(|_| evidence::Hearing {
            testimony: self.hearing.testimony.as_ref().map(|(testimony, word)| (testimony, word)),
            counts: self.hearing.word_at(now).is_some(),
            error: self.hearing.error.as_deref(),
        });
        evidence::lines(&self.standing, &witnesses, hearing, now)
    }
}

#[cfg(test)]
mod tests;
