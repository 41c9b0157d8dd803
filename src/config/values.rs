//! Single values: durations, sizes, numbers, addresses, words of a closed list.

use crate::config::nearest::nearest;
use crate::config::reader::Wrong;
use crate::config::settings::{Endpoint, Listen, Place};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// `unix` sockets' paths are at most this long (`sun_path`, less its final zero).
const SOCKET_PATH_MAX: usize = 107;

/// Where Patroni's API listens unless it is told otherwise.
const PATRONI_PORT: u16 = 8008;

/// Any text but the empty one.
pub fn text(value: &str) -> Result<String, Wrong> {
    if value.is_empty() {
        return Err("must not be empty".into());
    }
    if value.contains('\0') {
        return Err("must not contain a zero byte".into());
    }
    Ok(value.to_owned())
}

/// A whole number within `range`.
pub fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&str) -> Result<T, Wrong>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    move |value| {
        let digits: String = value.chars().filter(|c| *c != '_').collect();
        let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !whole {
            return Err(format!("expected a whole number, found \"{value}\"").into());
        }
        match digits.parse::<T>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("must be between {} and {}, found {value}", range.start(), range.end()).into()),
        }
    }
}

/// `100ms`, `3s`, `10m`, `1h`, `2d`, or a sum such as `1h30m`, within `range`.
pub fn duration(range: RangeInclusive<Duration>) -> impl FnOnce(&str) -> Result<Duration, Wrong> {
    move |value| {
        let duration = parse_duration(value)?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (from, to) = (show_duration(*range.start()), show_duration(*range.end()));
        Err(format!("must be between {from} and {to}, found {value}").into())
    }
}

/// A duration, or `off` for none.
pub fn duration_or_off(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&str) -> Result<Option<Duration>, Wrong> {
    move |value| match value {
        "off" | "never" => Ok(None),
        other => duration(range)(other).map(Some),
    }
}

fn parse_duration(value: &str) -> Result<Duration, Wrong> {
    let wrong = || format!("expected a duration such as 100ms, 3s, 10m or 1h, found \"{value}\"");
    let mut rest = value;
    let mut total = Duration::ZERO;
    if rest == "0" {
        return Ok(total);
    }
    if rest.is_empty() {
        return Err(wrong().into());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let millis = number.checked_mul(unit_millis(unit).ok_or_else(wrong)?).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(millis)).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(total)
}

fn unit_millis(unit: &str) -> Option<u64> {
    match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

/// A duration as a file would have it.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]
        .into_iter()
        .find(|(unit, _)| millis != 0 && millis.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// Bytes: a number, with `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`, `TiB`; within `range`.
pub fn size(range: RangeInclusive<u64>) -> impl FnOnce(&str) -> Result<u64, Wrong> {
    move |value| {
        let wrong = || format!("expected a size such as 64MiB, 1GiB or bytes, found \"{value}\"");
        let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let (digits, unit) = value.split_at(end);
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(unit_bytes(unit.trim()).ok_or_else(wrong)?).ok_or_else(wrong)?;
        if range.contains(&bytes) {
            return Ok(bytes);
        }
        let (from, to) = (show_size(*range.start()), show_size(*range.end()));
        Err(format!("must be between {from} and {to}, found {value}").into())
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    match unit {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    }
}

/// A size as a file would have it.
pub fn show_size(bytes: u64) -> String {
    match [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
    {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// One of `words`; `later` are known words that this version cannot do yet.
pub fn one_of<T: Copy>(
    words: &'static [(&'static str, T)],
    later: &'static [&'static str],
) -> impl FnOnce(&str) -> Result<T, Wrong> {
    move |value| {
        if let Some((_, found)) = words.iter().find(|(word, _)| *word == value) {
            return Ok(*found);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let valid = names.join(", ");
        if later.contains(&value) {
            return Err(format!("\"{value}\" is not supported by this version (supported: {valid})").into());
        }
        let message = format!("unknown value \"{value}\" (valid: {valid})");
        Err(Wrong { message, nearest: nearest(value, names) })
    }
}

/// `host:port`, `[::1]:port`, `*:port` or `unix:/path`.
pub fn listen(value: &str) -> Result<Listen, Wrong> {
    if let Some(path) = value.strip_prefix("unix:") {
        return socket_path(path);
    }
    let wrong = || format!("expected an address such as 127.0.0.1:6432 or unix:/path, found \"{value}\"");
    let (host, port) = value.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| format!("\"{port}\" is not a port (0 to 65535)"))?;
    let host = match host {
        "*" | "" => "0.0.0.0",
        other => other.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(other),
    };
    let named = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if host.parse::<IpAddr>().is_err() && !named {
        return Err(wrong().into());
    }
    Ok(Listen::Tcp { host: host.to_owned(), port })
}

fn socket_path(path: &str) -> Result<Listen, Wrong> {
    if !path.starts_with('/') {
        return Err(format!("the path of a Unix socket must be absolute, found \"{path}\"").into());
    }
    if path.len() > SOCKET_PATH_MAX {
        return Err(format!("the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes").into());
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

/// `http://host:port` or `https://host:port`; the port is Patroni's unless it is there.
pub fn endpoint(value: &str) -> Result<Endpoint, Wrong> {
    let wrong = || format!("expected a URL such as https://10.0.0.1:8008, found \"{value}\"");
    let (scheme, rest) = value.split_once("://").ok_or_else(wrong)?;
    let encrypted = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(wrong().into()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("a URL has no password in it: give user, and password or password_file".into());
    }
    if let Some((_, path)) = rest.split_once('/') {
        return Err(format!("a URL of the API has no path, found \"/{path}\"").into());
    }
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            let port = port.parse().map_err(|_| format!("\"{port}\" is not a port (1 to 65535)"))?;
            (name, port)
        }
        _ => (rest, PATRONI_PORT),
    };
    if port == 0 {
        return Err("\"0\" is not a port (1 to 65535)".into());
    }
    let name = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
    if name.starts_with('/') {
        return Err(wrong().into());
    }
    Ok(Endpoint { encrypted, host: host(name)?, port })
}

/// `ip:port`, or `off` for none.
pub fn http(value: &str) -> Result<Option<SocketAddr>, Wrong> {
    match value {
        "off" => Ok(None),
        other => match other.replacen("localhost:", "127.0.0.1:", 1).replacen("*:", "0.0.0.0:", 1).parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => {
                Err(format!("expected an address such as 127.0.0.1:9632, or off, found \"{value}\"").into())
            }
        },
    }
}

/// A node's host: a name, an address, or the folder of a Unix socket; no port in it.
pub fn host(value: &str) -> Result<String, Wrong> {
    let value = text(value)?;
    if value.contains("://") {
        return Err(format!("expected a host name or address, found a URL: \"{value}\"").into());
    }
    if value.starts_with('/') || value.parse::<IpAddr>().is_ok() {
        return Ok(value);
    }
    if let Some((_, port)) = value.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        let message = format!("a host has no port in it: write port: {port}");
        return Err(Wrong { message, nearest: None });
    }
    let named = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !named {
        return Err(format!("\"{value}\" is not a host name or address").into());
    }
    Ok(value)
}

/// A host, with or without a port: `replica-b.example:5433`, `10.0.0.1`, `[::1]:5433`.
pub fn place(value: &str) -> Result<Place, Wrong> {
    let whole = |value: &str| host(value).map(|host| Place { host, port: None });
    if value.contains("://") || value.parse::<IpAddr>().is_ok() {
        return whole(value);
    }
    if let Some(inner) = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return whole(inner);
    }
    let Some((name, port)) = value.rsplit_once(':') else { return whole(value) };
    let port = match port.parse() {
        Ok(port @ 1..) => port,
        _ => return Err(format!("\"{port}\" is not a port (1 to 65535)").into()),
    };
    let name = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
    Ok(Place { host: host(name)?, port: Some(port) })
}

#[cfg(test)]
mod tests;
