use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};
use pin_project::pin_project;
use tokio::sync::futures::OwnedNotified;
use tower::{Layer, Service};

use super::{
    body::OfflineBody,
    names::Names,
    no_calls::{NoCall, is_call},
    traffic::{InFlight, Traffic, poll_cut},
};
use crate::model::{OFFLINE_HEADER, SERVICE_HEADER};

const OFFLINE: HeaderName = HeaderName::from_static(OFFLINE_HEADER);
const CALLEE: HeaderName = HeaderName::from_static(SERVICE_HEADER);

/// The one path for which a request carries [`InFlightHere`] on.
pub(super) const OFFLINE_PATH: &str = "/offline";

/// The request came through a provider's own layer, and is in flight there.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlightHere;

/// What the layers and services of one provider share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) traffic: Arc<Traffic>,
    pub(super) names: Names,
    /// The values of [`OFFLINE_HEADER`].
    pub(super) marks: Box<[HeaderValue]>,
    pub(super) reject_after: Option<Duration>,
    /// Requests that are no calls: one is asked by the provider itself.
    pub(super) no_calls: Box<[NoCall]>,
}

/// The tower layer of a [`Provider`](super::Provider), for any HTTP service: axum, hyper, tonic.
///
/// It counts calls until the end of their bodies and notes when they came. Once the provider is
/// offline each response carries the [mark](crate::model::OFFLINE_HEADER), over HTTP/1 with
/// `connection: close`, and the calls that come are counted; all are served. What it answers itself:
///
/// * 503 with `retry-after` to what comes when `drain_timeout` has passed or, if that is set, so
///   long [after going offline](super::ProviderBuilder::reject_after); and to what has no answer by then.
/// * 421 to a call that names, in `x-nacos-service`, a service of this address that nobody in this
///   process provides, or has registered by hand: the registry still lists who had the address before. Nothing was done then.
///
/// Over gRPC these carry the status `UNAVAILABLE`. Requests of Kubernetes's probes and of load balancers'
/// health checks (Google, AWS, Consul), gRPC health checks, scrapes by Prometheus and its kin, those of paths that
/// are [no calls](super::ProviderBuilder::no_call), and the provider's own are served and are no calls: they keep it
/// from nothing. Put it outside of other layers. It costs no
/// allocation and no lock but one that a sixteenth of the calls share, for calls that have to wait.
///
/// Example: [a provider](crate::provider)
#[derive(Clone, Debug)]
pub struct OfflineLayer {
    pub(super) shared: Arc<Shared>,
}

/// The service of an [`OfflineLayer`].
///
/// Example: [a provider](crate::provider)
#[derive(Clone, Debug)]
pub struct OfflineService<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// The future of an [`OfflineService`].
///
/// Example: [a provider](crate::provider)
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    call: Call<F>,
    shared: Arc<Shared>,
    version: Version,
}

#[pin_project(project = CallProj)]
#[derive(Debug)]
enum Call<F> {
    /// Goes to the inner service.
    Inside {
        #[pin]
        inner: F,
        in_flight: Option<InFlight>,
        #[pin]
        cut: Option<OwnedNotified>,
        grpc: bool,
    },
    /// Answered here.
    Here(Refusal, bool),
}

#[derive(Clone, Copy, Debug)]
enum Refusal {
    Late,
    Cut,
    Misdirected,
}

impl<S> Layer<S> for OfflineLayer {
    type Service = OfflineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = self.shared.clone();
        OfflineService { inner, shared }
    }
}

impl<S, A, B> Service<Request<A>> for OfflineService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: http_body::Body<Data = bytes::Bytes>,
{
    type Response = Response<OfflineBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let shared = &self.shared;
        if request.uri().path().ends_with(OFFLINE_PATH) {
            request.extensions_mut().insert(InFlightHere);
        }
        let in_flight = shared.traffic.enter(is_call(&request, &shared.no_calls));
        let version = request.version();
        let grpc = is_grpc(request.headers());
        let call = match shared.refusal(request.headers()) {
            Some(refusal) => Call::Here(refusal, grpc),
            None => Call::Inside {
                inner: self.inner.call(request),
                in_flight: Some(in_flight),
                cut: None,
                grpc,
            },
        };
        ResponseFuture {
            call,
            shared: shared.clone(),
            version,
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: http_body::Body<Data = bytes::Bytes>,
{
    type Output = Result<Response<OfflineBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.call.project() {
            CallProj::Here(refusal, grpc) => refusal.response(*grpc),
            CallProj::Inside {
                inner,
                in_flight,
                cut,
                grpc,
            } => match inner.poll(cx) {
                Poll::Ready(answer) => {
                    answer?.map(|body| OfflineBody::of_call(body, in_flight.take()))
                }
                Poll::Pending => {
                    ready!(poll_cut(cut, &this.shared.traffic, cx));
                    drop(in_flight.take());
                    Refusal::Cut.response(*grpc)
                }
            },
        };
        if this.shared.traffic.is_marked() {
            let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            mark(headers, &this.shared.marks);
            if *this.version <= Version::HTTP_11 && !upgrades {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        Poll::Ready(Ok(response))
    }
}

/// Ours come first, as callers look at a few. What a service further in said, which this one calls on
/// behalf of its callers, stays: it is somebody else's to obey.
fn mark(headers: &mut HeaderMap, ours: &[HeaderValue]) {
    let theirs: Vec<HeaderValue> = headers.get_all(OFFLINE).iter().cloned().collect();
    headers.remove(OFFLINE);
    for value in ours.iter().cloned().chain(theirs) {
        headers.append(OFFLINE, value);
    }
}

impl Shared {
    fn refusal(&self, headers: &HeaderMap) -> Option<Refusal> {
        if let Some(callee) = headers.get(CALLEE)
            && self.names.is_somebody_else(callee.as_bytes())
        {
            self.traffic.count_misdirected();
            return Some(Refusal::Misdirected);
        }
        if self.traffic.rejects(self.reject_after) {
            self.traffic.count_rejected();
            return Some(Refusal::Late);
        }
        None
    }
}

impl Refusal {
    fn response<B>(self, grpc: bool) -> Response<OfflineBody<B>> {
        let (status, text) = match self {
            Self::Late => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this instance is offline; nothing was done",
            ),
            Self::Cut => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this instance went offline before it had an answer",
            ),
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "x-nacos-service names a service that this address does not provide; nothing was done",
            ),
        };
        let mut response = Response::new(if grpc {
            OfflineBody::empty()
        } else {
            OfflineBody::text(text)
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // About what a registry needs to tell of another instance.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from_static("14"));
            headers.insert("grpc-message", HeaderValue::from_static(text));
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        response
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
