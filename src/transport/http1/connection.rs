use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Extensions, HeaderMap, HeaderName, Request};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::{
    tls::Socket,
    transport::{
        body::request::{Body, Kind},
        dial::error::DialError,
        http1::{io::Http1Io, options::Http1Options},
        spawn::spawn,
    },
};

/// The way into one connection. It closes when this is dropped.
pub(in crate::transport) struct Http1Connection {
    pub(in crate::transport) sender: SendRequest<Body>,
    /// Whether no request was sent on it.
    pub(in crate::transport) fresh: bool,
    /// Reads that gave bytes.
    reads: Arc<AtomicU64>,
    /// For how long the server says it keeps it idle.
    pub(in crate::transport) kept_for: Option<Duration>,
    /// The request on it, in case that has to be sent once more. Kept for the next: a copy into a
    /// map of headers that has the room allocates nothing.
    spare: Request<Body>,
}

/// Counts a connection, and says when it ends.
pub(in crate::transport) struct Open<F: FnOnce()>(Arc<AtomicUsize>, Option<F>);

/// Makes a socket a connection, counted in `open` until it ends, which `ended` is then told.
pub(in crate::transport) async fn shake_hands(
    io: Socket,
    options: &Http1Options,
    open: &Arc<AtomicUsize>,
    ended: impl FnOnce() + Send + 'static,
) -> Result<Box<Http1Connection>, DialError> {
    let reads = Arc::new(AtomicU64::new(0));
    let io = Http1Io::new(io, Arc::clone(&reads), options.user_timeout);
    let mut builder = http1::Builder::new();
    if options.max_header_size as usize > HYPERS_OWN {
        builder.max_buf_size(options.max_header_size as usize);
    }
    let shaken = builder.handshake(TokioIo::new(io)).await;
    let (sender, connection) = shaken.map_err(|error| DialError::new(error.to_string()))?;
    let open = Open::new(Arc::clone(open), ended);
    // Ends when the socket does, or when its sender is dropped and nothing is in flight. What goes
    // wrong is told to the call.
    spawn(async move {
        drop(connection.with_upgrades().await);
        drop(open);
    });
    Ok(Box::new(Http1Connection {
        sender,
        fresh: true,
        reads,
        kept_for: None,
        spare: Request::default(),
    }))
}

impl Http1Connection {
    /// How often it gave bytes: what is sent on it after a look at this was not answered by a byte
    /// for as long as another look says the same.
    pub(in crate::transport) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Acquire)
    }

    pub(in crate::transport) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Keeps a copy of a request whose body is there; its URI is kept by who forms it.
    pub(in crate::transport) fn copy(&mut self, request: &Request<Body>) {
        let spare = &mut self.spare;
        *spare.method_mut() = request.method().clone();
        *spare.body_mut() = match &request.body().0 {
            Kind::Full(bytes) => bytes.clone().into(),
            _ => Body::empty(),
        };
        // Hyper looks for its callback for interim responses there, so that both have them.
        if !request.extensions().is_empty() {
            spare.extensions_mut().clone_from(request.extensions());
        }
        spare.headers_mut().clear();
        for (name, value) in request.headers() {
            spare.headers_mut().append(name.clone(), value.clone());
        }
    }

    /// The copy.
    pub(in crate::transport) fn copied(&mut self) -> Request<Body> {
        mem::take(&mut self.spare)
    }

    /// The copy is not needed any more.
    pub(in crate::transport) fn forget(&mut self) {
        *self.spare.body_mut() = Body::empty();
        *self.spare.extensions_mut() = Extensions::new();
    }

    /// Notes for how long the server says that it keeps the connection.
    pub(in crate::transport) fn heed(&mut self, headers: &HeaderMap) {
        if let Some(value) = headers.get(KEEP_ALIVE)
            && let Some(seconds) = value.to_str().ok().and_then(timeout)
        {
            self.kept_for = Some(Duration::from_secs(seconds.min(MOST_KEPT)));
        }
    }
}

/// `timeout=5, max=100`.
fn timeout(keep_alive: &str) -> Option<u64> {
    keep_alive.split(',').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        let named = name.trim().eq_ignore_ascii_case("timeout");
        named.then(|| value.parse().ok())?
    })
}

impl<F: FnOnce()> Open<F> {
    fn new(open: Arc<AtomicUsize>, ended: F) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(open, Some(ended))
    }
}

impl<F: FnOnce()> Drop for Open<F> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        if let Some(ended) = self.1.take() {
            ended();
        }
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// A server that says more, in seconds, is believed as far as this.
const MOST_KEPT: u64 = 3600;
/// How much of a head hyper takes anyhow.
const HYPERS_OWN: usize = 8192 + 4096 * 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_is_read_as_servers_write_it() {
        assert_eq!(timeout("timeout=5"), Some(5));
        assert_eq!(timeout("max=100, Timeout = 15"), Some(15));
        assert_eq!(timeout("timeout=\"20\""), Some(20));
        for none in [
            "",
            "max=1",
            "timeout",
            "timeout=",
            "timeout=-1",
            "timeout=x",
        ] {
            assert_eq!(timeout(none), None, "{none}");
        }
    }
}
