//! `auth:` and `tls:`: who may come in, and what is encrypted.

use crate::config::keys;
use crate::config::mistake::Mistake;
use crate::config::reader::{Field, Reader, Section};
use crate::config::secret::Secret;
use crate::config::settings::{
    AuthMethod, AuthQuerySettings, AuthSettings, ClientTlsMode, ClientTlsSettings, DEFAULT_AUTH_QUERY,
    DatabaseAccess, MonitorSettings, ServerTlsMode, ServerTlsSettings, TlsNegotiation, TlsSettings,
    UserSettings,
};
use crate::config::values::{one_of, text};
use std::collections::HashSet;
use std::path::PathBuf;

/// A password file is read up to this size.
const PASSWORD_FILE_MAX: u64 = 64 << 10;

const METHODS: &[(&str, AuthMethod)] = &[
    ("scram-sha-256", AuthMethod::ScramSha256),
    ("md5", AuthMethod::Md5),
    ("plain", AuthMethod::Plain),
    ("trust", AuthMethod::Trust),
    ("cert", AuthMethod::Cert),
];
const ACCESS: &[(&str, DatabaseAccess)] = &[("any", DatabaseAccess::Any), ("listed", DatabaseAccess::Listed)];
const CLIENT_MODES: &[(&str, ClientTlsMode)] = &[
    ("disable", ClientTlsMode::Disable),
    ("prefer", ClientTlsMode::Prefer),
    ("allow", ClientTlsMode::Prefer),
    ("require", ClientTlsMode::Require),
];
const SERVER_MODES: &[(&str, ServerTlsMode)] = &[
    ("disable", ServerTlsMode::Disable),
    ("prefer", ServerTlsMode::Prefer),
    ("require", ServerTlsMode::Require),
    ("verify-ca", ServerTlsMode::VerifyCa),
    ("verify-full", ServerTlsMode::VerifyFull),
];

const NEGOTIATIONS: &[(&str, TlsNegotiation)] =
    &[("postgres", TlsNegotiation::Postgres), ("direct", TlsNegotiation::Direct)];

pub(super) fn auth(top: &Section<'_>, monitor: &MonitorSettings, reader: &mut Reader) -> AuthSettings {
    let section = reader.section(&top.child("auth"), &keys::AUTH);
    let before = reader.count();
    let mut auth = AuthSettings {
        method: AuthMethod::default(),
        users: Vec::new(),
        query: None,
        databases: DatabaseAccess::default(),
    };
    reader.set(&mut auth.method, &section, "method", one_of(METHODS, &[]));
    reader.set(&mut auth.databases, &section, "databases", one_of(ACCESS, &[]));
    auth.query = section.field("query").map(|field| auth_query(&field, monitor, reader));
    let items = section.field("users").map(|field| reader.items(&field)).unwrap_or_default();
    auth.users = users(&items, &auth, reader);
    let open = matches!(auth.method, AuthMethod::Trust | AuthMethod::Cert);
    if !open && auth.users.is_empty() && auth.query.is_none() && reader.count() == before {
        let message = "nobody could log in: list auth.users, or give auth.query";
        reader.report(Mistake::new(top.span_of("auth"), message).path("auth.users"));
    }
    if auth.databases == DatabaseAccess::Listed && top.field("databases").is_none() {
        let message = "auth.databases is listed, but there is no databases: section";
        reader.report(Mistake::new(section.span_of("databases"), message).path("auth.databases"));
    }
    auth
}

fn users(items: &[Field<'_>], auth: &AuthSettings, reader: &mut Reader) -> Vec<UserSettings> {
    let mut seen = HashSet::new();
    let mut users = Vec::new();
    for item in items {
        let section = reader.section(item, &keys::USER);
        let before = reader.count();
        let name = reader.required(&section, "name", text);
        let password = password(&section, reader);
        let needs_one = !matches!(auth.method, AuthMethod::Trust | AuthMethod::Cert) && auth.query.is_none();
        if password.is_none() && needs_one && reader.count() == before {
            reader.missing(&section, "password");
        }
        let Some(name) = name else { continue };
        if !seen.insert(name.clone()) {
            reader.wrong(item, format!("duplicate user \"{name}\""));
        }
        users.push(UserSettings { name, password });
    }
    users
}

fn auth_query(field: &Field<'_>, monitor: &MonitorSettings, reader: &mut Reader) -> AuthQuerySettings {
    let section = reader.section(field, &keys::AUTH_QUERY);
    let user = reader.optional(&section, "user", text).unwrap_or_else(|| monitor.user.clone());
    // The same role as the monitor's: its password need not be written twice.
    let password =
        password(&section, reader).or_else(|| monitor.password.clone().filter(|_| user == monitor.user));
    let database = reader.optional(&section, "database", text).unwrap_or_else(|| monitor.database.clone());
    let query = reader.optional(&section, "query", query_text);
    AuthQuerySettings {
        user,
        password,
        database,
        query: query.unwrap_or_else(|| DEFAULT_AUTH_QUERY.to_owned()),
    }
}

fn query_text(value: &str) -> Result<String, crate::config::reader::Wrong> {
    if value.contains("$1") {
        return text(value);
    }
    Err("must contain $1, which stands for the user's name".into())
}

/// `password` or `password_file`, not both.
pub(super) fn password(section: &Section<'_>, reader: &mut Reader) -> Option<Secret> {
    let written = reader.optional(section, "password", text).map(Secret::new);
    let Some(field) = section.field("password_file") else { return written };
    if section.field("password").is_some() {
        reader.wrong(&field, "give password or password_file, not both");
        return written;
    }
    let written = reader.value(&field, text)?;
    let path = reader.file_path(&written);
    match read_secret(&path) {
        Ok(secret) => Some(secret),
        Err(message) => {
            reader.wrong(&field, message);
            None
        }
    }
}

fn read_secret(path: &std::path::Path) -> Result<Secret, String> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?.len();
    if size > PASSWORD_FILE_MAX {
        return Err(format!("{shown} is too large for a password ({size} bytes)"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\0']) {
        return Err(format!("{shown} must hold one line: the password"));
    }
    Ok(Secret::new(line))
}

pub(super) fn tls(top: &Section<'_>, reader: &mut Reader) -> TlsSettings {
    let section = reader.section(&top.child("tls"), &keys::TLS);
    let client = reader.section(&section.child("client"), &keys::TLS_CLIENT);
    let server = reader.section(&section.child("server"), &keys::TLS_SERVER);
    TlsSettings { client: tls_client(&client, reader), server: tls_server(&server, reader) }
}

fn tls_client(section: &Section<'_>, reader: &mut Reader) -> ClientTlsSettings {
    let mode = reader.optional(section, "mode", one_of(CLIENT_MODES, &[]));
    let (cert, key) = pair(section, reader);
    let ca = pem(section, "ca", reader);
    let implied = if cert.is_some() { ClientTlsMode::Prefer } else { ClientTlsMode::Disable };
    let mode = mode.unwrap_or(implied);
    if mode != ClientTlsMode::Disable && section.field("cert").is_none() && section.field("key").is_none() {
        let message = "TLS towards clients needs a certificate: give cert and key";
        let path = section.path_of("cert");
        reader.report(Mistake::new(section.span_of("mode"), message).path(path));
    }
    ClientTlsSettings { mode, cert, key, ca }
}

fn tls_server(section: &Section<'_>, reader: &mut Reader) -> ServerTlsSettings {
    let mode = reader.optional(section, "mode", one_of(SERVER_MODES, &[])).unwrap_or_default();
    let negotiation = reader.optional(section, "negotiation", one_of(NEGOTIATIONS, &[])).unwrap_or_default();
    if negotiation == TlsNegotiation::Direct && matches!(mode, ServerTlsMode::Disable | ServerTlsMode::Prefer)
    {
        let message = "direct TLS cannot be optional: it needs mode require, verify-ca or verify-full";
        let path = section.path_of("negotiation");
        reader.report(Mistake::new(section.span_of("negotiation"), message).path(path));
    }
    let (cert, key) = pair(section, reader);
    let ca = pem(section, "ca", reader);
    ServerTlsSettings { mode, negotiation, ca, cert, key }
}

/// `cert` and `key`: both or neither.
pub(super) fn pair(section: &Section<'_>, reader: &mut Reader) -> (Option<PathBuf>, Option<PathBuf>) {
    let both = [("cert", "key"), ("key", "cert")];
    for (given, other) in both {
        if section.field(given).is_some() && section.field(other).is_none() {
            let message = format!("{given} without {other}");
            let path = section.path_of(other);
            reader.report(Mistake::new(section.span_of(given), message).path(path));
        }
    }
    (pem(section, "cert", reader), pem(section, "key", reader))
}

pub(super) fn pem(section: &Section<'_>, key: &str, reader: &mut Reader) -> Option<PathBuf> {
    let field = section.field(key)?;
    let written = reader.value(&field, text)?;
    let path = reader.file_path(&written);
    if let Err(error) = std::fs::File::open(&path) {
        reader.wrong(&field, format!("cannot read {}: {error}", path.display()));
    }
    Some(path)
}
