use std::fmt;

use crate::balance::Selector;

/// Why shares are none. Nothing was changed.
///
/// Example: [shares](crate::balance::Shares)
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

impl SplitError {
    pub(super) fn percentage(part: String, share: impl fmt::Display) -> Self {
        let share = share.to_string();
        Self::NotAPercentage { part, share }
    }

    pub(super) fn sum(sum: f64, expected: &'static str, parts: &[(f64, Option<Selector>)]) -> Self {
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

/// A part in words; `None` is the rest.
pub(super) fn name(selector: &Option<Selector>) -> String {
    match selector {
        Some(selector) => selector.to_string(),
        None => "the rest (*)".to_owned(),
    }
}
