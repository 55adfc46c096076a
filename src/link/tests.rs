use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A peer that reads the beginning of what it is sent, answers `answer`, and closes.
async fn peer(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the scripted peer of a test")]
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 64]).await;
        let _ = socket.write_all(answer).await;
    });
    addr
}

async fn call(addr: SocketAddr) -> CallError {
    let (link, _connection, _) = dial(addr, &Host::Ip(addr.ip()), &Security::Plain, 1 << 20)
        .await
        .unwrap();
    link.call(Payload::new("ServerCheckRequest", "{}"))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn an_http1_port_is_told_from_a_dead_server() {
    let error = call(peer(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await).await;
    assert!(
        error
            .to_string()
            .contains("it speaks HTTP/1; give the server's main port"),
        "{error}"
    );
}

#[tokio::test]
async fn a_tls_port_is_told_from_a_dead_server() {
    let error = call(peer(&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46]).await).await;
    assert!(error.to_string().contains("it speaks TLS"), "{error}");
}

#[tokio::test]
async fn a_port_of_another_protocol_is_told_from_a_dead_server() {
    let error = call(peer(b"-ERR unknown command\r\n").await).await;
    assert!(error.to_string().contains("no Nacos gRPC port"), "{error}");
}

#[tokio::test]
async fn a_peer_that_closes_without_a_word_is_asked_about() {
    let error = call(peer(b"").await).await;
    assert!(
        error
            .to_string()
            .contains("closed the connection without a word"),
        "{error}"
    );
}

#[tokio::test]
async fn a_closed_port_is_a_dial_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = dial(addr, &Host::Ip(addr.ip()), &Security::Plain, 1 << 20)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn dropping_the_connection_closes_the_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (link, connection, local) = dial(addr, &Host::Ip(addr.ip()), &Security::Plain, 1 << 20)
        .await
        .unwrap();
    let (mut socket, from) = listener.accept().await.unwrap();
    assert_eq!(from, local);
    drop(connection);
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    assert!(link.call(Payload::default()).await.is_err());
}

#[test]
fn an_address_with_a_scope_has_an_origin() {
    let scoped = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 9848, 0, 1);
    assert_eq!(
        origin(scoped.into(), false).to_string(),
        "http://[fe80::1]:9848/"
    );
}
