use std::{
    io::{self, ErrorKind},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

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
}

impl Socket {
    /// The socket, when what it gives is what the peer said.
    pub(crate) const fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            #[cfg(feature = "tls")]
            Self::Tls(_) => None,
        }
    }

    /// The socket underneath, for its options.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(socket) => socket.get_ref().0,
        }
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
        match SockRef::from(self.tcp()).peek(&mut [MaybeUninit::uninit()]) {
            Ok(0) if self.plain().is_some() => Some(Ok(())),
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
        }
    }
}
