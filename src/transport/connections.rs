//! The connections to one instance, by whatever it speaks: who dials, and what comes of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use http::Request;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::transport::{
    body::request::Body,
    dial::{
        dialler::{Dialled, Dialler},
        error::DialError,
        target::Protocol,
    },
    http1::{
        connection::Http1Connection,
        pool::{self as pool1, Http1Pool, NoConnection},
    },
    http2::{
        connection::Http2Connection,
        pool::{self as pool2, Http2Pool, Place, Rest},
    },
    peer::Peer,
    queue::Reply,
    route::Route,
    spawn::spawn,
};

/// What all clones of a transport and its calls share.
pub(super) struct Connections {
    pub(super) peer: Arc<Peer>,
    pub(super) dialler: Dialler,
    /// Whether a balancer takes back what finds the instance full.
    pub(super) balanced: bool,
    /// Whether requests note where they go.
    pub(super) notes_routes: bool,
    pub(super) http1: Arc<Http1Pool>,
    pub(super) http2: Arc<Http2Pool>,
    mode: AtomicU8,
    retired: AtomicBool,
    retirement: Notify,
}

/// A connection.
enum Connected {
    Http1(Box<Http1Connection>),
    Http2(Http2Connection),
}

/// What a call that needs a place on an HTTP/2 connection has found.
pub(super) enum Found {
    Place(Place),
    /// It came to HTTP/1.
    Other,
    /// All places on as many connections as there may be are taken.
    Full,
}

/// What the instance speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// ALPN will tell.
    Unknown,
    Http1,
    Http2,
}

impl Connections {
    pub(super) fn new(
        peer: Peer,
        dialler: Dialler,
        balanced: bool,
        http1: impl FnOnce(Arc<Peer>) -> Http1Pool,
        http2: impl FnOnce(Arc<Peer>) -> Http2Pool,
    ) -> Self {
        let mode = match &dialler.target {
            Ok(target) => match target.protocol {
                Protocol::Http2 => Mode::Http2,
                Protocol::Auto if target.tls => Mode::Unknown,
                Protocol::Auto | Protocol::Http1 => Mode::Http1,
            },
            Err(_) => Mode::Http1,
        };
        let peer = Arc::new(peer);
        Self {
            dialler,
            balanced,
            notes_routes: false,
            http1: Arc::new(http1(Arc::clone(&peer))),
            http2: Arc::new(http2(Arc::clone(&peer))),
            peer,
            mode: AtomicU8::new(mode as u8),
            retired: AtomicBool::new(false),
            retirement: Notify::new(),
        }
    }

    /// Where a request notes that it came here, if it does.
    pub(super) fn route(&self, request: &Request<Body>) -> Option<Route> {
        if !self.notes_routes {
            return None;
        }
        let route = request.extensions().get::<Route>()?;
        route.comes_to(&self.peer.instance);
        Some(route.clone())
    }

    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            0 => Mode::Unknown,
            1 => Mode::Http1,
            _ => Mode::Http2,
        }
    }

    fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Nothing is dialled any more, and what is idle closes.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.http1.close();
        self.http2.close();
        self.retirement.notify_waiters();
    }

    /// A new connection, by whatever the instance speaks.
    async fn connect(&self) -> Result<Connected, DialError> {
        let Dialled { io, http2 } = self.dialler.dial().await?;
        let connected = if http2 {
            let plain = io.is_plain();
            Connected::Http2(self.http2.shake_hands(io, plain).await?)
        } else {
            Connected::Http1(self.http1.shake_hands(io).await?)
        };
        let mode = match &connected {
            Connected::Http1(_) => Mode::Http1,
            Connected::Http2(_) => Mode::Http2,
        };
        self.set_mode(mode);
        Ok(connected)
    }

    /// The same, given up when the last handle goes unless the call is an `orphan`: polled for the
    /// first time after that.
    async fn connect_unless_retired(&self, orphan: bool) -> Result<Connected, DialError> {
        tokio::select! {
            biased;
            connected = self.connect() => connected,
            () = self.retirement(), if !orphan => Err(DialError::retired()),
        }
    }

    /// Ends when the last handle goes.
    async fn retirement(&self) {
        loop {
            let retirement = self.retirement.notified();
            tokio::pin!(retirement);
            retirement.as_mut().enable();
            if self.is_retired() {
                return;
            }
            retirement.await;
        }
    }

    /// Connects ahead of the first call. What goes wrong is for that call to find.
    pub(super) fn warm_up(self: &Arc<Self>) {
        if self.mode() == Mode::Http1 {
            let turn = self.http1.dial_ahead();
            spawn(Arc::clone(self).dial_for_http1(turn, false));
        } else if let Some(dialling) = self.http2.dial(true) {
            spawn(Arc::clone(self).dial_for_http2(dialling));
        }
    }

    /// Waits for an HTTP/1 connection: one that another call gives back, or a new one, whichever
    /// comes first; none if it came to HTTP/2.
    pub(super) async fn http1(
        self: &Arc<Self>,
        orphan: bool,
    ) -> Result<Option<Box<Http1Connection>>, NoConnection> {
        let mut before = None;
        loop {
            let (wait, turn) = match self.http1.wait(before, orphan) {
                pool1::Need::Have(connection) => return Ok(Some(connection)),
                pool1::Need::Wait(wait, turn) => (wait, turn),
                pool1::Need::Retired => return Err(DialError::retired().into()),
            };
            before = Some(wait.turn());
            if let Some(turn) = turn {
                spawn(Arc::clone(self).dial_for_http1(turn, orphan));
            }
            match wait.await {
                Reply::Connection(connection) => return Ok(Some(connection)),
                Reply::Failed(error) => return Err(error),
                Reply::Again if self.mode() == Mode::Http2 => return Ok(None),
                Reply::Again | Reply::Full => {}
            }
        }
    }

    async fn dial_for_http1(self: Arc<Self>, turn: pool1::Turn, orphan: bool) {
        match self.connect_unless_retired(orphan).await {
            Ok(Connected::Http1(connection)) => turn.connected(connection),
            Ok(Connected::Http2(connection)) => {
                self.http2.add(connection);
                turn.switched();
            }
            Err(error) => turn.failed(error),
        }
    }

    /// A new HTTP/1 connection for one call, whatever lies idle; none if it came to HTTP/2.
    pub(super) async fn new_http1(
        self: &Arc<Self>,
        orphan: bool,
    ) -> Result<Option<Box<Http1Connection>>, NoConnection> {
        match self.connect_unless_retired(orphan).await? {
            Connected::Http1(connection) => Ok(Some(connection)),
            Connected::Http2(connection) => {
                self.http2.add(connection);
                Ok(None)
            }
        }
    }

    /// Waits for a place on an HTTP/2 connection, and dials if there are too few. One that may be
    /// `elsewhere` does not wait for the places of others, whether the last dial ended before it came or
    /// after.
    pub(super) async fn http2(
        self: &Arc<Self>,
        orphan: bool,
        elsewhere: bool,
    ) -> Result<Found, NoConnection> {
        if orphan {
            return match self.connect().await? {
                Connected::Http2(connection) => {
                    let place = self.http2.alone(connection);
                    Ok(place.map_or(Found::Other, Found::Place))
                }
                Connected::Http1(connection) => {
                    self.http1.dial_ahead().connected(connection);
                    Ok(Found::Other)
                }
            };
        }
        let patience = self.http2.options.handshake_timeout;
        let mut before = None;
        loop {
            if self.mode() == Mode::Http1 {
                return Ok(Found::Other);
            }
            let (mut wait, dialling) = match self.http2.wait(before) {
                pool2::Need::Full(_) if elsewhere => return Ok(Found::Full),
                pool2::Need::Full(wait) => (wait, None),
                pool2::Need::Wait(wait, dialling) => (wait, dialling),
                pool2::Need::Retired => return Err(DialError::retired().into()),
            };
            before = Some(wait.turn());
            if let Some(dialling) = dialling {
                spawn(Arc::clone(self).dial_for_http2(dialling));
            }
            let reply = loop {
                match timeout(patience, &mut wait).await {
                    Ok(reply) => break reply,
                    Err(_) => self.http2.retire_those_that_take_none(),
                }
            };
            match reply {
                Reply::Connection(place) => return Ok(Found::Place(place)),
                Reply::Failed(error) => return Err(error.into()),
                Reply::Full if elsewhere => return Ok(Found::Full),
                Reply::Again | Reply::Full => {}
            }
        }
    }

    /// Dials for all who wait, and again while the places are too few.
    async fn dial_for_http2(self: Arc<Self>, mut dialling: pool2::Dialling) {
        for _ in 0..MOST_DIALS {
            match self.connect_unless_retired(false).await {
                Ok(Connected::Http2(connection)) => {
                    self.http2.add(connection);
                    match dialling.connected() {
                        Some(more) => dialling = more,
                        None => return,
                    }
                }
                Ok(Connected::Http1(connection)) => {
                    self.http1.dial_ahead().connected(connection);
                    return dialling.switched();
                }
                Err(error) => return self.rest(dialling.failed(&error)).await,
            }
        }
        let text = "it closes each connection as soon as that is made";
        self.rest(dialling.failed(&DialError::new(text))).await;
    }

    /// An instance that serves others and takes no more connections is not dialled again at once.
    async fn rest(&self, rest: Option<Rest>) {
        if let Some(rest) = rest {
            tokio::select! {
                () = sleep(self.http2.options.redial_after) => {}
                () = self.retirement() => {}
            }
            drop(rest);
        }
    }

    /// One connection attempt, to learn whether there is a point in more.
    ///
    /// HTTP/2 has its SETTINGS for an answer. Over HTTP/1 a server says nothing before it is asked:
    /// one that accepts and closes, or that speaks first, shows that within a moment.
    pub(super) async fn probe(&self) -> Result<(), DialError> {
        let Dialled { mut io, http2 } = self.dialler.dial().await?;
        if http2 {
            let plain = io.is_plain();
            return self.http2.shake_hands(io, plain).await.map(drop);
        }
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut io, &mut byte);
        let why = match timeout(HELD, read).await {
            Err(_) => return Ok(()),
            Ok(Ok(0)) => "it accepts connections and closes them".to_owned(),
            Ok(Ok(_)) => "it speaks before it is asked: that is not HTTP/1".to_owned(),
            Ok(Err(error)) => format!("it accepts connections and breaks them ({error})"),
        };
        Err(DialError::new(why))
    }
}

impl From<DialError> for NoConnection {
    fn from(error: DialError) -> Self {
        Self {
            error,
            others_served: false,
        }
    }
}

/// How often one turn dials, as long as that succeeds.
const MOST_DIALS: u32 = 16;
/// For how long a connection that is probed must be held: some round trips, and a process's turn
/// to close what it accepted.
const HELD: std::time::Duration = std::time::Duration::from_millis(50);

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
