use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Service, load::completion::TrackCompletion};

use crate::endpoint::{
    CallError, EndpointSet, InFlight, Judge, Outcome, Progress, Recover, Recovered, Verdict,
    abort::Abort,
    admission::{Admitted, Place},
    pick::{Pick, Picked, Tried},
    slot::Obtained,
    waiter::Waiter,
};

/// One call: pick, make, wait until ready, admit, `Service::call`, first poll, all in the first
/// poll of this future unless something has to be waited for.
///
/// While it waits it is admitted nowhere, and whatever shuts the gate that it waits at wakes it to
/// pick another. Allocates nothing. Dropped at any point it leaves all counts as they were.
#[pin_project(PinnedDrop)]
pub(crate) struct Call<P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req>,
{
    pick: P,
    request: Option<Req>,
    /// The service's future; dropped before what counts it as in flight.
    #[pin]
    future: Option<S::Future>,
    admitted: Option<Admitted<S>>,
    abort: Abort,
    /// The service that is waited for; dropped before the place.
    service: Option<S>,
    place: Option<Place<S>>,
    /// Among those who wait for the set's next change.
    waiter: Waiter,
    tried: Tried,
    refusals: usize,
    failure: Option<CallError>,
    rules: PhantomData<Rules<R, C, V>>,
}

/// Named by a call and not held by it: the picker does.
type Rules<R, C, V> = fn() -> (R, C, V);

/// What one step of a call came to.
enum Step<T> {
    /// There is more to do at once.
    Go,
    /// The call has ended.
    End(T),
}

impl<P, S, Req, R, C, V> Call<P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req>,
{
    pub(crate) fn new(pick: P, request: Req) -> Self {
        Self {
            pick,
            request: Some(request),
            future: None,
            admitted: None,
            abort: Abort::default(),
            service: None,
            place: None,
            waiter: Waiter::default(),
            tried: Tried::default(),
            refusals: 0,
            failure: None,
            rules: PhantomData,
        }
    }

    /// How it chooses.
    #[inline]
    pub(crate) const fn picker(&self) -> &P {
        &self.pick
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> Progress<'_> {
        let admitted = self.admitted.as_ref().map(Admitted::endpoint);
        let endpoint = admitted.or_else(|| self.place.as_ref().map(Place::endpoint));
        Progress {
            service: self.pick.shared().set().service(),
            instance: endpoint.map(|endpoint| endpoint.address()),
            entered: self.future.is_some(),
            failure: self.failure.as_ref().map(CallError::in_full),
        }
    }

    /// Whether it waits for there to be an instance to call.
    #[inline]
    pub(crate) const fn waits_for_instances(&self) -> bool {
        self.waiter.waits()
    }
}

impl<P, S, Req, R, C, V> Future for Call<P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    type Output = Result<C::Output, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.pick.shared().set().tend();
        loop {
            if self.future.is_some() {
                match ready!(self.as_mut().poll_answer(cx)) {
                    Step::Go => {}
                    Step::End(result) => return Poll::Ready(result),
                }
            }
            if self.tried.is_full()
                && let Some(failure) = self.as_mut().project().failure.take()
            {
                return Poll::Ready(Err(failure));
            }
            if self.place.is_none()
                && let Err(error) = ready!(self.as_mut().poll_place(cx))
            {
                return Poll::Ready(Err(error));
            }
            if self.service.is_none() && ready!(self.as_mut().poll_service(cx)).is_none() {
                continue;
            }
            ready!(self.as_mut().poll_admission(cx));
        }
    }
}

impl<P, S, Req, R, C, V> Call<P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    /// Chooses an endpoint, or waits for there to be one.
    #[inline]
    fn poll_place(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let this = self.project();
        let set = this.pick.shared().set();
        let mut registered = false;
        loop {
            match this.pick.pick(this.tried) {
                Picked::Place(place) => {
                    *this.place = Some(place);
                    this.waiter.leave(set);
                    return Poll::Ready(Ok(()));
                }
                Picked::Wait if registered => return Poll::Pending,
                Picked::Wait => {
                    // Looked for again after this, so that no change falls in between.
                    this.waiter.register(set, cx.waker());
                    registered = true;
                }
                Picked::Nobody(error) => {
                    return Poll::Ready(Err(this.failure.take().unwrap_or(error)));
                }
            }
        }
    }

    /// Clones the endpoint's service; makes it if nobody has. `None`: the endpoint is no good.
    #[inline]
    fn poll_service(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let this = self.project();
        let shared = this.pick.shared();
        let set = shared.set();
        let mut registered = false;
        loop {
            let Some(place) = this.place.as_mut() else {
                return Poll::Ready(None);
            };
            let endpoint = place.endpoint();
            match endpoint
                .slot
                .obtain(|| shared.make.make(&endpoint.instance()))
            {
                Obtained::Idle(service) => *this.service = Some(service),
                Obtained::Made(service) => {
                    endpoint.wakers().wake_all();
                    *this.service = Some(service);
                }
                Obtained::Busy if place.is_open() => {
                    if registered {
                        return Poll::Pending;
                    }
                    place.wait(cx);
                    registered = true;
                    continue;
                }
                Obtained::Panicked => {
                    set.unusable(endpoint);
                    *this.place = None;
                    return Poll::Ready(None);
                }
                Obtained::Busy | Obtained::Never => {
                    // Shut, and the gate says so: the next pick passes it by.
                    *this.place = None;
                    return Poll::Ready(None);
                }
            }
            return Poll::Ready(Some(()));
        }
    }

    /// Waits until the service is ready, and calls it if the gate still lets us in.
    #[inline]
    fn poll_admission(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let (Some(place), Some(service)) = (this.place.as_mut(), this.service.as_mut()) else {
            return Poll::Ready(());
        };
        let shared = this.pick.shared();
        match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                if let Some(admitted) = place.admit(shared.set()) {
                    let admitted = this.admitted.insert(admitted);
                    let entering = admitted.enter();
                    let request = this.request.take();
                    let request = request.expect("polled after it was done, or after a panic");
                    let future = service.call(request);
                    this.future.set(Some(future));
                    drop(entering);
                }
                *this.service = None;
                *this.place = None;
            }
            Poll::Ready(Err(error)) => {
                // By the contract of `poll_ready` this service is of no more use. The request is
                // still ours.
                let endpoint = Arc::clone(place.endpoint());
                let probe = place.hand_over_probe();
                drop(endpoint.slot.discard());
                *this.service = None;
                *this.place = None;
                let verdict = shared.classify.classify(&error);
                let error = CallError::inner_of(shared.set().service(), &endpoint, error);
                let verdict = match verdict {
                    Verdict::Reachable => Verdict::unreachable(error.cause()),
                    failed => failed,
                };
                shared.judged(&endpoint, probe, &verdict, Outcome::Ignored);
                *this.failure = Some(error);
                this.tried.push(endpoint.generation());
            }
            Poll::Pending => {
                place.wait(cx);
                if place.is_open() {
                    return Poll::Pending;
                }
                *this.service = None;
                *this.place = None;
            }
        }
        Poll::Ready(())
    }

    /// Waits for the service's answer.
    #[inline]
    fn poll_answer(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Step<Result<C::Output, CallError>>> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(Step::Go);
        };
        let shared = this.pick.shared();
        let set = shared.set();
        let result = match future.poll(cx) {
            Poll::Ready(result) => Ok(result),
            Poll::Pending => Err(ready!(poll_abort(this.abort, this.admitted, set, cx))),
        };
        this.future.set(None);
        let admitted = this.admitted.take();
        let mut admitted = admitted.expect("stands beside the future from admission to answer");
        this.abort.leave(admitted.endpoint());
        let result = match result {
            Ok(result) => result,
            Err(aborted) => return Poll::Ready(Step::End(Err(aborted))),
        };
        let mut error = match result {
            Ok(response) => {
                let outcome = shared.classify.outcome(Ok(&response));
                let probe = admitted.judged();
                set.answered(admitted.endpoint(), probe, outcome);
                let handle = admitted.into_handle();
                let response = shared.completion.track_completion(handle, response);
                return Poll::Ready(Step::End(Ok(response)));
            }
            Err(error) => error,
        };
        let verdict = shared.classify.classify(&error);
        let outcome = match verdict {
            Verdict::Reachable => shared.classify.outcome(Err(&error)),
            Verdict::Unreachable(_) | Verdict::Lost(_) => Outcome::Ignored,
        };
        let probe = admitted.judged();
        admitted.failed();
        let endpoint = Arc::clone(admitted.endpoint());
        shared.judged(&endpoint, probe, &verdict, outcome);
        drop(admitted);
        let recovered = shared.recover.recover(&mut error);
        let error = CallError::inner_of(set.service(), &endpoint, error);
        let request = match recovered {
            Some(Recovered::Unsent(request)) => request,
            Some(Recovered::Refused(request)) if *this.refusals < MOST_REFUSALS => {
                *this.refusals += 1;
                request
            }
            _ => return Poll::Ready(Step::End(Err(error))),
        };
        set.hub.moved.fetch_add(1, Ordering::Relaxed);
        this.tried.push(endpoint.generation());
        *this.request = Some(request);
        *this.failure = Some(error);
        Poll::Ready(Step::Go)
    }
}

/// Ready with the error once a call in flight is to be cut, if ever.
fn poll_abort<S>(
    abort: &mut Abort,
    admitted: &Option<Admitted<S>>,
    set: &EndpointSet<S>,
    cx: &mut Context<'_>,
) -> Poll<CallError> {
    let (Some(&after), Some(admitted)) = (set.hub.abort_after.get(), admitted) else {
        return Poll::Pending;
    };
    let endpoint = admitted.endpoint();
    ready!(abort.poll(endpoint, after, cx));
    Poll::Ready(CallError::Aborted {
        service: set.service().clone(),
        instance: endpoint.address(),
        after,
    })
}

#[pin_project::pinned_drop]
impl<P, S, Req, R, C, V> PinnedDrop for Call<P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req>,
{
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        this.waiter.leave(this.pick.shared().set());
        if let Some(admitted) = this.admitted {
            this.abort.leave(admitted.endpoint());
        }
    }
}

impl<P, S, Req, R, C, V> fmt::Debug for Call<P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("admitted", &self.admitted.is_some())
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}

/// How often a request moves on after an instance said that it did not process it.
const MOST_REFUSALS: usize = 3;
