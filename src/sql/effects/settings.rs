//! SET, RESET, SHOW and set_config.

use super::cursor::{Cursor, unquoted};
use super::{
    Argument, Effect, PgweirName, PinReason, Scope, SetConfig, TransactionModes, Value, transaction,
};
use crate::sql::lexer::Token;

pub(super) fn set(cursor: &mut Cursor<'_>) -> Vec<Effect> {
    let scope = match () {
        () if cursor.word("local") => Scope::Local,
        () if cursor.word("session") => {
            if cursor.word("characteristics") {
                return characteristics(cursor);
            }
            if cursor.word("authorization") {
                return vec![assign("session_authorization".into(), cursor, Scope::Session)];
            }
            Scope::Session
        }
        () => Scope::Session,
    };
    if cursor.word("transaction") {
        return match cursor.word("snapshot") {
            true => Vec::new(),
            false => vec![Effect::SetTransaction(transaction::modes(cursor))],
        };
    }
    if cursor.word("constraints") {
        return Vec::new();
    }
    vec![special(cursor, scope).unwrap_or_else(|| general(cursor, scope))]
}

/// Forms without `=`. `None`: it is none of them.
fn special(cursor: &mut Cursor<'_>, scope: Scope) -> Option<Effect> {
    let before = cursor.clone();
    let name = match cursor.name()?.as_str() {
        "time" if cursor.word("zone") => {
            if cursor.clone().word("interval") {
                return Some(match scope {
                    Scope::Session => Effect::SetUnread("timezone".into()),
                    Scope::Local => {
                        Effect::Set { name: "timezone".into(), value: Value::Sql(cursor.tail()?), scope }
                    }
                });
            }
            if cursor.clone().word("local") {
                return Some(Effect::Reset("timezone".into()));
            }
            "timezone"
        }
        "names" if !is_assigned(cursor) => "client_encoding",
        "schema" if !is_assigned(cursor) => "search_path",
        "role" if !is_assigned(cursor) => "role",
        "session" if cursor.word("authorization") => "session_authorization",
        "xml" if cursor.word("option") => "xmloption",
        _ => {
            *cursor = before;
            return None;
        }
    };
    Some(assign(name.into(), cursor, scope))
}

fn is_assigned(cursor: &Cursor<'_>) -> bool {
    let mut cursor = cursor.clone();
    cursor.operator(b"=") || cursor.word("to")
}

fn general(cursor: &mut Cursor<'_>, scope: Scope) -> Effect {
    let Some(name) = dotted_name(cursor) else {
        return Effect::Pin(PinReason::UnknownSetting);
    };
    if !cursor.operator(b"=") && !cursor.word("to") {
        // Not valid; PostgreSQL will say so.
        return Effect::Pin(PinReason::UnknownSetting);
    }
    assign(name, cursor, scope)
}

/// What is left is the value.
fn assign(name: String, cursor: &mut Cursor<'_>, scope: Scope) -> Effect {
    let default = cursor.is_end() || cursor.clone().word("default");
    if let Some(own) = name.strip_prefix("pgweir.") {
        let Some(own) = PgweirName::parse(own) else {
            return Effect::PgweirUnknown(name);
        };
        return match cursor.tail() {
            Some(value) if !default => Effect::PgweirSet { name: own, value: unquoted(&value), scope },
            _ => Effect::PgweirReset(own),
        };
    }
    match cursor.tail() {
        Some(value) if transaction::is_mode(&name) => transaction::mode(&name, &unquoted(&value)),
        _ if default && scope == Scope::Session => Effect::Reset(name),
        Some(value) => Effect::Set { name, value: Value::Sql(value), scope },
        None => Effect::Pin(PinReason::UnknownSetting),
    }
}

/// Setting names are matched without case even when quoted.
fn dotted_name(cursor: &mut Cursor<'_>) -> Option<String> {
    let mut name = cursor.name()?.to_ascii_lowercase();
    while cursor.mark(b'.') {
        name.push('.');
        name.push_str(&cursor.name()?.to_ascii_lowercase());
    }
    Some(name)
}

fn characteristics(cursor: &mut Cursor<'_>) -> Vec<Effect> {
    cursor.word("as");
    cursor.word("transaction");
    let TransactionModes { read_only, isolation, deferrable } = transaction::modes(cursor);
    let flag = |on: bool| if on { "on" } else { "off" };
    let modes = [
        ("default_transaction_isolation", isolation),
        ("default_transaction_read_only", read_only.map(flag)),
        ("default_transaction_deferrable", deferrable.map(flag)),
    ];
    let set = |(name, value): (&str, Option<&str>)| {
        value.map(|value| Effect::Set {
            name: name.to_owned(),
            value: Value::Sql(format!("'{value}'")),
            scope: Scope::Session,
        })
    };
    modes.into_iter().filter_map(set).collect()
}

pub(super) fn reset(cursor: &mut Cursor<'_>) -> Option<Effect> {
    if cursor.word("all") {
        return Some(Effect::ResetAll);
    }
    if cursor.clone().word("session") {
        return Some(Effect::Reset("session_authorization".into()));
    }
    if cursor.clone().word("time") {
        return Some(Effect::Reset("timezone".into()));
    }
    if cursor.word("transaction") {
        return None;
    }
    let name = dotted_name(cursor)?;
    Some(match name.strip_prefix("pgweir.") {
        Some(own) => PgweirName::parse(own).map_or(Effect::PgweirUnknown(name.clone()), Effect::PgweirReset),
        None => Effect::Reset(name),
    })
}

pub(super) fn show(cursor: &mut Cursor<'_>) -> Option<Effect> {
    let name = dotted_name(cursor)?;
    let own = name.strip_prefix("pgweir.")?;
    Some(PgweirName::parse(own).map_or(Effect::PgweirUnknown(name.clone()), Effect::PgweirShow))
}

/// `SELECT set_config('a', 'b', false) [AS x] [, …]` and nothing else: then it certainly runs, once
/// each. `None`: something more.
pub(super) fn set_config_list(cursor: &mut Cursor<'_>) -> Option<Vec<Effect>> {
    if !cursor.word("select") {
        return None;
    }
    let mut effects = Vec::new();
    loop {
        effects.push(set_config_call(cursor)?);
        if cursor.word("as") {
            cursor.name()?;
        }
        if cursor.is_end() {
            return Some(effects);
        }
        if !cursor.mark(b',') {
            return None;
        }
    }
}

/// What calls of `set_config` do whose values cannot be read. A name that can be is enough: the
/// server knows the value.
pub(super) fn unread_set_configs(text: &[u8], tokens: &[Token]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for at in 0..tokens.len() {
        let mut call = Cursor::new(text, tokens.get(at..).unwrap_or_default());
        if call.name().is_none_or(|name| name != "set_config") || !call.mark(b'(') {
            continue;
        }
        let name = call.literal().filter(|name| name.starts_with('\'') && !name.contains('\\'));
        match name {
            Some(name) if call.mark(b',') => {
                call.skip();
                let local = call.mark(b',') && call.word("true") && call.mark(b')');
                if !local {
                    effects.push(Effect::SetUnread(unquoted(&name).to_ascii_lowercase()));
                }
            }
            _ => effects.push(Effect::Pin(PinReason::UnknownSetting)),
        }
    }
    effects
}

fn set_config_call(cursor: &mut Cursor<'_>) -> Option<Effect> {
    if cursor.word("pg_catalog") && !cursor.mark(b'.') {
        return None;
    }
    if cursor.name()? != "set_config" || !cursor.mark(b'(') {
        return None;
    }
    let name = argument(cursor)?;
    if !cursor.mark(b',') {
        return None;
    }
    let value = argument(cursor)?;
    if !cursor.mark(b',') {
        return None;
    }
    let local = match cursor.param() {
        Some(number) => Argument::Param(number),
        None => Argument::Text(cursor.name().filter(|word| word == "true" || word == "false")?),
    };
    cursor.mark(b')').then(|| configured(SetConfig { name, value, local }))
}

/// `'text'`, or `$1` as it is or as text.
fn argument(cursor: &mut Cursor<'_>) -> Option<Argument> {
    let argument = match cursor.param() {
        Some(number) => Argument::Param(number),
        None => {
            let literal = cursor.literal()?;
            // What a backslash means depends on the session.
            let plain = literal.starts_with('\'') && !literal.contains('\\');
            Argument::Text(plain.then(|| unquoted(&literal))?)
        }
    };
    if cursor.operator(b"::") && !cursor.word("text") {
        return None;
    }
    Some(argument)
}

/// A call whose arguments are known is a SET; one with parameters waits for their values.
pub(super) fn configured(call: SetConfig) -> Effect {
    let (Argument::Text(name), Argument::Text(value), Argument::Text(local)) =
        (&call.name, &call.value, &call.local)
    else {
        return Effect::SetConfig(call);
    };
    let scope = if local == "true" { Scope::Local } else { Scope::Session };
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("pgweir.").map(PgweirName::parse) {
        Some(Some(own)) => Effect::PgweirSet { name: own, value: value.clone(), scope },
        Some(None) => Effect::PgweirUnknown(name),
        None if transaction::is_mode(&name) => transaction::mode(&name, value),
        None => Effect::Set { name, value: Value::Config(value.clone()), scope },
    }
}
