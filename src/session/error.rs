use std::{fmt, time::Duration};

use crate::{
    model::{Address, Instance},
    wire::ServerError,
};

/// Why a dial failed, as the driver saw it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    #[error(
        "connection refused: nothing listens on this port; Nacos 2.0 and later speak gRPC on their main port + 1000 (9848 by default), which must be open too"
    )]
    Refused,
    #[error("unreachable ({0}): check the address, routes and firewalls")]
    Unreachable(String),
    #[error(
        "no answer to the dial within {0:?}: a firewall drops the packets, or the host is down"
    )]
    Timeout(Duration),
    /// The text says why and what to do.
    #[error("{0}")]
    Tls(String),
    /// The peer speaks, but not HTTP/2.
    #[error(
        "the port does not speak HTTP/2 ({0}): it may be the HTTP port; give the gRPC port, which is the main port + 1000, or the main port alone"
    )]
    NotHttp2(String),
    /// The connection was there; the user or the password is not right. The text says all.
    #[error("{0}")]
    LoginRefused(String),
    /// The same, in words that a server also uses while it is starting and knows no users yet.
    #[error("{0}")]
    LoginDoubted(String),
    #[error("{0}")]
    Other(String),
}

/// Why a unary call brought no answer, as the driver saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallFailure {
    /// Nothing came in time.
    Timeout,
    /// The connection broke.
    Lost(String),
    /// What the peer says shows that it is no gRPC server; the text says what it is.
    NotGrpc(&'static str),
    /// The peer answered with a gRPC status instead of a message.
    Status { code: i32, message: String },
    /// The answer is larger than the decode limit; the text names size and option.
    TooLarge(String),
}

/// Why an attempt to connect failed, or a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("no server is configured")]
    NoServers,
    #[error("its name cannot be resolved: {0}")]
    Resolve(String),
    #[error("{0}")]
    Dial(DialError),
    #[error("no answer to the server check within {0:?}: it may be overloaded, or no Nacos server")]
    CheckTimeout(Duration),
    #[error(
        "the server is still starting or not in service ({0}): it is tried again until it is up, and so are the others that are configured"
    )]
    Starting(String),
    #[error("no Nacos server answers there: {0}")]
    NotNacos(String),
    #[error("the server check was refused: {0}")]
    CheckRefused(ServerError),
    #[error(
        "the server did not acknowledge the setup within {0:?}, although it said that it would"
    )]
    NotAcknowledged(Duration),
    #[error(
        "the server did not register the connection within {0:?}; if it never does, an L7 proxy splits the connection; use TCP"
    )]
    NotRegistered(Duration),
    #[error(
        "the setup was acknowledged but a unary call is not registered (301): an L7 proxy splits the connection; use TCP"
    )]
    ProxySplits,
    #[error("the server turned the connection away ({0}): it is starting, or over its limit")]
    TurnedAway(String),
    #[error("the stream ended: {0}")]
    StreamEnded(String),
    #[error("the connection broke: {0}")]
    Lost(String),
    #[error(
        "the server no longer knows the connection ({0}); if this repeats at once, an L7 proxy splits the connection; use TCP"
    )]
    Unregistered(ServerError),
    #[error("the server left {tries} calls in a row unanswered")]
    Silent { tries: u32 },
}

/// A [`LinkError`] and the server that it was met on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct ServerFailure {
    /// As configured, with the address if that was a name. `None` before a server was chosen.
    pub(crate) server: Option<String>,
    #[source]
    pub(crate) error: LinkError,
}

/// What `connect` reports when its deadline passes: nothing is wrong with the session, which goes
/// on trying.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct ConnectError {
    /// How many attempts have begun.
    pub(crate) attempts: u32,
    /// Why the last one that ended failed.
    pub(crate) last: Option<ServerFailure>,
    /// What other servers met last.
    pub(crate) others: EachServer,
    /// What the attempt under way waits for.
    pub(crate) waiting_for: Option<String>,
}

/// What each of several servers met last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EachServer(pub(crate) Vec<ServerFailure>);
/// The addresses of one publication. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses(Vec<Address>);

impl Addresses {
    pub(super) fn of(instances: &[Instance]) -> Self {
        let addresses = instances.iter().map(Instance::address);
        Self(addresses.cloned().collect())
    }

    pub(super) fn from_iter(addresses: impl Iterator<Item = Address>) -> Self {
        Self(addresses.collect())
    }

    /// The first, which stands for all of them where there is room for one.
    pub(crate) fn into_first(self) -> Option<Address> {
        self.0.into_iter().next()
    }

    pub(crate) fn into_all(self) -> Vec<Address> {
        self.0
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Why an operation brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OperationError {
    /// The server said no: 400 the parameters, 302 the type, 502 the encoding, others for now.
    #[error("{0}")]
    Refused(ServerError),
    /// Code 403.
    #[error(
        "access denied: {0}; the server wants a login, or this user may not touch the namespace"
    )]
    Denied(ServerError),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// A gRPC status instead of an answer.
    #[error("the call failed with gRPC status {code}: {message}")]
    Status { code: i32, message: String },
    #[error("{0}")]
    TooLarge(String),
    #[error("the answer cannot be used: {0}")]
    Undecodable(String),
    /// Nothing changed: the first registration stands.
    #[error(
        "this client already registers {0} in this service, and a Nacos server keeps one instance per connection and service: deregister it first, or register from a second client"
    )]
    AlreadyRegistered(Addresses),
    /// The instance left its address to be found, and there is none. Nothing was sent.
    #[error("{instance} has no address: {what}")]
    NoOwnAddress { instance: Address, what: String },
    /// The server cannot tell which services there are, and why.
    #[error("{0}")]
    Unlistable(&'static str),
    #[error("this client registers nothing in this service")]
    NotRegistered,
    #[error("deregistered before a server confirmed the registration")]
    Superseded,
    /// What may still be listed.
    #[error(
        "the connection was lost before the registry confirmed that {0} is gone: it may list it until it notices that, within 30 s as a rule, and 180 s if its node was lost, too"
    )]
    Unconfirmed(Addresses),
    #[error("the client is closed")]
    Closed,
}

impl fmt::Display for ServerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(f, "Nacos server {server}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.attempts == 1 { "" } else { "s" };
        write!(f, "not connected after {} attempt{plural}", self.attempts)?;
        if let Some(last) = &self.last {
            write!(f, "; the last failed: {last}")?;
        }
        if !self.others.0.is_empty() {
            write!(f, "; before it: {}", self.others)?;
        }
        if let Some(waiting_for) = &self.waiting_for {
            write!(f, "; now waiting for {waiting_for}")?;
        }
        Ok(())
    }
}

impl fmt::Display for EachServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        for (at, failure) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{failure}", if at == 0 { "" } else { "; " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl OperationError {
    /// From the refusal of a server.
    pub(super) fn refused(error: ServerError) -> Self {
        if is_denial(&error) {
            Self::Denied(error)
        } else {
            Self::Refused(error)
        }
    }

    /// Whether what failed so is asked for again on this connection. A server that is starting may
    /// not know the type of a request yet.
    pub(super) const fn is_asked_again(&self) -> bool {
        match self {
            Self::Refused(error) if error.code == 302 => true,
            _ => !self.is_permanent(),
        }
    }

    /// Whether the same request can only fail the same way on this server: a bad parameter (400),
    /// an unknown type (302, which a server that is starting says as well, so it is asked again,
    /// seldom), a message that it cannot read (502).
    pub(crate) const fn is_permanent(&self) -> bool {
        match self {
            Self::Refused(error) => matches!(error.code, 302 | 400 | 502),
            Self::AlreadyRegistered(_)
            | Self::NotRegistered
            | Self::Unlistable(_)
            | Self::NoOwnAddress { .. }
            | Self::Superseded
            | Self::Unconfirmed(_)
            | Self::Closed => true,
            _ => false,
        }
    }

    /// Whether the server answered no, or was not asked: nothing changed there.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::Denied(_) | Self::NoOwnAddress { .. } | Self::Unlistable(_)
        )
    }

    /// Whether the server wants other credentials.
    pub(crate) const fn is_denied(&self) -> bool {
        matches!(self, Self::Denied(_))
    }
}

/// Whether a server wants other credentials: 403, or −403 from what stands before some of them.
pub(super) const fn is_denial(error: &ServerError) -> bool {
    matches!(error.code, 403 | -403)
}
