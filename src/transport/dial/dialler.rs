use std::{
    error::Error as StdError,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    model::{Address, Host},
    tls::Socket,
    transport::{
        dial::target::{Protocol, Target, why_not},
        options::Options,
    },
};

/// Why there is no connection. Shared by all who waited for it.
#[derive(Clone, Debug)]
pub(in crate::transport) struct DialError(Arc<Failure>);

#[derive(Debug)]
struct Failure {
    text: String,
    tls: bool,
    timeout: bool,
    retirement: bool,
    source: Option<io::Error>,
}

/// What came of a dial.
pub(in crate::transport) struct Dialled {
    pub(in crate::transport) io: Socket,
    /// Whether HTTP/2 is to be spoken on it.
    pub(in crate::transport) http2: bool,
}

impl DialError {
    pub(in crate::transport) fn new(text: impl Into<String>) -> Self {
        Self::of(text.into(), false, None)
    }

    pub(in crate::transport) fn late(text: String) -> Self {
        Self::of(text, true, None)
    }

    fn of(text: String, timeout: bool, source: Option<io::Error>) -> Self {
        Self(Arc::new(Failure {
            text,
            tls: false,
            timeout,
            retirement: false,
            source,
        }))
    }

    #[cfg(feature = "tls")]
    pub(in crate::transport) fn tls(text: String, timeout: bool) -> Self {
        Self(Arc::new(Failure {
            text,
            tls: true,
            timeout,
            retirement: false,
            source: None,
        }))
    }

    /// The instance is not dialled any more.
    pub(in crate::transport) fn retired() -> Self {
        Self(Arc::new(Failure {
            text: "it left while it was being dialled".to_owned(),
            tls: false,
            timeout: false,
            retirement: true,
            source: None,
        }))
    }

    pub(in crate::transport) fn is_retirement(&self) -> bool {
        self.0.retirement
    }

    pub(in crate::transport) fn is_tls(&self) -> bool {
        self.0.tls
    }

    pub(in crate::transport) fn is_timeout(&self) -> bool {
        self.0.timeout
    }
}

/// Connects, and shakes hands if it is to be TLS.
pub(in crate::transport) async fn dial(
    target: &Result<Target, String>,
    options: &Options,
) -> Result<Dialled, DialError> {
    let target = target.as_ref().map_err(|why| DialError::new(why.clone()))?;
    let within = options.dial_timeout;
    let socket = match timeout(within, connect(target, options)).await {
        Ok(connected) => connected?,
        Err(_) => {
            return Err(DialError::late(format!("no connection within {within:?}")));
        }
    };
    if !target.tls {
        return Ok(Dialled {
            io: Socket::Plain(socket),
            http2: target.protocol == Protocol::Http2,
        });
    }
    #[cfg(feature = "tls")]
    {
        crate::transport::dial::tls::shake_hands(socket, target, options).await
    }
    #[cfg(not(feature = "tls"))]
    {
        Err(DialError::new(
            "it wants TLS, and this program was built without tower-nacos's feature `tls`",
        ))
    }
}

/// Connects to the first address that answers: RFC 8305, with the addresses in the order given.
async fn connect(target: &Target, options: &Options) -> Result<TcpStream, DialError> {
    let mut addresses = resolve(&target.address, options).await?;
    if let Some(second) = target.second.as_ref().and_then(Address::socket_addr) {
        if options.prefer_ipv6 {
            addresses.insert(0, second);
        } else {
            addresses.push(second);
        }
    }
    let mut waiting = addresses.into_iter();
    let mut dials = FuturesUnordered::new();
    let mut last = None;
    if let Some(first) = waiting.next() {
        if waiting.len() == 0 {
            return open(first).await; // the usual case
        }
        dials.push(open(first));
    }
    loop {
        tokio::select! {
            dialled = dials.next(), if !dials.is_empty() => match dialled {
                Some(Ok(socket)) => return Ok(socket),
                Some(Err(error)) => {
                    last = Some(error);
                    dials.extend(waiting.next().map(open));
                }
                None => {}
            },
            () = sleep(NEXT_ADDRESS), if waiting.len() > 0 => {
                dials.extend(waiting.next().map(open));
            }
            else => break,
        }
    }
    Err(last.unwrap_or_else(|| DialError::new("its name resolves to no address")))
}

async fn resolve(address: &Address, options: &Options) -> Result<Vec<SocketAddr>, DialError> {
    let name = match address.host() {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, address.port())]),
        Host::Name(name) => name,
    };
    let resolving = options.resolver.resolve(name, address.port());
    let found = resolving.await.map_err(|error| {
        DialError::of(
            format!("its name does not resolve: {error}"),
            false,
            Some(error),
        )
    })?;
    let mut refused = None;
    let callable = |addr: &SocketAddr| {
        let why = why_not(addr.ip());
        refused = refused.or(why);
        why.is_none()
    };
    let (six, four): (Vec<_>, Vec<_>) = found
        .into_iter()
        .filter(callable)
        .partition(SocketAddr::is_ipv6);
    if let (Some(why), true, true) = (refused, six.is_empty(), four.is_empty()) {
        return Err(DialError::new(format!("its name resolves to {why}")));
    }
    let mut ordered = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let (a, b) = (six.next(), four.next());
        if a.is_none() && b.is_none() {
            return Ok(ordered);
        }
        ordered.extend(a.into_iter().chain(b));
    }
}

async fn open(address: SocketAddr) -> Result<TcpStream, DialError> {
    warn_of_loopback(address);
    let failed = |error: io::Error| {
        DialError::of(
            format!("connecting to {address}: {error}"),
            false,
            Some(error),
        )
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(failed)?;
    let stream = socket.connect(address).await.map_err(failed)?;
    tune(&stream);
    Ok(stream)
}

/// What a dead peer is found by when nothing is written: a half-open HTTP/1 connection has no
/// other way. Failing to set them costs only that.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(SILENCE);
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
    let probes = probes.with_interval(Duration::from_secs(1)).with_retries(3);
    let _ = socket.set_tcp_keepalive(&probes);
    be_patient(stream, UNACKNOWLEDGED);
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
            %address,
            "an instance is registered by a loopback address: only this machine can call it, and every machine will call itself (said once)"
        );
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl StdError for DialError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(source) => Some(source),
            None => None,
        }
    }
}

/// RFC 8305's "Connection Attempt Delay".
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// As long as HTTP/2 waits before its PING.
const SILENCE: Duration = Duration::from_secs(5);
/// That, and the time to answer.
pub(in crate::transport) const UNACKNOWLEDGED: Duration = Duration::from_secs(8);
