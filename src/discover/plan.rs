use std::{collections::BTreeMap, sync::Arc};

use crate::{
    directory::{Entry, Generation},
    endpoint::{Endpoint, EndpointSet},
    model::{Address, Source},
};

/// What a balancer was given and still holds.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) instances: BTreeMap<Address, Generation>,
    pub(super) sentinel: bool,
}

/// What has to change for a balancer to hold what the newest snapshot calls for. Popped from the
/// back.
pub(super) struct Plan<S> {
    /// Goes before all else: a balancer that stops half-way through then holds too few, not one
    /// that left.
    pub(super) removed: Vec<(Address, Generation)>,
    pub(super) inserted: Vec<Arc<Endpoint<S>>>,
    /// Whether the sentinel has to come.
    pub(super) sentinel_in: bool,
    /// Whether it has to go.
    pub(super) sentinel_out: bool,
}

impl<S> Plan<S> {
    pub(super) const fn empty() -> Self {
        Self {
            removed: Vec::new(),
            inserted: Vec::new(),
            sentinel_in: false,
            sentinel_out: false,
        }
    }

    /// The difference between what was given and the newest snapshot of `set`.
    ///
    /// An instance is given once it is callable, and stays until its generation ends, callable or
    /// not: closed, its service waits and its connections stay.
    pub(super) fn new(given: &Given, set: &EndpointSet<S>) -> Self {
        let mut view = set.view();
        let snapshot = Arc::clone(view.snapshot());
        let near = |entry: &Entry, cluster: &Arc<str>| entry.instance().cluster() == cluster;
        let able = |entry: &&Entry| !view.is_out(entry);
        // First the best tier of a merged subscription's sources that has anybody, then the cluster in it.
        let tier = |entry: &Entry| entry.instance().source().map(Source::tier);
        let merged = snapshot.entries().iter().any(|e| tier(e).is_some());
        let best = merged.then(|| snapshot.callable().filter(able).map(tier).min());
        let best = best.flatten();
        let in_tier = |entry: &Entry| best.is_none_or(|best| tier(entry) == best);
        let filter = set.prefer().filter(|cluster| {
            let mut able = snapshot.callable().filter(able);
            able.any(|e| in_tier(e) && near(e, cluster))
        });
        let stays =
            |entry: &Entry| in_tier(entry) && filter.is_none_or(|cluster| near(entry, cluster));
        let settled = snapshot.is_known() || snapshot.ended;
        let sentinel = settled && !snapshot.callable().any(|e| able(&e));

        // Both are in order of address, and mostly the same.
        let mut removed = Vec::new();
        let mut new = Vec::new();
        let mut given_next = given.instances.iter().peekable();
        for entry in snapshot.entries() {
            let address = entry.instance().address();
            let known = loop {
                match given_next.peek() {
                    Some((given, _)) if *given == address => break given_next.next(),
                    Some((given, _)) if *given < address => removed.extend(given_next.next()),
                    _ => break None,
                }
            };
            let same = known.is_some_and(|(_, generation)| *generation == entry.generation());
            let stays = stays(entry);
            if !(same && stays) {
                removed.extend(known);
            }
            if stays && !same && entry.standing().is_callable() {
                new.push(entry);
            }
        }
        removed.extend(given_next);
        let removed = removed.into_iter();
        let removed = removed.map(|(address, generation)| (address.clone(), *generation));
        let removed = removed.collect();
        let inserted = new.into_iter().rev().map(|e| view.endpoint(e)).collect();
        Self {
            removed,
            inserted,
            sentinel_in: sentinel && !given.sentinel,
            sentinel_out: !sentinel && given.sentinel,
        }
    }
}
