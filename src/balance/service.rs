use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use pin_project::{pin_project, pinned_drop};
use tokio::time::Sleep;
use tower::{
    BoxError, Service,
    load::{CompleteOnResponse, completion::TrackCompletion},
};

use crate::{
    balance::{
        BalanceBuilder, Counters, Explanation, HintsOf, NoHints, P2c, Policy,
        choose::{Chosen, Stripe},
        core::Core,
        explain,
        random::{STRIPES, stripe},
    },
    directory::Subscription,
    endpoint::{Call, CallError, InFlight, Judge, NeverRecover, Recover, Unclassified},
    model::Address,
};

/// The instances of a service as one service.
///
/// `Clone`, and its clones share everything: no `Buffer` is needed, and no task stands between a
/// caller and its instance. A call picks its instance when its future is first polled, and is let
/// in by the instance's gate in that same poll; see [the module](crate::balance).
///
/// Always ready: what is to be limited is limited by
/// [`max_in_flight`](BalanceBuilder::max_in_flight), which fails at once, or by
/// `tower::limit::ConcurrencyLimit` around it, which waits. A `LoadShed` around it never sheds.
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
type ChosenCall<S, Req, P, R, C, V> = Call<Chosen<S, P, R, C, V>, S, Req, R, C, V>;

struct Handle<S, P: Policy, R, C, V, K> {
    stripes: Stripes<S, P, R, C, V>,
    hints: K,
}

/// The future of a call through a [`Balance`].
#[pin_project(PinnedDrop)]
pub struct ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    #[pin]
    call: ChosenCall<S, Req, P, R, C, V>,
    /// While it waits for the registry's first answer.
    wait: Option<Pin<Box<Sleep>>>,
    entry: Entry,
}

/// What a call is to the limit of calls in flight.
enum Entry {
    /// Not polled yet.
    Outside,
    /// Counted.
    Counted,
    /// Not counted, or no longer.
    Free,
}

impl Balance<()> {
    /// A balancer over the instances of `subscription`.
    pub fn builder(subscription: &Subscription) -> BalanceBuilder {
        BalanceBuilder::new(subscription.clone())
    }
}

impl<S, P: Policy, R, C, V, K> Balance<S, P, R, C, V, K> {
    pub(super) fn new(core: &Arc<Core<S, P, R, C, V>>, hints: K) -> Self {
        Self {
            handle: Arc::new(Handle {
                stripes: std::array::from_fn(|_| Arc::new(Stripe(Arc::clone(core)))),
                hints,
            }),
        }
    }

    fn core(&self) -> &Arc<Core<S, P, R, C, V>> {
        &self.handle.stripes[0].0
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
    pub fn explain(&self, address: &Address) -> Explanation {
        explain::explain(self.core(), address)
    }

    /// What happened in it so far.
    pub fn counters(&self) -> Counters {
        self.core().counters()
    }

    /// Calls that are in flight, entering and waiting, over all endpoints.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn counts(&self) -> [u64; 3] {
        self.core().set().counts()
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

    fn call(&mut self, request: Req) -> Self::Future {
        let pick = Chosen {
            hints: self.handle.hints.hints_of(&request),
            stripe: Arc::clone(&self.handle.stripes[stripe()]),
        };
        ResponseFuture {
            call: Call::new(pick, request),
            wait: None,
            entry: Entry::Outside,
        }
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

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.entry, Entry::Outside)
            && let Err(error) = self.as_mut().enter()
        {
            return Poll::Ready(Err(error));
        }
        let mut this = self.as_mut().project();
        let result = match this.call.as_mut().poll(cx) {
            Poll::Ready(result) => result,
            Poll::Pending if this.call.waits_for_instances() => match self.as_mut().poll_wait(cx) {
                Poll::Ready(error) => Err(error),
                Poll::Pending => return Poll::Pending,
            },
            Poll::Pending => {
                self.stop_waiting();
                return Poll::Pending;
            }
        };
        self.as_mut().stop_waiting();
        self.exit();
        Poll::Ready(result)
    }
}

impl<S, Req, P, R, C, V> ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    /// Counts the call against the limit, if there is one.
    fn enter(self: Pin<&mut Self>) -> Result<(), CallError> {
        let this = self.project();
        let core = &*this.call.picker().stripe.0;
        let Some(limit) = core.limits.max_in_flight else {
            *this.entry = Entry::Free;
            return Ok(());
        };
        let more = |calls| (calls < limit).then_some(calls + 1);
        let entered = core
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if entered.is_err() {
            *this.entry = Entry::Free;
            return Err(CallError::Overloaded {
                service: core.set().service().clone(),
                reason: format!("{limit} calls in flight (max_in_flight)").into(),
            });
        }
        *this.entry = Entry::Counted;
        Ok(())
    }

    fn exit(self: Pin<&mut Self>) {
        let this = self.project();
        if matches!(this.entry, Entry::Counted) {
            let core = &*this.call.picker().stripe.0;
            core.in_flight.fetch_sub(1, Ordering::Relaxed);
            *this.entry = Entry::Free;
        }
    }

    /// Waits for instances to be known, not for ever and not with everybody. Ready with the
    /// error.
    fn poll_wait(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallError> {
        let this = self.project();
        let core = &*this.call.picker().stripe.0;
        let limits = core.limits;
        if this.wait.is_none() {
            let more = |waiting| (waiting < limits.max_waiting).then_some(waiting + 1);
            let entered = core
                .waiting
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            if entered.is_err() {
                let reason = format!(
                    "{} calls wait for the registry's first answer (max_waiting)",
                    limits.max_waiting
                );
                return Poll::Ready(CallError::Overloaded {
                    service: core.set().service().clone(),
                    reason: reason.into(),
                });
            }
            if tokio::runtime::Handle::try_current().is_err() {
                core.waiting.fetch_sub(1, Ordering::Relaxed);
                return Poll::Ready(CallError::Unknown {
                    service: core.set().service().clone(),
                    reason:
                        "the registry has not answered, and there is no tokio runtime to wait on"
                            .into(),
                });
            }
            *this.wait = Some(Box::pin(tokio::time::sleep(limits.unknown_wait)));
        }
        let waited = this.wait.as_mut().map(|wait| wait.as_mut().poll(cx));
        if waited != Some(Poll::Ready(())) {
            return Poll::Pending;
        }
        let status = core.shared.subscription().status();
        Poll::Ready(CallError::Unknown {
            service: core.set().service().clone(),
            reason: format!("waited {:?} (unknown_wait); {status}", limits.unknown_wait).into(),
        })
    }

    fn stop_waiting(self: Pin<&mut Self>) {
        let this = self.project();
        if this.wait.take().is_some() {
            let core = &*this.call.picker().stripe.0;
            core.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[pinned_drop]
impl<S, Req, P, R, C, V> PinnedDrop for ResponseFuture<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    fn drop(mut self: Pin<&mut Self>) {
        self.as_mut().stop_waiting();
        self.exit();
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
