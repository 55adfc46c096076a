use std::{sync::OnceLock, time::Duration};

use crate::{
    endpoint::{
        health::rules::{HealthRules, Outliers},
        latency::Timing,
        limit::machine::LimitRules,
    },
    retry::{Hedge, Quantile, Retry},
};

/// What was set of one consumer's endpoints, each once, before the first call.
#[derive(Default)]
pub(crate) struct Settings {
    timing: OnceLock<Timing>,
    outliers: OnceLock<Outliers>,
    health: OnceLock<HealthRules>,
    abort_after: OnceLock<Duration>,
    tries: OnceLock<TryRules>,
    limits: OnceLock<LimitRules>,
}

/// What was set of the tries that calls have.
#[derive(Debug)]
pub(crate) struct TryRules {
    /// For how long one may last.
    pub(crate) per_try: Option<Duration>,
    pub(crate) retry: Retry,
    /// When a second one is begun beside the first.
    pub(crate) hedge: Option<Hedge>,
    /// How long answers take.
    pub(crate) usual: Quantile,
}

impl TryRules {
    /// These; without a policy that for what is late. `None` if nothing is set.
    pub(crate) fn new(
        per_try: Option<Duration>,
        retry: Option<Retry>,
        hedge: Option<Hedge>,
    ) -> Option<Self> {
        if retry.is_none() && per_try.is_none() && hedge.is_none() {
            return None;
        }
        let retry = retry.unwrap_or_else(Retry::of_the_late);
        Some(Self {
            per_try,
            retry: match per_try {
                Some(_) => retry.with_late_answers(),
                None => retry,
            },
            hedge,
            usual: Quantile::default(),
        })
    }

    /// How long the first try is waited for before a second one is begun, if one is.
    pub(crate) fn hedge_delay(&self) -> Option<Duration> {
        self.hedge.as_ref()?.delay(&self.usual)
    }
}

impl Settings {
    /// Has calls timed.
    pub(crate) fn time(&self, timing: Timing) {
        let _ = self.timing.set(timing);
    }

    /// Has outcomes count.
    pub(crate) fn judge_outcomes(&self, outliers: Outliers) {
        let _ = self.outliers.set(outliers);
    }

    /// Sets how instances are judged.
    pub(crate) fn judge_health(&self, rules: HealthRules) {
        let _ = self.health.set(rules);
    }

    /// Has calls in flight on an evicted instance cut after so long.
    pub(crate) fn abort_after(&self, after: Duration) {
        let _ = self.abort_after.set(after);
    }

    /// Sets what tries calls have.
    pub(crate) fn watch_tries(&self, rules: TryRules) {
        let _ = self.tries.set(rules);
    }

    /// Has the calls that each instance gets at once limited. Before the first endpoint is made.
    pub(crate) fn limit(&self, rules: LimitRules) {
        let _ = self.limits.set(rules);
    }

    /// How they are, if they are.
    #[inline]
    pub(crate) fn limits(&self) -> Option<LimitRules> {
        self.limits.get().copied()
    }

    /// What tries calls have, if that was set.
    #[inline]
    pub(crate) fn tries(&self) -> Option<&TryRules> {
        self.tries.get()
    }

    /// How calls are timed, if they are.
    #[inline]
    pub(crate) fn timing(&self) -> Option<&Timing> {
        self.timing.get()
    }

    /// Who is an outlier for outcomes, if those count.
    #[inline]
    pub(crate) fn outcomes(&self) -> Option<&Outliers> {
        self.outliers.get()
    }

    /// Whether calls are counted for their rates.
    #[inline]
    pub(crate) fn looks_at_rates(&self) -> bool {
        self.outliers.get().is_some_and(Outliers::looks_at_rates)
    }

    /// For how long outliers rest and how many there may be, whatever made them so.
    pub(crate) fn outliers(&self) -> &Outliers {
        self.outliers.get().unwrap_or(&DEFAULT_OUTLIERS)
    }

    /// How instances are judged.
    pub(crate) fn health(&self) -> &HealthRules {
        self.health.get().unwrap_or(&DEFAULT_HEALTH)
    }

    /// How long after its instance's eviction a call in flight is cut, if it is.
    #[inline]
    pub(crate) fn aborts_after(&self) -> Option<Duration> {
        self.abort_after.get().copied()
    }
}

static DEFAULT_OUTLIERS: Outliers = Outliers::new();
static DEFAULT_HEALTH: HealthRules = HealthRules::new();
