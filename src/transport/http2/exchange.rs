//! HTTP/2: one connection for all calls, more when the peer's stream limit is reached.
//!
//! On `h2` itself and not on hyper's client: that hands requests through a channel to a task of its
//! own, does not say whether a stream was opened before a connection failed, and queues beyond the
//! peer's limit.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, Response};
use http_body::Body as _;
use tokio::{sync::Notify, time::timeout};

pub(in crate::transport) use crate::transport::http2::connection::{Connection, shake_hands};
use crate::{
    sync::Published,
    transport::{
        Body, ErrorKind, Evidence, ResponseBody,
        body::recording::Recording,
        body::request::Kind,
        dial::dialler::DialError,
        form,
        http2::connection::Slot,
        http2::failure::{Sent, judge, not_opened},
        http2::upload::{AbortOnDrop, Upload},
        service::{Connected, Connections, Failed, Mode},
        spawn::spawn,
    },
};

/// The connections to one instance.
pub(in crate::transport) struct Pool {
    list: Published<Vec<Arc<Connection>>>,
    state: Mutex<State>,
    /// Calls that wait for a place on a connection.
    waiting: AtomicUsize,
    /// Told of each place and each connection, and of the end.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    dialling: Option<Arc<Dial>>,
    closed: bool,
}

/// One dial, for all who wait.
#[derive(Default)]
pub(in crate::transport) struct Dial(OnceLock<Result<(), DialError>>);

/// Ends a dial, also when it panicked.
struct Dialling {
    connections: Arc<Connections>,
    dial: Arc<Dial>,
}

/// Counts a call that waits.
struct Waiting<'a>(&'a AtomicUsize);

/// Waits for a place on a connection, and dials if there are too few; none if the instance turned
/// out to speak HTTP/1.
pub(in crate::transport) async fn acquire(
    connections: &Arc<Connections>,
    orphan: bool,
) -> Result<Option<Slot>, DialError> {
    let pool = &connections.http2;
    if orphan {
        return match connections.connect().await? {
            Connected::Http2(connection) => Ok(Slot::take(&Arc::new(connection), connections)),
            Connected::Http1(sender) => {
                connections.http1.lend(sender);
                connections.set_mode(Mode::Http1);
                Ok(None)
            }
        };
    }
    let patience = connections.plan.options.handshake_timeout;
    let _waiting = Waiting::new(&pool.waiting);
    let mut dials = 0;
    let mut dial: Option<Arc<Dial>> = None;
    loop {
        let changed = pool.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable(); // whatever happens after this wakes us
        if connections.mode() == Mode::Http1 {
            return Ok(None);
        }
        if let Some(slot) = pool.try_acquire(connections) {
            return Ok(Some(slot));
        }
        if connections.is_retired() {
            return Err(DialError::retired());
        }
        match dial.as_ref().map(|dial| dial.0.get()) {
            None => {
                dial = pool.dial(connections);
            }
            Some(None) => {}
            // Its places went to others, or it closed already.
            Some(Some(Ok(()))) if dials < MOST_DIALS => {
                dials += 1;
                dial = pool.dial(connections);
            }
            Some(Some(Ok(()))) if pool.is_empty() => {
                let text = "it closes each connection as soon as that is made";
                return Err(DialError::new(text));
            }
            Some(Some(Ok(()))) => {}
            Some(Some(Err(error))) if pool.is_empty() => return Err(error.clone()),
            Some(Some(Err(_))) => {} // the others' places are what is left to wait for
        }
        if timeout(patience, changed).await.is_err() {
            pool.retire_those_that_take_none();
        }
    }
}

/// Sends the request and waits for the response's headers.
pub(in crate::transport) async fn exchange(
    connections: &Arc<Connections>,
    slot: Slot,
    request: Request<Body>,
) -> Result<Response<ResponseBody>, Failed> {
    let (parts, body) = request.into_parts();
    let secure = connections.is_secure();
    let head = match form::for_http2(&parts, &body, &connections.named, secure) {
        Ok(head) => head,
        Err(why) => {
            return Err(Failed::Error(connections.error(
                ErrorKind::Request,
                Evidence::Unsent,
                format!("the request cannot be sent: {why}"),
            )));
        }
    };
    let ends = body.is_end_stream();
    let writes = slot.connection().writes();
    let mut send = slot.connection().sender();
    slot.connection().beginning();
    let (response, mut stream) = match send.send_request(head, ends) {
        Ok(opened) => opened,
        Err(error) => {
            let request = Request::from_parts(parts, body);
            return Err(not_opened(connections, &slot, error, request));
        }
    };
    drop(send);
    if stream.stream_id().as_u32() > LAST_STREAM {
        connections.http2.retire(slot.connection()); // its ids run out; the next call takes another
    }
    let mut held = Held::Own(slot);
    let sent = match body.0 {
        _ if ends => Sent::Empty,
        Kind::Empty => Sent::Empty,
        Kind::Full(bytes) => {
            // What the peer's window has no room for waits inside of h2, by reference. If the
            // stream is closed already, the response says why.
            let _ = stream.send_data(bytes.clone(), true);
            Sent::Full(bytes)
        }
        Kind::Stream(body) => {
            let recording = Arc::new(Recording::new(body));
            let mut upload = Upload::new(Arc::clone(&recording), stream);
            // Most bodies are all there: then no task is needed.
            let done = std::future::poll_fn(|cx| std::task::Poll::Ready(upload.poll(cx))).await;
            if done.is_pending() {
                held = held.share(|with| {
                    let task = spawn(async move {
                        upload.await;
                        drop(with);
                    });
                    AbortOnDrop::new(task.abort_handle())
                });
            }
            Sent::Stream(recording)
        }
    };
    match response.await {
        Ok(response) => {
            if let Sent::Stream(recording) = &sent {
                recording.settle();
            }
            held.slot().connection().answered();
            Ok(response.map(|body| ResponseBody::http2(body, held)))
        }
        Err(error) => {
            let unwritten = held.slot().connection().writes() == writes;
            let slot = held.slot();
            let failed = judge(connections, slot, error, unwritten, parts, sent);
            drop(held); // not before: an upload that is given up looks like one that failed
            Err(failed)
        }
    }
}

/// A place on a connection, perhaps shared with the task that still sends the request's body.
pub(in crate::transport) enum Held {
    Own(Slot),
    /// With what ends that task when this is dropped.
    Shared(Arc<Slot>, AbortOnDrop),
}

impl Held {
    /// Shares it with a task that ends when this is dropped, unless it [`end`](Self::end)ed.
    fn share(self, task: impl FnOnce(Arc<Slot>) -> AbortOnDrop) -> Self {
        let slot = match self {
            Self::Own(slot) => Arc::new(slot),
            Self::Shared(slot, _) => slot,
        };
        let task = task(Arc::clone(&slot));
        Self::Shared(slot, task)
    }

    /// All of the response came: what is still sent may go on.
    pub(in crate::transport) fn end(self) {
        if let Self::Shared(_, uploading) = self {
            uploading.disarm();
        }
    }

    pub(in crate::transport) fn slot(&self) -> &Slot {
        match self {
            Self::Own(slot) => slot,
            Self::Shared(slot, _) => slot,
        }
    }
}

impl Pool {
    /// A place on a connection that has one.
    pub(in crate::transport) fn try_acquire(&self, connections: &Arc<Connections>) -> Option<Slot> {
        let list = self.list.load();
        let mut list = list.get()?.iter();
        list.find_map(|connection| Slot::take(connection, connections))
    }

    fn is_empty(&self) -> bool {
        let list = self.list.load();
        let list = list.get().map_or(&[][..], |list| list);
        list.iter().all(|connection| connection.is_closed())
    }

    /// Joins the dial that is going on, or begins one unless there are connections enough.
    pub(in crate::transport) fn dial(&self, connections: &Arc<Connections>) -> Option<Arc<Dial>> {
        let mut state = self.lock();
        if let Some(dial) = &state.dialling {
            return Some(Arc::clone(dial));
        }
        self.prune();
        let open = self.list.load_full().map_or(0, |list| list.len());
        if open >= connections.plan.options.max_connections {
            return None;
        }
        let dial = Arc::new(Dial::default());
        state.dialling = Some(Arc::clone(&dial));
        let dialling = Dialling {
            connections: Arc::clone(connections),
            dial: Arc::clone(&dial),
        };
        drop(state);
        spawn(dialling.run());
        Some(dial)
    }

    /// Takes in a connection.
    pub(in crate::transport) fn add(&self, connection: Connection) {
        let state = self.lock();
        if state.closed {
            return;
        }
        self.replace(|list| list.push(Arc::new(connection)));
        drop(state);
        self.changed.notify_waiters();
    }

    /// No further call takes this connection.
    pub(in crate::transport) fn retire(&self, connection: &Arc<Connection>) {
        connection.close();
        let _state = self.lock();
        self.prune();
    }

    /// A peer that takes no streams for so long as it may take to say how many it takes is as good
    /// as gone: what is in flight goes on, and the next call finds another connection or none.
    fn retire_those_that_take_none(&self) {
        let list = self.list.load_full();
        for connection in list.iter().flat_map(|list| list.iter()) {
            if connection.takes_none() {
                self.retire(connection);
            }
        }
    }

    pub(in crate::transport) const fn changed(&self) -> &Arc<Notify> {
        &self.changed
    }

    /// Drops what has closed. The state is locked.
    fn prune(&self) {
        let list = self.list.load_full();
        if list.is_some_and(|list| list.iter().any(|c| c.is_closed())) {
            self.replace(|list| list.retain(|c| !c.is_closed()));
        }
    }

    fn replace(&self, change: impl FnOnce(&mut Vec<Arc<Connection>>)) {
        let mut list = self
            .list
            .load_full()
            .map_or_else(Vec::new, |list| (*list).clone());
        change(&mut list);
        self.list.store(Arc::new(list));
    }

    /// A place was given back.
    pub(in crate::transport) fn freed(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_one();
        }
    }

    /// Lets go of all connections: each closes once its calls have ended.
    pub(in crate::transport) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let list = self.list.swap(None);
        drop(state);
        drop(list);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialling {
    async fn run(self) {
        let connections = &self.connections;
        let connected = tokio::select! {
            biased;
            connected = connections.connect() => connected,
            () = connections.retirement() => Err(DialError::retired()),
        };
        let outcome = match connected {
            Ok(Connected::Http2(connection)) => {
                connections.http2.add(connection);
                connections.set_mode(Mode::Http2);
                Ok(())
            }
            Ok(Connected::Http1(sender)) => {
                connections.http1.lend(sender);
                connections.set_mode(Mode::Http1);
                Ok(())
            }
            Err(error) => Err(error),
        };
        let _ = self.dial.0.set(outcome);
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        // With its runtime it was given up for no fault of the instance: who waits dials anew.
        let given_up = || match std::thread::panicking() {
            true => Err(DialError::new("its dial panicked")),
            false => Ok(()),
        };
        let _ = self.dial.0.get_or_init(given_up);
        let pool = &self.connections.http2;
        pool.lock().dialling = None;
        pool.changed.notify_waiters();
    }
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            list: Published::empty(),
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
            changed: Arc::default(),
        }
    }
}

/// How often a call dials, as long as that succeeds.
const MOST_DIALS: u32 = 16;
/// Streams have odd ids below 2^31; the last million is left.
const LAST_STREAM: u32 = (1 << 31) - (1 << 20);
