//! A pinned session that may need its connection no longer: the server is asked what is left.
//!
//! The client has its answer already. What it says meanwhile waits for the length of one round trip.

use crate::clock;
use crate::config::settings::PoolMode;
use crate::relay::buffer::Active;
use crate::relay::client::{Client, End};
use crate::relay::login::dialect_of;
use crate::session::exchange::{Errand, GroupRecord};
use crate::session::pins::{Answer, Pins, Question};
use crate::session::reply_queue::{Act, Kind, Undo};
use crate::sql::effects::{Effect, PinReason};
use crate::wire::backend::TransactionStatus;
use crate::wire::writers;
use std::sync::atomic::Ordering;

/// A question that is being answered.
#[derive(Debug)]
pub struct Survey {
    question: Question,
    answer: Option<Answer>,
}

impl Client {
    /// What should be asked now, if anything. Nothing is in flight.
    pub fn question(&self) -> Option<Question> {
        let question = self.session.state.question()?;
        (self.tenant.mode() == PoolMode::Transaction && self.attached.is_some()).then_some(question)
    }

    /// Asks it.
    pub async fn survey(&mut self, active: &mut Active, question: Question) -> Result<(), End> {
        writers::query(&mut active.to_server, question.sql().as_bytes());
        if let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection()) {
            // A simple Query destroys the unnamed statement.
            connection.statements.unnamed = 0;
        }
        active.exchange.queue.push(Kind::Query, Act::Own, Undo::Nothing);
        active.exchange.groups.push_back(GroupRecord::internal(Errand::Pins, clock::now()));
        self.survey = Some(Box::new(Survey { question, answer: None }));
        let driven = self.drive(active).await;
        self.survey = None;
        driven
    }

    /// A row of the answer.
    pub fn survey_row(&mut self, frame: &[u8]) {
        if let Some(survey) = &mut self.survey {
            survey.answer = survey.question.answer(frame);
        }
    }

    /// The answer is complete.
    pub fn survey_done(&mut self, record: &GroupRecord, status: TransactionStatus) {
        let Some(survey) = self.survey.take() else { return };
        let worked = !record.failed && status == TransactionStatus::Idle;
        let answer = survey.answer.filter(|_| worked);
        if answer.is_none() {
            tracing::debug!("what pins the session could not be asked; it stays pinned");
        }
        let context = self.context.clone();
        self.session
            .state
            .answered(&survey.question, answer.as_ref(), &mut |settings| context.intern(settings));
        self.slot.set_pins(self.session.state.pins.bits());
        self.dialect = dialect_of(self.session.state.settings(), self.default_dialect);
    }

    /// A group has ended, with these pins that are new.
    pub fn note_pins(&mut self, record: &GroupRecord, new: Pins) {
        if record.effects.contains(&Effect::Pin(PinReason::Load))
            && let Some(connection) = self.attached.as_mut().and_then(|attached| attached.lease.connection())
        {
            // Nothing unloads a library, not even DISCARD ALL: the connection is nobody else's.
            connection.tainted = true;
        }
        for reason in new.iter() {
            self.context.counters.pins[reason as usize].fetch_add(1, Ordering::Relaxed);
            self.context.metrics.pinned(reason.as_str());
        }
        self.slot.set_pins(self.session.state.pins.bits());
    }
}
