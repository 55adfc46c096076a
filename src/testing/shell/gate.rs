use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// While closed, what is behind it neither reads nor writes; sockets stay open, as those of a
/// process that was stopped.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    wakers: Vec<Waker>,
}

/// A socket behind two gates: everybody's and its own.
#[derive(Debug)]
pub(super) struct Gated {
    socket: TcpStream,
    gates: [Arc<Gate>; 2],
}

impl Gate {
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    pub(super) fn open(&self) {
        let mut waiting = self.lock();
        waiting.closed = false;
        for waker in waiting.wakers.drain(..) {
            waker.wake();
        }
    }

    pub(super) async fn passed(&self) {
        std::future::poll_fn(|cx| self.poll_passed(cx)).await;
    }

    fn poll_passed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if !waiting.closed {
            return Poll::Ready(());
        }
        if !waiting.wakers.iter().any(|w| w.will_wake(cx.waker())) {
            waiting.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gated {
    pub(super) fn new(socket: TcpStream, gates: [Arc<Gate>; 2]) -> Self {
        Self { socket, gates }
    }

    fn poll_passed(&self, cx: &Context<'_>) -> Poll<()> {
        let [everybody, own] = &self.gates;
        match everybody.poll_passed(cx) {
            Poll::Ready(()) => own.poll_passed(cx),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.poll_passed(cx) {
            Poll::Ready(()) => Pin::new(&mut self.socket).poll_read(cx, buf),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_passed(cx) {
            Poll::Ready(()) => Pin::new(&mut self.socket).poll_write(cx, buf),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.poll_passed(cx) {
            Poll::Ready(()) => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
