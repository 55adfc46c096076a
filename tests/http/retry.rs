//! What `Retry` does with a streamed body, and beside the one more try of a safe request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_nacos::{
    http::{self, Body},
    transport::{Retry, Transport},
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
