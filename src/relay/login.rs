//! From the first byte to the first ReadyForQuery.

use crate::auth::login::{AuthStep, Login, LoginParams, Method};
use crate::clock;
use crate::config::settings::{AuthMethod, ClientTlsMode};
use crate::fault::{Fault, SqlState};
use crate::net::random_fill;
use crate::net::stream::Stream;
use crate::net::tls::peer_common_name;
use crate::pool::server::Parameters;
use crate::relay::client::Client;
use crate::relay::context::Context;
use crate::relay::first_packet::{Refusal, negotiate};
use crate::relay::replication::{self, Replicating};
use crate::relay::slot::{ClientInfo, ClientSlot};
use crate::relay::{secrets, welcome};
use crate::session::machine::Session;
use crate::session::settings::{Settings, Value};
use crate::session::state::SessionState;
use crate::session::told::Told;
use crate::sql::effects::PgweirName;
use crate::sql::lexer::Dialect;
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::startup::{Replication, Startup, split_options};
use crate::wire::writers::{self, Severity};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A password message is short. In bytes.
const PASSWORD_MESSAGE_MAX: usize = 16 * 1024;

/// The virtual database with the console.
pub const CONSOLE_DATABASE: &str = "pgweir";

/// Is it a client of the console?
pub fn is_console(slot: &ClientSlot) -> bool {
    slot.database() == CONSOLE_DATABASE
}

/// What a new connection turned out to be.
#[derive(Debug)]
pub enum Arrived {
    /// A client of a database.
    Client(Box<Client>),
    /// A client of the console.
    Console(Box<Console>),
    /// A client that replicates.
    Replicating(Stream, Box<Replicating>),
    /// Over already: a cancel request, or somebody who was refused.
    Done,
}

/// Somebody who has logged in to the console.
#[derive(Debug)]
pub struct Console {
    /// Its bytes.
    pub stream: Stream,
    /// As others see it.
    pub slot: Arc<ClientSlot>,
}

/// Serves a new connection up to its login, within the configured time.
pub async fn arrive(context: Arc<Context>, stream: Stream, address: String) -> Arrived {
    let limit = context.config.load().limits.login_timeout;
    let mut stream = Some(stream);
    let attempt = tokio::time::timeout(limit, Box::pin(enter(&context, &mut stream, &address))).await;
    let (fault, told) = match attempt {
        Ok(Ok(arrived)) => return arrived,
        Ok(Err(Refusal::Fault(fault))) => (fault, true),
        Ok(Err(Refusal::Untold(fault))) => (fault, false),
        Ok(Err(Refusal::Silent)) => return Arrived::Done,
        Err(_) => (Fault::client(SqlState::PROTOCOL_VIOLATION, "the login took too long"), true),
    };
    context.counters.logins_refused.fetch_add(1, Ordering::Relaxed);
    context.metrics.logins.refused.increment(1);
    tracing::info!(%address, sqlstate = %fault.sqlstate, "login refused: {fault}");
    if let Some(mut stream) = stream.filter(|_| told) {
        let mut bytes = Vec::new();
        writers::fault(&mut bytes, Severity::Fatal, &fault);
        let farewell = async {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        };
        // Whoever does not listen is not waited for.
        drop(tokio::time::timeout(std::time::Duration::from_secs(1), farewell).await);
    }
    Arrived::Done
}

/// One of those who are let in up to their login, within a bound: they have proven nothing yet.
async fn enter(
    context: &Arc<Context>,
    place: &mut Option<Stream>,
    address: &str,
) -> Result<Arrived, Refusal> {
    let limit = context.config.load().limits.login_clients as usize;
    let before = context.arriving.fetch_add(1, Ordering::AcqRel);
    let _arriving = Arriving(context);
    if before >= limit {
        return Err(Fault::proxy(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients are logging in")
            .detail(format!("{before} connections have not logged in yet."))
            .hint("Raise limits.login_clients.")
            .retriable()
            .into());
    }
    log_in(context, place, address).await
}

/// Counts a connection until it has logged in.
struct Arriving<'a>(&'a Context);

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn log_in(
    context: &Arc<Context>,
    place: &mut Option<Stream>,
    address: &str,
) -> Result<Arrived, Refusal> {
    let Some(startup) = negotiate(context, place).await? else { return Ok(Arrived::Done) };
    let stream = place.as_mut().ok_or(Refusal::Silent)?;
    check_encryption(context, stream)?;
    if startup.asks_too_much() {
        let mut bytes = Vec::new();
        writers::negotiate(&mut bytes, startup.spoken_minor(), startup.extensions.clone());
        stream.write_all(&bytes).await?;
    }
    if context.is_draining() && !context.config.load().reuse_port {
        return Err(Fault::proxy(SqlState::CANNOT_CONNECT_NOW, "pgweir is shutting down").into());
    }
    let credential = authenticate(context, stream, &startup).await?;
    let application = parameter(&startup, "application_name").unwrap_or_default();
    let info = ClientInfo {
        minor: startup.spoken_minor(),
        database: match startup.replication {
            // Of all databases; that word stands for it in pg_hba.conf too.
            Some(Replication::Physical) => "replication".to_owned(),
            Some(Replication::Logical) | None => startup.database.clone(),
        },
        user: startup.user.clone(),
        address: address.to_owned(),
        application,
        encrypted: stream.is_encrypted(),
    };
    let slot = context.admit(ClientSlot::new(info, clock::now()))?;
    let admitted = Admitted { context, slot: Some(slot.clone()) };
    let arrived = match startup.database.as_str() {
        _ if let Some(kind) = startup.replication => {
            let replicating = replication::begin(context, &startup, kind, credential, &slot).await?;
            greet(stream, &slot, &replicating.server.parameters).await?;
            let stream = place.take().ok_or(Refusal::Silent)?;
            Arrived::Replicating(stream, replicating)
        }
        CONSOLE_DATABASE => {
            greet(stream, &slot, &welcome::console_parameters()).await?;
            let stream = place.take().ok_or(Refusal::Silent)?;
            Arrived::Console(Box::new(Console { stream, slot }))
        }
        _ => {
            let client = Box::pin(prepare(context, &startup, &slot, credential, place)).await?;
            Arrived::Client(client)
        }
    };
    admitted.stays();
    context.counters.logins.fetch_add(1, Ordering::Relaxed);
    context.metrics.logins.accepted.increment(1);
    Ok(arrived)
}

/// Leaves the list of clients again unless the login is completed.
struct Admitted<'a> {
    context: &'a Context,
    slot: Option<Arc<ClientSlot>>,
}

impl Admitted<'_> {
    fn stays(mut self) {
        self.slot = None;
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            self.context.clients.leave(slot);
        }
    }
}

fn check_encryption(context: &Context, stream: &Stream) -> Result<(), Fault> {
    let required = context.config.load().tls.client.mode == ClientTlsMode::Require;
    match (required, stream) {
        (true, Stream::Tcp(_)) => Err(Fault::client(
            SqlState::INVALID_AUTHORIZATION,
            "this server accepts encrypted connections only",
        )
        .hint("Connect with sslmode=require or stronger.")),
        _ => Ok(()),
    }
}

async fn authenticate(
    context: &Arc<Context>,
    stream: &mut Stream,
    startup: &Startup,
) -> Result<crate::auth::secret::ServerCredential, Refusal> {
    let method = match context.config.load().auth.method {
        AuthMethod::ScramSha256 => Method::ScramSha256,
        AuthMethod::Md5 => Method::Md5,
        AuthMethod::Plain => Method::Plain,
        AuthMethod::Trust => Method::Trust,
        AuthMethod::Cert => Method::Cert,
    };
    let known = secrets::of_user(context, &startup.user).await?;
    let mut params = LoginParams {
        method,
        user: startup.user.clone(),
        secret: known.secret,
        certificate_name: common_name(stream),
        nonce: [0; 18],
        salt: [0; 4],
    };
    random_fill(&mut params.nonce);
    random_fill(&mut params.salt);
    let (mut login, mut step) = Login::start(params, &context.keys);
    loop {
        match step {
            AuthStep::Fail(fault) => {
                secrets::login_failed(context, &startup.user, known.asked).await;
                return Err((*fault).into());
            }
            done @ AuthStep::Done { .. } => {
                let mut bytes = Vec::new();
                done.write(&mut bytes);
                stream.write_all(&bytes).await?;
                let AuthStep::Done { credential, .. } = done else { return Err(Refusal::Silent) };
                return Ok(credential);
            }
            ask => {
                let mut bytes = Vec::new();
                ask.write(&mut bytes);
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                let body = read_password(stream).await?;
                step = login.on_password_message(&body, &context.keys);
            }
        }
    }
}

fn common_name(stream: &Stream) -> Option<String> {
    match stream {
        Stream::Tls(tls) => peer_common_name(tls.get_ref().1.peer_certificates()),
        Stream::Tcp(_) | Stream::Unix(_) | Stream::Deaf(_) => None,
    }
}

async fn read_password(stream: &mut Stream) -> Result<Vec<u8>, Refusal> {
    let expected = || Fault::client(SqlState::PROTOCOL_VIOLATION, "expected a password response");
    let mut frame = vec![0; HEADER_LEN];
    stream.read_exact(&mut frame).await?;
    let head = header(&frame, PASSWORD_MESSAGE_MAX).ok().flatten().ok_or_else(expected)?;
    if head.tag != b'p' {
        return Err(expected().into());
    }
    let mut body = vec![0; head.frame_len - HEADER_LEN];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Everything between "it is who it says" and the first ReadyForQuery.
async fn prepare(
    context: &Arc<Context>,
    startup: &Startup,
    slot: &Arc<ClientSlot>,
    credential: crate::auth::secret::ServerCredential,
    place: &mut Option<Stream>,
) -> Result<Box<Client>, Refusal> {
    let tenant = context.tenant(&startup.database, &startup.user)?;
    tenant.set_credential(credential);
    let (settings, own) = settings_of(startup)?;
    let settings = context.intern(settings);
    let parameters = welcome::parameters(context, &tenant, &settings).await?;
    let dialect = dialect_of(&reported(&parameters), Dialect::STANDARD);
    let database = context.catalogs.of(&tenant.server_database);
    let stream = place.take().ok_or(Refusal::Silent)?;
    let mut client = Box::new(Client::new(crate::relay::client::Parts {
        context: context.clone(),
        tenant,
        database,
        stream,
        session: Session::new(SessionState::new(settings)),
        slot: slot.clone(),
        dialect,
    }));
    let mut warnings = Vec::new();
    for (name, value) in own {
        match Box::pin(client.set_own(name, &value)).await {
            Ok(warning) => warnings.extend(warning),
            Err(fault) => {
                // It is told before it is greeted.
                *place = Some(client.stream);
                return Err(fault.into());
            }
        }
    }
    client.logged_in();
    let mut bytes = Vec::new();
    warnings.iter().for_each(|warning| writers::fault(&mut bytes, Severity::Warning, warning));
    client.stream.write_all(&bytes).await?;
    greet(&mut client.stream, slot, &parameters).await?;
    client.session.told = Told::new(parameters);
    Ok(client)
}

async fn greet(stream: &mut Stream, slot: &ClientSlot, parameters: &Parameters) -> Result<(), io::Error> {
    let mut bytes = Vec::new();
    for (name, value) in parameters.iter() {
        // A session behind pgweir can write, whichever node it happens to read from.
        let value = if name == "in_hot_standby" { "off" } else { value };
        writers::parameter_status(&mut bytes, name, value);
    }
    slot.write_key(&mut bytes);
    bytes.extend_from_slice(&writers::ready(TransactionStatus::Idle));
    stream.write_all(&bytes).await?;
    stream.flush().await
}

type Own = Vec<(PgweirName, String)>;

/// The settings of a startup packet, and those that are pgweir's own.
fn settings_of(startup: &Startup) -> Result<(Settings, Own), Fault> {
    let mut pairs = Vec::new();
    for (name, value) in &startup.parameters {
        match name.as_str() {
            "options" => pairs.extend(split_options(value).ok_or_else(|| {
                Fault::client(SqlState::INVALID_PARAMETER_VALUE, "unsupported command-line options")
                    .detail(format!("options = \"{value}\""))
                    .hint("Only -c name=value and --name=value are understood.")
            })?),
            _ => pairs.push((name.clone(), value.clone())),
        }
    }
    let mut own = Own::new();
    let mut settings = Settings::default();
    for (name, value) in pairs {
        match name.to_ascii_lowercase().strip_prefix("pgweir.") {
            Some(rest) => own.push((
                PgweirName::parse(rest).ok_or_else(|| {
                    let message = format!("unrecognized configuration parameter \"{name}\"");
                    Fault::client(SqlState::UNDEFINED_OBJECT, message)
                })?,
                value,
            )),
            None => settings = settings.with(&name, Value::Text(value.into())),
        }
    }
    Ok((settings, own))
}

fn parameter(startup: &Startup, name: &str) -> Option<String> {
    startup.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

/// What the server has reported of how it reads strings.
fn reported(parameters: &Parameters) -> Settings {
    let of_strings = parameters
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "client_encoding" | "standard_conforming_strings"));
    Settings::from_pairs(of_strings.map(|(name, value)| (name.clone(), Value::Text(value.as_str().into()))))
}

/// How the strings of a session with these settings are to be read; what they do not say is as
/// `default` has it. What is not certainly harmless is taken for harmful.
pub fn dialect_of(settings: &Settings, default: Dialect) -> Dialect {
    let text = |name: &str| {
        settings.get(name).map(|value| match value {
            Value::Sql(text) | Value::Text(text) => text.trim_matches('\'').to_ascii_lowercase(),
        })
    };
    let safe = |encoding: String| {
        let plain: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
        matches!(plain.as_str(), "utf8" | "unicode" | "sqlascii" | "default")
            || plain.starts_with("latin")
            || plain.starts_with("iso8859")
            || plain.starts_with("win")
            || plain.starts_with("euc")
            || plain.starts_with("koi8")
    };
    Dialect {
        standard_conforming_strings: text("standard_conforming_strings")
            .map_or(default.standard_conforming_strings, |value| {
                matches!(value.as_str(), "on" | "true" | "yes" | "1")
            }),
        safe_encoding: text("client_encoding").map_or(default.safe_encoding, safe),
    }
}
