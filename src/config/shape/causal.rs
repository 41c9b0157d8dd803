//! `causal:`

use crate::config::keys;
use crate::config::mistake::Mistake;
use crate::config::reader::{Reader, Section, Wrong};
use crate::config::secret::Secret;
use crate::config::settings::CausalSettings;
use crate::config::shape::MISMATCHES;
use crate::config::values::{duration, number, one_of, text};
use std::time::Duration;

pub(super) fn read(top: &Section<'_>, max_staleness: Duration, reader: &mut Reader) -> CausalSettings {
    let section = reader.section(&top.child("causal"), &keys::CAUSAL);
    let (millisecond, day) = (Duration::from_millis(1), Duration::from_secs(86_400));
    let mut causal = CausalSettings::default();
    // What has expired counts as replayed by every replica that may serve.
    let least = 2 * max_staleness;
    causal.expiry = causal.expiry.max(least);
    causal.setting = reader.optional(&section, "setting", custom_setting);
    reader.set(&mut causal.keys, &section, "keys", number(16..=100_000_000));
    reader.set(&mut causal.expiry, &section, "expiry", duration(Duration::from_secs(1)..=2 * day));
    causal.store = reader.optional(&section, "store", url).map(Secret::new);
    reader.set(
        &mut causal.store_timeout,
        &section,
        "store_timeout",
        duration(millisecond..=60_000 * millisecond),
    );
    reader.set(&mut causal.on_store_down, &section, "on_store_down", one_of(MISMATCHES, &[]));
    reader.set(&mut causal.prefix, &section, "prefix", text);
    if causal.expiry < least {
        let message = format!(
            "expiry ({:?}) must be at least twice routing.max_staleness ({max_staleness:?})",
            causal.expiry
        );
        reader.report(Mistake::new(section.span_of("expiry"), message).path(section.path_of("expiry")));
    }
    causal
}

/// A custom setting has a prefix, as `app.user_id`; those of the server are no keys.
fn custom_setting(value: &str) -> Result<String, Wrong> {
    let name = value.to_ascii_lowercase();
    match name.split_once('.') {
        Some(("pgweir", _)) => Err("pgweir's own settings cannot be the key".into()),
        Some((prefix, rest)) if !prefix.is_empty() && !rest.is_empty() => Ok(name),
        _ => Err("must be a custom setting such as app.user_id".into()),
    }
}

fn url(value: &str) -> Result<String, Wrong> {
    if value.starts_with("rediss:") || value.starts_with("valkeys:") {
        return Err("TLS towards the store is not supported; use a tunnel or a Unix socket".into());
    }
    match redis::Client::open(value) {
        Ok(_) => Ok(value.to_owned()),
        Err(_) => Err("must be a URL such as redis://host:6379/0 or redis+unix:///path".into()),
    }
}
