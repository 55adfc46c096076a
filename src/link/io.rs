use std::{
    io::{self, Read},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::Socket;

/// What a socket has given so far: its first bytes and when it last gave any.
///
/// The first bytes tell a wrong port from a broken server. The time is when a push left the
/// socket, which is where the promise about eviction begins to count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    first: Vec<u8>,
    last: Option<Instant>,
    tls: bool,
    tls_failure: Option<String>,
}

/// A socket that keeps a [`Heard`].
#[pin_project::pin_project]
pub(super) struct Listened {
    #[pin]
    socket: Socket,
    heard: Heard,
}

const FIRST: usize = 16;

/// What a peer is that answers plain words with TLS.
pub(crate) const SPEAKS_TLS: &str = "it speaks TLS; switch TLS on or give the plain port";

impl Listened {
    /// A peer that answered and closed makes our next write fail; what it said is still to be
    /// read, and says what it is.
    fn hear_last_words(&self) {
        let mut buf = [0; FIRST];
        // Past tokio, whose readiness may not have caught up. The socket does not block.
        let Some(socket) = self.socket.plain() else {
            return;
        };
        if let Ok(n) = (&*SockRef::from(socket)).read(&mut buf)
            && n > 0
        {
            self.heard.note(&buf[..n]);
        }
    }
}

impl Heard {
    pub(super) fn on(&self, socket: Socket) -> Listened {
        self.lock().tls = socket.plain().is_none();
        Listened {
            socket,
            heard: self.clone(),
        }
    }

    /// When the socket last gave bytes.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.lock().last
    }

    /// Whether what was heard came through TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.lock().tls
    }

    /// What the peer's TLS objected to after the handshake: in TLS 1.3 that is when it sees our
    /// certificate.
    pub(super) fn tls_failure(&self) -> Option<String> {
        self.lock().tls_failure.clone()
    }

    /// What the peer is, if its first bytes show that it is not a gRPC server.
    pub(super) fn not_grpc(&self) -> Option<&'static str> {
        let record = self.lock();
        let first = &*record.first;
        if first.starts_with(b"HTTP/1.") {
            Some(
                "it speaks HTTP/1; give the server's main port (8848), to which 1000 is added, or name the gRPC port as host:8848/9848",
            )
        } else if matches!(first, [0x15, 0x03, ..]) {
            Some(SPEAKS_TLS)
        } else if first.len() >= 4 && first[3] != 0x04 {
            // The first frame of an HTTP/2 server is SETTINGS, type 4.
            Some("it speaks neither HTTP/2 nor gRPC; this is no Nacos gRPC port")
        } else {
            None
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, bytes: &[u8]) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the moment when bytes left the socket"
        )]
        let now = tokio::time::Instant::now().into_std();
        let mut record = self.lock();
        record.last = Some(now);
        let room = FIRST - record.first.len();
        record
            .first
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl AsyncRead for Listened {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = this.socket.poll_read(cx, buf);
        #[cfg(feature = "tls")]
        if let Poll::Ready(Err(error)) = &polled
            && this.heard.is_tls()
        {
            this.heard.lock().tls_failure = Some(super::tls::explain(error));
        }
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            this.heard.note(new);
        }
        polled
    }
}

impl AsyncWrite for Listened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.as_mut().project().socket.poll_write(cx, buf);
        if matches!(polled, Poll::Ready(Err(_))) {
            self.hear_last_words();
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().socket.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().socket.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.as_mut().project().socket.poll_write_vectored(cx, bufs);
        if matches!(polled, Poll::Ready(Err(_))) {
            self.hear_last_words();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
