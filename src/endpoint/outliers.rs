//! Ejection for what an instance does with calls, not for whether it can be reached. It is capped,
//! and lifted rather than let it cost a call.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use crate::endpoint::{
    clock,
    health::{
        machine::{Event, Standing},
        rules::Outliers,
    },
    member::Endpoint,
    set::EndpointSet,
    state::State,
};
use crate::logs;

impl<S> EndpointSet<S> {
    /// Ejects an outlier, if that is not one too many.
    pub(super) fn condemn(&self, endpoint: &Arc<Endpoint<S>>, for_losses: bool) {
        let version = self.version();
        if self.hub.spared.load(Ordering::Relaxed) == version {
            return; // one would have been too many, and nobody has come or gone since
        }
        let rules = self.hub.settings.outliers();
        {
            let mut state = self.lock();
            let (out, callable) = state.out(|_| true);
            let known = state.ailing.iter();
            let outliers = known.filter(|e| e.standing() == Standing::Outlier).count();
            let part = |count: usize| count as f64 / callable as f64;
            let spared = part(outliers + 1) > rules.most || part(out + 1) > rules.panic;
            if spared || out + 1 >= callable {
                self.hub.spared.store(version, Ordering::Relaxed);
                return;
            }
            if state.abandoned || endpoint.gate.state().is_evicted() {
                return;
            }
            let effect = endpoint.note(Event::Condemned { for_losses }, clock::now());
            if effect.from == effect.to {
                return; // it was out
            }
            state.note_ailing(endpoint, true);
        }
        self.hub.count_ejection();
        self.hub.count_outlier();
        let service = self.service();
        tracing::info!(
            target: logs::BALANCE,
            client = self.client(),
            namespace = &**service.namespace(),
            group = &**service.group(),
            service = &**service.name(),
            instance = %endpoint.address(),
            cause = if for_losses { "it loses call after call" } else { "it answers badly" },
            "an instance is ejected for its answers"
        );
        self.announce(endpoint);
    }

    /// Lets outliers back in if too many of those that `allow` says yes to are out. True if one of
    /// those is in now, though it may have been out a moment before.
    pub(super) fn lift_outliers(&self, allow: impl Fn(&Endpoint<S>) -> bool) -> bool {
        let rules = self.hub.settings.outliers();
        let (lifted, some_in) = {
            let mut state = self.lock();
            let lifted = state.lift_outliers(rules, clock::now(), &allow);
            let (out, callable) = state.out(&allow);
            (lifted, out < callable)
        };
        for endpoint in &lifted {
            self.hub.count_restoration();
            let service = self.service();
            tracing::info!(
                target: logs::BALANCE,
                client = self.client(),
                namespace = &**service.namespace(),
                group = &**service.group(),
                service = &**service.name(),
                instance = %endpoint.address(),
                "too many are out: an instance that was ejected for its answers is let back in"
            );
            self.announce(endpoint);
            self.waiters.wake_all();
        }
        some_in
    }
}

impl<S> State<S> {
    fn lift_outliers(
        &mut self,
        rules: &Outliers,
        now: Instant,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Vec<Arc<Endpoint<S>>> {
        let mut lifted = Vec::new();
        let is_outlier = |endpoint: &Arc<Endpoint<S>>| endpoint.standing() == Standing::Outlier;
        if !self.ailing.iter().any(is_outlier) {
            return lifted;
        }
        let (out, callable) = self.out(&allow);
        if out as f64 <= callable as f64 * rules.panic && out < callable {
            return lifted;
        }
        for endpoint in self.ailing.iter().filter(|endpoint| allow(endpoint)) {
            let effect = endpoint.note(Event::Pardoned, now);
            if effect.from != effect.to {
                lifted.push(Arc::clone(endpoint));
            }
        }
        self.forget_recovered();
        lifted
    }
}
