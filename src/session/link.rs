use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    config::Headers,
    dialer::Candidate,
    error::DialError,
    event::{CallId, LinkId},
    pace::Pace,
};

/// An attempt to connect, from the first look for addresses until the server has registered the
/// connection.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: LinkId,
    pub(super) step: Step,
    /// Names that have not resolved yet.
    pub(super) resolving: usize,
    pub(super) found: Vec<Candidate>,
    /// Why names did not resolve.
    pub(super) unresolved: Option<(usize, String)>,
    /// The one that was chosen.
    pub(super) candidate: Option<Candidate>,
    pub(super) local: Option<IpAddr>,
    pub(super) connection_id: Option<String>,
    /// Headers of naming requests on this connection, if it has its own: a login's token.
    pub(super) headers: Option<Headers>,
    /// Why the login failed. The server may want none: that is asked once it has registered us.
    pub(super) login_failed: Option<DialError>,
    /// Whether that was asked.
    pub(super) on_trial: bool,
    /// Whether the server said that it would acknowledge the setup.
    pub(super) negotiates: bool,
    pub(super) acknowledged: bool,
    /// Whether the server said that it tells of services by patterns.
    pub(super) fuzzy_watch: bool,
    /// The health check under way, that asks whether the connection is registered.
    pub(super) poll: Option<CallId>,
    /// How often that was asked.
    pub(super) polls: u32,
    pub(super) pace: Pace,
}

/// How far an attempt has come; the order is that of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Resolve,
    Dial,
    Check,
    /// The setup is sent; waiting for its acknowledgement and for a unary call that is registered.
    Register,
}

/// A connection that a server has registered.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) server: String,
    pub(super) addr: SocketAddr,
    pub(super) local: Option<IpAddr>,
    /// Whether the server tells of services by patterns.
    pub(super) fuzzy_watch: bool,
    /// Whether it acknowledged the setup: only Alibaba's do, from 2.3 on.
    pub(super) negotiates: bool,
    pub(super) since: Instant,
    /// When something went to the server last.
    pub(super) last_sent: Instant,
    /// When the server answered a unary call last.
    pub(super) last_answer: Instant,
    /// Unanswered calls in a row.
    pub(super) failed_tries: u32,
    /// When the last of them was counted.
    counted: Option<Instant>,
    /// The health check under way.
    pub(super) health: Option<CallId>,
    pub(super) pace: Pace,
}

impl Attempt {
    pub(super) fn new(id: LinkId) -> Self {
        Self {
            id,
            step: Step::Resolve,
            resolving: 0,
            found: Vec::new(),
            unresolved: None,
            candidate: None,
            local: None,
            connection_id: None,
            headers: None,
            login_failed: None,
            on_trial: false,
            negotiates: false,
            acknowledged: false,
            fuzzy_watch: false,
            poll: None,
            polls: 0,
            pace: Pace::default(),
        }
    }
}

impl Link {
    pub(super) fn new(id: LinkId, server: String, addr: SocketAddr, now: Instant) -> Self {
        Self {
            id,
            server,
            addr,
            local: None,
            fuzzy_watch: false,
            negotiates: false,
            since: now,
            last_sent: now,
            last_answer: now,
            failed_tries: 0,
            counted: None,
            health: None,
            pace: Pace::default(),
        }
    }

    /// The server answered.
    pub(super) const fn answered(&mut self, now: Instant) {
        self.last_answer = now;
        self.failed_tries = 0;
    }

    /// A call sent at `sent` went unanswered. Calls that were under way together are one try.
    pub(super) fn unanswered(&mut self, sent: Instant, now: Instant) -> u32 {
        if self.counted.is_none_or(|counted| sent >= counted) {
            self.counted = Some(now);
            self.failed_tries += 1;
        }
        self.failed_tries
    }
}
