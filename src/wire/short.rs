//! A short list that is read again and again, and says the same each time.
//!
//! Of thousands of services each is read once a minute in case that a push was lost. Kept of each is one digest of
//! all hosts' bytes: equal digests give the instances that those made. That takes 8 bytes an instance and 48 a service.
//!
//! An instance that was there before and is equal stays the one that is kept here, as it stays the one in the
//! directory: so none is in memory twice.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::{equal::Digest, json::value};
use crate::model::{Instance, Listing};

/// What a list's hosts were.
#[derive(Debug)]
pub(super) struct Short {
    /// Of the array that made the instances: of a list that was read.
    array: Option<Digest>,
    instances: Box<[Arc<Instance>]>,
}

/// With more it is none: each may be compared with each. About what fits into a short message.
const MOST: usize = 64;

impl Short {
    /// Of the array that opens at `at` and made this list, after `before`. `None` if not all of it could be used:
    /// what is refused is read, and refused, anew each time.
    pub(super) fn of(
        json: &[u8],
        at: usize,
        listing: &Listing,
        before: Option<&Self>,
    ) -> Option<Self> {
        if !listing.rejected().is_empty() || listing.instances().is_empty() {
            return None;
        }
        let instances = after(listing.instances(), before)?;
        let (IgnoredAny, end) = value(json, at)?;
        Some(Self {
            array: Some(Digest::of(&json[at..end])),
            instances,
        })
    }

    /// The same after a list that came by itself.
    pub(super) fn after(self, listed: &[Arc<Instance>]) -> Option<Self> {
        let instances = after(listed, Some(&self))?;
        let same = instances.len() == self.instances.len()
            && instances
                .iter()
                .zip(&self.instances)
                .all(|(a, b)| Arc::ptr_eq(a, b));
        let array = self.array.filter(|_| same);
        Some(Self { array, instances })
    }

    /// The instances, and where the array ends, if it is the same.
    pub(super) fn read(&self, json: &[u8], at: usize) -> Option<(Vec<Arc<Instance>>, usize)> {
        let known = self.array?;
        let end = at.checked_add(known.len())?;
        let is_it = Digest::of(json.get(at..end)?) == known;
        is_it.then(|| (self.instances.to_vec(), end))
    }
}

/// What is listed, each the one from `before` that it equals.
fn after(listed: &[Arc<Instance>], before: Option<&Short>) -> Option<Box<[Arc<Instance>]>> {
    if listed.len() > MOST {
        return None;
    }
    let before = before.map_or(&[][..], |short| &short.instances);
    let mut next = 0;
    let mut known = |new: &Arc<Instance>| {
        let (passed, rest) = before.split_at(next);
        let mut all = rest.iter().chain(passed);
        let place = all.position(|old| old.address() == new.address())?;
        let place = (next + place) % before.len();
        next = place + 1;
        (before[place] == *new).then(|| Arc::clone(&before[place]))
    };
    let instances = listed
        .iter()
        .map(|new| known(new).unwrap_or_else(|| Arc::clone(new)));
    Some(instances.collect())
}
