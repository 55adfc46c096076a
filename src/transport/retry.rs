use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use crate::{
    endpoint,
    transport::{
        attempt::is_sent_once_more,
        body::{
            request::{Body, Kind},
            tape::Tape,
        },
        error::{Error, ErrorKind},
        history::becomes_doubtful,
    },
};

/// Sends idempotent requests again that were lost, for
/// [`TransportBuilder::retry`](crate::transport::TransportBuilder::retry). Off unless given.
///
/// Nobody knows whether such a request was processed: its connection failed with the call in
/// flight, or response headers did not come in time. It goes to an instance that was not tried,
/// if its method is idempotent (RFC 9110, 9.2.2) or it carries [`Idempotent`], if its body can be
/// repeated, and within three limits: tries, time, and a budget, since a service that fails under
/// load is not helped by twice the load.
///
/// Empty bodies and bytes that are there can be repeated. Of a stream, which each message of gRPC
/// is, what it yielded is kept by reference until response headers arrive, up to 64 KiB in 256
/// pieces: a request that yielded more is not sent again, and its error says so. A stream that has
/// not ended goes on at the next instance from where it was.
///
/// What was provably not processed moves without this, and costs none of it. The one more try of a
/// safe request on another connection of the same instance counts among the tries.
#[derive(Clone, Debug)]
pub struct Retry {
    tries: u32,
    within: Duration,
    budget: Arc<Budget>,
}

/// Put into a request's extensions it says that the request may be processed twice, whatever its
/// method. gRPC's is POST: a call of a client that tonic generated has it in the extensions of its
/// [`tonic::Request`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Idempotent;

#[derive(Debug)]
struct Budget {
    /// In hundredths of a retry.
    saved: AtomicI64,
    percent: i64,
}

/// What a request has used up so far; in its extensions, from instance to instance.
#[derive(Clone, Copy, Debug)]
struct Tries {
    first: Instant,
    used: u32,
}

/// What is kept of a request to send it again.
pub(super) struct Spare {
    head: Request<()>,
    body: Kept,
}

enum Kept {
    Empty,
    Full(Bytes),
    Stream(Arc<Tape>),
}

impl Retry {
    /// Two tries more, begun within 10 s, for one call in five.
    pub fn new() -> Self {
        Self {
            tries: 2,
            within: Duration::from_secs(10),
            budget: Budget::new(20),
        }
    }

    /// How many tries more a call has. Default: 2.
    #[must_use]
    pub const fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// For how long after a call's beginning further tries begin. Default: 10 s.
    #[must_use]
    pub const fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// How many in a hundred calls may be sent again; ten are free to begin with, and no more than
    /// a hundred are saved up. All instances share it. Default: 20.
    #[must_use]
    pub fn percent(mut self, percent: u32) -> Self {
        self.budget = Budget::new(percent);
        self
    }

    /// What to send the request again with, if it may be.
    pub(super) fn spare(&self, request: &mut Request<Body>) -> Option<Spare> {
        let marked = request.extensions().get::<Idempotent>().is_some();
        if !marked && !request.method().is_idempotent() {
            return None;
        }
        if request.extensions().get::<Tries>().is_none() {
            self.budget.deposit();
            let first = endpoint::now();
            request.extensions_mut().insert(Tries { first, used: 0 });
        }
        let body = match std::mem::take(&mut request.body_mut().0) {
            Kind::Empty => Kept::Empty,
            Kind::Full(bytes) => {
                *request.body_mut() = bytes.clone().into();
                Kept::Full(bytes)
            }
            Kind::Stream(stream) => {
                let tape = Tape::new(stream);
                *request.body_mut() = tape.play().unwrap_or_default(); // nothing was sent of it
                Kept::Stream(tape)
            }
        };
        let mut head = Request::new(());
        head.method_mut().clone_from(request.method());
        head.uri_mut().clone_from(request.uri());
        *head.version_mut() = request.version();
        head.headers_mut().clone_from(request.headers());
        head.extensions_mut().clone_from(request.extensions());
        Some(Spare { head, body })
    }

    /// Puts the request into the error, if there is a point in another try.
    pub(super) fn judge(&self, error: Error, mut spare: Spare) -> Error {
        let lost = matches!(error.kind(), ErrorKind::Lost | ErrorKind::Timeout);
        let Some(tries) = count(&mut spare.head) else {
            return error;
        };
        let more = tries.used <= self.tries && tries.first + self.within > endpoint::now();
        if !lost || !more {
            return error;
        }
        let body = match spare.body {
            Kept::Empty => Body::empty(),
            Kept::Full(bytes) => bytes.into(),
            Kept::Stream(tape) => match tape.play() {
                Ok(body) => body,
                Err(why) => {
                    return error.saying(&format!("; it is not sent again (Retry), since {why}"));
                }
            },
        };
        if self.budget.withdraw() {
            becomes_doubtful(spare.head.extensions_mut());
            error.retried_with(spare.head.map(|()| body))
        } else {
            error
        }
    }
}

impl Retry {
    /// Whether a request that was lost on a kept connection may go out on another one. That is one
    /// of its tries, wherever it goes from there; the first is there in any case.
    pub(super) fn admits_once_more(&self, spare: &mut Spare, request: &mut Request<Body>) -> bool {
        count(request);
        is_sent_once_more(&mut spare.head);
        count(&mut spare.head).is_none_or(|tries| tries.used <= self.tries.max(1))
    }
}

impl Spare {
    /// Response headers came: it will not be sent again.
    pub(super) fn settle(&self) {
        if let Kept::Stream(tape) = &self.body {
            tape.settle();
        }
    }
}

/// Counts a try that was lost.
fn count<B>(request: &mut Request<B>) -> Option<Tries> {
    let tries = request.extensions_mut().get_mut::<Tries>()?;
    tries.used += 1;
    Some(*tries)
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    fn new(percent: u32) -> Arc<Self> {
        Arc::new(Self {
            saved: AtomicI64::new(10 * ONE),
            percent: percent.into(),
        })
    }

    fn deposit(&self) {
        let more = |saved: i64| Some((saved + self.percent).min(100 * ONE));
        let _ = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn withdraw(&self) -> bool {
        let less = |saved: i64| (saved >= ONE).then_some(saved - ONE);
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

const ONE: i64 = 100;
