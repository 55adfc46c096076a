use http::Request;
use http_body_util::{BodyExt, StreamBody};
use tower::ServiceExt;
use tower_nacos::{
    Balance, Instance, Subscription,
    http::BuildHttp,
    transport::{Body, Protocol, Transport},
};

use super::support::{Server, soon};

#[tokio::test]
async fn bodies_of_each_kind_arrive_over_both_protocols() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Server::start().await;
        let orders = Subscription::fixed([Instance::from(server.address)]);
        let transport = Transport::builder().protocol(protocol).build();
        let balance = Balance::builder(&orders).build_http(transport);
        let pieces = ["a", "b", "c"].map(|p| {
            Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from_static(
                p.as_bytes(),
            )))
        });
        let stream = Body::new(StreamBody::new(futures_util::stream::iter(pieces)));
        for (body, expected) in [
            (Body::empty(), ""),
            (Body::from("hello"), "hello"),
            (stream, "abc"),
        ] {
            let request = Request::post("/v1/items").body(body).unwrap();
            let response = soon(balance.clone().oneshot(request)).await.unwrap();
            let body = soon(response.into_body().collect()).await.unwrap();
            assert_eq!(body.to_bytes(), expected);
        }
        let seen = server.seen.lock().unwrap().clone();
        let version = if protocol == Protocol::Http1 {
            "HTTP/1.1"
        } else {
            "HTTP/2.0"
        };
        assert_eq!(seen.len(), 3);
        for line in seen {
            assert_eq!(line, format!("{version} POST /v1/items {}", server.address));
        }
        assert_eq!(balance.counts(), [0, 0, 0], "{protocol:?}");
    }
}
