//! What was found, for people and for programs.

use crate::checker::{Guarantee, Operation, Violation};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::collections::BTreeMap;
use std::time::Duration;

/// What one server has served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerShare {
    /// `cluster_name:port`.
    pub name: String,
    /// Was it in recovery?
    pub replica: bool,
    /// Reads.
    pub reads: u64,
}

/// The result of an examination.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long the sessions ran.
    pub elapsed: Duration,
    /// Operations, failed ones among them.
    pub operations: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// By whom.
    pub servers: Vec<ServerShare>,
    /// Names by the numbers in violations.
    pub names: Vec<String>,
    /// Errors by kind of operation and SQLSTATE.
    pub errors: BTreeMap<(&'static str, String), u64>,
    /// Violations by guarantee.
    pub counts: BTreeMap<Guarantee, u64>,
    /// The first thousand.
    pub violations: Vec<Violation>,
    /// How often a primary did not show yet what a replica had shown (at `session`, where nobody
    /// promises that it does).
    pub overtaken: u64,
    /// When the first violation was found.
    pub found_after: Option<Duration>,
}

impl Report {
    /// All violations, also those that are only counted.
    pub fn violations_total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The part of the reads that replicas served, 0 to 1.
    pub fn replica_share(&self) -> f64 {
        let on_replicas: u64 =
            self.servers.iter().filter(|share| share.replica).map(|share| share.reads).sum();
        on_replicas as f64 / self.reads.max(1) as f64
    }

    /// Tables, and the first `show` violations in full.
    pub fn table(&self, show: usize) -> String {
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.operations as f64 / seconds.max(0.001);
        let mut text = format!("{} operations in {seconds:.1} s ({rate:.0}/s)\n", self.operations);
        let mut servers = new_table(["Reads by", "Role", "Reads", "Share"]);
        for share in &self.servers {
            let role = if share.replica { "replica" } else { "primary" };
            let part = 100.0 * share.reads as f64 / self.reads.max(1) as f64;
            servers.add_row([
                share.name.clone(),
                role.to_owned(),
                share.reads.to_string(),
                format!("{part:.1} %"),
            ]);
        }
        let all = 100.0 * self.replica_share();
        servers.add_row([
            "all".to_owned(),
            "replicas".to_owned(),
            self.reads.to_string(),
            format!("{all:.1} %"),
        ]);
        text.push_str(&right(servers, 2));
        if !self.errors.is_empty() {
            let mut errors = new_table(["Errors", "SQLSTATE", "Count", ""]);
            for ((what, code), count) in &self.errors {
                errors.add_row([(*what).to_owned(), code.clone(), count.to_string(), String::new()]);
            }
            text.push_str(&right(errors, 2));
        }
        if self.overtaken > 0 {
            text.push_str(&format!(
                "{} times the primary did not show yet what a replica had shown (level session does not \
                 promise it; strict does)\n",
                self.overtaken
            ));
        }
        text.push_str(&self.verdict(show));
        text
    }

    fn verdict(&self, show: usize) -> String {
        if self.counts.is_empty() {
            return "0 violations\n".to_owned();
        }
        let counts: Vec<String> =
            self.counts.iter().map(|(guarantee, count)| format!("{} {count}", guarantee.as_str())).collect();
        let mut text = format!("{} violations: {}\n", self.violations_total(), counts.join(", "));
        if let Some(after) = self.found_after {
            text.push_str(&format!("the first after {:.1} s\n", after.as_secs_f64()));
        }
        for violation in self.violations.iter().take(show) {
            text.push_str(&format!("\n{}\n", violation.describe(&self.names)));
        }
        text
    }

    /// One JSON object on a line.
    pub fn json(&self) -> String {
        let errors: Vec<_> = self
            .errors
            .iter()
            .map(|((what, code), count)| {
                serde_json::json!({ "operation": what, "sqlstate": code, "count": count })
            })
            .collect();
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(|share| {
                serde_json::json!({ "server": share.name, "replica": share.replica, "reads": share.reads })
            })
            .collect();
        let counts: serde_json::Map<_, _> = self
            .counts
            .iter()
            .map(|(guarantee, count)| (guarantee.as_str().to_owned(), (*count).into()))
            .collect();
        let violations: Vec<_> = self.violations.iter().map(|violation| self.violation(violation)).collect();
        let all = serde_json::json!({
            "seconds": self.elapsed.as_secs_f64(),
            "operations": self.operations,
            "reads": self.reads,
            "reads_by_server": servers,
            "replica_share": self.replica_share(),
            "errors": errors,
            "primary_behind_replica": self.overtaken,
            "violations_total": self.violations_total(),
            "violations_by_guarantee": counts,
            "first_violation_after_seconds": self.found_after.map(|after| after.as_secs_f64()),
            "violations": violations,
        });
        format!("{all}\n")
    }

    fn violation(&self, violation: &Violation) -> serde_json::Value {
        serde_json::json!({
            "guarantee": violation.guarantee.as_str(),
            "item": violation.second.item.to_string(),
            "why": violation.why,
            "first": self.operation(&violation.first),
            "second": self.operation(&violation.second),
        })
    }

    fn operation(&self, operation: &Operation) -> serde_json::Value {
        let by = operation.served.and_then(|served| self.names.get(usize::from(served.by)));
        serde_json::json!({
            "text": operation.describe(&self.names),
            "session": operation.session.0,
            "connection": operation.connection,
            "version": operation.version,
            "server": by,
            "replica": operation.served.map(|served| served.replica),
            "sent_nanos": operation.invoked.0,
            "complete_nanos": operation.completed.0,
        })
    }
}

fn new_table(header: [&str; 4]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

fn right(mut table: Table, from: usize) -> String {
    for column in from..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}
