//! The two clients: ours, and hyper-util's that takes the instances in turn by hand.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;
use tower::ServiceExt;
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::WeightedRoundRobin,
    endpoint::CallError,
    http::{BuildHttp, HttpBalance},
    transport::{self, Evidence, Protocol, Transport, TransportBuilder},
};

/// What no call of ours waits longer for.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// After this a call of hyper-util's client has failed: now and then one never ends, when its
/// connection is lost as it begins (one run of this suite in 120, on two busy cores).
const PEER_HANGS: Duration = Duration::from_secs(15);

/// A request of a cell.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) body: Bytes,
    pub(crate) header: Option<HeaderValue>,
}

/// A call that brought no whole answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// It failed, and no connection had taken it.
    pub(crate) unsent: bool,
    pub(crate) text: String,
}

#[allow(clippy::large_enum_variant, reason = "a few stand in each test")]
pub(crate) enum Caller {
    Ours(HttpBalance<WeightedRoundRobin>),
    Peer(Peer),
}

pub(crate) struct Peer {
    client: Client<HttpConnector, Full<Bytes>>,
    addresses: Vec<SocketAddr>,
    turn: AtomicUsize,
}

impl Ask {
    pub(crate) fn new(method: Method, path: &'static str) -> Self {
        let (body, header) = (Bytes::new(), None);
        Self {
            method,
            path,
            body,
            header,
        }
    }

    fn request<B>(&self, uri: Uri, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        if let Some(header) = &self.header {
            request.headers_mut().insert("x-id", header.clone());
        }
        request
    }
}

impl Caller {
    pub(crate) fn ours(addresses: &[SocketAddr], protocol: Protocol) -> Self {
        let instances = addresses.iter().map(|address| Instance::from(*address));
        let listed = Subscription::fixed(instances);
        let transport = patient().protocol(protocol).build();
        let balance = Balance::builder(&listed).policy(WeightedRoundRobin::new());
        Self::Ours(balance.build_http(transport))
    }

    pub(crate) fn peer(addresses: &[SocketAddr], protocol: Protocol) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .http2_only(protocol == Protocol::Http2)
            .build_http();
        let addresses = addresses.to_vec();
        let turn = AtomicUsize::new(0);
        Self::Peer(Peer {
            client,
            addresses,
            turn,
        })
    }

    /// The status of a whole answer.
    pub(crate) async fn call(&self, ask: &Ask) -> Result<u16, Failure> {
        match self {
            Self::Ours(balance) => timeout(HANG, ours(balance, ask))
                .await
                .unwrap_or_else(|_| panic!("our call hangs: {} {}", ask.method, ask.path)),
            Self::Peer(peer) => in_time(peer.call(ask)).await,
        }
    }
}

/// What a call of the peer came to, or that it hangs.
pub(crate) async fn in_time<T>(
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(PEER_HANGS, call).await.unwrap_or_else(|_| {
        Err(Failure {
            unsent: false,
            text: "it hangs".to_owned(),
        })
    })
}

async fn ours(balance: &HttpBalance<WeightedRoundRobin>, ask: &Ask) -> Result<u16, Failure> {
    let request = ask.request(Uri::from_static(ask.path), ask.body.clone().into());
    let response = balance.clone().oneshot(request).await;
    let response = response.map_err(|error: CallError| Failure {
        // Three refusals are the limit that is promised.
        unsent: error.inner::<transport::Error>().is_none_or(|error| {
            error.evidence() != Evidence::Unknown
                && !error.to_string().contains("so did the 3 before it")
        }),
        text: chain(&error),
    })?;
    let status = response.status().as_u16();
    let read = response.into_body().collect().await;
    read.map_err(|error| Failure {
        unsent: false,
        text: chain(&error),
    })?;
    Ok(status)
}

impl Peer {
    async fn call(&self, ask: &Ask) -> Result<u16, Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let address = self.addresses[turn % self.addresses.len()];
        let uri = format!("http://{address}{}", ask.path).parse().unwrap();
        let request = ask.request(uri, Full::new(ask.body.clone()));
        let response = self.client.request(request).await;
        let lost = |text| Failure {
            unsent: false,
            text,
        };
        let response = response.map_err(|error| lost(chain(&error)))?;
        let status = response.status().as_u16();
        let read = response.into_body().collect().await;
        read.map_err(|error| lost(chain(&error)))?;
        Ok(status)
    }
}

/// A process that plays everybody's part on a busy machine says nothing for a while, now and then;
/// hyper-util's client waits for that without end.
pub(crate) fn patient() -> TransportBuilder {
    Transport::builder()
        .dial_timeout(HANG)
        .handshake_timeout(HANG)
}

/// An error and what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
