//! `pool:` and `databases:`

use crate::config::keys;
use crate::config::mistake::Mistake;
use crate::config::reader::{Field, Reader, Section};
use crate::config::settings::{DatabaseSettings, PoolMode, PoolOverrides, PoolSettings};
use crate::config::values::{duration, duration_or_off, number, one_of, text};
use crate::routing::request::Consistency;
use std::collections::BTreeMap;
use std::time::Duration;

const MODES: &[(&str, PoolMode)] = &[("transaction", PoolMode::Transaction), ("session", PoolMode::Session)];
const STATEMENT_MODE: &[&str] = &["statement"];
const SIZE_MAX: u32 = 10_000;
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn read(top: &Section<'_>, reader: &mut Reader) -> PoolSettings {
    let section = reader.section(&top.child("pool"), &keys::POOL);
    let mut pool = PoolSettings::default();
    let (millisecond, second) = (Duration::from_millis(1), Duration::from_secs(1));
    reader.set(&mut pool.mode, &section, "mode", one_of(MODES, STATEMENT_MODE));
    reader.set(&mut pool.size, &section, "size", number(1..=SIZE_MAX));
    reader.set(&mut pool.min_idle, &section, "min_idle", number(0..=SIZE_MAX));
    reader.set(&mut pool.max_waiting, &section, "max_waiting", number(0..=1_000_000));
    reader.set(&mut pool.wait_timeout, &section, "wait_timeout", duration(millisecond..=DAY));
    reader.set(&mut pool.idle_timeout, &section, "idle_timeout", duration_or_off(second..=30 * DAY));
    reader.set(&mut pool.max_lifetime, &section, "max_lifetime", duration_or_off(second..=30 * DAY));
    reader.set(
        &mut pool.connect_timeout,
        &section,
        "connect_timeout",
        duration(50 * millisecond..=600 * second),
    );
    reader.set(&mut pool.max_pools, &section, "max_pools", number(1..=1_000_000));
    check_sizes(&section, pool.size, pool.min_idle, reader);
    pool
}

fn check_sizes(section: &Section<'_>, size: u32, min_idle: u32, reader: &mut Reader) {
    if min_idle > size {
        let message = format!("min_idle ({min_idle}) is larger than size ({size})");
        let path = section.path_of("min_idle");
        reader.report(Mistake::new(section.span_of("min_idle"), message).path(path));
    }
}

pub(super) fn databases(top: &Section<'_>, reader: &mut Reader) -> BTreeMap<String, DatabaseSettings> {
    let field = top.child("databases");
    let entries = reader.entries(&field);
    let mut databases = BTreeMap::new();
    for entry in entries {
        let path = format!("{}.{}", field.path, entry.key);
        if entry.key == "pgweir" {
            let message = "pgweir is the name of the virtual database and cannot be used for another";
            reader.report(Mistake::new(entry.span, message).path(&path));
        }
        let section = reader.section(&Field { tree: &entry.value, path }, &keys::DATABASE);
        databases.insert(entry.key.clone(), database(&entry.key, &section, reader));
    }
    databases
}

fn database(name: &str, section: &Section<'_>, reader: &mut Reader) -> DatabaseSettings {
    let dbname = reader.optional(section, "dbname", text).unwrap_or_else(|| name.to_owned());
    let pool = reader.section(&section.child("pool"), &keys::DATABASE_POOL);
    let mut pool = overrides(&pool, reader);
    pool.consistency = reader.optional(section, "consistency", one_of(Consistency::WORDS, &[]));
    let field = section.child("users");
    let mut users = BTreeMap::new();
    for entry in reader.entries(&field) {
        let path = format!("{}.{}", field.path, entry.key);
        let user = reader.section(&Field { tree: &entry.value, path }, &keys::DATABASE_USER);
        let mut own = overrides(&user, reader);
        own.consistency = reader.optional(&user, "consistency", one_of(Consistency::WORDS, &[]));
        users.insert(entry.key.clone(), own);
    }
    DatabaseSettings { dbname, pool, users }
}

fn overrides(section: &Section<'_>, reader: &mut Reader) -> PoolOverrides {
    let overrides = PoolOverrides {
        mode: reader.optional(section, "mode", one_of(MODES, STATEMENT_MODE)),
        size: reader.optional(section, "size", number(1..=SIZE_MAX)),
        min_idle: reader.optional(section, "min_idle", number(0..=SIZE_MAX)),
        consistency: None,
    };
    if let (Some(size), Some(min_idle)) = (overrides.size, overrides.min_idle) {
        check_sizes(section, size, min_idle, reader);
    }
    overrides
}
