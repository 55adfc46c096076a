use std::{collections::HashMap, sync::Weak};

use super::registries::Followed;
use crate::{
    balance::Looked,
    directory::Subscription,
    status::{
        observe::{HTTP, Place},
        seen::ConsumerSeen,
    },
};

/// A service that is there now.
pub(super) struct Found {
    pub(super) registry: usize,
    pub(super) subscription: Subscription,
    pub(super) consumers: Vec<ConsumerSeen>,
}

/// What is found, each service once.
#[derive(Default)]
pub(super) struct Finding {
    found: Vec<Found>,
    /// By identity.
    places: HashMap<usize, usize>,
}

impl Finding {
    pub(super) fn add_registry(&mut self, registry: &Followed) {
        for subscription in registry.subscriptions() {
            self.place(registry.number(), &subscription);
        }
    }

    pub(super) fn add(&mut self, source: &Place) {
        match source {
            Place::Registry(_) => {} // they come first, so that all of theirs are known as theirs
            Place::Service(subscription) => {
                self.place(0, subscription);
            }
            Place::Balance(name, looked) => self.add_consumer(name, looked.clone()),
            Place::Balances(balances) => {
                if let Some(balances) = balances.upgrade() {
                    balances.each(&mut |looked| self.add_consumer(HTTP, looked));
                }
            }
        }
    }

    pub(super) fn all(self) -> Vec<Found> {
        self.found
    }

    fn place(&mut self, registry: usize, subscription: &Subscription) -> usize {
        let found = &mut self.found;
        *self
            .places
            .entry(subscription.identity())
            .or_insert_with(|| {
                found.push(Found {
                    registry,
                    subscription: subscription.whole(),
                    consumers: Vec::new(),
                });
                found.len() - 1
            })
    }

    fn add_consumer(&mut self, kind: &str, looked: Weak<dyn Looked>) {
        let Some(balance) = looked.upgrade() else {
            return;
        };
        let at = self.place(0, balance.subscription());
        let consumers = &mut self.found[at].consumers;
        if consumers.iter().any(|other| other.looked.ptr_eq(&looked)) {
            return;
        }
        let is_alike = |other: &&ConsumerSeen| other.name.split(' ').next() == Some(kind);
        let name = match consumers.iter().filter(is_alike).count() {
            0 => kind.to_owned(),
            before => format!("{kind} {}", before + 1),
        };
        consumers.push(ConsumerSeen { name, looked });
    }
}
