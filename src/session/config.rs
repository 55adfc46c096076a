use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use crate::model::Host;

/// What a session needs to know before it starts. Times are durations of virtual or real time,
/// whichever the driver feeds in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Every server that may be connected to. Never empty in a session that is to connect.
    pub(crate) servers: Vec<Server>,
    /// Whether no server is connected to until servers are told.
    pub(crate) offline: bool,
    /// The one namespace of this session's connection: pushes do not say theirs.
    pub(crate) namespace: Arc<str>,
    /// The label `AppName` and the header `app`, for the eyes of operators.
    pub(crate) app_name: String,
    /// What the label `tls.enable` says.
    pub(crate) tls: bool,
    /// Headers of every naming request (a token, once there is a login).
    pub(crate) headers: Headers,
    /// Whether a denial may be answered by new headers: what was denied once is tried once more
    /// before anybody who waits hears of it.
    pub(crate) credentials: bool,
    /// Whether naming requests are signed one by one, by whoever sends them.
    pub(crate) signed: bool,
    /// How long names may take to resolve. Default 3 s.
    pub(crate) resolve_timeout: Duration,
    /// How long the other names are waited for once one address is known. Default 200 ms.
    pub(crate) resolve_grace: Duration,
    /// How long a dial may take, the HTTP/2 handshake included. Default 3 s.
    pub(crate) dial_timeout: Duration,
    /// How long the server check may take. Default 3 s.
    pub(crate) check_timeout: Duration,
    /// How long a server may take from the setup to a registered connection. Default 5 s.
    pub(crate) ready_timeout: Duration,
    /// How soon a server that does not negotiate is asked again whether it registered us. Default
    /// 30 ms; after ten times it doubles, to eight times that.
    pub(crate) registration_poll: Duration,
    /// How long a unary call may take. Default 3 s.
    pub(crate) call_timeout: Duration,
    /// Unary calls for items that run at once; health checks come on top. Default 64.
    pub(crate) concurrent_calls: usize,
    /// The longest random wait after a first attempt that failed. Default 300 ms.
    pub(crate) first_retry: Duration,
    /// The longest random wait after a connection that stood is lost or is to be left. Default 1.2 s.
    pub(crate) reconnect_spread: Duration,
    /// The cap of the random wait before later retries. Default 1.5 s.
    pub(crate) retry_cap: Duration,
    /// A health check is sent when for so long nothing was sent or no unary answer came. Must
    /// stay well below the 20 s after which servers ask a silent client, and drop one in ten of
    /// those that answer. Default 5 s.
    pub(crate) idle: Duration,
    /// Unanswered tries in a row after which a connection counts as lost. Default 3.
    pub(crate) tries: u32,
    /// A read is dropped if a push came in so long before it was sent. Default 1 s.
    pub(crate) read_guard: Duration,
    /// How often a subscribed service is read when no push came meanwhile, ± 20 %; `None` for
    /// never. Default 60 s.
    pub(crate) safety_read: Option<Duration>,
    /// How often the services of a group are read, ± 20 %, where the server does not tell of them.
    /// Default 10 s.
    pub(crate) names_interval: Duration,
    /// After how long, ± 20 %, a connection is left for another; `None` for never. Default never.
    pub(crate) max_age: Option<Duration>,
    /// How long an old connection is kept for publications that the new one still refuses.
    /// Default 10 s.
    pub(crate) handover: Duration,
}

/// Headers, whose values no `Debug` shows: one of them is a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) HashMap<String, String>);

/// One configured server: a host and its gRPC port (the main port + 1000, unless told otherwise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl Config {
    /// The defaults for `servers` and `namespace`.
    pub(crate) fn new(servers: Vec<Server>, namespace: Arc<str>) -> Self {
        Self {
            servers,
            offline: false,
            namespace,
            app_name: "unknown".to_owned(),
            tls: false,
            headers: Headers::default(),
            credentials: false,
            signed: false,
            resolve_timeout: Duration::from_secs(3),
            resolve_grace: Duration::from_millis(200),
            dial_timeout: Duration::from_secs(3),
            check_timeout: Duration::from_secs(3),
            ready_timeout: Duration::from_secs(5),
            registration_poll: Duration::from_millis(30),
            call_timeout: Duration::from_secs(3),
            concurrent_calls: 64,
            first_retry: Duration::from_millis(300),
            reconnect_spread: Duration::from_millis(1_200),
            retry_cap: Duration::from_millis(1_500),
            idle: Duration::from_secs(5),
            tries: 3,
            read_guard: Duration::from_secs(1),
            safety_read: Some(Duration::from_secs(60)),
            names_interval: Duration::from_secs(10),
            max_age: None,
            handover: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => std::net::SocketAddr::new(*ip, self.port).fmt(f),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}
