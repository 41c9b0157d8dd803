//! Asks the proven primary what became of transactions whose servers were lost (`freshness::doubt`): one question
//! at a time, for all who wait, over the connection that the probe has.

use crate::clock;
use crate::cluster::view::NodeView;
use crate::fault::one_line;
use crate::freshness::doubt::{Answer, Doubt, Run, Status, Verdict};
use crate::lsn::{Lsn, TimelineId};
use crate::moment::Moment;
use crate::monitor::dial::dial;
use crate::monitor::fence::Line;
use crate::monitor::probe::FLUSH;
use crate::monitor::settings::MonitorSettings;
use crate::monitor::{AbortOnDrop, Monitor, Shared};
use crate::node::NodeId;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as Turn, oneshot, watch};
use tokio::time::{timeout, timeout_at};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Error, Row};

/// Whoever waits asks again so often, whatever is published; doubles up to the second.
const GAPS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// The status of a number that a server has not come to yet would be an error, so it is compared first.
const STATUS: &str = "SELECT CASE
    WHEN t.id::xid8 < pg_catalog.pg_snapshot_xmax(s.seen)
      THEN COALESCE(pg_catalog.pg_xact_status(t.id::xid8), '')
    ELSE 'in progress' END,
  pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())
  FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS t(id, n), (SELECT pg_catalog.pg_current_snapshot()) AS s(seen)
  ORDER BY t.n";

/// As the server's own commits are, where those wait for standbys; else at least on its disk.
const AS_SAFE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
  WHERE pg_catalog.current_setting('synchronous_commit') <> 'remote_apply'";

/// Who waits, and what is being done for them.
#[derive(Default)]
pub(super) struct Docket {
    waiting: Mutex<Vec<Waiting>>,
    /// Whoever has it asks for all.
    turn: Turn<()>,
    confirming: Mutex<Option<Confirming>>,
}

struct Waiting {
    doubt: Doubt,
    answer: oneshot::Sender<Judged>,
}

/// What was found, of whom, and when.
#[derive(Clone, Copy)]
struct Judged {
    verdict: Verdict,
    timeline: TimelineId,
    node: NodeId,
    incarnation: u64,
    at: Moment,
}

/// A commit of our own on the primary: what was committed before it began is as safe as it is, when it is done.
struct Confirming {
    node: NodeId,
    incarnation: u64,
    began: Moment,
    /// `None`: not done yet.
    done: watch::Receiver<Option<bool>>,
    _task: AbortOnDrop,
}

/// What the primary said of one transaction.
struct Said {
    status: Status,
    recovered: Option<Lsn>,
    timeline: TimelineId,
}

impl Monitor {
    /// What became of it, asked of whoever is the proven primary, until one proves something or until `until`.
    /// `Committed` means that it is as safe there as if its own server had said so: with synchronous replication
    /// its standbys have it. With it, on which timeline.
    pub async fn settle(&self, doubt: &Doubt, until: Moment) -> (Verdict, Option<TimelineId>) {
        let mut gap = GAPS.0;
        loop {
            let primary = self.view().primary;
            // A question that is late is not waited for beyond that.
            let asked = timeout_at(clock::instant(until).into(), self.try_settle(doubt, until)).await;
            match asked.ok().flatten() {
                None => {}
                Some(judged) if judged.verdict == Verdict::Open => {}
                Some(judged) => return (judged.verdict, Some(judged.timeline)),
            }
            if clock::now() >= until {
                return (Verdict::Unknown, None);
            }
            let again = clock::now().plus(gap).min(until);
            while self.view().primary == primary && clock::now() < again {
                let generation = self.view().generation;
                self.view_changed(generation, again).await;
            }
            // Nobody asks more often, whoever is the primary.
            tokio::time::sleep(GAPS.0.min(until.since(clock::now()))).await;
            gap = (gap * 2).min(GAPS.1);
        }
    }

    /// `None`: there is nobody to ask, or no answer.
    async fn try_settle(&self, doubt: &Doubt, until: Moment) -> Option<Judged> {
        let judged = self.judge(doubt).await?;
        if judged.verdict != Verdict::Committed {
            return Some(judged);
        }
        tokio::select! {
            confirmed = self.confirm(&judged) => confirmed.map(|()| judged),
            () = self.is_deposed(judged.node, until) => None,
        }
    }

    /// Asks, or lets somebody ask who is about to.
    async fn judge(&self, doubt: &Doubt) -> Option<Judged> {
        let docket = &self.shared.docket;
        let (answer, mut answered) = oneshot::channel();
        lock(&docket.waiting).push(Waiting { doubt: *doubt, answer });
        let turn = tokio::select! {
            biased;
            // Whoever asked has given up: once more.
            judged = &mut answered => return judged.ok(),
            turn = docket.turn.lock() => turn,
        };
        let batch = std::mem::take(&mut *lock(&docket.waiting));
        self.ask(batch).await;
        drop(turn);
        answered.try_recv().ok()
    }

    /// One question for all of them. Those that nothing was found out of hear nothing.
    async fn ask(&self, batch: Vec<Waiting>) -> Option<()> {
        let (node, incarnation, line) = self.primary_line()?;
        let limit = self.shared.settings.load().policy.probe_timeout;
        let numbers: Vec<String> =
            batch.iter().map(|waiting| waiting.doubt.transaction.to_string()).collect();
        let rows = timeout(limit, line.query(STATUS, &[&numbers])).await.ok()?;
        let rows = rows.inspect_err(|error| tracing::debug!(node = node.0, "fates were not told: {error}"));
        let (rows, at) = (rows.ok()?, clock::now());
        for (waiting, row) in batch.into_iter().zip(&rows) {
            let answer = self.shared.weigh(&waiting.doubt, said_in(row)?, node, &line)?;
            let verdict = waiting.doubt.judge(&answer);
            tracing::debug!(doubt = ?waiting.doubt, ?answer, ?verdict, "a transaction's fate");
            // Whoever does not wait any more does not need it.
            let judged = Judged { verdict, timeline: answer.timeline, node, incarnation, at };
            let _unheard: Result<(), Judged> = waiting.answer.send(judged);
        }
        Some(())
    }

    /// The proven primary, which answers, and the monitor's connection to it.
    fn primary_line(&self) -> Option<(NodeId, u64, Line)> {
        let view = self.view();
        let node = view.node(view.primary?)?;
        let limit = self.shared.settings.load().policy.down_after;
        let incarnation = node.live.freshness().incarnation;
        if node.live.is_fenced(clock::now(), limit) {
            return None;
        }
        Some((node.id, incarnation, self.shared.lines().get(&node.id)?.clone()))
    }

    /// Another node is the primary, none is, or the time is over.
    async fn is_deposed(&self, node: NodeId, until: Moment) {
        while self.view().primary == Some(node) && clock::now() < until {
            let generation = self.view().generation;
            self.view_changed(generation, clock::now().plus(GAPS.1).min(until)).await;
        }
    }

    /// Whatever the primary had committed when it was asked is as safe as any of its commits.
    async fn confirm(&self, judged: &Judged) -> Option<()> {
        let Judged { node, incarnation, .. } = *judged;
        loop {
            let (mut done, serves) = self.confirming(judged)?;
            let confirmed = (*done.wait_for(Option::is_some).await.ok()?)?;
            match (serves, confirmed) {
                // It began too early; the next one does not.
                (false, _) => {}
                (true, true) => return self.lived_until(node, incarnation, clock::now()).await,
                (true, false) => return None,
            }
        }
    }

    /// The commit that is being made there, or a new one. True: it serves a transaction that was judged so.
    fn confirming(&self, judged: &Judged) -> Option<(watch::Receiver<Option<bool>>, bool)> {
        let mut confirming = lock(&self.shared.docket.confirming);
        let there = confirming.as_ref().filter(|there| {
            (there.node, there.incarnation) == (judged.node, judged.incarnation) && !there.has_failed()
        });
        if let Some(there) = there {
            let serves = there.began >= judged.at;
            if serves || there.done.borrow().is_none() {
                return Some((there.done.clone(), serves));
            }
        }
        let view = self.shared.view.load_full();
        let at = view.node(judged.node)?.clone();
        let settings = self.shared.settings.load_full();
        let (done, told) = watch::channel(None);
        let began = clock::now();
        let task = AbortOnDrop(tokio::spawn(async move {
            let confirmed = commit(&settings, &at).await;
            if let Err(error) = &confirmed {
                tracing::warn!(node = at.id.0, "a commit that was to confirm others has failed: {error}");
            }
            done.send_replace(Some(confirmed.is_ok()));
        }));
        let Judged { node, incarnation, .. } = *judged;
        *confirming = Some(Confirming { node, incarnation, began, done: told.clone(), _task: task });
        Some((told, true))
    }

    /// The monitor's connection has lived on: the server was not started anew meanwhile.
    async fn lived_until(&self, node: NodeId, incarnation: u64, at: Moment) -> Option<()> {
        let until = at.plus(self.shared.settings.load().policy.down_after);
        self.kick();
        loop {
            let seen = self.publications();
            let fresh = {
                let view = self.view();
                view.node(node).filter(|_| view.primary == Some(node))?.live.freshness()
            };
            if fresh.incarnation != incarnation || clock::now() >= until {
                return None;
            }
            if fresh.sample_sent >= at {
                return Some(());
            }
            self.changed_since(seen, clock::now().plus(GAPS.0).min(until)).await;
        }
    }
}

impl Confirming {
    fn has_failed(&self) -> bool {
        let done = *self.done.borrow();
        // Its task may have ended without a word.
        done == Some(false) || (done.is_none() && self.done.has_changed().is_err())
    }
}

/// One commit that waits as the server's commits do.
async fn commit(settings: &MonitorSettings, at: &NodeView) -> Result<(), String> {
    let options = "-c jit=off -c default_transaction_read_only=off";
    let connected = async {
        let (client, driver) = dial(settings, at, at.address, options, drop).await?;
        client.query(AS_SAFE, &[]).await?;
        Ok((client, driver))
    };
    let connected = timeout(settings.policy.down_after, connected).await;
    let connected = connected.map_err(|_| "no connection in time (down_after)".to_owned())?;
    let (client, _driver) = connected.map_err(|error: Error| one_line(&error))?;
    client.execute(FLUSH, &[]).await.map(|_| ()).map_err(|error| one_line(&error))
}

impl Shared {
    /// What the primary has said, with what is known of its run. `None`: it is not the primary any more, or the
    /// connection over which it was asked is not the present one.
    fn weigh(&self, doubt: &Doubt, said: Said, node: NodeId, line: &Line) -> Option<Answer> {
        let picture = self.picture();
        let view = picture.view();
        let is_primary = view.primary == Some(node) && view.timeline == Some(said.timeline);
        // Under the picture's lock: a connection that has ended is taken off the list under it.
        let is_present = self.lines().get(&node).is_some_and(|present| Arc::ptr_eq(present, line));
        if !is_primary || !is_present || line.is_closed() {
            return None;
        }
        let runs = picture.runs(node)?;
        let run = match node == doubt.node {
            true => runs.compared_with(doubt.incarnation),
            false => Run::Unknown,
        };
        Some(Answer {
            status: said.status,
            node,
            timeline: said.timeline,
            recovered: said.recovered,
            run,
            stood_by_on: runs.stood_by_on(),
        })
    }
}

fn said_in(row: &Row) -> Option<Said> {
    let status = match row.try_get(0).ok()? {
        "committed" => Status::Committed,
        "aborted" => Status::RolledBack,
        "in progress" => Status::Open,
        _ => Status::Forgotten,
    };
    let recovered: Option<PgLsn> = row.try_get(1).ok()?;
    let file: &str = row.try_get(2).ok()?;
    let timeline = TimelineId::of_wal_file(file)?;
    Some(Said { status, recovered: recovered.map(|lsn| Lsn(u64::from(lsn))), timeline })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
