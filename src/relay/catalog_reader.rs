//! Keeps the databases' catalogs read: one task per database that clients use.

use crate::fault::one_line;
use crate::relay::catalogs::DatabaseCatalog;
use crate::relay::context::Context;
use crate::relay::sql_client;
use crate::sql::catalog::{CatalogRows, QUERIES, Reader, Readers};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How often a catalog is read where no DDL has passed through: somebody may have gone past pgweir.
const INTERVAL: Duration = Duration::from_secs(30);
/// How soon a failed reading is tried again; later each time, up to `INTERVAL`.
const RETRY: Duration = Duration::from_secs(1);
/// How long one reading may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a reader for every database as it comes into use. Ends with its task.
pub async fn run(context: Arc<Context>) {
    let mut known = HashSet::new();
    loop {
        for database in context.catalogs.all() {
            if known.insert(database.id) {
                tokio::spawn(keep_read(context.clone(), database));
            }
        }
        context.catalogs.added.notified().await;
    }
}

async fn keep_read(context: Arc<Context>, database: Arc<DatabaseCatalog>) {
    let mut client = None;
    let mut failures = 0_u32;
    while !context.is_over() {
        let begun = database.begin_reading();
        let reading = tokio::time::timeout(TIMEOUT, read(&context, &database, &mut client)).await;
        let error = match reading {
            Ok(Ok(rows)) => {
                database.publish(rows, begun);
                None
            }
            Ok(Err(error)) => Some(error),
            Err(_) => Some("it took too long".to_owned()),
        };
        if let Some(error) = &error {
            client = None;
            if failures == 0 {
                tracing::warn!(database = %database.name,
                    "the catalog cannot be read, so reads of relations stay on the primary: {error}");
            }
        }
        failures = if error.is_some() { failures.saturating_add(1) } else { 0 };
        let pause = match failures {
            0 => INTERVAL,
            // A database that was dropped is not asked for every second, for ever.
            _ => RETRY.saturating_mul(1 << failures.min(6).saturating_sub(1)).min(INTERVAL),
        };
        // Either way it is read again.
        drop(tokio::time::timeout(pause, rest(&database, &mut client)).await);
    }
}

type Connected = Option<(crate::node::NodeId, tokio_postgres::Client)>;

/// Until somebody wants it read again. Who wants to be alone with the database is given way.
async fn rest(database: &DatabaseCatalog, client: &mut Connected) {
    loop {
        tokio::select! {
            () = database.stale.notified() => return,
            () = database.left.notified() => *client = None,
        }
    }
}

/// One reading, from the primary. Only there is what DDL has just made certainly visible.
async fn read(
    context: &Context,
    database: &DatabaseCatalog,
    client: &mut Connected,
) -> Result<CatalogRows, String> {
    let view = context.monitor.view_handle().load_full();
    let primary = view.primary.and_then(|id| view.node(id)).ok_or("there is no primary")?;
    if client.as_ref().is_none_or(|(node, client)| *node != primary.id || client.is_closed()) {
        let config = context.config.load_full();
        let monitor = &config.cluster.monitor;
        let password = monitor.password.as_ref().map(|secret| secret.reveal());
        let made = sql_client::connect(context, primary, &monitor.user, password, &database.name).await?;
        *client = Some((primary.id, made));
    }
    let (_, client) = client.as_ref().ok_or("no connection")?;
    let named = context.overrides.load().subjects().relations().to_vec();
    rows(client, named).await.map_err(|error| one_line(&error))
}

async fn rows(
    client: &tokio_postgres::Client,
    named: Vec<String>,
) -> Result<CatalogRows, tokio_postgres::Error> {
    let names = async |sql: &str| -> Result<Vec<String>, tokio_postgres::Error> {
        client.query(sql, &[]).await?.iter().map(|row| row.try_get(0)).collect()
    };
    let yes = async |sql: &str| -> Result<bool, tokio_postgres::Error> {
        client.query_one(sql, &[]).await?.try_get(0)
    };
    Ok(CatalogRows {
        writing_functions: names(QUERIES.writing_functions).await?,
        safe_functions: names(QUERIES.safe_functions).await?,
        row_functions: names(QUERIES.row_functions).await?,
        primary_only_relations: names(QUERIES.primary_only_relations).await?,
        writing_types: names(QUERIES.writing_types).await?,
        writing_operators: names(QUERIES.writing_operators).await?,
        async_commit_possible: yes(QUERIES.async_commit_possible).await?,
        momentary_functions: names(QUERIES.momentary_functions).await?,
        momentary_relations: names(QUERIES.momentary_relations).await?,
        other_isolation_possible: yes(QUERIES.other_isolation_possible).await?,
        readers: readers(client, named).await?,
    })
}

/// Who reads the relations that rules name; most configurations name none.
async fn readers(
    client: &tokio_postgres::Client,
    asked: Vec<String>,
) -> Result<Readers, tokio_postgres::Error> {
    if asked.is_empty() {
        return Ok(Readers::default());
    }
    let row = |row: &tokio_postgres::Row| -> Result<Reader, tokio_postgres::Error> {
        let (name, of, schema) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Reader { name, of, schema, certain: row.try_get(3)? })
    };
    let found: Result<_, _> = client.query(QUERIES.readers, &[&asked]).await?.iter().map(row).collect();
    Ok(Readers { found: found?, asked })
}
