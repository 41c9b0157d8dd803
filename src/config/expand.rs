//! `${NAME}` and `${NAME:-default}` in values, after the YAML is parsed: what a variable contains
//! can thus never become a key, a list or a comment.

use crate::config::mistake::Mistake;
use crate::config::reader::{Reader, join};
use crate::config::tree::{Tree, Value};

/// Looks a variable up.
pub type Lookup<'l> = &'l dyn Fn(&str) -> Option<String>;

/// Expands every scalar below `tree`; an unset variable is a mistake. `$${` stands for `${`.
pub fn expand(tree: &mut Tree, path: &str, lookup: Lookup<'_>, reader: &mut Reader) {
    match &mut tree.value {
        Value::Null => {}
        Value::Scalar(text) if text.contains("${") => match expand_text(text, lookup) {
            Ok(expanded) => *text = expanded,
            Err(message) => reader.report(Mistake::new(tree.span, message).path(path)),
        },
        Value::Scalar(_) => {}
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{index}]"), lookup, reader);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                expand(&mut entry.value, &join(path, &entry.key), lookup, reader);
            }
        }
    }
}

fn expand_text(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            expanded.push_str(&rest[..at]);
            expanded.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or("a variable begins with ${ but has no closing }")?;
        expanded.push_str(&variable(&inner[..end], lookup)?);
        rest = &inner[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn variable(inner: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !valid {
        return Err(format!("\"{name}\" is not the name of an environment variable"));
    }
    match (lookup(name).filter(|value| !value.is_empty()), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(format!("the environment variable {name} is not set (a default: ${{{name}:-value}})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "SET").then(|| "value".to_owned())
    }

    #[test]
    fn variables_defaults_and_escapes() {
        for (written, expanded) in [
            ("${SET}", "value"),
            ("a${SET}b${SET}c", "avaluebvaluec"),
            ("${UNSET:-x}", "x"),
            ("${UNSET:-}", ""),
            ("$${SET}", "${SET}"),
            ("$SET $ {", "$SET $ {"),
        ] {
            assert_eq!(expand_text(written, &lookup), Ok(expanded.to_owned()), "{written}");
        }
    }

    #[test]
    fn unset_and_malformed_variables_are_mistakes() {
        for written in ["${UNSET}", "${", "${SET", "${}", "${A B}", "${1}"] {
            assert!(expand_text(written, &lookup).is_err(), "{written}");
        }
    }
}
