use std::{sync::Arc, time::Duration};

use crate::{
    balance::Random,
    model::{Instance, ServiceKey},
};

/// How a balancer chooses among the callable instances.
///
/// Pure: [`build`](Self::build) makes a table whenever the callable instances or their attributes
/// change, off the way of the calls, and [`pick`](Self::pick) reads it. Which instance may be
/// called is not a policy's affair: the gates decide that. What a policy picks that is shut is
/// picked again (4 times, then an open instance is drawn by weight, for a key always the same), so a
/// single open instance is always found, and no policy can reach an evicted one.
///
/// A policy that panics, or picks what does not exist, costs a count and one warning; the call goes
/// to an open instance regardless.
///
/// ```
/// use tower_nacos::balance::{Candidate, Loads, PickContext, Policy, Random};
///
/// /// The one with the fewest calls in flight for its weight, of all.
/// struct LeastLoad;
///
/// impl Policy for LeastLoad {
///     type Table = usize;
///
///     fn build(&self, candidates: &[Candidate]) -> usize {
///         candidates.len()
///     }
///
///     fn pick(&self, count: &usize, loads: &dyn Loads, _: &mut Random, _: &PickContext) -> Option<usize> {
///         (0..*count).min_by(|a, b| loads.load(*a).total_cmp(&loads.load(*b)))
///     }
/// }
///
/// assert_eq!(LeastLoad.build(&[]), 0);
/// ```
pub trait Policy: Send + Sync + 'static {
    /// What a pick reads.
    type Table: Send + Sync + 'static;

    /// Is told, once and before all else, which service it picks from: for what it writes to a log. Default: takes no
    /// notice.
    fn begin(&self, service: &ServiceKey) {
        let _ = service;
    }

    /// Makes the table of these instances, all of them callable, sorted by address.
    fn build(&self, candidates: &[Candidate]) -> Self::Table;

    /// The place, in `build`'s order, of the instance to call; `None` leaves it to the balancer,
    /// which then takes any. Should take constant time and allocate nothing.
    fn pick(
        &self,
        table: &Self::Table,
        loads: &dyn Loads,
        random: &mut Random,
        context: &PickContext,
    ) -> Option<usize>;

    /// How calls are to be timed, if this policy asks for [`Loads::latency`]. Read once.
    fn timing(&self) -> Option<Timing> {
        None
    }

    /// Whether the table of so many instances takes longer to build than a call should wait: more than some
    /// ms. Then the balancer's own task builds it, and calls go by the former one meanwhile, for 250 ms at
    /// most; those that have left are passed by, those that have come get their first calls with the new
    /// table. False unless a policy says otherwise: [`Maglev`](crate::balance::Maglev) does from 1,000
    /// instances or 262,144 slots on.
    fn takes_long(&self, candidates: usize) -> bool {
        let _ = candidates;
        false
    }
}

/// An instance that a policy may pick.
///
/// Example: [a policy of one's own](crate::balance::Policy)
#[derive(Clone, Debug)]
pub struct Candidate {
    instance: Arc<Instance>,
    weight: f64,
}

/// What is going on at the instances of a table, by their place in it. Read at the moment of
/// asking: two answers may be of different moments.
///
/// Example: [a policy of one's own](crate::balance::Policy)
pub trait Loads {
    /// Calls in flight and waiting, divided by the instance's weight; infinite if it cannot be
    /// called now, or failed this call before.
    fn load(&self, at: usize) -> f64;

    /// Calls in flight and waiting.
    fn calls(&self, at: usize) -> u64;

    /// The instance's weight.
    fn weight(&self, at: usize) -> f64;

    /// The latency to expect in seconds, smoothed as [`Timing`] says; 0 unless
    /// [`Policy::timing`] asks for it.
    fn latency(&self, at: usize) -> f64;
}

/// What a policy is told of the call.
///
/// Example: [a policy of one's own](crate::balance::Policy)
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PickContext {
    /// The hash of what the call should stick to, if its [`Hints`](crate::balance::Hints) say so.
    pub key: Option<u64>,
    /// How often this call has been picked for already, in vain, since it last looked at the list: 0 at first.
    /// The instance that was picked took no call then (ejected, full, or just evicted). A policy that draws at
    /// random draws again; one that computes its choice should take the next one in its order for each.
    pub attempt: u32,
}

/// How calls are timed: a peak-sensitive moving average, as in Finagle's "Peak EWMA".
///
/// Example: [a policy of one's own](crate::balance::Policy)
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Timing {
    /// After so long a measurement counts 1/e of what it did. 10 s.
    pub decay: Duration,
    /// What an instance without a measurement is taken for while no other has one: later that is
    /// what calls usually take. 30 ms.
    pub default: Duration,
    /// What a failed call counts for at least: failing fast is not being fast. 5 s.
    pub penalty: Duration,
}

impl Candidate {
    /// A candidate with the weight that the instance is listed with.
    pub fn new(instance: Arc<Instance>) -> Self {
        let weight = instance.weight().get();
        Self { instance, weight }
    }

    /// The same with another weight.
    #[must_use]
    pub const fn with_weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// The instance.
    pub const fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The share that it is to get, relative to its siblings.
    pub const fn weight(&self) -> f64 {
        self.weight
    }
}

impl PickContext {
    /// The first look for a call with this key.
    #[inline]
    pub const fn new(key: Option<u64>) -> Self {
        Self { key, attempt: 0 }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            default: Duration::from_millis(30),
            penalty: Duration::from_secs(5),
        }
    }
}
