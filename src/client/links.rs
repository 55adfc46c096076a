//! The sockets of a session: dials, calls and stream messages, each as an event of the driver.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{net::lookup_host, sync::watch, time::timeout};

use super::{
    ServerAddress,
    auth::Token,
    credentials::Credentials,
    details::Http,
    error::RequestError,
    login::{LoginError, Target},
    secret::Secret,
};
use crate::{
    link::{self, CallError, Connection, Link, Security, StreamReceiver, StreamSender},
    model::{Address, Host, ServiceDetails, ServiceKey},
    session::{CallFailure, CallId, DialError, LinkId},
    wire::Payload,
};

/// What the network brought.
pub(super) enum Event {
    Resolved {
        link: LinkId,
        server: usize,
        result: Result<Vec<SocketAddr>, String>,
    },
    /// Connected, and what came of the login if there was to be one.
    Connected {
        link: LinkId,
        local: IpAddr,
        login: Option<Result<Token, LoginError>>,
    },
    /// A login on a connection that was there already.
    LoggedIn {
        link: LinkId,
        result: Result<Token, LoginError>,
    },
    /// What the server says of a service as a whole.
    Details {
        link: LinkId,
        told: Result<ServiceDetails, RequestError>,
    },
    DialFailed {
        link: LinkId,
        error: DialError,
    },
    Answered {
        link: LinkId,
        call: CallId,
        result: Result<Payload, CallFailure>,
    },
    /// A message on the stream, and when its last byte left the socket.
    Message {
        link: LinkId,
        payload: Payload,
        received: Option<Instant>,
    },
    StreamEnded {
        link: LinkId,
        reason: String,
    },
}

/// Every connection of the client and all that is under way on it. Two only while the session
/// moves from one server to another.
pub(super) struct Links {
    open: HashMap<LinkId, Open>,
    work: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    network: Network,
}

/// How to reach servers.
pub(super) struct Network {
    pub(super) servers: Vec<ServerAddress>,
    pub(super) max_message_size: usize,
    pub(super) security: Security,
    pub(super) login: Option<Arc<Credentials>>,
    /// For questions to main ports.
    pub(super) http: Http,
}

struct Open {
    connection: Option<(Link, Connection)>,
    stream: Option<StreamSender>,
    /// Dropped at hang-up, which drops every future of this link.
    alive: watch::Sender<()>,
    /// Where it was dialled.
    addr: Option<SocketAddr>,
    /// The main port there.
    target: Option<Target>,
}

type Dialed = (
    Link,
    Connection,
    SocketAddr,
    Option<Result<Token, LoginError>>,
);

enum Done {
    Event(Event),
    Dialed(LinkId, Box<Result<Dialed, DialError>>),
    Streamed(
        LinkId,
        Box<StreamReceiver>,
        Result<Option<(Payload, Option<Instant>)>, CallError>,
    ),
    /// Its link was hung up meanwhile.
    Dropped,
}

impl Links {
    pub(super) fn new(network: Network) -> Self {
        Self {
            open: HashMap::new(),
            work: FuturesUnordered::new(),
            network,
        }
    }

    /// The next event; pending for ever while nothing is under way. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let Some(done) = self.work.next().await else {
                return std::future::pending().await;
            };
            if let Some(event) = self.event(done) {
                return event;
            }
        }
    }

    /// There are these servers from now on. Returns whether there were others.
    pub(super) fn set_servers(&mut self, servers: &[ServerAddress]) -> bool {
        let known = &self.network.servers;
        let same = servers.len() == known.len() && servers.iter().all(|s| known.contains(s));
        if !same {
            self.network.servers = servers.to_vec();
        }
        !same
    }

    pub(super) fn resolve(&mut self, link: LinkId, server: usize, name: Arc<str>, port: u16) {
        self.begin(link, async move {
            let result = match lookup_host((&*name, port)).await {
                Ok(addrs) => Ok(addrs.collect()),
                Err(error) => Err(error.to_string()),
            };
            Done::Event(Event::Resolved {
                link,
                server,
                result,
            })
        });
    }

    /// Dials, and logs in before anybody hears of the connection unless there is a token to try
    /// (`with_login` says). `within` covers both.
    pub(super) fn dial(
        &mut self,
        link: LinkId,
        addr: SocketAddr,
        host: &Host,
        within: Duration,
        with_login: bool,
    ) {
        let limit = self.network.max_message_size;
        let (security, host) = (self.network.security.clone(), host.clone());
        let login = self.network.login.clone();
        let within = within.saturating_sub(login.as_ref().map_or(Duration::ZERO, |l| l.timeout()));
        let login = login.filter(|_| with_login);
        let target = self.network.target(addr, &host);
        let at = target.clone();
        self.begin(link, async move {
            let result = match timeout(within, link::dial(addr, &host, &security, limit)).await {
                Ok(result) => result.map_err(dial_error),
                Err(_) => Err(DialError::Timeout(within)),
            };
            let result = match result {
                Err(error) => Err(error),
                Ok((connected, connection, local)) => {
                    let login = match login {
                        Some(login) => Some(login.at(at).await),
                        None => None,
                    };
                    Ok((connected, connection, local, login))
                }
            };
            Done::Dialed(link, Box::new(result))
        });
        if let Some(open) = self.open.get_mut(&link) {
            open.addr = Some(addr);
            open.target = Some(target);
        }
    }

    /// Logs in at the server that `link` is connected to. Returns whether it is.
    pub(super) fn log_in(&mut self, link: LinkId) -> bool {
        let open = self.open.get(&link);
        let open = open.filter(|open| open.connection.is_some());
        let target = open.and_then(|open| open.target.clone());
        let (Some(target), Some(login)) = (target, self.network.login.clone()) else {
            return false;
        };
        self.begin(link, async move {
            let result = login.at(target).await;
            Done::Event(Event::LoggedIn { link, result })
        });
        true
    }

    /// Asks the server that `link` is connected to what it knows of a service. Returns whether it is.
    pub(super) fn ask_details(
        &mut self,
        link: LinkId,
        key: ServiceKey,
        token: Option<Secret>,
    ) -> bool {
        let open = self.open.get(&link);
        let open = open.filter(|open| open.connection.is_some());
        let Some(target) = open.and_then(|open| open.target.clone()) else {
            return false;
        };
        let http = self.network.http.clone();
        self.begin(link, async move {
            let told = http.details(&target, &key, token.as_ref()).await;
            Done::Event(Event::Details { link, told })
        });
        true
    }

    pub(super) fn open_stream(&mut self, link: LinkId, first: Payload) {
        let Some(open) = self.open.get_mut(&link) else {
            return;
        };
        let Some((connected, _)) = &open.connection else {
            return;
        };
        let (sender, receiver) = connected.open_stream();
        sender.send(first);
        open.stream = Some(sender);
        self.listen(link, Box::new(receiver));
    }

    pub(super) fn send(&self, link: LinkId, payload: Payload) {
        if let Some(stream) = self.open.get(&link).and_then(|open| open.stream.as_ref()) {
            stream.send(payload);
        }
    }

    pub(super) fn call(&mut self, link: LinkId, call: CallId, payload: Payload, within: Duration) {
        let Some(open) = self.open.get(&link) else {
            return;
        };
        let Some((connected, _)) = &open.connection else {
            return;
        };
        let connected = connected.clone();
        let plain = open.addr.filter(|_| !self.network.security.is_tls());
        self.begin(link, async move {
            let result = match timeout(within, connected.call(payload)).await {
                // Who hangs up on plain words may want to hear TLS.
                Ok(Err(CallError::NotGrpc(link::HUNG_UP))) => {
                    let tls = match plain {
                        Some(addr) => link::speaks_tls(addr).await,
                        None => false,
                    };
                    let what = if tls { link::SPEAKS_TLS } else { link::HUNG_UP };
                    Err(CallFailure::NotGrpc(what))
                }
                Ok(result) => result.map_err(call_failure),
                Err(_) => Err(CallFailure::Timeout),
            };
            Done::Event(Event::Answered { link, call, result })
        });
    }

    /// Closes the connection at once and forgets everything under way on it.
    pub(super) fn hang_up(&mut self, link: LinkId) {
        self.open.remove(&link);
    }

    /// Runs `work` until it is done or its link is hung up.
    fn begin(&mut self, link: LinkId, work: impl Future<Output = Done> + Send + 'static) {
        let open = self.open.entry(link).or_insert_with(|| Open {
            connection: None,
            stream: None,
            alive: watch::Sender::new(()),
            addr: None,
            target: None,
        });
        let mut alive = open.alive.subscribe();
        self.work.push(Box::pin(async move {
            tokio::select! {
                biased;
                done = work => done,
                _ = alive.changed() => Done::Dropped,
            }
        }));
    }

    fn listen(&mut self, link: LinkId, mut receiver: Box<StreamReceiver>) {
        self.begin(link, async move {
            let message = receiver.next().await;
            Done::Streamed(link, receiver, message)
        });
    }

    fn event(&mut self, done: Done) -> Option<Event> {
        match done {
            Done::Event(event) => self.open.contains_key(&event.link()).then_some(event),
            Done::Dialed(link, result) => {
                let open = self.open.get_mut(&link)?; // hung up: the connection drops here
                Some(match *result {
                    Ok((connected, connection, local, login)) => {
                        open.connection = Some((connected, connection));
                        Event::Connected {
                            link,
                            local: local.ip(),
                            login,
                        }
                    }
                    Err(error) => Event::DialFailed { link, error },
                })
            }
            Done::Streamed(link, receiver, message) => {
                self.open.get(&link)?;
                Some(match message {
                    Ok(Some((payload, received))) => {
                        self.listen(link, receiver);
                        Event::Message {
                            link,
                            payload,
                            received,
                        }
                    }
                    Ok(None) => {
                        let reason = "the server ended it".to_owned();
                        Event::StreamEnded { link, reason }
                    }
                    Err(error) => Event::StreamEnded {
                        link,
                        reason: error.to_string(),
                    },
                })
            }
            Done::Dropped => None,
        }
    }
}

impl Event {
    const fn link(&self) -> LinkId {
        match self {
            Self::Resolved { link, .. }
            | Self::Connected { link, .. }
            | Self::LoggedIn { link, .. }
            | Self::Details { link, .. }
            | Self::DialFailed { link, .. }
            | Self::Answered { link, .. }
            | Self::Message { link, .. }
            | Self::StreamEnded { link, .. } => *link,
        }
    }
}

impl Network {
    /// The main port of the configured server whose gRPC port is dialled at `addr`.
    fn target(&self, addr: SocketAddr, host: &Host) -> Target {
        let server = self.servers.iter().find(|server| {
            let grpc = server.grpc();
            grpc.host == *host && grpc.port == addr.port()
        });
        let main = server.map_or_else(|| addr.port(), ServerAddress::main_port);
        Target {
            addr: SocketAddr::new(addr.ip(), main),
            host: host.clone(),
            authority: Address::new(host.clone(), main).to_string(),
        }
    }
}

fn dial_error(error: link::DialError) -> DialError {
    use std::io::ErrorKind;
    match error {
        link::DialError::Tcp(error) => match error.kind() {
            ErrorKind::ConnectionRefused => DialError::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                DialError::Unreachable(error.to_string())
            }
            _ => DialError::Other(error.to_string()),
        },
        link::DialError::Tls(text) => DialError::Tls(text),
        link::DialError::Http2(error) => DialError::NotHttp2(error.to_string()),
    }
}

fn call_failure(error: CallError) -> CallFailure {
    match error {
        CallError::Lost(reason) => CallFailure::Lost(reason),
        CallError::NotGrpc(what) => CallFailure::NotGrpc(what),
        CallError::TooLarge { .. } => CallFailure::TooLarge(error.to_string()),
        CallError::Status { code, message } => CallFailure::Status { code, message },
    }
}
