use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    directory::Generation,
    endpoint::{ejection, latency::Timing, outliers::Outliers},
    model::Address,
};

/// Who is told what an endpoint learns outside of a call's future: the set.
pub(crate) trait Reports: Send + Sync {
    /// A response of this instance broke off in its body, for this reason.
    fn lost(&self, instance: &Address, generation: Generation, reason: &str);
}

/// Where the endpoints of one consumer report to.
pub(crate) struct Hub {
    /// Rung when a closed gate becomes quiet; the directory listens.
    pub(crate) quiet: Arc<Notify>,
    /// Rung when there is something to tidy up; the janitor listens.
    pub(crate) bell: Notify,
    /// Whether there is a janitor.
    pub(crate) tended: AtomicBool,
    /// Whether a janitor panicked, so that another would.
    pub(crate) unfit: AtomicBool,
    /// When a call is to do the janitor's work, for want of one: in ms since the epoch.
    due: AtomicU64,
    epoch: Instant,
    /// Whether a probe may be on offer.
    pub(crate) probes: AtomicBool,
    /// How calls are timed, if they are.
    pub(crate) timing: OnceLock<Timing>,
    /// Who is an outlier, if answers count.
    pub(crate) outliers: OnceLock<Outliers>,
    /// The set's version at which an outlier was spared for being one too many.
    pub(crate) spared: AtomicU64,
    /// How long after its instance's eviction a call in flight is cut, if it is.
    pub(crate) abort_after: OnceLock<Duration>,
    /// Instances that were ejected, ejected for their answers, and restored so far.
    ejections: AtomicU64,
    outlier_ejections: AtomicU64,
    restorations: AtomicU64,
    /// Set once, by the set that this is of.
    pub(crate) reports: OnceLock<Weak<dyn Reports>>,
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
            unfit: AtomicBool::new(false),
            due: AtomicU64::new(NEVER),
            epoch: ejection::now(),
            probes: AtomicBool::new(false),
            timing: OnceLock::new(),
            outliers: OnceLock::new(),
            spared: AtomicU64::new(0),
            abort_after: OnceLock::new(),
            ejections: AtomicU64::new(0),
            outlier_ejections: AtomicU64::new(0),
            restorations: AtomicU64::new(0),
            reports: OnceLock::new(),
            after_eviction: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// An instance was ejected.
    pub(crate) fn count_ejection(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// One was for its answers.
    pub(crate) fn count_outlier(&self) {
        self.count_ejection();
        self.outlier_ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// One that had been ejected was restored.
    pub(crate) fn count_restoration(&self) {
        self.restorations.fetch_add(1, Ordering::Relaxed);
    }

    /// How many instances were ejected so far.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// How many of them for their answers.
    pub(crate) fn outlier_ejections(&self) -> u64 {
        self.outlier_ejections.load(Ordering::Relaxed)
    }

    /// How many of them were restored.
    pub(crate) fn restorations(&self) -> u64 {
        self.restorations.load(Ordering::Relaxed)
    }

    /// There is something to tidy up.
    pub(crate) fn ring(&self) {
        if !self.tended.load(Ordering::Acquire) {
            self.due.store(0, Ordering::Release);
        }
        self.bell.notify_one();
    }

    /// The janitor has gone.
    pub(crate) fn leave_untended(&self) {
        self.tended.store(false, Ordering::Release);
        self.due.store(0, Ordering::Release);
    }

    /// When there is no janitor and its work is due: now, which falls to one caller only.
    #[inline]
    pub(crate) fn take_duty(&self) -> Option<Instant> {
        let due = self.due.load(Ordering::Relaxed);
        if due == NEVER {
            return None;
        }
        let now = ejection::now();
        let mine = due <= self.ms(now) && {
            let taken = self
                .due
                .compare_exchange(due, NEVER, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        };
        mine.then_some(now)
    }

    /// Nobody but a call will do what is due then.
    pub(crate) fn put_off(&self, until: Option<Instant>) {
        if let Some(until) = until
            && !self.tended.load(Ordering::Acquire)
        {
            self.due.fetch_min(self.ms(until) + 1, Ordering::AcqRel);
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        let ms = at.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(ms).unwrap_or(NEVER).min(NEVER - 2)
    }
}

/// In the place of a time.
const NEVER: u64 = u64::MAX;
