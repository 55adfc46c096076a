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
