//! What the pieces of an answer prove, and what is said of them.

use std::sync::atomic::Ordering;

use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tower::ServiceExt;
use tower_nacos::{
    endpoint::CallError,
    transport::{ErrorKind, Evidence, Protocol},
};

use crate::transport::support::*;

/// A request that was answered with a byte is not sent again, though the rest never comes.
#[tokio::test]
async fn with_the_first_byte_of_an_answer_nothing_is_sent_once_more() {
    let peer = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 0).await;
        let _ = socket.write_all(OK).await;
        if !read_request(&mut socket, 0).await.is_empty() {
            let _ = socket.write_all(b"HTTP/1.1 2").await;
        }
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http1));
    let first = soon("the first", transport.clone().oneshot(get("/"))).await;
    assert_eq!(first.unwrap().status(), 200);
    let lost = failure(&transport, get("/")).await;
    assert_eq!(
        (lost.kind(), lost.evidence()),
        (ErrorKind::Lost, Evidence::Unknown)
    );
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn over_http2_too_an_answer_that_began_is_an_answer() {
    // An interim one (`:status: 103`), and the first piece of a head.
    for (flags, head) in [(4, &[0x08, 3, b'1', b'0', b'3'][..]), (0, &[0x88])] {
        let peer = Peer::start(move |socket, _| async move {
            let Some(mut frames) = Frames::accept(socket).await else {
                return;
            };
            if let Some(first) = frames.next().await {
                frames.answer(first.stream).await;
            }
            if let Some(second) = frames.next().await {
                frames.send(HEADERS, flags, second.stream, head).await;
            }
        })
        .await;
        let transport = alone(peer.address, builder(Protocol::Http2));
        let first = soon("the first", transport.clone().oneshot(get("/"))).await;
        assert_eq!(first.unwrap().status(), 200);
        let lost = failure(&transport, get("/")).await;
        assert_eq!(
            (lost.kind(), lost.evidence()),
            (ErrorKind::Lost, Evidence::Unknown),
            "{lost}"
        );
        assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn headers_that_are_too_large_name_the_option() {
    let one = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 0).await;
        let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(600_000));
        let _ = socket.write_all(head.as_bytes()).await;
        let _ = socket.read(&mut [0]).await;
    })
    .await;
    let two = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        while let Some(request) = frames.next().await {
            // `:status: 200`, and a literal `x` of 2,000 bytes (RFC 7541, 5.1 and 6.2.2).
            let mut head = vec![0x88, 0, 1, b'x', 0x7f, 0xd1, 0x0e];
            head.extend([b'a'; 2_000]);
            let whole = 4 | END_STREAM;
            frames.send(HEADERS, whole, request.stream, &head).await;
        }
    })
    .await;
    for (peer, protocol) in [(one, Protocol::Http1), (two, Protocol::Http2)] {
        let transport = alone(peer.address, builder(protocol).max_header_size(1_000));
        let error = failure(&transport, get("/")).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        let text = error.to_string();
        assert!(text.contains("`max_header_size` (1000 bytes)"), "{text}");
        // With room for it, it is an answer.
        let transport = alone(peer.address, builder(protocol).max_header_size(1_000_000));
        let answered = soon("a call", transport.oneshot(get("/"))).await;
        assert_eq!(answered.unwrap().headers()["x"].len() % 2_000, 0);
    }
}

/// Heads alone are no answers: an instance whose every response breaks off in its body loses call
/// after call.
#[tokio::test]
async fn responses_that_break_off_count_like_calls_that_are_lost() {
    let cuts = Peer::start(|mut socket, _| async move {
        if !read_request(&mut socket, 0).await.is_empty() {
            let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhal";
            let _ = socket.write_all(cut).await;
        }
    })
    .await;
    let (well, better) = (Server::start().await, Server::start().await);
    let all = [cuts.address, well.address, better.address];
    let balance = rotating(&all, builder(Protocol::Http1));
    let mut broken = 0;
    soon("it is found out", async {
        while balance.counters().outlier_ejections == 0 {
            let response = call(&balance, get("/")).await.unwrap();
            broken += u32::from(response.into_body().collect().await.is_err());
        }
    })
    .await;
    assert_eq!(broken, 5, "so many in a row");
    for _ in 0..9 {
        text(&balance, get("/")).await.unwrap();
    }
}

/// Who takes no more connections serves those it has: a dial that is refused meanwhile fails its own
/// call, and the instance stays.
#[tokio::test]
async fn a_dial_that_is_refused_while_another_call_is_served_ejects_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, mut asks) = mpsc::unbounded_channel();
    let (answer, mut answers) = mpsc::unbounded_channel::<()>();
    spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        drop(listener); // nobody else is let in
        while !read_request(&mut socket, 0).await.is_empty() {
            let _ = asked.send(());
            answers.recv().await;
            let _ = socket.write_all(OK).await;
        }
    });
    let balance = rotating(&[address], builder(Protocol::Http1));
    let first = spawn_call(&balance);
    soon("it is asked", asks.recv()).await.unwrap();
    let error = call(&balance, get("/")).await.unwrap_err();
    let told = inner(&error).to_string();
    assert!(told.contains("it serves others"), "{told}");
    assert_eq!(balance.counters().ejections, 0);
    answer.send(()).unwrap();
    assert_eq!(soon("the first", first).await.unwrap().unwrap(), "");
    answer.send(()).unwrap();
    assert_eq!(text_of(&balance).await, "");
}

#[expect(clippy::disallowed_methods, reason = "a test's runtime owns it")]
fn spawn_call(balance: &Rotating) -> tokio::task::JoinHandle<Result<String, CallError>> {
    let balance = balance.clone();
    tokio::spawn(async move { text(&balance, get("/")).await })
}

async fn text_of(balance: &Rotating) -> String {
    text(balance, get("/")).await.unwrap()
}
