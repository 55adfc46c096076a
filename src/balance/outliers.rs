use std::time::Duration;

use crate::endpoint;

/// When an instance that can be reached but does badly gets no call for a while.
///
/// What is bad is said by the closure that goes with it, to the builder's
/// [`outliers`](crate::balance::BalanceBuilder::outliers), or by our transports; see
/// [`Outcome`](crate::endpoint::Outcome). Three rules say how much of it is too much. The first is on,
/// the others are if they are named:
///
/// | rule | whom it finds | what to know |
/// |---|---|---|
/// | [`consecutive`](Self::consecutive), 5 in a row | who does nothing well any more, within five calls | one good answer between bad ones, and it finds nobody. Where a third of all requests goes badly anywhere, five in a row come by chance once in 250 calls |
/// | [`success_rate`](Self::success_rate) | who does worse than the others: 70 % where they do 99 % | needs five instances with 100 calls in 10 s each, since of fewer nobody is far enough from the mean. Requests that go badly anywhere make all of them worse alike, and eject nobody |
/// | [`failure_percentage`](Self::failure_percentage) | who fails 85 % of its calls | of any number of instances. Looks at nobody else: requests that go badly anywhere count against each |
///
/// An instance that loses five calls in a row is an outlier, too, whether answers count or not
/// ([`max_lost`](crate::balance::BalanceBuilder::max_lost)). Calls that are lost together are lost once:
/// after one that counted, the next that does is one that began later. So a process that is killed
/// with a hundred calls in flight has failed once, as one that cannot be dialled has, and is called
/// again as soon as a dial reaches it; who breaks off whatever it is given is out after five rounds of it.
/// (Envoy counts each stream that is reset, so that five of them eject for 30 s who started again after one.)
///
/// An outlier is out for [`base`](Self::base) × *times*, [`longest`](Self::longest) at most: 30 s, then 60 s, 90 s, up
/// to 300 s. *Times* is how often it was ejected, less one for each [`interval`](Self::interval) (10 s) in which it was
/// in: one that was ejected three times and then was in for 20 s is out for 60 s at the next time. It comes back by a single call that goes well; if that one does not, it
/// counts as the next time. All numbers but the cap are those of Envoy's outlier detection and of
/// gRPC's (A50), where an outlier comes back by the clock alone.
///
/// # How many
///
/// Never more than half of the callable instances ([`max_ejection`](Self::max_ejection)), nor the last
/// one: when all answer badly, the fault is more likely ours or a shared one. When more than half are
/// out for any reason ([`panic_threshold`](Self::panic_threshold)), connections that cannot be had
/// included, all ejections for answers and for lost calls are lifted, and none follows: everybody
/// that can be reached is called. One WARN says so, `BalanceCounters::panics` counts it, and
/// `BalanceExplanation::panic` tells it while it lasts. To whom no connection can be had stays out all the
/// same, since a call there could only fail: that is not limited, see
/// [`classify`](crate::balance::BalanceBuilder::classify).
///
/// # What it costs
///
/// Nothing to a pick. A good answer costs one look at what is set, and one addition to a number of the
/// instance's if rates are looked at; a look at them all each 10 s.
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::{Outliers, SuccessRate}, endpoint::Outcome};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).outliers(
///     Outliers::new().success_rate(SuccessRate::new()),
///     |result: Result<&u16, &std::io::Error>| match result {
///         Ok(status) if *status < 500 => Outcome::Success,
///         _ => Outcome::Failure,
///     },
/// );
/// assert!(builder.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outliers {
    rules: endpoint::Outliers,
}

/// Ejects who succeeds less often than the others: by more than 1.9 standard deviations below the mean
/// of all, and by 5 percentage points at least.
///
/// As gRPC's A50 and Envoy's outlier detection, whose defaults these are but for the margin, which they
/// have not: of five instances of which one fails a single call in a thousand, that one is two
/// deviations below the mean.
///
/// Each interval is looked at by itself; of more than 32,768 calls in one the later count more. Only
/// instances with [`calls`](Self::calls) that were judged
/// good or bad in it take part, and nobody is ejected if they are fewer than
/// [`instances`](Self::instances). A single instance of n can be √(n − 1) deviations below the mean at
/// most: of four, 1.7.
///
/// Example: [with the rest of the rules](crate::balance::Outliers)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    rule: endpoint::SuccessRate,
}

/// Ejects who fails so many of its calls, whatever the others do: 85 %.
///
/// As gRPC's A50 and Envoy's outlier detection, whose defaults these are. Each interval is looked at by
/// itself. Take it beside [`SuccessRate`] where there are few instances, and with
/// [`instances`](Self::instances) of 2 or 3 there; the cap holds when all fail.
///
/// Example: [with the rest of the rules, where `success_rate` stands](crate::balance::Outliers)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailurePercentage {
    rule: endpoint::FailurePercentage,
}

impl Outliers {
    /// With the defaults named above.
    pub const fn new() -> Self {
        Self {
            rules: endpoint::Outliers::new(),
        }
    }

    /// How many bad outcomes in a row it takes; 5 by default, as in Envoy, since fewer may be one bad
    /// request and its retries. 0 for never, 1,000 at most.
    #[must_use]
    pub const fn consecutive(mut self, failures: u32) -> Self {
        self.rules.consecutive = if failures < 1_000 {
            failures as u16
        } else {
            1_000
        };
        self
    }

    /// Looks at success rates as well. Default: not.
    #[must_use]
    pub const fn success_rate(mut self, rule: SuccessRate) -> Self {
        self.rules.success_rate = Some(rule.rule);
        self
    }

    /// Looks at failure percentages as well. Default: not.
    #[must_use]
    pub const fn failure_percentage(mut self, rule: FailurePercentage) -> Self {
        self.rules.failure_percentage = Some(rule.rule);
        self
    }

    /// How often rates are looked at, and for how long an instance has to be in to have one ejection
    /// forgotten. 10 s by default, as in Envoy and A50: shorter intervals need more calls a second, and
    /// longer ones find out later. Brought into 100 ms to 1 h.
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.rules.interval = if interval.as_millis() < SHORTEST.as_millis() {
            SHORTEST
        } else if interval.as_millis() > LONGEST.as_millis() {
            LONGEST
        } else {
            interval
        };
        self
    }

    /// For how long an instance is out the first time, and how much longer each further time; 30 s
    /// by default.
    #[must_use]
    pub const fn base(mut self, rest: Duration) -> Self {
        self.rules.base = rest;
        self
    }

    /// For how long at most; 300 s by default.
    #[must_use]
    pub const fn longest(mut self, rest: Duration) -> Self {
        self.rules.longest = rest;
        self
    }

    /// What part of the callable instances may be out so, from 0 to 1; one may be always, unless this
    /// is 0. 0.5 by default, where Envoy and A50 say 0.1: they serve fleets, and of five instances the
    /// second that breaks would be called on.
    #[must_use]
    pub const fn max_ejection(mut self, part: f64) -> Self {
        self.rules.most = within_one(part, 0.5);
        self
    }

    /// When more than this part is out for any reason, ejections of this kind are lifted; 0.5 by
    /// default, as Envoy's panic threshold, 1 for never unless all are out.
    #[must_use]
    pub const fn panic_threshold(mut self, part: f64) -> Self {
        self.rules.panic = within_one(part, 0.5);
        self
    }

    pub(super) const fn rules(self) -> endpoint::Outliers {
        self.rules
    }
}

impl SuccessRate {
    /// With the defaults named at each option.
    pub const fn new() -> Self {
        Self {
            rule: endpoint::SuccessRate {
                deviations: 1.9,
                margin: 0.05,
                instances: 5,
                calls: 100,
                enforced: 1.0,
            },
        }
    }

    /// How many standard deviations below the mean is too few; 1.9 by default (Envoy's
    /// `success_rate_stdev_factor` of 1900). Negative numbers count as 0.
    #[must_use]
    pub const fn deviations(mut self, factor: f64) -> Self {
        self.rule.deviations = if factor.is_nan() {
            1.9
        } else if factor > 0.0 {
            factor
        } else {
            0.0
        };
        self
    }

    /// How far below the mean it has to be at least, from 0 to 1. 0.05 by default, so that a few bad
    /// requests among good instances eject nobody; 0 is A50 as it is.
    #[must_use]
    pub const fn margin(mut self, part: f64) -> Self {
        self.rule.margin = within_one(part, 0.05);
        self
    }

    /// How many instances with enough calls there have to be; 5 by default.
    #[must_use]
    pub const fn instances(mut self, least: usize) -> Self {
        self.rule.instances = least;
        self
    }

    /// How many calls in an interval are enough to judge an instance; 100 by default, 1 to 10,000.
    #[must_use]
    pub const fn calls(mut self, least: u32) -> Self {
        self.rule.calls = enough(least);
        self
    }

    /// What part of those that are found so is ejected, by chance, from 0 to 1: for bringing it in
    /// little by little. 1 by default.
    #[must_use]
    pub const fn enforced(mut self, part: f64) -> Self {
        self.rule.enforced = within_one(part, 1.0);
        self
    }
}

impl FailurePercentage {
    /// With the defaults named at each option.
    pub const fn new() -> Self {
        Self {
            rule: endpoint::FailurePercentage {
                threshold: 0.85,
                instances: 5,
                calls: 50,
                enforced: 1.0,
            },
        }
    }

    /// What part of its calls may not fail, from 0 to 1; 0.85 by default. One that reaches it is
    /// ejected. (A50's text says "greater or equal" and its algorithm "greater"; Envoy does the former.)
    #[must_use]
    pub const fn threshold(mut self, part: f64) -> Self {
        self.rule.threshold = within_one(part, 0.85);
        self
    }

    /// How many instances with enough calls there have to be; 5 by default.
    #[must_use]
    pub const fn instances(mut self, least: usize) -> Self {
        self.rule.instances = least;
        self
    }

    /// How many calls in an interval are enough to judge an instance; 50 by default, 1 to 10,000.
    #[must_use]
    pub const fn calls(mut self, least: u32) -> Self {
        self.rule.calls = enough(least);
        self
    }

    /// What part of those that are found so is ejected, by chance, from 0 to 1. 1 by default, as A50's;
    /// Envoy's is 0 until it is set.
    #[must_use]
    pub const fn enforced(mut self, part: f64) -> Self {
        self.rule.enforced = within_one(part, 1.0);
        self
    }
}

impl Default for Outliers {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self::new()
    }
}

const fn within_one(part: f64, default: f64) -> f64 {
    if part.is_nan() {
        default
    } else {
        part.clamp(0.0, 1.0)
    }
}

/// Beyond 32,768 calls an instance's counts are halved, so more than this cannot be asked for.
const fn enough(calls: u32) -> u32 {
    match calls {
        0 => 1,
        1..10_000 => calls,
        _ => 10_000,
    }
}

const LONGEST: Duration = Duration::from_secs(3_600);
const SHORTEST: Duration = Duration::from_millis(100);
