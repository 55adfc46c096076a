//! Connections that turn into something else: a WebSocket, as far as HTTP goes.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_nacos::provider::Stage;

use crate::support::{Served, registry, within};

/// The head of the answer, and the connection after it.
async fn upgrade(at: SocketAddr) -> (String, TcpStream) {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let request = "GET /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a head", socket.read_u8()).await.unwrap());
    }
    (String::from_utf8(head).unwrap().to_lowercase(), socket)
}

async fn says_what_it_hears(socket: &mut TcpStream) {
    socket.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    within("an echo", socket.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn an_upgraded_connection_is_out_of_sight_and_holds_up_nothing() {
    let (_registry, nacos) = registry().await;
    let mut served = Served::start(&nacos, "orders", |b| b).await;
    let provider = served.provider.clone();
    within("online", provider.reached(Stage::Online)).await;
    let (head, mut before) = upgrade(served.address).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    says_what_it_hears(&mut before).await;
    served.signal();
    within("lingering", provider.reached(Stage::Lingering)).await;
    says_what_it_hears(&mut before).await;
    // One that comes now is marked, and still an upgrade.
    let (head, mut late) = upgrade(served.address).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("x-nacos-offline: "), "{head}");
    assert!(head.contains("connection: upgrade"), "{head}");
    assert!(!head.contains("close"), "{head}");
    says_what_it_hears(&mut late).await;
    let report = served.ended().await.report();
    let offline = report.offline.as_ref().unwrap();
    assert_eq!((offline.in_flight_at_end, offline.cut), (0, 0), "{report}");
    // Whoever opened it ends it.
    says_what_it_hears(&mut before).await;
}
