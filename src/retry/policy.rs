use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, StatusCode};
use tonic::Code;

use crate::retry::{
    again::Again,
    backoff::{Backoff, Jitter},
    budget::Budget,
};

/// When and how often a call is sent again. Off unless given; see [the module](crate::retry) for what is
/// sent again and what is not.
///
/// Clones share one budget: give one policy to all clients of a service, or a clone of it, and all of them
/// together send no more than that again.
///
/// Costs, where nothing fails: a write to the budget's word, which all callers share, and a copy of the request's
/// head into memory that the calling thread lends: no allocation over HTTP/1.1, HTTP/2 and gRPC (a test counts
/// them), but for extensions that this crate does not know. A stream of a body goes through one more lock a frame;
/// a gRPC call's is looked at before it is sent, up to its second piece (of 32 KiB at most, as tonic makes them),
/// since a single message is kept as bytes. Calls that end on another thread than they began on lend to that one.
///
/// ```
/// # fn example(nacos: &tower_nacos::Client) {
/// use std::time::Duration;
/// use tower_nacos::{http, retry::Retry};
///
/// let http = http::Client::builder(nacos)
///     .per_try_timeout(Duration::from_millis(300))
///     .retry(Retry::new().max_attempts(3))
///     .build();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Retry {
    tries: u32,
    within: Duration,
    budget: Arc<Budget>,
    backoff: Backoff,
    jitter: Arc<Jitter>,
    longest_wait: Duration,
    lost: bool,
    late: bool,
    every_request: bool,
    statuses: Arc<[u16]>,
    /// Whether 429 counts only with `Retry-After`.
    paced: bool,
    /// A bit for each of gRPC's.
    codes: u32,
    /// Whether RESOURCE_EXHAUSTED counts only with a pushback.
    pushed: bool,
    attempt_header: Option<HeaderName>,
}

impl Retry {
    /// Two tries more at most, begun within 10 s, for one call in five.
    pub fn new() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// The same with rests that follow from the seed.
    pub fn seeded(seed: u64) -> Self {
        Self {
            tries: 2,
            within: Duration::from_secs(10),
            budget: Arc::new(Budget::new(20)),
            backoff: Backoff {
                initial: Duration::from_millis(25),
                max: Duration::from_millis(250),
                multiplier: 2.0,
            },
            jitter: Arc::new(Jitter::seeded(seed)),
            longest_wait: Duration::from_secs(10),
            lost: true,
            late: true,
            every_request: false,
            statuses: Arc::new([429, 502, 503, 504]),
            paced: true,
            codes: bit(Code::ResourceExhausted) | bit(Code::Unavailable),
            pushed: true,
            attempt_header: None,
        }
    }

    /// What a per-try time-out comes with where no policy was given: another instance, at once.
    pub(crate) fn of_the_late() -> Self {
        let no_rest = Duration::ZERO;
        let only = Self::new().on_lost(false).statuses([]);
        only.retryable_status_codes([])
            .initial_backoff(no_rest)
            .max_backoff(no_rest)
    }

    /// How many tries more a call has. Default: 2, gRPC's examples and Finagle's; each costs the service as
    /// much as another call, and the caller its time.
    #[must_use]
    pub const fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// How many tries a call has, the first included: `maxAttempts` of a gRPC service config. Default: 3. 0
    /// counts as 1.
    #[must_use]
    pub const fn max_attempts(self, attempts: u32) -> Self {
        self.tries(attempts.saturating_sub(1))
    }

    /// For how long after a call's beginning further tries begin. Default: 10 s. A rest that ends later, or
    /// that a call's own deadline would cut, is not begun: the call ends with what came of its last try.
    #[must_use]
    pub const fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// How many in a hundred calls may be sent again, over all clones. Ten are free to begin with, and paid
    /// back by the first calls; no more than a hundred are saved up while all goes well. Default: 20,
    /// Finagle's and linkerd's: a service of which everything fails gets 1.2 times its load. Counted are
    /// the calls that may be sent again.
    #[must_use]
    pub fn percent(mut self, percent: u32) -> Self {
        self.budget = Arc::new(Budget::new(percent));
        self
    }

    /// The longest rest before the first further try; each rest is a random part of its longest ("full
    /// jitter"). `initialBackoff` of a gRPC service config. Default: 25 ms, Envoy's.
    #[must_use]
    pub const fn initial_backoff(mut self, rest: Duration) -> Self {
        self.backoff.initial = rest;
        self
    }

    /// The longest rest before any: `maxBackoff`. Default: 250 ms, Envoy's.
    #[must_use]
    pub const fn max_backoff(mut self, rest: Duration) -> Self {
        self.backoff.max = rest;
        self
    }

    /// By how much the longest rest grows from try to try: `backoffMultiplier`. Default: 2.
    #[must_use]
    pub const fn backoff_multiplier(mut self, multiplier: f64) -> Self {
        self.backoff.multiplier = multiplier;
        self
    }

    /// The longest wait that an answer may ask for, by `Retry-After` or `grpc-retry-pushback-ms`. Whoever
    /// asks for more is not asked again: the answer is the caller's. Default: 10 s, so that nobody waits for
    /// a year.
    #[must_use]
    pub const fn longest_wait(mut self, wait: Duration) -> Self {
        self.longest_wait = wait;
        self
    }

    /// Whether calls are sent again whose connection was lost with them on it, or which the transport gave
    /// up ([`header_timeout`](crate::transport::TransportBuilder::header_timeout)). Default: yes.
    #[must_use]
    pub const fn on_lost(mut self, again: bool) -> Self {
        self.lost = again;
        self
    }

    /// Whether calls are whose try was out of time (`per_try_timeout`). Default: yes.
    #[must_use]
    pub const fn on_timeout(mut self, again: bool) -> Self {
        self.late = again;
        self
    }

    /// Which HTTP responses are no answers yet. Default: 502, 503, 504, and 429 if it says `Retry-After`;
    /// what is named here needs no header, and none named is none. 500 is not among them, since it is what a
    /// request that kills a server gets.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = statuses.into_iter().map(|status| status.as_u16()).collect();
        self.paced = false;
        self
    }

    /// Which gRPC statuses are: `retryableStatusCodes`. Default: UNAVAILABLE, and RESOURCE_EXHAUSTED if it
    /// says `grpc-retry-pushback-ms`; what is named here needs no header. OK is never among them. Only a
    /// status without a response's head before it counts: after that the call is committed (A6).
    #[must_use]
    pub fn retryable_status_codes(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        let all = codes.into_iter().fold(0, |all, code| all | bit(code));
        self.codes = all & !bit(Code::Ok);
        self.pushed = false;
        self
    }

    /// Says of every request that it may be processed twice, whatever its method: for a gRPC channel, say,
    /// of whose methods all may. Default: no, only idempotent methods and what carries
    /// [`Idempotent`](crate::transport::Idempotent).
    #[must_use]
    pub const fn every_request(mut self) -> Self {
        self.every_request = true;
        self
    }

    /// Tells the instance which try of its call a request is, in this header: 1 for the first.
    /// `x-envoy-attempt-count` is what Envoy calls it. Default: none. gRPC's own
    /// `grpc-previous-rpc-attempts` goes with each further try of a gRPC call in any case (A6). Costs an
    /// insertion a call.
    #[must_use]
    pub fn attempt_header(mut self, name: HeaderName) -> Self {
        self.attempt_header = Some(name);
        self
    }
}

/// What the engine asks.
impl Retry {
    /// Instances know how long a try may last, and may say themselves that it is over: DEADLINE_EXCEEDED then
    /// is no answer but a try that was out of time.
    pub(crate) const fn with_late_answers(mut self) -> Self {
        if self.late {
            self.codes |= bit(Code::DeadlineExceeded);
        }
        self
    }

    /// The same for another service.
    pub(crate) fn with_own_budget(&self) -> Self {
        let budget = Arc::new(self.budget.anew());
        Self {
            budget,
            ..self.clone()
        }
    }

    /// A call begins that may be sent again.
    pub(crate) fn begin(&self) {
        self.budget.deposit();
    }

    /// Whether a call that began so long ago, and was sent again so often, may be once more.
    pub(crate) fn has_more(&self, used: u32, age: Duration) -> bool {
        used < self.tries && age < self.within
    }

    /// A second try came to nobody: that was no load.
    pub(crate) fn refund(&self) {
        self.budget.refund();
    }

    /// Takes it out of the budget. False if there is nothing in it.
    pub(crate) fn afford(&self) -> bool {
        self.budget.withdraw()
    }

    /// The rest before the `nth` further try, which the answer before asked for as much as `again` says.
    pub(crate) fn rest(&self, nth: u32, again: Again) -> Duration {
        let random = self.jitter.draw();
        match again {
            // gRPC A6: exactly that.
            Again::After(wait) => wait.min(self.longest_wait),
            Again::Yes | Again::No => self.backoff.rest(nth, random),
        }
    }

    pub(super) const fn multiplier(&self) -> f64 {
        self.backoff.multiplier
    }

    pub(crate) const fn takes_lost(&self) -> bool {
        self.lost
    }

    pub(crate) const fn takes_late(&self) -> bool {
        self.late
    }

    pub(crate) const fn takes_every_request(&self) -> bool {
        self.every_request
    }

    pub(crate) const fn header(&self) -> Option<&HeaderName> {
        self.attempt_header.as_ref()
    }

    pub(super) fn takes_status(&self, status: u16) -> bool {
        self.statuses.contains(&status)
    }

    pub(super) const fn takes_code(&self, code: u8) -> bool {
        code < 32 && self.codes & (1 << code) != 0
    }

    pub(super) fn wants_pace(&self, status: StatusCode) -> bool {
        self.paced && status == StatusCode::TOO_MANY_REQUESTS
    }

    pub(super) const fn wants_pushback(&self) -> bool {
        self.pushed
    }

    pub(super) const fn longest(&self) -> Duration {
        self.longest_wait
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

/// All 17 of them fit.
const fn bit(code: Code) -> u32 {
    1 << code as u32
}
