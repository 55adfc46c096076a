use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{Method, Request, Response};
use tower::Service;

use crate::{
    balance::{BalanceCounters, BalanceExplanation, P2c, Policy},
    directory::Subscription,
    http::{
        each::Each,
        error::Error,
        future::ResponseFuture,
        request::RequestBuilder,
        target::{Balanced, Target, to_service},
        uri::{IntoUri, ReadUri},
    },
    model::{Address, ServiceKey},
    transport::{Body, ResponseBody},
};

/// One service of a [`Client`](crate::http::Client): its requests are addressed by path only.
///
/// Cheap to clone. While one lives the service stays subscribed to, however seldom it is called.
///
/// Example: [calls](crate::http)
pub struct ServiceClient<P: Policy = P2c> {
    balance: Arc<Balanced<P>>,
    each: Each,
}

impl<P: Policy> ServiceClient<P> {
    pub(super) const fn new(balance: Arc<Balanced<P>>, each: Each) -> Self {
        Self { balance, each }
    }

    /// A GET request for a path that begins with `/`; await it.
    pub fn get(&self, path: impl IntoUri) -> RequestBuilder<P> {
        self.method(Method::GET, path)
    }

    /// A POST request with this body.
    pub fn post(&self, path: impl IntoUri, body: impl Into<Body>) -> RequestBuilder<P> {
        self.method(Method::POST, path).body(body)
    }

    /// A request of any method; await it.
    pub fn method(&self, method: Method, path: impl IntoUri) -> RequestBuilder<P> {
        RequestBuilder::new(
            Target::Service(Arc::clone(&self.balance), self.each.clone()),
            method,
            ReadUri::into_uri(path),
        )
    }

    /// Sends a whole request to this service, whatever service its address or extensions name.
    pub fn request<B: Into<Body>>(&self, request: Request<B>) -> ResponseFuture<P> {
        to_service(&self.balance, &self.each, request.map(Into::into))
    }

    /// Its balancer, for the status page.
    #[cfg(feature = "status")]
    pub(crate) fn looked(&self) -> std::sync::Weak<dyn crate::balance::Looked> {
        self.balance.looked()
    }

    /// The service.
    pub fn key(&self) -> &ServiceKey {
        self.subscription().key()
    }

    /// Its subscription: wait for instances with [`wait_for`](Subscription::wait_for), say.
    pub fn subscription(&self) -> &Subscription {
        self.balance.subscription()
    }

    /// Why the instance at `address` is called, or is not. Displays as a sentence.
    pub fn explain(&self, address: &Address) -> BalanceExplanation {
        self.balance.explain(address)
    }

    /// What its balancer did so far.
    pub fn counters(&self) -> BalanceCounters {
        self.balance.counters()
    }
}

impl<P: Policy, B: Into<Body>> Service<Request<B>> for ServiceClient<P> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture<P>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<P> {
        self.request(request)
    }
}

impl<P: Policy> Clone for ServiceClient<P> {
    fn clone(&self) -> Self {
        Self {
            balance: Arc::clone(&self.balance),
            each: self.each.clone(),
        }
    }
}

impl<P: Policy> fmt::Debug for ServiceClient<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClient")
            .field("service", self.key())
            .finish_non_exhaustive()
    }
}
