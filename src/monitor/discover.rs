//! Asks the nodes who streams from them: standbys become nodes, too.
//!
//! The primary is asked, and every standby that is proven to be on its branch: others may stream from it. Without a
//! primary nobody is asked, and so nobody forgotten.

use crate::clock;
use crate::cluster::view::{NodeState, NodeView};
use crate::config::settings::DiscoverSettings;
use crate::fault::one_line;
use crate::monitor::Shared;
use crate::monitor::fence::Line;
use crate::monitor::members::standbys::{HIDDEN, Receiver, Resolved, Roll, call_the_roll};
use crate::monitor::names::{is_name, look_up};
use futures_util::future::join_all;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_postgres::Row;

/// Never more often than this, however often the primary changes.
const MIN_GAP: Duration = Duration::from_millis(100);
/// One node may take so long to answer, and one name to be looked up.
const LIMIT: Duration = Duration::from_secs(5);

/// Whoever receives WAL without a database receives it physically: logical decoding needs one (manual, "Streaming
/// Replication Protocol": `replication=database`), and no standby asks for one. Only `pg_monitor` sees the state and
/// the address; the name and the process are everybody's to see.
const WHO: &str =
    "SELECT s.application_name, pg_catalog.host(s.client_addr), s.state, s.replay_lsn IS NOT NULL
  FROM pg_catalog.pg_stat_replication AS s JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.pid
  WHERE a.datid IS NULL ORDER BY s.application_name, s.client_addr LIMIT 256";

/// Asks again and again, until the monitor is dropped or the task is aborted.
pub(super) async fn run(shared: Weak<Shared>, settings: DiscoverSettings) {
    let mut told = BTreeSet::new();
    loop {
        let Some(gap) = round(&shared, &settings, &mut told).await else { return };
        tokio::time::sleep(MIN_GAP).await;
        let Some(new_primary) = shared.upgrade().map(|shared| Arc::clone(&shared.new_primary)) else {
            return;
        };
        // Either way it is time to ask.
        drop(tokio::time::timeout(gap.saturating_sub(MIN_GAP), new_primary.notified()).await);
    }
}

/// Asks once, and says when to ask again. `None`: the monitor is gone.
async fn round(
    shared: &Weak<Shared>,
    settings: &DiscoverSettings,
    told: &mut BTreeSet<String>,
) -> Option<Duration> {
    let asked = clock::now();
    let lines = lines(&*shared.upgrade()?);
    let answers = join_all(lines.iter().map(|(name, line)| ask(name, line))).await;
    let mut receivers = Vec::new();
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(found) => receivers.extend(found),
            // Without the primary's it is no answer; a standby's may come the next time.
            Err(error) if index == 0 => {
                shared.upgrade()?.members().standbys_not_told(&error);
                return Some((settings.interval / 5).max(MIN_GAP));
            }
            Err(error) => tracing::debug!("who streams from a standby is not known: {error}"),
        }
    }
    if lines.is_empty() {
        return Some(settings.interval);
    }
    let roll = call_the_roll(asked, receivers, settings);
    let resolved = resolve(shared, &roll).await?;
    let shared = shared.upgrade()?;
    let mut complaints = shared.members().streamed(&roll, resolved, &|name| shared.is_up(name));
    shared.apply_members();
    complaints.extend(roll.is_hidden.then(|| HIDDEN.to_owned()));
    tell(complaints, told);
    Some(settings.interval)
}

/// The probes' connections to those who are asked, the primary's first.
fn lines(shared: &Shared) -> Vec<(Arc<str>, Line)> {
    let asked = shared.picture().on_branch();
    let (view, lines) = (shared.view.load(), shared.lines());
    let line_of = |id| Some((Arc::clone(&view.node(id)?.name), Arc::clone(lines.get(&id)?)));
    let mut asked = asked.into_iter().map(line_of);
    // Not without the primary.
    let Some(Some(primary)) = asked.next() else { return Vec::new() };
    std::iter::once(primary).chain(asked.flatten()).collect()
}

async fn ask(name: &Arc<str>, line: &Line) -> Result<Vec<Receiver>, String> {
    let rows = match tokio::time::timeout(LIMIT, line.query(WHO, &[])).await {
        Ok(rows) => rows.map_err(|error| format!("{name}: {}", one_line(&error)))?,
        Err(_) => return Err(format!("{name}: no answer in time")),
    };
    rows.iter()
        .map(|row| receiver(name, row).map_err(|error| format!("{name}: {}", one_line(&error))))
        .collect()
}

fn receiver(from: &Arc<str>, row: &Row) -> Result<Receiver, tokio_postgres::Error> {
    let (name, address): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Receiver {
        from: Arc::clone(from),
        application_name: name.unwrap_or_default(),
        address: address.and_then(|address| address.parse().ok()),
        state: row.try_get(2)?,
        replays: row.try_get(3)?,
    })
}

/// What the names of nodes and standbys stand for. Of a node that is reached, where it is reached.
async fn resolve(shared: &Weak<Shared>, roll: &Roll) -> Option<Resolved> {
    let mut known: HashMap<String, Vec<IpAddr>> = HashMap::new();
    let mut unknown: BTreeSet<String> = roll.standbys.iter().map(|standby| standby.host.clone()).collect();
    {
        let shared = shared.upgrade()?;
        let view = shared.view.load();
        let is_there = |node: &&NodeView| node.state != NodeState::Removed && is_name(&node.host);
        for node in view.nodes.iter().filter(is_there) {
            match node.address {
                Some(address) => known.entry(node.host.to_string()).or_default().push(address),
                None => drop(unknown.insert(node.host.to_string())),
            }
        }
    }
    unknown.retain(|host| is_name(host) && !known.contains_key(host));
    let found = join_all(unknown.iter().map(|host| look_up(host, LIMIT))).await;
    // A name that cannot be resolved is the same as itself only.
    known.extend(unknown.iter().cloned().zip(found).filter_map(|(host, found)| Some((host, found.ok()?))));
    Some(Resolved(known))
}

/// Once, as long as it lasts.
fn tell(complaints: Vec<String>, told: &mut BTreeSet<String>) {
    let now: BTreeSet<String> = complaints.into_iter().collect();
    for complaint in now.difference(told) {
        tracing::warn!("{complaint}");
    }
    *told = now;
}

/// For those who hold the monitor weakly.
pub(super) fn spawn(shared: &Arc<Shared>, settings: DiscoverSettings) -> tokio::task::JoinHandle<()> {
    tokio::spawn(run(Arc::downgrade(shared), settings))
}
