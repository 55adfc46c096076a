//! All in one: `provider::serve`.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tower_nacos::provider::{self, ServeError};

use crate::support::{Wire, app, call, registry, within};

#[tokio::test]
async fn an_http2_stream_outlives_its_goaway() {
    let (registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (app, hold) = app();
    let (signal, told) = oneshot::channel::<()>();
    let serving = provider::serve(&nacos, "orders", listener, app)
        .with_graceful_offline(async { drop(told.await) });
    let serving = tokio::spawn(serving.into_future());
    registry
        .wait_until(|view| view.addresses("orders").len() == 1)
        .await;

    let socket = TcpStream::connect(address).await.unwrap();
    let io = TokioIo::new(socket);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        let uri = format!("http://orders{path}");
        Request::get(uri).body(Empty::<Bytes>::new()).unwrap()
    };
    let mut stream = sender
        .send_request(request("/stream"))
        .await
        .unwrap()
        .into_body();
    stream.frame().await.unwrap().unwrap();
    let idle = Wire::dial(address).await.unwrap(); // a caller that keeps a connection and never calls

    signal.send(()).unwrap();
    registry
        .wait_until(|view| view.addresses("orders").is_empty())
        .await;
    let marked = async {
        loop {
            let answer = sender.send_request(request("/")).await.unwrap();
            if answer.headers().contains_key("x-nacos-offline") {
                // HTTP/2 knows no such header.
                assert!(!answer.headers().contains_key("connection"));
                break;
            }
        }
    };
    within("marked", marked).await;
    // GOAWAY: nothing new is sent on it, and the stream goes on.
    let refused = async {
        while sender.ready().await.is_ok() && !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let Ok(answer) = sender.send_request(request("/")).await else {
                break;
            };
            assert_eq!(answer.status(), 200);
        }
    };
    within("a goodbye", refused).await;
    hold.0.send_replace(true);
    let rest = within("the rest", stream.collect()).await.unwrap();
    assert_eq!(rest.to_bytes(), "last");
    let report = within("the end", serving).await.unwrap().unwrap();
    within("the connection's end", connection)
        .await
        .unwrap()
        .unwrap();
    let offline = report.offline.as_ref().unwrap();
    assert_eq!((offline.cut, offline.rejected), (0, 0), "{report}");
    assert!(offline.acknowledged_in.is_some(), "{report}");
    drop(idle);
}

#[tokio::test]
async fn a_goodbye_waits_for_no_idle_connection_and_no_longer_than_the_limit_for_others() {
    let (registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (app, _hold) = app();
    let (signal, told) = oneshot::channel::<()>();
    let serving = provider::serve(&nacos, "orders", listener, app)
        .configure(|b| {
            b.push_delay(Duration::ZERO)
                .drain_timeout(Duration::from_millis(200))
        })
        .with_graceful_offline(async { drop(told.await) });
    let serving = tokio::spawn(serving.into_future());
    registry
        .wait_until(|view| view.addresses("orders").len() == 1)
        .await;
    // `ulimit -n` has to be above twice as many.
    let many = std::env::var("IDLE_CONNECTIONS");
    let many = many.map_or(200, |many| many.parse().unwrap());
    let mut idle = Vec::new();
    for _ in 0..many {
        idle.push(Wire::dial(address).await.unwrap());
    }
    for wire in &mut idle {
        drop(wire.send("/", &[]).await.collect().await.unwrap());
    }
    let mut endless = Wire::dial(address).await.unwrap();
    let mut stream = endless.send("/stream", &[]).await.into_body();
    stream.frame().await.unwrap().unwrap();
    assert_eq!(call(address, "/", &[]).await.0, 200);
    signal.send(()).unwrap();
    let report = within("the end", serving).await.unwrap().unwrap();
    let offline = report.offline.as_ref().unwrap();
    assert_eq!((offline.in_flight_at_end, offline.cut), (1, 1), "{report}");
    assert!(Wire::dial(address).await.is_err());
}

#[tokio::test]
async fn what_can_never_be_registered_is_not_served() {
    let (_registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serving = provider::serve(&nacos, "no name", listener, app().0)
        .with_graceful_offline(std::future::pending());
    let error = within("an error", serving.into_future()).await.unwrap_err();
    assert!(matches!(error, ServeError::Online(_)), "{error}");
}

#[tokio::test]
async fn a_listener_on_all_addresses_registers_the_one_towards_the_registry() {
    let (registry, nacos) = registry().await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (app, _hold) = app();
    let (signal, told) = oneshot::channel::<()>();
    let serving = provider::serve(&nacos, "orders", listener, app)
        .with_graceful_offline(async { drop(told.await) });
    let serving = tokio::spawn(serving.into_future());
    let wanted = format!("127.0.0.1:{port}");
    registry
        .wait_until(|view| view.addresses("orders") == [&*wanted])
        .await;
    signal.send(()).unwrap();
    within("the end", serving).await.unwrap().unwrap();
}
