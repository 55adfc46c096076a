//! How a service's copy begins: what a file has of it, and what the registry lists first, are brought
//! together. No I/O and no clock.
//!
//! A registry that has just come back lists some of its instances, and whoever only knows that list
//! believes it. So the first list waits for the file, which is there within a millisecond, and is then
//! judged by the rules of a reconnect: what is missing is held. The other way round a file waits for the
//! registry's first list while there is a connection, which knows better who is there.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    time::{Duration, Instant},
};

use crate::{
    model::{Listing, Origin, ServiceKey},
    session::{LinkId, Timers},
};

/// How long the one waits for the other: a hundred times what a disk or a registry needs that is well,
/// and less than a caller who waits for a first set is given (3 s).
const PATIENCE: Duration = Duration::from_millis(500);

/// The services whose copies begin.
#[derive(Debug, Default)]
pub(super) struct Starts {
    waiting: HashMap<ServiceKey, Start>,
    timers: Timers<ServiceKey>,
    steps: VecDeque<Step>,
    connected: bool,
}

/// A list that came, to be passed to its service's copy.
#[derive(Debug)]
pub(super) struct List {
    pub(super) link: LinkId,
    pub(super) key: ServiceKey,
    pub(super) listing: Listing,
    pub(super) origin: Origin,
    pub(super) received: Instant,
}

/// What a file said, `age` before `at`.
#[derive(Debug)]
pub(super) struct Kept {
    listing: Listing,
    age: Duration,
    at: Instant,
}

/// What is to be told to a copy.
#[derive(Debug)]
pub(super) enum Step {
    Restore(ServiceKey, Kept),
    List(List),
}

#[derive(Debug)]
enum Start {
    /// The file is being read, and these lists came meanwhile: the first, and the newest.
    Reading(Vec<List>),
    /// It was, and there is a connection that has brought no list yet.
    Read(Kept),
}

impl Kept {
    pub(super) fn new(listing: Listing, age: Duration, at: Instant) -> Self {
        Self { listing, age, at }
    }

    /// The set, and how old it is now.
    pub(super) fn into_set(self, now: Instant) -> (Listing, Duration) {
        let waited = now.saturating_duration_since(self.at);
        (self.listing, self.age.saturating_add(waited))
    }
}

impl Starts {
    /// The file of a service is being read.
    pub(super) fn begin(&mut self, key: ServiceKey, now: Instant) {
        self.timers.set(key.clone(), now + PATIENCE);
        self.waiting.insert(key, Start::Reading(Vec::new()));
    }

    /// Nobody wants the service any more.
    pub(super) fn end(&mut self, key: &ServiceKey) {
        self.waiting.remove(key);
        self.timers.stop(key);
    }

    /// The file was read, and said this or nothing.
    pub(super) fn read(&mut self, key: &ServiceKey, kept: Option<Kept>) {
        let lists = match self.waiting.get_mut(key) {
            Some(Start::Reading(lists)) => mem::take(lists),
            _ => Vec::new(), // it took too long: the copy takes it if nothing came
        };
        match kept {
            Some(kept) if lists.is_empty() && self.connected && self.waiting.contains_key(key) => {
                self.waiting.insert(key.clone(), Start::Read(kept));
                return;
            }
            Some(kept) => self.steps.push_back(Step::Restore(key.clone(), kept)),
            None => {}
        }
        self.steps.extend(lists.into_iter().map(Step::List));
        self.end(key);
    }

    /// A list came; given back if nothing waits for it.
    pub(super) fn listed(&mut self, list: List) -> Option<List> {
        match self.waiting.get_mut(&list.key) {
            None => return Some(list),
            Some(Start::Reading(lists)) => {
                // Each replaces the one before it.
                lists.truncate(1);
                lists.push(list);
            }
            Some(Start::Read(_)) => {
                self.give_up(&list.key);
                self.steps.push_back(Step::List(list));
            }
        }
        None
    }

    /// The registry does not say what it knows of the service.
    pub(super) fn failed(&mut self, key: &ServiceKey) {
        if matches!(self.waiting.get(key), Some(Start::Read(_))) {
            self.give_up(key);
        }
    }

    /// There is another connection: what came on the one before is nothing now.
    pub(super) fn connected(&mut self) {
        self.connected = true;
        self.drop_lists();
    }

    /// There is none: what files had serves.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.drop_lists();
        let read = self.waiting.iter();
        let read = read.filter(|(_, start)| matches!(start, Start::Read(_)));
        for key in read.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.give_up(&key);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.timers.expired(now) {
            self.give_up(&key);
        }
    }

    /// What to tell a copy next, oldest first.
    pub(super) fn take_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// What is there has waited for long enough.
    fn give_up(&mut self, key: &ServiceKey) {
        match self.waiting.remove(key) {
            Some(Start::Reading(lists)) => self.steps.extend(lists.into_iter().map(Step::List)),
            Some(Start::Read(kept)) => self.steps.push_back(Step::Restore(key.clone(), kept)),
            None => {}
        }
        self.timers.stop(key);
    }

    fn drop_lists(&mut self) {
        for start in self.waiting.values_mut() {
            if let Start::Reading(lists) = start {
                lists.clear();
            }
        }
    }
}

#[cfg(test)]
#[path = "starts_tests.rs"]
mod tests;
