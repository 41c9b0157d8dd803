//! Which rule of the configuration a request meets, and what it asks for.

use crate::relay::buffer::Active;
use crate::relay::client::Client;
use crate::routing::request::Consistency;
use crate::routing::rules::{Asked, Rule, Rules, Who};
use crate::session::group::Group;
use crate::session::settings::{Settings, Value};
use crate::sql::class::{Class, Route};
use crate::sql::tags::{may_have_tags, tags_of};
use std::sync::Arc;

/// The rules, and under which overrides the bits of classes mean them.
#[derive(Debug)]
pub struct Ruling {
    /// The epoch of those overrides.
    pub epoch: u64,
    /// The rules.
    pub rules: Rules,
}

/// The rules that a session may meet, as long as nothing of it changes.
#[derive(Debug)]
pub struct MetBySession {
    epoch: u64,
    settings: Arc<Settings>,
    rules: u64,
}

/// What a rule asks of the group at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ruled {
    /// For `decide`.
    pub asked: Asked,
    /// Another level than the policy's.
    pub consistency: Option<Consistency>,
}

impl Client {
    /// What the first rule that matches asks of this group.
    pub(super) fn rule_of(&mut self, active: &Active, group: &Group) -> Ruled {
        // Without rules every class has this.
        if group.rules.any == 0 {
            return Ruled::default();
        }
        let ruling = self.context.ruling.load();
        if !self.is_current(&ruling) {
            // A reload is going on: which rules the bits mean is not known for certain.
            return Ruled { asked: Asked::PRIMARY, consistency: None };
        }
        let candidates = self.candidates(&ruling, group);
        let rule = ruling.rules.first(candidates, || self.tags_in(active, group));
        rule.map(|rule| self.ruled_by(rule)).unwrap_or_default()
    }

    /// The same for one statement that is only asked about; and the rule, in words.
    pub(super) fn rule_of_statement(&mut self, class: &Class, text: &[u8]) -> (Ruled, Option<String>) {
        let ruling = self.context.ruling.load();
        let candidates = self.candidates(&ruling, &Group::of_class(class));
        match ruling.rules.first(candidates, || tags_of(text)) {
            Some(rule) => (self.ruled_by(rule), Some(rule.to_string())),
            None => (Ruled::default(), None),
        }
    }

    fn is_current(&self, ruling: &Ruling) -> bool {
        ruling.epoch == self.context.overrides.load().epoch()
            && self.session.epoch == self.context.epoch_of(&self.database)
    }

    fn ruled_by(&self, rule: &Rule) -> Ruled {
        let view = self.context.monitor.view();
        Ruled { asked: rule.effect.asked(&view), consistency: rule.effect.consistency }
    }

    /// The rules whose statement part the group matches and whose session part the session does.
    fn candidates(&mut self, ruling: &Ruling, group: &Group) -> u64 {
        let settings = self.session.state.settings();
        let known = self.met_by_session.as_deref();
        let met = known.filter(|met| met.epoch == ruling.epoch && Arc::ptr_eq(&met.settings, settings));
        let of_session = match met {
            Some(met) => met.rules,
            None => {
                let name = settings.get("application_name").map(plain).unwrap_or_default();
                let who =
                    Who { user: self.slot.user(), database: self.slot.database(), application_name: &name };
                let rules = ruling.rules.of_session(&who);
                let met = MetBySession { epoch: ruling.epoch, settings: settings.clone(), rules };
                self.met_by_session = Some(Box::new(met));
                rules
            }
        };
        of_session & self.context.overrides.load().subjects().together(group.rules.any, group.rules.all)
    }

    /// The tags in the comments of a group's statements.
    fn tags_in(&self, active: &Active, group: &Group) -> Vec<(String, String)> {
        let mut tags = Vec::new();
        for text in self.texts_in(active, group) {
            if may_have_tags(text) {
                tags.extend(tags_of(text));
            }
        }
        tags
    }

    /// Must this group go to the primary if it can: because it, or a rule, asks for it?
    pub(super) fn asks_for_primary(&self, group: &Group) -> bool {
        group.route == Route::Primary || self.ruled.asked.route == Route::Primary
    }
}

/// A setting's value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Sql(sql) => match sql.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')) {
            Some(inner) => inner.replace("''", "'"),
            None => sql.trim_matches('"').to_owned(),
        },
    }
}
