use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{
    asked::Id,
    event::{CallId, LinkId},
};
use crate::model::ServiceKey;

/// Everything that the session may wait for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// When to try a server again.
    Redial,
    /// When to give up the present step of an attempt.
    Step(LinkId),
    /// When to stop waiting for more names to resolve, one being known.
    ResolveGrace(LinkId),
    /// When to ask again whether the connection is registered.
    Poll(LinkId),
    /// When to look whether the current link has been silent.
    Liveness,
    /// When to leave the current link for another because it is old.
    Age,
    /// When to hang up the old link whatever the new one still lacks.
    Handover,
    /// When a unary call counts as unanswered.
    Call(CallId),
    /// When to try an item again.
    Item(Id),
    /// When to read a subscribed service that no push came for.
    SafetyRead(ServiceKey),
}

/// Which timers run, each once, by time. Each operation is O(log n).
#[derive(Debug)]
pub(crate) struct Timers<T> {
    by_time: BTreeSet<(Instant, T)>,
    running: BTreeMap<T, Instant>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            by_time: BTreeSet::new(),
            running: BTreeMap::new(),
        }
    }
}

impl<T: Clone + Ord> Timers<T> {
    /// Starts `timer`, or moves it if it runs.
    pub(crate) fn set(&mut self, timer: T, at: Instant) {
        if let Some(before) = self.running.insert(timer.clone(), at) {
            self.by_time.remove(&(before, timer.clone()));
        }
        self.by_time.insert((at, timer));
    }

    /// Stops `timer` if it runs.
    pub(crate) fn stop(&mut self, timer: &T) {
        if let Some((timer, at)) = self.running.remove_entry(timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    pub(crate) fn stop_all(&mut self) {
        self.by_time.clear();
        self.running.clear();
    }

    /// The first timer that is due at `now`, stopped.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.running.remove(&timer);
        Some(timer)
    }

    pub(crate) fn is_running(&self, timer: &T) -> bool {
        self.running.contains_key(timer)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}
