//! Each caller calls a part of the instances only.

mod keys;
mod lot;
mod options;
mod part;
mod share;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use self::options::{InvalidSubset, Subset};
pub(super) use self::{
    options::Crowd,
    part::{Kept, Narrow, Part},
};
