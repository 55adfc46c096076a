use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::endpoint::{latency::Timing, outliers::Outliers};

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
    /// Who is an outlier, if answers count.
    pub(crate) outliers: OnceLock<Outliers>,
    /// How long after its instance's eviction a call in flight is cut, if it is.
    pub(crate) abort_after: OnceLock<Duration>,
    /// Instances that were ejected and restored so far.
    ejections: AtomicU64,
    restorations: AtomicU64,
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
            outliers: OnceLock::new(),
            abort_after: OnceLock::new(),
            ejections: AtomicU64::new(0),
            restorations: AtomicU64::new(0),
            after_eviction: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// An instance was ejected.
    pub(crate) fn count_ejection(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// One that had been ejected was restored.
    pub(crate) fn count_restoration(&self) {
        self.restorations.fetch_add(1, Ordering::Relaxed);
    }

    /// How many instances were ejected so far.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// How many of them were restored.
    pub(crate) fn restorations(&self) -> u64 {
        self.restorations.load(Ordering::Relaxed)
    }

    /// There is something to tidy up.
    pub(crate) fn ring(&self) {
        if !self.tended.load(Ordering::Acquire) {
            self.untidy.store(true, Ordering::Release);
        }
        self.bell.notify_one();
    }
}
