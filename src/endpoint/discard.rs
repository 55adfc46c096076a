use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    endpoint::{member::Endpoint, set::EndpointSet},
    logs,
};

impl<S> EndpointSet<S> {
    /// Lets go of the service of one that is called no more though it may be: its calls end, and the next,
    /// if there is one, makes another.
    pub(crate) fn let_go(&self, endpoint: &Endpoint<S>) {
        if endpoint.slot.idle().is_some() {
            self.discard(endpoint.slot.discard());
        }
    }

    /// Drops what is the users', whose panic is not ours.
    pub(super) fn discard<T>(&self, theirs: T) {
        if catch_unwind(AssertUnwindSafe(|| drop(theirs))).is_err() {
            let key = self.service();
            logs::of_service!(
                warn,
                BALANCE,
                self.client(),
                key,
                "dropping the service of an instance panicked"
            );
        }
    }
}
