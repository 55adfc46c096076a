use std::{
    collections::BTreeMap,
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use crate::{
    balance::{
        Hints, Loads, PickContext, Policy, Random,
        core::{Core, MOST_NAMED},
        hash::mix,
        hints::Wish,
        pool::{Pool, Tier},
        selector::Scope,
        split::{self, TrafficSplit},
        table::{MOST_POOLS, Table},
    },
    directory::Snapshot,
    endpoint::{
        self, CallError, Endpoint, Mark, Pick, Picked, Place, Roster, Shared, Timing, Tried,
    },
};

/// The reference that calls hold. There are several of one core, so that threads do not count
/// references in the same place.
pub(super) struct Stripe<S, P: Policy, R, C, V>(
    pub(super) Arc<Core<S, P, R, C, V>>,
    #[expect(dead_code, reason = "it is there for its size")] Apart,
);

/// As long as it takes until the counts of two stripes that are allocated one after the other lie in
/// different lines, and in different pairs of them, which processors fetch together. Not an alignment, by which a
/// stripe's count and what it refers to would be two lines.
struct Apart {
    _bytes: [u64; 14],
}

/// How one call of a balancer chooses.
pub(super) struct Chosen<S, P: Policy, R, C, V> {
    pub(super) stripe: Arc<Stripe<S, P, R, C, V>>,
    pub(super) hints: Hints,
}

/// One look for an instance.
struct Look<'a, S, P: Policy, R, C, V, A> {
    core: &'a Core<S, P, R, C, V>,
    roster: &'a Roster<S>,
    able: A,
    random: Random,
    key: Option<u64>,
    /// If calls are timed: this moment, and how they are.
    timed: Option<(Mark, &'a Timing)>,
}

/// Who may have one call.
trait Able {
    fn has_open<S>(&self, endpoint: &Endpoint<S>) -> bool;
}

/// Whoever is open: most calls ask for nothing, were refused by nobody and are not limited.
struct Anybody {
    gated: bool,
}

/// Who is open, and is not shut to this very call.
struct Particular<'a> {
    open: Anybody,
    tried: &'a Tried,
    /// If it says which instances it may not go to.
    wish: Option<&'a Wish>,
    /// Now, if instances are limited in how many calls they get at once.
    limits: Option<Mark>,
}

/// The loads of one tier.
struct TierLoads<'a, S, T, A> {
    endpoints: &'a [Arc<Endpoint<S>>],
    tier: &'a Tier<T>,
    able: &'a A,
    timed: Option<(Mark, &'a Timing)>,
}

impl<S, P: Policy, R, C, V> Stripe<S, P, R, C, V> {
    pub(super) fn new(core: &Arc<Core<S, P, R, C, V>>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(core), Apart { _bytes: [0; 14] }))
    }
}

impl<S, P: Policy, R, C, V> Core<S, P, R, C, V> {
    /// The place at an open endpoint, as hints and policy have it.
    #[inline]
    pub(super) fn choose(&self, tried: &Tried, hints: &Hints) -> Option<Place<S>> {
        let set = self.set();
        self.tick();
        let membership = set.membership();
        let mut current = self.table.load();
        let behind =
            |t: &Arc<Table<S, P::Table>>| t.membership != membership && !self.is_left_to_janitor(t);
        if current.get().is_none_or(behind) || self.may_be_off() {
            drop(current);
            self.refresh(endpoint::now());
            current = self.table.load();
        }
        let table = &**current.get()?;
        if self.extras || hints.wish().is_some() || !tried.is_empty() {
            return self.choose_particular(table, tried, hints);
        }
        let anybody = Anybody {
            gated: set.is_gated(),
        };
        let mut look = self.look(table, hints, anybody);
        let found = look.through(&table.base)?;
        Some(look.place(found))
    }

    #[inline]
    fn look<'a, A: Able>(
        &'a self,
        table: &'a Table<S, P::Table>,
        hints: &Hints,
        able: A,
    ) -> Look<'a, S, P, R, C, V, A> {
        Look {
            core: self,
            roster: &table.roster,
            able,
            random: Random::of_thread(),
            key: hints.get_key(),
            timed: self.set().hub().timed_now(),
        }
    }

    /// For a call that does not go to just anybody.
    #[inline(never)] // out of the way of those that do
    fn choose_particular(
        &self,
        table: &Table<S, P::Table>,
        tried: &Tried,
        hints: &Hints,
    ) -> Option<Place<S>> {
        let set = self.set();
        let wish = hints.wish();
        let particular = Particular {
            open: Anybody {
                gated: set.is_gated(),
            },
            tried,
            wish: wish.filter(|wish| wish.restricts()),
            limits: set.limits_now(),
        };
        let mut look = self.look(table, hints, particular);
        if let Some(split) = &self.options.split
            && !wish.is_some_and(Wish::chooses)
            && let Some(found) = look.by_share(table, split)
        {
            return Some(look.place(found));
        }
        let Some(wish) = wish else {
            let found = look.through(&table.base)?;
            return Some(look.place(found));
        };
        let narrow = match wish.spills_below() {
            None => look.within(table, &wish.narrow),
            Some(part) => {
                let mut dice = split::dice(look.key, &mut look.random);
                look.within_its_means(table, &wish.narrow, part, &mut dice)
            }
        };
        let found = narrow.or_else(|| {
            let elsewhere = wish.wide != wish.narrow;
            elsewhere.then(|| look.within(table, &wish.wide)).flatten()
        });
        found.map(|found| look.place(found))
    }

    /// Any endpoint that may be called, or why there is none.
    #[cold]
    fn any(&self, tried: &Tried, hints: &Hints) -> Picked<S> {
        let Some(wish) = hints.wish().filter(|wish| wish.restricts()) else {
            return self.set().pick(tried, |_| true);
        };
        let picked = self.set().pick(tried, |e| wish.allows(&e.instance()));
        let Picked::Nobody(error) = picked else {
            return picked;
        };
        let snapshot = Arc::clone(self.set().view().snapshot());
        Picked::Nobody(match no_match(wish, &snapshot) {
            Some(reason) => Box::new(CallError::NoMatch {
                service: self.set().service().clone(),
                reason: reason.into(),
            }),
            None => error,
        })
    }
}

impl<'a, S, P: Policy, R, C, V, A: Able> Look<'a, S, P, R, C, V, A> {
    /// The place of this call at one that was found.
    #[inline]
    fn place(&self, found: &Arc<Endpoint<S>>) -> Place<S> {
        Place::picked(Arc::clone(found), self.timed.map(|(now, _)| now))
    }

    /// One within a scope.
    fn within(
        &mut self,
        table: &Table<S, P::Table>,
        scope: &Scope,
    ) -> Option<&'a Arc<Endpoint<S>>> {
        if scope.is_everything() {
            return self.through(&table.base);
        }
        let mut asked = table.pool(scope);
        if asked.is_none() {
            self.core.add(table, scope);
            asked = table.pool(scope);
        }
        match &asked {
            Some(asked) => self.through(asked.get()?),
            None => self.one_by_one(scope),
        }
    }

    /// One of the part of the calls that this one is of; `None` if it is for everybody.
    #[inline(never)] // out of the way of calls that are not split
    fn by_share(
        &mut self,
        table: &Table<S, P::Table>,
        split: &TrafficSplit,
    ) -> Option<&'a Arc<Endpoint<S>>> {
        let shares = split.published().load();
        let mut dice = split::dice(self.key, &mut self.random);
        let arm = shares.get()?.drawn(dice.unit())?;
        match split.spills_below() {
            None => self.within(table, &arm.scope),
            Some(part) => self.within_its_means(table, &arm.scope, part, &mut dice),
        }
    }

    /// One within a scope, unless more than it can take would go there: what is open of it gets all of
    /// its calls only while it weighs that part of what is usual.
    fn within_its_means(
        &mut self,
        table: &Table<S, P::Table>,
        scope: &Scope,
        part: f64,
        dice: &mut Random,
    ) -> Option<&'a Arc<Endpoint<S>>> {
        if !self.core.is_weighed() {
            self.core.reweigh(endpoint::now());
        }
        if let Some(asked) = table.pool(scope)
            && let Some(pool) = asked.get()
            && pool.left() < part
            && dice.unit() * part >= pool.left()
        {
            return None;
        }
        self.within(table, scope)
    }

    #[inline]
    fn through(&mut self, pool: &Pool<P::Table>) -> Option<&'a Arc<Endpoint<S>>> {
        if let [only] = &*pool.tiers {
            if only.len == 0 {
                self.nothing(pool);
            }
            return self.in_tier(only);
        }
        if pool.len == 0 {
            self.nothing(pool);
            return None;
        }
        if !self.core.is_weighed() {
            self.core.reweigh(endpoint::now());
        }
        // A key keeps its tier, too.
        let unit = match self.key {
            Some(key) => Random::seeded(mix(key)).unit(),
            None => self.random.unit(),
        };
        let first = pool.drawn(unit);
        let mut others = pool.tiers.iter().enumerate();
        self.in_tier(&pool.tiers[first]).or_else(|| {
            others.find_map(|(at, tier)| (at != first).then(|| self.in_tier(tier)).flatten())
        })
    }

    #[inline]
    fn in_tier(&mut self, tier: &Tier<P::Table>) -> Option<&'a Arc<Endpoint<S>>> {
        if tier.len == 0 {
            return None;
        }
        let core = self.core;
        let endpoints = self.roster.endpoints();
        let loads = TierLoads {
            endpoints,
            tier,
            able: &self.able,
            timed: self.timed,
        };
        let mut context = PickContext::new(self.key);
        while let (Some(table), true) = (&tier.table, context.attempt < MOST_PICKS) {
            let picked = catch_unwind(AssertUnwindSafe(|| {
                core.policy.pick(table, &loads, &mut self.random, &context)
            }));
            match picked {
                Ok(Some(at)) => {
                    let Some(endpoint) = endpoints.get(tier.place(at)) else {
                        core.fault(&core.faults.out_of_range, "picked what does not exist");
                        break;
                    };
                    if self.able.has_open(endpoint) {
                        return Some(endpoint);
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    core.fault(&core.faults.panics, "panicked in a pick");
                    break;
                }
            }
            context.attempt += 1;
        }
        core.faults.scans.fetch_add(1, Ordering::Relaxed);
        let at = Self::open_by_weight(self.key, &mut self.random, tier, &loads)?;
        endpoints.get(tier.place(at))
    }

    /// One of those that are open, by weight, for a key always the same: where many neighbours are
    /// shut, a rack say, the next open one would get what all of them had. (Weighted rendezvous.)
    #[cold]
    fn open_by_weight(
        key: Option<u64>,
        random: &mut Random,
        tier: &Tier<P::Table>,
        loads: &TierLoads<'_, S, P::Table, A>,
    ) -> Option<usize> {
        let mut keyed = key.map(|key| Random::seeded(mix(key)));
        let random = keyed.as_mut().unwrap_or(random);
        let mut drawn: Option<(f64, usize)> = None;
        for at in 0..tier.len {
            // One number for each, open or not: so a key moves only when its own instance shuts.
            let rank = -(1.0 - random.unit()).ln();
            let endpoint = loads.endpoint(at);
            if !endpoint.is_some_and(|endpoint| loads.able.has_open(endpoint)) {
                continue;
            }
            let rank = rank / loads.weight(at).max(f64::MIN_POSITIVE);
            if drawn.is_none_or(|(least, _)| rank < least) {
                drawn = Some((rank, at));
            }
        }
        drawn.map(|(_, drawn)| drawn)
    }

    /// Without a table: the next open one.
    fn one_by_one(&mut self, scope: &Scope) -> Option<&'a Arc<Endpoint<S>>> {
        let faults = &self.core.faults;
        faults.scans.fetch_add(1, Ordering::Relaxed);
        if !faults.crowd_warned.swap(true, Ordering::Relaxed) {
            self.core.warn(format_args!(
                "calls ask for more than {MOST_POOLS} clusters and selectors at a time; what goes \
                 beyond is looked for one by one, without the policy, and this is said once"
            ));
        }
        let endpoints = self.roster.endpoints();
        let from = self.random.below(endpoints.len());
        let (head, tail) = endpoints.split_at(from);
        let mut all = tail.iter().chain(head);
        all.find(|e| scope.takes(&e.instance()) && self.able.has_open(e))
    }

    /// Says once that nobody is within a scope that a request asked for.
    #[cold]
    fn nothing(&self, pool: &Pool<P::Table>) {
        if pool.scope.is_everything() || pool.past.warned.load(Ordering::Relaxed) {
            return;
        }
        if let Some(selector) = &pool.scope.selector
            && self.core.may_warn(&self.core.faults.selectors_warned)
        {
            pool.past.warned.store(true, Ordering::Relaxed);
            let contradiction = match selector.contradiction() {
                Some(key) => format!(" (it asks for two values of {key})"),
                None => String::new(),
            };
            self.core.warn(format_args!(
                "a request asks for instances with {selector}, and none that can be called has \
                 that{contradiction}; this is said once"
            ));
        }
    }
}

impl Able for Anybody {
    #[inline]
    fn has_open<S>(&self, endpoint: &Endpoint<S>) -> bool {
        !self.gated || endpoint.gate.state().is_open()
    }
}

impl Able for Particular<'_> {
    #[inline]
    fn has_open<S>(&self, endpoint: &Endpoint<S>) -> bool {
        self.open.has_open(endpoint)
            && !self.tried.contains(endpoint.generation())
            && self
                .wish
                .is_none_or(|wish| wish.allows(&endpoint.instance()))
            && endpoint.has_room(self.limits)
    }
}

/// Out of the way of the calls that ask for nothing.
#[inline(never)]
fn grants<S>(wish: &Wish, endpoint: &Endpoint<S>) -> bool {
    wish.allows(&endpoint.instance())
}

impl<S, T, A> TierLoads<'_, S, T, A> {
    #[inline]
    fn endpoint(&self, at: usize) -> Option<&Arc<Endpoint<S>>> {
        self.endpoints.get(self.tier.place(at))
    }
}

impl<S, T, A: Able> Loads for TierLoads<'_, S, T, A> {
    #[inline]
    fn load(&self, at: usize) -> f64 {
        let Some(endpoint) = self.endpoint(at) else {
            return f64::INFINITY;
        };
        if !self.able.has_open(endpoint) {
            return f64::INFINITY;
        }
        match self.tier.weight(at) {
            None => endpoint.load(),
            Some(weight) if weight > 0.0 => self.calls(at) as f64 / weight,
            Some(_) => f64::INFINITY,
        }
    }

    #[inline]
    fn calls(&self, at: usize) -> u64 {
        let endpoint = self.endpoint(at);
        endpoint.map_or(0, |e| e.gate.state().in_flight() + e.waiting())
    }

    fn weight(&self, at: usize) -> f64 {
        let listed = || self.endpoint(at).map_or(0.0, |e| e.weight());
        self.tier.weight(at).unwrap_or_else(listed)
    }

    fn latency(&self, at: usize) -> f64 {
        match (self.endpoint(at), self.timed) {
            (Some(endpoint), Some((now, timing))) => endpoint.latency(now, timing),
            _ => 0.0,
        }
    }
}

impl<S, P: Policy, R, C, V> Pick<S, R, C, V> for Chosen<S, P, R, C, V> {
    #[inline]
    fn shared(&self) -> &Shared<S, R, C, V> {
        &self.stripe.0.shared
    }

    #[inline(always)] // what it returns would go through memory
    fn pick(&self, tried: &Tried) -> Picked<S> {
        let core = &*self.stripe.0;
        let allowed = |e: &Endpoint<S>| self.hints.wish().is_none_or(|wish| grants(wish, e));
        if let Some(place) = core.set().probe(tried, allowed) {
            return Picked::Place(place);
        }
        match core.choose(tried, &self.hints) {
            Some(place) => Picked::Place(place),
            None => core.any(tried, &self.hints),
        }
    }
}

/// Why no instance that can be called is what a request asks for; `None` if some are.
#[cold]
fn no_match(wish: &Wish, snapshot: &Snapshot) -> Option<String> {
    let callable = snapshot.callable().map(|entry| &**entry.instance());
    let matching = callable.filter(|i| wish.only().is_none_or(|only| only.matches(i)));
    let matching = matching.count();
    if snapshot.callable_len() == 0 {
        return None;
    }
    let Some(only) = wish.only().filter(|_| matching == 0) else {
        let mut left = snapshot.callable().filter(|e| wish.allows(e.instance()));
        if !wish.excludes() || left.next().is_some() {
            return None;
        }
        let with = match wish.only() {
            Some(only) => format!(" with {only}"),
            None => String::new(),
        };
        let excluded: Vec<_> = wish.excluded().iter().map(ToString::to_string).collect();
        return Some(format!(
            "the request excludes all {matching} that can be called{with}: {}",
            excluded.join(", ")
        ));
    };
    let mut text =
        format!("the request asks for {only} only, and none that can be called has that");
    if let Some(key) = only.contradiction() {
        let _ = write!(text, "; it asks for two values of {key}");
    }
    let mut keys: Vec<&str> = only.pairs().map(|(key, _)| key).collect();
    keys.dedup();
    for (at, key) in keys.into_iter().enumerate() {
        let then = if at == 0 { "; there is" } else { "," };
        let _ = write!(text, "{then} {key} = {}", values(snapshot, key));
    }
    Some(text)
}

/// The values that callable instances have for a metadata key, in words.
fn values(snapshot: &Snapshot, key: &str) -> String {
    let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for entry in snapshot.callable() {
        *counts
            .entry(entry.instance().metadata().get(key))
            .or_default() += 1;
    }
    let values: Vec<_> = counts.into_iter().collect();
    let more = values.len().saturating_sub(MOST_NAMED);
    let named = values.iter().take(MOST_NAMED);
    let words: Vec<_> = named
        .map(|(value, count)| format!("{} ({count})", value.unwrap_or("nothing")))
        .collect();
    let mut text = words.join(" or ");
    if more > 0 {
        let _ = write!(text, " or {more} more");
    }
    text
}

/// Picks that were shut, before the open instances are looked through.
const MOST_PICKS: u32 = 4;
