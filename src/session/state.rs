//! What a session carries between its requests: settings, transaction, pins, freshness floor.

mod asleep;
mod own;

use crate::freshness::gate::{Durability, Floor, LastRead};
use crate::moment::Moment;
use crate::node::NodeId;
use crate::routing::request::{Consistency, Demand, Held};
use crate::session::pins::{Answer, Pins, Question, has_evidence};
use crate::session::settings::{Settings, Value};
use crate::sql::class::Route;
use crate::sql::effects::{self, DiscardKind, Effect, PinReason, Scope};
use crate::wire::backend::TransactionStatus;
pub use asleep::StateAsleep;
use own::Own;
use std::sync::Arc;
use std::time::Duration;

/// How a request group ended, as far as the session's state is concerned.
#[derive(Clone, Debug)]
pub struct GroupEnd<'a> {
    /// The status that ReadyForQuery reported.
    pub status: TransactionStatus,
    /// What the group's statements do to the session, in order.
    pub effects: &'a [Effect],
    /// Did an ErrorResponse occur?
    pub failed: bool,
    /// Did the last CommandComplete say ROLLBACK?
    pub rolled_back: bool,
    /// May the group have written?
    pub wrote: bool,
    /// May it have dropped anything?
    pub ddl: bool,
    /// May it have shown anything of the database?
    pub saw: bool,
    /// When its answer was complete.
    pub now: Moment,
    /// Who answered.
    pub node: NodeId,
    /// In which incarnation.
    pub incarnation: u64,
}

/// More savepoints than these at once are not followed.
const SAVEPOINTS_MAX: usize = 64;

/// The settings at some moment of a transaction, to come back to.
#[derive(Clone, Debug)]
struct Snapshot {
    settings: Arc<Settings>,
    carried: Arc<Settings>,
    unreadable: bool,
}

/// What a transaction may come back to.
#[derive(Debug, Default)]
struct Transaction {
    /// Where it began; `None`: nothing has happened that can be taken back.
    before: Option<Snapshot>,
    savepoints: Vec<(String, Snapshot)>,
    /// Were there savepoints that are not among them?
    lost_savepoints: bool,
    /// Has a setting been changed in it?
    set: bool,
    wrote: bool,
    /// Has it failed because its server was lost? Its client may not have heard that.
    lost: bool,
    /// pgweir's own settings as they were before `SET LOCAL`.
    own: Option<Own>,
}

/// See the file's head.
#[derive(Debug)]
pub struct SessionState {
    /// What the startup packet asked for: RESET comes back to it.
    startup: Arc<Settings>,
    settings: Arc<Settings>,
    /// What the attached server connection carries; equal to `settings` except behind a RESET.
    pub carried: Arc<Settings>,
    status: TransactionStatus,
    transaction: Transaction,
    /// Settings whose value only the server knows.
    doubted: Vec<Box<str>>,
    /// Was a setting changed whose very name is not known?
    unreadable: bool,
    /// Is there a reason to ask the server what is left?
    ask: bool,
    /// Was it asked, and did not answer?
    unanswered: bool,
    /// Why the session keeps its connection.
    pub pins: Pins,
    /// What it has written and seen.
    pub floor: Floor,
    /// When its last write finished.
    pub last_write: Option<Moment>,
    /// `SET pgweir.route`.
    pub route: Route,
    /// `SET pgweir.consistency`.
    pub consistency: Option<Consistency>,
    /// `SET pgweir.max_staleness`.
    pub max_staleness: Option<Duration>,
    /// `SET pgweir.token`.
    pub demand: Demand,
    /// pgweir's own as the startup packet asked for them: resetting comes back to them.
    own_at_login: (Own, Demand),
}

impl SessionState {
    /// A session that has just started with these parameters.
    pub fn new(startup: Arc<Settings>) -> SessionState {
        let (settings, carried) = (startup.clone(), startup.clone());
        SessionState {
            startup,
            settings,
            carried,
            status: TransactionStatus::Idle,
            transaction: Transaction::default(),
            doubted: Vec::new(),
            unreadable: false,
            ask: false,
            unanswered: false,
            pins: Pins::default(),
            floor: Floor::default(),
            last_write: None,
            route: Route::Auto,
            consistency: None,
            max_staleness: None,
            demand: Demand::default(),
            own_at_login: Default::default(),
        }
    }

    /// What the startup packet asked for.
    pub fn startup(&self) -> &Settings {
        &self.startup
    }

    /// The run-time parameters in force.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The transaction status that the client was last told.
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Has a setting been changed in the open transaction, beyond its end?
    pub fn has_set(&self) -> bool {
        self.transaction.set
    }

    /// Does the session still have a choice of servers?
    pub fn held(&self) -> Held {
        match self.status {
            TransactionStatus::Idle if self.pins.is_empty() => Held::Free,
            TransactionStatus::Idle => Held::Pinned,
            TransactionStatus::InBlock | TransactionStatus::Failed => Held::InTransaction,
        }
    }

    /// Something that pgweir itself asked has made the open transaction fail.
    pub fn fail_block(&mut self) {
        self.status = TransactionStatus::Failed;
    }

    /// The open transaction has failed with its server. Who is told so may not listen: drivers take no notice
    /// of what a Close is answered.
    pub fn lose_block(&mut self) {
        self.fail_block();
        self.transaction.lost = true;
    }

    /// A failed transaction goes on, in name, on another server: that one gets the settings from before it,
    /// which it comes back to. What was set in it would stay there for whoever has the server next.
    pub fn forget_set_in_block(&mut self) {
        if let Some(before) = &mut self.transaction.before {
            before.carried = before.settings.clone();
            let before = before.clone();
            self.go_back(before);
        }
        self.transaction.savepoints.clear();
    }

    /// Has the open transaction failed with its server?
    pub fn has_lost_block(&self) -> bool {
        self.transaction.lost
    }

    /// The open transaction is over with its server: nothing that was set in it lasts.
    pub fn transaction_lost(&mut self) {
        self.restore();
        self.end_local();
        self.transaction = Transaction::default();
        self.status = TransactionStatus::Idle;
    }

    /// A group is complete. Returns the pins that are new.
    pub fn group_ended(
        &mut self,
        end: &GroupEnd<'_>,
        intern: &mut dyn FnMut(Settings) -> Arc<Settings>,
    ) -> Pins {
        let had = self.pins;
        if self.transaction.before.is_none() && !end.effects.is_empty() {
            self.transaction.before = Some(self.snapshot());
        }
        match end.failed {
            true => self.failed(end),
            false => end.effects.iter().for_each(|effect| self.apply(effect, intern)),
        }
        self.transaction.wrote |= end.wrote;
        self.status = end.status;
        match end.status {
            TransactionStatus::Idle => self.transaction_ended(end),
            TransactionStatus::InBlock | TransactionStatus::Failed => {
                if self.transaction.before.is_none() {
                    self.transaction.before = Some(self.snapshot());
                }
            }
        }
        self.note_settings_pin();
        let drops = end.ddl && self.pins.has(PinReason::TemporaryTable);
        let reason = drops || self.unanswered || end.effects.iter().any(concerns_pins);
        self.ask = (self.ask || reason || !self.doubted.is_empty()) && !self.pins.is_empty();
        if end.saw {
            self.floor.saw(LastRead { at: end.now, node: end.node, incarnation: end.incarnation });
        }
        self.pins.except(had)
    }

    /// What a server can tell about the pins, where there is a reason to ask and nothing that could
    /// still be taken back.
    pub fn question(&self) -> Option<Question> {
        if !self.ask || self.status != TransactionStatus::Idle {
            return None;
        }
        let question = Question { pins: self.pins.filter(has_evidence), settings: self.doubted.clone() };
        (!question.is_empty()).then_some(question)
    }

    /// The server has answered it; `None`: it could not, and is asked again behind the next group.
    pub fn answered(
        &mut self,
        question: &Question,
        answer: Option<&Answer>,
        intern: &mut dyn FnMut(Settings) -> Arc<Settings>,
    ) {
        self.ask = false;
        self.unanswered = answer.is_none();
        let Some(answer) = answer else { return };
        question.pins.except(answer.left).iter().for_each(|reason| self.pins.remove(reason));
        let (mut settings, mut carried) = ((*self.settings).clone(), (*self.carried).clone());
        for (name, value) in question.settings.iter().zip(&answer.values) {
            let none = |value: &str| &**name == "role" && value == "none";
            match value.as_deref().filter(|value| !none(value)) {
                Some(value) => {
                    settings = settings.with(name, Value::Text(value.into()));
                    carried = carried.with(name, Value::Text(value.into()));
                }
                None => {
                    settings = settings.without(name);
                    carried = carried.without(name);
                }
            }
        }
        self.settings = intern(settings);
        self.carried = intern(carried);
        self.doubted.clear();
        self.note_settings_pin();
    }

    fn note_settings_pin(&mut self) {
        match self.unreadable || !self.doubted.is_empty() {
            true => self.pins = self.pins.with(PinReason::UnknownSetting),
            false => self.pins.remove(PinReason::UnknownSetting),
        }
    }

    /// A transaction, or one statement, was taken back. What had been done in it to settings is gone,
    /// unless the group itself began or ended something: then nobody says how far it came.
    fn failed(&mut self, end: &GroupEnd<'_>) {
        let sets = end.effects.iter().any(changes_settings);
        if end.effects.iter().any(controls) {
            self.transaction.lost_savepoints = true;
            if sets || self.transaction.set {
                end.effects.iter().for_each(|effect| self.doubt(effect));
                self.doubt_all();
                self.unreadable |= end.effects.contains(&Effect::Pin(PinReason::UnknownSetting));
            }
        }
        for effect in end.effects {
            if let Effect::Pin(reason) = effect {
                self.pins.add(*reason);
            }
        }
    }

    /// The setting that this effect changes may or may not be changed.
    fn doubt(&mut self, effect: &Effect) {
        if let Effect::Set { name, .. } | Effect::SetUnread(name) | Effect::Reset(name) = effect {
            self.doubt_name(&name.to_ascii_lowercase());
            if name == "session_authorization" {
                self.doubt_name("role");
            }
        }
    }

    fn doubt_name(&mut self, name: &str) {
        if !effects::is_mode(name) && !self.doubted.iter().any(|doubted| **doubted == *name) {
            self.doubted.push(name.into());
        }
    }

    /// Every setting that the session has, or had where its transaction began.
    fn doubt_all(&mut self) {
        let before = self.transaction.before.clone();
        let before = before.iter().flat_map(|before| [before.settings.clone(), before.carried.clone()]);
        for settings in before.chain([self.settings.clone(), self.carried.clone()]) {
            settings.iter().for_each(|(name, _)| self.doubt_name(name));
        }
    }

    fn transaction_ended(&mut self, end: &GroupEnd<'_>) {
        if end.failed || end.rolled_back {
            self.restore();
        }
        // A rollback wrote nothing that anybody can see; a failure may still hide a commit
        // (several statements in one string), so it counts.
        if self.transaction.wrote && !end.rolled_back {
            self.floor.write = Some((end.now, Durability::Inserted));
            self.last_write = Some(end.now);
        }
        self.end_local();
        self.transaction = Transaction::default();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            settings: self.settings.clone(),
            carried: self.carried.clone(),
            unreadable: self.unreadable,
        }
    }

    fn go_back(&mut self, to: Snapshot) {
        self.settings = to.settings;
        self.carried = to.carried;
        self.unreadable = to.unreadable;
    }

    fn restore(&mut self) {
        if let Some(before) = self.transaction.before.take() {
            self.go_back(before);
        }
    }

    /// The next statement begins a transaction of its own, or goes on in a chained one.
    fn next_transaction(&mut self) {
        self.end_local();
        self.status = TransactionStatus::Idle;
        let before = Some(self.snapshot());
        self.transaction = Transaction { before, wrote: self.transaction.wrote, ..Transaction::default() };
    }

    /// What a statement that has worked did.
    fn apply(&mut self, effect: &Effect, intern: &mut dyn FnMut(Settings) -> Arc<Settings>) {
        match effect {
            Effect::Pin(PinReason::UnknownSetting) => {
                self.unreadable = true;
                self.transaction.set = true;
            }
            Effect::Pin(reason) => self.pins = self.pins.with(*reason),
            // Gone with the transaction, even where it is set like a setting of the session.
            Effect::Set { name, .. } | Effect::SetUnread(name) | Effect::Reset(name)
                if effects::is_mode(name) => {}
            Effect::Set { name, value, scope: Scope::Session } => self.set(name, value, intern),
            Effect::SetUnread(_) => {
                self.doubt(effect);
                self.transaction.set = true;
            }
            Effect::Reset(name) => self.reset(name, intern),
            Effect::ResetAll => self.reset_all(intern),
            Effect::DiscardAll => {
                self.reset_all_own();
                self.settings = self.startup.clone();
                self.carried = intern(Settings::default());
                self.pins = Pins::default();
                self.doubted.clear();
                self.unreadable = false;
            }
            Effect::DeallocateAll => self.pins.remove(PinReason::SqlPrepare),
            Effect::Savepoint(name) => self.savepoint(name),
            Effect::RollbackTo(name) => self.rollback_to(name),
            Effect::Release(name) => {
                let savepoints = &mut self.transaction.savepoints;
                if let Some(at) = savepoints.iter().rposition(|(known, _)| known == name) {
                    savepoints.truncate(at);
                }
            }
            // COMMIT of a failed transaction takes it back.
            Effect::Commit { .. } if self.status == TransactionStatus::Failed => {
                self.restore();
                self.next_transaction();
            }
            Effect::Commit { .. } | Effect::PrepareTransaction => self.next_transaction(),
            Effect::Rollback { .. } => {
                self.restore();
                self.next_transaction();
            }
            Effect::SetConfig(call) if !call.is_local() => {
                self.unreadable = true;
                self.transaction.set = true;
            }
            // Over with the transaction, harmless to the next user, pgweir's own, or asked for.
            Effect::Set { scope: Scope::Local, .. }
            | Effect::SetConfig(_)
            | Effect::SetLocalUnknown
            | Effect::SetTransaction(_)
            | Effect::Discard(_)
            | Effect::Begin(_)
            | Effect::FinishPrepared
            | Effect::MayUnpin(_)
            | Effect::Unlisten(_)
            | Effect::Deallocate(_)
            | Effect::PgweirSet { .. }
            | Effect::PgweirShow(_)
            | Effect::PgweirReset(_)
            | Effect::PgweirUnknown(_)
            | Effect::ExplainRoute { .. } => {}
        }
    }

    fn savepoint(&mut self, name: &str) {
        if self.transaction.savepoints.len() >= SAVEPOINTS_MAX {
            self.transaction.lost_savepoints = true;
            return;
        }
        let snapshot = self.snapshot();
        self.transaction.savepoints.push((name.to_owned(), snapshot));
    }

    fn rollback_to(&mut self, name: &str) {
        // From here on the transaction is not failed any more.
        self.status = TransactionStatus::InBlock;
        let savepoints = &mut self.transaction.savepoints;
        let known = savepoints.iter().rposition(|(known, _)| known == name);
        match known {
            Some(at) if !self.transaction.lost_savepoints => {
                savepoints.truncate(at + 1);
                let snapshot = savepoints[at].1.clone();
                self.go_back(snapshot);
            }
            _ if self.transaction.set => self.doubt_all(),
            _ => {}
        }
    }

    fn set(&mut self, name: &str, value: &effects::Value, intern: &mut dyn FnMut(Settings) -> Arc<Settings>) {
        let value = match value {
            effects::Value::Sql(sql) => Value::Sql(sql.as_str().into()),
            effects::Value::Config(text) => Value::Text(text.as_str().into()),
        };
        let mut settings = (*self.settings).clone().with(name, value);
        if name == "session_authorization" {
            // The server resets the role with it.
            settings = settings.without("role");
        }
        // Both change alike: what the connection carried before, it still carries.
        let mut carried = (*self.carried).clone();
        if let Some(value) = settings.get(name) {
            carried = carried.with(name, value.clone());
        }
        if name == "session_authorization" {
            carried = carried.without("role");
        }
        self.carried = if carried == settings { intern(carried) } else { Arc::new(carried) };
        self.settings = if *self.carried == settings { self.carried.clone() } else { intern(settings) };
        self.transaction.set = true;
    }

    /// The server went back to its own default; the session wants what it started with.
    fn reset(&mut self, name: &str, intern: &mut dyn FnMut(Settings) -> Arc<Settings>) {
        let mut carried = (*self.carried).clone().without(name);
        let mut settings = (*self.settings).clone();
        if name == "session_authorization" {
            // The server resets the role with it.
            (carried, settings) = (carried.without("role"), settings.without("role"));
        }
        settings = match self.startup.get(&name.to_ascii_lowercase()) {
            Some(value) => settings.with(name, value.clone()),
            None => settings.without(name),
        };
        self.carried = intern(carried);
        self.settings = intern(settings);
        self.transaction.set = true;
    }

    /// RESET ALL leaves who one is alone (GUC_NO_RESET_ALL).
    fn reset_all(&mut self, intern: &mut dyn FnMut(Settings) -> Arc<Settings>) {
        self.reset_all_own();
        let (mut carried, mut settings) = (Settings::default(), (*self.startup).clone());
        for name in ["role", "session_authorization"] {
            if let Some(value) = self.settings.get(name) {
                carried = carried.with(name, value.clone());
                settings = settings.with(name, value.clone());
            }
        }
        self.carried = intern(carried);
        self.settings = intern(settings);
        if std::mem::take(&mut self.unreadable) {
            ["role", "session_authorization"].into_iter().for_each(|name| self.doubt_name(name));
        }
        self.transaction.set = true;
    }
}

/// Does it change a setting beyond its transaction?
fn changes_settings(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Set { scope: Scope::Session, .. }
            | Effect::SetUnread(_)
            | Effect::Reset(_)
            | Effect::ResetAll
            | Effect::DiscardAll
            | Effect::Pin(PinReason::UnknownSetting)
    )
}

/// Does it begin or end something that settings come back to?
fn controls(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Begin(_)
            | Effect::Commit { .. }
            | Effect::Rollback { .. }
            | Effect::Savepoint(_)
            | Effect::RollbackTo(_)
            | Effect::Release(_)
            | Effect::PrepareTransaction
            | Effect::DiscardAll
    )
}

/// May it have begun or ended something that pins?
fn concerns_pins(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Pin(_) | Effect::MayUnpin(_) | Effect::Unlisten(_) | Effect::Discard(DiscardKind::Temp)
    )
}

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
