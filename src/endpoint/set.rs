use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::task::AtomicWaker;

use crate::{
    directory::Snapshot,
    endpoint::{
        checks::config::HealthCheck,
        clock,
        helpers::{Helpers, Upkeep},
        hub::Hub,
        latency::Mark,
        legacy::Legacies,
        make::MakeEndpoint,
        member::Endpoint,
        roster::Roster,
        settings::Settings,
        state::State,
    },
    model::{Address, ServiceKey},
    sync::{Bell, Published, Wakers, guarded},
};

/// The endpoints of one consumer of one service.
///
/// The directory marks gates here as it publishes; calls look for an open one. An endpoint is only
/// ever made from the newest snapshot that was given to [`close`](crate::directory::Consumer::close),
/// closed unless that calls the instance callable, so a caller with a stale snapshot cannot open a
/// way to what has left.
pub(crate) struct EndpointSet<S> {
    service: ServiceKey,
    prefer: Option<Arc<str>>,
    gated: bool,
    /// Taken by the directory at each change and by whoever rebuilds the roster, not by calls.
    pub(super) state: Mutex<State<S>>,
    /// The newest roster that was made; see [`roster`](Self::roster).
    pub(super) published: Published<Roster<S>>,
    /// Rises whenever it may have changed who can be called.
    version: AtomicU64,
    pub(super) hub: Arc<Hub>,
    /// The one [`Discovery`](crate::discover::Discovery) of this set, if it has one.
    changed: AtomicWaker,
    /// Calls that found nobody, and that the next change may serve.
    pub(super) waiters: Wakers,
    /// Rises whenever the callable instances or their attributes may have changed.
    membership: AtomicU64,
    pub(super) helpers: Helpers<S>,
    #[cfg(feature = "metrics")]
    pub(super) telling: crate::metrics::Telling<super::telling::Told>,
}

impl<S> EndpointSet<S> {
    /// A set without a janitor that starts from `snapshot` and rings `quiet` when a closed gate has
    /// become quiet.
    pub(super) fn new(
        service: ServiceKey,
        snapshot: Arc<Snapshot>,
        quiet: Arc<Bell>,
        prefer: Option<Arc<str>>,
        gated: bool,
    ) -> Self {
        Self {
            service,
            prefer,
            gated,
            state: Mutex::new(State::new(snapshot)),
            published: Published::empty(),
            version: AtomicU64::new(1),
            hub: Arc::new(Hub::new(quiet)),
            changed: AtomicWaker::new(),
            waiters: Wakers::default(),
            membership: AtomicU64::new(1),
            helpers: Helpers::new(),
            #[cfg(feature = "metrics")]
            telling: Default::default(),
        }
    }

    /// The service whose instances these are.
    #[inline]
    pub(crate) const fn service(&self) -> &ServiceKey {
        &self.service
    }

    /// The client whose lists these are, for lines of the log.
    pub(crate) fn client(&self) -> Option<&str> {
        self.hub.marks.get()?.client()
    }

    /// The cluster that is taken first.
    pub(crate) const fn prefer(&self) -> Option<&Arc<str>> {
        self.prefer.as_ref()
    }

    /// False only in the harness that shows what the gates are good for.
    #[inline]
    pub(crate) const fn is_gated(&self) -> bool {
        self.gated
    }

    /// Rises whenever it may have changed who can be called.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Has `waker` woken at the next such change; one waker only. Look at the version after this.
    pub(crate) fn register_changed(&self, waker: &std::task::Waker) {
        self.changed.register(waker);
    }

    /// Rises whenever the callable instances or their attributes may have changed.
    #[inline]
    pub(crate) fn membership(&self) -> u64 {
        self.membership.load(Ordering::Acquire)
    }

    /// What may be set, before the first call.
    pub(crate) fn settings(&self) -> &Settings {
        &self.hub.settings
    }

    /// Whether calls are timed.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.hub.settings.timing().is_some()
    }

    /// This moment, if the calls that each instance gets at once are limited.
    #[inline]
    pub(crate) fn limits_now(&self) -> Option<Mark> {
        let limited = self.hub.settings.limits().is_some();
        limited.then(|| self.hub.mark(clock::now()))
    }

    /// Has the janitor tell of changes; once.
    pub(crate) fn keep_up(&self, upkeep: Weak<dyn Upkeep>) {
        self.helpers.keep_up(upkeep);
        self.hub.notify_janitor();
    }

    /// Has the requests told that somebody counts; once.
    #[cfg(feature = "metrics")]
    pub(crate) fn reckon(&self, requests: Arc<dyn crate::endpoint::Reckoning>) {
        self.helpers.reckon(requests);
    }

    /// Has instances probed by it, if it can, and services made by it off the way of calls; once.
    pub(super) fn make_by<M: MakeEndpoint<Service = S>>(&self, make: &Arc<M>) {
        self.helpers.make_by(make);
        self.hub.notify_janitor();
    }

    /// Has instances asked whether they are well; once.
    pub(crate) fn check_by(&self, check: &Arc<HealthCheck>) {
        self.helpers.check_by(check);
        self.hub.notify_janitor();
    }

    /// Calls that were let in at an evicted gate: none, unless gates are off.
    pub(crate) fn calls_after_eviction(&self) -> u64 {
        self.hub.after_eviction.load(Ordering::Relaxed)
    }

    /// Requests that an instance did not process and that set out for another.
    pub(crate) fn moved(&self) -> u64 {
        self.hub.moved.load(Ordering::Relaxed)
    }

    /// Requests that were sent again by policy, those that were not for the budget, tries that were out of
    /// time, second tries beside a first, and those of them that won.
    pub(crate) fn tries(&self) -> [u64; 5] {
        let hub = &self.hub;
        let counts = [
            &hub.retries,
            &hub.over_budget,
            &hub.late_tries,
            &hub.hedges,
            &hub.hedges_won,
        ];
        counts.map(|count| count.load(Ordering::Relaxed))
    }

    /// What its endpoints report to.
    #[inline]
    pub(crate) const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The endpoint at this address, if it was ever looked at; one that has left, if it still has
    /// calls in flight.
    pub(crate) fn find_endpoint(&self, address: &Address) -> Option<Arc<Endpoint<S>>> {
        let state = self.lock();
        let gone = || {
            let mut draining = state.draining.iter().rev().filter_map(Weak::upgrade);
            draining.find(|e| e.address() == *address && e.gate.state().in_flight() > 0)
        };
        state.endpoints.get(address).map(Arc::clone).or_else(gone)
    }

    /// Whether somebody may wait for what a probe finds.
    pub(crate) fn awaits_probe(&self) -> bool {
        self.lock().awaits_probe()
    }

    /// A snapshot was published.
    pub(super) fn publish_membership(&self) {
        self.membership.fetch_add(1, Ordering::Release);
        self.publish_change();
    }

    /// Who can be called may have changed.
    fn publish_change(&self) {
        self.version.fetch_add(1, Ordering::Release);
        if let Some(waker) = self.changed.take() {
            guarded(|| waker.wake());
        }
    }

    /// Who may call this one has changed.
    pub(super) fn announce(&self, endpoint: &Endpoint<S>) {
        self.publish_change();
        endpoint.wakers().wake_all();
        self.hub.notify_janitor();
    }

    /// Calls that are in flight, entering and waiting, over all endpoints.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for endpoint in self.lock().endpoints.values() {
            let gate = endpoint.gate.state();
            counts[0] += gate.in_flight();
            counts[1] += gate.entering();
            counts[2] += endpoint.waiting();
        }
        counts
    }

    /// The last user has gone: gives up all that is theirs.
    pub(super) fn abandon(&self) {
        let (endpoints, evicted) = {
            let mut state = self.lock();
            #[cfg(feature = "metrics")]
            state.settle();
            state.abandoned = true;
            state.ailing.clear();
            state.updated.clear();
            state.legacies = Legacies::default();
            (
                std::mem::take(&mut state.endpoints),
                std::mem::take(&mut state.evicted),
            )
        };
        let roster = self.published.swap(None);
        drop(roster);
        self.hub.work.notify_one(); // the janitor goes home
        for endpoint in endpoints.into_values().chain(evicted) {
            endpoint.gate.evict();
            self.discard(endpoint.slot.take());
        }
        #[cfg(feature = "metrics")]
        self.tell();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> fmt::Debug for EndpointSet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSet")
            .field("service", &self.service)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
