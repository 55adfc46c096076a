mod entry;
mod outcome;

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Service, load::completion::TrackCompletion};

use crate::{
    endpoint::{
        abort::Abort,
        admission::{Admitted, InFlight},
        error::CallError,
        fate::Fate,
        pick::Pick,
        progress::Progress,
        room::Room,
        rules::{Judge, Recover},
        set::EndpointSet,
        tried::Tried,
        tries::Tries,
        waiter::Waiter,
    },
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
    /// Whether it came back though an instance may have processed it.
    doubtful: bool,
    /// What the last instance made of it.
    fate: Fate,
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

type Parts<'a, P, S, Req, R, C, V> = CallProjection<'a, P, S, Req, R, C, V>;

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
            doubtful: false,
            fate: Fate::Ok,
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

    /// The request for it, if there may be one. What is paid for that its owner gives back if it comes to
    /// nobody; if it does not, [`second_went_out`](Self::second_went_out).
    pub(crate) fn hedge(self: Pin<&mut Self>) -> Option<Req> {
        let this = self.project();
        let set = this.pick.shared().set();
        let second = this.tries.hedge(set.settings().tries()?);
        second
            .map_err(|refused| refused.count(&set.hub().over_budget))
            .ok()
    }

    /// The second has come to an instance: that was one of the call's tries.
    pub(crate) fn second_went_out(self: Pin<&mut Self>) {
        self.project().tries.count_second();
    }

    /// Whether it was sent again, or is to be.
    pub(crate) fn is_sent_again(&self) -> bool {
        self.tries.have_been()
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

    /// Whether it has failed for want of a better answer than it has.
    pub(crate) fn holds_answer(&self) -> bool {
        self.tries.hold_answer()
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
        if let Some(mut admitted) = this.admitted.take() {
            give_up(this.pick.shared().set(), this.abort, &mut admitted);
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
            doubtful: self.future.is_some() || self.may_have_been_seen(),
            failure: self.failure.as_deref().map(ToString::to_string),
        }
    }

    /// What became of it, once it has been answered.
    #[inline]
    pub(crate) fn fate(&self) -> Fate {
        match self.fate {
            Fate::BadAnswer => Fate::BadAnswer,
            _ if self.failure.is_some() => Fate::Moved,
            _ => Fate::Ok,
        }
    }

    /// What became of it, once it has failed with this.
    pub(crate) const fn fate_of(&self, error: &CallError) -> Fate {
        Fate::of(error, self.fate)
    }

    /// Whether it waits for there to be an instance to call.
    #[inline]
    pub(crate) const fn waits_for_instances(&self) -> bool {
        self.waiter.waits() && self.rooms.is_empty()
    }

    /// The request of a call that has failed, if nobody has seen it: one that goes out again though it may
    /// have been seen is none of these.
    pub(crate) fn take_request(self: Pin<&mut Self>) -> Option<Req> {
        if self.may_have_been_seen() {
            return None;
        }
        self.project().request.take()
    }

    /// Whether an instance that has it no more may have processed it.
    fn may_have_been_seen(&self) -> bool {
        self.doubtful || self.tries.have_been()
    }

    /// What the try before failed with, of a call that does not wait for another.
    pub(crate) fn take_failure(self: Pin<&mut Self>) -> Option<CallError> {
        self.project().failure.take().map(|failure| *failure)
    }

    /// A deadline that is ours has passed: gives the call up, which counts against the instance
    /// that has not answered it.
    pub(crate) fn expire(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.future.set(None);
        if let Some(mut admitted) = this.admitted.take() {
            this.abort.leave(admitted.endpoint());
            admitted.refused();
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
                    let response =
                        if !self.tries.are_watched() || self.as_mut().project().takes(&response) {
                            Some(response)
                        } else {
                            match self.as_mut().project().weigh(response) {
                                Ok(response) => response,
                                Err(error) => return Poll::Ready(Err(*error)),
                            }
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
                    if let Then::Ends(error) = this.late(admitted, false) {
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
fn give_up<S>(set: &EndpointSet<S>, abort: &mut Abort, admitted: &mut Admitted<S>) {
    abort.leave(admitted.endpoint());
    if admitted.is_limited() {
        admitted.given_up();
    }
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
