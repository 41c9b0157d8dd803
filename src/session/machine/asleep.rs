//! What is kept of a session while its client sleeps: about a quarter of it, where it is like most.

use super::Session;
use crate::session::prepared::{Names, Unnamed};
use crate::session::state::{SessionState, StateAsleep};
use crate::session::told::Told;

/// A session with nothing in flight.
#[derive(Debug)]
pub enum Asleep {
    /// What differs from a session that has just begun.
    Plain(Plain),
    /// One that differs in more than that.
    Whole(Box<Session>),
}

/// See `Asleep`.
#[derive(Debug)]
pub struct Plain {
    state: StateAsleep,
    told: Told,
    statements: Option<Box<Statements>>,
}

/// The statements that its client has prepared.
#[derive(Debug)]
struct Statements {
    names: Names,
    unnamed: Unnamed,
}

impl Session {
    /// The same, smaller.
    pub fn asleep(self) -> Asleep {
        let is_plain = self.state.is_plain()
            && self.portals.is_empty()
            && self.undescribed.is_empty()
            && !self.unsettled;
        if !is_plain {
            return Asleep::Whole(Box::new(self));
        }
        // Every field by name: a new one has to be thought of here. What is looked up when the next text
        // comes (epoch and scope) is not kept.
        let Session {
            state,
            mut told,
            mut names,
            mut unnamed,
            portals: _,
            epoch: _,
            scope: _,
            scoped: _,
            undescribed: _,
            unsettled: _,
        } = self;
        let statements = match names.is_empty() && unnamed.class.is_none() {
            true => None,
            false => {
                names.shrink_to_fit();
                unnamed.shrink();
                Some(Box::new(Statements { names, unnamed }))
            }
        };
        told.shrink();
        Asleep::Plain(Plain { state: state.asleep(), told, statements })
    }
}

impl Asleep {
    /// The session again.
    pub fn awake(self) -> Session {
        match self {
            Asleep::Whole(session) => *session,
            Asleep::Plain(Plain { state, told, statements }) => {
                let mut session = Session { told, ..Session::new(SessionState::from(state)) };
                if let Some(statements) = statements {
                    (session.names, session.unnamed) = (statements.names, statements.unnamed);
                }
                session
            }
        }
    }
}

#[cfg(test)]
#[path = "asleep/tests.rs"]
mod tests;
