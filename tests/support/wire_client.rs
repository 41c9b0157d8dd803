//! A small raw protocol client for tests: what is sent and what comes back, byte by byte. It blocks.
#![allow(dead_code)]

use pgweir::auth::keys::{DerivedKeys, ProcessSecret};
use pgweir::auth::scram::client::{ClientExchange, ClientKeys};
use pgweir::auth::secret::Password;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Whoever is silent for so long has forgotten us: the test fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Anything that carries bytes both ways.
pub trait Transport: Read + Write + Send {}
impl<T: Read + Write + Send> Transport for T {}

/// One message of the server's.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(300)];
        write!(f, "{}[{}]\"{}\"", self.tag as char, self.body.len(), shown.escape_ascii())
    }
}

impl Frame {
    /// A field of ErrorResponse or NoticeResponse.
    pub fn field(&self, code: u8) -> Option<String> {
        self.body
            .split(|&byte| byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    pub fn sqlstate(&self) -> String {
        self.field(b'C').unwrap_or_default()
    }

    pub fn message(&self) -> String {
        self.field(b'M').unwrap_or_default()
    }

    /// The columns of a DataRow.
    pub fn columns(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        while let Some((head, behind)) = rest.split_first_chunk::<4>() {
            let (value, behind) = match i32::from_be_bytes(*head) {
                -1 => (None, behind),
                len => {
                    let (value, behind) = behind.split_at(len as usize);
                    (Some(value.to_vec()), behind)
                }
            };
            columns.push(value);
            rest = behind;
        }
        columns
    }

    /// The tag of CommandComplete, the status of ReadyForQuery.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end_matches('\0').to_owned()
    }
}

/// Who logs in.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub database: String,
    /// Of the protocol's version 3.
    pub minor: u16,
    pub parameters: Vec<(String, String)>,
}

impl Login {
    pub fn new(user: &str, password: &str, database: &str) -> Login {
        let (user, password, database) = (user.into(), password.into(), database.into());
        Login { user, password, database, minor: 0, parameters: vec![] }
    }

    /// In protocol 3.`minor`.
    pub fn speaking(mut self, minor: u16) -> Login {
        self.minor = minor;
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Login {
        self.parameters.push((name.into(), value.into()));
        self
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut pairs = vec![("user", &*self.user), ("database", &*self.database)];
        pairs.extend(self.parameters.iter().map(|(name, value)| (&**name, &**value)));
        startup_in(self.minor, &pairs)
    }
}

/// A connection.
pub struct Wire {
    stream: Box<dyn Transport>,
    /// The same socket, where there is one without encryption.
    pub tcp: Option<TcpStream>,
    pub parameters: BTreeMap<String, String>,
    pub pid: u32,
    pub secret: Vec<u8>,
    /// What NegotiateProtocolVersion said, if it came: the version and the options that are not known.
    pub negotiated: Option<(u32, Vec<String>)>,
    buffer: Vec<u8>,
}

/// A plain socket to this machine.
pub fn socket(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("write timeout");
    stream
}

impl Wire {
    /// Connects and logs in; the error is what the server said.
    pub fn connect(port: u16, login: &Login) -> Result<Wire, Frame> {
        let tcp = socket(port);
        let mut wire = Wire::over(Box::new(tcp.try_clone().expect("clone")));
        wire.tcp = Some(tcp);
        wire.log_in(login)?;
        Ok(wire)
    }

    /// The same over a Unix socket.
    pub fn connect_unix(path: &Path, login: &Login) -> Result<Wire, Frame> {
        let stream = UnixStream::connect(path).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        let mut wire = Wire::over(Box::new(stream));
        wire.log_in(login)?;
        Ok(wire)
    }

    /// Over a transport that is not logged in yet.
    pub fn over(stream: Box<dyn Transport>) -> Wire {
        Wire {
            stream,
            tcp: None,
            parameters: BTreeMap::new(),
            pid: 0,
            secret: vec![],
            negotiated: None,
            buffer: vec![],
        }
    }

    pub fn log_in(&mut self, login: &Login) -> Result<(), Frame> {
        self.send(&login.packet());
        let keys = DerivedKeys::new(4, ProcessSecret::new([7; 32]));
        let mut scram = None;
        loop {
            let frame = self.next();
            match frame.tag {
                b'R' => self.authenticate(&frame, login, &keys, &mut scram),
                b'E' => return Err(frame),
                b'S' => self.note_parameter(&frame),
                b'K' => {
                    let (pid, secret) = frame.body.split_first_chunk::<4>().expect("key data");
                    self.pid = u32::from_be_bytes(*pid);
                    self.secret = secret.to_vec();
                }
                b'Z' => return Ok(()),
                b'N' => {}
                b'v' => {
                    let (version, rest) = frame.body.split_first_chunk::<4>().expect("a version");
                    let (count, names) = rest.split_first_chunk::<4>().expect("a count");
                    let names = String::from_utf8_lossy(names).into_owned();
                    let names: Vec<String> = names.split_terminator('\0').map(str::to_owned).collect();
                    assert_eq!(names.len(), u32::from_be_bytes(*count) as usize, "{frame:?}");
                    self.negotiated = Some((u32::from_be_bytes(*version), names));
                }
                other => panic!("unexpected {:?} during login: {frame:?}", other as char),
            }
        }
    }

    fn authenticate(
        &mut self,
        frame: &Frame,
        login: &Login,
        keys: &DerivedKeys,
        scram: &mut Option<ClientExchange>,
    ) {
        let (code, body) = frame.body.split_first_chunk::<4>().expect("code");
        let password = || Password::new(login.password.clone());
        match u32::from_be_bytes(*code) {
            0 => {}
            3 => self.send(&tagged(b'p', &cstr(&login.password))),
            5 => {
                let hash = pgweir::auth::md5::hash(&password(), &login.user);
                let salt = <[u8; 4]>::try_from(body).expect("salt");
                let mut answer = pgweir::auth::md5::response(&hash, salt).to_vec();
                answer.push(0);
                self.send(&tagged(b'p', &answer));
            }
            10 => {
                let (exchange, first) = ClientExchange::start(ClientKeys::Password(password()), &[9; 18]);
                *scram = Some(exchange);
                let mut answer = cstr("SCRAM-SHA-256");
                answer.extend((first.len() as u32).to_be_bytes());
                answer.extend(first);
                self.send(&tagged(b'p', &answer));
            }
            11 => {
                let exchange = scram.as_mut().expect("a challenge comes second");
                let answer = exchange.on_challenge(body, &login.user, keys).expect("challenge");
                self.send(&tagged(b'p', &answer));
            }
            12 => scram.as_mut().expect("in order").on_final(body).expect("the server proves itself"),
            other => panic!("unexpected authentication request {other}"),
        }
    }

    fn note_parameter(&mut self, frame: &Frame) {
        let mut parts = frame.body.split(|&byte| byte == 0);
        let mut next = || String::from_utf8_lossy(parts.next().expect("a string")).into_owned();
        let (name, value) = (next(), next());
        self.parameters.insert(name, value);
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("send");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next message; `None` at the end of the stream (a reset is one too).
    pub fn try_next(&mut self) -> Option<Frame> {
        loop {
            if let Some((head, body)) = self.buffer.split_first_chunk::<5>() {
                let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
                if body.len() >= len {
                    let frame = Frame { tag: head[0], body: body[..len].to_vec() };
                    self.buffer.drain(..5 + len);
                    if frame.tag == b'S' {
                        self.note_parameter(&frame);
                    }
                    return Some(frame);
                }
            }
            if !self.read_some() {
                return None;
            }
        }
    }

    fn read_some(&mut self) -> bool {
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(len) => {
                self.buffer.extend_from_slice(&chunk[..len]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => panic!("no answer: {error}; so far {:?}", self.buffer.escape_ascii().to_string()),
        }
    }

    pub fn next(&mut self) -> Frame {
        self.try_next().expect("the connection was closed")
    }

    /// Everything up to ReadyForQuery, with it.
    pub fn until_ready(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next();
            let last = frame.tag == b'Z';
            frames.push(frame);
            if last {
                return frames;
            }
        }
    }

    /// Everything up to the end of the stream.
    pub fn until_closed(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.try_next()).collect()
    }

    /// A simple Query and its whole answer.
    pub fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.send(&query(sql));
        self.until_ready()
    }

    /// The rows of a simple Query that must work.
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        rows_of(&self.run(sql))
    }

    /// The first value of a simple Query that must work.
    pub fn value(&mut self, sql: &str) -> String {
        let rows = self.rows(sql);
        rows.first().and_then(|row| row.first().cloned().flatten()).unwrap_or_default()
    }

    /// A simple Query that must work.
    pub fn run(&mut self, sql: &str) -> Vec<Frame> {
        let frames = self.query(sql);
        assert!(error_of(&frames).is_none(), "{sql}: {frames:?}");
        frames
    }

    /// The error of a simple Query that must fail.
    pub fn fail(&mut self, sql: &str) -> Frame {
        let frames = self.query(sql);
        error_of(&frames).unwrap_or_else(|| panic!("{sql} should have failed: {frames:?}"))
    }

    /// Sends these messages and reads `groups` times up to ReadyForQuery.
    pub fn exchange(&mut self, bytes: &[u8], groups: usize) -> Vec<Vec<Frame>> {
        self.send(bytes);
        (0..groups).map(|_| self.until_ready()).collect()
    }

    pub fn is_closed(&mut self) -> bool {
        self.try_next().is_none()
    }

    /// Says goodbye and waits for the close.
    pub fn terminate(mut self) {
        if self.try_send(&terminate()).is_ok() {
            while self.try_next().is_some() {}
        }
    }

    /// Vanishes without a word.
    pub fn vanish(self) {
        if let Some(tcp) = &self.tcp {
            drop(tcp.shutdown(Shutdown::Both));
        }
    }
}

pub fn error_of(frames: &[Frame]) -> Option<Frame> {
    frames.iter().find(|frame| frame.tag == b'E').cloned()
}

pub fn rows_of(frames: &[Frame]) -> Vec<Vec<Option<String>>> {
    let text = |value: Vec<u8>| String::from_utf8(value).expect("UTF-8");
    frames
        .iter()
        .filter(|frame| frame.tag == b'D')
        .map(|frame| frame.columns().into_iter().map(|value| value.map(text)).collect())
        .collect()
}

/// The message types of an answer, as one word.
pub fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| frame.tag as char).collect()
}

/// The first value of each row.
pub fn first_values(frames: &[Frame]) -> Vec<String> {
    rows_of(frames).into_iter().map(|row| row[0].clone().unwrap_or_default()).collect()
}

pub fn cstr(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

pub fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

pub fn untagged(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 4).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

pub fn startup(pairs: &[(&str, &str)]) -> Vec<u8> {
    startup_in(0, pairs)
}

/// Of protocol 3.`minor`.
pub fn startup_in(minor: u16, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = ((3_u32 << 16) | u32::from(minor)).to_be_bytes().to_vec();
    for (name, value) in pairs {
        body.extend(cstr(name));
        body.extend(cstr(value));
    }
    body.push(0);
    untagged(&body)
}

pub fn gssenc_request() -> Vec<u8> {
    untagged(&80_877_104_u32.to_be_bytes())
}

pub fn ssl_request() -> Vec<u8> {
    untagged(&80_877_103_u32.to_be_bytes())
}

pub fn cancel_request(pid: u32, secret: &[u8]) -> Vec<u8> {
    let mut body = 80_877_102_u32.to_be_bytes().to_vec();
    body.extend(pid.to_be_bytes());
    body.extend(secret);
    untagged(&body)
}

/// Sends a cancel request and waits until it has been served.
pub fn cancel(port: u16, pid: u32, secret: &[u8]) {
    let mut stream = socket(port);
    stream.write_all(&cancel_request(pid, secret)).expect("cancel");
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest));
    assert!(rest.is_empty(), "a cancel request has no answer");
}

pub fn query(sql: &str) -> Vec<u8> {
    tagged(b'Q', &cstr(sql))
}

pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = cstr(name);
    body.extend(cstr(sql));
    body.extend((types.len() as u16).to_be_bytes());
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    tagged(b'P', &body)
}

/// Text parameters, text results.
pub fn bind(portal: &str, statement: &str, values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = cstr(portal);
    body.extend(cstr(statement));
    body.extend(0_u16.to_be_bytes());
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend((value.len() as u32).to_be_bytes());
                body.extend(*value);
            }
        }
    }
    body.extend(0_u16.to_be_bytes());
    tagged(b'B', &body)
}

/// `kind`: b'S' or b'P'.
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    tagged(b'D', &[&[kind][..], &cstr(name)].concat())
}

pub fn close(kind: u8, name: &str) -> Vec<u8> {
    tagged(b'C', &[&[kind][..], &cstr(name)].concat())
}

pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    tagged(b'E', &[&cstr(portal)[..], &rows.to_be_bytes()].concat())
}

pub fn sync() -> Vec<u8> {
    tagged(b'S', b"")
}

pub fn flush() -> Vec<u8> {
    tagged(b'H', b"")
}

pub fn terminate() -> Vec<u8> {
    tagged(b'X', b"")
}

pub fn copy_data(data: &[u8]) -> Vec<u8> {
    tagged(b'd', data)
}

pub fn copy_done() -> Vec<u8> {
    tagged(b'c', b"")
}

pub fn copy_fail(why: &str) -> Vec<u8> {
    tagged(b'f', &cstr(why))
}

/// FunctionCall with text arguments and a text result.
pub fn function_call(oid: u32, arguments: &[&[u8]]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend(0_u16.to_be_bytes());
    body.extend((arguments.len() as u16).to_be_bytes());
    for argument in arguments {
        body.extend((argument.len() as u32).to_be_bytes());
        body.extend(*argument);
    }
    body.extend(0_u16.to_be_bytes());
    tagged(b'F', &body)
}

/// Parse, Bind, Execute of an unnamed statement; no Sync.
pub fn unnamed(sql: &str, values: &[Option<&[u8]>]) -> Vec<u8> {
    [parse("", sql, &[]), bind("", "", values), execute("", 0)].concat()
}
