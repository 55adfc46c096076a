use std::{
    fmt,
    sync::{Arc, Weak},
};

use crate::{
    directory::{Attached, Subscription},
    endpoint::{Endpoint, EndpointSet, MakeEndpoint, Outcome, Verdict, ejection, probes::Prober},
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
        let prober: Weak<dyn Prober> = Arc::<_>::downgrade(&make) as Weak<dyn Prober>;
        attached.consumer().probe_by(prober);
        let maker: Arc<dyn MakeEndpoint<Service = S>> = Arc::clone(&make) as _;
        attached.consumer().make_by(Arc::downgrade(&maker));
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

    /// A call failed. `probe` says whether it was one, `outcome` what its failing means if the
    /// instance could be reached.
    pub(crate) fn judged(
        &self,
        endpoint: &Arc<Endpoint<S>>,
        probe: bool,
        verdict: &Verdict,
        outcome: Outcome,
    ) {
        match verdict {
            Verdict::Reachable => self.set().answered(endpoint, probe, outcome),
            Verdict::Unreachable(reason) => self.failed(endpoint, probe, reason, false),
            Verdict::Lost(reason) => self.failed(endpoint, probe, reason, true),
        }
    }

    /// A call found that the instance cannot be reached, or lost its connection to it.
    fn failed(&self, endpoint: &Arc<Endpoint<S>>, probe: bool, reason: &str, lost: bool) {
        self.set().failed(endpoint, probe, reason, lost);
        // An instance that is only held, not listed, is held no longer.
        self.subscription().report_unreachable(
            &endpoint.address(),
            endpoint.generation(),
            ejection::now().into_std(),
        );
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
