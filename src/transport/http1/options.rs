use std::time::Duration;

/// How HTTP/1 is spoken.
#[derive(Clone)]
pub(in crate::transport) struct Http1Options {
    pub(in crate::transport) header_timeout: Option<Duration>,
    pub(in crate::transport) idle_timeout: Duration,
    pub(in crate::transport) max_idle: usize,
    /// Connections at once, idle ones included.
    pub(in crate::transport) max_connections: usize,
    /// Dials at once.
    pub(in crate::transport) max_dials: usize,
    pub(in crate::transport) max_header_size: u32,
    /// Whether a safe request whose kept connection closed is sent once more.
    pub(in crate::transport) once_more: bool,
    /// How long a peer may refuse what was written, if that is limited.
    pub(in crate::transport) user_timeout: Option<Duration>,
}

impl Default for Http1Options {
    fn default() -> Self {
        Self {
            header_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Duration::from_secs(4),
            max_idle: 256,
            max_connections: usize::MAX,
            max_dials: 64,
            max_header_size: 64 * 1024,
            once_more: true,
            user_timeout: Some(Duration::from_secs(8)),
        }
    }
}
