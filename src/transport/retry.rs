use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use http::Request;
use tokio::time::Instant;

use crate::{
    endpoint,
    transport::{
        body::request::{Body, Kind},
        error::{Error, ErrorKind},
    },
};

/// Sends idempotent requests again that were lost, for
/// [`TransportBuilder::retry`](crate::transport::TransportBuilder::retry). Off unless given.
///
/// Nobody knows whether such a request was processed: its connection failed with the call in
/// flight, or response headers did not come in time. It goes to an instance that was not tried,
/// if its method is idempotent (RFC 9110, 9.2.2) or it carries [`Idempotent`], if its body is empty
/// or bytes that are there, and within three limits: tries, time, and a budget, since a service
/// that fails under load is not helped by twice the load.
///
/// What was provably not processed moves without this, and costs none of it.
#[derive(Clone, Debug)]
pub struct Retry {
    tries: u32,
    within: Duration,
    budget: Arc<Budget>,
}

/// Put into a request's extensions it says that the request may be processed twice, whatever its
/// method.
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

    /// A copy of the request, if it may be sent again.
    pub(super) fn spare(&self, request: &mut Request<Body>) -> Option<Request<Body>> {
        let marked = request.extensions().get::<Idempotent>().is_some();
        if !marked && !request.method().is_idempotent() {
            return None;
        }
        if request.extensions().get::<Tries>().is_none() {
            self.budget.deposit();
            let first = endpoint::now();
            request.extensions_mut().insert(Tries { first, used: 0 });
        }
        let body = match &request.body().0 {
            Kind::Empty => Body::empty(),
            Kind::Full(bytes) => bytes.clone().into(),
            Kind::Stream(_) => return None,
        };
        let mut spare = Request::new(body);
        spare.method_mut().clone_from(request.method());
        spare.uri_mut().clone_from(request.uri());
        *spare.version_mut() = request.version();
        spare.headers_mut().clone_from(request.headers());
        spare.extensions_mut().clone_from(request.extensions());
        Some(spare)
    }

    /// Puts the copy into the error, if there is a point in another try.
    pub(super) fn judge(&self, error: Error, mut spare: Request<Body>) -> Error {
        let lost = matches!(error.kind(), ErrorKind::Lost | ErrorKind::Timeout);
        let Some(tries) = spare.extensions_mut().get_mut::<Tries>() else {
            return error;
        };
        tries.used += 1;
        let more = tries.used <= self.tries && tries.first + self.within > endpoint::now();
        if lost && more && self.budget.withdraw() {
            error.retried_with(spare)
        } else {
            error
        }
    }
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
