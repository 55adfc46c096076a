//! An address that somebody else has by now, and the registry lists on: who is called says so, and
//! the call goes elsewhere.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::Router;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tower_nacos::{
    http::{Body, Client},
    model::SERVICE_HEADER,
    provider,
    transport::{ErrorKind, Protocol, Retry, Transport, TransportBuilder},
};

use super::{World, provider::peer, soon};

/// Answers with the header that says whom the caller meant.
async fn serve() -> SocketAddr {
    let app = Router::new().fallback(async |headers: HeaderMap, _: Bytes| {
        let meant = headers.get(SERVICE_HEADER);
        meant
            .map_or("nobody", |value| value.to_str().unwrap())
            .to_owned()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// An address of `service`, that a provider of something else has by now.
async fn taken_over(world: &World, service: &str) -> (SocketAddr, provider::Provider) {
    let now = format!("now-not-{service}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let provider = provider::Provider::builder(&world.nacos, &*now)
        .instance(address.into())
        .build();
    let app = Router::new().fallback(async |_: Bytes| "somebody else");
    let app = app.layer(provider.layer());
    tokio::spawn(async move { axum::serve(listener, app).await });
    world.registry.register(service, &address.into());
    (address, provider)
}

fn by(protocol: Protocol) -> TransportBuilder {
    Transport::builder().protocol(protocol)
}

fn streamed() -> Body {
    let pieces = ["a", "b"].map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
    Body::new(StreamBody::new(stream::iter(pieces)))
}

#[tokio::test]
async fn a_call_goes_elsewhere_from_an_address_that_somebody_else_has() {
    for (protocol, service) in [(Protocol::Http1, "taken-1"), (Protocol::Http2, "taken-2")] {
        let world = World::new().await;
        let (_, other) = taken_over(&world, service).await;
        let right = serve().await;
        world.registry.register(service, &right.into());
        let http = Client::builder(&world.nacos)
            .transport(by(protocol))
            .build();
        let meant = format!("DEFAULT_GROUP@@{service};namespace=public;address={right}");
        let uri = format!("nacos://{service}/v1");
        let mut seen = 0;
        for at in 0..40 {
            // What is not kept over HTTP/1 goes nowhere else.
            let repeatable = at % 4 < 3 || protocol == Protocol::Http2;
            let request = match at % 4 {
                0 => http.get(&uri),
                1 => http.post(&uri, ()),
                2 => http.post(&uri, "body"),
                _ => http.post(&uri, streamed()),
            };
            let response = match soon("an answer", request.send()).await {
                Err(error) if !repeatable => {
                    let text = error.to_string();
                    assert!(text.contains("a stream is not kept"), "{text}");
                    assert!(error.is_unprocessed());
                    seen += 1;
                    continue;
                }
                answered => answered.unwrap(),
            };
            assert_eq!(response.status(), 200, "{protocol:?}");
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), meant, "{protocol:?}");
        }
        let misdirected = other.report().misdirected;
        println!("{protocol:?}: {misdirected} were misdirected, {seen} seen");
        assert!(misdirected > seen, "{protocol:?}: none went there");
        let counters = http.service(service).unwrap().counters();
        assert_eq!(
            (counters.moved, counters.ejections),
            (misdirected - seen, 0)
        );
    }
}

#[tokio::test]
async fn who_is_somebody_else_everywhere_is_told_and_nothing_was_done() {
    let world = World::new().await;
    let (address, _other) = taken_over(&world, "taken-3").await;
    let call = world.http.get("nacos://taken-3/v1").send();
    let error = soon("an error", call).await.unwrap_err();
    assert!(error.is_unprocessed() && !error.is_connect(), "{error:?}");
    let says = "it answers 421 (Misdirected Request): somebody else has this address by now";
    assert!(error.to_string().contains(says), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(error.transport().unwrap().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn however_many_are_somebody_else_and_whatever_the_body_a_caller_gets_an_error() {
    for (protocol, service) in [(Protocol::Http1, "taken-5"), (Protocol::Http2, "taken-6")] {
        let world = World::new().await;
        let mut others = Vec::new();
        for _ in 0..5 {
            others.push(taken_over(&world, service).await.1);
        }
        let http = Client::builder(&world.nacos)
            .transport(by(protocol))
            .build();
        let uri = format!("nacos://{service}/v1");
        let asked = || others.iter().map(|other| other.report().misdirected);
        for at in 0..4 {
            let before: u64 = asked().sum();
            let request = match at {
                0 => http.get(&uri),
                1 => http.post(&uri, ()),
                2 => http.post(&uri, "body"),
                _ => http.post(&uri, streamed()),
            };
            let called = soon("an answer", request.send()).await;
            let error = called.expect_err("nobody is who is meant");
            assert!(error.is_unprocessed(), "{protocol:?}: {error:?}");
            let text = error.to_string();
            assert!(text.contains("it answers 421"), "{protocol:?}: {text}");
            let (asks, why) = match (at, protocol) {
                (3, Protocol::Http1) => (1, "a stream is not kept over HTTP/1"),
                _ => (4, "the call was refused 3 times before"),
            };
            assert!(text.contains(why), "{protocol:?}, {at}: {text}");
            assert_eq!(asked().sum::<u64>() - before, asks, "{protocol:?}, {at}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_no_retry_and_follows_one() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::new().await;
        let service = "taken-7";
        let (_, other) = taken_over(&world, service).await;
        let right = serve().await;
        world.registry.register(service, &right.into());
        let uri = format!("nacos://{service}/v1");
        // Without a single try more than the first.
        let none = Client::builder(&world.nacos)
            .transport(by(protocol).retry(Retry::new().tries(0).percent(0)))
            .build();
        for _ in 0..20 {
            let request = none.put(&uri, "body");
            let response = soon("an answer", request.send()).await.unwrap();
            assert_eq!(response.status(), 200, "{protocol:?}");
        }
        assert!(other.report().misdirected > 0);
        // One that loses what it is given as well: from there to somebody else, and on to the right one.
        let loses = peer(async |mut stream| {
            let _ = stream.read(&mut [0; 4096]).await;
        })
        .await;
        world.registry.register(service, &loses.into());
        let some = Client::builder(&world.nacos)
            .transport(by(protocol).retry(Retry::new().percent(100)))
            .build();
        let listed = some.service(service).unwrap();
        let three = listed.subscription().wait_for(3, Duration::from_secs(20));
        three.await.unwrap();
        for _ in 0..20 {
            let request = some.put(&uri, "body");
            let response = soon("an answer", request.send()).await.unwrap();
            assert_eq!(response.status(), 200, "{protocol:?}");
        }
    }
}

/// An error that has no request any more tells of all its tries, too.
#[tokio::test]
async fn refused_in_the_end_it_may_have_been_processed_by_who_lost_it() {
    let world = World::new().await;
    let service = "taken-8";
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(taken_over(&world, service).await.1);
    }
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    let loses = peer(move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            let read = stream.read(&mut [0; 4096]).await.unwrap_or(0);
            counted.fetch_add(usize::from(read > 0), SeqCst);
        }
    })
    .await;
    world.registry.register(service, &loses.into());
    let http = Client::builder(&world.nacos)
        .transport(by(Protocol::Http1).retry(Retry::new().percent(100)))
        .build();
    let listed = http.service(service).unwrap();
    let all = listed.subscription().wait_for(6, Duration::from_secs(20));
    all.await.unwrap();
    let mut doubtful = 0;
    for _ in 0..40 {
        let before = lost.load(SeqCst);
        let call = http.put(format!("nacos://{service}/v1"), "body").send();
        let error = soon("an answer", call).await.unwrap_err();
        let was_lost = lost.load(SeqCst) > before;
        assert_eq!(error.is_unprocessed(), !was_lost, "{error}");
        doubtful += usize::from(was_lost && error.to_string().contains("3 times before"));
    }
    assert!(doubtful > 0, "never in that order");
}

#[tokio::test]
async fn nothing_is_told_if_that_is_turned_off_and_what_the_caller_says_stays() {
    let world = World::new().await;
    let _other = taken_over(&world, "taken-4").await;
    let right = serve().await;
    world.registry.register("told", &right.into());
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let silent = Client::builder(&world.nacos)
            .transport(by(protocol).tell_service(false))
            .build();
        for (uri, expected) in [
            ("nacos://taken-4/", "somebody else"),
            ("nacos://told/", "nobody"),
        ] {
            let response = soon("an answer", silent.get(uri).send()).await.unwrap();
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), expected, "{protocol:?}");
        }
        let telling = Client::builder(&world.nacos)
            .transport(by(protocol))
            .build();
        for _ in 0..2 {
            let mut own = Request::get("nacos://told/").body(Body::empty()).unwrap();
            let value = HeaderValue::from_static("what I say");
            own.headers_mut().insert(SERVICE_HEADER, value);
            let response = soon("an answer", telling.request(own)).await.unwrap();
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "what I say", "{protocol:?}");
        }
        // A 421 to what the caller said is the caller's.
        let own = Request::get("nacos://taken-4/").header(SERVICE_HEADER, "nobody-at-all");
        let response = soon(
            "an answer",
            telling.request(own.body(Body::empty()).unwrap()),
        )
        .await;
        assert_eq!(response.unwrap().status(), StatusCode::MISDIRECTED_REQUEST);
    }
}
