//! Instances that are hostile or broken, and callers that are careless, over HTTP/1.1.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime,
    sync::Notify,
};
use tower::ServiceExt;
use tower_nacos::transport::{Body, ErrorKind, Protocol, Transport};

use crate::transport::support::*;

async fn read(transport: &Transport, request: Request<Body>) -> Result<String, ErrorKind> {
    let called = soon("a call", transport.clone().oneshot(request)).await;
    let response = called.map_err(|error| error.kind())?;
    let body = soon("a body", response.into_body().collect()).await;
    let bytes = body.map_err(|error| error.kind())?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

fn runtime() -> runtime::Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_response_may_be_read_and_dropped_outside_of_any_runtime() {
    for is_read in [false, true] {
        let ours = runtime();
        let (server, transport, response) = ours.block_on(async {
            let server = Server::start().await;
            let transport = alone(server.address, builder(Protocol::Http1));
            let request = post("a", "hello");
            let response = transport.clone().oneshot(request).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await; // all of it came
            (server, transport, response)
        });
        if is_read {
            let body = futures_util::FutureExt::now_or_never(response.into_body().collect());
            assert_eq!(body.unwrap().unwrap().to_bytes(), "hello");
        } else {
            drop(response);
        }
        drop((transport, server));
        drop(ours);
    }
}

#[test]
fn what_lies_idle_is_closed_though_the_runtime_that_put_it_there_is_gone() {
    let others = runtime();
    let server = others.block_on(Server::start());
    let options = builder(Protocol::Http1).idle_timeout(Duration::from_millis(100));
    let transport = alone(server.address, options);
    let one = runtime();
    assert_eq!(
        one.block_on(read(&transport, post("a", "one"))),
        Ok("one".into())
    );
    drop(one);
    let two = runtime();
    two.block_on(async {
        assert_eq!(read(&transport, post("b", "two")).await, Ok("two".into()));
        server.until_open(0).await;
    });
    drop(server);
}

#[test]
fn a_call_of_another_runtime_does_not_hang_on_a_connection_whose_runtime_is_gone() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let others = runtime();
        let server = others.block_on(Server::start());
        let transport = alone(server.address, builder(protocol));
        for at in 0..3 {
            let one = runtime();
            let said = one.block_on(read(&transport, post(at, "hello")));
            assert_eq!(said, Ok("hello".into()), "{protocol:?} {at}");
        }
        assert_eq!(server.ids(), ["0", "1", "2"], "{protocol:?}");
    }
}

#[tokio::test]
async fn what_follows_a_response_is_never_the_next_call_s() {
    const SMUGGLED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled";
    for (first, method) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "GET"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "GET",
        ),
        (
            "HTTP/1.1 204 No Content\r\ncontent-length: 54\r\n\r\n",
            "GET",
        ),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 54\r\n\r\n",
            "GET",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 54\r\n\r\n", "HEAD"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
            "GET",
        ),
    ] {
        for pause in [false, true] {
            let closed = Arc::new(Notify::new());
            let closes = Arc::clone(&closed);
            let peer = Peer::start(move |mut socket, at| {
                let closes = Arc::clone(&closes);
                async move {
                    if at == 0 {
                        read_request(&mut socket, 0).await;
                        // Without a pause in one write: what comes in a second one may come after
                        // the next request, and then nobody can tell that it is not its answer.
                        let (now, later) = if pause {
                            ("", SMUGGLED)
                        } else {
                            (SMUGGLED, "")
                        };
                        let _ = socket.write_all([first, now].concat().as_bytes()).await;
                        if pause {
                            tokio::time::sleep(Duration::from_millis(30)).await;
                        }
                        let _ = socket.write_all(later.as_bytes()).await;
                    }
                    loop {
                        if read_request(&mut socket, 0).await.is_empty() {
                            closes.notify_one();
                            return;
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine";
                        let _ = socket.write_all(answer).await;
                    }
                }
            })
            .await;
            let transport = alone(peer.address, builder(Protocol::Http1));
            let request = Request::builder()
                .method(method)
                .uri("/")
                .body(Body::empty());
            let came = read(&transport, request.unwrap()).await;
            if pause {
                // Not a time: a process that stood still meanwhile has read nothing yet.
                soon("an idle connection that speaks closes", closed.notified()).await;
            }
            for _ in 0..3 {
                let said = read(&transport, get("/")).await;
                assert_eq!(said, Ok("mine".into()), "{first:?} {pause} {came:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_broken_response_is_an_error_and_its_connection_is_not_used_again() {
    for (broken, in_body) in [
        ("HTTP/1.1 200 OK\r\ncontent-le", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", true),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nok\r\n",
            true,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", false),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
            false,
        ),
        ("HTTP/9.9 200 OK\r\n\r\n", false),
        ("\0\0\0\0\0", false),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
    ] {
        let peer = Peer::start(move |mut socket, at| async move {
            read_request(&mut socket, 0).await;
            let answer = if at == 0 { broken.as_bytes() } else { OK };
            let _ = socket.write_all(answer).await;
            let _ = socket.shutdown().await;
            let _ = socket.read(&mut [0; 64]).await;
        })
        .await;
        let transport = alone(peer.address, builder(Protocol::Http1));
        let called = soon("a call", transport.clone().oneshot(get("/"))).await;
        match called {
            Ok(response) if broken.contains("101") => drop(response),
            Ok(response) => {
                assert!(in_body, "{broken:?}");
                let body = soon("a body", response.into_body().collect()).await;
                assert!(body.is_err(), "{broken:?}");
            }
            Err(error) => {
                assert!(!in_body, "{broken:?}: {error}");
                assert!(!error.is_unprocessed(), "{broken:?}: {error}");
            }
        }
        assert_eq!(
            read(&transport, get("/")).await,
            Ok(String::new()),
            "{broken:?}"
        );
        assert_eq!(peer.connections.load(Ordering::SeqCst), 2, "{broken:?}");
    }
}

#[tokio::test]
async fn interim_responses_without_end_are_cut_by_the_header_timeout() {
    let peer = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 0).await;
        loop {
            let interim = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
            if socket.write_all(interim).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let options = builder(Protocol::Http1).header_timeout(Duration::from_millis(300));
    let error = failure(&alone(peer.address, options), get("/")).await;
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn an_answer_before_the_upload_s_end_is_an_answer_and_the_next_call_has_its_own() {
    for reads_on in [false, true] {
        let peer = Peer::start(move |mut socket, at| async move {
            let mut head = [0; 512];
            let _ = socket.read(&mut head).await;
            let too_large = b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nlong";
            let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext";
            let answer: &[u8] = if at == 0 { too_large } else { ok };
            let _ = socket.write_all(answer).await;
            let mut sink = vec![0; 65536];
            if reads_on {
                while socket.read(&mut sink).await.unwrap_or(0) > 0 {}
            }
            std::future::pending::<()>().await;
        })
        .await;
        let transport = alone(peer.address, builder(Protocol::Http1));
        let pieces = (0..400).map(|_| Bytes::from(vec![b'x'; 65536]));
        let request = post("a", stream(pieces.collect::<Vec<_>>()));
        assert_eq!(read(&transport, request).await, Ok("long".into()));
        assert_eq!(read(&transport, get("/")).await, Ok("next".into()));
    }
}

#[tokio::test]
async fn an_upload_waits_for_a_peer_that_reads_nothing_for_longer_than_the_silence_limit() {
    let peer = Peer::start(|mut socket, _| async move {
        let mut head = [0; 512];
        let _ = socket.read(&mut head).await;
        tokio::time::sleep(Duration::from_secs(11)).await; // the limit is 8 s
        let mut sink = vec![0; 65536];
        let mut tail = Vec::new();
        loop {
            let read = socket.read(&mut sink).await.unwrap_or(0);
            if read == 0 {
                return;
            }
            tail.extend_from_slice(&sink[..read]);
            if tail.ends_with(b"0\r\n\r\n") {
                break;
            }
            tail.drain(..tail.len().saturating_sub(8));
        }
        let _ = socket.write_all(OK).await;
    })
    .await;
    let transport = alone(peer.address, builder(Protocol::Http1));
    let pieces = (0..400).map(|_| Bytes::from(vec![b'x'; 65536]));
    let request = post("a", stream(pieces.collect::<Vec<_>>()));
    let called = tokio::time::timeout(Duration::from_secs(40), transport.oneshot(request)).await;
    let status = called.expect("hangs").map(|response| response.status());
    assert_eq!(
        status.map_err(|error| format!("{error:?}")),
        Ok(http::StatusCode::OK)
    );
}

#[test]
fn an_ejected_instance_comes_back_though_the_runtime_of_its_balancer_is_gone() {
    for gone in [false, true] {
        let others = runtime();
        let (one, two) = others.block_on(async { (Server::start().await, Server::start().await) });
        let (mut writer, orders) = registry();
        list(&mut writer, &[one.address, two.address]);
        let first = runtime();
        let balance = first.block_on(async { over(&orders, builder(Protocol::Http1)) });
        let first = if gone {
            drop(first);
            runtime()
        } else {
            first
        };
        first.block_on(async {
            let at = one.address;
            drop(one);
            for _ in 0..6 {
                let _ = call(&balance, get("/")).await;
            }
            let listener = tokio::net::TcpListener::bind(at).await.unwrap();
            let one = Server::on(listener, u32::MAX);
            soon("the instance gets calls again", async {
                while one.log.lines.lock().unwrap().is_empty() {
                    call(&balance, get("/")).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        });
    }
}

#[test]
fn a_probe_that_ends_with_its_runtime_is_made_again() {
    let others = runtime();
    let peer = others.block_on(Peer::start(|socket, at| async move {
        if at == 1 {
            std::future::pending::<()>().await;
        }
        let mut frames = Frames::accept(socket).await.unwrap();
        let mut calls = 0;
        while let Some(frame) = frames.next().await {
            calls += 1;
            if at == 0 && calls == 2 {
                return;
            }
            frames.answer(frame.stream).await;
        }
    }));
    let first = runtime();
    let options = builder(Protocol::Http2).handshake_timeout(Duration::from_secs(60));
    let balance = first.block_on(async { rotating(&[peer.address], options) });
    let second = runtime();
    second.block_on(async {
        assert!(call(&balance, get("/")).await.is_ok());
        assert!(call(&balance, post(1, "not twice")).await.is_err());
        soon("its probe", async {
            while peer.connections.load(Ordering::SeqCst) < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    });
    first.shutdown_background();
    second.block_on(async {
        soon("a call", async {
            while call(&balance, get("/")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    });
}

#[test]
fn a_dial_that_ends_with_its_runtime_is_made_again_by_who_waited_for_it() {
    let others = runtime();
    let peer = others.block_on(Peer::start(|socket, at| async move {
        if at == 0 {
            std::future::pending::<()>().await;
        }
        let mut frames = Frames::accept(socket).await.unwrap();
        while let Some(frame) = frames.next().await {
            frames.answer(frame.stream).await;
        }
    }));
    let options = builder(Protocol::Http2).handshake_timeout(Duration::from_secs(60));
    let transport = alone(peer.address, options);
    let first = runtime();
    let dials = transport.clone();
    drop(first.spawn(async move { drop(dials.oneshot(get("/")).await) }));
    let second = runtime();
    let waits = second.spawn(async move {
        while peer.connections.load(Ordering::SeqCst) < 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let called = read(&transport, get("/"));
        let (ended, came) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                first.shutdown_background();
            },
            called
        );
        let () = ended;
        came
    });
    assert_eq!(second.block_on(waits).unwrap(), Ok(String::new()));
}
