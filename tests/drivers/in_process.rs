//! What the drivers for Rust share: they run in the test's own process, and say the same lines.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use futures_util::FutureExt;

use crate::harness::{self, LONG};

/// What a driver's program needs to know.
#[derive(Clone, Debug)]
pub struct World {
    pub url: String,
    pub primary: String,
}

/// A driver's features by the name of what they show. They panic when they fail.
pub type Features = Vec<(&'static str, Pin<Box<dyn Future<Output = ()>>>)>;

/// It could write, as far as anybody can see: it runs on the primary, where [`FIND_SLEEPER`] looks.
pub const SLEEP: &str = "SELECT pg_sleep(61), txid_current()";
pub const FIND_SLEEPER: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
     AND query LIKE '%pg_sleep(61)%' AND pid <> pg_backend_pid()";

macro_rules! features {
    ($world:ident: $($name:literal => $feature:ident),+ $(,)?) => {
        vec![$(($name, Box::pin($feature($world.clone())))),+]
    };
}
pub(crate) use features;

/// Waits for another process.
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    harness::wait_for(what, condition).await;
}

/// Runs the features in turn; a line for each.
pub async fn run(features: Features, lacks: &str) -> String {
    let mut output = String::new();
    for (name, feature) in features {
        let line = match AssertUnwindSafe(tokio::time::timeout(LONG, feature)).catch_unwind().await {
            Ok(Ok(())) => format!("ok {name}\n"),
            Ok(Err(late)) => format!("FAIL {name}: {late}\n"),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
                format!("FAIL {name}: {}\n", text.replace('\n', " "))
            }
        };
        output.push_str(&line);
    }
    output.extend(lacks.split(' ').map(|name| format!("n/a {name}\n")));
    output
}
