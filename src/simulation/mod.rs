//! One client without sockets, tasks and clock: for `tests/simulation.rs` only.
//!
//! The session's machine and the local copies, wired as the driver wires them.

mod client;
mod files;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;

pub use self::{
    client::SimClient,
    files::{Fate, Files, Write},
};
use crate::{
    model::{Origin, ServiceKey},
    session,
};

/// A connection, from the look for addresses on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimLink(session::LinkId);

/// A unary call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call(session::CallId);

/// What the network is to do, in this order.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "not for users")]
pub enum Action {
    /// Resolve a name.
    Resolve {
        /// For this attempt.
        link: SimLink,
        /// Which of the configured servers.
        server: usize,
        /// Its name.
        name: Arc<str>,
        /// The port of all its addresses.
        port: u16,
    },
    /// Dial.
    Dial {
        /// What the connection will be called.
        link: SimLink,
        /// Whom.
        addr: SocketAddr,
    },
    /// Open the stream, with this first message.
    OpenStream {
        /// On which connection.
        link: SimLink,
        /// The message.
        payload: Bytes,
    },
    /// Send on the stream.
    Send {
        /// On which connection.
        link: SimLink,
        /// The message.
        payload: Bytes,
    },
    /// Make a unary call.
    Call {
        /// On which connection.
        link: SimLink,
        /// What its answer is to be called.
        call: Call,
        /// The request.
        payload: Bytes,
        /// The driver's own limit, after which it reports a timeout.
        timeout: Duration,
    },
    /// Log in once more at the server of this connection.
    LogIn {
        /// Which.
        link: SimLink,
    },
    /// Read the file of a service.
    ReadFile {
        /// Of which.
        key: ServiceKey,
        /// What its answer is to be called.
        number: u64,
    },
    /// Write the file of a service.
    WriteFile(Write),
    /// Close the connection or stop dialling.
    Hangup {
        /// Which.
        link: SimLink,
    },
}

/// What the client did with what came.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "not for users")]
pub enum Note {
    /// A list went to a service's copy.
    Listed {
        /// Of which service.
        key: ServiceKey,
        /// How the session said that it came.
        origin: Origin,
        /// On which connection.
        link: SimLink,
    },
    /// What a file had went to a service's copy.
    Restored {
        /// Of which service.
        key: ServiceKey,
    },
    /// An operation ended.
    Done {
        /// Which.
        ticket: u64,
        /// Or why not.
        result: Result<(), String>,
    },
    /// A request for a service was refused or failed.
    Failed {
        /// Of which service.
        key: ServiceKey,
        /// What for, and why.
        what: String,
        /// Whether it will be sent again on this connection.
        retries: bool,
    },
    /// A list of services cannot be had as it should.
    ServicesFailed {
        /// Of which filter, and why.
        what: String,
        /// Whether it will be asked for again on this connection.
        retries: bool,
    },
    /// Connected to this server.
    Connected(SocketAddr),
    /// Not connected, and why.
    Connecting(String),
    /// Closed for good.
    Closed,
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "not for users")]
pub enum Failure {
    /// Nothing came in time.
    Timeout,
    /// The connection broke.
    Lost,
    /// A gRPC status came.
    Status(i32),
}

/// How a client differs from the default.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "not for users")]
pub struct Settings {
    /// How often a service is read when no push comes.
    pub safety_read: Option<Duration>,
    /// Whether there is a user to log in as.
    pub login: bool,
}

/// What a login brings: the token, and how long it lives.
pub type Token = (String, Duration);
