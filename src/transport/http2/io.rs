use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    tls::HasEnded,
    transport::{
        http2::{frames::Frames, told::Streams},
        read_first::{Meanwhile, ReadFirst},
    },
};

/// What went over a connection.
#[derive(Default)]
pub(in crate::transport) struct Traffic {
    /// Reads that gave bytes.
    pub(in crate::transport) reads: AtomicU64,
    /// Those among them in which the peer said something of its own accord.
    pub(in crate::transport) said: AtomicU64,
    /// Writes of which bytes may have gone out.
    pub(in crate::transport) writes: AtomicU64,
    /// What the peer told of streams.
    pub(in crate::transport) streams: Streams,
}

/// A socket that counts what it gives and takes.
pub(in crate::transport) struct Http2Io<I> {
    io: ReadFirst<I>,
    /// Whether a write that fails has written nothing.
    plain: bool,
    frames: Frames,
    traffic: Arc<Traffic>,
}

impl<I> Http2Io<I> {
    pub(in crate::transport) fn new(io: I, plain: bool, traffic: Arc<Traffic>) -> Self {
        Self {
            io: ReadFirst::new(io, Meanwhile::Discard),
            plain,
            frames: Frames::default(),
            traffic,
        }
    }

    /// Whether writes were `over` before, and what came of this one.
    fn wrote(&self, over: bool, polled: &Poll<io::Result<usize>>) {
        if over || polled.is_pending() {
            return;
        }
        // TLS fails with what it had written before still uncounted: a record of a request may
        // have gone out ahead of the one that failed.
        if !self.io.has_failed() || !self.plain {
            self.traffic.writes.fetch_add(1, Ordering::Release);
        }
    }
}

impl<I: AsyncRead + HasEnded + Unpin> AsyncRead for Http2Io<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            this.traffic.reads.fetch_add(1, Ordering::Relaxed);
            let streams = &this.traffic.streams;
            streams.begin();
            if this.frames.scan(read, |told| streams.note(told)) {
                this.traffic.said.fetch_add(1, Ordering::Relaxed);
            }
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Http2Io<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let over = self.io.is_over();
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(over, &polled);
        polled
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
        let over = self.io.is_over();
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(over, &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes one write and fails the next.
    struct Once(bool);

    impl AsyncWrite for Once {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = !std::mem::replace(&mut self.0, true);
            let broken = || io::ErrorKind::BrokenPipe.into();
            Poll::Ready(taken.then_some(buf.len()).ok_or_else(broken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A request is sent again if nothing was written since it was handed over: so what may have
    /// gone out must count.
    #[tokio::test]
    async fn a_failed_write_counts_under_tls_and_what_is_discarded_does_not() {
        for (plain, expected) in [(true, 1), (false, 2)] {
            let traffic: Arc<Traffic> = Arc::default();
            let mut io = Http2Io::new(Once(false), plain, Arc::clone(&traffic));
            for _ in 0..4 {
                io.write_all(b"request").await.unwrap();
            }
            let writes = traffic.writes.load(Ordering::Acquire);
            assert_eq!(writes, expected, "plain: {plain}");
        }
    }
}
