//! One node: connect, ask, feed the picture, again.

use crate::clock;
use crate::cluster::health::{Failure, HealthPolicy};
use crate::cluster::view::{NodeView, Standby};
use crate::fault::one_line;
use crate::freshness::defect::Defect;
use crate::freshness::flush::Unflushed;
use crate::freshness::ring::{PrimarySample, WalGeometry};
use crate::lsn::{Lsn, TimelineId};
use crate::moment::Moment;
use crate::monitor::dial::dial;
use crate::monitor::picture::{Identity, Instance, ReplicaSample, Sample};
use crate::monitor::settings::{Addresses, MonitorSettings};
use crate::monitor::{AbortOnDrop, Shared, count, names};
use crate::node::NodeId;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Row, Statement};

/// Never more often than this, however many wait.
const MIN_GAP: Duration = Duration::from_millis(1);

/// The primary is asked this often while somebody waits and nobody new came: an answer may get lost.
const WAITING_GAP: Duration = Duration::from_millis(5);

/// One text for both roles. `replay` comes before `received_tli`: a timeline that was still the old
/// one after the position was read is the timeline of that position.
const SAMPLE: &str = "SELECT pg_catalog.pg_is_in_recovery(),
  CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END,
  CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_flush_lsn() END,
  CASE WHEN NOT pg_catalog.pg_is_in_recovery()
    THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END,
  CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() END,
  CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() END,
  CASE WHEN pg_catalog.pg_is_in_recovery()
    THEN (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver LIMIT 1) END";

/// Of a server that was promoted, and not started again since, the last position that it replayed: the end of
/// the old timeline, as far as it had it (manual, "Recovery Information Functions").
const FORK: &str = "SELECT pg_catalog.pg_last_wal_replay_lsn()";

/// How a standby replays. Who it streams from is told to `pg_monitor` only.
const STANDBY: &str = "SELECT (1000 * EXTRACT(epoch FROM
    pg_catalog.current_setting('recovery_min_apply_delay')::pg_catalog.interval))::pg_catalog.int8,
  (SELECT sender_host FROM pg_catalog.pg_stat_wal_receiver LIMIT 1),
  (SELECT sender_port FROM pg_catalog.pg_stat_wal_receiver LIMIT 1)";

/// A standby is asked so often how it replays: that changes with a reload, or by hand.
const STANDBY_EVERY: Duration = Duration::from_secs(1);

const IDENTITY: &str = "SELECT system_identifier,
  pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_block_size')),
  pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
  (1000000 * EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()))::pg_catalog.int8,
  pg_catalog.current_setting('port')::pg_catalog.int4,
  checkpointer.pid, (1000000 * EXTRACT(epoch FROM checkpointer.backend_start))::pg_catalog.int8
  FROM pg_catalog.pg_control_system() LEFT JOIN (SELECT pid, backend_start FROM pg_catalog.pg_stat_activity
    WHERE backend_type = 'checkpointer' LIMIT 1) AS checkpointer ON true";

/// The timeline of the last restartpoint, and of the minimum recovery point: late, but readable
/// without `pg_monitor`.
const BRANCH: &str = "SELECT GREATEST(
  (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
  (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()))";

/// Its commit is synchronous, because it is transactional; nobody reads the message.
pub(super) const FLUSH: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgweir', '')";

/// A flush of its own must not wait for standbys.
const OPTIONS: &str = "-c jit=off -c default_transaction_read_only=off -c synchronous_commit=local";

/// Of one name, so many addresses are tried.
const ADDRESSES_MAX: usize = 8;

/// Why a connection ended, or was not made.
struct Broken {
    failure: Failure,
    error: String,
    /// Did the server say that it is being shut down in order?
    in_order: bool,
}

/// Runs until the monitor is dropped, the task is aborted, or the node is no longer at this place.
pub(super) async fn run(shared: Weak<Shared>, node: NodeId, mut place: u64, wake: Arc<Notify>) {
    let mut pause = Duration::ZERO;
    loop {
        let Some(policy) = shared.upgrade().map(|shared| shared.settings.load().policy) else { return };
        // `wake` cuts the pause short, but never below the interval: evidence may come in floods.
        tokio::time::sleep(pause.min(policy.interval)).await;
        if pause > policy.interval {
            // A time-out here is the normal end of the pause.
            drop(timeout(pause - policy.interval, wake.notified()).await);
        }
        let Some(broken) = live_once(&shared, node, &mut place, &wake, &mut pause).await else { return };
        let Some(shared) = shared.upgrade() else { return };
        pause = next_pause(pause, broken.failure, &policy);
        let outcome = {
            let Some(mut picture) = shared.picture_at(node, place) else { return };
            picture.failed(node, broken.failure, &broken.error, clock::now())
        };
        shared.perform(outcome);
    }
}

/// A connection that had answered and broke is made anew at once; then pauses double.
fn next_pause(pause: Duration, failure: Failure, policy: &HealthPolicy) -> Duration {
    if failure == Failure::Lost && pause.is_zero() {
        return MIN_GAP;
    }
    (pause * 2).max(policy.interval.min(Duration::from_millis(50))).min(policy.reconnect_limit)
}

/// One connection, from its making to its end. `None`: the monitor is gone, or the node is elsewhere.
async fn live_once(
    shared: &Weak<Shared>,
    node: NodeId,
    place: &mut u64,
    wake: &Arc<Notify>,
    pause: &mut Duration,
) -> Option<Broken> {
    let (settings, view, nodes) = {
        let shared = shared.upgrade()?;
        (shared.settings.load_full(), shared.view.load_full(), shared.nodes.load_full())
    };
    let at = view.node(node).filter(|at| at.place == *place)?;
    let known = nodes.iter().find(|known| *known.name == *at.name);
    let policy = settings.policy;
    let (mut link, identity, address) =
        match reach(&settings, at, known.map(|known| known.addresses), wake).await {
            Ok(reached) => reached,
            Err(broken) => return Some(broken),
        };
    {
        let shared = shared.upgrade()?;
        let outcome = {
            let mut picture = shared.picture_at(node, *place)?;
            let outcome = picture.reached(node, address, clock::now());
            *place = picture.view().node(node)?.place;
            picture.connected(node, identity);
            // Under the picture's lock: whoever finds it elsewhere later takes this away again.
            shared.lines().insert(node, Arc::clone(&link.client));
            outcome
        };
        link.place = *place;
        if outcome.view.is_some() {
            shared.perform(outcome);
            shared.moved(node, *place);
        }
    }
    let broken = loop {
        match link.sample(shared, node, &policy).await? {
            Ok(pace) => {
                *pause = Duration::ZERO;
                link.rest(shared, wake, pace, &policy).await;
            }
            Err(broken) => break broken,
        }
    };
    let shared = shared.upgrade()?;
    let mut picture = shared.picture_at(node, *place)?;
    shared.lines().remove(&node);
    if broken.in_order || link.last_words.load(Ordering::Acquire) {
        picture.is_shut_down(node);
    }
    Some(broken)
}

/// A connection to one node.
struct Link {
    client: Arc<Client>,
    /// Where the node was when it was made.
    place: u64,
    statement: Statement,
    sent: Moment,
    prove_branch: bool,
    geometry: WalGeometry,
    unflushed: Unflushed,
    /// When it was last asked how it replays.
    asked: Moment,
    /// Was it asked, as a primary, where its timeline forked?
    asked_fork: bool,
    /// Doubles with each sample in which a replica was behind while nobody waited.
    follow_up: Duration,
    /// For tests: the primary's samples are dated by their answers.
    dated_by_answer: bool,
    /// Did the server say between two questions that it is being shut down in order?
    last_words: Arc<AtomicBool>,
    // Ends the connection's task with the link.
    _driver: AbortOnDrop,
}

/// When the next sample is due, if nobody asks before.
#[derive(Clone, Copy)]
enum Pace {
    /// A primary: when asked.
    Primary,
    /// A replica that has replayed what the primary has shown.
    Covered,
    /// A replica that has not.
    Behind,
}

/// Connects to the node: where it is a name, to the first of its addresses that answers, the one that was
/// used before first.
async fn reach(
    settings: &MonitorSettings,
    at: &NodeView,
    addresses: Option<Addresses>,
    wake: &Arc<Notify>,
) -> Result<(Link, Identity, Option<IpAddr>), Broken> {
    let limit = settings.policy.connect_timeout;
    let mut failed =
        Broken { failure: Failure::Refused, error: "its name has no address".to_owned(), in_order: false };
    for address in candidates(at, addresses.unwrap_or_default(), limit).await? {
        failed = match timeout(limit, open(settings, at, address, wake)).await {
            Ok(Ok((link, identity))) => return Ok((link, identity, address)),
            Ok(Err(broken)) => broken,
            Err(_) => {
                let error = "no connection within connect_timeout".to_owned();
                Broken { failure: Failure::Late, error, in_order: false }
            }
        };
    }
    Err(failed)
}

/// `None`: its host needs no looking up.
async fn candidates(
    at: &NodeView,
    addresses: Addresses,
    limit: Duration,
) -> Result<Vec<Option<IpAddr>>, Broken> {
    if let Addresses::Fixed(address) = addresses {
        return Ok(vec![Some(address)]);
    }
    if !names::is_name(&at.host) {
        return Ok(vec![None]);
    }
    let mut found = names::look_up(&at.host, limit).await.map_err(|error| Broken {
        failure: Failure::Refused,
        error,
        in_order: false,
    })?;
    found.sort_by_key(|address| Some(*address) != at.address);
    found.truncate(ADDRESSES_MAX);
    Ok(found.into_iter().map(Some).collect())
}

async fn open(
    settings: &MonitorSettings,
    at: &NodeView,
    address: Option<IpAddr>,
    wake: &Arc<Notify>,
) -> Result<(Link, Identity), Broken> {
    let last_words = Arc::new(AtomicBool::new(false));
    // Its end wakes the probe, whose next query then tells why.
    let ended = {
        let (wake, last_words) = (Arc::clone(wake), Arc::clone(&last_words));
        move |end: Result<(), tokio_postgres::Error>| {
            if end.is_err_and(|error| is_goodbye(&error)) {
                last_words.store(true, Ordering::Release);
            }
            wake.notify_one();
        }
    };
    let (client, driver) = dial(settings, at, address, OPTIONS, ended).await.map_err(refused)?;
    let identity = client.query_one(IDENTITY, &[]).await.map_err(refused)?;
    let mut identity = identity_of(&identity).map_err(refused)?;
    let statement = match settings.defect {
        Defect::WrittenPosition => client.prepare(&SAMPLE.replace("wal_insert_lsn", "wal_lsn")).await,
        _ => client.prepare(SAMPLE).await,
    };
    let statement = statement.map_err(refused)?;
    if settings.defect == Defect::UnroundedPosition {
        // Without sizes there is nothing to round to.
        identity.geometry = WalGeometry { block_size: 0, segment_size: 0 };
    }
    let link = Link {
        client: Arc::new(client),
        place: at.place,
        statement,
        sent: Moment::NEVER,
        prove_branch: true,
        geometry: identity.geometry,
        unflushed: Unflushed::default(),
        asked: Moment::NEVER,
        asked_fork: false,
        follow_up: MIN_GAP,
        dated_by_answer: settings.defect == Defect::SampleInFlight,
        last_words,
        _driver: driver,
    };
    Ok((link, identity))
}

impl Link {
    /// Asks once and tells the picture. An answer that is late is told, and still awaited.
    async fn sample(
        &mut self,
        shared: &Weak<Shared>,
        node: NodeId,
        policy: &HealthPolicy,
    ) -> Option<Result<Pace, Broken>> {
        self.sent = clock::now();
        let answer = self.answer(shared, node, policy).await?;
        let sample = match answer {
            Ok(sample) => sample,
            Err(broken) => return Some(Err(broken)),
        };
        let standby = match sample {
            Sample::Replica(_) => timeout(policy.probe_timeout, self.standby()).await.ok().flatten(),
            Sample::Primary(_) => None,
        };
        let shared = shared.upgrade()?;
        let outcome = {
            let mut picture = shared.picture_at(node, self.place)?;
            if let Some(standby) = standby {
                picture.replays(node, standby);
            }
            picture.sampled(node, sample, clock::now())
        };
        self.prove_branch = outcome.prove_branch;
        let pace = match sample {
            Sample::Primary(_) => Pace::Primary,
            Sample::Replica(_) if outcome.behind => Pace::Behind,
            Sample::Replica(_) => Pace::Covered,
        };
        shared.perform(outcome);
        count(&shared.queries.samples);
        self.ask_fork(&shared, node, sample).await;
        if let Sample::Primary(sample) = sample
            && self.is_to_flush(&shared, node, sample)
        {
            count(&shared.queries.kicks);
            drop(shared);
            if let Err(broken) = self.flush().await {
                return Some(Err(broken));
            }
        }
        Some(Ok(pace))
    }

    /// Asks a new primary where its timeline forked.
    async fn ask_fork(&mut self, shared: &Shared, node: NodeId, sample: Sample) {
        let Sample::Primary(sample) = sample else {
            self.asked_fork = false;
            return;
        };
        if std::mem::replace(&mut self.asked_fork, true) {
            return;
        }
        // A failure shows at the next sample; a server that began as a primary has nothing to tell.
        let Ok(row) = self.client.query_one(FORK, &[]).await else { return };
        let Ok(Some(at)) = row.try_get::<_, Option<PgLsn>>(0) else { return };
        let at = Lsn(u64::from(at));
        let forked = shared
            .picture_at(node, self.place)
            .is_some_and(|mut picture| picture.forked(node, sample.timeline, at, clock::now()));
        if forked {
            tracing::warn!(timeline = sample.timeline.0, fork = %at,
                "a failover: what the old primary had acknowledged behind the fork is lost");
            shared.failovers.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Does somebody wait for what the primary has inserted and nobody flushes?
    fn is_to_flush(&mut self, shared: &Shared, node: NodeId, sample: PrimarySample) -> bool {
        let [insert, flush] = [sample.insert, sample.flush].map(|lsn| self.geometry.last_record_end(lsn));
        let lies = self.unflushed.sampled(insert, flush, sample.sent, shared.somebody_waits());
        lies && shared.settings.load().kick_flush && shared.view.load().primary == Some(node)
    }

    /// A tiny synchronous transaction: what was inserted before it is flushed with it. An error (it has just
    /// been demoted) leaves it to the WAL writer.
    async fn flush(&self) -> Result<(), Broken> {
        match self.client.execute(FLUSH, &[]).await {
            Ok(_) => Ok(()),
            Err(error) if error.code().is_some() => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }

    async fn answer(
        &self,
        shared: &Weak<Shared>,
        node: NodeId,
        policy: &HealthPolicy,
    ) -> Option<Result<Sample, Broken>> {
        let mut answer = pin!(self.ask());
        loop {
            match timeout(policy.probe_timeout, answer.as_mut()).await {
                Ok(answer) => return Some(answer),
                Err(_) if clock::now().since(self.sent) >= policy.down_after => {
                    let error = "no answer within down_after".to_owned();
                    return Some(Err(Broken { failure: Failure::Refused, error, in_order: false }));
                }
                Err(_) => {
                    let shared = shared.upgrade()?;
                    let late = "its answer is late";
                    let outcome = {
                        let mut picture = shared.picture_at(node, self.place)?;
                        picture.failed(node, Failure::Late, late, clock::now())
                    };
                    shared.perform(outcome);
                }
            }
        }
    }

    async fn ask(&self) -> Result<Sample, Broken> {
        let row = self.client.query_one(&self.statement, &[]).await.map_err(lost)?;
        let mut sample = sample_of(&row, self.sent)?;
        if let Sample::Replica(replica) = &mut sample
            && self.prove_branch
        {
            replica.branch = replica.branch.max(self.branch().await?);
        }
        if let Sample::Primary(primary) = &mut sample
            && self.dated_by_answer
        {
            primary.sent = clock::now();
        }
        Ok(sample)
    }

    /// How it replays, if it is time to ask. A failure shows at the next sample.
    async fn standby(&mut self) -> Option<Standby> {
        if self.asked != Moment::NEVER && self.sent.since(self.asked) < STANDBY_EVERY {
            return None;
        }
        self.asked = self.sent;
        let row = self.client.query_one(STANDBY, &[]).await.ok()?;
        let delay: i64 = row.try_get(0).ok()?;
        let (host, port): (Option<String>, Option<i32>) = (row.try_get(1).ok()?, row.try_get(2).ok()?);
        let port = port.and_then(|port| u16::try_from(port).ok());
        Some(Standby {
            apply_delay: Duration::from_millis(u64::try_from(delay).unwrap_or(0)),
            upstream: host.map(Arc::from).zip(port),
        })
    }

    /// What the control file proves; nothing where it may not be read.
    async fn branch(&self) -> Result<Option<TimelineId>, Broken> {
        match self.client.query_one(BRANCH, &[]).await {
            Ok(row) => Ok(timeline(row.try_get(0).map_err(lost)?)),
            Err(error) if error.code().is_some() => Ok(None),
            Err(error) => Err(lost(error)),
        }
    }

    /// Until the next sample is due, or somebody asks for one.
    async fn rest(&mut self, shared: &Weak<Shared>, wake: &Notify, pace: Pace, policy: &HealthPolicy) {
        let waited_for = shared.upgrade().is_some_and(|shared| shared.somebody_waits());
        let gap = match (pace, waited_for) {
            (Pace::Primary, true) => WAITING_GAP,
            (Pace::Behind, true) => MIN_GAP,
            (Pace::Behind, false) => self.follow_up,
            (Pace::Primary | Pace::Covered, _) => policy.interval,
        };
        self.follow_up = match pace {
            Pace::Behind => self.follow_up * 2,
            Pace::Primary | Pace::Covered => MIN_GAP,
        };
        self.follow_up = self.follow_up.min(policy.interval);
        let due = self.sent.plus(gap.min(policy.interval));
        // Both ends are the same: the next sample.
        drop(timeout_at(clock::instant(due).into(), wake.notified()).await);
        let earliest = self.sent.plus(MIN_GAP);
        if clock::now() < earliest {
            sleep_until(clock::instant(earliest).into()).await;
        }
    }
}

fn sample_of(row: &Row, sent: Moment) -> Result<Sample, Broken> {
    let in_recovery: bool = row.try_get(0).map_err(lost)?;
    if in_recovery {
        let received: Option<i32> = row.try_get(6).map_err(lost)?;
        return Ok(Sample::Replica(ReplicaSample {
            sent,
            replay: lsn(row, 4)?,
            paused: row.try_get::<_, Option<bool>>(5).map_err(lost)?.unwrap_or(false),
            branch: timeline(received),
        }));
    }
    let file: Option<&str> = row.try_get(3).map_err(lost)?;
    match (lsn(row, 1)?, lsn(row, 2)?, file.and_then(TimelineId::of_wal_file)) {
        (Some(insert), Some(flush), Some(timeline)) => {
            Ok(Sample::Primary(PrimarySample { sent, insert, flush, timeline }))
        }
        // It was promoted between two columns: the next answer is whole.
        _ => Err(Broken {
            failure: Failure::Lost,
            error: "half an answer of a primary".to_owned(),
            in_order: false,
        }),
    }
}

fn lsn(row: &Row, column: usize) -> Result<Option<Lsn>, Broken> {
    let value: Option<PgLsn> = row.try_get(column).map_err(lost)?;
    Ok(value.map(|lsn| Lsn(u64::from(lsn))))
}

fn timeline(number: Option<i32>) -> Option<TimelineId> {
    number.and_then(|number| u32::try_from(number).ok()).filter(|&number| number > 0).map(TimelineId)
}

fn identity_of(row: &Row) -> Result<Identity, tokio_postgres::Error> {
    let identifier: i64 = row.try_get(0)?;
    let block: i64 = row.try_get(1)?;
    let segment: i64 = row.try_get(2)?;
    let geometry = WalGeometry { block_size: block.unsigned_abs(), segment_size: segment.unsigned_abs() };
    let (started, port): (Option<i64>, i32) = (row.try_get(3)?, row.try_get(4)?);
    let (pid, since): (Option<i32>, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
    let instance = started.map(|started| Instance { started, port, checkpointer: pid.zip(since) });
    // PostgreSQL's identifier is unsigned, its SQL type is not.
    Ok(Identity { system_identifier: identifier.cast_unsigned(), geometry, instance })
}

fn refused(error: tokio_postgres::Error) -> Broken {
    let busy = error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS);
    let failure = if busy { Failure::Busy } else { Failure::Refused };
    Broken { failure, error: one_line(&error), in_order: false }
}

fn lost(error: tokio_postgres::Error) -> Broken {
    let in_order = is_goodbye(&error);
    Broken { failure: Failure::Lost, error: one_line(&error), in_order }
}

/// Has the server been told to shut down? A backend that outlives a killed postmaster says 57P01, too, but
/// where it reads from its socket (`secure_read`), not where it obeys (`ProcessInterrupts`, postgres.c).
fn is_goodbye(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::ADMIN_SHUTDOWN)
        && error.as_db_error().and_then(|told| told.routine()) == Some("ProcessInterrupts")
}
