//! A socket as it is, or under TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::DialError;
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::model::Host;

/// How connections to servers are secured.
#[derive(Clone, Debug, Default)]
pub(crate) enum Security {
    #[default]
    Plain,
    #[cfg(feature = "tls")]
    Tls(Tls),
}

/// What is spoken on a connection; a server with TLS wants to know beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A connection to a server, secured or not.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Security {
    pub(crate) const fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// Shakes hands, if it is to be TLS. `host` is the configured one, which the certificate must
    /// be for unless another name was given.
    pub(crate) async fn secure(
        &self,
        socket: TcpStream,
        host: &Host,
        protocol: Protocol,
    ) -> Result<Stream, DialError> {
        match self {
            Self::Plain => {
                let _ = (host, protocol);
                Ok(Stream::Plain(socket))
            }
            #[cfg(feature = "tls")]
            Self::Tls(tls) => {
                let stream = tls.shake_hands(socket, host, protocol).await?;
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }
}

impl Stream {
    /// The socket, when what it gives is what the server said.
    pub(super) const fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            #[cfg(feature = "tls")]
            Self::Tls(_) => None,
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

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, socket => Pin::new(socket).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
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
