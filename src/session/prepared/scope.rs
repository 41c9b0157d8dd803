//! What the reading of a text depends on besides the text: the schema, and the settings that decide
//! what a name or a literal means. Statements read under different ones are different statements.

use crate::session::settings::Settings;
use crate::sql::effects::{Effect, PinReason};
use crate::sql::lexer::{Kind, Lexer};
use std::sync::Arc;

/// An epoch with this bit belongs to one Parse alone: nothing is shared.
const PRIVATE: u64 = 1 << 63;

/// See the file's head.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Scope {
    /// The settings that decide how a text is read; shared where they are equal.
    pub settings: Arc<Settings>,
    /// How often the database's schema was seen to change.
    pub epoch: u64,
}

impl Scope {
    /// The same settings, and a statement that nobody else has; `id` is unique in the process.
    pub fn private(&self, id: u64) -> Scope {
        Scope { settings: self.settings.clone(), epoch: PRIVATE | id }
    }

    /// Does it belong to one Parse alone?
    pub fn is_private(&self) -> bool {
        self.epoch & PRIVATE != 0
    }
}

/// Of these settings, those that decide how a text is read.
pub fn deciding(settings: &Settings) -> Settings {
    let pairs = settings.iter().filter(|(name, _)| decides(name));
    Settings::from_pairs(pairs.map(|(name, value)| (name.to_owned(), value.clone())))
}

/// May this setting (lower case) decide what a text means? A literal is turned into a value when its
/// statement is prepared, under the `DateStyle` of that moment; names are looked up along the
/// `search_path`, as the role that asks. What is certainly harmless is listed; all else decides.
pub fn decides(name: &str) -> bool {
    !name.contains('.') && HARMLESS.binary_search(&name).is_err()
}

/// Sorted. They bound, log or plan the execution, but change no meaning.
const HARMLESS: [&str; 43] = [
    "application_name",
    "backend_flush_after",
    "client_connection_check_interval",
    "client_min_messages",
    "commit_delay",
    "commit_siblings",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "cursor_tuple_fraction",
    "deadlock_timeout",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "effective_io_concurrency",
    "gin_fuzzy_search_limit",
    "gin_pending_list_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "lc_messages",
    "lock_timeout",
    "log_duration",
    "log_min_duration_statement",
    "log_min_error_statement",
    "log_min_messages",
    "log_statement",
    "logical_decoding_work_mem",
    "maintenance_io_concurrency",
    "maintenance_work_mem",
    "max_parallel_workers_per_gather",
    "random_page_cost",
    "seq_page_cost",
    "statement_timeout",
    "synchronous_commit",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "transaction_timeout",
    "work_mem",
];

/// May what comes behind this effect be read under other settings than before it?
pub fn changes(effect: &Effect) -> bool {
    match effect {
        Effect::Set { name, .. } | Effect::SetUnread(name) | Effect::Reset(name) => decides(name),
        Effect::SetConfig(_)
        | Effect::SetLocalUnknown
        | Effect::ResetAll
        | Effect::DiscardAll
        | Effect::Commit { .. }
        | Effect::Rollback { .. }
        | Effect::RollbackTo(_)
        | Effect::PrepareTransaction => true,
        Effect::Pin(reason) => is_opaque(*reason),
        Effect::SetTransaction(_)
        | Effect::Discard(_)
        | Effect::Begin(_)
        | Effect::Savepoint(_)
        | Effect::Release(_)
        | Effect::FinishPrepared
        | Effect::MayUnpin(_)
        | Effect::Unlisten(_)
        | Effect::Deallocate(_)
        | Effect::DeallocateAll
        | Effect::PgweirSet { .. }
        | Effect::PgweirShow(_)
        | Effect::PgweirReset(_)
        | Effect::PgweirUnknown(_)
        | Effect::ExplainRoute { .. } => false,
    }
}

/// Does this pin say that the session has names of its own, or that nobody knows its settings?
pub fn is_opaque(reason: PinReason) -> bool {
    match reason {
        PinReason::TemporaryTable
        | PinReason::UnknownSetting
        | PinReason::Opaque
        | PinReason::Oversized
        | PinReason::Load => true,
        PinReason::Listen | PinReason::AdvisoryLock | PinReason::HoldCursor | PinReason::SqlPrepare => false,
    }
}

/// Has it a literal that means the moment at which it is prepared (`'now'::timestamptz`)?
pub fn is_momentary(text: &[u8]) -> bool {
    memchr::memchr2(b'\'', b'$', text).is_some()
        && Lexer::new(text).any(|token| token.kind == Kind::Text && means_its_moment(token.bytes(text)))
}

/// May the value mean the moment at which it is read, as a date or time?
pub fn means_its_moment(value: &[u8]) -> bool {
    const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
    let mut words = value.split(|byte| !byte.is_ascii_alphanumeric());
    words.any(|word| MOMENTS.iter().any(|moment| word.eq_ignore_ascii_case(moment)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::settings::Value;

    #[test]
    fn only_what_decides_the_meaning_parts_statements() {
        assert!(HARMLESS.is_sorted());
        let settings = ["app.tenant", "datestyle", "role", "search_path", "statement_timeout", "work_mem"];
        let all = settings.map(|name| (name.to_owned(), Value::Text("x".into())));
        let left = deciding(&Settings::from_pairs(all));
        assert_eq!(
            left.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["datestyle", "role", "search_path"]
        );
    }

    #[test]
    fn a_literal_that_means_its_moment_is_recognised() {
        for text in
            ["SELECT 'now'::timestamptz", "SELECT date 'Today'", "SELECT ' tomorrow 10:00'::timestamp"]
        {
            assert!(is_momentary(text.as_bytes()), "{text}");
        }
        for text in ["SELECT now()", "SELECT 'known'", "SELECT today FROM t", "SELECT 1 -- 'now'"] {
            assert!(!is_momentary(text.as_bytes()), "{text}");
        }
    }
}
