//! What the `metrics` facade is told of one service.

use crate::{
    directory::{Status, Subscription, SubscriptionCounters, shared::Shared, state::State},
    metrics::{ServiceCounts, ServiceGauges},
};

impl Shared {
    /// Tells what changed. Not under the writer's lock: a recorder is not ours.
    pub(super) fn tell(&self) {
        if self.sources.is_some() {
            return; // each source tells of itself
        }
        self.told.tell(|told| {
            let (counts, gauges) = {
                let state = self.lock();
                (counts(&state.counters), gauges(&state))
            };
            told.tell(&self.key, counts, gauges);
        });
    }
}

impl Subscription {
    /// Tells what a report changed.
    pub(crate) fn tell(&self) {
        self.handle.shared.tell();
    }
}

impl Drop for Shared {
    /// Nobody sees the set any longer.
    fn drop(&mut self) {
        if self.sources.is_some() {
            return;
        }
        let counts = counts(&self.lock().counters);
        let told = self.told.get_mut();
        told.tell(&self.key, counts, ServiceGauges::default());
    }
}

const fn counts(counters: &SubscriptionCounters) -> ServiceCounts {
    [
        counters.lists,
        counters.hosts_rejected,
        counters.older_stamps,
        counters.reads_corrected,
        counters.not_resurrected,
        counters.held,
        counters.collapses,
        counters.collapses_obeyed,
    ]
}

fn gauges(state: &State) -> ServiceGauges {
    let snapshot = state.root.snapshot();
    let stale = matches!(state.status(), Status::Stale { .. });
    [
        1,
        snapshot.entries().len(),
        snapshot.callable_len(),
        state.guard.len(),
        usize::from(stale),
    ]
}
