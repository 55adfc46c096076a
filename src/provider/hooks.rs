use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use ::http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE},
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use tower::Service;

use super::{
    OnlineError, Provider, Stage,
    layer::{InFlightHere, OFFLINE_PATH},
};

/// What an orchestrator asks and tells a [`Provider`] over HTTP, as a tower service for any body.
///
/// | request | what it does | answer |
/// |---|---|---|
/// | `GET` or `HEAD /ready` | nothing | 200 while it is online and not about to leave, else 503 |
/// | `POST /online` | goes online; waits until it is ready, and for the registry or the first failure | 200; 503 if it failed and is tried again; 409 once it leaves; 500 if it can never be |
/// | `POST /offline` | goes offline; waits until that is over | 200; 500 if its runtime is gone |
///
/// Each of these answers is [`Report::to_json`](super::Report::to_json). Another method is 405 and
/// another path 404; neither does anything. A request that is dropped while it waits undoes nothing,
/// and a second `POST /offline` waits for the same end. What is offline stays so: a provider is one
/// start, so the next one is a new process.
///
/// # Who may call it
///
/// Whoever reaches it: it asks for no password, and `POST /offline` takes an instance out of service. So
/// it is mounted nowhere by default, and belongs on a listener of its own that only the orchestrator
/// reaches (loopback, or a port that no `Service` exposes):
///
/// ```no_run
/// # async fn example(provider: tower_nacos::provider::Provider, listener: tokio::net::TcpListener, router: axum::Router) -> std::io::Result<()> {
/// use tower_nacos::provider::{self, Stage};
///
/// let admin = tokio::net::TcpListener::bind("127.0.0.1:9901").await?;
/// let hooks = axum::Router::new().fallback_service(provider.hooks());
/// let over = { let provider = provider.clone(); async move { provider.reached(Stage::Over).await } };
/// tokio::try_join!(
///     axum::serve(listener, router.layer(provider.layer())).with_graceful_shutdown(provider.offline_on(provider::signal())),
///     axum::serve(admin, hooks).with_graceful_shutdown(over), // who waits for `/offline` gets the answer
/// )?;
/// # Ok(()) }
/// ```
///
/// Below a path it is `nest_service("/nacos", provider.hooks())`. Behind the provider's own
/// [`layer`](Provider::layer) its requests are calls, and `POST /offline` answers as soon as listening
/// ends, since its answer is itself among what is in flight then.
/// [`ready_path`](super::ProviderBuilder::ready_path) must not ask `/ready`: each would wait for the other.
#[derive(Clone, Debug)]
pub struct Hooks {
    provider: Provider,
}

/// The body of an answer of [`Hooks`].
///
/// Example: [hooks](crate::provider::Hooks)
#[derive(Debug, Default)]
pub struct HooksBody(Full<Bytes>);

/// The future of [`Hooks`].
///
/// Example: [hooks](crate::provider::Hooks)
pub struct HooksFuture(Pin<Box<dyn Future<Output = Response<HooksBody>> + Send>>);

impl Provider {
    /// What an orchestrator asks and tells it over HTTP, to be mounted where only that can reach it.
    pub fn hooks(&self) -> Hooks {
        Hooks {
            provider: self.clone(),
        }
    }

    async fn hook_online(self) -> StatusCode {
        match self.online().await {
            Ok(()) => StatusCode::OK,
            Err(OnlineError::Leaving) => StatusCode::CONFLICT,
            Err(error) if error.is_tried_again() => StatusCode::SERVICE_UNAVAILABLE,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    async fn hook_offline(self, until: Stage) -> StatusCode {
        match self.offline_until(until).await {
            true => StatusCode::OK,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn answer(&self, status: StatusCode) -> Response<HooksBody> {
        let json = Bytes::from(self.report().to_json());
        let mut response = Response::new(HooksBody(Full::new(json)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl<B> Service<Request<B>> for Hooks {
    type Response = Response<HooksBody>;
    type Error = Infallible;
    type Future = HooksFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> HooksFuture {
        let provider = self.provider.clone();
        let counted = request.extensions().get::<InFlightHere>().is_some();
        let ready = || match provider.is_ready() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET, "/ready") => provider.answer(ready()),
            (&Method::HEAD, "/ready") => without_body(provider.answer(ready())),
            (_, "/ready") => not_allowed("GET, HEAD"),
            (&Method::POST, "/online") => {
                return HooksFuture(Box::pin(async move {
                    let status = provider.clone().hook_online().await;
                    provider.answer(status)
                }));
            }
            (&Method::POST, OFFLINE_PATH) => {
                let until = match counted {
                    true => Stage::Draining,
                    false => Stage::Over,
                };
                return HooksFuture(Box::pin(async move {
                    let status = provider.clone().hook_offline(until).await;
                    provider.answer(status)
                }));
            }
            (_, "/online" | OFFLINE_PATH) => not_allowed("POST"),
            _ => empty(StatusCode::NOT_FOUND),
        };
        HooksFuture(Box::pin(std::future::ready(answer)))
    }
}

fn empty(status: StatusCode) -> Response<HooksBody> {
    let mut response = Response::new(HooksBody::default());
    *response.status_mut() = status;
    response
}

fn not_allowed(allowed: &'static str) -> Response<HooksBody> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// What HEAD gets: the headers of GET.
fn without_body(response: Response<HooksBody>) -> Response<HooksBody> {
    let length = http_body::Body::size_hint(response.body()).exact();
    let mut response = response.map(|_| HooksBody::default());
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

impl Future for HooksFuture {
    type Output = Result<Response<HooksBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl http_body::Body for HooksBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// What routers ask of a service, held by the compiler.
const _: () = {
    const fn handle<T: Clone + Send + Sync + 'static>() {}
    handle::<Hooks>();
};

impl fmt::Debug for HooksFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HooksFuture").finish_non_exhaustive()
    }
}
