//! An upload that its server answers at once and closes: the answer wins over the write that failed.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_nacos::transport::{Body, Protocol};

use crate::transport::support::*;

static ZEROS: [u8; 50_000_000] = [0; 50_000_000];

/// Reads the head and perhaps some of the body, answers 413, and closes with the rest unread: RST.
async fn too_large(protocol: Protocol) -> Peer {
    Peer::start(move |mut socket, _| async move {
        if protocol == Protocol::Http1 {
            let mut some = [0; 4096];
            let _ = socket.read(&mut some).await;
            let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
            let _ = socket.write_all(answer).await;
        } else if let Some(mut frames) = Frames::accept(socket).await
            && let Some(head) = frames.next().await
        {
            // `:status` by its place in HPACK's table, and a literal value.
            let answer = [0x08, 3, b'4', b'1', b'3'];
            frames
                .send(HEADERS, 4 | END_STREAM, head.stream, &answer)
                .await;
        }
    })
    .await
}

/// How many of so many uploads were answered by hyper-util's client.
async fn by_the_peer(
    address: SocketAddr,
    protocol: Protocol,
    body: Bytes,
    uploads: usize,
) -> usize {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(protocol == Protocol::Http2)
        .build_http();
    let mut answered = 0;
    for _ in 0..uploads {
        let upload = Request::post(format!("http://{address}/")).body(Full::new(body.clone()));
        let response = soon("the peer's upload", client.request(upload.unwrap())).await;
        answered +=
            usize::from(response.is_ok_and(|r| r.status() == StatusCode::PAYLOAD_TOO_LARGE));
    }
    answered
}

#[tokio::test]
async fn an_upload_answered_early_has_that_answer_though_the_connection_is_reset() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = too_large(protocol).await;
        let balance = rotating(&[server.address], builder(protocol));
        for (size, uploads) in [(5_000_000, 20), (ZEROS.len(), 10)] {
            let bytes = Bytes::from_static(&ZEROS[..size]);
            let peer = by_the_peer(server.address, protocol, bytes.clone(), uploads).await;
            println!("{protocol:?}, {size} bytes: hyper-util has {peer} of {uploads} answers");
            for at in 0..uploads {
                let pieces = bytes.chunks(1 << 16).map(|piece| bytes.slice_ref(piece));
                let bodies = [
                    Body::from(bytes.clone()),
                    stream(pieces.collect::<Vec<_>>()),
                ];
                for body in bodies {
                    let answered = call(&balance, post(at, body)).await;
                    let response = answered.unwrap_or_else(|lost| panic!("{protocol:?}: {lost:?}"));
                    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
                    soon("its end", response.into_body().collect())
                        .await
                        .unwrap();
                }
            }
        }
        assert_eq!(balance.counters().ejections, 0, "{protocol:?}");
    }
}
