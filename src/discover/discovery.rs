use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use tower::{discover::Change, load::CompleteOnResponse};

use crate::{
    discover::{
        Guarded, Key,
        plan::{Given, Plan},
    },
    endpoint::{NeverRecover, Shared, Unclassified},
    sync::poll_budget,
};

/// The instances of a service as a stream of changes: a `tower::discover::Discover`.
///
/// It never ends, never fails and is `Unpin`, which balancers ask for. It is not a queue: each
/// look compares what was given out with the newest snapshot, so nothing fills up while nobody
/// looks, and flaps in between go unseen. Removals come first.
///
/// While the registry is known to list no callable instance (not in the first 3 s of a service whose first list is
/// empty, which counts as unknown), or none of them can be reached, it
/// offers one service that answers every call with
/// [`NoInstances`](crate::endpoint::CallError::NoInstances) or
/// [`AllUnreachable`](crate::endpoint::CallError::AllUnreachable) at once, since stock balancers
/// wait for ever on an empty set. After the subscription was closed the last set stays.
pub struct Discovery<S, R = NeverRecover, C = CompleteOnResponse, V = Unclassified> {
    shared: Arc<Shared<S, R, C, V>>,
    given: Given,
    plan: Plan<S>,
    /// The set's version that the plan was made at; 0 before the first.
    version: u64,
}

impl<S, R, C, V> Discovery<S, R, C, V> {
    pub(super) fn new(shared: Arc<Shared<S, R, C, V>>) -> Self {
        Self {
            shared,
            given: Given::default(),
            plan: Plan::empty(),
            version: 0,
        }
    }

    fn next_change(&mut self) -> Option<Change<Key, Guarded<S, R, C, V>>> {
        if let Some((address, generation)) = self.plan.removed.pop() {
            self.given.instances.remove(&address);
            return Some(Change::Remove(Key::instance(address, generation)));
        }
        if std::mem::take(&mut self.plan.sentinel_out) {
            self.given.sentinel = false;
            return Some(Change::Remove(Key::SENTINEL));
        }
        if let Some(endpoint) = self.plan.inserted.pop() {
            let (address, generation) = (endpoint.address(), endpoint.generation());
            self.given.instances.insert(address.clone(), generation);
            let guarded = Guarded::new(Arc::clone(&self.shared), Some(endpoint));
            return Some(Change::Insert(Key::instance(address, generation), guarded));
        }
        if std::mem::take(&mut self.plan.sentinel_in) {
            self.given.sentinel = true;
            let guarded = Guarded::new(Arc::clone(&self.shared), None);
            return Some(Change::Insert(Key::SENTINEL, guarded));
        }
        None
    }
}

impl<S, R, C, V> Stream for Discovery<S, R, C, V> {
    type Item = Result<Change<Key, Guarded<S, R, C, V>>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // Registered before the look, so that no change falls in between. No channel: tokio's
        // budget would make a queued removal look like none.
        this.shared.set().register_changed(cx.waker());
        let version = this.shared.set().version();
        if version != this.version {
            this.version = version;
            this.plan = Plan::new(&this.given, this.shared.set());
        }
        match this.next_change() {
            Some(change) => {
                // Spent and not waited for, for the same reason.
                let _ = poll_budget(cx);
                Poll::Ready(Some(Ok(change)))
            }
            None => Poll::Pending,
        }
    }
}

/// Nothing in it is pinned.
impl<S, R, C, V> Unpin for Discovery<S, R, C, V> {}

impl<S, R, C, V> fmt::Debug for Discovery<S, R, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("set", &self.shared)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}
