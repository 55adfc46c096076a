//! Responses read whole.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_nacos::{
    Instance,
    http::{Body, ResponseBody, ResponseExt},
};

use crate::{World, provider::peer, soon};

impl World {
    /// The response to a body that is echoed.
    async fn echoed(&self, body: impl Into<Body>) -> http::Response<ResponseBody> {
        let call = self.http.post("nacos://orders/echo", body);
        soon("an echo", call.send()).await.unwrap()
    }
}

#[tokio::test]
async fn a_body_is_bytes_text_or_json() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let bytes = world.echoed(vec![0, 0xff]).await.bytes().await.unwrap();
    assert_eq!(bytes, &[0, 0xff][..]);
    assert_eq!(world.echoed("три").await.text().await.unwrap(), "три");
    let numbers: Vec<u8> = world.echoed("[1, 2]").await.json().await.unwrap();
    assert_eq!(numbers, [1, 2]);

    let text = world.echoed(vec![b'a', 0xff]).await.text().await;
    let error = text.unwrap_err();
    assert!(error.is_decode() && !error.is_body());
    assert_eq!(error.to_string(), "the response is no UTF-8 from byte 1 on");
    let json = world.echoed("[1, 256]").await.json::<Vec<u8>>().await;
    let error = json.unwrap_err();
    assert!(error.is_decode(), "{error}");
    assert!(error.to_string().contains("256"), "{error}");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_given_up() {
    let world = World::new().await;
    let provider = world.provider("orders", "one").await;
    let just = world.echoed("12345").await.bytes_within(5).await;
    assert_eq!(just.unwrap(), "12345");
    let told = world.echoed("123456").await.bytes_within(5).await;
    assert!(told.unwrap_err().is_too_long());
    // One that never ends, and says no length.
    let call = world.http.get("nacos://orders/endless").send();
    let response = soon("its head", call).await.unwrap();
    let read = soon("its end", response.bytes_within(1 << 20)).await;
    let error = read.unwrap_err();
    assert!(
        error.is_too_long() && error.to_string().contains("1048576"),
        "{error}"
    );
    soon("the call is given up", provider.until_connections(0)).await;
}

#[tokio::test]
async fn a_body_in_many_pieces_is_one() {
    let world = World::new().await;
    let pieces = peer(async |mut stream| {
        let _ = stream.read(&mut [0; 1024]).await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let body = "1\r\na\r\n2\r\nbc\r\n".repeat(100) + "0\r\n\r\n";
        let _ = stream.write_all((head.to_owned() + &body).as_bytes()).await;
    })
    .await;
    world.registry.register("orders", &Instance::from(pieces));
    for (most, fits) in [(300, true), (299, false)] {
        let response = soon("its head", world.http.get("nacos://orders/").send()).await;
        let read = soon("its end", response.unwrap().bytes_within(most)).await;
        match read {
            Ok(body) => assert!(fits && body == "abc".repeat(100)),
            Err(error) => assert!(!fits && error.is_too_long(), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_names_its_instance() {
    let world = World::new().await;
    let cut = peer(async |mut stream| {
        let _ = stream.read(&mut [0; 1024]).await;
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        let _ = stream.write_all(half).await;
    })
    .await;
    world.registry.register("orders", &Instance::from(cut));
    let response = soon("its head", world.http.get("nacos://orders/").send()).await;
    let read = soon("its end", response.unwrap().text()).await;
    let error = read.unwrap_err();
    assert!(error.is_body(), "{error}");
    assert!(error.to_string().contains(&cut.to_string()), "{error}");
}

#[tokio::test]
async fn a_bad_status_is_an_error_to_who_says_so() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let good = world.http.get("nacos://orders/").await.unwrap();
    assert_eq!(
        good.error_for_status().unwrap().text().await.unwrap(),
        "one"
    );
    let bad = world.http.get("nacos://orders/echo").await.unwrap();
    let error = bad.error_for_status().unwrap_err();
    assert_eq!(error.status(), 405);
    assert_eq!(
        error.to_string(),
        "the response says 405 Method Not Allowed"
    );
    assert_eq!(error.into_response().bytes().await.unwrap(), "");
}

#[tokio::test]
async fn a_reading_that_is_dropped_leaves_nothing() {
    let world = World::new().await;
    let provider = world.provider("orders", "one").await;
    let call = world.http.get("nacos://orders/endless").send();
    let response = soon("its head", call).await.unwrap();
    provider.until_connections(1).await;
    let mut reading = Box::pin(response.bytes());
    let polled = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
    drop(polled);
    drop(reading);
    soon("the call is given up", provider.until_connections(0)).await;
}
