use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use http::Request;
use tower::BoxError;

use crate::{
    endpoint::{Recovered, Verdict, say_causes},
    model::Address,
    transport::{body::request::Body, history::is_doubtful},
};

/// Why a call to an instance failed, and what is known about the request.
///
/// Names the instance and never the request's URL, which may hold secrets. While the call engine
/// may still move the request, the request is inside.
pub struct Error(Box<Inner>);

struct Inner {
    instance: Address,
    kind: ErrorKind,
    evidence: Evidence,
    timeout: bool,
    about: About,
    /// Whether the request is sent again though nobody knows, since its sender allows it.
    retried: bool,
    /// Whether there was no room, and nothing else the matter.
    full: bool,
    /// Whether the request may have been processed at a try before this one.
    doubtful: bool,
    /// Whether this was the second try at this instance.
    once_more: bool,
    text: String,
    source: Option<BoxError>,
    /// In a mutex only because a body need not be `Sync`.
    request: Mutex<Option<Request<Body>>>,
}

/// What a failure is evidence about.
#[derive(Clone, Copy)]
enum About {
    /// The call.
    Call,
    /// The connection that it was on, and perhaps the call.
    Connection,
    /// The instance: there is no connection to it, or nobody answers.
    Instance,
}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection: refused, unreachable, not in time, a name that does not resolve, an address
    /// that is not called, or a peer that does not speak HTTP/2 where it should.
    Connect,
    /// No connection, since TLS failed.
    Tls,
    /// A connection ended before it took the request.
    Unsent,
    /// The peer said that it did not process the request: REFUSED_STREAM, a GOAWAY that leaves it
    /// out, or 421 to a request that told whom it means.
    Refused,
    /// The connection failed with the call in flight: reset, closed, or silent.
    Lost,
    /// Response headers did not come in time.
    Timeout,
    /// The peer ended this call and not the connection: an HTTP/2 reset.
    Reset,
    /// What came is not HTTP, or exceeds a limit.
    Protocol,
    /// The request's own body failed.
    Body,
    /// The request cannot be sent as it is.
    Request,
}

/// What is known about a request whose call failed. The table in [the module](crate::transport) says which
/// failure proves what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Evidence {
    /// No connection took it: it was not processed, and moves to another instance by itself (*a* in the table).
    Unsent,
    /// The peer said that it did not process it: it moves, too, at most three times (*b* in the table).
    Refused,
    /// It may have been processed: it moves only if it may be processed twice, and a
    /// [`Retry`](crate::transport::Retry) policy is given.
    Unknown,
}

impl Error {
    pub(super) fn new(
        instance: &Address,
        kind: ErrorKind,
        evidence: Evidence,
        text: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            instance: instance.clone(),
            kind,
            evidence,
            timeout: false,
            about: About::Call,
            retried: false,
            full: false,
            doubtful: false,
            once_more: false,
            text: text.into(),
            source: None,
            request: Mutex::new(None),
        }))
    }

    /// No connection can be had, or nobody answers: that is about the instance.
    pub(super) fn ejecting(mut self) -> Self {
        self.0.about = About::Instance;
        self
    }

    /// A connection was lost: whether another one can be had is a question.
    pub(super) fn losing(mut self) -> Self {
        self.0.about = About::Connection;
        self
    }

    pub(super) fn timing_out(mut self) -> Self {
        self.0.timeout = true;
        self
    }

    pub(super) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(super) fn with_request(mut self, request: Option<Request<Body>>) -> Self {
        let history = request.as_ref().map(Request::extensions);
        self.0.doubtful |= history.is_some_and(is_doubtful);
        self.0.request = Mutex::new(request);
        self
    }

    /// Whether the request, which is gone, may have been processed at a try before this one.
    pub(super) fn doubting(mut self, doubtful: bool) -> Self {
        self.0.doubtful |= doubtful;
        self
    }

    /// The request may be processed twice, and is to be sent again.
    pub(super) fn retried_with(mut self, request: Request<Body>) -> Self {
        self.0.retried = true;
        self.with_request(Some(request))
    }

    /// The request may go wherever there is room, here as well.
    pub(super) fn full_with(mut self, request: Request<Body>) -> Self {
        self.0.full = true;
        self.with_request(Some(request))
    }

    /// It was sent before, and that may have been processed, whatever is known of this time.
    pub(super) fn of_the_second_time(mut self) -> Self {
        self.0.evidence = Evidence::Unknown;
        self.0.once_more = true;
        self
    }

    /// Says so besides.
    pub(super) fn says(&mut self, more: &str) {
        self.0.text.push_str(more);
    }

    /// How often the request went out so that nobody knows what came of it.
    pub(super) fn times_lost(&self) -> u32 {
        let lost = matches!(self.0.kind, ErrorKind::Lost | ErrorKind::Timeout);
        u32::from(lost && self.0.evidence == Evidence::Unknown) + u32::from(self.0.once_more)
    }

    /// The instance.
    pub const fn instance(&self) -> &Address {
        &self.0.instance
    }

    /// What kind of failure it is.
    pub const fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is known about the request.
    pub const fn evidence(&self) -> Evidence {
        self.0.evidence
    }

    /// Whether there is no connection to the instance: dial, TLS or HTTP/2 handshake failed.
    pub const fn is_connect(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connect | ErrorKind::Tls)
    }

    /// Whether TLS failed.
    pub const fn is_tls(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Tls)
    }

    /// Whether something did not come in time: a connection, a handshake, response headers, the
    /// answer to a PING.
    pub const fn is_timeout(&self) -> bool {
        self.0.timeout
    }

    /// Whether the instance provably did not process the request, nor any that had it before
    /// ([`Retry`](crate::transport::Retry), or a safe request that was sent once more): sending it again
    /// is safe, whatever its method.
    pub const fn is_unprocessed(&self) -> bool {
        matches!(self.0.evidence, Evidence::Unsent | Evidence::Refused) && !self.0.doubtful
    }

    /// Whether the peer refused the request.
    pub const fn is_refused(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Refused)
    }

    /// Whether the connection failed with the call in flight, so that nobody knows whether the
    /// instance processed it.
    pub const fn is_lost(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Lost)
    }

    /// Whether the fault is the caller's: the request cannot be sent, or its body failed.
    pub const fn is_request(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Request | ErrorKind::Body)
    }

    /// The request, if it was provably not processed and can be sent again as it was.
    pub fn take_request(&mut self) -> Option<Request<Body>> {
        if !self.is_unprocessed() {
            return None;
        }
        self.request()
    }

    fn request(&mut self) -> Option<Request<Body>> {
        let request = self.0.request.get_mut();
        request.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The error behind it, for programs: what it says is said. Its own [`source`](StdError::source)s lead on.
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }

    /// What it says about the instance.
    pub(super) fn verdict(&self) -> Verdict {
        match self.0.about {
            About::Call => Verdict::Reachable,
            About::Instance => Verdict::Unreachable(Arc::from(&*self.0.text)),
            About::Connection => Verdict::Lost(Arc::from(&*self.0.text)),
        }
    }

    pub(super) fn recovered(&mut self) -> Option<Recovered<Request<Body>>> {
        let request = self.request()?;
        match self.0.evidence {
            Evidence::Unsent if self.0.full => Some(Recovered::Full(request)),
            Evidence::Unsent => Some(Recovered::Unsent(request)),
            Evidence::Refused => Some(Recovered::Refused(request)),
            // Its budget and number of tries are accounted for.
            Evidence::Unknown if self.0.retried => Some(Recovered::Unsent(request)),
            Evidence::Unknown => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = format!("instance {}: {}", self.0.instance, self.0.text);
        say_causes(&mut said, self.cause());
        f.write_str(&said)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("instance", &self.0.instance)
            .field("kind", &self.0.kind)
            .field("evidence", &self.0.evidence)
            .field("text", &self.0.text)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Layer, assert_said_once};

    #[test]
    fn what_is_behind_it_is_said_once() {
        let address: Address = "10.0.0.1:80".parse().unwrap();
        let text = "the connection was lost (client error)";
        let error = Error::new(&address, ErrorKind::Lost, Evidence::Unknown, text);
        let error = error.because(Layer::nested());
        let words = [
            "10.0.0.1:80",
            "client error",
            "tcp connect",
            "connection refused",
        ];
        assert_said_once(&error, &words);
        assert!(error.cause().unwrap().is::<Layer>());
    }
}
