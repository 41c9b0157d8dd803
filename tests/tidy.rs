//! What STYLE.md asks for and a machine can see: dependency arrows, purity, names, lengths.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What each module may use besides itself; what is absent is forbidden. `a::b` allows that child
/// of `a` only. Only `proxy` and `cli` see everything.
const ARROWS: &[(&str, &[&str])] = &[
    // ── vocabulary
    ("fault", &[]),
    ("lsn", &[]),
    ("moment", &[]),
    ("node", &[]),
    // ── pure cores
    ("wire", &["fault"]),
    ("sql", &[]),
    ("cluster", &["lsn", "node", "moment"]),
    ("freshness", &["lsn", "node", "moment", "cluster::view"]),
    ("routing", &["sql::class", "cluster::view", "freshness", "moment", "node"]),
    // Routing's request is data to it; it never decides, and never sees a pool.
    (
        "session",
        &[
            "wire",
            "sql",
            "fault",
            "moment",
            "node",
            "freshness",
            "routing::request",
            "routing::reason",
            "lsn",
        ],
    ),
    ("pool/slots", &["moment", "node", "pool"]),
    ("checker", &["moment"]),
    ("auth", &["fault", "moment", "wire"]),
    // ── config: the cores' policies, never the other way round
    (
        "config",
        &[
            "fault",
            "lsn",
            "moment",
            "node",
            "routing",
            "cluster",
            "freshness",
            "session",
            "sql",
            "pool::slots",
            "auth",
        ],
    ),
    // ── shells
    ("clock", &["moment"]),
    ("net", &["fault", "moment", "clock", "config", "wire", "telemetry"]),
    (
        "pool",
        &[
            "auth",
            "clock",
            "cluster",
            "config",
            "fault",
            "freshness",
            "lsn",
            "moment",
            "net",
            "node",
            "routing",
            "session",
            "telemetry",
            "wire",
        ],
    ),
    (
        "monitor",
        &[
            "clock",
            "cluster",
            "config",
            "fault",
            "freshness",
            "lsn",
            "moment",
            "net",
            "node",
            "sql",
            "telemetry",
        ],
    ),
    ("causal", &["clock", "config", "freshness", "lsn", "moment"]),
    (
        "relay",
        &[
            "auth",
            "causal",
            "clock",
            "cluster",
            "config",
            "fault",
            "freshness",
            "lsn",
            "moment",
            "monitor",
            "net",
            "node",
            "pool",
            "routing",
            "session",
            "sql",
            "telemetry",
            "wire",
        ],
    ),
    (
        "admin",
        &[
            "clock",
            "cluster",
            "config",
            "fault",
            "http::status",
            "lsn",
            "moment",
            "node",
            "pool",
            "relay::slot",
            "relay::context",
            "relay::login",
            "routing",
            "session",
            "sql",
            "telemetry",
            "wire",
        ],
    ),
    ("http", &["clock", "cluster", "moment", "node", "routing::reason", "telemetry"]),
    ("telemetry", &["cluster::view", "config", "lsn", "moment", "node", "routing::reason"]),
    ("devcluster", &["clock", "fault", "lsn", "moment"]),
];

/// They see everything.
const ROOTS: &[&str] = &["proxy", "cli", "lib", "main"];

/// No clock, socket, thread, file, randomness or environment, and nothing of tokio. (The keys of
/// fingerprints and the nonces of SCRAM come in as arguments.)
const PURE: &[&str] = &[
    "fault",
    "lsn",
    "moment",
    "node",
    "wire",
    "sql",
    "cluster",
    "freshness",
    "routing",
    "session",
    "pool/slots",
    "auth",
    "checker",
];
const IMPURE: &[&str] = &[
    "tokio",
    "async fn",
    ".await",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::env",
    "std::thread",
    "std::io",
    "std::process",
    "SystemTime",
    "rand::",
    "SystemRandom",
    "tracing::",
    "feature = \"shell\"",
];
/// Where a pure module has a good reason for one of them.
const IMPURE_ALLOWED: &[(&str, &str)] = &[];

const FILE_LINES_MAX: usize = 600;
/// A table of names is as long as PostgreSQL's list.
const LONG_FILES: &[&str] = &["src/sql/functions/table.rs"];
const FUNCTION_LINES_MAX: usize = 70;

const PANICS: &[&str] = &[".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
/// Where one of them is right: the file, and why.
const PANICS_ALLOWED: &[(&str, &str)] = &[];

const BAD_FILE_NAMES: &[&str] = &["mod", "utils", "util", "common", "helpers", "helper", "misc"];
const BAD_TYPE_ENDINGS: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils"];

struct Source {
    /// From the project's folder: `src/sql/lexer.rs`.
    path: String,
    /// As it is.
    text: String,
    /// Without comments, strings and tests; lines stay where they are.
    code: String,
}

impl Source {
    /// The module of the first level: `sql`.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split(['/', '.']).next().unwrap()
    }

    /// Does it belong to `place` (`sql`, or `pool/slots`)?
    fn is_in(&self, place: &str) -> bool {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside == format!("{place}.rs") || inside.starts_with(&format!("{place}/"))
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.split('/').any(|part| part == "tests.rs" || part == "tests")
    }

    fn line_of(&self, at: usize) -> String {
        format!("{}:{}", self.path, self.code[..at].matches('\n').count() + 1)
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                let code = without_tests(&without_words(&text));
                found.push(Source { path, text, code });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `text` with comments and the insides of strings and characters blanked.
fn without_words(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => find(bytes, at + 2, b"*/") + 2,
            b'r' | b'b' if raw_string(bytes, at).is_some() => raw_string(bytes, at).unwrap(),
            b'"' => quoted(bytes, at),
            b'\'' => character(bytes, at),
            _ => at,
        };
        for byte in &mut code[at..end.min(bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|window| window == what).map_or(bytes.len(), |at| from + at)
}

fn quoted(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end + 1
}

/// A character literal, or nothing for a lifetime.
fn character(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at + 1) {
        Some(b'\\') => find(bytes, at + 3, b"'") + 1,
        Some(_) => {
            let near = &bytes[at + 2..(at + 6).min(bytes.len())];
            match near.iter().position(|byte| *byte == b'\'') {
                Some(0) => at + 3,
                Some(offset) if !bytes[at + 1].is_ascii() => at + 3 + offset,
                _ => at,
            }
        }
        None => at,
    }
}

/// The end of a raw (byte) string that begins at `at`.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    let rest = &bytes[at..];
    let rest = rest.strip_prefix(b"b").unwrap_or(rest);
    let after = rest.strip_prefix(b"r")?;
    let hashes = after.iter().take_while(|byte| **byte == b'#').count();
    if word_before || after.get(hashes) != Some(&b'"') {
        return None;
    }
    let body = bytes.len() - after.len() + hashes + 1;
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    Some(find(bytes, body, &close) + close.len())
}

/// `code` up to its test module, which stands last.
fn without_tests(code: &str) -> String {
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let after = code[at..].lines().skip(1).map(str::trim).find(|line| !line.starts_with("#["));
        if after.is_some_and(|line| line.starts_with("mod ") || line.starts_with("pub mod ")) {
            return code[..at].to_owned();
        }
    }
    code.to_owned()
}

/// Every `crate::a::b` in `code` as `a::b`, groups taken apart.
fn paths_in(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let own_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        let rest = &code[at + "crate::".len()..];
        if own_word {
            continue;
        }
        if let Some(group) = rest.strip_prefix('{') {
            paths.extend(group_members(group).into_iter().map(|path| (at, path)));
        } else {
            paths.push((at, two_levels(rest)));
        }
    }
    paths
}

fn two_levels(path: &str) -> String {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(path.len());
    path[..end].split("::").filter(|part| !part.is_empty()).take(2).collect::<Vec<_>>().join("::")
}

fn group_members(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut members) = (0usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(two_levels(group[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

/// The rule for a file: the longest place that contains it.
fn arrows_of(source: &Source) -> Option<&'static (&'static str, &'static [&'static str])> {
    ARROWS.iter().filter(|(place, _)| source.is_in(place)).max_by_key(|(place, _)| place.len())
}

fn check(rule: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

#[test]
fn dependencies_point_downwards() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| !ROOTS.contains(&source.module())) {
        let Some((place, allowed)) = arrows_of(source) else {
            wrong.push(format!("{}: a module without a row in tests/tidy.rs", source.path));
            continue;
        };
        for (at, path) in paths_in(&source.code) {
            let top = path.split("::").next().unwrap_or_default();
            let own = top == source.module() && !place.contains('/');
            if !own && !allowed.contains(&top) && !allowed.contains(&path.as_str()) {
                wrong.push(format!("{}: {place} may not use {path}", source.line_of(at)));
            }
        }
    }
    check("STYLE §1, what may use what", wrong);
}

#[test]
fn every_module_has_a_row() {
    let known: BTreeSet<&str> = ARROWS.iter().map(|(place, _)| *place).chain(ROOTS.iter().copied()).collect();
    let wrong = sources("src").iter().map(|source| source.module().to_owned()).collect::<BTreeSet<_>>();
    let wrong = wrong.into_iter().filter(|module| !known.contains(module.as_str())).collect();
    check("modules without a row in ARROWS", wrong);
}

#[test]
fn cores_perform_nothing() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| PURE.iter().any(|place| source.is_in(place))) {
        for word in IMPURE {
            let allowed = IMPURE_ALLOWED.contains(&(source.path.as_str(), word));
            if let Some(at) = source.code.find(word).filter(|_| !allowed && !source.is_test()) {
                wrong.push(format!("{}: {word} in a pure core", source.line_of(at)));
            }
        }
    }
    check("STYLE §1, the cores know no runtime", wrong);
}

#[test]
fn only_the_clock_reads_the_clock() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| source.path != "src/clock.rs") {
        if let Some(at) = source.code.find("Instant::now") {
            wrong.push(source.line_of(at));
        }
    }
    check("Instant::now belongs to clock.rs", wrong);
}

#[test]
fn nothing_that_input_reaches_can_panic() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        for word in PANICS {
            if PANICS_ALLOWED.contains(&(source.path.as_str(), word)) {
                continue;
            }
            wrong.extend(
                source.code.match_indices(word).map(|(at, _)| format!("{}: {word}", source.line_of(at))),
            );
        }
    }
    check("no unwrap, expect or panic outside tests", wrong);
}

#[test]
fn nothing_is_unsafe() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")).chain(&sources("benches")) {
        for (at, _) in source.code.match_indices("unsafe") {
            let word = !source.code[at + 6..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
                && !source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if word {
                wrong.push(source.line_of(at));
            }
        }
    }
    check("no unsafe code", wrong);
}

#[test]
fn no_test_is_ignored_and_nothing_is_left_to_do() {
    let (ignored, marks) = (concat!("#[", "ignore"), [concat!("TO", "DO"), concat!("FIX", "ME")]);
    let mut wrong = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        if source.text.contains(ignored) {
            wrong.push(format!("{}: an ignored test", source.path));
        }
        if marks.iter().any(|mark| source.text.contains(mark)) {
            wrong.push(format!("{}: something left to do", source.path));
        }
    }
    check("finished", wrong);
}

#[test]
fn files_are_named_after_what_they_hold() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let stem = Path::new(&source.path).file_stem().unwrap().to_string_lossy().into_owned();
        if BAD_FILE_NAMES.contains(&stem.as_str()) {
            wrong.push(source.path.clone());
        }
        for word in ["struct ", "enum ", "trait "] {
            for (at, _) in source.code.match_indices(word) {
                let rest = &source.code[at + word.len()..];
                let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                if BAD_TYPE_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                    wrong.push(format!("{}: {name}", source.line_of(at)));
                }
            }
        }
        if let Some(at) = source.code.find("fn get_") {
            wrong.push(format!("{}: PostgreSQL's words have no get_", source.line_of(at)));
        }
    }
    check("STYLE §4, names", wrong);
}

#[test]
fn each_file_begins_with_its_mission() {
    let wrong = sources("src").into_iter().chain(sources("tests"));
    let wrong = wrong.filter(|source| !source.is_test() || source.path.starts_with("tests/"));
    let wrong = wrong.filter(|source| !source.text.starts_with("//!")).map(|source| source.path).collect();
    check("STYLE §3.12, a line of mission at the top", wrong);
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX && !LONG_FILES.contains(&source.path.as_str()) {
            wrong.push(format!("{}: {lines} lines", source.path));
        }
    }
    check("at most 600 lines in a file", wrong);
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        for (line, lines) in functions(&source.code) {
            if lines > FUNCTION_LINES_MAX {
                wrong.push(format!("{}:{line}: a function of {lines} lines", source.path));
            }
        }
    }
    check("at most 70 lines in a function", wrong);
}

/// First line and length of each function. rustfmt puts the closing brace under the beginning.
fn functions(code: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let inside = line.trim_start();
        let words = inside.split("fn ").next().unwrap_or_default();
        let declares = inside.contains("fn ")
            && words
                .split_whitespace()
                .all(|word| word.starts_with("pub") || ["async", "const", "in"].contains(&word));
        if !declares {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - inside.len()]);
        let ends_here = inside.trim_end().ends_with(['}', ';']);
        let end = lines[index..].iter().position(|line| line.starts_with(&close)).filter(|_| !ends_here);
        found.extend(end.map(|end| (index + 1, end + 1)));
    }
    found
}

#[test]
fn the_checks_see_what_they_should() {
    let code = without_tests(&without_words(
        "fn a() {\n    \"unsafe\"; // crate::x\n    'a'; '\\''; r#\"crate::y\"#\n}\nuse crate::{a::b, c, d::{e, f}};\n\
         fn f<'a>(x: &'a str) {}\n#[cfg(test)]\nmod tests { fn t() { panic!() } }\n",
    ));
    assert!(!code.contains("unsafe") && !code.contains("panic"), "{code}");
    let paths: Vec<String> = paths_in(&code).into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["a::b", "c", "d::"].map(|path| path.trim_end_matches(':')));
    assert_eq!(functions(&code), [(1, 4)]);
}
