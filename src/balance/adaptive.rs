use crate::endpoint::LimitRules;

/// Limits how many calls an instance gets at once, by how long it takes to answer and what it refuses.
///
/// What an instance can do at once nobody knows beforehand, and more than that waits in a queue of its, where it
/// costs everybody time. So a limit is found for each: it grows while answers take as long as they
/// usually do, and falls when they take longer under load. An instance at its limit is passed over, as one that
/// is full; only where all are does a call wait for the first room anywhere, for which a deadline and
/// [`max_in_flight`](crate::balance::BalanceBuilder::max_in_flight) are the bounds. Nobody is ejected.
///
/// # What counts
///
/// * Calls that are not answered yet, up to the response's head: streams and bodies that follow it do not.
/// * Answers: at the end of each window (100 ms, and as many answers as there were calls at once, 10 at least) the
///   limit goes a fifth of the way to `limit × min(1, tolerance × usual ÷ average) + √limit`, the quotient ½ at
///   least; it grows only while half of it is in use. At first it doubles, until there is a sign of a queue.
/// * Refusals: 429, 503 with `Retry-After`, gRPC's RESOURCE_EXHAUSTED in the response's head;
///   [`Outcome::Overloaded`](crate::endpoint::Outcome::Overloaded) of services of one's own,
///   [`Lease::overloaded`](crate::balance::Lease::overloaded). The limit falls by half of the part that they were
///   of a window. Others are preferred for as long as an answer usually takes (10 ms to 1 s), or who refuses at
///   once would be the least loaded of all. For [`Outliers`](crate::balance::Outliers) these say nothing then,
///   neither good nor bad; without this, a 503 is a failure there.
/// * Calls that are out of time ([`per_try_timeout`](crate::balance::BalanceBuilder::per_try_timeout), a deadline
///   that is ours), or given up after three times as long as usual and 100 ms at least: as refusals, and to
///   outliers what they were before.
///
/// What is usual is measured in use: freely while less than half of the limit is in use, and under load at
/// a quarter of it, in one window of thirty. So a queue that lasts is not taken for usual, and an instance that has
/// become slower for good gets its calls back after a few of those.
///
/// # Whence
///
/// Netflix's Gradient2 (concurrency-limits) with the measuring of Envoy's adaptive concurrency filter, and
/// DCTCP's way (RFC 8257) with refusals. A gradient and not AIMD: an instance that queues says nothing until it is
/// much too late. By averages, not the least: of calls that differ, the least says nothing.
///
/// # What it costs
///
/// Two looks at the clock a call, one a pick, three numbers of the instance's to write; about 100 bytes an instance.
/// Each caller finds limits of its own: with many callers of few calls each, an instance is never full for one of
/// them. Off, it costs a look at a word.
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::AdaptiveConcurrency};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).adaptive_concurrency(AdaptiveConcurrency::new().max(100));
/// assert!(builder.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveConcurrency {
    rules: LimitRules,
}

impl AdaptiveConcurrency {
    /// With the defaults named at each option.
    pub const fn new() -> Self {
        Self {
            rules: LimitRules {
                initial: 20,
                min: 1,
                max: 1_000,
                tolerance: 1.5,
            },
        }
    }

    /// The limit of an instance that is new. Default: 20, as Netflix's.
    #[must_use]
    pub const fn initial(mut self, calls: u32) -> Self {
        self.rules.initial = calls;
        self
    }

    /// The lowest limit, 1 at least. Default: 1, since others are there to be called; Envoy has 3.
    #[must_use]
    pub const fn min(mut self, calls: u32) -> Self {
        self.rules.min = calls;
        self
    }

    /// The highest limit, 1,000,000 at most. Default: 1,000, as Envoy's.
    #[must_use]
    pub const fn max(mut self, calls: u32) -> Self {
        self.rules.max = calls;
        self
    }

    /// How many times longer than usual answers may take before that means a queue, from 1 to 100. A larger one
    /// wastes less where calls differ, and allows a longer queue. Default: 1.5, as Netflix's.
    #[must_use]
    pub const fn tolerance(mut self, times: f64) -> Self {
        self.rules.tolerance = times as f32;
        self
    }

    /// What of it cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        let LimitRules {
            initial,
            min,
            max,
            tolerance,
        } = self.rules;
        if !(1.0..=100.0).contains(&tolerance) {
            return Err(format!(
                "a tolerance of {tolerance} in adaptive_concurrency: not a number from 1 to 100"
            ));
        }
        if min == 0 || max > MOST || min > max || !(min..=max).contains(&initial) {
            return Err(format!(
                "limits from {min} to {max}, {initial} at first, in adaptive_concurrency: they have to be 1 to {MOST}, and the first between the others"
            ));
        }
        Ok(())
    }

    /// What the endpoints need of it: with the default for what cannot be meant.
    pub(super) fn rules(self) -> LimitRules {
        match self.check() {
            Ok(()) => self.rules,
            Err(_) => Self::new().rules,
        }
    }
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        Self::new()
    }
}

const MOST: u32 = 1_000_000;
