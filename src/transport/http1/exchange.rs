//! HTTP/1.1: a connection for each call, kept for the next.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use http::{Request, Response};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use crate::{
    endpoint,
    tls::Socket,
    transport::{
        Body, Error, ErrorKind, Evidence, ResponseBody,
        dial::dialler::DialError,
        form,
        http1::patient::Patient,
        service::{Back, Connected, Connections, Failed, Mode},
        spawn::spawn,
    },
};

/// The idle connections, the one used last on top, so that those not needed grow old.
#[derive(Default)]
pub(in crate::transport) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    connections: Vec<(Sender, Instant)>,
    /// Whether somebody closes what lies idle too long.
    tended: bool,
    closed: bool,
    /// Where the last dial was made: a response may end outside of any runtime.
    runtime: Option<Handle>,
    /// Dials that failed so far: who waits for one learns of the others'.
    failures: u64,
    last_failure: Option<DialError>,
}

/// The way into one connection.
pub(in crate::transport) struct Sender {
    sender: SendRequest<Body>,
    fresh: bool,
}

/// Who closes what lies idle too long. Gone with its runtime, it takes that along.
struct Tending(Weak<Connections>);

/// A call's place on its connection, until its response has ended.
pub(in crate::transport) struct Lease {
    sender: Sender,
    connections: Arc<Connections>,
}

pub(in crate::transport) async fn shake_hands(io: Socket) -> Result<Sender, DialError> {
    let shaken = http1::handshake(TokioIo::new(Patient::new(io))).await;
    let (sender, connection) = shaken.map_err(|error| DialError::new(error.to_string()))?;
    // Ends when the socket does, or when its sender is dropped and nothing is in flight. What goes
    // wrong is told to the call.
    spawn(async move { drop(connection.with_upgrades().await) });
    Ok(Sender {
        sender,
        fresh: true,
    })
}

impl Pool {
    /// The idle connection that was used last.
    pub(in crate::transport) fn take(&self) -> Option<Sender> {
        let mut idle = self.lock();
        loop {
            let (sender, _) = idle.connections.pop()?;
            if !sender.sender.is_closed() {
                return Some(sender);
            }
        }
    }
}

/// A new connection; none if it came to HTTP/2.
pub(in crate::transport) async fn connect(
    connections: &Arc<Connections>,
    orphan: bool,
) -> Result<Option<Sender>, DialError> {
    let pool = &connections.http1;
    let failures = pool.lock().failures;
    let connected = tokio::select! {
        biased;
        connected = connections.connect() => connected,
        error = pool.bad_news(connections, failures, orphan) => return Err(error),
    };
    match connected {
        Ok(Connected::Http1(sender)) => {
            pool.lock().runtime = Handle::try_current().ok();
            connections.set_mode(Mode::Http1);
            Ok(Some(sender))
        }
        Ok(Connected::Http2(connection)) => {
            connections.http2.add(connection);
            connections.set_mode(Mode::Http2);
            Ok(None)
        }
        Err(error) => {
            let mut idle = pool.lock();
            idle.failures += 1;
            idle.last_failure = Some(error.clone());
            drop(idle);
            connections.news.notify_waiters();
            Err(error)
        }
    }
}

/// A connection ahead of the first call.
pub(in crate::transport) async fn warm_up(connections: Arc<Connections>) {
    if let Ok(Some(sender)) = connect(&connections, false).await {
        Pool::put(&connections, sender);
    }
}

/// Sends the request and waits for the response's headers.
pub(in crate::transport) async fn exchange(
    connections: &Arc<Connections>,
    mut sender: Sender,
    mut request: Request<Body>,
) -> Result<Response<ResponseBody>, Failed> {
    let fresh = mem::replace(&mut sender.fresh, false);
    let former = form::for_http1(&mut request, &connections.named);
    let sending = sender.sender.try_send_request(request);
    let sent = match connections.plan.options.header_timeout {
        None => sending.await,
        Some(within) => match timeout(within, sending).await {
            Ok(sent) => sent,
            Err(_) => return Err(Failed::Error(late(connections, within))),
        },
    };
    let mut failure = match sent {
        Ok(response) => {
            let lease = Lease {
                sender,
                connections: Arc::clone(connections),
            };
            return Ok(response.map(|incoming| ResponseBody::http1(incoming, lease)));
        }
        Err(failure) => failure,
    };
    if let Some(mut request) = failure.take_message() {
        former.restore(&mut request);
        let why = if fresh {
            "it closed the connection before it took the request"
        } else {
            "its connection closed before it took the request"
        };
        return Err(Failed::Back(Box::new(Back {
            request,
            evidence: Evidence::Unsent,
            fresh,
            why: why.to_owned(),
        })));
    }
    Err(Failed::Error(judge(connections, failure.into_error())))
}

/// What a failure with the request on its way means. Nobody knows whether it was processed.
fn judge(connections: &Connections, error: hyper::Error) -> Error {
    let new = |kind, text: &str| connections.error(kind, Evidence::Unknown, text);
    // hyper tells some of this only in words, and whether a head is too large by a method only with
    // its server's feature.
    let judged = if error.is_user() {
        // Its head cannot be written, or its body failed half-way.
        let (kind, text) = if error.is_body_write_aborted() || is_body(&error) {
            (ErrorKind::Body, "the request's body failed")
        } else {
            (ErrorKind::Request, "the request cannot be sent")
        };
        new(kind, text)
    } else if error.is_parse() && error.to_string().contains("too large") {
        let text = "its response's headers are larger than this client takes";
        new(ErrorKind::Protocol, text)
    } else if error.is_parse() {
        let text = "what it answered is not HTTP/1: it may speak TLS or HTTP/2 on this port";
        new(ErrorKind::Protocol, text).ejecting()
    } else {
        let text = "the connection was lost with the request on its way";
        new(ErrorKind::Lost, text).losing()
    };
    judged.because(error)
}

fn is_body(error: &hyper::Error) -> bool {
    error.to_string().contains("Body")
}

fn late(connections: &Connections, within: Duration) -> Error {
    let text = format!("no response headers within {within:?} (header_timeout)");
    let error = connections.error(ErrorKind::Timeout, Evidence::Unknown, text);
    error.timing_out()
}

impl Lease {
    pub(in crate::transport) const fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The response has ended: the connection is for the next call.
    pub(in crate::transport) fn give_back(self) {
        let Self {
            mut sender,
            connections,
        } = self;
        if sender.sender.is_ready() {
            Pool::put(&connections, sender);
        } else if !sender.sender.is_closed() {
            // It is about to be, on another thread, or still sends the request's body.
            let runtime = connections.http1.lock().runtime();
            if let Some(runtime) = runtime {
                runtime.spawn(async move {
                    if sender.sender.ready().await.is_ok() {
                        Pool::put(&connections, sender);
                    }
                });
            }
        }
    }

    /// The response was given up. If it was all there, the connection is as good as new; else it
    /// closes, since there is no other way to end a call.
    pub(in crate::transport) fn give_up(self) {
        if self.sender.sender.is_ready() {
            Pool::put(&self.connections, self.sender);
        }
    }
}

impl Pool {
    fn put(connections: &Arc<Connections>, sender: Sender) {
        let options = &connections.plan.options;
        let mut idle = connections.http1.lock();
        if idle.closed || idle.connections.len() >= options.max_idle {
            drop(idle);
            return; // closes it, outside of the lock
        }
        let begin = !mem::replace(&mut idle.tended, true);
        idle.connections.push((sender, endpoint::now()));
        let runtime = begin.then(|| idle.runtime()).flatten();
        drop(idle); // a runtime that has ended drops the task at once
        if begin {
            let tending = Tending(Arc::downgrade(connections));
            if let Some(runtime) = runtime {
                runtime.spawn(Self::tend(tending, options.idle_timeout));
            }
        }
    }

    /// Takes in a connection that was just made.
    pub(in crate::transport) fn lend(&self, sender: Sender) {
        let mut idle = self.lock();
        idle.runtime = Handle::try_current().ok();
        idle.connections.push((sender, endpoint::now()));
    }

    /// Closes what lies idle too long, for as long as anything does.
    async fn tend(mut tending: Tending, within: Duration) {
        let mut next = endpoint::now() + within;
        loop {
            tokio::time::sleep_until(next).await;
            let Some(connections) = tending.0.upgrade() else {
                return;
            };
            let now = endpoint::now();
            let (old, more): (Vec<_>, bool) = {
                let mut idle = connections.http1.lock();
                let young = |(sender, since): &(Sender, Instant)| {
                    *since + within > now && !sender.sender.is_closed()
                };
                // The oldest lie at the front.
                let keep = idle.connections.iter().position(young);
                let keep = keep.unwrap_or(idle.connections.len());
                let old = idle.connections.drain(..keep).collect();
                let more = match idle.connections.first() {
                    Some((_, since)) => {
                        next = *since + within;
                        true
                    }
                    None => {
                        idle.tended = false;
                        false
                    }
                };
                (old, more)
            };
            drop(old); // closes them, outside of the lock
            if !more {
                tending.0 = Weak::new();
                return;
            }
        }
    }

    /// Closes what is idle, and what will be.
    pub(in crate::transport) fn close(&self) {
        let mut idle = self.lock();
        idle.closed = true;
        let closing = mem::take(&mut idle.connections);
        drop(idle);
        drop(closing);
    }

    /// Waits until there is no point in waiting for a dial of one's own.
    async fn bad_news(&self, connections: &Connections, known: u64, orphan: bool) -> DialError {
        loop {
            let news = connections.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if connections.is_retired() && !orphan {
                return DialError::retired();
            }
            {
                let idle = self.lock();
                if let (true, Some(error)) = (idle.failures != known, &idle.last_failure) {
                    return error.clone();
                }
            }
            news.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// Where there is one to look after connections: here, or where the last was made.
    fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok().or_else(|| self.runtime.clone())
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        if let Some(connections) = self.0.upgrade() {
            let mut idle = connections.http1.lock();
            idle.tended = false;
            let untended = mem::take(&mut idle.connections);
            drop(idle);
            drop(untended);
        }
    }
}
