//! Names as PostgreSQL understands them, and what they mean.

use super::{Known, Verdict};
use crate::sql::catalog::CatalogState;
use crate::sql::class::Why;
use crate::sql::functions::{self, Builtin};
use crate::sql::lexer::{Kind, Token};
use std::borrow::Cow;

/// PostgreSQL cuts names to 63 bytes.
const NAME_MAX: usize = 63;

/// A word or quoted name, folded and cut as PostgreSQL does. `None`: not a name, or not UTF-8.
pub(crate) fn name_of<'t>(token: &Token, text: &'t [u8]) -> Option<Cow<'t, str>> {
    let raw = std::str::from_utf8(token.bytes(text)).ok()?;
    let name = match token.kind {
        Kind::Word if raw.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Cow::Owned(raw.to_ascii_lowercase())
        }
        Kind::Word => Cow::Borrowed(raw),
        Kind::Quoted => {
            let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
            if inner.contains('"') { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) }
        }
        _ => return None,
    };
    Some(cut(name))
}

/// The same for a name that sqlparser read.
pub(super) fn ident_name(ident: &sqlparser::ast::Ident) -> Cow<'_, str> {
    cut(match ident.quote_style {
        Some(_) => Cow::Borrowed(ident.value.as_str()),
        None => Cow::Owned(ident.value.to_ascii_lowercase()),
    })
}

fn cut(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= NAME_MAX {
        return name;
    }
    let end = (0..=NAME_MAX).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..end]),
        Cow::Owned(name) => Cow::Owned(name[..end].to_owned()),
    }
}

/// A call of this function. `None`: harmless.
pub(super) fn judge_function(known: Known<'_>, schema: Option<&str>, name: &str) -> Option<Verdict> {
    if known.overrides.is_writing(schema, name) {
        return Some(Verdict::write(Why::VolatileFunction));
    }
    if known.overrides.is_read_only(schema, name) {
        return None;
    }
    let system = matches!(schema, Some("pg_catalog" | "information_schema"));
    if !system && known.catalog.writes(name) {
        return Some(Verdict::write(Why::VolatileFunction));
    }
    let built_in = if system || schema.is_none() { functions::builtin(name) } else { None };
    match built_in {
        Some(Builtin::Safe) => None,
        Some(Builtin::Writing) => Some(Verdict::write(Why::VolatileFunction)),
        Some(Builtin::NodeLocal) => known.node_local(),
        None if known.catalog.is_safe_function(name) => None,
        // Extensions live in schemas of their own.
        None if functions::builtin(name) == Some(Builtin::Writing) => {
            Some(Verdict::write(Why::VolatileFunction))
        }
        None if known.catalog.state() == CatalogState::NotLoaded => {
            Some(Verdict::unknown(Why::CatalogNotLoaded))
        }
        None => Some(Verdict::unknown(Why::UnknownFunction)),
    }
}

/// A read of this relation. `None`: harmless.
pub(super) fn judge_relation(known: Known<'_>, schema: Option<&str>, name: &str) -> Option<Verdict> {
    if functions::is_node_local_relation(name) {
        return known.node_local();
    }
    if functions::is_system_relation(schema, name) && schema.is_some() {
        return None;
    }
    let temporary = schema.is_some_and(|schema| schema.starts_with("pg_temp"));
    if temporary || known.catalog.is_primary_only(name) {
        return Some(Verdict::write(Why::PrimaryOnlyRelation));
    }
    let unread = known.catalog.state() == CatalogState::NotLoaded;
    if unread && !functions::is_system_relation(schema, name) {
        return Some(Verdict::unknown(Why::CatalogNotLoaded));
    }
    None
}
