//! What the demo shows: a table that is drawn over itself, or lines, and a summary at the end.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::Verdict;
use super::metrics::{NodeStatus, Snapshot};
use super::traffic::Tally;

/// Remembers how much it has drawn, to draw over it.
#[derive(Default)]
pub(super) struct Screen {
    lines: usize,
}

impl Screen {
    /// The table, over the one before.
    pub(super) fn picture(&mut self, snapshot: &Snapshot, tally: &Tally, elapsed: Duration) -> String {
        let text = format!("{}\n{}\n", table(snapshot), line(snapshot, tally, elapsed).trim_end());
        let back = match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        };
        self.lines = text.lines().count();
        back + &text
    }
}

/// One line for logs.
pub(super) fn line(snapshot: &Snapshot, tally: &Tally, elapsed: Duration) -> String {
    let mut line = format!(
        "{:>4} s · reads {} · writes {} · read-after-write checks {} · stale {}",
        elapsed.as_secs(),
        tally.reads,
        tally.writes,
        tally.checks,
        tally.stale
    );
    for (node, share) in shares(snapshot) {
        put(&mut line, format_args!(" · {node} {share:.0} %"));
    }
    if tally.errors > 0 {
        let last = tally.last_error.as_deref().unwrap_or("");
        put(&mut line, format_args!(" · errors {} ({last})", tally.errors));
    }
    line.push('\n');
    line
}

/// What was served where and why, and whether the promises were kept.
pub(super) fn summary(snapshot: &Snapshot, tally: &Tally, misplaced: u64) -> String {
    let mut text = format!("\n{}\n\nstatements by node and reason:\n", table(snapshot));
    for ((node, reason), count) in snapshot.statements() {
        put(&mut text, format_args!("  {node:<12} {reason:<20} {count:>10.0}\n"));
    }
    put(&mut text, format_args!("\nshare of all reads:\n"));
    for (node, share) in shares(snapshot) {
        put(&mut text, format_args!("  {node:<12} {share:>5.1} %\n"));
    }
    put(
        &mut text,
        format_args!(
            "\nreads {} · writes {} · read-after-write checks {}\n\
             stale reads:        {}\nwrites on replicas: {misplaced}\nerrors:             {}\n",
            tally.reads, tally.writes, tally.checks, tally.stale, tally.errors
        ),
    );
    if let Some(last) = &tally.last_error {
        put(&mut text, format_args!("last error:         {last}\n"));
    }
    if !tally.proves_something() {
        text.push_str("nothing was read back: this proves nothing\n");
    }
    text
}

/// No stale read and no write on a replica, of enough that were tried.
pub(super) fn verdict(tally: &Tally, misplaced: u64) -> Verdict {
    match tally.proves_something() && tally.stale == 0 && misplaced == 0 {
        true => Verdict::Kept,
        false => Verdict::Broken,
    }
}

fn table(snapshot: &Snapshot) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "Node",
        "Role",
        "State",
        "Lag bytes",
        "Staleness",
        "Reads",
        "Writes",
        "Pins",
        "Replays",
    ]);
    for node in &snapshot.nodes {
        table.add_row(row(snapshot, node));
    }
    for column in 3..9 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(snapshot: &Snapshot, node: &NodeStatus) -> [String; 9] {
    // Sessions are pinned to, and statements replayed on, the primary: its row has the totals.
    let on_primary = |name: &str| match snapshot.is_replica(node) {
        true => "-".to_owned(),
        false => format!("{:.0}", snapshot.total(name)),
    };
    let replica_only = |text: Option<String>| match snapshot.is_replica(node) {
        true => text.unwrap_or_else(|| "unknown".to_owned()),
        false => "-".to_owned(),
    };
    [
        node.member.clone(),
        node.role.clone().unwrap_or_else(|| "unknown".to_owned()),
        node.state.clone(),
        replica_only(node.lag_bytes.map(|bytes| bytes.to_string())),
        replica_only(node.staleness_seconds.map(|seconds| format!("{:.0} ms", seconds * 1000.0))),
        node.reads.to_string(),
        node.writes.to_string(),
        on_primary("pgweir_pins_total"),
        on_primary("pgweir_replays_total"),
    ]
}

/// Each node's share of all reads, in per cent.
fn shares(snapshot: &Snapshot) -> Vec<(&str, f64)> {
    let all: u64 = snapshot.nodes.iter().map(|node| node.reads).sum();
    let share = |reads: u64| if all == 0 { 0.0 } else { 100.0 * reads as f64 / all as f64 };
    snapshot.nodes.iter().map(|node| (node.member.as_str(), share(node.reads))).collect()
}

/// Writing to a String cannot fail.
fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    if text.write_fmt(what).is_err() {
        text.push('?');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let node = |member: &str, role: &str, reads| NodeStatus {
            member: member.to_owned(),
            role: Some(role.to_owned()),
            state: "up".to_owned(),
            lag_bytes: Some(4096),
            staleness_seconds: Some(0.0123),
            reads,
            writes: if role == "primary" { 5 } else { 0 },
        };
        let nodes = vec![node("pg1", "primary", 20), node("pg2", "replica", 40), node("pg3", "replica", 40)];
        Snapshot { nodes, samples: Vec::new() }
    }

    #[test]
    fn a_picture_is_drawn_over_the_one_before() {
        let mut screen = Screen::default();
        let first = screen.picture(&snapshot(), &Tally::default(), Duration::from_secs(1));
        let second = screen.picture(&snapshot(), &Tally::default(), Duration::from_secs(2));
        assert!(!first.contains('\x1b'));
        assert!(second.starts_with(&format!("\x1b[{}A\x1b[J", first.lines().count())));
        assert!(first.contains("4096") && first.contains("12 ms"), "{first}");
    }

    #[test]
    fn the_summary_has_every_nodes_share_of_the_reads() {
        let tally = Tally { reads: 80, checks: 20, ..Tally::default() };
        let text = summary(&snapshot(), &tally, 0);
        assert!(text.contains("pg2           40.0 %"), "{text}");
        assert!(!text.contains("proves nothing"));
    }

    #[test]
    fn promises_are_kept_only_if_they_were_tried() {
        let fine = Tally { reads: 1, checks: 1, ..Tally::default() };
        assert_eq!(verdict(&fine, 0), Verdict::Kept);
        assert_eq!(verdict(&fine, 1), Verdict::Broken);
        assert_eq!(verdict(&Tally { stale: 1, ..fine }, 0), Verdict::Broken);
        assert_eq!(verdict(&Tally::default(), 0), Verdict::Broken);
    }
}
