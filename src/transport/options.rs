use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::{
    endpoint::MakeEndpoint,
    model::Instance,
    transport::{
        Protocol, Purpose, Resolve, Retry, SystemResolver, Target, Transport,
        service::{self, Plan},
    },
};

/// How instances are called: shared by all transports of a balancer.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) dial_timeout: Duration,
    pub(super) handshake_timeout: Duration,
    pub(super) header_timeout: Option<Duration>,
    pub(super) idle_timeout: Duration,
    pub(super) max_idle: usize,
    pub(super) max_connections: usize,
    pub(super) max_in_flight: Option<usize>,
    pub(super) max_header_size: u32,
    pub(super) ping: Option<(Duration, Duration)>,
    pub(super) prefer_ipv6: bool,
    pub(super) retry: Option<Retry>,
    pub(super) resolver: Arc<dyn Resolve>,
    #[cfg(feature = "tls")]
    pub(super) tls: crate::transport::dial::tls::Lazy,
}

type Rule = Arc<dyn Fn(&Instance, Purpose) -> Result<Target, String> + Send + Sync>;

/// Options of the transports to instances; [`Transport::builder`] makes one.
///
/// There is no total deadline on a request: put `tower::timeout` around the balancer, or drop the
/// future.
#[derive(Clone)]
pub struct TransportBuilder {
    options: Options,
    rule: Rule,
    purpose: Purpose,
    protocol: Option<Protocol>,
    secure: bool,
    warm: bool,
}

/// Makes the [`Transport`] of each instance: what a balancer is built with.
#[derive(Clone)]
pub struct MakeTransport {
    options: Arc<Options>,
    rule: Rule,
    purpose: Purpose,
    protocol: Option<Protocol>,
    secure: bool,
    warm: bool,
}

impl TransportBuilder {
    pub(super) fn new() -> Self {
        Self {
            options: Options::default(),
            rule: Arc::new(Target::of),
            purpose: Purpose::Http,
            protocol: None,
            secure: false,
            warm: false,
        }
    }

    /// For how long one dial may last, resolving a name included. Default: 1 s, since within a
    /// data centre an instance that needs longer has lost a packet or is gone, and the call is
    /// better off elsewhere.
    #[must_use]
    pub const fn dial_timeout(mut self, within: Duration) -> Self {
        self.options.dial_timeout = within;
        self
    }

    /// For how long each handshake that follows may last: TLS, and the peer's HTTP/2 SETTINGS,
    /// before which no request is written. Default: 2 s.
    #[must_use]
    pub const fn handshake_timeout(mut self, within: Duration) -> Self {
        self.options.handshake_timeout = within;
        self
    }

    /// For how long response headers may take over HTTP/1, from the request being handed to a
    /// connection, so that sending its body counts too; `None` for as long as it takes, for long
    /// polls and large uploads. Default: 30 s. Over HTTP/2
    /// there is no such limit: its PING tells a slow instance from a dead one.
    #[must_use]
    pub fn header_timeout(mut self, within: impl Into<Option<Duration>>) -> Self {
        self.options.header_timeout = within.into();
        self
    }

    /// For how long an HTTP/1 connection may lie idle. Default: 4 s, below the keep-alives of
    /// common servers (Node and Apache 5 s, Tomcat 20 s, nginx 75 s): a server that closes as we
    /// write leaves a request of which nobody knows whether it was processed. Raise it to what
    /// your servers promise, less a second.
    #[must_use]
    pub const fn idle_timeout(mut self, idle: Duration) -> Self {
        self.options.idle_timeout = idle;
        self
    }

    /// How many HTTP/1 connections to one instance may lie idle. Default: 256.
    #[must_use]
    pub const fn max_idle(mut self, connections: usize) -> Self {
        self.options.max_idle = connections;
        self
    }

    /// How many HTTP/2 connections there may be to one instance. There is one, and another only
    /// while the peer's stream limit is reached on all there are; then calls wait. Default: 8.
    #[must_use]
    pub const fn max_connections(mut self, connections: usize) -> Self {
        self.options.max_connections = if connections == 0 { 1 } else { connections };
        self
    }

    /// How many calls one instance may have at once, until the ends of their responses' bodies;
    /// one more waits, and goes elsewhere if the instance leaves meanwhile. Default: no limit.
    #[must_use]
    pub const fn max_in_flight(mut self, calls: usize) -> Self {
        self.options.max_in_flight = Some(if calls == 0 { 1 } else { calls });
        self
    }

    /// How large the headers of an HTTP/2 response may be, in bytes. Default: 64 KiB. Over HTTP/1
    /// hyper's own limit holds (100 headers, about 400 KiB).
    #[must_use]
    pub const fn max_header_size(mut self, bytes: u32) -> Self {
        self.options.max_header_size = bytes;
        self
    }

    /// PINGs an HTTP/2 peer that sent nothing for `after` while calls are open, and gives the
    /// connection up if no answer comes `within`. Default: 5 s and 3 s.
    #[must_use]
    pub const fn ping(mut self, after: Duration, within: Duration) -> Self {
        self.options.ping = Some((after, within));
        self
    }

    /// Sends no PINGs: a silent peer is then found by the system's TCP timeouts (about 8 s on
    /// Linux, where it acknowledges nothing), and one whose process hangs is not.
    #[must_use]
    pub const fn no_ping(mut self) -> Self {
        self.options.ping = None;
        self
    }

    /// Tries the IPv6 address first where metadata names a second address. Default: last.
    #[must_use]
    pub const fn prefer_ipv6(mut self, prefer: bool) -> Self {
        self.options.prefer_ipv6 = prefer;
        self
    }

    /// Sends idempotent requests again whose fate nobody knows. Default: no; the error says that
    /// it [`is_lost`](crate::transport::Error::is_lost).
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = Some(retry);
        self
    }

    /// Resolves names of instances. Default: [`SystemResolver`].
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.options.resolver = Arc::new(resolver);
        self
    }

    /// What the calls are for. Default: [`Purpose::Http`].
    #[must_use]
    pub const fn purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// What is spoken, whatever the rule says. Default: what the rule says.
    #[must_use]
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Reads metadata by a rule of your own; [`Target::of`] is the default, and a start for
    /// yours. An `Err` says why that instance is not callable: it gets no call until the rule says
    /// otherwise.
    #[must_use]
    pub fn rule<R>(mut self, rule: R) -> Self
    where
        R: Fn(&Instance, Purpose) -> Result<Target, String> + Send + Sync + 'static,
    {
        self.rule = Arc::new(rule);
        self
    }

    /// Speaks TLS with every instance, whatever its metadata says, and in this way also with those
    /// whose metadata asks for it. Default: only with those, trusting what the system trusts.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::transport::Tls) -> Self {
        self.options.tls = tls.into();
        self.secure = true;
        self
    }

    /// How TLS is spoken with the instances whose metadata asks for it, and only with those.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_if_asked(mut self, tls: crate::transport::Tls) -> Self {
        self.options.tls = tls.into();
        self
    }

    /// Connects to an instance as soon as it may be called, ahead of its first call. Default: no,
    /// since ten thousand instances would be as many connections. Over HTTP/1 such a connection is
    /// kept no longer than any other that is idle.
    #[must_use]
    pub const fn warm(mut self, warm: bool) -> Self {
        self.warm = warm;
        self
    }

    /// Makes what a balancer is built with.
    pub fn build(self) -> MakeTransport {
        MakeTransport {
            options: Arc::new(self.options),
            rule: self.rule,
            purpose: self.purpose,
            protocol: self.protocol,
            secure: self.secure,
            warm: self.warm,
        }
    }
}

impl MakeTransport {
    fn plan(&self, instance: &Instance) -> Plan {
        let mut target = (self.rule)(instance, self.purpose);
        if let Ok(target) = &mut target {
            target.tls |= self.secure;
            if let Some(protocol) = self.protocol {
                target.protocol = protocol;
            }
        }
        Plan {
            instance: instance.address().clone(),
            target,
            options: Arc::clone(&self.options),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(2),
            header_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Duration::from_secs(4),
            max_idle: 256,
            max_connections: 8,
            max_in_flight: None,
            max_header_size: 64 * 1024,
            ping: Some((Duration::from_secs(5), Duration::from_secs(3))),
            prefer_ipv6: false,
            retry: None,
            resolver: Arc::new(SystemResolver),
            #[cfg(feature = "tls")]
            tls: crate::transport::dial::tls::Lazy::default(),
        }
    }
}

impl Default for MakeTransport {
    fn default() -> Self {
        TransportBuilder::new().build()
    }
}

impl MakeEndpoint for MakeTransport {
    type Service = Transport;

    fn make(&self, instance: &Instance) -> Transport {
        let transport = Transport::new(self.plan(instance));
        if self.warm {
            transport.warm_up();
        }
        transport
    }

    fn is_stale(&self, transport: &Transport, instance: &Instance) -> bool {
        *transport.target() != self.plan(instance).target
    }

    fn is_eager(&self) -> bool {
        self.warm
    }

    fn probe(&self, instance: &Instance) -> Option<BoxFuture<'static, Result<(), String>>> {
        Some(Box::pin(service::probe(self.plan(instance))))
    }
}

impl fmt::Debug for TransportBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportBuilder")
            .field("options", &self.options)
            .field("purpose", &self.purpose)
            .field("protocol", &self.protocol)
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MakeTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeTransport")
            .field("options", &self.options)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dial_timeout", &self.dial_timeout)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("header_timeout", &self.header_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("max_in_flight", &self.max_in_flight)
            .field("ping", &self.ping)
            .finish_non_exhaustive()
    }
}
