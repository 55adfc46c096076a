use std::{
    any::Any,
    fmt,
    io::{self, ErrorKind},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A socket as it is, or under TLS.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// What a connector of the user's made.
    Own(OwnIo),
    #[cfg(feature = "tls")]
    OwnTls(Box<tokio_rustls::client::TlsStream<OwnIo>>),
}

/// A stream of bytes that is not ours, and may be anything.
pub(crate) struct OwnIo(Box<dyn Io>);

trait Io: AsyncRead + AsyncWrite + Unpin + Send + Any {}

impl<I: AsyncRead + AsyncWrite + Unpin + Send + Any> Io for I {}

impl Socket {
    /// What a connector made: a TCP socket is known for one, so that all that is known of those holds.
    pub(crate) fn of<I>(io: I) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut io = Some(io);
        let any: &mut dyn Any = &mut io;
        let tcp = match any.downcast_mut::<Option<TcpStream>>() {
            Some(tcp) => tcp.take(),
            // As hyper-util's connectors hand it out, and again as hyper's reader of it.
            None => any
                .downcast_mut::<Option<TokioIo<TokioIo<TcpStream>>>>()
                .and_then(Option::take)
                .map(|io| io.into_inner().into_inner()),
        };
        match (tcp, io) {
            (Some(tcp), _) => Self::Plain(tcp),
            (None, Some(io)) => Self::Own(OwnIo(Box::new(io))),
            (None, None) => unreachable!("taken only as a TCP socket"),
        }
    }

    /// Whether a write that fails wrote nothing. Of what is not ours nobody knows.
    pub(crate) fn is_plain(&self) -> bool {
        #[cfg(unix)]
        if let Self::Own(io) = self {
            return io.unix().is_some();
        }
        self.plain().is_some()
    }

    /// The TCP socket, when what it gives is what the peer said.
    pub(crate) const fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            _ => None,
        }
    }

    /// The TCP socket underneath, for its options, if it is known.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            #[cfg(feature = "tls")]
            Self::Tls(socket) => Some(socket.get_ref().0),
            Self::Own(_) => None,
            #[cfg(feature = "tls")]
            Self::OwnTls(_) => None,
        }
    }

    /// What the system knows of the socket underneath.
    fn peek(&self) -> Option<io::Result<usize>> {
        let mut byte = [MaybeUninit::uninit()];
        if let Some(tcp) = self.tcp() {
            return Some(SockRef::from(tcp).peek(&mut byte));
        }
        #[cfg(unix)]
        match self {
            Self::Own(own) => Some(SockRef::from(own.unix()?).peek(&mut byte)),
            #[cfg(feature = "tls")]
            Self::OwnTls(io) => Some(SockRef::from(io.get_ref().0.unix()?).peek(&mut byte)),
            _ => None,
        }
        #[cfg(not(unix))]
        None
    }

    const fn is_tls(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Own(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(_) | Self::OwnTls(_) => true,
        }
    }
}

#[cfg(unix)]
impl OwnIo {
    fn unix(&self) -> Option<&tokio::net::UnixStream> {
        let own: &dyn Any = &*self.0;
        own.downcast_ref()
    }
}

/// What knows of its end before a runtime says so.
pub(crate) trait HasEnded {
    /// How it ended, if the peer has closed it and everything that came was read, as far as the system
    /// knows now. One system call.
    fn ended(&self) -> Option<io::Result<()>>;
}

impl HasEnded for Socket {
    fn ended(&self) -> Option<io::Result<()>> {
        match self.peek()? {
            Ok(0) if !self.is_tls() => Some(Ok(())),
            // What TLS says of an end is read, and this is one without.
            Ok(0) => Some(Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the peer closed the connection without TLS's close_notify",
            ))),
            Ok(_) => None,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => None,
                _ => Some(Err(error)), // the system says it once
            },
        }
    }
}

macro_rules! on_either {
    ($self:ident, $socket:ident => $what:expr) => {
        match $self.get_mut() {
            Self::Plain($socket) => $what,
            #[cfg(feature = "tls")]
            Self::Tls($socket) => $what,
            Self::Own($socket) => $what,
            #[cfg(feature = "tls")]
            Self::OwnTls($socket) => $what,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, socket => Pin::new(socket).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, socket => Pin::new(socket).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, socket => Pin::new(socket).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, socket => Pin::new(socket).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::Tls(socket) => socket.is_write_vectored(),
            Self::Own(socket) => socket.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::OwnTls(socket) => socket.is_write_vectored(),
        }
    }
}

impl AsyncRead for OwnIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for OwnIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl fmt::Debug for OwnIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnIo")
    }
}
