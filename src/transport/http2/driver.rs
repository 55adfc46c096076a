use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{PingPong, Reason, client};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    endpoint,
    tls::{HasEnded, Socket},
    transport::http2::{
        connection::Streams,
        io::Http2Io,
        ladder::{Ladder, Step},
    },
};

/// The task of a connection.
pub(in crate::transport) struct Driver<I = Socket>
where
    I: AsyncRead + AsyncWrite + HasEnded + Unpin,
{
    pub(in crate::transport) connection: client::Connection<Http2Io<I>, Bytes>,
    pub(in crate::transport) state: Arc<Streams>,
    /// No more streams than this, whatever the peer says.
    pub(in crate::transport) most_streams: usize,
    /// Told when the peer's SETTINGS came, or why they will not.
    pub(in crate::transport) settled: Option<oneshot::Sender<Result<(), h2::Error>>>,
    /// Told when the peer takes more streams than before, and when it takes no more calls.
    pub(in crate::transport) changed: Box<dyn Fn() + Send>,
    pub(in crate::transport) ping: Option<Ping>,
    pub(in crate::transport) idle: Option<Idle>,
    pub(in crate::transport) age: Option<Pin<Box<Sleep>>>,
    /// How often peers of this instance complained of too many PINGs.
    pub(in crate::transport) complaints: Arc<AtomicU32>,
    /// Whether it has let other tasks go first since it was woken.
    pub(in crate::transport) yielded: bool,
    /// Whether the connection has ended by itself, all that came being looked at.
    pub(in crate::transport) ended: bool,
}

/// Looks after a peer that is silent while streams are open.
pub(in crate::transport) struct Ping {
    ping_pong: PingPong,
    ladder: Ladder,
    first: Duration,
    timer: Pin<Box<Sleep>>,
    /// For when the timer is set.
    due: Instant,
    reads: u64,
    said: u64,
}

/// Looks after a connection that nobody uses.
pub(in crate::transport) struct Idle {
    within: Duration,
    timer: Pin<Box<Sleep>>,
    said: u64,
}

impl<I: AsyncRead + AsyncWrite + HasEnded + Unpin> Driver<I> {
    fn is_unused(&self) -> bool {
        self.state.in_use.load(Ordering::SeqCst) == 0
    }

    /// No further call takes it; whether it may end at once.
    fn retire(&self) -> bool {
        self.state.closed.store(true, Ordering::SeqCst);
        (self.changed)();
        self.is_unused()
    }

    /// Ready when the connection is to end.
    fn poll_lifetime(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let old = self.age.as_mut();
        if old.is_some_and(|age| age.as_mut().poll(cx).is_ready()) {
            self.age = None;
            if self.retire() {
                return Poll::Ready(());
            }
        }
        let unused = self.is_unused();
        let said = self.state.traffic.said.load(Ordering::Relaxed);
        while let Some(idle) = &mut self.idle
            && idle.timer.as_mut().poll(cx).is_ready()
        {
            idle.timer.as_mut().reset(endpoint::now() + idle.within);
            // Since the last look nothing was answered: it was idle for all that time.
            if std::mem::replace(&mut idle.said, said) == said && unused {
                self.idle = None;
                if self.retire() {
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }
}

impl<I: AsyncRead + AsyncWrite + HasEnded + Unpin> Future for Driver<I> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // A runtime runs next whom a task wakes, so each call would be written alone, at a system
        // call each, while the calls of tasks that are ready as well stand behind it. One round of
        // theirs costs little, and what they begin goes out in the same write.
        if this.state.begun.swap(false, Ordering::AcqRel) && !this.yielded {
            this.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.yielded = false;
        if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(cx) {
            this.ended = true;
            this.state.closed.store(true, Ordering::SeqCst);
            if let Err(error) = ended {
                if is_complaint(&error) {
                    this.complaints.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(settled) = this.settled.take() {
                    let _ = settled.send(Err(error));
                }
            }
            return Poll::Ready(());
        }
        let limit = this.connection.max_concurrent_send_streams();
        let limit = limit.min(this.most_streams);
        let before = this.state.limit.swap(limit, Ordering::Relaxed);
        if limit > before || limit == 0 && before > 0 {
            (this.changed)();
        }
        if limit > 0
            && let Some(settled) = this.settled.take()
        {
            let _ = settled.send(Ok(()));
        }
        if let Some(ping) = &mut this.ping
            && ping.poll(cx, &this.state).is_ready()
        {
            let text = format!(
                "nobody answers: it was silent for {:?} and did not answer a PING",
                ping.first
            );
            let _ = this.state.silence.set(text);
            this.state.closed.store(true, Ordering::SeqCst);
            return Poll::Ready(()); // dropping the connection ends its streams
        }
        this.poll_lifetime(cx)
    }
}

impl<I: AsyncRead + AsyncWrite + HasEnded + Unpin> Drop for Driver<I> {
    /// Also with its runtime. What was read and not looked at goes with it: before the calls on it learn
    /// that, no answer of theirs counts as complete.
    fn drop(&mut self) {
        if !self.ended {
            self.state.traffic.streams.forget_ends();
        }
        self.state.closed.store(true, Ordering::SeqCst);
        (self.changed)();
    }
}

impl Ping {
    pub(in crate::transport) fn new(
        ping_pong: PingPong,
        first: Duration,
        within: Duration,
    ) -> Self {
        let now = endpoint::now();
        Self {
            ping_pong,
            ladder: Ladder::new(first, within, now),
            first,
            timer: Box::pin(sleep_until(now + first)),
            due: now + first,
            reads: 0,
            said: 0,
        }
    }

    /// Ready when the peer is given up.
    fn poll(&mut self, cx: &mut Context<'_>, state: &Streams) -> Poll<()> {
        let open = state.in_use.load(Ordering::Relaxed) > 0;
        let mut now = endpoint::now();
        let traffic = &state.traffic;
        let reads = traffic.reads.load(Ordering::Relaxed);
        if reads != self.reads {
            self.reads = reads;
            self.ladder.answered();
            let said = traffic.said.load(Ordering::Relaxed);
            if std::mem::replace(&mut self.said, said) != said {
                self.ladder.said(now);
            }
        }
        let _ = self.ping_pong.poll_pong(cx);
        loop {
            match self.ladder.step(now, open) {
                Step::Rest(None) => return Poll::Pending, // the next stream wakes the task
                Step::Rest(Some(due)) => {
                    // A timer that is early asks again; one that is late would miss it.
                    if due < self.due || self.timer.is_elapsed() {
                        self.timer.as_mut().reset(due);
                        self.due = due;
                    }
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    now = endpoint::now();
                }
                // Fails while an earlier one is out, which asks the same.
                Step::Ping => drop(self.ping_pong.send_ping(h2::Ping::opaque())),
                Step::GiveUp => return Poll::Ready(()),
            }
        }
    }
}

impl Idle {
    pub(in crate::transport) fn new(within: Duration) -> Self {
        Self {
            within,
            timer: Box::pin(sleep_until(endpoint::now() + within)),
            said: u64::MAX,
        }
    }
}

/// Whether a peer closed the connection since it had too many PINGs: gRPC's servers say so.
pub(in crate::transport) fn is_complaint(error: &h2::Error) -> bool {
    error.is_go_away()
        && error.is_remote()
        && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
        && error.to_string().contains("too_many_pings")
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod dropped;
#[cfg(test)]
#[path = "ping_tests.rs"]
mod tests;
