//! Why a session keeps its server connection, and the question whether it still must.
//!
//! What pins is not counted along statement by statement (a lock taken twice, a LISTEN that was rolled
//! back, a table ON COMMIT DROP): where something may have ended, the server is asked what is left.

use crate::session::settings::literal_into;
use crate::sql::effects::PinReason;
use crate::wire::frame::{Body, HEADER_LEN};

/// The reasons for which a session keeps its connection, as a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pins(u16);

impl Pins {
    /// None.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Is `reason` among them?
    pub fn has(self, reason: PinReason) -> bool {
        self.0 & (1 << reason as u8) != 0
    }

    /// Adds `reason`; true if it is new.
    pub fn add(&mut self, reason: PinReason) -> bool {
        let new = !self.has(reason);
        self.0 |= 1 << reason as u8;
        new
    }

    /// With `reason`.
    pub fn with(mut self, reason: PinReason) -> Pins {
        self.add(reason);
        self
    }

    /// Those for which `condition` holds.
    pub fn filter(self, condition: impl Fn(PinReason) -> bool) -> Pins {
        self.iter().filter(|&reason| condition(reason)).fold(Pins::default(), Pins::with)
    }

    /// Removes `reason`.
    pub fn remove(&mut self, reason: PinReason) {
        self.0 &= !(1 << reason as u8);
    }

    /// Those that are not in `other`.
    pub fn except(self, other: Pins) -> Pins {
        Pins(self.0 & !other.0)
    }

    /// As bits, in the order of the closed list.
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// All of them, in the order of the closed list.
    pub fn iter(self) -> impl Iterator<Item = PinReason> {
        PinReason::ALL.into_iter().filter(move |&reason| self.has(reason))
    }
}

/// What a server is asked outside of a transaction: which of these pins are left, and the values of
/// settings of which only the name is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Question {
    /// The pins in question.
    pub pins: Pins,
    /// The settings in question, in lower case.
    pub settings: Vec<Box<str>>,
}

/// The server's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Those of the pins that are left.
    pub left: Pins,
    /// The values of the settings, in the question's order; `None`: there is no such setting.
    pub values: Vec<Option<Box<str>>>,
}

/// How a server says that something is left. Schemas are named, because the session's `search_path`
/// may lead anywhere. `None`: no server can tell.
fn evidence(reason: PinReason) -> Option<&'static str> {
    Some(match reason {
        // Whatever lies in a schema depends on it: this is what DISCARD TEMP would drop.
        PinReason::TemporaryTable => {
            "EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) \
             'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid OPERATOR(pg_catalog.=) \
             pg_catalog.pg_my_temp_schema())"
        }
        PinReason::Listen => "EXISTS (SELECT FROM pg_catalog.pg_listening_channels())",
        PinReason::AdvisoryLock => {
            "EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text \
             AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())"
        }
        PinReason::HoldCursor => "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)",
        PinReason::SqlPrepare
        | PinReason::Load
        | PinReason::UnknownSetting
        | PinReason::Opaque
        | PinReason::Oversized => return None,
    })
}

/// Can a server tell whether this is left?
pub fn has_evidence(reason: PinReason) -> bool {
    evidence(reason).is_some()
}

impl Question {
    /// Is there nothing to ask?
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.settings.is_empty()
    }

    /// One statement, one row: a boolean per pin, a text per setting.
    pub fn sql(&self) -> String {
        let mut sql = String::from("SELECT ");
        let mut separator = "";
        for evidence in self.pins.iter().filter_map(evidence) {
            sql.push_str(separator);
            sql.push_str(evidence);
            separator = ", ";
        }
        for name in &self.settings {
            sql.push_str(separator);
            sql.push_str("pg_catalog.current_setting(");
            literal_into(&mut sql, name);
            sql.push_str(", true)");
            separator = ", ";
        }
        sql
    }

    /// Reads the row. `None`: it is no answer to this question.
    pub fn answer(&self, data_row: &[u8]) -> Option<Answer> {
        let mut body = Body::new(data_row.get(HEADER_LEN..)?);
        let columns = body.u16()?;
        let mut values = Vec::new();
        for _ in 0..columns {
            let len = body.u32()?;
            values.push(match len {
                u32::MAX => None,
                len => Some(std::str::from_utf8(body.bytes(len as usize)?).ok()?),
            });
        }
        let mut values = values.into_iter();
        let mut left = Pins::default();
        for reason in self.pins.iter() {
            match values.next()?? {
                "t" => left = left.with(reason),
                "f" => {}
                _ => return None,
            }
        }
        let values: Vec<_> = values.map(|value| value.map(Box::from)).collect();
        (values.len() == self.settings.len()).then_some(Answer { left, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<&str>]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).unwrap_or(0).to_be_bytes().to_vec();
        for value in values {
            match value {
                None => body.extend(u32::MAX.to_be_bytes()),
                Some(text) => {
                    body.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
                    body.extend(text.as_bytes());
                }
            }
        }
        [&b"D\0\0\0\0"[..], &body].concat()
    }

    fn question() -> Question {
        let pins = Pins::default().with(PinReason::AdvisoryLock).with(PinReason::Listen);
        Question { pins, settings: vec!["app.o'hara".into()] }
    }

    #[test]
    fn one_statement_asks_for_everything() {
        let sql = question().sql();
        assert!(sql.starts_with("SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels()), EXISTS"));
        assert!(sql.ends_with(", pg_catalog.current_setting('app.o''hara', true)"), "{sql}");
    }

    #[test]
    fn the_row_says_what_is_left() {
        let answer = question().answer(&row(&[Some("f"), Some("t"), Some("7")]));
        let left = Pins::default().with(PinReason::AdvisoryLock);
        assert_eq!(answer, Some(Answer { left, values: vec![Some("7".into())] }));
        let unset = question().answer(&row(&[Some("f"), Some("f"), None]));
        assert_eq!(unset, Some(Answer { left: Pins::default(), values: vec![None] }));
    }

    #[test]
    fn what_is_no_answer_says_nothing() {
        let good = row(&[Some("f"), Some("f"), Some("x")]);
        for cut in 0..good.len() {
            assert_eq!(question().answer(&good[..cut]), None, "{cut}");
        }
        assert_eq!(question().answer(&row(&[Some("f"), Some("f")])), None);
        assert_eq!(question().answer(&row(&[None, Some("f"), None])), None);
        assert_eq!(question().answer(&row(&[Some("f"), Some("1"), None])), None);
        assert_eq!(question().answer(&row(&[Some("f"), Some("f"), None, None])), None);
    }
}
