use std::{
    collections::HashSet,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, TryLockError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    balance::{
        AdaptiveConcurrency, BalanceCounters, Candidate, Outliers, Policy, Shares, SplitError,
        TrafficSplit,
        behind::Behind,
        candidates::{Candidates, Members},
        pool::{Past, Pool},
        requests::Requests,
        selector::Scope,
        slow_start::{SlowStart, Warmth, wall},
        subset::{Crowd, Narrow, Subset},
        table::Table,
        tiers::TierRules,
        zone_aware::Unknown,
    },
    directory::{Generation, Snapshot},
    endpoint::{self, EndpointSet, HealthCheck, Shared, Upkeep},
    logs,
    sync::Published,
};

/// What all clones of a balancer share.
pub(super) struct Core<S, P: Policy, R, C, V> {
    pub(super) shared: Shared<S, R, C, V>,
    pub(super) policy: P,
    pub(super) options: Options,
    /// Whether calls are split, limited or kept to a subset.
    pub(super) extras: bool,
    pub(super) table: Published<Table<S, P::Table>>,
    /// The set's version that tiers were last weighed at.
    weighed: AtomicU64,
    /// When to refresh though nothing has changed, in ms since the workshop's epoch.
    due: AtomicU64,
    epoch: Instant,
    behind: Behind,
    /// Held by the one who makes the next table.
    workshop: Mutex<Workshop>,
    pub(super) limits: Limits,
    /// Calls that wait for the registry's first answer.
    pub(super) waiting: AtomicUsize,
    /// Calls, counted only if they are limited.
    pub(super) in_flight: AtomicUsize,
    pub(super) faults: Faults,
    pub(super) requests: Arc<Requests>,
}

/// How much a balancer takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) unknown_wait: Duration,
    pub(super) max_waiting: usize,
    pub(super) max_in_flight: Option<usize>,
}

/// What goes around a policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) tiers: TierRules,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) outliers: Option<Outliers>,
    pub(super) concurrency: Option<AdaptiveConcurrency>,
    /// Held here, and by the set weakly: what of it is the users' is to go with the balancer.
    pub(super) health_check: Option<Arc<HealthCheck>>,
    pub(super) split: Option<TrafficSplit>,
    /// By which metadata it is read from instances, and where they say their shares, if it is.
    pub(super) split_by: Option<[Arc<str>; 2]>,
    pub(super) subset: Option<Subset>,
    /// Whether what outliers are was said and taken back.
    pub(super) outliers_lost: bool,
    /// Whether requests are timed for the metrics.
    pub(super) durations: bool,
}

/// What is kept from table to table.
struct Workshop {
    warmth: Warmth,
    /// The set's version at which it was last looked who is ejected.
    ejections: u64,
    /// When weights change because instances have become warmer.
    warmer: Option<Instant>,
    /// Why what instances say of their shares is not obeyed, if it is not.
    split_error: Option<SplitError>,
    /// When shares change because weights are forgotten.
    forgotten: Option<Instant>,
    pasts: Vec<(Scope, Arc<Past>)>,
    /// Those of the newest table.
    candidates: Candidates,
    /// Who the callers are that share the instances out, and when to look again.
    crowd: Option<Crowd>,
    look_at_crowd: Option<Instant>,
    /// When it was last looked which pools are asked for.
    looked: Instant,
}

/// What tables are made of.
struct Listed<'a, S> {
    membership: u64,
    roster: &'a endpoint::Roster<S>,
    members: Members<'a>,
    snapshot: &'a Snapshot,
}

/// What went otherwise than it should.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) out_of_range: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) scans: AtomicU64,
    warned: AtomicBool,
    /// Of a preferred cluster that nobody is in.
    cluster_warned: AtomicBool,
    /// Of zones of which it is not known who calls from where.
    callers_warned: AtomicBool,
    pub(super) crowd_warned: AtomicBool,
    /// When there was last a warning of a cluster, and of a selector, that a request asked for: in
    /// ms since the epoch, 0 for never.
    clusters_warned: AtomicU64,
    pub(super) selectors_warned: AtomicU64,
}

impl<S, P, R, C, V> Core<S, P, R, C, V>
where
    S: Send + Sync + 'static,
    P: Policy,
    R: Send + Sync + 'static,
    C: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn new(
        shared: Shared<S, R, C, V>,
        policy: P,
        mut options: Options,
        limits: Limits,
    ) -> Arc<Self> {
        let mut complaints = options.tiers.settle();
        if options.outliers_lost {
            complaints.push("outliers(..) before classify(..), which replaces it".to_owned());
        }
        if let Some(outliers) = options.outliers {
            shared.set().settings().judge_outcomes(outliers.rules());
        }
        if let Some(check) = &options.health_check {
            match check.check() {
                Ok(()) => shared.set().check_by(check),
                Err(invalid) => complaints.push(invalid.to_string()),
            }
        }
        if options.split_by.is_some() {
            options.split = Some(TrafficSplit::new(Shares::none()));
        }
        options.subset = options
            .subset
            .and_then(|subset| subset.settle(|invalid| complaints.push(invalid.to_string())));
        let epoch = endpoint::now();
        policy.begin(shared.set().service());
        if let Some(timing) = policy.timing() {
            let timing = endpoint::Timing::new(timing.decay, timing.default, timing.penalty);
            shared.set().settings().time(timing);
        }
        let requests = Arc::new(Requests::new(options.durations));
        #[cfg(feature = "metrics")]
        shared.set().reckon(Arc::<Requests>::clone(&requests));
        let core = Arc::new(Self {
            shared,
            policy,
            extras: options.split.is_some()
                || options.subset.is_some()
                || options.concurrency.is_some(),
            options,
            requests,
            table: Published::empty(),
            weighed: AtomicU64::new(0),
            due: AtomicU64::new(NEVER),
            epoch,
            behind: Behind::new(),
            workshop: Mutex::new(Workshop {
                warmth: Warmth::default(),
                ejections: 0,
                split_error: None,
                warmer: None,
                forgotten: None,
                pasts: Vec::new(),
                candidates: Candidates::default(),
                crowd: None,
                look_at_crowd: None,
                looked: epoch,
            }),
            limits,
            waiting: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            faults: Faults::default(),
        });
        for complaint in complaints {
            core.warn(format_args!("ignored: {complaint}"));
        }
        let weak: Weak<Self> = Arc::downgrade(&core);
        core.shared.set().keep_up(weak);
        core
    }
}

impl<S, P: Policy, R, C, V> Core<S, P, R, C, V> {
    #[inline]
    pub(super) fn set(&self) -> &Arc<EndpointSet<S>> {
        self.shared.set()
    }

    fn workshop(&self) -> Option<MutexGuard<'_, Workshop>> {
        match self.workshop.try_lock() {
            Ok(workshop) => Some(workshop),
            Err(TryLockError::Poisoned(workshop)) => Some(workshop.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Brings table and shares up to date, unless somebody is at it. Returns when that is to be
    /// done again without a change of the instances.
    pub(super) fn refresh(&self, now: Instant) -> Option<Instant> {
        self.refresh_unless(false, now)
    }

    /// The same for a call that minds the shares: a table that is left to the janitor stays.
    #[cold]
    pub(super) fn reweigh(&self, now: Instant) {
        let membership = self.set().membership();
        let table = self.table.load();
        let left = table
            .get()
            .is_some_and(|t| t.membership != membership && self.is_left_to_janitor(t));
        drop(table);
        let _ = self.refresh_unless(left, now);
    }

    fn refresh_unless(&self, left: bool, now: Instant) -> Option<Instant> {
        let Some(mut workshop) = self.workshop() else {
            return Some(now + BUSY);
        };
        let set = self.set();
        // Read before the roster, which is at least as new.
        let membership = set.membership();
        let back = self.is_some_back(&mut workshop, now);
        let warmer = back || workshop.warmer.is_some_and(|due| due <= now);
        let others = self.look_at_crowd(&mut workshop, now);
        let stale = !left && !self.is_current(membership);
        if warmer || others || stale || self.is_off(&workshop) {
            self.rebuild(membership, &mut workshop, now);
        }
        let forgotten = workshop.forgotten.is_some_and(|due| due <= now);
        if forgotten || warmer || !self.is_weighed() {
            self.weigh(&mut workshop, now);
        }
        let due = [workshop.warmer, workshop.forgotten, workshop.look_at_crowd];
        let due = due.into_iter().flatten().min();
        let ms = due.map_or(NEVER, |due| self.ms(due) + 1);
        self.due.store(ms, Ordering::Relaxed);
        due
    }

    /// Looks who the callers are, if it is time to. True if they are others.
    fn look_at_crowd(&self, workshop: &mut Workshop, now: Instant) -> bool {
        let Some(subset) = &self.options.subset else {
            return false;
        };
        if workshop.crowd.is_some() && workshop.look_at_crowd.is_none_or(|due| now < due) {
            return false;
        }
        workshop.look_at_crowd = subset.has_list().then(|| now + LOOK_AT_CROWD);
        subset.look(&mut workshop.crowd)
    }

    /// Whether too few of a subset are open now, or others stand in for no reason.
    fn is_off(&self, workshop: &Workshop) -> bool {
        if self.options.subset.is_none() || self.is_weighed() {
            return false;
        }
        let table = self.table.load();
        let Some(table) = table.get() else {
            return false;
        };
        let Some(narrow) = self.narrow(workshop, table.membership) else {
            return false;
        };
        let is_open = |place| is_open(&table.roster, place);
        let mut off = false;
        table.for_each(|pool| {
            off |= pool.tiers.iter().any(|tier| tier.is_off(&narrow, is_open));
        });
        off
    }

    fn narrow<'a>(&self, workshop: &'a Workshop, membership: u64) -> Option<Narrow<'a>> {
        let crowd = workshop.crowd.as_ref()?;
        Some(self.options.subset.as_ref()?.narrow(crowd, membership))
    }

    /// Whether somebody was shut or opened, and it may be for others to stand in.
    #[inline]
    pub(super) fn may_be_off(&self) -> bool {
        self.extras && self.options.subset.is_some() && !self.is_weighed()
    }

    /// Whether somebody who was ejected is back, and new by that.
    fn is_some_back(&self, workshop: &mut Workshop, now: Instant) -> bool {
        let rules = self.options.slow_start.as_ref();
        let version = self.set().version();
        if !rules.is_some_and(SlowStart::minds_ejections) || workshop.ejections == version {
            return false;
        }
        workshop.ejections = version;
        let roster = self.set().roster(true);
        let endpoints = roster.endpoints().iter();
        let seen = endpoints.map(|endpoint| {
            let ejected = endpoint.gate.state().is_ejected();
            (endpoint.generation(), ejected, endpoint.instance())
        });
        workshop.warmth.look_at_ejections(seen, now)
    }

    fn ms(&self, at: Instant) -> u64 {
        let ms = at.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(ms).unwrap_or(NEVER - 1).min(NEVER - 1)
    }

    /// Without a janitor: refreshes when that is due.
    #[inline]
    pub(super) fn tick(&self) {
        let due = self.due.load(Ordering::Relaxed);
        if due != NEVER && !self.set().hub().has_janitor() {
            self.tick_at(due);
        }
    }

    #[cold]
    fn tick_at(&self, due: u64) {
        let now = endpoint::now();
        if due <= self.ms(now) {
            self.refresh(now);
        }
    }

    /// Whether a call is to go by this table, which is of other instances than there are now: the next takes
    /// long to make, and there is somebody who will.
    #[cold]
    pub(super) fn is_left_to_janitor(&self, table: &Table<S, P::Table>) -> bool {
        self.policy.takes_long(table.base.len)
            && self.set().hub().has_janitor()
            && self.behind.is_left(self.ms(endpoint::now()))
    }

    fn rebuild(&self, membership: u64, workshop: &mut Workshop, now: Instant) {
        let set = self.set();
        let roster = set.roster(true);
        let snapshot = Arc::clone(set.view().snapshot());
        // Lost with whatever panics meanwhile, and then made anew.
        let mut candidates = mem::take(&mut workshop.candidates);
        candidates.follow(&roster, &snapshot);
        let warming = self.warming(&roster, &snapshot, candidates.listed(), workshop, now);
        let members = Members {
            all: warming.as_deref().unwrap_or_else(|| candidates.listed()),
            reweighted: warming.is_some(),
        };
        self.read_shares(members.all, workshop);
        let former = self.table.load();
        let scopes = former.get().map_or_else(Vec::new, |table| {
            workshop.look_at(table, now);
            table.asked()
        });
        drop(former);
        let listed = Listed {
            membership,
            roster: &roster,
            members,
            snapshot: &snapshot,
        };
        let base = self.pool(Scope::default(), &listed, workshop, now);
        let scoped: Vec<_> = scopes
            .into_iter()
            .map(|(scope, idle)| {
                let pool = self.pool(scope, &listed, workshop, now);
                pool.idle.store(idle, Ordering::Relaxed);
                Arc::new(pool)
            })
            .collect();
        let weights = warming.as_ref();
        let weights = weights.map(|warming| warming.iter().map(Candidate::weight).collect());
        let table = Table::new(membership, base, scoped, roster, weights);
        workshop.candidates = candidates;
        self.warn_of_cluster(&snapshot);
        let called = self.options.subset.as_ref().and_then(|_| table.called());
        let roster = Arc::clone(&table.roster);
        let former = self.table.swap(Some(Arc::new(table)));
        self.weighed.store(0, Ordering::Relaxed);
        self.behind.caught_up();
        if catch_unwind(AssertUnwindSafe(|| drop(former))).is_err() {
            self.fault(&self.faults.panics, "panicked as its table was dropped");
        }
        if let Some(called) = called {
            let endpoints = roster.endpoints().iter();
            let others = endpoints.filter(|endpoint| !called.contains(&endpoint.generation()));
            others.for_each(|endpoint| self.set().let_go(endpoint));
        }
    }

    /// Takes over what instances say of their shares. What is wrong with that is told once, and leaves
    /// the shares as they were.
    fn read_shares(&self, candidates: &[Candidate], workshop: &mut Workshop) {
        let (Some([by, share]), Some(split)) = (&self.options.split_by, &self.options.split) else {
            return;
        };
        let instances = candidates.iter().map(|candidate| &**candidate.instance());
        match Shares::of_instances(by, share, instances) {
            Ok(shares) => {
                workshop.split_error = None;
                if *split.shares() != shares {
                    split.set(shares);
                }
            }
            Err(error) => {
                if workshop.split_error.as_ref() != Some(&error) {
                    self.warn(format_args!(
                        "what instances say of their shares is not obeyed, and the shares stay as they were ({}): {error}; this is said once",
                        split.shares()
                    ));
                    workshop.split_error = Some(error);
                }
            }
        }
    }

    /// The candidates as they weigh while some of them warm up, if some do.
    fn warming(
        &self,
        roster: &endpoint::Roster<S>,
        snapshot: &Snapshot,
        listed: &[Candidate],
        workshop: &mut Workshop,
        now: Instant,
    ) -> Option<Vec<Candidate>> {
        workshop.warmer = None;
        let rules = self.options.slow_start.as_ref()?;
        let known = snapshot.is_known();
        workshop.warmth.look(snapshot.entries(), known, now);
        let generations = roster.generations().iter().copied();
        let instances = listed.iter().map(|c| Arc::clone(c.instance()));
        let instances: Vec<_> = generations.zip(instances).collect();
        let factors = workshop.warmth.factors(rules, &instances, now, wall())?;
        workshop.warmer = Some(now + rules.tick());
        let warming = listed.iter().zip(factors).map(|(candidate, factor)| {
            let weight = candidate.weight() * factor;
            candidate.clone().with_weight(weight)
        });
        Some(warming.collect())
    }

    fn pool(
        &self,
        scope: Scope,
        listed: &Listed<'_, S>,
        workshop: &mut Workshop,
        now: Instant,
    ) -> Pool<P::Table> {
        let pasts = &mut workshop.pasts;
        let past = match pasts.iter().find(|(known, _)| *known == scope) {
            Some((_, past)) => Arc::clone(past),
            None => {
                if pasts.len() > MOST_PASTS {
                    // The first is everybody's; then one that no pool holds.
                    let mut others = pasts.iter().skip(1);
                    let free = others.position(|(_, past)| Arc::strong_count(past) == 1);
                    pasts.remove(free.unwrap_or(0) + 1);
                }
                pasts.push((scope.clone(), Arc::default()));
                Arc::clone(&pasts[pasts.len() - 1].1)
            }
        };
        let rules = &self.options.tiers;
        let is_open = |place| is_open(listed.roster, place);
        let narrow = self.narrow(workshop, listed.membership);
        let narrow = narrow.map(|narrow| (narrow, &is_open as &dyn Fn(usize) -> bool));
        let members = listed.members;
        let pool = Pool::build(&self.policy, scope, rules, members, past, narrow, || {
            self.fault(&self.faults.panics, "panicked as it built its table");
        });
        pool.observe(rules, listed.snapshot, now, self.epoch);
        pool
    }

    /// Adds a pool to a table, unless somebody is at something, or there are too many already.
    pub(super) fn add(&self, table: &Table<S, P::Table>, scope: &Scope) {
        let Some(mut workshop) = self.workshop() else {
            return;
        };
        if table.pool(scope).is_some() {
            return;
        }
        let now = endpoint::now();
        workshop.look_at(table, now);
        if !table.make_room() {
            return;
        }
        let snapshot = Arc::clone(self.set().view().snapshot());
        let scope = scope.clone();
        let candidates = table.candidates();
        let listed = Listed {
            membership: table.membership,
            roster: &table.roster,
            members: Members {
                all: &candidates,
                reweighted: table.is_reweighted(),
            },
            snapshot: &snapshot,
        };
        let pool = self.pool(scope, &listed, &mut workshop, now);
        let next = pool.weigh(&self.options.tiers, &table.roster, now);
        workshop.forgotten = [workshop.forgotten, next].into_iter().flatten().min();
        if let Some(cluster) = &pool.scope.cluster {
            let mut entries = snapshot.entries().iter();
            if !entries.any(|entry| entry.instance().is_in_cluster(cluster))
                && !pool.past.cluster_warned.load(Ordering::Relaxed)
                && self.may_warn(&self.faults.clusters_warned)
            {
                pool.past.cluster_warned.store(true, Ordering::Relaxed);
                self.warn(format_args!(
                    "a request asks for cluster {cluster:?}, and no instance is in it; such calls go to the others, and this is said once. Clusters seen: {}",
                    clusters(&snapshot)
                ));
            }
        }
        table.add(pool);
        self.set().hub().notify_janitor();
    }

    fn weigh(&self, workshop: &mut Workshop, now: Instant) {
        let version = self.set().version();
        let current = self.table.load();
        let Some(table) = current.get() else {
            return;
        };
        workshop.forgotten = None;
        table.for_each(|pool| {
            let next = pool.weigh(&self.options.tiers, &table.roster, now);
            workshop.forgotten = [workshop.forgotten, next].into_iter().flatten().min();
        });
        self.weighed.store(version, Ordering::Relaxed);
        self.warn_of_callers();
    }

    /// Says once that calls go by weight since nobody is known to call.
    fn warn_of_callers(&self) {
        let zones = self.options.tiers.zones.as_ref();
        let unknown = zones.and_then(|zones| Some((zones.home(), zones.unknown()?)));
        let Some((home, unknown)) = unknown else {
            return;
        };
        if self.faults.callers_warned.swap(true, Ordering::Relaxed) {
            return;
        }
        match unknown {
            Unknown::Nobody => self.warn(format_args!(
                "zone_aware: nobody is listed as a caller, so calls go by weight until somebody is; this is said once"
            )),
            Unknown::NobodyAtHome(zones) => self.warn(format_args!(
                "zone_aware: no caller is listed in the own zone {home:?}, so calls go by weight until one is; this is said once. Zones of the callers: {zones}"
            )),
        }
    }

    /// Whether the table is of the set's newest members.
    pub(super) fn is_current(&self, membership: u64) -> bool {
        let table = self.table.load();
        table
            .get()
            .is_some_and(|table| table.membership == membership)
    }

    /// Whether nobody was shut or opened since shares were set.
    #[inline]
    pub(super) fn is_weighed(&self) -> bool {
        self.weighed.load(Ordering::Relaxed) == self.set().version()
    }

    #[cold]
    pub(super) fn fault(&self, count: &AtomicU64, what: &str) {
        count.fetch_add(1, Ordering::Relaxed);
        if !self.faults.warned.swap(true, Ordering::Relaxed) {
            let service = self.set().service();
            logs::of_service!(
                warn,
                BALANCE,
                self.set().client(),
                service,
                policy = std::any::type_name::<P>(),
                "a balancing policy {what}; its calls go to any open instance, and this is said once"
            );
        }
    }

    /// Says once that nobody is, or was, in the cluster that is preferred to all others.
    fn warn_of_cluster(&self, snapshot: &Snapshot) {
        let Some(own) = self.options.tiers.clusters.first() else {
            return;
        };
        let mut entries = snapshot.entries().iter();
        if entries.any(|entry| entry.instance().is_in_cluster(own)) {
            self.faults.cluster_warned.store(true, Ordering::Relaxed); // it exists
        }
        if snapshot.entries().is_empty() || self.faults.cluster_warned.swap(true, Ordering::Relaxed)
        {
            return;
        }
        self.warn(format_args!(
            "no instance is in the preferred cluster {own:?}; calls go to the others, and this is said once. Clusters seen: {}",
            clusters(snapshot)
        ));
    }

    /// Whether to say something about what a request asks for, which may be made up anew each time.
    pub(super) fn may_warn(&self, last: &AtomicU64) -> bool {
        let now = self.ms(endpoint::now()) + 1;
        let may = |last| (last == 0 || last + WARN_EVERY <= now).then_some(now);
        last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may)
            .is_ok()
    }

    pub(super) fn warn(&self, what: std::fmt::Arguments<'_>) {
        let service = self.set().service();
        logs::of_service!(warn, BALANCE, self.set().client(), service, "{what}");
    }

    pub(super) fn counters(&self) -> BalanceCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [
            retries,
            retries_over_budget,
            try_timeouts,
            hedges,
            hedges_won,
        ] = self.set().tries();
        BalanceCounters {
            picks_out_of_range: read(&self.faults.out_of_range),
            policy_panics: read(&self.faults.panics),
            full_scans: read(&self.faults.scans),
            calls_after_evict: self.set().calls_after_eviction(),
            moved: self.set().moved(),
            retries,
            retries_over_budget,
            try_timeouts,
            hedges,
            hedges_won,
            ejections: self.set().hub().ejections(),
            outlier_ejections: self.set().hub().outlier_ejections(),
            refusals: self.set().hub().refusals(),
            panics: self.set().hub().panics(),
            restorations: self.set().hub().restorations(),
        }
    }
}

impl Workshop {
    /// Notes which pools are asked for, if it is time to.
    fn look_at<S, T>(&mut self, table: &Table<S, T>, now: Instant) {
        if now.saturating_duration_since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            table.age();
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
    fn upkeep(&self, now: Instant) -> Option<Instant> {
        self.refresh(now)
    }

    fn called(&self) -> Option<HashSet<Generation>> {
        self.options.subset.as_ref()?;
        self.table.load().get()?.called()
    }

    #[cfg(feature = "metrics")]
    fn scans(&self) -> u64 {
        self.faults.scans.load(Ordering::Relaxed)
    }
}

fn is_open<S>(roster: &endpoint::Roster<S>, place: usize) -> bool {
    let endpoint = roster.endpoints().get(place);
    endpoint.is_some_and(|endpoint| endpoint.gate.state().is_open())
}

/// The clusters of a snapshot, in words.
pub(super) fn clusters(snapshot: &Snapshot) -> String {
    let entries = snapshot.entries().iter();
    let mut seen: Vec<&str> = entries.map(|e| &**e.instance().cluster()).collect();
    seen.sort_unstable();
    seen.dedup();
    let more = seen.len().saturating_sub(MOST_NAMED);
    seen.truncate(MOST_NAMED);
    let mut text = seen.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// In the place of a time.
const NEVER: u64 = u64::MAX;
/// When to look again while somebody else is at it.
const BUSY: Duration = Duration::from_millis(100);
/// How often it is looked who the callers are.
const LOOK_AT_CROWD: Duration = Duration::from_secs(5);
/// How often it is looked which pools are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// In ms: how often there is a warning of what requests ask for.
const WARN_EVERY: u64 = 60_000;
/// How many pools are remembered, beside everybody's.
const MOST_PASTS: usize = 64;
/// How many names an error or a warning lists.
pub(super) const MOST_NAMED: usize = 10;
