//! Who is subscribed to what: one subscription a service, shared by all handles on it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::mpsc;

use super::operations::{Asker, Operation, SlotId};
use crate::{
    directory::{self, Options, Subscription, SubscriptionCounters, Writer},
    model::ServiceKey,
};

/// The subscriptions that have a handle somewhere.
#[derive(Debug)]
pub(super) struct Subscriptions {
    slots: Mutex<Slots>,
    /// What the subscriptions counted that have ended.
    past: Mutex<SubscriptionCounters>,
    options: Options,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: HashMap<ServiceKey, Slot>,
    last: SlotId,
}

#[derive(Debug)]
struct Slot {
    id: SlotId,
    /// Without a lease: it must not keep itself alive.
    subscription: Subscription,
    lease: Weak<Lease>,
}

/// Held by every handle on a service; the last one's drop tells the driver.
#[derive(Debug)]
pub(super) struct Lease {
    key: ServiceKey,
    slot: SlotId,
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
        let new_lease = |slot| {
            Arc::new(Lease {
                key: key.clone(),
                slot,
                operations: operations.clone(),
            })
        };
        let mut slots = self.lock();
        if let Some(slot) = slots.by_key.get_mut(key) {
            // A release may be on its way to the driver, which will find the slot leased again.
            let lease = slot.lease.upgrade().unwrap_or_else(|| {
                let lease = new_lease(slot.id);
                slot.lease = Arc::downgrade(&lease);
                lease
            });
            return (slot.subscription.clone().with_lease(lease), None);
        }
        let (writer, subscription) = directory::channel(key.clone(), self.options.clone());
        let (driver, reported) = (operations.downgrade(), key.clone());
        writer.on_report(move || {
            if let Some(driver) = driver.upgrade() {
                let _ = driver.send(Operation::Reported(reported.clone()));
            }
        });
        let (driver, explained) = (operations.downgrade(), key.clone());
        let pending = Arc::new(AtomicBool::new(false));
        writer.on_explain(move || {
            if !pending.swap(true, Ordering::Relaxed)
                && let Some(driver) = driver.upgrade()
            {
                let asker = Asker::Explanation(Arc::clone(&pending));
                let key = explained.clone();
                let _ = driver.send(Operation::Details { key, asker });
            }
        });
        slots.last.0 += 1;
        let id = slots.last;
        let lease = new_lease(id);
        let slot = Slot {
            id,
            subscription: subscription.clone(),
            lease: Arc::downgrade(&lease),
        };
        slots.by_key.insert(key.clone(), slot);
        (subscription.with_lease(lease), Some(writer))
    }

    /// Gives the slot up unless somebody holds it again. Returns whether it was given up.
    pub(super) fn release(&self, key: &ServiceKey, id: SlotId) -> bool {
        let mut slots = self.lock();
        let unused = slots
            .by_key
            .get(key)
            .is_some_and(|slot| slot.id == id && slot.lease.strong_count() == 0);
        if unused && let Some(slot) = slots.by_key.remove(key) {
            self.past().add(&slot.subscription.counters());
        }
        unused
    }

    /// What all subscriptions counted, present and past.
    pub(super) fn counters(&self) -> SubscriptionCounters {
        let slots = self.lock();
        let mut sum = *self.past();
        for slot in slots.by_key.values() {
            sum.add(&slot.subscription.counters());
        }
        sum
    }

    /// All subscriptions, without their leases.
    #[cfg(feature = "status")]
    pub(super) fn all(&self) -> Vec<Subscription> {
        let slots = self.lock();
        let held = slots.by_key.values();
        held.map(|slot| slot.subscription.clone()).collect()
    }

    /// The subscription of `key`, without a lease.
    pub(super) fn peek(&self, key: &ServiceKey) -> Option<Subscription> {
        Some(self.lock().by_key.get(key)?.subscription.clone())
    }

    fn past(&self) -> MutexGuard<'_, SubscriptionCounters> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let key = self.key.clone();
        let _ = self.operations.send(Operation::Release(key, self.slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instance;

    /// The driver is slow: two handles of the first subscription have come and gone before it
    /// reads the first release, and a second subscription before it reads the second.
    #[test]
    fn a_late_release_does_not_end_the_next_subscription() {
        let subscriptions = Subscriptions::new(Options::default());
        let (operations, mut driver) = mpsc::unbounded_channel();
        let key = ServiceKey::new("public", "orders".parse().unwrap()).unwrap();
        let (first, writer) = subscriptions.lease(&key, &operations);
        assert!(writer.is_some());
        drop(first);
        drop(subscriptions.lease(&key, &operations).0);
        let mut release = || match driver.try_recv() {
            Ok(Operation::Release(key, slot)) => subscriptions.release(&key, slot),
            _ => panic!("no release"),
        };
        assert!(release());
        let (second, writer) = subscriptions.lease(&key, &operations);
        assert!(writer.is_some());
        drop(second);
        assert!(!release(), "the late one");
        assert!(release(), "its own");
    }

    #[expect(clippy::disallowed_methods, reason = "an instant can only be read")]
    fn start() -> std::time::Instant {
        std::time::Instant::now()
    }

    /// And it is not what keeps the driver alive.
    #[test]
    fn what_callers_report_is_passed_on_to_the_driver() {
        let subscriptions = Subscriptions::new(Options::default());
        let (operations, mut driver) = mpsc::unbounded_channel();
        let key = ServiceKey::new("public", "orders".parse().unwrap()).unwrap();
        let (handle, writer) = subscriptions.lease(&key, &operations);
        let (mut writer, now) = (writer.unwrap(), start());
        writer.publish([Instance::parse("10.0.0.3:80").unwrap()], now);
        let listed = handle.snapshot();
        let entry = &listed.entries()[0];
        let marks = handle.marks();
        marks.going_offline(entry.instance().address(), entry.generation(), now);
        assert!(matches!(driver.try_recv(), Ok(Operation::Reported(of)) if of == key));
        drop((handle, operations));
        while driver.try_recv().is_ok() {}
        assert!(driver.is_closed());
    }
}
