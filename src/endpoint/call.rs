use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Service, load::completion::TrackCompletion};

use crate::{
    endpoint::{
        abort::Abort,
        admission::{Admitted, InFlight, Place},
        choice::Picked,
        clock,
        error::CallError,
        pick::Pick,
        progress::Progress,
        room::Room,
        rules::{Judge, Outcome, Recover, Recovered, Verdict},
        set::EndpointSet,
        settings::TryRules,
        shared::Shared,
        slot::Obtained,
        tried::Tried,
        tries::{Further, Refused, Tries},
        waiter::Waiter,
    },
    retry::Again,
    sync::poll_budget,
};

/// One call: pick, make, wait until ready, admit, `Service::call`, first poll, all in the first
/// poll of this future unless something has to be waited for.
///
/// An instance whose service is not ready is passed over while another's is; when none is, the call
/// takes the first that becomes so. While it waits it is admitted nowhere, and whatever shuts a gate
/// that it waits at wakes it to pick another. Allocates nothing unless an instance fails or has no
/// room, or it waits and is watched for `abort_in_flight_after`. Dropped at any point it leaves all
/// counts as they were. One that fails without having waited spends of tokio's cooperative budget;
/// one that succeeds so does not: what answers from memory is no loop that waits for anything.
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
    /// The instances that it waits at: the first to have room gets it.
    rooms: Vec<Room<S>>,
    /// Among those who wait for the set's next change.
    waiter: Waiter,
    tried: Tried,
    refusals: u8,
    /// What else it may do after an instance had it: nothing, unless that was set.
    tries: Tries<Req, S::Response, S::Error>,
    /// Whether it is the second for its request, beside a first.
    second: bool,
    /// When its caller stops waiting, if that is known: no rest lasts longer.
    until: Option<Instant>,
    /// Whether it was polled before, so that it has waited.
    polled: bool,
    /// Whether it is over but for telling its failure.
    over: bool,
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
    /// It did not come in the time that a try may last.
    Late,
    /// The call was cut.
    Aborted(Box<CallError>),
}

/// What becomes of a call that its instance has failed.
enum Then {
    Ends(Box<CallError>),
    /// The request is still ours, and goes to another instance.
    Moves,
    /// An instance that it was let into had no room all the same.
    FoundFull,
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
            rooms: Vec::new(),
            waiter: Waiter::default(),
            tried: Tried::default(),
            refusals: 0,
            tries: Tries::NONE,
            second: false,
            until: None,
            polled: false,
            over: false,
            failure: None,
            rules: PhantomData,
        }
    }

    /// Its caller stops waiting then.
    pub(crate) const fn ends_at(&mut self, until: Instant) {
        self.until = Some(until);
    }

    /// A second one for the same request, which goes where `first` was not. It is tried once, and an answer
    /// that would be tried again is none: it fails.
    pub(crate) fn beside(first: &Self, pick: P, request: Req) -> Self {
        let mut call = Self::new(pick, request);
        call.second = true;
        call.tried.inherit(&first.tried);
        if let Some(admitted) = &first.admitted {
            call.tried.push(admitted.endpoint().generation());
        }
        call
    }

    /// When one is to be begun, while its first try is under way.
    pub(crate) fn second_at(&self) -> Option<Instant> {
        let rules = self.pick.shared().set().settings().tries()?;
        if rules.hedge.is_none() || self.future.is_none() {
            return None;
        }
        self.tries.hedge_at(rules)
    }

    /// The request for it, if there may be one. What is paid for that is given back if it comes to nobody.
    pub(crate) fn hedge(self: Pin<&mut Self>) -> Option<Req> {
        let this = self.project();
        let set = this.pick.shared().set();
        match this.tries.hedge(set.settings().tries()?) {
            Ok(request) => Some(request),
            Err(Refused::Budget) => {
                set.hub.over_budget.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(Refused::Over) => None,
        }
    }

    /// Does not go where the second is.
    pub(crate) fn avoid(self: Pin<&mut Self>, second: &Self) {
        if let Some(admitted) = &second.admitted {
            let at = admitted.endpoint().generation();
            if !self.tried.contains(at) {
                self.project().tried.push(at);
            }
        }
    }

    /// Whether an instance has it now.
    pub(crate) const fn has_entered(&self) -> bool {
        self.future.is_some()
    }

    /// Whether one has, or had.
    pub(crate) const fn has_gone_out(&self) -> bool {
        self.request.is_none()
    }

    /// Somebody else has the answer: leaves the instance, as if its caller had gone.
    pub(crate) fn give_up(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.future.set(None);
        if let Some(admitted) = this.admitted.take() {
            give_up(this.pick.shared().set(), this.abort, &admitted);
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
        let endpoint = admitted.or_else(|| self.rooms.first().map(|room| room.place.endpoint()));
        Progress {
            service: self.pick.shared().set().service(),
            instance: endpoint.map(|endpoint| endpoint.address()),
            entered: self.future.is_some(),
            doubtful: self.future.is_some() || self.tries.have_been(),
            failure: self.failure.as_deref().map(CallError::in_full),
        }
    }

    /// Whether it waits for there to be an instance to call.
    #[inline]
    pub(crate) const fn waits_for_instances(&self) -> bool {
        self.waiter.waits() && self.rooms.is_empty()
    }

    /// The request of a call that has failed, if nobody has seen it: one that goes out again though it may
    /// have been seen is none of these.
    pub(crate) fn take_request(self: Pin<&mut Self>) -> Option<Req> {
        self.project().request.take()
    }

    /// A deadline that is ours has passed: gives the call up, which counts against the instance
    /// that has not answered it.
    pub(crate) fn expire(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.future.set(None);
        if let Some(admitted) = this.admitted.take() {
            this.abort.leave(admitted.endpoint());
            this.pick.shared().set().overdue(admitted.endpoint());
        }
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
        let polled = mem::replace(self.as_mut().project().polled, true);
        if polled && self.over {
            ready!(poll_budget(cx));
            let failure = self.project().failure.take();
            return Poll::Ready(Err(*failure.expect("polled after it was done")));
        }
        self.pick.shared().set().maintain();
        let mut looked = false;
        loop {
            match ready!(self.as_mut().poll_answer(cx)) {
                Step::Enter => {}
                Step::Answered(response) => {
                    let response = match self.tries.are_watched() {
                        false => Some(response),
                        true => match self.as_mut().project().weigh(response) {
                            Ok(response) => response,
                            Err(error) => return Poll::Ready(Err(*error)),
                        },
                    };
                    if let Some(response) = response {
                        // Nothing as large as an error is handed on on this way.
                        let response = self.project().answered(response);
                        return Poll::Ready(Ok(response));
                    }
                }
                Step::Failed(error) => match self.as_mut().project().failed(error) {
                    Then::Ends(error) => return self.project().end(error, polled, cx),
                    Then::Moves => {}
                    // Who says so each time at once is asked again and again, and others have to work.
                    Then::FoundFull => ready!(poll_budget(cx)),
                },
                Step::Late => {
                    let mut this = self.as_mut().project();
                    let admitted = this.leave();
                    if let Then::Ends(error) = this.late(admitted) {
                        return self.project().end(error, polled, cx);
                    }
                }
                Step::Aborted(error) => return Poll::Ready(Err(*error)),
            }
            let this = self.as_mut().project();
            ready!(this.tries.poll_rest(cx));
            if this.tried.is_full() {
                if this.tries.may_repeat() {
                    this.tried.forgive();
                } else if let Some(failure) = this.failure.take() {
                    return self.project().end(failure, polled, cx);
                }
            }
            let again = mem::replace(&mut looked, true);
            if let Err(error) = ready!(self.as_mut().poll_entry(again, cx)) {
                return self.project().end(error, polled, cx);
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
    /// The answer that is held, of a call that failed for want of a better one.
    pub(crate) fn last_answer(self: Pin<&mut Self>) -> Option<C::Output> {
        let this = self.project();
        let (in_flight, response) = this.tries.take_held()?;
        let completion = &this.pick.shared().completion;
        Some(completion.track_completion(in_flight, response))
    }

    /// Goes into an instance, or finds that the one it looked at is no good or has no room, to look
    /// `again`: not at those that it waits at, which it does first. Place and service stay in this frame
    /// unless they have to wait.
    #[inline]
    fn poll_entry(
        mut self: Pin<&mut Self>,
        again: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Box<CallError>>> {
        if !again && !self.rooms.is_empty() && self.as_mut().poll_rooms(cx) {
            return Poll::Ready(Ok(()));
        }
        // The service is dropped before the place, which is taken out of what was picked once: each
        // further wrapping is a copy.
        let mut place = match self.pick.pick(&self.tried) {
            Picked::Place(place) => place,
            none => match ready!(self.as_mut().poll_place(none, cx)) {
                Ok(place) => place,
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        let this = self.as_mut().project();
        this.waiter.leave(this.pick.shared().set());
        let counted = this.rooms.is_empty();
        let mut service = match poll_service(this.pick.shared(), &mut place, counted, cx) {
            Poll::Ready(Some(service)) => service,
            Poll::Ready(None) => {
                self.pass_by(&place);
                return Poll::Ready(Ok(()));
            }
            Poll::Pending => {
                let service = None;
                return self.wait_at(Room { service, place }, cx).map(Ok);
            }
        };
        match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.project().enter(&mut service, &mut place);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                drop(service);
                self.broken(&mut place, error);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                place.wait(counted, cx);
                if !place.is_open() {
                    return Poll::Ready(Ok(()));
                }
                let service = Some(service);
                self.wait_at(Room { service, place }, cx).map(Ok)
            }
        }
    }

    /// Looks at those that it waits at, in the order in which it came to them. True if one let it
    /// in, or is of no more use.
    ///
    /// Like all that is seldom done this takes the call and not its parts: to hand those on they would
    /// have to be gathered in memory at each poll.
    #[cold]
    fn poll_rooms(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let mut at = 0;
        while at < self.rooms.len() {
            let mut room = self.as_mut().project().rooms.remove(at);
            if self.as_mut().poll_room(&mut room, cx) {
                let this = self.project();
                if this.admitted.is_some() {
                    this.waiter.leave(this.pick.shared().set());
                }
                forget_rooms(this.rooms, this.tried);
                return true;
            }
            self.as_mut().project().rooms.insert(at, room);
            at += 1;
        }
        false
    }

    /// Goes into one that it waits at. True if it was let in, or the instance is of no more use.
    fn poll_room(self: Pin<&mut Self>, room: &mut Room<S>, cx: &mut Context<'_>) -> bool {
        let counted = self.rooms.is_empty();
        let service = match &mut room.service {
            Some(service) => service,
            empty => match poll_service(self.pick.shared(), &mut room.place, counted, cx) {
                Poll::Ready(Some(service)) => empty.insert(service),
                Poll::Ready(None) => {
                    self.pass_by(&room.place);
                    return true;
                }
                Poll::Pending => return false,
            },
        };
        match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.project().enter(service, &mut room.place);
                true
            }
            Poll::Ready(Err(error)) => {
                room.service = None;
                self.broken(&mut room.place, error);
                true
            }
            Poll::Pending => {
                room.place.wait(counted, cx);
                !room.place.is_open()
            }
        }
    }

    /// Waits for there to be an endpoint, if it was `none` that was picked.
    #[cold]
    fn poll_place(
        self: Pin<&mut Self>,
        none: Picked<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Place<S>, Box<CallError>>> {
        let this = self.project();
        let (mut picked, mut registered) = (none, false);
        loop {
            match picked {
                Picked::Place(place) => return Poll::Ready(Ok(place)),
                Picked::Wait if registered => return Poll::Pending,
                Picked::Wait => {
                    // Looked for again after this, so that no change falls in between.
                    this.waiter.register(this.pick.shared().set(), cx.waker());
                    this.tried.wait_since(clock::now());
                    registered = true;
                }
                Picked::Nobody(_) if this.tries.may_repeat() => this.tried.forgive(),
                Picked::Nobody(error) => {
                    return Poll::Ready(Err(this.failure.take().unwrap_or(error)));
                }
            }
            picked = this.pick.pick(this.tried);
        }
    }

    /// The endpoint is no good, and its gate says so. Without gates nothing else keeps it from being
    /// picked again and again.
    #[cold]
    fn pass_by(self: Pin<&mut Self>, place: &Place<S>) {
        if !self.pick.shared().set().is_gated() {
            self.project().tried.push(place.endpoint().generation());
        }
    }

    /// By the contract of `poll_ready` this service is of no more use. The request is still ours.
    #[cold]
    fn broken(self: Pin<&mut Self>, place: &mut Place<S>, error: S::Error) {
        let this = self.project();
        let shared = this.pick.shared();
        let endpoint = Arc::clone(place.endpoint());
        let probe = place.hand_over_probe();
        drop(endpoint.slot.discard());
        let verdict = shared.classify.classify(&error);
        let error = CallError::inner_of(shared.set().service(), endpoint.address(), error);
        let verdict = match verdict {
            Verdict::Reachable => Verdict::unreachable(error.cause()),
            failed => failed,
        };
        shared.judged(&endpoint, probe, &verdict, Outcome::Ignored);
        *this.failure = Some(Box::new(error));
        this.tried.push(endpoint.generation());
    }

    /// It has no room now: others are looked at. Ready to do so, unless it waits at as many as it
    /// may.
    #[cold]
    fn wait_at(self: Pin<&mut Self>, room: Room<S>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let more = this.tried.push_full(room.place.endpoint().generation());
        this.rooms.push(room);
        // What was looked at before has this task's waker; what is new has it through the set.
        this.waiter.register(this.pick.shared().set(), cx.waker());
        if more { Poll::Ready(()) } else { Poll::Pending }
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
                if let Some(admitted) = this.admitted {
                    admitted.begin_waiting();
                }
                if this.tries.poll_late(cx).is_ready() {
                    this.future.set(None);
                    return Poll::Ready(Step::Late);
                }
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
    /// Calls the service, if the gate lets the call in.
    #[inline(always)] // what it is given would go through memory
    fn enter(&mut self, service: &mut S, place: &mut Place<S>) {
        let shared = self.pick.shared();
        let Some(admitted) = place.admit(shared.set()) else {
            return;
        };
        let admitted = self.admitted.insert(admitted);
        let entering = admitted.enter();
        let request = self.request.take();
        let mut request = request.expect("polled after it was done, or after a panic");
        if let Some(rules) = shared.set().settings().tries() {
            begin_try(
                self.tries,
                rules,
                &shared.recover,
                &mut request,
                *self.second,
            );
        }
        let future = service.call(request);
        self.future.set(Some(future));
        drop(entering);
        if !self.rooms.is_empty() {
            forget_rooms(self.rooms, self.tried); // room that was handed to it there is for the next
        }
    }

    /// It is over. One that has not waited lets others work before it says so, now and then.
    #[cold]
    fn end(
        self,
        error: Box<CallError>,
        polled: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<C::Output, CallError>> {
        if let Some((in_flight, response)) = self.tries.take_held() {
            // There is nobody to send it to again: that is the answer, then.
            let completion = &self.pick.shared().completion;
            return Poll::Ready(Ok(completion.track_completion(in_flight, response)));
        }
        if !polled && poll_budget(cx).is_pending() {
            *self.failure = Some(error);
            *self.over = true;
            return Poll::Pending;
        }
        Poll::Ready(Err(*error))
    }

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
        admitted.observe_usual();
        let probe = admitted.judged();
        shared.set().answered(admitted.endpoint(), probe, outcome);
        let handle = admitted.hand_over();
        *self.admitted = None;
        shared.completion.track_completion(handle, response)
    }

    /// The response, unless that is to be tried again: then it is held until the next try begins. A second
    /// call fails with it.
    #[cold]
    fn weigh(&mut self, response: S::Response) -> Result<Option<S::Response>, Box<CallError>> {
        let shared = self.pick.shared();
        let Some(rules) = shared.set().settings().tries() else {
            return Ok(Some(response));
        };
        let again = shared.classify.again(Ok(&response), &rules.retry);
        if !*self.second {
            self.tries.learn(rules);
        } else if again != Again::No {
            return Err(self.second_best(&response));
        }
        let asked = again != Again::No;
        let again = self.tries.further(rules, again, 1, *self.until, None);
        let Some(request) = self.is_further(again) else {
            if asked && self.tries.are_hedged() {
                return Err(self.last_but_one(response)); // the second may do better
            }
            self.tries.end();
            return Ok(Some(response));
        };
        let admitted = self.admitted.as_mut();
        let admitted = admitted.expect("stands beside the future from admission to answer");
        let endpoint = Arc::clone(admitted.endpoint());
        self.abort.leave(&endpoint);
        let outcome = shared.classify.outcome(Ok(&response));
        admitted.observe_usual();
        let probe = admitted.judged();
        shared.set().answered(&endpoint, probe, outcome);
        let in_flight = admitted.hand_over();
        *self.admitted = None;
        self.tries.hold(in_flight, response);
        self.tried.push(endpoint.generation());
        *self.request = Some(request);
        Ok(None)
    }

    /// The last answer to a first call is held for as long as there is a second.
    fn last_but_one(&mut self, response: S::Response) -> Box<CallError> {
        let mut admitted = self.leave();
        let shared = self.pick.shared();
        let outcome = shared.classify.outcome(Ok(&response));
        let probe = admitted.judged();
        let endpoint = Arc::clone(admitted.endpoint());
        shared.set().answered(&endpoint, probe, outcome);
        self.tries.hold(admitted.hand_over(), response);
        let service = shared.set().service();
        let text = "its answer was one to be tried again";
        Box::new(CallError::inner_of(service, endpoint.address(), text))
    }

    /// The answer to the second call is none yet, and there is the first to wait for.
    fn second_best(&mut self, response: &S::Response) -> Box<CallError> {
        let mut admitted = self.leave();
        let shared = self.pick.shared();
        let outcome = shared.classify.outcome(Ok(response));
        let probe = admitted.judged();
        let endpoint = Arc::clone(admitted.endpoint());
        shared.set().answered(&endpoint, probe, outcome);
        let service = shared.set().service();
        let text = "its answer was one to be tried again";
        Box::new(CallError::inner_of(service, endpoint.address(), text))
    }

    /// The try is out of time, and its future gone.
    #[cold]
    fn late(self, mut admitted: Admitted<S>) -> Then {
        let shared = self.pick.shared();
        let set = shared.set();
        let endpoint = Arc::clone(admitted.endpoint());
        let probe = admitted.judged();
        endpoint.count_failure();
        set.failed(&endpoint, probe, Outcome::Failure);
        drop(admitted);
        set.hub.late_tries.fetch_add(1, Ordering::Relaxed);
        let rules = set.settings().tries();
        let error = Box::new(CallError::TryTimedOut {
            service: set.service().clone(),
            instance: endpoint.address(),
            after: rules.and_then(|rules| rules.per_try).unwrap_or_default(),
        });
        let again = rules.map(|rules| {
            let again = match rules.retry.takes_late() {
                true => Again::Yes,
                false => Again::No,
            };
            self.tries.further(rules, again, 1, *self.until, None)
        });
        let Some(request) = again.and_then(|again| self.is_further(again)) else {
            return Then::Ends(error);
        };
        self.tried.push(endpoint.generation());
        *self.request = Some(request);
        *self.failure = Some(error);
        Then::Moves
    }

    /// The request, if there is a further try; counted either way.
    fn is_further(&self, again: Result<Further<Req>, Refused>) -> Option<Req> {
        let hub = self.pick.shared().set().hub();
        match again {
            Ok(Further { request }) => {
                hub.retries.fetch_add(1, Ordering::Relaxed);
                Some(request)
            }
            Err(Refused::Budget) => {
                hub.over_budget.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(Refused::Over) => None,
        }
    }

    /// What the policy says of a failure of which the request did not come back.
    #[cold]
    fn despite(&mut self, error: &mut S::Error) -> Option<Req> {
        let shared = self.pick.shared();
        let rules = shared.set().settings().tries()?;
        let cost = shared.recover.doubtful(error);
        let again = match shared.classify.again(Err(error), &rules.retry) {
            Again::No if cost > 0 && rules.retry.takes_lost() => Again::Yes,
            again => again,
        };
        let again = self
            .tries
            .further(rules, again, cost.max(1), *self.until, Some(error));
        self.is_further(again)
    }

    /// The service has failed.
    #[inline(never)]
    fn failed(mut self, mut error: S::Error) -> Then {
        let mut admitted = self.leave();
        let shared = self.pick.shared();
        let recovered = shared.recover.recover(&mut error);
        if let Some(Recovered::Full(request)) = recovered {
            // Nobody was asked: nothing is held against the instance, nor is it an answer of its.
            admitted.forget_time();
            *self.request = Some(request);
            return Then::FoundFull;
        }
        let verdict = shared.classify.classify(&error);
        if recovered.is_none() && verdict == Verdict::Reachable && self.tries.are_out_of_time() {
            return self.late(admitted); // the instance knew when, and was a moment faster than our timer
        }
        let outcome = match verdict {
            Verdict::Reachable => shared.classify.outcome(Err(&error)),
            Verdict::Unreachable(_) | Verdict::Lost(_) => Outcome::Ignored,
        };
        let probe = admitted.judged();
        admitted.failed();
        let endpoint = Arc::clone(admitted.endpoint());
        shared.judged(&endpoint, probe, &verdict, outcome);
        drop(admitted);
        let mut again = None;
        if self.tries.are_watched() {
            match &recovered {
                Some(Recovered::Unsent(request) | Recovered::Refused(request)) => {
                    let cost = shared.recover.doubtful(&error);
                    self.tries.came_back(request, cost);
                }
                Some(Recovered::Full(_)) => {}
                None => again = self.despite(&mut error),
            }
        }
        let shared = self.pick.shared();
        let error = Box::new(CallError::inner_of(
            shared.set().service(),
            endpoint.address(),
            error,
        ));
        if let Some(request) = again {
            self.tried.push(endpoint.generation());
            *self.request = Some(request);
            *self.failure = Some(error);
            return Then::Moves;
        }
        let request = match recovered {
            Some(Recovered::Unsent(request)) => request,
            Some(Recovered::Refused(request)) if *self.refusals < MOST_REFUSALS => {
                *self.refusals += 1;
                request
            }
            _ => return Then::Ends(error),
        };
        shared.set().hub.moved.fetch_add(1, Ordering::Relaxed);
        self.tried.push(endpoint.generation());
        *self.request = Some(request);
        *self.failure = Some(error);
        Then::Moves
    }
}

/// The request is about to go into an instance, and that is watched.
#[cold]
fn begin_try<Req, Res, E>(
    tries: &mut Tries<Req, Res, E>,
    rules: &TryRules,
    recover: &impl Recover<Req, E>,
    request: &mut Req,
    second: bool,
) {
    tries.begin(rules, || match second {
        true => None,
        false => recover.keep(request, &rules.retry),
    });
}

/// It waits at none of them any more.
#[cold]
fn forget_rooms<S>(rooms: &mut Vec<Room<S>>, tried: &mut Tried) {
    rooms.clear();
    tried.clear_full();
}

/// Clones the endpoint's service; makes it if nobody has. `None`: the endpoint is no good.
#[inline]
fn poll_service<S: Clone + 'static, R, C, V>(
    shared: &Shared<S, R, C, V>,
    place: &mut Place<S>,
    counted: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<S>> {
    if let Some(service) = place.endpoint().slot.get() {
        return Poll::Ready(Some(service));
    }
    poll_making(shared, place, counted, cx)
}

#[cold]
fn poll_making<S: Clone + 'static, R, C, V>(
    shared: &Shared<S, R, C, V>,
    place: &mut Place<S>,
    counted: bool,
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
                place.wait(counted, cx);
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
    let (Some(after), Some(admitted)) = (set.settings().aborts_after(), admitted) else {
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
            give_up(this.pick.shared().set(), this.abort, admitted);
        }
    }
}

/// Its caller does not wait for it any more.
fn give_up<S>(set: &EndpointSet<S>, abort: &mut Abort, admitted: &Admitted<S>) {
    abort.leave(admitted.endpoint());
    if set.settings().outcomes().is_some()
        && let Some(age) = admitted.age()
    {
        set.given_up(admitted.endpoint(), age);
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
