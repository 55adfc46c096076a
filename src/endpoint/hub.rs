use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::endpoint::latency::Timing;

/// Where the endpoints of one consumer report to.
pub(crate) struct Hub {
    /// Rung when a closed gate becomes quiet; the directory listens.
    pub(crate) quiet: Arc<Notify>,
    /// Rung when there is something to tidy up; the janitor listens.
    pub(crate) bell: Notify,
    /// Whether there is a janitor.
    pub(crate) tended: AtomicBool,
    /// Whether there is something to tidy up and no janitor to do it.
    pub(crate) untidy: AtomicBool,
    /// Whether a probe may be on offer.
    pub(crate) probes: AtomicBool,
    /// How calls are timed, if they are.
    pub(crate) timing: OnceLock<Timing>,
    /// How long after its instance's eviction a call in flight is cut, if it is.
    pub(crate) abort_after: OnceLock<Duration>,
    /// Calls that were let in at an evicted gate: none, unless gates are off.
    pub(crate) after_eviction: AtomicU64,
    /// Requests that set out for another instance.
    pub(crate) moved: AtomicU64,
}

impl Hub {
    pub(crate) fn new(quiet: Arc<Notify>) -> Self {
        Self {
            quiet,
            bell: Notify::new(),
            tended: AtomicBool::new(false),
            untidy: AtomicBool::new(false),
            probes: AtomicBool::new(false),
            timing: OnceLock::new(),
            abort_after: OnceLock::new(),
            after_eviction: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// There is something to tidy up.
    pub(crate) fn ring(&self) {
        if !self.tended.load(Ordering::Acquire) {
            self.untidy.store(true, Ordering::Release);
        }
        self.bell.notify_one();
    }
}
