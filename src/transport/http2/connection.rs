use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    PingPong,
    client::{self, SendRequest},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, oneshot},
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::{
    endpoint,
    tls::Socket,
    transport::{dial::dialler::DialError, options::Options, service::Connections, spawn::spawn},
};

/// One HTTP/2 connection. It closes when this is dropped and its streams have ended.
pub(in crate::transport) struct Connection {
    sender: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// A stream's place on a connection: counted until dropped.
pub(in crate::transport) struct Slot {
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

/// What calls and the connection's task know of each other.
#[derive(Default)]
struct Shared {
    /// The peer's limit of streams; 0 until its SETTINGS came.
    limit: AtomicUsize,
    in_use: AtomicUsize,
    closed: AtomicBool,
    answered: AtomicBool,
    /// Whether calls were begun that the task has not seen.
    begun: AtomicBool,
    /// Reads that gave bytes.
    reads: AtomicU64,
    /// Writes that took bytes.
    writes: AtomicU64,
    /// That a PING was not answered, in words.
    silence: OnceLock<String>,
    /// Told when the peer takes more streams than before, and of the end.
    changed: Arc<Notify>,
}

/// The task of a connection.
struct Driver {
    connection: client::Connection<Listened, Bytes>,
    shared: Arc<Shared>,
    /// Told when the peer's SETTINGS came, or why they will not.
    settled: Option<oneshot::Sender<Result<(), h2::Error>>>,
    ping: Option<Ping>,
    /// Whether it has let other tasks go first since it was woken.
    yielded: bool,
}

/// Looks after a peer that is silent while streams are open.
struct Ping {
    ping_pong: PingPong,
    after: Duration,
    within: Duration,
    timer: Pin<Box<Sleep>>,
    /// The time of the last byte, or since when streams are open; `None` while none is.
    heard: Option<Instant>,
    reads: u64,
    asked: bool,
}

/// A socket that counts what it gives and takes.
struct Listened {
    io: Socket,
    shared: Arc<Shared>,
}

/// Shakes hands and waits for the peer's SETTINGS: only then is it known that it speaks HTTP/2,
/// and how many streams it takes.
///
/// `changed` is told when it takes more streams than before, and of its end.
pub(in crate::transport) async fn shake_hands(
    io: Socket,
    options: &Options,
    changed: &Arc<Notify>,
) -> Result<Connection, DialError> {
    let within = options.handshake_timeout;
    match timeout(within, settle(io, options, changed)).await {
        Ok(settled) => settled,
        Err(_) => Err(DialError::late(format!(
            "no HTTP/2 SETTINGS that allow a stream within {within:?}"
        ))),
    }
}

async fn settle(
    io: Socket,
    options: &Options,
    changed: &Arc<Notify>,
) -> Result<Connection, DialError> {
    let shared = Arc::new(Shared {
        changed: Arc::clone(changed),
        ..Shared::default()
    });
    let listened = Listened {
        io,
        shared: Arc::clone(&shared),
    };
    let shaken = client::Builder::new()
        .enable_push(false)
        .initial_max_send_streams(0) // until SETTINGS say
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(options.max_header_size)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake::<_, Bytes>(listened)
        .await;
    let (sender, mut connection) = shaken.map_err(|error| not_http2(&error))?;
    let ping = options.ping.and_then(|(after, within)| {
        Some(Ping {
            ping_pong: connection.ping_pong()?,
            after,
            within,
            timer: Box::pin(sleep_until(endpoint::now() + after)),
            heard: None,
            reads: 0,
            asked: false,
        })
    });
    let (settled, settles) = oneshot::channel();
    spawn(Driver {
        connection,
        shared: Arc::clone(&shared),
        settled: Some(settled),
        ping,
        yielded: false,
    });
    match settles.await {
        Ok(Ok(())) => Ok(Connection { sender, shared }),
        Ok(Err(error)) => Err(not_http2(&error)),
        Err(_) => Err(DialError::new(
            "it closed the connection instead of an HTTP/2 handshake",
        )),
    }
}

fn not_http2(error: &h2::Error) -> DialError {
    DialError::new(format!(
        "no HTTP/2 handshake with it: {error}; it may speak HTTP/1 or TLS on this port"
    ))
}

impl Connection {
    pub(in crate::transport) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// No further call takes it.
    pub(in crate::transport) fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
    }

    /// Whether the peer takes no stream at all.
    pub(in crate::transport) fn takes_none(&self) -> bool {
        self.shared.limit.load(Ordering::Relaxed) == 0
    }

    pub(in crate::transport) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// A call is about to be begun.
    pub(in crate::transport) fn beginning(&self) {
        self.shared.begun.store(true, Ordering::Release);
    }

    /// A response came.
    pub(in crate::transport) fn answered(&self) {
        if !self.has_answered() {
            self.shared.answered.store(true, Ordering::Relaxed);
        }
    }

    pub(in crate::transport) fn has_answered(&self) -> bool {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// How often something was written. What was handed to the connection after a look at this
    /// was not written for as long as another look says the same.
    pub(in crate::transport) fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Acquire)
    }

    /// That it was given up since a PING was not answered.
    pub(in crate::transport) fn silence(&self) -> Option<&str> {
        self.shared.silence.get().map(|text| &**text)
    }
}

impl Slot {
    pub(in crate::transport) fn take(
        connection: &Arc<Connection>,
        connections: &Arc<Connections>,
    ) -> Option<Self> {
        let shared = &connection.shared;
        if connection.is_closed() {
            return None;
        }
        let before = shared.in_use.fetch_add(1, Ordering::SeqCst);
        if before >= shared.limit.load(Ordering::Relaxed) {
            shared.in_use.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(Self {
            connection: Arc::clone(connection),
            connections: Arc::clone(connections),
        })
    }

    pub(in crate::transport) const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(in crate::transport) const fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.shared.in_use.fetch_sub(1, Ordering::SeqCst);
        self.connections.http2.freed();
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // A runtime runs next whom a task wakes, so each call would be written alone, at a system
        // call each, while the calls of tasks that are ready as well stand behind it. One round of
        // theirs costs little, and what they begin goes out in the same write.
        if this.shared.begun.swap(false, Ordering::AcqRel) && !this.yielded {
            this.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.yielded = false;
        if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(cx) {
            this.shared.closed.store(true, Ordering::Release);
            if let (Some(settled), Err(error)) = (this.settled.take(), ended) {
                let _ = settled.send(Err(error));
            }
            return Poll::Ready(());
        }
        let limit = this.connection.max_concurrent_send_streams();
        if limit > this.shared.limit.swap(limit, Ordering::Relaxed) {
            this.shared.changed.notify_waiters();
        }
        if limit > 0
            && let Some(settled) = this.settled.take()
        {
            let _ = settled.send(Ok(()));
        }
        if let Some(ping) = &mut this.ping
            && ping.poll(cx, &this.shared).is_ready()
        {
            let text = format!(
                "it was silent for {:?} and did not answer a PING",
                ping.after
            );
            let _ = this.shared.silence.set(text);
            this.shared.closed.store(true, Ordering::Release);
            return Poll::Ready(()); // dropping the connection ends its streams
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Also with its runtime.
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
    }
}

impl Ping {
    /// Ready when the peer is given up.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<()> {
        if shared.in_use.load(Ordering::Relaxed) == 0 {
            self.heard = None;
            return Poll::Pending; // the next stream wakes the task
        }
        let reads = shared.reads.load(Ordering::Relaxed);
        if reads != self.reads || self.heard.is_none() {
            let now = endpoint::now();
            if self.heard.is_none() || self.asked {
                self.timer.as_mut().reset(now + self.after);
            }
            self.reads = reads;
            self.asked = false;
            self.heard = Some(now);
        }
        let _ = self.ping_pong.poll_pong(cx);
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = endpoint::now();
            let heard = self.heard.unwrap_or(now);
            if !self.asked && heard + self.after <= now {
                // Fails while an earlier one is out, which asks the same.
                let _ = self.ping_pong.send_ping(h2::Ping::opaque());
                self.asked = true;
            }
            let due = if self.asked {
                heard + self.after + self.within
            } else {
                heard + self.after
            };
            if self.asked && due <= now {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }
}

impl Listened {
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        let written = match polled {
            Poll::Ready(Ok(_)) => true,
            // TLS fails with what it had written before still uncounted: a record of a request may
            // have gone out ahead of the one that failed.
            Poll::Ready(Err(_)) => self.io.plain().is_none(),
            Poll::Pending => false,
        };
        if written {
            self.shared.writes.fetch_add(1, Ordering::Release);
        }
    }
}

impl AsyncRead for Listened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.shared.reads.fetch_add(1, Ordering::Relaxed);
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
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(&polled);
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
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// As hyper's client has them: room for what a peer within reach sends in a round trip.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 5 * 1024 * 1024;
const SEND_BUFFER: usize = 1024 * 1024;
