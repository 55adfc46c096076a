use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::balance::{
    Alias, Candidate, Loads, PickContext, Policy, Random,
    random::{STRIPES, stripe},
};

/// In turn, each as often as its weight says: equal weights make plain round robin.
///
/// Static stride scheduling, as gRPC's weighted round robin: rounds in which each instance is
/// passed by so often that its turns are in proportion to its weight. Each thread counts for
/// itself, from a random start, so threads and callers do not march in step; it is one thread's
/// calls that go strictly in turn.
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::WeightedRoundRobin};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).policy(WeightedRoundRobin::new());
/// assert!(builder.check().is_ok());
/// ```
pub struct WeightedRoundRobin {
    turns: Box<[Turn; STRIPES]>,
    seed: Option<u64>,
}

/// A count alone on its cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Turn(AtomicU64);

/// The table of a [`WeightedRoundRobin`].
///
/// Example: [the policy](crate::balance::WeightedRoundRobin)
#[derive(Debug)]
pub struct Strides {
    /// Of [`WHOLE`], which is the largest; empty if all are equal.
    strides: Box<[u32]>,
    len: usize,
    /// For when one has to be passed by too often.
    alias: Alias,
}

impl WeightedRoundRobin {
    /// From random starts.
    pub fn new() -> Self {
        Self::starting(&mut Random::of_thread(), None)
    }

    /// From starts that the seed decides.
    pub fn seeded(seed: u64) -> Self {
        Self::starting(&mut Random::seeded(seed), Some(seed))
    }

    fn starting(random: &mut Random, seed: Option<u64>) -> Self {
        let turns = Box::<[Turn; STRIPES]>::default();
        for turn in turns.iter() {
            turn.0.store(random.next_u64() >> 33, Ordering::Relaxed);
        }
        Self { turns, seed }
    }
}

impl Policy for WeightedRoundRobin {
    type Table = Strides;

    fn build(&self, candidates: &[Candidate]) -> Strides {
        let weights = || candidates.iter().map(|c| c.weight().max(0.0));
        let largest = weights().fold(0.0, f64::max);
        let equal = weights().all(|w| w == largest);
        let stride = |w: f64| ((w / largest * f64::from(u32::MAX)) as u32).max(u32::from(w > 0.0));
        Strides {
            strides: if equal {
                Box::default()
            } else {
                weights().map(stride).collect()
            },
            len: candidates.len(),
            alias: if equal {
                Alias::default()
            } else {
                Alias::new(candidates)
            },
        }
    }

    fn pick(
        &self,
        table: &Strides,
        _: &dyn Loads,
        random: &mut Random,
        _: &PickContext,
    ) -> Option<usize> {
        let turns = &self.turns[stripe()].0;
        let n = table.len as u64;
        if n == 0 {
            return None;
        }
        for _ in 0..MOST_PASSED {
            let turn = turns.fetch_add(1, Ordering::Relaxed);
            let (round, at) = (turn / n, (turn % n) as usize);
            let Some(stride) = table.strides.get(at) else {
                return Some(at);
            };
            // Of each WHOLE ÷ stride rounds one: when the multiple passes a whole. Where in its
            // rounds an instance starts is spread out.
            let spread = at as u64 * (WHOLE / 2);
            let multiple = u64::from(*stride) * (round % WHOLE) + spread;
            if multiple % WHOLE >= WHOLE - u64::from(*stride) {
                return Some(at);
            }
        }
        // Drawn by weight the proportions stay; what is lost is the strict turn.
        table.alias.draw(random)
    }
}

impl Default for WeightedRoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

/// A clone counts for itself: from starts of its own, or from those of the same seed.
impl Clone for WeightedRoundRobin {
    fn clone(&self) -> Self {
        self.seed.map_or_else(Self::new, Self::seeded)
    }
}

impl fmt::Debug for WeightedRoundRobin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightedRoundRobin")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

const WHOLE: u64 = u32::MAX as u64;
/// Weights may lie a factor of 100,000 apart; a pick should not take as many steps.
const MOST_PASSED: usize = 64;
