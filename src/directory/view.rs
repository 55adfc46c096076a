use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{
    directory::{Consumer, Snapshot, Transition, outbox::Outbox, selection::Selection},
    sync::Published,
};

/// One distinct selection of a service: its newest snapshot and who consumes it.
///
/// The writer's lock is held around everything here but [`snapshot`](Self::snapshot).
pub(super) struct View {
    pub(super) selection: Selection,
    published: Published<Snapshot>,
    consumers: Mutex<Vec<Weak<dyn Consumer>>>,
}

impl View {
    pub(super) fn new(selection: Selection, snapshot: Snapshot) -> Self {
        Self {
            selection,
            published: Published::new(Arc::new(snapshot)),
            consumers: Mutex::default(),
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full().unwrap_or_default()
    }

    pub(super) fn attach(&self, consumer: Weak<dyn Consumer>) {
        let mut consumers = self
            .consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|consumer| consumer.strong_count() > 0);
        consumers.push(consumer);
    }

    /// Those that still live. The caller drops them after it has let go of the writer's lock: the
    /// last reference to a consumer may be among them.
    pub(super) fn consumers(&self) -> Vec<Arc<dyn Consumer>> {
        let mut live = Vec::new();
        self.consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|consumer| {
                let upgraded = consumer.upgrade();
                let lives = upgraded.is_some();
                live.extend(upgraded);
                lives
            });
        live
    }

    /// Closes what must not be called in `next`, publishes it, opens what may be called.
    pub(super) fn publish(
        &self,
        next: Arc<Snapshot>,
        transitions: &[Transition],
        outbox: &mut Outbox,
    ) {
        let consumers = self.consumers();
        for consumer in &consumers {
            consumer.close(&next, transitions);
        }
        outbox
            .garbage
            .extend(self.published.swap(Some(Arc::clone(&next))));
        for consumer in &consumers {
            consumer.reopen(&next, transitions);
        }
        outbox.wake.extend(consumers);
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("selection", &self.selection)
            .finish_non_exhaustive()
    }
}
