use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{logs, model::ServiceKey};

/// Drops what is the users', whose panic is not ours.
pub(super) fn discard<T>(client: Option<&str>, key: &ServiceKey, theirs: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(theirs))).is_err() {
        tracing::warn!(
            target: logs::BALANCE,
            client,
            namespace = &**key.namespace(),
            group = &**key.group(),
            service = &**key.name(),
            "dropping the service of an instance panicked"
        );
    }
}
