//! Medians of rounds that took turns.

/// A quantity of both sides, round by round.
pub(crate) struct Paired {
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    /// The median of each round's ratio.
    pub(crate) peer_over_ours: f64,
    /// 95 % interval of that median, by order statistics: it assumes nothing of the distribution.
    pub(crate) interval: (f64, f64),
    pub(crate) middle_half: (f64, f64),
}

impl Paired {
    pub(crate) fn new<T>(ours: &[T], peer: &[T], of: fn(&T) -> f64) -> Self {
        let mut ratios: Vec<f64> = ours.iter().zip(peer).map(|(o, p)| of(p) / of(o)).collect();
        ratios.sort_by(f64::total_cmp);
        let n = ratios.len();
        let below = rank(n);
        Self {
            ours: median(ours.iter().map(of)),
            peer: median(peer.iter().map(of)),
            peer_over_ours: ratios[n / 2],
            interval: (ratios[below], ratios[n - 1 - below]),
            middle_half: (ratios[n / 4], ratios[n * 3 / 4]),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many values to leave out at either end: the most k with P(at most k of n below the median)
/// under 2.5 %.
fn rank(n: usize) -> usize {
    let (mut term, mut sum) = (0.5_f64.powi(n as i32), 0.0);
    for k in 0..n {
        sum += term;
        if sum > 0.025 {
            return k.saturating_sub(1).min((n - 1) / 2);
        }
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    0
}
