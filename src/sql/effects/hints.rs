//! Comments that speak to pgweir: `/* pgweir.route=primary */`, `-- pgweir.max_staleness=2s`.

use super::PgweirName;
use crate::sql::class::Route;
use crate::sql::lexer::{Kind, Lexer};

/// What the comments of a text ask for. What cannot be understood asks for nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    /// The route; of several, `primary` wins.
    pub route: Option<Route>,
    /// The consistency level, as written.
    pub consistency: Option<String>,
    /// The bound of staleness, as written (`2s`).
    pub max_staleness: Option<String>,
}

impl Hints {
    /// Is there nothing but (perhaps) a route?
    pub fn only_route(&self) -> bool {
        self.consistency.is_none() && self.max_staleness.is_none()
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
        let Some((name, value)) = after.split_once('=') else { continue };
        let value =
            value.trim_start().split([' ', '\t', '\n', '\r', ',', ';', '*']).next().unwrap_or_default();
        let value = value.trim_matches(['\'', '"']).to_ascii_lowercase();
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
            Some(PgweirName::Consistency) => hints.consistency = Some(value),
            Some(PgweirName::MaxStaleness) => hints.max_staleness = Some(value),
            Some(PgweirName::Token | PgweirName::CausalKey) | None => {}
        }
    }
}
