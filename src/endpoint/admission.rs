use std::{
    fmt, mem,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    endpoint::{
        abort::Abort, clock, gate::Refused, latency::Mark, member::Endpoint, set::EndpointSet,
    },
    model::Incarnation,
    sync::Ticket,
};

/// The part of a call between admission and the end of `Service::call`.
pub(crate) struct Entering<'a, S>(&'a Endpoint<S>);

/// An admitted call, counted as in flight until dropped.
pub(crate) struct Admitted<S> {
    /// `None` once a handle has taken over.
    endpoint: Option<Arc<Endpoint<S>>>,
    /// When; if calls are timed, or once that matters.
    since: Option<Mark>,
    /// Which of the endpoint's calls it is.
    number: u32,
    probe: bool,
    /// Whether it has room of those that a limit gives, until it is answered.
    room: bool,
}

/// A call that still wants to be admitted to an endpoint: a place among those that wait, once it
/// has to, and the probe token, if it holds that.
pub(crate) struct Place<S> {
    /// `None` once the admitted call has taken over.
    endpoint: Option<Arc<Endpoint<S>>>,
    probe: bool,
    /// Whether its health check may refuse the instance: there is nobody else.
    despite: bool,
    waiting: bool,
    /// Whether it has room for the call already, of those that a limit gives.
    room: bool,
    ticket: Option<Ticket>,
    /// When it was picked, if calls are timed and it has not waited since.
    since: Option<Mark>,
}

/// A call in flight on an instance, counted in its load until this is dropped.
///
/// A [`TrackCompletion`](tower::load::CompleteOnResponse) that puts it beside a response's body
/// keeps the call counted until the body has ended.
pub struct InFlight {
    /// `None` once it has ended.
    endpoint: Option<Arc<dyn Finish>>,
    /// Which of the endpoint's calls it is.
    number: u32,
    abort: Abort,
}

trait Finish: Send + Sync {
    /// All that there is to do in the end, so that little is left to do where a handle is dropped.
    fn finish(self: Arc<Self>, abort: Abort);
    fn poll_abort(&self, abort: &mut Abort, cx: &mut Context<'_>) -> Poll<()>;
    /// The same for a response that broke off.
    fn lost(self: Arc<Self>, abort: Abort, number: u32, reason: &str);
    fn marked(&self, values: &mut dyn Iterator<Item = &[u8]>);
}

impl<S> Endpoint<S> {
    /// Lets one call in, counted as entering and in flight, or refuses it.
    #[inline(always)]
    fn admit(&self, probe: bool, despite: bool, gated: bool) -> bool {
        let admitted = match (gated, probe) {
            (true, false) if despite => self.gate.admit_refused(),
            (true, false) => self.gate.admit(),
            (true, true) => self.gate.admit_probe(),
            #[cfg(feature = "testing")]
            (false, _) => {
                if self.gate.admit_always().is_evicted() {
                    self.hub
                        .after_eviction
                        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(())
            }
            #[cfg(not(feature = "testing"))]
            (false, _) => self.gate.admit(),
        };
        match admitted {
            Ok(()) => true,
            Err(Refused { quieted }) => {
                if quieted {
                    self.quieted();
                }
                false
            }
        }
    }

    /// Tells who waits for that that this closed gate has become quiet.
    #[cold]
    fn quieted(&self) {
        self.hub.quiet.ring();
    }

    /// An admitted call has ended; `since` says when it began, if calls are timed.
    #[inline]
    fn end(&self, since: Option<Mark>) {
        if let Some(since) = since {
            self.answered(since);
        }
        self.gate.finish();
    }

    /// A timed call was answered, or is over: that makes what is usual, too.
    fn answered(&self, since: Mark) {
        if let Some((now, timing)) = self.hub.timed_now() {
            let took = now.since(since);
            self.latency.observe(took, now, timing);
            timing.observe(took, now);
        }
    }

    /// A timed call has ended; it counts as having taken `at_least` so long.
    fn observe(&self, since: Mark, at_least: Duration) {
        if let Some((now, timing)) = self.hub.timed_now() {
            self.latency
                .observe(now.since(since).max(at_least), now, timing);
        }
    }
}

impl<S> Place<S> {
    #[inline]
    pub(crate) fn new(endpoint: Arc<Endpoint<S>>, probe: bool) -> Self {
        Self {
            endpoint: Some(endpoint),
            probe,
            despite: false,
            waiting: false,
            room: false,
            ticket: None,
            since: None,
        }
    }

    /// The place of a call that was picked for just then: if it is let in without waiting, that is
    /// when it began, and the clock need not be read again.
    #[inline]
    pub(crate) fn picked(endpoint: Arc<Endpoint<S>>, since: Option<Mark>) -> Self {
        let mut place = Self::new(endpoint, false);
        place.since = since;
        place
    }

    /// The place of a call that has nobody else to go to than one whose health check refuses it.
    pub(crate) fn despite_refusal(endpoint: Arc<Endpoint<S>>) -> Self {
        let mut place = Self::new(endpoint, false);
        place.despite = true;
        place
    }

    #[inline]
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint<S>> {
        let endpoint = self.endpoint.as_ref();
        endpoint.expect("only `admit` takes it, after which the place is dropped")
    }

    /// Whether the endpoint would let this call in now.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        let state = self.endpoint().gate.state();
        if self.probe {
            state.admits_probe()
        } else if self.despite {
            state.admits_refused()
        } else {
            state.is_open()
        }
    }

    /// Has this call's task woken when something changes, and counts it as waiting here, unless it
    /// is counted elsewhere. Look again after this.
    pub(crate) fn wait(&mut self, counted: bool, cx: &Context<'_>) {
        self.since = None;
        if counted && !self.waiting {
            self.waiting = true;
            self.endpoint().begin_waiting();
        }
        let endpoint = self.endpoint.as_ref();
        let endpoint = endpoint.expect("only `admit` takes it, after which the place is dropped");
        if let (None, Some(limit)) = (&self.ticket, &endpoint.limit) {
            limit.begin_waiting();
        }
        endpoint.wakers().register(&mut self.ticket, cx.waker());
    }

    /// Takes room for the call, where that is limited. False if there is none.
    #[inline]
    pub(crate) fn reserve(&mut self) -> bool {
        match &self.endpoint().limit {
            None => true,
            Some(_) => self.reserve_of_limit(),
        }
    }

    fn reserve_of_limit(&mut self) -> bool {
        if let (false, Some(limit)) = (self.room, &self.endpoint().limit) {
            self.room = if self.probe {
                limit.take(); // it is let in whatever else is said of the instance
                true
            } else {
                limit.try_take()
            };
        }
        self.room
    }

    /// The service is not ready: others may have the room meanwhile. Nobody is told, since it is ready for
    /// nobody; who leaves tells the next.
    pub(crate) fn put_back(&mut self) {
        if let (true, Some(limit)) = (mem::take(&mut self.room), &self.endpoint().limit) {
            let _ = limit.give_back();
        }
    }

    /// Is let in, or refused. The probe token goes to the admitted call. Drop the place after
    /// this.
    #[inline(always)] // what it returns would go through memory twice
    pub(crate) fn admit(&mut self, set: &EndpointSet<S>) -> Option<Admitted<S>> {
        if !self
            .endpoint()
            .admit(self.probe, self.despite, set.is_gated())
        {
            return None;
        }
        self.stop_waiting();
        let endpoint = self.endpoint.take();
        let (mut room, mut number) = (false, 0);
        if let Some(endpoint) = &endpoint {
            number = endpoint.count_call();
            if let Some(limit) = &endpoint.limit {
                room = true;
                if !mem::take(&mut self.room) {
                    limit.take(); // who cannot wait
                }
            }
        }
        let probe = mem::take(&mut self.probe);
        let mut since = self.since;
        if since.is_none() && (set.is_timed() || room) {
            since = Some(set.hub().mark(clock::now()));
        }
        Some(Admitted {
            endpoint,
            number,
            probe,
            room,
            since,
        })
    }

    #[inline]
    fn stop_waiting(&mut self) {
        if self.ticket.is_some() || self.waiting {
            self.waited();
        }
    }

    #[cold]
    fn waited(&mut self) {
        let Some(endpoint) = &self.endpoint else {
            return;
        };
        if let Some(ticket) = self.ticket.take() {
            endpoint.wakers().leave(ticket);
            endpoint.waits_no_more();
        }
        if mem::take(&mut self.waiting) {
            endpoint.end_waiting();
        }
    }

    /// Hands the probe token on, to the admitted call or to a verdict.
    #[inline]
    pub(crate) fn hand_over_probe(&mut self) -> bool {
        mem::take(&mut self.probe)
    }
}

impl<S> Admitted<S> {
    #[inline]
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint<S>> {
        let endpoint = self.endpoint.as_ref();
        endpoint.expect("only `hand_over` takes it, after which it is dropped")
    }

    /// It goes into `Service::call` until the guard is dropped; once for each admission.
    #[inline]
    pub(crate) fn enter(&self) -> Entering<'_, S> {
        Entering(self.endpoint())
    }

    /// The call failed: as slow as they come, however soon it did.
    pub(crate) fn failed(&mut self) {
        let since = self.since.take();
        let endpoint = self.endpoint();
        endpoint.count_failure();
        if let (Some(since), Some(timing)) = (since, endpoint.hub.settings.timing()) {
            endpoint.observe(since, timing.penalty());
        }
    }

    /// How long it took says nothing of the instance.
    pub(crate) const fn forget_time(&mut self) {
        self.since = None;
    }

    /// The call will have to wait for its answer: for how long may matter, if outcomes count. Where it
    /// does not, or the answer is there at once, no clock is read.
    #[inline]
    pub(crate) fn begin_waiting(&mut self) {
        if self.since.is_none() && self.endpoint().hub.settings.outcomes().is_some() {
            let now = clock::now();
            self.since = Some(self.endpoint().hub.mark(now));
        }
    }

    /// The answer has come.
    #[inline]
    pub(crate) fn observe_usual(&self) {
        if let Some(since) = self.since
            && self.endpoint().hub.settings.outcomes().is_some()
        {
            self.endpoint().observe_usual(since);
        }
    }

    /// Whether the calls that its instance gets at once are limited, and it has not been answered.
    #[inline]
    pub(crate) const fn is_limited(&self) -> bool {
        self.room
    }

    /// The answer has come: there is room for another call, and how long it took says how many.
    #[inline]
    pub(crate) fn leave_room(&mut self) {
        if mem::take(&mut self.room) {
            self.endpoint().answered_within_limit(self.since);
        }
    }

    /// The instance said that it has too much to do, or did not answer in time.
    #[cold]
    pub(crate) fn refused(&mut self) {
        if mem::take(&mut self.room) {
            self.endpoint().refused_within_limit();
        }
    }

    /// Its caller gave it up: if that was not for impatience, the instance was late.
    #[cold]
    pub(crate) fn given_up(&mut self) {
        let limit = self.endpoint().limit.as_ref();
        let age = self
            .since
            .filter(|_| self.room)
            .map(|since| self.endpoint().age(since));
        if let (Some(limit), Some(age)) = (limit, age)
            && limit.is_overdue(age)
        {
            self.refused();
        }
    }

    /// How long it has waited, if that matters.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.since.map(|since| self.endpoint().age(since))
    }

    /// Which of the endpoint's calls it is.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// The verdict on the instance is in: whether this call was its probe.
    #[inline]
    pub(crate) fn judged(&mut self) -> bool {
        mem::take(&mut self.probe)
    }
}

impl<S: Send + Sync + 'static> Admitted<S> {
    /// The same as a handle that users keep. Drop what is left after this.
    #[inline(always)] // as `admit`
    pub(crate) fn hand_over(&mut self) -> InFlight {
        self.leave_room();
        let endpoint = self.endpoint.take();
        let endpoint = endpoint.expect("only this method takes it, after which it is dropped");
        if let Some(since) = self.since {
            // What counts is the time to the response's head: how long a body or a stream is says
            // nothing of how fast its instance is.
            endpoint.answered(since);
        }
        InFlight {
            endpoint: Some(endpoint),
            number: self.number,
            abort: Abort::default(),
        }
    }
}

impl InFlight {
    /// Ready once the call is to be cut: its instance left the registry so long ago as the
    /// balancer's `abort_in_flight_after` says. Never ready if that is not set.
    ///
    /// Until its response a call is cut by the balancer itself. For whoever keeps this beside a
    /// response's body: poll it where the body is pending, and end the body when it is ready.
    pub fn poll_abort(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.endpoint {
            Some(endpoint) => endpoint.poll_abort(&mut self.abort, cx),
            None => Poll::Pending,
        }
    }

    /// The response carried these values of the header
    /// [`x-nacos-offline`](crate::model::OFFLINE_HEADER). If one of them names the start that the
    /// registry lists of this instance, its provider goes offline, and every consumer of the
    /// subscription stops calling it at once, as if the registry had said so. If it does not within
    /// 60 s the mark lapses. Anything else says nothing: it may be another host's.
    ///
    /// Our transports call this.
    pub fn marked<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.marked(&mut values.into_iter());
        }
    }

    /// The response broke off in its body, for this reason: the connection ended with the call on
    /// it. Says of the instance what [`Verdict::Lost`](crate::endpoint::Verdict::Lost) says, and
    /// counts as that does: its head was no answer. For whoever keeps this beside a response's body;
    /// where that ends as it should, dropping this is all there is to do, and says that the answer came
    /// whole.
    pub fn lost(mut self, reason: &str) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.lost(mem::take(&mut self.abort), self.number, reason);
        }
    }
}

impl<S: Send + Sync> Finish for Endpoint<S> {
    #[cold]
    fn marked(&self, values: &mut dyn Iterator<Item = &[u8]>) {
        let instance = self.instance();
        let marked = Incarnation::of(&instance).is_some_and(|of| of.is_marked_in(values));
        if let (true, Some(marks)) = (marked, self.hub.marks.get()) {
            let now = clock::now().into_std();
            marks.going_offline(instance.address(), self.generation(), now);
        }
    }

    fn finish(self: Arc<Self>, mut abort: Abort) {
        abort.leave(&self);
        self.end(None);
        self.completed();
    }

    fn poll_abort(&self, abort: &mut Abort, cx: &mut Context<'_>) -> Poll<()> {
        match self.hub.settings.aborts_after() {
            Some(after) => abort.poll(self, after, cx),
            None => Poll::Pending,
        }
    }

    #[cold]
    fn lost(self: Arc<Self>, mut abort: Abort, number: u32, reason: &str) {
        abort.leave(&self);
        self.end(None);
        self.count_failure();
        if let Some(reports) = self.hub.reports.get().and_then(Weak::upgrade) {
            reports.lost(&self.address(), self.generation(), number, reason);
        }
    }
}

impl<S> Drop for Entering<'_, S> {
    #[inline]
    fn drop(&mut self) {
        if self.0.gate.leave() {
            self.0.quieted();
        }
    }
}

impl<S> Drop for Admitted<S> {
    #[inline]
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.end(self.since);
            if self.room {
                endpoint.leave_room();
            }
            if self.probe {
                endpoint.return_probe(false);
            }
        }
    }
}

impl<S> Drop for Place<S> {
    #[inline]
    fn drop(&mut self) {
        self.stop_waiting();
        if let (true, Some(endpoint)) = (self.room, &self.endpoint) {
            endpoint.leave_room();
        }
        if let (true, Some(endpoint)) = (self.probe, &self.endpoint) {
            endpoint.return_probe(false);
        }
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.finish(mem::take(&mut self.abort));
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").finish_non_exhaustive()
    }
}
