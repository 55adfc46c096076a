use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, TryLockError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    balance::{Candidate, Counters, Loads, PickContext, Policy, Random},
    endpoint::{self, Endpoint, EndpointSet, Pick, Picked, Place, Roster, Shared, Tried, Upkeep},
    sync::Published,
};

/// What all clones of a balancer share.
pub(super) struct Core<S, P: Policy, R, C, V> {
    pub(super) shared: Shared<S, R, C, V>,
    pub(super) policy: P,
    table: Published<Table<S, P::Table>>,
    /// Held by the one who makes the next table.
    building: Mutex<()>,
    pub(super) limits: Limits,
    /// Calls that wait for the registry's first answer.
    pub(super) waiting: AtomicUsize,
    /// Calls, counted only if they are limited.
    pub(super) in_flight: AtomicUsize,
    faults: Faults,
}

/// How much a balancer takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) unknown_wait: Duration,
    pub(super) max_waiting: usize,
    pub(super) max_in_flight: Option<usize>,
}

/// The reference that calls hold. There are several of one core, so that threads do not count
/// references in the same place.
pub(super) struct Stripe<S, P: Policy, R, C, V>(pub(super) Arc<Core<S, P, R, C, V>>);

/// The instances that were callable at a moment, and the policy's table of them. May be stale; the
/// gates are not.
struct Table<S, T> {
    /// The set's membership that this was built at.
    membership: u64,
    roster: Arc<Roster<S>>,
    /// `None` if building it panicked.
    table: Option<T>,
}

/// What policies did wrong.
#[derive(Default)]
struct Faults {
    out_of_range: AtomicU64,
    panics: AtomicU64,
    scans: AtomicU64,
    warned: AtomicBool,
}

/// How one call of a balancer chooses.
pub(super) struct Chosen<S, P: Policy, R, C, V> {
    pub(super) stripe: Arc<Stripe<S, P, R, C, V>>,
    pub(super) key: Option<u64>,
}

struct EndpointLoads<'a, S> {
    endpoints: &'a [Arc<Endpoint<S>>],
    tried: &'a Tried,
    gated: bool,
    now: Option<Instant>,
}

impl<S, P, R, C, V> Core<S, P, R, C, V>
where
    S: Send + Sync + 'static,
    P: Policy,
    R: Send + Sync + 'static,
    C: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn new(shared: Shared<S, R, C, V>, policy: P, limits: Limits) -> Arc<Self> {
        if let Some(timing) = policy.timing() {
            shared.set().time(endpoint::Timing {
                epoch: endpoint::now(),
                decay: timing.decay,
                default: timing.default,
                penalty: timing.penalty,
            });
        }
        let core = Arc::new(Self {
            shared,
            policy,
            table: Published::empty(),
            building: Mutex::new(()),
            limits,
            waiting: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            faults: Faults::default(),
        });
        let weak: Weak<Self> = Arc::downgrade(&core);
        core.shared.set().keep_up(weak);
        core
    }
}

impl<S, P: Policy, R, C, V> Core<S, P, R, C, V> {
    pub(super) fn set(&self) -> &Arc<EndpointSet<S>> {
        self.shared.set()
    }

    /// Makes the next table, unless somebody is at it or it is there.
    fn refresh(&self) {
        let _building = match self.building.try_lock() {
            Ok(building) => building,
            Err(TryLockError::Poisoned(building)) => building.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let set = self.set();
        // Read before the roster, which is at least as new.
        let membership = set.membership();
        if self.is_current(membership) {
            return;
        }
        let roster = set.roster(true);
        let endpoints = roster.endpoints();
        let candidates: Vec<Candidate> = endpoints
            .iter()
            .map(|e| Candidate::new(e.instance()))
            .collect();
        let built = catch_unwind(AssertUnwindSafe(|| self.policy.build(&candidates)));
        if built.is_err() {
            self.fault(&self.faults.panics, "panicked as it built its table");
        }
        let former = self.table.swap(Some(Arc::new(Table {
            membership,
            roster,
            table: built.ok(),
        })));
        if catch_unwind(AssertUnwindSafe(|| drop(former))).is_err() {
            self.fault(&self.faults.panics, "panicked as its table was dropped");
        }
    }

    fn is_current(&self, membership: u64) -> bool {
        let table = self.table.load();
        table
            .get()
            .is_some_and(|table| table.membership == membership)
    }

    /// An open endpoint, as the policy has it.
    fn choose(&self, tried: &Tried, key: Option<u64>) -> Option<Place<S>> {
        let set = self.set();
        let membership = set.membership();
        let mut current = self.table.load();
        if current.get().is_none_or(|t| t.membership != membership) {
            drop(current);
            self.refresh();
            current = self.table.load();
        }
        let Table { roster, table, .. } = &**current.get()?;
        let endpoints = roster.endpoints();
        let loads = EndpointLoads {
            endpoints,
            tried,
            gated: set.is_gated(),
            now: set.is_timed().then(endpoint::now),
        };
        let mut random = Random::of_thread();
        let mut context = PickContext::new(key);
        let mut from = 0;
        while let (Some(table), true) = (table, context.attempt < MOST_PICKS) {
            let picked = catch_unwind(AssertUnwindSafe(|| {
                self.policy.pick(table, &loads, &mut random, &context)
            }));
            match picked {
                Ok(Some(at)) => {
                    let Some(endpoint) = endpoints.get(at) else {
                        self.fault(&self.faults.out_of_range, "picked what does not exist");
                        break;
                    };
                    if loads.is_open(endpoint) {
                        return Some(Place::new(Arc::clone(endpoint), false));
                    }
                    from = at + 1;
                }
                Ok(None) => break,
                Err(_) => {
                    self.fault(&self.faults.panics, "panicked in a pick");
                    break;
                }
            }
            context.attempt += 1;
        }
        if endpoints.is_empty() {
            return None;
        }
        self.faults.scans.fetch_add(1, Ordering::Relaxed);
        if context.attempt == 0 {
            from = random.below(endpoints.len());
        }
        let (head, tail) = endpoints.split_at(from);
        let mut all = tail.iter().chain(head);
        let open = all.find(|endpoint| loads.is_open(endpoint))?;
        Some(Place::new(Arc::clone(open), false))
    }

    fn fault(&self, count: &AtomicU64, what: &str) {
        count.fetch_add(1, Ordering::Relaxed);
        if !self.faults.warned.swap(true, Ordering::Relaxed) {
            let service = self.set().service();
            tracing::warn!(
                namespace = &**service.namespace(),
                group = &**service.group(),
                service = &**service.name(),
                policy = std::any::type_name::<P>(),
                "a balancing policy {what}; its calls go to any open instance, and this is said once"
            );
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            picks_out_of_range: read(&self.faults.out_of_range),
            policy_panics: read(&self.faults.panics),
            scans: read(&self.faults.scans),
            calls_after_evict: self.set().calls_after_eviction(),
            ejections: self.set().hub().ejections(),
            restorations: self.set().hub().restorations(),
        }
    }
}

impl<S, P, R, C, V> Upkeep for Core<S, P, R, C, V>
where
    S: Send + Sync,
    P: Policy,
    R: Send + Sync,
    C: Send + Sync,
    V: Send + Sync,
{
    fn upkeep(&self) {
        if !self.is_current(self.set().membership()) {
            self.refresh();
        }
    }

    #[cfg(feature = "metrics")]
    fn scans(&self) -> u64 {
        self.faults.scans.load(Ordering::Relaxed)
    }
}

impl<S, P: Policy, R, C, V> Pick<S, R, C, V> for Chosen<S, P, R, C, V> {
    fn shared(&self) -> &Shared<S, R, C, V> {
        &self.stripe.0.shared
    }

    fn pick(&self, tried: &Tried) -> Picked<S> {
        let core = &*self.stripe.0;
        let set = core.set();
        if let Some(place) = set.probe(tried) {
            return Picked::Place(place);
        }
        match core.choose(tried, self.key) {
            Some(place) => Picked::Place(place),
            None => set.pick(tried),
        }
    }
}

impl<S> EndpointLoads<'_, S> {
    fn is_open(&self, endpoint: &Endpoint<S>) -> bool {
        (!self.gated || endpoint.gate.state().is_open())
            && !self.tried.contains(endpoint.generation())
    }
}

impl<S> Loads for EndpointLoads<'_, S> {
    fn load(&self, at: usize) -> f64 {
        match self.endpoints.get(at) {
            Some(endpoint) if self.is_open(endpoint) => endpoint.load(),
            _ => f64::INFINITY,
        }
    }

    fn calls(&self, at: usize) -> u64 {
        let endpoint = self.endpoints.get(at);
        endpoint.map_or(0, |e| e.gate.state().in_flight() + e.waiting())
    }

    fn weight(&self, at: usize) -> f64 {
        self.endpoints.get(at).map_or(0.0, |e| e.weight())
    }

    fn latency(&self, at: usize) -> f64 {
        match (self.endpoints.get(at), self.now) {
            (Some(endpoint), Some(now)) => endpoint.latency(now),
            _ => 0.0,
        }
    }
}

/// Picks that were shut, before the next open instance is taken.
const MOST_PICKS: u32 = 4;
