//! What Patroni says of the cluster: testimony, not measurement.
//!
//! Patroni reads it from its consensus store: who holds the leader's lock is certain there, everything else
//! is what each member wrote about itself, every ten seconds or when its role changed.

use crate::lsn::TimelineId;
use crate::moment::Moment;
use std::sync::Arc;

/// More members than there may be nodes are not looked at.
pub const MEMBERS_MAX: usize = 64;

/// What Patroni calls a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberRole {
    /// It holds the lock; of a standby cluster, too.
    Leader,
    /// Any other: `replica`, `sync_standby`, `quorum_standby`, …
    Follower,
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub name: Arc<str>,
    /// Does it lead?
    pub role: MemberRole,
    /// The role in Patroni's word.
    pub word: Arc<str>,
    /// `running`, `streaming`, `stopped`, `starting`, `crashed`, …
    pub state: Arc<str>,
    /// Where its PostgreSQL is.
    pub host: Option<Arc<str>>,
    /// Its port.
    pub port: Option<u16>,
    /// The timeline that it last wrote down.
    pub timeline: Option<TimelineId>,
    /// Bytes behind the leader, as Patroni reckons.
    pub lag: Option<u64>,
    /// The names of its tags that are true.
    pub tags: Vec<Arc<str>>,
}

impl Member {
    /// Patroni's word for: no reads here.
    pub fn is_without_reads(&self) -> bool {
        self.tags.iter().any(|tag| &**tag == "noloadbalance")
    }
}

/// One answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Testimony {
    /// Taken before the question was sent.
    pub asked: Moment,
    /// Who answered.
    pub endpoint: Arc<str>,
    /// The members.
    pub members: Vec<Member>,
    /// Is automatic failover switched off?
    pub paused: bool,
    /// Another answer, as new as this one, names somebody else as leader (or nobody).
    pub disputed: bool,
}

impl Testimony {
    /// Who holds the lock.
    pub fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.role == MemberRole::Leader)
    }

    /// How new it is: an answer that knows of a newer timeline is newer, whenever it was given. The leader
    /// is the one to know.
    fn age_rank(&self) -> (Option<TimelineId>, Option<TimelineId>) {
        let newest = self.members.iter().filter_map(|member| member.timeline).max();
        (newest, self.leader().and_then(|leader| leader.timeline))
    }
}

/// The newest of several answers. Where two are as new and name different leaders, nobody can tell: it is
/// disputed.
pub fn newest(answers: Vec<Testimony>) -> Option<Testimony> {
    let mut answers = answers.into_iter();
    let mut best = answers.next()?;
    for next in answers {
        match next.age_rank().cmp(&best.age_rank()) {
            std::cmp::Ordering::Greater => best = next,
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                let name = |answer: &Testimony| answer.leader().map(|leader| leader.name.clone());
                best.disputed |= name(&best) != name(&next);
                best.paused |= next.paused;
            }
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests;
