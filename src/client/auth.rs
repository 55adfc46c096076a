//! The life of a token: when to learn a new one, and for whom. Time is an argument.
//!
//! A token belongs to the client: whichever server gave it, the next connection tries it first. A
//! server that restarted takes what it signed before, long before it knows its users again
//! (genuine 3.1.0: 5.1 s after it is up, measured).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};

#[cfg(feature = "ram")]
use super::ram::Signer;
use super::secret::Secret;
use crate::{model::ServiceKey, session::LinkId};

/// No login follows another, on a 403's account, sooner than this: a token that young has not
/// expired, so the server means the user.
const PAUSE: Duration = Duration::from_secs(3);
/// Nor does one service cause two logins within this: a user who may not touch it stays so.
const PAUSE_OF_ONE: Duration = Duration::from_secs(60);
/// The longest wait after failed refreshes.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A server that says that its tokens live for less has said nothing (0, usually): the token is
/// used until it is refused, and renewed after [`UNSAID`].
const LEAST_TTL: Duration = Duration::from_secs(1);
const UNSAID: Duration = Duration::from_secs(60);

/// What a login brought. `Debug` does not show the token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(super) proof: Proof,
    pub(super) ttl: Duration,
}

/// What shows a server who asks.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// The same text with each request.
    Text(Secret),
    /// A signature of each.
    #[cfg(feature = "ram")]
    Signer(Signer),
}

/// How a client with a user name stands with its servers.
#[derive(Debug)]
pub(crate) struct Auth {
    rng: StdRng,
    held: Option<Held>,
    /// The connection in use.
    link: Option<At>,
    /// When to learn the next token.
    due: Option<Instant>,
    under_way: bool,
    /// Logins in a row that failed on this connection.
    failures: u32,
    /// What caused a login on this connection, and when.
    denied: BTreeMap<Subject, Instant>,
    /// What waits for the login under way, or the next.
    waiting: BTreeSet<Subject>,
}

/// The token in use.
#[derive(Debug)]
struct Held {
    token: Token,
    learned: Instant,
    /// The connection whose server gave it.
    from: LinkId,
}

#[derive(Clone, Copy, Debug)]
struct At {
    id: LinkId,
    /// Whether a naming request was answered well there, with the token as it is.
    accepted: bool,
}

/// What a request that was denied is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Service(ServiceKey),
    /// The names of a group's services.
    List(Arc<str>),
}

/// What follows from a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Log in; the subject waits for it.
    LogIn,
    /// A login is under way or will follow a failed one; the subject waits for it.
    Wait,
    /// The server means it: another login would change nothing.
    Final,
}

/// What follows from a login that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The next try follows by itself. Who waited for this one, to be told.
    Again(BTreeSet<Subject>),
    /// The server takes neither the token that another one gave nor the user: leave it.
    Leave,
}

impl Token {
    pub(crate) fn new(text: String, ttl: Duration) -> Self {
        let proof = Proof::Text(text.into());
        Self { proof, ttl }
    }

    #[cfg(feature = "ram")]
    pub(super) const fn of_ram(signer: Signer, ttl: Duration) -> Self {
        let proof = Proof::Signer(signer);
        Self { proof, ttl }
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        match &self.proof {
            Proof::Text(text) => text.reveal(),
            #[cfg(feature = "ram")]
            Proof::Signer(_) => "",
        }
    }

    /// What all naming requests carry alike.
    fn headers(&self) -> HashMap<String, String> {
        match &self.proof {
            Proof::Text(text) => {
                HashMap::from([("accessToken".to_owned(), text.reveal().to_owned())])
            }
            #[cfg(feature = "ram")]
            Proof::Signer(_) => HashMap::new(),
        }
    }
}

impl Held {
    fn is_expired(&self, now: Instant) -> bool {
        let ttl = self.token.ttl;
        ttl >= LEAST_TTL && now.saturating_duration_since(self.learned) >= ttl
    }
}

impl Auth {
    pub(crate) fn new(rng: StdRng) -> Self {
        Self {
            rng,
            held: None,
            link: None,
            due: None,
            under_way: false,
            failures: 0,
            denied: BTreeMap::new(),
            waiting: BTreeSet::new(),
        }
    }

    /// The headers of naming requests, with a token that a new connection may try. `None` if there
    /// is none that may still hold: such a connection needs a login first.
    pub(crate) fn headers(&self, now: Instant) -> Option<HashMap<String, String>> {
        let held = self.held.as_ref().filter(|held| !held.is_expired(now))?;
        Some(held.token.headers())
    }

    /// The token that requests carry, if it is one text for all.
    pub(super) fn text(&self, now: Instant) -> Option<&Secret> {
        let held = self.held.as_ref().filter(|held| !held.is_expired(now))?;
        match &held.token.proof {
            Proof::Text(text) => Some(text),
            #[cfg(feature = "ram")]
            Proof::Signer(_) => None,
        }
    }

    /// What signs each naming request, if it is signatures that are wanted.
    #[cfg(feature = "ram")]
    pub(super) fn signer(&self) -> Option<&Signer> {
        match &self.held.as_ref()?.token.proof {
            Proof::Signer(signer) => Some(signer),
            Proof::Text(_) => None,
        }
    }

    /// A login at the server of `from` brought a token: the next is due between a fifteenth and a
    /// tenth of its life before its end, as in Nacos's Java client, so that clients that were
    /// started together do not log in together.
    pub(crate) fn learned(&mut self, token: Token, from: LinkId, now: Instant) {
        self.due = if token.ttl < LEAST_TTL {
            Some(now + UNSAID)
        } else {
            let share = self.rng.random_range(1.0 / 15.0..=1.0 / 10.0);
            now.checked_add(token.ttl.saturating_sub(token.ttl.mul_f64(share)))
        };
        self.held = Some(Held {
            token,
            learned: now,
            from,
        });
        self.under_way = false;
        self.failures = 0;
        self.waiting.clear();
    }

    /// The connection in use is `link` from now on. A renewal that came due meanwhile is due now.
    pub(crate) fn connected(&mut self, link: LinkId, now: Instant) {
        self.disconnected();
        self.due = self.due.map(|due| due.max(now));
        self.link = Some(At {
            id: link,
            accepted: false,
        });
    }

    /// The connection is gone, and a login on it with it. The token stays.
    pub(crate) fn disconnected(&mut self) {
        self.link = None;
        self.under_way = false;
        self.failures = 0;
        self.denied.clear();
        self.waiting.clear();
    }

    /// A naming request was answered well on the connection in use.
    pub(crate) const fn accepted(&mut self) {
        if let Some(link) = &mut self.link {
            link.accepted = true;
        }
    }

    /// A login on the connection in use failed. A token that holds here stays.
    pub(crate) fn failed(&mut self, now: Instant) -> Failed {
        let waiting = std::mem::take(&mut self.waiting);
        self.under_way = false;
        if self.is_carried() && !self.denied.is_empty() && self.link.is_some_and(|at| !at.accepted)
        {
            self.held = None;
            self.due = None;
            return Failed::Leave;
        }
        let bound = Duration::from_secs(1)
            .saturating_mul(1 << self.failures.min(8))
            .min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + bound.mul_f64(self.rng.random_range(0.5..=1.0)));
        Failed::Again(waiting)
    }

    /// Whether the token is one of another connection's.
    fn is_carried(&self) -> bool {
        let here = self.link.map(|at| at.id);
        self.held
            .as_ref()
            .is_some_and(|held| Some(held.from) != here)
    }

    /// The server denied a request for `subject`.
    pub(crate) fn denied(&mut self, subject: &Subject, now: Instant) -> Denied {
        // After a failed login the next follows by itself, and not sooner for being needed.
        if self.under_way || self.failures > 0 {
            self.waiting.insert(subject.clone());
            return Denied::Wait;
        }
        let within = |since: Instant, pause| now.saturating_duration_since(since) < pause;
        // A token that was learned elsewhere may be as young as it likes.
        let young = !self.is_carried()
            && (self.held.as_ref()).is_some_and(|held| within(held.learned, PAUSE));
        let again = (self.denied.get(subject)).is_some_and(|since| within(*since, PAUSE_OF_ONE));
        if young || again {
            return Denied::Final;
        }
        self.denied.insert(subject.clone(), now);
        self.waiting.insert(subject.clone());
        self.under_way = true;
        Denied::LogIn
    }

    /// When a login is due, unless one is under way or there is no server to log in to.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| self.link.is_some() && !self.under_way)
    }

    /// Whether to log in now.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.poll_timeout().is_some_and(|due| due <= now);
        self.under_way |= due;
        due
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
