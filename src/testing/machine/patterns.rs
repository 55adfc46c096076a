//! Which patterns are watched by whom, and what is on its way to them. `C` is a connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::service_id::ServiceId;

/// Patterns, who watches them, and what is on its way.
#[derive(Debug)]
pub(super) struct Fuzzy<C> {
    pub(super) patterns: BTreeMap<String, Pattern<C>>,
    pub(super) tasks: Vec<(Instant, Task<C>)>,
    /// What was sent and is not acknowledged, by request id.
    pub(super) unacked: BTreeMap<(C, String), (Instant, Task<C>)>,
    /// Batches of each sync that are not acknowledged yet.
    pub(super) left: BTreeMap<u64, usize>,
    pub(super) syncs: u64,
}

#[derive(Debug)]
pub(super) struct Pattern<C> {
    pub(super) watchers: BTreeSet<C>,
    /// What it takes, as far as the limit allows.
    pub(super) matched: BTreeSet<ServiceId>,
}

/// Something to be sent to a watcher.
#[derive(Clone, Debug)]
pub(super) struct Task<C> {
    pub(super) conn: C,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Batch {
        pattern: String,
        initializing: bool,
        contexts: Vec<(ServiceId, bool)>,
        total: usize,
        current: usize,
        sync: u64,
    },
    Finish {
        pattern: String,
    },
    Change {
        service: ServiceId,
        exists: bool,
    },
}

impl<C> Default for Fuzzy<C> {
    fn default() -> Self {
        Self {
            patterns: BTreeMap::new(),
            tasks: Vec::new(),
            unacked: BTreeMap::new(),
            left: BTreeMap::new(),
            syncs: 0,
        }
    }
}

impl<C: Copy + Ord> Fuzzy<C> {
    pub(super) fn next(&self) -> Option<Instant> {
        let tasks = self.tasks.iter().map(|(at, _)| *at);
        tasks.chain(self.unacked.values().map(|(at, _)| *at)).min()
    }

    pub(super) fn watchers(&self, pattern: &str) -> impl Iterator<Item = C> + '_ {
        let watched = self.patterns.get(pattern).into_iter();
        watched.flat_map(|pattern| pattern.watchers.iter().copied())
    }

    /// A client is gone.
    pub(super) fn forget(&mut self, conn: C) {
        for pattern in self.patterns.values_mut() {
            pattern.watchers.remove(&conn);
        }
        self.tasks.retain(|(_, task)| task.conn != conn);
        self.unacked.retain(|(of, _), _| *of != conn);
    }
}
