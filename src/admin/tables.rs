//! Facts → rows. Nothing here asks anybody: what a table says was handed to it.

pub mod clients;
pub mod cluster;
pub mod config;
pub mod overview;
pub mod pools;
pub mod stats;

use crate::admin::command::{Command, Show};

/// Names of columns.
pub type Columns = &'static [&'static str];

/// One row; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// What a command answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Rows, where the command has columns.
    pub rows: Vec<Row>,
    /// What is said besides, as a NOTICE.
    pub notice: Option<String>,
    /// The command tag.
    pub tag: &'static str,
}

impl Answer {
    /// The rows of a SHOW.
    pub fn show(rows: Vec<Row>) -> Answer {
        Answer { rows, notice: None, tag: "SHOW" }
    }

    /// Only a tag.
    pub fn done(tag: &'static str) -> Answer {
        Answer { rows: Vec::new(), notice: None, tag }
    }
}

/// The columns that a command answers with; `None`: it has no rows.
pub fn columns_of(command: &Command) -> Option<Columns> {
    match command {
        Command::Show(show) => Some(match show {
            Show::Cluster => cluster::COLUMNS,
            Show::Evidence => cluster::EVIDENCE_COLUMNS,
            Show::Pools => pools::COLUMNS,
            Show::Servers => pools::SERVER_COLUMNS,
            Show::Clients => clients::COLUMNS,
            Show::Stats => stats::COLUMNS,
            Show::Config => config::COLUMNS,
            Show::Databases => overview::DATABASE_COLUMNS,
            Show::Lists => overview::LIST_COLUMNS,
            Show::Version => overview::VERSION_COLUMNS,
            Show::Help => overview::HELP_COLUMNS,
        }),
        Command::Value { column, .. } => Some(column),
        Command::Reload
        | Command::Operate(_)
        | Command::Begin
        | Command::Commit
        | Command::Rollback
        | Command::Deallocate(_)
        | Command::Nothing(_) => None,
    }
}

/// A cell.
fn cell(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn yes_no(value: bool) -> Option<String> {
    cell(if value { "yes" } else { "no" })
}

/// Seconds with three places.
fn seconds(duration: std::time::Duration) -> Option<String> {
    Some(format!("{:.3}", duration.as_secs_f64()))
}
