//! From the first byte to the startup packet: encryption, asked for or begun at once, and cancel requests.

use crate::fault::{Fault, SqlState};
use crate::net::stream::{Socket, Stream};
use crate::net::tls::{ALPN, ClientTls};
use crate::relay::cancel;
use crate::relay::context::Context;
use crate::wire::startup::{self, FirstPacket, Offers, Startup, StartupError};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Why a connection ends before it has begun.
pub enum Refusal {
    /// It is told why.
    Fault(Fault),
    /// It would not understand; the log says why.
    Untold(Fault),
    /// It is gone.
    Silent,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::Fault(fault)
    }
}

impl From<StartupError> for Refusal {
    fn from(error: StartupError) -> Refusal {
        let fault = Fault::client(error.sqlstate(), error.to_string());
        Refusal::Fault(match error {
            StartupError::Replication(_) => {
                fault.hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")
            }
            _ => fault,
        })
    }
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Refusal {
        Refusal::Silent
    }
}

/// Everything up to the startup packet; `None` behind a cancel request.
pub async fn negotiate(
    context: &Arc<Context>,
    place: &mut Option<Stream>,
) -> Result<Option<Startup>, Refusal> {
    let mut offers = Offers::default();
    if begins_with_tls(place).await? {
        direct_tls(context, place).await?;
    }
    loop {
        let stream = place.as_mut().ok_or(Refusal::Silent)?;
        match read_first_packet(stream).await? {
            FirstPacket::Startup(startup) => return Ok(Some(startup)),
            FirstPacket::Cancel { pid, secret } => {
                cancel::cancel(context, pid, &secret).await;
                return Ok(None);
            }
            FirstPacket::GssEncRequest => {
                offers.on_gss_request()?;
                refuse_what_follows(stream, "received unencrypted data after GSSAPI encryption request")?;
                stream.write_all(b"N").await?;
            }
            FirstPacket::SslRequest => {
                offers.on_ssl_request()?;
                refuse_what_follows(stream, "received unencrypted data after SSL request")?;
                if answer_ssl_request(context, place).await? {
                    offers.close();
                }
            }
        }
    }
}

async fn read_first_packet(stream: &mut Stream) -> Result<FirstPacket, Refusal> {
    let mut packet = vec![0; 4];
    stream.read_exact(&mut packet).await?;
    let len = startup::packet_len(&packet)?.ok_or(Refusal::Silent)?;
    packet.resize(len, 0);
    stream.read_exact(&mut packet[4..]).await?;
    Ok(startup::parse(&packet)?)
}

/// Whoever waits for the answer to its request has nothing to say before: what is there was stuffed in
/// behind it, perhaps by somebody in the middle. (What comes later is taken for TLS, and fails there.)
fn refuse_what_follows(stream: &Stream, message: &'static str) -> Result<(), Fault> {
    if !stream.has_unread() {
        return Ok(());
    }
    Err(Fault::client(SqlState::PROTOCOL_VIOLATION, message).detail(
        "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
    ))
}

/// True if the connection is encrypted now.
async fn answer_ssl_request(context: &Context, place: &mut Option<Stream>) -> Result<bool, Refusal> {
    let tls = context.client_tls.load_full();
    match (place.take(), tls) {
        (Some(Stream::Tcp(mut tcp)), Some(tls)) => {
            // The request was read to its last byte and no further.
            tcp.write_all(b"S").await?;
            *place = Some(encrypt(&tls, tcp).await?);
            Ok(true)
        }
        (other, _) => {
            // Over Unix sockets and inside of TLS there is none to be had either.
            place.insert(other.ok_or(Refusal::Silent)?).write_all(b"N").await?;
            Ok(false)
        }
    }
}

async fn encrypt(tls: &ClientTls, tcp: TcpStream) -> Result<Stream, Refusal> {
    // Failed handshakes are answered by TLS itself.
    let encrypted = tls.acceptor().accept(Socket::new(tcp)).await.map_err(|error| {
        Refusal::Untold(Fault::client(SqlState::PROTOCOL_VIOLATION, format!("TLS handshake failed: {error}")))
    })?;
    Ok(Stream::Tls(Box::new(encrypted.into())))
}

/// Does a client begin with TLS, without asking (`sslnegotiation=direct`)? Looks, and takes nothing.
async fn begins_with_tls(place: &Option<Stream>) -> Result<bool, Refusal> {
    let Some(Stream::Tcp(tcp)) = place else { return Ok(false) };
    let mut first = [0];
    match tcp.peek(&mut first).await? {
        0 => Err(Refusal::Silent),
        _ => Ok(startup::is_tls(first[0])),
    }
}

/// TLS from the first byte. Only for those who name the protocol inside of it: a web browser that was
/// talked into connecting here does not.
async fn direct_tls(context: &Context, place: &mut Option<Stream>) -> Result<(), Refusal> {
    let untold =
        |message: &'static str| Refusal::Untold(Fault::client(SqlState::PROTOCOL_VIOLATION, message));
    let Some(tls) = context.client_tls.load_full() else {
        return Err(untold("received direct SSL connection request, but TLS is not configured"));
    };
    let Some(Stream::Tcp(tcp)) = place.take() else { return Err(Refusal::Silent) };
    let stream = encrypt(&tls, tcp).await?;
    if stream.application_protocol() != Some(ALPN) {
        return Err(untold(
            "received direct SSL connection request without ALPN protocol negotiation extension",
        ));
    }
    *place = Some(stream);
    Ok(())
}
