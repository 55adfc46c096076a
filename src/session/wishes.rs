//! What is wanted of servers, and no longer wanted.

use super::{
    asked::Id,
    error::OperationError,
    event::{Outcome, Ticket},
    item::Kind,
    items::Items,
    kind::Context,
    names::Watch,
    publications::Publication,
    reads::{Read, ReadRequest},
    subscriptions::{Refresh, Subscription},
    timers::Timer,
};
use crate::{
    model::{Instance, Listing, ServiceFilter, ServiceKey},
    wire::{FuzzySync, WatchedService},
};

impl Items {
    pub(super) fn subscribe(&mut self, key: ServiceKey, cx: &mut Context<'_>) {
        let id = Id::Subscription(key.clone());
        if !self.contains(&id) {
            let subscription = Kind::Subscription(Subscription::default());
            self.insert(id.clone(), subscription);
        }
        if self.subscription(&key).is_some_and(Subscription::want) {
            self.begin_anew(&id, cx);
        }
    }

    pub(super) fn unsubscribe(&mut self, key: &ServiceKey, cx: &mut Context<'_>) {
        if let Some(subscription) = self.subscription(key) {
            subscription.drop_wish();
            cx.timers.stop(&Timer::SafetyRead(key.clone()));
            self.begin_anew(&Id::Subscription(key.clone()), cx);
        }
    }

    /// Somebody needs to know what the server lists now.
    pub(super) fn refresh(&mut self, key: &ServiceKey, cx: &mut Context<'_>) {
        let Some(subscription) = self.subscription(key) else {
            return;
        };
        let id = Id::Subscription(key.clone());
        match subscription.refresh(cx.config.read_guard, cx.now) {
            Refresh::No => {}
            Refresh::Anew => self.begin_anew(&id, cx),
            Refresh::Read => self.touch(&id, cx),
        }
    }

    /// A push of a service's list on the current stream.
    pub(super) fn pushed(&mut self, key: &ServiceKey, listing: Listing, cx: &mut Context<'_>) {
        match self.subscription(key) {
            Some(subscription) => subscription.pushed(key, listing, cx),
            None => cx.counters.unwanted_pushes += 1,
        }
    }

    /// A push that cannot be read: one read of that service, or of all if nobody knows which.
    pub(super) fn push_was_unreadable(&mut self, key: Option<&ServiceKey>, cx: &mut Context<'_>) {
        let guard = cx.config.read_guard;
        let ids: Vec<Id> = match key {
            Some(key) => vec![Id::Subscription(key.clone())],
            None => self.ids().cloned().collect(),
        };
        for id in ids {
            let Id::Subscription(key) = &id else { continue };
            let subscription = self.subscription(key);
            if subscription.is_some_and(|s| s.push_was_unreadable(guard, cx.now)) {
                self.touch(&id, cx);
            }
        }
    }

    pub(super) fn begin_watch(&mut self, filter: ServiceFilter, cx: &mut Context<'_>) {
        let id = Id::Watch(filter.clone());
        if let Some(watch) = self.watch(&filter) {
            watch.want();
        } else {
            let watch = Watch::new(filter, cx.fuzzy_watch);
            self.insert(id.clone(), Kind::Watch(Box::new(watch)));
        }
        self.begin_anew(&id, cx); // also what the server refused for good
    }

    pub(super) fn end_watch(&mut self, filter: &ServiceFilter, cx: &mut Context<'_>) {
        if let Some(watch) = self.watch(filter) {
            watch.drop_wish();
            self.begin_anew(&Id::Watch(filter.clone()), cx);
        }
    }

    /// A batch of services on the current stream.
    pub(super) fn services_synced(&mut self, sync: FuzzySync, cx: &mut Context<'_>) {
        let mut watches = self.watches();
        let of_pattern = |watch: &Watch| watch.is_of(&cx.config.namespace, &sync.pattern);
        match watches.find(|(_, watch)| of_pattern(watch)) {
            Some((_, watch)) => {
                cx.counters.pushes += 1;
                watch.synced(sync, cx);
            }
            None => cx.counters.unwanted_pushes += 1,
        }
    }

    /// A service came or went, on the current stream.
    pub(super) fn service_changed(&mut self, change: &WatchedService, cx: &mut Context<'_>) {
        cx.counters.pushes += 1;
        if *change.namespace == *cx.config.namespace {
            for (_, watch) in self.watches() {
                watch.changed(change, cx);
            }
        }
    }

    /// Something of a watch cannot be read, nobody knows which.
    pub(super) fn watch_was_unreadable(&mut self, cx: &mut Context<'_>) {
        let mut ids = Vec::new();
        for (id, watch) in self.watches() {
            watch.was_unreadable(cx.now);
            ids.push(id.clone());
        }
        for id in ids {
            self.look_again(&id, cx);
        }
    }

    /// Publishes `instance`, in place of what is registered at the same address.
    pub(super) fn register(
        &mut self,
        ticket: Ticket,
        key: &ServiceKey,
        instance: Instance,
        cx: &mut Context<'_>,
    ) {
        let publication = self.publication(key);
        if let Some(registered) = publication.and_then(|p| p.elsewhere(&instance, cx.own)) {
            return cx.done(ticket, Err(OperationError::AlreadyRegistered(registered)));
        }
        self.register_batch(ticket, key, vec![instance], cx);
    }

    /// Publishes exactly these, of which there is at least one, in place of what is registered.
    pub(super) fn register_batch(
        &mut self,
        ticket: Ticket,
        key: &ServiceKey,
        instances: Vec<Instance>,
        cx: &mut Context<'_>,
    ) {
        let id = Id::Publication(key.clone());
        if !self.contains(&id) {
            let publication = Publication::new(instances.clone());
            let publication = Kind::Publication(Box::new(publication));
            self.insert(id.clone(), publication);
        }
        let Some(publication) = self.publication(key) else {
            return;
        };
        if publication.join(instances, ticket, cx.own) {
            self.begin_anew(&id, cx);
        } else {
            cx.done(ticket, Ok(Outcome::Done)); // it is so
        }
    }

    pub(super) fn deregister(&mut self, ticket: Ticket, key: &ServiceKey, cx: &mut Context<'_>) {
        if self.publication(key).is_some() {
            self.withdraw(key, Some(ticket), cx);
        } else {
            cx.done(ticket, Err(OperationError::NotRegistered));
        }
    }

    pub(super) fn withdraw(
        &mut self,
        key: &ServiceKey,
        ticket: Option<Ticket>,
        cx: &mut Context<'_>,
    ) {
        let Some(publication) = self.publication(key) else {
            return;
        };
        for ticket in publication.withdraw(ticket) {
            cx.done(ticket, Err(OperationError::Superseded));
        }
        self.begin_anew(&Id::Publication(key.clone()), cx);
    }

    pub(super) fn read(&mut self, ticket: Ticket, request: ReadRequest, cx: &mut Context<'_>) {
        let id = Id::Read(ticket);
        self.insert(id.clone(), Kind::Read(Read::new(request)));
        self.touch(&id, cx);
    }

    /// Nobody waits with `ticket` any longer. A registration stays wanted.
    pub(super) fn cancel(&mut self, ticket: Ticket, cx: &mut Context<'_>) {
        if !self.remove(&Id::Read(ticket), cx.timers) {
            for publication in self.publications() {
                publication.forget(ticket);
            }
        }
    }

    /// Nothing is wanted any longer: what stands is taken back, and who reads is told.
    pub(super) fn close(&mut self, cx: &mut Context<'_>) {
        for id in self.ids().cloned().collect::<Vec<_>>() {
            match &id {
                Id::Publication(key) => self.withdraw(key, None, cx),
                Id::Subscription(key) => self.unsubscribe(key, cx),
                Id::Watch(_) => {
                    self.remove(&id, cx.timers); // it ends with the connection
                }
                Id::Read(ticket) => {
                    self.remove(&id, cx.timers);
                    cx.done(*ticket, Err(OperationError::Closed));
                }
            }
        }
    }
}
