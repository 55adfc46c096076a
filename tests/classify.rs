//! `endpoint::classify`: what errors of hyper, hyper-util, reqwest and tonic say of an instance, as they come
//! from real sockets.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{io, time::Duration};

use axum::{Router, routing::get};
use hyper_util::{client::legacy::Client as Pool, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tower::{BoxError, Service, ServiceExt, balance::p2c::Balance};
use tower_nacos::{
    Instance, Subscription,
    endpoint::{Verdict, classify},
};

const HANG: Duration = Duration::from_secs(30);

/// Nobody listens there.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Reads something of each connection's request, writes `answer`, and closes.
async fn says(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(answer).await;
        }
    });
    address
}

async fn hyper_util(address: &str) -> Verdict {
    let pool = Pool::builder(TokioExecutor::new()).build_http::<String>();
    let call = pool.get(format!("http://{address}/").parse().unwrap());
    classify::error(&timeout(HANG, call).await.unwrap().unwrap_err())
}

async fn reqwest(address: &str) -> Verdict {
    let call = reqwest::get(format!("http://{address}/"));
    classify::error(&timeout(HANG, call).await.unwrap().unwrap_err())
}

async fn tonic(address: &str) -> Verdict {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut channel = endpoint.connect_lazy();
    let request = http::Request::new(tonic::body::Body::empty());
    let call = async { channel.ready().await?.call(request).await };
    let error = timeout(HANG, call).await.unwrap().unwrap_err();
    classify::error(&error)
}

async fn hyper(address: &str) -> Verdict {
    let socket = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let call = sender.send_request(http::Request::new(String::new()));
    classify::boxed(&timeout(HANG, call).await.unwrap().unwrap_err().into())
}

#[tokio::test]
async fn an_instance_that_is_dead_cannot_be_reached() {
    let dead = dead().await;
    for verdict in [
        hyper_util(&dead).await,
        reqwest(&dead).await,
        tonic(&dead).await,
        classify::error(&TcpStream::connect(&dead).await.unwrap_err()),
    ] {
        let Verdict::Unreachable(why) = verdict else {
            panic!("{verdict:?}");
        };
        assert!(why.contains("refused"), "the reason is told: {why}");
    }
    let nowhere = hyper_util("no.such.host.invalid:1").await;
    assert!(matches!(nowhere, Verdict::Unreachable(_)), "{nowhere:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_lost_and_no_more() {
    for answer in [&b""[..], b"HTTP/1.1 2", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"] {
        let address = says(answer).await;
        for verdict in [
            hyper_util(&address).await,
            reqwest(&address).await,
            hyper(&address).await,
        ] {
            assert!(
                matches!(verdict, Verdict::Lost(_)),
                "{answer:?}: {verdict:?}"
            );
        }
    }
    let grpc = tonic(&says(b"").await).await;
    assert!(matches!(grpc, Verdict::Lost(_)), "{grpc:?}");
}

#[tokio::test]
async fn a_call_that_fails_for_its_caller_says_nothing_of_the_instance() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let impatient = reqwest::Client::builder()
        .timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let late = timeout(HANG, impatient.get(url).send()).await.unwrap();
    let late = late.unwrap_err();
    assert!(late.is_timeout());
    assert_eq!(classify::error(&late), Verdict::Reachable);

    // A body of the caller's that breaks, at a server that would have taken it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route(
        "/",
        get(|| async { "x" }).post(|body: String| async { body }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    let pool = Pool::builder(TokioExecutor::new()).build_http();
    let broken = futures_util::stream::iter([Err::<hyper::body::Frame<bytes::Bytes>, _>(
        io::Error::other("the caller's disk"),
    )]);
    let body = http_body_util::StreamBody::new(broken);
    let request = http::Request::post(&url).body(body).unwrap();
    let error = timeout(HANG, pool.request(request)).await.unwrap();
    let error = error.unwrap_err();
    assert_eq!(classify::error(&error), Verdict::Reachable, "{error:?}");

    let refused = http::Request::get("/no/authority").body(String::new());
    let pool = Pool::builder(TokioExecutor::new()).build_http();
    let error = pool.request(refused.unwrap()).await.unwrap_err();
    assert_eq!(classify::error(&error), Verdict::Reachable, "{error:?}");
}

#[test]
fn what_is_unknown_says_nothing() {
    for error in [
        BoxError::from("text"),
        io::Error::other("whatever").into(),
        io::Error::from(io::ErrorKind::TimedOut).into(),
    ] {
        assert_eq!(classify::boxed(&error), Verdict::Reachable, "{error:?}");
    }
}

/// tower's own balancer beside a dead instance that is listed: what people write, and what it costs without
/// `classify`.
#[tokio::test]
async fn stock_p2c_sends_one_call_to_a_dead_instance_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = listener.local_addr().unwrap().to_string();
    let router = Router::new().route("/", get(|| async { "x" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let dead = dead().await;
    let orders = Subscription::fixed([&alive, &dead].map(|at| Instance::parse(at).unwrap()));

    let call = async |discover| {
        let mut balance = Balance::new(discover);
        let mut failed = 0;
        for _ in 0..200 {
            let ready = ServiceExt::<String>::ready(&mut balance).await;
            let call = ready.unwrap().call("/".to_owned());
            failed += u32::from(timeout(HANG, call).await.unwrap().is_err());
        }
        failed
    };
    let make = |instance: &Instance| {
        let pool = Pool::builder(TokioExecutor::new()).build_http::<String>();
        let address = instance.address().to_string();
        tower::service_fn(move |path: String| {
            pool.get(format!("http://{address}{path}").parse().unwrap())
        })
    };
    let told = orders.discover_with().classify(classify::error);
    assert!(call(told.build(make)).await <= 1);
}
