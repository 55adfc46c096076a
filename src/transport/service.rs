use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tower::Service;

use crate::{
    model::{Address, Instance, ServiceKey},
    transport::{
        body::{request::Body, response::ResponseBody},
        call,
        connections::{Connections, Mode},
        dial::{own::Bound, target::Target},
        error::Error,
        http2::pool::{self, Place},
        plan::Plan,
        queue::Reply,
    },
};

/// The connections to one instance, as a service over HTTP.
///
/// `Clone`, and clones share the connections. When the last clone is dropped, idle connections
/// close at once, busy ones once their responses have ended, and nothing is dialled any more: a
/// call that is still dialling gets its request back. (A future that is first polled after that,
/// as `oneshot` on the last clone does, may dial once.) A balancer holds one, and drops it when
/// its instance is evicted.
///
/// A connection lives on the tokio runtime of the call that made it, and ends with it; calls of
/// other runtimes may share it. A runtime that stands still and is not dropped, as one of the
/// current thread does between two `block_on`s, leaves its connections standing too: do not share
/// a transport between such a runtime and others, or give calls a deadline.
///
/// Futures and bodies may be dropped at any point. Over HTTP/1 that closes the connection unless
/// the response was complete; over HTTP/2 it resets the stream.
pub struct Transport {
    handle: Arc<Handle>,
    permit: Permit,
    room: Room,
}

/// A call, until its response's headers.
pub struct ResponseFuture(BoxFuture<'static, Result<Response<ResponseBody>, Error>>);

/// A place among the calls that an instance may have at once.
enum Permit {
    None,
    Waiting(Acquiring),
    Held(OwnedSemaphorePermit),
}

type Acquiring =
    Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync>>;

/// A stream's place, over HTTP/2.
enum Room {
    None,
    /// All are taken.
    Waiting(pool::Wait),
    Held(Place),
}

/// What all clones share, until the last of them goes.
struct Handle {
    connections: Arc<Connections>,
    limit: Option<Arc<Semaphore>>,
    /// The service that each request says it means.
    service: Option<ServiceKey>,
}

impl Transport {
    pub(super) fn new(plan: Plan) -> Self {
        let limit = plan.settings.max_calls;
        let service = plan.service.clone();
        Self {
            handle: Arc::new(Handle {
                connections: Arc::new(plan.connections()),
                limit: limit.map(|calls| Arc::new(Semaphore::new(calls))),
                service,
            }),
            permit: Permit::None,
            room: Room::None,
        }
    }

    pub(super) fn target(&self) -> &Result<Target, String> {
        &self.handle.connections.dialler.target
    }

    /// The instance as its connector, if it has one, was told it.
    pub(super) fn told(&self) -> Option<&Instance> {
        let own = self.handle.connections.dialler.own.as_ref();
        own.map(Bound::instance)
    }

    pub(super) fn service(&self) -> Option<&ServiceKey> {
        self.handle.service.as_ref()
    }

    /// Connects ahead of the first call. What goes wrong is for that call to find.
    pub(super) fn warm_up(&self) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.handle.connections.warm_up();
        }
    }

    /// The instance that it calls.
    pub fn instance(&self) -> &Address {
        &self.handle.connections.peer.instance
    }

    /// Ready with a place among the calls that the instance may have at once.
    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = &self.handle.limit else {
            return Poll::Ready(());
        };
        loop {
            match &mut self.permit {
                Permit::Held(_) => return Poll::Ready(()),
                Permit::None => {
                    self.permit = match Arc::clone(limit).try_acquire_owned() {
                        Ok(permit) => Permit::Held(permit),
                        Err(_) => Permit::Waiting(Box::pin(Arc::clone(limit).acquire_owned())),
                    };
                }
                Permit::Waiting(waiting) => {
                    let permit = ready!(waiting.as_mut().poll(cx));
                    self.permit = match permit {
                        Ok(permit) => Permit::Held(permit),
                        Err(_) => return Poll::Ready(()), // never closed
                    };
                }
            }
        }
    }

    /// Ready with a place on an HTTP/2 connection, or with the prospect of one more connection.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let connections = &self.handle.connections;
        loop {
            match &mut self.room {
                Room::Held(place) if !place.connection().is_closed() => return Poll::Ready(()),
                Room::Waiting(waiting) => match ready!(Pin::new(&mut *waiting).poll(cx)) {
                    Reply::Connection(place) => self.room = Room::Held(place),
                    Reply::Full => match connections.http2.wait(Some(waiting.turn())) {
                        pool::Need::Wait(wait, None) | pool::Need::Full(wait) => {
                            self.room = Room::Waiting(wait);
                        }
                        pool::Need::Wait(_, Some(_)) | pool::Need::Retired => {
                            self.room = Room::None;
                            return Poll::Ready(());
                        }
                    },
                    // The call finds out what that means.
                    Reply::Failed(_) | Reply::Again => {
                        self.room = Room::None;
                        return Poll::Ready(());
                    }
                },
                Room::None | Room::Held(_) => {
                    self.room = Room::None;
                    if connections.mode() != Mode::Http2 {
                        return Poll::Ready(());
                    }
                    if let Some(place) = connections.http2.try_acquire() {
                        self.room = Room::Held(place);
                        return Poll::Ready(());
                    }
                    if !connections.http2.is_full() {
                        return Poll::Ready(());
                    }
                    match connections.http2.wait(None) {
                        pool::Need::Wait(wait, None) | pool::Need::Full(wait) => {
                            self.room = Room::Waiting(wait);
                        }
                        // A connection ended meanwhile: the call dials.
                        pool::Need::Wait(_, Some(_)) | pool::Need::Retired => {
                            return Poll::Ready(());
                        }
                    }
                }
            }
        }
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture;

    /// Ready unless the instance is full: it has as many calls as it may
    /// ([`max_calls`](crate::transport::TransportBuilder::max_calls)), or all streams of as many HTTP/2
    /// connections as there may be ([`max_connections`](crate::transport::TransportBuilder::max_connections)) are
    /// taken. Who waits longest has the first room that appears; room that a clone holds goes to
    /// the next when that is dropped.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_permit(cx));
        self.poll_room(cx).map(Ok)
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let permit = match mem::replace(&mut self.permit, Permit::None) {
            Permit::Held(permit) => Some(permit),
            _ => None,
        };
        let place = match mem::replace(&mut self.room, Room::None) {
            Room::Held(place) => Some(place),
            _ => None,
        };
        let connections = Arc::clone(&self.handle.connections);
        let call = call::call(connections, request, permit, place);
        ResponseFuture(Box::pin(call))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.connections.retire();
    }
}

impl Clone for Transport {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
            permit: Permit::None,
            room: Room::None,
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("instance", self.instance())
            .field("mode", &self.handle.connections.mode())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

const fn _assert_shareable<T: Clone + Send + Sync + fmt::Debug + 'static>() {}
const _: () = _assert_shareable::<Transport>();

#[cfg(test)]
mod size {
    use super::*;

    #[test]
    fn a_call_s_future_is_small() {
        let plan = Plan {
            instance: "10.0.0.3:8080".parse().unwrap(),
            target: Err("nowhere".to_owned()),
            service: None,
            settings: Arc::default(),
            own: None,
        };
        let connections = Arc::new(plan.connections());
        let request = Request::new(Body::empty());
        let call = size_of_val(&call::call(connections, request, None, None));
        assert!(call <= 2048, "{call}");
    }
}
