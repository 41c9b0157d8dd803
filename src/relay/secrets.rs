//! What is known of a user: from the configuration, or asked of a server (`auth.query`).

use crate::auth::cache::Cached;
use crate::auth::secret::Secret;
use crate::clock;
use crate::config::settings::AuthQuerySettings;
use crate::fault::{Fault, SqlState, one_line};
use crate::moment::Moment;
use crate::relay::context::Context;
use crate::relay::sql_client;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to answer auth.query.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of a user, and when a server was asked.
#[derive(Debug)]
pub struct Known {
    /// `None`: nobody knows this user.
    pub secret: Option<Secret>,
    /// When a server was asked; `None`: it was not.
    pub asked: Option<Moment>,
}

/// What is known of this user.
pub async fn of_user(context: &Arc<Context>, user: &str) -> Result<Known, Fault> {
    let config = context.config.load_full();
    if let Some(listed) = config.auth.users.iter().find(|listed| listed.name == user) {
        let secret = listed.password.as_ref().and_then(|secret| Secret::from_config(secret.reveal()).ok());
        return Ok(Known { secret, asked: None });
    }
    let Some(query) = &config.auth.query else { return Ok(Known { secret: None, asked: None }) };
    match context.secrets.look_up(user, clock::now()) {
        Cached::Known { secret, asked } => Ok(Known { secret: Some(secret), asked: Some(asked) }),
        Cached::Unknown { asked } => Ok(Known { secret: None, asked: Some(asked) }),
        Cached::Missing => ask(context, query, user).await,
    }
}

/// A login failed with a remembered secret: it may have been changed since. The next attempt asks again.
pub async fn login_failed(context: &Arc<Context>, user: &str, asked: Option<Moment>) {
    let config = context.config.load_full();
    let Some((asked, query)) = asked.zip(config.auth.query.as_ref()) else { return };
    if context.secrets.may_ask_again(asked, clock::now()) {
        // If that does not work out either, the remembered secret simply stays.
        drop(ask(context, query, user).await);
    }
}

async fn ask(context: &Arc<Context>, query: &AuthQuerySettings, user: &str) -> Result<Known, Fault> {
    let asked = clock::now();
    let answer = tokio::time::timeout(TIMEOUT, question(context, query, user)).await;
    let text = match answer {
        Ok(Ok(text)) => text,
        Ok(Err(why)) => return Err(unavailable(why)),
        Err(_) => return Err(unavailable("no server answered in time".to_owned())),
    };
    let secret = match text {
        Some(text) => Some(Secret::from_rolpassword(&text).map_err(|error| unavailable(error.to_string()))?),
        None => None,
    };
    context.secrets.store(user, secret.clone(), asked);
    Ok(Known { secret, asked: Some(asked) })
}

/// The secret's text; `None` for an unknown user or one without a password.
async fn question(
    context: &Context,
    query: &AuthQuerySettings,
    user: &str,
) -> Result<Option<String>, String> {
    let password = query.password.as_ref().map(|secret| secret.reveal().to_owned());
    let client =
        sql_client::connect_anywhere(context, &query.user, password.as_deref(), &query.database).await?;
    let row = client.query_opt(&query.query, &[&user]).await.map_err(|error| one_line(&error))?;
    match row {
        Some(row) => row.try_get::<_, Option<String>>(1).map_err(|error| one_line(&error)),
        None => Ok(None),
    }
}

fn unavailable(why: String) -> Fault {
    tracing::warn!("auth.query failed: {why}");
    Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "authentication is not possible at the moment")
        .hint("The log of pgweir says why auth.query failed.")
        .retriable()
}
