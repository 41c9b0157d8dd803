//! Log lines: text or JSON on standard error, filtered by level; the filter can change at run time.

use crate::config::settings::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// This variable is stronger than `log.level`.
pub const VARIABLE: &str = "PGWEIR_LOG";

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `PGWEIR_LOG` or `log.level` is not a filter.
    #[error("{VARIABLE} or log.level is not a log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody was there before.
    #[error("logs are set up already: {0}")]
    Twice(#[from] TryInitError),
    /// The subscriber is gone.
    #[error("the log filter cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// Changes the level of the running process.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogControl {
    /// Applies `settings.level` (a reload); `PGWEIR_LOG` stays stronger.
    pub fn set(&self, settings: &LogSettings) -> Result<(), LogError> {
        Ok(self.filter.reload(filter(settings)?)?)
    }
}

/// Sets up the process's logs. Called once, by `serve`.
pub fn start(settings: &LogSettings) -> Result<LogControl, LogError> {
    let (filter, handle) = reload::Layer::new(filter(settings)?);
    let lines: Box<dyn Layer<_> + Send + Sync> = match settings.format {
        LogFormat::Json => Box::new(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            Box::new(fmt::layer().with_ansi(colours).with_target(false).with_writer(std::io::stderr))
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(LogControl { filter: handle })
}

fn filter(settings: &LogSettings) -> Result<EnvFilter, LogError> {
    let directives = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    Ok(EnvFilter::try_new(directives.unwrap_or_else(|| settings.level.clone()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_a_filter_is_understood_and_nonsense_is_not() {
        for (level, fine) in [("info", true), ("info,pgweir::relay=debug", true), ("pgweir=loud", false)] {
            let settings = LogSettings { level: level.to_owned(), ..LogSettings::default() };
            assert_eq!(filter(&settings).is_ok(), fine, "{level}");
        }
    }
}
