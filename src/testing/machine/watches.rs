use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{conn_id::ConnId, service_id::ServiceId};

/// Patterns, who watches them, and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Fuzzy {
    pub(super) patterns: BTreeMap<String, Pattern>,
    pub(super) tasks: Vec<(Instant, Task)>,
    /// What was sent and is not acknowledged, by request id.
    pub(super) unacked: BTreeMap<(ConnId, String), (Instant, Task)>,
    /// Batches of each sync that are not acknowledged yet.
    pub(super) left: BTreeMap<u64, usize>,
    pub(super) syncs: u64,
}

#[derive(Debug, Default)]
pub(super) struct Pattern {
    pub(super) watchers: BTreeSet<ConnId>,
    /// What it takes, as far as the limit allows.
    pub(super) matched: BTreeSet<ServiceId>,
}

/// Something to be sent to a watcher.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) conn: ConnId,
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

impl Fuzzy {
    pub(super) fn next(&self) -> Option<Instant> {
        let tasks = self.tasks.iter().map(|(at, _)| *at);
        tasks.chain(self.unacked.values().map(|(at, _)| *at)).min()
    }

    pub(super) fn watchers(&self, pattern: &str) -> impl Iterator<Item = ConnId> + '_ {
        let watched = self.patterns.get(pattern).into_iter();
        watched.flat_map(|pattern| pattern.watchers.iter().copied())
    }

    /// A client is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        for pattern in self.patterns.values_mut() {
            pattern.watchers.remove(&conn);
        }
        self.tasks.retain(|(_, task)| task.conn != conn);
        self.unacked.retain(|(of, _), _| *of != conn);
    }
}
