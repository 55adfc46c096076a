//! When which service is written.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::{directory::Revision, model::ServiceKey};

/// A service is not written more often than that: a rollout changes its list many times a second.
const EVERY: Duration = Duration::from_secs(5);
/// What could not be written is tried again after that.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// What does not change is written again after that, so that its file is known to be fresh.
const REFRESH: Duration = Duration::from_secs(3600);

/// What is written of which service, and what is to be looked at when.
///
/// Tell it [`changed`](Self::changed) when there may be something new; take what is due, look at it,
/// and say what was [`seen`](Self::seen); if that is to be written, say when it is
/// [`done`](Self::done). So one write of a service is under way at a time, and a disk that stands
/// still costs no memory.
#[derive(Debug)]
pub(crate) struct Keeper {
    services: HashMap<ServiceKey, Kept>,
    due: BTreeSet<(Instant, ServiceKey)>,
    refresh: Duration,
}

#[derive(Debug, Default)]
struct Kept {
    written: Option<Revision>,
    /// When the last write began.
    at: Option<Instant>,
    under_way: bool,
    /// When it is looked at next.
    due: Option<Instant>,
}

/// How a service is, as it is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) revision: Revision,
    /// Whether an empty set is an answer.
    pub(crate) known: bool,
    /// Whether it is what the registry says now.
    pub(crate) fresh: bool,
    /// Whether the collapse guard holds anybody, be there a connection or not.
    pub(crate) holds: bool,
}

impl Seen {
    /// Whether it may be written. While anybody is held the file stays as it is: it has those who are,
    /// and says how old that is. Written anew by one process after the other, they would never be too old.
    const fn is_certain(&self) -> bool {
        self.known && !self.holds
    }
}

impl Keeper {
    /// `max_age` is how old a file may be to be used: what does not change is written anew well
    /// before.
    pub(crate) fn new(max_age: Duration) -> Self {
        Self {
            services: HashMap::new(),
            due: BTreeSet::new(),
            refresh: REFRESH.min(max_age / 4).max(EVERY),
        }
    }

    /// The registry told something of the service, or a caller did.
    pub(crate) fn changed(&mut self, key: &ServiceKey, now: Instant) {
        let kept = self.services.entry(key.clone()).or_default();
        let at = kept.at.map_or(now, |at| now.max(at + EVERY));
        self.look_at(key, at);
    }

    /// Nobody wants the service any more.
    pub(crate) fn forget(&mut self, key: &ServiceKey) {
        if let Some(Kept { due: Some(at), .. }) = self.services.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next service to be looked at, if one is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<ServiceKey> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        if let Some(kept) = self.services.get_mut(&key) {
            kept.due = None;
        }
        Some(key)
    }

    /// All services of which something was told, to be looked at before the end.
    pub(crate) fn all(&self) -> Vec<ServiceKey> {
        self.services.keys().cloned().collect()
    }

    /// Whether what was seen of a service is to be written now. Then it counts as under way.
    pub(crate) fn seen(&mut self, key: &ServiceKey, seen: Seen, now: Instant) -> bool {
        let Some(kept) = self.services.get_mut(key) else {
            return false;
        };
        if kept.under_way {
            return false; // it is looked at again when that is done
        }
        if !seen.is_certain() {
            self.look_at(key, now + EVERY); // it will be, by itself
            return false;
        }
        let old = kept.at.is_none_or(|at| now >= at + self.refresh);
        let write = kept.written != Some(seen.revision) || (old && seen.fresh);
        if write {
            kept.written = Some(seen.revision);
            kept.at = Some(now);
            kept.under_way = true;
        }
        if let Some(at) = kept.at.filter(|_| seen.fresh) {
            let next = at + self.refresh; // else a connection brings a list
            self.look_at(key, next);
        }
        write
    }

    /// Whether what was seen of a service is still to be written before it is seen no more. Writes are
    /// carried out in order, so one that is under way is no reason to wait.
    pub(crate) fn last_seen(&mut self, key: &ServiceKey, seen: Seen, now: Instant) -> bool {
        let Some(kept) = self.services.get_mut(key) else {
            return false;
        };
        let write = seen.is_certain() && kept.written != Some(seen.revision);
        if write {
            kept.written = Some(seen.revision);
            kept.at = Some(now);
            kept.under_way = true;
        }
        write
    }

    /// A write ended, well or not.
    pub(crate) fn done(&mut self, key: &ServiceKey, well: bool, now: Instant) {
        let Some(kept) = self.services.get_mut(key) else {
            return;
        };
        kept.under_way = false;
        if well {
            let at = kept.at.map_or(now, |at| now.max(at + EVERY));
            self.look_at(key, at); // a list may have come meanwhile
        } else {
            kept.written = None;
            if let Some(due) = kept.due.take() {
                self.due.remove(&(due, key.clone()));
            }
            self.look_at(key, now + AFTER_FAILURE);
        }
    }

    /// Looks at it at `at`, or before, if that is planned.
    fn look_at(&mut self, key: &ServiceKey, at: Instant) {
        let Some(kept) = self.services.get_mut(key) else {
            return;
        };
        match kept.due {
            Some(due) if due <= at => return,
            Some(due) => drop(self.due.remove(&(due, key.clone()))),
            None => {}
        }
        kept.due = Some(at);
        self.due.insert((at, key.clone()));
    }
}
