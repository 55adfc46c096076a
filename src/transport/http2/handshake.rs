use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use bytes::Bytes;
use h2::client;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{sleep_until, timeout},
};

use crate::{
    endpoint,
    tls::HasEnded,
    transport::{
        dial::error::DialError,
        http2::{
            connection::{Http2Connection, Streams},
            driver::{Driver, Idle, Ping},
            io::Http2Io,
            options::Http2Options,
        },
        spawn::spawn,
    },
};

/// Shakes hands and waits for the peer's SETTINGS: only then is it known that it speaks HTTP/2,
/// and how many streams it takes.
///
/// On a `plain` connection a write that fails has written nothing. `changed` is told when it takes more
/// streams than before, and when it takes no more calls.
pub(in crate::transport) async fn shake_hands<I>(
    io: I,
    plain: bool,
    options: &Http2Options,
    complaints: &Arc<AtomicU32>,
    changed: Box<dyn Fn() + Send>,
) -> Result<Http2Connection, DialError>
where
    I: AsyncRead + AsyncWrite + HasEnded + Unpin + Send + 'static,
{
    let within = options.handshake_timeout;
    match timeout(within, settle(io, plain, options, complaints, changed)).await {
        Ok(settled) => settled,
        Err(_) => Err(DialError::late(format!(
            "no HTTP/2 SETTINGS that allow a stream within {within:?}"
        ))),
    }
}

async fn settle<I>(
    io: I,
    plain: bool,
    options: &Http2Options,
    complaints: &Arc<AtomicU32>,
    changed: Box<dyn Fn() + Send>,
) -> Result<Http2Connection, DialError>
where
    I: AsyncRead + AsyncWrite + HasEnded + Unpin + Send + 'static,
{
    let state = Arc::new(Streams::default());
    let shaken = client::Builder::new()
        .enable_push(false)
        .initial_max_send_streams(0) // until SETTINGS say
        .initial_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_header_list_size(options.max_header_size)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake::<_, Bytes>(Http2Io::new(io, plain, Arc::clone(&state.traffic)))
        .await;
    let (sender, mut connection) = shaken.map_err(|error| not_http2(&error))?;
    let ping = options.ping.and_then(|(first, within)| {
        let complaints = complaints.load(std::sync::atomic::Ordering::Relaxed);
        let first = first_ping(first, complaints);
        Some(Ping::new(connection.ping_pong()?, first, within))
    });
    let (settled, settles) = oneshot::channel();
    spawn(Driver {
        connection,
        state: Arc::clone(&state),
        most_streams: options.most_streams(),
        settled: Some(settled),
        changed,
        ping,
        idle: options.idle_timeout.map(Idle::new),
        age: options
            .max_age
            .map(|age| Box::pin(sleep_until(endpoint::now() + age))),
        complaints: Arc::clone(complaints),
        yielded: false,
        ended: false,
    });
    match settles.await {
        Ok(Ok(())) => Ok(Http2Connection::new(sender, state)),
        Ok(Err(error)) => Err(not_http2(&error)),
        Err(_) => Err(DialError::new(
            "it closed the connection instead of an HTTP/2 handshake",
        )),
    }
}

fn not_http2(error: &h2::Error) -> DialError {
    DialError::new(format!(
        "no HTTP/2 handshake with it: {error}; it may speak HTTP/1 or TLS on this port"
    ))
}

/// Twice as late for each complaint of too many PINGs (gRPC's rule A8).
fn first_ping(first: Duration, complaints: u32) -> Duration {
    first.saturating_mul(1 << complaints.min(MOST_DOUBLINGS))
}

const SEND_BUFFER: usize = 1024 * 1024;
/// After ten complaints the first interval is more than an hour.
const MOST_DOUBLINGS: u32 = 10;

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_util::task::AtomicWaker;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::tls::Socket;

    #[test]
    fn each_complaint_doubles_the_first_interval() {
        let seconds = Duration::from_secs;
        let first: Vec<_> = (0..4).map(|of| first_ping(seconds(5), of)).collect();
        assert_eq!(first, [seconds(5), seconds(10), seconds(20), seconds(40)]);
        assert_eq!(first_ping(seconds(5), u32::MAX), seconds(5 * 1024));
    }

    /// A peer that ends the connection so; how many complaints were counted when it had ended.
    async fn complaints_after(debug_data: &'static [u8]) -> u32 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await; // SETTINGS
            // Once they are acknowledged there is a connection to end.
            let (mut read, acknowledged) = (Vec::new(), [0, 0, 0, 4, 1, 0, 0, 0, 0]);
            while !read.windows(9).any(|frame| frame == acknowledged) {
                socket.read_buf(&mut read).await.unwrap();
            }
            let length = 8 + debug_data.len() as u8;
            let head = [0, 0, length, 7, 0, 0, 0, 0, 0]; // GOAWAY
            let enhance_your_calm = [0, 0, 0, 0, 0, 0, 0, 11];
            let goaway = [&head[..], &enhance_your_calm, debug_data].concat();
            let _ = socket.write_all(&goaway).await;
            socket
        };
        let ours = async {
            let ended = Arc::new(AtomicWaker::new());
            let wake = Arc::clone(&ended);
            let changed = Box::new(move || wake.wake());
            let socket = Socket::Plain(TcpStream::connect(address).await.unwrap());
            let (options, complaints) = (Http2Options::default(), Arc::default());
            let shaken = shake_hands(socket, true, &options, &complaints, changed).await;
            let connection = shaken.unwrap_or_else(|error| panic!("{error}"));
            std::future::poll_fn(|cx| {
                ended.register(cx.waker());
                if connection.is_closed() {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
            complaints.load(Ordering::Relaxed)
        };
        let both = async { tokio::join!(peer, ours).1 };
        let hang = Duration::from_secs(20);
        timeout(hang, both).await.expect("it hangs")
    }

    #[tokio::test]
    async fn a_complaint_is_one_of_pings() {
        assert_eq!(complaints_after(b"too_many_pings").await, 1);
        assert_eq!(complaints_after(b"slow down").await, 0);
    }
}
