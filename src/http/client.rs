use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{Method, Request, Response, Uri, uri::PathAndQuery};
use tower::Service;

use crate::{
    balance::{InExtensions, P2c, Policy},
    client,
    http::{
        Deadline, Error, HttpBalance, HttpBuilder, IntoUri, RequestBuilder, ResponseFuture,
        ServiceClient, name::Asked, pool::Pool, services::Busy, uri::ReadUri,
    },
    model::{InvalidName, ServiceKey, ServiceName},
    transport::{Body, ResponseBody},
};

/// An HTTP client that calls services by their names; see [the module](crate::http).
///
/// Cheap to clone, and clones share everything. Also a tower [`Service`] of
/// [requests](::http::Request), always ready. Dropping the last clone unsubscribes from
/// all services; calls in flight go on.
pub struct Client<P: Policy = P2c> {
    pool: Arc<Pool<Balanced<P>>>,
}

/// The instances of one service, by our transport.
pub(super) type Balanced<P> = HttpBalance<P, InExtensions>;

impl Client {
    /// A client with the defaults of [`builder`](Self::builder), which calls services of that
    /// registry client's namespace, in its default group unless an address names another.
    pub fn new(nacos: &client::Client) -> Self {
        Self::builder(nacos).build()
    }

    /// A builder, for what has a default here.
    pub fn builder(nacos: &client::Client) -> HttpBuilder {
        HttpBuilder::new(nacos.clone())
    }
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
        RequestBuilder::new(self.clone().into(), method, ReadUri::into_uri(uri))
    }

    /// Sends a whole request. Its service is what its address says, or a [`ServiceKey`] or
    /// [`ServiceName`] in its extensions.
    pub fn request<B: Into<Body>>(&self, request: Request<B>) -> ResponseFuture<P> {
        let mut request = request.map(Into::into);
        let mut address = mem::take(request.uri_mut()).into_parts();
        *request.uri_mut() = origin(address.path_and_query.take());
        let asked = Asked::of(request.extensions());
        let sent = asked.named(&address).map_err(Error::address);
        let sent = sent.and_then(|named| self.pool.with(named, |held| send(held, request)));
        sent.unwrap_or_else(ResponseFuture::failed)
    }

    /// A service on its own, for what no address can name (`"group@@name"`), and for services
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
        let key = self.pool.key_of(name);
        let balance = self.pool.get(&key)?;
        Ok(ServiceClient::new(balance))
    }

    /// The services that it is subscribed to now, sorted by name.
    pub fn services(&self) -> Vec<ServiceKey> {
        self.pool.keys()
    }

    /// The registry's client.
    pub fn nacos(&self) -> &client::Client {
        self.pool.nacos()
    }
}

/// Sends a request whose address is a path.
pub(super) fn send<P: Policy>(balance: &Balanced<P>, request: Request<Body>) -> ResponseFuture<P> {
    let deadline = request.extensions().get::<Deadline>().copied();
    ResponseFuture::new(balance.start(request), deadline)
}

/// The path and query of an address, which is what an instance is asked for.
pub(super) fn origin(path: Option<PathAndQuery>) -> Uri {
    match path {
        Some(path) if path.as_str().starts_with('/') => path.into(),
        // An address may have a query and no path.
        Some(path) if path.as_str().starts_with('?') => {
            let path = PathAndQuery::from_maybe_shared(format!("/{}", path.as_str()));
            path.map_or_else(|_| Uri::default(), Uri::from)
        }
        _ => Uri::default(), // "/"
    }
}

impl<P: Policy> Busy for Balanced<P> {
    fn is_busy(&self) -> bool {
        self.is_in_use()
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
