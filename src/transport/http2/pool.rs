use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    sync::Published,
    tls::HasEnded,
    transport::{
        dial::error::DialError,
        http2::{connection::Http2Connection, handshake, options::Http2Options},
        peer::Peer,
        queue::{Joined, Queue, Reply},
    },
};

/// The HTTP/2 connections to one instance, and the calls that wait for a place on one.
pub(in crate::transport) struct Http2Pool {
    pub(in crate::transport) peer: Arc<Peer>,
    pub(in crate::transport) options: Http2Options,
    list: Published<Vec<Arc<Http2Connection>>>,
    state: Mutex<State>,
    /// Calls that wait: while there are any no other call goes before them.
    waiting: AtomicUsize,
    /// Whether a dial failed just now while connections were open: the instance serves those it has, and
    /// takes no more.
    refuses: AtomicBool,
    /// How often the instance complained of too many PINGs.
    complaints: Arc<AtomicU32>,
}

struct State {
    queue: Queue<Place, DialError>,
    dialling: bool,
    closed: bool,
}

/// A stream's place on a connection: counted until dropped, and then for who waits longest.
pub(in crate::transport) struct Place {
    connection: Arc<Http2Connection>,
    pool: Arc<Http2Pool>,
}

/// What a call that needs a place is to do.
pub(in crate::transport) enum Need {
    /// Wait, and dial if there is a turn to.
    Wait(Wait, Option<Dialling>),
    /// Wait for what others give back: there will be no further connection for now.
    Full(Wait),
    /// The instance left.
    Retired,
}

/// A call that waits for a place. What it was given when it is dropped is for the next.
pub(in crate::transport) struct Wait {
    pool: Arc<Http2Pool>,
    joined: Joined<Place, DialError>,
}

/// The one turn to dial, for all who wait; dropped without an outcome it was given up.
pub(in crate::transport) struct Dialling {
    pool: Arc<Http2Pool>,
    over: bool,
}

/// After a dial that failed while connections are open: until this is dropped there is no other, unless
/// they all end.
pub(in crate::transport) struct Rest(Arc<Http2Pool>);

impl Http2Pool {
    pub(in crate::transport) fn new(peer: Arc<Peer>, options: Http2Options) -> Self {
        Self {
            peer,
            options,
            list: Published::empty(),
            state: Mutex::new(State {
                queue: Queue::new(),
                dialling: false,
                closed: false,
            }),
            waiting: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
            complaints: Arc::default(),
        }
    }

    /// A place on a connection that has one, unless others wait for that.
    pub(in crate::transport) fn try_acquire(self: &Arc<Self>) -> Option<Place> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return None;
        }
        self.place()
    }

    fn place(self: &Arc<Self>) -> Option<Place> {
        let list = self.list.load();
        let connection = list.get()?.iter().find(|c| c.occupy())?;
        Some(Place {
            connection: Arc::clone(connection),
            pool: Arc::clone(self),
        })
    }

    /// Waits for a place, at the `turn` it had before.
    pub(in crate::transport) fn wait(self: &Arc<Self>, turn: Option<u64>) -> Need {
        let mut state = self.lock();
        if state.closed {
            return Need::Retired;
        }
        let joined = state.queue.join(turn, false);
        // Counted before it looks: a place that is given back after that is handed over.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let left = self.serve(&mut state);
        let dialling = self.may_dial(&mut state);
        // Whoever dials tells all who wait what came of it; if nobody does, nobody will.
        let is_left = !state.dialling && state.queue.has(joined.turn);
        let is_full = is_left && self.is_full();
        drop(state);
        drop(left);
        let pool = Arc::clone(self);
        let wait = Wait { pool, joined };
        match is_full {
            true => Need::Full(wait),
            false => Need::Wait(wait, dialling),
        }
    }

    /// The turn to dial, if somebody waits for that, or `ahead` of any call.
    pub(in crate::transport) fn dial(self: &Arc<Self>, ahead: bool) -> Option<Dialling> {
        let mut state = self.lock();
        if !ahead && state.queue.is_empty() {
            return None;
        }
        self.turn(&mut state)
    }

    fn may_dial(self: &Arc<Self>, state: &mut State) -> Option<Dialling> {
        (!state.queue.is_empty()).then(|| self.turn(state))?
    }

    fn turn(self: &Arc<Self>, state: &mut State) -> Option<Dialling> {
        if state.dialling || state.closed || !self.may_have_more() {
            return None;
        }
        state.dialling = true;
        Some(Dialling {
            pool: Arc::clone(self),
            over: false,
        })
    }

    /// Whether a dial may come to a further connection.
    fn may_have_more(&self) -> bool {
        let open = self.open();
        open == 0 || open < self.options.max_connections && !self.refuses.load(Ordering::SeqCst)
    }

    /// How many connections take calls.
    fn open(&self) -> usize {
        let list = self.list.load();
        let list = list.get().map_or(&[][..], |list| list);
        list.iter().filter(|c| !c.is_closed()).count()
    }

    /// Whether all places on as many connections as there may be are taken, or as can be had now.
    /// One that takes no stream at all is not full but as good as gone: a call finds out.
    pub(in crate::transport) fn is_full(&self) -> bool {
        let list = self.list.load();
        let list = list.get().map_or(&[][..], |list| list);
        let open = list.iter().filter(|c| !c.is_closed() && !c.takes_none());
        match open.count() {
            0 => false,
            open => open >= self.options.max_connections || self.refuses.load(Ordering::SeqCst),
        }
    }

    /// Gives those who wait what places there are. One that is left over since they are gone is
    /// not to be dropped under the lock.
    fn serve(self: &Arc<Self>, state: &mut State) -> Option<Place> {
        while !state.queue.is_empty() {
            let left = state.queue.give(self.place()?);
            if left.is_some() {
                return left;
            }
        }
        None
    }

    /// Makes a socket a connection, a `plain` one or under TLS.
    pub(in crate::transport) async fn shake_hands<I>(
        self: &Arc<Self>,
        io: I,
        plain: bool,
    ) -> Result<Http2Connection, DialError>
    where
        I: AsyncRead + AsyncWrite + HasEnded + Unpin + Send + 'static,
    {
        let pool = Arc::downgrade(self);
        let changed = Box::new(move || {
            if let Some(pool) = pool.upgrade() {
                pool.changed();
            }
        });
        handshake::shake_hands(io, plain, &self.options, &self.complaints, changed).await
    }

    /// Takes in a connection.
    pub(in crate::transport) fn add(self: &Arc<Self>, connection: Http2Connection) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        self.replace(|list| list.push(Arc::new(connection)));
        let left = self.serve(&mut state);
        drop(state);
        drop(left);
    }

    /// A place on a connection that no other call has: it is not taken in.
    pub(in crate::transport) fn alone(
        self: &Arc<Self>,
        connection: Http2Connection,
    ) -> Option<Place> {
        let connection = Arc::new(connection);
        connection.occupy().then(|| Place {
            connection,
            pool: Arc::clone(self),
        })
    }

    /// No further call takes this connection.
    pub(in crate::transport) fn retire(self: &Arc<Self>, connection: &Arc<Http2Connection>) {
        connection.close();
        self.changed();
    }

    /// A peer that takes no streams for so long as it may take to say how many it takes is as good
    /// as gone: what is in flight goes on, and the next call finds another connection or none.
    pub(in crate::transport) fn retire_those_that_take_none(self: &Arc<Self>) {
        let list = self.list.load_full();
        for connection in list.iter().flat_map(|list| list.iter()) {
            if connection.takes_none() {
                self.retire(connection);
            }
        }
    }

    /// A connection has more places, or takes no more calls.
    fn changed(self: &Arc<Self>) {
        let mut state = self.lock();
        let list = self.list.load_full();
        let gone = if list.is_some_and(|list| list.iter().any(|c| c.is_closed())) {
            self.replace(|list| list.retain(|c| !c.is_closed()))
        } else {
            None
        };
        let left = self.serve(&mut state);
        if state.dialling {
            // Who dials tells.
        } else if self.may_have_more() {
            state.queue.let_dial();
        } else if !self.is_full() {
            state.queue.tell_all(|| Reply::Again);
        }
        drop(state);
        drop((gone, left));
    }

    /// Yields what was there before.
    fn replace(
        &self,
        change: impl FnOnce(&mut Vec<Arc<Http2Connection>>),
    ) -> Option<Arc<Vec<Arc<Http2Connection>>>> {
        let former = self.list.load_full();
        let mut list = former
            .as_ref()
            .map_or_else(Vec::new, |list| (**list).clone());
        change(&mut list);
        self.list.store(Arc::new(list));
        former
    }

    /// Lets go of all connections: each closes once its calls have ended.
    pub(in crate::transport) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let list = self.list.swap(None);
        state.queue.tell_all(|| Reply::Failed(DialError::retired()));
        drop(state);
        drop(list);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(in crate::transport) const fn connection(&self) -> &Arc<Http2Connection> {
        &self.connection
    }

    pub(in crate::transport) const fn pool(&self) -> &Arc<Http2Pool> {
        &self.pool
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.vacate();
        if self.pool.waiting.load(Ordering::SeqCst) > 0 {
            let mut state = self.pool.lock();
            let left = self.pool.serve(&mut state);
            drop(state);
            drop(left);
        }
    }
}

impl Wait {
    pub(in crate::transport) const fn turn(&self) -> u64 {
        self.joined.turn
    }
}

impl Future for Wait {
    type Output = Reply<Place, DialError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.joined.reply).poll(cx));
        Poll::Ready(reply.unwrap_or(Reply::Again))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.joined.reply.close();
        let left = self.joined.reply.try_recv();
        self.pool.waiting.fetch_sub(1, Ordering::SeqCst);
        match left {
            Ok(Reply::Connection(place)) => drop(place), // serves the next
            Ok(Reply::Again) => self.pool.changed(),
            Ok(Reply::Failed(_) | Reply::Full) | Err(_) => {}
        }
    }
}

impl Dialling {
    /// It came to a connection, which was taken in. Yields itself if one more is needed; if there may
    /// be no more, who still waits is told.
    pub(in crate::transport) fn connected(mut self) -> Option<Self> {
        let mut state = self.pool.lock();
        let wanted = !state.queue.is_empty() && !state.closed;
        let more = wanted && self.pool.open() < self.pool.options.max_connections;
        state.dialling = more;
        if !more {
            self.over = true;
            if wanted {
                state.queue.tell_all(|| Reply::Full);
            }
        }
        drop(state);
        more.then_some(self)
    }

    /// It failed: for all who wait. If there are connections whose places will be given back, it says
    /// only that there are no more: who can turn elsewhere does, the others wait for those, and
    /// nobody dials until what this yields is dropped.
    #[must_use]
    pub(in crate::transport) fn failed(mut self, error: &DialError) -> Option<Rest> {
        self.over = true;
        let mut state = self.pool.lock();
        state.dialling = false;
        if self.pool.open() == 0 {
            state.queue.tell_all(|| Reply::Failed(error.clone()));
            return None;
        }
        self.pool.refuses.store(true, Ordering::SeqCst);
        state.queue.tell_all(|| Reply::Full);
        drop(state);
        Some(Rest(Arc::clone(&self.pool)))
    }

    /// It came to HTTP/1: nobody is to wait here.
    pub(in crate::transport) fn switched(mut self) {
        self.over = true;
        let mut state = self.pool.lock();
        state.dialling = false;
        state.queue.tell_all(|| Reply::Again);
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.refuses.store(false, Ordering::SeqCst);
        self.0.changed(); // who waits longest dials
    }
}

impl Drop for Dialling {
    /// Given up, with its runtime say: for no fault of the instance, so that who waits dials anew.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut state = self.pool.lock();
        state.dialling = false;
        if std::thread::panicking() {
            let error = DialError::new("its dial panicked");
            state.queue.tell_all(|| Reply::Failed(error.clone()));
        } else {
            state.queue.tell_all(|| Reply::Again);
        }
    }
}

#[cfg(test)]
#[path = "complaint_tests.rs"]
mod tests;
