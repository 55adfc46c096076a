//! What is left of a connection whose task is dropped, by hand and over a pipe.

use std::future::poll_fn;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    frame.extend(payload);
    frame
}

/// One poll of the task.
async fn drive(driver: &mut Driver<DuplexStream>) {
    poll_fn(|cx| {
        assert!(Pin::new(&mut *driver).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// A peer's last frame may be read and wait behind what cannot be written: that its end was seen makes no
/// answer whole of which a part was never taken out.
#[tokio::test]
async fn an_answer_whose_end_was_read_and_not_taken_is_not_complete() {
    let (ours, mut theirs) = duplex(4096);
    let state = Arc::new(Streams::default());
    let io = Http2Io::new(ours, true, Arc::clone(&state.traffic));
    let (mut sender, connection) = client::handshake(io).await.unwrap();
    let mut driver = Driver {
        connection,
        state: Arc::clone(&state),
        most_streams: 100,
        settled: None,
        changed: Box::new(|| {}),
        ping: None,
        idle: None,
        age: None,
        complaints: Arc::default(),
        yielded: false,
        ended: false,
    };
    theirs.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let get = Request::get("http://peer/").body(()).unwrap();
    let (response, _) = sender.send_request(get, true).unwrap();
    drive(&mut driver).await;
    let answer = [frame(HEADERS, 4, 1, &[0x88]), frame(DATA, 0, 1, b"first")].concat();
    theirs.write_all(&answer).await.unwrap();
    drive(&mut driver).await;
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "first");

    // More than the pipe holds; nobody reads it.
    let post = Request::post("http://peer/").body(()).unwrap();
    let (_other, mut upload) = sender.send_request(post, false).unwrap();
    upload.send_data(vec![0; 60_000].into(), true).unwrap();
    drive(&mut driver).await;
    let last = [frame(PING, 0, 0, &[0; 8]), frame(DATA, 1, 1, b"second")].concat();
    theirs.write_all(&last).await.unwrap();
    drive(&mut driver).await;
    let told = &state.traffic.streams;
    assert!(told.has_ended(1), "its end was read");

    drop(driver);
    let broken = body.data().await.unwrap().unwrap_err();
    assert!(broken.is_io(), "{broken}");
    assert!(!told.has_ended(1), "and nobody saw what came with it");
    let mut written = [0; 24];
    theirs.read_exact(&mut written).await.unwrap(); // the preface: the pipe was full until now
}
