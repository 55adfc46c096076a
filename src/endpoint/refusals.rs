//! What a set makes of what its instances' health checks find: who is refused gets no call, unless so many
//! are out that the checks are more likely wrong.

use std::{collections::HashMap, sync::Arc};

use crate::{
    directory::Generation,
    endpoint::{
        crowd::Crowd, health::rules::Outliers, member::Endpoint, set::EndpointSet, state::State,
    },
    logs,
};

/// What came of looking at them.
struct Settled<S> {
    changed: Vec<Changed<S>>,
    /// Too many are out, from now on.
    lifted: Option<Crowd>,
    /// Which is a panic that nobody has counted.
    panics: bool,
}

/// Who is in or out by that.
struct Changed<S> {
    endpoint: Arc<Endpoint<S>>,
    refused: Option<Arc<str>>,
}

impl<S> EndpointSet<S> {
    /// These are refused by their checks, for these reasons, and nobody else.
    pub(super) fn heed_checks(&self, reasons: HashMap<Generation, Arc<str>>) {
        self.lock().refusals.reasons = reasons;
        self.settle_refusals();
    }

    /// Nobody checks any more.
    pub(super) fn forget_checks(&self) {
        self.heed_checks(HashMap::new());
    }

    /// Keeps calls from who is refused, or lets them in again if too many are out.
    pub(super) fn settle_refusals(&self) {
        if !self.helpers.has_health_check() {
            return;
        }
        let rules = self.hub.settings.outliers();
        let settled = self.lock().settle_refusals(rules);
        let service = self.service();
        if settled.panics {
            self.hub.count_panic();
        }
        if let Some(Crowd { callable, out, .. }) = settled.lifted {
            logs::of_service!(
                warn,
                BALANCE,
                self.client(),
                service,
                out,
                callable,
                "panic: so many instances are out that what health checks refuse is called: look at the check first"
            );
        }
        for Changed { endpoint, refused } in &settled.changed {
            if refused.is_some() {
                self.hub.count_refusal();
            }
            logs::of_service!(
                info, BALANCE, self.client(), service,
                instance = %endpoint.address(),
                cause = refused.as_deref(),
                "an instance {}",
                match refused {
                    Some(_) => "is refused by its health check: it gets no call",
                    None => "that its health check refused gets calls again",
                }
            );
            self.announce(endpoint);
        }
        if !settled.changed.is_empty() {
            self.waiters.wake_all();
        }
    }

    /// Why its health check refuses an instance, if it does: obeyed or not.
    pub(crate) fn refusal(&self, generation: Generation) -> Option<Arc<str>> {
        let state = self.lock();
        state.refusals.reasons.get(&generation).map(Arc::clone)
    }

    /// Whether what checks refuse is called, since too many are out.
    pub(crate) fn lifts_refusals(&self) -> bool {
        self.lock().refusals.lifted
    }
}

impl<S> State<S> {
    fn settle_refusals(&mut self, rules: &Outliers) -> Settled<S> {
        let mut changed = Vec::new();
        if self.refusals.reasons.is_empty() && !self.refusals.in_force {
            self.refusals.lifted = false;
            self.settle_panic(rules);
            return Settled {
                changed,
                lifted: None,
                panics: false,
            };
        }
        let crowd = self.crowd(|_| true);
        let refusals = &mut self.refusals;
        let lifted = !refusals.reasons.is_empty() && crowd.is_panic(rules);
        let newly = lifted && !refusals.lifted;
        refusals.lifted = lifted;
        refusals.in_force = !lifted && !refusals.reasons.is_empty();
        for endpoint in self.endpoints.values() {
            let reason = refusals.reasons.get(&endpoint.generation());
            let refused = reason.filter(|_| !lifted);
            if endpoint.gate.state().is_refused() == refused.is_some() {
                continue;
            }
            match refused {
                Some(_) => endpoint.gate.refuse(),
                None => endpoint.gate.accept(),
            }
            changed.push(Changed {
                endpoint: Arc::clone(endpoint),
                refused: refused.map(Arc::clone),
            });
        }
        let panics = newly && self.begins_panic();
        self.settle_panic(rules);
        Settled {
            changed,
            lifted: newly.then_some(crowd),
            panics,
        }
    }
}
