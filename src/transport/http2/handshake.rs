use std::sync::{Arc, atomic::AtomicU32};

use bytes::Bytes;
use h2::client;
use tokio::{
    sync::oneshot,
    time::{sleep_until, timeout},
};

use crate::{
    endpoint,
    tls::Socket,
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
/// `changed` is told when it takes more streams than before, and when it takes no more calls.
pub(in crate::transport) async fn shake_hands(
    io: Socket,
    options: &Http2Options,
    complaints: &Arc<AtomicU32>,
    changed: Box<dyn Fn() + Send>,
) -> Result<Http2Connection, DialError> {
    let within = options.handshake_timeout;
    match timeout(within, settle(io, options, complaints, changed)).await {
        Ok(settled) => settled,
        Err(_) => Err(DialError::late(format!(
            "no HTTP/2 SETTINGS that allow a stream within {within:?}"
        ))),
    }
}

async fn settle(
    io: Socket,
    options: &Http2Options,
    complaints: &Arc<AtomicU32>,
    changed: Box<dyn Fn() + Send>,
) -> Result<Http2Connection, DialError> {
    let state = Arc::new(Streams::default());
    let plain = io.plain().is_some();
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
        let doublings = complaints.load(std::sync::atomic::Ordering::Relaxed);
        let first = first.saturating_mul(1 << doublings.min(MOST_DOUBLINGS));
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

const SEND_BUFFER: usize = 1024 * 1024;
/// After ten complaints the first interval is more than an hour.
const MOST_DOUBLINGS: u32 = 10;
