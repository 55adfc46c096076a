//! The local copy of the registry: what it listed, made into snapshots that readers share.
//!
//! One writer per service applies lists; any number of readers hold cheap clones of immutable
//! snapshots. Time is an argument everywhere.

mod consumer;
mod snapshot;

pub use self::{
    consumer::{Consumer, Transition, TransitionKind},
    snapshot::{Entry, Generation, Mode, Revision, Snapshot, Standing},
};
