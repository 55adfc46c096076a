use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::{
    endpoint::{Asker, MakeEndpoint},
    model::{Instance, ServiceKey, Source},
    retry::Retry,
    transport::{
        dial::{
            options::DialOptions,
            own::{Bound, Connector, Dial},
            resolve::Resolve,
            target::{Protocol, Purpose, Target},
        },
        form::TryLimit,
        http2::options::MAX_WINDOW,
        plan::{Plan, Settings},
        service::Transport,
    },
};

type Rule = Arc<dyn Fn(&Instance, Purpose) -> Result<Target, String> + Send + Sync>;

type ServerNames = Arc<dyn Fn(&Instance) -> Option<String> + Send + Sync>;

/// Options of the transports to instances; [`Transport::builder`] makes one.
///
/// There is no total deadline on a request: [`HttpBuilder::timeout`](crate::http::HttpBuilder::timeout) and
/// [`ChannelBuilder::timeout`](crate::grpc::ChannelBuilder::timeout) are that. Around a balancer of your own put `tower::timeout`, or drop
/// the future.
#[derive(Clone)]
pub struct TransportBuilder {
    settings: Settings,
    rule: Rule,
    purpose: Purpose,
    protocol: Option<Protocol>,
    secure: bool,
    warm: bool,
    retry: Option<Retry>,
    connector: Option<Connector>,
    server_name: Option<ServerNames>,
}

/// Makes the [`Transport`] of each instance: what a balancer is built with.
#[derive(Clone)]
pub struct MakeTransport {
    settings: Arc<Settings>,
    rule: Rule,
    purpose: Purpose,
    protocol: Option<Protocol>,
    secure: bool,
    warm: bool,
    retry: Option<Retry>,
    connector: Option<Connector>,
    server_name: Option<ServerNames>,
}

impl Transport {
    /// Options, and then what makes a transport for each instance.
    pub fn builder() -> TransportBuilder {
        TransportBuilder::new()
    }
}

impl TransportBuilder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings::default(),
            rule: Arc::new(Target::of),
            purpose: Purpose::Http,
            protocol: None,
            secure: false,
            warm: false,
            retry: None,
            connector: None,
            server_name: None,
        }
    }

    /// For how long one dial may last, resolving a name included. Default: 3 s, since Linux sends a
    /// lost SYN again after 1 s, and a server whose accept queue is full for a moment is not gone; a
    /// call waits so long for an instance that is silent. Beside a dial that is silent for 300 ms a
    /// second one is begun.
    #[must_use]
    pub const fn dial_timeout(mut self, within: Duration) -> Self {
        self.settings.dial.timeout = within;
        self
    }

    /// How many HTTP/1 dials to one instance go on at once; more calls wait for their turn, or for
    /// a connection that another call gives back. Default: 64, half of what servers' accept queues
    /// have room for that are not set up for more (128; Tomcat 100). To HTTP/2 there is one dial at
    /// a time.
    #[must_use]
    pub const fn max_dials(mut self, dials: usize) -> Self {
        self.settings.http1.max_dials = if dials == 0 { 1 } else { dials };
        self
    }

    /// For how long a peer may be silent before TCP asks whether it is there, which finds one whose
    /// host is gone 3 s later; `None` leaves that to the system. Default: 5 s. Costs a packet each
    /// 5 s for an idle connection.
    #[must_use]
    pub fn tcp_keepalive(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.settings.dial.keepalive = after.into();
        self
    }

    /// For how long a peer may leave unacknowledged what was written (`TCP_USER_TIMEOUT`), on
    /// Linux; `None` leaves that to the system, which gives up after some 15 minutes. Default: 8 s,
    /// as long as HTTP/2's PING needs to find a peer that hangs.
    #[must_use]
    pub fn tcp_user_timeout(mut self, within: impl Into<Option<Duration>>) -> Self {
        let within = within.into();
        self.settings.dial.user_timeout = within;
        self.settings.http1.user_timeout = within;
        self
    }

    /// For how long each handshake that follows may last: TLS, and the peer's HTTP/2 SETTINGS,
    /// before which no request is written. Default: 2 s.
    #[must_use]
    pub const fn handshake_timeout(mut self, within: Duration) -> Self {
        self.settings.dial.handshake_timeout = within;
        self.settings.http2.handshake_timeout = within;
        self
    }

    /// For how long response headers may take over HTTP/1, from the request being handed to a
    /// connection, so that sending its body counts too; `None` for as long as it takes, for long
    /// polls and large uploads. Default: 30 s. Over HTTP/2
    /// there is no such limit: its PING tells a slow instance from a dead one.
    #[must_use]
    pub fn header_timeout(mut self, within: impl Into<Option<Duration>>) -> Self {
        self.settings.http1.header_timeout = within.into();
        self
    }

    /// For how long an HTTP/1 connection may lie idle, where the server does not say. Default: 4 s,
    /// below the keep-alives of common servers (Node and Apache 5 s, Tomcat 20 s, nginx 75 s): a
    /// server that closes as we write leaves a request of which nobody knows whether it was
    /// processed. Costs a dial for each call that comes later. A server that says
    /// `Keep-Alive: timeout=` is taken at its word, more or less, less a second and by half at
    /// most.
    #[must_use]
    pub const fn idle_timeout(mut self, idle: Duration) -> Self {
        self.settings.http1.idle_timeout = bounded(idle);
        self
    }

    /// How many HTTP/1 connections to one instance may lie idle. Default: 256.
    #[must_use]
    pub const fn max_idle(mut self, connections: usize) -> Self {
        self.settings.http1.max_idle = connections;
        self
    }

    /// How many HTTP/1 connections to one instance there may be at once, idle ones included; more
    /// calls wait. Default: no limit, since each call has one of its own.
    #[must_use]
    pub const fn max_http1_connections(mut self, connections: usize) -> Self {
        self.settings.http1.max_connections = if connections == 0 { 1 } else { connections };
        self
    }

    /// How many HTTP/2 connections there may be to one instance. There is one, and another only
    /// while the peer's stream limit is reached on all there are; then the instance is full, and
    /// calls go elsewhere or wait. Default: 8.
    #[must_use]
    pub const fn max_connections(mut self, connections: usize) -> Self {
        self.settings.http2.max_connections = if connections == 0 { 1 } else { connections };
        self
    }

    /// How many calls one instance may have at once, until the ends of their responses' bodies;
    /// one more waits, and goes elsewhere if the instance leaves meanwhile. Default: no limit.
    ///
    /// The balancer's [`max_in_flight`](crate::balance::BalanceBuilder::max_in_flight) is another limit: that
    /// counts all instances together, up to the response's head, and one more fails at once.
    #[must_use]
    pub const fn max_calls(mut self, calls: usize) -> Self {
        self.settings.max_calls = Some(if calls == 0 { 1 } else { calls });
        self
    }

    /// How large the headers of a response may be, in bytes. Default: 64 KiB. Over HTTP/1 it is
    /// hyper's own limit (100 headers, about 400 KiB), unless this is more.
    #[must_use]
    pub const fn max_header_size(mut self, bytes: u32) -> Self {
        self.settings.http1.max_header_size = bytes;
        self.settings.http2.max_header_size = bytes;
        self
    }

    /// How much of one HTTP/2 response may be there unread, in bytes. Default: 1 MiB, with which a
    /// peer 10 ms away sends 100 MB/s. Costs as much memory for each stream that nobody reads.
    #[must_use]
    pub const fn stream_window(mut self, bytes: u32) -> Self {
        self.settings.http2.stream_window = clamped(bytes);
        self
    }

    /// How much of all responses of one HTTP/2 connection may be there unread, in bytes. A
    /// connection takes no more streams than this has [`stream_window`](Self::stream_window)s, so
    /// that those which nobody reads never hold up the others. Default: the most there can be, 2 GiB
    /// less a byte: what bounds memory is the number of streams times their windows.
    #[must_use]
    pub const fn connection_window(mut self, bytes: u32) -> Self {
        self.settings.http2.connection_window = clamped(bytes);
        self
    }

    /// For how long an HTTP/2 connection may have no calls; it closes within twice that. Default:
    /// `None`, for as long as the peer keeps it: an idle one costs next to nothing, and the next
    /// call no dial. Set it below what a firewall or balancer between allows.
    #[must_use]
    pub fn http2_idle_timeout(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.settings.http2.idle_timeout = idle.into().map(bounded);
        self
    }

    /// For how long an HTTP/2 connection takes calls; those it has go on. Default: `None`, without
    /// end. Set it where what is behind an address changes unseen.
    #[must_use]
    pub fn http2_max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.settings.http2.max_age = age.into().map(bounded);
        self
    }

    /// Whether a safe request is sent once more, over a new connection to the same instance, when
    /// the kept connection that it was sent on closed before the first byte of a response: GET,
    /// HEAD, OPTIONS and TRACE without a body, and whatever has an `Idempotency-Key` header and a
    /// body that is there. Servers close what lies idle, and may do so just as we write; sending
    /// such requests again is what RFC 9110 (9.2.2) allows and Go's client does. Default: yes.
    /// [`Retry`] does more.
    ///
    /// A callback of `hyper::ext::on_informational` hears the interim responses of both; it is only
    /// called over HTTP/1, since hyper keeps it to itself.
    #[must_use]
    pub const fn send_once_more(mut self, once_more: bool) -> Self {
        self.settings.http1.once_more = once_more;
        self.settings.http2.once_more = once_more;
        self
    }

    /// PINGs an HTTP/2 peer that sent nothing for `after` while calls are open, and gives the
    /// connection up if no answer comes `within`. Default: 5 s and 3 s.
    ///
    /// If it answers and says nothing else, it is asked again 30 s later, 60 s after that, and then
    /// each 5 min 10 s: gRPC's servers end connections that PING more often. One that ends it
    /// nevertheless (`too_many_pings`) is asked after twice `after` from then on.
    #[must_use]
    pub const fn ping(mut self, after: Duration, within: Duration) -> Self {
        self.settings.http2.ping = Some((bounded(after), bounded(within)));
        self
    }

    /// Sends no PINGs. What a PING finds is then found later or not at all: a machine that is gone, since it
    /// acknowledges nothing, by the system's TCP timeouts (about 8 s on Linux); a process that hangs not by
    /// its connection, since its system acknowledges for it: calls there wait until their own deadlines. For
    /// peers that end connections over PINGs, and for nothing else.
    #[must_use]
    pub const fn no_ping(mut self) -> Self {
        self.settings.http2.ping = None;
        self
    }

    /// Tries the IPv6 address first where metadata names a second address. Default: last.
    #[must_use]
    pub const fn prefer_ipv6(mut self, prefer: bool) -> Self {
        self.settings.dial.prefer_ipv6 = prefer;
        self
    }

    /// The retry policy of the balancer that is built with this, unless that has one of its own: the same
    /// as [`BalanceBuilder::retry`](crate::balance::BalanceBuilder::retry). Default: none, and of a request
    /// whose fate nobody knows the error says that it [`is_lost`](crate::transport::Error::is_lost).
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Resolves names of instances. Default: [`SystemResolver`](crate::transport::SystemResolver), which
    /// remembers nothing; [`CachedResolver`](crate::transport::CachedResolver) does.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.settings.dial.resolver = Arc::new(resolver);
        self
    }

    /// Connects to instances by this: over Unix sockets or vsock, through a proxy, with a handshake of your
    /// own; see [`Dial`]. Default: TCP. Costs a box a connection and one more for each dial.
    ///
    /// What holds for dials holds for it: [`dial_timeout`](Self::dial_timeout), a second dial beside one
    /// that is silent for 300 ms, ejection when it fails, probes, the end of idle connections when an instance
    /// leaves, TLS and HTTP/2 on what it made. How it resolves names and what it binds to is its own:
    /// [`resolver`](Self::resolver), [`local_address`](Self::local_address) and
    /// [`prefer_ipv6`](Self::prefer_ipv6) are for [`Destination::connect`](crate::transport::Destination::connect) alone then. An instance
    /// whose metadata changes is connected to anew.
    #[must_use]
    pub fn connector(mut self, connector: impl Dial) -> Self {
        self.connector = Some(Connector::new(connector));
        self
    }

    /// Which of this machine's addresses connections leave from. Instances are then called by addresses of
    /// that family only; called again with one of the other family, by both. Default: the system chooses,
    /// by its routes.
    #[must_use]
    pub const fn local_address(mut self, address: IpAddr) -> Self {
        self.settings.dial.local.set(address);
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
    pub fn tls(mut self, tls: crate::transport::dial::tls::Tls) -> Self {
        self.settings.dial.tls = tls.into();
        self.secure = true;
        self
    }

    /// How TLS is spoken with the instances whose metadata asks for it, and only with those.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_if_asked(mut self, tls: crate::transport::dial::tls::Tls) -> Self {
        self.settings.dial.tls = tls.into();
        self
    }

    /// For which name each instance's certificate has to be: from its metadata, say. `None` leaves it at
    /// [`Tls::server_name`](crate::transport::Tls::server_name), or the instance's host. A name that no certificate can be for makes its calls
    /// fail, with an error that says so. Default: none. Asked with each change of the instance.
    ///
    /// ```
    /// use tower_nacos::transport::{Tls, Transport};
    ///
    /// let named = |instance: &tower_nacos::Instance| {
    ///     instance.metadata().get("tls-name").map(str::to_owned)
    /// };
    /// let transport = Transport::builder().tls(Tls::new()).server_name(named);
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn server_name<N>(mut self, name: N) -> Self
    where
        N: Fn(&Instance) -> Option<String> + Send + Sync + 'static,
    {
        self.server_name = Some(Arc::new(name));
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

    /// The service whose instances they are. Each request then says whom it means, in
    /// [`x-nacos-service`](crate::model::SERVICE_HEADER) unless its caller wrote that: an address that
    /// somebody else has by now, and the registry still lists, is found out. A
    /// [`Provider`](crate::provider::Provider) answers 421 then; nothing was done, and the request goes
    /// to another instance like one that was refused, if its body can be sent again (empty, bytes that
    /// are there, over HTTP/2 up to 64 KiB of a stream). If it cannot, or was refused three times before,
    /// or there is nobody else, the call fails with an error of kind
    /// [`Refused`](crate::transport::ErrorKind::Refused) that
    /// [is unprocessed](crate::transport::Error::is_unprocessed): the 421 itself is seen only by who told
    /// nothing, or wrote the header. Default: what
    /// [`http::Client`](crate::http::Client), [`BuildHttp`](crate::http::BuildHttp) and
    /// [`grpc::Channel`](crate::grpc::Channel) balance; without a balancer of these, none. Costs a
    /// header of some 60 bytes a request.
    #[must_use]
    pub fn service(mut self, service: ServiceKey) -> Self {
        self.settings.service = Some(service);
        self
    }

    /// Whether each request says which service it means; see [`service`](Self::service). Default: true.
    #[must_use]
    pub const fn tell_service(mut self, tell: bool) -> Self {
        self.settings.hides_service = !tell;
        self
    }

    /// Makes what a balancer is built with.
    pub fn build(self) -> MakeTransport {
        MakeTransport {
            settings: Arc::new(self.settings),
            rule: self.rule,
            purpose: self.purpose,
            protocol: self.protocol,
            secure: self.secure,
            warm: self.warm,
            retry: self.retry,
            connector: self.connector,
            server_name: self.server_name,
        }
    }
}

impl MakeTransport {
    /// The same for a balancer of this service by our [`Rules`](crate::transport::Rules): what finds an
    /// instance full goes back to it, and wherever there is room.
    pub(crate) fn balanced(mut self, service: Option<&ServiceKey>) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        settings.balanced = true;
        settings.service = settings.service.take().or_else(|| service.cloned());
        self
    }

    /// What the instance's provider may know the service as.
    fn service_of(&self, instance: &Instance) -> Option<ServiceKey> {
        let settings = &self.settings;
        let merged = || instance.source().and_then(Source::named);
        let service = settings.service.as_ref().or_else(merged);
        service.filter(|_| !settings.hides_service).cloned()
    }

    /// Attempts say how long they may last.
    pub(crate) fn limiting(mut self, limit: Option<TryLimit>) -> Self {
        if limit.is_some() {
            Arc::make_mut(&mut self.settings).try_limit = limit;
        }
        self
    }

    /// Requests that have a [`Route`](crate::transport::Route) note where they go.
    pub(crate) fn noting(mut self, routes: bool) -> Self {
        if routes {
            Arc::make_mut(&mut self.settings).notes_routes = true;
        }
        self
    }

    /// Connects in this way.
    pub(crate) fn connecting(mut self, connector: Option<Connector>) -> Self {
        self.connector = connector.or(self.connector);
        self
    }

    /// Where and how an instance is called for that.
    pub(super) fn target(&self, instance: &Instance, purpose: Purpose) -> Result<Target, String> {
        let mut target = (self.rule)(instance, purpose)?;
        target.tls |= self.secure;
        if let Some(protocol) = self.protocol {
            target.protocol = protocol;
        }
        if let Some(name) = self.server_name.as_ref().and_then(|name| name(instance)) {
            target.server_name = Some(name);
        }
        Ok(target)
    }

    /// Who connects to it, if it is not us.
    pub(super) fn own(
        &self,
        instance: &Instance,
        target: &Result<Target, String>,
    ) -> Option<Bound> {
        let (connector, target) = self.connector.as_ref().zip(target.as_ref().ok())?;
        Some(connector.to(instance, target, &self.settings.dial))
    }

    /// Which connector that is. Its address counts only while this is held.
    pub(super) fn own_identity(&self) -> Option<*const ()> {
        self.connector.as_ref().map(Connector::identity)
    }

    /// How connections are had.
    pub(super) fn dial_options(&self) -> &DialOptions {
        &self.settings.dial
    }

    fn plan(&self, instance: &Instance) -> Plan {
        let target = self.target(instance, self.purpose);
        let own = self.own(instance, &target);
        Plan {
            instance: instance.address().clone(),
            target,
            own,
            service: self.service_of(instance),
            settings: Arc::clone(&self.settings),
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
        let plan = self.plan(instance);
        // A connector may have read any of it.
        let told = transport.told();
        let told_otherwise = told.is_some_and(|told| told.metadata() != instance.metadata());
        *transport.target() != plan.target
            || transport.service() != plan.service.as_ref()
            || told_otherwise
    }

    fn is_eager(&self) -> bool {
        self.warm
    }

    fn asker(&self) -> Option<Asker> {
        Some(Asker::of(self.clone()))
    }

    fn retry(&self) -> Option<Retry> {
        self.retry.clone()
    }

    fn probe(&self, instance: &Instance) -> Option<BoxFuture<'static, Result<(), String>>> {
        let connections = Arc::new(self.plan(instance).connections());
        Some(Box::pin(async move {
            let probed = connections.probe().await;
            probed.map_err(|error| error.to_string())
        }))
    }
}

impl fmt::Debug for TransportBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportBuilder")
            .field("dial_timeout", &self.settings.dial.timeout)
            .field("header_timeout", &self.settings.http1.header_timeout)
            .field("ping", &self.settings.http2.ping)
            .field("purpose", &self.purpose)
            .field("protocol", &self.protocol)
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MakeTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeTransport")
            .field("dial_timeout", &self.settings.dial.timeout)
            .field("header_timeout", &self.settings.http1.header_timeout)
            .field("ping", &self.settings.http2.ping)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

/// What HTTP/2 allows a window to be.
const fn clamped(bytes: u32) -> u32 {
    match bytes {
        0 => 1,
        more if more > MAX_WINDOW => MAX_WINDOW,
        within => within,
    }
}

/// For ever, as a clock can count it.
const ENDLESS: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

const fn bounded(time: Duration) -> Duration {
    if time.as_secs() < ENDLESS.as_secs() {
        time
    } else {
        ENDLESS
    }
}
