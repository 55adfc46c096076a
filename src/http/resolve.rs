use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::http::{Request, Uri};
use pin_project::pin_project;
use tower::{
    BoxError, Layer, Service,
    load::{CompleteOnResponse, completion::TrackCompletion},
};

use crate::{
    balance::{BalanceBuilder, Hints, Lease, P2c, Picker, Picking, Policy},
    client,
    directory::Subscription,
    endpoint::{Classify, Unclassified, Verdict},
    http::{
        each::Each,
        error::Error,
        name::Asked,
        pool::{Pool, Registries},
        services::{Busy, Limits},
        target::origin,
    },
    model::Instance,
    sync::poll_budget,
};

/// Puts an instance's address in place of a service's name, over any HTTP client that is a tower
/// [`Service`] of [requests](::http::Request) and `Clone`.
///
/// `nacos://[group@]service/path` becomes `http://ip:port/path`, or `https://` where the instance's
/// metadata says `secure=true`. Everything that [`Client`](crate::http::Client) says of addresses,
/// extensions and of how long services stay subscribed to holds here too. What the client fails
/// with is handed on as it is; an error of ours is an [`Error`].
///
/// ```
/// # async fn example() -> Result<(), tower::BoxError> {
/// # use axum::{Router, routing::get};
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let provider = listener.local_addr()?;
/// # let app = Router::new().route("/v1/items/{id}", get(async || "a pen"));
/// # tokio::spawn(async move { axum::serve(listener, app).await });
/// # let registry = tower_nacos::testing::Registry::start().await?;
/// # registry.register("orders", &provider.into());
/// # let nacos = tower_nacos::Client::connect(&*registry.addr()).await?;
/// use hyper_util::{client::legacy::{Client, Error}, rt::TokioExecutor};
/// use tower::{Layer, ServiceExt};
/// use tower_nacos::{endpoint::classify, http::ResolveLayer};
///
/// let client = Client::builder(TokioExecutor::new()).build_http::<String>();
/// let http = ResolveLayer::new(&nacos).classify(classify::error::<Error>).layer(client);
///
/// let request = http::Request::get("nacos://orders/v1/items/7").body(String::new())?;
/// let response = http.oneshot(request).await?;
/// assert_eq!(response.status(), 200);
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
/// ```
///
/// # What this way lacks
///
/// The client's connections are not ours, so it promises less than [`Client`](crate::http::Client):
///
/// * An evicted instance's idle connections stay open until that client's own limit.
/// * A request that was not processed is not moved to another instance: the caller gets the error,
///   also when no connection could be made. Retry above this layer, where that is safe; the
///   next pick is another instance once the failed one is known as such.
/// * A dead instance is known as such only if [`classify`](Self::classify) says which of the
///   client's errors mean that, and a silent one only if the client finds it.
/// * What the client queues inside itself is past the pick: a request that waits for a connection
///   there may reach an instance that left meanwhile.
/// * A call is in flight until its response's head, unless [`completion`](Self::completion) says
///   otherwise.
/// * [`Deadline`](crate::http::Deadline) is not looked at; `tower::timeout` is.
/// * Of metadata only `secure` is heeded, and addresses are handed on as they are registered, also
///   the link-local, unspecified and multicast ones that [`Client`](crate::http::Client) refuses:
///   who may register decides where that client connects to.
pub struct ResolveLayer<P: Policy = P2c, V = Unclassified, C = CompleteOnResponse> {
    pool: Arc<Pool<Picker<P>>>,
    classify: V,
    completion: C,
}

/// An HTTP client that calls services by their names; made by [`ResolveLayer`].
///
/// Example: [another HTTP client](crate::http::ResolveLayer)
pub struct ResolveService<S, P: Policy = P2c, V = Unclassified, C = CompleteOnResponse> {
    inner: S,
    layer: ResolveLayer<P, V, C>,
}

/// The future of a call through [`ResolveService`].
///
/// Example: [another HTTP client](crate::http::ResolveLayer)
#[pin_project]
pub struct ResolveFuture<S, B, P: Policy, V, C>
where
    S: Service<Request<B>>,
{
    #[pin]
    state: State<S, B, P>,
    classify: V,
    completion: C,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the small one is rare, and a box would cost every call an allocation"
)]
#[pin_project(project = Stage)]
enum State<S, B, P: Policy>
where
    S: Service<Request<B>>,
{
    Failed(Option<BoxError>),
    Picking {
        picking: Picking<P>,
        inner: S,
        request: Option<Request<B>>,
    },
    Calling {
        /// Dropped before what counts it as in flight.
        #[pin]
        future: S::Future,
        lease: Option<Lease>,
    },
}

impl ResolveLayer {
    /// The layer with [`BalanceBuilder`]'s defaults, for services of that registry client's
    /// namespace.
    pub fn new(nacos: &client::Client) -> Self {
        Self::with(nacos, |builder| builder)
    }
}

impl<P: Policy> ResolveLayer<P> {
    /// The same with a balancer of one's own for each service: policy, preferred clusters, limits.
    pub fn with(
        nacos: &client::Client,
        balance: impl Fn(BalanceBuilder) -> BalanceBuilder<P> + Send + Sync + 'static,
    ) -> Self {
        let make = move |subscription: Subscription| {
            balance(crate::balance::Balance::builder(&subscription)).picker()
        };
        Self {
            pool: Pool::new(
                Registries::new(nacos.clone()),
                Limits::default(),
                Each::default(),
                make,
            ),
            classify: Unclassified::default(),
            completion: CompleteOnResponse::default(),
        }
    }
}

impl<P: Policy, V, C> ResolveLayer<P, V, C> {
    /// Sets which of the client's errors mean that the instance cannot be reached, so that it gets
    /// no call until a probe succeeds. Default: none does.
    #[must_use]
    pub fn classify<E, V2>(self, classify: V2) -> ResolveLayer<P, V2, C>
    where
        V2: Fn(&E) -> Verdict,
    {
        ResolveLayer {
            pool: self.pool,
            classify,
            completion: self.completion,
        }
    }

    /// Sets when a call has ended, as far as the instance's load is concerned: with the response
    /// by default. A [`TrackCompletion`] that puts the [`Lease`] beside the response's body keeps
    /// the call counted until the body is dropped.
    #[must_use]
    pub fn completion<C2>(self, completion: C2) -> ResolveLayer<P, V, C2> {
        ResolveLayer {
            pool: self.pool,
            classify: self.classify,
            completion,
        }
    }
}

impl<S, P: Policy, V: Clone, C: Clone> Layer<S> for ResolveLayer<P, V, C> {
    type Service = ResolveService<S, P, V, C>;

    fn layer(&self, inner: S) -> Self::Service {
        ResolveService {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, B, P, V, C> Service<Request<B>> for ResolveService<S, P, V, C>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
    P: Policy,
    V: Classify<S::Error> + Clone,
    C: TrackCompletion<Lease, S::Response> + Clone,
{
    type Response = C::Output;
    type Error = BoxError;
    type Future = ResolveFuture<S, B, P, V, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut address = mem::take(request.uri_mut()).into_parts();
        *request.uri_mut() = origin(address.path_and_query.take());
        let asked = Asked::of(request.extensions());
        let named = asked.named(&address).map_err(Error::address);
        let picked = named.and_then(|named| {
            let hints = request.extensions().get::<Hints>().cloned();
            let pick = |picker: &Arc<Picker<P>>| picker.pick_by(hints.unwrap_or_default());
            self.layer.pool.with(named, pick)
        });
        let state = match picked {
            Ok(picking) => {
                // The one that is ready goes along.
                let inner = self.inner.clone();
                State::Picking {
                    picking,
                    inner: mem::replace(&mut self.inner, inner),
                    request: Some(request),
                }
            }
            Err(error) => State::Failed(Some(error.into())),
        };
        ResolveFuture {
            state,
            classify: self.layer.classify.clone(),
            completion: self.layer.completion.clone(),
        }
    }
}

impl<S, B, P, V, C> Future for ResolveFuture<S, B, P, V, C>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
    P: Policy,
    V: Classify<S::Error>,
    C: TrackCompletion<Lease, S::Response>,
{
    type Output = Result<C::Output, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                Stage::Failed(error) => {
                    ready!(poll_budget(cx));
                    let error = error.take();
                    return Poll::Ready(Err(error.expect("polled again after it was ready")));
                }
                Stage::Picking {
                    picking,
                    inner,
                    request,
                } => {
                    let lease = match ready!(Pin::new(picking).poll(cx)) {
                        Ok(lease) => lease,
                        Err(error) => return Poll::Ready(Err(Error::from(error).into())),
                    };
                    let mut request = request.take().expect("taken only to be sent");
                    let path = mem::take(request.uri_mut());
                    *request.uri_mut() = at(lease.instance(), path);
                    let future = inner.call(request);
                    let lease = Some(lease);
                    this.state.set(State::Calling { future, lease });
                }
                Stage::Calling { future, lease } => {
                    let result = ready!(future.poll(cx));
                    let mut lease = lease.take().expect("polled again after it was ready");
                    return Poll::Ready(match result {
                        Ok(response) => {
                            lease.succeeded();
                            Ok(this.completion.track_completion(lease, response))
                        }
                        Err(error) => {
                            lease.failed(this.classify.classify(&error));
                            Err(error.into())
                        }
                    });
                }
            }
        }
    }
}

/// The address of that path at the instance.
fn at(instance: &Instance, path: Uri) -> Uri {
    let secure = instance.metadata().get("secure");
    let scheme = match secure.is_some_and(|secure| secure.eq_ignore_ascii_case("true")) {
        true => ::http::uri::Scheme::HTTPS,
        false => ::http::uri::Scheme::HTTP,
    };
    let mut parts = path.into_parts();
    parts.scheme = Some(scheme);
    parts.authority = instance.address().to_string().try_into().ok();
    // All three parts are there: an instance's address is `host:port`, which any authority can be.
    Uri::from_parts(parts).unwrap_or_default()
}

impl<P: Policy> Busy for Picker<P> {
    fn is_busy(&self) -> bool {
        self.is_in_use()
    }
}

impl<P: Policy, V: Clone, C: Clone> Clone for ResolveLayer<P, V, C> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<S: Clone, P: Policy, V: Clone, C: Clone> Clone for ResolveService<S, P, V, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<P: Policy, V, C> fmt::Debug for ResolveLayer<P, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResolveLayer").field(&self.pool).finish()
    }
}

impl<S: fmt::Debug, P: Policy, V, C> fmt::Debug for ResolveService<S, P, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolveService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

impl<S: Service<Request<B>>, B, P: Policy, V, C> fmt::Debug for ResolveFuture<S, B, P, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolveFuture").finish_non_exhaustive()
    }
}
