//! A try that is out of time: it is given up at the instance, counts against it, and goes elsewhere if it
//! may.

#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

mod peer_processes;

use std::{
    future::{pending, poll_fn},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, http::HeaderMap, routing::any};
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::Code;
use tonic_prost::ProstCodec;
use tower::ServiceExt;
use tower_nacos::{
    Balance, Client, Instance, Subscription,
    balance::{Outliers, WeightedRoundRobin},
    grpc::Channel,
    http::{self as nacos_http, BuildHttp, HttpBalance},
    retry::{Hedge, Retry},
    testing::Registry,
    transport::{Body, Idempotent, Protocol, Transport},
};

use crate::peer_processes::Make;

/// What the instances of a test say of the calls that they got.
#[derive(Clone)]
struct Story {
    arrivals: Arc<Mutex<Vec<SocketAddr>>>,
    /// Who was given up by its caller.
    cancelled: mpsc::UnboundedSender<SocketAddr>,
    /// How many of the first never answer.
    hanging: usize,
}

struct Guard(SocketAddr, mpsc::UnboundedSender<SocketAddr>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

async fn answer((story, own): (Story, SocketAddr), body: Bytes) -> String {
    let number = {
        let mut arrivals = story.arrivals.lock().unwrap();
        arrivals.push(own);
        arrivals.len()
    };
    if number <= story.hanging {
        let _guard = Guard(own, story.cancelled.clone());
        pending::<()>().await;
    }
    format!("{own} {}", String::from_utf8_lossy(&body))
}

/// Instances of which the first calls get no answer, and who is told of those that are given up.
async fn instances<const N: usize>(
    hanging: usize,
) -> (Story, [SocketAddr; N], mpsc::UnboundedReceiver<SocketAddr>) {
    let (cancelled, told) = mpsc::unbounded_channel();
    let arrivals = Arc::default();
    let story = Story {
        arrivals,
        cancelled,
        hanging,
    };
    let mut addresses = Vec::new();
    for _ in 0..N {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let handler = |State(state), body: Bytes| answer(state, body);
        let router = Router::new().route("/", any(handler));
        let app = router.with_state((story.clone(), own));
        tokio::spawn(async move { axum::serve(listener, app).await });
        addresses.push(own);
    }
    (story, addresses.try_into().unwrap(), told)
}

fn fixed(addresses: &[SocketAddr]) -> Subscription {
    Subscription::fixed(addresses.iter().map(|at| Instance::new((*at).into())))
}

fn balance(addresses: &[SocketAddr], protocol: Protocol) -> HttpBalance<WeightedRoundRobin> {
    Balance::builder(&fixed(addresses))
        .policy(WeightedRoundRobin::default())
        .per_try_timeout(SHORT)
        .build_http(Transport::builder().protocol(protocol).build())
}

fn request(method: Method, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri("/");
    request.body(body.into()).unwrap()
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    let ended = tokio::time::timeout(limit, what).await;
    ended.expect("it hangs")
}

/// Long enough for a request to arrive and to be answered where it is, also on a busy machine.
const SHORT: Duration = Duration::from_millis(500);
const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn what_may_be_sent_again_moves_and_the_instance_that_had_it_may_stop() {
    for protocol in BOTH {
        let (story, addresses, mut told) = instances::<2>(1).await;
        let balance = balance(&addresses, protocol);
        let pieces = ["one ", "two"]
            .map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(piece))));
        let stream = Body::new(StreamBody::new(futures_util::stream::iter(pieces)));
        let response = within(balance.clone().oneshot(request(Method::PUT, stream))).await;
        let body = response.unwrap().into_body().collect().await.unwrap();
        let arrivals = story.arrivals.lock().unwrap().clone();
        let [first, second, ..] = arrivals[..] else {
            panic!("{arrivals:?}");
        };
        assert_ne!(first, second, "{protocol:?}: another instance");
        let last = arrivals[arrivals.len() - 1];
        assert_eq!(body.to_bytes(), format!("{last} one two"));
        assert_eq!(within(told.recv()).await, Some(first), "{protocol:?}");
        let counters = balance.counters();
        assert!(counters.try_timeouts > 0, "{counters:?}");
        assert_eq!(counters.try_timeouts, counters.retries);
        assert_eq!(balance.counts(), [0; 3]);
    }
}

#[tokio::test]
async fn what_may_not_fails_and_says_so() {
    for protocol in BOTH {
        let (story, addresses, mut told) = instances::<2>(1).await;
        let balance = balance(&addresses, protocol);
        let error = within(balance.clone().oneshot(request(Method::POST, "x"))).await;
        let error = error.unwrap_err();
        assert!(error.is_try_timed_out(), "{error}");
        assert_eq!(story.arrivals.lock().unwrap().len(), 1);
        let had = within(told.recv()).await.unwrap();
        assert_eq!(error.instance(), Some(&had.into()));
        assert!(error.to_string().contains("per_try_timeout"), "{error}");
        let counters = balance.counters();
        assert_eq!((counters.try_timeouts, counters.retries), (1, 0));
        // Unless its caller says that it may.
        let mut marked = request(Method::POST, "x");
        marked.extensions_mut().insert(Idempotent::default());
        let (story, addresses, _told) = instances::<2>(1).await;
        let other = self::balance(&addresses, protocol);
        within(other.oneshot(marked)).await.unwrap();
        assert_eq!(story.arrivals.lock().unwrap().len(), 2);
    }
}

/// The code that gRPC servers look for, too.
#[tokio::test]
async fn over_http2_the_stream_is_reset_and_the_connection_stays() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reset, mut was_reset) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let mut number = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            number += 1;
            if number == 2 {
                respond
                    .send_response(http::Response::new(()), true)
                    .unwrap();
                continue;
            }
            let reset = reset.clone();
            tokio::spawn(async move {
                let reason = poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
                reset.send(reason).unwrap();
            });
        }
    });
    let balance = balance(&[address], Protocol::Http2);
    // There is nobody else: the second try goes to the same instance.
    let response = within(balance.oneshot(request(Method::GET, ())))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(within(was_reset.recv()).await, Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn by_name_each_try_has_its_time_and_the_deadline_holds_for_all() {
    let registry = Registry::start().await.unwrap();
    let (story, addresses, mut told) = instances::<2>(usize::MAX).await;
    for address in addresses {
        registry.register("orders", &address.into());
    }
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let orders = nacos.subscribe("orders").await.unwrap();
    orders.wait_for(2, Duration::from_secs(20)).await.unwrap();
    let http = nacos_http::Client::builder(&nacos)
        .per_try_timeout(SHORT)
        .retry(Retry::new().max_attempts(3))
        .build();
    let error = within(http.get("nacos://orders/").send())
        .await
        .unwrap_err();
    assert!(error.is_timeout() && !error.is_unprocessed(), "{error}");
    let counters = |http: &nacos_http::Client| http.service("orders").unwrap().counters();
    assert_eq!(counters(&http).try_timeouts, 3);
    let arrived = story.arrivals.lock().unwrap().len();
    assert!((1..=3).contains(&arrived), "{arrived}");
    for _ in 0..arrived {
        within(told.recv()).await.unwrap();
    }
    // A rest that the deadline would cut is none: the call ends with what came of its last try.
    let http = nacos_http::Client::builder(&nacos)
        .per_try_timeout(SHORT)
        .retry(
            Retry::new()
                .initial_backoff(DAY)
                .max_backoff(DAY)
                .within(DAY),
        )
        .build();
    let sent = http.get("nacos://orders/").timeout(SHORT * 3).send();
    let error = within(sent).await.unwrap_err();
    assert!(error.is_timeout() && !error.is_unprocessed(), "{error}");
    assert!(error.to_string().contains("per_try_timeout"), "{error}");
    assert_eq!(counters(&http).try_timeouts, 1);
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn an_instance_that_is_out_of_time_again_and_again_is_an_outlier() {
    let (_story, addresses, _told) = instances::<2>(1_000).await;
    let builder = Balance::builder(&fixed(&addresses))
        .policy(WeightedRoundRobin::default())
        .eject_outliers(Outliers::new().consecutive(2))
        .per_try_timeout(SHORT);
    let balance = builder.build_http(Transport::builder().build());
    for _ in 0..4 {
        let sent = balance.clone().oneshot(request(Method::POST, ()));
        within(sent).await.unwrap_err();
    }
    let counters = balance.counters();
    assert_eq!(counters.outlier_ejections, 1, "never the last");
    assert_eq!(counters.try_timeouts, 4);
}

#[tokio::test]
async fn a_limit_of_nothing_is_none() {
    let (_, addresses, _told) = instances::<1>(0).await;
    let builder = Balance::builder(&fixed(&addresses)).per_try_timeout(Duration::ZERO);
    let balance = builder.build_http(Transport::builder().build());
    within(balance.oneshot(request(Method::POST, "x")))
        .await
        .unwrap();
}

#[tokio::test]
async fn which_try_it_is_is_told_if_that_is_wanted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, mut tell) = mpsc::unbounded_channel();
    let handler = async move |headers: HeaderMap| {
        let number = headers["x-envoy-attempt-count"]
            .to_str()
            .unwrap()
            .to_owned();
        let first = number == "1";
        told.send(number).unwrap();
        if first {
            pending::<()>().await;
        }
    };
    let app = Router::new().route("/", any(handler));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let retry = Retry::new().attempt_header("x-envoy-attempt-count".parse().unwrap());
    let balance = Balance::builder(&fixed(&[address]))
        .per_try_timeout(SHORT)
        .retry(retry)
        .build_http(Transport::builder().build());
    within(balance.oneshot(request(Method::GET, ())))
        .await
        .unwrap();
    assert_eq!(within(tell.recv()).await.as_deref(), Some("1"));
    assert_eq!(within(tell.recv()).await.as_deref(), Some("2"));
}

/// The second try is answered, and the first is given up at its instance: at once, and with nothing else.
#[tokio::test]
async fn the_loser_of_a_hedge_may_stop() {
    for protocol in BOTH {
        let (story, addresses, mut told) = instances::<2>(1).await;
        let balance = Balance::builder(&fixed(&addresses))
            .policy(WeightedRoundRobin::default())
            .hedge(Hedge::after(SHORT))
            .build_http(Transport::builder().protocol(protocol).build());
        let pieces = ["one ", "two"]
            .map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(piece))));
        let stream = Body::new(StreamBody::new(futures_util::stream::iter(pieces)));
        let response = within(balance.clone().oneshot(request(Method::PUT, stream))).await;
        let body = response.unwrap().into_body().collect().await.unwrap();
        let arrivals = story.arrivals.lock().unwrap().clone();
        let [first, second] = arrivals[..] else {
            panic!("{arrivals:?}");
        };
        assert_ne!(first, second, "{protocol:?}");
        assert_eq!(body.to_bytes(), format!("{second} one two"));
        assert_eq!(within(told.recv()).await, Some(first), "{protocol:?}");
        let counters = balance.counters();
        assert_eq!((counters.hedges, counters.hedges_won), (1, 1));
        assert_eq!((counters.retries, counters.try_timeouts), (0, 0));
        assert_eq!(balance.counts(), [0; 3]);
        // Whose body is not all there has no second.
        let (_story, addresses, _told) = instances::<2>(1).await;
        let balance = Balance::builder(&fixed(&addresses))
            .hedge(Hedge::after(Duration::from_millis(1)))
            .build_http(Transport::builder().protocol(protocol).build());
        let open = futures_util::stream::pending::<Result<_, std::convert::Infallible>>();
        let open = Body::new(StreamBody::new(open));
        let call = balance.clone().oneshot(request(Method::PUT, open));
        let ended = tokio::time::timeout(SHORT, call).await;
        assert!(ended.is_err());
        assert_eq!(balance.counters().hedges, 0, "{protocol:?}");
    }
}

/// An answer that was held for a second that never came is the answer when the deadline passes.
#[tokio::test]
async fn a_deadline_does_not_hide_an_answer_that_is_there() {
    let registry = Registry::start().await.unwrap();
    // Says 503 to the first once the second is there, which is never answered.
    let arrived = Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        registry.register("orders", &own.into());
        let arrived = Arc::clone(&arrived);
        let handler = async move |headers: HeaderMap| {
            if headers["x-envoy-attempt-count"] != "1" {
                arrived.add_permits(1);
                pending::<()>().await;
            }
            arrived.acquire().await.unwrap().forget();
            http::StatusCode::SERVICE_UNAVAILABLE
        };
        let app = Router::new().route("/", any(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
    }
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let orders = nacos.subscribe("orders").await.unwrap();
    orders.wait_for(2, Duration::from_secs(20)).await.unwrap();
    let retry = Retry::new()
        .percent(100)
        .max_attempts(2)
        .attempt_header("x-envoy-attempt-count".parse().unwrap());
    let http = nacos_http::Client::builder(&nacos)
        .retry(retry)
        .hedge(Hedge::after(Duration::from_millis(1)))
        .build();
    let sent = http.get("nacos://orders/").timeout(SHORT * 6).send();
    let answered = within(sent).await.unwrap();
    assert_eq!(answered.status(), 503);
}

/// A server that nobody here wrote: it is told how long a try may last, is left in time, and serves on over
/// the same connections.
#[tokio::test]
async fn grpc_go_is_left_in_time_and_serves_on() {
    let mut peers = Vec::new();
    for _ in 0..2 {
        let Some(peer) = Make::GrpcGo.start(1, 0).await else {
            return;
        };
        peers.push(peer);
    }
    let addresses: Vec<_> = peers.iter().map(|peer| peer.addresses[0]).collect();
    let channel = Channel::builder(&fixed(&addresses))
        .balance(|balance| balance.policy(WeightedRoundRobin::new()))
        .per_try_timeout(SHORT * 2)
        .retry(Retry::new().percent(100).max_attempts(2).every_request());
    let channel = channel.try_build().unwrap();
    let mut client = tonic::client::Grpc::new(channel.clone());
    let mut unary = async |seconds: i64| {
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/peer.Peer/Unary");
        let codec = ProstCodec::<i64, i64>::default();
        let call = client.unary(tonic::Request::new(seconds), path, codec);
        within(call).await.map(tonic::Response::into_inner)
    };
    for _ in 0..3 {
        assert_eq!(unary(0).await.unwrap(), 1);
        let status = unary(3600).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    // Of a call's own time it is the same.
    for _ in 0..10 {
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/peer.Peer/Unary");
        let mut request = tonic::Request::new(3600);
        request.set_timeout(SHORT / 4);
        let call = client.unary(request, path, ProstCodec::<i64, i64>::default());
        let status = within(call).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    let counters = channel.balance().counters();
    // A server's own clock may be over first: that is a late try as well, and no answer.
    println!(
        "3 calls of two tries each: {} ended by us",
        counters.try_timeouts
    );
    assert!(counters.retries >= 3, "{counters:?}");
    assert_eq!(counters.ejections, 0);
    assert_eq!(channel.balance().counts(), [0; 3]);
}
