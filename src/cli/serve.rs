//! `pgweir serve`: the proxy itself.

use crate::cli::{Outcome, block_on, load};
use crate::proxy::{Proxy, StartError};
use crate::telemetry::logs;
use std::path::Path;

/// Runs until a signal ends it.
pub fn run(config: &Path) -> Outcome {
    let Some(settings) = load(config) else { return Outcome::BadUsage };
    let control = match logs::start(&settings.log) {
        Ok(control) => control,
        Err(error) => {
            eprintln!("pgweir: log.level: {error}");
            return Outcome::BadUsage;
        }
    };
    let file = config.to_owned();
    let work = async move {
        let proxy = Proxy::start(settings, Some(file), Some(control)).await?;
        for address in proxy.addresses() {
            tracing::info!("listening on {address}");
        }
        if let Some(http) = proxy.http() {
            tracing::info!("metrics and status on http://{http}/");
        }
        proxy.run().await
    };
    match block_on(work) {
        Some(Ok(())) => Outcome::Fine,
        Some(Err(error)) => failed(&error),
        None => Outcome::Failed,
    }
}

fn failed(error: &StartError) -> Outcome {
    eprintln!("pgweir: {error}");
    Outcome::Failed
}
