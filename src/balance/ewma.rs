use std::time::Duration;

use crate::balance::{Alias, Candidate, Loads, PickContext, Policy, Random, Timing, p2c::least};

/// Of two instances drawn by weight, the one with the lower expected cost: smoothed latency times
/// calls in flight (the one to come included), divided by the weight.
///
/// Reacts to a slow instance with the first slow answer, and forgets over 10 s (Finagle's "Peak
/// EWMA"). Costs two looks at the clock a call. The latency is the time to the response, to its head
/// for HTTP and gRPC: how long a body or a stream goes on is no latency, though the call counts as
/// in flight until the balancer's `completion` says that it has ended. A [`Lease`]'s is from the pick
/// to the failure's report or the drop.
///
/// Who has not answered yet, or not lately, is taken for a little less than what calls to all
/// instances took of late. So a new instance gets its part, and one that was slow is tried again.
///
/// [`Lease`]: crate::balance::Lease
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
        least(table, 2, random, |at| {
            let load = loads.load(at);
            if load.is_finite() {
                loads.latency(at) * (loads.calls(at) as f64 + 1.0) / loads.weight(at)
            } else {
                load
            }
        })
    }

    fn timing(&self) -> Option<Timing> {
        Some(self.timing)
    }
}
