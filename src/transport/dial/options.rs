use std::{sync::Arc, time::Duration};

use crate::transport::dial::{
    local::Local,
    resolve::{Resolve, SystemResolver},
};

/// How connections are had.
#[derive(Clone)]
pub(in crate::transport) struct DialOptions {
    /// For one dial, resolving included.
    pub(in crate::transport) timeout: Duration,
    /// For each handshake that follows.
    pub(in crate::transport) handshake_timeout: Duration,
    pub(in crate::transport) prefer_ipv6: bool,
    pub(in crate::transport) resolver: Arc<dyn Resolve>,
    /// Where connections leave from.
    pub(in crate::transport) local: Local,
    /// When TCP asks a peer that sends nothing.
    pub(in crate::transport) keepalive: Option<Duration>,
    /// How long a peer may leave unacknowledged what was written.
    pub(in crate::transport) user_timeout: Option<Duration>,
    #[cfg(feature = "tls")]
    pub(in crate::transport) tls: crate::transport::dial::tls::Lazy,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(2),
            prefer_ipv6: false,
            resolver: Arc::new(SystemResolver),
            local: Local::default(),
            keepalive: Some(Duration::from_secs(5)),
            user_timeout: Some(Duration::from_secs(8)),
            #[cfg(feature = "tls")]
            tls: crate::transport::dial::tls::Lazy::default(),
        }
    }
}
