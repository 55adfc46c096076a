//! The shared-memory primitives that the other rooms build on: a published value, a set of wakers,
//! atomics, and a task's budget.
//!
//! Nothing here knows what it is used for.

pub(crate) mod atomic;
mod bell;
mod budget;
mod published;
mod wakers;

pub(crate) use self::{
    bell::Bell,
    budget::{poll_budget, poll_within_budget},
    published::{Published, PublishedRef},
    wakers::{Ticket, Wakers, guarded},
};
