//! Who reads which list of services: one list a filter, shared by all handles on it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::mpsc;

use super::operations::{Operation, SlotId};
use crate::{
    directory::{ListWriter, Options, ServiceList, service_list},
    model::ServiceFilter,
};

/// The lists that have a handle somewhere.
#[derive(Debug)]
pub(super) struct Lists {
    slots: Mutex<Slots>,
    options: Options,
}

#[derive(Debug, Default)]
struct Slots {
    by_filter: HashMap<ServiceFilter, Slot>,
    last: SlotId,
}

#[derive(Debug)]
struct Slot {
    id: SlotId,
    /// Without a lease: it must not keep itself alive.
    list: ServiceList,
    lease: Weak<Lease>,
}

/// Held by every handle on a list; the last one's drop tells the driver.
#[derive(Debug)]
struct Lease {
    filter: ServiceFilter,
    slot: SlotId,
    operations: mpsc::UnboundedSender<Operation>,
}

impl Lists {
    pub(super) fn new(options: Options) -> Self {
        Self {
            slots: Mutex::default(),
            options,
        }
    }

    /// A handle on the list, and the writer for the driver if it is new.
    pub(super) fn lease(
        &self,
        filter: &ServiceFilter,
        operations: &mpsc::UnboundedSender<Operation>,
    ) -> (ServiceList, Option<ListWriter>) {
        let new_lease = |slot| {
            Arc::new(Lease {
                filter: filter.clone(),
                slot,
                operations: operations.clone(),
            })
        };
        let mut slots = self.lock();
        if let Some(slot) = slots.by_filter.get_mut(filter) {
            // A release may be on its way to the driver, which will find the slot leased again.
            let lease = slot.lease.upgrade().unwrap_or_else(|| {
                let lease = new_lease(slot.id);
                slot.lease = Arc::downgrade(&lease);
                lease
            });
            return (slot.list.clone().with_lease(lease), None);
        }
        let (writer, list) = service_list(filter.clone(), self.options.clone());
        slots.last.0 += 1;
        let id = slots.last;
        let lease = new_lease(id);
        let slot = Slot {
            id,
            list: list.clone(),
            lease: Arc::downgrade(&lease),
        };
        slots.by_filter.insert(filter.clone(), slot);
        (list.with_lease(lease), Some(writer))
    }

    /// Gives the slot up unless somebody holds it again. Returns whether it was given up.
    pub(super) fn release(&self, filter: &ServiceFilter, id: SlotId) -> bool {
        let mut slots = self.lock();
        let slot = slots.by_filter.get(filter);
        let unused = slot.is_some_and(|slot| slot.id == id && slot.lease.strong_count() == 0);
        if unused {
            slots.by_filter.remove(filter);
        }
        unused
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let filter = self.filter.clone();
        let _ = self.operations.send(Operation::Unwatch(filter, self.slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_release_does_not_end_the_next_list() {
        let lists = Lists::new(Options::default());
        let (operations, mut driver) = mpsc::unbounded_channel();
        let filter = ServiceFilter::group("G");
        let (first, writer) = lists.lease(&filter, &operations);
        assert!(writer.is_some());
        let (second, writer) = lists.lease(&filter, &operations);
        assert!(writer.is_none(), "one list a filter");
        drop((first, second));
        drop(lists.lease(&filter, &operations).0);
        let mut release = || match driver.try_recv() {
            Ok(Operation::Unwatch(filter, slot)) => lists.release(&filter, slot),
            _ => panic!("no release"),
        };
        assert!(release());
        let (third, writer) = lists.lease(&filter, &operations);
        assert!(writer.is_some());
        assert!(!release(), "the late one");
        drop(third);
        assert!(release(), "its own");
    }
}
