use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};
use tower::Service;

use crate::{
    model::Address,
    transport::{
        Body, Error, ErrorKind, Evidence, Protocol, ResponseBody, Target, TransportBuilder,
        dial::dialler::{self as dial, DialError, Dialled},
        form::Named,
        http1::exchange::{self as http1, Pool as Pool1},
        http2::exchange::{self as http2, Pool as Pool2},
        options::Options,
        spawn::spawn,
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

/// Retires the connections when the last of a transport's clones goes.
struct Handle(Arc<Connections>);

/// What is to be dialled, and how.
pub(super) struct Plan {
    pub(super) instance: Address,
    pub(super) target: Result<Target, String>,
    pub(super) options: Arc<Options>,
}

/// What all clones of a transport and its calls share.
pub(super) struct Connections {
    pub(super) plan: Plan,
    pub(super) named: Named,
    mode: AtomicU8,
    pub(super) http1: Pool1,
    pub(super) http2: Pool2,
    limit: Option<Arc<Semaphore>>,
    retired: AtomicBool,
    /// Told of the retirement, and of each dial that failed: who waits for another dial of the
    /// same instance need not wait for the same again.
    pub(super) news: Notify,
}

/// A connection.
pub(super) enum Connected {
    Http1(http1::Sender),
    Http2(http2::Connection),
}

/// Why an exchange came to no response.
pub(super) enum Failed {
    /// The connection did not take the request: row (a).
    Back(Box<Back>),
    Error(Error),
}

/// A request that no connection took.
pub(super) struct Back {
    pub(super) request: Request<Body>,
    /// Whether the connection had been made for it: then it is the instance's fault.
    pub(super) fresh: bool,
    /// How it is known that it was not processed.
    pub(super) evidence: Evidence,
    pub(super) why: String,
}

/// What the instance speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// ALPN will tell.
    Unknown,
    Http1,
    Http2,
}

impl Transport {
    /// Options, and then what makes a transport for each instance.
    pub fn builder() -> TransportBuilder {
        TransportBuilder::new()
    }

    pub(super) fn new(plan: Plan) -> Self {
        let mode = match &plan.target {
            Ok(target) => match target.protocol {
                Protocol::Http2 => Mode::Http2,
                Protocol::Auto if target.tls => Mode::Unknown,
                Protocol::Auto | Protocol::Http1 => Mode::Http1,
            },
            Err(_) => Mode::Http1,
        };
        let limit = plan.options.max_in_flight;
        Self {
            handle: Arc::new(Handle(Arc::new(Connections {
                named: Named::new(match &plan.target {
                    Ok(target) => &target.address,
                    Err(_) => &plan.instance,
                }),
                plan,
                mode: AtomicU8::new(mode as u8),
                http1: Pool1::default(),
                http2: Pool2::default(),
                limit: limit.map(|calls| Arc::new(Semaphore::new(calls))),
                retired: AtomicBool::new(false),
                news: Notify::new(),
            }))),
            permit: Permit::None,
        }
    }

    pub(super) fn target(&self) -> &Result<Target, String> {
        &self.handle.0.plan.target
    }

    /// Connects ahead of the first call. What goes wrong is for that call to find.
    pub(super) fn warm_up(&self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let connections = &self.handle.0;
        if connections.mode() == Mode::Http1 {
            spawn(http1::warm_up(Arc::clone(connections)));
        } else {
            let _ = connections.http2.dial(connections);
        }
    }

    /// The instance that it calls.
    pub fn instance(&self) -> &Address {
        &self.handle.0.plan.instance
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture;

    /// Ready unless the instance has as many calls as it may
    /// ([`max_in_flight`](TransportBuilder::max_in_flight)).
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(limit) = &self.handle.0.limit else {
            return Poll::Ready(Ok(()));
        };
        loop {
            match &mut self.permit {
                Permit::Held(_) => return Poll::Ready(Ok(())),
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
                        Err(_) => return Poll::Ready(Ok(())), // never closed
                    };
                }
            }
        }
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let permit = match std::mem::replace(&mut self.permit, Permit::None) {
            Permit::Held(permit) => Some(permit),
            _ => None,
        };
        let connections = Arc::clone(&self.handle.0);
        ResponseFuture(Box::pin(connections.call(request, permit)))
    }
}

impl Connections {
    async fn call(
        self: Arc<Self>,
        mut request: Request<Body>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Response<ResponseBody>, Error> {
        // Polled for the first time after the last handle went: nobody can evict it any more.
        let orphan = self.is_retired();
        let retry = self.plan.options.retry.as_ref();
        let spare = retry.and_then(|retry| Some((retry, retry.spare(&mut request)?)));
        let mut renewed = 0;
        loop {
            // What has to wait is boxed: most calls need it not, and are the smaller for it.
            let came = if self.mode() == Mode::Http1 {
                let sender = match self.http1.take() {
                    Some(sender) => Ok(Some(sender)),
                    None => Box::pin(http1::connect(&self, orphan)).await,
                };
                match sender {
                    Ok(Some(sender)) => http1::exchange(&self, sender, request).await,
                    Ok(None) => continue, // it came to HTTP/2
                    Err(error) => return Err(self.not_connected(&error, request)),
                }
            } else {
                let slot = match self.http2.try_acquire(&self) {
                    Some(slot) => Ok(Some(slot)),
                    None => Box::pin(http2::acquire(&self, orphan)).await,
                };
                match slot {
                    Ok(Some(slot)) => http2::exchange(&self, slot, request).await,
                    Ok(None) => continue, // it came to HTTP/1
                    Err(error) => return Err(self.not_connected(&error, request)),
                }
            };
            let back = match came {
                Ok(mut response) => {
                    response.body_mut().hold(permit);
                    return Ok(response);
                }
                Err(Failed::Error(error)) => {
                    return Err(match spare {
                        Some((retry, spare)) => retry.judge(error, spare),
                        None => error,
                    });
                }
                Err(Failed::Back(back)) => *back,
            };
            // A connection that had lain idle and closed says nothing about the instance: another
            // one to it is as good as another instance.
            let retired = self.is_retired() && !orphan;
            if retired || back.fresh || renewed == MOST_RENEWALS {
                let kind = match back.evidence {
                    Evidence::Refused => ErrorKind::Refused,
                    _ => ErrorKind::Unsent,
                };
                let error = self.error(kind, back.evidence, back.why);
                let error = error.with_request(Some(back.request));
                return Err(if back.fresh { error.ejecting() } else { error });
            }
            renewed += 1;
            request = back.request;
        }
    }

    /// A new connection, by whatever the instance speaks.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Connected, DialError> {
        let options = &self.plan.options;
        let Dialled { io, http2 } = dial::dial(&self.plan.target, options).await?;
        Ok(if http2 {
            Connected::Http2(http2::shake_hands(io, options, self.http2.changed()).await?)
        } else {
            Connected::Http1(http1::shake_hands(io).await?)
        })
    }

    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            0 => Mode::Unknown,
            1 => Mode::Http1,
            _ => Mode::Http2,
        }
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
    }

    /// Ends when the last handle goes.
    pub(super) async fn retirement(&self) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.is_retired() {
                return;
            }
            news.await;
        }
    }

    pub(super) fn is_secure(&self) -> bool {
        self.plan.target.as_ref().is_ok_and(|target| target.tls)
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(super) fn error(
        &self,
        kind: ErrorKind,
        evidence: Evidence,
        text: impl Into<String>,
    ) -> Error {
        Error::new(&self.plan.instance, kind, evidence, text)
    }

    fn not_connected(&self, error: &DialError, request: Request<Body>) -> Error {
        if error.is_retirement() {
            let new = self.error(ErrorKind::Unsent, Evidence::Unsent, error.to_string());
            return new.with_request(Some(request));
        }
        Error::dial(&self.plan.instance, error, request)
    }
}

/// One connection attempt, to learn whether there is a point in more.
pub(super) async fn probe(plan: Plan) -> Result<(), String> {
    let one = Transport::new(plan);
    let connected = one.handle.0.connect().await;
    connected.map(drop).map_err(|error| error.to_string())
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.retired.store(true, Ordering::Release);
        self.0.http1.close();
        self.0.http2.close();
        self.0.news.notify_waiters();
    }
}

impl Clone for Transport {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
            permit: Permit::None,
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
            .field("mode", &self.handle.0.mode())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// How often one call turns to another connection of the same instance. Idle ones that close at
/// once under a burst are few; more means something else, and other instances.
const MOST_RENEWALS: u32 = 16;

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
            options: Arc::default(),
        };
        let transport = Transport::new(plan);
        let connections = Arc::clone(&transport.handle.0);
        let request = Request::new(Body::empty());
        let call = size_of_val(&connections.call(request, None));
        assert!(call <= 2048, "{call}");
    }
}
