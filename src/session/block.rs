//! A transaction block as its statements tell it: may a standby serve it, and can it begin again elsewhere?

use crate::session::settings::{Settings, Value, set_local_into};
use crate::session::transcript::Transcript;
use crate::sql::class::Marks;
use crate::sql::effects::{Effect, Scope, TransactionModes, is_mode};

/// More of them than this are not kept for another beginning. In bytes.
const LOCALS_MAX: usize = 16 * 1024;

/// Which of the two kinds of node runs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runs {
    /// The primary.
    OnPrimary,
    /// A replica: it can only read.
    OnReplica,
    /// No server yet: it was only promised, and its reads run on their own.
    Nowhere,
}

/// What a request group is to a block that a replica serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// It does what it does on the primary.
    Yes,
    /// It may not; but then the server says so.
    No,
    /// It would seem to work, and mean something else.
    Misleading,
}

/// An open transaction block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Who runs it.
    pub runs: Runs,
    modes: TransactionModes,
    /// SET LOCALs and savepoints, ready to be sent again.
    locals: String,
    /// Has it done nothing but begin and set what is said again at another beginning?
    again: bool,
    /// Has any statement of it read, or more?
    worked: bool,
    /// All that it has said, where it has only read and may be replayed.
    pub transcript: Option<Transcript>,
}

impl Block {
    /// A block that a group with these effects has left open.
    pub fn begun(runs: Runs, effects: &[Effect], marks: Marks) -> Block {
        let (modes, again) = match effects.first() {
            Some(Effect::Begin(modes)) => (*modes, true),
            _ => (TransactionModes::default(), false),
        };
        let transcript = None;
        let mut block = Block { runs, modes, locals: String::new(), again, worked: false, transcript };
        block.went_on(effects.get(1..).unwrap_or_default(), marks);
        block
    }

    /// A group with these effects has run in it.
    pub fn went_on(&mut self, effects: &[Effect], marks: Marks) {
        self.worked |= marks.contains(Marks::WORKS);
        self.again &= !marks.contains(Marks::WORKS);
        for effect in effects {
            match effect {
                Effect::SetTransaction(modes) => self.modes = merged(self.modes, *modes),
                Effect::Set { name, value, scope: Scope::Local } => {
                    set_local_into(&mut self.locals, name, value);
                    self.again &= self.locals.len() <= LOCALS_MAX;
                }
                Effect::Savepoint(name) => self.keep("SAVEPOINT", name),
                Effect::RollbackTo(name) => self.keep("ROLLBACK TO", name),
                Effect::Release(name) => self.keep("RELEASE", name),
                Effect::Commit { chain: true } | Effect::Rollback { chain: true } if effects.len() == 1 => {
                    // The next one has the same modes, and nothing else of it.
                    self.locals.clear();
                    (self.again, self.worked) = (true, false);
                }
                _ => self.again = false,
            }
        }
    }

    fn keep(&mut self, command: &str, savepoint: &str) {
        self.locals.push_str(command);
        self.locals.push_str(" \"");
        self.locals.push_str(&savepoint.replace('"', "\"\""));
        self.locals.push_str("\";");
        self.again &= self.locals.len() <= LOCALS_MAX;
    }

    /// Something of it has failed.
    pub fn failed(&mut self) {
        self.again = false;
    }

    /// Can it begin again elsewhere, and nobody sees a difference?
    pub fn may_begin_again(&self) -> bool {
        self.again
    }

    /// What begins it again.
    pub fn begin(&self) -> String {
        let mut sql = String::from("BEGIN");
        if let Some(level) = self.modes.isolation {
            sql.push_str(" ISOLATION LEVEL ");
            sql.push_str(level);
        }
        match self.modes.read_only {
            Some(true) => sql.push_str(" READ ONLY"),
            Some(false) => sql.push_str(" READ WRITE"),
            None => {}
        }
        match self.modes.deferrable {
            Some(true) => sql.push_str(" DEFERRABLE"),
            Some(false) => sql.push_str(" NOT DEFERRABLE"),
            None => {}
        }
        sql.push(';');
        sql.push_str(&self.locals);
        sql
    }

    /// What begins it where it was only promised. Behind reads, SET TRANSACTION comes too late there, too.
    pub fn begin_promised(&self) -> String {
        let again = self.begin();
        if self.worked { again + "SELECT;" } else { again }
    }

    /// Has any statement of it read?
    pub fn has_read(&self) -> bool {
        self.worked
    }

    /// Would these effects make a replica's of it, which now is the primary's? Only a transaction whose
    /// statements each see what is committed by then: who asks for one snapshot (a dump) may ask for
    /// more that only a primary has.
    pub fn becomes_read_only(&self, effects: &[Effect], settings: &Settings) -> bool {
        let [Effect::SetTransaction(modes), ..] = effects else { return false };
        let all = merged(self.modes, *modes);
        let one_snapshot = level(all, settings).is_none_or(|level| level == "repeatable read");
        self.again
            && self.runs == Runs::OnPrimary
            // It would begin again with those words, which a standby refuses.
            && self.modes.read_only != Some(false)
            && !one_snapshot
            && begins_read_only_with(self.modes, effects, settings)
    }

    /// Is a group with these marks and effects fit for a replica's block?
    pub fn fits(&self, marks: Marks, effects: &[Effect]) -> Fit {
        let of_effect = |effect: &Effect| match effect {
            Effect::Pin(_) => Fit::Misleading,
            Effect::SetConfig(call) if !call.is_local() => Fit::Misleading,
            Effect::Begin(_) => Fit::No,
            Effect::SetTransaction(modes) if asks_more(*modes) => self.more(),
            Effect::Reset(name) if is_mode(name) => self.more(),
            _ => Fit::Yes,
        };
        if marks.contains(Marks::LOCKS) || effects.iter().any(|effect| of_effect(effect) == Fit::Misleading) {
            return Fit::Misleading;
        }
        let all = !marks.contains(Marks::NOT_ON_STANDBY)
            && effects.iter().all(|effect| of_effect(effect) == Fit::Yes);
        if all { Fit::Yes } else { Fit::No }
    }

    /// READ WRITE and the like: refused by every server behind the first query; before it, a server
    /// that was promoted just now would take it.
    fn more(&self) -> Fit {
        if self.worked { Fit::No } else { Fit::Misleading }
    }
}

/// Does a group with these effects begin one transaction, which can only read, and which a standby can
/// serve? What follows its end must begin no other.
pub fn begins_read_only(effects: &[Effect], settings: &Settings) -> bool {
    match effects {
        [Effect::Begin(modes), rest @ ..] => begins_read_only_with(*modes, rest, settings),
        _ => false,
    }
}

fn begins_read_only_with(mut modes: TransactionModes, rest: &[Effect], settings: &Settings) -> bool {
    for effect in rest {
        match effect {
            Effect::SetTransaction(more) => modes = merged(modes, *more),
            Effect::Begin(_) | Effect::Pin(_) => return false,
            Effect::SetConfig(call) if !call.is_local() => return false,
            Effect::Reset(name) if is_mode(name) => return false,
            _ => {}
        }
    }
    let read_only = modes.read_only.unwrap_or_else(|| reads_only_by_default(settings));
    let deferrable = modes
        .deferrable
        .unwrap_or_else(|| setting(settings, "default_transaction_deferrable") != Some(false));
    // A hot standby refuses SERIALIZABLE.
    read_only && !deferrable && level(modes, settings).is_some()
}

/// Do transactions of a session with these settings that say no more (or, with `level`, READ COMMITTED)
/// begin READ COMMITTED, and may they write, and last, as they like?
pub fn reads_committed(level: bool, settings: &Settings) -> bool {
    let modes =
        TransactionModes { isolation: level.then_some("read committed"), ..TransactionModes::default() };
    let off = |name: &str| setting(settings, name) == Some(false);
    self::level(modes, settings) == Some("read committed")
        && off("default_transaction_read_only")
        && off("default_transaction_deferrable")
        // 0 is off.
        && off("idle_in_transaction_session_timeout")
        && off("transaction_timeout")
}

/// Does the session begin its transactions READ ONLY, unless it says otherwise?
pub fn reads_only_by_default(settings: &Settings) -> bool {
    setting(settings, "default_transaction_read_only") == Some(true)
}

/// The isolation level, unless it is SERIALIZABLE or not known.
fn level(modes: TransactionModes, settings: &Settings) -> Option<&'static str> {
    const LEVELS: [&str; 3] = ["read committed", "read uncommitted", "repeatable read"];
    let asked = match (modes.isolation, settings.get("default_transaction_isolation")) {
        (Some(level), _) => level.to_owned(),
        (None, None) => LEVELS[0].to_owned(),
        (None, Some(value)) => text(value),
    };
    LEVELS.into_iter().find(|level| *level == asked)
}

/// A switch; `None`: its value is not understood. Not set is off.
fn setting(settings: &Settings, name: &str) -> Option<bool> {
    match settings.get(name).map(text).as_deref() {
        Some("on" | "true" | "yes" | "1" | "t" | "y") => Some(true),
        None | Some("off" | "false" | "no" | "0" | "f" | "n") => Some(false),
        Some(_) => None,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Sql(text) => text.trim_matches(['\'', '"']).to_ascii_lowercase(),
        Value::Text(text) => text.to_ascii_lowercase(),
    }
}

fn merged(first: TransactionModes, later: TransactionModes) -> TransactionModes {
    TransactionModes {
        read_only: later.read_only.or(first.read_only),
        isolation: later.isolation.or(first.isolation),
        deferrable: later.deferrable.or(first.deferrable),
    }
}

fn asks_more(modes: TransactionModes) -> bool {
    modes.read_only == Some(false) || modes.isolation == Some("serializable")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::effects::effects_of;
    use crate::sql::lexer::Dialect;

    fn effects(text: &str) -> Vec<Effect> {
        effects_of(text.as_bytes(), Dialect::STANDARD)
    }

    fn with(name: &str, value: &str) -> Settings {
        Settings::default().with(name, Value::Sql(value.into()))
    }

    fn begun(text: &str) -> Block {
        Block::begun(Runs::OnReplica, &effects(text), Marks(0))
    }

    #[test]
    fn which_beginnings_a_standby_can_serve() {
        let none = Settings::default();
        let always = with("default_transaction_read_only", "on");
        let table = [
            ("BEGIN READ ONLY", &none, true),
            ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", &none, true),
            ("BEGIN; SET TRANSACTION READ ONLY", &none, true),
            ("BEGIN READ ONLY; COMMIT", &none, true),
            ("BEGIN", &none, false),
            ("BEGIN READ ONLY DEFERRABLE", &none, false),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", &none, false),
            ("BEGIN READ ONLY; SET TRANSACTION READ WRITE", &none, false),
            ("BEGIN READ ONLY; COMMIT; BEGIN", &none, false),
            ("BEGIN READ ONLY; SET transaction_isolation = 'serializable'", &none, false),
            ("BEGIN READ ONLY; LISTEN c", &none, false),
            ("SET a = 1; BEGIN READ ONLY", &none, false),
            ("BEGIN", &always, true),
            ("BEGIN READ WRITE", &always, false),
            ("BEGIN READ ONLY", &with("default_transaction_isolation", "'serializable'"), false),
            ("BEGIN READ ONLY", &with("default_transaction_isolation", "'Repeatable Read'"), true),
            ("BEGIN READ ONLY", &with("default_transaction_deferrable", "on"), false),
            ("BEGIN", &with("default_transaction_read_only", "f"), false),
        ];
        for (text, settings, expected) in table {
            assert_eq!(begins_read_only(&effects(text), settings), expected, "{text} {settings:?}");
        }
    }

    #[test]
    fn what_has_only_begun_can_begin_again_as_it_was() {
        let mut block = begun("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        block.went_on(&effects("SET LOCAL a.b = 'x'"), Marks(0));
        block.went_on(&effects("SELECT set_config('c', 'd', true)"), Marks(0));
        block.went_on(&effects("SAVEPOINT A; ROLLBACK TO a"), Marks(0));
        assert!(block.may_begin_again());
        assert_eq!(
            block.begin(),
            "BEGIN ISOLATION LEVEL repeatable read READ ONLY;SET LOCAL \"a\".\"b\" TO 'x';\
             SELECT pg_catalog.set_config('c', 'd', true);SAVEPOINT \"a\";ROLLBACK TO \"a\";"
        );
        for (text, marks) in [("SET a = 1", Marks(0)), ("SELECT 1", Marks::WORKS)] {
            let mut block = begun("BEGIN READ ONLY");
            block.went_on(&effects(text), marks);
            assert!(!block.may_begin_again(), "{text}");
            block.went_on(&effects("COMMIT AND CHAIN"), Marks(0));
            assert!(block.may_begin_again(), "{text}");
        }
        assert!(!begun("BEGIN READ ONLY; COMMIT; BEGIN READ ONLY").may_begin_again());
    }

    #[test]
    fn what_fits_into_a_replicas_transaction() {
        let fresh = begun("BEGIN READ ONLY");
        let mut used = fresh.clone();
        used.went_on(&[], Marks::WORKS);
        let table = [
            ("SET LOCAL work_mem = 1", Marks(0), Fit::Yes, Fit::Yes),
            ("SAVEPOINT a", Marks(0), Fit::Yes, Fit::Yes),
            ("COMMIT; BEGIN", Marks(0), Fit::No, Fit::No),
            ("INSERT", Marks::NOT_ON_STANDBY, Fit::No, Fit::No),
            ("SELECT", Marks::LOCKS, Fit::Misleading, Fit::Misleading),
            ("LISTEN c", Marks(0), Fit::Misleading, Fit::Misleading),
            ("SET TRANSACTION READ WRITE", Marks(0), Fit::Misleading, Fit::No),
            ("SET transaction_read_only = off", Marks(0), Fit::Misleading, Fit::No),
        ];
        for (text, marks, before, after) in table {
            assert_eq!(fresh.fits(marks, &effects(text)), before, "{text}");
            assert_eq!(used.fits(marks, &effects(text)), after, "{text}");
        }
    }

    #[test]
    fn the_primarys_block_becomes_read_only_where_each_statement_sees_what_is_committed() {
        let block = Block::begun(Runs::OnPrimary, &effects("BEGIN"), Marks(0));
        let table = [
            ("SET TRANSACTION READ ONLY", true),
            ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", true),
            ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", false),
            ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE", false),
            ("SET TRANSACTION READ WRITE", false),
        ];
        for (text, expected) in table {
            assert_eq!(block.becomes_read_only(&effects(text), &Settings::default()), expected, "{text}");
        }
        let writes = Block::begun(Runs::OnPrimary, &effects("BEGIN READ WRITE"), Marks(0));
        assert!(!writes.becomes_read_only(&effects("SET TRANSACTION READ ONLY"), &Settings::default()));
        let mut used = block;
        used.went_on(&[], Marks::WORKS);
        assert!(!used.becomes_read_only(&effects("SET TRANSACTION READ ONLY"), &Settings::default()));
    }
}
