use crate::{
    endpoint::{helpers::Upkeep, member::Endpoint, set::EndpointSet, state::State, telling::Told},
    metrics::{CallCounts, CallGauges, Filled},
};

impl<S> EndpointSet<S> {
    /// Tells what changed since the last time, without a lock that a call or the directory takes.
    pub(super) fn tell(&self) {
        let upkeep = self.helpers.upkeep();
        self.telling
            .tell(|told| self.tell_into(told, upkeep.as_deref()));
        // The last of the balancer may go here, whose end is told as well.
    }

    fn tell_into(&self, told: &mut Told, upkeep: Option<&dyn Upkeep>) {
        let (counts, gauges) = self.lock().measure();
        let hub = self.hub();
        let scans = upkeep.map_or_else(|| told.calls.counts()[6], |upkeep| upkeep.scans());
        let (requests, durations) = self.helpers.requests();
        let [calls, failures] = counts;
        let [retries, over_budget, late_tries, hedges, hedges_won] = self.tries();
        let counts: CallCounts = [
            calls,
            failures,
            self.calls_after_eviction(),
            hub.ejections(),
            hub.outlier_ejections(),
            hub.restorations(),
            scans,
            retries,
            over_budget,
            late_tries,
            hedges,
            hedges_won,
            self.moved(),
            hub.refusals(),
            hub.panics(),
        ];
        told.calls.tell(self.service(), counts, gauges);
        let mut waits = Filled::default();
        hub.waits.add_to(&mut waits);
        told.requests
            .tell(self.service(), requests, waits, durations);
    }
}

impl<S> State<S> {
    /// The last user has gone: what is counted now is what there will be.
    pub(super) fn settle(&mut self) {
        (self.gone, _) = self.measure();
        self.leaving.clear();
    }

    /// Calls and failures, and what there is at present: nothing, where nobody is left to whom it would matter.
    fn measure(&mut self) -> ([u64; 2], CallGauges) {
        if self.abandoned {
            return (self.gone, CallGauges::default());
        }
        let (mut counts, mut gauges) = (self.gone, CallGauges::default());
        let crowd = self.crowd(|_| true);
        gauges[3] = 1;
        gauges[4] = usize::from(crowd.callable > 0 && crowd.out >= crowd.callable);
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

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex, Weak, mpsc},
        thread,
        time::Duration,
    };

    use tokio::time::Instant;

    use super::*;
    use crate::{directory::Subscription, model::Instance, sync::Bell};

    /// A balancer whose last user lets go of it while the janitor asks it for its scans.
    struct Leaving {
        set: Arc<EndpointSet<()>>,
        last: Mutex<Option<Arc<Self>>>,
    }

    impl Upkeep for Leaving {
        fn upkeep(&self, _: Instant) -> Option<Instant> {
            None
        }

        fn scans(&self) -> u64 {
            drop(self.last.lock().unwrap().take());
            7
        }
    }

    impl Drop for Leaving {
        fn drop(&mut self) {
            self.set.abandon();
        }
    }

    #[test]
    fn a_balancer_may_end_while_its_metrics_are_told() {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let orders = Subscription::fixed([Instance::parse("10.0.0.1:80").unwrap()]);
            let (key, snapshot) = (orders.key().clone(), orders.snapshot());
            let quiet = Arc::<Bell>::default();
            let set = Arc::new(EndpointSet::new(key, snapshot, quiet, None, true));
            let leaving = Arc::new(Leaving {
                set: Arc::clone(&set),
                last: Mutex::default(),
            });
            let upkeep: Weak<Leaving> = Arc::downgrade(&leaving);
            set.keep_up(upkeep);
            *leaving.last.lock().unwrap() = Some(Arc::clone(&leaving));
            drop(leaving);
            set.tell();
            done.send(set.lock().abandoned).unwrap();
        });
        let abandoned = is_done.recv_timeout(Duration::from_secs(60));
        assert_eq!(abandoned, Ok(true), "it waits for itself");
    }
}
