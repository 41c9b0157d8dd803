//! `pgweir check-consistency`: many sessions on any PostgreSQL endpoint, and a judge of what they are shown.

mod plan;
mod report;
mod run;
mod schema;
mod session;
mod statements;
mod tally;

pub use plan::Plan;
pub use report::{Report, ServerShare};
pub use run::{ExamineError, examine};
pub use tally::Progress;

use crate::cli::args::CheckConsistencyArgs;
use crate::cli::{Outcome, block_on, print};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How often the progress line is written.
const EVERY: Duration = Duration::from_secs(2);

/// Examines the endpoint and prints what was found. 1 means violations and nothing else: an endpoint
/// that could not be examined is 2.
pub fn run(args: &CheckConsistencyArgs) -> Outcome {
    let plan = match args.plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("pgweir: {error}");
            return Outcome::BadUsage;
        }
    };
    let live = std::io::stderr().is_terminal();
    let mut lines = 0;
    let progress = |progress: &Progress| {
        lines += 1;
        let (before, after) = if live { ("\r\x1b[K", "") } else { ("", "\n") };
        let line = format!("{before}{progress}{after}");
        // Nobody reads it: not worth a word.
        drop(std::io::stderr().lock().write_all(line.as_bytes()));
    };
    let examined = block_on(examine(&plan, EVERY, progress));
    if live && lines > 0 {
        eprintln!();
    }
    match examined {
        None => Outcome::BadUsage,
        Some(Err(error)) => {
            eprintln!("pgweir: {error}");
            Outcome::BadUsage
        }
        Some(Ok(report)) => {
            let text = if args.json { report.json() } else { report.table(args.show) };
            match (print(&text), report.violations_total()) {
                (printed, 0) => printed,
                _ => Outcome::Failed,
            }
        }
    }
}
