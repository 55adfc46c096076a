use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{sync::Notify, time::Instant};

use crate::{
    directory::{Entry, Revision, Snapshot},
    endpoint::{
        Endpoint, MakeEndpoint, hub::Hub, janitor, latency::Timing, legacy::Legacies,
        probes::Prober, roster::Roster,
    },
    model::{Address, ServiceKey},
    sync::{Published, Wakers, guarded},
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
    pub(super) changed: AtomicWaker,
    /// Calls that found nobody, and that the next change may serve.
    pub(super) waiters: Wakers,
    /// Rises whenever the callable instances or their attributes may have changed.
    membership: AtomicU64,
    /// Told off the way of the calls when that happened.
    upkeep: OnceLock<Weak<dyn Upkeep>>,
    #[cfg(feature = "metrics")]
    pub(super) telling: super::tell::Telling,
    /// What makes the services, and may probe instances. The users', so held weakly.
    prober: OnceLock<Weak<dyn Prober>>,
    /// The same, as what makes.
    maker: OnceLock<Weak<dyn MakeEndpoint<Service = S>>>,
}

/// What keeps something of its own beside a set, such as a table to pick from.
pub(crate) trait Upkeep: Send + Sync {
    /// The set may have changed, or the time has come that this returned. Called by the set's
    /// janitor, without a lock.
    fn upkeep(&self, now: Instant) -> Option<Instant>;

    /// Calls whose policy found no open instance.
    #[cfg(feature = "metrics")]
    fn scans(&self) -> u64;
}

pub(super) struct State<S> {
    /// The newest snapshot that the directory is about to publish, or has.
    pub(super) latest: Arc<Snapshot>,
    pub(super) endpoints: HashMap<Address, Arc<Endpoint<S>>>,
    /// Closed, with a call between admission and the end of `Service::call`, since that revision.
    pub(super) entering: Vec<(Revision, Arc<Endpoint<S>>)>,
    /// Changed, with tasks that may wait on them still to be woken.
    pub(super) touched: Vec<Arc<Endpoint<S>>>,
    /// With attributes that may have changed since the janitor looked.
    pub(super) updated: Vec<Arc<Endpoint<S>>>,
    /// Gone, with a service still to be dropped.
    pub(super) evicted: Vec<Arc<Endpoint<S>>>,
    /// Gone, with calls in flight when they went.
    pub(super) draining: Vec<Weak<Endpoint<S>>>,
    /// Gone, with the latency that they leave to who comes back soon; if calls are timed.
    pub(super) legacies: Legacies<S>,
    /// Not reached, or answering badly, and perhaps not to be probed before their time.
    pub(super) ejected: Vec<Arc<Endpoint<S>>>,
    /// Gone, with calls in flight perhaps that are still to be counted.
    #[cfg(feature = "metrics")]
    pub(super) leaving: Vec<Arc<Endpoint<S>>>,
    #[cfg(feature = "metrics")]
    pub(super) gone: super::tell::Gone,
    /// When a probe was last granted while nobody could be reached.
    pub(super) probed: Option<Instant>,
    pub(super) last_error: Option<Arc<str>>,
    pub(super) abandoned: bool,
}

impl<S: Send + Sync + 'static> EndpointSet<S> {
    /// A set that starts from `snapshot` and rings `quiet` when a closed gate has become quiet.
    ///
    /// Called on a tokio runtime it starts a small task there, which ends with the set: it drops
    /// the services of evicted instances and times the probes of ejected ones. Without a runtime
    /// both happen at the next use.
    pub(crate) fn new(
        service: ServiceKey,
        snapshot: Arc<Snapshot>,
        quiet: Arc<Notify>,
        prefer: Option<Arc<str>>,
        gated: bool,
    ) -> Arc<Self> {
        let set = Arc::new(Self {
            service,
            prefer,
            gated,
            state: Mutex::new(State {
                latest: snapshot,
                endpoints: HashMap::new(),
                entering: Vec::new(),
                touched: Vec::new(),
                updated: Vec::new(),
                evicted: Vec::new(),
                draining: Vec::new(),
                legacies: Legacies::default(),
                ejected: Vec::new(),
                #[cfg(feature = "metrics")]
                leaving: Vec::new(),
                #[cfg(feature = "metrics")]
                gone: Default::default(),
                probed: None,
                last_error: None,
                abandoned: false,
            }),
            published: Published::empty(),
            version: AtomicU64::new(1),
            hub: Arc::new(Hub::new(quiet)),
            changed: AtomicWaker::new(),
            waiters: Wakers::default(),
            membership: AtomicU64::new(1),
            upkeep: OnceLock::new(),
            #[cfg(feature = "metrics")]
            telling: Default::default(),
            prober: OnceLock::new(),
            maker: OnceLock::new(),
        });
        let reports: Weak<Self> = Arc::downgrade(&set);
        let _ = set.hub.reports.set(reports);
        janitor::spawn(&set);
        set
    }
}

impl<S> EndpointSet<S> {
    /// The service whose instances these are.
    #[inline]
    pub(crate) const fn service(&self) -> &ServiceKey {
        &self.service
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

    /// A snapshot was published.
    pub(super) fn changed(&self) {
        self.membership.fetch_add(1, Ordering::Release);
        self.bump();
    }

    /// Has the janitor tell of changes; once.
    pub(crate) fn keep_up(&self, upkeep: Weak<dyn Upkeep>) {
        let _ = self.upkeep.set(upkeep);
        self.hub.ring();
    }

    /// Has instances probed by what makes their services, if that can; once.
    pub(super) fn probe_by(&self, make: Weak<dyn Prober>) {
        let _ = self.prober.set(make);
    }

    pub(super) fn prober(&self) -> Option<Arc<dyn Prober>> {
        self.prober.get().and_then(Weak::upgrade)
    }

    /// Has services made by this also off the way of calls; once.
    pub(super) fn make_by(&self, make: Weak<dyn MakeEndpoint<Service = S>>) {
        let _ = self.maker.set(make);
        self.hub.ring();
    }

    pub(super) fn maker(&self) -> Option<Arc<dyn MakeEndpoint<Service = S>>> {
        self.maker.get().and_then(Weak::upgrade)
    }

    /// Has calls timed from here on.
    pub(crate) fn time(&self, timing: Timing) {
        let _ = self.hub.timing.set(timing);
    }

    /// Has calls in flight on an evicted instance cut after so long.
    pub(crate) fn abort_after(&self, after: Duration) {
        let _ = self.hub.abort_after.set(after);
    }

    /// Whether calls are timed.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.hub.timing.get().is_some()
    }

    /// Calls that were let in at an evicted gate: none, unless gates are off.
    pub(crate) fn calls_after_eviction(&self) -> u64 {
        self.hub.after_eviction.load(Ordering::Relaxed)
    }

    /// Requests that an instance did not process and that set out for another.
    pub(crate) fn moved(&self) -> u64 {
        self.hub.moved.load(Ordering::Relaxed)
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

    /// Has the janitor look soon.
    pub(crate) fn ring(&self) {
        self.hub.ring();
    }

    /// Whether there is a janitor.
    pub(crate) fn is_tended(&self) -> bool {
        self.hub.tended.load(Ordering::Acquire)
    }

    pub(super) fn upkeep(&self, now: Instant) -> Option<Instant> {
        let upkeep = self.upkeep.get().and_then(Weak::upgrade);
        upkeep.and_then(|upkeep| upkeep.upkeep(now))
    }

    #[cfg(feature = "metrics")]
    pub(super) fn scans(&self) -> Option<u64> {
        let upkeep = self.upkeep.get().and_then(Weak::upgrade)?;
        Some(upkeep.scans())
    }

    /// Who can be called may have changed.
    pub(super) fn bump(&self) {
        self.version.fetch_add(1, Ordering::Release);
        if let Some(waker) = self.changed.take() {
            guarded(|| waker.wake());
        }
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
        #[cfg(feature = "metrics")]
        self.tell_at_last();
        let (endpoints, evicted) = {
            let mut state = self.lock();
            #[cfg(feature = "metrics")]
            state.leaving.clear();
            state.abandoned = true;
            state.ejected.clear();
            state.updated.clear();
            state.legacies = Legacies::default();
            (
                std::mem::take(&mut state.endpoints),
                std::mem::take(&mut state.evicted),
            )
        };
        let roster = self.published.swap(None);
        drop(roster);
        self.hub.bell.notify_one(); // the janitor goes home
        #[cfg(feature = "metrics")]
        self.fall_silent();
        for endpoint in endpoints.into_values().chain(evicted) {
            endpoint.gate.evict();
            janitor::discard(&self.service, endpoint.slot.take());
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> State<S> {
    /// Whether this instance is known to be out of reach, or cannot be used.
    pub(super) fn is_out(&self, entry: &Entry) -> bool {
        let endpoint = self.endpoints.get(entry.instance().address());
        endpoint.is_some_and(|endpoint| {
            let state = endpoint.gate.state();
            state.is_ejected() || state.is_unusable()
        })
    }

    /// Whether there are callable instances and all of them are out.
    pub(super) fn all_out(&self) -> bool {
        self.latest.callable_len() > 0 && self.latest.callable().all(|entry| self.is_out(entry))
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
