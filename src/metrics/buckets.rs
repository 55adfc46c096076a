use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use ::metrics::histogram;

use crate::{
    metrics::recorder::{guarded, labels},
    model::ServiceKey,
};

/// Upper bounds of the buckets that durations are counted in, in seconds: those that OpenTelemetry
/// advises for `http.client.request.duration`, and 1 ms below them.
///
/// Durations are counted in these and told bucket by bucket, each with the mean of what fell into it, so
/// that counts and sums are exact for whoever has the same bounds. An exporter wants to be told: of
/// `metrics-exporter-prometheus` it is `set_buckets_for_metric(Matcher::Prefix("tower_nacos_".into()), &BUCKETS)`,
/// without which it makes summaries, which do not add up over processes.
pub const BUCKETS: [f64; 15] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// The same in ns.
const BOUNDS: [u64; BUCKETS.len()] = {
    let mut bounds = [0; BUCKETS.len()];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = (BUCKETS[at] * 1e6) as u64 * 1_000;
        at += 1;
    }
    bounds
};

/// Durations, counted without a lock: how many fell into each bucket, and their sum.
#[derive(Debug, Default)]
pub(crate) struct Buckets([Bucket; BUCKETS.len() + 1]);

#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU64,
    /// In ns.
    sum: AtomicU64,
}

/// What [`Buckets`] held when they were read: count and sum of each.
pub(crate) type Filled = [(u64, u64); BUCKETS.len() + 1];

impl Buckets {
    /// It took so long.
    #[inline]
    pub(crate) fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS.iter().position(|bound| took <= *bound);
        let bucket = &self.0[at.unwrap_or(BOUNDS.len())];
        bucket.count.fetch_add(1, Relaxed);
        bucket.sum.fetch_add(took, Relaxed);
    }

    /// Adds what fell into them so far.
    pub(crate) fn add_to(&self, filled: &mut Filled) {
        for (bucket, (count, sum)) in self.0.iter().zip(filled) {
            *count += bucket.count.load(Relaxed);
            *sum = sum.wrapping_add(bucket.sum.load(Relaxed));
        }
    }
}

/// What has been told of durations.
#[derive(Debug)]
pub(crate) struct ToldBuckets {
    name: &'static str,
    told: Filled,
}

impl ToldBuckets {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            told: [(0, 0); BUCKETS.len() + 1],
        }
    }

    /// Tells what came since, each bucket by the mean of what fell into it.
    pub(crate) fn tell(&mut self, key: &ServiceKey, filled: Filled) {
        let mut bound = 0.0;
        for (at, ((count, sum), (told, told_sum))) in filled.into_iter().zip(self.told).enumerate()
        {
            let (floor, ceiling) = (bound, BUCKETS.get(at).copied().unwrap_or(f64::INFINITY));
            bound = ceiling;
            let more = count.saturating_sub(told);
            let Ok(times @ 1..) = usize::try_from(more) else {
                continue;
            };
            let mean = sum.wrapping_sub(told_sum) as f64 / 1e9 / times as f64;
            // Count and sum are two words: a moment between them is no reason for another bucket.
            let mean = mean.clamp(floor, ceiling);
            guarded(|| histogram!(self.name, &labels(key)).record_many(mean, times));
        }
        self.told = filled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let cases = [
            (Duration::ZERO, 0),
            (Duration::from_millis(1), 0),
            (Duration::from_nanos(1_000_001), 1),
            (Duration::from_millis(25), 3),
            (Duration::from_secs(10), 14),
            (Duration::from_nanos(10_000_000_001), 15),
            (Duration::MAX, 15),
        ];
        for (took, wanted) in cases {
            let buckets = Buckets::default();
            buckets.observe(took);
            let mut filled = Filled::default();
            buckets.add_to(&mut filled);
            let at = filled.iter().position(|(count, _)| *count == 1);
            assert_eq!(at, Some(wanted), "{took:?}");
        }
    }
}
