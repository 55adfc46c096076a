use std::{
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    endpoint::{Endpoint, EndpointSet, set::State},
    metrics::{CallCounts, CallGauges, CallMetrics},
};

/// What a set has told the `metrics` facade.
#[derive(Debug, Default)]
pub(super) struct Telling {
    told: Mutex<CallMetrics>,
}

/// Calls and failures of those that are gone for good.
pub(super) type Gone = [u64; 2];

impl<S> EndpointSet<S> {
    /// Tells what changed since the last time, without a lock that a call or the directory takes.
    pub(super) fn tell(&self) {
        let told = &self.telling.told;
        match told.try_lock() {
            Ok(told) => self.tell_into(told),
            Err(TryLockError::Poisoned(told)) => self.tell_into(told.into_inner()),
            Err(TryLockError::WouldBlock) => {} // somebody is at it
        }
    }

    fn tell_into(&self, mut told: MutexGuard<'_, CallMetrics>) {
        let (counts, gauges) = self.lock().measure();
        let hub = &self.hub;
        let scans = self.scans().unwrap_or_else(|| told.counts()[6]);
        let [calls, failures] = counts;
        let counts: CallCounts = [
            calls,
            failures,
            self.calls_after_eviction(),
            hub.ejections(),
            hub.outlier_ejections(),
            hub.restorations(),
            scans,
        ];
        told.tell(self.service(), counts, gauges);
    }

    /// Tells the last of it: no call will.
    pub(super) fn tell_at_last(&self) {
        let told = self.telling.told.lock();
        self.tell_into(told.unwrap_or_else(PoisonError::into_inner));
    }

    /// The last user has gone: nothing is in flight for anybody.
    pub(super) fn fall_silent(&self) {
        let told = &self.telling.told;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = told.counts();
        told.tell(self.service(), counts, CallGauges::default());
    }
}

impl<S> State<S> {
    fn measure(&mut self) -> ([u64; 2], CallGauges) {
        let (mut counts, mut gauges) = (self.gone, CallGauges::default());
        let mut add = |endpoint: &Endpoint<S>| {
            let [calls, failures] = endpoint.calls();
            counts = [counts[0] + calls, counts[1] + failures];
            let gate = endpoint.gate.state();
            gauges[0] += usize::try_from(gate.in_flight()).unwrap_or(usize::MAX);
            gauges[1] += usize::try_from(endpoint.waiting()).unwrap_or(usize::MAX);
            gauges[2] += usize::from(gate.is_ejected() && !gate.is_evicted());
            gate.in_flight() == 0
        };
        for endpoint in self.endpoints.values() {
            add(endpoint);
        }
        let mut ended: Gone = [0; 2];
        self.leaving.retain(|endpoint| {
            let done = add(endpoint);
            if done {
                let [calls, failures] = endpoint.calls();
                ended = [ended[0] + calls, ended[1] + failures];
            }
            !done
        });
        self.gone = [self.gone[0] + ended[0], self.gone[1] + ended[1]];
        (counts, gauges)
    }
}

/// When to tell next although nothing changed.
pub(super) fn next(now: Instant) -> Instant {
    now + INTERVAL
}

const INTERVAL: Duration = Duration::from_secs(10);
