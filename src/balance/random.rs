use std::{
    cell::Cell,
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The random numbers of one pick.
///
/// A generator for choosing, not for secrets (Wang Yi's "wyrand": one multiplication a number).
/// Each pick gets one of its own, seeded from a generator of its thread: an owned one in a
/// balancer that is `Clone` would have every clone draw the same sequence.
///
/// ```
/// use tower_nacos::balance::Random;
///
/// let mut random = Random::seeded(7);
/// assert!(random.below(10) < 10);
/// assert!((0.0..1.0).contains(&random.unit()));
/// ```
pub struct Random(u64);

thread_local! {
    static SEEDS: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
    static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

impl Random {
    /// The same numbers for the same seed.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Different numbers at each call; one for the rest of this thread's pick.
    #[inline]
    pub(super) fn of_thread() -> Self {
        let seed = SEEDS.try_with(|seeds| {
            let mut random = Self(seeds.get());
            let seed = random.next_u64();
            seeds.set(random.0);
            seed
        });
        Self(seed.unwrap_or_default()) // a thread that is being torn down may choose badly
    }

    /// Has all picks of this thread follow from the seed, so that a test is the same each time.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn seed_thread(seed: u64) {
        SEEDS.with(|seeds| seeds.set(seed));
    }

    /// Any 64 bits.
    #[inline]
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let wide = (self.0 as u128) * ((self.0 ^ 0xe703_7ed1_a0b4_28db) as u128);
        (wide >> 64) as u64 ^ wide as u64
    }

    /// A number below `n`, or 0 if that is 0. Uneven by less than one in 2³² for every `n` that is
    /// a number of instances.
    #[inline]
    pub const fn below(&mut self, n: usize) -> usize {
        (((self.next_u64() as u128) * (n as u128)) >> 64) as usize
    }

    /// A number from 0 up to, not including, 1.
    pub const fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A number of this thread's, to keep threads out of each other's cache lines.
#[inline]
pub(super) fn stripe() -> usize {
    STRIPE.try_with(|stripe| *stripe).unwrap_or_default() % STRIPES
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

pub(super) const STRIPES: usize = 8;
