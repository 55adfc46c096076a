//! Ejection for what an instance answers, not for whether it can be reached. It is capped, and
//! lifted rather than let it cost a call.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::endpoint::{Endpoint, EndpointSet, Outcome, STREAK, ejection, set::State};

/// Who is an outlier, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outliers {
    /// Failures in a row; few enough to be counted in 16 bits while many fail at once.
    pub(crate) consecutive: u16,
    /// The rest after the first ejection, and what each further one adds.
    pub(crate) base: Duration,
    pub(crate) longest: Duration,
    /// What part of the callable instances may be out so.
    pub(crate) most: f64,
    /// When a larger part is out for any reason, outliers are let back in.
    pub(crate) panic: f64,
}

impl<S> EndpointSet<S> {
    /// Has outcomes count from here on.
    pub(crate) fn watch(&self, outliers: Outliers) {
        let _ = self.hub.outliers.set(outliers);
    }

    /// An instance that could be reached has answered. `probe` says whether that was its probe.
    #[inline]
    pub(crate) fn answered(&self, endpoint: &Arc<Endpoint<S>>, probe: bool, outcome: Outcome) {
        match outcome {
            Outcome::Ignored if !probe => {}
            Outcome::Success if !probe => endpoint.end_streak(),
            _ => self.judge(endpoint, probe, outcome),
        }
    }

    fn judge(&self, endpoint: &Arc<Endpoint<S>>, probe: bool, outcome: Outcome) {
        if probe {
            let outlier = endpoint.ejection.is_outlier();
            match (outcome, self.hub.outliers.get()) {
                (Outcome::Failure, Some(rules)) if outlier => {
                    endpoint.ejection.misbehaved(ejection::now(), rules);
                    self.hub.ring();
                    return;
                }
                (Outcome::Ignored, _) if outlier => {
                    endpoint.return_probe();
                    return;
                }
                _ => self.reached(endpoint),
            }
        }
        let Some(rules) = self.hub.outliers.get() else {
            return;
        };
        let gate = endpoint.gate.state();
        if outcome != Outcome::Failure || gate.is_ejected() || gate.is_evicted() {
            return;
        }
        let streak = endpoint.calls.fetch_add(STREAK, Ordering::Relaxed) / STREAK + 1;
        if streak >= u64::from(rules.consecutive) {
            // Also if it may not be ejected: to ask that of the whole set at each call is dear.
            endpoint.end_streak();
            self.misbehaved(endpoint, rules);
        }
    }

    /// Ejects an outlier, if that is not one too many.
    fn misbehaved(&self, endpoint: &Arc<Endpoint<S>>, rules: &Outliers) {
        let version = self.version();
        if self.hub.spared.load(Ordering::Relaxed) == version {
            return; // one would have been too many, and nobody has come or gone since
        }
        {
            let mut state = self.lock();
            let (out, callable) = state.out(|_| true);
            let known = state.ejected.iter();
            let outliers = known.filter(|e| e.ejection.is_outlier()).count();
            let part = |count: usize| count as f64 / callable as f64;
            let spared = part(outliers + 1) > rules.most || part(out + 1) > rules.panic;
            if spared || out + 1 >= callable {
                self.hub.spared.store(version, Ordering::Relaxed);
                return;
            }
            if state.abandoned || !endpoint.gate.eject() {
                return;
            }
            endpoint.ejection.misbehaved(ejection::now(), rules);
            state.ejected.push(Arc::clone(endpoint));
        }
        self.hub.count_outlier();
        let service = self.service();
        tracing::info!(
            namespace = &**service.namespace(),
            group = &**service.group(),
            service = &**service.name(),
            instance = %endpoint.address(),
            "an instance is ejected for its answers"
        );
        self.stir(endpoint);
    }

    /// Lets outliers back in if too many of those that `allow` says yes to are out. True if one of
    /// those is in now, though it may have been out a moment before.
    pub(crate) fn relieve(&self, allow: impl Fn(&Endpoint<S>) -> bool) -> bool {
        let Some(rules) = self.hub.outliers.get() else {
            return false;
        };
        let (lifted, some_in) = {
            let mut state = self.lock();
            let lifted = state.relieve(rules, ejection::now(), &allow);
            let (out, callable) = state.out(&allow);
            (lifted, out < callable)
        };
        for endpoint in &lifted {
            self.hub.count_restoration();
            let service = self.service();
            tracing::info!(
                namespace = &**service.namespace(),
                group = &**service.group(),
                service = &**service.name(),
                instance = %endpoint.address(),
                "too many are out: an instance that was ejected for its answers is let back in"
            );
            self.stir(endpoint);
        }
        some_in
    }
}

impl<S> State<S> {
    /// How many of the callable instances that `allow` says yes to are out, and how many there are.
    fn out(&self, allow: impl Fn(&Endpoint<S>) -> bool) -> (usize, usize) {
        let (mut out, mut others) = (0, 0);
        for endpoint in self.endpoints.values() {
            let gate = endpoint.gate.state();
            if gate.is_closed() || gate.is_evicted() {
                continue; // not callable
            }
            if allow(endpoint) {
                out += usize::from(gate.is_ejected() || gate.is_unusable());
            } else {
                others += 1;
            }
        }
        // What was never looked at is not out.
        (out, self.latest.callable_len().saturating_sub(others))
    }

    fn relieve(
        &mut self,
        rules: &Outliers,
        now: Instant,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Vec<Arc<Endpoint<S>>> {
        let mut lifted = Vec::new();
        if !self.ejected.iter().any(|e| e.ejection.is_outlier()) {
            return lifted;
        }
        let (out, callable) = self.out(&allow);
        if out as f64 <= callable as f64 * rules.panic && out < callable {
            return lifted;
        }
        self.ejected.retain(|endpoint| {
            let lift = endpoint.ejection.is_outlier() && allow(endpoint);
            if lift {
                endpoint.ejection.succeeded(now);
                endpoint.gate.restore();
                lifted.push(Arc::clone(endpoint));
            }
            !lift
        });
        lifted
    }
}

impl<S> Endpoint<S> {
    /// It did well.
    #[inline]
    fn end_streak(&self) {
        if self.calls.load(Ordering::Relaxed) >= STREAK {
            self.calls.fetch_and(STREAK - 1, Ordering::Relaxed);
        }
    }
}
