//! What is known of one instance, and what follows from it.
//!
//! [`machine`] is all of the rules: no clock, no lock, no I/O. [`record`] is where an endpoint keeps
//! one, behind its lock. [`rules`] is what users may set.

pub(crate) mod machine;
pub(crate) mod record;
pub(crate) mod rules;

#[cfg(test)]
mod sequences;
#[cfg(test)]
mod tests;
