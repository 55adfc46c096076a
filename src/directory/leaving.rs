//! Instances whose provider says, by a mark on a response, that it goes offline. The registry will
//! say so a push later, if it was told.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    directory::{Entry, Generation},
    model::Address,
};

/// How long a mark is obeyed while the registry goes on listing the instance: enough for a push that
/// comes late, and for one that is lost and made up for by the next safety read.
pub(super) const LAPSES_AFTER: Duration = Duration::from_secs(60);

/// Who said so, of which presence, and when first.
#[derive(Debug, Default)]
pub(super) struct Leaving(BTreeMap<Address, (Generation, Instant)>);

impl Leaving {
    /// Takes note. False if that is known.
    pub(super) fn begin(&mut self, entry: &Entry, now: Instant) -> bool {
        let address = entry.instance.address();
        let known = self.0.get(address);
        if known.is_some_and(|(generation, _)| *generation == entry.generation) {
            return false;
        }
        self.0.insert(address.clone(), (entry.generation, now));
        true
    }

    pub(super) fn has(&self, entry: &Entry) -> bool {
        let said = self.0.get(entry.instance.address());
        said.is_some_and(|(generation, _)| *generation == entry.generation)
    }

    /// When the next mark lapses.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let begun = self.0.values().map(|(_, at)| *at);
        begun.min()?.checked_add(LAPSES_AFTER)
    }

    /// Forgets the marks whose time is up; whether there were any.
    pub(super) fn lapse(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0
            .retain(|_, (_, at)| now.saturating_duration_since(*at) < LAPSES_AFTER);
        self.0.len() < before
    }
}
