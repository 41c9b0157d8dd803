//! One byte stream, whatever carries it.

use socket2::SockRef;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A connection to a client or to a server.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<Socket>>),
}

/// A connection that no runtime looks after.
#[derive(Debug)]
pub enum Detached {
    /// Plain TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
    /// TLS, and the socket below it.
    Tls(Box<TlsStream<Socket>>, std::net::TcpStream),
}

impl Detached {
    /// Gives it to the runtime of the calling thread.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Detached::Tcp(socket) => Stream::Tcp(TcpStream::from_std(socket)?),
            Detached::Unix(socket) => Stream::Unix(UnixStream::from_std(socket)?),
            Detached::Tls(mut stream, socket) => {
                stream.get_mut().0.0 = Some(TcpStream::from_std(socket)?);
                Stream::Tls(stream)
            }
        })
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Detached::Tcp(socket) | Detached::Tls(_, socket) => socket.as_fd(),
            Detached::Unix(socket) => socket.as_fd(),
        }
    }
}

/// The TCP socket below TLS, which can be moved to another runtime while TLS stays as it is.
#[derive(Debug)]
pub struct Socket(Option<TcpStream>);

impl Socket {
    /// To be encrypted.
    pub fn new(stream: TcpStream) -> Socket {
        Socket(Some(stream))
    }

    fn take(&mut self) -> io::Result<std::net::TcpStream> {
        self.0.take().ok_or_else(lost)?.into_std()
    }

    fn stream(&self) -> io::Result<&TcpStream> {
        self.0.as_ref().ok_or_else(lost)
    }

    fn pinned(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.0.as_mut().map(Pin::new).ok_or_else(lost)
    }
}

/// It could not be moved.
fn lost() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl Stream {
    /// Moves it to the runtime of the calling worker, so that its readiness wakes nobody elsewhere.
    pub fn settle(self) -> io::Result<Stream> {
        self.detach()?.attach()
    }

    /// Takes it from its runtime, which asks the kernel about it no more, and keeps nothing for it.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Stream::Tcp(stream) => Detached::Tcp(stream.into_std()?),
            Stream::Unix(stream) => Detached::Unix(stream.into_std()?),
            Stream::Tls(mut stream) => {
                let socket = stream.get_mut().0.take()?;
                Detached::Tls(stream, socket)
            }
        })
    }

    /// Is it encrypted?
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// The protocol that was agreed on inside of TLS.
    pub fn application_protocol(&self) -> Option<&[u8]> {
        match self {
            Stream::Tls(tls) => tls.get_ref().1.alpn_protocol(),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// Have bytes come that nobody has read yet? Looks at the socket itself, below TLS, and takes nothing.
    pub fn has_unread(&self) -> bool {
        let looked = match self {
            Stream::Tcp(stream) => stream.try_io(Interest::READABLE, || look(stream)),
            Stream::Unix(stream) => stream.try_io(Interest::READABLE, || look(stream)),
            Stream::Tls(stream) => {
                stream.get_ref().0.stream().and_then(|tcp| tcp.try_io(Interest::READABLE, || look(tcp)))
            }
        };
        looked.is_ok_and(|len| len > 0)
    }

    /// Waits until the other side has ended the stream with nothing unread before the end.
    pub async fn gone(&self) {
        let looked = match self {
            Stream::Tcp(stream) => stream.async_io(Interest::READABLE, || look(stream)).await,
            Stream::Unix(stream) => stream.async_io(Interest::READABLE, || look(stream)).await,
            Stream::Tls(stream) => match stream.get_ref().0.stream() {
                Ok(tcp) => tcp.async_io(Interest::READABLE, || look(tcp)).await,
                Err(lost) => Err(lost),
            },
        };
        if looked.is_ok_and(|len| len > 0) {
            // It has more to say, which is read before its end is.
            std::future::pending::<()>().await;
        }
    }

    /// Reads into `into`; `Ok(0)` is the end of the stream.
    #[inline]
    pub fn poll_read_some(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        let polled = match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, &mut buffer),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    /// Writes as much of `bytes` as the socket takes.
    #[inline]
    pub fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    /// Pushes out what TLS holds back; nothing to do elsewhere.
    #[inline]
    pub fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    /// Has the other side closed it, or sent something unasked? Asks the runtime's readiness, not the kernel.
    pub fn is_disturbed(&mut self) -> bool {
        let mut one = [0_u8; 1];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        !matches!(self.poll_read_some(&mut cx, &mut one), Poll::Pending)
    }
}

/// The number of bytes (of one) that could be read; an error, also that there are none yet.
fn look<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<usize> {
    socket.into().peek(&mut [MaybeUninit::uninit()])
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().pinned()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().pinned()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().pinned()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().pinned()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().pinned()?.poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_some(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush_all(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
