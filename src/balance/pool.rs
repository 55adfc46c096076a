use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    balance::{
        Candidate, Policy,
        candidates::Members,
        selector::Scope,
        subset::{Kept, Narrow, Part},
        tiers::{Reference, TierRules, shares},
        zone_aware::ZoneAware,
    },
    directory::{Entry, Snapshot, Standing},
    endpoint::{Endpoint, Roster},
    model::{Instance, Source},
};

/// The instances of a roster that lie within a scope, tier by tier, and the policy's table of each.
pub(super) struct Pool<T> {
    pub(super) scope: Scope,
    /// In order; at least one. Without preferred clusters and tiers of sources the only one.
    pub(super) tiers: Box<[Tier<T>]>,
    /// Whether those are zones, of which the first is the own one.
    zoned: bool,
    /// How many instances lie within the scope.
    pub(super) len: usize,
    pub(super) past: Arc<Past>,
    /// The bits of what part of its usual weight is open; 1 if nobody asks.
    left: AtomicU64,
    /// How often it was found not to have been asked for since the time before.
    pub(super) idle: AtomicU8,
}

/// The instances of a pool that are in one cluster, or in none of those that are preferred, of the
/// sources of one tier.
pub(super) struct Tier<T> {
    /// `None` where sources have no tiers.
    pub(super) source: Option<u8>,
    /// `None`: the rest.
    pub(super) cluster: Option<Arc<str>>,
    /// Their places in the roster; `None` if it is all of them.
    places: Option<Box<[u32]>>,
    /// All that lie in it, where the caller calls a part of them only.
    whole: Option<Whole>,
    /// Their weights, where those are not the listed ones.
    weights: Option<Box<[f64]>>,
    /// `None` if there are no instances, or building it panicked.
    pub(super) table: Option<T>,
    pub(super) len: usize,
    /// The bits of its share.
    share: AtomicU64,
    /// The bits of its share and those before it, what is drawn below which goes here or before.
    up_to: AtomicU64,
}

/// The instances of a tier of which a caller calls a part.
struct Whole {
    /// As those of the tier.
    places: Option<Box<[u32]>>,
    len: usize,
    /// Its members and share are numbers among `places`.
    part: Part,
}

/// What a pool knows of former times; goes from table to table.
#[derive(Default)]
pub(super) struct Past {
    /// By tier, which are the same ones each time; where those are zones, by tier of sources.
    references: Mutex<Vec<Reference>>,
    /// Of all tiers together, where metadata is asked for.
    whole: Mutex<Reference>,
    /// By tier: what part of it this caller calls.
    parts: Mutex<Vec<Option<Kept>>>,
    pub(super) warned: AtomicBool,
    pub(super) cluster_warned: AtomicBool,
}

impl<T> Pool<T> {
    /// Builds the tables. What panics meanwhile is told to `fault`.
    pub(super) fn build<P: Policy<Table = T>>(
        policy: &P,
        scope: Scope,
        rules: &TierRules,
        members: Members<'_>,
        past: Arc<Past>,
        narrow: Option<(Narrow<'_>, &dyn Fn(usize) -> bool)>,
        mut fault: impl FnMut(),
    ) -> Self {
        let candidates = members.all;
        let zones = zones_of(&scope, rules, candidates);
        let zoned = zones.is_some();
        let order = match &zones {
            Some(zones) => zones.iter().collect(),
            None => rules.order(scope.cluster.as_ref()),
        };
        let clusters = || order.iter().map(|c| Some(Arc::clone(c))).chain([None]);
        let of = |source| clusters().map(move |cluster| (source, cluster));
        let names: Vec<_> = rules.sources().flat_map(of).collect();
        let only = names.len() == 1;
        // Without a look at each where all are in it.
        let all = only && !scope.selects();
        let mut places: Vec<Option<Vec<u32>>> = names.iter().map(|_| None).collect();
        let mut len = candidates.len();
        if !all {
            places.fill(Some(Vec::new()));
            len = 0;
            for (at, candidate) in candidates.iter().enumerate() {
                let instance = candidate.instance();
                if !scope.takes(instance) {
                    continue;
                }
                len += 1;
                for_each_tier(rules, &order, instance, |tier| {
                    places[tier].get_or_insert_default().push(at as u32);
                });
            }
        }
        let mut parts = past.parts();
        parts.resize_with(names.len(), || None);
        let tiers = names.into_iter().zip(places).zip(&mut *parts).map(
            |(((source, cluster), places), kept)| {
                let places = places.filter(|places| places.len() < candidates.len());
                let of_tier: Vec<Candidate>;
                let tier = match &places {
                    None => candidates,
                    Some(places) => {
                        let places = places.iter();
                        of_tier = places.map(|at| candidates[*at as usize].clone()).collect();
                        &of_tier
                    }
                };
                let len = tier.len();
                let part = narrow.and_then(|(narrow, is_open)| {
                    let place = |at| places.as_ref().map_or(at, |places| places[at] as usize);
                    narrow.part(tier, |at| is_open(place(at)), kept)
                });
                let of_part: Vec<Candidate>;
                let mut reweighted = members.reweighted;
                let (tier, places, whole) = match part {
                    None => (tier, places, None),
                    Some(part) => {
                        reweighted = true;
                        of_part = part.of(tier);
                        let place = |at: &u32| places.as_ref().map_or(*at, |p| p[*at as usize]);
                        let called = part.members.iter().map(place).collect();
                        let places = places.map(Into::into);
                        let whole = Whole { places, len, part };
                        (&*of_part, Some(called), Some(whole))
                    }
                };
                let len = tier.len();
                let changed = |c: &Candidate| c.weight() != c.instance().weight().get();
                let reweighted = reweighted && tier.iter().any(changed);
                let weights = reweighted.then(|| tier.iter().map(Candidate::weight).collect());
                let built = (len > 0 || only)
                    .then(|| catch_unwind(AssertUnwindSafe(|| policy.build(tier))));
                if matches!(built, Some(Err(_))) {
                    fault();
                }
                Tier {
                    source,
                    cluster,
                    places: places.map(Into::into),
                    whole,
                    weights,
                    table: built.and_then(Result::ok),
                    len,
                    share: AtomicU64::new(0),
                    up_to: AtomicU64::new(0),
                }
            },
        );
        let tiers = tiers.collect();
        drop(parts);
        Self {
            tiers,
            scope,
            zoned,
            len,
            past,
            idle: AtomicU8::new(0),
            left: AtomicU64::new(1_f64.to_bits()),
        }
    }

    /// Notes what the clusters weigh in this list.
    pub(super) fn observe(
        &self,
        rules: &TierRules,
        snapshot: &Snapshot,
        now: Instant,
        epoch: Instant,
    ) {
        if self.scope.selects() {
            let listed = snapshot.entries().iter();
            let listed = listed.filter(|entry| self.counts(entry));
            let weight = listed.map(|entry| entry.instance().weight().get()).sum();
            self.past.whole().observe(weight, now, epoch);
        }
        if self.tiers.len() == 1 {
            return;
        }
        let order = match self.zoned {
            true => Vec::new(), // a zone's share is of what there is now
            false => rules.order(self.scope.cluster.as_ref()),
        };
        let tiers = match self.zoned {
            true => rules.sources().count(),
            false => self.tiers.len(),
        };
        let mut listed = vec![0.0; tiers];
        for entry in snapshot.entries() {
            let instance = entry.instance();
            if self.counts(entry) {
                let weight = instance.weight().get();
                for_each_tier(rules, &order, instance, |tier| listed[tier] += weight);
            }
        }
        let mut references = self.past.references();
        references.resize_with(listed.len(), Reference::default);
        for (reference, weight) in references.iter_mut().zip(listed) {
            reference.observe(weight, now, epoch);
        }
    }

    /// Whether a listed instance is part of what this usually weighs.
    fn counts(&self, entry: &Entry) -> bool {
        match entry.standing() {
            Standing::OutsideSelection | Standing::Disabled | Standing::GoingOffline => false,
            _ => self.scope.takes(entry.instance()),
        }
    }

    /// Sets the tiers' shares, from who is open now. Returns when they may be others without a
    /// change of anything else.
    pub(super) fn weigh<S>(
        &self,
        rules: &TierRules,
        roster: &Roster<S>,
        now: Instant,
    ) -> Option<Instant> {
        let mut next = self.weigh_whole(roster, now);
        if let [only] = &*self.tiers {
            only.set_share(1.0, f64::INFINITY);
            return next;
        }
        if let (true, Some(zones)) = (self.zoned, &rules.zones) {
            return [next, self.weigh_zones(zones, rules, roster, now)]
                .into_iter()
                .flatten()
                .min();
        }
        let mut references = self.past.references();
        references.resize_with(self.tiers.len(), Reference::default);
        let tiers = self.tiers.iter().zip(references.iter_mut());
        let weights: Vec<(f64, f64)> = tiers
            .map(|(tier, reference)| {
                let open = tier.open(roster);
                let expected = tier.cluster.as_deref();
                let expected = expected.and_then(|c| rules.expected(tier.source, c));
                let reference = expected.unwrap_or_else(|| {
                    let (highest, until) = reference.highest(now);
                    next = [next, until].into_iter().flatten().min();
                    highest
                });
                (open, reference)
            })
            .collect();
        drop(references);
        self.set_shares(&shares(&weights));
        next
    }

    /// The same where tiers are zones: each tier of sources has them all.
    fn weigh_zones<S>(
        &self,
        zones: &ZoneAware,
        rules: &TierRules,
        roster: &Roster<S>,
        now: Instant,
    ) -> Option<Instant> {
        let mut next = zones.is_followed().then(|| now + FOLLOWED_EVERY);
        let sources = rules.sources().count().max(1);
        let mut references = self.past.references();
        references.resize_with(sources, Reference::default);
        let mut weights = Vec::with_capacity(sources);
        let mut divided = Vec::with_capacity(self.tiers.len());
        let groups = self.tiers.chunks(self.tiers.len() / sources);
        for (tiers, reference) in groups.zip(references.iter_mut()) {
            let open: Vec<f64> = tiers.iter().map(|tier| tier.open(roster)).collect();
            let instances = tiers.iter().map(|tier| tier.count_open(roster)).sum();
            let names = tiers.iter().map(|tier| tier.cluster.as_deref());
            divided.push(zones.shares(names, &open, instances));
            let (highest, until) = reference.highest(now);
            next = [next, until].into_iter().flatten().min();
            weights.push((open.iter().sum(), highest));
        }
        drop(references);
        let of_sources = match sources {
            1 => vec![1.0],
            _ => shares(&weights),
        };
        let of_group = |(of_source, zones): (f64, Vec<f64>)| {
            zones.into_iter().map(move |share| share * of_source)
        };
        let shares = of_sources.into_iter().zip(divided).flat_map(of_group);
        self.set_shares(&shares.collect::<Vec<_>>());
        next
    }

    /// Sets the tiers' shares, which add up to 1, or to 0.
    fn set_shares(&self, shares: &[f64]) {
        let last = shares.iter().rposition(|share| *share > 0.0);
        let mut below = 0.0;
        for (at, (tier, share)) in self.tiers.iter().zip(shares).enumerate() {
            below += share;
            let rounded = if Some(at) == last {
                f64::INFINITY
            } else {
                below
            };
            tier.set_share(*share, rounded);
        }
    }

    /// Sets what is left of its usual weight.
    fn weigh_whole<S>(&self, roster: &Roster<S>, now: Instant) -> Option<Instant> {
        if !self.scope.selects() {
            return None;
        }
        let open: f64 = self.tiers.iter().map(|tier| tier.open(roster)).sum();
        let (usual, until) = self.past.whole().highest(now);
        let left = match usual > 0.0 && open > 0.0 {
            true => open / usual,
            false => f64::from(u8::from(open > 0.0)),
        };
        self.left.store(left.to_bits(), Ordering::Relaxed);
        until
    }

    /// What part of its usual weight is open.
    #[inline]
    pub(super) fn left(&self) -> f64 {
        f64::from_bits(self.left.load(Ordering::Relaxed))
    }

    /// How many times in a row it was found not to have been asked for.
    pub(super) fn idle(&self) -> u8 {
        self.idle.load(Ordering::Relaxed)
    }

    /// The tier that a number from 0 to 1 falls to.
    #[inline]
    pub(super) fn drawn(&self, unit: f64) -> usize {
        let mut tiers = self.tiers.iter();
        tiers.position(|tier| unit < tier.up_to()).unwrap_or(0)
    }
}

impl<T> Tier<T> {
    /// What its instances weigh that are open now.
    fn open<S>(&self, roster: &Roster<S>) -> f64 {
        self.open_ones(roster)
            .map(|endpoint| endpoint.weight())
            .sum()
    }

    /// How many of its instances are.
    fn count_open<S>(&self, roster: &Roster<S>) -> usize {
        self.open_ones(roster).count()
    }

    /// Those of the whole tier, where a subset of it is called.
    fn open_ones<'a, S>(
        &'a self,
        roster: &'a Roster<S>,
    ) -> impl Iterator<Item = &'a Arc<Endpoint<S>>> {
        let len = self.whole.as_ref().map_or(self.len, |whole| whole.len);
        let endpoints = (0..len).filter_map(move |at| {
            let whole = self.whole.as_ref();
            let place = whole.map_or_else(|| self.place(at), |whole| whole.place(at));
            roster.endpoints().get(place)
        });
        endpoints.filter(|endpoint| endpoint.gate.state().is_open())
    }

    /// Where in the roster the `at`th of the tier is.
    #[inline]
    pub(super) fn place(&self, at: usize) -> usize {
        match &self.places {
            None if at < self.len => at,
            None => usize::MAX,
            Some(places) => places.get(at).map_or(usize::MAX, |place| *place as usize),
        }
    }

    /// Whether there are more that lie in it, and are not called.
    pub(super) const fn is_part(&self) -> bool {
        self.whole.is_some()
    }

    /// Whether others are to be called than these, now that others are open.
    pub(super) fn is_off(&self, narrow: &Narrow<'_>, is_open: impl Fn(usize) -> bool) -> bool {
        let off = |whole: &Whole| narrow.is_off(&whole.part, |at| is_open(whole.place(at)));
        self.whole.as_ref().is_some_and(off)
    }

    /// Of how many it is a part that lie in it, if the one at `place` in the roster does and is not called.
    pub(super) fn leaves_out(&self, place: usize) -> Option<usize> {
        let whole = self.whole.as_ref()?;
        let lies_in = match &whole.places {
            None => place < whole.len,
            Some(places) => places.binary_search(&u32::try_from(place).ok()?).is_ok(),
        };
        (lies_in && self.find(place).is_none()).then_some(whole.len)
    }

    /// Where in the tier the one at `place` in the roster is.
    pub(super) fn find(&self, place: usize) -> Option<usize> {
        match &self.places {
            None => (place < self.len).then_some(place),
            Some(places) => places.binary_search(&u32::try_from(place).ok()?).ok(),
        }
    }

    /// The weight of the `at`th, if it is not the listed one.
    #[inline]
    pub(super) fn weight(&self, at: usize) -> Option<f64> {
        self.weights.as_ref()?.get(at).copied()
    }

    /// Its share of the calls.
    pub(super) fn share(&self) -> f64 {
        f64::from_bits(self.share.load(Ordering::Relaxed))
    }

    fn up_to(&self) -> f64 {
        f64::from_bits(self.up_to.load(Ordering::Relaxed))
    }

    fn set_share(&self, share: f64, up_to: f64) {
        self.share.store(share.to_bits(), Ordering::Relaxed);
        self.up_to.store(up_to.to_bits(), Ordering::Relaxed);
    }
}

impl Whole {
    fn place(&self, at: usize) -> usize {
        let places = self.places.as_ref();
        places.map_or(at, |places| places[at] as usize)
    }
}

impl Past {
    fn parts(&self) -> std::sync::MutexGuard<'_, Vec<Option<Kept>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn whole(&self) -> std::sync::MutexGuard<'_, Reference> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn references(&self) -> std::sync::MutexGuard<'_, Vec<Reference>> {
        self.references
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tiers that an instance is in: of those of its source each whose cluster lists it, or else the
/// last, the rest.
fn for_each_tier(
    rules: &TierRules,
    order: &[&Arc<str>],
    instance: &Instance,
    mut then: impl FnMut(usize),
) {
    let source = instance.source().map(Source::tier);
    let sources = &rules.sources;
    let source = source.and_then(|tier| sources.binary_search(&tier).ok());
    let from = source.unwrap_or(0) * (order.len() + 1);
    let mut rest = true;
    for (tier, cluster) in order.iter().enumerate() {
        if instance.is_in_cluster(cluster) {
            then(from + tier);
            rest = false;
        }
    }
    if rest {
        then(from + order.len());
    }
}

/// The clusters of those within a scope, the own one first, if calls are divided among them. A request that
/// names a cluster asks for an order.
fn zones_of(scope: &Scope, rules: &TierRules, candidates: &[Candidate]) -> Option<Vec<Arc<str>>> {
    let home = rules.zones.as_ref()?.home();
    if scope.cluster.is_some() {
        return None;
    }
    let within = candidates.iter().map(Candidate::instance);
    let within = within.filter(|instance| scope.takes(instance));
    let of = |instance: &'_ Arc<Instance>| -> Vec<Arc<str>> {
        let all = std::iter::once(instance.cluster()).chain(instance.also_in());
        all.map(Arc::clone).collect()
    };
    let mut others: BTreeSet<Arc<str>> = within.flat_map(of).collect();
    others.remove(home);
    let zones = std::iter::once(Arc::clone(home)).chain(others);
    Some(zones.take(MOST_ZONES).collect())
}

/// How many zones are told apart: each is a table, and one step of a draw.
const MOST_ZONES: usize = 64;
/// How often it is looked who calls.
const FOLLOWED_EVERY: Duration = Duration::from_secs(5);
