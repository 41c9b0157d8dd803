//! Writes messages. What the server is sent is our own few lines; what only pgweir says to a client
//! (errors, parameters, console rows) is encoded by the `pgwire` crate.

use crate::fault::Fault;
use crate::wire::backend::TransactionStatus;
use bytes::BytesMut;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::{CommandComplete, ErrorResponse, NoticeResponse};
use pgwire::messages::startup::ParameterStatus;
use pgwire::messages::{Message, startup::NegotiateProtocolVersion};

/// ParseComplete.
pub const PARSE_COMPLETE: [u8; 5] = *b"1\0\0\0\x04";
/// BindComplete.
pub const BIND_COMPLETE: [u8; 5] = *b"2\0\0\0\x04";
/// NoData.
pub const NO_DATA: [u8; 5] = *b"n\0\0\0\x04";
/// CloseComplete.
pub const CLOSE_COMPLETE: [u8; 5] = *b"3\0\0\0\x04";
/// Sync.
pub const SYNC: [u8; 5] = *b"S\0\0\0\x04";
/// Flush.
pub const FLUSH: [u8; 5] = *b"H\0\0\0\x04";
/// Terminate.
pub const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";
/// EmptyQueryResponse.
pub const EMPTY_QUERY: [u8; 5] = *b"I\0\0\0\x04";
/// The eight bytes of SSLRequest.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A ReadyForQuery message.
pub fn ready(status: TransactionStatus) -> [u8; 6] {
    [b'Z', 0, 0, 0, 5, status.byte()]
}

/// Writes one message: tag, length, and what `body` appends. Bodies are bounded by what a client
/// may send, far below 4 GiB.
pub fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// A Query message.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    message(out, b'Q', |out| cstr(out, text));
}

/// A Parse message; `types` is the count and the OIDs as in `frontend::Parse::types`.
pub fn parse(out: &mut Vec<u8>, name: &[u8], text: &[u8], types: &[u8]) {
    message(out, b'P', |out| {
        cstr(out, name);
        cstr(out, text);
        out.extend_from_slice(types);
    });
}

/// The head of a Bind message whose `rest_len` bytes behind the names follow separately.
pub fn bind_head(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], rest_len: usize) {
    let length = u32::try_from(4 + portal.len() + 1 + statement.len() + 1 + rest_len).unwrap_or(u32::MAX);
    out.push(b'B');
    out.extend_from_slice(&length.to_be_bytes());
    cstr(out, portal);
    cstr(out, statement);
}

/// Describe (`D`) or Close (`C`) of a prepared statement.
pub fn statement(out: &mut Vec<u8>, tag: u8, name: &[u8]) {
    message(out, tag, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

/// Describe (`D`) or Close (`C`) of a portal.
pub fn portal(out: &mut Vec<u8>, tag: u8, name: &[u8]) {
    message(out, tag, |out| {
        out.push(b'P');
        cstr(out, name);
    });
}

/// An Execute message for all rows.
pub fn execute(out: &mut Vec<u8>, portal: &[u8]) {
    message(out, b'E', |out| {
        cstr(out, portal);
        out.extend_from_slice(&[0; 4]);
    });
}

/// A startup packet of protocol 3.`minor`.
pub fn startup<'a>(out: &mut Vec<u8>, minor: u16, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let at = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, 0, 3]);
    out.extend_from_slice(&minor.to_be_bytes());
    for (name, value) in parameters {
        cstr(out, name.as_bytes());
        cstr(out, value.as_bytes());
    }
    out.push(0);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// A cancel request.
pub fn cancel(pid: u32, secret: &[u8]) -> Vec<u8> {
    let length = u32::try_from(12 + secret.len()).unwrap_or(u32::MAX);
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(&[0x04, 0xd2, 0x16, 0x2e]);
    out.extend_from_slice(&pid.to_be_bytes());
    out.extend_from_slice(secret);
    out
}

fn encode(out: &mut Vec<u8>, message: &impl Message) {
    let mut buffer = BytesMut::new();
    // Encoding into memory fails only for strings with NUL bytes, which the callers do not have.
    if message.encode(&mut buffer).is_ok() {
        out.extend_from_slice(&buffer);
    }
}

/// How bad an error or notice is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection is closed behind it.
    Fatal,
    /// Not an error: something the client should know.
    Warning,
    /// Not an error: for information.
    Notice,
}

/// An ErrorResponse (or a NoticeResponse for warnings and notices) from a fault.
pub fn fault(out: &mut Vec<u8>, severity: Severity, fault: &Fault) {
    let word = match severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
        Severity::Warning => "WARNING",
        Severity::Notice => "NOTICE",
    };
    let clean = |text: &str| text.replace('\0', "");
    let mut fields = vec![
        (b'S', word.to_owned()),
        (b'V', word.to_owned()),
        (b'C', fault.sqlstate.as_str().to_owned()),
        (b'M', clean(&fault.message)),
    ];
    fields.extend(fault.detail.as_deref().map(|text| (b'D', clean(text))));
    fields.extend(fault.hint.as_deref().map(|text| (b'H', clean(text))));
    match severity {
        Severity::Error | Severity::Fatal => encode(out, &ErrorResponse::new(fields)),
        Severity::Warning | Severity::Notice => encode(out, &NoticeResponse::new(fields)),
    }
}

/// A ParameterStatus message.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    encode(out, &ParameterStatus::new(name.to_owned(), value.to_owned()));
}

/// A BackendKeyData message; the secret has 4 bytes in protocol 3.0, up to 256 in 3.2.
pub fn key_data(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    message(out, b'K', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// A NegotiateProtocolVersion message: we speak 3.`minor` and none of these extensions.
pub fn negotiate(out: &mut Vec<u8>, minor: u16, refused: Vec<String>) {
    encode(out, &NegotiateProtocolVersion::new((3 << 16) | i32::from(minor), refused));
}

/// A CommandComplete message.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    encode(out, &CommandComplete::new(tag.to_owned()));
}

/// OID of `text`.
const TEXT_OID: u32 = 25;

/// A RowDescription of text columns.
pub fn text_columns(out: &mut Vec<u8>, names: &[&str]) {
    let column = |name: &&str| FieldDescription::new((*name).to_owned(), 0, 0, TEXT_OID, -1, -1, 0);
    encode(out, &RowDescription::new(names.iter().map(column).collect()));
}

/// A DataRow of text values; `None` is NULL.
pub fn text_row<'a>(out: &mut Vec<u8>, values: impl IntoIterator<Item = Option<&'a str>>) {
    let mut data = BytesMut::new();
    let mut count = 0_i16;
    for value in values {
        count = count.saturating_add(1);
        match value {
            Some(text) => {
                data.extend_from_slice(&i32::try_from(text.len()).unwrap_or(i32::MAX).to_be_bytes());
                data.extend_from_slice(text.as_bytes());
            }
            None => data.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    encode(out, &DataRow::new(data, count));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::SqlState;
    use crate::wire::backend;

    #[test]
    fn a_fault_becomes_an_error_response_with_detail_and_hint() {
        let mut out = Vec::new();
        let refused = Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "too many").detail("d").hint("h");
        fault(&mut out, Severity::Fatal, &refused);
        let fields = backend::error(&out);
        assert_eq!(out.len(), 1 + u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize);
        assert!(fields.is_fatal());
        assert_eq!((fields.message, fields.detail, fields.hint), (&b"too many"[..], &b"d"[..], &b"h"[..]));
        assert_eq!(fields.sqlstate, Some(SqlState::TOO_MANY_CONNECTIONS));
    }

    #[test]
    fn rows_have_the_length_they_state() {
        let mut out = Vec::new();
        text_row(&mut out, [Some("a"), None]);
        assert_eq!(out, b"D\0\0\0\x0f\0\x02\0\0\0\x01a\xff\xff\xff\xff");
    }
}
