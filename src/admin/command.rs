//! Text → commands of the console.

use crate::admin::tables::Columns;
use crate::fault::{Fault, SqlState};
use crate::sql::lexer::Kind;
use crate::sql::lexer::statements::{Literals, Statement, Statements};

/// A list that SHOW can give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Show {
    /// The nodes.
    Cluster,
    /// Who says what about them.
    Evidence,
    /// The pools.
    Pools,
    /// The server connections.
    Servers,
    /// The clients.
    Clients,
    /// Counts.
    Stats,
    /// The configuration in force.
    Config,
    /// The databases.
    Databases,
    /// How many there are of everything.
    Lists,
    /// pgweir's version.
    Version,
    /// What the console understands.
    Help,
}

impl Show {
    /// All of them, with what HELP says about each.
    pub const ALL: [(Show, &'static str, &'static str); 11] = [
        (Show::Cluster, "cluster", "nodes: role, state, timeline, lag, staleness, position"),
        (
            Show::Evidence,
            "cluster evidence",
            "what nodes, clients' connections and Patroni say, how old it is, and the verdict",
        ),
        (Show::Pools, "pools", "server connections and waiting clients per database, user and node"),
        (Show::Servers, "servers", "server connections that are idle or have a client"),
        (Show::Clients, "clients", "client connections: state, address, node, pins"),
        (Show::Stats, "stats", "statements by node and reason, replays, pins, logins, cache hits"),
        (Show::Config, "config", "the configuration in force, without secrets"),
        (Show::Databases, "databases", "databases that are configured or in use"),
        (Show::Lists, "lists", "how many databases, users, pools, clients and servers there are"),
        (Show::Version, "version", "the version of pgweir"),
        (Show::Help, "help", "this list"),
    ];
}

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// SHOW of a list.
    Show(Show),
    /// RELOAD.
    Reload,
    /// Something that an operator does.
    Operate(Operation),
    /// A single value that drivers ask for at connect.
    Value {
        /// The only column.
        column: Columns,
        /// Its value.
        value: Value,
        /// The command tag.
        tag: &'static str,
    },
    /// BEGIN.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// DEALLOCATE of a statement's name, or (`None`) of all.
    Deallocate(Option<Vec<u8>>),
    /// Accepted without any effect.
    Nothing(&'static str),
}

/// What an operator does to databases and nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// PAUSE of a database, or of all.
    Pause(Option<String>),
    /// RESUME of a database, or of all.
    Resume(Option<String>),
    /// BAN: no reads go to this node.
    Ban(String),
    /// UNBAN.
    Unban(String),
    /// DRAIN: BAN, and wait until none is there.
    Drain(String),
}

impl Operation {
    /// What HELP says.
    pub const ALL: [(&'static str, &'static str); 5] = [
        (
            "PAUSE database",
            "hold statements that have no server connection yet, and wait for the others; PAUSE: of all databases",
        ),
        ("RESUME database", "let them run; RESUME: everything"),
        ("BAN node", "send no reads to this node"),
        ("UNBAN node", "send them there again"),
        ("DRAIN node", "BAN, and wait until nobody reads there"),
    ];
}

/// What a single value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// Always the same.
    Fixed(&'static str),
    /// The client's user.
    User,
}

/// What the console calls itself.
pub const VERSION: &str = concat!("pgweir ", env!("CARGO_PKG_VERSION"));

/// PgBouncer's (and our future) commands: understood, but not there yet.
const LATER: &[&str] =
    &["suspend", "disable", "enable", "reconnect", "kill", "kill_client", "wait_close", "shutdown"];

/// The same for what follows SHOW.
const LATER_SHOW: &[&str] = &[
    "active_sockets",
    "bans",
    "dns_hosts",
    "dns_zones",
    "fds",
    "hba",
    "mem",
    "peer_pools",
    "peers",
    "replication",
    "sockets",
    "state",
    "stats_averages",
    "stats_totals",
    "totals",
    "users",
];

/// Parameters of PostgreSQL that drivers ask for.
const PARAMETERS: &[(&str, Columns, &str)] = &[
    ("application_name", &["application_name"], ""),
    ("client_encoding", &["client_encoding"], "UTF8"),
    ("datestyle", &["DateStyle"], "ISO, MDY"),
    ("default_transaction_isolation", &["default_transaction_isolation"], "read committed"),
    ("default_transaction_read_only", &["default_transaction_read_only"], "off"),
    ("in_hot_standby", &["in_hot_standby"], "off"),
    ("integer_datetimes", &["integer_datetimes"], "on"),
    ("is_superuser", &["is_superuser"], "off"),
    ("search_path", &["search_path"], ""),
    ("server_encoding", &["server_encoding"], "UTF8"),
    ("server_version", &["server_version"], concat!(env!("CARGO_PKG_VERSION"), "/pgweir")),
    ("standard_conforming_strings", &["standard_conforming_strings"], "on"),
    ("timezone", &["TimeZone"], "UTC"),
    ("transaction_isolation", &["transaction_isolation"], "read committed"),
    ("transaction_read_only", &["transaction_read_only"], "off"),
];

/// The commands of a text, or why one of them is none: then nothing of the text is run.
pub fn parse(text: &[u8]) -> Result<Vec<Command>, Fault> {
    Statements::new(text, Literals::All).map(|statement| one(text, &statement)).collect()
}

fn one(text: &[u8], statement: &Statement) -> Result<Command, Fault> {
    if statement.broken || statement.truncated {
        return Err(unknown(text, statement));
    }
    let words: Vec<String> =
        statement.tokens.iter().map(|token| word(token.kind, token.bytes(text))).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["show", rest @ ..] => show(rest).unwrap_or_else(|| Err(unknown(text, statement))),
        ["reload"] => Ok(Command::Reload),
        ["pause"] => Ok(Command::Operate(Operation::Pause(None))),
        ["resume"] => Ok(Command::Operate(Operation::Resume(None))),
        [verb @ ("pause" | "resume" | "ban" | "unban" | "drain"), _] => {
            operation(text, statement, verb).ok_or_else(|| unknown(text, statement))
        }
        ["select", rest @ ..] => select(rest).ok_or_else(|| unknown(text, statement)),
        [first, ..] if LATER.contains(first) => Err(later(&first.to_ascii_uppercase())),
        _ => driver(text, statement, &words).ok_or_else(|| unknown(text, statement)),
    }
}

/// Keywords and unquoted names in lower case; everything else as it stands.
fn word(kind: Kind, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match kind {
        Kind::Word => text.to_ascii_lowercase(),
        _ => text.into_owned(),
    }
}

fn show(words: &[&str]) -> Option<Result<Command, Fault>> {
    let name = match words {
        [name] => *name,
        ["time", "zone"] => "timezone",
        ["transaction", "isolation", "level"] => "transaction_isolation",
        ["cluster", "evidence"] => "cluster evidence",
        _ => return None,
    };
    if let Some((show, ..)) = Show::ALL.iter().find(|(_, known, _)| *known == name) {
        return Some(Ok(Command::Show(*show)));
    }
    if LATER_SHOW.contains(&name) {
        return Some(Err(later(&format!("SHOW {}", name.to_ascii_uppercase()))));
    }
    let (_, column, value) = PARAMETERS.iter().find(|(known, ..)| *known == name)?;
    Some(Ok(Command::Value { column, value: Value::Fixed(value), tag: "SHOW" }))
}

fn select(words: &[&str]) -> Option<Command> {
    let words = words.strip_prefix(&["pg_catalog", "."]).unwrap_or(words);
    let (column, value): (Columns, Value) = match words {
        ["1"] => (&["?column?"], Value::Fixed("1")),
        ["version", "(", ")"] => (&["version"], Value::Fixed(VERSION)),
        ["current_database", "(", ")"] => (&["current_database"], Value::Fixed("pgweir")),
        ["current_schema"] | ["current_schema", "(", ")"] => (&["current_schema"], Value::Fixed("public")),
        ["current_user"] => (&["current_user"], Value::User),
        ["session_user"] => (&["session_user"], Value::User),
        _ => return None,
    };
    Some(Command::Value { column, value, tag: "SELECT 1" })
}

/// What drivers and pools say around the commands of their users.
fn driver(text: &[u8], statement: &Statement, words: &[&str]) -> Option<Command> {
    Some(match words {
        ["set", _, ..] => Command::Nothing("SET"),
        ["reset", _, ..] => Command::Nothing("RESET"),
        ["discard", _] => Command::Nothing("DISCARD"),
        ["unlisten", _] => Command::Nothing("UNLISTEN"),
        ["close", "all"] => Command::Nothing("CLOSE CURSOR ALL"),
        ["begin", ..] | ["start", "transaction", ..] => Command::Begin,
        ["commit" | "end"] | ["commit" | "end", "work" | "transaction"] => Command::Commit,
        ["rollback" | "abort"] | ["rollback" | "abort", "work" | "transaction"] => Command::Rollback,
        ["deallocate", "all"] | ["deallocate", "prepare", "all"] => Command::Deallocate(None),
        ["deallocate", _] | ["deallocate", "prepare", _] => {
            let token = statement.tokens.last()?;
            Command::Deallocate(Some(identifier(token.kind, token.bytes(text))?))
        }
        _ => return None,
    })
}

fn operation(text: &[u8], statement: &Statement, verb: &str) -> Option<Command> {
    let token = statement.tokens.last()?;
    let name = String::from_utf8(identifier(token.kind, token.bytes(text))?).ok()?;
    Some(Command::Operate(match verb {
        "pause" => Operation::Pause(Some(name)),
        "resume" => Operation::Resume(Some(name)),
        "ban" => Operation::Ban(name),
        "unban" => Operation::Unban(name),
        "drain" => Operation::Drain(name),
        _ => return None,
    }))
}

fn identifier(kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
    match kind {
        Kind::Word => Some(bytes.to_ascii_lowercase()),
        Kind::Quoted => {
            let inner = bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            Some(String::from_utf8_lossy(inner).replace("\"\"", "\"").into_bytes())
        }
        _ => None,
    }
}

/// How much of an unknown command is said back.
const QUOTED_BYTES_MAX: usize = 80;

fn unknown(text: &[u8], statement: &Statement) -> Fault {
    let start = statement.tokens.first().map_or(0, |token| token.start);
    let end = statement.tokens.last().map_or(start, |token| token.end).min(start + QUOTED_BYTES_MAX);
    let said = String::from_utf8_lossy(text.get(start..end).unwrap_or_default()).into_owned();
    Fault::client(SqlState::SYNTAX_ERROR, format!("unknown command \"{said}\""))
        .hint("This is pgweir's console, not a database; try SHOW HELP.")
}

fn later(name: &str) -> Fault {
    Fault::client(SqlState::FEATURE_NOT_SUPPORTED, format!("{name} is not supported by this version"))
        .hint("SHOW HELP lists what is.")
}

#[cfg(test)]
mod tests;
