//! Comments that speak to pgweir: `/* pgweir.route=primary */`, `-- pgweir.max_staleness=2s`.

use super::PgweirName;
use crate::sql::class::Route;
use crate::sql::lexer::{Kind, Lexer};

/// What the comments of a text ask for. What cannot be understood asks for nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    /// The route; of several, `primary` wins.
    pub route: Option<Route>,
    /// The consistency levels, as written.
    pub levels: Vec<String>,
    /// The bounds of staleness, as written (`2s`).
    pub bounds: Vec<String>,
    /// The tokens, as written.
    pub tokens: Vec<String>,
    /// The causal keys.
    pub causal_keys: Vec<String>,
}

impl Hints {
    /// Is there nothing but (perhaps) a route?
    pub fn only_route(&self) -> bool {
        let asked = [&self.levels, &self.bounds, &self.tokens, &self.causal_keys];
        asked.iter().all(|asked| asked.is_empty())
    }
}

/// Reads the hints of a text.
pub fn hints_of(text: &[u8]) -> Hints {
    let mut hints = Hints::default();
    // Nearly every text has none: one search says so.
    if memchr::memmem::find(text, b"pgweir.").is_none() {
        return hints;
    }
    for token in Lexer::new(text) {
        if token.kind == Kind::Hint {
            let comment = String::from_utf8_lossy(token.bytes(text));
            read(&comment, &mut hints);
        }
    }
    hints
}

fn read(comment: &str, hints: &mut Hints) {
    let comment = comment.trim_start_matches(['/', '*', '-']).trim_end_matches(['*', '/']);
    for after in comment.split("pgweir.").skip(1) {
        let Some((name, written)) = after.split_once('=') else { continue };
        let exact = value_of(written.trim_start());
        let value = exact.to_ascii_lowercase();
        match PgweirName::parse(name.trim()) {
            Some(PgweirName::Route) => {
                let asked = match value.as_str() {
                    "primary" => Some(Route::Primary),
                    "replica" => Some(Route::Replica),
                    "auto" => Some(Route::Auto),
                    _ => None,
                };
                if hints.route != Some(Route::Primary) {
                    hints.route = asked.or(hints.route);
                }
            }
            Some(PgweirName::Consistency) => hints.levels.push(value),
            Some(PgweirName::MaxStaleness) => hints.bounds.push(value),
            Some(PgweirName::Token) => hints.tokens.push(exact),
            Some(PgweirName::CausalKey) => hints.causal_keys.push(exact),
            // For sessions only.
            Some(PgweirName::ReportToken) | None => {}
        }
    }
}

/// A value, up to its closing quote, or to the next separator where it has none. What is quoted may be
/// percent-encoded, as sqlcommenter writes it (`key='user%3A42'`).
fn value_of(written: &str) -> String {
    let separators = [' ', '\t', '\n', '\r', ',', ';', '*'];
    match written.chars().next().filter(|first| matches!(first, '\'' | '"')) {
        Some(quote) => {
            let inner = &written[1..];
            decoded(inner.split(quote).next().unwrap_or_default())
        }
        None => written.split(separators).next().unwrap_or_default().trim_matches(['\'', '"']).to_owned(),
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let code = (first == b'%').then(|| behind.get(..2)).flatten();
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
