use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::balance::{
    Candidate, Loads, PickContext, Policy, Random,
    hash::{mix, stable_hash},
};
use crate::{logs, model::ServiceKey};

/// Calls with the same key go to the same instance, also from other callers, and few keys move when
/// an instance comes or goes.
///
/// Google's Maglev (NSDI 2016), by weight, over the instances' addresses: every caller with the
/// same set builds the same table, whatever the order of arrival. The key comes from the builder's
/// `hash_key`; a call without one goes to a random instance by weight, and one warning says so. A
/// key whose instance is shut goes to another, the same for all callers that see the same.
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::{Maglev, stable_hash}};
///
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders)
///     .policy(Maglev::new())
///     .hash_key(|user: &String| Some(stable_hash(user.as_bytes())));
/// assert!(builder.check().is_ok());
/// ```
#[derive(Debug)]
pub struct Maglev {
    size: u32,
    /// Whose instances it picks from, for the warning.
    service: OnceLock<ServiceKey>,
    warned: AtomicBool,
}

/// The table of a [`Maglev`]: which instance has which slot.
///
/// Example: [the policy](crate::balance::Maglev)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots(Places);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    Few(Box<[u16]>),
    Many(Box<[u32]>),
}

impl Maglev {
    /// With 65,537 slots: 128 KiB.
    pub const fn new() -> Self {
        Self::with_size(65_537)
    }

    /// With so many slots, or a few more (the number is a prime, at least 251). For even shares it
    /// should be 100 times the number of instances.
    pub const fn with_size(slots: u32) -> Self {
        let mut size = if slots < 251 { 251 } else { slots };
        if size > MOST_SLOTS {
            size = MOST_SLOTS;
        }
        while !is_prime(size) {
            size += 1;
        }
        Self {
            size,
            service: OnceLock::new(),
            warned: AtomicBool::new(false),
        }
    }
}

impl Maglev {
    #[cold]
    fn warn(&self) {
        const WHAT: &str = "a call through a consistent-hash balancer has no hash key (hash_key of its builder); \
            such calls go to random instances, and this is said once";
        match self.service.get() {
            Some(service) => logs::of_service!(warn, BALANCE, None::<&str>, service, "{WHAT}"),
            None => tracing::warn!(target: logs::BALANCE, "{WHAT}"),
        }
    }
}

impl Slots {
    /// How many slots there are.
    pub const fn len(&self) -> usize {
        match &self.0 {
            Places::Few(places) => places.len(),
            Places::Many(places) => places.len(),
        }
    }

    /// Whether there is no instance to have one.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of the instance whose slot any 64 bits fall to.
    #[inline]
    fn at(&self, bits: u64) -> Option<usize> {
        let slot = |len: usize| ((u128::from(bits) * len as u128) >> 64) as usize;
        match &self.0 {
            Places::Few(places) => places.get(slot(places.len())).map(|at| usize::from(*at)),
            Places::Many(places) => places.get(slot(places.len())).map(|at| *at as usize),
        }
    }

    /// The place of the instance that has slot `slot`.
    pub fn get(&self, slot: usize) -> Option<usize> {
        match &self.0 {
            Places::Few(places) => places.get(slot).map(|at| usize::from(*at)),
            Places::Many(places) => places.get(slot).map(|at| *at as usize),
        }
    }
}

impl Policy for Maglev {
    type Table = Slots;

    fn begin(&self, service: &ServiceKey) {
        _ = self.service.set(service.clone());
    }

    fn build(&self, candidates: &[Candidate]) -> Slots {
        let places = populate(candidates, self.size);
        let few = u16::try_from(candidates.len()).is_ok();
        Slots(if few {
            Places::Few(places.iter().map(|at| *at as u16).collect())
        } else {
            Places::Many(places)
        })
    }

    fn pick(
        &self,
        table: &Slots,
        _: &dyn Loads,
        random: &mut Random,
        context: &PickContext,
    ) -> Option<usize> {
        if let Some(key) = context.key {
            return slot_of(table, key, context.attempt);
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            self.warn();
        }
        table.at(random.next_u64())
    }

    fn takes_long(&self, candidates: usize) -> bool {
        candidates >= 1_000 || self.size >= 1 << 18
    }
}

/// Whom a key falls to at its so-manyth attempt: another slot each time, the same for every caller.
#[inline]
pub(super) fn slot_of(table: &Slots, key: u64, attempt: u32) -> Option<usize> {
    table.at(mix(key.wrapping_add(u64::from(attempt).wrapping_mul(ODD))))
}

impl Default for Maglev {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Maglev {
    fn clone(&self) -> Self {
        Self {
            size: self.size,
            service: OnceLock::new(),
            warned: AtomicBool::new(false),
        }
    }
}

/// Everybody takes its next preferred free slot, the more often the larger its weight.
fn populate(candidates: &[Candidate], size: u32) -> Box<[u32]> {
    if candidates.is_empty() {
        return Box::default();
    }
    // By address, not by place: so the table does not depend on the order of the list.
    let mut names: Vec<(String, u32)> = (0..)
        .zip(candidates)
        .map(|(at, candidate)| (candidate.instance().address().to_string(), at))
        .collect();
    names.sort_unstable(); // each address is there once
    let mut turns = Turns {
        wishes: names.iter().map(|(name, _)| Wish::of(name, size)).collect(),
        places: vec![FREE; size as usize].into(),
        size,
    };
    let weight = |at: u32| {
        let weight = candidates[at as usize].weight();
        if weight.is_finite() && weight > 0.0 {
            weight
        } else {
            f64::MIN_POSITIVE
        }
    };
    let first = weight(0);
    if names.iter().all(|(_, at)| weight(*at) == first) {
        let turn = names.iter().enumerate().cycle().take(size as usize);
        turn.for_each(|(rank, (_, at))| turns.take(rank, *at));
        return turns.places;
    }
    // Whose turn is next: an instance's k-th turn comes at k ÷ weight. Positive floats sort as
    // their bits do.
    let turn = |taken: u32, at: u32| (f64::from(taken) / weight(at)).to_bits();
    let mut taken = vec![0_u32; names.len()];
    let first = names.iter().enumerate();
    let first = first.map(|(rank, (_, at))| Reverse((turn(1, *at), rank as u32)));
    let mut queue: BinaryHeap<Reverse<(u64, u32)>> = first.collect();
    for _ in 0..size {
        let Some(mut next) = queue.peek_mut() else {
            break;
        };
        let rank = next.0.1 as usize;
        let at = names[rank].1;
        turns.take(rank, at);
        taken[rank] += 1;
        next.0.0 = turn(taken[rank] + 1, at); // finds its new place as this is dropped
    }
    turns.places
}

/// The slots, as they are taken.
struct Turns {
    wishes: Box<[Wish]>,
    places: Box<[u32]>,
    size: u32,
}

/// The slot that an instance wishes for next, and how far it is to the one after.
struct Wish {
    slot: u32,
    skip: u32,
}

impl Wish {
    fn of(name: &str, size: u32) -> Self {
        let (hash, size) = (stable_hash(name.as_bytes()), u64::from(size));
        Self {
            slot: (hash % size) as u32,
            skip: (mix(hash) % (size - 1) + 1) as u32,
        }
    }
}

impl Turns {
    /// The next free slot in the order of its wishes is this one's.
    fn take(&mut self, rank: usize, at: u32) {
        let wish = &mut self.wishes[rank];
        while self.places[wish.slot as usize] != FREE {
            // Both are below the size, which is far from the end of the numbers.
            wish.slot += wish.skip;
            if wish.slot >= self.size {
                wish.slot -= self.size;
            }
        }
        self.places[wish.slot as usize] = at;
    }
}

const fn is_prime(n: u32) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= n {
        if n.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    n > 1
}

const FREE: u32 = u32::MAX;
const MOST_SLOTS: u32 = 16_777_213;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
