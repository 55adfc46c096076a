use std::task::Waker;

use crate::{endpoint::set::EndpointSet, sync::Ticket};

/// A place among those who found nobody to call, and whom the set's next change may serve.
///
/// Give it back with [`leave`](Self::leave).
#[derive(Debug, Default)]
pub(crate) struct Waiter(Option<Ticket>);

impl Waiter {
    /// Has `waker` woken at the next change. Look again after this.
    pub(crate) fn register<S>(&mut self, set: &EndpointSet<S>, waker: &Waker) {
        set.waiters.register(&mut self.0, waker);
    }

    /// Waits no longer.
    #[inline]
    pub(crate) fn leave<S>(&mut self, set: &EndpointSet<S>) {
        if let Some(ticket) = self.0.take() {
            set.waiters.leave(ticket);
        }
    }

    /// Whether it waits.
    #[inline]
    pub(crate) const fn waits(&self) -> bool {
        self.0.is_some()
    }
}
