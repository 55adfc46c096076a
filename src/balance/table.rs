use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    balance::{Candidate, pool::Pool, selector::Scope},
    directory::Generation,
    endpoint::Roster,
    model::Address,
    sync::{Published, PublishedRef},
};

/// The instances that were callable at a moment, and the policy's tables of them. May be stale; the
/// gates are not.
pub(super) struct Table<S, T> {
    /// The set's membership that this was built at.
    pub(super) membership: u64,
    pub(super) roster: Arc<Roster<S>>,
    /// The weights that instances had, where some had not the listed one.
    weights: Option<Box<[f64]>>,
    /// Of all of them: for calls that ask for nothing.
    pub(super) base: Pool<T>,
    /// Of those that requests ask for, as they come up.
    scoped: Published<Scoped<T>>,
}

/// Pools by the hash of their scope, sorted.
struct Scoped<T>(Box<[(u64, Arc<Pool<T>>)]>);

/// A pool that somebody asked for.
pub(super) struct Asked<T>(PublishedRef<Scoped<T>>, usize);

impl<S, T> Table<S, T> {
    pub(super) fn new(
        membership: u64,
        base: Pool<T>,
        scoped: Vec<Arc<Pool<T>>>,
        roster: Arc<Roster<S>>,
        weights: Option<Box<[f64]>>,
    ) -> Self {
        Self {
            membership,
            roster,
            weights,
            base,
            scoped: Published::new(Arc::new(Scoped::new(scoped))),
        }
    }

    /// Where in the roster the instance at this address is.
    pub(super) fn find(&self, address: &Address) -> Option<usize> {
        // Sorted by that.
        let endpoints = self.roster.endpoints();
        let found = endpoints.binary_search_by(|e| e.instance().address().cmp(address));
        found.ok()
    }

    /// What the instance at a place weighs here.
    pub(super) fn weight(&self, place: usize) -> f64 {
        let weight = self.weights.as_ref().and_then(|weights| weights.get(place));
        let listed = || self.roster.endpoints().get(place);
        let listed = || listed().map_or(0.0, |endpoint| endpoint.weight());
        weight.copied().unwrap_or_else(listed)
    }

    /// What it was made of, as it is listed now.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let endpoints = self.roster.endpoints().iter();
        let listed = endpoints.map(|endpoint| Candidate::new(endpoint.instance()));
        match &self.weights {
            None => listed.collect(),
            Some(weights) => {
                let weighed = listed.zip(weights);
                weighed.map(|(c, weight)| c.with_weight(*weight)).collect()
            }
        }
    }

    /// Whether some weigh other than they are listed.
    pub(super) const fn is_reweighted(&self) -> bool {
        self.weights.is_some()
    }

    /// The pool of a scope, if there is one.
    #[inline]
    pub(super) fn pool(&self, scope: &Scope) -> Option<Asked<T>> {
        let pools = self.scoped.load();
        let Scoped(sorted) = &**pools.get()?;
        let at = sorted
            .binary_search_by_key(&scope.hash(), |(hash, _)| *hash)
            .ok()?;
        let pool = &sorted[at].1;
        if pool.scope != *scope {
            return None; // two scopes with one hash: the second goes without a pool
        }
        if pool.idle.load(Ordering::Relaxed) != 0 {
            pool.idle.store(0, Ordering::Relaxed);
        }
        Some(Asked(pools, at))
    }

    /// The scopes that requests ask for, and how long they have not.
    pub(super) fn asked(&self) -> Vec<(Scope, u8)> {
        let pools = self.all();
        let asked = pools.iter().map(|pool| (pool, pool.idle()));
        asked
            .filter(|(_, idle)| *idle < LONGEST_IDLE)
            .map(|(pool, idle)| (pool.scope.clone(), idle))
            .collect()
    }

    /// Notes who has not been asked for since this was last called.
    pub(super) fn age(&self) {
        for pool in self.all() {
            let idle = pool.idle().saturating_add(1);
            pool.idle.store(idle, Ordering::Relaxed); // one that is asked for just now may lose a turn
        }
    }

    /// Adds a pool for which room was made.
    pub(super) fn add(&self, pool: Pool<T>) {
        let mut pools = self.all();
        pools.push(Arc::new(pool));
        self.scoped.store(Arc::new(Scoped::new(pools)));
    }

    /// Whether there is room for one more pool, or could be made by giving up one that nobody asks
    /// for.
    pub(super) fn make_room(&self) -> bool {
        let mut pools = self.all();
        if pools.len() < MOST_POOLS {
            return true;
        }
        let idle = |pool: &Arc<Pool<T>>| pool.idle() >= LONGEST_IDLE;
        let Some(at) = pools.iter().position(idle) else {
            return false;
        };
        pools.swap_remove(at);
        self.scoped.store(Arc::new(Scoped::new(pools)));
        true
    }

    pub(super) fn for_each(&self, mut then: impl FnMut(&Pool<T>)) {
        then(&self.base);
        self.all().iter().for_each(|pool| then(pool));
    }

    /// Those that are called; `None` if there is no pool of which somebody is not.
    pub(super) fn called(&self) -> Option<HashSet<Generation>> {
        let (mut called, mut all) = (HashSet::new(), true);
        self.for_each(|pool| {
            for tier in &pool.tiers {
                let places = (0..tier.len).map(|at| tier.place(at));
                let endpoints = places.filter_map(|place| self.roster.endpoints().get(place));
                called.extend(endpoints.map(|endpoint| endpoint.generation()));
                all &= !tier.is_part();
            }
        });
        (!all).then_some(called)
    }

    fn all(&self) -> Vec<Arc<Pool<T>>> {
        let pools = self.scoped.load();
        let pools = pools.get().into_iter().flat_map(|pools| &pools.0);
        pools.map(|(_, pool)| Arc::clone(pool)).collect()
    }
}

impl<T> Scoped<T> {
    fn new(pools: Vec<Arc<Pool<T>>>) -> Self {
        let mut sorted: Vec<_> = pools.into_iter().map(|p| (p.scope.hash(), p)).collect();
        sorted.sort_by_key(|(hash, _)| *hash);
        Self(sorted.into())
    }
}

impl<T> Asked<T> {
    #[inline]
    pub(super) fn get(&self) -> Option<&Pool<T>> {
        let pools = self.0.get()?;
        Some(&pools.0.get(self.1)?.1)
    }
}

/// How many scopes have tables at a time. A call that asks for one more looks at the instances one
/// by one.
pub(super) const MOST_POOLS: usize = 64;
/// Looks at which a pool was not asked for, before it is given up: one that is asked for once between
/// two looks stays.
const LONGEST_IDLE: u8 = 2;
