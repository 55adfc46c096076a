//! The last list of each service on disk, so that a process can start while its registry is away.
//!
//! [`Keeper`] says when which service is written: no I/O, no clock. [`Cache`] is a thread that reads
//! and writes one file a service, whole or not at all. A file
//! holds what the local copy showed when last all of it was listed, not what was held then.
//!
//! Files are raw material, as lists are: whatever is wrong with one makes a line in the log and is as
//! if there were none.

mod checksum;
mod disk;
mod keeper;
mod name;
mod queue;
mod record;
mod store;
mod sweep;
mod worker;

#[cfg(test)]
mod tests;

#[cfg(feature = "testing")]
pub(crate) use self::{disk::Disk, store::Store};
pub(crate) use self::{
    keeper::{Keeper, Seen},
    store::{Found, Problem},
    worker::{Cache, Event},
};
