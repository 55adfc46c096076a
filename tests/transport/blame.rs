//! What a failure is about: the call, its connection or the instance; and what it costs others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tower::{Service, ServiceExt};
use tower_nacos::{
    Instance,
    endpoint::{MakeEndpoint, Verdict},
    transport::{ErrorKind, Evidence, Protocol, Transport, classify},
};

use crate::transport::support::*;

/// Answers the first request of each connection, and closes it when it has read the second.
async fn keeps_for_one_call() -> Peer {
    Peer::start(|mut socket, _| async move {
        if !read_request(&mut socket, 0).await.is_empty() {
            let _ = socket.write_all(OK).await;
            read_request(&mut socket, 0).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_safe_request_on_a_kept_connection_is_sent_once_more_and_a_post_never() {
    let peer = keeps_for_one_call().await;
    let transport = alone(peer.address, builder(Protocol::Http1));
    for at in 0..5 {
        let called = soon("a call", transport.clone().oneshot(get("/"))).await;
        assert_eq!(called.unwrap().status(), 200, "{at}");
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 5);
    let lost = failure(&transport, post(1, "")).await;
    assert_eq!(
        (lost.kind(), lost.evidence()),
        (ErrorKind::Lost, Evidence::Unknown)
    );
    assert!(matches!(classify(&lost), Verdict::Lost(_)));
    assert_eq!(peer.connections.load(Ordering::SeqCst), 5);
    let mut known = post(2, "");
    let key = http::HeaderValue::from_static("7");
    known.headers_mut().insert("idempotency-key", key.clone());
    assert!(transport.clone().oneshot(known).await.is_ok());
    let mut known = post(3, "");
    known.headers_mut().insert("idempotency-key", key);
    assert!(transport.clone().oneshot(known).await.is_ok());
    // Unless that is turned off.
    let off = builder(Protocol::Http1).send_once_more(false);
    let transport = alone(peer.address, off);
    assert!(transport.clone().oneshot(get("/")).await.is_ok());
    assert_eq!(failure(&transport, get("/")).await.kind(), ErrorKind::Lost);
}

/// Hyper's callback for interim responses lies in a request's extensions.
#[tokio::test]
async fn a_request_that_is_sent_once_more_hears_interim_responses() {
    let peer = Peer::start(|mut socket, at| async move {
        if at == 0 {
            read_request(&mut socket, 0).await;
            let _ = socket.write_all(OK).await;
            read_request(&mut socket, 0).await;
            return;
        }
        while !read_request(&mut socket, 0).await.is_empty() {
            let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
            let _ = socket.write_all(&[hints, OK].concat()).await;
        }
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http1));
    let called = soon("a call", transport.clone().oneshot(get("/"))).await;
    assert_eq!(called.unwrap().status(), 200);
    let heard = Arc::new(AtomicUsize::new(0));
    for hints in 1..=3 {
        let mut request = get("/");
        let count = Arc::clone(&heard);
        hyper::ext::on_informational(&mut request, move |interim| {
            assert_eq!(interim.status(), 103);
            count.fetch_add(1, Ordering::SeqCst);
        });
        let called = soon("a call", transport.clone().oneshot(request)).await;
        assert_eq!(called.unwrap().status(), 200);
        assert_eq!(heard.load(Ordering::SeqCst), hints);
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn over_http2_too_a_safe_request_is_sent_once_more_and_a_post_never() {
    let peer = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        if let Some(first) = frames.next().await {
            frames.answer(first.stream).await;
            frames.next().await;
        }
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http2));
    for _ in 0..3 {
        let called = soon("a call", transport.clone().oneshot(get("/"))).await;
        assert_eq!(called.unwrap().status(), 200);
    }
    let connections = peer.connections.load(Ordering::SeqCst);
    let lost = failure(&transport, post(1, "")).await;
    assert_eq!(lost.evidence(), Evidence::Unknown);
    assert!(matches!(classify(&lost), Verdict::Lost(_)));
    assert_eq!(peer.connections.load(Ordering::SeqCst), connections);
}

#[tokio::test]
async fn a_request_that_breaks_fresh_connections_is_sent_once() {
    let peer = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 0).await;
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http1));
    let lost = failure(&transport, get("/")).await;
    assert_eq!(lost.kind(), ErrorKind::Lost);
    assert!(matches!(classify(&lost), Verdict::Lost(_)));
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nonsense_is_about_the_connection_and_a_refused_dial_about_the_instance() {
    for nonsense in ["HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", "hello\r\n\r\n"] {
        let peer = Peer::start(move |mut socket, _| async move {
            read_request(&mut socket, 0).await;
            let _ = socket.write_all(nonsense.as_bytes()).await;
        })
        .await;
        let transport = alone(peer.address, builder(Protocol::Http1));
        let error = failure(&transport, get("/")).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains("not HTTP/1"), "{error}");
        assert!(matches!(classify(&error), Verdict::Lost(_)));
    }
    let transport = alone(nobody().await, builder(Protocol::Http1));
    let error = failure(&transport, get("/")).await;
    assert!(matches!(classify(&error), Verdict::Unreachable(_)));
}

#[tokio::test]
async fn a_probe_succeeds_where_a_connection_is_held_and_silent() {
    let closes = Peer::start(|socket, _| async move { drop(socket) }).await;
    let speaks = Peer::start(|mut socket, _| async move {
        let _ = socket.write_all(b"220 ready\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let holds = Peer::start(|socket, _| async move {
        std::future::pending::<()>().await;
        drop(socket);
    })
    .await;
    let make = builder(Protocol::Http1).build();
    for (peer, well) in [(&closes, false), (&speaks, false), (&holds, true)] {
        let probe = make.probe(&Instance::from(peer.address)).unwrap();
        assert_eq!(soon("a probe", probe).await.is_ok(), well);
    }
}

#[tokio::test]
async fn a_caller_who_goes_leaves_its_dial_to_others() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Server::start().await;
        let transport = alone(server.address, builder(protocol));
        let mut gone = Box::pin(transport.clone().oneshot(get("/")));
        assert!((&mut gone).now_or_never().is_none());
        let other = transport.clone().oneshot(get("/"));
        drop(gone);
        assert!(soon("the other", other).await.is_ok());
        let calls = (0..50).map(|_| transport.clone().oneshot(get("/")));
        let calls = soon("many", join_all(calls)).await;
        assert!(calls.into_iter().all(|call| call.is_ok()));
    }
}

#[tokio::test]
async fn calls_beyond_the_cap_wait_for_connections_that_are_given_back() {
    let server = Server::start().await;
    let options = builder(Protocol::Http1)
        .max_http1_connections(2)
        .max_dials(1);
    let transport = alone(server.address, options);
    let calls = (0..40).map(|at| {
        let transport = transport.clone();
        async move {
            let response = transport.oneshot(post(at, "x")).await.unwrap();
            response.into_body().collect().await.unwrap()
        }
    });
    soon("the calls", join_all(calls)).await;
    assert!(server.log.connections.load(Ordering::SeqCst) <= 2);
    assert_eq!(server.ids().len(), 40);
}

#[tokio::test]
async fn a_full_instance_is_not_ready_and_room_goes_to_who_waits_longest() {
    let server = Server::start_with(1).await;
    let options = builder(Protocol::Http2).max_connections(1);
    let transport = alone(server.address, options);
    let held = transport.clone().oneshot(get("/stream")).await.unwrap();
    let mut waiting: Vec<Transport> = (0..3).map(|_| transport.clone()).collect();
    for one in &mut waiting {
        assert!(one.ready().now_or_never().is_none(), "it is full");
        // Asked again later, they keep their turns.
        let waker = std::task::Waker::noop();
        let mut cx = std::task::Context::from_waker(waker);
        assert!(one.poll_ready(&mut cx).is_pending());
    }
    drop(held);
    soon("room for the first", waiting[0].ready())
        .await
        .unwrap();
    assert!(waiting[1].ready().now_or_never().is_none());
    drop(waiting.remove(0)); // with the room it held
    soon("room for the second", waiting[0].ready())
        .await
        .unwrap();
    assert!(waiting[1].ready().now_or_never().is_none());
    let called = soon("its call", waiting[0].call(get("/"))).await;
    drop(called);
    soon("room for the third", waiting[1].ready())
        .await
        .unwrap();
}

#[tokio::test]
async fn bodies_that_nobody_reads_hold_up_no_other_call() {
    let server = Server::start().await;
    let options = builder(Protocol::Http2).max_connections(1);
    let transport = alone(server.address, options);
    let mut unread = Vec::new();
    for at in 0..3 {
        let large = post(at, Bytes::from(vec![b'x'; 8 << 20]));
        let answered = soon("a head", transport.clone().oneshot(large)).await;
        unread.push(answered.unwrap());
    }
    for at in 0..20 {
        let call = transport.clone().oneshot(post(at, vec![b'y'; 300_000]));
        let response = soon("another call", call).await.unwrap();
        let body = soon("its body", response.into_body().collect()).await;
        assert_eq!(body.unwrap().to_bytes().len(), 300_000);
    }
    assert_eq!(server.log.connections.load(Ordering::SeqCst), 1);
    for one in unread {
        let body = soon("the rest", one.into_body().collect()).await;
        assert_eq!(body.unwrap().to_bytes().len(), 8 << 20);
    }
}

/// A connection takes no more streams than its window has room for: who would be one too many has
/// another connection.
#[tokio::test]
async fn a_small_connection_window_means_more_connections_and_no_call_held_up() {
    let server = Server::start().await;
    let options = builder(Protocol::Http2)
        .stream_window(256 * 1024)
        .connection_window(512 * 1024);
    let transport = alone(server.address, options);
    let mut unread = Vec::new();
    for at in 0..4 {
        let large = post(at, Bytes::from(vec![b'x'; 4 << 20]));
        let answered = soon("a head", transport.clone().oneshot(large)).await;
        unread.push(answered.unwrap());
    }
    let call = transport.clone().oneshot(post(9, vec![b'y'; 300_000]));
    let response = soon("another call", call).await.unwrap();
    let body = soon("its body", response.into_body().collect()).await;
    assert_eq!(body.unwrap().to_bytes().len(), 300_000);
    assert_eq!(server.log.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_old_or_idle_http2_connection_takes_no_more_calls() {
    let server = Server::start().await;
    let short = Duration::from_millis(100);
    for options in [
        builder(Protocol::Http2).http2_idle_timeout(short),
        builder(Protocol::Http2).http2_max_age(short),
    ] {
        let transport = alone(server.address, options);
        assert!(transport.clone().oneshot(get("/")).await.is_ok());
        server.until_open(0).await;
        assert!(transport.clone().oneshot(get("/")).await.is_ok());
    }
}
