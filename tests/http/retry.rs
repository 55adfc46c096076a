//! What `Retry` does with a streamed body, and beside the one more try of a safe request.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use ::http::{HeaderMap, Response, Uri};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_nacos::{
    http::{self, Body},
    retry::Retry,
    transport::{Protocol, Transport},
};

use crate::{World, provider::peer, soon, text};

/// Requests that came, by all connections of a test.
#[derive(Clone, Default)]
struct Came(Arc<AtomicUsize>);

impl Came {
    /// Reads requests that end with `end`, and closes the connection for each that `is_lost`.
    async fn serve(self, mut stream: TcpStream, end: &str, is_lost: fn(usize) -> bool) {
        let mut read = String::new();
        let mut buffer = [0; 4096];
        loop {
            while !read.ends_with(end) {
                let Ok(more @ 1..) = stream.read(&mut buffer).await else {
                    return;
                };
                read.push_str(std::str::from_utf8(&buffer[..more]).unwrap());
            }
            let number = self.0.fetch_add(1, SeqCst);
            if is_lost(number) {
                return;
            }
            let said = read.len().to_string() + " " + read.split("\r\n\r\n").last().unwrap_or("");
            let body = if read.contains("one") && read.contains("two") {
                "both"
            } else {
                &said
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let answer = head + body;
            stream.write_all(answer.as_bytes()).await.unwrap();
            read.clear();
        }
    }
}

impl World {
    async fn two(&self, came: &Came, end: &'static str, is_lost: fn(usize) -> bool) {
        for _ in 0..2 {
            let came = came.clone();
            let address = peer(move |stream| came.clone().serve(stream, end, is_lost)).await;
            self.registry.register("orders", &address.into());
        }
        let orders = self.http.service("orders").unwrap();
        let both = orders
            .subscription()
            .wait_for(2, std::time::Duration::from_secs(20));
        both.await.unwrap();
    }

    fn retrying(&self, tries: u32) -> http::Client {
        let transport = Transport::builder().retry(Retry::new().tries(tries).percent(100));
        http::Client::builder(&self.nacos)
            .transport(transport)
            .build()
    }
}

#[tokio::test]
async fn a_streamed_body_that_was_lost_is_sent_again_whole() {
    let (world, came) = (World::new().await, Came::default());
    world.two(&came, "0\r\n\r\n", |number| number == 0).await;
    let pieces = ["one", "two"].map(|piece| {
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(piece.as_bytes())))
    });
    let body = Body::new(StreamBody::new(stream::iter(pieces)));
    let sent = world.retrying(2).put("nacos://orders/", body).send();
    let response = soon("an answer", sent).await.unwrap();
    assert_eq!(text(response).await, "both");
    assert_eq!(came.0.load(SeqCst), 2);
}

#[tokio::test]
async fn a_body_that_is_too_large_to_be_kept_fails_and_says_so() {
    let (world, came) = (World::new().await, Came::default());
    world.two(&came, "0\r\n\r\n", |_| true).await;
    let pieces = (0..3).map(|_| {
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b'x'; 32 * 1024])))
    });
    let body = Body::new(StreamBody::new(stream::iter(pieces.collect::<Vec<_>>())));
    let sent = world.retrying(2).put("nacos://orders/", body).send();
    let error = soon("an answer", sent).await.unwrap_err();
    assert!(
        error.to_string().contains("the 64 KiB that are kept"),
        "{error}"
    );
    assert!(!error.is_unprocessed());
    assert_eq!(came.0.load(SeqCst), 1);
}

#[tokio::test]
async fn one_more_try_on_a_new_connection_is_one_of_the_tries() {
    for tries in [1, 2] {
        let (world, came) = (World::new().await, Came::default());
        world.two(&came, "\r\n\r\n", |number| number > 0).await;
        let http = world.retrying(tries);
        let first = soon("an answer", http.get("nacos://orders/").send()).await;
        text(first.unwrap()).await;
        // Now one of the two has a kept connection; who is asked first is the policy's.
        let error = soon("an error", http.get("nacos://orders/").send())
            .await
            .unwrap_err();
        assert!(!error.is_unprocessed(), "{error}");
        let lost = came.0.load(SeqCst) - 1;
        assert!(lost <= 1 + tries as usize, "{lost} with {tries} tries");
    }
}

/// Instances on axum whose first answer to each path is what the path says: a status, and a `Retry-After`.
struct Answering {
    world: World,
    asked: Arc<Mutex<Vec<(String, SocketAddr, String)>>>,
}

impl Answering {
    /// Fails the first so many of each path.
    async fn new(fails: usize) -> Self {
        let world = World::new().await;
        let asked = Arc::<Mutex<Vec<(String, SocketAddr, String)>>>::default();
        for _ in 0..3 {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let own = listener.local_addr().unwrap();
            world.registry.register("orders", &own.into());
            let asked = Arc::clone(&asked);
            let answer = async move |uri: Uri, headers: HeaderMap| {
                let path = uri.path().to_owned();
                let number = {
                    let mut asked = asked.lock().unwrap();
                    let attempt = headers.get("x-attempt");
                    let attempt = attempt.map_or("", |value| value.to_str().unwrap());
                    asked.push((path.clone(), own, attempt.to_owned()));
                    asked.iter().filter(|(of, ..)| *of == path).count()
                };
                let mut response = Response::new(format!("{number}"));
                if number > fails {
                    return response;
                }
                let mut parts = path.split('/').skip(1);
                *response.status_mut() = parts.next().unwrap().parse().unwrap();
                if let Some(after) = parts.next() {
                    let headers = response.headers_mut();
                    headers.insert("retry-after", after.parse().unwrap());
                }
                response
            };
            let app = axum::Router::new().fallback(answer);
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        Self { world, asked }
    }

    fn of(&self, path: &str) -> Vec<(SocketAddr, String)> {
        let asked = self.asked.lock().unwrap();
        let of_it = asked.iter().filter(|(of, ..)| of == path);
        of_it
            .map(|(_, at, attempt)| (*at, attempt.clone()))
            .collect()
    }

    fn client(&self, protocol: Protocol, retry: Retry) -> http::Client {
        http::Client::builder(&self.world.nacos)
            .transport(Transport::builder().protocol(protocol))
            .retry(retry.attempt_header("x-attempt".parse().unwrap()))
            .build()
    }
}

/// What Envoy's `gateway-error` and `envoy-ratelimited` are, and what is none of it.
#[tokio::test]
async fn a_status_is_tried_again_at_another_instance_and_told_which_try_it_is() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let answering = Answering::new(1).await;
        let http = answering.client(protocol, Retry::new().percent(100));
        for (path, again) in [
            ("/502", true),
            ("/503", true),
            ("/504", true),
            ("/503/0", true),
            ("/429/0", true),
            ("/429", false),
            ("/503/31536000", false), // a year
            ("/429/31536000", false),
            ("/500", false),
            ("/501", false),
            ("/400", false),
            ("/404", false),
            ("/409", false),
        ] {
            let sent = http.get(format!("nacos://orders{path}")).send();
            let response = soon(path, sent).await.unwrap();
            let at = answering.of(path);
            assert_eq!(response.status() == 200, again, "{protocol:?} {path}");
            let expected = if again { "2" } else { "1" };
            assert_eq!(text(response).await, expected, "{protocol:?} {path}");
            match &at[..] {
                [(_, first)] if !again => assert_eq!(first, "1"),
                [(one, first), (other, second)] if again => {
                    assert_ne!(one, other, "{protocol:?} {path}");
                    assert_eq!((&**first, &**second), ("1", "2"));
                }
                _ => panic!("{protocol:?} {path}: {at:?}"),
            }
        }
        // Not what may be processed once only.
        let sent = http.post("nacos://orders/503/1/post", "x").send();
        let response = soon("an answer", sent).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &*text(response).await),
            (503, "1")
        );
    }
}

#[tokio::test]
async fn the_last_answer_is_the_answer_with_all_of_its_body() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let answering = Answering::new(usize::MAX).await;
        let http = answering.client(protocol, Retry::new().percent(100).max_attempts(5));
        let sent = http.put("nacos://orders/503/0", "body").send();
        let response = soon("an answer", sent).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &*text(response).await),
            (503, "5")
        );
        let spent = answering.client(protocol, Retry::new().percent(0));
        for number in 0..12 {
            let sent = spent.get("nacos://orders/502/0").send();
            let response = soon("an answer", sent).await.unwrap();
            assert_eq!(response.status(), 502);
            text(response).await;
            let tries = answering.of("/502/0").len();
            let all = if number < 5 {
                3 * (number + 1)
            } else {
                11 + number
            };
            assert_eq!(tries, all, "ten retries in all");
        }
        let counters = spent.service("orders").unwrap().counters();
        assert_eq!((counters.retries, counters.retries_over_budget), (10, 7));
        *answering.asked.lock().unwrap() = Vec::new();
    }
}

/// A service that fails does not take the others' budget.
#[tokio::test]
async fn each_service_has_a_budget_of_its_own() {
    let answering = Answering::new(usize::MAX).await;
    let fine = Answering::new(1).await;
    let address = fine.world.http.service("orders").unwrap();
    let snapshot = {
        let three = address
            .subscription()
            .wait_for(3, std::time::Duration::from_secs(20));
        three.await.unwrap();
        address.subscription().snapshot()
    };
    for entry in snapshot.callable() {
        answering.world.registry.register("fine", entry.instance());
    }
    let http = answering.client(Protocol::Http1, Retry::new().percent(0));
    for _ in 0..12 {
        text(http.get("nacos://orders/503/0").await.unwrap()).await;
    }
    let response = soon("an answer", http.get("nacos://fine/503/0").send()).await;
    assert_eq!(response.unwrap().status(), 200);
}

/// Nobody rests beyond the end of its call: the answer that there is then comes at once.
#[tokio::test]
async fn a_wait_that_its_deadline_would_cut_is_none() {
    let answering = Answering::new(usize::MAX).await;
    let http = answering.client(Protocol::Http1, Retry::new().percent(100));
    let hour = std::time::Duration::from_secs(3_600);
    let patient = Retry::new().longest_wait(2 * hour).within(3 * hour);
    let patient = answering.client(Protocol::Http1, patient);
    // The second's deadline is far beyond what `soon` waits: it would hand out the answer, too.
    let five = std::time::Duration::from_secs(5);
    for (client, path, deadline) in [(&http, "/503/9", five), (&patient, "/429/7000", hour)] {
        let request = client.get(format!("nacos://orders{path}"));
        let sent = soon("an answer", request.timeout(deadline).send()).await;
        let response = sent.unwrap();
        assert!(path.contains(response.status().as_str()), "{path}");
        assert_eq!(answering.of(path).len(), 1, "{path}");
    }
}
