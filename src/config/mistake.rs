//! What is wrong with a file, said so that it can be put right.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in the file; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// Characters that are wrong.
    pub width: usize,
}

impl Span {
    /// The beginning of the file.
    pub const START: Span = Span { line: 1, column: 1, width: 1 };
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Where it is.
    pub span: Span,
    /// Which key it concerns (`cluster.nodes[0].port`); empty for the file as a whole.
    pub path: String,
    /// What is wrong, one line.
    pub message: String,
    /// The nearest valid key or value.
    pub nearest: Option<String>,
    /// What else helps.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake at `span`.
    pub fn new(span: Span, message: impl Into<String>) -> Mistake {
        Mistake { span, path: String::new(), message: message.into(), nearest: None, hint: None }
    }

    /// Concerning the key at `path`.
    pub fn path(mut self, path: impl Into<String>) -> Mistake {
        self.path = path.into();
        self
    }

    /// With the nearest valid key or value.
    pub fn nearest(mut self, nearest: Option<impl Into<String>>) -> Mistake {
        self.nearest = nearest.map(Into::into);
        self
    }

    /// With a line of help.
    pub fn hint(mut self, hint: impl Into<String>) -> Mistake {
        self.hint = Some(hint.into());
        self
    }
}

/// A file that cannot be used, with all that was found wrong in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Its mistakes, from top to bottom. Never empty.
    pub mistakes: Vec<Mistake>,
    /// Its lines with what looks like a secret masked; empty if it could not be read.
    lines: Vec<String>,
}

impl ConfigError {
    /// `mistakes` in `file`, which reads `text`.
    pub fn new(file: &Path, text: &str, mut mistakes: Vec<Mistake>) -> ConfigError {
        mistakes.sort_by_key(|mistake| mistake.span);
        ConfigError { file: file.to_owned(), mistakes, lines: text.lines().map(mask).collect() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            self.show(mistake, f)?;
        }
        Ok(())
    }
}

impl ConfigError {
    fn show(&self, mistake: &Mistake, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, width } = mistake.span;
        write!(f, "{}:{line}:{column}: {}", self.file.display(), mistake.message)?;
        if let Some(nearest) = &mistake.nearest {
            write!(f, ", did you mean \"{nearest}\"?")?;
        }
        f.write_str("\n")?;
        if let Some(text) = self.lines.get(line.saturating_sub(1)) {
            let room = text.chars().count().saturating_sub(column - 1).max(1);
            writeln!(f, "{line:>5} | {text}")?;
            writeln!(f, "      | {}{}", " ".repeat(column - 1), "^".repeat(width.min(room)))?;
        }
        if !mistake.path.is_empty() {
            writeln!(f, "      = key: {}", mistake.path)?;
        }
        if let Some(hint) = &mistake.hint {
            writeln!(f, "      = {hint}")?;
        }
        Ok(())
    }
}

// A snippet goes to logs and terminals, a password must not: the value of a key that begins with
// "pas" (pass, password, pasword, …) is shown as stars, as many as it has characters, so that the
// columns still fit.
fn mask(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while let Some((before, value)) = secret(rest) {
        shown.push_str(before);
        let after = &rest[before.len() + value.len()..];
        shown.extend(value.chars().map(|c| if c.is_whitespace() { c } else { '*' }));
        rest = after;
    }
    shown + rest
}

/// The first secret in `line` and what stands before it.
fn secret(line: &str) -> Option<(&str, &str)> {
    // ASCII folding keeps the offsets.
    let lower = line.to_ascii_lowercase();
    lower.match_indices("pas").find_map(|(at, _)| {
        let colon = at + lower[at..].find(':')?;
        let key = lower[at..colon].trim_end().trim_end_matches(['"', '\'']);
        let names_secret =
            key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !key.ends_with("file");
        let value = line[colon + 1..].trim_start();
        let start = line.len() - value.len();
        let secret = &value[..secret_length(value, line[..at].contains('{'))];
        // `${NAME}` is a reference, not a secret (its default might be one).
        let reference = secret.trim_matches('"').starts_with("${") && !secret.contains(":-");
        (names_secret && !secret.is_empty() && !reference).then(|| (&line[..start], secret))
    })
}

fn secret_length(value: &str, in_braces: bool) -> usize {
    let quote = value.chars().next().filter(|c| ['"', '\''].contains(c));
    let end = match quote {
        Some(quote) => value[1..].rfind(quote).map(|end| end + 2),
        None if in_braces => value.find([',', '}']),
        None => None,
    };
    end.unwrap_or(value.len())
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn a_snippet_does_not_show_a_password() {
        assert_eq!(mask("  password: hunter2"), "  password: *******");
        assert_eq!(mask("- { name: a, pasword: \"x\", y: 1 }"), "- { name: a, pasword: ***, y: 1 }");
        assert_eq!(mask("  password_file: /run/secret"), "  password_file: /run/secret");
        assert_eq!(mask("  password: \"${APP}\""), "  password: \"${APP}\"");
        assert_eq!(mask("  a: b"), "  a: b");
        assert_eq!(mask("[ { password: a }, { PASSWD: 'b,}' } ]"), "[ { password: * }, { PASSWD: ***** } ]");
        assert_eq!(mask("  password: \"${X:-dflt}\""), "  password: ************");
        assert_eq!(mask("  passé: é, password: é"), "  passé: é, password: *");
    }
}
