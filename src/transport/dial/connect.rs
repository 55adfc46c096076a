use std::{
    future::Future,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use crate::{
    logs,
    transport::dial::{error::DialError, options::DialOptions},
};

/// Connects to the first address that answers.
pub(in crate::transport) async fn connect(
    addresses: Vec<SocketAddr>,
    options: &DialOptions,
) -> Result<TcpStream, DialError> {
    race(&addresses, |address| open(address, options)).await
}

/// RFC 8305, with the addresses in the order given; and beside those that are silent each is
/// tried a second time, since a lost SYN is sent again by the system only after a second.
pub(in crate::transport) async fn race<A: Copy, T, F>(
    addresses: &[A],
    dial: impl Fn(A) -> F,
) -> Result<T, DialError>
where
    F: Future<Output = Result<T, DialError>>,
{
    let mut first = addresses.iter().copied();
    let mut again = addresses.iter().copied();
    let mut dials = FuturesUnordered::new();
    dials.extend(first.next().map(&dial));
    let mut last = None;
    while !dials.is_empty() {
        let more = first.len() + again.len() > 0;
        let rest = if first.len() > 0 {
            NEXT_ADDRESS
        } else {
            SILENT
        };
        tokio::select! {
            biased;
            dialled = dials.next() => match dialled {
                Some(Ok(socket)) => return Ok(socket),
                Some(Err(error)) => {
                    last = Some(error);
                    // Who refuses is not asked again: a second try is for those who are silent.
                    dials.extend(first.next().map(&dial));
                }
                None => {}
            },
            () = sleep(rest), if more => {
                dials.extend(first.next().or_else(|| again.next()).map(&dial));
            }
        }
    }
    Err(last.unwrap_or_else(|| DialError::new("its name resolves to no address")))
}

async fn open(address: SocketAddr, options: &DialOptions) -> Result<TcpStream, DialError> {
    warn_of_loopback(address);
    let failed = |error| DialError::io(format_args!("nobody answers at {address}"), error);
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(failed)?;
    if let Some(local) = options.local.of(address) {
        socket.bind(SocketAddr::new(local, 0)).map_err(|error| {
            DialError::io(
                format_args!("no connection can leave from the local address {local}"),
                error,
            )
        })?;
    }
    let stream = socket.connect(address).await.map_err(failed)?;
    tune(&stream, options);
    Ok(stream)
}

/// What a dead peer is found by when nothing is written: a half-open HTTP/1 connection has no
/// other way. Failing to set them costs only that.
pub(in crate::transport) fn tune(stream: &TcpStream, options: &DialOptions) {
    let _ = stream.set_nodelay(true);
    if let Some(silence) = options.keepalive {
        let probes = TcpKeepalive::new().with_time(silence);
        #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
        let probes = probes.with_interval(Duration::from_secs(1)).with_retries(3);
        let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
    }
    if let Some(within) = options.user_timeout {
        be_patient(stream, within);
    }
}

/// For how long the peer may leave unacknowledged, or refuse, what was written. Other systems than
/// Linux have limits of their own.
pub(in crate::transport) fn be_patient(stream: &TcpStream, within: Duration) {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(within));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, within);
}

fn warn_of_loopback(address: SocketAddr) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if address.ip().to_canonical().is_loopback() && !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            target: logs::TRANSPORT,
            instance = %address,
            "an instance is registered by a loopback address: only this machine can call it, and every machine will call itself (said once)"
        );
    }
}

/// RFC 8305's "Connection Attempt Delay".
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// After so long without an answer a SYN is likely lost: what answers at all does so within a
/// round trip, and Linux sends it again only after 1 s.
const SILENT: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn addresses(count: u8) -> Vec<SocketAddr> {
        let one = |at| SocketAddr::from(([10, 0, 0, at], 80));
        (1..=count).map(one).collect()
    }

    /// When which address was dialled, in milliseconds; `answer` says what comes of the n-th dial,
    /// and after how long.
    async fn dialled(
        count: u8,
        answer: impl Fn(usize) -> (u64, bool),
    ) -> (Vec<(u8, u128)>, Result<usize, DialError>) {
        let (begun, log) = (crate::endpoint::now(), Mutex::new(Vec::new()));
        let dial = |address: SocketAddr| {
            let SocketAddr::V4(v4) = address else {
                unreachable!()
            };
            let mut log = log.lock().unwrap();
            let at = log.len();
            log.push((v4.ip().octets()[3], begun.elapsed().as_millis()));
            let (after, well) = answer(at);
            async move {
                sleep(Duration::from_millis(after)).await;
                well.then_some(at).ok_or_else(|| DialError::new("no"))
            }
        };
        let came = race(&addresses(count), dial).await;
        let log = log.lock().unwrap().clone();
        (log, came)
    }

    #[tokio::test(start_paused = true)]
    async fn beside_a_silent_dial_a_second_begins_after_300_ms() {
        let (log, came) = dialled(1, |at| (if at == 0 { 60_000 } else { 1 }, true)).await;
        assert_eq!(log, [(1, 0), (1, 300)]);
        assert_eq!(came.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_may_still_win_and_no_third_begins() {
        let (log, came) = dialled(1, |at| (if at == 0 { 900 } else { 60_000 }, true)).await;
        assert_eq!((log.len(), came.unwrap()), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_refuses_is_not_asked_twice_and_the_next_address_is_asked_at_once() {
        let (log, came) = dialled(2, |_| (1, false)).await;
        assert_eq!(log, [(1, 0), (2, 1)]);
        assert!(came.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_turn_before_one_is_asked_again() {
        let (log, _) = dialled(2, |at| (10_000, at == 3)).await;
        assert_eq!(log, [(1, 0), (2, 250), (1, 550), (2, 850)]);
    }

    #[tokio::test]
    async fn what_is_set_of_tcp_is_set_on_the_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for set in [None, Some(Duration::from_secs(30))] {
            let options = DialOptions {
                keepalive: set,
                user_timeout: set,
                ..DialOptions::default()
            };
            let stream = open(address, &options).await.unwrap();
            let socket = SockRef::from(&stream);
            assert_eq!(socket.keepalive().unwrap(), set.is_some());
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), set);
            #[cfg(target_os = "linux")]
            if let Some(set) = set {
                assert_eq!(socket.tcp_keepalive_time().unwrap(), set);
            }
        }
    }
}
