use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use super::error::{EachServer, OperationError, ServerFailure};
use crate::{
    model::{Address, Host, Instance, Listing, Origin, ServiceFilter, ServiceKey, ServiceName},
    wire::Payload,
};

/// One attempt to connect and the connection that comes of it. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(super) u64);

#[cfg(test)]
impl LinkId {
    pub(crate) const fn of(number: u64) -> Self {
        Self(number)
    }
}

impl LinkId {
    /// Its number: later connections have higher ones.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }
}

/// One unary call. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId(pub(super) u64);

/// A caller who waits for an outcome; made by the driver, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// What the users of the client want. Intent, not traffic: the session settles it with whatever
/// server it is connected to, now and after every reconnect.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// From now on lists of `key` are wanted. The first list since this command comes as
    /// [`Origin::FirstAnswer`], or as a push that overtook that answer.
    Subscribe(ServiceKey),
    /// A list of `key`, which is subscribed, is wanted now; it comes as [`Origin::Read`], or as the
    /// first answer if there was none, even if the server refused it for good.
    Refresh(ServiceKey),
    /// From now on they are not.
    Unsubscribe(ServiceKey),
    /// Publish `instance` as the one instance of this client in `key`, in place of what it
    /// publishes at the same address. The ticket is done when a server confirmed it; from then on it is redone on each new connection.
    Register {
        ticket: Ticket,
        key: ServiceKey,
        instance: Box<Instance>,
    },
    /// Publish exactly these in `key`, in place of whatever this client publishes there.
    RegisterBatch {
        ticket: Ticket,
        key: ServiceKey,
        instances: Vec<Instance>,
    },
    /// Register a persistent instance, or take it back; once, since servers keep it.
    Persist {
        ticket: Ticket,
        key: ServiceKey,
        instance: Box<Instance>,
        on: bool,
    },
    /// The ticket is done when the server confirmed that it is gone, and fails when the connection
    /// that carried the publication is lost before.
    Deregister { ticket: Ticket, key: ServiceKey },
    /// Read a list once, subscribed or not.
    Query { ticket: Ticket, key: ServiceKey },
    /// Read the names of a group's services; pages count from 1.
    List {
        ticket: Ticket,
        group: Arc<str>,
        page: u32,
        page_size: u32,
    },
    /// From now on it is wanted which services there are that the filter takes. What was known of
    /// them before does not count.
    Watch(ServiceFilter),
    /// From now on it is not.
    Unwatch(ServiceFilter),
    /// The caller waits no longer. A read is forgotten; a publication stays wanted.
    Cancel(Ticket),
    /// Deregister and unsubscribe everything, then hang up.
    Close,
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// Resolve a host name and call `handle_resolved` with `server` and all addresses.
    Resolve {
        link: LinkId,
        server: usize,
        name: Arc<str>,
        port: u16,
    },
    /// Dial, and call `handle_connected` after the HTTP/2 handshake. `host` is the configured one,
    /// for the name of a certificate.
    Dial {
        link: LinkId,
        addr: SocketAddr,
        host: Host,
        timeout: Duration,
    },
    /// Open the bi-stream with this first message.
    OpenStream { link: LinkId, payload: Payload },
    /// Send on the stream that is open.
    StreamSend { link: LinkId, payload: Payload },
    /// Make a unary call. The session has its own timer for `timeout`; an answer that comes later
    /// is ignored.
    Call {
        link: LinkId,
        call: CallId,
        payload: Payload,
        timeout: Duration,
        /// What it is about, `group@@service`, if it is to be signed.
        signed: Option<String>,
    },
    /// Close the connection, or stop dialling. Nothing more is said of this link.
    Hangup { link: LinkId },
    /// A list of a service that is wanted, and the connection that it came on.
    Listing {
        link: LinkId,
        key: ServiceKey,
        listing: Listing,
        origin: Origin,
    },
    /// Which services there are that a filter takes, and the connection that it came on.
    Services {
        link: LinkId,
        filter: ServiceFilter,
        names: Names,
    },
    /// Something stands in the way of that.
    ServicesTrouble {
        filter: ServiceFilter,
        trouble: Trouble,
    },
    /// Something that cannot be read came, about one service or (`None`) who knows which. The last
    /// list stands; a read follows by itself.
    Undecodable {
        key: Option<ServiceKey>,
        reason: String,
    },
    /// A request for a service failed. Without `retries` it is not sent again on this connection.
    Failed {
        key: ServiceKey,
        operation: Operation,
        error: OperationError,
        retries: bool,
    },
    /// What is registered for an instance that left its address to be found.
    Placed { key: ServiceKey, placed: Placed },
    /// The names of a group's services were denied. They are asked for once more, with the next
    /// headers if some come.
    ListDenied { group: Arc<str> },
    /// The end of what a caller waits for.
    Done {
        ticket: Ticket,
        outcome: Result<Outcome, OperationError>,
    },
    /// Not connected, no server is left untried, and one says of user and password what no server
    /// says that is just starting. The session goes on trying.
    LoginRefused(EachServer),
    /// The connection's state changed.
    State(SessionState),
}

/// Which services there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// These are all. Not `certain` if one may have been missed, since the list was read in pages.
    All {
        names: BTreeSet<ServiceName>,
        certain: bool,
    },
    /// These are there, among others.
    Some(Vec<ServiceName>),
    /// This one went.
    Gone(ServiceName),
}

/// What stands in the way of knowing which services there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server watches as many patterns as it may (50310): pages are read.
    TooManyPatterns,
    /// More services match than the server tells of (50311): pages are read.
    TooManyMatches,
    /// The server began to tell and did not end, again and again: pages are read.
    Unfinished,
    /// The pages have not as many names as the server counts: they are read again.
    Uneven { count: u64, names: u64 },
    /// A request failed. Without `retries` it is not sent again on this connection.
    Failed {
        error: OperationError,
        retries: bool,
    },
}

/// What became of an address that was to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It is this one from now on.
    At {
        wanted: Address,
        found: Address,
        /// In place of this one.
        before: Option<Address>,
    },
    /// There is none any more: it is registered with the last one.
    Lost { last: Address, cause: String },
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Subscribe,
    Unsubscribe,
    Read,
    Register,
    Deregister,
}

/// How the connection is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SessionState {
    /// Not connected. `attempt` counts from 1 since the last connection, `last_error` says why
    /// that one ended or the last attempt failed.
    Connecting {
        attempt: u32,
        last_error: Option<ServerFailure>,
    },
    /// Registered with a server. Said again when the session moved to another one.
    Connected {
        link: LinkId,
        server: SocketAddr,
        connection_id: Option<String>,
    },
    /// Closed for good.
    Closed,
}

/// What an operation brought.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Registered or deregistered.
    Done,
    /// The list, if the answer carried one.
    Listing(Option<Listing>),
    /// A page of names, and how many there are in all.
    Names { count: u64, names: Vec<String> },
}

/// What the session saw and did not pass on, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionCounters {
    /// Connections that were registered.
    pub(crate) connections: u64,
    /// Registered connections that were lost.
    pub(crate) connections_lost: u64,
    /// Attempts to connect that failed.
    pub(crate) failed_attempts: u64,
    /// Pushes for services that are wanted.
    pub(crate) pushes: u64,
    /// Pushes for services that nobody asked for.
    pub(crate) unwanted_pushes: u64,
    /// Pushes and answers that could not be read.
    pub(crate) undecodable: u64,
    /// Reads dropped because a push was near.
    pub(crate) dropped_reads: u64,
    /// Pushes whose stamp was lower than that of the push before, on one connection. Applied.
    pub(crate) lower_stamps: u64,
}
