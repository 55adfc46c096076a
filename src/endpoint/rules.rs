use std::{fmt, sync::Arc, time::Duration};

use crate::retry::{Again, Retry};

/// Gives back a request that a failed call provably never handed to the instance.
///
/// What it yields is sent to another instance, whatever the method, so it must be certain.
pub trait Recover<Req, E> {
    /// Takes the request out of `error`, if it is there.
    fn recover(&self, error: &mut E) -> Option<Recovered<Req>>;

    /// Keeps what it takes to send the request again after an instance had it, if it may be processed twice.
    /// Asked once a call, and only where a retry policy or a per-try time-out is set. Default: it may not.
    fn keep(&self, request: &mut Req, retry: &Retry) -> Option<Box<dyn Keep<Req, E>>> {
        let _ = (request, retry);
        None
    }

    /// How often the request went out to the instance so that nobody knows whether it was processed, if
    /// that is why it failed: a policy may send it again. Asked of requests that come back, too: one that may
    /// have been seen goes elsewhere, and is never taken for one that nobody saw. Default: 0, which says that
    /// it failed otherwise.
    fn doubtful(&self, error: &E) -> u32 {
        let _ = error;
        0
    }
}

/// What is kept of a request to send it again. Dropped as soon as there is an answer.
pub trait Keep<Req, E>: Send {
    /// Whether it can be sent again.
    ///
    /// # Errors
    ///
    /// Why not.
    fn can_again(&mut self) -> Result<(), &'static str> {
        Ok(())
    }

    /// The request, for this try of its call: 2 for the first that is one more.
    fn again(&mut self, attempt: u32) -> Option<Req>;

    /// The request once more, for a try beside the first, which goes on. Default: there is none.
    fn beside(&mut self, attempt: u32) -> Option<Req> {
        let _ = attempt;
        None
    }

    /// The request came back unprocessed and goes to another instance: what it carries by now is what the
    /// next try is to carry. Default: nothing is taken over.
    fn moves(&mut self, request: &Req) {
        let _ = request;
    }

    /// Nobody needs it any more. Default: it is dropped; one that is kept often may be kept for another call.
    fn let_go(self: Box<Self>) {}

    /// It would have been sent again, but for that. Default: nothing is said.
    fn explain(&self, error: &mut E, why: &str) {
        let _ = (error, why);
    }
}

/// A request that was not processed, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered<Req> {
    /// No connection took it. Each callable instance is tried at most once, up to 10.
    Unsent(Req),
    /// The instance said that it did not process it (REFUSED_STREAM, or a GOAWAY that leaves it
    /// out). Another instance is tried at most 3 times after such refusals.
    Refused(Req),
    /// It went in on the prospect of a connection, and others had all the room that this came to.
    /// Nothing is held against the instance: where there is room is looked for anew, there as well.
    Full(Req),
}

/// The default of [`Recover`]: no request ever comes back.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NeverRecover;

/// Tells from a call's error whether the instance could be reached.
///
/// Every closure `Fn(&E) -> Verdict` is one.
pub trait Classify<E> {
    /// Judges one error.
    fn classify(&self, error: &E) -> Verdict;
}

/// What an error says about the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It could be reached: the error is about this call only.
    Reachable,
    /// No connection to it can be had, or it fell silent, for this reason. The instance gets no call
    /// until a probe succeeds: after 1 s, 2 s, 4 s and so on to 30 s, or sooner if a call has nobody
    /// else. How long it rests begins anew only when a call was answered.
    Unreachable(Arc<str>),
    /// Its connection ended, broke or spoke nonsense with the call on it, for this reason. That
    /// speaks of the connection, and perhaps of the request: nobody else is refused for it. One dial
    /// finds out whether the instance can be reached; meanwhile others are preferred, and calls that
    /// have no other wait for it. Five in a row without an answer between make an outlier, unless
    /// the balancer's `max_lost` says otherwise; calls that were under way together count once.
    Lost(Arc<str>),
}

/// Tells from what came of a call how well the instance did, for ejecting those that do badly; see
/// [`Outliers`](crate::balance::Outliers).
///
/// What has no opinion leaves it at that: whoever implements [`Classify`] implements this with
/// nothing in it. [`WithOutcomes`] adds an opinion.
pub trait Judge<Res, E>: Classify<E> {
    /// Judges one call that the instance answered, or failed other than by its connection.
    fn outcome(&self, result: Result<&Res, &E>) -> Outcome {
        let _ = result;
        Outcome::Ignored
    }

    /// Whether the instance says with that that it has too much to do: then it gets fewer calls at once, and that
    /// counts for nothing else, whatever [`outcome`](Self::outcome) says of it. Asked only where
    /// [`AdaptiveConcurrency`](crate::balance::AdaptiveConcurrency) is set. Default: where the outcome is
    /// [`Overloaded`](Outcome::Overloaded).
    fn overloaded(&self, result: Result<&Res, &E>) -> bool {
        self.outcome(result) == Outcome::Overloaded
    }

    /// Whether the request is to be sent again after that, as far as the policy says so. Asked only where
    /// one is set, and only of requests that may be processed twice. Default: an answer is an answer, and
    /// of errors only [`Recover::doubtful`] speaks.
    fn again(&self, result: Result<&Res, &E>, retry: &Retry) -> Again {
        let _ = (result, retry);
        Again::No
    }
}

/// How well an instance did in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Well.
    Success,
    /// Badly, and that is its own fault: an internal error, an answer that came too late. Not what
    /// the caller did wrong.
    Failure,
    /// Its caller gave it up before it answered, so long after it had begun. Says nothing unless that
    /// is 100 ms at least, and three times as long as the instance usually takes: then it is a
    /// [`Failure`](Self::Failure). A caller who is impatient by habit harms nobody so.
    Abandoned(Duration),
    /// It said that it has too much to do: it gets fewer calls at once where
    /// [`AdaptiveConcurrency`](crate::balance::AdaptiveConcurrency) is set. Nobody is ejected for it.
    Overloaded,
    /// That says nothing.
    Ignored,
}

/// A [`Classify`] with an opinion of outcomes.
#[derive(Clone, Copy, Debug, Default)]
pub struct WithOutcomes<V, O> {
    classify: V,
    outcomes: O,
}

/// A [`Recover`] that says how requests are sent again that an instance had, beside what comes back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replaying<R, F> {
    recover: R,
    replay: F,
}

/// A [`Judge`] that says after what a request is to be sent again.
#[derive(Clone, Copy, Debug, Default)]
pub struct WithAgain<V, F> {
    judge: V,
    again: F,
}

/// The default of [`Classify`]: no error says anything about the instance.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Unclassified;

impl Verdict {
    /// The connection failed, and `reason` says how.
    pub fn unreachable(reason: impl fmt::Display) -> Self {
        Self::Unreachable(reason.to_string().into())
    }

    /// The connection broke, and `reason` says how.
    pub fn lost(reason: impl fmt::Display) -> Self {
        Self::Lost(reason.to_string().into())
    }
}

impl<V, O> WithOutcomes<V, O> {
    /// `classify` for connections, `outcomes` for answers.
    pub const fn new(classify: V, outcomes: O) -> Self {
        Self { classify, outcomes }
    }
}

impl<R, F> Replaying<R, F> {
    /// `replay` makes the request that is sent if this one is to be sent again, or says that it may not.
    pub const fn new(recover: R, replay: F) -> Self {
        Self { recover, replay }
    }
}

impl<V, F> WithAgain<V, F> {
    /// `again` says so of responses and errors.
    pub const fn new(judge: V, again: F) -> Self {
        Self { judge, again }
    }
}

impl<R, F, Req, E> Recover<Req, E> for Replaying<R, F>
where
    R: Recover<Req, E>,
    F: Fn(&Req) -> Option<Req> + Clone + Send + 'static,
    Req: Send + 'static,
{
    fn recover(&self, error: &mut E) -> Option<Recovered<Req>> {
        self.recover.recover(error)
    }

    fn keep(&self, request: &mut Req, _: &Retry) -> Option<Box<dyn Keep<Req, E>>> {
        let spare = (self.replay)(request)?;
        let replay = self.replay.clone();
        Some(Box::new(Replay { spare, replay }))
    }

    fn doubtful(&self, error: &E) -> u32 {
        self.recover.doubtful(error)
    }
}

/// A request that can be made again from one that was not sent.
struct Replay<Req, F> {
    spare: Req,
    replay: F,
}

impl<Req, E, F> Keep<Req, E> for Replay<Req, F>
where
    Req: Send,
    F: Fn(&Req) -> Option<Req> + Send,
{
    fn again(&mut self, _: u32) -> Option<Req> {
        (self.replay)(&self.spare)
    }

    fn beside(&mut self, _: u32) -> Option<Req> {
        (self.replay)(&self.spare)
    }
}

impl<E, V: Classify<E>, F> Classify<E> for WithAgain<V, F> {
    fn classify(&self, error: &E) -> Verdict {
        self.judge.classify(error)
    }
}

impl<Res, E, V, F> Judge<Res, E> for WithAgain<V, F>
where
    V: Judge<Res, E>,
    F: Fn(Result<&Res, &E>) -> Again,
{
    fn outcome(&self, result: Result<&Res, &E>) -> Outcome {
        self.judge.outcome(result)
    }

    fn overloaded(&self, result: Result<&Res, &E>) -> bool {
        self.judge.overloaded(result)
    }

    fn again(&self, result: Result<&Res, &E>, _: &Retry) -> Again {
        (self.again)(result)
    }
}

impl<Req, E> Recover<Req, E> for NeverRecover {
    fn recover(&self, _: &mut E) -> Option<Recovered<Req>> {
        None
    }
}

impl<E, F: Fn(&E) -> Verdict> Classify<E> for F {
    fn classify(&self, error: &E) -> Verdict {
        self(error)
    }
}

impl<E> Classify<E> for Unclassified {
    fn classify(&self, _: &E) -> Verdict {
        Verdict::Reachable
    }
}

impl<E, V: Classify<E>, O> Classify<E> for WithOutcomes<V, O> {
    fn classify(&self, error: &E) -> Verdict {
        self.classify.classify(error)
    }
}

impl<Res, E, F: Fn(&E) -> Verdict> Judge<Res, E> for F {}

impl<Res, E> Judge<Res, E> for Unclassified {}

impl<Res, E, V, O> Judge<Res, E> for WithOutcomes<V, O>
where
    V: Judge<Res, E>,
    O: Fn(Result<&Res, &E>) -> Outcome,
{
    fn outcome(&self, result: Result<&Res, &E>) -> Outcome {
        (self.outcomes)(result)
    }

    fn again(&self, result: Result<&Res, &E>, retry: &Retry) -> Again {
        self.classify.again(result, retry)
    }
}
