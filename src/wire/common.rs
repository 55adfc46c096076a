//! What the instances of a service have in common.

use std::sync::Arc;

use super::equal::Digest;
use crate::model::{DEFAULT_CLUSTER, Metadata};

/// Gives what instances have in common one allocation.
#[derive(Debug, Default)]
pub(super) struct Common {
    clusters: Vec<Arc<str>>,
    metadata: Vec<Metadata>,
    /// Of each of these.
    hashes: Vec<u64>,
    /// Whether any was there before.
    repeats: bool,
}

/// How many metadata that differ are kept to be looked for again.
const MOST_COMMON: usize = 64;
/// How many there is room for at once.
const FEW: usize = 8;

impl Common {
    /// Lets go of what no instance has any longer.
    pub(super) fn forget(&mut self) {
        self.clusters.retain(|name| Arc::strong_count(name) > 1);
        let mut kept = self.metadata.iter().map(Metadata::is_cloned);
        self.hashes.retain(|_| kept.next() == Some(true));
        self.metadata.retain(Metadata::is_cloned);
        if self.metadata.len() >= MOST_COMMON && !self.repeats {
            self.metadata.clear();
            self.hashes.clear(); // the last list's had nothing in common, and the next one's may
        }
    }

    /// The same, of which there is one, unless each instance has its own.
    pub(super) fn metadata(&mut self, new: Metadata) -> Metadata {
        if new.is_empty() || (self.metadata.len() >= MOST_COMMON && !self.repeats) {
            return new;
        }
        let text = new.packed().as_bytes();
        let hash = Digest::of(text).place();
        // A look at 64 numbers is cheaper than a hash that needs none.
        let mut equal = self.hashes.iter().zip(&self.metadata);
        let known = equal.find(|(known, _)| **known == hash);
        if let Some((_, known)) = known.filter(|(_, known)| known.packed().as_bytes() == text) {
            self.repeats = true;
            return known.clone();
        }
        if self.metadata.len() < MOST_COMMON {
            if self.metadata.is_empty() {
                self.metadata.reserve(FEW);
                self.hashes.reserve(FEW);
            }
            self.metadata.push(new.clone());
            self.hashes.push(hash);
        }
        new
    }

    pub(super) fn cluster(&mut self, name: &str) -> Arc<str> {
        let name = if name.is_empty() {
            DEFAULT_CLUSTER
        } else {
            name
        };
        if let Some(known) = self.clusters.iter().rev().find(|known| &***known == name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        if self.clusters.len() < 16 {
            self.clusters.push(new.clone()); // beyond that the search would cost more than it saves
        }
        new
    }
}
