//! Medians, percentiles, and the bootstrap.

/// The value below which the share `q` of `values` lies.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * q).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

pub(crate) fn max(values: &[f64]) -> f64 {
    quantile(values, 1.0)
}

/// The 95 % interval of the median by the bootstrap, from a fixed seed.
pub(crate) fn interval_of_median(values: &[f64]) -> (f64, f64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: usize| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let medians: Vec<f64> = (0..2_000)
        .map(|_| {
            let drawn: Vec<f64> = values.iter().map(|_| values[below(values.len())]).collect();
            median(&drawn)
        })
        .collect();
    (quantile(&medians, 0.025), quantile(&medians, 0.975))
}
