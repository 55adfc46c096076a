use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use crate::{
    balance::{Random, Selector, hash::mix, hints::SPILL_BELOW, selector::Scope},
    model::Instance,
    sync::Published,
};

/// Which part of the calls goes to which instances, by their metadata: 5 % to `version=2`.
///
/// Made by [`Shares::new`], [`Shares::with_rest`], or from text, which is what a configuration or an
/// instance's metadata has:
///
/// ```
/// use tower_nacos::balance::Shares;
///
/// let shares: Shares = "version=2: 5 %, version=1: 95 %".parse()?;
/// let same = Shares::new([(5.0, ("version", "2")), (95.0, ("version", "1"))])?;
/// assert_eq!(shares, same);
/// // `*` is whoever matches none of the others.
/// let rest: Shares = "version=2&zone=a: 0.5, *: 99.5".parse()?;
/// assert_eq!(rest, Shares::with_rest([(0.5, [("version", "2"), ("zone", "a")])])?);
/// # Ok::<(), tower_nacos::balance::SplitError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// In the order in which they were named.
    arms: Box<[Arm]>,
}

/// A part of the calls.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arm {
    /// In percent.
    pub(super) percent: f64,
    /// What is drawn below this, of 1, goes here or to one before.
    up_to: f64,
    pub(super) scope: Scope,
}

/// Divides the calls of balancers among instances by their metadata, for a gray release by share.
///
/// Give it to [`split`](crate::balance::BalanceBuilder::split), keep a clone, and
/// [`set`](Self::set) other shares while it runs: the next pick follows, nothing is built anew but
/// the tables of instances that were not asked for before. Clones share one state, and one split may
/// serve any number of balancers.
///
/// A call with a hash key sticks to its part by the key, also with other callers and after a restart, and
/// when a part that was named first grows, the keys that it had stay in it. A call without one is
/// drawn anew. A request whose hints name metadata or a cluster has chosen for itself, and takes no
/// part; excluding instances leaves it in.
///
/// A part of whom nobody is listed, or open, goes to everybody; one that lost instances keeps as many calls
/// as they can be expected to take ([`spill_below`](Self::spill_below)), and the rest goes to everybody
/// by weight. So no part of the calls fails for want of its instances.
///
/// Costs a call one look at the shares and, like `Hints`, at a table of each part: no allocation and
/// no lock. Parts are 16 at most, beside the rest.
#[derive(Clone)]
pub struct TrafficSplit {
    inner: Arc<Inner>,
}

struct Inner {
    shares: Published<Shares>,
    spill_below: OnceLock<f64>,
}

/// Why shares are none. Nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// A share is no number from 0 to 100.
    #[error("the share of {part} is {share:?}: not a number from 0 to 100, in percent")]
    #[non_exhaustive]
    NotAPercentage {
        /// Whose.
        part: String,
        /// What is said of it.
        share: String,
    },
    /// They do not add up.
    #[error("the shares add up to {sum} %, and have to make {expected}: {shares}")]
    #[non_exhaustive]
    Sum {
        /// What they add up to.
        sum: f64,
        /// What they should.
        expected: &'static str,
        /// All of them.
        shares: String,
    },
    /// A selector asks for nothing, or for two values of one key.
    #[error("no instance can be meant by {selector:?}: {reason}")]
    #[non_exhaustive]
    Selector {
        /// Which.
        selector: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are two shares of the same instances.
    #[error("there are two shares of {part}")]
    #[non_exhaustive]
    Twice {
        /// Of which.
        part: String,
    },
    /// Instances of one part say different things of its share.
    #[error("the instances of {part} say different things of its share: {shares}")]
    #[non_exhaustive]
    Disagree {
        /// Of which.
        part: String,
        /// What they say.
        shares: String,
    },
    /// There are more parts than 16.
    #[error("{parts} parts, and 16 are the most")]
    #[non_exhaustive]
    TooMany {
        /// How many.
        parts: usize,
    },
    /// The text is not `key=value: percent, …`.
    #[error("{text:?} is not \"key=value: percent\"")]
    #[non_exhaustive]
    Syntax {
        /// The part that is not.
        text: String,
    },
}

impl Shares {
    /// These, in percent, which have to add up to 100 (to a thousandth).
    ///
    /// # Errors
    ///
    /// They do not, or one is no number from 0 to 100; a selector is empty or contradicts itself, or
    /// there twice; they are more than 16.
    pub fn new<T: Into<Selector>>(
        parts: impl IntoIterator<Item = (f64, T)>,
    ) -> Result<Self, SplitError> {
        let parts = parts.into_iter();
        Self::of(parts.map(|(p, s)| (p, Some(s.into()))).collect())
    }

    /// These, in percent, at most 100 together; what they leave goes to the instances that match none
    /// of them.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but that they need not make 100.
    pub fn with_rest<T: Into<Selector>>(
        parts: impl IntoIterator<Item = (f64, T)>,
    ) -> Result<Self, SplitError> {
        let parts = parts.into_iter();
        let mut parts: Vec<_> = parts.map(|(p, s)| (p, Some(s.into()))).collect();
        let sum: f64 = parts.iter().map(|(percent, _)| percent).sum();
        let mut named = parts.iter().map(|(percent, _)| percent);
        if named.all(|percent| (0.0..=100.0).contains(percent)) {
            if sum > 100.0 + SLACK {
                return Err(SplitError::sum(sum, "100 at most", &parts));
            }
            parts.push(((100.0 - sum).max(0.0), None));
        }
        Self::of(parts)
    }

    /// Everybody gets everything, by weight: no split.
    pub fn none() -> Self {
        Self::default()
    }

    /// What instances say themselves, in their metadata: those that have one value of `by` are a part,
    /// and its share is what they say in `share`, in percent. Those that say nothing share what is left.
    ///
    /// # Errors
    ///
    /// What is said is no number from 0 to 100; instances of one part disagree; the shares are more than
    /// 100 together, or less where nobody is left to take the rest; there are more than 16.
    pub fn of_instances<'a>(
        by: &str,
        share: &str,
        instances: impl IntoIterator<Item = &'a Instance>,
    ) -> Result<Self, SplitError> {
        let mut parts = BTreeMap::<&str, Option<&str>>::new();
        let mut others = false;
        for instance in instances {
            let metadata = instance.metadata();
            let Some(value) = metadata.get(by) else {
                others = true;
                continue;
            };
            let part = parts.entry(value).or_default();
            let told = metadata.get(share).map(str::trim);
            if let (Some(before), Some(now)) = (*part, told)
                && before != now
            {
                return Err(SplitError::Disagree {
                    part: format!("{by}={value}"),
                    shares: format!("{before}, {now}"),
                });
            }
            *part = part.or(told);
        }
        others |= parts.values().any(Option::is_none);
        let told = parts.into_iter().filter_map(|(value, share)| {
            let share = share?;
            let percent = parse(share);
            let percent =
                percent.ok_or_else(|| SplitError::percentage(format!("{by}={value}"), share));
            Some(percent.map(|percent| (percent, Selector::from((by, value)))))
        });
        let told = told.collect::<Result<Vec<_>, _>>()?;
        match (told.is_empty(), others) {
            (true, _) => Ok(Self::none()),
            (false, true) => Self::with_rest(told),
            (false, false) => Self::new(told),
        }
    }

    /// `None` is whoever matches none of the others.
    fn of(parts: Vec<(f64, Option<Selector>)>) -> Result<Self, SplitError> {
        let named = parts.iter().filter(|(_, selector)| selector.is_some());
        let named = named.count();
        if named > MOST_PARTS {
            return Err(SplitError::TooMany { parts: named });
        }
        for (at, (percent, selector)) in parts.iter().enumerate() {
            if !(0.0..=100.0).contains(percent) {
                return Err(SplitError::percentage(name(selector), percent));
            }
            if let Some(selector) = selector {
                check(selector)?;
            }
            if parts[..at].iter().any(|(_, other)| other == selector) {
                let part = name(selector);
                return Err(SplitError::Twice { part });
            }
        }
        let sum: f64 = parts.iter().map(|(percent, _)| percent).sum();
        if (sum - 100.0).abs() > SLACK {
            return Err(SplitError::sum(sum, "100", &parts));
        }
        let named: Arc<[Selector]> = parts.iter().filter_map(|(_, s)| s.clone()).collect();
        let mut below = 0.0;
        let last = parts.iter().rposition(|(percent, _)| *percent > 0.0);
        let arms = parts
            .into_iter()
            .enumerate()
            .map(|(at, (percent, selector))| {
                below += percent / 100.0;
                Arm {
                    percent,
                    up_to: if Some(at) == last {
                        f64::INFINITY
                    } else {
                        below
                    },
                    scope: match selector {
                        Some(selector) => Scope::new(None, Some(selector)),
                        None => Scope::outside(Arc::clone(&named)),
                    },
                }
            });
        Ok(Self {
            arms: arms.collect(),
        })
    }

    /// The parts: who gets how many percent; `None` is whoever matches none of the others.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (f64, Option<&Selector>)> {
        let arms = self.arms.iter();
        arms.map(|arm| (arm.percent, arm.scope.selector.as_ref()))
    }

    pub(super) fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The part that a number from 0 to 1 falls to; `None` if there are none.
    #[inline]
    pub(super) fn drawn(&self, unit: f64) -> Option<&Arm> {
        self.arms.iter().find(|arm| unit < arm.up_to)
    }
}

impl TrafficSplit {
    /// With these shares.
    pub fn new(shares: Shares) -> Self {
        Self {
            inner: Arc::new(Inner {
                shares: Published::new(Arc::new(shares)),
                spill_below: OnceLock::new(),
            }),
        }
    }

    /// What part of its usual weight has to be open for a part of the calls to go to its instances
    /// whole; what [`Hints::spill_below`](crate::balance::Hints::spill_below) says holds here. Default:
    /// 0.7, so that the one survivor of a version does not get all of its calls; 0 for never. Once.
    #[must_use]
    pub fn spill_below(self, part: f64) -> Self {
        let part = if part.is_nan() {
            SPILL_BELOW
        } else {
            part.clamp(0.0, 1.0)
        };
        let _ = self.inner.spill_below.set(part);
        self
    }

    /// Other shares, from the next pick on, for all balancers that have a clone of this.
    pub fn set(&self, shares: Shares) {
        self.inner.shares.store(Arc::new(shares));
    }

    /// The shares that hold now.
    pub fn shares(&self) -> Arc<Shares> {
        let shares = self.inner.shares.load_full();
        shares.expect("a split is made with shares, which are only ever replaced")
    }

    pub(super) fn spills_below(&self) -> Option<f64> {
        let part = self.inner.spill_below.get().copied();
        Some(part.unwrap_or(SPILL_BELOW)).filter(|part| *part > 0.0)
    }

    pub(super) fn published(&self) -> &Published<Shares> {
        &self.inner.shares
    }
}

/// The numbers that decide which part a call is of: its key's, so that the key sticks, or any. Not
/// those by which a key chooses its tier or instance, which would be the same ones for a part each.
#[inline]
pub(super) fn dice(key: Option<u64>, random: &mut Random) -> Random {
    match key {
        Some(key) => Random::seeded(mix(key ^ APART)),
        None => Random::seeded(random.next_u64()),
    }
}

/// `5`, `5%` or `5 %`.
fn parse(percent: &str) -> Option<f64> {
    let number = percent.strip_suffix('%').unwrap_or(percent);
    let number = number.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number)
}

fn check(selector: &Selector) -> Result<(), SplitError> {
    let reason = if selector.is_empty() {
        "it asks for nothing"
    } else if selector.contradiction().is_some() {
        "it asks for two values of one key"
    } else {
        return Ok(());
    };
    Err(SplitError::Selector {
        selector: selector.to_string(),
        reason,
    })
}

fn name(selector: &Option<Selector>) -> String {
    match selector {
        Some(selector) => selector.to_string(),
        None => "the rest (*)".to_owned(),
    }
}

impl SplitError {
    fn percentage(part: String, share: impl fmt::Display) -> Self {
        let share = share.to_string();
        Self::NotAPercentage { part, share }
    }

    fn sum(sum: f64, expected: &'static str, parts: &[(f64, Option<Selector>)]) -> Self {
        let shares = parts.iter().map(|(percent, selector)| {
            let name = name(selector);
            format!("{name}: {percent}")
        });
        Self::Sum {
            sum,
            expected,
            shares: shares.collect::<Vec<_>>().join(", "),
        }
    }
}

impl FromStr for Shares {
    type Err = SplitError;

    fn from_str(text: &str) -> Result<Self, SplitError> {
        if text.trim().is_empty() {
            return Ok(Self::none());
        }
        let syntax = |text: &str| SplitError::Syntax {
            text: text.trim().to_owned(),
        };
        let part = |part: &str| {
            let (who, share) = part.rsplit_once(':').ok_or_else(|| syntax(part))?;
            let number = share.trim().trim_end_matches('%').trim_end();
            let percent = number.parse::<f64>();
            let who = who.trim();
            let percent =
                percent.map_err(|_| SplitError::percentage(who.to_owned(), share.trim()))?;
            if who == "*" {
                return Ok((percent, None));
            }
            let pairs = who.split('&').map(|pair| {
                let (key, value) = pair.split_once('=').ok_or_else(|| syntax(part))?;
                Ok((key.trim(), value.trim()))
            });
            let pairs: Result<Vec<_>, SplitError> = pairs.collect();
            Ok((percent, Some(Selector::new(pairs?))))
        };
        let parts: Result<Vec<_>, SplitError> = text.split(',').map(part).collect();
        Self::of(parts?)
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, arm) in self.arms.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            f.write_str(comma)?;
            match &arm.scope.selector {
                Some(selector) => {
                    for (at, (key, value)) in selector.pairs().enumerate() {
                        let and = if at > 0 { "&" } else { "" };
                        write!(f, "{and}{key}={value}")?;
                    }
                }
                None => f.write_str("*")?,
            }
            write!(f, ": {} %", arm.percent)?;
        }
        Ok(())
    }
}

impl fmt::Debug for TrafficSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrafficSplit({})", self.shares())
    }
}

const MOST_PARTS: usize = 16;
/// By how many percent a sum may be off: thirds are written with three digits at least.
const SLACK: f64 = 0.001;
const APART: u64 = 0x5bd1_e995_9b97_f4a7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_adds_up_is_taken_and_comes_back_as_text() {
        let texts = [
            "version=2: 5 %, version=1: 95 %",
            "version=2: 0.5 %, *: 99.5 %",
            "version=2&zone=a: 100 %",
            "a=1: 33.333 %, a=2: 33.333 %, a=3: 33.334 %",
            "a=b:c: 0 %, *: 100 %",
            "",
        ];
        for text in texts {
            let shares: Shares = text.parse().unwrap();
            assert_eq!(shares.to_string(), text);
        }
        let terse: Shares = "version=2:5,version=1:95%".parse().unwrap();
        assert_eq!(terse.to_string(), texts[0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_told() {
        let cases = [
            (
                "version=2: 5, version=1: 90",
                "add up to 95 %, and have to make 100: version=2: 5, version=1: 90",
            ),
            ("version=2: 60, *: 60", "add up to 120 %"),
            (
                "version=2: five, *: 95",
                "the share of version=2 is \"five\": not a number",
            ),
            ("version=2: NaN, *: 95", "the share of version=2 is \"NaN\""),
            ("version=2: inf, *: 95", "the share of version=2 is \"inf\""),
            ("version=2: -5, *: 105", "the share of version=2 is \"-5\""),
            ("version=2: , *: 95", "the share of version=2 is \"\""),
            (
                "version=2, *: 95",
                "\"version=2\" is not \"key=value: percent\"",
            ),
            ("version: 5, *: 95", "\"version: 5\" is not"),
            ("version=2: 5, version=2: 95", "two shares of version=2"),
            ("*: 50, *: 50", "two shares of the rest"),
            ("version=2&version=3: 5, *: 95", "two values of one key"),
            ("5", "\"5\" is not"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Shares>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let all = Selector::new::<&str, &str>([]);
        assert!(matches!(
            Shares::new([(100.0, all)]),
            Err(SplitError::Selector { .. })
        ));
        let most = (0..16).map(|at| (6.25, ("shard", at.to_string())));
        assert!(Shares::new(most).is_ok());
        let many = (0..17).map(|at| (1.0, ("shard", at.to_string())));
        assert_eq!(
            Shares::with_rest(many).unwrap_err(),
            SplitError::TooMany { parts: 17 }
        );
        let many = (0..40).map(|at| (2.5, ("shard", at.to_string())));
        assert_eq!(
            Shares::new(many).unwrap_err(),
            SplitError::TooMany { parts: 40 }
        );
        let error = Shares::with_rest([(70.0, ("a", "1")), (40.0, ("a", "2"))]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("110 %, and have to make 100 at most"),
            "{error}"
        );
        for percent in [f64::NAN, f64::INFINITY, -1.0, 100.5] {
            let error = Shares::with_rest([(percent, ("a", "1"))]).unwrap_err();
            assert!(
                matches!(error, SplitError::NotAPercentage { .. }),
                "{error}"
            );
        }
    }

    fn versions(list: &[(&str, &str)]) -> Result<String, String> {
        let instances = list.iter().enumerate().map(|(at, (version, share))| {
            let pairs = [("version", *version), ("share", *share)];
            let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
            let instance = Instance::parse(&format!("10.0.0.{at}:80")).unwrap();
            instance.with_metadata(pairs.collect())
        });
        let instances: Vec<_> = instances.collect();
        let shares = Shares::of_instances("version", "share", &instances);
        shares.map(|s| s.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn instances_may_say_what_their_version_gets() {
        let taken: [(&[(&str, &str)], &str); 6] = [
            (&[("1", ""), ("2", "5")], "version=2: 5 %, *: 95 %"),
            (
                &[("1", ""), ("2", " 5 % "), ("2", ""), ("", "7")],
                "version=2: 5 %, *: 95 %",
            ),
            (
                &[("1", "90"), ("2", "10"), ("1", "90")],
                "version=1: 90 %, version=2: 10 %",
            ),
            (&[("1", ""), ("2", "")], ""),
            (&[], ""),
            (
                &[("2", "100"), ("1", "0")],
                "version=1: 0 %, version=2: 100 %",
            ),
        ];
        for (list, expected) in taken {
            assert_eq!(versions(list).as_deref(), Ok(expected), "{list:?}");
        }
        let refused: [(&[(&str, &str)], &str); 5] = [
            (
                &[("1", ""), ("2", "few")],
                "the share of version=2 is \"few\": not a number",
            ),
            (
                &[("1", ""), ("2", "NaN")],
                "the share of version=2 is \"NaN\"",
            ),
            (
                &[("2", "5"), ("2", "6")],
                "version=2 say different things of its share: 5, 6",
            ),
            (
                &[("1", "90"), ("2", "5")],
                "add up to 95 %, and have to make 100",
            ),
            (
                &[("1", "90"), ("2", "20"), ("3", "")],
                "110 %, and have to make 100 at most",
            ),
        ];
        for (list, expected) in refused {
            let error = versions(list).unwrap_err();
            assert!(error.contains(expected), "{list:?}: {error}");
        }
    }

    #[test]
    fn each_part_is_drawn_as_often_as_it_says() {
        let shares: Shares = "v=2: 5, v=3: 0, *: 95, v=4: 0".parse().unwrap();
        let at = |unit| {
            let arm = shares.drawn(unit).unwrap();
            shares.arms.iter().position(|other| other == arm).unwrap()
        };
        for (unit, arm) in [(0.0, 0), (0.0499, 0), (0.0501, 2), (0.999_999_999, 2)] {
            assert_eq!(at(unit), arm, "{unit}");
        }
        assert!(Shares::none().drawn(0.5).is_none());
        let whole: Shares = "v=2: 0, v=3: 100".parse().unwrap();
        assert_eq!(whole.drawn(0.0).unwrap().percent, 100.0);
    }
}
