//! Views of the few server messages that change state. All others pass through unread.

use crate::fault::SqlState;
use crate::wire::frame::{Body, HEADER_LEN};

/// The transaction status of ReadyForQuery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    #[default]
    Idle,
    /// `T`: in one.
    InBlock,
    /// `E`: in one that failed.
    Failed,
}

impl TransactionStatus {
    /// As it stands in the message.
    pub fn byte(self) -> u8 {
        match self {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InBlock => b'T',
            TransactionStatus::Failed => b'E',
        }
    }
}

/// The fields of an ErrorResponse or NoticeResponse that pgweir acts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ErrorFields<'a> {
    /// `V`: ERROR, FATAL, PANIC, … never translated (since 9.6).
    pub severity: &'a [u8],
    /// `C`.
    pub sqlstate: Option<SqlState>,
    /// `M`.
    pub message: &'a [u8],
    /// `D`.
    pub detail: &'a [u8],
    /// `H`.
    pub hint: &'a [u8],
    /// `R`: the server's C function, never translated.
    pub routine: &'a [u8],
}

impl ErrorFields<'_> {
    /// Does the server close the connection behind it?
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }
}

/// The status of a ReadyForQuery frame.
pub fn ready(frame: &[u8]) -> Option<TransactionStatus> {
    match frame.get(HEADER_LEN..)? {
        b"I" => Some(TransactionStatus::Idle),
        b"T" => Some(TransactionStatus::InBlock),
        b"E" => Some(TransactionStatus::Failed),
        _ => None,
    }
}

/// The fields of an ErrorResponse or NoticeResponse frame; what is malformed stays empty.
pub fn error(frame: &[u8]) -> ErrorFields<'_> {
    let mut fields = ErrorFields::default();
    let mut body = Body::new(frame.get(HEADER_LEN..).unwrap_or(&[]));
    while let Some(code) = body.u8().filter(|&code| code != 0) {
        let Some(value) = body.cstr() else { break };
        match code {
            b'V' => fields.severity = value,
            b'C' => fields.sqlstate = SqlState::from_bytes(value),
            b'M' => fields.message = value,
            b'D' => fields.detail = value,
            b'H' => fields.hint = value,
            b'R' => fields.routine = value,
            _ => {}
        }
    }
    fields
}

/// Name and value of a ParameterStatus frame.
pub fn parameter_status(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut body = Body::new(frame.get(HEADER_LEN..)?);
    Some((body.cstr()?, body.cstr()?))
}

/// The tag of a CommandComplete frame, for example `INSERT 0 1`.
pub fn command_tag(frame: &[u8]) -> Option<&[u8]> {
    Body::new(frame.get(HEADER_LEN..)?).cstr()
}

/// Process id and secret of a BackendKeyData frame.
pub fn key_data(frame: &[u8]) -> Option<(u32, &[u8])> {
    let mut body = Body::new(frame.get(HEADER_LEN..)?);
    Some((body.u32()?, body.rest()))
}

/// The newest minor version of protocol 3 that the sender of a NegotiateProtocolVersion frame speaks.
pub fn newest_minor(frame: &[u8]) -> Option<u16> {
    let version = Body::new(frame.get(HEADER_LEN..)?).u32()?;
    // The manual says "minor version"; PostgreSQL sends the whole one.
    matches!(version >> 16, 0 | 3).then_some(version as u16)
}

/// Code and data of an Authentication frame.
pub fn authentication(frame: &[u8]) -> Option<(u32, &[u8])> {
    let mut body = Body::new(frame.get(HEADER_LEN..)?);
    Some((body.u32()?, body.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_shows_its_fields_and_survives_truncation() {
        let frame = b"E\0\0\0\x20SFATAL\0VFATAL\0C57P01\0Mbye\0\0";
        let fields = error(frame);
        assert!(fields.is_fatal());
        assert_eq!((fields.sqlstate, fields.message), (Some(SqlState::ADMIN_SHUTDOWN), &b"bye"[..]));
        assert_eq!(error(&frame[..20]).sqlstate, None);
    }

    #[test]
    fn a_negotiated_version_is_read_as_the_servers_and_as_the_manual_write_it() {
        let answer = |version: [u8; 4]| newest_minor(&[&b"v\0\0\0\x0c"[..], &version, &[0; 4]].concat());
        assert_eq!(
            (answer([0, 3, 0, 2]), answer([0, 3, 0, 0]), answer([0, 0, 0, 2])),
            (Some(2), Some(0), Some(2))
        );
        assert_eq!((answer([0, 4, 0, 0]), newest_minor(b"v\0\0\0\x04")), (None, None));
    }

    proptest! {
        #[test]
        fn random_bodies_never_panic(frame in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (ready(&frame), error(&frame), parameter_status(&frame), command_tag(&frame));
            let _ = (key_data(&frame), authentication(&frame), newest_minor(&frame));
        }
    }
}
