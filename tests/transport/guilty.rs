//! Of the calls on an HTTP/2 connection that ends over one of them, that one goes nowhere else and the
//! others do.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use tower::ServiceExt;
use tower_nacos::transport::{ErrorKind, Evidence, Protocol};

use crate::transport::support::*;

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Answers whatever comes.
async fn answer_all(mut frames: Frames) {
    while let Some(frame) = frames.next().await {
        if frame.kind == HEADERS {
            frames.answer(frame.stream).await;
        }
    }
}

#[tokio::test]
async fn a_head_that_is_too_much_ends_one_connection_and_what_stood_behind_it_moves() {
    let peer = Peer::start(|socket, at| async move {
        let Some(mut frames) = Frames::accept(socket).await else {
            return;
        };
        if at > 0 {
            return answer_all(frames).await;
        }
        // Five calls: the second one's head is too much for it.
        let mut heads = Vec::new();
        while heads.len() < 5 {
            match frames.next().await {
                Some(frame) if frame.kind == HEADERS => heads.push(frame.stream),
                Some(_) => {}
                None => return,
            }
        }
        frames.answer(heads[0]).await;
        frames.go_away(heads[0], ENHANCE_YOUR_CALM).await;
        while frames.next().await.is_some() {}
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http2));
    let calls = (0..5).map(|at| {
        let mut request = post(at, "");
        if at == 1 {
            let large = http::HeaderValue::try_from("x".repeat(10_000)).unwrap();
            request.headers_mut().insert("x-large", large);
        }
        soon("a call", transport.clone().oneshot(request))
    });
    for (at, called) in join_all(calls).await.into_iter().enumerate() {
        if at != 1 {
            assert_eq!(called.unwrap().status(), 200, "{at}");
            continue;
        }
        let mut refused = called.map(drop).expect_err("it is too large");
        assert_eq!(
            (refused.kind(), refused.evidence()),
            (ErrorKind::Refused, Evidence::Refused)
        );
        let text = refused.to_string();
        assert!(text.contains("over the call's headers"), "{text}");
        assert!(text.contains("goes nowhere else"), "{text}");
        assert!(refused.take_request().is_none());
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 2);
}

fn large() -> http::Request<tower_nacos::transport::Body> {
    let mut request = post(1, "");
    let value = http::HeaderValue::try_from("x".repeat(10_000)).unwrap();
    request.headers_mut().insert("x-large", value);
    request
}

/// Ends its first connections with this as soon as it has a call, which it leaves out; then it answers.
async fn leaves_out(times: usize, reason: u32, says: &'static [u8]) -> Peer {
    Peer::start(move |socket, at| async move {
        let Some(mut frames) = Frames::accept(socket).await else {
            return;
        };
        if at >= times {
            return answer_all(frames).await;
        }
        if frames.next().await.is_some() {
            let last_and_reason = [0u32.to_be_bytes(), reason.to_be_bytes()].concat();
            let goaway = [&last_and_reason, says].concat();
            frames.send(GOAWAY, 0, 0, &goaway).await;
            while frames.next().await.is_some() {}
        }
    })
    .await
}

/// A large head is not what a connection ends for that ends for something else.
#[tokio::test]
async fn a_large_head_goes_elsewhere_from_a_connection_that_ended_for_something_else() {
    let says: [(u32, &[u8]); 4] = [
        (ENHANCE_YOUR_CALM, b"too_many_resets"),
        (ENHANCE_YOUR_CALM, b"too_many_pings"),
        (0x3, b""), // FLOW_CONTROL_ERROR
        (0x2, b""), // INTERNAL_ERROR
    ];
    for (reason, says) in says {
        let peer = leaves_out(1, reason, says).await;
        let transport = alone(peer.address, builder(Protocol::Http2));
        match soon("a call", transport.clone().oneshot(large())).await {
            Ok(answered) => assert_eq!(answered.status(), 200),
            Err(mut refused) => {
                assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
                let again = refused.take_request().expect("it may go elsewhere");
                let called = soon("another", transport.clone().oneshot(again)).await;
                assert_eq!(called.unwrap().status(), 200, "{reason}");
            }
        }
    }
}

/// What may be about anything on the connection is about who is left out first again.
#[tokio::test]
async fn a_large_head_is_too_much_when_a_second_connection_ends_before_it() {
    for reason in [0x1, 0x9] {
        // PROTOCOL_ERROR, COMPRESSION_ERROR
        let peer = leaves_out(2, reason, b"").await;
        let transport = alone(peer.address, builder(Protocol::Http2));
        let mut first = failure(&transport, large()).await;
        let again = first.take_request().expect("it may be anybody's fault");
        let mut second = failure(&transport, again).await;
        let text = second.to_string();
        assert!(text.contains("over the call's headers"), "{text}");
        assert!(second.take_request().is_none());
        // Small ones are never suspected.
        let small = soon("a small one", transport.clone().oneshot(post(1, ""))).await;
        assert_eq!(small.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_the_rules_costs_its_own_call_and_safe_ones_are_sent_once_more() {
    let peer = Peer::start(|socket, at| async move {
        let Some(mut frames) = Frames::accept(socket).await else {
            return;
        };
        if at > 0 {
            return answer_all(frames).await;
        }
        let Some(first) = frames.next().await else {
            return;
        };
        frames.answer(first.stream).await;
        let mut heads = Vec::new();
        while heads.len() < 3 {
            match frames.next().await {
                Some(frame) => heads.push(frame.stream),
                None => return,
            }
        }
        // Entry 0 of HPACK's table: an error of the connection (RFC 7541, 6.1).
        frames
            .send(HEADERS, 4 | END_STREAM, heads[1], &[0x80])
            .await;
        while frames.next().await.is_some() {}
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http2));
    let first = soon("the first", transport.clone().oneshot(get("/"))).await;
    assert_eq!(first.unwrap().status(), 200);
    let calls = (0..3).map(|_| soon("a call", transport.clone().oneshot(get("/"))));
    for (at, called) in join_all(calls).await.into_iter().enumerate() {
        if at != 1 {
            assert_eq!(called.unwrap().status(), 200, "{at}");
            continue;
        }
        let error = called.map(drop).expect_err("its answer breaks the rules");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 2);
}
