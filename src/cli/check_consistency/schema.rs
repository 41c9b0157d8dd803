//! The tables: made before, removed afterwards.

use crate::cli::check_consistency::plan::Plan;
use tokio_postgres::{Client, Config, Error, NoTls};

/// A connection, and the task that drives it.
pub(super) async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    // It ends with the client, whose own statements report its errors.
    drop(tokio::spawn(connection));
    Ok(client)
}

/// Makes schema and tables.
pub(super) async fn create(plan: &Plan) -> Result<(), Error> {
    let client = connect(plan.setup.as_ref().unwrap_or(&plan.endpoint)).await?;
    let (schema, sessions, cells, lists) = (&plan.schema, plan.sessions, plan.cells, plan.lists);
    // Room in the pages: updates then stay within them and leave the index alone.
    let statements = [
        format!("CREATE SCHEMA {schema}"),
        format!(
            "CREATE TABLE {schema}.registers (owner bigint, cell bigint, value bigint NOT NULL, \
             PRIMARY KEY (owner, cell)) WITH (fillfactor = 20)"
        ),
        format!(
            "CREATE TABLE {schema}.lists (id bigint PRIMARY KEY, length bigint NOT NULL, \
             tail bigint[] NOT NULL) WITH (fillfactor = 20)"
        ),
        format!(
            "INSERT INTO {schema}.registers SELECT owner, cell, 0 \
             FROM generate_series(0, {sessions} - 1) owner, generate_series(0, {cells} - 1) cell"
        ),
        format!("INSERT INTO {schema}.lists SELECT id, 0, '{{}}' FROM generate_series(0, {lists} - 1) id"),
        // In a function: proxies send statements that ask for a server's own state to the primary, as they
        // must. in_hot_standby has been a setting since PostgreSQL 14.
        format!(
            "CREATE FUNCTION {schema}.served_by() RETURNS text STABLE LANGUAGE sql AS \
             $$ SELECT concat(current_setting('cluster_name'), ':', current_setting('port'), ' ', \
             current_setting('in_hot_standby')) $$"
        ),
    ];
    for statement in &statements {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// Removes them.
pub(super) async fn remove(plan: &Plan) -> Result<(), Error> {
    let client = connect(plan.setup.as_ref().unwrap_or(&plan.endpoint)).await?;
    client.batch_execute("SET client_min_messages = warning").await?;
    client.batch_execute(&format!("DROP SCHEMA {} CASCADE", plan.schema)).await
}
