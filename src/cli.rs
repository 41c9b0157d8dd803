//! The command line: arguments → a command → an exit code.

pub mod args;
pub mod check;
pub mod check_consistency;
pub mod demo;
pub mod explain;
pub mod serve;
pub mod status;

use args::{Args, Command};
use clap::Parser;
use std::path::Path;
use std::process::ExitCode;

/// How a command ended; the only table of exit codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// 0.
    Fine,
    /// 1: it was asked rightly, and failed.
    Failed,
    /// 2: wrong arguments, or a configuration that cannot be used.
    BadUsage,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        match outcome {
            Outcome::Fine => ExitCode::SUCCESS,
            Outcome::Failed => ExitCode::from(1),
            Outcome::BadUsage => ExitCode::from(2),
        }
    }
}

/// Runs what the process's arguments ask for. (clap itself answers `--help` with 0 and wrong
/// arguments with 2.)
pub fn main() -> Outcome {
    let args = Args::parse();
    let config = args.config_file();
    match &args.command {
        None | Some(Command::Serve) => serve::run(config),
        Some(Command::Check(check)) => check::run(config, check),
        Some(Command::Explain(explain)) => explain::run(args.config.as_deref(), explain),
        Some(Command::Status(status)) => status::run(config, status),
        Some(Command::CheckConsistency(check)) => check_consistency::run(check),
        Some(Command::Demo(args)) => demo_outcome(demo::run(args.seconds, args.replicas)),
    }
}

fn demo_outcome(result: Result<demo::Verdict, demo::DemoError>) -> Outcome {
    match result {
        Ok(demo::Verdict::Kept) => Outcome::Fine,
        Ok(demo::Verdict::Broken) => Outcome::Failed,
        Err(error) => {
            eprintln!("pgweir demo: {error}");
            Outcome::Failed
        }
    }
}

/// A runtime of its own for a command that needs one.
fn block_on<T>(work: impl Future<Output = T>) -> Option<T> {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => Some(runtime.block_on(work)),
        Err(error) => {
            eprintln!("pgweir: the runtime cannot start: {error}");
            None
        }
    }
}

/// The settings in `file`; what is wrong with them goes to standard error.
pub fn load(file: &Path) -> Option<crate::config::Settings> {
    match crate::config::load(file) {
        Ok(settings) => Some(settings),
        Err(error) => {
            eprint!("{error}");
            None
        }
    }
}

/// Writes to standard output; a reader that went away (`| head`) is not worth a word.
pub(crate) fn print(text: &str) -> Outcome {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Outcome::Fine,
        Err(_) => Outcome::Failed,
    }
}
