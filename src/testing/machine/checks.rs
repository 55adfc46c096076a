//! The server's own checks of persistent instances: it dials their ports.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// So many dials in a row have to succeed before an instance is healthy again, and so many to fail.
const GOOD: u32 = 5;

/// A dial of which nothing is heard, since the server was stopped meanwhile, is made again.
const UNANSWERED: Duration = Duration::from_secs(5);

/// Every address that is looked at, once for all services.
#[derive(Debug, Default)]
pub(super) struct Checks(BTreeMap<(String, i32), Check>);

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

    /// The first look at an address, unless it is looked at already.
    pub(super) fn begin(&mut self, ip: &str, port: i32, due: Instant) {
        let key = (ip.to_owned(), port);
        self.0.entry(key).or_insert(Check { due, good: 0 });
    }

    pub(super) fn end(&mut self, ip: &str, port: i32) {
        self.0.remove(&(ip.to_owned(), port));
    }

    /// Those that are due. They are dialled now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(String, i32)> {
        let due = self.0.iter_mut().filter(|(_, check)| check.due <= now);
        due.map(|(key, check)| {
            check.due = now + UNANSWERED;
            key.clone()
        })
        .collect()
    }

    /// What came of a dial, the next being due then: whether the address counts as healthy or not from
    /// now on; `None` if that is not decided, or nobody looks at it any more.
    pub(super) fn answered(
        &mut self,
        ip: &str,
        port: i32,
        accepts: bool,
        due: Instant,
    ) -> Option<bool> {
        let check = self.0.get_mut(&(ip.to_owned(), port))?;
        check.due = due;
        check.good = if accepts { check.good + 1 } else { 0 };
        (!accepts || check.good >= GOOD).then_some(accepts)
    }
}
