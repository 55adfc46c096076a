use std::sync::MutexGuard;

use crate::{
    endpoint::{member::Endpoint, set::EndpointSet, state::State},
    metrics::{CallCounts, CallGauges, CallMetrics},
};

impl<S> EndpointSet<S> {
    /// Tells what changed since the last time, without a lock that a call or the directory takes.
    pub(super) fn tell(&self) {
        if let Some(told) = self.telling.try_lock() {
            self.tell_into(told);
        }
    }

    fn tell_into(&self, mut told: MutexGuard<'_, CallMetrics>) {
        let (counts, gauges) = self.lock().measure();
        let hub = self.hub();
        let upkeep = self.helpers.upkeep();
        let scans = upkeep.map_or_else(|| told.counts()[6], |upkeep| upkeep.scans());
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
        self.tell_into(self.telling.lock());
    }

    /// The last user has gone: nothing is in flight for anybody.
    pub(super) fn tell_of_the_end(&self) {
        let mut told = self.telling.lock();
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
        let mut ended = [0_u64; 2];
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
