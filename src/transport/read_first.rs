use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{endpoint, tls::HasEnded};

/// A connection on which what arrived wins over what is to be written.
///
/// A server that answers an upload before its end and closes makes our next write fail, while its
/// answer lies in the socket, where it stays readable after RST too (Linux keeps what it received).
/// Who drives a protocol gives up at the first failure of either direction. So a failed write is
/// told only after everything was read: which is at once where there is nothing, since a connection
/// that takes nothing more has ended for reading as well.
///
/// And a runtime learns of a peer's end when it next looks, which on a busy machine is a while after
/// the system knows: a request that is written in between is lost for nothing. So who reads before
/// the first write of an exchange asks the system, if the connection was quiet for [`QUIET`]. Seen in
/// `benches/requests` on two busy cores: after one of three servers was killed 5 of 94 calls were
/// written to sockets that it had closed.
pub(super) struct ReadFirst<I> {
    io: I,
    meanwhile: Meanwhile,
    failed: Option<io::Error>,
    /// Whether reading has come to an end, or an error.
    drained: bool,
    /// What went over it last.
    last: Last,
    /// Who waits to write.
    writer: Option<Waker>,
}

/// What went over a connection last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// The peer's bytes; who reads looks for more at once.
    Read,
    /// The same, and there are no more: the next who looks is about to write. Since when, or since the
    /// system was asked last.
    Quiet(Instant),
    Written,
}

/// A connection on which something came more recently is not looked at. In `benches/requests` a look
/// before each exchange took HTTP/1 with 16 callers from 0.98 to 0.85 of hyper-util's speed; a runtime
/// is seldom later than this with what a busy connection brings.
const QUIET: Duration = Duration::from_millis(1);

/// What becomes of writes between the one that failed and the end of reading.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// They wait: there may be any amount of them.
    Wait,
    /// They go nowhere: HTTP/2 writes acknowledgements before it reads on, and no more of a body
    /// than the peer's windows had room for.
    Discard,
}

impl<I> ReadFirst<I> {
    pub(super) fn new(io: I, meanwhile: Meanwhile) -> Self {
        Self {
            io,
            meanwhile,
            failed: None,
            drained: false,
            last: Last::Quiet(endpoint::now()),
            writer: None,
        }
    }

    pub(super) const fn get_ref(&self) -> &I {
        &self.io
    }

    /// Whether a write failed.
    pub(super) const fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Whether nothing that is written goes out any more: a write failed, or all was read that will come.
    /// HTTP/2 has told its calls of that end by then, and to some that they were not written; a peer that
    /// only closed its own side would take what goes out after that.
    pub(super) fn is_over(&self) -> bool {
        self.has_failed() || self.drained && self.meanwhile == Meanwhile::Discard
    }

    /// What a write comes to after one that failed.
    fn after_failure<T>(&mut self, cx: &Context<'_>, discarded: T) -> Poll<io::Result<T>> {
        match &self.failed {
            Some(error) if self.drained => {
                Poll::Ready(Err(io::Error::new(error.kind(), error.to_string())))
            }
            _ if self.meanwhile == Meanwhile::Discard => Poll::Ready(Ok(discarded)),
            _ => {
                self.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn wrote<T>(
        &mut self,
        cx: &Context<'_>,
        polled: Poll<io::Result<T>>,
        discarded: T,
    ) -> Poll<io::Result<T>> {
        match ready!(polled) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(error) => {
                self.failed = Some(error);
                cx.waker().wake_by_ref(); // to read what is there
                self.after_failure(cx, discarded)
            }
        }
    }
}

impl<I: AsyncRead + HasEnded + Unpin> AsyncRead for ReadFirst<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        let mut polled = Pin::new(&mut self.io).poll_read(cx, buf);
        match self.last {
            _ if buf.remaining() < before => self.last = Last::Read,
            Last::Read => self.last = Last::Quiet(endpoint::now()),
            Last::Quiet(since) if polled.is_pending() => {
                let now = endpoint::now();
                if now.saturating_duration_since(since) >= QUIET {
                    self.last = Last::Quiet(now);
                    if let Some(ended) = self.io.ended() {
                        polled = Poll::Ready(ended);
                    }
                }
            }
            Last::Quiet(_) | Last::Written => {}
        }
        let over = match &polled {
            Poll::Ready(Ok(())) => before > 0 && buf.remaining() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if over && !self.drained {
            self.drained = true;
            if let Some(writer) = self.writer.take() {
                writer.wake();
            }
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for ReadFirst<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over() {
            return self.after_failure(cx, buf.len());
        }
        self.last = Last::Written;
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(cx, polled, buf.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_some() {
            return self.after_failure(cx, ());
        }
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.wrote(cx, polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_over() {
            return self.after_failure(cx, length);
        }
        self.last = Last::Written;
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Gives this and then its end; takes nothing.
    struct Answered(&'static [u8]);

    impl AsyncRead for Answered {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let (one, rest) = self.0.split_at(self.0.len().min(1));
            buf.put_slice(one);
            self.0 = rest;
            Poll::Ready(Ok(()))
        }
    }

    impl HasEnded for Answered {
        fn ended(&self) -> Option<io::Result<()>> {
            self.0.is_empty().then_some(Ok(()))
        }
    }

    impl AsyncWrite for Answered {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_came_is_read_before_a_failed_write_is_told() {
        let mut io = ReadFirst::new(Answered(b"413"), Meanwhile::Wait);
        for _ in 0..2 {
            let mut cx = Context::from_waker(Waker::noop());
            let writing = Pin::new(&mut io).poll_write(&mut cx, b"upload");
            assert!(writing.is_pending());
        }
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"413");
        let error = io.write(b"upload").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn meanwhile_http2_writes_into_the_void() {
        let mut io = ReadFirst::new(Answered(b"413"), Meanwhile::Discard);
        io.write_all(b"upload").await.unwrap();
        assert!(io.has_failed());
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"413");
        assert!(io.write_all(b"more").await.is_err());
    }

    impl HasEnded for tokio::io::DuplexStream {
        fn ended(&self) -> Option<io::Result<()>> {
            None // the pipe says so itself
        }
    }

    /// A peer that closed its own side reads on, and would process what it gets.
    #[tokio::test]
    async fn after_a_peer_s_end_http2_writes_nothing_more_and_http1_its_upload() {
        for (meanwhile, expected) in [(Meanwhile::Discard, ""), (Meanwhile::Wait, "more")] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let mut io = ReadFirst::new(ours, meanwhile);
            theirs.shutdown().await.unwrap();
            assert_eq!(io.read(&mut [0]).await.unwrap(), 0);
            io.write_all(b"more").await.unwrap();
            drop(io);
            let mut arrived = String::new();
            theirs.read_to_string(&mut arrived).await.unwrap();
            assert_eq!(arrived, expected);
        }
    }

    /// Gives one byte and then nothing, until the system says that it is broken.
    struct Broken(bool);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Pending;
            }
            buf.put_slice(b"x");
            Poll::Ready(Ok(()))
        }
    }

    impl HasEnded for Broken {
        fn ended(&self) -> Option<io::Result<()>> {
            Some(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    /// A body that ends with its connection would pass for whole.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_broke_is_no_clean_end() {
        let mut io = ReadFirst::new(Broken(false), Meanwhile::Wait);
        assert_eq!(io.read_u8().await.unwrap(), b'x');
        let mut buf = [0];
        let mut buf = ReadBuf::new(&mut buf);
        let mut cx = Context::from_waker(Waker::noop());
        // Who has read looks for more at once, and again before it writes: nobody asks the system so
        // soon.
        for _ in 0..3 {
            assert!(Pin::new(&mut io).poll_read(&mut cx, &mut buf).is_pending());
        }
        tokio::time::advance(QUIET).await;
        let ended = Pin::new(&mut io).poll_read(&mut cx, &mut buf);
        let Poll::Ready(Err(error)) = ended else {
            panic!("{ended:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
