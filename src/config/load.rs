//! A file → settings.

use crate::config::expand::{Lookup, expand};
use crate::config::mistake::{ConfigError, Mistake, Span};
use crate::config::reader::Reader;
use crate::config::settings::Settings;
use crate::config::{shape, tree};
use std::path::Path;

/// A configuration larger than this is a mistake of another kind.
const FILE_MAX: u64 = 8 << 20;

/// Reads and checks the file at `path`, with the process's environment.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let text =
        read(path).map_err(|message| ConfigError::new(path, "", vec![Mistake::new(Span::START, message)]))?;
    parse(path, &text, &|name| std::env::var(name).ok())
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot read the file: {error}"))?.len();
    if size > FILE_MAX {
        return Err(format!("the file is too large ({size} bytes, at most {FILE_MAX})"));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read the file: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("the file is not UTF-8 (line {})", line + 1)
    })
}

/// Checks `text` as the contents of the file at `path`.
pub fn parse(path: &Path, text: &str, lookup: Lookup<'_>) -> Result<Settings, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut tree = tree::parse(text).map_err(|mistake| ConfigError::new(path, text, vec![mistake]))?;
    let mut reader = Reader::new(path.parent().unwrap_or(Path::new("")));
    expand(&mut tree, "", lookup, &mut reader);
    let settings = shape::read(&tree, &mut reader);
    match reader.into_mistakes() {
        mistakes if mistakes.is_empty() => Ok(settings),
        mistakes => Err(ConfigError::new(path, text, mistakes)),
    }
}
