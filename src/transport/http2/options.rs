use std::time::Duration;

/// How HTTP/2 is spoken.
#[derive(Clone)]
pub(in crate::transport) struct Http2Options {
    pub(in crate::transport) handshake_timeout: Duration,
    pub(in crate::transport) max_connections: usize,
    pub(in crate::transport) max_header_size: u32,
    /// After which silence a peer is asked, and for how long it may take to answer.
    pub(in crate::transport) ping: Option<(Duration, Duration)>,
    pub(in crate::transport) stream_window: u32,
    pub(in crate::transport) connection_window: u32,
    pub(in crate::transport) idle_timeout: Option<Duration>,
    pub(in crate::transport) max_age: Option<Duration>,
    /// For how long an instance that serves others and takes no more connections is not dialled.
    pub(in crate::transport) redial_after: Duration,
    /// Whether a safe request whose kept connection closed is sent once more.
    pub(in crate::transport) once_more: bool,
}

impl Http2Options {
    /// How many streams a connection's window has room for, when nobody reads any.
    pub(in crate::transport) fn most_streams(&self) -> usize {
        (self.connection_window / self.stream_window.max(1)).max(1) as usize
    }
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(2),
            max_connections: 8,
            max_header_size: 64 * 1024,
            ping: Some((Duration::from_secs(5), Duration::from_secs(3))),
            stream_window: 1024 * 1024,
            connection_window: MAX_WINDOW,
            idle_timeout: None,
            max_age: None,
            // As rarely as a dead instance is for calls that have no other.
            redial_after: Duration::from_millis(250),
            once_more: true,
        }
    }
}

/// The largest that there can be (RFC 9113, 6.9.1).
pub(in crate::transport) const MAX_WINDOW: u32 = (1 << 31) - 1;
