//! Many clients in one process, for benchmarks: opens them (SCRAM, with TLS if asked), lets them idle, lets each
//! run a query, closes them; logs in again and again; moves bulk. Told what to do on standard input, a line each:
//! `open 10000`, `query`, `close`, `login 2000`, `run CLIENTS SECONDS` (of those that are open, as fast as they can),
//! `ask SQL` (reads and drops the answer), `copy MEGABYTES SQL` (COPY … FROM STDIN); answers each with a line of JSON.
//!
//! `cargo run --release --example crowd -- --port 6432 --user app --password … --database app`
//!
//! `--certificate FOLDER` writes cert.pem and key.pem for a TLS server there, and does nothing else.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use pgweir::auth::keys::{DerivedKeys, ProcessSecret};
use pgweir::auth::secret::{Password, ServerCredential};
use pgweir::auth::server_login::{CleartextPolicy, ServerLogin, ServerLoginStep};
use pgweir::net::stream::Stream;
use pgweir::net::tls::{ServerTls, TlsOpening, TlsServerSideMode, TlsServerSideSettings};
use pgweir::pool::connect::open_stream;
use pgweir::wire::backend::{self, TransactionStatus};
use pgweir::wire::writers;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Anything = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    /// Write cert.pem and key.pem to this folder, and nothing else
    #[arg(long)]
    certificate: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[arg(long, default_value = "")]
    user: String,
    #[arg(long, default_value = "")]
    password: String,
    #[arg(long, default_value = "")]
    database: String,
    /// Encrypt
    #[arg(long)]
    tls: bool,
    /// How many do something at a time
    #[arg(long, default_value_t = 16)]
    at_once: usize,
}

/// How to log in.
struct Door {
    args: Args,
    tls: ServerTls,
    keys: DerivedKeys,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Anything> {
    let args = Args::parse();
    if let Some(folder) = &args.certificate {
        return write_certificate(folder);
    }
    let mode = if args.tls { TlsServerSideMode::Require } else { TlsServerSideMode::Disable };
    let tls = ServerTls::load(&TlsServerSideSettings { mode, opening: TlsOpening::Asked, ca: None })?;
    let door = Door { args, tls, keys: DerivedKeys::new(16, ProcessSecret::new([7; 32])) };
    let mut held = Vec::new();
    // Between two commands there is nothing that a blocked thread would keep from running.
    for line in std::io::stdin().lines() {
        let line = line?;
        let began = Instant::now();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        let count = first.parse().unwrap_or(0);
        let mut done = count as u64;
        match word {
            "open" => {
                let more: Vec<Stream> = stream::iter(0..count)
                    .map(|_| log_in(&door))
                    .buffer_unordered(door.args.at_once)
                    .try_collect()
                    .await?;
                held.extend(more);
            }
            "query" => {
                stream::iter(&mut held)
                    .map(query)
                    .buffer_unordered(door.args.at_once)
                    .try_collect::<Vec<()>>()
                    .await?;
            }
            "close" => {
                stream::iter(held.drain(..))
                    .map(close)
                    .buffer_unordered(door.args.at_once)
                    .try_collect::<Vec<()>>()
                    .await?;
            }
            "login" => {
                stream::iter(0..count)
                    .map(|_| async {
                        let mut stream = log_in(&door).await?;
                        query(&mut stream).await?;
                        close(stream).await
                    })
                    .buffer_unordered(door.args.at_once)
                    .try_collect::<Vec<()>>()
                    .await?;
            }
            "run" => {
                let until = began + Duration::from_secs_f64(second.parse()?);
                let goes = held.iter_mut().take(count).map(|stream| busy(stream, until));
                done = futures_util::future::try_join_all(goes).await?.iter().sum();
            }
            "ask" => done = ask(&mut log_in(&door).await?, rest.as_bytes()).await?,
            "copy" => done = copy_in(&mut log_in(&door).await?, count, second.as_bytes()).await?,
            _ => return Err(format!("unknown command: {line}").into()),
        }
        let seconds = began.elapsed().as_secs_f64();
        println!("{}", json!({ "did": word, "done": done, "held": held.len(), "seconds": seconds }));
    }
    Ok(())
}

fn write_certificate(folder: &Path) -> Result<(), Anything> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    std::fs::write(folder.join("cert.pem"), made.cert.pem())?;
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(())
}

async fn log_in(door: &Door) -> Result<Stream, Anything> {
    let Door { args, tls, keys } = door;
    let mut stream =
        open_stream("127.0.0.1", None, args.port, tls).await.map_err(|fault| format!("{fault:?}"))?;
    let mut out = Vec::new();
    writers::startup(&mut out, 0, [("user", args.user.as_str()), ("database", &args.database)]);
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut nonce = [0; 18];
    pgweir::net::random_fill(&mut nonce);
    let credential = ServerCredential::Password(Password::new(args.password.as_bytes()));
    let mut login = ServerLogin::new(&args.user, credential, nonce, CleartextPolicy::Refuse);
    let mut messages = Messages::default();
    loop {
        let frame = messages.next(&mut stream).await?;
        match frame.first() {
            Some(b'R') => {
                let (code, body) = backend::authentication(frame).ok_or("no authentication message")?;
                let step = login.on_authentication(code, body, keys).map_err(|fault| format!("{fault:?}"))?;
                if let ServerLoginStep::Send(bytes) = step {
                    stream.write_all(&bytes).await?;
                    stream.flush().await?;
                }
            }
            Some(b'E') => return Err(String::from_utf8_lossy(frame).into_owned().into()),
            Some(b'Z') => return Ok(stream),
            _ => {}
        }
    }
}

async fn query(stream: &mut Stream) -> Result<(), Anything> {
    let mut out = Vec::new();
    writers::query(&mut out, b"SELECT 1");
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut messages = Messages::default();
    loop {
        match messages.next(stream).await?.first() {
            Some(b'E') => return Err("the query failed".into()),
            Some(b'Z') => return Ok(()),
            _ => {}
        }
    }
}

/// Transactions that one client has done by then.
async fn busy(stream: &mut Stream, until: Instant) -> Result<u64, Anything> {
    let mut done = 0;
    let mut messages = Messages::default();
    let mut out = Vec::new();
    while Instant::now() < until {
        out.clear();
        let text = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {}", 1 + done % 100_000);
        writers::query(&mut out, text.as_bytes());
        stream.write_all(&out).await?;
        stream.flush().await?;
        while messages.next(stream).await?.first() != Some(&b'Z') {}
        done += 1;
    }
    Ok(done)
}

/// The bytes of an answer, which nobody keeps.
async fn ask(stream: &mut Stream, sql: &[u8]) -> Result<u64, Anything> {
    let mut out = Vec::new();
    writers::query(&mut out, sql);
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut data = vec![0; 256 * 1024];
    let (mut all, mut last) = (0, [0; 6]);
    while last != writers::ready(TransactionStatus::Idle) {
        let len = stream.read(&mut data).await?;
        if len == 0 || data[0] == b'E' {
            return Err(format!("the answer broke off: {}", String::from_utf8_lossy(&data[..len])).into());
        }
        all += len as u64;
        // Its end may come in two pieces.
        let seen = [&last[..], &data[len.saturating_sub(6)..len]].concat();
        last = seen[seen.len() - 6..].try_into()?;
    }
    Ok(all)
}

async fn copy_in(stream: &mut Stream, megabytes: usize, sql: &[u8]) -> Result<u64, Anything> {
    let mut messages = Messages::default();
    let mut out = Vec::new();
    writers::query(&mut out, sql);
    stream.write_all(&out).await?;
    stream.flush().await?;
    while messages.next(stream).await?.first() != Some(&b'G') {}
    out.clear();
    // A row to a message, as libpq's users send them, in writes of 64 KiB.
    let row = [vec![b'x'; 999], vec![b'\n']].concat();
    while out.len() < 64 * 1024 {
        writers::message(&mut out, b'd', |body| body.extend_from_slice(&row));
    }
    let mut all = 0;
    while all < megabytes as u64 * 1_000_000 {
        stream.write_all(&out).await?;
        all += out.len() as u64;
    }
    stream.write_all(b"c\0\0\0\x04").await?;
    stream.flush().await?;
    loop {
        match messages.next(stream).await?.first() {
            Some(b'E') => return Err("COPY failed".into()),
            Some(b'Z') => return Ok(all),
            _ => {}
        }
    }
}

async fn close(mut stream: Stream) -> Result<(), Anything> {
    stream.write_all(b"X\0\0\0\x04").await?;
    stream.flush().await?;
    // Until the other end has gone too: its cost is part of what is measured.
    while stream.read(&mut [0; 64]).await.is_ok_and(|len| len > 0) {}
    Ok(())
}

/// Cuts what comes into messages, with few reads.
#[derive(Default)]
struct Messages {
    data: Vec<u8>,
    done: usize,
}

impl Messages {
    async fn next(&mut self, stream: &mut Stream) -> Result<&[u8], Anything> {
        self.data.drain(..self.done);
        self.done = 0;
        loop {
            if let Some(length) = self.data.get(1..5) {
                let len = 1 + length.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
                if self.data.len() >= len {
                    self.done = len;
                    return Ok(&self.data[..len]);
                }
            }
            if stream.read_buf(&mut self.data).await? == 0 {
                return Err("the connection was closed".into());
            }
        }
    }
}
