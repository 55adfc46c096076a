//! What is told of connections, probes and who is blamed can be set wherever calls are made from: a
//! balancer, an HTTP client, a gRPC channel, and a discovery for others' balancers.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{future::Future, net::SocketAddr, time::Duration};

use ::http::Request;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use tokio::{net::TcpListener, time::timeout};
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Client, Instance, Subscription,
    balance::{
        BalanceBuilder, FailurePercentage, Outliers, Policy, SlowStart, SuccessRate, TrafficSplit,
    },
    grpc::Channel,
    http::{self, BuildHttp},
    testing::Registry,
    transport::{Body, Protocol, Rules, Transport, TransportBuilder, classify},
};

/// What only a hang reaches.
const HANG: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Of the balancer: when who is out is dialled again, for how long it may be probed, how many calls
/// it may lose, who answers badly, and who gets which share.
fn blaming<P: Policy, R, C, V, K>(
    balance: BalanceBuilder<P, R, C, V, K>,
) -> BalanceBuilder<P, R, C, V, K> {
    let outliers = Outliers::new()
        .consecutive(3)
        .base(SECOND)
        .longest(SECOND)
        .interval(SECOND)
        .success_rate(SuccessRate::new().deviations(2.0).margin(0.1).enforced(0.5))
        .failure_percentage(FailurePercentage::new().threshold(0.9).instances(2));
    let split = TrafficSplit::new("version=2: 5, *: 95".parse().unwrap()).spill_below(0.5);
    balance
        .redial_after(SECOND / 10)
        .probe_timeout(2 * SECOND)
        .max_lost(3)
        .eject_outliers(outliers)
        .split(&split)
        .slow_start(SlowStart::new().after_ejection())
        .abort_in_flight_after(HANG)
}

/// Of the connections: dials, what lies idle, what is sent again, and how much may be unread.
fn connecting() -> TransportBuilder {
    Transport::builder()
        .dial_timeout(5 * SECOND)
        .handshake_timeout(5 * SECOND)
        .max_dials(2)
        .max_http1_connections(4)
        .max_connections(2)
        .max_calls(3)
        .max_idle(2)
        .idle_timeout(2 * SECOND)
        .send_once_more(false)
        .max_header_size(16 * 1024)
        .stream_window(64 * 1024)
        .connection_window(256 * 1024)
        .http2_idle_timeout(30 * SECOND)
        .http2_max_age(60 * SECOND)
        .ping(10 * SECOND, 5 * SECOND)
        .tcp_keepalive(30 * SECOND)
        .tcp_user_timeout(20 * SECOND)
}

async fn provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(async || "here");
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(HANG, future).await.expect("it hangs")
}

#[tokio::test]
async fn all_of_them_are_there_for_a_balancer() {
    let orders = Subscription::fixed([Instance::from(provider().await)]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let transport = connecting().protocol(protocol).build();
        let balance = blaming(Balance::builder(&orders)).build_http(transport);
        let calls = (0..8).map(|_| async {
            let call = balance.clone().oneshot(Request::new(Body::empty()));
            call.await.unwrap().into_body().collect().await.unwrap()
        });
        for answer in soon(join_all(calls)).await {
            assert_eq!(answer.to_bytes(), "here");
        }
    }
}

#[tokio::test]
async fn and_for_an_http_client() {
    let registry = soon(Registry::start()).await.unwrap();
    registry.register("orders", &provider().await.into());
    let nacos = soon(Client::connect(registry.addr())).await.unwrap();
    let http = http::Client::builder(&nacos)
        .balance(blaming)
        .transport(connecting())
        .build();
    let answered = soon(http.get("nacos://orders/").send()).await.unwrap();
    assert_eq!(answered.status(), 200);
}

#[tokio::test]
async fn and_for_a_grpc_channel() {
    let orders = Subscription::fixed([Instance::from(provider().await)]);
    let mut channel = Channel::builder(&orders)
        .balance(blaming)
        .transport(connecting())
        .build();
    let request = Request::new(tonic::body::Body::empty());
    assert_eq!(soon(channel.call(request)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn and_for_a_discovery() {
    let orders = Subscription::fixed([Instance::from(provider().await)]);
    let discovery = orders
        .discover_with()
        .redial_after(SECOND / 10)
        .probe_timeout(2 * SECOND)
        .max_lost(3)
        .abort_in_flight_after(HANG)
        .recover(Rules::default())
        .classify(classify)
        .build(connecting().build());
    let mut balance = tower::balance::p2c::Balance::new(discovery);
    let ready = soon(balance.ready()).await.unwrap();
    let answered = soon(ready.call(Request::new(Body::empty()))).await;
    assert_eq!(answered.unwrap().status(), 200);
}
