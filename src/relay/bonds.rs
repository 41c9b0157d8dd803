//! What binds a client's requests to those of others: tokens that it requires, and the causal key that
//! it names. Most clients have neither, and no `Bonds`.

use crate::causal::KEY_MAX;
use crate::causal::store::Intent;
use crate::fault::{Fault, SqlState};
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::relay::own;
use crate::routing::reason::Reason;
use crate::routing::request::{Demand, Held};
use crate::session::exchange::{Bond, GroupRecord};
use crate::session::group::Group;
use crate::session::settings::{Settings, Value};
use crate::session::split::Part;
use crate::sql::class::{Access, Marks};
use crate::sql::effects::{self, Argument, Effect, PgweirName, PinReason, Scope};
use crate::wire::backend::TransactionStatus;
use crate::wire::writers::{self, Severity};
use std::sync::Arc;

/// So many keys of one transaction are told apart; with more, it counts for every key.
const KEYS_MAX: usize = 16;

/// A causal key, as far as it can be told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Key {
    /// None is named.
    #[default]
    None,
    /// This one.
    Known(Arc<str>),
    /// One is named in a way that only the server can read.
    Unreadable,
}

/// A key that the open transaction writes under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// Which.
    pub key: Arc<str>,
    /// What the store was told of who is about to write.
    pub intents: Vec<Intent>,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Bonds {
    /// `SET pgweir.causal_key`.
    pub own: Option<Arc<str>>,
    /// `SET pgweir.report_token`.
    pub report: bool,
    /// The two as the startup packet asked for them.
    at_login: (Option<Arc<str>>, bool),
    /// The comments of the group at hand.
    comment: Key,
    /// What the configured setting says, and in which settings that was looked up.
    named: Key,
    seen: Option<Arc<Settings>>,
    /// What the transaction writes under, besides the key in force at its end.
    open: Vec<Open>,
    /// Does it write under a key that cannot be told?
    of_all: bool,
    /// What the transaction that is open was to see at its beginning.
    block: Demand,
}

/// The answer to a write is complete, but for the ReadyForQuery that tells it: first others are to know.
#[derive(Clone, Debug)]
pub struct Withheld {
    /// What it will say.
    pub status: TransactionStatus,
    /// Was anything written, and when was that acknowledged?
    pub written: Option<crate::moment::Moment>,
    /// Under which keys.
    pub keys: Vec<Open>,
    /// And under one that cannot be told?
    pub of_all: bool,
}

impl Bonds {
    /// RESET of one of pgweir's own settings.
    pub fn reset(&mut self, name: PgweirName) {
        match name {
            PgweirName::CausalKey => self.own = self.at_login.0.clone(),
            PgweirName::ReportToken => self.report = self.at_login.1,
            PgweirName::Route | PgweirName::Consistency | PgweirName::MaxStaleness | PgweirName::Token => {}
        }
    }

    /// The key in force with these settings.
    fn key(&mut self, setting: Option<&str>, settings: &Arc<Settings>) -> Key {
        if self.comment != Key::None {
            return self.comment.clone();
        }
        if let Some(key) = &self.own {
            return Key::Known(key.clone());
        }
        let Some(setting) = setting else { return Key::None };
        if !self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, settings)) {
            self.named = settings.get(setting).map_or(Key::None, key_of);
            self.seen = Some(settings.clone());
        }
        self.named.clone()
    }

    fn join(&mut self, key: Key, intent: Option<Intent>) {
        match key {
            Key::None => {}
            Key::Unreadable => self.of_all = true,
            Key::Known(key) => match self.open.iter().position(|open| open.key == key) {
                Some(at) => self.open[at].intents.extend(intent),
                None if self.open.len() >= KEYS_MAX => self.of_all = true,
                None => self.open.push(Open { key, intents: Vec::from_iter(intent) }),
            },
        }
    }
}

/// What a setting's value is as a text. Only what PostgreSQL certainly takes as it stands is read.
fn key_of(value: &Value) -> Key {
    let text = match value {
        Value::Text(text) => text.to_string(),
        Value::Sql(sql) => match sql.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            Some(inner) if !inner.contains(['\'', '\\']) => inner.to_owned(),
            Some(_) => return Key::Unreadable,
            None if is_number(sql) => sql.to_string(),
            None if is_word(sql) => sql.to_ascii_lowercase(),
            None => return Key::Unreadable,
        },
    };
    named(&text)
}

/// What is too long is no key of its own.
fn named(text: &str) -> Key {
    match text.len() {
        0 => Key::None,
        1..=KEY_MAX => Key::Known(text.into()),
        _ => Key::Unreadable,
    }
}

/// One key of those that the comments of one request name.
fn one_of(keys: Vec<String>) -> Key {
    keys.iter().map(|key| named(key)).fold(Key::None, |one, other| match (one, other) {
        (Key::None, key) | (key, Key::None) => key,
        (one, other) if one == other => one,
        _ => Key::Unreadable,
    })
}

fn is_number(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && text.len() < 10 && !text.is_empty() && (text == "0" || !text.starts_with('0'))
}

fn is_word(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    // A name is cut at 63 bytes.
    first && text.len() < 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What this effect names as the key of its transaction; `None`: it does not speak of it.
fn named_by(effect: &Effect, setting: &str) -> Option<Key> {
    match effect {
        Effect::Set { name, value, .. } if name == setting => Some(key_of(&match value {
            effects::Value::Sql(text) => Value::Sql(text.as_str().into()),
            effects::Value::Config(text) => Value::Text(text.as_str().into()),
        })),
        Effect::SetUnread(name) if name == setting => Some(Key::Unreadable),
        Effect::SetLocalUnknown => Some(Key::Unreadable),
        Effect::SetConfig(call) => match &call.name {
            Argument::Text(name) if !name.eq_ignore_ascii_case(setting) => None,
            Argument::Text(_) | Argument::Param(_) => Some(Key::Unreadable),
        },
        _ => None,
    }
}

/// May the group end a transaction that has written?
fn may_commit(group: &Group, status: TransactionStatus) -> bool {
    match status {
        TransactionStatus::Idle => group.writes,
        TransactionStatus::InBlock => group.writes || group.marks.contains(Marks::TRANSACTION_CONTROL),
        TransactionStatus::Failed => false,
    }
}

impl Client {
    /// Its bonds, made where there were none.
    pub(super) fn bonds_mut(&mut self) -> &mut Bonds {
        self.bonds.get_or_insert_default()
    }

    /// The startup packet has been read: resetting comes back to what it asked for.
    pub(super) fn logged_in(&mut self) {
        self.session.state.logged_in();
        if let Some(bonds) = &mut self.bonds {
            bonds.at_login = (bonds.own.clone(), bonds.report);
        }
    }

    /// Its causal key now.
    pub(super) fn causal_key(&mut self) -> Key {
        let setting = self.context.causal.setting.as_deref();
        let Some(bonds) = &mut self.bonds else { return Key::None };
        bonds.key(setting, self.session.state.settings())
    }

    /// What the group at hand requires of its server, and what it promises to others, before it is
    /// placed. `Some`: it is not placed (true: it has been answered; false: earlier answers come first).
    pub(super) async fn bind(
        &mut self,
        active: &mut Active,
        group: &Group,
        idle: bool,
    ) -> Result<Option<bool>, End> {
        let setting = self.context.causal.setting.clone();
        let sets = setting.is_some() && group.marks.contains(Marks::SESSION_EFFECT);
        if !idle && (self.hints.asks || sets) {
            return Ok(Some(false));
        }
        let (tokens, keys) = match self.hints.asks {
            true => self.asked_in(active, group),
            false => (Vec::new(), Vec::new()),
        };
        if self.bonds.is_some() || !keys.is_empty() {
            self.bonds_mut().comment = one_of(keys);
        }
        let status = self.session.state.status();
        let on_replica = self.is_block_on_replica() && status == TransactionStatus::InBlock;
        let matters = on_replica
            || self.begins_read_only
            || self.is_promised()
            || self.session.state.held() == Held::Free;
        for text in tokens.iter().filter(|_| matters) {
            let refusal = match on_replica {
                true => Err(too_late()),
                false => self.require(text).await,
            };
            match refusal {
                Ok((demand, warning)) => {
                    self.hints.demand = self.hints.demand.and(demand);
                    warning.iter().for_each(|warning| warn(active, warning));
                }
                Err(fault) => return self.refuse(active, group, &fault).map(Some),
            }
        }
        let keyed = match &setting {
            Some(setting) if sets && (on_replica || self.begins_read_only) => {
                self.key_set_by(active, group, setting)
            }
            _ => None,
        };
        let apart = matches!(self.part, Part::Begins | Part::Reads);
        if group.access == Access::Read && status == TransactionStatus::Idle || self.begins_read_only || apart
        {
            self.demand_of_key(keyed).await;
        } else if let Some(key) = keyed {
            self.begin_anew_for(key).await;
        }
        if status != TransactionStatus::Idle
            && !apart
            && let Some(bonds) = &self.bonds
        {
            self.hints.demand = self.hints.demand.and(bonds.block);
        } else if self.begins_read_only {
            let demand = self.hints.demand;
            self.bonds_mut().block = demand;
        }
        if may_commit(group, status) && !on_replica && self.context.causal.store.is_some() {
            return Box::pin(self.intend(active, group, idle)).await;
        }
        Ok(None)
    }

    /// The tokens and the keys in a group's comments.
    fn asked_in(&self, active: &Active, group: &Group) -> (Vec<String>, Vec<String>) {
        let (mut tokens, mut keys) = (Vec::new(), Vec::new());
        for text in self.texts_in(active, group) {
            let asked = effects::hints_of(text);
            tokens.extend(asked.tokens);
            keys.extend(asked.causal_keys);
        }
        (tokens, keys)
    }

    fn key_set_by(&self, active: &Active, group: &Group, setting: &str) -> Option<Key> {
        self.effects_in(active, group).iter().filter_map(|effect| named_by(effect, setting)).next_back()
    }

    /// A transaction on a replica learns its key (`SET LOCAL`). While it has read nothing, it may begin
    /// again where everything under the key is visible.
    async fn begin_anew_for(&mut self, key: Key) {
        self.demand_of_key(Some(key)).await;
        let demand = self.hints.demand;
        self.bonds_mut().block = demand;
        let Some(node) = self.attached.as_ref().map(|attached| attached.lease.pool().node) else { return };
        let view = self.context.monitor.view_handle().load_full();
        let met = view.node(node).is_some_and(|node| {
            demand.barred.is_none() && node.live.freshness().watermark_insert >= demand.insert
        });
        if !met && self.block.as_ref().is_some_and(|block| block.may_begin_again()) {
            self.drop_connection();
        }
    }

    /// What reads under the key in force (or under `other`) must see, into the hints of the group.
    pub(super) async fn demand_of_key(&mut self, other: Option<Key>) {
        let demand = match other.unwrap_or_else(|| self.causal_key()) {
            Key::None => return,
            Key::Unreadable => Demand::barred(Reason::CausalKeyInDoubt),
            Key::Known(key) => {
                let here = Demand::by(self.context.causal.floor(&key));
                match self.context.causal.store.clone() {
                    Some(store) => here.and(Box::pin(self.demand_in(&store, &key)).await),
                    None => here,
                }
            }
        };
        self.hints.demand = self.hints.demand.and(demand);
    }

    /// Others may be about to write under the keys of this group: the store is told before the server.
    async fn intend(&mut self, active: &mut Active, group: &Group, idle: bool) -> Result<Option<bool>, End> {
        if self.bond.is_some() {
            // It had to wait for earlier answers since.
            return Ok(None);
        }
        let Some(store) = self.context.causal.store.clone() else { return Ok(None) };
        let key = self.causal_key();
        let in_block = self.session.state.status() == TransactionStatus::InBlock;
        let Some(bonds) = &mut self.bonds else { return Ok(None) };
        // What SET LOCAL has named.
        for open in bonds.open.iter_mut().filter(|open| in_block && open.intents.is_empty()) {
            open.intents.extend(store.intend(&open.key).await.ok());
        }
        let Key::Known(key) = key else { return Ok(None) };
        let told = bonds.open.iter().any(|open| open.key == key && !open.intents.is_empty());
        if in_block && told {
            return Ok(None);
        }
        let intended = match store.intend(&key).await {
            Ok(intent) => Some(intent),
            Err(down) if self.context.causal.on_store_down == crate::config::settings::OnMismatch::Error => {
                if !idle {
                    return Ok(Some(false));
                }
                return self.refuse(active, group, &refused(&down.to_string())).map(Some);
            }
            // Told behind the answer, where it cannot be recorded either.
            Err(_) => None,
        };
        self.bond = Some(Box::new(Bond { key, intended }));
        Ok(None)
    }

    /// An error in the place of an answer. Nothing is in flight.
    fn refuse(&mut self, active: &mut Active, group: &Group, fault: &Fault) -> Result<bool, End> {
        if self.session.state.status() == TransactionStatus::InBlock && self.attached.is_some() {
            self.refuse_in_block(active, group, fault);
            return Ok(true);
        }
        let opening = Marks::TRANSACTION_CONTROL.with(Marks::SESSION_EFFECT);
        if active.requests.fresh().len() > group.len && group.marks.intersects(opening) {
            // Behind a refused BEGIN or SET, the rest of the pipeline would run without it.
            return Err(End::Fatal(Box::new(fault.clone())));
        }
        self.answer_refusal(active, group, fault);
        Ok(true)
    }

    /// A group was answered without being sent: nothing is written under its key, and the next group has
    /// a key of its own.
    pub(super) async fn release_bond(&self, bond: &Bond) {
        if let (Some(store), Some(intent)) = (&self.context.causal.store, bond.intended)
            && let Err(down) = store.record(&bond.key, &[intent], None).await
        {
            tracing::debug!("{down}");
        }
    }

    /// The transaction that is open ends without a COMMIT: nobody is about to write any more.
    pub(super) fn abandon_bonds(&mut self) {
        let Some(bonds) = &mut self.bonds else { return };
        bonds.of_all = false;
        let open = std::mem::take(&mut bonds.open);
        let told: Vec<Open> = open.into_iter().filter(|open| !open.intents.is_empty()).collect();
        let Some(store) = self.context.causal.store.clone().filter(|_| !told.is_empty()) else { return };
        tokio::spawn(async move {
            for open in told {
                if let Err(down) = store.record(&open.key, &open.intents, None).await {
                    tracing::debug!("{down}");
                }
            }
        });
    }

    /// The bond of a group that is about to be sent.
    pub(super) fn take_bond(&mut self, group: &Group) -> Option<Box<Bond>> {
        let intended = self.bond.take();
        if intended.is_some() || group.access == Access::Read {
            return intended;
        }
        // A key that only this group's comment names.
        let bonds = self.bonds.as_mut()?;
        match &bonds.comment {
            Key::Known(key) => Some(Box::new(Bond { key: key.clone(), intended: None })),
            Key::Unreadable => {
                bonds.of_all = true;
                None
            }
            Key::None => None,
        }
    }

    /// A group has ended, with or without a write that was acknowledged just now.
    pub(super) fn settle_bonds(
        &mut self,
        active: &mut Active,
        record: &GroupRecord,
        status: TransactionStatus,
        written: Option<crate::moment::Moment>,
        before: &Arc<Settings>,
    ) {
        let context = self.context.clone();
        let setting = context.causal.setting.as_deref();
        let Some(bonds) = &mut self.bonds else { return };
        if let Some(bond) = &record.bond {
            bonds.join(Key::Known(bond.key.clone()), bond.intended);
        }
        let resets = |effect: &Effect| matches!(effect, Effect::ResetAll | Effect::DiscardAll);
        let reset = !record.failed && record.effects.iter().any(resets);
        let wrote = record.wrote();
        if wrote {
            // Where the group changes the key too, nobody knows on which side of that it wrote.
            for settings in [before, self.session.state.settings()] {
                let key = bonds.key(setting, settings);
                bonds.join(key, None);
            }
            // A setting that nobody can name may be the one that names the key.
            bonds.of_all |= setting.is_some()
                && bonds.own.is_none()
                && self.session.state.pins.has(PinReason::UnknownSetting);
        }
        if let Some(setting) = setting {
            let lasts = |effect: &Effect| matches!(effect, Effect::Set { scope: Scope::Session, .. });
            let named = record.effects.iter().filter(|effect| wrote || !lasts(effect));
            named.filter_map(|effect| named_by(effect, setting)).for_each(|key| bonds.join(key, None));
        }
        if reset {
            [PgweirName::CausalKey, PgweirName::ReportToken].into_iter().for_each(|name| bonds.reset(name));
        }
        if status != TransactionStatus::Idle {
            return;
        }
        bonds.comment = Key::None;
        bonds.block = Demand::default();
        if let Some(at) = written {
            let key = bonds.key(setting, self.session.state.settings());
            bonds.join(key, None);
            bonds.open.iter().for_each(|open| context.causal.raise(&open.key, at));
            if bonds.of_all {
                context.causal.raise_all(at);
            }
        }
        let (keys, of_all) = (std::mem::take(&mut bonds.open), std::mem::take(&mut bonds.of_all));
        let shared = context.causal.store.is_some() && written.is_some() && (of_all || !keys.is_empty());
        let waits =
            shared || (bonds.report && written.is_some()) || keys.iter().any(|open| !open.intents.is_empty());
        if waits && active.answers.take_back(&writers::ready(status)) {
            active.withheld = Some(Box::new(Withheld { status, written, keys, of_all }));
        }
    }

    /// What is in flight may have been committed, and nobody will say so: readers under its keys are told
    /// to be careful. What the store was told stands there until it expires.
    pub(super) fn doubt_bonds(&mut self, active: &Active) {
        let now = crate::clock::now();
        let context = self.context.clone();
        let wrote = active.exchange.groups.iter().any(GroupRecord::wrote)
            || self.session.state.status() != TransactionStatus::Idle;
        if active.exchange.groups.is_empty() {
            // Without its COMMIT, a transaction ends with its server connection.
            return self.abandon_bonds();
        }
        if !wrote {
            return;
        }
        let key = self.causal_key();
        let Some(bonds) = &mut self.bonds else { return };
        bonds.join(key, None);
        for record in &active.exchange.groups {
            let bond = record.bond.as_deref().map_or(Key::None, |bond| Key::Known(bond.key.clone()));
            bonds.join(bond, None);
            let setting = context.causal.setting.as_deref();
            let named = record.effects.iter().filter_map(|effect| named_by(effect, setting?));
            named.for_each(|key| bonds.join(key, None));
        }
        std::mem::take(&mut bonds.open).iter().for_each(|open| context.causal.raise(&open.key, now));
        if std::mem::take(&mut bonds.of_all) {
            context.causal.raise_all(now);
        }
    }

    /// The key in force, as a client sees it.
    pub(super) fn shown_key(&mut self) -> String {
        match self.causal_key() {
            Key::None => String::new(),
            Key::Known(key) => key.to_string(),
            Key::Unreadable => "(cannot be read from its SET)".to_owned(),
        }
    }

    /// `SET pgweir.causal_key`; empty: none.
    pub(super) fn set_causal_key(&mut self, value: &str) -> Result<(), Fault> {
        if value.len() > KEY_MAX || value.contains('\0') {
            return Err(own::invalid(PgweirName::CausalKey, value, "texts of up to 256 bytes"));
        }
        self.bonds_mut().own = (!value.is_empty()).then(|| value.into());
        Ok(())
    }
}

/// A warning in front of the answer; not between two pieces of an earlier one.
fn warn(active: &mut Active, fault: &Fault) {
    if !active.answers.is_mid_message() {
        let mut bytes = Vec::new();
        writers::fault(&mut bytes, Severity::Warning, fault);
        active.answers.insert(&bytes);
    }
}

fn too_late() -> Fault {
    Fault::client(SqlState(*b"25001"), "pgweir.token must be required before a read-only transaction begins")
        .detail("The transaction runs on a replica that was chosen at its beginning.")
        .hint("SET pgweir.token before BEGIN, or put the comment into it.")
}

fn refused(why: &str) -> Fault {
    Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "the write's causal key cannot be recorded")
        .detail(why.to_owned())
        .hint(
            "Nothing was sent; it is safe to retry. causal.on_store_down: warning lets such writes through.",
        )
        .retriable()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_name_one_key_or_nobody_knows_which() {
        let key = |keys: &[&str]| one_of(keys.iter().map(ToString::to_string).collect());
        let one = Key::Known("one".into());
        assert_eq!((key(&[]), key(&[""]), key(&["one"])), (Key::None, Key::None, one.clone()));
        assert_eq!((key(&["one", "one"]), key(&["one", "two"])), (one, Key::Unreadable));
        assert_eq!(key(&["x".repeat(KEY_MAX + 1).as_str()]), Key::Unreadable);
    }

    #[test]
    fn only_what_is_certain_is_a_key() {
        let sql = |text: &str| key_of(&Value::Sql(text.into()));
        let known = |text: &str| Key::Known(text.into());
        for (text, key) in [("'42'", known("42")), ("42", known("42")), ("'User:4 2'", known("User:4 2"))] {
            assert_eq!(sql(text), key, "{text}");
        }
        assert_eq!((sql("Anna"), sql("''"), sql("0")), (known("anna"), Key::None, known("0")));
        for text in ["007", "E'42'", "'it''s'", "'a\\b'", "1.50", "-1", "a, b", "\"Anna\"", "$$x$$", "U&'x'"]
        {
            assert_eq!(sql(text), Key::Unreadable, "{text}");
        }
        assert_eq!(key_of(&Value::Text("x".repeat(300).into())), Key::Unreadable);
        assert_eq!(key_of(&Value::Text("Ä 'x'".into())), known("Ä 'x'"));
    }
}
