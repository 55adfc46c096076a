//! Which callers share the instances out among them. Pure.

use crate::balance::hash::{mix, stable_hash};

/// A caller, and what it knows of the others.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known {
    /// Itself only.
    Alone(u64),
    /// All of them.
    All(Lot),
}

/// The callers that share the instances out among them, so that each instance gets its share of them.
///
/// Not all: what one of them computes grows with their number. Those of one lot follow each other in the
/// order of their hashes, so who joins moves few from one lot to another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lot {
    /// The hashes of those in it, in order.
    pub(super) callers: Vec<u64>,
    /// Where the own one is.
    pub(super) own: usize,
    /// Which lot it is, and of how many.
    pub(super) at: usize,
    pub(super) of: usize,
    /// How many callers a lot has, on average.
    pub(super) mean: f64,
}

impl Known {
    /// The hash of the caller itself.
    pub(super) fn own(&self) -> u64 {
        match self {
            Self::Alone(own) => *own,
            Self::All(lot) => lot.callers[lot.own],
        }
    }
}

impl Lot {
    /// The lot of one caller among all; who is not in the list yet counts as if it were.
    pub(super) fn of(own: u64, all: impl Iterator<Item = u64>) -> Self {
        let mut all: Vec<u64> = all.chain([own]).collect();
        all.sort_unstable();
        all.dedup();
        let mut of = 1;
        while all.len() / (of * 2) >= SMALLEST {
            of *= 2;
        }
        let n = all.len();
        let lot = |rank: usize| rank * of / n;
        let rank = all.binary_search(&own).unwrap_or_default();
        let at = lot(rank);
        let first = (0..n).position(|rank| lot(rank) == at).unwrap_or_default();
        let callers: Vec<u64> = (first..n)
            .take_while(|rank| lot(*rank) == at)
            .map(|rank| all[rank])
            .collect();
        Self {
            callers,
            own: rank - first,
            at,
            of,
            mean: n as f64 / of as f64,
        }
    }
}

/// The hash of a caller's name.
pub(super) fn caller(name: &str) -> u64 {
    mix(stable_hash(name.as_bytes()) ^ CALLERS)
}

/// The hash of the caller at a place.
pub(super) const fn place(at: usize) -> u64 {
    mix((at as u64).wrapping_add(1).wrapping_mul(PLACES))
}

/// Callers that a lot has at least, if there are so many: of fewer the instances' shares are whole numbers
/// that are too small to share out evenly.
const SMALLEST: usize = 2_048;
/// So that a caller and an instance of one address are not alike.
const CALLERS: u64 = 0xa076_1d64_78bd_642f;
/// Odd: 2⁶⁴ ÷ the golden ratio.
const PLACES: u64 = 0x9e37_79b9_7f4a_7c15;
