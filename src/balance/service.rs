use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use pin_project::{pin_project, pinned_drop};
use tokio::time::Instant;
use tower::{
    BoxError, Service,
    load::{CompleteOnResponse, completion::TrackCompletion},
};

use crate::{
    balance::{
        BalanceCounters, BalanceExplanation, HintsOf, NoHints, P2c, Policy,
        choose::{Chosen, Stripe},
        core::Core,
        explain,
        passage::Passage,
        random::{STRIPES, stripe},
        second::{ChosenCall, Second},
    },
    directory::Subscription,
    endpoint::{
        Call, CallError, Fate, InFlight, Judge, NeverRecover, Progress, Recover, Unclassified,
    },
    model::Address,
    sync::poll_budget,
};

/// The instances of a service as one service.
///
/// `Clone`, and its clones share everything: no `Buffer` is needed, and no task stands between a
/// caller and its instance. A call picks its instance when its future is first polled, and is let
/// in by the instance's gate in that same poll; see [the module](crate::balance).
///
/// Always ready: what is to be limited is limited by
/// [`max_in_flight`](crate::balance::BalanceBuilder::max_in_flight), which fails at once, or by
/// `tower::limit::ConcurrencyLimit` around it, which waits. Two layers that belong around other balancers do nothing here:
/// a `LoadShed` never sheds, since there is nothing to shed at, and a `Buffer` never fills: it adds a task, and no call
/// waits in it.
pub struct Balance<
    S,
    P: Policy = P2c,
    R = NeverRecover,
    C = CompleteOnResponse,
    V = Unclassified,
    K = NoHints,
> {
    handle: Arc<Handle<S, P, R, C, V, K>>,
}

type Stripes<S, P, R, C, V> = [Arc<Stripe<S, P, R, C, V>>; STRIPES];
type Beside<S, Req, P, R, C, V> = Option<Pin<Box<Second<S, Req, P, R, C, V>>>>;

struct Handle<S, P: Policy, R, C, V, K> {
    stripes: Stripes<S, P, R, C, V>,
    hints: K,
}

/// The future of a call through a [`Balance`].
///
/// Example: [a balancer](crate::balance)
#[pin_project(PinnedDrop)]
pub struct ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    #[pin]
    call: ChosenCall<S, Req, P, R, C, V>,
    passage: Passage,
    /// Off unless set, and then from when the first has to wait.
    second: Beside<S, Req, P, R, C, V>,
}

impl<S, P: Policy, R, C, V, K> Balance<S, P, R, C, V, K> {
    pub(super) fn new(core: &Arc<Core<S, P, R, C, V>>, hints: K) -> Self {
        Self {
            handle: Arc::new(Handle {
                stripes: std::array::from_fn(|_| Stripe::new(core)),
                hints,
            }),
        }
    }

    pub(super) fn core(&self) -> &Arc<Core<S, P, R, C, V>> {
        &self.handle.stripes[0].0
    }

    /// This thread's reference to what all clones share.
    #[inline]
    pub(super) fn stripe(&self) -> Arc<Stripe<S, P, R, C, V>> {
        Arc::clone(&self.handle.stripes[stripe()])
    }

    /// The subscription that it follows.
    pub fn subscription(&self) -> &Subscription {
        self.core().shared.subscription()
    }

    /// The policy.
    pub fn policy(&self) -> &P {
        &self.core().policy
    }

    /// Why this balancer picks the instance at `address`, or does not. Displays as a sentence.
    pub fn explain(&self, address: &Address) -> BalanceExplanation {
        explain::explain(self.core(), address)
    }

    /// What happened in it so far.
    pub fn counters(&self) -> BalanceCounters {
        self.core().counters()
    }

    /// One pick, admission and release, with nothing in between, for the crate's own benches.
    /// Whether there was somebody.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn pass(&self, hints: &crate::balance::Hints) -> bool {
        let core = self.core();
        let place = core.choose(&crate::endpoint::Tried::default(), hints);
        let Some(mut place) = place else {
            return false;
        };
        let admitted = place.admit(core.set());
        let Some(admitted) = admitted else {
            return false;
        };
        drop(admitted.enter());
        true
    }

    /// Calls that are in flight, entering and waiting, over all endpoints.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn counts(&self) -> [u64; 3] {
        self.core().set().counts()
    }
}

impl<S, P: Policy, R, C, V, K> Balance<S, P, R, C, V, K> {
    /// What [`Service::call`] does, for those who share one balancer by reference: a clone of it
    /// would be one more count that all of them write.
    #[inline]
    pub(crate) fn start<Req>(&self, request: Req) -> ResponseFuture<S, Req, P, R, C, V>
    where
        S: Service<Req>,
        K: HintsOf<Req>,
    {
        let pick = Chosen {
            hints: self.handle.hints.hints_of(&request),
            stripe: self.stripe(),
        };
        ResponseFuture {
            call: Call::new(pick, request),
            passage: Passage::default(),
            second: None,
        }
    }

    /// The same for a call whose caller stops waiting then.
    #[inline]
    pub(crate) fn start_until<Req>(
        &self,
        request: Req,
        until: Option<Instant>,
    ) -> ResponseFuture<S, Req, P, R, C, V>
    where
        S: Service<Req>,
        K: HintsOf<Req>,
    {
        let mut started = self.start(request);
        if let Some(until) = until {
            started.call.ends_at(until);
        }
        started
    }

    /// Whether calls are in flight or wait for an instance. Looks at each instance.
    pub(crate) fn is_in_use(&self) -> bool {
        let core = self.core();
        core.waiting.load(Ordering::Relaxed) > 0 || core.set().counts() != [0; 3]
    }
}

impl<S, Req, P, R, C, V> ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    /// How far the call has come.
    pub(crate) fn progress(&self) -> Progress<'_> {
        self.call.progress()
    }

    /// The request of a call that has failed, if nobody has seen it.
    pub(super) fn take_request(self: Pin<&mut Self>) -> Option<Req> {
        self.project().call.take_request()
    }

    /// A deadline that is ours has passed: gives the call up, which counts against the instance
    /// that has not answered it, where outcomes count.
    pub(crate) fn expire(self: Pin<&mut Self>) {
        let mut this = self.project();
        let fate = match this.call.has_gone_out() {
            true => Fate::Deadline,
            false => Fate::WaitedTooLong,
        };
        this.passage.end(&this.call.picker().stripe.0, fate);
        this.call.as_mut().expire();
        if let Some(second) = this.second {
            second.as_mut().expire();
        }
    }
}

impl<S, Req, P, R, C, V> ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    /// The answer that is held for want of a better one, of a call that is not waited for any more.
    pub(crate) fn last_answer(self: Pin<&mut Self>) -> Option<C::Output> {
        self.project().call.last_answer()
    }
}

impl<S, P: Policy, R, C, V, K> Clone for Balance<S, P, R, C, V, K> {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
        }
    }
}

impl<S, Req, P, R, C, V, K> Service<Req> for Balance<S, P, R, C, V, K>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
    K: HintsOf<Req>,
{
    type Response = C::Output;
    type Error = CallError;
    type Future = ResponseFuture<S, Req, P, R, C, V>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        self.start(request)
    }
}

impl<S, Req, P, R, C, V> Future for ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    type Output = Result<C::Output, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Err(error) = this.passage.enter(&this.call.picker().stripe.0) {
            ready!(poll_budget(cx));
            let core = &*this.call.picker().stripe.0;
            this.passage.fail(core, &error, this.call.fate_of(&error));
            return Poll::Ready(Err(error));
        }
        let polled = match this.second {
            Some(second) if second.is_alone() => Poll::Pending,
            _ => this.call.as_mut().poll(cx),
        };
        let mut core = &*this.call.picker().stripe.0;
        let mut failed = match polled {
            Poll::Ready(Ok(response)) => {
                if this.second.is_some() {
                    *this.second = None; // it is given up
                }
                // Alone, and not beside the room for an error, which would be copied too.
                this.passage.end(core, this.call.fate());
                return Poll::Ready(Ok(response));
            }
            Poll::Ready(Err(error)) => Poll::Ready(error),
            Poll::Pending => Poll::Pending,
        };
        let tries = core.set().settings().tries();
        if tries.is_some_and(|tries| tries.hedge.is_some()) {
            let polled = poll_second(this.call.as_mut(), this.second, failed, cx);
            core = &*this.call.picker().stripe.0;
            failed = match polled {
                Poll::Ready(Ok(response)) => {
                    *this.second = None;
                    this.passage.end(core, this.call.fate());
                    return Poll::Ready(Ok(response));
                }
                Poll::Ready(Err(error)) => Poll::Ready(error),
                Poll::Pending => Poll::Pending,
            };
        }
        let error = match failed {
            Poll::Ready(error) => error,
            Poll::Pending if this.call.waits_for_instances() => {
                let error = ready!(this.passage.poll_wait(core, cx));
                ready!(poll_budget(cx));
                // What came of the try before says more than that nobody else is known.
                if let Some(response) = this.call.as_mut().last_answer() {
                    let core = &*this.call.picker().stripe.0;
                    this.passage.end(core, this.call.fate());
                    return Poll::Ready(Ok(response));
                }
                let failure = this.call.as_mut().take_failure();
                core = &*this.call.picker().stripe.0;
                failure.unwrap_or(error)
            }
            Poll::Pending => {
                this.passage.stop_waiting(core);
                return Poll::Pending;
            }
        };
        this.passage.fail(core, &error, this.call.fate_of(&error));
        Poll::Ready(Err(error))
    }
}

/// What comes of a second call beside one that has not been answered.
#[cold]
fn poll_second<S, Req, P, R, C, V>(
    mut first: Pin<&mut ChosenCall<S, Req, P, R, C, V>>,
    second: &mut Beside<S, Req, P, R, C, V>,
    failed: Poll<CallError>,
    cx: &mut Context<'_>,
) -> Poll<Result<C::Output, CallError>>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    let failed = match failed {
        Poll::Ready(failed) => Some(failed),
        Poll::Pending => None,
    };
    if second.is_none()
        && failed.is_none()
        && let Some(at) = first.second_at()
    {
        *second = Some(Second::at(at));
    }
    let Some(second) = second else {
        return match failed {
            Some(failed) => Poll::Ready(Err(failed)),
            None => Poll::Pending,
        };
    };
    let failed = match ready!(second.as_mut().poll(first.as_mut(), failed, cx)) {
        Ok(response) => return Poll::Ready(Ok(response)),
        Err(failed) => failed,
    };
    // It had an answer, if none that is good.
    Poll::Ready(first.last_answer().ok_or(failed))
}

#[pinned_drop]
impl<S, Req, P, R, C, V> PinnedDrop for ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        let core = &*this.call.picker().stripe.0;
        this.passage.give_up(core);
    }
}

impl<S, P: Policy, R, C, V, K> fmt::Debug for Balance<S, P, R, C, V, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("set", self.core().set())
            .finish_non_exhaustive()
    }
}

impl<S, Req, P, R, C, V> fmt::Debug for ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}
