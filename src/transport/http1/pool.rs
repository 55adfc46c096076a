use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use crate::{
    endpoint,
    tls::Socket,
    transport::{
        dial::error::DialError,
        http1::{
            connection::{self, Http1Connection},
            options::Http1Options,
        },
        peer::Peer,
        queue::{Joined, Queue, Reply},
    },
};

/// The HTTP/1 connections to one instance that lie idle, and the calls that wait for one.
pub(in crate::transport) struct Http1Pool {
    pub(in crate::transport) peer: Arc<Peer>,
    pub(in crate::transport) options: Http1Options,
    state: Mutex<State>,
    /// Connections that have not ended.
    open: Arc<AtomicUsize>,
}

struct State {
    /// With when each has lain idle too long; the one used last on top, so that those not needed
    /// grow old.
    idle: Vec<(Box<Http1Connection>, Instant)>,
    queue: Queue<Box<Http1Connection>, NoConnection>,
    /// Whether somebody closes what lies idle too long.
    swept: bool,
    closed: bool,
    /// Where the last dial was made: a response may end outside of any runtime.
    runtime: Option<Handle>,
    /// Signs of life so far: connections that were made or given back.
    alive: u64,
}

/// Why a call that waited has no connection.
#[derive(Clone, Debug)]
pub(in crate::transport) struct NoConnection {
    pub(in crate::transport) error: DialError,
    /// Whether the instance serves other calls all the same.
    pub(in crate::transport) others_served: bool,
}

/// What a call that needs a connection is to do.
pub(in crate::transport) enum Need {
    Have(Box<Http1Connection>),
    /// Wait, and dial if there is a turn to.
    Wait(Wait, Option<Turn>),
    /// The instance left.
    Retired,
}

/// A call that waits for a connection. What it was given when it is dropped is for the next.
pub(in crate::transport) struct Wait {
    pool: Arc<Http1Pool>,
    joined: Joined<Box<Http1Connection>, NoConnection>,
}

/// A turn to dial; dropped without an outcome it was given up.
pub(in crate::transport) struct Turn {
    pool: Arc<Http1Pool>,
    turn: u64,
    /// The signs of life when it began.
    alive: u64,
    over: bool,
}

/// Who closes what lies idle too long. Gone with its runtime, it takes that along.
struct Sweeping(Weak<Http1Pool>);

/// A call's place on its connection, until its response has ended.
pub(in crate::transport) struct Lease {
    pub(in crate::transport) connection: Box<Http1Connection>,
    pub(in crate::transport) pool: Arc<Http1Pool>,
}

impl Http1Pool {
    pub(in crate::transport) fn new(peer: Arc<Peer>, options: Http1Options) -> Self {
        Self {
            peer,
            options,
            state: Mutex::new(State {
                idle: Vec::new(),
                queue: Queue::new(),
                swept: false,
                closed: false,
                runtime: None,
                alive: 0,
            }),
            open: Arc::default(),
        }
    }

    /// The idle connection that was used last.
    pub(in crate::transport) fn take(&self) -> Option<Box<Http1Connection>> {
        self.lock().take()
    }

    /// Waits for a connection, at the `turn` it had before. An `orphan` dials though nobody can
    /// retire it any more.
    pub(in crate::transport) fn wait(self: &Arc<Self>, turn: Option<u64>, orphan: bool) -> Need {
        let mut state = self.lock();
        if let Some(connection) = state.take() {
            return Need::Have(connection);
        }
        if state.closed && !orphan {
            return Need::Retired;
        }
        let may_dial = self.may_dial(&state);
        let joined = state.queue.join(turn, may_dial);
        let turn = joined.dials.then(|| self.turn(joined.turn, &state));
        drop(state);
        let pool = Arc::clone(self);
        Need::Wait(Wait { pool, joined }, turn)
    }

    /// A dial ahead of any call.
    pub(in crate::transport) fn dial_ahead(self: &Arc<Self>) -> Turn {
        let mut state = self.lock();
        let turn = state.queue.dial();
        self.turn(turn, &state)
    }

    fn turn(self: &Arc<Self>, turn: u64, state: &State) -> Turn {
        Turn {
            pool: Arc::clone(self),
            turn,
            alive: state.alive,
            over: false,
        }
    }

    fn may_dial(&self, state: &State) -> bool {
        let dials = state.queue.dials();
        let open = self.open.load(Ordering::SeqCst);
        dials < self.options.max_dials && open + dials < self.options.max_connections
    }

    /// Makes a socket a connection.
    pub(in crate::transport) async fn shake_hands(
        self: &Arc<Self>,
        io: Socket,
    ) -> Result<Box<Http1Connection>, DialError> {
        let pool = Arc::downgrade(self);
        let ended = move || {
            if let Some(pool) = pool.upgrade() {
                pool.lock().room(&pool);
            }
        };
        connection::shake_hands(io, &self.options, &self.open, ended).await
    }

    fn put(self: &Arc<Self>, connection: Box<Http1Connection>) {
        let idle_for = self.idle_for(&connection);
        let mut state = self.lock();
        state.alive += 1;
        let connection = match state.queue.is_empty() {
            true => Some(connection),
            false => state.queue.give(connection),
        };
        let Some(connection) = connection else {
            return;
        };
        self.keep(state, connection, idle_for);
    }

    fn idle_for(&self, connection: &Http1Connection) -> Duration {
        idle_for(connection.kept_for, self.options.idle_timeout)
    }

    fn keep(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        connection: Box<Http1Connection>,
        idle_for: Duration,
    ) {
        if state.closed || state.idle.len() >= self.options.max_idle || idle_for.is_zero() {
            drop(state);
            return; // closes it, outside of the lock
        }
        let until = endpoint::now() + idle_for;
        let begin = !mem::replace(&mut state.swept, true);
        state.idle.push((connection, until));
        let runtime = begin.then(|| state.runtime()).flatten();
        drop(state); // a runtime that has ended drops the task at once
        if begin {
            let sweeping = Sweeping(Arc::downgrade(self));
            if let Some(runtime) = runtime {
                runtime.spawn(sweeping.run(until));
            }
        }
    }

    /// Closes what is idle, and what will be.
    pub(in crate::transport) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let closing = mem::take(&mut state.idle);
        let error = NoConnection {
            error: DialError::retired(),
            others_served: false,
        };
        state.queue.tell_all(|| Reply::Failed(error.clone()));
        drop(state);
        drop(closing);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<Box<Http1Connection>> {
        loop {
            let (connection, _) = self.idle.pop()?;
            if !connection.is_closed() {
                return Some(connection);
            }
        }
    }

    /// Where there is one to look after connections: here, or where the last was made.
    fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok().or_else(|| self.runtime.clone())
    }

    /// A dial or a connection has ended: perhaps another call may dial.
    fn room(&mut self, pool: &Http1Pool) {
        if !self.queue.is_empty() && pool.may_dial(self) {
            self.queue.let_dial();
        }
    }
}

impl Turn {
    /// It came to a connection.
    pub(in crate::transport) fn connected(mut self, connection: Box<Http1Connection>) {
        self.over = true;
        let idle_for = self.pool.idle_for(&connection);
        let mut state = self.pool.lock();
        state.runtime = Handle::try_current().ok();
        state.alive += 1;
        let spare = state.queue.dialled(self.turn, connection);
        state.room(&self.pool);
        match spare {
            Some(connection) => self.pool.keep(state, connection, idle_for),
            None => drop(state),
        }
    }

    /// It failed.
    pub(in crate::transport) fn failed(mut self, error: DialError) {
        self.over = true;
        let mut state = self.pool.lock();
        // A dial that is refused while connections are open, or that is out of time while they are
        // used, says that the instance takes no more, and not that it is gone.
        let open = self.pool.open.load(Ordering::SeqCst) > 0;
        let others_served = open && (!error.is_late() || state.alive != self.alive);
        let none = NoConnection {
            error,
            others_served,
        };
        state.queue.failed(self.turn, &none, !others_served);
        state.room(&self.pool);
    }

    /// It came to HTTP/2: nobody is to wait here.
    pub(in crate::transport) fn switched(mut self) {
        self.over = true;
        let mut state = self.pool.lock();
        state.queue.given_up(self.turn);
        state.queue.tell_all(|| Reply::Again);
    }
}

impl Drop for Turn {
    /// Given up, with its runtime say: for no fault of the instance.
    fn drop(&mut self) {
        if !self.over {
            let mut state = self.pool.lock();
            state.queue.given_up(self.turn);
            state.room(&self.pool);
        }
    }
}

impl Wait {
    pub(in crate::transport) const fn turn(&self) -> u64 {
        self.joined.turn
    }
}

impl Future for Wait {
    type Output = Reply<Box<Http1Connection>, NoConnection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.joined.reply).poll(cx));
        Poll::Ready(reply.unwrap_or(Reply::Again))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.joined.reply.close();
        match self.joined.reply.try_recv() {
            Ok(Reply::Connection(connection)) => self.pool.put(connection),
            Ok(Reply::Again) => self.pool.lock().room(&self.pool),
            Ok(Reply::Failed(_) | Reply::Full) | Err(_) => {}
        }
    }
}

impl Lease {
    /// The response has ended: the connection is for the next call.
    pub(in crate::transport) fn give_back(self) {
        let Self {
            mut connection,
            pool,
        } = self;
        if connection.sender.is_ready() {
            pool.put(connection);
        } else if !connection.is_closed() {
            // It is about to be, on another thread, or still sends the request's body.
            let runtime = pool.lock().runtime();
            if let Some(runtime) = runtime {
                runtime.spawn(async move {
                    if connection.sender.ready().await.is_ok() {
                        pool.put(connection);
                    }
                });
            }
        }
    }

    /// The response was given up. If it was all there, the connection is as good as new; else it
    /// closes, since there is no other way to end a call.
    pub(in crate::transport) fn give_up(self) {
        if self.connection.sender.is_ready() {
            self.pool.put(self.connection);
        }
    }
}

impl Sweeping {
    /// Closes what lies idle too long, for as long as anything does.
    async fn run(mut self, mut next: Instant) {
        loop {
            tokio::time::sleep_until(next).await;
            let Some(pool) = self.0.upgrade() else {
                return;
            };
            let now = endpoint::now();
            let mut state = pool.lock();
            let (keep, old): (Vec<_>, Vec<_>) = mem::take(&mut state.idle)
                .into_iter()
                .partition(|(connection, until)| *until > now && !connection.is_closed());
            state.idle = keep;
            match state.idle.iter().map(|(_, until)| *until).min() {
                Some(until) => next = until,
                None => {
                    state.swept = false;
                    self.0 = Weak::new();
                }
            }
            drop(state);
            drop(old); // closes them, outside of the lock
            if self.0.strong_count() == 0 {
                return;
            }
        }
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            let mut state = pool.lock();
            state.swept = false;
            let unswept = mem::take(&mut state.idle);
            drop(state);
            drop(unswept);
        }
    }
}

/// For how long a connection may lie idle: what its server said, less the time that a request takes
/// on its way there.
fn idle_for(said: Option<Duration>, unsaid: Duration) -> Duration {
    said.map_or(unsaid, |said| said.saturating_sub(ON_ITS_WAY).max(said / 2))
}

/// Within which a request that is written arrives.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
