use std::time::Duration;

/// What may be set of how instances are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HealthRules {
    /// While nobody can be called, an instance whose dial failed so long ago is dialled again for
    /// whoever asks.
    pub(crate) redial_after: Duration,
    /// How long a probe may take.
    pub(crate) probe_timeout: Duration,
    /// So many calls lost in a row make an outlier; 0 for never.
    pub(crate) most_lost: u16,
}

/// Who is an outlier, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outliers {
    /// Failures in a row; few enough to be counted in 15 bits while many fail at once.
    pub(crate) consecutive: u16,
    /// The rest after the first ejection, and what each further one adds.
    pub(crate) base: Duration,
    pub(crate) longest: Duration,
    /// What part of the callable instances may be out so.
    pub(crate) most: f64,
    /// When a larger part is out for any reason, outliers are let back in.
    pub(crate) panic: f64,
    /// How often rates are looked at, and how long an instance has to be in for one ejection of its to
    /// be forgotten.
    pub(crate) interval: Duration,
    pub(crate) success_rate: Option<SuccessRate>,
    pub(crate) failure_percentage: Option<FailurePercentage>,
}

/// Who succeeds less often than the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SuccessRate {
    /// How many standard deviations below the mean.
    pub(crate) deviations: f64,
    /// And by how much at least, of 1.
    pub(crate) margin: f64,
    /// With so many instances that had enough calls.
    pub(crate) instances: usize,
    /// So many are enough.
    pub(crate) calls: u32,
    /// What part of those found so is ejected.
    pub(crate) enforced: f64,
}

/// Who fails too often, whatever the others do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FailurePercentage {
    /// What part of its calls, of 1.
    pub(crate) threshold: f64,
    pub(crate) instances: usize,
    pub(crate) calls: u32,
    pub(crate) enforced: f64,
}

impl HealthRules {
    /// With the defaults: 250 ms, 5 s (a dial's 3 s and 2 s more), five.
    pub(crate) const fn new() -> Self {
        Self {
            redial_after: Duration::from_millis(250),
            probe_timeout: Duration::from_secs(5),
            most_lost: 5,
        }
    }
}

impl Outliers {
    /// With the defaults that [`balance::Outliers`](crate::balance::Outliers) names.
    pub(crate) const fn new() -> Self {
        Self {
            consecutive: 5,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            most: 0.5,
            panic: 0.5,
            interval: Duration::from_secs(10),
            success_rate: None,
            failure_percentage: None,
        }
    }

    /// Whether calls have to be counted.
    #[inline]
    pub(crate) const fn looks_at_rates(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }
}
