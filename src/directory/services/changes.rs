use std::{
    cmp::Ordering,
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{list::ServiceList, names::ServiceNames};
use crate::{
    model::ServiceName,
    sync::{Ticket, poll_within_budget},
};

/// A service that a filter takes came or went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceChange {
    /// It is there.
    Added(ServiceName),
    /// It is there no longer.
    Removed(ServiceName),
}

/// The changes of a [`ServiceList`], removals first.
///
/// It begins with an [`Added`](ServiceChange::Added) for each service that is there then, and ends
/// when the client is closed, which says nothing of the services. A reader that is slower than the
/// registry gets the difference between what it saw and what is, not every state between; nothing
/// piles up, and nothing is told twice.
pub struct ServiceChanges {
    list: ServiceList,
    seen: Arc<ServiceNames>,
    pending: VecDeque<ServiceChange>,
    ticket: Option<Ticket>,
}

impl ServiceList {
    /// What changes: first every service that is there, then each that comes or goes.
    pub fn changes(&self) -> ServiceChanges {
        ServiceChanges::new(self.clone())
    }

    /// Waits until the registry has listed everything once. False if the list was closed before.
    pub(crate) async fn ready(&self) -> bool {
        let mut changes = ServiceChanges::new(self.clone());
        changes.until(|names| names.is_known()).await
    }
}

impl ServiceChange {
    /// The service that came or went.
    pub const fn service(&self) -> &ServiceName {
        match self {
            Self::Added(service) | Self::Removed(service) => service,
        }
    }
}

impl ServiceChanges {
    pub(super) fn new(list: ServiceList) -> Self {
        let seen = list.snapshot();
        Self {
            pending: seen.iter().cloned().map(ServiceChange::Added).collect(),
            list,
            seen,
            ticket: None,
        }
    }

    /// The next change; `None` after the client was closed. Cancel safe.
    pub async fn next(&mut self) -> Option<ServiceChange> {
        poll_fn(|cx| poll_within_budget(cx, |cx| self.poll_change(cx))).await
    }

    /// Waits until the newest snapshot is as wanted. False if it was closed before.
    pub(super) async fn until(&mut self, wanted: impl Fn(&ServiceNames) -> bool) -> bool {
        let mut poll = |cx: &mut Context<'_>| {
            let shared = &self.list.shared;
            shared.register(&mut self.ticket, cx.waker());
            let closed = shared.is_closed(); // first: what is published comes before it
            match wanted(&shared.names()) {
                true => Poll::Ready(true),
                false if closed => Poll::Ready(false),
                false => Poll::Pending,
            }
        };
        poll_fn(|cx| poll_within_budget(cx, &mut poll)).await
    }

    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Option<ServiceChange>> {
        if let Some(change) = self.pending.pop_front() {
            return Poll::Ready(Some(change));
        }
        let shared = &self.list.shared;
        // First the waker, then the look: what is published in between wakes.
        shared.register(&mut self.ticket, cx.waker());
        let closed = shared.is_closed();
        let names = shared.names();
        if names.revision != self.seen.revision {
            self.pending.extend(between(&self.seen.names, &names.names));
            self.seen = names;
        }
        match self.pending.pop_front() {
            Some(change) => Poll::Ready(Some(change)),
            None if closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// What became of `before`, both sorted: what went, then what came.
pub(super) fn between(before: &[ServiceName], after: &[ServiceName]) -> Vec<ServiceChange> {
    let (mut changes, mut added) = (Vec::new(), Vec::new());
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.cmp(new),
        };
        let old = before.next_if(|_| order.is_le());
        let new = after.next_if(|_| order.is_ge());
        match (old, new) {
            (Some(old), None) => changes.push(ServiceChange::Removed(old.clone())),
            (None, Some(new)) => added.push(ServiceChange::Added(new.clone())),
            _ => {} // it stayed
        }
    }
    changes.append(&mut added);
    changes
}

impl Stream for ServiceChanges {
    type Item = ServiceChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ServiceChange>> {
        poll_within_budget(cx, |cx| self.poll_change(cx))
    }
}

impl Drop for ServiceChanges {
    fn drop(&mut self) {
        self.list.shared.leave(self.ticket.take());
    }
}

impl fmt::Debug for ServiceChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceChanges")
            .field("list", &self.list)
            .field("seen", &self.seen.revision)
            .finish_non_exhaustive()
    }
}
