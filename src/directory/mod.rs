//! The local copy of the registry: what it listed, made into snapshots that readers share.
//!
//! One [`Writer`] per service applies lists; any number of [`Subscription`]s hold cheap clones of
//! immutable [`Snapshot`]s. Time is an argument everywhere.
//!
//! A list goes through: admission (order, duplicates, identity), what the [collapse guard](crate::guide::glossary) holds, then
//! per distinct selection the health ladder, a snapshot, the difference to the one before, and
//! publication: gates close, the snapshot is published, gates open, tasks are woken.
//!
//! # Who needs what
//!
//! | you | take |
//! |---|---|
//! | call services | [`Subscription`], and of it [`Snapshot`], [`Change`], [`Status`], [`SubscriptionExplanation`]; [`Options`] when the defaults do not fit |
//! | test without a registry | [`channel`] and its [`Writer`], which is fed by hand; or [`Subscription::fixed`] |
//! | write a balancer that keeps something for each instance | [`Snapshot`], and [`Generation`], which tells a restarted instance from the one before at the same address |
//! | write one that must stop calls at the very moment of an eviction, as [`Balance`](crate::Balance) does | [`Consumer`] and [`Transition`], which are called while a list is published. Nobody else needs them |

mod admit;
mod apply;
mod cause;
mod change;
mod changes;
mod consumer;
mod counters;
mod diff;
mod digest;
mod explain;
mod flapping;
mod guard;
mod handle;
mod health;
mod hint;
mod ladder;
mod leaving;
mod marks;
mod merge;
mod options;
mod outbox;
mod owner;
mod publish;
mod restore;
mod selection;
mod services;
mod shared;
mod snapshot;
mod state;
mod status;
mod status_changes;
mod subscription;
#[cfg(feature = "metrics")]
mod told;
mod twins;
mod view;
mod wait;
#[cfg(feature = "status")]
mod whole;
mod writer;

#[cfg(test)]
mod tests;

pub use self::{
    cause::RemovalCause,
    change::{Change, ChangeKind},
    changes::Changes,
    consumer::{Consumer, Transition, TransitionKind},
    counters::SubscriptionCounters,
    explain::{Finding, SubscriptionExplanation},
    options::{MassDrop, OnAllUnhealthy, Options},
    services::{ServiceChange, ServiceChanges, ServiceList, ServiceNames},
    snapshot::{Entry, Generation, Mode, Revision, Snapshot, Standing},
    status::Status,
    status_changes::StatusChanges,
    subscription::Subscription,
    wait::{AppliedError, ReadyError, WaitForError, WaitUntilError},
    writer::{Writer, channel},
};
pub(crate) use self::{
    marks::Marks,
    owner::Owner,
    services::{ListWriter, service_list},
    subscription::Attached,
};
pub use crate::model::Origin;
