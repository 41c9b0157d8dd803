//! Starts a development cluster for scripts: prints one line of JSON (nodes, users, folders), keeps the
//! cluster until its standard input ends, and leaves nothing behind.
//!
//! `cargo run --example devcluster -- --replicas 2 --set shared_buffers=256MB`

use std::error::Error;
use std::io;
use std::time::Duration;

use clap::Parser;
use pgweir::devcluster::{APP_DATABASE, DevCluster, Options, USERS};
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// How many replicas
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// recovery_min_apply_delay of every replica, in milliseconds
    #[arg(long, default_value_t = 0)]
    apply_delay: u64,
    /// A setting of every node: name=value
    #[arg(long = "set", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let cluster = DevCluster::start(Options {
        replicas: args.replicas,
        apply_delay: Duration::from_millis(args.apply_delay),
        settings: args.settings,
        ..Options::default()
    })?;
    let nodes: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| json!({ "name": node.name(), "host": "127.0.0.1", "port": node.port() }))
        .collect();
    let users: serde_json::Map<_, _> =
        USERS.iter().map(|user| (user.name.to_owned(), json!(user.password))).collect();
    println!(
        "{}",
        json!({
            "version": cluster.binaries().version(),
            "bin": cluster.binaries().folder(),
            "folder": cluster.folder(),
            "sockets": cluster.primary().socket_folder(),
            "database": APP_DATABASE,
            "nodes": nodes,
            "users": users,
        })
    );
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
