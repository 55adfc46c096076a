//! The way out: what has become of the instance's answer, and what becomes of the call then.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use tower::{BoxError, Service, load::completion::TrackCompletion};

use super::{Call, Parts, Step, Then};
use crate::{
    endpoint::{
        abort::Abort,
        admission::{Admitted, InFlight},
        error::CallError,
        fate::Fate,
        pick::Pick,
        rules::{Judge, Outcome, Recover, Recovered, Verdict},
        set::EndpointSet,
        tries::Refused,
    },
    retry::Again,
    sync::poll_budget,
};

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
        self.project().last_answer()
    }

    /// Waits for the service's answer, if it was called.
    #[inline]
    pub(super) fn poll_answer(
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

impl<P, S, Req, R, C, V> Parts<'_, P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    /// It is over. One that has not waited lets others work before it says so, now and then.
    #[cold]
    pub(super) fn end(
        mut self,
        error: Box<CallError>,
        polled: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<C::Output, CallError>> {
        if let Some(answer) = self.last_answer() {
            return Poll::Ready(Ok(answer)); // there is nobody to send it to again
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
    pub(super) fn leave(&mut self) -> Admitted<S> {
        let admitted = self.admitted.take();
        let admitted = admitted.expect("stands beside the future from admission to answer");
        self.abort.leave(admitted.endpoint());
        admitted
    }

    /// The service has answered.
    #[inline]
    pub(super) fn answered(self, response: S::Response) -> C::Output {
        // Taken apart where it is: as a whole it would be copied in other widths than it was written
        // in, which costs more than all of this.
        let admitted = self.admitted.as_mut();
        let admitted = admitted.expect("stands beside the future from admission to answer");
        self.abort.leave(admitted.endpoint());
        let shared = self.pick.shared();
        let outcome = outcome_of(&shared.classify, admitted, Ok(&response));
        *self.fate = match outcome {
            Outcome::Failure | Outcome::Overloaded => Fate::BadAnswer,
            _ => Fate::Ok,
        };
        admitted.observe_usual();
        let probe = admitted.judged();
        shared.set().answered(admitted.endpoint(), probe, outcome);
        let handle = admitted.hand_over();
        *self.admitted = None;
        shared.completion.track_completion(handle, response)
    }

    /// Whether the first call's answer is the caller's, as most are: nothing of it is weighed then, and no clock
    /// is read.
    #[inline]
    pub(super) fn takes(&mut self, response: &S::Response) -> bool {
        let shared = self.pick.shared();
        let Some(rules) = shared.set().settings().tries() else {
            return true;
        };
        if *self.second || shared.classify.again(Ok(response), &rules.retry) != Again::No {
            return false;
        }
        self.tries.learn(rules);
        self.tries.end();
        true
    }

    /// The response, unless that is to be tried again: then it is held until the next try begins. A second
    /// call fails with it.
    #[cold]
    pub(super) fn weigh(
        &mut self,
        response: S::Response,
    ) -> Result<Option<S::Response>, Box<CallError>> {
        let shared = self.pick.shared();
        let Some(rules) = shared.set().settings().tries() else {
            return Ok(Some(response));
        };
        let again = shared.classify.again(Ok(&response), &rules.retry);
        if !*self.second {
            self.tries.learn(rules);
        } else if again != Again::No {
            return Err(self.no_answer_yet(&response).1); // there is the first to wait for
        }
        let asked = again != Again::No;
        let again = self.tries.further(rules, again, 1, *self.until, None);
        let Some(request) = self.is_further(again) else {
            let ends = rules.per_try.is_some() || self.until.is_some();
            if asked && ends && self.tries.are_hedged() {
                // The second may do better, and comes to an end. Until then this is held.
                let (mut admitted, error) = self.no_answer_yet(&response);
                self.tries.hold(admitted.hand_over(), response);
                return Err(error);
            }
            self.tries.end();
            return Ok(Some(response));
        };
        let (mut admitted, error) = self.no_answer_yet(&response);
        let set = self.pick.shared().set();
        set.tell_move(admitted.endpoint(), &error, true);
        self.tried.push(admitted.endpoint().generation());
        self.tries.hold(admitted.hand_over(), response);
        *self.failure = Some(error);
        *self.request = Some(request);
        Ok(None)
    }

    /// The instance has answered with what is to be tried again: what still counts the call, and what
    /// it fails with if nothing better comes.
    fn no_answer_yet(&mut self, response: &S::Response) -> (Admitted<S>, Box<CallError>) {
        *self.fate = Fate::BadAnswer;
        let mut admitted = self.leave();
        let shared = self.pick.shared();
        let outcome = outcome_of(&shared.classify, &mut admitted, Ok(response));
        admitted.observe_usual();
        let probe = admitted.judged();
        let endpoint = Arc::clone(admitted.endpoint());
        shared.set().answered(&endpoint, probe, outcome);
        let service = shared.set().service();
        let error = CallError::inner_of(service, endpoint.address(), NO_ANSWER_YET);
        (admitted, Box::new(error))
    }

    /// The try is out of time, and its future gone. `reached` says whether the instance itself said so.
    #[cold]
    pub(super) fn late(self, mut admitted: Admitted<S>, reached: bool) -> Then {
        let shared = self.pick.shared();
        let set = shared.set();
        let endpoint = Arc::clone(admitted.endpoint());
        let probe = admitted.judged();
        admitted.refused();
        endpoint.count_failure();
        if reached {
            set.failed(&endpoint, probe, Outcome::Failure);
        } else {
            set.late(&endpoint, probe);
        }
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
        set.tell_move(&endpoint, &error, true);
        self.tried.push(endpoint.generation());
        *self.request = Some(request);
        *self.failure = Some(error);
        Then::Moves
    }

    /// The answer that is held, if there is one.
    fn last_answer(&mut self) -> Option<C::Output> {
        let (in_flight, response) = self.tries.take_held()?;
        *self.fate = Fate::BadAnswer;
        let completion = &self.pick.shared().completion;
        Some(completion.track_completion(in_flight, response))
    }

    /// The request, if there is a further try; counted either way.
    fn is_further(&self, again: Result<Req, Refused>) -> Option<Req> {
        let hub = self.pick.shared().set().hub();
        let request = again.map_err(|refused| refused.count(&hub.over_budget));
        let request = request.ok()?;
        hub.retries.fetch_add(1, Ordering::Relaxed);
        Some(request)
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
    pub(super) fn failed(mut self, mut error: S::Error) -> Then {
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
            return self.late(admitted, true); // the instance knew when, and was a moment faster than our timer
        }
        *self.fate = Fate::of_verdict(&verdict);
        let outcome = match verdict {
            Verdict::Reachable => outcome_of(&shared.classify, &mut admitted, Err(&error)),
            Verdict::Unreachable(_) | Verdict::Lost(_) => Outcome::Ignored,
        };
        let call = (admitted.judged(), admitted.number());
        admitted.failed();
        let endpoint = Arc::clone(admitted.endpoint());
        shared.judged(&endpoint, call, &verdict, outcome);
        drop(admitted);
        let mut again = None;
        match &recovered {
            Some(Recovered::Unsent(request) | Recovered::Refused(request)) => {
                let cost = shared.recover.doubtful(&error);
                *self.doubtful |= cost > 0;
                self.tries.came_back(request, cost);
            }
            None if self.tries.are_watched() => again = self.despite(&mut error),
            _ => {}
        }
        let shared = self.pick.shared();
        let error = Box::new(CallError::inner_of(
            shared.set().service(),
            endpoint.address(),
            error,
        ));
        if let Some(request) = again {
            shared.set().tell_move(&endpoint, &error, true);
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
        shared.set().tell_move(&endpoint, &error, false);
        self.tried.push(endpoint.generation());
        *self.request = Some(request);
        *self.failure = Some(error);
        Then::Moves
    }
}

/// How well an instance did. That it has too much to do counts against its limit, where there is one, and for
/// nothing else.
#[inline]
fn outcome_of<S, Res, E, V: Judge<Res, E>>(
    classify: &V,
    admitted: &mut Admitted<S>,
    result: Result<&Res, &E>,
) -> Outcome {
    if admitted.is_limited() && classify.overloaded(result) {
        admitted.refused();
        return Outcome::Overloaded;
    }
    classify.outcome(result)
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

/// What is said of an instance whose answer is none yet, where there is no better one.
const NO_ANSWER_YET: &str = "its answer was one to be tried again";

/// How often a request moves on after an instance said that it did not process it.
const MOST_REFUSALS: u8 = 3;
