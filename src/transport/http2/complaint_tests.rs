//! A peer that had too many PINGs, and how the next connection to it deals with that; in virtual time,
//! over pipes.

use std::{convert::Infallible, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};

use super::*;
use crate::{endpoint, transport::form::Named};

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

fn pool() -> Arc<Http2Pool> {
    let instance = "10.0.0.3:80".parse().unwrap();
    let peer = Arc::new(Peer {
        named: Named::new(&instance),
        secure: false,
        instance,
    });
    Arc::new(Http2Pool::new(peer, Http2Options::default()))
}

async fn frame(socket: &mut DuplexStream, kind: u8, flags: u8, payload: &[u8]) {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0];
    frame.extend(payload);
    socket.write_all(&frame).await.unwrap();
}

/// Acknowledges PINGs, and notes after how many seconds they come; or ends the connection with the first.
async fn answer(mut socket: DuplexStream, complains: bool, seen: &Mutex<Vec<u64>>) -> Infallible {
    let begun = endpoint::now();
    let mut preface = [0; 24];
    socket.read_exact(&mut preface).await.unwrap();
    frame(&mut socket, SETTINGS, 0, &[]).await;
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        socket.read_exact(&mut payload).await.unwrap();
        match (head[3], head[4] & ACK) {
            (SETTINGS, 0) => frame(&mut socket, SETTINGS, ACK, &[]).await,
            (PING, 0) => {
                let after = (endpoint::now() - begun).as_secs();
                seen.lock().unwrap().push(after);
                if complains {
                    // Stream 1 was taken; ENHANCE_YOUR_CALM.
                    let goaway = [&[0, 0, 0, 1, 0, 0, 0, 11][..], b"too_many_pings"].concat();
                    frame(&mut socket, GOAWAY, 0, &goaway).await;
                    drop(socket);
                    return std::future::pending().await; // the call ends, too
                } else {
                    frame(&mut socket, PING, ACK, &payload).await;
                }
            }
            _ => {}
        }
    }
}

/// When a new connection with a silent stream on it sends PINGs, within its first 200 s.
async fn pings(pool: &Arc<Http2Pool>, complains: bool) -> Vec<u64> {
    let (ours, theirs) = duplex(1 << 16);
    let seen = Mutex::new(Vec::new());
    let call = async {
        let connection = pool.shake_hands(ours, true).await;
        pool.add(connection.unwrap_or_else(|error| panic!("{error}")));
        let place = pool.try_acquire().expect("it has room");
        let request = http::Request::get("http://peer/").body(()).unwrap();
        let mut sender = place.connection().sender();
        place.connection().beginning();
        let (response, _) = sender.send_request(request, true).unwrap();
        let ended = timeout(Duration::from_secs(200), response).await;
        assert_eq!(ended.is_ok(), complains, "{ended:?}");
        while complains && !place.connection().is_closed() {
            tokio::task::yield_now().await;
        }
        pool.retire(place.connection());
    };
    tokio::select! {
        () = call => {}
        never = answer(theirs, complains, &seen) => match never {},
    }
    seen.into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_connection_after_a_complaint_is_asked_half_as_often() {
    let well = pool();
    assert_eq!(pings(&well, false).await, [5, 35, 95]);
    assert_eq!(pings(&well, false).await, [5, 35, 95]);
    let complained = pool();
    assert_eq!(pings(&complained, true).await, [5]);
    assert_eq!(pings(&complained, true).await, [10]);
    assert_eq!(pings(&complained, false).await, [20, 50, 110]);
    assert_eq!(pings(&well, false).await, [5, 35, 95], "another instance's");
}
