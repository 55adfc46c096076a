//! What is kept on disk, and what was found there. The thread behind it does the reading and writing;
//! here is decided what and when, which costs a look at a snapshot.

use std::time::Instant;

use tokio::time::timeout_at;

use super::{Driver, Service, Warning, now};
use crate::{
    cache::{Event, Found, Keeper, Problem, Seen},
    client::{
        RequestError,
        cached::{Cached, Look, look},
        start_from::OFFLINE,
    },
    directory::Subscription,
    logs,
    model::ServiceKey,
};

impl Driver {
    /// Whether no registry is ever asked.
    pub(super) fn is_offline(&self) -> bool {
        self.cached.as_ref().is_some_and(|c| !c.start_from.asks())
    }

    /// A service is subscribed for the first time: what its file has is read, also while there is a
    /// connection. A registry that has just come back lists some, and is judged by who was there.
    pub(super) fn look_up(&mut self, key: &ServiceKey, now: Instant) {
        if self.load(key) {
            self.core.await_file(key.clone(), now);
        }
    }

    /// Reads the file of a service, if files are read at all.
    pub(super) fn load(&mut self, key: &ServiceKey) -> bool {
        let reads = |cached: &&mut Cached| cached.start_from.reads();
        let cached = self.cached.as_mut().filter(reads);
        let (Some(cached), Some(service)) = (cached, self.services.get_mut(key)) else {
            return false;
        };
        cached.reads += 1;
        service.read = cached.reads;
        cached.cache.load(key.clone(), cached.reads);
        true
    }

    /// The set of a service may be another.
    pub(super) fn note_changed(&mut self, key: &ServiceKey, now: Instant) {
        let wanted = self.services.contains_key(key); // callers may report of one that is given up
        if let Some(cached) = self
            .cached
            .as_mut()
            .filter(|c| c.start_from.asks() && wanted)
        {
            cached.keeper.changed(key, now);
        }
    }

    /// Writes what is due.
    pub(super) fn keep_due(&mut self, now: Instant) {
        while let Some(key) = self.cached.as_mut().and_then(|c| c.keeper.take_due(now)) {
            if let Some(subscription) = self.subscriptions.peek(&key) {
                self.keep(&key, &subscription, Keeper::seen, now);
            }
        }
    }

    /// Writes whatever is not written yet.
    pub(super) fn keep_all(&mut self, now: Instant) {
        let all = self.cached.as_ref().map(|cached| cached.keeper.all());
        for key in all.unwrap_or_default() {
            if let Some(subscription) = self.subscriptions.peek(&key) {
                self.keep(&key, &subscription, Keeper::last_seen, now);
            }
        }
    }

    /// Nobody wants it any more; this is how it was.
    pub(super) fn keep_last(
        &mut self,
        key: &ServiceKey,
        subscription: &Subscription,
        now: Instant,
    ) {
        self.keep(key, subscription, Keeper::last_seen, now);
        if let Some(cached) = &mut self.cached {
            cached.keeper.forget(key);
        }
    }

    fn keep(
        &mut self,
        key: &ServiceKey,
        subscription: &Subscription,
        see: fn(&mut Keeper, &ServiceKey, Seen, Instant) -> bool,
        now: Instant,
    ) {
        let Some(cached) = &mut self.cached else {
            return;
        };
        let Look { seen, set, age } = look(subscription, now);
        if see(&mut cached.keeper, key, seen, now) {
            cached.cache.save(key.clone(), set, age);
        }
    }

    pub(super) fn cache_event(&mut self, event: Event) {
        let now = now();
        match event {
            Event::Loaded { key, number, found } => {
                if self.services.get(&key).is_none_or(|s| s.read != number) {
                    return; // it was given up since, and perhaps written and asked for again
                }
                match found {
                    Ok(Some(found)) => self.found(&key, found, now),
                    Ok(None) => self.not_found(&key, "the cache has no instances of it", now),
                    Err(problem) => {
                        self.warn_of_file(Warning::CacheRead, &key, &problem, now);
                        let why = format!("the cache cannot be used: {problem}");
                        self.not_found(&key, &why, now);
                    }
                }
            }
            Event::Saved { key, result } => {
                if let Some(cached) = &mut self.cached {
                    cached.keeper.done(&key, result.is_ok(), now);
                }
                if let Err(problem) = result {
                    self.warn_of_file(Warning::CacheWrite, &key, &problem, now);
                }
            }
        }
    }

    fn found(&mut self, key: &ServiceKey, found: Found, now: Instant) {
        if found.from_the_future && self.may_warn(Warning::CacheRead, now) {
            let (namespace, group, service) = (&**key.namespace(), &**key.group(), &**key.name());
            tracing::warn!(target: logs::REGISTRY, client = self.owner.name(), namespace, group, service, "the set on disk is dated in the time to come; a clock jumped? It is used all the same");
        }
        let set = (found.listing, found.age);
        self.core.file_read(key, Some(set), now);
    }

    /// What a file had was passed to the copy, which takes it if the registry has not answered.
    pub(super) fn restored(&mut self, key: &ServiceKey) {
        let waits = |service: &&mut Service| !service.answered;
        let (Some(service), Some(cached)) = (
            self.services.get_mut(key).filter(waits),
            self.cached.as_mut(),
        ) else {
            return;
        };
        cached.serves = true;
        service.waiting.clear(); // whoever waits sees it in the subscription
    }

    /// Nothing will ever come of a service, if the registry is not asked.
    fn not_found(&mut self, key: &ServiceKey, why: &str, now: Instant) {
        self.core.file_read(key, None, now);
        if !self.is_offline() {
            return;
        }
        let error = RequestError::Failed(format!("{key}: {why}, and {OFFLINE}"));
        if let Some(service) = self.services.get_mut(key) {
            service.refuse(&error);
        }
    }

    fn warn_of_file(&mut self, cause: Warning, key: &ServiceKey, problem: &Problem, now: Instant) {
        let reading = cause == Warning::CacheRead;
        if !self.may_warn(cause, now) {
            return;
        }
        let (namespace, group, service) = (&**key.namespace(), &**key.group(), &**key.name());
        let client = self.owner.name();
        if reading {
            tracing::warn!(target: logs::REGISTRY, client, namespace, group, service, cause = %problem, "a file of the cache is not used");
        } else {
            tracing::warn!(target: logs::REGISTRY, client, namespace, group, service, cause = %problem, "the cache cannot be written; a start without the registry would know an older set, or none");
        }
    }

    /// Waits until everything is written, if there is time.
    pub(super) async fn flush(&mut self) {
        self.keep_all(now());
        let until = self.closing.as_ref().map(|closing| closing.until);
        if let (Some(cached), Some(until)) = (&self.cached, until) {
            let _ = timeout_at(until.into(), cached.cache.flush()).await;
        }
    }
}
