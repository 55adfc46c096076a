use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    directory::{Consumer, Revision, Snapshot, Transition, TransitionKind},
    endpoint::{clock, member::Endpoint, set::EndpointSet},
};

impl<S: Send + Sync + 'static> Consumer for EndpointSet<S> {
    fn close(&self, next: &Arc<Snapshot>, transitions: &[Transition]) {
        let mut state = self.lock();
        state.latest = Arc::clone(next);
        let now = self.is_timed().then(clock::now);
        for transition in transitions {
            match transition.kind {
                TransitionKind::Evicted => {
                    let Some(endpoint) = state.held(transition) else {
                        continue;
                    };
                    state.endpoints.remove(&transition.address);
                    let before = endpoint.gate.evict();
                    state.shut(next, &endpoint, before);
                    if before.in_flight() > 0 {
                        state.draining.push(Arc::downgrade(&endpoint));
                    }
                    if let Some(now) = now {
                        state.legacies.leave(&endpoint, now);
                    }
                    #[cfg(feature = "metrics")]
                    state.leaving.push(Arc::clone(&endpoint));
                    state.evicted.push(endpoint);
                }
                TransitionKind::Closed => {
                    let Some(endpoint) = state.held(transition) else {
                        continue;
                    };
                    let before = endpoint.gate.close();
                    state.shut(next, &endpoint, before);
                    endpoint.take_over(next, transition);
                }
                _ => {}
            }
        }
    }

    fn reopen(&self, now: &Arc<Snapshot>, transitions: &[Transition]) {
        let mut state = self.lock();
        for transition in transitions {
            let opened = match transition.kind {
                TransitionKind::Opened => true,
                TransitionKind::Updated => false,
                _ => continue,
            };
            let Some(endpoint) = state.held(transition) else {
                continue;
            };
            endpoint.take_over(now, transition);
            if opened {
                state.entering.retain(|(_, e)| !Arc::ptr_eq(e, &endpoint));
                endpoint.gate.reopen();
                if endpoint.gate.state().offers_probe() {
                    self.hub.probes.store(true, Ordering::Release);
                }
            }
            if self.hub.has_janitor() {
                state.updated.push(Arc::clone(&endpoint));
            }
            state.touched.push(endpoint);
        }
    }

    fn wake(&self) {
        let touched = mem::take(&mut self.lock().touched);
        self.publish_membership();
        for endpoint in &touched {
            endpoint.wakers().wake_all();
        }
        self.waiters.wake_all();
        self.hub.notify_janitor();
    }

    fn quiet(&self) -> Revision {
        let mut state = self.lock();
        state
            .entering
            .retain(|(_, endpoint)| endpoint.gate.state().entering() > 0);
        let first = state.entering.iter().map(|(revision, _)| *revision).min();
        match first {
            Some(Revision(noisy)) => Revision(noisy.saturating_sub(1)),
            None => state.latest.revision(),
        }
    }
}

impl<S> Endpoint<S> {
    fn take_over(&self, snapshot: &Snapshot, transition: &Transition) {
        let entry = transition.entry.and_then(|at| snapshot.entries().get(at));
        if let Some(entry) = entry {
            self.update(entry.instance());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, Weak};

    use super::*;
    use crate::{
        directory,
        endpoint::{choice::Picked, health::rules::Outliers, tried::Tried},
        model::{Address, Instance, ServiceKey},
    };

    /// Looks between the closing of others' gates and the publication.
    struct Between {
        set: Weak<EndpointSet<()>>,
        allowed: Address,
        found: Mutex<Vec<bool>>,
    }

    impl Consumer for Between {
        fn close(&self, _: &Arc<Snapshot>, _: &[Transition]) {
            let set = self.set.upgrade().unwrap();
            let picked = set.pick(&Tried::default(), |e| e.address() == self.allowed);
            let found = matches!(picked, Picked::Place(_));
            self.found.lock().unwrap().push(found);
        }

        fn reopen(&self, _: &Arc<Snapshot>, _: &[Transition]) {}

        fn wake(&self) {}

        fn quiet(&self) -> Revision {
            Revision(u64::MAX)
        }
    }

    /// The last that can be called is let back in though it answers badly: also for a request that
    /// looks while another is being evicted, and that may not use that one.
    #[test]
    fn a_publication_is_seen_whole() {
        let key = ServiceKey::new("", "orders".parse().unwrap()).unwrap();
        let (mut writer, orders) = directory::channel(key.clone(), directory::Options::default());
        let [bad, leaving] = ["10.0.0.1:80", "10.0.0.2:80"].map(|a| Instance::parse(a).unwrap());
        let now = || clock::now().into_std();
        writer.publish([bad.clone(), leaving], now());
        let attached = orders
            .attach(|snapshot, quiet| EndpointSet::<()>::open(key, snapshot, quiet, None, true));
        let set = attached.consumer();
        set.settings().judge_outcomes(Outliers::new());
        let _ = set.roster(true);
        let outlier = set.find_endpoint(bad.address()).unwrap();
        set.condemn(&outlier, false, "it answers badly");
        assert!(!outlier.gate.state().is_open());
        let _ = set.roster(true); // so that no look makes another
        let between = orders.attach(|_, _| {
            Arc::new(Between {
                set: Arc::downgrade(set),
                allowed: bad.address().clone(),
                found: Mutex::default(),
            })
        });
        writer.publish([bad], now());
        assert_eq!(*between.consumer().found.lock().unwrap(), [true]);
    }
}
