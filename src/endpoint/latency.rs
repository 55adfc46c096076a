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
    /// By what a sample's logarithm falls each ms: after `decay` it counts 1/e of what it did.
    fading: f32,
    /// What an instance without a sample is taken for while the others have none either, in seconds.
    default: f32,
    /// What a failed call counts for, at least.
    penalty: Duration,
    /// What calls of the set usually take.
    usual: Usual,
}

/// What calls of a set took lately, whoever answered: seconds and stamp as in [`Latency`].
///
/// What is not known of an instance is taken from here. All threads read it at each pick, so it is
/// written once a ms at most: over the answers that come first in theirs.
#[derive(Debug, Default)]
pub(crate) struct Usual(AtomicU64);

/// A moment, such as that when a call began: ns since the set's epoch, plus one. An `Option` of it is
/// one word, which calls carry about also when they are not timed. A call reads the clock as it
/// begins and as it ends, and what is told in other units is reckoned from these two: two moments of
/// the clock's own kind cost more to compare than to read.
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
    pub(crate) fn observe(&self, took: Duration, now: Mark, timing: &Timing) {
        let (took, at) = (seconds(took), now.stamp());
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
                let next = pack(smoothed, at);
                // Of several in one ms those count that took longer: under load most write nothing.
                (next != word).then_some(next)
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
    pub(crate) fn expected(&self, now: Mark, timing: &Timing) -> f64 {
        let expected = match unpack(self.0.load(Ordering::Relaxed)) {
            Some((known, stamp)) => {
                let kept = timing.kept(elapsed(stamp, now.stamp()));
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
    fn observe(&self, took: Duration, now: Mark, timing: &Timing) {
        let at = now.stamp();
        let word = self.0.load(Ordering::Relaxed);
        let took = seconds(took);
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
    /// After `decay` a sample counts 1/e of what it did. `default` is what an instance without one is
    /// taken for while the others have none either, `penalty` what a failed call counts for, at least.
    pub(crate) fn new(decay: Duration, default: Duration, penalty: Duration) -> Self {
        let decay = decay.as_secs_f32().max(f32::MIN_POSITIVE);
        Self {
            fading: -1.0 / 1e3 / decay,
            default: default.as_secs_f32(),
            penalty,
            usual: Usual::default(),
        }
    }

    /// What a failed call counts for, at least.
    pub(super) const fn penalty(&self) -> Duration {
        self.penalty
    }

    /// A call was answered after so long, whoever it was.
    #[inline]
    pub(super) fn observe(&self, took: Duration, now: Mark) {
        self.usual.observe(took, now, self);
    }

    /// What one is taken for of whom nothing is known.
    #[inline]
    fn elsewhere(&self) -> f32 {
        match unpack(self.usual.0.load(Ordering::Relaxed)) {
            Some((usual, _)) => usual * TRIED_SOONER,
            None => self.default,
        }
    }

    #[inline]
    fn kept(&self, ms: u32) -> f32 {
        if ms == 0 {
            return 1.0; // the usual case under load
        }
        let fading = ms as f32 * self.fading;
        if fading > -0.01 {
            return 1.0 + fading * (1.0 + fading / 2.0); // as exact as an f32 is
        }
        fading.exp()
    }
}

impl Mark {
    /// This moment, in one word.
    #[inline]
    pub(super) fn new(epoch: Instant, now: Instant) -> Self {
        let since = now.saturating_duration_since(epoch);
        let ns = since.as_secs().saturating_mul(1_000_000_000);
        let ns = ns.saturating_add(since.subsec_nanos().into());
        Self(NonZeroU64::MIN.saturating_add(ns))
    }

    /// In ms, as samples have it; never 0.
    #[inline]
    const fn stamp(self) -> u32 {
        match (self.0.get() / 1_000_000) as u32 {
            0 => 1,
            ms => ms,
        }
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

/// As [`Duration::as_secs_f32`], without its division.
#[inline]
fn seconds(took: Duration) -> f32 {
    took.as_secs() as f32 + took.subsec_nanos() as f32 * 1e-9
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

    fn timing() -> Timing {
        let ms = Duration::from_millis;
        Timing::new(ms(10_000), ms(30), ms(5_000))
    }

    /// So long after the epoch.
    fn at(after: Duration) -> Mark {
        let epoch = crate::endpoint::clock::now();
        Mark::new(epoch, epoch + after)
    }

    fn ms(ms: u64) -> Mark {
        at(Duration::from_millis(ms))
    }

    #[test]
    fn marks_are_in_order_and_stop_where_they_end() {
        let all = [ms(0), ms(1), ms(1_000), ms(86_400_000_000)];
        assert!(all.is_sorted());
        assert_eq!(ms(1_003).since(ms(1_001)), Duration::from_millis(2));
        assert_eq!(ms(1).since(ms(3)), Duration::ZERO);
        assert_eq!(ms(0).stamp(), 1);
        assert_eq!(ms(7_000).stamp(), 7_000);
        let epoch = crate::endpoint::clock::now();
        let earlier = Mark::new(epoch + Duration::from_secs(1), epoch);
        assert_eq!(earlier, Mark::new(epoch, epoch));
        for (took, expected) in [(0, 0.0), (1_500, 0.000_001_5), (3_250_000_000, 3.25)] {
            let took = seconds(Duration::from_nanos(took));
            assert!((took - expected).abs() <= expected * 1e-6, "{took}");
        }
    }

    #[test]
    fn what_is_kept_falls_smoothly() {
        let timing = timing();
        for ms in [0, 1, 2, 50, 99, 100, 101, 5_000, 60_000] {
            let exact = (-f64::from(ms) / 10_000.0).exp();
            let kept = f64::from(timing.kept(ms));
            assert!((kept - exact).abs() < 1e-6, "{ms} ms: {kept}, not {exact}");
        }
    }

    #[test]
    fn extreme_times_of_decay_make_no_nonsense() {
        for (decay, later) in [(Duration::ZERO, 0.009), (Duration::MAX, 0.5)] {
            let timing = Timing::new(decay, Duration::MAX, Duration::MAX);
            let latency = Latency::default();
            assert!(latency.expected(ms(5), &timing) > 1e18);
            timing.observe(Duration::from_millis(10), ms(5));
            latency.observe(Duration::from_millis(500), ms(5), &timing);
            assert!((latency.expected(ms(5), &timing) - 0.5).abs() < 1e-6);
            let expected = latency.expected(ms(6), &timing);
            assert!((expected - later).abs() < 0.1 * later, "{expected}");
        }
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let (latency, timing, start) = (Latency::default(), timing(), ms(0));
        assert!((latency.expected(start, &timing) - 0.03).abs() < 1e-6);
        latency.observe(Duration::from_millis(500), start, &timing);
        assert!((latency.expected(start, &timing) - 0.5).abs() < 1e-6);
        let later = ms(10_000);
        let faded = latency.expected(later, &timing);
        assert!((faded - 0.5 / std::f64::consts::E).abs() < 1e-3, "{faded}");
        latency.observe(Duration::from_millis(10), later, &timing);
        let smoothed = latency.expected(later, &timing);
        assert!((0.15..0.25).contains(&smoothed), "{smoothed}");
    }

    #[test]
    fn who_is_not_known_is_taken_for_what_calls_usually_take() {
        let (timing, start) = (timing(), ms(0));
        let (new, slow) = (Latency::default(), Latency::default());
        assert!((new.expected(start, &timing) - 0.03).abs() < 1e-6);
        // The first answer is a slow one, and does not count for long.
        timing.observe(Duration::from_secs(2), start);
        slow.observe(Duration::from_secs(2), start, &timing);
        for later in 1..=200 {
            timing.observe(Duration::from_millis(1), ms(later));
        }
        let soon = ms(200);
        let expected = new.expected(soon, &timing);
        assert!((0.000_8..0.001).contains(&expected), "{expected}");
        assert!(slow.expected(soon, &timing) > 1.9);
        // Nor does what it was taken for: its own first answer counts as it is.
        new.observe(Duration::from_millis(1), soon, &timing);
        let own = new.expected(soon, &timing);
        assert!((own - 0.001).abs() < 1e-6, "{own}");
        let late = ms(200_000);
        assert!(slow.expected(late, &timing) < 0.001, "it is tried again");
        // Nor is one fast for good that was so once.
        let fast = Latency::default();
        fast.observe(Duration::from_micros(10), soon, &timing);
        assert!(fast.expected(soon, &timing) < 0.000_02);
        let faded = fast.expected(late, &timing);
        assert!((0.000_8..0.001).contains(&faded), "{faded}");
    }

    #[test]
    fn a_peak_fades_also_in_a_process_that_has_run_for_months() {
        let (timing, sec) = (timing(), Duration::from_secs);
        for days in [1, 49, 50, 60, 99, 100, 700] {
            let latency = Latency::default();
            let start = sec(days * 24 * 3600);
            latency.observe(Duration::from_millis(500), at(start), &timing);
            let later = at(start + sec(20));
            let faded = latency.expected(later, &timing);
            assert!(faded < 0.1, "after {days} days {faded}");
            latency.observe(Duration::from_millis(10), later, &timing);
            assert!(latency.expected(later, &timing) < 0.1, "after {days} days");
            // Over the moment at which its stamps begin anew.
            let wrap = Duration::from_millis(u64::from(u32::MAX)) - sec(5);
            latency.observe(Duration::from_millis(500), at(wrap), &timing);
            let faded = latency.expected(at(wrap + sec(20)), &timing);
            assert!(faded < 0.1, "{faded}");
            // One that is told a little late is no reason to forget.
            let early = at(wrap - Duration::from_millis(3));
            assert!((latency.expected(early, &timing) - 0.5).abs() < 1e-6);
        }
    }
}
