use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{
    BoxError, Service,
    load::{CompleteOnResponse, Load, completion::TrackCompletion},
};

use crate::{
    endpoint::{
        Call, CallError, Endpoint, InFlight, Judge, NeverRecover, OwnFirst, Recover, Shared,
        Unclassified,
    },
    sync::Ticket,
};

/// The service of one instance, as a [`Discovery`](crate::discover::Discovery) gives it out.
///
/// A call goes to its instance, or to another one when that has left or closed since the balancer
/// chose it, so no call is lost to an eviction between `poll_ready` and `call`. It is chosen and
/// admitted when the future is first polled.
///
/// `poll_ready` waits while the instance is closed or unreachable, and fails only when it left for
/// good, upon which balancers drop the service. It is ready also while the instance's own service
/// is not: a call then waits for it, counted in the load, without being bound to the instance.
///
/// Its load is calls in flight and waiting, divided by the instance's weight: under load a
/// balancer that compares loads leans to weights, at low load (all 0) it does not.
pub struct Guarded<S, R = NeverRecover, C = CompleteOnResponse, V = Unclassified> {
    shared: Arc<Shared<S, R, C, V>>,
    /// `None`: there is no instance to call.
    endpoint: Option<Arc<Endpoint<S>>>,
    ticket: Option<Ticket>,
}

/// The future of a call through a [`Guarded`].
#[pin_project]
pub struct ResponseFuture<S, Req, R, C, V>
where
    S: Service<Req>,
{
    #[pin]
    call: Call<OwnFirst<S, R, C, V>, S, Req, R, C, V>,
}

impl<S, R, C, V> Guarded<S, R, C, V> {
    pub(super) const fn new(
        shared: Arc<Shared<S, R, C, V>>,
        endpoint: Option<Arc<Endpoint<S>>>,
    ) -> Self {
        Self {
            shared,
            endpoint,
            ticket: None,
        }
    }
}

impl<S, Req, R, C, V> Service<Req> for Guarded<S, R, C, V>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    type Response = C::Output;
    type Error = CallError;
    type Future = ResponseFuture<S, Req, R, C, V>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let Some(endpoint) = &self.endpoint else {
            return Poll::Ready(Ok(()));
        };
        if !self.shared.set().is_gated() {
            return Poll::Ready(Ok(()));
        }
        let mut registered = false;
        loop {
            let gate = endpoint.gate.state();
            if gate.is_open() || gate.offers_probe() {
                if let Some(ticket) = self.ticket.take() {
                    endpoint.wakers().leave(ticket);
                }
                return Poll::Ready(Ok(()));
            }
            if gate.is_evicted() {
                return Poll::Ready(Err(CallError::Evicted {
                    service: self.shared.set().service().clone(),
                    instance: endpoint.address(),
                }));
            }
            if registered {
                return Poll::Pending;
            }
            // Looked at again after this, so that no change falls in between.
            endpoint.wakers().register(&mut self.ticket, cx.waker());
            registered = true;
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let pick = OwnFirst {
            shared: Arc::clone(&self.shared),
            own: self.endpoint.clone(),
        };
        ResponseFuture {
            call: Call::new(pick, request),
        }
    }
}

impl<S, R, C, V> Load for Guarded<S, R, C, V> {
    type Metric = f64;

    fn load(&self) -> f64 {
        let endpoint = self.endpoint.as_ref();
        endpoint.map_or(f64::INFINITY, |endpoint| endpoint.load())
    }
}

impl<S, Req, R, C, V> Future for ResponseFuture<S, Req, R, C, V>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    type Output = Result<C::Output, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().call.poll(cx)))
    }
}

impl<S, R, C, V> Drop for Guarded<S, R, C, V> {
    fn drop(&mut self) {
        if let (Some(endpoint), Some(ticket)) = (&self.endpoint, self.ticket.take()) {
            endpoint.wakers().leave(ticket);
        }
    }
}

impl<S, R, C, V> fmt::Debug for Guarded<S, R, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl<S: Service<Req>, Req, R, C, V> fmt::Debug for ResponseFuture<S, Req, R, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}
