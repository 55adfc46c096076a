use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// When a second try is begun beside the first, at another instance: the first answer wins, and the other try
/// is given up there.
///
/// Only of requests that may be processed twice, as [`Retry`](crate::retry::Retry) has it, and whose body is
/// there; once a call, and out of the same budget, so that hedges and retries together are a fifth of the calls at
/// most. What is no answer yet by the policy does not win.
///
/// Costs a box and a timer for each call that is not answered at once, and the service as many calls more as are
/// slower than the delay: one in twenty at the 95th percentile. Source: Dean and Barroso,
/// [The Tail at Scale](https://research.google/pubs/the-tail-at-scale/) (2013), "hedged requests".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge(When);

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    After(Duration),
    Percentile { share: f64, least: Duration },
}

/// How long it takes that a share of the answers does not: an estimate that follows them.
#[derive(Debug, Default)]
pub(crate) struct Quantile {
    /// In seconds, the bits of an `f64`.
    at: AtomicU64,
    /// How many it has seen, as far as that matters.
    seen: AtomicU32,
}

impl Hedge {
    /// After so long without an answer. gRPC A6 calls it `hedgingDelay`.
    pub const fn after(delay: Duration) -> Self {
        Self(When::After(delay))
    }

    /// After as long as 95 of 100 calls of the service are answered in, over all its instances, but no less than
    /// 1 ms. Learnt from the calls themselves: the first 20 are not hedged.
    pub const fn at_p95() -> Self {
        Self::at_percentile(0.95)
    }

    /// The same for another share; what is not between 0.5 and 0.999 counts as the nearer of them.
    pub const fn at_percentile(share: f64) -> Self {
        let share = share.clamp(0.5, 0.999); // what is no number stays none, and hedges nothing
        let least = Duration::from_millis(1);
        Self(When::Percentile { share, least })
    }

    /// No sooner than that, however fast answers usually are. Default: 1 ms, a timer's resolution.
    #[must_use]
    pub const fn at_least(mut self, delay: Duration) -> Self {
        if let When::Percentile { least, .. } = &mut self.0 {
            *least = delay;
        }
        self
    }

    /// How long to wait for the first answer, if that is known.
    pub(crate) fn delay(&self, quantile: &Quantile) -> Option<Duration> {
        match self.0 {
            When::After(delay) => Some(delay),
            When::Percentile { least, .. } => quantile.known().map(|usual| usual.max(least)),
        }
    }

    /// An answer took so long, or longer than that.
    pub(crate) fn learn(&self, quantile: &Quantile, took: Duration, and_more: bool) {
        if let When::Percentile { share, .. } = self.0 {
            quantile.learn(share, took.as_secs_f64(), and_more);
        }
    }
}

impl Quantile {
    fn known(&self) -> Option<Duration> {
        if self.seen.load(Ordering::Relaxed) < FIRST {
            return None;
        }
        let at = f64::from_bits(self.at.load(Ordering::Relaxed));
        Duration::try_from_secs_f64(at).ok()
    }

    /// Up by a step for an answer that took longer, down for one that did not, by steps that balance where the
    /// share is as it should be. Two at once may lose one step, which the next make good.
    fn learn(&self, share: f64, took: f64, and_more: bool) {
        let at = f64::from_bits(self.at.load(Ordering::Relaxed));
        let next = if self.seen.load(Ordering::Relaxed) < FIRST {
            self.seen.fetch_add(1, Ordering::Relaxed);
            at.max(took)
        } else if and_more || took > at {
            at * (1.0 + STEP * share)
        } else {
            at * (1.0 - STEP * (1.0 - share))
        };
        if next.is_finite() {
            // From nothing no share leads up again.
            self.at.store(next.max(1e-6).to_bits(), Ordering::Relaxed);
        }
    }
}

/// How many answers are only looked at.
const FIRST: u32 = 20;
/// By how much an estimate moves: 95th percentiles by 19 % up and 1 % down.
const STEP: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_percentile_and_changes_with_the_service() {
        let (hedge, quantile) = (Hedge::at_p95(), Quantile::default());
        let ms = Duration::from_millis;
        for seen in 0..20 {
            assert_eq!(hedge.delay(&quantile), None, "after {seen}");
            hedge.learn(&quantile, ms(1_000), false);
        }
        // Even between 0 and 100 ms, then ten times as slow, then as before.
        for (times, most) in [(1, 100.0), (10, 1_000.0), (1, 100.0)] {
            let mut above = 0;
            for n in 0..20_000_u64 {
                let took = ms(n * 7_919 % 100) * times;
                let delay = hedge.delay(&quantile).unwrap();
                above += u32::from(n >= 2_000 && took > delay);
                hedge.learn(&quantile, took.min(delay), took > delay);
            }
            let share = f64::from(above) / 18_000.0;
            assert!((0.03..0.07).contains(&share), "{share} took longer");
            let delay = hedge.delay(&quantile).unwrap().as_secs_f64() * 1e3;
            assert!(delay > 0.7 * most && delay < 1.3 * most, "{delay} ms");
        }
    }

    #[test]
    fn whatever_is_asked_for_is_no_panic() {
        for share in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1.0, 2.0] {
            let (hedge, quantile) = (Hedge::at_percentile(share), Quantile::default());
            for _ in 0..1_000 {
                hedge.learn(&quantile, Duration::ZERO, false);
                hedge.learn(&quantile, Duration::MAX, true);
                let _ = hedge.delay(&quantile);
            }
        }
        let quantile = Quantile::default();
        for _ in 0..10_000 {
            Hedge::at_p95().learn(&quantile, Duration::ZERO, false);
        }
        let least = Hedge::at_p95().at_least(Duration::from_millis(5));
        assert_eq!(least.delay(&quantile), Some(Duration::from_millis(5)));
        let fixed = Hedge::after(Duration::from_millis(3));
        assert_eq!(
            fixed.delay(&Quantile::default()),
            Some(Duration::from_millis(3))
        );
    }
}
