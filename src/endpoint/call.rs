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
    CallError, EndpointSet, InFlight, Judge, Outcome, Progress, Recover, Recovered, Shared,
    Verdict,
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
/// pick another. Allocates nothing unless an instance fails, or it waits and is watched for
/// `abort_in_flight_after`. Dropped at any point it leaves all counts as they were.
#[pin_project(PinnedDrop, project = CallProjection)]
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
    refusals: u8,
    /// Boxed: seldom there, and every call has the room for it.
    failure: Option<Box<CallError>>,
    rules: PhantomData<Rules<R, C, V>>,
}

/// Named by a call and not held by it: the picker does.
type Rules<R, C, V> = fn() -> (R, C, V);

/// What has become of the instance's answer.
enum Step<T, E> {
    /// No instance has been asked.
    Enter,
    Answered(T),
    Failed(E),
    /// The call was cut.
    Aborted(Box<CallError>),
}

impl<P, S, Req, R, C, V> Call<P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req>,
{
    #[inline]
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
            failure: self.failure.as_deref().map(CallError::in_full),
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.pick.shared().set().tend();
        loop {
            match ready!(self.as_mut().poll_answer(cx)) {
                Step::Enter => {}
                Step::Answered(response) => {
                    // Nothing as large as an error is handed on on this way.
                    let response = self.project().answered(response);
                    return Poll::Ready(Ok(response));
                }
                Step::Failed(error) => {
                    if let Some(error) = self.as_mut().project().failed(error) {
                        return Poll::Ready(Err(*error));
                    }
                }
                Step::Aborted(error) => return Poll::Ready(Err(*error)),
            }
            if self.tried.is_full()
                && let Some(failure) = self.as_mut().project().failure.take()
            {
                return Poll::Ready(Err(*failure));
            }
            if let Err(error) = ready!(self.as_mut().poll_entry(cx)) {
                return Poll::Ready(Err(*error));
            }
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
    /// Goes into an instance, or finds that the one it looked at is no good, to look again. Place
    /// and service stay in this frame unless they have to wait.
    #[inline]
    fn poll_entry(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Box<CallError>>> {
        let mut this = self.project();
        let shared = this.pick.shared();
        // The service is dropped before the place.
        let mut place = match this.place.take() {
            Some(place) => place,
            None => match ready!(poll_place(this.pick, this.tried, this.waiter, cx)) {
                Ok(place) => place,
                Err(error) => return Poll::Ready(Err(this.failure.take().unwrap_or(error))),
            },
        };
        let mut service = match this.service.take() {
            Some(service) => service,
            None => match poll_service(shared, &mut place, cx) {
                Poll::Ready(Some(service)) => service,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    *this.place = Some(place);
                    return Poll::Pending;
                }
            },
        };
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
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                // By the contract of `poll_ready` this service is of no more use. The request is
                // still ours.
                let endpoint = Arc::clone(place.endpoint());
                let probe = place.hand_over_probe();
                drop(endpoint.slot.discard());
                drop(service);
                drop(place);
                let verdict = shared.classify.classify(&error);
                let error = CallError::inner_of(shared.set().service(), &endpoint, error);
                let verdict = match verdict {
                    Verdict::Reachable => Verdict::unreachable(error.cause()),
                    failed => failed,
                };
                shared.judged(&endpoint, probe, &verdict, Outcome::Ignored);
                *this.failure = Some(Box::new(error));
                this.tried.push(endpoint.generation());
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                place.wait(cx);
                if place.is_open() {
                    *this.service = Some(service);
                    *this.place = Some(place);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Waits for the service's answer, if it was called.
    #[inline]
    fn poll_answer(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Step<S::Response, S::Error>> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(Step::Enter);
        };
        let step = match future.poll(cx) {
            Poll::Ready(Ok(response)) => Step::Answered(response),
            Poll::Ready(Err(error)) => Step::Failed(error),
            Poll::Pending => {
                let set = this.pick.shared().set();
                let error = ready!(poll_abort(this.abort, this.admitted, set, cx));
                this.future.set(None);
                drop(this.leave());
                return Poll::Ready(Step::Aborted(error));
            }
        };
        this.future.set(None);
        Poll::Ready(step)
    }
}

type Parts<'a, P, S, Req, R, C, V> = CallProjection<'a, P, S, Req, R, C, V>;

impl<P, S, Req, R, C, V> Parts<'_, P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    /// The admission of a call whose future is gone.
    #[inline]
    fn leave(&mut self) -> Admitted<S> {
        let admitted = self.admitted.take();
        let admitted = admitted.expect("stands beside the future from admission to answer");
        self.abort.leave(admitted.endpoint());
        admitted
    }

    /// The service has answered.
    #[inline]
    fn answered(self, response: S::Response) -> C::Output {
        // Taken apart where it is: as a whole it would be copied in other widths than it was written
        // in, which costs more than all of this.
        let admitted = self.admitted.as_mut();
        let admitted = admitted.expect("stands beside the future from admission to answer");
        self.abort.leave(admitted.endpoint());
        let shared = self.pick.shared();
        let outcome = shared.classify.outcome(Ok(&response));
        let probe = admitted.judged();
        shared.set().answered(admitted.endpoint(), probe, outcome);
        let handle = admitted.hand_over();
        *self.admitted = None;
        shared.completion.track_completion(handle, response)
    }

    /// The service has failed. `None`: the request is still ours, and goes to another instance.
    #[inline(never)]
    fn failed(mut self, mut error: S::Error) -> Option<Box<CallError>> {
        let mut admitted = self.leave();
        let shared = self.pick.shared();
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
        let error = Box::new(CallError::inner_of(
            shared.set().service(),
            &endpoint,
            error,
        ));
        let request = match recovered {
            Some(Recovered::Unsent(request)) => request,
            Some(Recovered::Refused(request)) if *self.refusals < MOST_REFUSALS => {
                *self.refusals += 1;
                request
            }
            _ => return Some(error),
        };
        shared.set().hub.moved.fetch_add(1, Ordering::Relaxed);
        self.tried.push(endpoint.generation());
        *self.request = Some(request);
        *self.failure = Some(error);
        None
    }
}

/// Chooses an endpoint, or waits for there to be one.
#[inline]
fn poll_place<P, S, R, C, V>(
    pick: &P,
    tried: &Tried,
    waiter: &mut Waiter,
    cx: &mut Context<'_>,
) -> Poll<Result<Place<S>, Box<CallError>>>
where
    P: Pick<S, R, C, V>,
{
    let set = pick.shared().set();
    let mut registered = false;
    loop {
        match pick.pick(tried) {
            Picked::Place(place) => {
                waiter.leave(set);
                return Poll::Ready(Ok(place));
            }
            Picked::Wait if registered => return Poll::Pending,
            Picked::Wait => {
                // Looked for again after this, so that no change falls in between.
                waiter.register(set, cx.waker());
                registered = true;
            }
            Picked::Nobody(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Clones the endpoint's service; makes it if nobody has. `None`: the endpoint is no good.
#[inline]
fn poll_service<S: Clone + 'static, R, C, V>(
    shared: &Shared<S, R, C, V>,
    place: &mut Place<S>,
    cx: &mut Context<'_>,
) -> Poll<Option<S>> {
    if let Some(service) = place.endpoint().slot.get() {
        return Poll::Ready(Some(service));
    }
    poll_making(shared, place, cx)
}

#[cold]
fn poll_making<S: Clone + 'static, R, C, V>(
    shared: &Shared<S, R, C, V>,
    place: &mut Place<S>,
    cx: &mut Context<'_>,
) -> Poll<Option<S>> {
    let mut registered = false;
    loop {
        let endpoint = place.endpoint();
        match endpoint
            .slot
            .obtain(|| shared.make.make(&endpoint.instance()))
        {
            Obtained::Idle(service) => return Poll::Ready(Some(service)),
            Obtained::Made(service) => {
                endpoint.wakers().wake_all();
                return Poll::Ready(Some(service));
            }
            Obtained::Busy if place.is_open() => {
                if registered {
                    return Poll::Pending;
                }
                place.wait(cx);
                registered = true;
            }
            Obtained::Panicked => {
                shared.set().unusable(endpoint);
                return Poll::Ready(None);
            }
            // Shut, and the gate says so: the next pick passes it by.
            Obtained::Busy | Obtained::Never => return Poll::Ready(None),
        }
    }
}

/// Ready with the error once a call in flight is to be cut, if ever.
fn poll_abort<S>(
    abort: &mut Abort,
    admitted: &Option<Admitted<S>>,
    set: &EndpointSet<S>,
    cx: &mut Context<'_>,
) -> Poll<Box<CallError>> {
    let (Some(&after), Some(admitted)) = (set.hub.abort_after.get(), admitted) else {
        return Poll::Pending;
    };
    let endpoint = admitted.endpoint();
    ready!(abort.poll(endpoint, after, cx));
    Poll::Ready(Box::new(CallError::Aborted {
        service: set.service().clone(),
        instance: endpoint.address(),
        after,
    }))
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
const MOST_REFUSALS: u8 = 3;
