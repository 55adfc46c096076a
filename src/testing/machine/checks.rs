//! The server's own checks of persistent instances: it dials their ports.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// So many dials in a row have to succeed before an instance is healthy again.
const GOOD: u32 = 5;
/// A dial of which nothing is heard, since the server was stopped meanwhile, is made again.
const UNANSWERED: Duration = Duration::from_secs(5);

/// A host as it was registered, and a port.
pub(super) type At = (String, i32);

/// Every address that is looked at, once for all services.
#[derive(Debug, Default)]
pub(super) struct Checks(BTreeMap<At, Check>);

#[derive(Debug)]
struct Check {
    due: Instant,
    good: u32,
}

impl Checks {
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|check| check.due).min()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Somebody is registered there; it is dialled first at `due`, unless it is looked at already.
    pub(super) fn begin(&mut self, at: At, due: Instant) {
        self.0.entry(at).or_insert(Check { due, good: 0 });
    }

    pub(super) fn forget(&mut self, at: &At) {
        self.0.remove(at);
    }

    /// Those that are to be dialled now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<At> {
        let due = self.0.iter_mut().filter(|(_, check)| check.due <= now);
        due.map(|(at, check)| {
            check.due = now + UNANSWERED;
            at.clone()
        })
        .collect()
    }

    /// What came of a dial: whether it is healthy by that, if that is known. It is dialled again at
    /// `due`.
    pub(super) fn ended(&mut self, at: &At, accepts: bool, due: Instant) -> Option<bool> {
        let check = self.0.get_mut(at)?; // else the server was started again meanwhile
        check.due = due;
        check.good = if accepts { check.good + 1 } else { 0 };
        (!accepts || check.good >= GOOD).then_some(accepts)
    }
}
