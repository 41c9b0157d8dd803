//! What a text does to its session, read from its tokens; asked only where the class's marks say so.
//!
//! Not seen: what functions, procedures and DO blocks do inside (a `set_config` in a function).
//! Only what stands in the text itself is tracked.

mod cursor;
mod hints;
mod settings;
mod transaction;
mod upheaval;

pub use hints::{Hints, hints_of};
pub use transaction::is_mode;
pub use upheaval::{Upheaval, upheavals_of};

use crate::sql::classify::{creates_temporary, name_of, updates_settings};
use crate::sql::functions::{self, SessionFunction};
use crate::sql::lexer::statements::{Literals, Statement, Statements};
use crate::sql::lexer::{Dialect, Kind, Token};
use cursor::Cursor;

/// How long a setting lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Until the session ends (or its transaction is rolled back).
    Session,
    /// Until the transaction ends.
    Local,
}

/// A setting's value, as SQL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// What stood after `SET name =`: replay it with SET.
    Sql(String),
    /// The text that a literal gave to `set_config`: replay it with set_config (lists are quoted
    /// differently there).
    Config(String),
}

/// An argument of `set_config`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Argument {
    /// A constant.
    Text(String),
    /// `$1` is 1.
    Param(u16),
}

/// A call of `set_config` that has parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetConfig {
    /// Which setting.
    pub name: Argument,
    /// Its value.
    pub value: Argument,
    /// Only for the transaction?
    pub local: Argument,
}

impl SetConfig {
    /// Does it certainly end with the transaction?
    pub fn is_local(&self) -> bool {
        self.local == Argument::Text("true".to_owned())
    }
}

/// Modes of a transaction; what was not said is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransactionModes {
    /// READ ONLY (true) or READ WRITE.
    pub read_only: Option<bool>,
    /// The isolation level, as `default_transaction_isolation` spells it.
    pub isolation: Option<&'static str>,
    /// DEFERRABLE or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
}

/// Why a session must keep one connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PinReason {
    /// It has a temporary table, view or sequence.
    TemporaryTable,
    /// It listens.
    Listen,
    /// It holds an advisory lock that outlives the transaction.
    AdvisoryLock,
    /// It has a cursor WITH HOLD.
    HoldCursor,
    /// It has a statement prepared in SQL.
    SqlPrepare,
    /// It has loaded a library, or opened a connection from inside.
    Load,
    /// It has changed a setting in a way that cannot be read from the text.
    UnknownSetting,
    /// Its text cannot be read for certain.
    Opaque,
    /// Its text is too large to be read.
    Oversized,
}

impl PinReason {
    /// Every reason, in the order of its number.
    pub const ALL: [PinReason; 9] = [
        PinReason::TemporaryTable,
        PinReason::Listen,
        PinReason::AdvisoryLock,
        PinReason::HoldCursor,
        PinReason::SqlPrepare,
        PinReason::Load,
        PinReason::UnknownSetting,
        PinReason::Opaque,
        PinReason::Oversized,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            PinReason::TemporaryTable => "temporary_table",
            PinReason::Listen => "listen",
            PinReason::AdvisoryLock => "advisory_lock",
            PinReason::HoldCursor => "hold_cursor",
            PinReason::SqlPrepare => "sql_prepare",
            PinReason::Load => "load",
            PinReason::UnknownSetting => "unknown_setting",
            PinReason::Opaque => "opaque",
            PinReason::Oversized => "oversized",
        }
    }
}

/// pgweir's own settings.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PgweirName {
    /// `pgweir.route`.
    Route,
    /// `pgweir.consistency`.
    Consistency,
    /// `pgweir.max_staleness`.
    MaxStaleness,
    /// `pgweir.token`.
    Token,
    /// `pgweir.causal_key`.
    CausalKey,
    /// `pgweir.report_token`.
    ReportToken,
}

impl PgweirName {
    /// By what follows `pgweir.`.
    pub fn parse(name: &str) -> Option<PgweirName> {
        Some(match name.to_ascii_lowercase().as_str() {
            "route" => PgweirName::Route,
            "consistency" => PgweirName::Consistency,
            "max_staleness" => PgweirName::MaxStaleness,
            "token" => PgweirName::Token,
            "causal_key" => PgweirName::CausalKey,
            "report_token" => PgweirName::ReportToken,
            _ => return None,
        })
    }

    /// The name after `pgweir.`.
    pub fn as_str(self) -> &'static str {
        match self {
            PgweirName::Route => "route",
            PgweirName::Consistency => "consistency",
            PgweirName::MaxStaleness => "max_staleness",
            PgweirName::Token => "token",
            PgweirName::CausalKey => "causal_key",
            PgweirName::ReportToken => "report_token",
        }
    }
}

/// What DISCARD (other than ALL) drops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiscardKind {
    /// Cached plans.
    Plans,
    /// Cached sequence state.
    Sequences,
    /// Temporary tables.
    Temp,
}

/// One thing that a text does to its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// SET, set_config. Special forms are normalised: `SET TIME ZONE` is `timezone`, `SET NAMES`
    /// `client_encoding`, `SET SCHEMA` `search_path`, `SET ROLE` `role`, `SET SESSION
    /// AUTHORIZATION` `session_authorization` (which resets `role`), `SET SESSION CHARACTERISTICS`
    /// the `default_transaction_…` settings.
    Set {
        /// The setting, in lower case.
        name: String,
        /// Its value.
        value: Value,
        /// How long it lasts.
        scope: Scope,
    },
    /// A setting (in lower case) was changed to a value that cannot be read from the text.
    SetUnread(String),
    /// A setting of this transaction that cannot be read from the text.
    SetLocalUnknown,
    /// set_config with parameters, until `bound` gives them values.
    SetConfig(SetConfig),
    /// SET TRANSACTION: this transaction only.
    SetTransaction(TransactionModes),
    /// RESET name, SET name TO DEFAULT.
    Reset(String),
    /// RESET ALL.
    ResetAll,
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD PLANS, SEQUENCES, TEMP.
    Discard(DiscardKind),
    /// BEGIN, START TRANSACTION.
    Begin(TransactionModes),
    /// COMMIT, END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint(String),
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo(String),
    /// RELEASE SAVEPOINT.
    Release(String),
    /// PREPARE TRANSACTION: ends the transaction.
    PrepareTransaction,
    /// COMMIT PREPARED, ROLLBACK PREPARED: a write outside a transaction.
    FinishPrepared,
    /// The session must keep its connection.
    Pin(PinReason),
    /// What it keeps its connection for may have ended.
    MayUnpin(PinReason),
    /// UNLISTEN; `None` is `*`.
    Unlisten(Option<String>),
    /// DEALLOCATE of one statement.
    Deallocate(String),
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// `SET pgweir.name = value` (value without quotes).
    PgweirSet {
        /// Which.
        name: PgweirName,
        /// Its value, unquoted.
        value: String,
        /// `SET LOCAL` lasts for the transaction.
        scope: Scope,
    },
    /// `SHOW pgweir.name`.
    PgweirShow(PgweirName),
    /// `RESET pgweir.name`, or `SET … TO DEFAULT`.
    PgweirReset(PgweirName),
    /// `pgweir.` with a name that does not exist; answer 42704.
    PgweirUnknown(String),
    /// `EXPLAIN (ROUTE) statement`: the statement's bytes in the text.
    ExplainRoute {
        /// First byte.
        start: usize,
        /// One past the last.
        end: usize,
    },
}

/// What the text does, in order.
pub fn effects_of(text: &[u8], dialect: Dialect) -> Vec<Effect> {
    if !dialect.can_read(text) {
        return vec![Effect::Pin(PinReason::Opaque)];
    }
    if let Some(effect) = bare_control(text) {
        return vec![effect];
    }
    let mut effects = Vec::new();
    for statement in Statements::new(text, Literals::All) {
        if statement.broken {
            // PostgreSQL refuses the whole string before it runs any of it.
            return Vec::new();
        }
        collect(text, &statement, &mut effects);
    }
    effects
}

/// What nearly every transaction begins and ends with needs no reading.
fn bare_control(text: &[u8]) -> Option<Effect> {
    let word = text.strip_suffix(b";").unwrap_or(text);
    let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
    match word.len() {
        3 if is("end") => Some(Effect::Commit { chain: false }),
        5 if is("begin") => Some(Effect::Begin(TransactionModes::default())),
        6 if is("commit") => Some(Effect::Commit { chain: false }),
        8 if is("rollback") => Some(Effect::Rollback { chain: false }),
        _ => None,
    }
}

/// Has this statement nothing in it but calls of `set_config`? (Lists of literals may have been
/// shortened; whether it is in order, `effects_of` tells.)
pub(crate) fn only_sets(text: &[u8], tokens: &[Token]) -> bool {
    const WORDS: [&str; 7] = ["select", "pg_catalog", "set_config", "true", "false", "text", "as"];
    tokens.iter().enumerate().all(|(at, token)| match token.kind {
        Kind::Text | Kind::Param | Kind::Punctuation => true,
        Kind::Operator => token.bytes(text) == b"::",
        _ if at > 0 && tokens[at - 1].is_word(text, "as") => true,
        Kind::Word => WORDS.iter().any(|word| token.is_word(text, word)),
        Kind::Quoted | Kind::Number | Kind::Hint | Kind::Broken => false,
    })
}

/// The same effects with the values that parameters were given. `value_of` gives the text of a
/// parameter (of the third argument: `true` or `false`); `None`: it cannot be read.
pub fn bound(effects: Vec<Effect>, value_of: &dyn Fn(u16, Slot) -> Option<String>) -> Vec<Effect> {
    let value = |argument: Argument, slot| match argument {
        Argument::Param(number) => value_of(number, slot).map(Argument::Text),
        constant @ Argument::Text(_) => Some(constant),
    };
    let bind = |effect| match effect {
        Effect::SetConfig(SetConfig { name, value: setting, local }) => {
            match (value(name, Slot::Text), value(setting, Slot::Text), value(local, Slot::Flag)) {
                (Some(name), Some(value), Some(local)) => {
                    match settings::configured(SetConfig { name, value, local }) {
                        // It goes to a server like any other, and stays there.
                        Effect::PgweirSet { .. } | Effect::PgweirUnknown(_) => {
                            Effect::Pin(PinReason::UnknownSetting)
                        }
                        known => known,
                    }
                }
                // A local one ends with the transaction, whatever it sets.
                (_, _, Some(Argument::Text(local))) if local == "true" => Effect::SetLocalUnknown,
                (Some(Argument::Text(name)), None, _) => Effect::SetUnread(name.to_ascii_lowercase()),
                _ => Effect::Pin(PinReason::UnknownSetting),
            }
        }
        other => other,
    };
    effects.into_iter().map(bind).collect()
}

/// What a parameter stands for in `set_config`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// A name or a value.
    Text,
    /// Is it local?
    Flag,
}

fn collect(text: &[u8], statement: &Statement, effects: &mut Vec<Effect>) {
    let mut cursor = Cursor::new(text, &statement.tokens);
    let first = cursor.name().unwrap_or_default();
    match first.as_str() {
        "set" => effects.extend(settings::set(&mut cursor)),
        "reset" => effects.extend(settings::reset(&mut cursor)),
        "show" => effects.extend(settings::show(&mut cursor)),
        "explain" if cursor.is_mark(b'(') => effects.extend(explain_route(&mut cursor)),
        "discard" => effects.extend(discard(&mut cursor)),
        "listen" => effects.push(Effect::Pin(PinReason::Listen)),
        "close" => effects.push(Effect::MayUnpin(PinReason::HoldCursor)),
        "unlisten" => effects.push(Effect::Unlisten(cursor.name())),
        "load" => effects.push(Effect::Pin(PinReason::Load)),
        "prepare" if cursor.word("transaction") => effects.push(Effect::PrepareTransaction),
        "prepare" => effects.push(Effect::Pin(PinReason::SqlPrepare)),
        "deallocate" => {
            cursor.word("prepare");
            let all = cursor.word("all");
            effects.extend(match all {
                true => Some(Effect::DeallocateAll),
                false => cursor.name().map(Effect::Deallocate),
            });
        }
        "declare" if holds(&cursor) => effects.push(Effect::Pin(PinReason::HoldCursor)),
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            effects.extend(transaction::effect(&first, &mut cursor));
        }
        _ => {}
    }
    let temporary = matches!(first.as_str(), "create" | "select" | "with" | "explain");
    if temporary && creates_temporary(text, &statement.tokens) {
        effects.push(Effect::Pin(PinReason::TemporaryTable));
    }
    if first != "create" {
        if updates_settings(text, &statement.tokens) {
            effects.push(Effect::Pin(PinReason::UnknownSetting));
        }
        calls(text, statement, effects);
    }
}

/// Session functions that are called anywhere in the statement.
fn calls(text: &[u8], statement: &Statement, effects: &mut Vec<Effect>) {
    let mut set_config = false;
    for pair in statement.tokens.windows(2) {
        let [name, open] = pair else { continue };
        if !open.is_mark(text, b'(') {
            continue;
        }
        let Some(name) = name_of(name, text) else { continue };
        match functions::session_function(name.as_bytes()) {
            Some(SessionFunction::SetConfig) => set_config = true,
            Some(SessionFunction::AdvisoryLock) => {
                effects.push(Effect::Pin(PinReason::AdvisoryLock));
            }
            Some(SessionFunction::AdvisoryUnlock) => {
                effects.push(Effect::MayUnpin(PinReason::AdvisoryLock));
            }
            Some(SessionFunction::DblinkConnection) => effects.push(Effect::Pin(PinReason::Load)),
            None => {}
        }
    }
    if set_config {
        let known = settings::set_config_list(&mut Cursor::new(text, &statement.tokens));
        effects.extend(known.unwrap_or_else(|| settings::unread_set_configs(text, &statement.tokens)));
    }
    if statement.late_effect {
        effects.push(Effect::Pin(PinReason::Oversized));
    }
}

fn discard(cursor: &mut Cursor<'_>) -> Option<Effect> {
    Some(match cursor.name()?.as_str() {
        "all" => Effect::DiscardAll,
        "plans" => Effect::Discard(DiscardKind::Plans),
        "sequences" => Effect::Discard(DiscardKind::Sequences),
        "temp" | "temporary" => Effect::Discard(DiscardKind::Temp),
        _ => return None,
    })
}

/// DECLARE name … WITH HOLD FOR query: only before FOR.
fn holds(cursor: &Cursor<'_>) -> bool {
    let mut cursor = cursor.clone();
    while !cursor.is_end() && !cursor.word("for") {
        if cursor.word("with") {
            return cursor.word("hold");
        }
        cursor.skip();
    }
    false
}

fn explain_route(cursor: &mut Cursor<'_>) -> Option<Effect> {
    cursor.skip();
    let mut route = false;
    while !cursor.mark(b')') {
        if cursor.is_end() {
            return None;
        }
        route |= cursor.word("route");
        if !cursor.is_mark(b')') {
            cursor.skip();
        }
    }
    let (start, end) = cursor.rest()?;
    route.then_some(Effect::ExplainRoute { start, end })
}

#[cfg(test)]
mod tests;
