use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How the calls of a set are timed: a peak-sensitive, exponentially weighted moving average, as
/// Finagle's "Peak EWMA".
#[derive(Debug)]
pub(crate) struct Timing {
    /// What ages are counted from.
    pub(crate) epoch: Instant,
    /// After so long a sample counts 1/e of what it did.
    pub(crate) decay: Duration,
    /// What an instance without a sample is taken for while the others have none either.
    pub(crate) default: Duration,
    /// What a failed call counts for, at least.
    pub(crate) penalty: Duration,
    /// What calls of the set usually take.
    pub(crate) usual: Usual,
}

/// What calls of a set took lately, whoever answered: seconds and stamp as in [`Latency`].
///
/// What is not known of an instance is taken from here. All threads read it at each pick, so it is
/// written once a ms at most: over the answers that come first in theirs.
#[derive(Debug, Default)]
pub(crate) struct Usual(AtomicU64);

/// When a call began: ns since the epoch, plus one. An `Option` of it is one word, which calls carry
/// about also when they are not timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(NonZeroU64);

/// The smoothed latency of one endpoint: seconds as an `f32` in the upper half of the word, the
/// time of the last sample in ms since the epoch in the lower, which begins anew every 49.7 days; 0
/// before the first.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// A call took so long. A longer one than expected counts in full at once, a shorter one as
    /// much as the time since the last sample says.
    #[inline]
    pub(crate) fn observe(&self, took: Duration, now: Instant, timing: &Timing) {
        let took = took.as_secs_f32();
        let at = timing.stamp(now);
        // What another call writes meanwhile is a sample as good as this one: try again.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let (known, since) = match unpack(word) {
                    Some((known, stamp)) => (known, elapsed(stamp, at)),
                    None => return Some(pack(took, at)),
                };
                let keep = timing.kept(since);
                let smoothed = took.max(known * keep + took * (1.0 - keep));
                Some(pack(smoothed, at))
            });
    }

    /// As of the last answer, if there was one.
    #[cfg(feature = "status")]
    pub(crate) fn known(&self) -> Option<Duration> {
        let (seconds, _) = unpack(self.0.load(Ordering::Relaxed))?;
        Duration::try_from_secs_f32(seconds).ok()
    }

    /// Goes on from where another left off.
    pub(crate) fn inherit(&self, other: &Self) {
        self.0
            .store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The expected latency in seconds; drifts while nothing is heard towards a little less than
    /// what calls take elsewhere, so that a slow instance is tried again, and so is a new one, which
    /// begins there.
    #[inline]
    pub(crate) fn expected(&self, now: Instant, timing: &Timing) -> f64 {
        let expected = match unpack(self.0.load(Ordering::Relaxed)) {
            Some((known, stamp)) => {
                let kept = timing.kept(elapsed(stamp, timing.stamp(now)));
                let elsewhere = timing.elsewhere();
                if known > elsewhere {
                    (known * kept).max(elsewhere)
                } else {
                    known * kept + elsewhere * (1.0 - kept)
                }
            }
            None => timing.elsewhere(),
        };
        f64::from(expected.max(FLOOR))
    }
}

impl Usual {
    /// A call was answered after so long.
    #[inline]
    pub(crate) fn observe(&self, took: Duration, now: Instant, timing: &Timing) {
        let at = timing.stamp(now);
        let word = self.0.load(Ordering::Relaxed);
        let took = took.as_secs_f32();
        let usual = match unpack(word) {
            Some((_, stamp)) if elapsed(stamp, at) == 0 => return,
            Some((known, stamp)) => {
                let keep = timing.kept(elapsed(stamp, at)).min(MOST_KEPT);
                known * keep + took * (1.0 - keep)
            }
            None => took,
        };
        let next = pack(usual, at);
        // What another call writes meanwhile is as good.
        let _ = self
            .0
            .compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Timing {
    /// What one is taken for of whom nothing is known.
    #[inline]
    fn elsewhere(&self) -> f32 {
        match unpack(self.usual.0.load(Ordering::Relaxed)) {
            Some((usual, _)) => usual * TRIED_SOONER,
            None => self.default.as_secs_f32(),
        }
    }

    #[inline]
    fn stamp(&self, now: Instant) -> u32 {
        let ms = now.saturating_duration_since(self.epoch).as_millis();
        (ms as u32).max(1)
    }

    #[inline]
    fn kept(&self, ms: u32) -> f32 {
        if ms == 0 {
            return 1.0; // the usual case under load
        }
        let decay = self.decay.as_secs_f32().max(f32::MIN_POSITIVE);
        (-(ms as f32 / 1e3) / decay).exp()
    }
}

impl Mark {
    /// This moment, in one word.
    #[inline]
    pub(super) fn new(epoch: Instant, now: Instant) -> Self {
        let ns = now.saturating_duration_since(epoch).as_nanos();
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(ns))
    }

    /// As a number, to be compared.
    #[inline]
    pub(super) const fn ns(self) -> u64 {
        self.0.get()
    }

    #[inline]
    pub(super) const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// The ms from one stamp to another. One that is a little earlier is told late, not months ahead.
const fn elapsed(from: u32, to: u32) -> u32 {
    let ms = to.wrapping_sub(from);
    if ms > u32::MAX - TOLD_LATE { 0 } else { ms }
}

#[inline]
fn pack(seconds: f32, stamp: u32) -> u64 {
    u64::from(seconds.to_bits()) << 32 | u64::from(stamp)
}

#[inline]
fn unpack(word: u64) -> Option<(f32, u32)> {
    (word != 0).then_some((f32::from_bits((word >> 32) as u32), word as u32))
}

/// Below this, differences say more about the clock than about the instance.
const FLOOR: f32 = 1e-6;
/// Of what calls usually take: were it all of it, one of many that are alike would wait for the others
/// to have a bad moment.
const TRIED_SOONER: f32 = 0.9;
/// So that the first answer, which is often a slow one, does not count for long.
const MOST_KEPT: f32 = 15.0 / 16.0;
/// In ms: how late a caller may be with a sample.
const TOLD_LATE: u32 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(epoch: Instant) -> Timing {
        Timing {
            epoch,
            decay: Duration::from_secs(10),
            default: Duration::from_millis(30),
            penalty: Duration::from_secs(5),
            usual: Usual::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peak_counts_at_once_and_fades() {
        let start = crate::endpoint::clock::now();
        let (latency, timing) = (Latency::default(), timing(start));
        assert!((latency.expected(start, &timing) - 0.03).abs() < 1e-6);
        latency.observe(Duration::from_millis(500), start, &timing);
        assert!((latency.expected(start, &timing) - 0.5).abs() < 1e-6);
        let later = start + Duration::from_secs(10);
        let faded = latency.expected(later, &timing);
        assert!((faded - 0.5 / std::f64::consts::E).abs() < 1e-3, "{faded}");
        latency.observe(Duration::from_millis(10), later, &timing);
        let smoothed = latency.expected(later, &timing);
        assert!((0.15..0.25).contains(&smoothed), "{smoothed}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_known_is_taken_for_what_calls_usually_take() {
        let start = crate::endpoint::clock::now();
        let timing = timing(start);
        let (new, slow) = (Latency::default(), Latency::default());
        assert!((new.expected(start, &timing) - 0.03).abs() < 1e-6);
        // The first answer is a slow one, and does not count for long.
        timing.usual.observe(Duration::from_secs(2), start, &timing);
        slow.observe(Duration::from_secs(2), start, &timing);
        for ms in 1..=200 {
            let at = start + Duration::from_millis(ms);
            timing.usual.observe(Duration::from_millis(1), at, &timing);
        }
        let soon = start + Duration::from_millis(200);
        let expected = new.expected(soon, &timing);
        assert!((0.000_8..0.001).contains(&expected), "{expected}");
        assert!(slow.expected(soon, &timing) > 1.9);
        // Nor does what it was taken for: its own first answer counts as it is.
        new.observe(Duration::from_millis(1), soon, &timing);
        let own = new.expected(soon, &timing);
        assert!((own - 0.001).abs() < 1e-6, "{own}");
        let late = start + Duration::from_secs(200);
        assert!(slow.expected(late, &timing) < 0.001, "it is tried again");
        // Nor is one fast for good that was so once.
        let fast = Latency::default();
        fast.observe(Duration::from_micros(10), soon, &timing);
        assert!(fast.expected(soon, &timing) < 0.000_02);
        let faded = fast.expected(late, &timing);
        assert!((0.000_8..0.001).contains(&faded), "{faded}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peak_fades_also_in_a_process_that_has_run_for_months() {
        let epoch = crate::endpoint::clock::now();
        let timing = timing(epoch);
        for days in [1, 49, 50, 60, 99, 100, 700] {
            let latency = Latency::default();
            let start = epoch + Duration::from_secs(days * 24 * 3600);
            latency.observe(Duration::from_millis(500), start, &timing);
            let later = start + Duration::from_secs(20);
            let faded = latency.expected(later, &timing);
            assert!(faded < 0.1, "after {days} days {faded}");
            latency.observe(Duration::from_millis(10), later, &timing);
            assert!(latency.expected(later, &timing) < 0.1, "after {days} days");
            // Over the moment at which its stamps begin anew.
            let wrap = epoch + Duration::from_millis(u64::from(u32::MAX)) - Duration::from_secs(5);
            latency.observe(Duration::from_millis(500), wrap, &timing);
            let faded = latency.expected(wrap + Duration::from_secs(20), &timing);
            assert!(faded < 0.1, "{faded}");
            // One that is told a little late is no reason to forget.
            let early = wrap - Duration::from_millis(3);
            assert!((latency.expected(early, &timing) - 0.5).abs() < 1e-6);
        }
    }
}
