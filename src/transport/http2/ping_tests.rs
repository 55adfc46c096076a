//! PINGs as a peer sees them, in virtual time over a pipe.

use std::{future::poll_fn, sync::Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
const PING: u8 = 6;
const ACK: u8 = 1;

/// When a peer that acknowledges them has had PINGs, in seconds, until then. At `says` it sends DATA
/// of its own.
async fn pings(until: u64, says: Option<u64>) -> Vec<u64> {
    let (ours, theirs) = duplex(1 << 16);
    let state = Arc::new(Streams::default());
    let io = Http2Io::new(ours, true, Arc::clone(&state.traffic));
    let (mut sender, mut connection) = client::handshake(io).await.unwrap();
    let (begun, seen) = (endpoint::now(), Mutex::new(Vec::new()));
    let peer = acknowledge(theirs, begun, says, &seen);
    tokio::pin!(peer);
    let mut ping = None;
    let mut streams = Vec::new();
    let ours = poll_fn(|cx| {
        let _ = Pin::new(&mut connection).poll(cx)?;
        if let Poll::Ready(Ok(())) = sender.poll_ready(cx)
            && streams.is_empty()
        {
            let request = http::Request::get("http://peer/").body(()).unwrap();
            let (response, _) = sender.send_request(request, true)?;
            streams.push(response);
            state.in_use.store(1, Ordering::SeqCst);
            let seconds = Duration::from_secs;
            ping = connection
                .ping_pong()
                .map(|pong| Ping::new(pong, seconds(5), seconds(3)));
            cx.waker().wake_by_ref();
        }
        match &mut ping {
            Some(ping) => ping.poll(cx, &state).map(Ok::<_, h2::Error>),
            None => Poll::Pending,
        }
    });
    tokio::select! {
        ended = ours => panic!("a peer that acknowledges is not given up: {ended:?}"),
        () = &mut peer => panic!("the connection ended"),
        () = sleep_until(begun + Duration::from_secs(until)) => {}
    }
    let seen = seen.lock().unwrap();
    seen.clone()
}

async fn acknowledge(
    mut socket: DuplexStream,
    begun: Instant,
    says: Option<u64>,
    seen: &Mutex<Vec<u64>>,
) {
    let mut preface = [0; 24];
    socket.read_exact(&mut preface).await.unwrap();
    frame(&mut socket, 4, 0, 0, &[]).await;
    let mut says = says.map(|at| begun + Duration::from_secs(at));
    loop {
        let mut head = [0; 9];
        tokio::select! {
            read = socket.read_exact(&mut head) => {
                if read.is_err() {
                    return;
                }
            }
            () = sleep_until(says.unwrap_or(begun)), if says.is_some() => {
                says = None;
                frame(&mut socket, 1, 4, 1, &[0x88]).await; // HEADERS: 200
                continue;
            }
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        socket.read_exact(&mut payload).await.unwrap();
        match (head[3], head[4] & ACK) {
            (4, 0) => frame(&mut socket, 4, ACK, 0, &[]).await,
            (PING, 0) => {
                let after = (endpoint::now() - begun).as_secs();
                seen.lock().unwrap().push(after);
                frame(&mut socket, PING, ACK, 0, &payload).await;
            }
            _ => {}
        }
    }
}

async fn frame(socket: &mut DuplexStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    socket.write_all(&frame).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_not_what_a_peer_says() {
    assert_eq!(pings(500, None).await, [5, 35, 95, 405]);
}

#[tokio::test(start_paused = true)]
async fn what_it_says_begins_anew() {
    assert_eq!(pings(120, Some(40)).await, [5, 35, 45, 75]);
}
