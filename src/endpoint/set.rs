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
        CallError, Endpoint, MakeEndpoint,
        admission::Place,
        ejection,
        hub::Hub,
        janitor,
        latency::Timing,
        legacy::Legacies,
        pick::{Picked, Tried},
        probes::Prober,
        roster::{Found, Roster},
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
    state: Mutex<State<S>>,
    roster: Published<Roster<S>>,
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

/// The newest snapshot of a set, held still, and the endpoints of its instances.
pub(crate) struct View<'a, S> {
    state: MutexGuard<'a, State<S>>,
    hub: &'a Arc<Hub>,
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
            roster: Published::empty(),
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

    /// Whether a probe is about to tell of an instance whether it can be called.
    fn has_suspects(
        &self,
        roster: &Roster<S>,
        tried: &Tried,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> bool {
        roster.endpoints().iter().any(|endpoint| {
            endpoint.gate.state().is_ejected()
                && endpoint.ejection.is_suspect()
                && !tried.contains(endpoint.generation())
                && allow(endpoint)
        })
    }

    /// Why nobody is called, if it is known which instances there are.
    pub(crate) fn nobody_known(&self) -> Option<CallError> {
        self.roster(true).known.then(|| self.nobody())
    }

    /// Holds the newest snapshot still. Nothing of the users' may run meanwhile.
    pub(crate) fn view(&self) -> View<'_, S> {
        View {
            state: self.lock(),
            hub: &self.hub,
        }
    }

    /// An open endpoint that is not among `tried` and that `allow` says yes to.
    pub(crate) fn pick(&self, tried: &Tried, allow: impl Fn(&Endpoint<S>) -> bool) -> Picked<S> {
        if let Found::One(endpoint, probe) = self.find(&self.roster(false), tried, &allow) {
            return Picked::Place(Place::new(endpoint, probe));
        }
        if !self.is_tended() {
            let next = self.tidy(ejection::now(), None);
            self.hub.put_off(next);
        }
        let left = |e: &Endpoint<S>| !tried.contains(e.generation()) && allow(e);
        for _ in 0..MOST_LOOKS {
            // No call fails for what others were answered, nor because those who were let back in
            // were ejected before this could look.
            let some_in = self.relieve(left);
            let roster = self.roster(true);
            // Asked before who is open, lest somebody is let back in between.
            let suspects = self.has_suspects(&roster, tried, &allow);
            match self.find(&roster, tried, &allow) {
                Found::One(endpoint, probe) => {
                    return Picked::Place(Place::new(endpoint, probe));
                }
                Found::Changing => return Picked::Wait,
                Found::Nobody if !roster.known || suspects => return Picked::Wait,
                Found::Nobody if some_in => {}
                Found::Nobody => break,
            }
        }
        Picked::Nobody(Box::new(self.nobody()))
    }

    /// Why there is nobody to call.
    pub(crate) fn nobody(&self) -> CallError {
        self.view().nobody(&self.service)
    }

    /// The probe that is due, if one is and `allow` says yes to it: it goes before any choice.
    #[inline]
    pub(crate) fn probe(
        &self,
        tried: &Tried,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Option<Place<S>> {
        if !self.seek_probes() {
            return None;
        }
        let roster = self.roster(true);
        let found = roster.find_probe(tried, allow);
        if roster.offers_probe() {
            self.hub.probes.store(true, Ordering::Release);
        }
        found.map(|endpoint| Place::new(endpoint, true))
    }

    /// Whether to look for probes. Cleared before the look, so that a probe granted during it is
    /// not missed for good.
    #[inline]
    fn seek_probes(&self) -> bool {
        self.hub.probes.load(Ordering::Relaxed) && self.hub.probes.swap(false, Ordering::AcqRel)
    }

    fn find(
        &self,
        roster: &Roster<S>,
        tried: &Tried,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Found<S> {
        let probes = self.seek_probes();
        let found = roster.find(tried, probes, self.gated, allow);
        if probes && roster.offers_probe() {
            self.hub.probes.store(true, Ordering::Release); // there is another, or this call tried it
        }
        found
    }

    /// The roster, rebuilt if it is stale. Unless the newest is a must, a stale one will do while
    /// somebody else is at it: the gates are what is trusted.
    pub(crate) fn roster(&self, newest: bool) -> Arc<Roster<S>> {
        let known = self.roster.load_full();
        if let (Some(roster), false) = (&known, newest)
            && roster.version == self.version()
        {
            return Arc::clone(roster);
        }
        let state = match (known, newest) {
            (Some(stale), false) => match self.state.try_lock() {
                Ok(state) => state,
                Err(_) => return stale,
            },
            _ => self.lock(),
        };
        let mut view = View {
            state,
            hub: &self.hub,
        };
        let version = self.version();
        let former = self.roster.load_full();
        let revision = view.snapshot().revision();
        if let Some(roster) = &former
            && roster.version == version
            && roster.revision == revision
        {
            return Arc::clone(roster);
        }
        let cursor = former.map_or(0, |roster| roster.cursor());
        let roster = Arc::new(view.roster(version, self.prefer.as_deref(), cursor));
        self.roster.store(Arc::clone(&roster));
        roster
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
        let roster = self.roster.swap(None);
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

impl<S> View<'_, S> {
    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.state.latest
    }

    /// Whether an instance of it is known to be out of reach, or cannot be used.
    pub(crate) fn is_out(&self, entry: &Entry) -> bool {
        self.state.is_out(entry)
    }

    /// The endpoint of an instance of it; made if there is none.
    pub(crate) fn endpoint(&mut self, entry: &Entry) -> Arc<Endpoint<S>> {
        let address = entry.instance().address();
        if let Some(endpoint) = self.state.endpoints.get(address)
            && endpoint.generation() == entry.generation()
        {
            return Arc::clone(endpoint);
        }
        let endpoint = Endpoint::new(entry, Arc::clone(self.hub));
        self.state.legacies.hand_on(&endpoint, ejection::now());
        let endpoint = Arc::new(endpoint);
        let former = self
            .state
            .endpoints
            .insert(address.clone(), Arc::clone(&endpoint));
        if let Some(former) = former {
            // The directory announces every departure, so there is none; and if there were one,
            // it would have left.
            former.gate.evict();
            self.state.evicted.push(former);
        }
        endpoint
    }

    fn roster(&mut self, version: u64, prefer: Option<&str>, cursor: usize) -> Roster<S> {
        let snapshot = Arc::clone(self.snapshot());
        let near = |entry: &&Entry| prefer.is_some_and(|c| **entry.instance().cluster() == *c);
        let mut endpoints = Vec::with_capacity(snapshot.callable_len());
        endpoints.extend(snapshot.callable().filter(near).map(|e| self.endpoint(e)));
        let preferred = endpoints.len();
        let far = snapshot.callable().filter(|entry| !near(entry));
        endpoints.extend(far.map(|e| self.endpoint(e)));
        Roster::new(version, &snapshot, endpoints, preferred, cursor)
    }

    fn nobody(&self, service: &ServiceKey) -> CallError {
        let state = &self.state;
        let service = service.clone();
        if state.latest.callable_len() == 0 {
            return CallError::NoInstances {
                service,
                reason: vacancy(&state.latest).into(),
            };
        }
        let unusable = state
            .latest
            .callable()
            .filter_map(|entry| state.endpoints.get(entry.instance().address()))
            .find_map(|endpoint| Some((endpoint.address(), endpoint.slot.unusable()?)));
        match (&state.last_error, unusable) {
            (None, Some((instance, reason))) => CallError::Unusable {
                service,
                instance,
                reason,
            },
            (last_error, _) => CallError::AllUnreachable {
                service,
                last_error: last_error
                    .clone()
                    .unwrap_or_else(|| "each of them was tried".into()),
            },
        }
    }
}

/// Looks for an instance while others are ejected and let back in.
const MOST_LOOKS: usize = 16;

fn vacancy(snapshot: &Snapshot) -> String {
    if snapshot.ended {
        return "the subscription ended before the registry said".to_owned();
    }
    if snapshot.entries().is_empty() {
        return match snapshot.hint() {
            Some(hint) => format!("the registry lists none; {hint}"),
            None => "the registry lists none".to_owned(),
        };
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for entry in snapshot.entries() {
        let why = entry.standing().text();
        match counts.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            None => counts.push((why, 1)),
        }
    }
    let listed = snapshot.entries().len();
    let whys: Vec<String> = counts
        .into_iter()
        .map(|(why, count)| format!("{count} × {why}"))
        .collect();
    let remedy = snapshot.remedy().map(|remedy| format!("; {remedy}"));
    format!(
        "{listed} listed: {}{}",
        whys.join(", "),
        remedy.unwrap_or_default()
    )
}

impl<S> fmt::Debug for EndpointSet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSet")
            .field("service", &self.service)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
