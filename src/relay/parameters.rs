//! ParameterStatus: what a server says of its parameters, as PostgreSQL would say it of the session's.

use crate::relay::buffer::Active;
use crate::relay::client::Client;
use crate::session::exchange::GroupRecord;
use crate::session::settings::Settings;
use crate::sql::effects::Effect;
use crate::wire::{backend, writers};

impl Client {
    /// A ParameterStatus of `len` bytes. The client hears of what is new to it: a connection that is
    /// brought to the session's settings says again what another one has said already.
    pub fn pass_parameter(&mut self, active: &mut Active, len: usize, frame: &[u8]) {
        let news = match backend::parameter_status(frame) {
            // News for pgweir only: where a session runs is not the client's business.
            Some((b"in_hot_standby", _)) => false,
            Some((name, value)) => {
                !goes_back_to_startup(active, self.session.state.startup(), name)
                    && self.session.told.tell(name, value)
            }
            None => true,
        };
        active.answers.pass(len, news);
    }

    /// Before ReadyForQuery: RESET has brought the server back to its own default, and the session to
    /// what its client asked for when it connected. That is what the client hears.
    pub fn tell_what_was_reset(&mut self, active: &mut Active) {
        let startup = self.session.state.startup();
        let Some(record) = active.exchange.groups.front() else { return };
        if record.effects.is_empty() || record.failed {
            return;
        }
        let mut bytes = Vec::new();
        for (name, value) in self.session.told.outdated(|name| is_reset(record, startup, name)) {
            self.session.told.tell(name.as_bytes(), value.as_bytes());
            writers::parameter_status(&mut bytes, &name, &value);
        }
        active.answers.insert(&bytes);
    }
}

fn goes_back_to_startup(active: &Active, startup: &Settings, name: &[u8]) -> bool {
    let record = active.exchange.groups.front();
    record
        .filter(|record| !record.failed && !record.effects.is_empty())
        .is_some_and(|record| std::str::from_utf8(name).is_ok_and(|name| is_reset(record, startup, name)))
}

/// Does the group leave this parameter at what the startup packet asked for?
fn is_reset(record: &GroupRecord, startup: &Settings, name: &str) -> bool {
    let last = record.effects.iter().rev().find_map(|effect| match effect {
        Effect::Reset(reset) if reset.eq_ignore_ascii_case(name) => Some(true),
        Effect::ResetAll | Effect::DiscardAll => Some(true),
        Effect::Set { name: set, .. } if set.eq_ignore_ascii_case(name) => Some(false),
        Effect::Rollback { .. } | Effect::RollbackTo(_) => Some(false),
        _ => None,
    });
    last == Some(true) && startup.get(&name.to_ascii_lowercase()).is_some()
}
