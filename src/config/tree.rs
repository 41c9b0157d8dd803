//! A YAML document as a tree in which every key and value knows where it stands.
//!
//! serde would stop at the first mistake and forget positions and key paths on the way; a tree
//! lets the sections be read one by one and all their mistakes be told together.

use crate::config::mistake::{Mistake, Span};
use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span as YamlSpan};
use std::collections::HashMap;

/// Nodes that a document may have after its aliases are expanded (a bound on alias bombs).
const NODES_MAX: usize = 100_000;
/// Nested mappings and lists; no valid file is deeper than six.
const DEPTH_MAX: usize = 64;

/// A value and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    /// What it is.
    pub value: Value,
    /// Where it begins.
    pub span: Span,
}

/// A YAML value; numbers, booleans and words are all text until somebody asks for more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// One word, number or string.
    Scalar(String),
    /// `[a, b]`, or lines that begin with `-`.
    List(Vec<Tree>),
    /// `{a: b}`, or lines of `key: value`.
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub span: Span,
    /// The value.
    pub value: Tree,
}

impl Value {
    /// What it is called in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Parses the only document of `text`.
pub fn parse(text: &str) -> Result<Tree, Mistake> {
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| syntax(&error, text))?;
        builder.take(event, &span)?;
    }
    Ok(builder.root.unwrap_or(Tree { value: Value::Null, span: Span::START }))
}

/// A mapping or list that is not complete yet.
struct Open {
    span: Span,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Tree>),
    Map { entries: Vec<Entry>, key: Option<(String, Span)> },
}

#[derive(Default)]
struct Builder {
    root: Option<Tree>,
    open: Vec<Open>,
    anchors: HashMap<usize, Tree>,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &YamlSpan) -> Result<(), Mistake> {
        let at = span_of(span);
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Scalar(text.into_owned()) };
                self.place(Tree { value, span: at }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(at, anchor, Inside::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.begin(at, anchor, Inside::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some(tree) = self.anchors.get(&anchor) else {
                    return Err(Mistake::new(at, "an alias may not stand inside the value it names"));
                };
                let copy = Tree { value: tree.value.clone(), span: at };
                self.nodes += count(&copy);
                self.place(copy, 0)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Mistake::new(at, "a second document begins here; the file must have only one"))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, span: Span, anchor: usize, inside: Inside) -> Result<(), Mistake> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Mistake::new(span, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.open.push(Open { span, anchor, inside });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Mistake> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.inside {
            Inside::List(items) => Value::List(items),
            Inside::Map { entries, .. } => Value::Map(entries),
        };
        self.place(Tree { value, span: open.span }, open.anchor)
    }

    fn place(&mut self, tree: Tree, anchor: usize) -> Result<(), Mistake> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Mistake::new(tree.span, format!("more than {NODES_MAX} values in one file")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, tree.clone());
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(tree),
            Some(Inside::List(items)) => items.push(tree),
            Some(Inside::Map { entries, key }) => match key.take() {
                Some((name, span)) => entries.push(Entry { key: name, span, value: tree }),
                None => *key = Some(key_of(tree)?),
            },
        }
        Ok(())
    }
}

fn key_of(tree: Tree) -> Result<(String, Span), Mistake> {
    match tree.value {
        Value::Scalar(name) => Ok((name, tree.span)),
        other => Err(Mistake::new(tree.span, format!("a key must be a word, not {}", other.kind()))),
    }
}

// Recursion is bounded by DEPTH_MAX times the nesting of aliases, whose sum NODES_MAX bounds.
fn count(tree: &Tree) -> usize {
    match &tree.value {
        Value::Null | Value::Scalar(_) => 1,
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| count(&entry.value)).sum::<usize>(),
    }
}

fn span_of(span: &YamlSpan) -> Span {
    let one_line = span.start.line() == span.end.line();
    let width = if one_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    Span { line: span.start.line(), column: span.start.col() + 1, width: width.max(1) }
}

fn syntax(error: &ScanError, text: &str) -> Mistake {
    let marker = error.marker();
    let span = Span { line: marker.line(), column: marker.col() + 1, width: 1 };
    let line = text.lines().nth(marker.line().saturating_sub(1)).unwrap_or_default();
    let tab = line.find(|c: char| c != ' ').filter(|at| line[*at..].starts_with('\t'));
    if let Some(at) = tab {
        let span = Span { line: marker.line(), column: at + 1, width: 1 };
        return Mistake::new(span, "a tab is not allowed as indentation: use spaces");
    }
    let mistake = Mistake::new(span, format!("not valid YAML: {}", error.info()));
    match unquoted_variable(line) {
        true => mistake.hint("put ${…} in double quotes inside { }: \"${NAME}\""),
        false => mistake,
    }
}

fn unquoted_variable(line: &str) -> bool {
    line.match_indices("${").any(|(at, _)| !line[..at].ends_with(['"', '\'']))
}
