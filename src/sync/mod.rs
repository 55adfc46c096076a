//! The shared-memory primitives that the other rooms build on: a published value, a set of wakers,
//! and atomics.
//!
//! Nothing here knows what it is used for.

pub(crate) mod atomic;
mod published;
mod wakers;

pub(crate) use self::{
    published::{Published, PublishedRef},
    wakers::{Ticket, Wakers, guarded},
};
