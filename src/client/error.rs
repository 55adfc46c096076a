use std::{fmt, sync::Arc, time::Duration};

use super::server_address::InvalidServer;
use crate::{
    model::{Address, InvalidName, ServiceFilter, ServiceKey},
    session::OperationError,
};

/// Why a client could not be made. Nothing is left running.
///
/// Example: [a client](crate::client)
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A server's address cannot be read.
    #[error(transparent)]
    InvalidServer(#[from] InvalidServer),
    /// The namespace breaks Nacos's rules.
    #[error(transparent)]
    InvalidNamespace(InvalidName),
    /// The default group breaks Nacos's rules.
    #[error(transparent)]
    InvalidGroup(InvalidName),
    /// Options that cannot be read, or that contradict each other.
    #[error(transparent)]
    InvalidConfig(#[from] ConfigError),
    /// There is no tokio runtime for the client to live on.
    #[error(
        "a client needs a tokio runtime: build it inside of one, enter one first, or give it a thread of its own (`own_thread`)"
    )]
    NoRuntime,
    /// The thread that the client was to have for itself (`own_thread`) could not be started.
    #[error("a client's own thread could not be started: {0}")]
    NoThread(Arc<str>),
    /// Every server was tried, and the user name or the password is refused: in words that no
    /// starting server has, or until the time was over. Never shows the password.
    #[error("no connection to the registry: {message}")]
    LoginRefused {
        /// What each server said.
        message: Arc<str>,
    },
    /// No server could be connected to in time.
    #[error("{}", timed_out("no connection to the registry", *after, last_error.as_deref()))]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// What the last attempt met.
        last_error: Option<Arc<str>>,
    },
}

/// What is wrong with a client's options. Never shows a password.
///
/// Example: [options as data](crate::client::Config)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(Box<str>);

/// Why a request to the registry came to nothing.
///
/// Example: [a client](crate::client)
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The service's name breaks Nacos's rules. Nothing was sent.
    #[error(transparent)]
    InvalidName(InvalidName),
    /// The server said no. To the same request it says so again if the code is 400 (a bad parameter), 502 (a message
    /// that it cannot read) or 302 (a type that it does not know; one that is starting says that, too). With any
    /// other code, 500 and 503 among them, the same request may succeed later.
    #[error("the registry refused with code {code}: {message}")]
    Refused {
        /// Nacos's error code.
        code: i32,
        /// The server's words.
        message: String,
    },
    /// The server wants a login, or this user may not touch the service (code 403).
    #[error(
        "the registry denied access: {message}; it wants a login (`ClientBuilder::login`), or this user may not touch the service"
    )]
    Denied {
        /// The server's words.
        message: String,
    },
    /// No answer in time.
    #[error("{}", timed_out("the registry did not fulfil the request", *after, last_error.as_deref()))]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// What stands in the way, as far as is known: why there is no connection, say.
        last_error: Option<Arc<str>>,
    },
    /// The instance has port 0, which nobody can call. Nothing was sent.
    #[error("instance {0} has port 0; register the port that is listened on")]
    NoPort(Address),
    /// The instance has an address that nobody can call: unspecified (`0.0.0.0`, `[::]`),
    /// link-local, or a group's. Nothing was sent.
    #[error("instance {address} cannot be called by anybody: {what}")]
    Uncallable {
        /// Its address.
        address: Address,
        /// What is wrong with it, and what to do.
        what: &'static str,
    },
    /// The instance left its address to be found ([`Instance::on_port`](crate::Instance::on_port)),
    /// and this machine has none that others could call. Nothing was sent.
    #[error("no address can be registered for {instance}: {what}")]
    NoOwnAddress {
        /// What was asked for.
        instance: Address,
        /// What there is instead, and what to do.
        what: Arc<str>,
    },
    /// This client registers another instance in the service. Nothing changed.
    #[error(
        "this client already registers {0} in this service, and a Nacos server keeps one instance per connection and service: deregister it first, or register from a second client"
    )]
    AlreadyRegistered(Address),
    /// The instance is marked as persistent, and this registers ephemeral ones. Nothing was sent.
    #[error(
        "instance {0} is marked as persistent (`ephemeral: false`), but this registers ephemeral instances, which live as long as the client: leave the mark out, or use `register_persistent`"
    )]
    NotEphemeral(Address),
    /// The connection was lost before the registry confirmed that the instance is gone: it may list
    /// it until it notices that, within 30 s as a rule (26 s measured for a client that froze), and
    /// 180 s if its node was lost as well. Nothing is left that could be repeated.
    #[error(
        "the connection was lost before the registry confirmed that {} is gone: it may list it until it notices that, within 30 s as a rule, and 180 s if its node was lost, too",
        listed(instances)
    )]
    Unconfirmed {
        /// What may still be listed: the address, or those of a batch.
        instances: Vec<Address>,
    },
    /// A batch without instances, which a server would ignore: deregister instead. Nothing was sent.
    #[error("a batch of no instances; to register nothing, deregister")]
    EmptyBatch,
    /// More services than may be watched at once. None is.
    #[error(
        "{filter} takes {services} services, and {limit} are watched at most: narrow the filter, or raise the limit (`watch_all_up_to`)"
    )]
    TooManyServices {
        /// What was to be watched.
        filter: ServiceFilter,
        /// How many it takes.
        services: usize,
        /// How many are watched at most.
        limit: usize,
    },
    /// This client registers nothing in the service.
    #[error("this client registers nothing in this service")]
    NotRegistered,
    /// Anything else that came in place of an answer: one of another type, or one that cannot be read. The
    /// text names it. Whether the server carried the request out is not known.
    #[error("{0}")]
    Failed(String),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
    /// The runtime that the client lived on is gone. Subscriptions serve what they knew last.
    #[error("the tokio runtime that this client lived on is gone; build a new client")]
    RuntimeGone,
}

/// What [`Client::close`](super::Client::close) could not do in time.
///
/// Example: [a client](crate::client)
#[derive(Clone, Debug)]
pub struct CloseError {
    still_registered: Vec<ServiceKey>,
    runtime_gone: bool,
}

impl ConnectError {
    pub(super) fn no_thread(error: std::io::Error) -> Self {
        Self::NoThread(error.to_string().into())
    }
}

impl ConfigError {
    /// One option, and where it was given.
    pub(super) fn option(place: &str, what: &str) -> Self {
        Self(format!("invalid Nacos client option {place}: {what}").into())
    }

    pub(super) fn contradiction(what: impl AsRef<str>) -> Self {
        Self(
            format!(
                "the Nacos client's options do not fit together: {}",
                what.as_ref()
            )
            .into(),
        )
    }

    pub(super) fn url(what: String) -> Self {
        Self(format!("invalid Nacos URL: {what}").into())
    }
}

impl ConnectError {
    /// Whether time ran out; the same call may succeed later.
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// Whether the registry wants other credentials.
    pub const fn is_denied(&self) -> bool {
        matches!(self, Self::LoginRefused { .. })
    }
}

impl RequestError {
    /// Whether time ran out; the same call may succeed later.
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// Whether the registry wants other credentials.
    pub const fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// Whether this client can never do anything again.
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed | Self::RuntimeGone)
    }
}

impl CloseError {
    pub(super) const fn new(still_registered: Vec<ServiceKey>) -> Self {
        Self {
            still_registered,
            runtime_gone: false,
        }
    }

    pub(super) const fn runtime_gone() -> Self {
        Self {
            still_registered: Vec::new(),
            runtime_gone: true,
        }
    }

    /// Services in which this client's instance may be listed until the server notices that the
    /// connection is gone.
    pub fn still_registered(&self) -> &[ServiceKey] {
        &self.still_registered
    }
}

impl From<OperationError> for RequestError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Refused(refusal) => Self::Refused {
                code: refusal.code,
                message: refusal.message,
            },
            OperationError::Denied(refusal) => Self::Denied {
                message: refusal.message,
            },
            OperationError::TimedOut(after) => Self::TimedOut {
                after,
                last_error: None,
            },
            OperationError::AlreadyRegistered(addresses) => {
                let text = OperationError::AlreadyRegistered(addresses.clone()).to_string();
                addresses
                    .into_first()
                    .map_or(Self::Failed(text), Self::AlreadyRegistered)
            }
            OperationError::NoOwnAddress { instance, what } => Self::NoOwnAddress {
                instance,
                what: what.into(),
            },
            OperationError::NotRegistered => Self::NotRegistered,
            OperationError::Unconfirmed(addresses) => Self::Unconfirmed {
                instances: addresses.into_all(),
            },
            OperationError::Closed => Self::Closed,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.runtime_gone {
            return f.write_str("the tokio runtime that this client lived on is gone");
        }
        f.write_str("closed before the registry confirmed the deregistration from ")?;
        for (at, key) in self.still_registered.iter().enumerate() {
            write!(f, "{}{key}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str(
            ": it may list this client's instances there until it notices that the connection is gone, within 30 s as a rule, and 180 s if its node was lost, too",
        )
    }
}

impl std::error::Error for CloseError {}

fn listed(addresses: &[Address]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

fn timed_out(what: &str, after: Duration, last_error: Option<&str>) -> String {
    match last_error {
        Some(error) => format!("{what} within {after:?}: {error}"),
        None => format!("{what} within {after:?}"),
    }
}
