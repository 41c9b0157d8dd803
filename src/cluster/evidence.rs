//! Who said what, how long ago, and what it led to: for people.

use crate::cluster::patroni::{Member, Testimony};
use crate::cluster::resolver::{Leader, Verdict, Word};
use crate::cluster::roles::{Claim, Refusal, Standing};
use crate::cluster::view::NodeState;
use crate::lsn::Lsn;
use crate::moment::Moment;
use crate::node::{NodeId, Role};
use std::sync::Arc;
use std::time::Duration;

/// Where a line comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The node itself, asked over SQL.
    Sql,
    /// Clients' connections to it (`in_hot_standby` changed).
    Connections,
    /// Patroni's REST API.
    Patroni,
    /// Whom the nodes send WAL to (`pg_stat_replication`).
    Replication,
    /// What all of it leads to.
    Verdict,
}

impl Source {
    /// The word in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Sql => "sql",
            Source::Connections => "connections",
            Source::Patroni => "patroni",
            Source::Replication => "replication",
            Source::Verdict => "verdict",
        }
    }
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Whom it is about; `None`: all.
    pub member: Option<Arc<str>>,
    /// Who says it.
    pub source: Source,
    /// What.
    pub says: String,
    /// How old it is; `None`: as old as what it follows from.
    pub age: Option<Duration>,
}

/// What is known of one node.
#[derive(Clone, Debug)]
pub struct Witness<'a> {
    /// Its name.
    pub name: &'a Arc<str>,
    /// What it claims.
    pub claim: Claim,
    /// Does it answer?
    pub state: NodeState,
    /// When the question was sent that it answered last.
    pub asked: Option<Moment>,
    /// Where it was then.
    pub position: Option<Lsn>,
    /// Whom it streams from.
    pub upstream: Option<&'a (Arc<str>, u16)>,
    /// Why it was not reached.
    pub error: Option<&'a str>,
    /// When a client's connection to it reported another `in_hot_standby`.
    pub changed: Option<Moment>,
}

/// What Patroni said, and what that means for the nodes.
#[derive(Clone, Copy, Debug)]
pub struct Hearing<'a> {
    /// Its newest answer; `None`: there was none yet.
    pub testimony: Option<(&'a Testimony, &'a Word)>,
    /// Does it still count?
    pub counts: bool,
    /// Why it does not answer.
    pub error: Option<&'a str>,
}

/// All lines, the verdict last. `hearing`: `None` where nobody asks Patroni.
pub fn lines(
    standing: &Standing,
    witnesses: &[Witness<'_>],
    hearing: Option<Hearing<'_>>,
    now: Moment,
) -> Vec<Line> {
    let mut lines: Vec<Line> = witnesses.iter().flat_map(|witness| of_node(witness, standing, now)).collect();
    if let Some(hearing) = &hearing {
        let word = hearing.testimony.map(|(_, word)| word.leader);
        let is_leader = |claim: &Claim| word == Some(Leader::Node(claim.node));
        let leader = witnesses.iter().map(|witness| &witness.claim).find(|claim| is_leader(claim));
        let is_foreign = leader.is_some_and(|leader| standing.is_foreign(leader));
        of_patroni(hearing, is_foreign, now, &mut lines);
    }
    let says = verdict(standing, witnesses);
    lines.push(Line { member: None, source: Source::Verdict, says, age: None });
    lines
}

fn of_node(witness: &Witness<'_>, standing: &Standing, now: Moment) -> Vec<Line> {
    let refusal = standing.refusal(&witness.claim);
    let measured = match (witness.state, witness.claim.role) {
        (NodeState::Unknown, _) => "not asked yet".to_owned(),
        (_, None) => format!("{}: {}", witness.state.as_str(), witness.error.unwrap_or("role not known")),
        (_, Some(role)) => answer(role, witness, refusal),
    };
    let age = witness.asked.map(|asked| now.since(asked));
    let member = Some(witness.name.clone());
    let mut lines = vec![Line { member: member.clone(), source: Source::Sql, says: measured, age }];
    lines.extend(witness.changed.map(|changed| Line {
        member,
        source: Source::Connections,
        says: "in_hot_standby changed".to_owned(),
        age: Some(now.since(changed)),
    }));
    lines
}

fn answer(role: Role, witness: &Witness<'_>, refusal: Option<Refusal>) -> String {
    let mut words = vec![role.as_str().to_owned()];
    words.push(match witness.claim.timeline {
        Some(timeline) => format!("timeline {timeline}"),
        None => "timeline not proven".to_owned(),
    });
    words.extend(witness.position.map(|position| format!("at {position}")));
    words.extend(witness.claim.system_identifier.map(|system| format!("system {system}")));
    words.extend(witness.upstream.map(|(host, port)| format!("streams from {host}:{port}")));
    if witness.state == NodeState::Suspect {
        words.push("its answer is late".to_owned());
    }
    let said = words.join(", ");
    match refusal {
        Some(refusal) => format!("{said}: {}", refusal.as_str()),
        None => said,
    }
}

fn of_patroni(hearing: &Hearing<'_>, is_foreign: bool, now: Moment, lines: &mut Vec<Line>) {
    let line = |member, says, age| Line { member, source: Source::Patroni, says, age };
    if let Some(error) = hearing.error {
        lines.push(line(None, format!("does not answer: {error}"), None));
    }
    let Some((testimony, word)) = hearing.testimony else {
        if hearing.error.is_none() {
            lines.push(line(None, "not asked yet".to_owned(), None));
        }
        return;
    };
    let age = Some(now.since(testimony.asked));
    for member in &testimony.members {
        lines.push(line(Some(member.name.clone()), of_member(member), age));
    }
    let mut words = vec![format!("answered by {}", testimony.endpoint)];
    words.push(match (word.leader, testimony.leader()) {
        (Leader::Disputed, _) => "another endpoint names another leader".to_owned(),
        (Leader::Stranger, Some(member)) => format!("its leader {} is none of the nodes", member.name),
        (Leader::Node(_), Some(member)) => format!("{} leads", member.name),
        (_, _) => "nobody holds the leader lock".to_owned(),
    });
    words.extend(is_foreign.then(|| "which belongs to another cluster: it does not count".to_owned()));
    words.extend(word.paused.then(|| "paused: its leader does not count".to_owned()));
    words.extend((!hearing.counts).then(|| "too old to count: the nodes alone decide".to_owned()));
    lines.push(line(None, words.join(", "), age));
}

fn of_member(member: &Member) -> String {
    let mut words = vec![member.word.to_string(), member.state.to_string()];
    words.retain(|word| !word.is_empty());
    words.extend(member.timeline.map(|timeline| format!("timeline {timeline}")));
    words.extend(member.lag.map(|lag| format!("lag {lag}")));
    words.extend(member.tags.iter().map(|tag| format!("tag {tag}")));
    words.join(", ")
}

fn verdict(standing: &Standing, witnesses: &[Witness<'_>]) -> String {
    let name = |id: NodeId| {
        let found = witnesses.iter().find(|witness| witness.claim.node == id);
        found.map_or_else(|| id.index().to_string(), |witness| witness.name.to_string())
    };
    let newest = standing.timeline.map_or("unknown".to_owned(), |timeline| timeline.to_string());
    match (standing.verdict(), standing.disowned) {
        (Verdict::One(node), _) => format!("{} is the primary, on timeline {newest}", name(node)),
        (Verdict::Conflict(one, other), _) => format!(
            "conflict: {} and {} both claim to be primary on timeline {newest}; writes stop",
            name(one),
            name(other)
        ),
        (Verdict::None, Some((node, objection))) => {
            format!("no primary, writes wait: {} {}", name(node), objection.as_str())
        }
        (Verdict::None, None) => {
            format!("no primary, writes wait: no node proves to be one (the newest timeline is {newest})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::patroni::MemberRole;
    use crate::cluster::resolver::resolve;
    use crate::lsn::TimelineId;

    fn at(millis: u64) -> Moment {
        Moment(millis * 1_000_000)
    }

    fn claim(node: u16, role: Option<Role>) -> Claim {
        Claim {
            node: NodeId(node),
            role,
            timeline: Some(TimelineId(1)),
            system_identifier: Some(7),
            attempted: true,
            twin: false,
        }
    }

    fn member(name: &str, role: MemberRole, word: &str) -> Member {
        Member {
            name: name.into(),
            role,
            word: word.into(),
            state: "running".into(),
            host: None,
            port: None,
            timeline: Some(TimelineId(1)),
            lag: (role == MemberRole::Follower).then_some(16),
            tags: Vec::new(),
        }
    }

    #[test]
    fn every_source_is_heard_and_the_verdict_comes_last() {
        let names: [Arc<str>; 3] = ["pg1".into(), "pg2".into(), "pg3".into()];
        let upstream = (Arc::from("10.0.0.1"), 5432);
        let witness = |node: usize, role, state| Witness {
            name: &names[node],
            claim: claim(node as u16, role),
            state,
            asked: Some(at(900)),
            position: Some(Lsn(0x3000060)),
            upstream: None,
            error: None,
            changed: None,
        };
        let witnesses = [
            witness(0, Some(Role::Primary), NodeState::Up),
            Witness {
                upstream: Some(&upstream),
                changed: Some(at(950)),
                ..witness(1, Some(Role::Replica), NodeState::Suspect)
            },
            Witness { asked: None, error: Some("refused"), ..witness(2, None, NodeState::Down) },
        ];
        let testimony = Testimony {
            asked: at(600),
            endpoint: "http://p:8008".into(),
            members: vec![
                member("pg1", MemberRole::Follower, "replica"),
                member("pg2", MemberRole::Leader, "leader"),
            ],
            paused: false,
            disputed: false,
        };
        let word = Word::of(&testimony, |name| (name == "pg2").then_some(NodeId(1)));
        let claims = witnesses.each_ref().map(|witness| witness.claim);
        let standing = resolve(&Standing::default(), &claims, Some(&word), at(1000));
        let hearing = Hearing { testimony: Some((&testimony, &word)), counts: true, error: None };
        let said: Vec<String> = lines(&standing, &witnesses, Some(hearing), at(1000))
            .into_iter()
            .map(|line| {
                let age = line.age.map_or(String::new(), |age| format!(" {}ms", age.as_millis()));
                format!(
                    "{} {}{age}: {}",
                    line.member.as_deref().unwrap_or("-"),
                    line.source.as_str(),
                    line.says
                )
            })
            .collect();
        let expected = [
            "pg1 sql 100ms: primary, timeline 1, at 0/3000060, system 7: \
             is a primary, but Patroni names another leader",
            "pg2 sql 100ms: replica, timeline 1, at 0/3000060, system 7, streams from 10.0.0.1:5432, \
             its answer is late",
            "pg2 connections 50ms: in_hot_standby changed",
            "pg3 sql: down: refused",
            "pg1 patroni 400ms: replica, running, timeline 1, lag 16",
            "pg2 patroni 400ms: leader, running, timeline 1",
            "- patroni 400ms: answered by http://p:8008, pg2 leads",
            "- verdict: no primary, writes wait: pg1 is a primary, but Patroni names another leader",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_patroni_that_does_not_answer_is_said_to_be_silent_and_too_old() {
        let hearing = Hearing { testimony: None, counts: false, error: Some("connection refused") };
        let said = lines(&Standing::default(), &[], Some(hearing), at(1));
        assert_eq!(said[0].says, "does not answer: connection refused");
        let testimony = Testimony {
            asked: at(1),
            endpoint: "e".into(),
            members: Vec::new(),
            paused: true,
            disputed: false,
        };
        let word = Word::of(&testimony, |_| None);
        let hearing = Hearing { testimony: Some((&testimony, &word)), counts: false, error: None };
        let said = lines(&Standing::default(), &[], Some(hearing), at(1));
        assert_eq!(
            said[0].says,
            "answered by e, nobody holds the leader lock, paused: its leader does not count, \
             too old to count: the nodes alone decide"
        );
        assert_eq!(lines(&Standing::default(), &[], None, at(1)).len(), 1, "only the verdict");
    }
}
