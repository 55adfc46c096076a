//! What happened to a call is told apart: reached and lost, not HTTP, nobody there, too large.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_nacos::{
    http,
    transport::{Protocol, Transport},
};

use crate::{
    World,
    provider::{Provider, nobody, peer, saying},
    soon,
};

/// What a caller reads, by a client of its own: no instance is known yet for what it did.
async fn told(world: &World, protocol: Protocol) -> http::Error {
    let transport = Transport::builder().protocol(protocol);
    let http = http::Client::builder(&world.nacos)
        .transport(transport)
        .build();
    let called = soon("a call", http.get("nacos://orders/v1").send()).await;
    called.expect_err("it cannot be answered")
}

#[tokio::test]
async fn reached_and_lost_is_not_nobody_there() {
    let world = World::new().await;
    // Reads what it is asked, and closes.
    let closes = peer(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    world.registry.register("orders", &closes.into());
    let error = told(&world, Protocol::Http1).await;
    let text = error.to_string();
    let says = "it was reached, but the connection was lost with the call on it";
    assert!(text.contains(says), "{text}");
    assert!(text.contains(&closes.to_string()), "{text}");
    assert!(!error.is_connect() && !error.is_unprocessed(), "{text}");
}

#[tokio::test]
async fn what_was_sent_once_more_was_lost_on_each_connection() {
    let world = World::new().await;
    // Answers the first request of all, and no other.
    let connections = std::sync::atomic::AtomicUsize::new(0);
    let answers_one = peer(move |mut stream| {
        let first = connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            if first {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.write_all(answer).await;
                let _ = stream.read(&mut [0; 4096]).await;
            }
        }
    })
    .await;
    world.registry.register("orders", &answers_one.into());
    let call = || soon("a call", world.http.get("nacos://orders/v1").send());
    assert_eq!(call().await.unwrap().status(), 200);
    let text = call().await.unwrap_err().to_string();
    let says = "it was reached, but each connection was lost with the call on it";
    assert!(text.contains(says), "{text}");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_called_that() {
    for nonsense in [
        "HTTP/1.1 200 OK\r\nx-broken: a\0b\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
    ] {
        let world = World::new().await;
        let liar = peer(move |stream| saying(stream, nonsense.to_owned())).await;
        world.registry.register("orders", &liar.into());
        let error = told(&world, Protocol::Http1).await;
        let text = error.to_string();
        assert!(text.contains("its answer is not HTTP/1 ("), "{text}");
        assert!(!text.contains("lost") && !error.is_connect(), "{text}");
    }
}

#[tokio::test]
async fn who_is_not_there_does_not_answer() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::new().await;
        let gone = nobody().await;
        world.registry.register("orders", &gone.into());
        let error = told(&world, protocol).await;
        let text = error.to_string();
        assert!(
            text.contains(&format!("nobody answers at {gone}")),
            "{text}"
        );
        assert!(!text.contains("reached, but"), "{text}");
        assert!(error.is_connect() && error.is_unprocessed(), "{text}");
    }
}

#[tokio::test]
async fn headers_over_our_own_limit_name_the_option() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::new().await;
        let provider = Provider::start("one").await;
        world.registry.register("orders", &provider.instance());
        let transport = Transport::builder().protocol(protocol);
        let http = http::Client::builder(&world.nacos)
            .transport(transport)
            .build();
        let path = if protocol == Protocol::Http1 {
            "big" // 600 KB
        } else {
            "large" // 90 KB
        };
        let uri = format!("nacos://orders/{path}");
        let error = soon("a call", http.get(uri).send()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`max_header_size` (65536 bytes)"), "{text}");
        assert!(!error.is_unprocessed() && !error.is_connect(), "{text}");
    }
}
