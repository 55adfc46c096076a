//! Each row of the signal table: which calls failed, which moved, and what the servers saw.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tower::ServiceExt;
use tower_nacos::transport::{ErrorKind, Evidence, Idempotent, Protocol, Retry, TransportBuilder};

use super::support::*;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// Who had the call last says nothing of who had it first.
#[tokio::test]
async fn a_call_that_was_lost_once_is_not_unprocessed_for_being_refused_after_that() {
    for protocol in BOTH {
        let loses = Peer::start(move |socket, _| async move {
            let mut socket = socket;
            match protocol {
                Protocol::Http2 => {
                    if let Some(mut frames) = Frames::accept(socket).await {
                        frames.next().await;
                    }
                }
                _ => drop(read_request(&mut socket, 0).await),
            }
        })
        .await;
        let retrying = || builder(protocol).retry(Retry::new().percent(100));
        let mut refused_last = 0;
        for at in 0..64 {
            let mut both = [loses.address, nobody().await];
            both.rotate_left(at % 2);
            let error = call(&rotating(&both, retrying()), get("/")).await;
            let error = error.unwrap_err();
            let last = inner(&error);
            assert!(!last.is_unprocessed(), "{protocol:?}: {last}");
            refused_last += u32::from(last.kind() == ErrorKind::Connect);
        }
        assert!(refused_last > 0, "{protocol:?}: never in that order");
        // Where nobody had it, nothing was.
        let balance = rotating(&[nobody().await, nobody().await], retrying());
        let error = call(&balance, get("/")).await.unwrap_err();
        assert!(inner(&error).is_unprocessed(), "{protocol:?}");
    }
}

fn quick(protocol: Protocol) -> TransportBuilder {
    let soon = Duration::from_millis(500);
    builder(protocol)
        .header_timeout(soon)
        .ping(soon, soon)
        .handshake_timeout(soon)
}

/// Calls with POST streams until each of two instances had its turn: all must be answered, by
/// `good`, each once. Returns whether the other one is ejected.
async fn all_move(bad: std::net::SocketAddr, builder: TransportBuilder) -> bool {
    let good = Server::start().await;
    let balance = rotating(&[bad, good.address], builder);
    for id in 0..8 {
        let body = stream([Bytes::from_static(b"one,"), Bytes::from_static(b"two")]);
        assert_eq!(text(&balance, post(id, body)).await.unwrap(), "one,two");
    }
    let seen = tally([&good]);
    assert_eq!(seen.len(), 8);
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    assert_eq!(balance.counts(), [0, 0, 0]);
    balance
        .explain(&bad.into())
        .to_string()
        .contains("could not be reached")
}

/// One call that was lost or given up is told so and goes nowhere else.
async fn stays(bad: std::net::SocketAddr, builder: TransportBuilder) -> (ErrorKind, bool) {
    let good = Server::start().await;
    let balance = rotating(&[bad, good.address], builder);
    let mut failed = None;
    for id in 0..4 {
        let body = stream([Bytes::from_static(b"one,"), Bytes::from_static(b"two")]);
        match text(&balance, post(id, body)).await {
            Ok(body) => assert_eq!(body, "one,two"),
            Err(error) => {
                let error = inner(&error);
                assert_eq!(error.evidence(), Evidence::Unknown, "{error:?}");
                assert!(!error.is_unprocessed());
                failed = Some((id, error.kind()));
                break;
            }
        }
    }
    let (id, kind) = failed.expect("one call goes to the bad one");
    assert!(
        !tally([&good]).contains_key(&id.to_string()),
        "it must not move"
    );
    assert_eq!(balance.counts(), [0, 0, 0]);
    let out = balance
        .explain(&bad.into())
        .to_string()
        .contains("could not be reached");
    (kind, out)
}

#[tokio::test]
async fn row_a_a_refused_dial_moves_the_call_and_ejects() {
    for protocol in BOTH {
        let bad = nobody().await;
        let mut error = failure(&alone(bad, quick(protocol)), post(1, "x")).await;
        assert_eq!(
            (error.kind(), error.evidence()),
            (ErrorKind::Connect, Evidence::Unsent)
        );
        assert!(error.to_string().contains("refused"), "{error}");
        assert_eq!(error.take_request().unwrap().uri(), "/v1/items");
        assert!(all_move(bad, quick(protocol)).await);
    }
}

#[tokio::test]
async fn row_a_accept_then_close_moves_the_call_over_http2_and_ejects() {
    let bad = Peer::start(|socket, _| async move { drop(socket) }).await;
    assert!(all_move(bad.address, quick(Protocol::Http2)).await);
    // Over HTTP/1 there is nothing to wait for before the request is written: whether it was is a
    // race, and the error says which.
    let error = failure(&alone(bad.address, quick(Protocol::Http1)), post(1, "x")).await;
    let known = error.evidence() == Evidence::Unsent;
    assert!(known || error.is_lost(), "{error:?}");
}

#[tokio::test]
async fn row_a_a_kept_connection_that_was_reset_before_the_call_costs_nothing() {
    let bad = Peer::start(|mut socket, at| async move {
        if at == 0 {
            read_request(&mut socket, 1).await;
            socket.write_all(OK).await.unwrap();
            // Once the answer has been read, as the next call is made.
            tokio::time::sleep(Duration::from_millis(20)).await;
            reset(&socket);
        } else {
            while read_request(&mut socket, 1).await.ends_with('x') {
                socket.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let transport = alone(bad.address, builder(Protocol::Http1));
    let call = |id| soon("a call", transport.clone().oneshot(post(id, "x")));
    call(1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    call(2).await.unwrap();
    assert_eq!(bad.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn unknown_reset_or_closed_after_the_request_stays_and_takes_nobody_out() {
    for rst in [true, false] {
        let bad = Peer::start(move |mut socket, _| async move {
            // Chunked: "4 one, 3 two 0".
            read_request(&mut socket, 22).await;
            if rst {
                reset(&socket);
            }
        })
        .await;
        let (kind, out) = stays(bad.address, quick(Protocol::Http1)).await;
        assert_eq!((kind, out), (ErrorKind::Lost, false), "rst: {rst}");
        let bad = Peer::start(move |socket, _| async move {
            let mut frames = Frames::accept(socket).await.unwrap();
            while let Some(frame) = frames.next().await {
                if frame.flags & END_STREAM != 0 {
                    break;
                }
            }
            if rst {
                reset(&frames.0);
            }
        })
        .await;
        let (kind, out) = stays(bad.address, quick(Protocol::Http2)).await;
        assert_eq!((kind, out), (ErrorKind::Lost, false), "rst: {rst}");
    }
}

#[tokio::test]
async fn unknown_an_upload_cut_in_the_middle_stays_and_takes_nobody_out() {
    let bad = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 4).await;
        reset(&socket);
    })
    .await;
    let (kind, out) = stays(bad.address, builder(Protocol::Http1)).await;
    assert_eq!((kind, out), (ErrorKind::Lost, false));
    let bad = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        while let Some(frame) = frames.next().await {
            if frame.kind == DATA {
                break;
            }
        }
        reset(&frames.0);
    })
    .await;
    let (kind, out) = stays(bad.address, builder(Protocol::Http2)).await;
    assert_eq!((kind, out), (ErrorKind::Lost, false));
}

#[tokio::test]
async fn unknown_keep_alive_closed_as_we_write_stays() {
    let bad = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 1).await;
        socket.write_all(OK).await.unwrap();
        read_request(&mut socket, 1).await; // it closes, and this was on its way
    })
    .await;
    let transport = alone(bad.address, builder(Protocol::Http1));
    let first = soon("a call", transport.clone().oneshot(post(1, "x"))).await;
    first.unwrap();
    let error = failure(&transport, post(2, "x")).await;
    assert!(error.is_lost() && !error.is_unprocessed(), "{error:?}");
    assert_eq!(bad.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn unknown_a_silent_peer_is_found_by_ping_and_ejected_or_by_the_header_timeout() {
    let silent = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 1_000_000).await;
    })
    .await;
    let (kind, out) = stays(silent.address, quick(Protocol::Http1)).await;
    assert_eq!((kind, out), (ErrorKind::Timeout, false));
    // SETTINGS, and then nothing: a process that hangs, or a host that is gone.
    let silent = || {
        Peer::start(|socket, _| async move {
            let frames = Frames::accept(socket).await.unwrap();
            std::future::pending::<()>().await;
            drop(frames);
        })
    };
    let peer = silent().await;
    let error = failure(&alone(peer.address, quick(Protocol::Http2)), post(1, "x")).await;
    assert!(error.is_lost() && error.is_timeout(), "{error:?}");
    assert!(
        error.to_string().contains("did not answer a PING"),
        "{error}"
    );
    let peer = silent().await;
    let (kind, out) = stays(peer.address, quick(Protocol::Http2)).await;
    assert_eq!((kind, out), (ErrorKind::Lost, true));
}

#[tokio::test]
async fn a_slow_peer_that_answers_pings_is_waited_for() {
    let slow = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        let stream = frames.next().await.unwrap().stream;
        // Answers PINGs meanwhile.
        let _ = tokio::time::timeout(Duration::from_millis(1500), async {
            while frames.next().await.is_some() {}
        })
        .await;
        frames.answer(stream).await;
        while frames.next().await.is_some() {}
    })
    .await;
    let transport = alone(slow.address, quick(Protocol::Http2));
    let called = soon("a call", transport.oneshot(post(1, "x"))).await;
    assert_eq!(called.unwrap().status(), 200);
}

#[tokio::test]
async fn row_a_a_slow_handshake_moves_the_call_and_ejects() {
    let slow = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 1_000_000).await; // never a SETTINGS
    })
    .await;
    let error = failure(&alone(slow.address, quick(Protocol::Http2)), post(1, "x")).await;
    assert!(
        error.is_connect() && error.is_timeout() && error.is_unprocessed(),
        "{error:?}"
    );
    assert!(all_move(slow.address, quick(Protocol::Http2)).await);
}

#[tokio::test]
async fn row_b_a_refused_stream_moves_with_its_body_and_the_instance_stays() {
    let bad = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        while let Some(frame) = frames.next().await {
            // Only once a part of the body was sent.
            if frame.kind == DATA {
                frames.reset(frame.stream, REFUSED_STREAM).await;
            }
        }
    })
    .await;
    assert!(!all_move(bad.address, builder(Protocol::Http2)).await);
    assert_eq!(bad.connections.load(Ordering::SeqCst), 1);
    // More than is kept: it says that it was not processed.
    let transport = alone(bad.address, builder(Protocol::Http2));
    let large = stream(vec![Bytes::from(vec![0; 30_000]); 4]);
    let greedy = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        let mut window = Vec::from(200_000_u32.to_be_bytes());
        frames.send(8, 0, 0, &window).await;
        let mut read = 0;
        while let Some(frame) = frames.next().await {
            if frame.kind == HEADERS {
                window = 200_000_u32.to_be_bytes().into();
                frames.send(8, 0, frame.stream, &window).await;
            }
            read += frame.payload.len();
            if read > 100_000 {
                frames.reset(frame.stream, REFUSED_STREAM).await;
            }
        }
    })
    .await;
    let mut error = failure(
        &alone(greedy.address, builder(Protocol::Http2)),
        post(1, large),
    )
    .await;
    assert!(error.is_refused() && error.is_unprocessed(), "{error:?}");
    assert!(error.take_request().is_none());
    assert!(
        error.to_string().contains("more of the request's body"),
        "{error}"
    );
    // Bytes that are there need not be kept.
    let mut error = failure(&transport, post(2, vec![0; 200_000])).await;
    assert!(
        error.is_refused() && error.take_request().is_some(),
        "{error:?}"
    );
}

#[tokio::test]
async fn row_b_what_a_goaway_leaves_out_is_sent_once_more_and_the_rest_is_answered() {
    for reason in [0, 2] {
        let served = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = Arc::clone(&served);
        let go = Arc::new(tokio::sync::Notify::new());
        let going = Arc::clone(&go);
        let bad = Peer::start(move |socket, at| {
            let log = Arc::clone(&log);
            let going = Arc::clone(&going);
            async move {
                let mut frames = Frames::accept(socket).await.unwrap();
                let mut complete = Vec::new();
                while let Some(frame) = frames.next().await {
                    if frame.flags & END_STREAM != 0 {
                        complete.push(frame.stream);
                        if at > 0 {
                            log.lock().unwrap().push((at, frame.stream));
                            frames.answer(frame.stream).await;
                            continue;
                        }
                    }
                    // The first of all is answered, so that the connection is a proven one.
                    if complete == [1] && frame.stream == 1 {
                        frames.answer(1).await;
                        log.lock().unwrap().push((at, 1));
                    }
                    if complete.len() == 11 {
                        // Of ten the lower five are processed.
                        going.notified().await;
                        frames.go_away(11, reason).await;
                        for stream in complete.iter().filter(|id| (3..=11).contains(*id)) {
                            log.lock().unwrap().push((at, *stream));
                            frames.answer(*stream).await;
                        }
                        return;
                    }
                }
            }
        })
        .await;
        let good = Server::start().await;
        let (mut writer, orders) = registry();
        list(&mut writer, &[bad.address]);
        let balance = over(&orders, builder(Protocol::Http2));
        call(&balance, post("first", "x")).await.unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for id in 0..10 {
            let balance = balance.clone();
            let body = stream([Bytes::from_static(b"one,"), Bytes::from_static(b"two")]);
            calls.spawn(async move { text(&balance, post(id, body)).await });
        }
        while balance.counts()[0] < 10 {
            tokio::task::yield_now().await;
        }
        list(&mut writer, &[bad.address, good.address]);
        go.notify_one();
        let mut answered = 0;
        while let Some(ended) = soon("all calls", calls.join_next()).await {
            ended.unwrap().unwrap();
            answered += 1;
        }
        assert_eq!(answered, 10);
        let here = served.lock().unwrap().len() - 1;
        let there = tally([&good]);
        // A planned end asks for another connection, a failure for another instance.
        let expected = if reason == 0 { (10, 0) } else { (5, 5) };
        assert_eq!((here, there.len()), expected, "reason {reason}: {there:?}");
        assert!(there.values().all(|times| *times == 1));
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test]
async fn what_everybody_refuses_goes_to_three_more_and_then_nowhere() {
    for with_goodbye in [true, false] {
        let tries = Arc::new(AtomicUsize::new(0));
        let mut peers = Vec::new();
        for _ in 0..6 {
            let tries = Arc::clone(&tries);
            let peer = Peer::start(move |socket, _| {
                let tries = Arc::clone(&tries);
                async move {
                    let mut frames = Frames::accept(socket).await.unwrap();
                    while let Some(frame) = frames.next().await {
                        if frame.flags & END_STREAM != 0 {
                            tries.fetch_add(1, Ordering::SeqCst);
                            if with_goodbye {
                                frames.go_away(0, 0).await;
                            } else {
                                frames.reset(frame.stream, REFUSED_STREAM).await;
                            }
                        }
                    }
                }
            });
            peers.push(peer.await);
        }
        let addresses: Vec<_> = peers.iter().map(|peer| peer.address).collect();
        let balance = rotating(&addresses, builder(Protocol::Http2));
        let error = call(&balance, post(1, "x")).await.unwrap_err();
        assert!(
            inner(&error).is_refused() && inner(&error).is_unprocessed(),
            "{error:?}"
        );
        assert_eq!(tries.load(Ordering::SeqCst), 4, "goodbye: {with_goodbye}");
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test]
async fn a_reset_for_another_reason_is_unknown_and_the_instance_stays() {
    let bad = Peer::start(|socket, _| async move {
        let mut frames = Frames::accept(socket).await.unwrap();
        while let Some(frame) = frames.next().await {
            if frame.flags & END_STREAM != 0 {
                frames.reset(frame.stream, 2).await; // INTERNAL_ERROR
            }
        }
    })
    .await;
    let (kind, out) = stays(bad.address, builder(Protocol::Http2)).await;
    assert_eq!((kind, out), (ErrorKind::Reset, false));
}

#[tokio::test]
async fn the_request_s_own_failure_is_told_as_such_and_ejects_nobody() {
    for protocol in BOTH {
        let server = Server::start().await;
        let balance = rotating(&[server.address], builder(protocol));
        let failing = futures_util::stream::iter([
            Ok(http_body::Frame::data(Bytes::from_static(b"x"))),
            Err(std::io::Error::other("no disk")),
        ]);
        let body = tower_nacos::transport::Body::new(http_body_util::StreamBody::new(failing));
        let error = call(&balance, post(1, body)).await.unwrap_err();
        assert_eq!(inner(&error).kind(), ErrorKind::Body, "{error:?}");
        assert!(!inner(&error).is_unprocessed());
        assert_eq!(text(&balance, post(2, "y")).await.unwrap(), "y");
    }
}

#[tokio::test]
async fn what_is_unknown_moves_only_if_idempotent_and_allowed_and_within_its_limits() {
    for protocol in BOTH {
        let bad = Peer::start(move |mut socket, _| async move {
            if protocol == Protocol::Http1 {
                read_request(&mut socket, 1).await;
            } else {
                let mut frames = Frames::accept(socket).await.unwrap();
                while frames
                    .next()
                    .await
                    .is_some_and(|f| f.flags & END_STREAM == 0)
                {}
            }
        })
        .await;
        let good = Server::start().await;
        let retry = Retry::new().percent(0);
        let fails = async |retry: Option<Retry>, method: &str, marked: bool| {
            // A balancer each time: the first call goes to the bad one, or the second does.
            let builder = retry
                .into_iter()
                .fold(builder(protocol), TransportBuilder::retry);
            let balance = rotating(&[bad.address, good.address], builder);
            let mut failed = 0;
            for id in 0..2 {
                let mut request = post(id, "x");
                *request.method_mut() = method.parse().unwrap();
                if marked {
                    request.extensions_mut().insert(Idempotent::default());
                }
                failed += usize::from(text(&balance, request).await.is_err());
            }
            assert_eq!(balance.counts(), [0, 0, 0]);
            failed
        };
        assert_eq!(fails(None, "PUT", false).await, 1);
        assert_eq!(fails(Some(retry.clone()), "POST", false).await, 1);
        assert_eq!(fails(Some(retry.clone()), "PUT", false).await, 0);
        assert_eq!(fails(Some(retry.clone()), "POST", true).await, 0);
        assert_eq!(fails(Some(retry.clone().tries(0)), "PUT", false).await, 1);
        assert_eq!(
            fails(Some(retry.clone().within(Duration::ZERO)), "PUT", false).await,
            1
        );
        // Ten to begin with, of which some are used up. Each round takes one or two: the bad one
        // can be connected to, so it may be back for the second call.
        let mut rounds = 0;
        while fails(Some(retry.clone()), "PUT", false).await == 0 {
            rounds += 1;
        }
        assert!((2..=8).contains(&rounds), "{rounds}");
    }
}

/// The system knows of a close before the runtime says so, which under load is a while.
#[tokio::test]
async fn a_call_is_not_written_to_a_connection_that_was_closed_already() {
    for protocol in BOTH {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let bad = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let server = Server::start().await;
                tell.send(server.address).unwrap();
                let _ = stopped.await;
            });
        });
        let balance = rotating(&[told.recv().unwrap()], builder(protocol));
        text(&balance, post(0, "")).await.unwrap();
        stop.send(()).unwrap();
        bad.join().unwrap(); // meanwhile nothing runs here
        pause(Duration::from_millis(2)); // so long a connection has to be quiet
        let error = text(&balance, post(1, "")).await.unwrap_err();
        assert!(inner(&error).is_unprocessed(), "{protocol:?}: {error:?}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing is to run on this thread"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
