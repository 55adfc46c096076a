use std::{fmt, sync::Arc};

use crate::endpoint::{EndpointSet, MakeEndpoint};

/// What all calls through one consumer share: its endpoints and the rules for using them.
///
/// Users' code lives here and not in the [`EndpointSet`], which the directory may be the last to
/// let go of: when the last of these goes, everything of the users' goes with it.
pub(crate) struct Shared<S, R, C, V> {
    owner: Owner<S>,
    pub(crate) make: Box<dyn MakeEndpoint<Service = S>>,
    pub(crate) recover: R,
    pub(crate) completion: C,
    pub(crate) classify: V,
}

struct Owner<S>(Arc<EndpointSet<S>>);

impl<S, R, C, V> Shared<S, R, C, V> {
    pub(crate) fn new(
        set: Arc<EndpointSet<S>>,
        make: impl MakeEndpoint<Service = S>,
        recover: R,
        completion: C,
        classify: V,
    ) -> Self {
        Self {
            owner: Owner(set),
            make: Box::new(make),
            recover,
            completion,
            classify,
        }
    }

    pub(crate) const fn set(&self) -> &Arc<EndpointSet<S>> {
        &self.owner.0
    }
}

impl<S> Drop for Owner<S> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl<S, R, C, V> fmt::Debug for Shared<S, R, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.owner.0.fmt(f)
    }
}
