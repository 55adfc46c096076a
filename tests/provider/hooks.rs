//! What orchestrators ask and tell, over HTTP.

use std::{future::pending, time::Duration};

use axum::{Router, body::Bytes};
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1, header::HeaderMap};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use tower_nacos::provider::{Provider, Stage};

use crate::support::{Served, registry, within};

/// One request over a connection of its own.
async fn ask(at: std::net::SocketAddr, method: &str, path: &str) -> (u16, HeaderMap, String) {
    let socket = TcpStream::connect(at).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .body(Full::new(Bytes::from_static(b"whatever")))
        .unwrap();
    let answer = within("an answer", sender.send_request(request)).await;
    let (head, body) = answer.unwrap().into_parts();
    let body = within("a body", body.collect()).await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (head.status.as_u16(), head.headers, body)
}

/// The hooks on a port of their own.
async fn mount(provider: &Provider) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hooks = Router::new().nest_service("/nacos", provider.hooks());
    tokio::spawn(async move { axum::serve(listener, hooks).await });
    address
}

fn stage(json: &str) -> String {
    let report: Value = serde_json::from_str(json).unwrap();
    report["stage"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_hook_takes_a_provider_online_and_offline_and_answers_the_report() {
    let (registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = Provider::builder(&nacos, "orders")
        .instance(listener.local_addr().unwrap().into())
        .push_delay(Duration::ZERO)
        .build();
    let at = mount(&provider).await;

    let (status, _, body) = ask(at, "GET", "/nacos/ready").await;
    assert_eq!((status, &*stage(&body)), (503, "idle"));
    let (status, headers, body) = ask(at, "POST", "/nacos/online").await;
    assert_eq!((status, &*stage(&body)), (200, "online"));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(registry.inspect(|view| view.addresses("orders").len()), 1);
    let (status, headers, body) = ask(at, "GET", "/nacos/ready").await;
    assert_eq!((status, &*stage(&body)), (200, "online"));
    assert_eq!(headers["cache-control"], "no-store");
    let (status, headers, nothing) = ask(at, "HEAD", "/nacos/ready").await;
    assert_eq!((status, &*nothing), (200, ""));
    assert_eq!(headers["content-length"], body.len().to_string());
    let again = ask(at, "POST", "/nacos/online").await;
    assert_eq!(again.0, 200);

    let (status, _, body) = ask(at, "POST", "/nacos/offline").await;
    assert_eq!((status, &*stage(&body)), (200, "over"));
    let report: Value = serde_json::from_str(&body).unwrap();
    assert!(report["offline"]["acknowledged_in"].is_f64(), "{body}");
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
    let (status, _, body) = ask(at, "GET", "/nacos/ready").await;
    assert_eq!((status, &*stage(&body)), (503, "over"));
    // A provider is one start. It says so, and stays away.
    let (status, _, body) = ask(at, "POST", "/nacos/online").await;
    assert_eq!((status, &*stage(&body)), (409, "over"));
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
    let again = ask(at, "POST", "/nacos/offline").await;
    assert_eq!((again.0, &*stage(&again.2)), (200, "over"));
}

#[tokio::test]
async fn what_is_asked_wrongly_does_nothing() {
    let (_registry, nacos) = registry().await;
    let served = Served::start(&nacos, "orders", |b| b).await;
    within("online", served.provider.reached(Stage::Online)).await;
    let at = mount(&served.provider).await;
    for (method, path, wanted, allow) in [
        ("POST", "/nacos/ready", 405, Some("GET, HEAD")),
        ("GET", "/nacos/offline", 405, Some("POST")),
        ("HEAD", "/nacos/offline", 405, Some("POST")),
        ("PUT", "/nacos/online", 405, Some("POST")),
        ("POST", "/nacos/offline/", 404, None),
        ("POST", "/nacos/Offline", 404, None),
        ("POST", "/nacos/%6fffline", 404, None),
        ("POST", "/nacos", 404, None),
        ("POST", "/nacos/", 404, None),
        ("GET", "/", 404, None),
    ] {
        let (status, headers, _) = ask(at, method, path).await;
        let allowed = headers.get("allow").map(|v| v.to_str().unwrap());
        assert_eq!((status, allowed), (wanted, allow), "{method} {path}");
    }
    assert_eq!(served.provider.stage(), Stage::Online);
}

#[tokio::test]
async fn a_dropped_request_undoes_nothing_and_a_second_one_joins() {
    let (registry, nacos) = registry().await;
    let served = Served::start(&nacos, "orders", |b| {
        b.push_delay(Duration::from_secs(3_600))
            .max_linger(Duration::from_secs(3_600))
    })
    .await;
    let provider = served.provider.clone();
    within("online", provider.reached(Stage::Online)).await;
    let at = mount(&provider).await;
    // At the same time, and later: none of them hastens it.
    let first = tokio::spawn(ask(at, "POST", "/nacos/offline"));
    let other = tokio::spawn(ask(at, "POST", "/nacos/offline"));
    within("lingering", provider.reached(Stage::Lingering)).await;
    assert!(registry.inspect(|view| view.addresses("orders").is_empty()));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let late = tokio::spawn(ask(at, "POST", "/nacos/offline"));
    // The answer of another one shows that what came before was heard.
    assert_eq!(ask(at, "POST", "/nacos/online").await.0, 409);
    assert_eq!(provider.stage(), Stage::Lingering);
    assert!(!other.is_finished() && !late.is_finished());
    provider.hasten();
    for waiting in [other, late] {
        let (status, _, body) = within("the end", waiting).await.unwrap();
        assert_eq!((status, &*stage(&body)), (200, "over"));
    }
    served.ended().await;
}

#[tokio::test]
async fn behind_the_layer_it_answers_when_listening_ends() {
    let (_registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Provider::builder(&nacos, "orders")
        .instance(address.into())
        .push_delay(Duration::ZERO)
        .drain_timeout(Duration::from_secs(3_600))
        .build();
    let app = Router::new()
        .nest_service("/nacos", provider.hooks())
        .layer(provider.layer());
    let offline = provider.offline_on(pending());
    let serving = tokio::spawn(async move {
        let served = axum::serve(listener, app);
        served.with_graceful_shutdown(offline).await
    });
    within("online", provider.reached(Stage::Online)).await;
    // Were it to wait for what is in flight it would wait for itself, for an hour.
    let (status, _, body) = ask(address, "POST", "/nacos/offline").await;
    assert_eq!((status, &*stage(&body)), (200, "draining"));
    within("the end", serving).await.unwrap().unwrap();
    within("over", provider.reached(Stage::Over)).await;
    assert_eq!(provider.report().offline.unwrap().cut, 0);
}

#[tokio::test]
async fn what_fails_is_said_by_its_status() {
    let (_registry, nacos) = registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let online = async |provider: &Provider| {
        let request = Request::post("/online").body(()).unwrap(); // any body will do
        let answer = within("an answer", provider.hooks().oneshot(request)).await;
        let (head, body) = answer.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let report: Value = serde_json::from_slice(&body).unwrap();
        (head.status, report["error"].as_str().unwrap().to_owned())
    };
    let nobody = Provider::builder(&nacos, "orders").instance(address.into());
    let (status, error) = online(&nobody.build()).await;
    assert_eq!(status, 503);
    assert!(error.starts_with("nothing answers at "), "{error}");
    let (status, _) = online(&Provider::builder(&nacos, "no name").build()).await;
    assert_eq!(status, 500);
}
