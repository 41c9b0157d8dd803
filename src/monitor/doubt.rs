//! Asks the proven primary what became of a transaction whose server was lost (`freshness::doubt`).

use crate::clock;
use crate::cluster::view::NodeView;
use crate::freshness::doubt::{Answer, Doubt, Run, Status, Verdict};
use crate::lsn::{Lsn, TimelineId};
use crate::moment::Moment;
use crate::monitor::dial::dial;
use crate::monitor::fence::Line;
use crate::monitor::probe::FLUSH;
use crate::monitor::{Monitor, Shared};
use crate::node::NodeId;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

/// Whoever waits looks again so often, whatever is published.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A number that this server has not come to yet would be an error, so it is compared first.
const STATUS: &str = "SELECT CASE
    WHEN x.id < pg_catalog.pg_snapshot_xmax(s.seen) THEN COALESCE(pg_catalog.pg_xact_status(x.id), '')
    ELSE 'in progress' END,
  pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())
  FROM (SELECT $1::text::xid8) AS x(id), (SELECT pg_catalog.pg_current_snapshot()) AS s(seen)";

/// A commit that was made to be waited for, as every commit of this server is: what was committed before it is
/// where its own record is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmed {
    node: NodeId,
    incarnation: u64,
    began: Moment,
}

/// What the primary said, and in which incarnation.
struct Said {
    status: Status,
    recovered: Option<Lsn>,
    timeline: TimelineId,
}

impl Monitor {
    /// What became of it, asked of whoever is the proven primary, until one proves something or until `until`.
    /// `Committed` means that it is as safe there as if its own server had said so: with synchronous replication
    /// its standbys have it.
    pub async fn settle(&self, doubt: &Doubt, until: Moment) -> Verdict {
        loop {
            let seen = self.publications();
            match self.judge(doubt, until).await {
                None | Some(Verdict::Open) => {}
                Some(verdict) => return verdict,
            }
            if clock::now() >= until {
                return Verdict::Unknown;
            }
            self.published_since(seen, clock::now().plus(LOOK_AGAIN).min(until)).await;
        }
    }

    /// `None`: there is nobody to ask, or no answer.
    async fn judge(&self, doubt: &Doubt, until: Moment) -> Option<Verdict> {
        let (node, incarnation, line) = self.primary_line()?;
        let limit = self.shared.settings.load().policy.probe_timeout;
        let row = timeout(limit, line.query_one(STATUS, &[&doubt.transaction.to_string()])).await.ok()?;
        let said = row.inspect_err(|error| {
            tracing::debug!(node = node.0, "a transaction's fate was not told: {error}")
        });
        let said = said_in(&said.ok()?)?;
        let answered = clock::now();
        let answer = self.shared.weigh(doubt, said, node, &line)?;
        let verdict = doubt.judge(&answer);
        tracing::debug!(?doubt, ?answer, ?verdict, "a transaction's fate");
        if verdict != Verdict::Committed {
            return Some(verdict);
        }
        let confirmed = tokio::select! {
            confirmed = self.confirm(node, incarnation, answered) => confirmed,
            () = self.is_deposed(node, until) => None,
        };
        confirmed.map(|()| Verdict::Committed)
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
            self.view_changed(generation, clock::now().plus(LOOK_AGAIN).min(until)).await;
        }
    }

    /// Whatever the primary had committed by `at` is as safe as any of its commits. One of these serves all who
    /// wait for it.
    async fn confirm(&self, node: NodeId, incarnation: u64, at: Moment) -> Option<()> {
        let mut last = self.shared.confirmed.lock().await;
        let serves =
            |done: &Confirmed| (done.node, done.incarnation) == (node, incarnation) && done.began >= at;
        if !last.as_ref().is_some_and(serves) {
            let began = clock::now();
            let view = self.shared.view.load_full();
            self.commit(view.node(node)?).await?;
            *last = Some(Confirmed { node, incarnation, began });
        }
        drop(last);
        self.lived_until(node, incarnation, clock::now()).await
    }

    /// One commit as the server's own settings want it.
    async fn commit(&self, at: &NodeView) -> Option<()> {
        let settings = self.shared.settings.load_full();
        let options = "-c jit=off -c default_transaction_read_only=off";
        let (client, driver) = dial(&settings, at, at.address, options, drop).await.ok()?;
        let done = client.execute(FLUSH, &[]).await;
        drop(driver);
        done.ok().map(|_| ())
    }

    /// The monitor's connection has lived on: the server was not started anew meanwhile.
    async fn lived_until(&self, node: NodeId, incarnation: u64, at: Moment) -> Option<()> {
        let until = at.plus(self.shared.settings.load().policy.down_after);
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
            self.kick();
            self.changed_since(seen, clock::now().plus(LOOK_AGAIN).min(until)).await;
        }
    }
}

impl Shared {
    /// What the primary has said, with what is known of its run. `None`: it is not the primary any more, or the
    /// connection over which it was asked is not the present one.
    fn weigh(&self, doubt: &Doubt, said: Said, node: NodeId, line: &Line) -> Option<Answer> {
        let picture = self.picture();
        let view = picture.view();
        let is_primary = view.primary == Some(node) && view.timeline == Some(said.timeline);
        // Under the picture's lock: a connection that has ended is taken off the list under it.
        let is_present = self.lines().get(&node).is_some_and(|present| std::sync::Arc::ptr_eq(present, line));
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
    let timeline = TimelineId(u32::from_str_radix(file.get(..8)?, 16).ok()?);
    Some(Said { status, recovered: recovered.map(|lsn| Lsn(u64::from(lsn))), timeline })
}
