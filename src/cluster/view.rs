//! The published, immutable picture of the cluster, and the few live numbers beside it.

use crate::cluster::resolver::Objection;
use crate::lsn::{Lsn, TimelineId};
use crate::moment::Moment;
use crate::node::{NodeId, Role};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How a node was last measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeState {
    /// Never measured.
    Unknown,
    /// Answers in time.
    Up,
    /// One answer is missing or failed; serves nobody new, but is not given up.
    Suspect,
    /// Not answering.
    Down,
    /// Taken out of the configuration; its id stays reserved.
    Removed,
}

impl NodeState {
    /// The word in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Unknown => "unknown",
            NodeState::Up => "up",
            NodeState::Suspect => "suspect",
            NodeState::Down => "down",
            NodeState::Removed => "removed",
        }
    }
}

/// From here on `recovery_min_apply_delay` is there on purpose. A shorter delay is lag like any other.
pub const DELAYED_FROM: Duration = Duration::from_secs(10);

/// How a standby replays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standby {
    /// `recovery_min_apply_delay`: replays on purpose only so much later. Zero: as soon as it can.
    pub apply_delay: Duration,
    /// Host and port of the server that it streams from; `None`: it does not, or that may not be read.
    pub upstream: Option<(Arc<str>, u16)>,
}

impl Standby {
    /// Does it stay behind on purpose, by [`DELAYED_FROM`] or more?
    #[must_use]
    pub fn is_delayed(&self) -> bool {
        self.apply_delay >= DELAYED_FROM
    }
}

/// One node in the picture.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its index.
    pub id: NodeId,
    /// Its configured name: metric label, tables, logs.
    pub name: Arc<str>,
    /// Host name, address, or the folder of a Unix socket.
    pub host: Arc<str>,
    /// TCP port (or the number in the socket's name).
    pub port: u16,
    /// The address that stands for `host`, where that is a name: whoever connects, connects there.
    pub address: Option<IpAddr>,
    /// How often it has moved: `NodeLive::place` as it was when this was drawn.
    pub place: u64,
    /// Share of the reads relative to its peers; at least 1.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<Arc<str>>,
    /// Free words that rules may ask for.
    pub tags: Arc<[Arc<str>]>,
    /// How it was last measured.
    pub state: NodeState,
    /// What it was measured to be.
    pub role: Option<Role>,
    /// The newest timeline it was measured on.
    pub timeline: Option<TimelineId>,
    /// Its replay (replica) or insert (primary) position in the newest sample.
    pub position: Option<Lsn>,
    /// The primary's insert position minus its replay position, in bytes.
    pub lag_bytes: Option<u64>,
    /// How it replays, if it is a standby.
    pub standby: Standby,
    /// Is replay paused (`pg_is_wal_replay_paused()`)?
    pub replay_paused: bool,
    /// May it serve reads at all? False for the wrong system identifier or an unproven branch.
    pub serves_reads: bool,
    /// The last error, one line.
    pub last_error: Option<Arc<str>>,
    /// Numbers that change between two pictures.
    pub live: Arc<NodeLive>,
}

/// `1h`, `90min`, `1500ms`: in the largest unit that needs no fraction, as PostgreSQL shows its settings.
fn words_of(delay: Duration) -> String {
    let millis = delay.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    match units.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// The picture. Swapped as a whole; read without a lock.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Indexed by `NodeId`.
    pub nodes: Vec<NodeView>,
    /// The proven primary of the newest timeline. `None`: no writes now.
    pub primary: Option<NodeId>,
    /// Two nodes that claim to be primary on one timeline.
    pub conflict: Option<(NodeId, NodeId)>,
    /// Who would be the primary, had Patroni nothing against it.
    pub disowned: Option<(NodeId, Objection)>,
    /// The newest timeline seen.
    pub timeline: Option<TimelineId>,
    /// PostgreSQL's system identifier.
    pub system_identifier: Option<u64>,
    /// So many nodes are not in it: all ids are used up.
    pub left_out: usize,
    /// Grows with each published picture.
    pub generation: u64,
}

impl ClusterView {
    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(id.index())
    }

    /// May a session that has a connection to `id` as the primary's go on writing there? While nobody
    /// is the proven primary it may, for one late answer must not end transactions; unless something
    /// speaks against it: another claimant of its timeline, news of a newer one, or of its role, or Patroni.
    pub fn may_go_on_writing(&self, id: NodeId) -> bool {
        let was_last_seen_as =
            |node: &NodeView| node.role == Some(Role::Primary) && node.timeline == self.timeline;
        match self.primary {
            Some(primary) => primary == id,
            None => {
                let objected = self.disowned.is_some_and(|(disowned, _)| disowned == id);
                self.conflict.is_none() && !objected && self.node(id).is_some_and(was_last_seen_as)
            }
        }
    }

    /// Says of a node that it is a primary, and is not written to: why.
    pub fn quarantined(&self, node: &NodeView) -> Option<&'static str> {
        let claims = node.role == Some(Role::Primary)
            && matches!(node.state, NodeState::Up | NodeState::Suspect)
            && self.primary != Some(node.id);
        match (claims, node.timeline < self.timeline, self.conflict.is_some()) {
            (true, true, _) => Some("old_timeline"),
            (true, false, true) => Some("conflict"),
            (true, false, false) if self.disowned.is_some_and(|(disowned, _)| disowned == node.id) => {
                Some("disowned")
            }
            _ => None,
        }
    }

    /// How a replica replays, in a few words; `None` for who is none.
    pub fn replay_of(&self, node: &NodeView) -> Option<String> {
        if node.role != Some(Role::Replica) || !matches!(node.state, NodeState::Up | NodeState::Suspect) {
            return None;
        }
        let Standby { apply_delay, upstream } = &node.standby;
        let is_upstream = |other: &&NodeView| {
            let at = upstream.as_ref();
            at.is_some_and(|(host, port)| *host == other.host && *port == other.port)
        };
        let from = self.nodes.iter().find(is_upstream);
        let words = [
            node.replay_paused.then(|| "paused".to_owned()),
            (!apply_delay.is_zero()).then(|| format!("delayed {}", words_of(*apply_delay))),
            from.filter(|from| from.role == Some(Role::Replica))
                .map(|from| format!("cascading from {}", from.name)),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        Some(match (words.as_slice(), upstream) {
            ([], Some(_)) => "streaming".to_owned(),
            // From an archive; or the monitor may not see the receiver.
            ([], None) => "replaying".to_owned(),
            (words, _) => words.join(", "),
        })
    }

    /// Replicas that are up and may serve reads.
    pub fn replicas(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| {
            node.state == NodeState::Up && node.role == Some(Role::Replica) && node.serves_reads
        })
    }
}

/// What changes between two pictures: written by the monitor and the relay, read by `decide`.
///
/// Order matters: the monitor stores the watermarks first and `sample_sent` last (Release); a
/// reader loads `sample_sent` first (Acquire). So whoever sees a sample's time sees its watermark.
#[derive(Debug, Default)]
pub struct NodeLive {
    /// Everything inserted into the WAL by this moment is visible here (`Moment::NEVER`: unknown).
    watermark_insert: AtomicU64,
    /// Everything flushed by this moment is visible here.
    watermark_flush: AtomicU64,
    /// When the query of the newest sample was sent. A sample counts for a server connection only
    /// if it was sent after that connection was established (a replica may restart behind itself).
    sample_sent: AtomicU64,
    /// When the question was sent that it answered last, whatever has become of that connection.
    evidence: AtomicU64,
    /// Grows with every monitor connection: watermarks and "same replica" hold within one.
    incarnation: AtomicU64,
    /// Grows when it is to be found elsewhere: connections to the place before count for nothing.
    place: AtomicU64,
    /// Everything that it showed by then is visible on the primary (`freshness::fence`).
    fenced: AtomicU64,
    /// Everything inserted by then is visible on the primary, as a fence of this node has proven.
    fenced_insert: AtomicU64,
    /// Somebody waits for a fence up to here.
    fence_wanted: AtomicU64,
    /// How long, of late, a watermark took to pass a moment somebody waited for, in nanoseconds.
    catch_up_nanos: AtomicU64,
    /// Requests in flight.
    in_flight: AtomicU32,
    /// Moving average of a read's latency in microseconds.
    latency_micros: AtomicU32,
}

/// A consistent reading of a replica's freshness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreshnessReading {
    /// Everything inserted by then is visible.
    pub watermark_insert: Moment,
    /// Everything flushed by then is visible.
    pub watermark_flush: Moment,
    /// When the newest sample's query was sent.
    pub sample_sent: Moment,
    /// Which monitor connection took it.
    pub incarnation: u64,
}

impl NodeLive {
    /// The newest freshness; safe against a concurrent publication.
    pub fn freshness(&self) -> FreshnessReading {
        let sample_sent = Moment(self.sample_sent.load(Ordering::Acquire));
        FreshnessReading {
            watermark_insert: Moment(self.watermark_insert.load(Ordering::Acquire)),
            watermark_flush: Moment(self.watermark_flush.load(Ordering::Acquire)),
            sample_sent,
            incarnation: self.incarnation.load(Ordering::Acquire),
        }
    }

    /// The monitor has a newer sample.
    pub fn publish(&self, insert: Moment, flush: Moment, sample_sent: Moment) {
        self.watermark_insert.store(insert.0, Ordering::Release);
        self.watermark_flush.store(flush.0, Ordering::Release);
        self.sample_sent.store(sample_sent.0, Ordering::Release);
        self.evidence.fetch_max(sample_sent.0, Ordering::AcqRel);
    }

    /// Has it not answered a question that was sent within the last `limit`? Then it is not written to.
    pub fn is_fenced(&self, now: Moment, limit: Duration) -> bool {
        now.since(Moment(self.evidence.load(Ordering::Acquire))) > limit
    }

    /// The monitor's connection died, or the timeline changed: nothing is proven any more.
    pub fn forget(&self) {
        self.publish(Moment::NEVER, Moment::NEVER, Moment::NEVER);
        self.set_fenced(Moment::NEVER, Moment::NEVER);
        self.incarnation.fetch_add(1, Ordering::AcqRel);
    }

    /// Everything that this node, in this incarnation, showed by then is visible on the primary.
    pub fn fenced(&self, incarnation: u64) -> Moment {
        // In this order: a fence of the next incarnation is stored after the number has grown.
        let fenced = Moment(self.fenced.load(Ordering::Acquire));
        match self.incarnation.load(Ordering::Acquire) == incarnation {
            true => fenced,
            false => Moment::NEVER,
        }
    }

    /// Everything inserted by then is visible on the primary, whoever showed it.
    pub fn fenced_insert(&self) -> Moment {
        Moment(self.fenced_insert.load(Ordering::Acquire))
    }

    /// A fence has ended.
    pub fn set_fenced(&self, shown: Moment, inserted: Moment) {
        self.fenced_insert.store(inserted.0, Ordering::Release);
        self.fenced.store(shown.0, Ordering::Release);
    }

    /// How often it has moved.
    pub fn place(&self) -> u64 {
        self.place.load(Ordering::Acquire)
    }

    /// It is to be found elsewhere: what was known of it is of another server, perhaps.
    pub fn moved(&self) {
        self.place.fetch_add(1, Ordering::AcqRel);
        self.evidence.store(Moment::NEVER.0, Ordering::Release);
        self.forget();
    }

    /// Somebody waits for a fence up to `moment`.
    pub fn want_fence(&self, moment: Moment) {
        self.fence_wanted.fetch_max(moment.0, Ordering::AcqRel);
    }

    /// Up to where somebody has waited for a fence.
    pub fn fence_wanted(&self) -> Moment {
        Moment(self.fence_wanted.load(Ordering::Acquire))
    }

    /// A request was sent to it.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is complete (or lost), after `micros` microseconds.
    pub fn end(&self, micros: Option<u32>) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(sample) = micros {
            let old = self.latency_micros.load(Ordering::Relaxed);
            let new = if old == 0 { sample } else { old - old / 8 + sample / 8 };
            self.latency_micros.store(new, Ordering::Relaxed);
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Moving average of a read's latency in microseconds; 0 before the first.
    pub fn latency_micros(&self) -> u32 {
        self.latency_micros.load(Ordering::Relaxed)
    }

    /// How long catching up took of late; zero when nobody waited yet.
    pub fn catch_up(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.catch_up_nanos.load(Ordering::Relaxed))
    }

    /// The monitor has measured how long catching up takes now.
    pub fn set_catch_up(&self, took: std::time::Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.catch_up_nanos.store(nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u16, role: Role, timeline: u32) -> NodeView {
        NodeView {
            id: NodeId(id),
            name: Arc::from("pg"),
            host: Arc::from("h"),
            port: 1,
            address: None,
            place: 0,
            weight: 1,
            zone: None,
            tags: Arc::from([]),
            state: NodeState::Down,
            role: Some(role),
            timeline: Some(TimelineId(timeline)),
            position: None,
            lag_bytes: None,
            replay_paused: false,
            standby: Standby::default(),
            serves_reads: false,
            last_error: None,
            live: Arc::default(),
        }
    }

    #[test]
    fn a_transaction_goes_on_while_its_primary_is_silent_but_not_when_something_speaks_against_it() {
        let (one, other) = (NodeId(0), NodeId(1));
        let table = [
            (Some(one), None, Role::Primary, 1, true),
            (Some(other), None, Role::Primary, 1, false),
            (None, None, Role::Primary, 1, true),
            (None, Some((one, other)), Role::Primary, 1, false),
            // Of three claimants the view names two.
            (None, Some((other, NodeId(2))), Role::Primary, 1, false),
            (None, None, Role::Primary, 2, false),
            (None, None, Role::Replica, 1, false),
        ];
        for (primary, conflict, role, newest, expected) in table {
            let timeline = Some(TimelineId(newest));
            let view = ClusterView {
                nodes: vec![node(0, role, 1)],
                primary,
                conflict,
                timeline,
                ..Default::default()
            };
            assert_eq!(view.may_go_on_writing(one), expected, "{primary:?} {conflict:?} {role} {newest}");
            // Patroni speaks against it.
            let disowned = Some((one, Objection::OtherLeader));
            let view = ClusterView { disowned, ..view };
            assert_eq!(view.may_go_on_writing(one), expected && primary.is_some());
        }
    }

    #[test]
    fn a_node_that_claims_to_be_primary_and_is_not_written_to_is_quarantined() {
        let mut view = ClusterView {
            nodes: vec![node(0, Role::Primary, 1), node(1, Role::Primary, 2), node(2, Role::Replica, 1)],
            primary: Some(NodeId(1)),
            timeline: Some(TimelineId(2)),
            ..Default::default()
        };
        view.nodes.iter_mut().for_each(|node| node.state = NodeState::Up);
        let why = |view: &ClusterView| [0, 1, 2].map(|index| view.quarantined(&view.nodes[index]));
        assert_eq!(why(&view), [Some("old_timeline"), None, None]);
        (view.primary, view.conflict) = (None, Some((NodeId(0), NodeId(1))));
        view.nodes[0].timeline = Some(TimelineId(2));
        assert_eq!(why(&view), [Some("conflict"), Some("conflict"), None]);
        (view.conflict, view.disowned) = (None, Some((NodeId(0), Objection::OtherLeader)));
        assert_eq!(why(&view), [Some("disowned"), None, None]);
        view.nodes[0].state = NodeState::Down;
        assert_eq!(why(&view)[0], None);
    }

    #[test]
    fn a_primary_that_has_not_answered_for_too_long_is_fenced_whatever_became_of_its_connection() {
        let live = NodeLive::default();
        let limit = Duration::from_secs(1);
        let at = |millis: u64| Moment(millis * 1_000_000);
        assert!(live.is_fenced(at(5000), limit), "it never answered");
        live.publish(at(5000), at(5000), at(5000));
        assert!(!live.is_fenced(at(6000), limit) && live.is_fenced(at(6001), limit));
        live.forget();
        assert!(!live.is_fenced(at(6000), limit) && live.is_fenced(at(6001), limit));
    }
}
