use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    balance::{
        Candidate, Loads, Maglev, PickContext, Policy, Random, Slots,
        maglev::slot_of,
        random::{STRIPES, stripe},
    },
    model::ServiceKey,
};

/// A [`Maglev`] in which no instance has more than its share of the calls in flight, and a quarter
/// more: consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018; Envoy and
/// HAProxy call it the hash balance factor).
///
/// A key goes to the instance that it falls to, unless that has `(1 + ε) × (calls in flight + 1) ×
/// weight ÷ all weights` calls already, rounded up: then to the next that it falls to, and so on, the
/// same ones for every caller. So a hot key is served by as many instances as it needs, the first of
/// which stay the same, and keys that are not hot stay where they are. The smaller ε, the evener the
/// load, and the more keys move when an instance comes or goes: by the paper up to about 1 ÷ ε² times
/// as many.
///
/// What is in flight is what this caller has: many callers bound each their own. Counted by adding up
/// all instances: with each pick up to 16 instances, else a sixteenth of that many picks late, so that
/// a pick costs what 16 instances cost. Under little load the bound is narrow, since of two calls at
/// once each is more than its share: [`at_least`](Self::at_least) widens it.
///
/// Take [`Maglev`] where a key must not leave its instance whatever the load.
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::Maglev};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).policy(Maglev::new().bounded(0.25));
/// assert!(builder.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct BoundedMaglev {
    maglev: Maglev,
    /// By what part more than its share an instance may have.
    epsilon: f64,
    /// And how many in any case.
    least: u64,
}

/// The table of a [`BoundedMaglev`].
///
/// Example: [the policy](crate::balance::BoundedMaglev)
#[derive(Debug)]
pub struct BoundedSlots {
    slots: Slots,
    instances: usize,
    /// Each thread's own, so that they do not write to one line.
    sums: Box<[Sum; STRIPES]>,
    /// After how many picks of a thread its sum is made anew.
    every: u64,
}

/// What was in flight when it was last added up.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Sum {
    picks: AtomicU64,
    calls: AtomicU64,
    /// The bits of what those weigh that are open.
    weight: AtomicU64,
}

impl Maglev {
    /// With bounded loads: `epsilon` is by what part more than its share an instance may have in
    /// flight, 0.25 for a quarter more. HAProxy's documentation calls 0.25 to 1 reasonable (a
    /// `hash-balance-factor` of 125 to 200). From 0.01 to 100; what is no number counts as 0.25.
    #[must_use]
    pub const fn bounded(self, epsilon: f64) -> BoundedMaglev {
        BoundedMaglev {
            maglev: self,
            epsilon: if epsilon.is_nan() {
                0.25
            } else {
                epsilon.clamp(0.01, 100.0)
            },
            least: 1,
        }
    }
}

impl BoundedMaglev {
    /// An instance may have so many calls in flight in any case; 1 by default, as in the paper. What an
    /// instance can well do at once keeps keys where they are under little load.
    #[must_use]
    pub const fn at_least(mut self, calls: u64) -> Self {
        self.least = calls;
        self
    }
}

impl Policy for BoundedMaglev {
    type Table = BoundedSlots;

    fn begin(&self, service: &ServiceKey) {
        self.maglev.begin(service);
    }

    fn build(&self, candidates: &[Candidate]) -> BoundedSlots {
        BoundedSlots {
            slots: self.maglev.build(candidates),
            instances: candidates.len(),
            sums: Box::default(),
            every: (candidates.len() / ADDED_A_PICK).max(1) as u64,
        }
    }

    fn pick(
        &self,
        table: &BoundedSlots,
        loads: &dyn Loads,
        random: &mut Random,
        context: &PickContext,
    ) -> Option<usize> {
        let Some(key) = context.key else {
            return self.maglev.pick(&table.slots, loads, random, context);
        };
        let (calls, weight) = table.sum(loads);
        // What each may have for each unit of its weight, this call included.
        let share = (1.0 + self.epsilon) * (calls + 1) as f64 / weight;
        let mut least: Option<(f64, usize)> = None;
        for step in 0..MOST_STEPS {
            let at = slot_of(&table.slots, key, context.attempt * MOST_STEPS + step)?;
            let load = loads.load(at);
            if load.is_infinite() {
                continue; // shut
            }
            let most = ((share * loads.weight(at)).ceil() as u64).max(self.least);
            if loads.calls(at) < most {
                return Some(at);
            }
            // By chance all of these have their share: then the one that has least.
            if least.is_none_or(|(other, _)| load < other) {
                least = Some((load, at));
            }
        }
        least.map(|(_, at)| at)
    }

    fn takes_long(&self, candidates: usize) -> bool {
        self.maglev.takes_long(candidates)
    }
}

impl BoundedSlots {
    /// How many slots there are.
    pub const fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no instance to have one.
    pub const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The calls in flight at those that are open, and what those weigh.
    fn sum(&self, loads: &dyn Loads) -> (u64, f64) {
        let sum = &self.sums[stripe()];
        if !sum
            .picks
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(self.every)
        {
            let weight = f64::from_bits(sum.weight.load(Ordering::Relaxed));
            return (sum.calls.load(Ordering::Relaxed), weight);
        }
        let open = (0..self.instances).filter(|at| loads.load(*at).is_finite());
        let (calls, weight) = open.fold((0, 0.0), |(calls, weight), at| {
            (calls + loads.calls(at), weight + loads.weight(at))
        });
        sum.calls.store(calls, Ordering::Relaxed);
        sum.weight.store(weight.to_bits(), Ordering::Relaxed);
        (calls, weight)
    }
}

/// How many instances a pick adds up on the average.
const ADDED_A_PICK: usize = 16;
/// One of five at least has room when a quarter more than everything would fit: that none of 32 has is
/// one in a thousand.
const MOST_STEPS: u32 = 32;

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::HashMap, sync::Arc};

    use super::*;
    use crate::model::Instance;

    /// Calls in flight, weights, and who is shut.
    struct Fleet {
        calls: RefCell<Vec<u64>>,
        weights: Vec<f64>,
        shut: RefCell<Vec<usize>>,
    }

    impl Loads for Fleet {
        fn load(&self, at: usize) -> f64 {
            match self.shut.borrow().contains(&at) {
                true => f64::INFINITY,
                false => self.calls(at) as f64 / self.weights[at],
            }
        }

        fn calls(&self, at: usize) -> u64 {
            self.calls.borrow()[at]
        }

        fn weight(&self, at: usize) -> f64 {
            self.weights[at]
        }

        fn latency(&self, _: usize) -> f64 {
            0.0
        }
    }

    impl Fleet {
        fn new(weights: &[f64]) -> (Self, Vec<Candidate>) {
            let candidates = weights.iter().enumerate().map(|(at, weight)| {
                let address = format!("10.0.{}.{}:80", at / 250, at % 250 + 1);
                Candidate::new(Arc::new(Instance::parse(&address).unwrap())).with_weight(*weight)
            });
            let fleet = Self {
                calls: RefCell::new(vec![0; weights.len()]),
                weights: weights.to_vec(),
                shut: RefCell::default(),
            };
            (fleet, candidates.collect())
        }

        fn total(&self) -> u64 {
            self.calls.borrow().iter().sum()
        }
    }

    fn pick(policy: &BoundedMaglev, table: &BoundedSlots, fleet: &Fleet, key: u64) -> usize {
        let context = PickContext::new(Some(crate::balance::hash::mix(key)));
        let picked = policy.pick(table, fleet, &mut Random::seeded(1), &context);
        picked.expect("somebody is open")
    }

    /// However skewed the keys are, nobody has more than its share and a quarter.
    #[test]
    fn no_instance_has_more_than_the_bound() {
        for weights in [
            vec![1.0; 10],
            vec![1.0, 1.0, 2.0, 4.0, 8.0],
            vec![3.0],
            vec![1.0; 16],
        ] {
            let (fleet, candidates) = Fleet::new(&weights);
            let policy = Maglev::with_size(5_003).bounded(0.25);
            let table = policy.build(&candidates);
            let all: f64 = weights.iter().sum();
            let mut random = Random::seeded(9);
            let mut open: Vec<usize> = Vec::new();
            for step in 0..20_000 {
                // Two keys have two thirds of the calls.
                let key = match random.below(3) {
                    0 => 1,
                    1 => 2,
                    _ => random.next_u64(),
                };
                let at = pick(&policy, &table, &fleet, key);
                let most = (1.25 * (fleet.total() + 1) as f64 * weights[at] / all).ceil() as u64;
                assert!(
                    fleet.calls.borrow()[at] < most,
                    "{step}: {at} has {most} already"
                );
                fleet.calls.borrow_mut()[at] += 1;
                open.push(at);
                if open.len() > random.below(400) {
                    let ended = open.swap_remove(random.below(open.len()));
                    fleet.calls.borrow_mut()[ended] -= 1;
                }
            }
        }
    }

    #[test]
    fn who_has_room_is_where_maglev_has_the_key_and_a_hot_key_keeps_its_first() {
        let (fleet, candidates) = Fleet::new(&[1.0; 10]);
        let maglev = Maglev::with_size(5_003);
        let plain = maglev.build(&candidates);
        let policy = maglev.clone().bounded(0.25);
        let table = policy.build(&candidates);
        for key in 0..1_000 {
            let context = PickContext::new(Some(crate::balance::hash::mix(key)));
            let theirs = maglev.pick(&plain, &fleet, &mut Random::seeded(1), &context);
            assert_eq!(Some(pick(&policy, &table, &fleet, key)), theirs);
        }
        // 40 calls of one key, none of which ends: as many instances as it takes, and no more.
        let first = pick(&policy, &table, &fleet, 7);
        let mut used = HashMap::<usize, u64>::new();
        for _ in 0..40 {
            let at = pick(&policy, &table, &fleet, 7);
            fleet.calls.borrow_mut()[at] += 1;
            *used.entry(at).or_default() += 1;
        }
        assert_eq!(used[&first], 5, "a quarter more than 4");
        assert!((8..=10).contains(&used.len()), "{used:?}");
        // What an instance can well do at once is its own.
        let wide = maglev.bounded(0.25).at_least(100);
        assert_eq!(pick(&wide, &wide.build(&candidates), &fleet, 7), first);
    }

    #[test]
    fn what_is_shut_has_no_share_and_moves_only_its_own_keys() {
        let (fleet, candidates) = Fleet::new(&[1.0; 10]);
        let policy = Maglev::with_size(5_003).bounded(0.25).at_least(3);
        let table = policy.build(&candidates);
        let before: Vec<usize> = (0..2_000)
            .map(|key| pick(&policy, &table, &fleet, key))
            .collect();
        fleet.shut.borrow_mut().extend([2, 5]);
        for (key, before) in before.iter().enumerate() {
            let now = pick(&policy, &table, &fleet, key as u64);
            assert!(![2, 5].contains(&now));
            assert!(now == *before || [2, 5].contains(before));
        }
        // All of the load fits on those that are left.
        for call in 0..800 {
            let at = pick(&policy, &table, &fleet, call % 3);
            fleet.calls.borrow_mut()[at] += 1;
        }
        let most = fleet.calls.borrow().iter().copied().max();
        assert!(
            most <= Some(126),
            "{most:?}: 100 and a quarter, and one for rounding"
        );
        fleet.shut.borrow_mut().extend(0..10);
        let context = PickContext::new(Some(1));
        let picked = policy.pick(&table, &fleet, &mut Random::seeded(1), &context);
        assert_eq!(picked, None, "and the balancer says why");
        assert_eq!(
            policy.pick(&policy.build(&[]), &fleet, &mut Random::seeded(1), &context),
            None
        );
    }

    /// With many instances the sum is a little late: the bound holds by and large.
    #[test]
    fn a_thousand_instances_are_bounded_too() {
        let (fleet, candidates) = Fleet::new(&[1.0; 1_000]);
        let policy = Maglev::new().bounded(0.25);
        let table = policy.build(&candidates);
        let mut random = Random::seeded(5);
        for _ in 0..10_000 {
            let key = random.below(50) as u64;
            let at = pick(&policy, &table, &fleet, key);
            fleet.calls.borrow_mut()[at] += 1;
        }
        let most = fleet.calls.borrow().iter().copied().max().unwrap();
        assert!(
            most <= 14,
            "{most}: 10 and a quarter, rounded up, and the steps that are bounded"
        );
    }
}
