use std::time::Duration;

use crate::balance::{Alias, Candidate, Loads, PickContext, Policy, Random, Timing, p2c::best};

/// Of two instances drawn by weight, the one with the lower expected cost: smoothed latency times
/// calls in flight (the one to come included), divided by the weight. Where latencies differ by less
/// than a factor of two, which is noise, the calls in flight for the weight decide alone, and of
/// equals the first: so equal instances have equal shares, and small weights theirs, also when they
/// are called one at a time.
///
/// Reacts to a slow instance with the first slow answer, and forgets over 10 s (Finagle's "Peak
/// EWMA"). Costs two looks at the clock a call. The latency is the time to the response, to its head
/// for HTTP and gRPC: how long a body or a stream goes on is no latency, though the call counts as
/// in flight until the balancer's `completion` says that it has ended. A [`Lease`]'s is from the pick
/// to the failure's report or the drop.
///
/// What counts as an answer is every response, whatever it says (a 503 that comes fast is fast: leave such an
/// instance out by [`outliers`](crate::balance::BalanceBuilder::outliers)). An error of the service counts for
/// [`penalty`](Self::penalty) at least, so that failing fast is not being fast.
///
/// Who has not answered yet, or not lately, is taken for a little less than what calls to all
/// instances took of late. So a new instance gets its part, and one that was slow is tried again.
///
/// [`Lease`]: crate::balance::Lease
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::PeakEwma};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).policy(PeakEwma::new());
/// assert!(builder.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma {
    timing: Timing,
}

impl PeakEwma {
    /// With the defaults of [`Timing`].
    pub fn new() -> Self {
        Self::default()
    }

    /// After how long a measurement counts 1/e of what it did.
    #[must_use]
    pub const fn decay(mut self, decay: Duration) -> Self {
        self.timing.decay = decay;
        self
    }

    /// What an instance without a measurement is taken for while no other has one either; at least
    /// 1 ms.
    #[must_use]
    pub fn default_latency(mut self, latency: Duration) -> Self {
        self.timing.default = latency.max(Duration::from_millis(1));
        self
    }

    /// What a failed call counts for at least.
    #[must_use]
    pub const fn penalty(mut self, penalty: Duration) -> Self {
        self.timing.penalty = penalty;
        self
    }
}

impl Policy for PeakEwma {
    type Table = Alias;

    fn build(&self, candidates: &[Candidate]) -> Alias {
        Alias::new(candidates)
    }

    fn pick(
        &self,
        table: &Alias,
        loads: &dyn Loads,
        random: &mut Random,
        _: &PickContext,
    ) -> Option<usize> {
        let cost = |at| Cost {
            at,
            load: loads.load(at),
            latency: loads.latency(at),
        };
        let better = |a: &Cost, b: &Cost| a.is_better(b, loads);
        best(table, 2, random, cost, |_| false, better)
    }

    fn timing(&self) -> Option<Timing> {
        Some(self.timing)
    }
}

/// What one more call to an instance is expected to cost.
struct Cost {
    at: usize,
    /// Calls in flight, for the weight.
    load: f64,
    latency: f64,
}

impl Cost {
    #[inline]
    fn is_better(&self, other: &Self, loads: &dyn Loads) -> bool {
        let alike = self.latency < other.latency * NOISE && other.latency < self.latency * NOISE;
        if alike {
            self.load < other.load
        } else {
            self.total(loads) < other.total(loads)
        }
    }

    /// Asked for where latencies are apart, which is not the usual case.
    #[cold]
    fn total(&self, loads: &dyn Loads) -> f64 {
        if !self.load.is_finite() {
            return self.load; // an instance that is shut has no cost that a product could tell
        }
        self.latency * (loads.calls(self.at) as f64 + 1.0) / loads.weight(self.at)
    }
}

/// By what factor latencies of instances that are alike differ: of a peak-sensitive average of
/// answers between one and two times the usual, no two are further apart.
const NOISE: f64 = 2.0;
