use std::{
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use tokio::time::Instant;

use crate::metrics::{CallMetrics, RequestMetrics};

/// What a set has told the `metrics` facade.
#[derive(Debug, Default)]
pub(super) struct Telling(Mutex<Told>);

#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) calls: CallMetrics,
    pub(super) requests: RequestMetrics,
}

impl Telling {
    /// `None` while somebody is at it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Told>> {
        match self.0.try_lock() {
            Ok(told) => Some(told),
            Err(TryLockError::Poisoned(told)) => Some(told.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to tell next although nothing changed.
pub(super) fn next(now: Instant) -> Instant {
    now + INTERVAL
}

const INTERVAL: Duration = Duration::from_secs(10);
