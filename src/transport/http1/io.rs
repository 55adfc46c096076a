use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    tls::Socket,
    transport::{
        dial::connect::be_patient,
        read_first::{Meanwhile, ReadFirst},
    },
};

/// An HTTP/1 connection that leaves a peer time to take a large body, and counts what it reads.
///
/// To TCP a peer whose program does not read for a while, since it is busy with what came so far,
/// looks like one that is gone: both let the time limit on what was written pass. Below what fits
/// into any peer's buffers it can only be gone; beyond, it is given longer, until it answers.
/// HTTP/2 has windows of its own for that, and its peers read always.
pub(in crate::transport) struct Http1Io {
    io: ReadFirst<Socket>,
    /// How much was written since something was read.
    written: usize,
    /// Reads that gave bytes.
    reads: Arc<AtomicU64>,
    user_timeout: Option<Duration>,
}

impl Http1Io {
    pub(in crate::transport) fn new(
        io: Socket,
        reads: Arc<AtomicU64>,
        user_timeout: Option<Duration>,
    ) -> Self {
        Self {
            io: ReadFirst::new(io, Meanwhile::Wait),
            written: 0,
            reads,
            user_timeout,
        }
    }

    fn be_patient(&self, within: Duration) {
        if let Some(tcp) = self.io.get_ref().tcp() {
            be_patient(tcp, within);
        }
    }

    fn wrote(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let written = ready!(polled)?;
        let before = self.written;
        self.written = before.saturating_add(written);
        if before <= ANY_BUFFER && self.written > ANY_BUFFER && self.user_timeout.is_some() {
            self.be_patient(BUSY);
        }
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Http1Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            if buf.filled().len() > before {
                self.reads.fetch_add(1, Ordering::Release);
            }
            if let (true, Some(within)) = (self.written > ANY_BUFFER, self.user_timeout) {
                self.be_patient(within);
            }
            self.written = 0;
        }
        polled
    }
}

impl AsyncWrite for Http1Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Less than what any peer's system takes that its program did not read.
const ANY_BUFFER: usize = 32 * 1024;
/// How long other clients and servers wait for the other side to go on.
const BUSY: Duration = Duration::from_secs(60);
