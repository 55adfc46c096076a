use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{Method, Request, Response};
use tower::Service;

use crate::{
    balance::{P2c, Policy},
    client,
    http::{
        error::Error,
        future::ResponseFuture,
        pool::Pool,
        request::RequestBuilder,
        service::ServiceClient,
        target::{Balanced, Target, to_named},
        uri::{IntoUri, ReadUri},
    },
    model::{InvalidName, ServiceKey, ServiceName},
    transport::{Body, ResponseBody},
};

/// An HTTP client that calls services by their names; see [the module](crate::http).
///
/// Cheap to clone, and clones share everything. Also a tower [`Service`] of
/// [requests](::http::Request), always ready. Dropping the last clone unsubscribes from
/// all services; calls in flight go on.
///
/// Example: [calls](crate::http)
pub struct Client<P: Policy = P2c> {
    pub(super) pool: Arc<Pool<Balanced<P>>>,
}

impl<P: Policy> Client<P> {
    pub(super) const fn of(pool: Arc<Pool<Balanced<P>>>) -> Self {
        Self { pool }
    }

    /// A GET request to `nacos://[group@]service/path?query`; await it.
    pub fn get(&self, uri: impl IntoUri) -> RequestBuilder<P> {
        self.method(Method::GET, uri)
    }

    /// A HEAD request.
    pub fn head(&self, uri: impl IntoUri) -> RequestBuilder<P> {
        self.method(Method::HEAD, uri)
    }

    /// A POST request with this body: a text, bytes, `()`, or [`Body::new`] of a stream.
    pub fn post(&self, uri: impl IntoUri, body: impl Into<Body>) -> RequestBuilder<P> {
        self.method(Method::POST, uri).body(body)
    }

    /// A PUT request with this body.
    pub fn put(&self, uri: impl IntoUri, body: impl Into<Body>) -> RequestBuilder<P> {
        self.method(Method::PUT, uri).body(body)
    }

    /// A PATCH request with this body.
    pub fn patch(&self, uri: impl IntoUri, body: impl Into<Body>) -> RequestBuilder<P> {
        self.method(Method::PATCH, uri).body(body)
    }

    /// A DELETE request.
    pub fn delete(&self, uri: impl IntoUri) -> RequestBuilder<P> {
        self.method(Method::DELETE, uri)
    }

    /// A request of any method; await it.
    pub fn method(&self, method: Method, uri: impl IntoUri) -> RequestBuilder<P> {
        RequestBuilder::new(
            Target::Named(Arc::clone(&self.pool)),
            method,
            ReadUri::into_uri(uri),
        )
    }

    /// Sends a whole request. Its service is what its address says, or a [`ServiceKey`] or
    /// [`ServiceName`] in its extensions.
    pub fn request<B: Into<Body>>(&self, request: Request<B>) -> ResponseFuture<P> {
        to_named(&self.pool, request.map(Into::into))
    }

    /// A service on its own, for what no address can name (`"group@name"`), and for services
    /// whose subscription should not wait for the first call and not end between calls.
    ///
    /// Subscribes and returns at once.
    ///
    /// # Errors
    ///
    /// When the name breaks Nacos's rules, too many services are called, or the registry's client
    /// is closed.
    pub fn service<N>(&self, name: N) -> Result<ServiceClient<P>, Error>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        let name = name.try_into().map_err(|e| Error::name(&e.into()))?;
        let service = self.pool.service(None, name)?;
        Ok(ServiceClient::new(service, self.pool.each.clone()))
    }

    /// The same of a registry that was given [by name](crate::http::HttpBuilder::registry).
    ///
    /// # Errors
    ///
    /// As those of [`service`](Self::service), and when no registry was given by that name.
    pub fn service_in<N>(&self, registry: &str, name: N) -> Result<ServiceClient<P>, Error>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        let name = name.try_into().map_err(|e| Error::name(&e.into()))?;
        let service = self.pool.service(Some(registry), name)?;
        Ok(ServiceClient::new(service, self.pool.each.clone()))
    }

    /// The services that it is subscribed to now, registry by registry, sorted by name.
    pub fn services(&self) -> Vec<ServiceKey> {
        self.pool.keys()
    }

    /// The client of its first registry.
    pub fn nacos(&self) -> &client::Client {
        self.pool.nacos()
    }
}

impl<P: Policy, B: Into<Body>> Service<Request<B>> for Client<P> {
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

impl<P: Policy> Clone for Client<P> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
        }
    }
}

impl<P: Policy> fmt::Debug for Client<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.pool).finish()
    }
}

/// Held by the compiler.
const _: () = {
    const fn handle<T: Clone + Send + Sync + 'static>() {}
    const fn future<T: Send + 'static>() {}
    handle::<Client>();
    handle::<ServiceClient>();
    future::<ResponseFuture>();
    future::<RequestBuilder>();
};
