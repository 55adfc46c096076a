use std::sync::Arc;

use crate::{
    directory::Generation,
    endpoint::{Endpoint, EndpointSet, ejection, hub::Reports},
    model::Address,
};

impl<S: Send + Sync> Reports for EndpointSet<S> {
    fn lost(&self, instance: &Address, generation: Generation, reason: &str) {
        let endpoint = self.find_endpoint(instance);
        let endpoint = endpoint.filter(|endpoint| endpoint.generation() == generation);
        if let Some(endpoint) = endpoint {
            self.failed(&endpoint, false, reason, true);
        }
    }
}

impl<S> EndpointSet<S> {
    /// A call found that the instance cannot be reached: no other call goes there until a probe
    /// succeeds. `probe` says whether the call was one, `lost` whether there was a connection, so
    /// that a probe at once has a point.
    pub(crate) fn failed(
        &self,
        endpoint: &Arc<Endpoint<S>>,
        probe: bool,
        reason: &str,
        lost: bool,
    ) {
        if endpoint.gate.state().is_evicted() {
            return; // nobody is sent there any more
        }
        let first = endpoint.gate.eject();
        if !first && !probe {
            return; // one failure told by several calls
        }
        let now = ejection::now();
        let at_once = endpoint.ejection.failed(now, lost);
        {
            let mut state = self.lock();
            let told = format!("instance {}: {reason}", endpoint.address());
            state.last_error = Some(told.into());
            if first && !state.abandoned {
                state.ejected.push(Arc::clone(endpoint));
            }
            if state.probed.is_none() && !at_once && state.all_out() {
                state.probed = Some(now); // the first probe is due one interval from here
            }
        }
        if first {
            self.hub.count_ejection();
            let service = self.service();
            tracing::info!(
                namespace = &**service.namespace(),
                group = &**service.group(),
                service = &**service.name(),
                instance = %endpoint.address(),
                cause = reason,
                "an instance cannot be reached: ejected, it gets no call until a probe succeeds"
            );
        }
        self.stir(endpoint);
        self.relieve(|_| true);
    }

    /// A probe reached the instance.
    pub(crate) fn reached(&self, endpoint: &Arc<Endpoint<S>>) {
        let restored = {
            let mut state = self.lock();
            let now = ejection::now();
            if state.all_out() {
                // Whatever it was that made all of them unreachable is over.
                for other in &state.ejected {
                    other.ejection.hurry(now);
                }
            }
            state.ejected.retain(|e| !Arc::ptr_eq(e, endpoint));
            endpoint.ejection.succeeded(now);
            let restored = endpoint.gate.state().is_ejected();
            endpoint.gate.restore();
            if state.ejected.is_empty() {
                state.last_error = None;
            }
            restored
        };
        if restored {
            self.hub.count_restoration();
            let service = self.service();
            tracing::info!(
                namespace = &**service.namespace(),
                group = &**service.group(),
                service = &**service.name(),
                instance = %endpoint.address(),
                "an ejected instance was reached: restored"
            );
        }
        self.stir(endpoint);
    }

    /// Making the instance's service panicked.
    pub(crate) fn unusable(&self, endpoint: &Arc<Endpoint<S>>) {
        endpoint.gate.unusable();
        if endpoint.slot.unusable().is_none() {
            endpoint.gate.usable(); // its attributes changed meanwhile: it is to be tried again
        }
        let service = &self.service();
        tracing::warn!(
            namespace = &**service.namespace(),
            group = &**service.group(),
            service = &**service.name(),
            instance = %endpoint.address(),
            "making the service of an instance panicked; it gets no call until its attributes change"
        );
        self.stir(endpoint);
    }

    pub(super) fn stir(&self, endpoint: &Endpoint<S>) {
        self.bump();
        endpoint.wakers().wake_all();
        self.waiters.wake_all(); // some may wait for what a probe finds
        self.hub.ring();
    }
}
