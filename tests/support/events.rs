//! What happens to clusters, what may come of it, and the verdict.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgweir::devcluster::DevNode;

use crate::load::{LOCAL_COMMIT, Told, Write};

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    /// SIGKILL of the primary, and the promotion of the replica that has most.
    PrimaryKilled,
    /// SIGSTOP of the primary, a promotion, SIGCONT.
    PrimaryFrozen,
    /// A clean stop, a promotion, the old primary as a standby.
    Switchover,
    /// The same where commits do not wait for a standby.
    SwitchoverAsync,
    /// Between PAUSE and RESUME.
    SwitchoverPaused,
    ReplicaKilled,
    NoReplicaLeft,
    /// Between pgweir and the primary, without a promotion.
    CutFromPrimary,
    /// The same, with a promotion meanwhile.
    CutFromPrimaryAndPromotion,
    /// Between the primary and its replicas.
    ReplicationCut,
    /// A promotion while the old primary stays writable and visible.
    SplitBrain,
    RollingRestart,
    PgweirReplaced,
    /// Through Patroni's API, where commits do not wait for a standby.
    PatroniSwitchover,
    /// The same where they do.
    PatroniSwitchoverSync,
    /// That between PAUSE and RESUME.
    PatroniSwitchoverPaused,
    /// SIGKILL of Patroni and the primary: Patroni's other nodes elect one of themselves.
    PatroniPrimaryKilled,
    /// SIGKILL of Patroni alone: the others elect one of themselves while the old primary runs on.
    PatroniKilled,
    /// etcd answers nobody until Patroni has given the primary up, and comes back.
    EtcdLost,
    /// Each node through Patroni's API, the primary last.
    PatroniRollingRestart,
}

/// With Patroni.
pub const PATRONI_EVENTS: [Event; 7] = [
    Event::PatroniSwitchover,
    Event::PatroniSwitchoverSync,
    Event::PatroniSwitchoverPaused,
    Event::PatroniPrimaryKilled,
    Event::PatroniKilled,
    Event::EtcdLost,
    Event::PatroniRollingRestart,
];

/// Without.
pub const EVENTS: [Event; 13] = [
    Event::PrimaryKilled,
    Event::PrimaryFrozen,
    Event::Switchover,
    Event::SwitchoverAsync,
    Event::SwitchoverPaused,
    Event::ReplicaKilled,
    Event::NoReplicaLeft,
    Event::CutFromPrimary,
    Event::CutFromPrimaryAndPromotion,
    Event::ReplicationCut,
    Event::SplitBrain,
    Event::RollingRestart,
    Event::PgweirReplaced,
];

impl Event {
    pub fn name(self) -> &'static str {
        match self {
            Event::PrimaryKilled => "primary SIGKILL, promotion",
            Event::PrimaryFrozen => "primary SIGSTOP, promotion, SIGCONT",
            Event::Switchover => "switchover, synchronous",
            Event::SwitchoverAsync => "switchover, asynchronous",
            Event::SwitchoverPaused => "switchover, PAUSE and RESUME",
            Event::ReplicaKilled => "replica SIGKILL",
            Event::NoReplicaLeft => "all replicas gone",
            Event::CutFromPrimary => "pgweir cut from the primary",
            Event::CutFromPrimaryAndPromotion => "the same, and a promotion",
            Event::ReplicationCut => "primary cut from its replicas",
            Event::SplitBrain => "split brain, old primary writable",
            Event::RollingRestart => "rolling restart of every node",
            Event::PgweirReplaced => "rolling restart of pgweir",
            Event::PatroniSwitchover => "Patroni: switchover, asynchronous",
            Event::PatroniSwitchoverSync => "Patroni: switchover, synchronous",
            Event::PatroniSwitchoverPaused => "Patroni: the same, PAUSE and RESUME",
            Event::PatroniPrimaryKilled => "Patroni: primary SIGKILL",
            Event::PatroniKilled => "Patroni: SIGKILL, its primary runs on",
            Event::EtcdLost => "Patroni: etcd loss",
            Event::PatroniRollingRestart => "Patroni: rolling restart of every node",
        }
    }

    /// About how long a round of it takes, on a machine with nothing else to do.
    pub fn usual(self) -> Duration {
        Duration::from_secs(match self {
            Event::PatroniSwitchover | Event::PatroniSwitchoverSync | Event::PatroniSwitchoverPaused => 8,
            Event::PatroniPrimaryKilled
            | Event::PatroniKilled
            | Event::EtcdLost
            | Event::PatroniRollingRestart => 13,
            Event::CutFromPrimary | Event::PgweirReplaced => 5,
            _ => 3,
        })
    }

    /// May a client be told this?
    pub fn allows(self, code: &str) -> bool {
        let told = code.strip_suffix(" in a transaction");
        let retry = told == Some("40001");
        // Committed where it was, while it waited for a standby: the server says no more.
        let local = told.unwrap_or(code) == format!("08007{LOCAL_COMMIT}");
        match self {
            // What was on its way is in doubt, and what was open is to be tried again.
            Event::PrimaryKilled
            | Event::PrimaryFrozen
            | Event::CutFromPrimary
            | Event::CutFromPrimaryAndPromotion
            | Event::SplitBrain
            | Event::PatroniPrimaryKilled
            | Event::PatroniKilled => retry || local || told.unwrap_or(code) == "08007",
            // A server that stops in order leaves nothing in doubt.
            Event::Switchover
            | Event::SwitchoverAsync
            | Event::RollingRestart
            | Event::PatroniSwitchover
            | Event::PatroniSwitchoverSync
            | Event::PatroniRollingRestart => retry,
            // The primary that Patroni gave up may lead again before anybody has seen it as a standby: then nothing
            // proves which branch its new timeline has left.
            Event::EtcdLost => retry || local,
            Event::SwitchoverPaused
            | Event::PatroniSwitchoverPaused
            | Event::ReplicaKilled
            | Event::NoReplicaLeft
            | Event::ReplicationCut
            | Event::PgweirReplaced => false,
        }
    }

    /// Do the servers stop in order? Then all that they have committed is there, told or not.
    fn is_orderly(self) -> bool {
        !self.allows("08007")
    }
}

/// What came of one round of an event.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub errors: BTreeMap<String, u64>,
    pub examples: BTreeMap<String, String>,
    pub disconnects: u64,
    pub write_gap: Duration,
    pub read_gap: Duration,
    /// How long no server took a write: from the first blow to a primary that does, or, with Patroni, as a
    /// writer past pgweir has it.
    pub servers_gap: Option<Duration>,
    /// From the moment in which Patroni had a new leader to the first write through pgweir.
    pub after_leader: Option<Duration>,
    /// Acknowledged, or committed by a server that stopped in order, and not there.
    pub lost: usize,
    /// Told that it had failed, and there.
    pub denied: usize,
    pub stale: Vec<String>,
    /// Found by the consistency checker.
    pub violations: u64,
    /// Written on the old primary after the new one was there, or without a word to anybody.
    pub astray: u64,
    pub idle_lost: usize,
}

/// Do times count? Only where nothing else uses the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    Judged,
    Measured,
}

/// What a planned switchover may cost on top of what the servers need themselves.
const SWITCHOVER_MORE: Duration = Duration::from_secs(1);
/// How soon writes are back when Patroni has a new leader.
const AFTER_LEADER: Duration = Duration::from_secs(2);

impl Outcome {
    /// What must not be, in words; nothing: all is well.
    pub fn faults(&self, event: Event, times: Times) -> Vec<String> {
        let mut faults = Vec::new();
        let mut none = |count: u64, what: &str| {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        };
        none(self.lost as u64, "acknowledged writes were lost");
        none(self.denied as u64, "writes were refused and are there");
        none(self.stale.len() as u64, "stale reads");
        none(self.violations, "violations found by the consistency checker");
        none(self.astray, "writes went to a primary that was over");
        none(self.idle_lost as u64, "idle clients were lost");
        none(self.disconnects, "clients were disconnected");
        let unexpected = self.errors.iter().filter(|(code, _)| !event.allows(code));
        faults.extend(unexpected.map(|(code, count)| format!("{count} errors {code}")));
        if times == Times::Judged {
            faults.extend(self.late(event));
        }
        faults
    }

    fn late(&self, event: Event) -> Option<String> {
        let is_switchover = matches!(
            event,
            Event::Switchover
                | Event::SwitchoverAsync
                | Event::PatroniSwitchover
                | Event::PatroniSwitchoverSync
        );
        if let Some(servers) = self.servers_gap.filter(|_| is_switchover)
            && self.write_gap >= servers + SWITCHOVER_MORE
        {
            return Some(format!("writes stood still for {:?}, the servers for {servers:?}", self.write_gap));
        }
        let late = self.after_leader.filter(|after| *after > AFTER_LEADER)?;
        Some(format!("writes were back {late:?} after Patroni had a new leader"))
    }

    /// Takes another round of the same event in.
    pub fn add(&mut self, round: Outcome) {
        for (code, count) in round.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.examples.extend(round.examples);
        self.disconnects += round.disconnects;
        self.write_gap = self.write_gap.max(round.write_gap);
        self.read_gap = self.read_gap.max(round.read_gap);
        self.servers_gap = self.servers_gap.max(round.servers_gap);
        self.after_leader = self.after_leader.max(round.after_leader);
        self.lost += round.lost;
        self.denied += round.denied;
        self.stale.extend(round.stale);
        self.violations += round.violations;
        self.astray += round.astray;
        self.idle_lost += round.idle_lost;
    }

    /// Takes over what clients were told, and holds it against what is on the primary.
    pub fn judge(&mut self, event: Event, told: Told, primary: &DevNode) {
        (self.write_gap, self.read_gap) = (told.write_gap(), told.read_gap());
        let fates = &told.fates;
        let here = written(primary, fates.oldest());
        self.lost = fates.acknowledged.difference(&here).count();
        if event.is_orderly() {
            self.lost += fates.local.difference(&here).count();
        }
        self.denied = fates.refused.intersection(&here).count();
        self.errors = told.errors;
        self.examples = told.examples;
        self.disconnects = told.disconnects;
        self.stale = told.stale;
    }
}

/// What is written on a node, from this number on.
pub fn written(node: &DevNode, from: i32) -> BTreeSet<Write> {
    let rows = node.sql(&format!("SELECT by, n FROM written WHERE n >= {from}")).unwrap();
    rows.into_iter()
        .map(|row| {
            let mut numbers = row.into_iter().flatten().map(|number| number.parse().unwrap());
            (numbers.next().unwrap(), numbers.next().unwrap())
        })
        .collect()
}

/// The newest write of each writer that is on a node.
pub fn newest(node: &DevNode) -> BTreeMap<i32, i32> {
    let mut newest = BTreeMap::new();
    for (by, n) in written(node, 0) {
        newest.entry(by).and_modify(|newest: &mut i32| *newest = n.max(*newest)).or_insert(n);
    }
    newest
}

/// Writes that are on a primary that is over and must not be: made when the new one had taken these already,
/// or not on the new one, although nobody was told that their fate is in doubt, or that they failed. (What was on
/// its way when the old one froze may still take effect there: its client was told 08007, or 40001.)
pub fn astray(old: &BTreeSet<Write>, new: &BTreeSet<Write>, newest: &BTreeMap<i32, i32>, told: &Told) -> u64 {
    let is_late = |(by, n): &Write| newest.get(by).is_none_or(|newest| n > newest);
    let strays = old.difference(new).filter(|write| is_late(write) || !told.fates.may_be_astray(write));
    strays.count() as u64
}
