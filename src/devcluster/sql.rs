//! The smallest client that can ask a server something: blocking, over its Unix socket, where the
//! development cluster trusts everybody. The server's packages need not bring psql.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Rows as text; NULL is `None`.
pub type Rows = Vec<Vec<Option<String>>>;

/// A server's ErrorResponse.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) sqlstate: String,
    pub(super) message: String,
}

impl Refusal {
    /// Did a standby cancel it, so that replay can go on?
    pub(super) fn is_recovery_conflict(&self) -> bool {
        self.sqlstate == "40001" && self.message.ends_with("conflict with recovery")
    }
}

/// Why a statement has no result.
#[derive(Debug)]
pub(super) enum SqlError {
    Refused(Refusal),
    Lost(io::Error),
}

impl From<io::Error> for SqlError {
    fn from(error: io::Error) -> Self {
        SqlError::Lost(error)
    }
}

/// One open connection.
pub(super) struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// `patience` bounds every single wait for the server.
    pub(super) fn open(
        socket: &Path,
        user: &str,
        database: &str,
        patience: Duration,
    ) -> Result<Connection, SqlError> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut connection = Connection { stream };
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for word in ["user", user, "database", database, "application_name", "pgweir-dev", ""] {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        connection.stream.write_all(&framed(&body)?)?;
        connection.read_until_ready()?;
        Ok(connection)
    }

    /// Runs one simple query and returns the rows of all its statements.
    pub(super) fn query(&mut self, sql: &str) -> Result<Rows, SqlError> {
        let mut message = vec![b'Q'];
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        message.extend_from_slice(&framed(&body)?);
        self.stream.write_all(&message)?;
        self.read_until_ready()
    }

    fn read_until_ready(&mut self) -> Result<Rows, SqlError> {
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            let mut head = [0_u8; 5];
            if let Err(lost) = self.stream.read_exact(&mut head) {
                // A FATAL error is followed by the end of the connection: the reason says more.
                return Err(refusal.map_or(SqlError::Lost(lost), SqlError::Refused));
            }
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0; length.checked_sub(4).ok_or_else(malformed)?];
            self.stream.read_exact(&mut body)?;
            match head[0] {
                b'D' => rows.push(data_row(&body).ok_or_else(malformed)?),
                b'E' => refusal = Some(error_response(&body)),
                b'R' if body != [0; 4] => {
                    return Err(SqlError::Lost(io::Error::other("the server wants a password")));
                }
                b'Z' => return refusal.map_or(Ok(rows), |r| Err(SqlError::Refused(r))),
                _ => {}
            }
        }
    }
}

fn framed(body: &[u8]) -> Result<Vec<u8>, SqlError> {
    let length = u32::try_from(body.len() + 4).map_err(|_| malformed())?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(body);
    Ok(message)
}

fn malformed() -> SqlError {
    SqlError::Lost(io::Error::new(io::ErrorKind::InvalidData, "malformed message"))
}

fn data_row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            row.push(None);
            rest = after;
            continue;
        }
        let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    Some(row)
}

fn error_response(body: &[u8]) -> Refusal {
    let field = |code: u8| {
        body.split(|b| *b == 0)
            .find(|f| f.first() == Some(&code))
            .map(|f| String::from_utf8_lossy(&f[1..]).into_owned())
            .unwrap_or_default()
    };
    Refusal { sqlstate: field(b'C'), message: field(b'M') }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_ends_early_is_refused() {
        assert_eq!(data_row(&[0, 1, 0, 0, 0, 9, b'x']), None);
        assert_eq!(data_row(&[0, 2, 255, 255, 255, 255]), None);
        assert_eq!(data_row(&[0, 1, 255, 255, 255, 255]), Some(vec![None]));
        assert_eq!(data_row(&[0, 1, 0, 0, 0, 1, b'x']), Some(vec![Some("x".to_owned())]));
    }

    #[test]
    fn an_error_is_read_by_its_field_codes() {
        let refusal = error_response(b"SFATAL\0C57P03\0Mstarting up\0\0");
        assert_eq!((refusal.sqlstate.as_str(), refusal.message.as_str()), ("57P03", "starting up"));
    }
}
