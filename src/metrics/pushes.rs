use std::time::Duration;

use ::metrics::{gauge, histogram};

use crate::{
    metrics::recorder::{Named, guarded, labels},
    model::ServiceKey,
};

pub(super) const UNAPPLIED: Named = (
    "tower_nacos_pushes_unapplied",
    "subscriptions with a push of which not every balancer is through yet",
);
pub(super) const APPLIED: Named = (
    "tower_nacos_push_to_applied_seconds",
    "from a push's last byte until no call entered what it took away",
);

/// What has been told of a service's pushes.
#[derive(Debug)]
pub(crate) struct PushMetrics {
    key: ServiceKey,
    pending: bool,
}

impl PushMetrics {
    /// Tells that there is none.
    pub(crate) fn new(key: &ServiceKey) -> Self {
        guarded(|| gauge!(UNAPPLIED.0, &labels(key)).increment(0.0));
        Self {
            key: key.clone(),
            pending: false,
        }
    }

    /// Whether one is not applied yet.
    pub(crate) fn pending(&mut self, pending: bool) {
        if pending == self.pending {
            return;
        }
        self.pending = pending;
        let more = if pending { 1.0 } else { -1.0 };
        guarded(|| gauge!(UNAPPLIED.0, &labels(&self.key)).increment(more));
    }

    /// One was, after so long.
    pub(crate) fn applied(&self, took: Duration) {
        guarded(|| histogram!(APPLIED.0, &labels(&self.key)).record(took));
    }
}

impl Drop for PushMetrics {
    fn drop(&mut self) {
        self.pending(false);
    }
}
