//! Ejection for what an instance does with calls, not for whether it can be reached. It is capped,
//! and lifted rather than let it cost a call.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{Arc, atomic::Ordering},
};

use tokio::time::Instant;

use crate::endpoint::{
    clock,
    crowd::Crowd,
    health::{
        machine::{Event, Standing},
        rules::Outliers,
    },
    member::Endpoint,
    rates,
    set::EndpointSet,
    state::State,
};
use crate::logs;

impl<S> EndpointSet<S> {
    /// Ejects an outlier, if that is not one too many.
    pub(super) fn condemn(&self, endpoint: &Arc<Endpoint<S>>, for_losses: bool, cause: &str) {
        let version = self.version();
        if self.hub.spared.load(Ordering::Relaxed) == version {
            return; // one would have been too many, and nobody has come or gone since
        }
        let rules = self.hub.settings.outliers();
        {
            let mut state = self.lock();
            if !state.crowd(|_| true).has_room(rules) {
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
        logs::of_service!(
            info, BALANCE, self.client(), service,
            instance = %endpoint.address(),
            cause,
            "an instance is ejected for its answers"
        );
        self.announce(endpoint);
    }

    /// Looks at how everybody's calls went, once an interval. Returns when to do so again.
    pub(super) fn judge_rates(&self, now: Instant) -> Option<Instant> {
        let rules = self.hub.settings.outcomes()?;
        if !rules.looks_at_rates() {
            return None;
        }
        let endpoints = {
            let mut state = self.lock();
            let due = *state.rates_due.get_or_insert(now + rules.interval);
            if now < due {
                return Some(due);
            }
            state.rates_due = Some(now + rules.interval);
            state.called()
        };
        let tallies: Vec<_> = endpoints.iter().map(|e| e.take_tally()).collect();
        for (at, charge) in rates::judge(&tallies, rules, comes_true) {
            if !endpoints[at].gate.state().is_ejected() {
                self.condemn(&endpoints[at], false, &charge.to_string());
            }
        }
        Some(now + rules.interval)
    }

    /// How many are out.
    pub(crate) fn crowd(&self) -> Crowd {
        self.lock().crowd(|_| true)
    }

    /// Lets outliers back in if too many of those that `allow` says yes to are out. True if one of
    /// those is in now, though it may have been out a moment before.
    pub(super) fn lift_outliers(&self, allow: impl Fn(&Endpoint<S>) -> bool) -> bool {
        let rules = self.hub.settings.outliers();
        let (panic, lifted, some_in) = {
            let mut state = self.lock();
            let crowd = state.crowd(|_| true);
            let lifted = state.lift_outliers(rules, clock::now(), &allow);
            // Not for what a single request may not use: one could ask for that again and again.
            let told = !lifted.is_empty() && crowd.is_panic(rules);
            let panics = told && state.begins_panic();
            state.settle_panic(rules);
            let left = state.crowd(&allow);
            (
                told.then_some((crowd, panics)),
                lifted,
                left.shut < left.callable,
            )
        };
        if let Some((crowd, panics)) = panic {
            self.panicked(crowd, panics, lifted.len());
        }
        for endpoint in &lifted {
            self.hub.count_restoration();
            let service = self.service();
            logs::of_service!(
                info, BALANCE, self.client(), service,
                instance = %endpoint.address(),
                "too many are out: an instance that was ejected for its answers is let back in"
            );
            self.announce(endpoint);
            self.waiters.wake_all();
        }
        some_in
    }

    fn panicked(&self, crowd: Crowd, panics: bool, lifted: usize) {
        if panics {
            self.hub.count_panic();
        }
        let service = self.service();
        logs::of_service!(
            warn,
            BALANCE,
            self.client(),
            service,
            out = crowd.out,
            callable = crowd.callable,
            lifted,
            "panic: so many instances are out that ejections for answers are lifted"
        );
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
        if !self.ailing.iter().any(is_outlier) || !self.crowd(&allow).is_panic(rules) {
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

/// Whether what has this probability comes true.
fn comes_true(probability: f64) -> bool {
    // Keys of its own at each call: enough for what is drawn a few times in an interval.
    let bits = RandomState::new().build_hasher().finish();
    ((bits >> 11) as f64) < probability * (1_u64 << 53) as f64
}
