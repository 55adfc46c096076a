//! Who does worse than it should, from what came of everybody's calls in one interval. Pure.
//!
//! The two algorithms of gRFC A50 and of Envoy's outlier detection, whose names, defaults and edges
//! these are (success rate: below; failure percentage: at or above).

use std::fmt;

use crate::endpoint::health::rules::{FailurePercentage, Outliers, SuccessRate};

/// What came of one instance's calls in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) good: u32,
    pub(super) bad: u32,
}

/// Why one is to be ejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Charge {
    /// It succeeds so often, and had to above that.
    SuccessRate { rate: f64, threshold: f64 },
    /// It fails so often, and had to below that.
    FailurePercentage { part: f64, threshold: f64 },
}

/// Who is to be ejected, by their places: first by success rate, then by failure percentage, the worst
/// first, each once. `enforce` says of a probability whether it comes true.
pub(super) fn judge(
    tallies: &[Tally],
    rules: &Outliers,
    mut enforce: impl FnMut(f64) -> bool,
) -> Vec<(usize, Charge)> {
    let mut charged = Vec::new();
    if let Some(rule) = &rules.success_rate {
        by_success_rate(tallies, rule, &mut enforce, &mut charged);
    }
    if let Some(rule) = &rules.failure_percentage {
        by_failure_percentage(tallies, rule, &mut enforce, &mut charged);
    }
    charged
}

fn by_success_rate(
    tallies: &[Tally],
    rule: &SuccessRate,
    mut enforce: impl FnMut(f64) -> bool,
    charged: &mut Vec<(usize, Charge)>,
) {
    let busy = busy(tallies, rule.calls);
    if busy.is_empty() || busy.len() < rule.instances {
        return;
    }
    let count = busy.len() as f64;
    let mean = busy.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = busy.iter().map(|(_, rate)| (rate - mean).powi(2));
    let deviation = (variance.sum::<f64>() / count).sqrt();
    let threshold = mean - deviation * rule.deviations;
    // Of five of whom one had a single failure, that one is two deviations below the mean.
    let threshold = threshold.min(mean - rule.margin);
    for (at, rate) in busy {
        // Of equals none is below the mean, but for rounding.
        if rate < threshold - ROUNDING && enforce(rule.enforced) {
            charged.push((at, Charge::SuccessRate { rate, threshold }));
        }
    }
}

fn by_failure_percentage(
    tallies: &[Tally],
    rule: &FailurePercentage,
    mut enforce: impl FnMut(f64) -> bool,
    charged: &mut Vec<(usize, Charge)>,
) {
    let busy = busy(tallies, rule.calls);
    if busy.len() < rule.instances {
        return;
    }
    let threshold = rule.threshold;
    for (at, rate) in busy {
        let part = 1.0 - rate;
        let known = charged.iter().any(|(other, _)| *other == at);
        if !known && part >= threshold - ROUNDING && enforce(rule.enforced) {
            charged.push((at, Charge::FailurePercentage { part, threshold }));
        }
    }
}

/// Those that had so many calls, one at least, and what part of them went well; the worst first.
fn busy(tallies: &[Tally], calls: u32) -> Vec<(usize, f64)> {
    let mut busy: Vec<(usize, f64)> = tallies
        .iter()
        .enumerate()
        .filter(|(_, tally)| tally.total() >= u64::from(calls.max(1)))
        .map(|(at, tally)| (at, f64::from(tally.good) / tally.total() as f64))
        .collect();
    busy.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    busy
}

impl Tally {
    fn total(self) -> u64 {
        u64::from(self.good) + u64::from(self.bad)
    }
}

impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: f64| part * 100.0;
        match self {
            Self::SuccessRate { rate, threshold } => write!(
                f,
                "{:.1} % of its calls went well, which is below {:.1} %, by what the others do",
                percent(*rate),
                percent(*threshold)
            ),
            Self::FailurePercentage { part, threshold } => write!(
                f,
                "{:.1} % of its calls failed, which is {:.1} % or more",
                percent(*part),
                percent(*threshold)
            ),
        }
    }
}

/// Sums of equal numbers are off by less than this.
const ROUNDING: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: SuccessRate = SuccessRate {
        deviations: 1.9,
        margin: 0.0,
        instances: 5,
        calls: 100,
        enforced: 1.0,
    };
    const PERCENTAGE: FailurePercentage = FailurePercentage {
        threshold: 0.85,
        instances: 5,
        calls: 50,
        enforced: 1.0,
    };

    /// Instances that had so many calls, so many of which went well.
    fn tallies(calls: &[(u32, u32)]) -> Vec<Tally> {
        calls
            .iter()
            .map(|(calls, good)| Tally {
                good: *good,
                bad: calls - good,
            })
            .collect()
    }

    fn charged(
        calls: &[(u32, u32)],
        rate: Option<SuccessRate>,
        percentage: Option<FailurePercentage>,
    ) -> Vec<(usize, Charge)> {
        let rules = Outliers {
            success_rate: rate,
            failure_percentage: percentage,
            ..Outliers::new()
        };
        judge(&tallies(calls), &rules, |part| part >= 1.0)
    }

    fn places(charged: Vec<(usize, Charge)>) -> Vec<usize> {
        charged.into_iter().map(|(at, _)| at).collect()
    }

    /// What it is, how many of each instance went well and badly, and who is out after that.
    type Case<'a> = (&'a str, &'a [(u32, u32)], &'a [usize]);

    /// Envoy's own: rates of 50, 100, 100, 100 and 100 % make a mean of 90 and a threshold of 52.
    #[test]
    fn the_threshold_is_the_mean_less_so_many_deviations() {
        let calls = [(100, 50), (100, 100), (100, 100), (100, 100), (100, 100)];
        let charged = charged(&calls, Some(RATE), None);
        let [(0, Charge::SuccessRate { rate, threshold })] = charged[..] else {
            panic!("{charged:?}");
        };
        assert!((threshold - 0.52).abs() < 1e-9 && rate == 0.5);
    }

    #[test]
    fn success_rates_are_judged_as_a50_and_envoy_say() {
        let good = (100, 100);
        let cases: [Case<'_>; 9] = [
            (
                "one that fails always",
                &[good, good, (100, 0), good, good],
                &[2],
            ),
            ("all well", &[good; 5], &[]),
            ("all the same, and bad", &[(300, 100); 5], &[]),
            ("four are too few", &[good, good, (100, 0), good], &[]),
            (
                "four with enough calls are too few",
                &[good, good, (100, 0), good, (99, 99)],
                &[],
            ),
            (
                "who had too few calls is not judged",
                &[good, good, good, good, good, (99, 0)],
                &[],
            ),
            (
                "half of them are no outliers",
                &[good, (100, 0), good, (100, 0), good, (100, 0)],
                &[],
            ),
            (
                "the worst first",
                &[
                    good,
                    (100, 30),
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    (100, 0),
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                ],
                &[9, 1],
            ),
            ("no calls at all", &[(0, 0); 5], &[]),
        ];
        for (name, calls, expected) in cases {
            assert_eq!(places(charged(calls, Some(RATE), None)), expected, "{name}");
        }
        // Three are too few for deviations: a single one is never more than √2 of them below.
        let of_three = SuccessRate {
            instances: 3,
            ..RATE
        };
        let three = [good, (100, 0), good];
        assert!(charged(&three, Some(of_three), None).is_empty());
        let nobody = SuccessRate {
            instances: 0,
            calls: 0,
            ..RATE
        };
        assert!(charged(&[(0, 0); 3], Some(nobody), None).is_empty());
        assert!(charged(&[], Some(nobody), None).is_empty());
    }

    /// What A50 would do with one bad request in 5,000 is not what it is for.
    #[test]
    fn a_single_failure_is_within_the_margin() {
        let calls = [
            (1_000, 999),
            (1_000, 1_000),
            (1_000, 1_000),
            (1_000, 1_000),
            (1_000, 1_000),
        ];
        assert_eq!(
            places(charged(&calls, Some(RATE), None)),
            [0],
            "A50 as it is"
        );
        let with_margin = SuccessRate {
            margin: 0.05,
            ..RATE
        };
        assert!(charged(&calls, Some(with_margin), None).is_empty());
        let calls = [
            (1_000, 900),
            (1_000, 1_000),
            (1_000, 1_000),
            (1_000, 1_000),
            (1_000, 1_000),
        ];
        assert_eq!(places(charged(&calls, Some(with_margin), None)), [0]);
    }

    #[test]
    fn failure_percentages_are_judged_as_a50_and_envoy_say() {
        let good = (50, 50);
        let cases: [Case<'_>; 6] = [
            ("above", &[good, good, good, good, (50, 0)], &[4]),
            ("at it", &[(100, 15), good, good, good, good], &[0]),
            ("just below", &[(100, 16), good, good, good, good], &[]),
            ("too few instances", &[good, good, good, (50, 0)], &[]),
            (
                "too few calls",
                &[good, good, good, good, good, (49, 0)],
                &[],
            ),
            ("all of them", &[(50, 0); 5], &[0, 1, 2, 3, 4]),
        ];
        for (name, calls, expected) in cases {
            let charged = charged(calls, None, Some(PERCENTAGE));
            assert_eq!(places(charged), expected, "{name}");
        }
        let of_three = FailurePercentage {
            instances: 3,
            ..PERCENTAGE
        };
        let three = [good, (50, 5), good];
        assert_eq!(
            places(charged(&three, None, Some(of_three))),
            [1],
            "one bad of three"
        );
    }

    #[test]
    fn who_is_charged_with_both_is_ejected_once() {
        let good = (100, 100);
        let calls = [good, good, good, good, (100, 0)];
        let charged = charged(&calls, Some(RATE), Some(PERCENTAGE));
        assert!(matches!(charged[..], [(4, Charge::SuccessRate { .. })]));
        let text = charged[0].1.to_string();
        assert_eq!(
            text,
            "0.0 % of its calls went well, which is below 4.0 %, by what the others do"
        );
    }

    #[test]
    fn enforcement_is_a_probability_for_each() {
        let good = (100, 100);
        let calls = tallies(&[good, good, good, good, (100, 0)]);
        let rules = Outliers {
            success_rate: Some(SuccessRate {
                enforced: 0.25,
                ..RATE
            }),
            failure_percentage: Some(PERCENTAGE),
            ..Outliers::new()
        };
        let mut asked = Vec::new();
        let charged = judge(&calls, &rules, |part| {
            asked.push(part);
            part >= 1.0
        });
        assert_eq!(
            asked,
            [0.25, 1.0],
            "spared by one rule it may be charged by the other"
        );
        assert!(matches!(
            charged[..],
            [(4, Charge::FailurePercentage { .. })]
        ));
    }
}
