use std::{cmp::Ordering, fmt};

/// The share of calls an instance asks for, relative to its siblings.
///
/// Always finite and within `0.0..=10_000.0`, the range that Nacos servers accept. `0.0` means
/// "listed, but gets no call". What a registry sent outside of that is brought into it, as Nacos's
/// own Java client does: NaN becomes `1.0`, infinity and anything above `10_000.0` becomes
/// `10_000.0`, a negative number becomes `0.0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight(f64);

impl Weight {
    /// The weight of an instance that states none: `1.0`.
    pub const ONE: Self = Self(1.0);
    /// Listed, but gets no call.
    pub const ZERO: Self = Self(0.0);
    /// The largest weight: `10_000.0`.
    pub const MAX: Self = Self(10_000.0);

    /// Brings any number into the range; see the type's documentation for the rules.
    pub fn new(value: f64) -> Self {
        if value.is_nan() {
            Self::ONE
        } else if value <= 0.0 {
            Self::ZERO // also −0.0, which would sort and divide differently
        } else {
            Self(value.min(Self::MAX.0))
        }
    }

    /// The weight as a number.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Whether this weight keeps every call away.
    pub fn is_zero(self) -> bool {
        self.0 == 0.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

impl Eq for Weight {}

impl PartialOrd for Weight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Weight {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl From<f64> for Weight {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_brought_into_range() {
        for (given, kept) in [
            (f64::NAN, 1.0),
            (f64::INFINITY, 10_000.0),
            (f64::NEG_INFINITY, 0.0),
            (1e308, 10_000.0),
            (-1.0, 0.0),
            (-0.0, 0.0),
            (0.001, 0.001),
            (7.5, 7.5),
        ] {
            assert_eq!(Weight::new(given).get(), kept, "{given}");
        }
        assert!(Weight::new(-0.0).get().is_sign_positive());
    }
}
