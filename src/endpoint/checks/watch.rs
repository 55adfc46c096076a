use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    directory::Generation,
    endpoint::{
        checks::{
            config::HealthCheck,
            running::{Held, Registry},
        },
        set::EndpointSet,
    },
    model::Instance,
};

/// What the janitor of a set holds of the checks of its instances.
#[derive(Default)]
pub(in crate::endpoint) struct Watch {
    /// The set's membership that this is of.
    membership: u64,
    held: HashMap<Generation, Watched>,
}

struct Watched {
    /// As it was when the check was taken up: with other attributes it may be asked otherwise.
    instance: Arc<Instance>,
    check: Held,
}

impl Watch {
    /// Has the set's callable instances checked, if that was asked for, and tells the set what was found out.
    pub(in crate::endpoint) fn keep<S>(&mut self, set: &EndpointSet<S>) {
        let Some(health) = set.helpers.health_check() else {
            return;
        };
        let membership = set.membership();
        let changed = self.membership != membership;
        if changed {
            self.membership = membership;
            self.follow(set, &health);
        }
        let news = set.hub().checked.swap(false, Ordering::AcqRel);
        if !changed && !news {
            return;
        }
        let mut refused = HashMap::new();
        for (generation, watched) in &self.held {
            watched.check.attend();
            if let Some(reason) = watched.check.refused() {
                refused.insert(*generation, reason);
            }
        }
        set.heed_checks(refused);
    }

    fn follow<S>(&mut self, set: &EndpointSet<S>, health: &HealthCheck) {
        let roster = set.roster(true);
        let mut former = std::mem::take(&mut self.held);
        for endpoint in roster.endpoints() {
            let (generation, instance) = (endpoint.generation(), endpoint.instance());
            if !health.is_for(&instance) {
                continue;
            }
            let known = former.remove(&generation);
            let watched = match known {
                Some(known) if Arc::ptr_eq(&known.instance, &instance) => known,
                // The former is held until then, so that one which stays the same goes on.
                known => {
                    let registry = Registry::of_process();
                    let check = registry.hold(health, set.service(), &instance, set.hub());
                    drop(known);
                    Watched { instance, check }
                }
            };
            self.held.insert(generation, watched);
        }
    }
}
