use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{endpoint::set::EndpointSet, logs};

impl<S> EndpointSet<S> {
    /// Drops what is the users', whose panic is not ours.
    pub(super) fn discard<T>(&self, theirs: T) {
        if catch_unwind(AssertUnwindSafe(|| drop(theirs))).is_err() {
            let key = self.service();
            tracing::warn!(
                target: logs::BALANCE,
                client = self.client(),
                namespace = &**key.namespace(),
                group = &**key.group(),
                service = &**key.name(),
                "dropping the service of an instance panicked"
            );
        }
    }
}
