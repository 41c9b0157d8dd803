//! The first packet of a connection: it has no tag.

use crate::fault::SqlState;
use crate::wire::frame::Body;

/// `MAX_STARTUP_PACKET_LENGTH` of PostgreSQL's postmaster.
pub const MAX_STARTUP_LEN: usize = 10_000;

const SSL_REQUEST: u32 = (1234 << 16) | 5679;
const GSSENC_REQUEST: u32 = (1234 << 16) | 5680;
const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;

/// The newest minor version of protocol 3 that is spoken here.
pub const LATEST_MINOR: u16 = 2;

/// From this minor version on a cancel key may be longer than 4 bytes.
pub const LONG_KEY_MINOR: u16 = 2;

/// A connection that carries WAL, or what is decoded from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replication {
    /// Of the whole cluster; the database named besides does not count.
    Physical,
    /// Of one database, with SQL besides replication commands.
    Logical,
}

impl Replication {
    /// The parameter's value in a startup packet.
    pub fn as_str(self) -> &'static str {
        match self {
            Replication::Physical => "true",
            Replication::Logical => "database",
        }
    }
}

/// Who wants to connect, to what, and how.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Startup {
    /// The minor version that the client asked for; the major one is 3.
    pub minor: u16,
    /// Required.
    pub user: String,
    /// The user's name where the packet names none.
    pub database: String,
    /// Every other run-time parameter, in order. `options` is still in one piece.
    pub parameters: Vec<(String, String)>,
    /// `_pq_.*` protocol extensions that the client asked for.
    pub extensions: Vec<String>,
    /// Is it a replication connection?
    pub replication: Option<Replication>,
}

impl Startup {
    /// The minor version that is spoken with this client.
    pub fn spoken_minor(&self) -> u16 {
        self.minor.min(LATEST_MINOR)
    }

    /// Has the client to be told what it does not get (NegotiateProtocolVersion)?
    pub fn asks_too_much(&self) -> bool {
        self.minor > LATEST_MINOR || !self.extensions.is_empty()
    }
}

/// What a first packet may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FirstPacket {
    /// "May we speak TLS?" Answered with one byte.
    SslRequest,
    /// "May we speak GSSAPI encryption?" Answered with one byte.
    GssEncRequest,
    /// A cancel request: the connection carries nothing else.
    Cancel {
        /// The process id of BackendKeyData.
        pid: u32,
        /// Its secret: 4 bytes in protocol 3.0, up to 256 in 3.2.
        secret: Vec<u8>,
    },
    /// An ordinary start.
    Startup(Startup),
}

/// Why a first packet was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartupError {
    /// Outside 8..=10000.
    #[error("invalid length of startup packet")]
    Length,
    /// The parameters are not pairs of NUL-terminated strings closed by a NUL.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A major version other than 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Version {
        /// Major.
        major: u16,
        /// Minor.
        minor: u16,
    },
    /// No `user`.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Names and values have to be UTF-8 here, since they become parts of pool keys and logs.
    #[error("startup packet is not valid UTF-8")]
    Encoding,
    /// `replication` is neither a truth value nor `database`.
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    Replication(String),
}

impl StartupError {
    /// PostgreSQL's code for it.
    pub fn sqlstate(&self) -> SqlState {
        match self {
            StartupError::Length | StartupError::Layout | StartupError::Encoding => {
                SqlState::PROTOCOL_VIOLATION
            }
            StartupError::Version { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            StartupError::NoUser => SqlState::INVALID_AUTHORIZATION,
            StartupError::Replication(_) => SqlState::INVALID_PARAMETER_VALUE,
        }
    }
}

/// Which encryption a connection may still ask for. As in PostgreSQL, each kind is answered once,
/// whatever the answer; a second request is taken for a protocol version that nobody speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offers {
    tls_answered: bool,
    gss_answered: bool,
}

impl Offers {
    /// SSLRequest has come.
    pub fn on_ssl_request(&mut self) -> Result<(), StartupError> {
        once(&mut self.tls_answered, SSL_REQUEST)
    }

    /// GSSENCRequest has come.
    pub fn on_gss_request(&mut self) -> Result<(), StartupError> {
        once(&mut self.gss_answered, GSSENC_REQUEST)
    }

    /// The connection was encrypted at its request.
    pub fn close(&mut self) {
        *self = Offers { tls_answered: true, gss_answered: true };
    }
}

fn once(answered: &mut bool, code: u32) -> Result<(), StartupError> {
    match std::mem::replace(answered, true) {
        false => Ok(()),
        true => Err(StartupError::Version { major: (code >> 16) as u16, minor: code as u16 }),
    }
}

/// Is this the first byte of a TLS handshake (direct TLS, since PostgreSQL 17)? A packet that begins so
/// would be far longer than a startup packet may be.
pub fn is_tls(first: u8) -> bool {
    first == 0x16
}

/// The packet's whole length, from its first four bytes; `None` while there are fewer.
pub fn packet_len(bytes: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some(length) = Body::new(bytes).u32() else { return Ok(None) };
    match length as usize {
        length @ 8..=MAX_STARTUP_LEN => Ok(Some(length)),
        _ => Err(StartupError::Length),
    }
}

/// Reads one whole first packet (`packet_len` bytes).
pub fn parse(packet: &[u8]) -> Result<FirstPacket, StartupError> {
    let mut body = Body::new(packet);
    let _length = body.u32().ok_or(StartupError::Length)?;
    match body.u32().ok_or(StartupError::Length)? {
        SSL_REQUEST if body.rest().is_empty() => Ok(FirstPacket::SslRequest),
        GSSENC_REQUEST if body.rest().is_empty() => Ok(FirstPacket::GssEncRequest),
        SSL_REQUEST | GSSENC_REQUEST => Err(StartupError::Length),
        CANCEL_REQUEST => cancel(body),
        version => startup((version >> 16) as u16, version as u16, body).map(FirstPacket::Startup),
    }
}

fn cancel(mut body: Body<'_>) -> Result<FirstPacket, StartupError> {
    let pid = body.u32().ok_or(StartupError::Length)?;
    match body.rest() {
        secret @ ([_, _, _, _] | [_, _, _, _, ..]) if secret.len() <= 256 => {
            Ok(FirstPacket::Cancel { pid, secret: secret.to_vec() })
        }
        _ => Err(StartupError::Length),
    }
}

fn startup(major: u16, minor: u16, mut body: Body<'_>) -> Result<Startup, StartupError> {
    if major != 3 {
        return Err(StartupError::Version { major, minor });
    }
    let mut startup = Startup { minor, ..Startup::default() };
    loop {
        let name = text(body.cstr())?;
        if name.is_empty() {
            break;
        }
        let value = text(body.cstr())?;
        match name {
            "user" => startup.user = value.to_owned(),
            "database" => startup.database = value.to_owned(),
            "replication" => startup.replication = replication(value)?,
            extension if extension.starts_with("_pq_.") => startup.extensions.push(extension.to_owned()),
            _ => startup.parameters.push((name.to_owned(), value.to_owned())),
        }
    }
    if !body.rest().is_empty() {
        return Err(StartupError::Layout);
    }
    if startup.user.is_empty() {
        return Err(StartupError::NoUser);
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok(startup)
}

fn text(field: Option<&[u8]>) -> Result<&str, StartupError> {
    std::str::from_utf8(field.ok_or(StartupError::Layout)?).map_err(|_| StartupError::Encoding)
}

/// As PostgreSQL reads it: `database`, or a truth value, which may be cut short.
fn replication(value: &str) -> Result<Option<Replication>, StartupError> {
    let word = value.to_ascii_lowercase();
    // A bare "o" could be both.
    let is = |words: [&str; 4]| word != "o" && !word.is_empty() && words.iter().any(|w| w.starts_with(&word));
    match &*word {
        _ if value == "database" => Ok(Some(Replication::Logical)),
        _ if is(["true", "yes", "on", "1"]) => Ok(Some(Replication::Physical)),
        _ if is(["false", "no", "off", "0"]) => Ok(None),
        _ => Err(StartupError::Replication(value.to_owned())),
    }
}

/// Splits the startup packet's `options` into `(name, value)` settings. It has the words of
/// PostgreSQL's `pg_split_opts`: white space divides, a backslash escapes. `None` for an option
/// other than `-c name=value` and `--name=value`.
pub fn split_options(options: &str) -> Option<Vec<(String, String)>> {
    let mut settings = Vec::new();
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("--") {
            Some(pair) => pair.to_owned(),
            None => match word.strip_prefix("-c")? {
                "" => words.next()?,
                pair => pair.to_owned(),
            },
        };
        let (name, value) = pair.split_once('=')?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Some(settings)
}

fn split_words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            space if space.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((8 + body.len()) as u32).to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_startup_packet_names_user_database_and_parameters() {
        let parsed = parse(&packet(3 << 16, b"user\0ann\0application_name\0psql\0\0")).unwrap();
        let FirstPacket::Startup(startup) = parsed else { unreachable!() };
        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("ann", "ann"));
        assert_eq!(startup.parameters, [("application_name".to_owned(), "psql".to_owned())]);
    }

    #[test]
    fn versions_and_extensions_beyond_ours_are_negotiated_down() {
        let ask = |minor: u32, body: &[u8]| match parse(&packet(3 << 16 | minor, body)).unwrap() {
            FirstPacket::Startup(startup) => (startup.asks_too_much(), startup.spoken_minor()),
            other => unreachable!("{other:?}"),
        };
        let (plain, extended) = (&b"user\0ann\0\0"[..], &b"user\0ann\0_pq_.x\0on\0\0"[..]);
        // 3.1 was never released: it is spoken as 3.0, without a word, as PostgreSQL does.
        let cases = [(0, plain, false, 0), (1, plain, false, 1), (2, plain, false, 2), (3, plain, true, 2)];
        let grease = [(9999, plain, true, 2), (0, extended, true, 0), (2, extended, true, 2)];
        for (minor, body, too_much, spoken) in cases.into_iter().chain(grease) {
            assert_eq!(ask(minor, body), (too_much, spoken), "3.{minor}");
        }
    }

    #[test]
    fn replication_is_a_truth_value_or_database() {
        let (physical, logical) = (Ok(Some(Replication::Physical)), Ok(Some(Replication::Logical)));
        for (words, expected) in [
            (&["true", "T", "on", "yes", "y", "1"][..], &physical),
            (&["database"], &logical),
            (&["false", "off", "of", "no", "N", "0"], &Ok(None)),
        ] {
            words.iter().for_each(|word| assert_eq!(replication(word), *expected, "{word}"));
        }
        for word in ["", "o", "2", "databases", "Database", "10"] {
            assert_eq!(replication(word), Err(StartupError::Replication(word.to_owned())));
        }
    }

    #[test]
    fn encryption_is_asked_for_once_of_each_kind_and_never_inside_of_it() {
        let mut offers = Offers::default();
        assert_eq!((offers.on_gss_request(), offers.on_ssl_request()), (Ok(()), Ok(())));
        let again = StartupError::Version { major: 1234, minor: 5679 };
        assert_eq!(offers.on_ssl_request(), Err(again));
        let mut encrypted = Offers::default();
        encrypted.close();
        assert!(encrypted.on_ssl_request().is_err() && encrypted.on_gss_request().is_err());
    }

    #[test]
    fn malformed_packets_are_refused_each_with_its_reason() {
        let cases: [(Vec<u8>, StartupError); 7] = [
            (packet(3 << 16, b"user\0ann\0"), StartupError::Layout),
            (packet(3 << 16, b"user\0ann\0\0x"), StartupError::Layout),
            (packet(3 << 16, b"\0"), StartupError::NoUser),
            (packet(2 << 16, b"\0"), StartupError::Version { major: 2, minor: 0 }),
            (packet(3 << 16, b"user\0\xff\0\0"), StartupError::Encoding),
            (packet(SSL_REQUEST, b"surplus"), StartupError::Length),
            (packet(3 << 16, b"replication\0x\0\0"), StartupError::Replication("x".to_owned())),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(&bytes), Err(expected));
        }
        for length in [0_u32, 7, 10_001, u32::MAX] {
            assert_eq!(packet_len(&length.to_be_bytes()), Err(StartupError::Length));
        }
    }

    #[test]
    fn options_are_split_as_the_server_splits_them() {
        let split = split_options(r"-c search_path=a\ b -cwork_mem=1MB  --pgweir.route=primary").unwrap();
        let pairs: Vec<_> = split.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("search_path", "a b"), ("work_mem", "1MB"), ("pgweir.route", "primary")]);
        assert_eq!(split_options("-d 5"), None);
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused_or_read_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = packet_len(&bytes);
            let _ = parse(&bytes);
        }
    }
}
