//! `pgweir check-consistency`

use crate::checker::Level;
use crate::cli::check_consistency::Plan;
use clap::ValueEnum;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// `pgweir check-consistency`
#[derive(clap::Args, Debug)]
pub struct CheckConsistencyArgs {
    /// The endpoint: postgres://user:password@host:port/database (TLS is not spoken)
    #[arg(long, value_name = "URL", env = "PGWEIR_CHECK_URL", hide_env_values = true)]
    pub url: String,

    /// Make and remove the tables here instead (the primary), where the endpoint cannot do that
    ///
    /// Reads call a STABLE function of the schema that says who serves them. A proxy that has not
    /// heard of it may send them to the primary until it has read the catalog again (pgweir: 30 s).
    #[arg(long, value_name = "URL")]
    pub setup_url: Option<String>,

    /// What is promised
    #[arg(long, value_enum, default_value = "session")]
    pub level: LevelArg,

    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = super::seconds)]
    pub seconds: Duration,

    /// End after so many operations, if that is earlier
    #[arg(long, value_name = "NUMBER")]
    pub operations: Option<u64>,

    /// End with the first violation
    #[arg(long)]
    pub until_found: bool,

    /// Sessions at once; each writes a register of its own and reads those of the others
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=512))]
    pub sessions: u32,

    /// Rows of a register: the more, the less often the same row is read again
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub keys: u32,

    /// Lists that all sessions append to
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub lists: u32,

    /// Of a hundred operations, so many are reads
    #[arg(long, value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub reads: u32,

    /// Sessions that rest for up to 3 s between a write and what follows: they find what a crash or
    /// restart of a replica makes older
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    pub slow_sessions: u32,

    /// Sessions with synchronous_commit = off
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    pub async_sessions: u32,

    /// Every session rests so long between two operations, on average
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    pub rest: u64,

    /// The schema of the tables; it must not exist
    #[arg(long, value_name = "NAME", default_value = "pgweir_check", value_parser = schema_name)]
    pub schema: String,

    /// Leave the tables there
    #[arg(long)]
    pub keep: bool,

    /// Show so many violations in full
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub show: usize,

    /// Draw differently
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Answer with one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `--level`
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum LevelArg {
    /// Within a session. A primary may, for a moment, not show yet what a replica has shown: counted, not
    /// blamed
    Session,
    /// The same, and the primary too
    Strict,
    /// Every read shows what anybody had finished, or seen, before it began
    Global,
}

/// The names that need no quotes.
fn schema_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if begins && text.len() < 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("expected lower-case letters, digits and _, a letter first".to_owned())
    }
}

impl CheckConsistencyArgs {
    /// What is to be done.
    pub fn plan(&self) -> Result<Plan, String> {
        let level = match self.level {
            LevelArg::Session => Level::Session,
            LevelArg::Strict => Level::Strict,
            LevelArg::Global => Level::Global,
        };
        Ok(Plan {
            setup: self.setup_url.as_deref().map(|url| endpoint("--setup-url", url)).transpose()?,
            schema: self.schema.clone(),
            keep: self.keep,
            level,
            sessions: self.sessions,
            cells: self.keys,
            lists: self.lists,
            reads_percent: self.reads,
            duration: self.seconds,
            operations: self.operations,
            until_found: self.until_found,
            rest: Duration::from_millis(self.rest),
            slow_sessions: self.slow_sessions,
            async_sessions: self.async_sessions,
            seed: self.seed,
            ..Plan::of(endpoint("--url", &self.url)?)
        })
    }
}

fn endpoint(option: &str, url: &str) -> Result<Config, String> {
    let mut config: Config = url.parse().map_err(|error| format!("{option}: {error}"))?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(format!(
            "{option}: this command does not speak TLS; sslmode=disable, or a local port of pgweir"
        ));
    }
    config.ssl_mode(SslMode::Disable).application_name("pgweir check-consistency");
    Ok(config)
}

pub(super) const EXAMPLES: &str = "\
Examples:
  pgweir check-consistency --url postgres://app:secret@127.0.0.1:6432/app
  pgweir check-consistency --url \"$PROXY\" --setup-url \"$PRIMARY\" --seconds 300 --sessions 64
  pgweir check-consistency --url \"$PROXY\" --level global --until-found --show 1
  pgweir check-consistency --url \"$PROXY\" --operations 1000000 --json | jq .violations_by_guarantee

Exit codes: 0 no violation, 1 violations, 2 wrong arguments, or nothing could be examined.";

#[cfg(test)]
mod tests {
    use crate::cli::args::{Args, Command};
    use clap::Parser;

    fn plan_of(more: &[&str]) -> Result<crate::cli::check_consistency::Plan, String> {
        let args = [&["pgweir", "check-consistency"], more].concat();
        match Args::try_parse_from(args).map(|args| args.command) {
            Ok(Some(Command::CheckConsistency(check))) => check.plan(),
            Ok(_) => Err("another command".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_url_is_enough() {
        let plan = plan_of(&["--url", "postgres://app:secret@127.0.0.1:6432/app"]);
        assert!(plan.as_ref().is_ok_and(|plan| plan.sessions == 32 && plan.reads_percent == 90), "{plan:?}");
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for wrong in [
            vec![],
            vec!["--url", "http://127.0.0.1"],
            vec!["--url", "postgres://127.0.0.1/app?sslmode=require"],
            vec!["--url", "postgres://127.0.0.1/app", "--schema", "Robert'); --"],
            vec!["--url", "postgres://127.0.0.1/app", "--sessions", "1"],
            vec!["--url", "postgres://127.0.0.1/app", "--level", "perfect"],
        ] {
            assert!(plan_of(&wrong).is_err(), "{wrong:?}");
        }
    }
}
