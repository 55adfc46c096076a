//! A service of which everything fails gets at most 1.2 times the load that is offered, whatever is switched on: counted
//! at the server, over HTTP and gRPC, with retries, hedges and both. In virtual time, and beside tower's own layer:
//! `tests/retry.rs`.

#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ::http::{Request, Response, StatusCode, Version};
use axum::body::Body;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tower::{Service, ServiceExt};
use tower_nacos::{
    Client, Instance, Subscription,
    grpc::Channel,
    http,
    retry::{Hedge, Retry},
    testing::Registry,
    transport::{Protocol, Transport},
};

/// What only a hang reaches.
const HANG: Duration = Duration::from_secs(60);
const CALLS: usize = 1_000;
const AT_ONCE: usize = 50;
const MOST: usize = CALLS + CALLS / 5;

/// What is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Retry,
    Hedge,
    Both,
}

/// Fails all that it gets, as one that is overloaded does: 503 or UNAVAILABLE, to be asked again at once.
async fn failing(requests: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(move |request: Request<Body>| async move {
        requests.fetch_add(1, SeqCst);
        // Long enough for a hedge to begin.
        tokio::time::sleep(Duration::from_millis(3)).await;
        let grpc = request.headers().contains_key("te");
        let failed = Response::builder().version(Version::HTTP_11);
        let failed = match grpc {
            true => failed
                .header("content-type", "application/grpc")
                .header("grpc-status", "14")
                .header("grpc-retry-pushback-ms", "0"),
            false => failed
                .status(StatusCode::SERVICE_UNAVAILABLE)
                .header("retry-after", "0"),
        };
        failed.body(Body::empty()).unwrap()
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn three(requests: &Arc<AtomicUsize>) -> [SocketAddr; 3] {
    let one = || failing(Arc::clone(requests));
    [one().await, one().await, one().await]
}

/// As many tries as a policy may have: it is the budget that bounds them.
fn retry() -> Retry {
    Retry::new()
        .every_request()
        .max_attempts(5)
        .initial_backoff(Duration::from_millis(1))
}

fn hedge() -> Hedge {
    Hedge::after(Duration::from_millis(1))
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(HANG, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {HANG:?}"),
    }
}

/// `AT_ONCE` callers of a call after the other; each sees the failure that there is.
async fn storm<F>(call: impl Fn() -> F + Clone + Send + 'static)
where
    F: Future<Output = bool> + Send,
{
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let call = call.clone();
        callers.spawn(async move {
            for _ in 0..CALLS / AT_ONCE {
                assert!(!call().await, "nothing goes well");
            }
        });
    }
    soon("all have failed", callers.join_all()).await;
}

/// No more, and it was tried.
fn judged(requests: &AtomicUsize, on: On, over: &str) {
    let got = requests.load(SeqCst);
    println!("{over}, {on:?}: {got} requests for {CALLS} calls");
    assert!(got <= MOST, "{over}, {on:?}: {got} of {MOST} at most");
    assert!(got > CALLS, "{over}, {on:?}: nothing was sent again");
}

#[tokio::test]
async fn a_storm_is_a_fifth_at_most_over_http() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for on in [On::Retry, On::Hedge, On::Both] {
            let requests = Arc::default();
            let registry = soon("a registry", Registry::start()).await.unwrap();
            for address in three(&requests).await {
                registry.register_as(&address.to_string(), "orders", &[address.into()]);
            }
            let nacos = soon("a client", Client::connect(registry.addr())).await;
            let mut builder = http::Client::builder(&nacos.unwrap())
                .transport(Transport::builder().protocol(protocol));
            if on != On::Hedge {
                builder = builder.retry(retry());
            }
            if on != On::Retry {
                builder = builder.hedge(hedge());
            }
            let client = builder.build();
            storm(move || {
                let client = client.clone();
                async move {
                    let answered = client.get("nacos://orders/").send().await;
                    answered.is_ok_and(|response| response.status().is_success())
                }
            })
            .await;
            judged(&requests, on, &format!("{protocol:?}"));
        }
    }
}

#[tokio::test]
async fn a_storm_is_a_fifth_at_most_over_grpc() {
    for on in [On::Retry, On::Both] {
        let requests = Arc::default();
        let orders = Subscription::fixed(three(&requests).await.map(Instance::from));
        let mut builder = Channel::builder(&orders).retry(retry());
        if on == On::Both {
            builder = builder.hedge(hedge());
        }
        let channel = builder.build();
        storm(move || {
            let mut channel = channel.clone();
            async move {
                let ready = channel.ready().await.unwrap();
                let mut request = Request::new(tonic::body::Body::empty());
                request
                    .headers_mut()
                    .insert("te", "trailers".parse().unwrap());
                let answered = ready.call(request).await;
                answered.is_ok_and(|response| !response.headers().contains_key("grpc-status"))
            }
        })
        .await;
        judged(&requests, on, "gRPC");
    }
}
