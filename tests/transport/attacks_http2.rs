//! Instances that are hostile or broken, and callers that are careless, over HTTP/2.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use tokio::{io::AsyncReadExt, sync::Notify};
use tower::ServiceExt;
use tower_nacos::transport::{Body, ErrorKind, Protocol, Transport};

use crate::transport::support::*;

const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];

fn limit(streams: u32) -> Vec<u8> {
    let mut payload = MAX_CONCURRENT_STREAMS.to_vec();
    payload.extend(streams.to_be_bytes());
    payload
}

async fn status(transport: &Transport) -> Result<u16, ErrorKind> {
    let called = soon("a call", transport.clone().oneshot(get("/"))).await;
    called.map(|r| r.status().as_u16()).map_err(|e| e.kind())
}

#[tokio::test]
async fn calls_that_wait_for_a_place_go_on_when_the_peer_raises_its_limit() {
    let raise = Arc::new(Notify::new());
    let raised = Arc::clone(&raise);
    let peer = Peer::start(move |socket, _| {
        let raise = Arc::clone(&raised);
        async move {
            let mut frames = Frames::accept(socket).await.unwrap();
            frames.send(SETTINGS, 0, 0, &limit(5)).await;
            let first = frames.next().await.unwrap();
            frames.send(SETTINGS, 0, 0, &limit(0)).await;
            frames.answer(first.stream).await;
            raise.notified().await;
            frames.send(SETTINGS, 0, 0, &limit(5)).await;
            while let Some(frame) = frames.next().await {
                frames.answer(frame.stream).await;
            }
        }
    })
    .await;
    let options = builder(Protocol::Http2).max_connections(1);
    let transport = alone(peer.address, options);
    assert_eq!(status(&transport).await, Ok(200));
    let waiting = transport.clone();
    let calls = tokio::task::JoinSet::from_iter((0..3).map(|_| {
        let transport = waiting.clone();
        async move { status(&transport).await }
    }));
    tokio::time::sleep(Duration::from_millis(200)).await;
    raise.notify_one();
    let came = soon("calls", calls.join_all()).await;
    assert_eq!(came, [Ok(200); 3]);
}

#[tokio::test]
async fn a_peer_that_takes_no_streams_any_more_is_not_waited_for_without_end() {
    let peer = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        let first = frames.next().await.unwrap();
        frames.send(SETTINGS, 0, 0, &limit(0)).await;
        frames.answer(first.stream).await;
        while frames.next().await.is_some() {}
    })
    .await;
    for most in [1, 8] {
        let options = builder(Protocol::Http2)
            .max_connections(most)
            .handshake_timeout(Duration::from_millis(300));
        let transport = alone(peer.address, options);
        assert_eq!(status(&transport).await, Ok(200));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let came = status(&transport).await;
        assert!(
            matches!(came, Ok(200) | Err(ErrorKind::Connect)),
            "{came:?}"
        );
        if most == 1 {
            // A new connection takes one again.
            let came = status(&transport).await;
            assert!(
                matches!(came, Ok(200) | Err(ErrorKind::Connect)),
                "{came:?}"
            );
        }
    }
}

/// One piece, and a turn later a panic.
struct Panics(u8);

impl http_body::Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0 += 1;
        match self.0 {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one"))))),
            2 => {
                let waker = cx.waker().clone();
                spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    waker.wake();
                });
                Poll::Pending
            }
            _ => panic!("a careless body"),
        }
    }
}

#[tokio::test]
async fn a_body_that_panics_ends_its_call_and_no_other() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Server::start().await;
        let transport = alone(server.address, builder(protocol));
        let error = failure(&transport, post("a", Body::new(Panics(0)))).await;
        assert!(error.is_request(), "{protocol:?}: {error}");
        assert_eq!(status(&transport).await, Ok(200));
        assert_eq!(server.ids(), [""; 0]);
    }
}

#[tokio::test]
async fn a_response_that_is_dropped_takes_the_upload_with_it() {
    let reset = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&reset);
    let ended = Arc::new(Notify::new());
    let told = Arc::clone(&ended);
    let peer = Peer::start(move |socket, _| {
        let (seen, told) = (Arc::clone(&seen), Arc::clone(&told));
        async move {
            let mut frames = Frames::accept(socket).await.unwrap();
            let first = frames.next().await.unwrap();
            frames.send(HEADERS, 4, first.stream, &[0x88]).await;
            let mut head = [0; 9];
            while frames.0.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                frames.0.read_exact(&mut payload).await.unwrap();
                if head[3] == RST_STREAM {
                    seen.store(true, Ordering::SeqCst);
                    told.notify_one();
                }
            }
        }
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http2));
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let mut receiver = receiver;
    let pieces = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames =
        futures_util::StreamExt::map(pieces, |data| Ok::<_, Infallible>(Frame::data(data)));
    let body = Body::new(http_body_util::StreamBody::new(frames));
    sender.send(Bytes::from_static(b"one")).unwrap();
    let response = soon("a call", transport.clone().oneshot(post("a", body))).await;
    drop(response.unwrap());
    soon("the stream's reset", ended.notified()).await;
    assert!(reset.load(Ordering::SeqCst));
    soon("the body's drop", sender.closed()).await;
}

#[tokio::test]
async fn frames_that_no_peer_may_send_end_in_errors_and_never_in_hangs() {
    let raw =
        |kind: u8, flags: u8, on_stream: bool, payload: Vec<u8>| (kind, flags, on_stream, payload);
    let cases = vec![
        raw(DATA, 1, true, b"body before head".to_vec()),
        raw(HEADERS, 4, true, vec![0xff; 40]),
        raw(HEADERS, 4 | 1, true, vec![0x08, 3, b'1', b'0', b'3']), // 103 and the end
        raw(HEADERS, 4, true, vec![0x08, 3, b'1', b'0', b'1']),
        raw(9, 4, true, vec![]), // CONTINUATION of nothing
        raw(SETTINGS, 0, true, vec![]),
        raw(SETTINGS, 0, false, vec![1, 2, 3]),
        raw(SETTINGS, 0, false, [0, 4, 0xff, 0xff, 0xff, 0xff].to_vec()),
        raw(8, 0, false, vec![0, 0, 0, 0]), // WINDOW_UPDATE of nothing
        raw(5, 4, true, vec![0, 0, 0, 2, 0x82]), // PUSH_PROMISE though off
        raw(6, 0, false, vec![1]),
        raw(GOAWAY, 0, false, vec![0]),
        raw(RST_STREAM, 0, false, vec![0, 0, 0, 0]),
        raw(HEADERS, 1, true, vec![0x88]), // never continued
    ];
    for case in cases {
        let (kind, flags, on_stream, payload) = case.clone();
        let peer = Peer::start(move |socket, at| {
            let payload = payload.clone();
            async move {
                let mut frames = Frames::accept(socket).await.unwrap();
                let mut sent = false;
                while let Some(frame) = frames.next().await {
                    if at == 0 && !sent {
                        sent = true;
                        let stream = if on_stream { frame.stream } else { 0 };
                        frames.send(kind, flags, stream, &payload).await;
                        if kind == HEADERS && flags & 4 == 0 {
                            return; // and closes
                        }
                        if kind == HEADERS && payload.ends_with(b"101") {
                            frames.answer(frame.stream).await;
                        }
                    } else {
                        frames.answer(frame.stream).await;
                    }
                }
            }
        })
        .await;
        let options = builder(Protocol::Http2);
        let transport = alone(peer.address, options);
        let first = status(&transport).await;
        assert!(first.is_err() || kind == HEADERS, "{case:?}: {first:?}");
        assert_eq!(status(&transport).await, Ok(200), "{case:?}: {first:?}");
    }
}

#[tokio::test]
async fn a_second_goaway_leaves_out_more_and_none_is_processed_twice() {
    let peer = Peer::start(|socket, at| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        let mut streams = Vec::new();
        while let Some(frame) = frames.next().await {
            streams.push(frame.stream);
            if at > 0 {
                frames.answer(frame.stream).await;
            } else if streams.len() == 3 {
                frames.go_away((1 << 31) - 1, 0).await;
                frames.go_away(streams[0], 0).await;
                frames.answer(streams[0]).await;
            }
        }
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http2));
    let calls = tokio::task::JoinSet::from_iter((0..3).map(|_| {
        let transport = transport.clone();
        async move { status(&transport).await }
    }));
    assert_eq!(soon("calls", calls.join_all()).await, [Ok(200); 3]);
}

#[tokio::test]
async fn a_flood_of_resets_settings_and_interim_heads_is_outlived() {
    let peer = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        while let Some(frame) = frames.next().await {
            for at in 0..2_000u32 {
                frames.send(SETTINGS, 0, 0, &limit(100 + at % 7)).await;
                let early = [0x08, 3, b'1', b'0', b'3'];
                frames.send(HEADERS, 4, frame.stream, &early).await;
            }
            frames.answer(frame.stream).await;
            for _ in 0..200 {
                frames.reset(frame.stream, 8).await;
            }
        }
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http2));
    for _ in 0..5 {
        let came = status(&transport).await;
        assert!(matches!(came, Ok(200) | Err(_)), "{came:?}");
    }
}
