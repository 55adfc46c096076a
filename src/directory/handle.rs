use std::{any::Any, fmt, sync::Arc};

use crate::{
    directory::{Revision, Snapshot, Status, shared::Shared, view::View},
    model::ServiceKey,
};

/// What a subscription and everything made of it hold: the service's copy, the part of it that they
/// see, and the lease that keeps it up to date.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) view: Arc<View>,
    /// Only to be dropped.
    _lease: Option<Arc<dyn Any + Send + Sync>>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            view: Arc::clone(&shared.root),
            shared,
            _lease: None,
        }
    }

    pub(super) fn put_lease(&mut self, lease: Arc<dyn Any + Send + Sync>) {
        self._lease = Some(lease);
    }

    pub(super) fn key(&self) -> &ServiceKey {
        &self.shared.key
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.view.snapshot()
    }

    pub(super) fn status(&self) -> Status {
        self.shared.status()
    }

    pub(super) fn revision(&self) -> Revision {
        self.shared.revision()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("key", &self.shared.key)
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}
