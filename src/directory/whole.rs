//! What the status page asks of a subscription beside what everybody sees.

use std::sync::Arc;

use crate::directory::Subscription;

impl Subscription {
    /// All of the service, whatever this one selects, and without what keeps it subscribed: it closes when
    /// the last subscription of others goes.
    pub(crate) fn whole(&self) -> Self {
        Self::new(Arc::clone(&self.handle.shared))
    }

    /// The same for all that are of one copy, as long as one lives.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.handle.shared).addr()
    }
}
