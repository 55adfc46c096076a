//! A deadline that is ours and passes counts against the instance that did not answer: where answers
//! count, one that hangs is ejected though no call of it ever ends.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{future::Future, net::SocketAddr, time::Duration};

use ::http::Request;
use tokio::{net::TcpListener, time::timeout};
use tower::{Service, ServiceExt};
use tower_nacos::{
    Client, Instance, Subscription,
    balance::{Outliers, WeightedRoundRobin},
    grpc::Channel,
    http::{self, Deadline},
    testing::Registry,
};

/// What only a hang reaches.
const HANG: Duration = Duration::from_secs(60);
/// How long a call may take.
const SOON: Duration = Duration::from_millis(20);

/// Answers, or takes calls and never does.
async fn provider(hangs: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(move || async move {
        if hangs {
            std::future::pending::<()>().await;
        }
        "here"
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {HANG:?}"))
}

#[tokio::test]
async fn over_grpc() {
    let listed = [provider(true).await, provider(false).await];
    let orders = Subscription::fixed(listed.map(Instance::from));
    let mut channel = Channel::builder(&orders)
        .balance(|balance| {
            balance
                .policy(WeightedRoundRobin::new())
                .eject_outliers(Outliers::new().consecutive(3))
        })
        .timeout(SOON)
        .build();
    let ejected = async {
        while channel.balance().counters().outlier_ejections == 0 {
            let ready = channel.ready().await.unwrap();
            let _ = ready.call(Request::new(tonic::body::Body::empty())).await;
        }
    };
    soon("it is ejected", ejected).await;
    assert_eq!(channel.balance().counters().ejections, 1);
}

#[tokio::test]
async fn over_http() {
    let registry = soon("a registry", Registry::start()).await.unwrap();
    for address in [provider(true).await, provider(false).await] {
        registry.register_as(&address.to_string(), "orders", &[address.into()]);
    }
    let nacos = soon("a client", Client::connect(registry.addr()))
        .await
        .unwrap();
    let http = http::Client::builder(&nacos)
        .balance(|balance| {
            balance
                .policy(WeightedRoundRobin::new())
                .eject_outliers(Outliers::new().consecutive(3))
        })
        .build();
    let orders = http.service("orders").unwrap();
    let ejected = async {
        while orders.counters().outlier_ejections == 0 {
            let deadline = Deadline::within(SOON);
            let _ = http.get("nacos://orders/").deadline(deadline).send().await;
        }
    };
    soon("it is ejected", ejected).await;
}
