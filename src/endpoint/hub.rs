use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    directory::{Generation, Marks},
    endpoint::{
        clock,
        latency::{Mark, Timing},
        settings::Settings,
    },
    model::Address,
    sync::Bell,
};

/// Where the endpoints of one consumer report to.
pub(crate) struct Hub {
    /// Rung when a closed gate becomes quiet; the directory listens.
    pub(crate) quiet: Arc<Bell>,
    /// Rung when there is work for the janitor.
    pub(crate) work: Notify,
    /// Whether there is a janitor.
    staffed: AtomicBool,
    /// Whether a janitor panicked, so that another would.
    unfit: AtomicBool,
    /// When a call is to do the janitor's work, for want of one: in ms since the epoch.
    due: AtomicU64,
    epoch: Instant,
    /// Whether a probe may be on offer.
    pub(crate) probes: AtomicBool,
    /// Whether there is news of a health check.
    pub(crate) checked: AtomicBool,
    /// What was set.
    pub(crate) settings: Settings,
    /// The set's version at which an outlier was spared for being one too many.
    pub(crate) spared: AtomicU64,
    /// Instances that were ejected, ejected as outliers, and restored so far.
    ejections: AtomicU64,
    outlier_ejections: AtomicU64,
    restorations: AtomicU64,
    /// Times that a health check took one out.
    refusals: AtomicU64,
    /// Times that outliers were let back in because too many were out.
    panics: AtomicU64,
    /// Set once, by the set that this is of.
    pub(crate) reports: OnceLock<Weak<dyn Reports>>,
    /// Set once: where marks on responses go, and what probes find.
    pub(crate) marks: OnceLock<Marks>,
    /// Calls that were let in at an evicted gate: none, unless gates are off.
    pub(crate) after_eviction: AtomicU64,
    /// Requests that set out for another instance.
    pub(crate) moved: AtomicU64,
    /// Requests that were sent again though an instance had had them.
    pub(crate) retries: AtomicU64,
    /// Those that would have been, but for the budget.
    pub(crate) over_budget: AtomicU64,
    /// Tries that were out of time.
    pub(crate) late_tries: AtomicU64,
    /// Second tries that were begun beside the first, and those that were answered first.
    pub(crate) hedges: AtomicU64,
    pub(crate) hedges_won: AtomicU64,
    /// How long calls waited for an instance, that had to.
    #[cfg(feature = "metrics")]
    pub(crate) waits: crate::metrics::Buckets,
}

/// Who is told what an endpoint learns outside of a call's future: the set.
pub(crate) trait Reports: Send + Sync {
    /// A response of this instance, to its call of this number, broke off in its body, for this reason.
    fn lost(&self, instance: &Address, generation: Generation, number: u32, reason: &str);
    /// A probe ended without having told anything.
    fn probe_given_up(&self);
}

impl Hub {
    pub(crate) fn new(quiet: Arc<Bell>) -> Self {
        Self {
            quiet,
            work: Notify::new(),
            staffed: AtomicBool::new(false),
            unfit: AtomicBool::new(false),
            due: AtomicU64::new(NEVER),
            epoch: clock::now(),
            probes: AtomicBool::new(false),
            checked: AtomicBool::new(false),
            settings: Settings::default(),
            spared: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            outlier_ejections: AtomicU64::new(0),
            restorations: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            reports: OnceLock::new(),
            marks: OnceLock::new(),
            after_eviction: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
            late_tries: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            hedges_won: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            waits: Default::default(),
        }
    }

    /// An instance was ejected.
    pub(crate) fn count_ejection(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// One was as an outlier.
    pub(crate) fn count_outlier(&self) {
        self.outlier_ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// One that had been ejected was restored.
    pub(crate) fn count_restoration(&self) {
        self.restorations.fetch_add(1, Ordering::Relaxed);
    }

    /// A health check took one out.
    pub(crate) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// How often one did.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Too many were out for ejections for answers to stand.
    pub(crate) fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was so.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// How many instances were ejected so far.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// How many of them as outliers.
    pub(crate) fn outlier_ejections(&self) -> u64 {
        self.outlier_ejections.load(Ordering::Relaxed)
    }

    /// How many of them were restored.
    pub(crate) fn restorations(&self) -> u64 {
        self.restorations.load(Ordering::Relaxed)
    }

    /// This moment, in one word.
    #[inline]
    pub(crate) fn mark(&self, now: Instant) -> Mark {
        Mark::new(self.epoch, now)
    }

    /// This moment, and how calls are timed, if they are.
    #[inline]
    pub(crate) fn timed_now(&self) -> Option<(Mark, &Timing)> {
        let timing = self.settings.timing()?;
        Some((self.mark(clock::now()), timing))
    }

    /// Whether there is a janitor.
    #[inline]
    pub(crate) fn has_janitor(&self) -> bool {
        self.staffed.load(Ordering::Acquire)
    }

    /// Whether a janitor panicked, so that another would.
    pub(crate) fn is_unfit(&self) -> bool {
        self.unfit.load(Ordering::Relaxed)
    }

    /// A janitor begins. False if there is one.
    pub(crate) fn hire(&self) -> bool {
        !self.staffed.swap(true, Ordering::AcqRel)
    }

    /// The janitor has gone, by a panic perhaps.
    pub(crate) fn dismiss(&self, panicked: bool) {
        self.unfit.fetch_or(panicked, Ordering::Relaxed);
        self.staffed.store(false, Ordering::Release);
        self.due.store(0, Ordering::Release);
    }

    /// There is work for the janitor.
    pub(crate) fn notify_janitor(&self) {
        if !self.has_janitor() {
            self.due.store(0, Ordering::Release);
        }
        self.work.notify_one();
    }

    /// When there is no janitor and its work is due: now, which falls to one caller only.
    #[inline]
    pub(crate) fn take_duty(&self) -> Option<Instant> {
        let due = self.due.load(Ordering::Relaxed);
        if due == NEVER {
            return None;
        }
        let now = clock::now();
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
            && !self.has_janitor()
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
