use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// For how long a call rests before its next try: a random part of what doubles with each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Backoff {
    pub(super) initial: Duration,
    pub(super) max: Duration,
    pub(super) multiplier: f64,
}

/// Where the random parts come from. Drawn from when something failed, so one for all callers.
#[derive(Debug)]
pub(super) struct Jitter(AtomicU64);

impl Backoff {
    /// The rest before the `nth` further try, the first being 1; `random` is at least 0 and below 1.
    pub(super) fn rest(&self, nth: u32, random: f64) -> Duration {
        let grown = self.initial.as_secs_f64() * self.multiplier.powf(f64::from(nth.max(1) - 1));
        let most = self.max.as_secs_f64();
        // Not `min`, for which what is no number would be the longest rest.
        let longest = if grown < most { grown } else { most };
        Duration::try_from_secs_f64(longest * random).unwrap_or(self.max)
    }
}

impl Jitter {
    pub(super) const fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// At least 0 and below 1: splitmix64 (Steele, Lea, Flood 2014), of which each caller takes a step.
    pub(super) fn draw(&self) -> f64 {
        let mut z = self
            .0
            .fetch_add(GOLDEN, Ordering::Relaxed)
            .wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    const ALMOST: f64 = 1.0 - f64::EPSILON;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// gRPC A6: the n-th retry rests for a random part of
    /// `min(initialBackoff * backoffMultiplier^(n-1), maxBackoff)`.
    #[test]
    fn it_grows_by_the_multiplier_up_to_the_most() {
        let backoff = Backoff {
            initial: ms(100),
            max: ms(1_000),
            multiplier: 2.0,
        };
        for (nth, most) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (4, 800),
            (5, 1_000),
            (40, 1_000),
        ] {
            let longest = backoff.rest(nth, ALMOST);
            assert!(
                longest <= ms(most) && longest > ms(most - 1),
                "{nth}: {longest:?}"
            );
            assert_eq!(backoff.rest(nth, 0.0), Duration::ZERO);
            assert_eq!(backoff.rest(nth, 0.5), ms(most) / 2);
        }
    }

    #[test]
    fn whatever_is_set_is_a_rest_and_no_panic() {
        for multiplier in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX] {
            let backoff = Backoff {
                initial: ms(100),
                max: ms(1_000),
                multiplier,
            };
            for nth in [0, 1, 2, u32::MAX] {
                assert!(backoff.rest(nth, ALMOST) <= ms(1_000), "{multiplier} {nth}");
            }
        }
        let long = Backoff {
            initial: Duration::MAX,
            max: Duration::MAX,
            multiplier: 2.0,
        };
        assert!(long.rest(9, ALMOST) > ms(1_000));
    }

    #[test]
    fn the_parts_are_even_and_follow_from_the_seed() {
        let jitter = Jitter::seeded(7);
        let drawn: Vec<f64> = (0..10_000).map(|_| jitter.draw()).collect();
        assert!(drawn.iter().all(|part| (0.0..1.0).contains(part)));
        let mean = drawn.iter().sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
        let again = Jitter::seeded(7);
        assert!(drawn.iter().all(|part| *part == again.draw()));
    }
}
