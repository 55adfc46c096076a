use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use super::names::ServiceNames;
use crate::{
    model::ServiceFilter,
    sync::{Published, Ticket, Wakers},
};

/// What the writer of one list and everybody who reads it share.
pub(super) struct Shared {
    pub(super) filter: ServiceFilter,
    names: Published<ServiceNames>,
    closed: AtomicBool,
    waiting: Wakers,
}

impl Shared {
    pub(super) fn new(filter: ServiceFilter) -> Self {
        Self {
            filter,
            names: Published::new(Arc::default()),
            closed: AtomicBool::new(false),
            waiting: Wakers::default(),
        }
    }

    pub(super) fn names(&self) -> Arc<ServiceNames> {
        self.names.load_full().unwrap_or_default()
    }

    pub(super) fn publish(&self, names: Arc<ServiceNames>) {
        self.names.store(names);
        self.waiting.wake_all();
    }

    /// Nothing is published after this.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waiting.wake_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn register(&self, ticket: &mut Option<Ticket>, waker: &Waker) {
        self.waiting.register(ticket, waker);
    }

    pub(super) fn leave(&self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            self.waiting.leave(ticket);
        }
    }
}
