use std::{
    sync::atomic::Ordering,
    task::{Context, Waker},
};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Service, ServiceExt};
use tower_nacos::transport::{Body, ErrorKind, Evidence, Protocol};

use super::support::*;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

fn pieces() -> Vec<Bytes> {
    ["a", "b", "c"]
        .map(|p| Bytes::from_static(p.as_bytes()))
        .into()
}

#[tokio::test]
async fn bodies_of_each_kind_arrive_over_both_protocols() {
    for protocol in BOTH {
        let server = Server::start().await;
        let balance = rotating(&[server.address], builder(protocol));
        for (body, expected) in [
            (Body::empty(), ""),
            (Body::from("hello"), "hello"),
            (stream(pieces()), "abc"),
        ] {
            assert_eq!(text(&balance, post(1, body)).await.unwrap(), expected);
        }
        let lines = server.log.lines.lock().unwrap().clone();
        let version = if protocol == Protocol::Http1 {
            "HTTP/1.1"
        } else {
            "HTTP/2.0"
        };
        assert_eq!(lines.len(), 3);
        for line in lines {
            assert_eq!(line, format!("{version} POST /v1/items {}", server.address));
        }
        assert_eq!(
            server.log.connections.load(Ordering::SeqCst),
            1,
            "{protocol:?}"
        );
        assert_eq!(balance.counts(), [0, 0, 0], "{protocol:?}");
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    for protocol in BOTH {
        let server = Server::start().await;
        let balance = rotating(&[server.address], builder(protocol));
        let large = vec![b'x'; 5_000_000];
        let piece = Bytes::from(vec![b'y'; 50_000]);
        assert_eq!(
            text(&balance, post(1, large)).await.unwrap().len(),
            5_000_000
        );
        let streamed = stream(vec![piece; 100]);
        assert_eq!(
            text(&balance, post(2, streamed)).await.unwrap().len(),
            5_000_000
        );
    }
}

#[tokio::test]
async fn a_call_counts_until_the_end_of_its_body_or_its_drop() {
    for protocol in BOTH {
        let server = Server::start().await;
        let balance = rotating(&[server.address], builder(protocol));
        for read in [true, false] {
            let mut response = call(&balance, get("/stream")).await.unwrap();
            server.stream(Some("one"));
            let frame = soon("a frame", response.body_mut().frame()).await;
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "one");
            assert_eq!(balance.counts(), [1, 0, 0]);
            if read {
                server.stream(None);
                let end = soon("the end", response.body_mut().frame()).await;
                assert!(end.is_none(), "{protocol:?} {end:?}");
                assert!(response.body().is_end_stream());
            } else {
                drop(response);
            }
            assert_eq!(balance.counts(), [0, 0, 0], "{protocol:?}, read: {read}");
        }
    }
}

#[tokio::test]
async fn a_user_s_host_is_kept() {
    for protocol in BOTH {
        let server = Server::start().await;
        let balance = rotating(&[server.address], builder(protocol));
        let mut request = get("http://ignored.example/a?b");
        request
            .headers_mut()
            .insert("host", "shop.example".parse().unwrap());
        text(&balance, request).await.unwrap();
        let lines = server.log.lines.lock().unwrap().clone();
        assert!(lines[0].ends_with("GET /a shop.example"), "{lines:?}");
    }
}

#[tokio::test]
async fn calls_beyond_max_calls_wait_for_the_end_of_a_body() {
    for protocol in BOTH {
        let server = Server::start().await;
        let transport = alone(server.address, builder(protocol).max_calls(2));
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(
                soon("a call", transport.clone().oneshot(get("/stream")))
                    .await
                    .unwrap(),
            );
        }
        let mut third = transport.clone();
        assert!(
            third
                .poll_ready(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        drop((held.pop(), third));
        let mut third = transport.clone();
        let ready = soon("a place", third.ready()).await.unwrap();
        let answer = soon("a call", ready.call(get("/v1"))).await.unwrap();
        drop(answer);
        let mut dropped = transport.clone();
        soon("a place", dropped.ready()).await.unwrap();
        drop(dropped); // its place with it
        let mut fourth = transport.clone();
        soon("a place", fourth.ready()).await.unwrap();
    }
}

#[tokio::test]
async fn upgrades_pass_through() {
    let peer = Peer::start(|mut socket, _| async move {
        let request = read_request(&mut socket, 0).await;
        assert!(
            request.to_lowercase().contains("upgrade: chat"),
            "{request}"
        );
        let switch =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
        socket.write_all(switch).await.unwrap();
        let mut word = [0; 4];
        socket.read_exact(&mut word).await.unwrap();
        socket.write_all(&word).await.unwrap();
    })
    .await;
    let balance = rotating(&[peer.address], builder(Protocol::Http1));
    let mut request = get("/chat");
    request
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    request
        .headers_mut()
        .insert("upgrade", "chat".parse().unwrap());
    let response = call(&balance, request).await.unwrap();
    assert_eq!(response.status(), 101);
    let upgraded = soon("the upgrade", hyper::upgrade::on(response))
        .await
        .unwrap();
    let mut upgraded = hyper_util::rt::TokioIo::new(upgraded);
    upgraded.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    soon("the echo", upgraded.read_exact(&mut word))
        .await
        .unwrap();
    assert_eq!(&word, b"ping");
}

#[tokio::test]
async fn bad_input_is_an_error_that_says_what_it_is() {
    // HTTP/2 on a port that speaks HTTP/1.
    let http1 = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 0).await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let error = failure(&alone(http1.address, builder(Protocol::Http2)), get("/")).await;
    assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
    assert!(error.to_string().contains("may speak HTTP/1"), "{error}");
    assert!(
        error.to_string().contains(&http1.address.to_string()),
        "{error}"
    );
    // HTTP/1 on a port that speaks something else.
    let other = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 0).await;
        let _ = socket.write_all(&[0x15, 3, 3, 0, 2, 2, 70]).await;
    })
    .await;
    let error = failure(&alone(other.address, builder(Protocol::Http1)), get("/")).await;
    assert_eq!(
        (error.kind(), error.evidence()),
        (ErrorKind::Protocol, Evidence::Unknown)
    );
    // Headers that are too large.
    let server = Server::start().await;
    for protocol in BOTH {
        let error = failure(&alone(server.address, builder(protocol)), get("/headers")).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
    }
    // An address that is nobody's.
    let nowhere = "169.254.0.1:80".parse().unwrap();
    let error = failure(&alone(nowhere, builder(Protocol::Http1)), get("/")).await;
    assert!(
        error.is_connect() && error.to_string().contains("link-local"),
        "{error}"
    );
    // A request that cannot be sent.
    let mut request = get("/");
    *request.method_mut() = http::Method::CONNECT;
    let error = failure(&alone(server.address, builder(Protocol::Http2)), request).await;
    assert!(error.is_request(), "{error:?}");
}
