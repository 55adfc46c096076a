//! What happened to a call, in the message of the status that its client shows.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tonic::{Code, Status};
use tower_nacos::{Instance, Subscription, grpc::Channel};

use crate::{
    failure,
    greeter::greeter_client::GreeterClient,
    hello,
    provider::{HANG, Provider},
};

/// Accepts, and does with each connection what it is told.
#[expect(clippy::disallowed_methods, reason = "a test's runtime owns it")]
async fn peer<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket));
        }
    });
    address
}

async fn status(address: SocketAddr) -> Status {
    let listed = Subscription::fixed([Instance::from(address)]);
    let mut client = GreeterClient::new(Channel::new(&listed));
    let status = failure(client.say_hello(hello("you"))).await;
    assert!(status.message().contains(&address.to_string()), "{status}");
    status
}

/// Shakes hands, and reads on until a stream was opened.
async fn takes_a_call(mut socket: TcpStream, answer: &'static [u8]) {
    let mut preface = [0; 24];
    if socket.read_exact(&mut preface).await.is_err() {
        return;
    }
    let _ = socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await; // SETTINGS
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let _ = socket.read_exact(&mut vec![0; length]).await;
        if head[3] == 1 {
            break; // HEADERS
        }
    }
    let _ = socket.write_all(answer).await;
    if !answer.is_empty() {
        let _ = tokio::time::timeout(HANG, socket.read_to_end(&mut Vec::new())).await;
    }
}

#[tokio::test]
async fn reached_and_lost_is_not_nobody_there() {
    let closes = peer(|socket| takes_a_call(socket, b"")).await;
    let lost = status(closes).await;
    let says = "it was reached, but the connection was lost with the call on it";
    assert!(lost.message().contains(says), "{lost}");
    assert_eq!(lost.code(), Code::Unavailable);

    let gone = Provider::nobody();
    let absent = status(gone).await;
    let says = format!("nobody answers at {gone}");
    assert!(absent.message().contains(&says), "{absent}");
    assert_eq!(absent.code(), Code::Unavailable);
}

#[tokio::test]
async fn what_does_not_speak_http2_is_called_that() {
    // By prior knowledge a port that speaks HTTP/1 is found out before a call is sent.
    let http1 = peer(|mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let _ = socket.write_all(answer).await;
    })
    .await;
    let told = status(http1).await;
    assert!(
        told.message().contains("no HTTP/2 handshake with it"),
        "{told}"
    );
    // HEADERS that name entry 0 of HPACK's table.
    let nonsense = peer(|socket| takes_a_call(socket, &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x80])).await;
    let told = status(nonsense).await;
    assert!(
        told.message()
            .contains("what it sent breaks HTTP/2's rules"),
        "{told}"
    );
}

#[tokio::test]
async fn headers_over_our_own_limit_name_the_option() {
    // 5 × 20 KB literal headers, by way of CONTINUATION: a head of 100 KB.
    let large = peer(|socket| takes_a_call(socket, large_head())).await;
    let told = status(large).await;
    assert!(
        told.message().contains("`max_header_size` (65536 bytes)"),
        "{told}"
    );
}

/// HEADERS and CONTINUATION of `200` and more than 64 KiB of headers.
fn large_head() -> &'static [u8] {
    let mut block = vec![0x88];
    for _ in 0..5 {
        // A literal name and value, 20,000 bytes: 127 + 0x9b 0x9b 0x01... by RFC 7541, 5.1.
        block.extend([0x00, 1, b'x', 0x7f]);
        let mut rest = 20_000 - 127;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        block.push(rest as u8);
        block.extend(std::iter::repeat_n(b'x', 20_000));
    }
    let mut frames = Vec::new();
    let chunks: Vec<_> = block.chunks(16_384).collect();
    for (at, chunk) in chunks.iter().enumerate() {
        let length = (chunk.len() as u32).to_be_bytes();
        let kind = if at == 0 { 1 } else { 9 };
        let ends = if at + 1 == chunks.len() { 4 } else { 0 };
        frames.extend([length[1], length[2], length[3], kind, ends]);
        frames.extend([0, 0, 0, 1]);
        frames.extend(*chunk);
    }
    frames.leak()
}
