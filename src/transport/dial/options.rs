use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use crate::transport::dial::{
    local::Local,
    resolve::{Resolve, SystemResolver},
    target::Target,
};

/// One for all, so that those who have it are seen to have the same.
static SYSTEM: LazyLock<Arc<dyn Resolve>> = LazyLock::new(|| Arc::new(SystemResolver));

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

impl DialOptions {
    /// How that target is dialled: who says the same does the same. Addresses in memory count only while
    /// this is held.
    pub(in crate::transport) fn identity(&self, target: Option<&Target>) -> String {
        let (named, secure) = target.map_or((false, false), |target| {
            (target.address.host().ip().is_none(), target.tls)
        });
        let resolver = named.then(|| Arc::as_ptr(&self.resolver).cast::<()>());
        #[cfg(feature = "tls")]
        let tls = secure.then(|| self.tls.identity());
        #[cfg(not(feature = "tls"))]
        let tls = secure;
        format!(
            "{:?} {:?} {} {:?} {:?} {:?} {resolver:?} {tls:?}",
            self.timeout,
            self.handshake_timeout,
            self.prefer_ipv6,
            self.local,
            self.keepalive,
            self.user_timeout,
        )
    }
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(2),
            prefer_ipv6: false,
            resolver: Arc::clone(&SYSTEM),
            local: Local::default(),
            keepalive: Some(Duration::from_secs(5)),
            user_timeout: Some(Duration::from_secs(8)),
            #[cfg(feature = "tls")]
            tls: crate::transport::dial::tls::Lazy::default(),
        }
    }
}
