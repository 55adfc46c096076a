//! What is answered while there is nobody to call.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use discover_support::{instance, now, registry};
use tower::{Service, ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance,
    balance::{BalanceBuilder, Hints},
    directory::{Subscription, Writer},
    endpoint::{CallError, Recover, Recovered, Verdict},
};

const A: &str = "10.0.0.1:80";

/// A request that cannot be cloned: what the fallback is given is the one that was made.
#[derive(Debug, PartialEq)]
struct Order(&'static str);

/// What an instance answers with that could not be reached: the request, unseen, or nothing.
#[derive(Debug)]
struct Refused(Option<Order>);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

struct Unsent;

impl Recover<Order, Refused> for Unsent {
    fn recover(&self, error: &mut Refused) -> Option<Recovered<Order>> {
        error.0.take().map(Recovered::Unsent)
    }
}

fn of(addresses: &[&str]) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(addresses.iter().map(|a| instance(a)), now());
    (writer, orders)
}

fn builder(orders: &Subscription) -> BalanceBuilder {
    Balance::builder(orders).unknown_wait(Duration::from_secs(1))
}

/// Answers with its request, or with what went wrong.
fn cached(order: Order, error: CallError) -> std::future::Ready<Result<String, CallError>> {
    assert_eq!(order, Order("7"));
    ready(match order.0 {
        "8" => Err(error),
        _ => Ok(format!("cached, since {error}")),
    })
}

#[tokio::test(start_paused = true)]
async fn nobody_listed_nobody_known_and_nobody_that_matches_are_answered() {
    let answer =
        |_: &Instance| service_fn(|order: Order| ready(Ok::<_, io::Error>(order.0.to_owned())));
    let (mut writer, orders) = of(&[]);
    let balance = builder(&orders).build(answer).on_no_instance(cached);
    let answered = balance.clone().oneshot(Order("7")).await.unwrap();
    assert!(
        answered.starts_with("cached, since ") && answered.contains("orders"),
        "{answered}"
    );
    writer.publish([instance(A)], now());
    assert_eq!(
        balance.clone().oneshot(Order("9")).await.unwrap(),
        "9",
        "and then it is not asked"
    );

    let (_writer, unknown) = registry();
    let balance = builder(&unknown).build(answer).on_no_instance(cached);
    let began = tokio::time::Instant::now();
    balance.oneshot(Order("7")).await.unwrap();
    assert_eq!(
        began.elapsed().as_secs(),
        1,
        "it waits to know, as without it"
    );

    let balance = builder(&orders)
        .hints(|_: &Order| Hints::new().only(("version", "2")))
        .build(answer)
        .on_no_instance(cached);
    balance.oneshot(Order("7")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_back_unseen_is_answered_and_one_that_may_have_been_seen_is_not() {
    let (_writer, orders) = of(&[A]);
    let asked = Arc::new(AtomicUsize::new(0));
    let fallback = {
        let asked = Arc::clone(&asked);
        move |order: Order, _: CallError| {
            asked.fetch_add(1, SeqCst);
            ready(Ok::<_, CallError>(format!("{} from the cache", order.0)))
        }
    };
    let balance = |unseen: bool| {
        builder(&orders)
            .recover(Unsent)
            .classify(|error: &Refused| Verdict::unreachable(error))
            .build(move |_: &Instance| {
                service_fn(move |order: Order| {
                    ready(Err::<String, _>(Refused(unseen.then_some(order))))
                })
            })
            .on_no_instance(fallback.clone())
    };
    let seen = balance(false).oneshot(Order("7")).await.unwrap_err();
    assert!(seen.is_inner() && asked.load(SeqCst) == 0, "{seen}");
    let answered = balance(true).oneshot(Order("7")).await.unwrap();
    assert_eq!(
        (answered.as_str(), asked.load(SeqCst)),
        ("7 from the cache", 1)
    );
}

#[tokio::test(start_paused = true)]
async fn too_many_calls_are_not_answered() {
    let (_writer, orders) = of(&[A]);
    let balance = builder(&orders)
        .max_in_flight(0)
        .build(|_: &Instance| {
            service_fn(|order: Order| ready(Ok::<_, io::Error>(order.0.to_owned())))
        })
        .on_no_instance(cached);
    let error = balance.oneshot(Order("7")).await.unwrap_err();
    assert!(error.is_overloaded(), "{error}");
}

/// Dropped in its fallback it leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_fallback_may_wait_and_be_dropped() {
    let (_writer, orders) = of(&[]);
    let held = Arc::new(());
    let inner = Arc::clone(&held);
    let mut balance = builder(&orders)
        .build(|_: &Instance| {
            service_fn(|order: Order| ready(Ok::<_, io::Error>(order.0.to_owned())))
        })
        .on_no_instance(move |_: Order, error: CallError| {
            let held = Arc::clone(&inner);
            async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                drop(held);
                Err(error)
            }
        });
    let call = balance.call(Order("7"));
    let out_of_time = tokio::time::timeout(Duration::from_secs(1), call).await;
    assert!(out_of_time.is_err());
    assert_eq!(Arc::strong_count(&held), 2, "the closure's and ours");
    assert!(
        balance
            .call(Order("7"))
            .await
            .unwrap_err()
            .is_no_instances()
    );
    assert_eq!(balance.balance().counts(), [0; 3]);
}

/// Over HTTP a response may be made of bytes.
#[tokio::test]
async fn an_http_response_may_come_from_a_cache() {
    use bytes::Bytes;
    use http_body_util::BodyExt;
    use tower_nacos::{
        http::BuildHttp,
        transport::{Body, ResponseBody, Transport},
    };
    let (_writer, orders) = of(&[]);
    let mut balance = builder(&orders)
        .build_http(Transport::builder().build())
        .on_no_instance(|request: http::Request<Body>, _: CallError| {
            let cached = Bytes::from(format!("cached {}", request.uri().path()));
            let response = http::Response::builder().header("age", "60");
            ready(Ok(response.body(ResponseBody::from(cached)).unwrap()))
        });
    let request = http::Request::get("/v1/items/7")
        .body(Body::empty())
        .unwrap();
    let response = balance.call(request).await.unwrap();
    assert_eq!(response.headers()["age"], "60");
    let body = response.into_body();
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(18));
    assert_eq!(
        body.collect().await.unwrap().to_bytes(),
        "cached /v1/items/7".as_bytes()
    );
    let empty = ResponseBody::from(Bytes::new());
    assert!(http_body::Body::is_end_stream(&empty));
}

/// A request that an instance may have seen is not answered, also where it then found nobody else.
#[tokio::test]
async fn a_request_that_was_out_of_time_at_an_instance_is_not_answered() {
    use tower_nacos::{
        http::BuildHttp,
        retry::Retry,
        transport::{Body, ResponseBody, Transport},
    };
    // It accepts, never speaks, and leaves the registry.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut writer, orders) = registry();
    writer.publish([Instance::from(silent.local_addr().unwrap())], now());
    let mut balance = builder(&orders)
        .per_try_timeout(Duration::from_millis(500))
        .retry(Retry::new())
        .build_http(Transport::builder().build())
        .on_no_instance(|_: http::Request<Body>, _: CallError| {
            let nothing = ResponseBody::from(bytes::Bytes::new());
            ready(Ok(http::Response::new(nothing)))
        });
    let request = http::Request::put("/v1/items/7").body(Body::from("7"));
    let called = tokio::spawn(balance.call(request.unwrap()));
    let _connection = silent.accept().await.unwrap();
    writer.publish([], now());
    let ended = tokio::time::timeout(Duration::from_secs(60), called);
    let error = ended.await.expect("it hangs").unwrap().unwrap_err();
    assert!(!error.is_no_instances(), "{error}");
}

/// With a retry policy, too, what nobody listened to is answered.
#[tokio::test]
async fn a_request_that_no_connection_took_is_answered_where_it_may_be_tried_again() {
    use tower_nacos::{
        http::BuildHttp,
        retry::Retry,
        transport::{Body, ResponseBody, Transport},
    };
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let orders = Subscription::fixed([Instance::from(address)]);
    let mut balance = builder(&orders)
        .per_try_timeout(Duration::from_secs(30))
        .retry(Retry::new())
        .build_http(Transport::builder().build())
        .on_no_instance(|request: http::Request<Body>, _: CallError| {
            let path = bytes::Bytes::from(request.uri().path().to_owned());
            ready(Ok(http::Response::new(ResponseBody::from(path))))
        });
    let request = http::Request::put("/v1/items/7").body(Body::from("7"));
    let ended = tokio::time::timeout(Duration::from_secs(60), balance.call(request.unwrap()));
    let answered = ended.await.expect("it hangs").unwrap();
    let body = http_body_util::BodyExt::collect(answered.into_body()).await;
    assert_eq!(body.unwrap().to_bytes(), "/v1/items/7".as_bytes());
}

/// Nor is one that came back though it may have been seen: whoever gives it back says so.
#[tokio::test(start_paused = true)]
async fn a_request_that_came_back_doubtful_is_not_answered() {
    struct Doubtful(u32);
    impl Recover<Order, Refused> for Doubtful {
        fn recover(&self, error: &mut Refused) -> Option<Recovered<Order>> {
            error.0.take().map(Recovered::Unsent)
        }
        fn doubtful(&self, _: &Refused) -> u32 {
            self.0
        }
    }
    let (_writer, orders) = of(&[A, "10.0.0.2:80"]);
    for times in [0, 1] {
        let balance = builder(&orders)
            .recover(Doubtful(times))
            .classify(|error: &Refused| Verdict::unreachable(error))
            .build(|_: &Instance| {
                service_fn(|order: Order| ready(Err::<String, _>(Refused(Some(order)))))
            })
            .on_no_instance(cached);
        let answered = balance.oneshot(Order("7")).await;
        assert_eq!(answered.is_ok(), times == 0, "{answered:?}");
    }
}

/// A kept connection ends with a safe request on it, and no other can be had: it was sent, and may have been seen.
#[tokio::test]
async fn a_request_that_was_to_be_sent_once_more_is_not_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower_nacos::{
        http::BuildHttp,
        transport::{Body, Protocol, ResponseBody, Transport},
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let orders = Subscription::fixed([Instance::from(listener.local_addr().unwrap())]);
    let peer = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut read = [0; 4_096];
        assert!(socket.read(&mut read).await.unwrap() > 0);
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(ok).await.unwrap();
        assert!(socket.read(&mut read).await.unwrap() > 0);
    });
    let mut balance = builder(&orders)
        .build_http(Transport::builder().protocol(Protocol::Http1).build())
        .on_no_instance(|_: http::Request<Body>, _: CallError| {
            let nothing = ResponseBody::from(bytes::Bytes::new());
            ready(Ok(http::Response::new(nothing)))
        });
    let mut get = async || {
        let request = http::Request::get("/v1/items/7").body(Body::empty());
        let called = balance.call(request.unwrap());
        let ended = tokio::time::timeout(Duration::from_secs(60), called);
        ended.await.expect("it hangs")
    };
    drop(get().await.unwrap());
    let error = get().await.unwrap_err();
    let inner = error.inner::<tower_nacos::transport::Error>().unwrap();
    assert!(inner.is_connect() && !inner.is_unprocessed(), "{error}");
    peer.await.unwrap();
}
