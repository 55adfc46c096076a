//! Who is subscribed to what: one subscription a service, shared by all handles on it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::mpsc;

use super::operations::Operation;
use crate::{
    directory::{self, Counters, Options, Subscription, Writer},
    model::ServiceKey,
};

/// The subscriptions that have a handle somewhere.
#[derive(Debug)]
pub(super) struct Subscriptions {
    slots: Mutex<HashMap<ServiceKey, Slot>>,
    /// What the subscriptions counted that have ended.
    past: Mutex<Counters>,
    options: Options,
}

#[derive(Debug)]
struct Slot {
    /// Without a lease: it must not keep itself alive.
    subscription: Subscription,
    lease: Weak<Lease>,
}

/// Held by every handle on a service; the last one's drop tells the driver.
#[derive(Debug)]
pub(super) struct Lease {
    key: ServiceKey,
    operations: mpsc::UnboundedSender<Operation>,
}

impl Subscriptions {
    pub(super) fn new(options: Options) -> Self {
        Self {
            slots: Mutex::default(),
            past: Mutex::default(),
            options,
        }
    }

    /// A handle on `key`, and the writer for the driver if the service is new.
    pub(super) fn lease(
        &self,
        key: &ServiceKey,
        operations: &mpsc::UnboundedSender<Operation>,
    ) -> (Subscription, Option<Writer>) {
        let new_lease = || {
            Arc::new(Lease {
                key: key.clone(),
                operations: operations.clone(),
            })
        };
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(key) {
            // A release may be on its way to the driver, which will find the slot leased again.
            let lease = slot.lease.upgrade().unwrap_or_else(|| {
                let lease = new_lease();
                slot.lease = Arc::downgrade(&lease);
                lease
            });
            return (slot.subscription.clone().with_lease(lease), None);
        }
        let (writer, subscription) = directory::channel(key.clone(), self.options.clone());
        let lease = new_lease();
        let slot = Slot {
            subscription: subscription.clone(),
            lease: Arc::downgrade(&lease),
        };
        slots.insert(key.clone(), slot);
        (subscription.with_lease(lease), Some(writer))
    }

    /// Gives the slot up unless somebody holds it again. Returns whether it was given up.
    pub(super) fn release(&self, key: &ServiceKey) -> bool {
        let mut slots = self.lock();
        let unused = slots
            .get(key)
            .is_some_and(|slot| slot.lease.strong_count() == 0);
        if unused && let Some(slot) = slots.remove(key) {
            self.past().add(&slot.subscription.counters());
        }
        unused
    }

    /// What all subscriptions counted, present and past.
    pub(super) fn counters(&self) -> Counters {
        let slots = self.lock();
        let mut sum = *self.past();
        for slot in slots.values() {
            sum.add(&slot.subscription.counters());
        }
        sum
    }

    /// The subscription of `key`, without a lease.
    pub(super) fn peek(&self, key: &ServiceKey) -> Option<Subscription> {
        Some(self.lock().get(key)?.subscription.clone())
    }

    fn past(&self) -> MutexGuard<'_, Counters> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceKey, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.operations.send(Operation::Release(self.key.clone()));
    }
}
