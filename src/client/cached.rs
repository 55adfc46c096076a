//! A client's files: the thread that tends them, and what of them is to be written when.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use super::start_from::StartFrom;
use crate::cache::{Cache, Event, Keeper};

pub(super) struct Cached {
    pub(super) cache: Cache,
    pub(super) keeper: Keeper,
    pub(super) start_from: StartFrom,
    /// Whether a set that was found serves.
    pub(super) serves: bool,
}

impl Cached {
    pub(super) fn new(cache: Cache, start_from: StartFrom, max_age: Duration) -> Self {
        Self {
            cache,
            keeper: Keeper::new(max_age),
            start_from,
            serves: false,
        }
    }

    /// The next thing that became of a file; never, without files. May be dropped.
    pub(super) async fn next(cached: &mut Option<Self>) -> Event {
        match cached {
            Some(cached) => cached.cache.next().await,
            None => pending().await,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.keeper.poll_timeout()
    }
}
