//! Runs the fence of one replica when somebody waits for it: three short questions over the connections
//! that the probes have.

use crate::clock;
use crate::freshness::fence::{Fence, Fenced, Step};
use crate::moment::Moment;
use crate::monitor::{Shared, count};
use crate::node::NodeId;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// Between two questions whether the primary shows it all. Doubles up to the second: a commit that waits
/// for a synchronous standby may hang for long.
const GAPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// Behind an error the connections are probably being made anew.
const AFTER_ERROR: Duration = Duration::from_millis(20);
/// A run that hangs for so long is given up; whoever still waits begins another.
const RUN_LIMIT: Duration = Duration::from_secs(10);

const SNAPSHOT: &str = "SELECT pg_catalog.pg_current_snapshot()::text";

/// Transactions of the replica's that a snapshot of the primary's does not show. The status of one that the
/// replica has not heard of is an error, so the order of the two conditions matters.
const BEYOND: &str = "SELECT q.x::text::int8 FROM (
    SELECT pg_catalog.pg_snapshot_xip($1::text::pg_snapshot) AS x
    UNION ALL
    SELECT g::text::xid8 FROM pg_catalog.generate_series(
      pg_catalog.pg_snapshot_xmax($1::text::pg_snapshot)::text::int8,
      pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8 - 1) AS g) AS q
  WHERE CASE WHEN q.x < pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
    THEN pg_catalog.pg_xact_status(q.x) = 'committed' ELSE false END";

const HIDDEN: &str = "SELECT x FROM pg_catalog.unnest($1::int8[]) AS x
  WHERE NOT pg_catalog.pg_visible_in_snapshot(x::text::xid8, pg_catalog.pg_current_snapshot())";

/// A probe's connection, for others to ask over.
pub(super) type Line = Arc<Client>;

/// What a run goes over.
struct Lines {
    primary: (NodeId, Line),
    replica: Line,
    /// The replica's incarnation when the run began: the line is of this one, or dead.
    incarnation: u64,
}

/// Runs until the monitor is dropped or the task is aborted.
pub(super) async fn run(shared: Weak<Shared>, node: NodeId, wake: Arc<Notify>) {
    loop {
        wake.notified().await;
        if serve(&shared, node).await.is_none() {
            // Whoever still waits wakes it again.
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }
}

/// Runs until nobody waits. `None`: a connection broke, or is gone.
async fn serve(shared: &Weak<Shared>, node: NodeId) -> Option<()> {
    let (lines, live) = {
        let shared = shared.upgrade()?;
        let live = shared.view.load().node(node)?.live.clone();
        let incarnation = live.freshness().incarnation;
        if live.fence_wanted() <= live.fenced(incarnation) {
            return Some(());
        }
        (lines(&shared, node, incarnation)?, live)
    };
    let (mut fence, mut gap) = (Fence::default(), GAPS.0);
    let began = clock::now();
    loop {
        fence.want(live.fence_wanted());
        if fence.next() != Step::Rest {
            count(&shared.upgrade()?.queries.fences);
        }
        let ended = match fence.next() {
            Step::Rest => return Some(()),
            Step::Snapshot => {
                fence.snapshot(ask(&lines.primary.1, SNAPSHOT, &[]).await?.first()?.try_get(0).ok()?);
                gap = GAPS.0;
                None
            }
            Step::Beyond(snapshot) => {
                let of = Fenced { inserted: live.freshness().watermark_insert, shown: clock::now() };
                let rows = ask(&lines.replica, BEYOND, &[&snapshot]).await?;
                fence.beyond(of, transactions(&rows)?)
            }
            Step::Hidden(listed) => {
                let rows = ask(&lines.primary.1, HIDDEN, &[&listed]).await?;
                let ended = fence.hidden(transactions(&rows)?);
                if ended.is_none() {
                    tokio::time::sleep(gap).await;
                    gap = (gap * 2).min(GAPS.1);
                }
                ended
            }
        };
        let shared = shared.upgrade()?;
        match ended {
            Some(fenced) => publish(&shared, node, &lines, fenced)?,
            // A hanging run outlives neither what it goes over nor, by much, those who wait.
            None if clock::now().since(began) > RUN_LIMIT || !is_alive(&shared, node, &lines) => return None,
            None => {}
        }
    }
}

fn lines(shared: &Shared, node: NodeId, incarnation: u64) -> Option<Lines> {
    let primary = shared.view.load().primary.filter(|primary| *primary != node)?;
    let known = shared.lines();
    let replica = known.get(&node)?.clone();
    Some(Lines { primary: (primary, known.get(&primary)?.clone()), replica, incarnation })
}

/// Are both ends what they were?
fn is_alive(shared: &Shared, node: NodeId, lines: &Lines) -> bool {
    let view = shared.view.load();
    let now = view.node(node).map(|node| node.live.freshness().incarnation);
    view.primary == Some(lines.primary.0) && now == Some(lines.incarnation)
}

/// Under the picture's lock, as everything that is forgotten: what is published was not forgotten before.
fn publish(shared: &Shared, node: NodeId, lines: &Lines, fenced: Fenced) -> Option<()> {
    {
        let picture = shared.picture();
        let view = picture.view();
        let live = &view.node(node)?.live;
        let (primary, _) = lines.primary;
        if view.primary != Some(primary) || live.freshness().incarnation != lines.incarnation {
            return None;
        }
        live.set_fenced(fenced.shown, fenced.inserted.max(live.fenced_insert()));
    }
    shared.publish(None);
    Some(())
}

fn transactions(rows: &[Row]) -> Option<Vec<i64>> {
    rows.iter().map(|row| row.try_get(0).ok()).collect()
}

async fn ask(line: &Line, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Option<Vec<Row>> {
    match line.query(sql, parameters).await {
        Ok(rows) => Some(rows),
        Err(error) => {
            tracing::debug!("a fence was not finished: {error}");
            None
        }
    }
}

/// Somebody waits for these fences.
pub(super) fn want(shared: &Shared, nodes: impl Fn(NodeId) -> bool, at: Moment) {
    let view = shared.view.load();
    view.nodes.iter().filter(|node| nodes(node.id)).for_each(|node| node.live.want_fence(at));
    for (_, probe) in shared.probes().iter().filter(|(node, _)| nodes(**node)) {
        probe.fence.notify_one();
    }
}
