//! `pgweir check`: is the configuration right?

use crate::cli::args::CheckArgs;
use crate::cli::{Outcome, print};
use crate::config::values::show_size;
use crate::config::{ConfigError, Settings};
use serde_json::{Value, json};
use std::path::Path;

/// Reads and checks `file`.
pub fn run(file: &Path, args: &CheckArgs) -> Outcome {
    match (crate::config::load(file), args.json) {
        (Ok(settings), false) => print(&summary(file, &settings)),
        (Ok(settings), true) => print(&format!("{}\n", good(file, &settings))),
        (Err(error), json) => {
            if json {
                print(&format!("{}\n", bad(&error)));
            } else {
                let count = error.mistakes.len();
                let word = if count == 1 { "mistake" } else { "mistakes" };
                eprint!("{error}");
                eprintln!("{count} {word} in {}", file.display());
            }
            Outcome::BadUsage
        }
    }
}

fn summary(file: &Path, settings: &Settings) -> String {
    let mut names: Vec<String> = settings
        .cluster
        .nodes
        .iter()
        .map(|node| format!("{} ({}:{})", node.name, node.host, node.port))
        .collect();
    if let Some(patroni) = &settings.cluster.patroni {
        let endpoints: Vec<String> = patroni.endpoints.iter().map(ToString::to_string).collect();
        names.push(format!("those that Patroni names ({})", endpoints.join(", ")));
    }
    if settings.cluster.discover.is_some() {
        names.push("the standbys that stream from them".to_owned());
    }
    let policy = &settings.routing.policy;
    let pool = &settings.pool;
    format!(
        "configuration file {} is valid\n  listen   {}\n  http     {}\n  nodes    {}\n  \
         pool     {:?} mode, {} connections per database, user and node\n  \
         routing  {:?} consistency, replicas at most {:?} stale and {} behind\n",
        file.display(),
        listen(settings).join(", "),
        settings.http.map_or("off".to_owned(), |address| address.to_string()),
        names.join(", "),
        pool.mode,
        pool.size,
        policy.consistency,
        policy.max_staleness,
        show_size(policy.max_lag_bytes),
    )
}

fn listen(settings: &Settings) -> Vec<String> {
    settings.listen.iter().map(ToString::to_string).collect()
}

fn good(file: &Path, settings: &Settings) -> Value {
    let nodes: Vec<Value> = settings
        .cluster
        .nodes
        .iter()
        .map(|node| json!({ "name": node.name, "host": node.host, "port": node.port, "weight": node.weight }))
        .collect();
    json!({
        "valid": true,
        "file": file.display().to_string(),
        "listen": listen(settings),
        "http": settings.http.map(|address| address.to_string()),
        "nodes": nodes,
    })
}

fn bad(error: &ConfigError) -> Value {
    let mistakes: Vec<Value> = error
        .mistakes
        .iter()
        .map(|mistake| {
            json!({
                "line": mistake.span.line,
                "column": mistake.span.column,
                "key": mistake.path,
                "message": mistake.message,
                "nearest": mistake.nearest,
                "hint": mistake.hint,
            })
        })
        .collect();
    json!({ "valid": false, "file": error.file.display().to_string(), "mistakes": mistakes })
}
