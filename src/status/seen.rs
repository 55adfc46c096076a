//! What was found the last time somebody looked, for any number of pages to read.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use super::{
    clock::{Moment, rfc3339},
    model::{Event, Registry},
};
use crate::{
    balance::Looked,
    directory::{Revision, Status, Subscription},
    model::Origin,
};

/// All of it.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) version: u64,
    pub(super) registries: Vec<RegistrySeen>,
    /// Sorted by registry, group and name.
    pub(super) services: Vec<Arc<ServiceSeen>>,
    /// The newest first.
    pub(super) timeline: Arc<[Event]>,
}

#[derive(Clone)]
pub(super) struct RegistrySeen {
    /// But for how long it has been so.
    pub(super) shown: Registry,
    pub(super) since: Instant,
}

/// A service, and who picks from it. Keeps neither.
pub(super) struct ServiceSeen {
    pub(super) registry: usize,
    pub(super) subscription: Subscription,
    pub(super) consumers: Vec<ConsumerSeen>,
    pub(super) glance: Glance,
}

#[derive(Clone)]
pub(super) struct ConsumerSeen {
    pub(super) name: String,
    pub(super) looked: Weak<dyn Looked>,
}

/// What can only be read under a service's lock.
#[derive(Clone, Copy)]
pub(super) struct Glance {
    pub(super) status: Status,
    pub(super) heard_at: Option<Instant>,
    pub(super) origin: Option<Origin>,
    pub(super) applied: Revision,
}

impl Glance {
    pub(super) fn of(subscription: &Subscription, now: Moment) -> Self {
        let age = subscription.age(now.instant);
        Self {
            status: subscription.status(),
            heard_at: age.and_then(|age| now.instant.checked_sub(age)),
            origin: subscription.origin(),
            applied: subscription.applied_revision(),
        }
    }
}

impl RegistrySeen {
    pub(super) fn shown(&self, now: Moment) -> Registry {
        Registry {
            since: rfc3339(now.wall_at(self.since)),
            for_ms: now.since(self.since).as_millis() as u64,
            ..self.shown.clone()
        }
    }
}
