use std::sync::Arc;

use crate::{
    directory::{Generation, Revision, Snapshot},
    model::Address,
};

/// What happened to one instance between two snapshots, as far as a gate is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The instance.
    pub address: Address,
    /// Which presence of it. For an eviction the one that ended.
    pub generation: Generation,
    /// What happened.
    pub kind: TransitionKind,
    /// Where it stands in the next snapshot's entries; `None` for an eviction.
    pub entry: Option<usize>,
}

/// The kinds of [`Transition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransitionKind {
    /// This generation is gone for good.
    Evicted,
    /// Still listed, but no longer callable. Reversible.
    Closed,
    /// Callable again, or new and callable.
    Opened,
    /// Attributes changed (weight, cluster, metadata); callable as before.
    Updated,
}

/// Whoever holds endpoints of a subscription and must stop using one that left.
///
/// The directory holds consumers weakly and calls them while it publishes, under its writer's
/// lock: an implementation marks gates and wakes tasks, and never runs users' code, never blocks
/// and never calls back into the directory. For one revision the order of calls is
/// [`close`](Self::close), publication of the snapshot, [`reopen`](Self::reopen),
/// [`wake`](Self::wake).
pub trait Consumer: Send + Sync {
    /// `next` is about to be published. Closes the gates of what is evicted or closed in it, and
    /// from here on refuses to make an endpoint that `next` does not call callable.
    fn close(&self, next: &Arc<Snapshot>, transitions: &[Transition]);

    /// `now` is published. Opens the gates of what is callable again and takes over attributes.
    fn reopen(&self, now: &Arc<Snapshot>, transitions: &[Transition]);

    /// Something changed: whoever waits on this consumer should look again.
    fn wake(&self);

    /// The newest revision whose closed gates are all [quiet](crate::guide::glossary#of-a-list): no call is between being
    /// let in and the end of `Service::call` on any of them. Never newer than the last one given to `close`.
    fn quiet(&self) -> Revision;
}
