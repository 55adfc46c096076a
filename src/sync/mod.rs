//! The shared-memory primitives that the other rooms build on: a published value and atomics.
//!
//! Nothing here knows what it is used for.

pub(crate) mod atomic;
mod published;

pub(crate) use self::published::Published;
