//! The arguments, and the help that teaches them.

mod consistency;

pub use consistency::CheckConsistencyArgs;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration if none is named.
pub const DEFAULT_CONFIG: &str = "config.yaml";

/// PostgreSQL proxy: writes to the primary, reads to the replicas, and never a read that has not
/// seen its own write.
///
/// Applications connect to pgweir instead of PostgreSQL; nothing else changes for them. pgweir
/// measures which node is the primary and how far the replicas are, sends each statement where it
/// belongs, and pools the server connections.
#[derive(Parser, Debug)]
#[command(name = "pgweir", version, after_help = EXAMPLES, after_long_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// The configuration (see the annotated config.yaml) [default: config.yaml]
    #[arg(short, long, global = true, env = "PGWEIR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Args {
    /// The configuration file, whether it was named or not.
    pub fn config_file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }
}

/// The six commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the proxy (the default)
    ///
    /// SIGHUP reads the configuration again; a bad one leaves the old one in force. SIGTERM and
    /// Ctrl-C let clients finish their transactions, or stay until they leave (limits.drain), within
    /// limits.drain_timeout; told again, it waits for less, and told a third time for nothing.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve,
    /// Check the configuration, and say all that is wrong with it
    ///
    /// Each mistake comes with file, line, column, the key's path and the nearest valid key. Secrets
    /// in files and environment variables are looked up too, so check where it will run.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Say where a statement would run, and why
    ///
    /// Judges with an empty catalog and caught-up replicas: what is a read goes to a replica.
    /// Functions that pgweir does not know count as writing, unless routing.functions in the
    /// configuration says otherwise.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Show the nodes of a running pgweir: role, state, lag, staleness, reads and writes
    ///
    /// Asks the `http:` address of the configuration.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Try it out: a throw-away primary with two replicas, traffic, and a live table
    ///
    /// Needs PostgreSQL's server programs (initdb, postgres); says what to install if there are
    /// none. Nothing stays behind.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Find stale reads: many sessions on any PostgreSQL endpoint, and a judge of what they are shown
    ///
    /// Works on everything that speaks PostgreSQL: pgweir, another proxy, a load balancer, a server. The
    /// sessions write numbered registers and append to lists in tables of their own schema, read them
    /// back in all the ways in which applications do, and every answer is checked: read-your-writes,
    /// monotonic reads, monotonic writes, writes-follow-reads; with --level global also whether every
    /// read shows what anybody had finished before. Each violation comes with the two operations
    /// that prove it. What is found is certain; what is not found may be rare: let it run while
    /// replicas lag, pause and crash.
    #[command(after_help = consistency::EXAMPLES)]
    CheckConsistency(CheckConsistencyArgs),
}

/// `pgweir check`
#[derive(clap::Args, Debug)]
pub struct CheckArgs {
    /// Answer with one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `pgweir explain`
#[derive(clap::Args, Debug)]
pub struct ExplainArgs {
    /// The statement, or several divided by `;`, as one string. `-`: read from standard input
    #[arg(value_name = "SQL", required_unless_present = "file", conflicts_with = "file")]
    pub sql: Option<String>,

    /// Read the statements from a file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Answer with one JSON object per statement; `--json -` reads one JSON string per line
    #[arg(long)]
    pub json: bool,

    /// For rules: the user who asks
    #[arg(long, value_name = "NAME", default_value = "")]
    pub user: String,

    /// For rules: the database that is asked
    #[arg(long, value_name = "NAME", default_value = "")]
    pub database: String,

    /// For rules: the application that asks
    #[arg(long, value_name = "NAME", default_value = "")]
    pub application_name: String,
}

/// `pgweir status`
#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    /// Show it again every second, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,

    /// Show also what the nodes, clients' connections and Patroni say, and what that leads to
    #[arg(short, long)]
    pub evidence: bool,

    /// Answer with JSON (with --watch: one object per line)
    #[arg(long)]
    pub json: bool,

    /// Ask this address instead of the configuration's `http:`
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<std::net::SocketAddr>,
}

/// `pgweir demo`
#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// End after so long, with a summary [default: until Ctrl-C]
    #[arg(long, env = "DEMO_SECONDS", value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<Duration>,

    /// Replicas to start
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub replicas: u16,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(u64::from(seconds))),
        _ => Err("expected a whole number of seconds, at least 1".to_owned()),
    }
}

const EXAMPLES: &str = "\
Examples:
  pgweir demo                                  try it without a cluster
  pgweir --config /etc/pgweir.yaml check       is the configuration right?
  pgweir --config /etc/pgweir.yaml             run
  psql postgres://app@127.0.0.1:6432/shop      use it
  pgweir status --watch                        see what it does
  pgweir explain \"SELECT nextval('s')\"         where does this go, and why?

Exit codes: 0 fine, 1 failed, 2 wrong arguments or configuration.";

const SERVE_EXAMPLES: &str = "\
Examples:
  pgweir serve                           with ./config.yaml
  pgweir serve -c /etc/pgweir.yaml
  PGWEIR_LOG=debug pgweir serve          log more than the configuration says
  kill -HUP $(pidof pgweir)              read the configuration again";

const CHECK_EXAMPLES: &str = "\
Examples:
  pgweir check
  pgweir check -c /etc/pgweir.yaml && systemctl reload pgweir
  pgweir check --json | jq .mistakes";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  pgweir explain \"SELECT * FROM orders WHERE id = 7\"
  pgweir explain \"WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone\"
  pgweir explain --file queries.sql
  pgweir explain --json \"SELECT 1\"
  printf '%s\\n' '\"SELECT 1\"' '\"DELETE FROM t\"' | pgweir explain --json -";

const STATUS_EXAMPLES: &str = "\
Examples:
  pgweir status
  pgweir status --watch
  pgweir status --json | jq '.nodes[] | select(.role == \"replica\") | .lag_bytes'";

const DEMO_EXAMPLES: &str = "\
Examples:
  pgweir demo
  pgweir demo --seconds 20 --replicas 3
  PG_BIN=/usr/lib/postgresql/16/bin pgweir demo";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve() {
        let args = Args::try_parse_from(["pgweir", "-c", "x.yaml"]);
        assert!(args.is_ok_and(|args| args.command.is_none() && args.config_file() == Path::new("x.yaml")));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for wrong in [
            vec!["pgweir", "nonsense"],
            vec!["pgweir", "explain"],
            vec!["pgweir", "explain", "SELECT 1", "--file", "x"],
            vec!["pgweir", "demo", "--seconds", "0"],
        ] {
            let refused = Args::try_parse_from(&wrong).err().map(|error| error.exit_code());
            assert_eq!(refused, Some(2), "{wrong:?}");
        }
    }
}
