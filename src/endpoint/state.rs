use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use tokio::time::Instant;

use crate::{
    directory::{Entry, Revision, Snapshot, Transition},
    endpoint::{
        checks::refused::Refusals,
        crowd::Crowd,
        gate::State as GateState,
        health::{machine::Standing, rules::Outliers},
        legacy::Legacies,
        member::Endpoint,
    },
    model::Address,
};

/// What a set keeps behind its lock.
pub(super) struct State<S> {
    /// The newest snapshot that the directory is about to publish, or has.
    pub(super) latest: Arc<Snapshot>,
    pub(super) endpoints: HashMap<Address, Arc<Endpoint<S>>>,
    /// Closed, with a call between admission and the end of `Service::call`, since that revision.
    pub(super) entering: Vec<(Revision, Arc<Endpoint<S>>)>,
    /// Changed, with tasks that may wait on them still to be woken.
    pub(super) touched: Vec<Arc<Endpoint<S>>>,
    /// With attributes that may have changed since the janitor looked.
    pub(super) updated: Vec<Arc<Endpoint<S>>>,
    /// Gone, with a service still to be dropped.
    pub(super) evicted: Vec<Arc<Endpoint<S>>>,
    /// Gone, with calls in flight when they went.
    pub(super) draining: Vec<Weak<Endpoint<S>>>,
    /// Gone, with the latency that they leave to who comes back soon; if calls are timed.
    pub(super) legacies: Legacies<S>,
    /// With a record that says that not everybody may call them, and perhaps some that have
    /// recovered.
    pub(super) ailing: Vec<Arc<Endpoint<S>>>,
    /// Gone, with calls in flight perhaps that are still to be counted.
    #[cfg(feature = "metrics")]
    pub(super) leaving: Vec<Arc<Endpoint<S>>>,
    /// Calls and failures of those that are gone for good.
    #[cfg(feature = "metrics")]
    pub(super) gone: [u64; 2],
    pub(super) last_error: Option<Arc<str>>,
    /// Whom health checks refuse, if there are any.
    pub(super) refusals: Refusals,
    /// Whether so many are out, and that was counted: outliers and refusals are let in for it one after the
    /// other, and it is one panic.
    pub(super) panicking: bool,
    /// When rates are looked at next, if they are.
    pub(super) rates_due: Option<Instant>,
    pub(super) abandoned: bool,
}

impl<S> State<S> {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            latest: snapshot,
            endpoints: HashMap::new(),
            entering: Vec::new(),
            touched: Vec::new(),
            updated: Vec::new(),
            evicted: Vec::new(),
            draining: Vec::new(),
            legacies: Legacies::default(),
            ailing: Vec::new(),
            #[cfg(feature = "metrics")]
            leaving: Vec::new(),
            #[cfg(feature = "metrics")]
            gone: [0; 2],
            last_error: None,
            refusals: Refusals::default(),
            panicking: false,
            rates_due: None,
            abandoned: false,
        }
    }

    /// Whether this instance is known to be out of reach, or cannot be used.
    pub(super) fn is_out(&self, entry: &Entry) -> bool {
        let endpoint = self.endpoint_of(entry);
        endpoint.is_some_and(|endpoint| is_out(endpoint))
    }

    /// How many of the callable instances that `allow` says yes to are out, and how many there are.
    ///
    /// As the newest snapshot has it, and not as the gates do: while that is being published some
    /// are shut that it lets in.
    pub(super) fn crowd(&self, allow: impl Fn(&Endpoint<S>) -> bool) -> Crowd {
        let mut crowd = Crowd {
            callable: 0,
            out: 0,
            outliers: 0,
            shut: 0,
        };
        for entry in self.latest.callable() {
            // What was never looked at is not out.
            match self.endpoint_of(entry) {
                None => crowd.callable += 1,
                Some(endpoint) if allow(endpoint) => {
                    crowd.callable += 1;
                    let shut = is_out(endpoint);
                    crowd.shut += usize::from(shut);
                    if shut || self.refusals.refuse(entry.generation()) {
                        crowd.out += 1;
                        let outlier = endpoint.standing() == Standing::Outlier;
                        crowd.outliers += usize::from(outlier);
                    }
                }
                Some(_) => {}
            }
        }
        crowd
    }

    /// Somebody is let in since so many are out. Whether that is to be counted: once, until they are not.
    pub(super) fn begins_panic(&mut self) -> bool {
        !std::mem::replace(&mut self.panicking, true)
    }

    /// Forgets a panic that is over.
    pub(super) fn settle_panic(&mut self, rules: &Outliers) {
        self.panicking = self.panicking && self.crowd(|_| true).is_panic(rules);
    }

    /// The callable instances, as far as they were ever looked at.
    pub(super) fn called(&self) -> Vec<Arc<Endpoint<S>>> {
        let callable = self.latest.callable();
        let called = callable.filter_map(|entry| self.endpoint_of(entry));
        called.map(Arc::clone).collect()
    }

    /// Whether all callable instances but this one are out.
    pub(super) fn is_alone(&self, endpoint: &Arc<Endpoint<S>>) -> bool {
        self.latest.callable().all(|entry| {
            let other = self.endpoint_of(entry);
            other.is_some_and(|other| Arc::ptr_eq(other, endpoint) || is_out(other))
        })
    }

    /// Notes who is not, or no longer, well; the record has the last word.
    pub(super) fn note_ailing(&mut self, endpoint: &Arc<Endpoint<S>>, ails: bool) {
        let is_it = |other: &Arc<Endpoint<S>>| Arc::ptr_eq(other, endpoint);
        if ails && !self.abandoned && !self.ailing.iter().any(is_it) {
            self.ailing.push(Arc::clone(endpoint));
        } else if !ails {
            self.ailing
                .retain(|other| !is_it(other) || ails_still(other));
            self.forget_error();
        }
    }

    /// Forgets those that have recovered or left.
    pub(super) fn forget_recovered(&mut self) {
        self.ailing
            .retain(|endpoint| ails_still(endpoint) && !endpoint.gate.state().is_evicted());
        self.forget_error();
    }

    fn forget_error(&mut self) {
        if self.ailing.is_empty() {
            self.last_error = None;
        }
    }

    /// Whether somebody may wait for what a probe finds.
    pub(super) fn awaits_probe(&self) -> bool {
        let mut ailing = self.ailing.iter();
        ailing.any(|endpoint| endpoint.health.read(|health| health.is_awaited()))
    }

    /// The endpoint that a transition is about, if one was ever made.
    pub(super) fn held(&self, transition: &Transition) -> Option<Arc<Endpoint<S>>> {
        self.endpoints
            .get(&transition.address)
            .filter(|endpoint| endpoint.generation() == transition.generation)
            .map(Arc::clone)
    }

    /// A gate was shut that had been in the state `before`.
    pub(super) fn shut(&mut self, next: &Snapshot, endpoint: &Arc<Endpoint<S>>, before: GateState) {
        // One that was shut before and is still noisy keeps the earlier revision: that one is not
        // quiet either.
        let noted = self.entering.iter().any(|(_, e)| Arc::ptr_eq(e, endpoint));
        if before.entering() > 0 && !noted {
            self.entering.push((next.revision(), Arc::clone(endpoint)));
        }
        self.touched.push(Arc::clone(endpoint));
    }

    fn endpoint_of(&self, entry: &Entry) -> Option<&Arc<Endpoint<S>>> {
        let endpoint = self.endpoints.get(entry.instance().address());
        endpoint.filter(|endpoint| endpoint.generation() == entry.generation())
    }
}

fn is_out<S>(endpoint: &Endpoint<S>) -> bool {
    let gate = endpoint.gate.state();
    gate.is_ejected() || gate.is_unusable() || gate.is_refused()
}

fn ails_still<S>(endpoint: &Endpoint<S>) -> bool {
    let gate = endpoint.gate.state();
    gate.is_ejected() || gate.is_suspect()
}
