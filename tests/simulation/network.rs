//! Connections between clients and servers, message by message.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tower_nacos::{
    model::ServiceKey,
    simulation::{Call, SimLink, Token, Write},
    testing::{ConnId, StreamEnd},
};

use crate::plan::Step;

/// What happens next.
#[derive(Debug)]
pub(crate) enum Event {
    Resolve {
        client: usize,
        link: SimLink,
        server: usize,
        port: u16,
    },
    /// A dial arrives at the server's port.
    Dial {
        client: usize,
        link: SimLink,
    },
    Connected {
        client: usize,
        link: SimLink,
        token: Option<Token>,
    },
    /// A client logs in once more, on a connection that stands.
    LogIn {
        client: usize,
        link: SimLink,
    },
    LoggedIn {
        client: usize,
        link: SimLink,
        token: Option<Token>,
    },
    Refused {
        client: usize,
        link: SimLink,
    },
    ToServer {
        client: usize,
        link: SimLink,
        up: Up,
    },
    ToClient {
        client: usize,
        link: SimLink,
        down: Down,
    },
    /// The disk has read a file.
    FileRead {
        client: usize,
        key: ServiceKey,
        number: u64,
    },
    /// The disk comes to write a file.
    FileWrite {
        client: usize,
        write: Write,
    },
    ServerUp(usize),
    ClearScripts(usize),
    /// A provider that lost its server registers again.
    Return(usize),
    /// A server hears from another one how a provider stands.
    Replicate {
        server: usize,
        provider: usize,
    },
    /// The servers give up the provider of a lost server.
    Forget(usize),
    Calmer(usize),
    /// A client gives up every service and wants it again, as a process that starts.
    Starts(usize),
    /// A provider that stopped starts again.
    Start(usize),
    /// A client's newest connection breaks.
    Break(usize),
    /// The users, the operators or fate do something.
    Step(Step),
    /// Nothing goes wrong from now on.
    EndOfFaults,
}

/// A message to a server.
#[derive(Debug)]
pub(crate) enum Up {
    Open,
    Stream(Bytes),
    OpenStream(Bytes),
    Call(Call, Bytes),
    /// The client hung up, or what is between broke.
    Close,
    /// The same, noticed by the server alone, long after.
    Noticed,
}

/// A message to a client.
#[derive(Debug)]
pub(crate) enum Down {
    Answer(Call, Bytes),
    Fail(Call, i32),
    Stream(Bytes),
    StreamEnd(StreamEnd),
    Broken,
}

/// One transport.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) server: usize,
    /// Which life of the server it was opened in.
    pub(crate) epoch: u32,
    pub(crate) conn: Option<ConnId>,
    pub(crate) hung_up: bool,
    /// The client knows that it broke.
    pub(crate) broken: bool,
    /// Whatever is sent on it gets lost.
    pub(crate) cut: bool,
    pub(crate) streaming: bool,
    /// The client was asked to leave it.
    pub(crate) reset: bool,
    pub(crate) calls: BTreeSet<Call>,
    /// Streams keep their order.
    pub(crate) last_up: Instant,
    pub(crate) last_down: Instant,
}

impl Wire {
    pub(crate) fn new(server: usize, epoch: u32, now: Instant) -> Self {
        Self {
            server,
            epoch,
            conn: None,
            hung_up: false,
            broken: false,
            cut: false,
            streaming: false,
            reset: false,
            calls: BTreeSet::new(),
            last_up: now,
            last_down: now,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.hung_up
    }
}

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SEC: Duration = Duration::from_secs(1);
