//! One examination, from its tables to its report.

use crate::checker::History;
use crate::cli::check_consistency::plan::Plan;
use crate::cli::check_consistency::report::Report;
use crate::cli::check_consistency::schema;
use crate::cli::check_consistency::session::Session;
use crate::cli::check_consistency::statements::{Statements, Way};
use crate::cli::check_consistency::tally::{Progress, Tally};
use crate::clock;
use crate::moment::Moment;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Error;

/// How often the end is looked for.
const TICK: Duration = Duration::from_millis(20);
/// Every server has the new tables by then.
const TABLES_WITHIN: Duration = Duration::from_secs(60);
/// A session that hangs is left behind.
const LAST_ANSWERS: Duration = Duration::from_secs(40);

/// Why nothing can be said about the endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// Tables.
    #[error("cannot make the tables in schema {schema}: {}", describe(source))]
    Tables {
        /// Where.
        schema: String,
        /// Why.
        source: Error,
    },
    /// The endpoint.
    #[error("cannot read the new tables through the endpoint: {}", describe(.0))]
    Endpoint(Error),
    /// They do not appear.
    #[error("the new tables do not appear at the endpoint: does it lead to another database?")]
    Invisible,
    /// Nothing was answered.
    #[error("no operation was answered; errors by SQLSTATE: {0}")]
    Nothing(String),
}

fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message(), server.code().code()),
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
            format!("{error}{}", cause.unwrap_or_default())
        }
    }
}

/// Makes the tables, runs the sessions, removes the tables. `progress` is called `every` so often.
pub async fn examine(
    plan: &Plan,
    every: Duration,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, ExamineError> {
    let tables = |source| ExamineError::Tables { schema: plan.schema.clone(), source };
    schema::create(plan).await.map_err(tables)?;
    let examined = match wait_for_tables(plan).await {
        Ok(()) => Ok(drive(plan, every, &mut progress).await),
        Err(error) => Err(error),
    };
    if !plan.keep
        && let Err(error) = schema::remove(plan).await
    {
        tracing::warn!("the schema {} stays behind: {}", plan.schema, describe(&error));
    }
    let report = examined?;
    let failed = report.errors.iter().filter(|((what, _), _)| *what != "connect");
    if report.operations <= failed.map(|(_, count)| *count).sum::<u64>() {
        let errors: Vec<String> =
            report.errors.iter().map(|((what, code), count)| format!("{what} {code} {count}")).collect();
        return Err(ExamineError::Nothing(errors.join(", ")));
    }
    Ok(report)
}

/// A replica that is behind does not have the tables yet: that is not what is examined.
async fn wait_for_tables(plan: &Plan) -> Result<(), ExamineError> {
    let client = schema::connect(&plan.endpoint).await.map_err(ExamineError::Endpoint)?;
    let until = clock::now().plus(TABLES_WITHIN);
    let mut in_a_row = 0;
    while in_a_row < 30 {
        let seen = match Statements::prepare(&client, &plan.schema).await {
            Ok(statements) => {
                let one = crate::checker::SessionId(0);
                match statements.registers(&client, Way::Simple, one, one, plan.cells).await {
                    Ok((_, server)) => Ok(server.is_some()),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match seen {
            Ok(true) => {
                in_a_row += 1;
                continue;
            }
            Ok(false) => {}
            Err(error) if client.is_closed() => return Err(ExamineError::Endpoint(error)),
            Err(error) if clock::now() >= until => return Err(ExamineError::Endpoint(error)),
            Err(_) => {}
        }
        if clock::now() >= until {
            return Err(ExamineError::Invisible);
        }
        in_a_row = 0;
        sleep(TICK).await;
    }
    Ok(())
}

async fn drive(plan: &Plan, every: Duration, progress: &mut impl FnMut(&Progress)) -> Report {
    let plan = Arc::new(plan.clone());
    let history = History::new(plan.shape());
    let tally = Arc::new(Tally::new(history, plan.operations, plan.until_found));
    let mut sessions = JoinSet::new();
    for id in 0..plan.sessions {
        sessions.spawn(Session::new(id, plan.clone(), tally.clone()).run());
    }
    let begun: Moment = clock::now();
    let mut told = begun;
    while !tally.has_ended() {
        sleep(TICK).await;
        let now = clock::now();
        if now.since(told) >= every {
            told = now;
            progress(&tally.progress());
        }
        if now.since(begun) >= plan.duration || plan.stop.load(Ordering::Relaxed) {
            tally.end();
        }
    }
    let report_at_end = tally.report();
    let all = async { while sessions.join_next().await.is_some() {} };
    // What hangs is aborted when the set is dropped.
    if tokio::time::timeout(LAST_ANSWERS, all).await.is_err() {
        tracing::warn!("some sessions did not end");
    }
    Report { elapsed: report_at_end.elapsed, ..tally.report() }
}
