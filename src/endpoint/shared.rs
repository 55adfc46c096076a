use std::{fmt, sync::Arc};

use crate::{
    directory::{Attached, Subscription},
    endpoint::{
        clock,
        make::MakeEndpoint,
        member::Endpoint,
        rules::{Outcome, Verdict},
        set::EndpointSet,
    },
};

/// What all calls through one consumer share: its endpoints and the rules for using them.
///
/// Users' code lives here and not in the [`EndpointSet`], which the directory may be the last to
/// let go of: when the last of these goes, everything of the users' goes with it.
pub(crate) struct Shared<S, R, C, V> {
    owner: Owner<S>,
    pub(crate) make: Arc<dyn MakeEndpoint<Service = S>>,
    pub(crate) recover: R,
    pub(crate) completion: C,
    pub(crate) classify: V,
}

struct Owner<S>(Attached<EndpointSet<S>>);

impl<S, R, C, V> Shared<S, R, C, V> {
    pub(crate) fn new(
        attached: Attached<EndpointSet<S>>,
        make: impl MakeEndpoint<Service = S>,
        recover: R,
        completion: C,
        classify: V,
    ) -> Self {
        let make = Arc::new(make);
        attached.consumer().make_by(&make);
        let _ = attached
            .consumer()
            .hub()
            .marks
            .set(attached.subscription().marks());
        Self {
            owner: Owner(attached),
            make,
            recover,
            completion,
            classify,
        }
    }

    #[inline]
    pub(crate) fn set(&self) -> &Arc<EndpointSet<S>> {
        self.owner.0.consumer()
    }

    /// What the endpoints are of.
    pub(crate) fn subscription(&self) -> &Subscription {
        self.owner.0.subscription()
    }

    /// A call failed, which was the instance's of this number. `probe` says whether it was one, `outcome`
    /// what its failing means if the instance could be reached.
    pub(crate) fn judged(
        &self,
        endpoint: &Arc<Endpoint<S>>,
        (probe, number): (bool, u32),
        verdict: &Verdict,
        outcome: Outcome,
    ) {
        let set = self.set();
        match verdict {
            Verdict::Reachable => set.failed(endpoint, probe, outcome),
            Verdict::Unreachable(reason) => {
                set.unreachable(endpoint, probe, reason);
                // An instance that is only held, not listed, is held no longer.
                self.subscription().report_unreachable(
                    &endpoint.address(),
                    endpoint.generation(),
                    clock::now().into_std(),
                );
            }
            // Whether it is gone is for the dial to say that follows.
            Verdict::Lost(reason) => set.lost(endpoint, probe, number, reason),
        }
    }
}

impl<S> Drop for Owner<S> {
    fn drop(&mut self) {
        self.0.consumer().abandon();
    }
}

impl<S, R, C, V> fmt::Debug for Shared<S, R, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.set().fmt(f)
    }
}
